//! Xu, Mohammed, Di Francesco and Fischione, IEEE Internet of Things Journal 10(2), 2023.
//!
//! Its abstract claims three things of its distributed algorithm, each against "the state of the
//! art": inference times 1.14 to 2.62 times shorter, a Jain's index of 0.9, and convergence in one
//! order of magnitude fewer iterations. It does not say against whom, nor of what the index is,
//! nor what an iteration is. So all rivals that we know of are run, and every unit is looked at.
//!
//! | module | is |
//! |---|---|
//! | [`claims`] | what comes out, claim by claim |
//! | [`verdicts`] | which claim holds, against whom, in which unit |
//! | [`sensitivity`] | how far it depends on what we chose |
//! | [`tables`], [`plots`] | the same as tables and pictures |
//! | [`report`] | and as files |

pub mod claims;
pub mod plots;
pub mod report;
pub mod sensitivity;
pub mod tables;
pub mod verdicts;

use std::ops::ControlFlow;

use starling_protocol::{Nats, testing::Instance};
use thiserror::Error;

use super::{
    measure::{self, Run},
    models::Dnn,
    scenario::{Cuts, Demand, Fleet, Layout, Scenario},
};
use crate::{
    baseline::{self, Algorithm, Settings, SolveError},
    runner,
};

/// How large the experiment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Up to 1000 pieces; minutes.
    Full,
    /// Only small scenarios, and fewer of them; seconds. Its figures say little.
    Quick,
}

/// Everything about the experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// Seeds of each scenario, from 0. Large scenarios have a third of that: they vary less, and
    /// would take most of the time.
    pub seeds: u64,
    /// How large.
    pub scale: Scale,
    /// What the algorithms are told. Each is told the seed of its case.
    pub settings: Settings,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// Of what.
    pub setup: Setup,
    /// Every algorithm on every seed of every scenario.
    pub runs: Vec<Run>,
}

/// Why nothing came out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// A defect in an algorithm.
    #[error("seed {seed} of {scenario}: panic: {text}")]
    Panic {
        /// Which scenario, in words.
        scenario: String,
        /// Which seed.
        seed: u64,
        /// What the panic said.
        text: String,
    },
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SolveError),
}

impl Setup {
    /// An experiment with our parameters.
    #[must_use]
    pub fn new(seeds: u64, scale: Scale) -> Self {
        let settings = Settings { missing: MISSING, rounds_max: ROUNDS_MAX, ..Settings::default() };
        Self { seeds, scale, settings }
    }

    /// Its scenarios: all combinations at few pieces, mixed demand at ever more, and one size with
    /// other slots and eps.
    #[must_use]
    pub fn scenarios(&self) -> Vec<Scenario> {
        let (small, large) = match self.scale {
            Scale::Full => (&SIZES[..4], &SIZES[4..]),
            Scale::Quick => (&SIZES[..2], &SIZES[..0]),
        };
        let demands = || Dnn::ALL.map(Demand::All).into_iter().chain([Demand::Mixed]);
        let mut scenarios = Vec::new();
        for (demand, (layout, fleet)) in
            demands().flat_map(|demand| places().map(move |at| (demand, at)))
        {
            let sized = |size: &(usize, usize)| Scenario::new(demand, layout, fleet, *size);
            scenarios.extend(small.iter().map(sized));
            if claims::is_for_iterations(demand, fleet) {
                scenarios.extend(large.iter().map(sized));
                let usual = sized(small.last().expect("there are several"));
                scenarios.extend(EPS_VARIED.map(|eps| Scenario { eps, ..usual }));
                let slots = SLOTS_VARIED.map(|slots| Scenario { slots_of_share: slots, ..usual });
                scenarios.extend(slots);
            }
        }
        scenarios
    }

    /// How many cases there are to work on.
    #[must_use]
    pub fn cases(&self) -> usize {
        self.jobs().len()
    }

    fn jobs(&self) -> Vec<(Scenario, u64)> {
        let mut scenarios = self.scenarios();
        // The longest come first, lest one core works on the last one alone.
        scenarios.sort_by_key(|scenario| std::cmp::Reverse(scenario.pieces));
        let seeds =
            |scenario: Scenario| (0..self.seeds_of(&scenario)).map(move |seed| (scenario, seed));
        scenarios.into_iter().flat_map(seeds).collect()
    }

