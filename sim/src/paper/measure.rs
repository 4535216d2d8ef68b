//! Algorithms on one case, in figures.

use starling_protocol::{cost, testing};

use super::scenario::{Case, Cuts, Scenario};
use crate::{
    baseline::{self, Algorithm, Settings, Solution, SolveError},
    stats,
};

/// One algorithm on one seed of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Which scenario.
    pub scenario: Scenario,
    /// Which seed.
    pub seed: u64,
    /// Which algorithm.
    pub algorithm: Algorithm,
    /// What it took.
    pub effort: Effort,
    /// What it came to; nothing if it left a piece without a place.
    pub quality: Option<Quality>,
    /// How fair the exact optimum of the same case is.
    pub optimum: Jain,
}

/// What an algorithm took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Steps in which everybody who waits acts once.
    pub rounds: u64,
    /// Places asked for.
    pub bids: u64,
    /// Pairs of pieces, or of a piece and an open place, that were looked at for an exchange.
    /// Nothing for algorithms without exchanges.
    pub examined: Option<u64>,
    /// Messages from one node to one other.
    pub messages: u64,
    /// Messages from one node to all.
    pub adverts: u64,
    /// What ended it.
    pub ending: Ending,
}

/// What ended an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The limit of rounds.
    CutOff,
    /// It had nothing left to do.
    Own,
}

/// What an algorithm came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The mean of the pieces' inference times `n_j T_ij`, in seconds. All requesters have equally
    /// many pieces, so ratios of it are those of whole DNNs too.
    pub mean_time: f64,
    /// `(U* - U) / N` in nats.
    pub gap_per_piece: f64,
    /// Fairness.
    pub jain: Jain,
}

/// Jain's index in three units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jain {
    /// Of the providers' numbers of pieces, `n_j`.
    pub pieces: f64,
    /// Of the providers' busy times: the seconds that one inference of each of its pieces takes.
    pub busy: f64,
    /// Of the pieces' inference times, `n_j T_ij`.
    pub time: f64,
}

/// A unit of fairness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// See [`Jain::busy`].
    Busy,
    /// See [`Jain::pieces`].
    Pieces,
    /// See [`Jain::time`].
    Time,
}

impl Share {
    /// All units.
    pub const ALL: [Self; 3] = [Self::Pieces, Self::Busy, Self::Time];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy time of a provider",
            Self::Pieces => "pieces of a provider",
            Self::Time => "inference time of a piece",
        }
    }

    /// In few words, for the heads of tables.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::Busy => "busy time",
            Self::Pieces => "pieces",
            Self::Time => "inference time",
        }
    }

    /// This unit's index.
    #[must_use]
    pub fn of(self, jain: &Jain) -> f64 {
        match self {
            Self::Busy => jain.busy,
            Self::Pieces => jain.pieces,
            Self::Time => jain.time,
        }
    }
}

/// Runs all algorithms on one seed of a scenario.
///
/// # Errors
/// If the settings make no sense.
pub fn measure(
    scenario: &Scenario,
    seed: u64,
    algorithms: &[Algorithm],
    settings: &Settings,
    cuts: &Cuts,
) -> Result<Vec<Run>, SolveError> {
    let settings = Settings { seed, terms: scenario.terms(), ..*settings };
    let case = scenario.draw(seed, cuts);
    let (optimum, best) = testing::optimum(&case.instance).expect("there are slots for all pieces");
    let fairness = quality(&case, &best, optimum.to_f64()).jain;
    let run = |algorithm: &Algorithm| {
        // Only the forecast rests on adverts; without one, the plain auction lacks a candidate.
        let missing = if *algorithm == Algorithm::Forecast { settings.missing } else { 0.0 };
        let settings = Settings { missing, ..settings };
        let solution = baseline::solve(*algorithm, &case.instance, &settings)?;
        let placed = solution.complete();
        let effort = Effort::of(*algorithm, &solution, settings.rounds_max);
        let quality = placed.map(|placed| quality(&case, &placed, optimum.to_f64()));
        let (scenario, algorithm) = (*scenario, *algorithm);
        Ok(Run { scenario, seed, algorithm, effort, quality, optimum: fairness })
    };
    algorithms.iter().map(run).collect()
}

impl Effort {
    fn of(algorithm: Algorithm, solution: &Solution, rounds_max: u64) -> Self {
        let exchanges = matches!(algorithm, Algorithm::DinaSwap | Algorithm::DinaSwapMove);
        Self {
            rounds: solution.rounds,
            bids: solution.bids,
            examined: exchanges.then(|| solution.count("examined")),
            messages: solution.messages,
            adverts: solution.count("adverts"),
            ending: if solution.rounds >= rounds_max { Ending::CutOff } else { Ending::Own },
        }
    }
}

fn quality(case: &Case, placed: &[usize], optimum: f64) -> Quality {
    let mut counts = vec![0.0; case.instance.providers()];
    let mut busy = vec![0.0; case.instance.providers()];
    for (seconds, provider) in case.seconds.iter().zip(placed) {
        counts[*provider] += 1.0;
        busy[*provider] += seconds[*provider];
    }
    let pairs = case.seconds.iter().zip(placed);
    let times: Vec<f64> =
        pairs.map(|(seconds, provider)| counts[*provider] * seconds[*provider]).collect();
    let utility: f64 = times.iter().map(|time| -time.ln()).sum();
    Quality {
        mean_time: stats::mean(&times).unwrap_or(0.0),
        gap_per_piece: (optimum - utility) / times.len() as f64,
        jain: Jain {
            pieces: cost::jain(&counts),
            busy: cost::jain(&busy),
            time: cost::jain(&times),
        },
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::{Nats, testing::Instance};

    use super::*;

    #[test]
    fn figures_are_those_of_the_shared_times() {
        let seconds = vec![vec![1.0, 2.0], vec![1.0, 4.0], vec![3.0, 3.0]];
        let rate = |seconds: &f64| Nats::ln(1.0 / seconds);
        let log_rates = seconds.iter().map(|row| row.iter().map(rate).collect()).collect();
        let case = Case { instance: Instance { log_rates, capacity: vec![3, 3] }, seconds };
        // Two pieces of 1 s share the first provider: 2 s each. The third has 3 s for itself.
        let quality = quality(&case, &[0, 0, 1], -(12.0_f64.ln()));
        assert!((quality.mean_time - 7.0 / 3.0).abs() < 1e-12);
        assert!(quality.gap_per_piece.abs() < 1e-12);
        assert!((quality.jain.pieces - 0.9).abs() < 1e-12);
        assert!((quality.jain.busy - 25.0 / 26.0).abs() < 1e-12);
        assert!((quality.jain.time - 49.0 / 51.0).abs() < 1e-12);
    }
}
