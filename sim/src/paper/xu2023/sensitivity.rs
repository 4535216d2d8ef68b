//! How far the results depend on what we chose: the auction's eps and the slots.

use std::collections::BTreeSet;

use starling_protocol::Nats;

use super::{
    Results,
    claims::{Grouped, Unit, is_for_iterations},
};
use crate::{
    baseline::Algorithm,
    paper::{measure::Run, scenario::Scenario},
    stats,
};

/// What would be otherwise if slots or eps were.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// How many even shares of the pieces each provider has slots for.
    pub slots_of_share: usize,
    /// The auction's eps.
    pub eps: Nats,
    /// The auction's rounds: the median.
    pub rounds: f64,
    /// Its bids.
    pub bids: f64,
    /// Its `(U* - U) / N`, in nats.
    pub gap_per_piece: f64,
    /// The median inference time over the auction's, of each of [`Sensitivity::TIMES`].
    pub times: [Option<f64>; 4],
    /// The median count over the auction's, of each of [`Sensitivity::COUNTS`].
    pub counts: [Option<f64>; 3],
}

/// The size at which slots and eps were varied, once for each of their values.
#[must_use]
pub fn of(results: &Results) -> Vec<Sensitivity> {
    let varied = |run: &&Run| !run.scenario.is_usual();
    let Some(pieces) = results.runs.iter().find(varied).map(|run| run.scenario.pieces) else {
        return Vec::new();
    };
    let all = results.runs.iter().map(|run| (run.scenario.slots_of_share, run.scenario.eps));
    let values: BTreeSet<(usize, Nats)> = all.collect();
    values.into_iter().filter_map(|values| Sensitivity::of(results, values, pieces)).collect()
}

impl Sensitivity {
    /// Whose times are looked at.
    pub const TIMES: [Algorithm; 4] =
        [Algorithm::Greedy, Algorithm::DualTuned, Algorithm::DinaSwap, Algorithm::DinaSwapMove];
    /// Whose counts are looked at, and of what.
    pub const COUNTS: [(Algorithm, Unit); 3] = [
        (Algorithm::Textbook, Unit::Rounds),
        (Algorithm::DualTuned, Unit::Rounds),
        (Algorithm::DinaSwapMove, Unit::Examined),
    ];

    fn of(results: &Results, (slots_of_share, eps): (usize, Nats), pieces: usize) -> Option<Self> {
        let kind = |scenario: &Scenario| {
            let counted = is_for_iterations(scenario.demand, scenario.fleet);
            let Scenario { pieces: other, slots_of_share: slots, eps: rise, .. } = *scenario;
            counted && (other, slots, rise) == (pieces, slots_of_share, eps)
        };
        let runs = Grouped::of(results, kind);
        let middle = |algorithm: Algorithm, figure: &dyn Fn(&Run) -> Option<f64>| {
            let figures = runs.runs.get(&algorithm).into_iter().flatten();
            stats::median(&figures.filter_map(|run| figure(run)).collect::<Vec<_>>())
        };
        let auction = |figure: fn(&Run) -> Option<f64>| middle(Algorithm::Auction, &figure);
        let count = |(each, unit)| middle(each, &|run| runs.count_ratio(run, unit));
        Some(Self {
            slots_of_share,
            eps,
            rounds: auction(|run| Some(run.effort.rounds as f64))?,
            bids: auction(|run| Some(run.effort.bids as f64))?,
            gap_per_piece: auction(|run| Some(run.quality?.gap_per_piece))?,
            times: Self::TIMES.map(|each| middle(each, &|run| runs.time_ratio(run))),
            counts: Self::COUNTS.map(count),
        })
    }
}
