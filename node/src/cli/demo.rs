//! `starling demo`: a flock of real node processes on loopback, unequal like boards of different
//! strength, classifying the bundled images. This process only asks.

mod children;
mod measure;

use std::time::Duration;

use serde::Serialize;
use starling_engine::{Bytes, Model, Piece, Tensor, picture};
use starling_protocol::{partition::Goal, session::Agreement};

use super::{
    Failure, flock, infer,
    labels::{Guess, Labels},
    out,
    planning::PlanArgs,
    report::{self, AuctionReport, PieceReport},
};
use crate::runtime::{self, PeerView, SessionNews, Started};
use children::Children;

/// Run a whole flock of node processes on this machine and classify images through it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  starling demo
  starling demo --nodes 3 --json
  starling demo --planner edgeci --goal latency")]
pub(super) struct Args {
    /// How many node processes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=16))]
    nodes: u16,
    /// Inferences for the throughput
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    inferences: u32,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    nodes: u16,
    discovery_ms: f64,
    auction: AuctionReport,
    pieces: Vec<PieceReport>,
    jain: f64,
    images: Vec<ImageReport>,
    throughput: measure::Throughput,
}

#[derive(Debug, Serialize)]
struct ImageReport {
    file: String,
    top: Vec<Guess>,
    max_abs_diff: f32,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    // Dropped last, whatever happens: no child outlives the demo.
    let mut children = Children::default();
    let result = tokio::select! {
        result = show(&args, json, &mut children) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure("interrupted; every node was stopped".to_owned())),
    };
    children.stop().await;
    result
}

async fn show(args: &Args, json: bool, children: &mut Children) -> Result<(), Failure> {
    let say = |text: &str| {
        if !json {
            out::line(text).ok();
        }
    };
    let model = Model::parse(Bytes::from_static(MODEL), "efficientnet-lite0.onnx")?;
    let labels = Labels::load(None)?;
    let shares = shares(args.nodes);
    say(&format!("starting {} node processes on 127.0.0.1", args.nodes));
    children.start(&shares).await?;
    let directory = children.directory()?;
    let started = runtime::start(flock::loopback(directory, children.addresses())?).await?;
    let (peers, discovery) = discover(&started, args.nodes).await?;
    say(&discovered(&peers, children, discovery));

    let planning = args.plan.planning(&model, Goal::Throughput)?;
    let side = side(&model)?;
    let inputs = IMAGES.iter().map(|(_, bytes)| picture::preprocess(bytes, side));
    let inputs = inputs.collect::<Result<Vec<Tensor>, _>>()?;
    let session = started.handle.open(&model, &inputs[..1], planning.clone()).await?;
    let agreement = agree(&session).await?;
    let auction = AuctionReport::of(&agreement);
    let pieces = report::pieces(&agreement);
    say(&format!("plan: {}; {}", report::shape(&pieces), auction.line()));
    say(&report::pieces_table(&pieces, &|id| children.describe(id)));
    say(&format!("Jain's index of the pieces' predicted rates: {:.3}\n", agreement.jain()));

    let whole = Piece::load(&model, 0..model.layers().len(), starling_engine::DeviceChoice::Cpu)?;
    let mut images = Vec::new();
    for ((file, _), input) in IMAGES.iter().zip(&inputs) {
        let answer = session.run(vec![input.clone()]).await.map_err(Failure)?;
        let local = whole.run(std::slice::from_ref(input))?;
        let top = labels.top(answer.outputs[0].as_f32(), 3);
        let max_abs_diff = largest_difference(&answer.outputs[0], &local[0]);
        let image = ImageReport { file: (*file).to_owned(), top, max_abs_diff };
        say(&described(&image));
        images.push(image);
    }
    session.close().await;

    let flock = measure::Flock { started: &started, model: &model, planning, nodes: args.nodes };
    let throughput = measure::throughput(&flock, &inputs, args.inferences, &say).await?;
    started.handle.leave().await;
    let report = Report {
        nodes: args.nodes,
        discovery_ms: report::millis(discovery.as_secs_f64()),
        auction,
        pieces,
        jain: report::round3(agreement.jain()),
        images,
        throughput,
    };
    if json {
        out::object(&report)?;
    }
    Ok(())
}

