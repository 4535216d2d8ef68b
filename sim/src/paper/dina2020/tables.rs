//! What came out, as tables.

use std::ops::RangeInclusive;

use starling_protocol::partition::Planner;

use super::{PLANNERS, RIVALS, Run, scenario::DNNS};
use crate::{
    paper::{
        observe,
        site::{spread, verdict},
        table::{Cell, Table},
    },
    stats,
};

/// All tables of the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// Each rival against DINA.
    pub headline: Table,
    /// The same by one feature of the scenarios after the other.
    pub features: Table,
    /// Where the claim holds against two-way splits: by DNN and fog, at each number of nodes.
    pub places: Table,
    /// `pf` against the best machine alone and against DINA, by DNN.
    pub ours: Table,
    /// Streams in virtual time.
    pub observed: Table,
    /// Every scenario.
    pub times: Table,
}

impl Tables {
    /// Sums up what came out.
    #[must_use]
    pub fn of(runs: &[Run]) -> Self {
        Self {
            headline: headline(runs),
            features: features(runs),
            places: places(runs),
            ours: ours(runs),
            observed: observed(runs),
            times: times(runs),
        }
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Table> {
        [&self.headline, &self.features, &self.places, &self.ours, &self.observed, &self.times]
            .into_iter()
    }
}

/// How many times as long a rival takes, in each of some runs.
pub(super) fn ratios(runs: &[&Run], rival: Planner) -> Vec<f64> {
    runs.iter().map(|run| run.ratio(rival)).collect()
}

/// What percentage of some ratios are at least the paper's least.
fn reached(ratios: &[f64]) -> Cell {
    let reached = ratios.iter().filter(|ratio| **ratio >= *PAPER.start()).count();
    Cell::Number(reached as f64 / ratios.len().max(1) as f64 * 100.0, 0)
}

fn headline(runs: &[Run]) -> Table {
    let columns = [
        "rival",
        "its latency / DINA's, median",
        "least",
        "most",
        "scenarios with 2.6 or more (%)",
        "median in the paper's 2.6 to 4.2",
    ];
    let mut table = Table::new("headline", &columns);
    let all: Vec<&Run> = runs.iter().collect();
    for rival in RIVALS {
        let ratios = ratios(&all, rival);
        let Some(range) = spread(&ratios) else { continue };
        let mut row = vec![Cell::text(rival.name())];
        row.extend([range.middle, range.low, range.high].map(|ratio| Cell::Number(ratio, 2)));
        row.extend([reached(&ratios), Cell::text(verdict(range.middle, &PAPER))]);
        table.rows.push(row);
    }
    table
}

/// A feature of scenarios, and its value in one.
type Feature = (&'static str, fn(&Run) -> String);

const FEATURES: [Feature; 6] = [
    ("DNN", |run| run.scenario.dnn.name().to_owned()),
    ("fog", |run| run.scenario.fog.name().to_owned()),
    ("nodes", |run| run.scenario.nodes.to_string()),
    ("Mbit/s", |run| run.scenario.mbit.to_string()),
    ("links", |run| run.scenario.links.name().to_owned()),
    ("load", |run| run.scenario.load.name().to_owned()),
];

fn features(runs: &[Run]) -> Table {
    let columns = [
        "feature",
        "value",
        "neurosurgeon / DINA",
        "of scenarios 2.6 or more (%)",
        "greedy / DINA",
        "greedy: 2.6 or more (%)",
        "random / DINA",
        "random: 2.6 or more (%)",
        "machines of DINA",
    ];
    let mut table = Table::new("features", &columns);
    for (feature, value) in FEATURES {
        for (value, some) in grouped(runs, value) {
            let mut row = vec![Cell::text(feature), Cell::text(value)];
            for rival in RIVALS {
                let ratios = ratios(&some, rival);
                row.extend([Cell::number(stats::median(&ratios), 2), reached(&ratios)]);
            }
            let machines: Vec<f64> = some.iter().map(|run| run.machines as f64).collect();
            row.push(Cell::number(stats::median(&machines), 0));
            table.rows.push(row);
        }
    }
    table
}

/// Runs by a feature's value, in the order in which values appear.
fn grouped(runs: &[Run], value: fn(&Run) -> String) -> Vec<(String, Vec<&Run>)> {
    let mut groups: Vec<(String, Vec<&Run>)> = Vec::new();
    for run in runs {
        let value = value(run);
        match groups.iter_mut().find(|(other, _)| *other == value) {
            Some((_, group)) => group.push(run),
            None => groups.push((value, vec![run])),
        }
    }
    groups
}

fn places(runs: &[Run]) -> Table {
    let mut sizes: Vec<u8> = runs.iter().map(|run| run.scenario.nodes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut table = Table::new("two_way", &["DNN", "fog", "Mbit/s"]);
    table.columns.extend(sizes.iter().map(|nodes| format!("{nodes} nodes")));
    let place = |run: &Run| {
        let at = run.scenario;
        [at.dnn.name(), at.fog.name(), &at.mbit.to_string()].join("/")
    };
    for (place, some) in grouped(runs, place) {
        let mut row: Vec<Cell> = place.split('/').map(Cell::text).collect();
        for nodes in &sizes {
            let here: Vec<&Run> =
                some.iter().copied().filter(|run| run.scenario.nodes == *nodes).collect();
            row.push(Cell::number(stats::median(&ratios(&here, Planner::Neurosurgeon)), 2));
        }
        table.rows.push(row);
    }
    table
}

fn ours(runs: &[Run]) -> Table {
    let columns = [
        "DNN",
        "one inference: single (s)",
        "dina (s)",
        "edgeci (s)",
        "pf (s)",
        "single / pf",
        "dina / pf",
        "stream: single (1/s)",
        "pf (1/s)",
        "times as fast",
    ];
    let mut table = Table::new("pf", &columns);
    for dnn in DNNS {
        let some: Vec<&Run> = runs.iter().filter(|run| run.scenario.dnn == dnn).collect();
        let median = |of: &dyn Fn(&Run) -> f64| {
            let all: Vec<f64> = some.iter().map(|run| of(run)).collect();
            Cell::number(stats::median(&all), 2)
        };
        let rate = |run: &Run, plan: usize| 1.0 / run.stream[plan].prediction.bottleneck;
        let pf = |run: &Run| run.seconds(Planner::Pf);
        let mut row = vec![Cell::text(dnn.name())];
        let planners = [Planner::Single, Planner::Dina, Planner::EdgeCi, Planner::Pf];
        row.extend(planners.map(|planner| median(&|run| run.seconds(planner))));
        row.extend(
            [Planner::Single, Planner::Dina].map(|of| median(&|run| run.seconds(of) / pf(run))),
        );
        row.extend([0, 1].map(|plan| median(&|run| rate(run, plan))));
        row.push(median(&|run| rate(run, 1) / rate(run, 0)));
        table.rows.push(row);
    }
    table
}

fn observed(runs: &[Run]) -> Table {
    let all = runs.iter().filter_map(|run| Some((run, run.observed?)));
    observe::table(
        all.flat_map(|(run, observed)| {
            let (dnn, mbit) = (run.scenario.dnn, run.scenario.mbit);
            run.stream.iter().zip(observed).map(move |(plan, seen)| (dnn, mbit, plan, seen))
        }),
        3,
    )
}

fn times(runs: &[Run]) -> Table {
    let first = ["DNN", "fog", "nodes", "Mbit/s", "links", "load", "seed"].map(str::to_owned);
    let seconds = PLANNERS.map(|planner| format!("{planner} (s)"));
    let last = ["machines of dina", "stream: single (1/s)", "stream: pf (1/s)"].map(str::to_owned);
    let mut table = Table::new("times", &[]);
    table.columns = first.into_iter().chain(seconds).chain(last).collect();
    for run in runs {
        let at = &run.scenario;
        let mut row = vec![Cell::text(at.dnn.name()), Cell::text(at.fog.name())];
        row.extend([Cell::Count(at.nodes.into()), Cell::Number(at.mbit, 0)]);
        row.extend([Cell::text(at.links.name()), Cell::text(at.load.name()), Cell::Count(at.seed)]);
        row.extend(run.seconds.iter().map(|seconds| Cell::Number(*seconds, 3)));
        row.push(Cell::Count(run.machines as u64));
        row.extend(run.stream.iter().map(|plan| Cell::Number(1.0 / plan.prediction.bottleneck, 3)));
        table.rows.push(row);
    }
    table
}

/// What the abstract says: how many times as long the others take.
pub const PAPER: RangeInclusive<f64> = 2.6..=4.2;
