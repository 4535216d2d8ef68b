//! What came out, as tables.

use std::ops::RangeInclusive;

use starling_protocol::partition::{LinkModel, Planner, Route};

use super::{
    PLANNERS, RIVALS, Rival, Run,
    scenario::{DNNS, WAYS},
};
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
    /// EdgeCI against each rival, by route and links.
    pub headline: Table,
    /// The same by DNN.
    pub dnns: Table,
    /// The same by DNN and the links' rate.
    pub rates: Table,
    /// Every scenario.
    pub times: Table,
    /// `pf` against the best device alone, by route, links and DNN.
    pub ours: Table,
    /// Streams in virtual time.
    pub observed: Table,
}

impl Tables {
    /// Sums up what came out.
    #[must_use]
    pub fn of(runs: &[Run]) -> Self {
        Self {
            headline: headline(runs),
            dnns: dnns(runs),
            rates: rates(runs),
            times: times(runs),
            ours: ours(runs),
            observed: observed(runs),
        }
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Table> {
        [&self.headline, &self.dnns, &self.rates, &self.times, &self.ours, &self.observed]
            .into_iter()
    }
}

/// The runs of one route and one kind of links.
pub(super) fn of_way(runs: &[Run], (route, links): (Route, LinkModel)) -> Vec<&Run> {
    let same = |run: &&Run| (run.scenario.route, run.scenario.links) == (route, links);
    runs.iter().filter(same).collect()
}

fn words(texts: [&str; 3]) -> Vec<Cell> {
    texts.map(Cell::text).to_vec()
}

fn headline(runs: &[Run]) -> Table {
    let columns = [
        "route",
        "links",
        "rival",
        "time saved, median (%)",
        "least",
        "most",
        "rate gained, median (%)",
        "the paper's 34.72 to 43.52 % as time",
        "as rate",
    ];
    let mut table = Table::new("headline", &columns);
    for (at, rival) in WAYS.into_iter().flat_map(|at| RIVALS.map(|rival| (at, rival))) {
        let some = of_way(runs, at);
        let saved: Vec<f64> = some.iter().filter_map(|run| run.time_saved(rival)).collect();
        let gained: Vec<f64> = some.iter().filter_map(|run| run.rate_gained(rival)).collect();
        let (Some(saved), Some(gained)) = (spread(&saved), spread(&gained)) else { continue };
        let mut row = words([at.0.name(), at.1.name(), rival.name()]);
        row.extend([saved.middle, saved.low, saved.high, gained.middle].map(percent));
        row.extend([saved, gained].map(|of| Cell::text(verdict(of.middle, &PAPER))));
        table.rows.push(row);
    }
    table
}

/// Without what is left of rounding errors.
fn percent(percent: f64) -> Cell {
    Cell::Number((percent * 1e9).round() / 1e9 + 0.0, 1)
}

fn dnns(runs: &[Run]) -> Table {
    let columns = ["route", "links", "DNN"].into_iter().chain(RIVALS.map(against));
    let mut table = Table::new("by_dnn", &columns.collect::<Vec<_>>());
    for (at, dnn) in WAYS.into_iter().flat_map(|at| DNNS.map(|dnn| (at, dnn))) {
        let some: Vec<&Run> =
            of_way(runs, at).into_iter().filter(|run| run.scenario.dnn == dnn).collect();
        let mut row = words([at.0.name(), at.1.name(), dnn.name()]);
        row.extend(medians(&some));
        table.rows.push(row);
    }
    table
}

fn rates(runs: &[Run]) -> Table {
    let columns = ["route", "links", "DNN", "Mbit/s"].into_iter().chain(RIVALS.map(against));
    let mut table = Table::new("by_rate", &columns.collect::<Vec<_>>());
    let mut all: Vec<f64> = runs.iter().map(|run| run.scenario.mbit).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    for (at, dnn) in WAYS.into_iter().flat_map(|at| DNNS.map(|dnn| (at, dnn))) {
        for mbit in &all {
            let here = |run: &&Run| run.scenario.dnn == dnn && run.scenario.mbit == *mbit;
            let some: Vec<&Run> = of_way(runs, at).into_iter().filter(here).collect();
            let mut row = words([at.0.name(), at.1.name(), dnn.name()]);
            row.push(Cell::Number(*mbit, 0));
            row.extend(medians(&some));
            table.rows.push(row);
        }
    }
    table
}

fn against(rival: Rival) -> &'static str {
    match rival {
        Rival::Published => "layer-wise as published (%)",
        Rival::Tuned(Planner::EarlyFused) => "early-fused (%)",
        Rival::Tuned(Planner::LayerWise) => "layer-wise (%)",
        Rival::Tuned(_) => "optimal-fused (%)",
    }
}

