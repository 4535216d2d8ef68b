//! What came out, claim by claim.
//!
//! A scenario's figure is the median over its seeds. Ratios are taken seed by seed, between two
//! algorithms on the very same case, before anything is averaged.

use std::collections::BTreeMap;

use super::{
    Results,
    sensitivity::{self, Sensitivity},
};
use crate::{
    baseline::Algorithm,
    paper::{
        measure::{Effort, Ending, Run, Share},
        scenario::{Demand, Fleet, Layout, Scenario},
    },
    plot::Spread,
    stats,
};

/// Claim (a): how much longer inferences take with an algorithm than with the auction.
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// Whose inferences.
    pub algorithm: Algorithm,
    /// Its mean inference time over the auction's; the range is over scenarios.
    pub ratio: Spread,
    /// The same for each demand and layout, over fleets, sizes and seeds.
    pub by_place: BTreeMap<(Demand, Layout), f64>,
    /// `(U* - U) / N` of the worst run, in nats.
    pub gap_max: f64,
    /// Runs that left a piece without a place, which have no inference time.
    pub incomplete: usize,
}

/// Claim (b): how fair an algorithm is.
#[derive(Clone, Debug, PartialEq)]
pub struct Fairness {
    /// Which; nothing for the exact optimum.
    pub algorithm: Option<Algorithm>,
    /// Jain's index in each of [`Share::ALL`]; the range is over scenarios.
    pub jain: [Spread; 3],
    /// The median scenario in which all requesters have the same DNN.
    pub alike: [f64; 3],
    /// The median scenario in which each has its own.
    pub mixed: [f64; 3],
    /// For each demand and layout, over fleets, sizes and seeds.
    pub by_place: BTreeMap<(Demand, Layout), [f64; 3]>,
}

/// Claim (c): what an algorithm takes, by `N`.
#[derive(Clone, Debug, PartialEq)]
pub struct Iterations {
    /// Which.
    pub algorithm: Algorithm,
    /// Of what.
    pub unit: Unit,
    /// The median at each `N`.
    pub count: BTreeMap<usize, f64>,
    /// The median ratio to the auction's count at each `N`.
    pub ratio: BTreeMap<usize, f64>,
    /// Runs that the limit of rounds ended: they would have taken more.
    pub cut_off: usize,
}

/// What may be meant by an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Places asked for.
    Bids,
    /// Pairs that were looked at for an exchange, against the auction's bids.
    Examined,
    /// From one node to one other.
    Messages,
    /// Steps in which everybody who waits acts once.
    Rounds,
    /// Messages, and adverts counted once however many hear them.
    Transmissions,
}

/// All three.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// (a), for all algorithms but the auction.
    pub speed: Vec<Speed>,
    /// The auction's own mean inference time in seconds, for each demand and layout.
    pub seconds: BTreeMap<(Demand, Layout), f64>,
    /// (b), for all algorithms.
    pub fairness: Vec<Fairness>,
    /// (c), for all algorithms that iterate, and the units in which they count something.
    pub iterations: Vec<Iterations>,
    /// How far it depends on what we chose.
    pub sensitivity: Vec<Sensitivity>,
}

impl Unit {
    /// All units.
    pub const ALL: [Self; 5] =
        [Self::Rounds, Self::Bids, Self::Examined, Self::Messages, Self::Transmissions];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bids => "bids",
            Self::Examined => "examined pairs (the auction: bids)",
            Self::Messages => "messages",
            Self::Rounds => "rounds",
            Self::Transmissions => "messages and adverts",
        }
    }

    /// In one word.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::Examined => "pairs",
            Self::Transmissions => "transmissions",
            Self::Bids | Self::Messages | Self::Rounds => self.name(),
        }
    }

    /// So many of them; nothing where an algorithm does not count them.
    #[must_use]
    pub fn of(self, effort: &Effort) -> Option<u64> {
        match self {
            Self::Bids => Some(effort.bids),
            Self::Examined => effort.examined,
            Self::Messages => Some(effort.messages),
            Self::Rounds => Some(effort.rounds),
            Self::Transmissions => Some(effort.messages + effort.adverts),
        }
    }

    /// What the auction's count is in a comparison.
    fn of_auction(self, effort: &Effort) -> u64 {
        self.of(effort).unwrap_or(effort.bids)
    }
}

