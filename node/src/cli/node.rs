//! `starling node`: joins and offers compute until stopped.

use serde_json::json;
use starling_protocol::{model::Speed, node::Offering};
use tokio::sync::{broadcast::error::RecvError, oneshot};

use super::{
    Failure,
    flock::{self, FlockArgs},
    out, report,
};
use crate::runtime::{Identity, News};

/// Join the flock and offer compute until stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  starling node
  starling node --throttle 0.3                         be a weaker board
  starling node --peer /ip4/10.0.0.7/tcp/4001          join a flock elsewhere
  starling node --listen /ip4/127.0.0.1/tcp/0 --no-mdns")]
pub(super) struct Args {
    #[command(flatten)]
    flock: FlockArgs,
    /// Stop when stdin closes: for a parent process that must not leave nodes behind
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let mut started = args.flock.start(Offering::Everyone, Identity::Kept).await?;
    say(json, &json!({"event": "started", "node": started.handle.local().to_string()}), || {
        format!("node {} (stop with Ctrl-C)", started.handle.local())
    });
    let stop = stop_signal(args.until_stdin_closes);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            told = started.news.recv() => match told {
                Ok(told) => tell(json, &told),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(Failure("the node has stopped".to_owned())),
            },
            () = &mut stop => break,
        }
    }
    started.handle.leave().await;
    started.running.await?;
    say(json, &json!({"event": "stopped"}), || "left the flock".to_owned());
    Ok(())
}

fn tell(json: bool, news: &News) {
    match news {
        News::Listening(address) => {
            say(json, &json!({"event": "listening", "address": address.to_string()}), || {
                format!("listening on {address}")
            });
        }
        News::Calibrated(speed) => {
            say(json, &json!({"event": "calibrated", "flops_per_s": speed.0}), || {
                calibrated(speed)
            });
        }
        News::Hosting { piece, layers, model, memory } => {
            let (first, last) = (layers.first, layers.end - 1);
            let event = json!({
                "event": "hosting",
                "piece": piece.to_string(),
                "layers": [first, last],
                "model": model.to_string(),
                "weight_bytes": memory.weights,
                "activation_bytes": memory.activations,
            });
            say(json, &event, || {
                let bytes = report::human((memory.weights + memory.activations) as f64);
                format!(
                    "computing layers {first}-{last} of model {model} as piece {piece}, {bytes}B"
                )
            });
        }
        News::Dropped { piece } => {
            say(json, &json!({"event": "dropped", "piece": piece.to_string()}), || {
                format!("piece {piece} dropped")
            });
        }
        News::Joined(node) => {
            say(json, &json!({"event": "joined", "node": node.to_string()}), || {
                format!("node {node} joined")
            });
        }
        News::Left(node) => {
            say(json, &json!({"event": "left", "node": node.to_string()}), || {
                format!("node {node} left")
            });
        }
        News::Unreachable { .. } => {
            if let Some(warning) = flock::warn_of_unreachable(news) {
                out::complain(format_args!("warning: {warning}"));
            }
        }
    }
}

fn calibrated(speed: &Speed) -> String {
    let per_class = ["dense", "pointwise", "depthwise", "linear", "memory"].iter().zip(speed.0);
    let list: Vec<String> = per_class
        .map(|(class, flops)| format!("{class} {}", report::human(flops as f64)))
        .collect();
    format!("offering compute, FLOP/s: {}", list.join(", "))
}

fn say(json: bool, machine: &serde_json::Value, person: impl FnOnce() -> String) {
    // A node whose log is full still computes.
    if json { out::line(machine) } else { out::line(person()) }.ok();
}

/// Ctrl-C, a polite kill, or (if wished) the end of stdin.
async fn stop_signal(stdin_too: bool) {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("the runtime handles signals");
    let stdin_closes = async {
        if !stdin_too || stdin_end().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        () = stdin_closes => {}
    }
}

/// A thread of its own: a read from stdin can't be given up.
fn stdin_end() -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        tell.send(()).ok();
    });
    told
}
