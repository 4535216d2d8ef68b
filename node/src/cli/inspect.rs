//! `starling inspect`: what a model is made of, what it costs, where it is best cut.

use std::path::PathBuf;

use serde_json::json;
use starling_engine::{LayerRows, Model, Profile, RowRule};
use starling_protocol::{
    NodeId,
    cost::Provider,
    model::Speed,
    partition::{self, Goal, Worker},
};

use super::{Failure, input, out, report};
use crate::convert::{self, Shares};

/// Show what a model is made of, what it costs and where it is best cut
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  starling inspect model.onnx
  starling inspect model.onnx --json | jq '.layers[].flops'
  starling inspect model.onnx --image cat.jpg --json | jq .cut_bytes_sent")]
pub(super) struct Args {
    /// The model
    model: PathBuf,
    /// A picture like those to come: with --json the model computes it, and tells in how many bytes
    /// each tensor goes over links
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// An input like those to come; may be repeated for models of several inputs
    #[arg(long, value_name = "FILE.npy", conflicts_with = "image")]
    input: Vec<PathBuf>,
    /// Best cuts for up to this many equal machines
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=64))]
    pieces: u16,
}

pub(super) fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let model = super::open_model(&args.model)?;
    let profile = model.profile();
    let like = match &args.image {
        Some(image) => vec![input::read_image(image, &model)?],
        None if args.input.is_empty() => Vec::new(),
        None => input::read_tensors(&model, args.input.iter().map(PathBuf::as_path))?,
    };
    let cuts = best_cuts(&model, args.pieces);
    if json {
        let shares = if like.is_empty() {
            Shares::of_inputs(&model, &[])
        } else {
            Shares::measure(&model, like)?
        };
        out::object(&as_json(&model, &profile, &cuts, &shares))
    } else {
        out::text(&as_text(&model, &profile, &cuts))
    }
}

/// Cuts for 2, 3, ... equal machines, by work alone: (pieces, cut positions, gain over one).
fn best_cuts(model: &Model, pieces_max: u16) -> Vec<(u16, Vec<u16>, f64)> {
    let Some(profile) = convert::model_profile(model, &[]) else { return Vec::new() };
    let worker = |n: u16| Worker {
        node: NodeId([n as u8; 32]),
        provider: Provider {
            speed: USUAL,
            bandwidth: f64::INFINITY,
            byte_seconds: 0.0,
            memory_free: u64::MAX,
        },
        sharers: 1,
        room: u16::MAX,
    };
    let alone = partition::propose(&profile, &[worker(0)], Goal::Throughput, 1, 0.0);
    let counts = 2..=pieces_max.min(profile.layers());
    let best = counts.filter_map(|count| {
        let workers: Vec<Worker> = (0..count).map(worker).collect();
        let best = partition::balance(&profile, &workers)?;
        let inner = best.plan.pieces().iter().skip(1).map(|piece| piece.layers.first).collect();
        Some((count, inner, alone.as_ref()?.bottleneck / best.bottleneck))
    });
    best.collect()
}

/// Tensors go over links in these shares of their bytes.
fn as_json(
    model: &Model,
    profile: &Profile,
    cuts: &[(u16, Vec<u16>, f64)],
    shares: &Shares,
) -> serde_json::Value {
    let layers = profile.layers.iter().map(|layer| {
        json!({
            "name": layer.name,
            "op": layer.op,
            "class": layer.class.name(),
            "flops": layer.flops,
            "work": layer.work,
            "weight_bytes": layer.weight_bytes,
            "output_shape": layer.output_shape,
            "output_bytes": layer.output_bytes,
        })
    });
    let frontiers: Vec<u64> = profile.cuts.iter().map(|cut| cut.bytes).collect();
    let sent: Vec<u64> =
        frontiers.iter().enumerate().map(|(at, bytes)| shares.of_cut(at, *bytes)).collect();
    let tensors = |infos: &[starling_engine::TensorInfo]| -> Vec<serde_json::Value> {
        infos.iter().map(|info| json!({"name": info.name, "type": info.dtype.to_string(), "shape": info.shape})).collect()
    };
    let best = cuts.iter().map(|(pieces, cuts, gain)| {
        json!({"pieces": pieces, "cuts": cuts, "gain": report::round3(*gain)})
    });
    json!({
        "model": model.name(),
        "id": model.id().to_hex().as_str(),
        "inputs": tensors(model.inputs()),
        "outputs": tensors(model.outputs()),
        "flops": profile.layers.iter().map(|layer| layer.flops).sum::<u64>(),
        "weight_bytes": profile.layers.iter().map(|layer| layer.weight_bytes).sum::<u64>(),
        "layers": layers.collect::<Vec<_>>(),
        "cut_bytes": frontiers,
        "cut_bytes_sent": sent,
        "rows": rows_as_json(model, shares),
        "best_cuts": best.collect::<Vec<_>>(),
    })
}