impl Claims {
    /// Sums up what came out.
    #[must_use]
    pub fn of(results: &Results) -> Self {
        let runs = Grouped::of(results, Scenario::is_usual);
        let others = || Algorithm::ALL.into_iter().filter(|other| *other != Algorithm::Auction);
        let counts = Unit::ALL.into_iter().flat_map(|unit| Algorithm::ALL.map(|each| (unit, each)));
        let counts = counts.filter(|(_, each)| is_iterative(*each));
        let own = Algorithm::ALL.into_iter().map(Some);
        Self {
            speed: others().filter_map(|algorithm| runs.speed(algorithm)).collect(),
            seconds: runs.seconds(),
            fairness: own.chain([None]).filter_map(|each| runs.fairness(each)).collect(),
            iterations: counts.filter_map(|(unit, each)| runs.iterations(each, unit)).collect(),
            sensitivity: sensitivity::of(results),
        }
    }
}

impl Claims {
    /// How fair the auction is.
    #[must_use]
    pub fn of_auction(&self) -> Option<&Fairness> {
        self.fairness.iter().find(|row| row.algorithm == Some(Algorithm::Auction))
    }

    /// How fair the exact optimum is.
    #[must_use]
    pub fn of_optimum(&self) -> Option<&Fairness> {
        self.fairness.iter().find(|row| row.algorithm.is_none())
    }
}

impl Fairness {
    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.algorithm.map_or("the optimum", Algorithm::name)
    }
}

impl Iterations {
    /// The `N` from which on the auction takes ten times less.
    #[must_use]
    pub fn tenfold_from(&self) -> Option<usize> {
        let from_the_end = self.ratio.iter().rev();
        from_the_end.take_while(|(_, ratio)| **ratio >= TENFOLD).last().map(|(pieces, _)| *pieces)
    }
}

/// Whether a scenario of this kind is one in which iterations are counted: one kind of fleet,
/// because sizes can only be compared among equals.
#[must_use]
pub fn is_for_iterations(demand: Demand, fleet: Fleet) -> bool {
    demand == Demand::Mixed && fleet == Fleet::Spread
}

/// Whether an algorithm is a rival, and not the protocol's own.
#[must_use]
pub fn is_rival(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Auction | Algorithm::Forecast)
}

/// Whether an algorithm improves on what it has, step by step, and does not only go through the
/// pieces once.
#[must_use]
pub fn is_iterative(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Random | Algorithm::RoundRobin | Algorithm::Greedy)
}

/// Their names, as a list.
pub fn names(algorithms: impl Iterator<Item = Algorithm>) -> String {
    algorithms.map(Algorithm::name).collect::<Vec<_>>().join(", ")
}

/// The runs by algorithm, and the auction's on the same case.
pub(super) struct Grouped<'a> {
    pub(super) runs: BTreeMap<Algorithm, Vec<&'a Run>>,
    auction: BTreeMap<(Scenario, u64), &'a Run>,
}

impl<'a> Grouped<'a> {
    pub(super) fn of(results: &'a Results, kind: impl Fn(&Scenario) -> bool) -> Self {
        let mut grouped = Self { runs: BTreeMap::new(), auction: BTreeMap::new() };
        for run in results.runs.iter().filter(|run| kind(&run.scenario)) {
            grouped.runs.entry(run.algorithm).or_default().push(run);
            if run.algorithm == Algorithm::Auction {
                grouped.auction.insert((run.scenario, run.seed), run);
            }
        }
        grouped
    }

