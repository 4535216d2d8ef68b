//! `starling peers`: who is there, how fast, how loaded.

use std::time::Duration;

use serde_json::json;
use starling_protocol::node::Offering;

use super::{Failure, flock::FlockArgs, out, report};
use crate::runtime::{Identity, PeerView};

/// Show who is in the flock, how fast and how loaded
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  starling peers
  starling peers --wait 5 --json")]
pub(super) struct Args {
    #[command(flatten)]
    flock: FlockArgs,
    /// Seconds to listen for others
    #[arg(long, value_name = "SECONDS", default_value_t = 6.0, value_parser = super::find::seconds)]
    wait: f64,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let started = args.flock.start(Offering::Nobody, Identity::Passing).await?;
    tokio::time::sleep(Duration::from_secs_f64(args.wait)).await;
    let peers = started.handle.snapshot().await?.peers;
    started.handle.leave().await;
    if json {
        let peers: Vec<serde_json::Value> = peers.iter().map(as_json).collect();
        out::object(&json!({ "peers": peers }))
    } else if peers.is_empty() {
        out::line(format_args!(
            "nobody within {} s; start a node elsewhere with `starling node`",
            args.wait
        ))
    } else {
        out::text(&table(&peers))
    }
}

fn as_json(peer: &PeerView) -> serde_json::Value {
    json!({
        "node": peer.node.to_string(),
        "flops_per_s": peer.speed.0,
        "pieces": peer.holders,
        "slots": peer.slots,
        "memory_free": peer.memory_free,
        "bandwidth": peer.bandwidth,
        "byte_ps": peer.byte_ps,
        "ask": peer.ask,
    })
}

fn table(peers: &[PeerView]) -> String {
    let mut table =
        "node       dense FLOP/s  pieces  memory free      link  per byte      ask\n".to_owned();
    for peer in peers {
        let ask = peer.ask.map_or_else(|| "closed".to_owned(), |ask| format!("{ask:.2}"));
        table += &format!(
            "{}   {:>12}  {:>2}/{:<3}  {:>9} MiB  {:>3} Mb/s  {:>5.1} ns  {:>7}\n",
            peer.node,
            report::human(peer.speed.0[0] as f64),
            peer.holders,
            peer.slots,
            peer.memory_free >> 20,
            peer.bandwidth * 8 / 1_000_000,
            f64::from(peer.byte_ps) / 1000.0,
            ask
        );
    }
    table
}
