//! `starling infer`: a model on an image or a tensor, through the flock or locally.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesOrdered};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use starling_engine::{DType, Model, Piece, Tensor, npy};
use starling_protocol::{
    NodeId,
    node::Offering,
    session::{Agreement, Planning},
};

use super::{
    Failure,
    flock::{self, FlockArgs},
    input,
    labels::{Guess, Labels},
    planning::PlanArgs,
    report,
};
use crate::{
    net::Timing,
    runtime::{Answer, Identity, SessionHandle, SessionNews, Started},
    work::{Done, Job, WorkConfig, Worker},
};

/// Run a model on an image or a tensor, through the flock or locally
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  starling infer model.onnx --image cat.jpg
  starling infer model.onnx --image cat.jpg --image dog.png --repeat 50
  starling infer model.onnx --input x.npy --output y.npy
  starling infer model.onnx --image cat.jpg --local")]
pub(super) struct Args {
    /// The model
    model: PathBuf,
    /// A JPEG or PNG picture for an image classifier; may be repeated
    #[arg(long, value_name = "FILE", required_unless_present = "input")]
    image: Vec<PathBuf>,
    /// An input tensor, f32; may be repeated for models of several inputs
    #[arg(long, value_name = "FILE.npy", conflicts_with = "image")]
    input: Vec<PathBuf>,
    /// Where to write the output tensor
    #[arg(long, value_name = "FILE.npy")]
    output: Option<PathBuf>,
    /// Run each input this many times, pipelined
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    /// Compute on this machine alone, without any network
    #[arg(long)]
    local: bool,
    /// Let others compute everything: this machine only asks
    #[arg(long, conflicts_with = "local")]
    no_compute: bool,
    /// Names of the classes, one a line [default: ImageNet's for 1000 classes]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Seconds to look for nodes at most
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    wait: f64,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    flock: FlockArgs,
}

/// What came of all the inferences of one command.
struct Outcome {
    /// The last answer for each input.
    answers: Vec<Answer>,
    traces: Vec<Vec<Timing>>,
    elapsed: Duration,
    /// The plan; nothing for a local run.
    agreement: Option<Agreement>,
    lost: Vec<NodeId>,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let model = super::open_model(&args.model)?;
    let labels = Labels::load(args.labels.as_deref())?;
    let inputs = read_inputs(&args, &model)?;
    let outcome = if args.local {
        args.plan.refuse("--local")?;
        run_locally(&args, &model, &inputs).await?
    } else {
        run_through_flock(&args, &model, &inputs).await?
    };
    if let Some(path) = &args.output {
        write_output(path, &outcome.answers)?;
    }
    print(&args, json, &outcome, &labels)
}

/// Seconds on the command line.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0 to 3600".to_owned()),
    }
}

/// Waits for the plan of a session, telling `watch` of everything on the way.
pub(super) async fn until_ready(
    session: &mut SessionHandle,
    mut watch: impl FnMut(&SessionNews),
) -> Result<Agreement, Failure> {
    while let Some(news) = session.next().await {
        watch(&news);
        match news {
            SessionNews::Ready(agreement) => return Ok(agreement),
            SessionNews::Failed(reason) => return Err(Failure(reason)),
            SessionNews::Agreed(_) | SessionNews::ProviderLost(_) => {}
        }
    }
    Err(Failure("the node has stopped".to_owned()))
}

fn read_inputs(args: &Args, model: &Model) -> Result<Vec<Vec<Tensor>>, Failure> {
    if args.input.is_empty() {
        return args.image.iter().map(|path| Ok(vec![input::read_image(path, model)?])).collect();
    }
    let paths = args.input.iter().map(PathBuf::as_path);
    Ok(vec![input::read_tensors(model, paths)?])
}

async fn run_locally(
    args: &Args,
    model: &Model,
    inputs: &[Vec<Tensor>],
) -> Result<Outcome, Failure> {
    let worker = Worker::start(WorkConfig {
        threads: args.flock.threads(),
        throttle: args.flock.throttle(),
        options: args.flock.options(),
    })?;
    let piece = Arc::new(Piece::load(model, 0..model.layers().len(), args.flock.options())?);
    let bar = progress(u64::from(args.repeat) * inputs.len() as u64);
    let began = Instant::now();
    let mut answers = Vec::new();
    for tensors in inputs {
        let mut last = None;
        for _ in 0..args.repeat {
            last = Some(run_once(&worker, &piece, tensors).await?);
            bar.inc(1);
        }
        answers.extend(last);
    }
    bar.finish_and_clear();
    Ok(Outcome {
        answers,
        traces: Vec::new(),
        elapsed: began.elapsed(),
        agreement: None,
        lost: Vec::new(),
    })
}

