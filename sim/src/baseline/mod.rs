//! Algorithms for the proportional-fair assignment problem, to hold the protocol's own against.
//!
//! All of them take the same [`Instance`] and give a [`Solution`] that respects its forbidden
//! pairs and capacities. Each is tuned as well as we know how, says where it comes from in its own
//! file, and counts what it does in the same units:
//!
//! - A *round* is one step in which everybody who is waiting acts once, on what was known at its
//!   beginning. For algorithms that go through the pieces in turn it is one sweep over them.
//! - A *bid* is a piece that asks a provider for a place (for `cbba`: a provider for a piece).
//! - A *message* goes from one node to one other: bids, answers, evictions, releases.
//! - An *advert* goes from one node to all, and is counted apart (`adverts`).
//!
//! A round of one algorithm is not as long as a round of another, and what is one message here
//! may be none there. So no single one of these figures says which algorithm is faster.

mod cbba;
mod dina;
mod dual;
mod in_turn;
mod places;
mod response;
#[cfg(test)]
mod tests;
mod textbook;

use std::str::FromStr;

use clap::ValueEnum;
use starling_protocol::{Nats, market::Terms, session::Bidding, testing::Instance};
use thiserror::Error;

use crate::lockstep;

/// An algorithm by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Algorithm {
    /// The protocol's class auction.
    Auction,
    /// The protocol's class auction, opened with the levels that each requester forecasts.
    Forecast,
    /// Anywhere with room.
    Random,
    /// One provider after the other.
    RoundRobin,
    /// The provider that would be fastest alone.
    Greedy,
    /// Bertsekas' auction with a price for each slot.
    Textbook,
    /// Dual decomposition with a constant step.
    DualConstant,
    /// Dual decomposition with the best of several falling steps.
    DualTuned,
    /// Each piece moves to where it is fastest, until none wants to.
    BestResponse,
    /// Deferred acceptance, then exchanges of two places.
    DinaSwap,
    /// Deferred acceptance, then exchanges of two places and moves to open ones.
    DinaSwapMove,
    /// The consensus-based bundle algorithm.
    Cbba,
    /// Self-selection with a threshold for moving.
    SelfSelection,
}

/// What all algorithms are told besides the instance. Each heeds what concerns it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The auction's rules. `eps` is also the gap per piece at which the dual methods stop. Only
    /// the protocol's own auction takes pairs beyond `spread` for infeasible.
    pub terms: Terms,
    /// Decides orders of arrival and of delivery.
    pub seed: u64,
    /// The share of adverts that each requester has not heard (the protocol's auction only).
    pub missing: f64,
    /// An algorithm stops after so many rounds, wherever it is by then.
    pub rounds_max: u64,
}

/// What an algorithm came to, and what it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Solution {
    /// Provider by piece; nothing where the algorithm found no place.
    pub assignment: Vec<Option<usize>>,
    /// See the [module's page](self) for these three.
    pub rounds: u64,
    /// Places asked for.
    pub bids: u64,
    /// From one node to one other.
    pub messages: u64,
    /// What only this algorithm counts; the names are in its own file.
    pub counts: Vec<(&'static str, u64)>,
}

/// Why there is no solution. Always the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SolveError {
    /// The auctions would not end, and the dual methods never be content.
    #[error("eps must be a positive number of nats, at least 0.000000001")]
    Eps,
    /// Not a share.
    #[error("the share of missing adverts must be between 0 and 1")]
    Missing,
}

/// No algorithm of that name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no algorithm is called {0:?}; there are {known}", known = names())]
pub struct UnknownAlgorithm(String);