    fn seeds_of(&self, scenario: &Scenario) -> u64 {
        if scenario.pieces < LARGE { self.seeds } else { self.seeds.div_ceil(3) }
    }
}

/// Runs the experiment on all cores, and calls `progress` after each case.
///
/// # Errors
/// If a case fails.
pub fn run(setup: &Setup, mut progress: impl FnMut()) -> Result<Results, Failure> {
    let (jobs, cuts) = (setup.jobs(), Cuts::new());
    let algorithms = runnable(&setup.settings);
    let work = |job: u64| {
        let (scenario, seed) = jobs[usize::try_from(job).expect("the number of a job")];
        measure::measure(&scenario, seed, &algorithms, &setup.settings, &cuts)
    };
    let mut outcome = Ok(Vec::new());
    runner::over_seeds(0..jobs.len() as u64, work, |job, result| {
        let (scenario, seed) = &jobs[usize::try_from(job).expect("the number of a job")];
        let panic = |text| Failure::Panic { scenario: scenario.to_string(), seed: *seed, text };
        let runs = result.map_err(panic).and_then(|runs| Ok(runs?));
        progress();
        match (runs, &mut outcome) {
            (Ok(new), Ok(runs)) => {
                runs.extend(new);
                ControlFlow::Continue(())
            }
            (Ok(_), Err(_)) => ControlFlow::Break(()),
            (Err(failure), _) => {
                outcome = Err(failure);
                ControlFlow::Break(())
            }
        }
    });
    let mut runs = outcome?;
    runs.sort_by_key(|run| (run.scenario, run.seed, run.algorithm));
    Ok(Results { setup: *setup, runs })
}

/// The algorithms that this build can run: those that can solve the smallest instance.
fn runnable(settings: &Settings) -> Vec<Algorithm> {
    let smallest = Instance { log_rates: vec![vec![Some(Nats::ZERO)]], capacity: vec![1] };
    let runs = |algorithm: &Algorithm| baseline::solve(*algorithm, &smallest, settings).is_ok();
    Algorithm::ALL.into_iter().filter(runs).collect()
}

fn places() -> impl Iterator<Item = (Layout, Fleet)> {
    Layout::ALL.into_iter().flat_map(|layout| Fleet::ALL.map(|fleet| (layout, fleet)))
}

/// `N` and `M`.
pub const SIZES: [(usize, usize); 7] =
    [(20, 4), (40, 5), (80, 8), (160, 10), (320, 20), (640, 50), (1000, 100)];
/// What eps might be as well.
pub const EPS_VARIED: [Nats; 3] = [Nats(10_000_000), Nats(200_000_000), Nats(500_000_000)];
/// What the slots might be as well: room for an even share and no more, and room for anything.
pub const SLOTS_VARIED: [usize; 2] = [1, 4];
/// From so many pieces on, a scenario is large.
pub const LARGE: usize = 320;
/// What each requester's forecast has not heard of.
pub const MISSING: f64 = 0.05;
/// After so many rounds, an algorithm that has not ended is as far as it gets.
pub const ROUNDS_MAX: u64 = 4_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::scenario::PIECES_EACH;

    #[test]
    fn scenarios_are_all_different_and_whole_requesters() {
        let setup = Setup::new(1, Scale::Full);
        let scenarios = setup.scenarios();
        let distinct: std::collections::BTreeSet<_> = scenarios.iter().collect();
        assert_eq!((distinct.len(), setup.cases()), (scenarios.len(), scenarios.len()));
        let whole = |scenario: &Scenario| scenario.pieces.is_multiple_of(PIECES_EACH);
        assert!(scenarios.iter().all(whole));
        assert!(scenarios.iter().any(|scenario| scenario.pieces == 1000));
    }

    #[test]
    fn quick_is_small() {
        let setup = Setup::new(2, Scale::Quick);
        assert!(setup.scenarios().iter().all(|scenario| scenario.pieces <= 40));
        assert!(setup.cases() < 150);
    }
}
