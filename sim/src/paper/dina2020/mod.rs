//! Mohammed, Joe-Wong, Babbar and Di Francesco, INFOCOM 2020 (DINA).
//!
//! Its abstract says that DINA "reduces the total latency of inference 2.6 to 4.2 times" against
//! the state of the art, on a self-driving car's images and several DNNs, and that "most existing
//! solutions simply split the DNN into two parts". It does not say which machines and links, nor
//! against whom exactly the figures are. So two-way splits, a greedy and a random planner are run
//! in scenarios of our own.
//!
//! | module | is |
//! |---|---|
//! | [`scenario`] | a camera, its fog, links and DNNs |
//! | [`tables`], [`plots`] | what came out |
//! | [`report`] | and as files |

pub mod plots;
pub mod report;
pub mod scenario;
pub mod tables;

use starling_protocol::partition::{Goal, Planner, Settings};

pub use super::site::Scale;
use super::{
    observe::{self, Observed},
    site::{self, Outcome, Site},
};
use crate::stats;
use scenario::Scenario;

/// What came out of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Which.
    pub scenario: Scenario,
    /// Seconds of one inference by each of [`PLANNERS`], the mean over [`DRAWS`] for `random`.
    pub seconds: Vec<f64>,
    /// DINA's plan, and how many machines are in it.
    pub machines: usize,
    /// A stream by `single` and by `pf`.
    pub stream: [Outcome; 2],
    /// The same two in virtual time, in the scenarios where that was done.
    pub observed: Option<[Observed; 2]>,
}

/// Who plans for one inference.
pub const PLANNERS: [Planner; 8] = [
    Planner::Dina,
    Planner::Neurosurgeon,
    Planner::Greedy,
    Planner::Random,
    Planner::Local,
    Planner::Single,
    Planner::EdgeCi,
    Planner::Pf,
];
/// Whom DINA is held against.
pub const RIVALS: [Planner; 3] = [Planner::Neurosurgeon, Planner::Greedy, Planner::Random];
/// How often `random` draws.
pub const DRAWS: u64 = 20;

/// Runs all scenarios on all cores, and calls `progress` after each.
///
/// # Errors
/// What a panic said, or which plan did not come about.
pub fn run(scale: Scale, progress: impl FnMut()) -> Result<Vec<Run>, String> {
    let scenarios = Scenario::all(scale);
    let runs = site::each(scenarios.len(), |at| measure(scenarios[at]), progress)?;
    runs.into_iter().collect()
}

fn measure(scenario: Scenario) -> Result<Run, String> {
    let site = scenario.site();
    let missing = |planner: Planner| format!("{scenario}: {planner} has no plan");
    let found = |planner, goal| site.outcome(planner, goal).ok_or_else(|| missing(planner));
    let seconds = |planner: &Planner| match planner {
        Planner::Random => drawn(&site).ok_or_else(|| missing(*planner)),
        _ => Ok(found(*planner, Goal::Latency)?.prediction.latency),
    };
    let stream = [found(Planner::Single, Goal::Throughput)?, found(Planner::Pf, Goal::Throughput)?];
    let observed = if scenario.is_observed() {
        let watch = |plan| observe::observe(&site, plan).map_err(|e| format!("{scenario}: {e}"));
        let [single, pf] = [watch(&stream[0])?, watch(&stream[1])?];
        single.zip(pf).map(|(single, pf)| [single, pf])
    } else {
        None
    };
    Ok(Run {
        scenario,
        seconds: PLANNERS.iter().map(seconds).collect::<Result<_, _>>()?,
        machines: found(Planner::Dina, Goal::Latency)?.machines(),
        stream,
        observed,
    })
}

/// The mean of those draws whose plan is possible.
fn drawn(site: &Site) -> Option<f64> {
    let seconds = |seed| {
        let settings = Settings { seed, ..site.settings };
        Site { settings, ..site.clone() }.latency(Planner::Random)
    };
    let all: Vec<f64> = (0..DRAWS).map(seconds).filter(|seconds| seconds.is_finite()).collect();
    stats::mean(&all)
}

impl Run {
    /// Seconds of one inference by a planner.
    ///
    /// # Panics
    /// If it is none of [`PLANNERS`].
    #[must_use]
    pub fn seconds(&self, planner: Planner) -> f64 {
        let at = PLANNERS.iter().position(|other| *other == planner);
        self.seconds[at.expect("one of those that plan")]
    }

    /// How many times as long a rival takes as DINA.
    #[must_use]
    pub fn ratio(&self, rival: Planner) -> f64 {
        self.seconds(rival) / self.seconds(Planner::Dina)
    }
}