/// Runs an algorithm to its end.
///
/// # Errors
/// If the settings make no sense.
pub fn solve(
    algorithm: Algorithm,
    instance: &Instance,
    settings: &Settings,
) -> Result<Solution, SolveError> {
    settings.validate()?;
    Ok(match algorithm {
        Algorithm::Auction => lockstep::run(instance, settings, Bidding::Plain),
        Algorithm::Forecast => lockstep::run(instance, settings, Bidding::Forecast),
        Algorithm::Random => in_turn::random(instance, settings),
        Algorithm::RoundRobin => in_turn::round_robin(instance, settings),
        Algorithm::Greedy => in_turn::greedy(instance, settings),
        Algorithm::Textbook => textbook::solve(instance, settings),
        Algorithm::DualConstant => dual::constant(instance, settings),
        Algorithm::DualTuned => dual::tuned(instance, settings),
        Algorithm::BestResponse => response::best_response(instance, settings),
        Algorithm::DinaSwap => dina::swap(instance, settings),
        Algorithm::DinaSwapMove => dina::swap_and_move(instance, settings),
        Algorithm::Cbba => cbba::solve(instance, settings),
        Algorithm::SelfSelection => response::self_selection(instance, settings),
    })
}

impl Algorithm {
    /// All of them, the protocol's own first.
    pub const ALL: [Self; 13] = [
        Self::Auction,
        Self::Forecast,
        Self::Random,
        Self::RoundRobin,
        Self::Greedy,
        Self::Textbook,
        Self::DualConstant,
        Self::DualTuned,
        Self::BestResponse,
        Self::DinaSwap,
        Self::DinaSwapMove,
        Self::Cbba,
        Self::SelfSelection,
    ];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auction => "auction",
            Self::Forecast => "forecast",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::Greedy => "greedy",
            Self::Textbook => "textbook",
            Self::DualConstant => "dual-constant",
            Self::DualTuned => "dual-tuned",
            Self::BestResponse => "best-response",
            Self::DinaSwap => "dina-swap",
            Self::DinaSwapMove => "dina-swap-move",
            Self::Cbba => "cbba",
            Self::SelfSelection => "self-selection",
        }
    }

    /// A sentence for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Auction => "The class auction: one price per provider, in rounds.",
            Self::Forecast => "The class auction, opened with forecast levels.",
            Self::Random => "Each piece anywhere with room.",
            Self::RoundRobin => "One provider after the other.",
            Self::Greedy => "Each piece to the provider that would be fastest alone.",
            Self::Textbook => "Bertsekas' auction, one price per slot.",
            Self::DualConstant => "Dual decomposition, constant step.",
            Self::DualTuned => "Dual decomposition, best of several steps c/sqrt(t).",
            Self::BestResponse => "Each piece moves to where it is fastest, until none wants to.",
            Self::DinaSwap => "DINA-O: deferred acceptance, then exchanges of two places.",
            Self::DinaSwapMove => "DINA-O with moves to open places as well.",
            Self::Cbba => "Consensus-based bundle algorithm, providers pick pieces.",
            Self::SelfSelection => "Self-selection as in Petals: move only for 20 % more.",
        }
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        found.ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { terms: Terms::default(), seed: 0, missing: 0.0, rounds_max: 10_000 }
    }
}

impl Settings {
    /// Says what is wrong with them, if anything.
    ///
    /// # Errors
    /// The first number that makes no sense.
    pub fn validate(&self) -> Result<(), SolveError> {
        if self.terms.eps <= Nats::ZERO {
            return Err(SolveError::Eps);
        }
        if !(0.0..=1.0).contains(&self.missing) {
            return Err(SolveError::Missing);
        }
        Ok(())
    }
}

impl Solution {
    /// One of [`counts`](Self::counts); 0 where this algorithm has none of that name.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        let count = self.counts.iter().find(|(known, _)| *known == name);
        count.map_or(0, |(_, count)| *count)
    }

    /// Provider by piece, if every piece has one.
    #[must_use]
    pub fn complete(&self) -> Option<Vec<usize>> {
        self.assignment.iter().copied().collect()
    }
}

/// The largest difference of two log rates of one piece.
pub(crate) fn spread(instance: &Instance) -> Nats {
    let spreads = instance.log_rates.iter().filter_map(|rates| {
        let rates = rates.iter().flatten();
        Some(*rates.clone().max()? - *rates.min()?)
    });
    spreads.max().unwrap_or(Nats::ZERO)
}

fn names() -> String {
    Algorithm::ALL.map(Algorithm::name).join(", ")
}
