//! A requester and a handful of machines, and what each planner makes of them.

use std::ops::{ControlFlow, RangeInclusive};

use starling_protocol::{
    NodeId,
    cost::Provider,
    model::{ModelProfile, Speed},
    partition::{self, Goal, Layout, Planner, Prediction, Settings, Worker},
};

use crate::{plot::Spread, runner, stats};

/// Who wants inferences, and who computes.
#[derive(Clone, Debug)]
pub struct Site {
    /// What is inferred.
    pub profile: ModelProfile,
    /// Who computes; the requester's own machine, if it is among them, without a link.
    pub workers: Vec<Worker>,
    /// Links, and what else planners are told.
    pub settings: Settings,
}

/// What a planner's plan is predicted to take.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whose plan.
    pub planner: Planner,
    /// The plan, with places among the workers.
    pub layout: Layout,
    /// Of one inference and of a stream.
    pub prediction: Prediction,
}

impl Site {
    /// A planner's plan for a goal. Nothing if it has none.
    #[must_use]
    pub fn outcome(&self, planner: Planner, goal: Goal) -> Option<Outcome> {
        let Self { profile, workers, settings } = self;
        let layout = partition::lay_out(planner, profile, workers, REQUESTER, goal, settings)?;
        let prediction = layout.predict(profile, workers, REQUESTER, settings);
        Some(Outcome { planner, layout, prediction })
    }

    /// Seconds of one inference by a planner's plan; infinite if it has none.
    #[must_use]
    pub fn latency(&self, planner: Planner) -> f64 {
        self.outcome(planner, Goal::Latency).map_or(f64::INFINITY, |found| found.prediction.latency)
    }
}

impl Outcome {
    /// How many machines take part.
    #[must_use]
    pub fn machines(&self) -> usize {
        let mut places: Vec<usize> =
            self.layout.segments.iter().flatten().map(|(_, place)| *place).collect();
        places.sort_unstable();
        places.dedup();
        places.len()
    }
}

/// A machine that computes for others; number 0 is the requester's own and has no link.
#[must_use]
pub fn worker(number: u8, speed: Speed, mbit: f64, memory: u64, sharers: u16) -> Worker {
    let bandwidth = if number == 0 { f64::INFINITY } else { mbit * BYTES_PER_MBIT };
    let provider = Provider { speed, bandwidth, byte_seconds: 0.0, memory_free: memory };
    Worker { node: NodeId([number; 32]), provider, sharers, room: u16::MAX }
}

/// Works on each of so many cases on all cores, and calls `progress` after each.
///
/// # Errors
/// What the panic said if the work on one panics.
pub fn each<T: Send>(
    cases: usize,
    work: impl Fn(usize) -> T + Sync,
    mut progress: impl FnMut(),
) -> Result<Vec<T>, String> {
    let mut done = Ok(Vec::with_capacity(cases));
    let at = |case: u64| usize::try_from(case).expect("it was one");
    runner::over_seeds(
        0..cases as u64,
        |case| work(at(case)),
        |_, result| {
            progress();
            match (result, &mut done) {
                (Ok(result), Ok(results)) => {
                    results.push(result);
                    ControlFlow::Continue(())
                }
                (Ok(_), Err(_)) => ControlFlow::Break(()),
                (Err(text), _) => {
                    done = Err(text);
                    ControlFlow::Break(())
                }
            }
        },
    );
    done
}

/// How large an experiment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// All scenarios.
    Full,
    /// A few of them.
    Quick,
}

impl Scale {
    /// What a report says of itself for it.
    #[must_use]
    pub fn note(self) -> &'static str {
        match self {
            Self::Full => "",
            Self::Quick => "\n**A quick run: few scenarios. Its figures say little.**\n",
        }
    }
}

/// Where a median lies beside what a paper claims.
#[must_use]
pub fn verdict(median: f64, claim: &RangeInclusive<f64>) -> &'static str {
    if median > *claim.end() {
        "above"
    } else if median < *claim.start() {
        "below"
    } else {
        "within"
    }
}

/// The least, the median and the most of some values. Nothing of nothing.
#[must_use]
pub fn spread(values: &[f64]) -> Option<Spread> {
    let low = values.iter().copied().reduce(f64::min)?;
    let high = values.iter().copied().reduce(f64::max)?;
    Some(Spread { low, middle: stats::median(values)?, high })
}

/// Who wants the inferences.
pub const REQUESTER: NodeId = NodeId([0; 32]);
const BYTES_PER_MBIT: f64 = 1e6 / 8.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::models::Dnn;

    #[test]
    fn the_requesters_own_machine_needs_no_link() {
        let site = Site {
            profile: Dnn::AlexNet.profile(),
            workers: vec![
                worker(0, Speed([1_000_000_000; 5]), 1.0, u64::MAX, 1),
                worker(1, Speed([1_000_000_000; 5]), 8.0, u64::MAX, 1),
            ],
            settings: Settings::default(),
        };
        let [local, single] = [Planner::Local, Planner::Single].map(|p| site.latency(p));
        assert!((local - single).abs() < 1e-12);
        let away = Site { workers: site.workers[1..].to_vec(), ..site };
        let transfer = (3.0 * 224.0 * 224.0 * 4.0 + 4000.0) / 1e6;
        assert!((away.latency(Planner::Single) - local - transfer).abs() < 1e-9);
        assert!(away.latency(Planner::Local).is_infinite());
    }

    #[test]
    fn work_keeps_its_order_and_a_panic_is_told() {
        assert_eq!(each(5, |case| case * case, || ()), Ok(vec![0, 1, 4, 9, 16]));
        let failed = each(3, |case| assert_ne!(case, 1, "case one"), || ());
        assert!(failed.expect_err("one panicked").contains("case one"));
    }
}
