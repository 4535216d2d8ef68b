//! What a run gave, raw: what its processes said, and what was read from outside.

use std::time::Instant;

use super::{
    log::{NodeLog, SessionLog},
    net::Traffic,
};

/// All of it.
pub(super) struct Measured {
    /// When the first sessions streamed.
    pub(super) zero: Instant,
    /// Until the last one ended.
    pub(super) seconds: f64,
    /// Until every board knew every other, from the start of the first.
    pub(super) discovery_s: f64,
    /// Whole models a second of each board alone, where that was asked for and it could.
    pub(super) alone: Vec<Option<f64>>,
    /// The same after the sessions.
    pub(super) alone_again: Vec<Option<f64>>,
    /// Of the one that had the whole model over its link, where that was asked for.
    pub(super) served: Option<Served>,
    /// By board.
    pub(super) nodes: Vec<NodeLog>,
    /// By session.
    pub(super) sessions: Vec<SessionLog>,
    /// By machine, from zero to the end.
    pub(super) traffic: Vec<Traffic>,
    /// Core seconds by board, from zero to the end: those that it could use.
    pub(super) granted: Vec<f64>,
    /// The most memory of each board.
    pub(super) memory: Vec<Option<u64>>,
    /// The most that each board's processes had for themselves since the sessions began to open.
    pub(super) own_memory: Vec<Option<u64>>,
    /// From time to time, from zero to the end.
    pub(super) samples: Vec<Sample>,
    /// What happened, as it was said, and when.
    pub(super) happened: Vec<(f64, String)>,
    /// The part of the time that this machine's processors were idle, where the system says so.
    pub(super) idle: Option<f64>,
    /// The output of `starling inspect`.
    pub(super) profile: serde_json::Value,
}

/// What a board did that computed the whole model for a requester elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Served {
    /// Which.
    pub(super) board: usize,
    /// Outputs a second.
    pub(super) per_s: f64,
    /// The core seconds that a byte over its cable cost, without those of the threads that compute.
    pub(super) core_s_per_byte: f64,
}

/// The core seconds that each board has used until a moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// The moment, in seconds from zero.
    pub(super) at_s: f64,
    /// By board.
    pub(super) used: Vec<f64>,
}

/// The core seconds that each board could use: quotas change on the way.
pub(super) struct Granted {
    pub(super) cores: Vec<f64>,
    pub(super) seconds: Vec<f64>,
    since: Instant,
}

impl Granted {
    pub(super) fn new(cores: Vec<f64>, since: Instant) -> Self {
        Self { seconds: vec![0.0; cores.len()], cores, since }
    }

    /// Counts what was granted up to now.
    pub(super) fn count(&mut self) {
        let now = Instant::now();
        let elapsed = now.duration_since(self.since).as_secs_f64();
        for (seconds, cores) in self.seconds.iter_mut().zip(&self.cores) {
            *seconds += cores * elapsed;
        }
        self.since = now;
    }

    /// From now on a board may use so many cores; other machines don't count.
    pub(super) fn set(&mut self, machine: usize, cores: f64) {
        self.count();
        if let Some(quota) = self.cores.get_mut(machine) {
            *quota = cores;
        }
    }
}

impl Measured {
    /// Whole models a second of a board alone: the mean of before the sessions and after them.
    pub(super) fn alone_per_s(&self, board: usize) -> Option<f64> {
        let before = self.alone[board]?;
        Some(self.alone_again[board].map_or(before, |after| f64::midpoint(before, after)))
    }

    /// How fast this machine was after the sessions: what the boards did alone then, over before.
    pub(super) fn drift(&self) -> Option<f64> {
        let both = self.alone.iter().zip(&self.alone_again);
        let both = both.filter_map(|(before, after)| (*before).zip(*after));
        let (before, after): (Vec<f64>, Vec<f64>) = both.unzip();
        let (before, after): (f64, f64) = (before.iter().sum(), after.iter().sum());
        (before > 0.0 && after > 0.0).then(|| after / before)
    }

    /// The core seconds that a board used from zero to the end.
    pub(super) fn used(&self, board: usize) -> f64 {
        let at = |sample: Option<&Sample>| sample.map_or(0.0, |sample| sample.used[board]);
        at(self.samples.last()) - at(self.samples.first())
    }

    /// Which board a provider is.
    pub(super) fn board_of(&self, provider: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == provider)
    }

    /// When an inference ended, in seconds from zero.
    pub(super) fn at_s(&self, at: Instant) -> f64 {
        match at.checked_duration_since(self.zero) {
            Some(after) => after.as_secs_f64(),
            None => -self.zero.duration_since(at).as_secs_f64(),
        }
    }
}

/// What the processors of this machine did since it was started, in ticks of a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ticks {
    idle: f64,
    all: f64,
}

impl Ticks {
    /// Until now; nothing where the system doesn't say.
    pub(super) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// The idle part of the time since then.
    pub(super) fn idle_since(self, before: Self) -> f64 {
        (self.idle - before.idle) / (self.all - before.all).max(1.0)
    }

    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<f64> =
            line.split_whitespace().filter_map(|ticks| ticks.parse().ok()).collect();
        // For users, the same politely, for the system, idle, waiting for disks, ...; guests last,
        // which users' have in them.
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { idle, all: ticks.iter().take(8).sum() })
    }
}

/// The value that this share of all values is not above; nothing of none.
pub(super) fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idleness_is_read_from_the_ticks() {
        let stat = |text: &str| Ticks::parse(text).expect("ticks");
        let before = stat("cpu  10 0 10 100 20 0 0 0 7 0\ncpu0 1 1 1 1 1\n");
        let after = stat("cpu  40 0 20 150 30 0 0 0 9 0\n");
        assert!((after.idle_since(before) - 0.6).abs() < 1e-9);
        assert_eq!(Ticks::parse("intr 1 2 3"), None);
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let at = |share| percentile(&values, share).expect("there are some");
        assert_eq!([at(0.5), at(0.95), at(0.99), at(1.0)], [50.0, 95.0, 99.0, 100.0]);
        assert_eq!(percentile(&[3.0], 0.5), Some(3.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