async fn run_once(
    worker: &Worker,
    piece: &Arc<Piece>,
    inputs: &[Tensor],
) -> Result<Answer, Failure> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let done = Box::new(move |done: Done| drop(tell.send(done)));
    let job = Job { piece: piece.clone(), inputs: inputs.to_vec(), queued: Instant::now(), done };
    if !worker.run(job) {
        return Err(Failure("the compute thread is busy".to_owned()));
    }
    let done = told.await?;
    Ok(Answer { outputs: done.outputs?, trace: Vec::new(), total: done.compute })
}

async fn run_through_flock(
    args: &Args,
    model: &Model,
    inputs: &[Vec<Tensor>],
) -> Result<Outcome, Failure> {
    let inferences = u64::from(args.repeat) * inputs.len() as u64;
    let planning = args.plan.planning(model, inferences)?;
    let offering = if args.no_compute { Offering::Nobody } else { Offering::Own };
    let mut started = args.flock.start(offering, Identity::Passing).await?;
    let result = tokio::select! {
        result = infer(args, &mut started, model, planning, inputs) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure("interrupted".to_owned())),
    };
    started.handle.leave().await;
    result
}

async fn infer(
    args: &Args,
    started: &mut Started,
    model: &Model,
    planning: Planning,
    inputs: &[Vec<Tensor>],
) -> Result<Outcome, Failure> {
    find_peers(args, started).await?;
    let mut session = started.handle.open(model, planning).await?;
    let spinner = spinner("agreeing on who computes what");
    let mut agreed = None;
    let ready = until_ready(&mut session, |news| {
        if let SessionNews::Agreed(agreement) = news {
            spinner.set_message("providers load their pieces");
            agreed = Some(agreement.clone());
        }
    })
    .await;
    spinner.finish_and_clear();
    let mut agreement = ready?;
    if let Some(agreed) = agreed {
        agreement = Agreement { pieces: agreement.pieces, ..agreed };
    }
    let bar = progress(u64::from(args.repeat) * inputs.len() as u64);
    let began = Instant::now();
    let (answers, traces) = stream(&session, inputs, args.repeat, &bar).await?;
    let elapsed = began.elapsed();
    bar.finish_and_clear();
    let mut lost = Vec::new();
    while let Ok(Some(news)) = tokio::time::timeout(Duration::ZERO, session.next()).await {
        match news {
            SessionNews::ProviderLost(node) => lost.push(node),
            // A later plan: the one that the last answers came through.
            SessionNews::Ready(now) => agreement.pieces = now.pieces,
            SessionNews::Agreed(_) | SessionNews::Failed(_) => {}
        }
    }
    session.close().await;
    Ok(Outcome { answers, traces, elapsed, agreement: Some(agreement), lost })
}

/// Runs every input `repeat` times, as many at a time as the plan takes.
pub(super) async fn stream(
    session: &SessionHandle,
    inputs: &[Vec<Tensor>],
    repeat: u32,
    bar: &ProgressBar,
) -> Result<(Vec<Answer>, Vec<Vec<Timing>>), Failure> {
    let mut answers = Vec::new();
    let mut traces = Vec::new();
    for tensors in inputs {
        let mut waiting = FuturesOrdered::new();
        let mut last = None;
        let mut left = repeat;
        while left > 0 || !waiting.is_empty() {
            while left > 0 && waiting.len() < REQUESTS_AHEAD {
                waiting.push_back(session.infer(tensors.clone()).await?);
                left -= 1;
            }
            if let Some(received) = waiting.next().await {
                let answer: Answer = received??;
                traces.push(answer.trace.clone());
                last = Some(answer);
                bar.inc(1);
            }
        }
        answers.extend(last);
    }
    Ok((answers, traces))
}