    fn auction(&self, run: &Run) -> Option<&'a Run> {
        self.auction.get(&(run.scenario, run.seed)).copied()
    }

    pub(super) fn time_ratio(&self, run: &Run) -> Option<f64> {
        Some(run.quality?.mean_time / self.auction(run)?.quality?.mean_time)
    }

    pub(super) fn count_ratio(&self, run: &Run, unit: Unit) -> Option<f64> {
        let auction = unit.of_auction(&self.auction(run)?.effort);
        let own = unit.of(&run.effort)?;
        (auction > 0).then(|| own as f64 / auction as f64)
    }

    fn speed(&self, algorithm: Algorithm) -> Option<Speed> {
        let runs = self.runs.get(&algorithm)?;
        let ratio = |run: &Run| self.time_ratio(run);
        let gaps = runs.iter().filter_map(|run| Some(run.quality?.gap_per_piece));
        Some(Speed {
            algorithm,
            ratio: spread(medians(runs, |run| run.scenario, ratio).into_values())?,
            by_place: medians(runs, place, ratio),
            gap_max: gaps.fold(f64::NEG_INFINITY, f64::max),
            incomplete: runs.iter().filter(|run| run.quality.is_none()).count(),
        })
    }

    fn seconds(&self) -> BTreeMap<(Demand, Layout), f64> {
        let runs: Vec<&Run> = self.auction.values().copied().collect();
        medians(&runs, place, |run| Some(run.quality?.mean_time))
    }

    fn fairness(&self, algorithm: Option<Algorithm>) -> Option<Fairness> {
        // The optimum is that of every run on a case.
        let runs = self.runs.get(&algorithm.unwrap_or(Algorithm::Auction))?;
        let jain = move |run: &Run| match algorithm {
            Some(_) => Some(run.quality?.jain),
            None => Some(run.optimum),
        };
        let index = |share: Share| move |run: &Run| Some(share.of(&jain(run)?));
        let [pieces, busy, time] =
            Share::ALL.map(|share| medians(runs, |run| run.scenario, index(share)));
        let of = |kind: fn(&Demand) -> bool| {
            let middle = |jain: &BTreeMap<Scenario, f64>| {
                let kept = jain.iter().filter(|(scenario, _)| kind(&scenario.demand));
                stats::median(&kept.map(|(_, index)| *index).collect::<Vec<_>>())
            };
            Some([middle(&pieces)?, middle(&busy)?, middle(&time)?])
        };
        let (alike, mixed) =
            (of(|demand| *demand != Demand::Mixed)?, of(|demand| *demand == Demand::Mixed)?);
        let places = Share::ALL.map(|share| medians(runs, place, index(share)));
        let by_place = places[0].keys().map(|at| (*at, [0, 1, 2].map(|n| places[n][at])));
        Some(Fairness {
            algorithm,
            by_place: by_place.collect(),
            alike,
            mixed,
            jain: [
                spread(pieces.into_values())?,
                spread(busy.into_values())?,
                spread(time.into_values())?,
            ],
        })
    }

    fn iterations(&self, algorithm: Algorithm, unit: Unit) -> Option<Iterations> {
        let counted = |run: &&&Run| is_for_iterations(run.scenario.demand, run.scenario.fleet);
        let runs: Vec<&Run> = self.runs.get(&algorithm)?.iter().filter(counted).copied().collect();
        let pieces = |run: &Run| run.scenario.pieces;
        let count = |run: &Run| Some(unit.of(&run.effort)? as f64);
        let ratio = |run: &Run| self.count_ratio(run, unit);
        let iterations = Iterations {
            algorithm,
            unit,
            count: medians(&runs, pieces, count),
            ratio: medians(&runs, pieces, ratio),
            cut_off: runs.iter().filter(|run| run.effort.ending == Ending::CutOff).count(),
        };
        (!iterations.count.is_empty()).then_some(iterations)
    }
}

/// The median of a figure in each group of runs; no entry for groups in which no run has it.
pub fn medians<K: Ord>(
    runs: &[&Run],
    key: impl Fn(&Run) -> K,
    figure: impl Fn(&Run) -> Option<f64>,
) -> BTreeMap<K, f64> {
    let mut groups: BTreeMap<K, Vec<f64>> = BTreeMap::new();
    for run in runs {
        if let Some(figure) = figure(run) {
            groups.entry(key(run)).or_default().push(figure);
        }
    }
    groups.into_iter().filter_map(|(key, figures)| Some((key, stats::median(&figures)?))).collect()
}

fn place(run: &Run) -> (Demand, Layout) {
    (run.scenario.demand, run.scenario.layout)
}

fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let values: Vec<f64> = values.collect();
    Some(Spread {
        low: values.iter().copied().reduce(f64::min)?,
        middle: stats::median(&values)?,
        high: values.iter().copied().reduce(f64::max)?,
    })
}