/// What strips need to know: the tensors' heights, and how layers' rows follow from each other's.
fn rows_as_json(model: &Model, shares: &Shares) -> serde_json::Value {
    let graph = model.row_graph();
    let tensors = graph.tensors.iter().enumerate().map(|(at, (height, row_bytes))| {
        let sent = shares.of_row(at, *row_bytes);
        json!({"height": height, "row_bytes": row_bytes, "row_bytes_sent": sent})
    });
    let layers = graph.layers.iter().map(|layer| {
        let rules = match &layer.rows {
            LayerRows::View | LayerRows::Whole => None,
            LayerRows::Split(rules) => Some(rules.iter().map(rule_as_json).collect::<Vec<_>>()),
        };
        json!({
            "inputs": layer.inputs,
            "outputs": layer.outputs,
            "rules": rules,
            "view": matches!(layer.rows, LayerRows::View),
            "row_weight_bytes": layer.row_weight_bytes,
        })
    });
    json!({
        "tensors": tensors.collect::<Vec<_>>(),
        "layers": layers.collect::<Vec<_>>(),
        "frontiers": graph.frontiers,
    })
}

fn rule_as_json(rule: &RowRule) -> serde_json::Value {
    match rule {
        RowRule::All => json!("all"),
        RowRule::Same => json!("same"),
        RowRule::Window(window) => json!({
            "kernel": window.kernel,
            "stride": window.stride,
            "dilation": window.dilation,
            "before": window.before,
        }),
    }
}

fn as_text(model: &Model, profile: &Profile, cuts: &[(u16, Vec<u16>, f64)]) -> String {
    let flops: u64 = profile.layers.iter().map(|layer| layer.flops).sum();
    let weights: u64 = profile.layers.iter().map(|layer| layer.weight_bytes).sum();
    let shapes = |infos: &[starling_engine::TensorInfo]| -> String {
        let list: Vec<String> =
            infos.iter().map(|info| format!("{} {:?}", info.name, info.shape)).collect();
        list.join(", ")
    };
    let mut text = format!(
        "model    {}\nid       {}\ninputs   {}\noutputs  {}\ntotal    {} layers, {}FLOP, {}B of weights\n\n",
        model.name(),
        model.id().to_hex(),
        shapes(model.inputs()),
        shapes(model.outputs()),
        profile.layers.len(),
        report::human(flops as f64),
        report::human(weights as f64),
    );
    text += "layer  op                 output shape            FLOP   weights B   cut after B\n";
    for (at, layer) in profile.layers.iter().enumerate() {
        text += &format!(
            "{at:>5}  {:<17}  {:<19}  {:>9}  {:>10}  {:>12}\n",
            layer.op,
            format!("{:?}", layer.output_shape),
            report::human(layer.flops as f64),
            report::human(layer.weight_bytes as f64),
            report::human(profile.cuts[at + 1].bytes as f64),
        );
    }
    text += "\nbest cuts for equal machines (by work alone; a cut is before its layer)\n";
    for (pieces, cuts, gain) in cuts {
        let cuts: Vec<String> = cuts.iter().map(ToString::to_string).collect();
        text += &format!("  {pieces} pieces: {:<30} {gain:.2}x one machine\n", cuts.join(", "));
    }
    text
}

/// How fast processors are at one class of work relative to another, more or less: only the
/// proportions matter where all machines are equal.
const USUAL: Speed =
    Speed([6_000_000_000, 6_000_000_000, 2_500_000_000, 400_000_000, 1_000_000_000]);
