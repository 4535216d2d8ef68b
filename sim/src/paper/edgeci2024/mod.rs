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
//! | [`published`] | layer-wise as EdgeLD publishes it, without our tuning |
//! | [`tables`], [`plots`] | what came out |
//! | [`report`] | and as files |

pub mod plots;
pub mod published;
pub mod report;
pub mod scenario;
pub mod tables;

use starling_protocol::partition::{Goal, Planner};

pub use super::site::Scale;
use super::{
    observe::{self, Observed},
    site::{self, Outcome},
};
use scenario::Scenario;

/// What came out of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Which.
    pub scenario: Scenario,
    /// One inference by each of [`PLANNERS`].
    pub latency: Vec<Outcome>,
    /// Seconds of one inference layer by layer as published, where activations are relayed.
    pub published: Option<f64>,
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
pub const RIVALS: [Rival; 4] = [
    Rival::Tuned(Planner::LayerWise),
    Rival::Published,
    Rival::Tuned(Planner::EarlyFused),
    Rival::Tuned(Planner::OptimalFused),
];

/// Whose time EdgeCI's is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// Layer-wise as published; only where activations are relayed.
    Published,
    /// A planner of ours.
    Tuned(Planner),
}

impl Rival {
    /// In a word or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "layer-wise as published",
            Self::Tuned(planner) => planner.name(),
        }
    }
}

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
    let published = published::layer_wise(&scenario);
    Ok(Run { scenario, latency: latency?, published, stream, observed })
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

    /// Seconds of one inference by a rival, if it takes part.
    #[must_use]
    pub fn seconds_of(&self, rival: Rival) -> Option<f64> {
        match rival {
            Rival::Published => self.published,
            Rival::Tuned(planner) => Some(self.seconds(planner)),
        }
    }

    /// By how much EdgeCI's time is shorter than a rival's, in percent of the rival's.
    #[must_use]
    pub fn time_saved(&self, rival: Rival) -> Option<f64> {
        let theirs = self.seconds_of(rival)?;
        Some((1.0 - self.seconds(Planner::EdgeCi) / theirs) * 100.0)
    }

    /// By how much its rate is higher, in percent of the rival's.
    #[must_use]
    pub fn rate_gained(&self, rival: Rival) -> Option<f64> {
        let theirs = self.seconds_of(rival)?;
        Some((theirs / self.seconds(Planner::EdgeCi) - 1.0) * 100.0)
    }
}
