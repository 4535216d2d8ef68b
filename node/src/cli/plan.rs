//! `starling plan`: how a model would be divided among the nodes that are here now.

use std::path::PathBuf;

use serde_json::{Value, json};
use starling_engine::Tensor;
use starling_protocol::{
    NodeId,
    model::ModelProfile,
    node::Offering,
    partition::{Goal, Planner, Proposal},
    plan::Piece,
};

use super::{Failure, find::FindArgs, flock::FlockArgs, input, out, planning::PlanArgs, report};
use crate::{
    convert,
    runtime::{Identity, PeerView, Started},
};

/// Preview how a model would be divided among the nodes that are here now
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  starling plan model.onnx
  starling plan model.onnx --planner edgeci --goal latency
  starling plan model.onnx --goal throughput --image cat.jpg --json")]
pub(super) struct Args {
    /// The model
    model: PathBuf,
    /// A picture like those to come, which links carry in a quarter of the bytes of other tensors
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Let others compute everything: this machine only asks
    #[arg(long)]
    no_compute: bool,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    find: FindArgs,
    #[command(flatten)]
    flock: FlockArgs,
}

/// What a planner came to: the plans of a stream's lanes, or one; none if it can't.
struct Preview {
    planner: Planner,
    lanes: Vec<Proposal>,
}

impl Preview {
    /// Seconds of one inference, through the fastest lane; infinite where there is no plan.
    fn latency(&self) -> f64 {
        self.lanes.iter().map(|lane| lane.latency).fold(f64::INFINITY, f64::min)
    }

    /// Inferences per second of all lanes together; 0 where there is no plan.
    fn per_s(&self) -> f64 {
        self.lanes.iter().map(|lane| 1.0 / lane.bottleneck).sum()
    }

    fn pieces(&self) -> usize {
        self.lanes.iter().map(|lane| lane.plan.pieces().len()).sum()
    }
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let model = super::open_model(&args.model)?;
    let like = args.image.as_deref().map(|path| input::read_image(path, &model)).transpose()?;
    let like: Vec<Tensor> = like.into_iter().collect();
    let profile = convert::model_profile(&model, &like).ok_or("the model has no layers")?;
    let offering = if args.no_compute { Offering::Nobody } else { Offering::Own };
    let mut started = args.flock.start(offering, Identity::Passing).await?;
    let found = args.find.peers(&args.flock, &mut started, args.no_compute).await;
    let previews = previews(&args, &started, &profile).await;
    let snapshot = started.handle.snapshot().await;
    started.handle.leave().await;
    found?;
    let (previews, peers) = (previews?, snapshot?.peers);
    let chosen = previews.iter().find(|preview| preview.planner == args.plan.planner());
    let chosen = chosen.filter(|preview| !preview.lanes.is_empty()).ok_or_else(|| {
        Failure(format!(
            "{} finds no plan: nobody who can compute the model is here, or not enough of them",
            args.plan.planner()
        ))
    })?;
    let goal = args.plan.goal(Goal::Latency);
    let advice = advice(chosen, &previews, goal, &profile, &peers);
    let local = started.handle.local();
    if json {
        out::object(&as_json(chosen, &previews, &advice, &profile))
    } else {
        out::text(&as_text(chosen, &previews, &profile, local))?;
        out::line(format_args!("\n{advice}"))
    }
}

/// Those that people would compare, and the one that was asked for.
async fn previews(
    args: &Args,
    started: &Started,
    profile: &ModelProfile,
) -> Result<Vec<Preview>, Failure> {
    let mut planners = COMPARED.to_vec();
    if !planners.contains(&args.plan.planner()) {
        planners.push(args.plan.planner());
    }
    let goal = args.plan.goal(Goal::Latency);
    let mut previews = Vec::new();
    for planner in planners {
        let lanes = started.handle.preview(profile, planner, goal).await?;
        previews.push(Preview { planner, lanes });
    }
    Ok(previews)
}

/// One plain sentence.
fn advice(
    chosen: &Preview,
    previews: &[Preview],
    goal: Goal,
    profile: &ModelProfile,
    peers: &[PeerView],
) -> String {
    let alone = [Planner::Local, Planner::Single];
    let singles = previews.iter().filter(|preview| alone.contains(&preview.planner));
    let time = |preview: &Preview| match goal {
        Goal::Latency => preview.latency(),
        Goal::Throughput => 1.0 / preview.per_s(),
    };
    let best = singles.filter(|preview| !preview.lanes.is_empty()).map(time);
    let Some(best) = best.min_by(f64::total_cmp) else {
        return "no single machine can hold this model: only together can they compute it"
            .to_owned();
    };
    let gain = best / time(chosen);
    if gain > 1.0 + GAIN_MIN {
        return format!("{gain:.2}x the best single machine");
    }
    let Some(slowest) = peers.iter().map(|peer| peer.bandwidth).min() else {
        return "solo: nobody else is here".to_owned();
    };
    format!(
        "one machine is as fast here: {} kB cross a cut in the middle for every inference, and the \
         slowest link carries {} Mbit/s",
        profile.bytes_across(profile.layers() / 2, &[]) / 1000,
        slowest * 8 / 1_000_000
    )
}