fn medians(runs: &[&Run]) -> [Cell; RIVALS.len()] {
    RIVALS.map(|rival| {
        let saved: Vec<f64> = runs.iter().filter_map(|run| run.time_saved(rival)).collect();
        Cell::number(stats::median(&saved), 1)
    })
}

fn times(runs: &[Run]) -> Table {
    let mut columns =
        vec!["DNN", "devices", "Mbit/s", "links", "route"].into_iter().map(str::to_owned).collect();
    let seconds = PLANNERS.map(|planner| format!("{planner} (s)"));
    let saved = RIVALS.map(|rival| format!("saved against {} (%)", rival.name()));
    let others =
        ["segments of edgeci", "machines of pf", "stream: single (1/s)", "stream: pf (1/s)"];
    let mut table = Table::new("times", &[]);
    let published = "layer-wise as published (s)".to_owned();
    Vec::extend(&mut columns, seconds.into_iter().chain([published]).chain(saved));
    columns.extend(others.map(str::to_owned));
    table.columns = columns;
    for run in runs {
        let at = &run.scenario;
        let mut row = vec![Cell::text(at.dnn.name()), Cell::text(at.fleet())];
        row.extend([Cell::Number(at.mbit, 0), Cell::text(at.links.name())]);
        row.push(Cell::text(at.route.name()));
        row.extend(PLANNERS.map(|planner| Cell::Number(run.seconds(planner), 3)));
        row.push(Cell::number(run.published, 3));
        row.extend(RIVALS.map(|rival| Cell::number(run.time_saved(rival), 1)));
        row.push(Cell::Count(run.latency[0].layout.segments.len() as u64));
        row.push(Cell::Count(run.latency[PLANNERS.len() - 1].machines() as u64));
        row.extend(run.stream.iter().map(|plan| Cell::Number(1.0 / plan.prediction.bottleneck, 4)));
        table.rows.push(row);
    }
    table
}

fn ours(runs: &[Run]) -> Table {
    let columns = [
        "route",
        "links",
        "DNN",
        "one inference: single (s)",
        "pf (s)",
        "times as fast",
        "stream: single (1/s)",
        "pf (1/s)",
        "stream: times as fast",
    ];
    let mut table = Table::new("pf", &columns);
    for (at, dnn) in WAYS.into_iter().flat_map(|at| DNNS.map(|dnn| (at, dnn))) {
        let some: Vec<&Run> =
            of_way(runs, at).into_iter().filter(|run| run.scenario.dnn == dnn).collect();
        let median = |of: &dyn Fn(&Run) -> f64, decimals| {
            let all: Vec<f64> = some.iter().map(|run| of(run)).collect();
            Cell::number(stats::median(&all), decimals)
        };
        let rate = |run: &Run, plan: usize| 1.0 / run.stream[plan].prediction.bottleneck;
        let mut row = words([at.0.name(), at.1.name(), dnn.name()]);
        row.push(median(&|run| run.seconds(Planner::Single), 2));
        row.push(median(&|run| run.seconds(Planner::Pf), 2));
        row.push(median(&|run| run.seconds(Planner::Single) / run.seconds(Planner::Pf), 2));
        row.push(median(&|run| rate(run, 0), 3));
        row.push(median(&|run| rate(run, 1), 3));
        row.push(median(&|run| rate(run, 1) / rate(run, 0), 2));
        table.rows.push(row);
    }
    table
}

fn observed(runs: &[Run]) -> Table {
    let all = runs.iter().filter_map(|run| Some((run, run.observed.as_ref()?)));
    observe::table(
        all.flat_map(|(run, observed)| {
            let (dnn, mbit) = (run.scenario.dnn, run.scenario.mbit);
            observed.iter().map(move |(plan, seen)| (dnn, mbit, plan, *seen))
        }),
        4,
    )
}

/// What the abstract says, in percent.
pub const PAPER: RangeInclusive<f64> = 34.72..=43.52;