/// What the abstract says: the least and the most.
pub const PAPER_SPEED: std::ops::Range<f64> = 1.14..2.62;
/// What the abstract says of Jain's index.
pub const PAPER_JAIN: f64 = 0.9;
/// One order of magnitude.
pub const TENFOLD: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::{
        measure::{Jain, Quality},
        models::Dnn,
        xu2023::{Scale, Setup},
    };

    fn run(demand: Demand, seed: u64, algorithm: Algorithm, mean_time: f64, bids: u64) -> Run {
        let (layout, fleet) = (Layout::Uniform, Fleet::Spread);
        let jain = Jain { pieces: 0.9, busy: 0.8, time: mean_time / 10.0 };
        Run {
            scenario: Scenario::new(demand, layout, fleet, (20, 4)),
            seed,
            algorithm,
            effort: Effort {
                rounds: 4_000 * seed,
                bids,
                examined: (algorithm == Algorithm::DinaSwap).then_some(5 * bids),
                messages: 3,
                adverts: 4,
                ending: if seed == 1 { Ending::CutOff } else { Ending::Own },
            },
            quality: Some(Quality { mean_time, gap_per_piece: mean_time / 100.0, jain }),
            optimum: Jain { busy: 0.7, ..jain },
        }
    }

    fn claims(mut change: impl FnMut(&mut Vec<Run>)) -> Claims {
        let (one, mixed) = (Demand::All(Dnn::Nin), Demand::Mixed);
        let mut runs = Vec::new();
        for (demand, seed, own, other) in
            [(one, 0, 1.0, 2.0), (one, 1, 2.0, 8.0), (mixed, 0, 4.0, 5.0)]
        {
            runs.push(run(demand, seed, Algorithm::Auction, own, 10));
            runs.push(run(demand, seed, Algorithm::DinaSwap, other, 30));
        }
        change(&mut runs);
        Claims::of(&Results { setup: Setup::new(2, Scale::Quick), runs })
    }

    #[test]
    fn ratios_are_taken_seed_by_seed_then_over_seeds_then_over_scenarios() {
        let claims = claims(|_| {});
        assert_eq!(claims.speed.len(), 1);
        let speed = &claims.speed[0];
        // 2 and 4 in one scenario, 1.25 in the other.
        assert_eq!(speed.ratio, Spread { low: 1.25, middle: 2.125, high: 3.0 });
        assert_eq!(speed.by_place[&(Demand::Mixed, Layout::Uniform)], 1.25);
        assert_eq!((speed.gap_max, speed.incomplete), (0.08, 0));
        let seconds: Vec<f64> = claims.seconds.into_values().collect();
        assert_eq!(seconds, [1.5, 4.0]);
    }

    #[test]
    fn a_run_that_left_a_piece_over_has_no_time_but_is_counted() {
        let claims = claims(|runs| runs[3].quality = None);
        let speed = &claims.speed[0];
        assert_eq!(speed.ratio, Spread { low: 1.25, middle: 1.625, high: 2.0 });
        assert_eq!(speed.incomplete, 1);
    }

    #[test]
    fn fairness_is_apart_for_mixed_demand() {
        let claims = claims(|_| {});
        let auction = claims.of_auction().expect("it ran");
        let close = |got: [f64; 3], expected: [f64; 3]| {
            got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-12)
        };
        assert!(close(auction.alike, [0.9, 0.8, 0.15]), "{auction:?}");
        assert!(close(auction.mixed, [0.9, 0.8, 0.4]), "{auction:?}");
        assert!(close(auction.by_place[&(Demand::Mixed, Layout::Uniform)], auction.mixed));
        let optimum = claims.of_optimum().expect("every case has one");
        assert!(close(optimum.mixed, [0.9, 0.7, 0.4]), "{optimum:?}");
    }

    #[test]
    fn iterations_are_counted_in_the_scenarios_for_them_only() {
        let claims = claims(|runs| runs[0].effort.bids = 1_000_000);
        let find = |algorithm, unit| {
            let of = |row: &&Iterations| (row.algorithm, row.unit) == (algorithm, unit);
            claims.iterations.iter().find(of)
        };
        let bids = find(Algorithm::DinaSwap, Unit::Bids).expect("it bids");
        assert_eq!((bids.count[&20], bids.ratio[&20], bids.cut_off), (30.0, 3.0, 0));
        let examined = find(Algorithm::DinaSwap, Unit::Examined).expect("it examines pairs");
        assert_eq!((examined.count[&20], examined.ratio[&20]), (150.0, 15.0));
        let sent = find(Algorithm::Auction, Unit::Transmissions).expect("it sends");
        assert_eq!(sent.count[&20], 7.0);
        assert_eq!(find(Algorithm::Auction, Unit::Examined), None);
    }

    #[test]
    fn tenfold_must_last_to_the_largest_size() {
        let check = |ratios: [f64; 3], expected| {
            let ratio: BTreeMap<usize, f64> = [20, 40, 80].into_iter().zip(ratios).collect();
            let (algorithm, unit) = (Algorithm::Cbba, Unit::Bids);
            let row = Iterations { algorithm, unit, count: ratio.clone(), ratio, cut_off: 0 };
            assert_eq!(row.tenfold_from(), expected, "{ratios:?}");
        };
        check([1.0, 10.0, 11.0], Some(40));
        check([12.0, 9.9, 11.0], Some(80));
        check([12.0, 11.0, 9.0], None);
    }
}
