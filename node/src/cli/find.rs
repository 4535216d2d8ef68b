//! Waiting for a flock to come into sight.

use std::time::{Duration, Instant};

use super::{
    Failure,
    flock::{self, FlockArgs},
    infer::spinner,
    out,
};
use crate::runtime::Started;

/// How long to look for others.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FindArgs {
    /// Seconds to look for nodes at most
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    wait: f64,
    /// Within that time, wait for so many nodes that offer compute [default: as many as are named]
    #[arg(long, value_name = "N")]
    nodes: Option<u16>,
}

impl FindArgs {
    /// Waits until the nodes that offer compute are here and no more come, or the time is over.
    pub(super) async fn peers(
        &self,
        flock: &FlockArgs,
        started: &mut Started,
        no_compute: bool,
    ) -> Result<(), Failure> {
        let spinner = spinner("looking for nodes");
        let expected = self.nodes.map_or(flock.peers().max(1), usize::from);
        let known = self.settled(expected, started).await;
        spinner.finish_and_clear();
        let known = known?;
        while let Ok(told) = started.news.try_recv() {
            if let Some(warning) = flock::warn_of_unreachable(&told) {
                out::complain(format_args!("warning: {warning}"));
            }
        }
        if known == 0 && no_compute {
            let reached = if flock.peers() > 0 { "behind --peer" } else { "on the local network" };
            return Err(Failure(format!(
                "no node that offers compute was found {reached} within {} s: start one with \
                 `starling node`, wait longer with --wait, or compute here without --no-compute",
                self.wait
            )));
        }
        Ok(())
    }

    /// How many nodes that offer compute are known in the end.
    async fn settled(&self, expected: usize, started: &Started) -> Result<usize, Failure> {
        let (mut known, mut since) = (0, Instant::now());
        let until = since + Duration::from_secs_f64(self.wait);
        while Instant::now() < until {
            let snapshot = started.handle.snapshot().await?;
            let providers = snapshot.peers.iter().filter(|peer| peer.slots > 0).count();
            if providers != known {
                (known, since) = (providers, Instant::now());
            }
            if known >= expected && since.elapsed() >= QUIET {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(known)
    }
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0 to 3600".to_owned()),
    }
}

/// With nobody new for so long, all are here.
const QUIET: Duration = Duration::from_millis(600);
const POLL: Duration = Duration::from_millis(20);
