//! Chen, Luo, Fang and Xiong, ACM Transactions on Internet Technology 24(2), 2024 (EdgeCI).
//!
//! Its abstract says that a combination of AWAS and DPFL improves "inference speed by 34.72 % to
//! 43.52 %" on a cluster of IoT devices with VGG-16 and ResNet-34, and "outperforms the typical
//! state-of-the-art solutions". It does not say which devices, which links, against whom the
//! figures are, nor whether speed is a time or a rate. So scenarios of our own are looked at, with
//! each rival by itself and both readings.
//!
//! | module | is |
//! |---|---|
//! | [`scenario`] | devices, links and DNNs |
//! | [`tables`], [`plots`] | what came out |
//! | [`report`] | and as files |

pub mod plots;
pub mod report;
pub mod scenario;
pub mod tables;

use starling_protocol::partition::{Goal, Planner};

use super::{
    observe::{self, Observed},
    site::{self, Outcome},
};
use scenario::Scenario;

/// How large the experiment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// All scenarios.
    Full,
    /// A few of them.
    Quick,
}

/// What came out of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Which.
    pub scenario: Scenario,
    /// One inference by each of [`PLANNERS`].
    pub latency: Vec<Outcome>,
    /// A stream by `single` and by `pf`.
    pub stream: [Outcome; 2],
    /// The same two in virtual time, in the scenarios where that was done: processors there have no
    /// constant for each convolution, so plans and predictions are without it as well.
    pub observed: Option<[(Outcome, Observed); 2]>,
}

/// Who plans for one inference.
pub const PLANNERS: [Planner; 6] = [
    Planner::EdgeCi,
    Planner::LayerWise,
    Planner::EarlyFused,
    Planner::OptimalFused,
    Planner::Single,
    Planner::Pf,
];
/// Whom EdgeCI is held against.
pub const RIVALS: [Planner; 3] = [Planner::LayerWise, Planner::EarlyFused, Planner::OptimalFused];

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
    let latency: Result<_, _> =
        PLANNERS.iter().map(|planner| found(*planner, Goal::Latency)).collect();
    let stream = [found(Planner::Single, Goal::Throughput)?, found(Planner::Pf, Goal::Throughput)?];
    let observed = if scenario.is_observed() { Some(watched(&scenario)?) } else { None };
    Ok(Run { scenario, latency: latency?, stream, observed })
}

fn watched(scenario: &Scenario) -> Result<[(Outcome, Observed); 2], String> {
    let mut site = scenario.site();
    site.settings.layer = 0.0;
    let watch = |planner| {
        let plan = site.outcome(planner, Goal::Throughput);
        let plan = plan.ok_or_else(|| format!("{scenario}: {planner} has no plan"))?;
        let seen =
            observe::observe(&site, &plan).map_err(|stuck| format!("{scenario}: {stuck}"))?;
        let seen = seen.ok_or_else(|| format!("{scenario}: {planner} answers nothing"))?;
        Ok::<_, String>((plan, seen))
    };
    Ok([watch(Planner::Single)?, watch(Planner::Pf)?])
}

impl Run {
    /// Seconds of one inference by a planner.
    ///
    /// # Panics
    /// If it is none of [`PLANNERS`].
    #[must_use]
    pub fn seconds(&self, planner: Planner) -> f64 {
        let found = self.latency.iter().find(|outcome| outcome.planner == planner);
        found.expect("one of those that plan").prediction.latency
    }

    /// By how much EdgeCI's time is shorter than a rival's, in percent of the rival's.
    #[must_use]
    pub fn time_saved(&self, rival: Planner) -> f64 {
        (1.0 - self.seconds(Planner::EdgeCi) / self.seconds(rival)) * 100.0
    }

    /// By how much its rate is higher, in percent of the rival's.
    #[must_use]
    pub fn rate_gained(&self, rival: Planner) -> f64 {
        (self.seconds(rival) / self.seconds(Planner::EdgeCi) - 1.0) * 100.0
    }
}