fn as_json(chosen: &Preview, previews: &[Preview], advice: &str, profile: &ModelProfile) -> Value {
    let pieces = placed(chosen).map(|(lane, piece, node)| {
        let cost = profile.piece(piece);
        json!({
            "lane": lane,
            "layers": [piece.layers.first, piece.layers.end - 1],
            "rows": piece.rows.first().map(|rows| [rows.first, rows.end.saturating_sub(1)]),
            "provider": node.to_string(),
            "bytes_in": cost.bytes_in,
            "bytes_out": cost.bytes_out,
            "weight_bytes": cost.weight_bytes,
        })
    });
    let compared = previews.iter().map(|preview| {
        let found = Some(preview).filter(|preview| !preview.lanes.is_empty());
        json!({
            "planner": preview.planner.name(),
            "lanes": found.map(|preview| preview.lanes.len()),
            "pieces": found.map(Preview::pieces),
            "latency_ms": found.map(|preview| report::round3(preview.latency() * 1e3)),
            "per_s": found.map(|preview| report::round3(preview.per_s())),
        })
    });
    json!({
        "pieces": pieces.collect::<Vec<_>>(),
        "latency_ms": report::round3(chosen.latency() * 1e3),
        "per_s": report::round3(chosen.per_s()),
        "planners": compared.collect::<Vec<_>>(),
        "advice": advice,
    })
}

/// The pieces of all lanes with their providers.
fn placed(chosen: &Preview) -> impl Iterator<Item = (usize, &Piece, &NodeId)> {
    let lanes = chosen.lanes.iter().enumerate();
    lanes.flat_map(|(number, lane)| {
        lane.plan.pieces().iter().zip(&lane.order).map(move |(piece, node)| (number, piece, node))
    })
}

fn as_text(
    chosen: &Preview,
    previews: &[Preview],
    profile: &ModelProfile,
    local: NodeId,
) -> String {
    let mut text = format!(
        "{}: {:.1} ms for one inference, {:.2} inferences/s in a stream (predicted)\n",
        chosen.planner,
        chosen.latency() * 1e3,
        chosen.per_s()
    );
    if chosen.lanes.len() > 1 {
        let lanes = chosen.lanes.len();
        text += &format!("{lanes} lanes: each inference goes through one of them\n");
    }
    text += "\n  lane   layers       rows  provider        in kB    out kB   weights\n";
    for (lane, piece, node) in placed(chosen) {
        let cost = profile.piece(piece);
        let rows = piece.rows.first();
        let rows = rows.map_or_else(|| "all".to_owned(), |r| format!("{}-{}", r.first, r.end - 1));
        let name = if *node == local { "this machine".to_owned() } else { node.to_string() };
        text += &format!(
            "  {lane:>4}  {:>7}  {rows:>9}  {name:<12}  {:>8}  {:>8}  {:>7}\n",
            format!("{}-{}", piece.layers.first, piece.layers.end - 1),
            cost.bytes_in / 1000,
            cost.bytes_out / 1000,
            report::human(cost.weight_bytes as f64),
        );
    }
    text += "\n  planner         lanes   pieces   latency ms   per second\n";
    for preview in previews {
        let row = match preview.lanes.len() {
            0 => "     -        -            -            -".to_owned(),
            lanes => {
                let (pieces, latency) = (preview.pieces(), preview.latency() * 1e3);
                format!("{lanes:>6}   {pieces:>6}   {latency:>10.1}   {:>10.2}", preview.per_s())
            }
        };
        text += &format!("  {:<13}  {row}\n", preview.planner.name());
    }
    text
}

/// Ours, those of the papers, and one machine alone.
const COMPARED: [Planner; 6] = [
    Planner::Pf,
    Planner::Dina,
    Planner::EdgeCi,
    Planner::Neurosurgeon,
    Planner::Single,
    Planner::Local,
];
/// Less is not worth the trouble.
const GAIN_MIN: f64 = 0.02;
