//! Pipelined throughput: the flock's plan, the best node alone, and all nodes with the whole
//! model each.

use std::time::Instant;

use serde::Serialize;
use starling_engine::{Model, Tensor};
use starling_protocol::{plan::Plan, session::Planning};

use crate::{
    cli::{Failure, infer, report},
    runtime::{Started, Stream},
};

#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    /// One model in pieces on the nodes that the plan chose.
    flock_per_s: f64,
    /// The whole model on the fastest node.
    best_node_per_s: f64,
    /// The whole model on every node: needs the memory for it on each.
    unsplit_per_s: f64,
    /// The flock's over the best node's.
    speedup: f64,
}

/// What is measured.
pub(super) struct Flock<'a> {
    pub(super) started: &'a Started,
    pub(super) model: &'a Model,
    /// How the model is divided.
    pub(super) planning: Planning,
    pub(super) nodes: u16,
}

pub(super) async fn throughput(
    flock: &Flock<'_>,
    inputs: &[Tensor],
    inferences: u32,
    say: &impl Fn(&str),
) -> Result<Throughput, Failure> {
    let Flock { started, model, planning, nodes } = flock;
    let input = inputs.first().ok_or("no input")?;
    say(&format!("pipelined throughput over {inferences} inferences"));
    let pieces = open(started, model, std::slice::from_ref(planning), input).await?;
    let flock = rate(&pieces, input, inferences).await?;
    close(pieces).await;
    say(&format!("  the flock, in pieces        {flock:>7.2} /s"));
    let layers = u16::try_from(model.layers().len())?;
    let whole = Planning::Fixed(Plan::from_cuts(layers, &[]).ok_or("a model of no layers")?);
    let everywhere = open(started, model, &vec![whole; usize::from(*nodes)], input).await?;
    let best = best_alone(&everywhere, input, inferences).await?;
    say(&format!("  the best node alone         {best:>7.2} /s"));
    let unsplit = rate(&everywhere, input, inferences).await?;
    close(everywhere).await;
    say(&format!("  every node, whole model     {unsplit:>7.2} /s"));
    let speedup = flock / best;
    say(&format!("  speed-up over the best node {speedup:>7.2} x"));
    Ok(Throughput {
        flock_per_s: report::round3(flock),
        best_node_per_s: report::round3(best),
        unsplit_per_s: report::round3(unsplit),
        speedup: report::round3(speedup),
    })
}

/// Sessions that are ready and warm.
async fn open(
    started: &Started,
    model: &Model,
    plannings: &[Planning],
    input: &Tensor,
) -> Result<Vec<Stream>, Failure> {
    let mut sessions = Vec::new();
    for planning in plannings {
        let session =
            started.handle.open(model, std::slice::from_ref(input), planning.clone()).await?;
        infer::until_ready(&session, |_| ()).await?;
        sessions.push(session);
    }
    for session in &sessions {
        // The first inference pays for cold caches; a stream does not.
        session.run(vec![input.clone()]).await.map_err(Failure)?;
    }
    Ok(sessions)
}

async fn close(sessions: Vec<Stream>) {
    for session in sessions {
        session.close().await;
    }
}

/// The best of the sessions by itself. Which one that is, a short run of each decides: no node's
/// word is taken for it.
async fn best_alone(sessions: &[Stream], input: &Tensor, inferences: u32) -> Result<f64, Failure> {
    let mut best: Option<(f64, &Stream)> = None;
    for session in sessions {
        let trial = rate(std::slice::from_ref(session), input, inferences.min(TRIAL)).await?;
        if best.is_none_or(|(rate, _)| trial > rate) {
            best = Some((trial, session));
        }
    }
    let (_, session) = best.ok_or("no session")?;
    rate(std::slice::from_ref(session), input, inferences).await
}

/// Inferences per second of these sessions together, sharing the work.
async fn rate(sessions: &[Stream], input: &Tensor, inferences: u32) -> Result<f64, Failure> {
    let bar = infer::progress(u64::from(inferences));
    let left = std::sync::atomic::AtomicU32::new(inferences);
    let began = Instant::now();
    let workers = sessions.iter().map(|session| drain(session, input, &left, &bar));
    futures::future::try_join_all(workers).await?;
    let elapsed = began.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok(f64::from(inferences) / elapsed)
}

/// Takes inferences from the common heap while there are any, with enough in flight to keep a
/// pipeline full, and no more, or slow sessions would take what fast ones could do.
async fn drain(
    session: &Stream,
    input: &Tensor,
    left: &std::sync::atomic::AtomicU32,
    bar: &indicatif::ProgressBar,
) -> Result<(), Failure> {
    use std::sync::atomic::Ordering::Relaxed;
    let take = || left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
    let lanes = (0..IN_FLIGHT).map(|_| async {
        while take() {
            session.run(vec![input.clone()]).await.map_err(Failure)?;
            bar.inc(1);
        }
        Ok::<(), Failure>(())
    });
    futures::future::try_join_all(lanes).await?;
    Ok(())
}

const IN_FLIGHT: usize = 16;
const TRIAL: u32 = 10;
