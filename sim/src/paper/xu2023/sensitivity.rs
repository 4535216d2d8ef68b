//! How far the results depend on what we chose: the auction's eps and the slots.

use std::collections::BTreeSet;

use starling_protocol::Nats;

use super::{
    Results,
    claims::{Grouped, PAPER_SPEED, TENFOLD, Unit, is_for_iterations},
};
use crate::{
    baseline::Algorithm,
    paper::{
        measure::Run,
        scenario::{EPS, SLOTS_OF_SHARE, Scenario},
    },
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

/// What a claim holds against at other values only, in sentences.
#[must_use]
pub fn changes(rows: &[Sensitivity]) -> Vec<String> {
    let Some(usual) = rows.iter().find(|row| row.is_usual()) else { return Vec::new() };
    let mut changes = Vec::new();
    for row in rows.iter().filter(|row| !row.is_usual()) {
        let at =
            format!("With {} shares of slots and eps {:.2}", row.slots_of_share, row.eps.to_f64());
        let is_new = |least: f64, ratio: Option<f64>, usual: Option<f64>| {
            ratio.filter(|ratio| *ratio >= least && usual.is_none_or(|usual| usual < least))
        };
        for (n, whom) in Sensitivity::TIMES.iter().map(|each| each.name()).enumerate() {
            if let Some(ratio) = is_new(PAPER_SPEED.start, row.times[n], usual.times[n]) {
                changes.push(format!("{at}, claim (a) holds against {whom} ({ratio:.2} times)."));
            }
        }
        for (n, (whom, unit)) in Sensitivity::COUNTS.iter().enumerate() {
            if let Some(ratio) = is_new(TENFOLD, row.counts[n], usual.counts[n]) {
                let (whom, unit) = (whom.name(), unit.name());
                changes.push(format!(
                    "{at}, claim (c) holds against {whom} in {unit} ({ratio:.2} times)."
                ));
            }
        }
    }
    changes
}

impl Sensitivity {
    fn is_usual(&self) -> bool {
        (self.slots_of_share, self.eps) == (SLOTS_OF_SHARE, EPS)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(slots_of_share: usize, eps: Nats, time: f64, count: f64) -> Sensitivity {
        let (times, counts) = ([Some(time), None, None, None], [Some(count), None, None]);
        Sensitivity {
            slots_of_share,
            eps,
            rounds: 1.0,
            bids: 1.0,
            gap_per_piece: 0.0,
            times,
            counts,
        }
    }

    fn check(other: Sensitivity, expected: &[&str]) {
        let usual = row(SLOTS_OF_SHARE, EPS, 1.1, 20.0);
        assert_eq!(changes(&[usual, other]), expected);
    }

    #[test]
    fn only_what_holds_at_other_values_alone_is_told() {
        let eps = Nats(200_000_000);
        let expected =
            "With 2 shares of slots and eps 0.20, claim (a) holds against greedy (1.30 times).";
        check(row(2, eps, 1.3, 20.0), &[expected]);
        check(row(2, eps, 1.0, 20.0), &[]);
        assert_eq!(changes(&[row(2, eps, 1.3, 20.0)]), [""; 0], "nothing to compare with");
    }
}