/// Waits until somebody is there, no fewer than the user has named, and nobody new has come for a
/// while; or until the patience is over.
async fn find_peers(args: &Args, started: &mut Started) -> Result<(), Failure> {
    let spinner = spinner("looking for nodes");
    let patience = Duration::from_secs_f64(args.wait);
    let quiet = Duration::from_millis(600);
    let mut known = 0;
    let mut since = Instant::now();
    let expected = args.flock.peers().max(1);
    let settled = |known: usize, since: Instant| known >= expected && since.elapsed() >= quiet;
    let until = Instant::now() + patience;
    while Instant::now() < until {
        let snapshot = started.handle.snapshot().await?;
        let providers = snapshot.peers.iter().filter(|peer| peer.slots > 0).count();
        if providers != known {
            (known, since) = (providers, Instant::now());
        }
        if settled(providers, since) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    spinner.finish_and_clear();
    while let Ok(told) = started.news.try_recv() {
        if let Some(warning) = flock::warn_of_unreachable(&told) {
            eprintln!("warning: {warning}");
        }
    }
    if known == 0 && args.no_compute {
        let reached = if args.flock.peers() > 0 { "behind --peer" } else { "on the local network" };
        return Err(Failure(format!(
            "no node that offers compute was found {reached} within {} s: start one with \
             `starling node`, wait longer with --wait, or compute here without --no-compute",
            args.wait
        )));
    }
    Ok(())
}

fn write_output(path: &Path, answers: &[Answer]) -> Result<(), Failure> {
    let last = answers.last().and_then(|answer| answer.outputs.first());
    let tensor = last.ok_or_else(|| Failure("the model gave no output".to_owned()))?;
    npy::write(path, tensor)?;
    Ok(())
}

fn names(args: &Args) -> Vec<String> {
    let files = if args.input.is_empty() { args.image.as_slice() } else { &args.input[..1] };
    files.iter().map(|path| path.display().to_string()).collect()
}

fn guesses(outcome: &Outcome, labels: &Labels) -> Vec<Vec<Guess>> {
    let top = |answer: &Answer| match answer.outputs.first() {
        Some(scores) if scores.dtype() == DType::F32 => labels.top(scores.as_f32(), TOP),
        _ => Vec::new(),
    };
    outcome.answers.iter().map(top).collect()
}

fn print(args: &Args, json: bool, outcome: &Outcome, labels: &Labels) -> Result<(), Failure> {
    let per_s =
        f64::from(args.repeat) * outcome.answers.len() as f64 / outcome.elapsed.as_secs_f64();
    let timings = report::timings(&outcome.traces);
    let pieces = outcome.agreement.as_ref().map(report::pieces).unwrap_or_default();
    let auction = outcome.agreement.as_ref().map(report::AuctionReport::of);
    if json {
        let results: Vec<serde_json::Value> = names(args)
            .into_iter()
            .zip(guesses(outcome, labels))
            .zip(&outcome.answers)
            .map(|((file, top), answer)| {
                let latency_ms = report::millis(answer.total.as_secs_f64());
                json!({"file": file, "top": top, "latency_ms": latency_ms})
            })
            .collect();
        let whole = json!({
            "results": results,
            "per_s": report::round3(per_s),
            "local": args.local,
            "auction": auction,
            "pieces": pieces,
            "timings": timings,
            "providers_lost": outcome.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(());
    }
    for (file, top) in names(args).into_iter().zip(guesses(outcome, labels)) {
        println!("{file}");
        for guess in top {
            println!("  {:>5.1} %  {} ({})", guess.probability * 100.0, guess.label, guess.class);
        }
    }
    if let Some(auction) = auction {
        println!("\nplan: {}", auction.line());
        print!("{}", report::pieces_table(&pieces, &str::to_owned));
        println!("\ntime of each piece (medians)");
        print!("{}", report::timings_table(&timings));
    }
    for node in &outcome.lost {
        println!("\nnode {node} was lost on the way; its pieces moved");
    }
    let latency = outcome.answers.last().map_or(Duration::ZERO, |answer| answer.total);
    println!("\nlatency {:.1} ms, {per_s:.2} inferences/s", latency.as_secs_f64() * 1e3);
    Ok(())
}

/// A bar for a known number of inferences; hidden for a single one, and where nobody looks.
pub(super) fn progress(total: u64) -> ProgressBar {
    if total <= 1 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {bar:40} {pos}/{len} inferences  {per_sec}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A sign of life while something takes a while.
pub(super) fn spinner(message: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

const TOP: usize = 3;
/// How many requests are handed to the node ahead of their answers.
const REQUESTS_AHEAD: usize = 256;