/// Waits for a session's plan. The auction's counts are those of the first agreement.
async fn agree(session: &runtime::Stream) -> Result<Agreement, Failure> {
    let spinner = infer::spinner("agreeing on who computes what");
    let mut first = None;
    let ready = infer::until_ready(session, |news| {
        if let SessionNews::Agreed(agreement) = news {
            spinner.set_message("providers fetch and load their pieces");
            first.get_or_insert_with(|| agreement.clone());
        }
    })
    .await;
    spinner.finish_and_clear();
    let mut ready = ready?;
    let counts = first.unwrap_or_else(|| ready.clone());
    // The first lane is ready; whoever looks at the plan wants to see all.
    let until = tokio::time::Instant::now() + LANES_MAX;
    while ready.pieces.len() < counts.pieces.len() {
        match tokio::time::timeout_at(until, session.next()).await {
            Ok(Some(SessionNews::Ready(now))) => ready = now,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    Ok(Agreement { pieces: ready.pieces, ..counts })
}

async fn discover(started: &Started, nodes: u16) -> Result<(Vec<PeerView>, Duration), Failure> {
    let began = std::time::Instant::now();
    let spinner = infer::spinner("nodes measure their speed and find each other");
    let enough = |peers: &[PeerView]| peers.len() >= usize::from(nodes);
    let peers = started.handle.wait_for_providers(DISCOVERY_MAX, enough).await?;
    spinner.finish_and_clear();
    if peers.len() < usize::from(nodes) {
        return Err(Failure(format!(
            "only {} of {nodes} nodes were found within {} s; try again, with --log info to see why",
            peers.len(),
            DISCOVERY_MAX.as_secs()
        )));
    }
    Ok((peers, began.elapsed()))
}

fn discovered(peers: &[PeerView], children: &Children, discovery: Duration) -> String {
    let mut text = format!("found all of them after {:.0} ms\n", discovery.as_secs_f64() * 1e3);
    for peer in peers {
        let name = children.describe(&peer.node.to_string());
        let speed = report::human(peer.speed.0[1] as f64);
        text += &format!("  {name:<22}  {speed:>7}FLOP/s on 1x1 convolutions\n");
    }
    text
}

fn described(image: &ImageReport) -> String {
    let mut text =
        format!("{}  (largest difference from a local run: {})\n", image.file, image.max_abs_diff);
    for guess in &image.top {
        text += &format!("  {:>5.1} %  {}\n", guess.probability * 100.0, guess.label);
    }
    text
}

fn side(model: &Model) -> Result<usize, Failure> {
    let input = model.inputs().first();
    let side = input.and_then(|input| input.shape.last().copied());
    side.ok_or_else(|| Failure("the bundled model takes no input".to_owned()))
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    a.as_f32().iter().zip(b.as_f32()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Shares of a core, unequal like boards of different strength, and together no more than the
/// machine has to spare: nodes that starve each other would measure the machine, not the flock.
fn shares(nodes: u16) -> Vec<f64> {
    let pattern = [0.5, 0.4, 0.3, 0.2];
    let shares: Vec<f64> = (0..nodes).map(|n| pattern[usize::from(n) % pattern.len()]).collect();
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let spare = cores * SPARE / shares.iter().sum::<f64>();
    shares.iter().map(|share| (share * spare.min(1.0) * 1e3).round() / 1e3).collect()
}

static MODEL: &[u8] = include_bytes!("../../assets/efficientnet-lite0.onnx");
static IMAGES: &[(&str, &[u8])] = &[
    ("chelsea.jpg", include_bytes!("../../assets/chelsea.jpg")),
    ("coffee.jpg", include_bytes!("../../assets/coffee.jpg")),
    ("camera.jpg", include_bytes!("../../assets/camera.jpg")),
];
/// How long to wait for all nodes, their calibration included.
const DISCOVERY_MAX: Duration = Duration::from_secs(30);
/// How long to wait for the other lanes, once one serves.
const LANES_MAX: Duration = Duration::from_secs(10);
/// The share of all cores that the nodes may use together.
const SPARE: f64 = 0.7;
