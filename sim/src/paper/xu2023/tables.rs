//! The tables of the report.

use super::{
    Results,
    claims::{Claims, PAPER_SPEED, Speed},
    sensitivity::Sensitivity,
    verdicts,
};
use crate::{
    baseline::Algorithm,
    paper::{
        measure::{Ending, Share},
        scenario::EPS,
        table::{Cell, Table},
    },
};

/// Every table, each in a file of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// The three claims and what became of them.
    pub headline: Table,
    /// (a) by algorithm.
    pub speed: Table,
    /// (a) by DNN and layout.
    pub places: Table,
    /// (b) by algorithm.
    pub fairness: Table,
    /// (b) of the auction, by DNN and layout.
    pub demands: Table,
    /// (c): counts over the auction's.
    pub ratios: Table,
    /// (c): the counts themselves.
    pub counts: Table,
    /// How far it depends on what we chose.
    pub sensitivity: Table,
    /// Every run.
    pub runs: Table,
}

impl Tables {
    /// Fills them in.
    #[must_use]
    pub fn of(results: &Results, claims: &Claims) -> Self {
        Self {
            headline: verdicts::table(claims),
            speed: speed_table(claims),
            places: places_table(claims),
            fairness: fairness_table(claims),
            demands: demands_table(claims),
            ratios: ratios_table(claims),
            counts: counts_table(claims),
            sensitivity: sensitivity_table(claims),
            runs: runs_table(results),
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Table> {
        let Self { headline, speed, places, fairness, demands, ratios, counts, sensitivity, runs } =
            self;
        [headline, speed, places, fairness, demands, ratios, counts, sensitivity, runs].into_iter()
    }
}

fn speed_table(claims: &Claims) -> Table {
    let columns = [
        "algorithm",
        "least ratio",
        "median ratio",
        "largest ratio",
        "worst gap (nats/piece)",
        "incomplete runs",
        "reading",
    ];
    let mut table = Table::new("inference_time", &columns);
    let eps = EPS.to_f64();
    table.rows = claims
        .speed
        .iter()
        .map(|speed| {
            let Speed { algorithm, ratio, gap_max, incomplete, .. } = speed;
            vec![
                Cell::text(algorithm.name()),
                Cell::Number(ratio.low, 2),
                Cell::Number(ratio.middle, 2),
                Cell::Number(ratio.high, 2),
                Cell::Number(*gap_max, 3),
                Cell::Count(*incomplete as u64),
                Cell::text(reading(speed, eps)),
            ]
        })
        .collect();
    table
}

fn reading(speed: &Speed, eps: f64) -> &'static str {
    if speed.incomplete == 0 && speed.gap_max <= eps {
        "as good as optimal, like the auction"
    } else if speed.ratio.middle < PAPER_SPEED.start {
        "less than the paper's 1.14"
    } else if speed.ratio.middle <= PAPER_SPEED.end {
        "within the paper's 1.14 to 2.62"
    } else {
        "more than the paper's 2.62"
    }
}

fn places_table(claims: &Claims) -> Table {
    let mut columns = ["DNN", "layout", "auction (s)"].map(str::to_owned).to_vec();
    columns.extend(claims.speed.iter().map(|speed| speed.algorithm.name().to_owned()));
    let mut table = Table { name: "inference_time_by_dnn", columns, rows: Vec::new() };
    for (place, seconds) in &claims.seconds {
        let mut row = vec![Cell::text(place.0.name()), Cell::text(place.1.name())];
        row.push(Cell::Number(*seconds, 2));
        let ratios = claims.speed.iter().map(|speed| speed.by_place.get(place).copied());
        row.extend(ratios.map(|ratio| Cell::number(ratio, 2)));
        table.rows.push(row);
    }
    table
}

fn fairness_table(claims: &Claims) -> Table {
    let mut columns = vec!["algorithm".to_owned()];
    for share in Share::ALL {
        let of = |range: &str| format!("{}: {range}", share.short());
        columns.extend([of("median"), of("least"), of("most")]);
    }
    let mut table = Table { name: "fairness", columns, rows: Vec::new() };
    for row in &claims.fairness {
        let mut cells = vec![Cell::text(row.name())];
        for jain in row.jain {
            cells.extend([jain.middle, jain.low, jain.high].map(|index| Cell::Number(index, 2)));
        }
        table.rows.push(cells);
    }
    table
}

fn demands_table(claims: &Claims) -> Table {
    let mut columns = vec!["DNN".to_owned(), "layout".to_owned()];
    columns.extend(Share::ALL.map(|share| share.short().to_owned()));
    columns.extend(Share::ALL.map(|share| format!("{} at the optimum", share.short())));
    let mut table = Table { name: "fairness_by_dnn", columns, rows: Vec::new() };
    let (auction, optimum) = (claims.of_auction(), claims.of_optimum());
    for (place, jain) in auction.iter().flat_map(|row| &row.by_place) {
        let mut row = vec![Cell::text(place.0.name()), Cell::text(place.1.name())];
        let best = optimum.and_then(|row| row.by_place.get(place));
        row.extend(jain.iter().chain(best.into_iter().flatten()).map(|i| Cell::Number(*i, 2)));
        table.rows.push(row);
    }
    table
}

/// The sizes at which iterations were counted.
fn sizes(claims: &Claims) -> Vec<usize> {
    claims.iterations.first().map(|row| row.count.keys().copied().collect()).unwrap_or_default()
}

fn ratios_table(claims: &Claims) -> Table {
    let sizes = sizes(claims);
    let mut columns = vec!["unit".to_owned(), "algorithm".to_owned()];
    columns.extend(sizes.iter().map(|pieces| format!("N={pieces}")));
    columns.extend(["ten times from N".to_owned(), "runs cut off".to_owned()]);
    let mut table = Table { name: "iterations_ratio", columns, rows: Vec::new() };
    for row in claims.iterations.iter().filter(|row| row.algorithm != Algorithm::Auction) {
        let mut cells = vec![Cell::text(row.unit.name()), Cell::text(row.algorithm.name())];
        cells.extend(sizes.iter().map(|n| Cell::number(row.ratio.get(n).copied(), 2)));
        cells.push(row.tenfold_from().map_or(Cell::Missing, |n| Cell::Count(n as u64)));
        cells.push(Cell::Count(row.cut_off as u64));
        table.rows.push(cells);
    }
    table
}

fn counts_table(claims: &Claims) -> Table {
    let sizes = sizes(claims);
    let mut columns = vec!["unit".to_owned(), "algorithm".to_owned()];
    columns.extend(sizes.iter().map(|pieces| format!("N={pieces}")));
    let mut table = Table { name: "iterations", columns, rows: Vec::new() };
    for row in &claims.iterations {
        let mut cells = vec![Cell::text(row.unit.name()), Cell::text(row.algorithm.name())];
        cells.extend(sizes.iter().map(|n| Cell::number(row.count.get(n).copied(), 0)));
        table.rows.push(cells);
    }
    table
}

fn sensitivity_table(claims: &Claims) -> Table {
    let mut columns: Vec<String> =
        ["slots (even shares)", "eps (nats)"].map(str::to_owned).to_vec();
    let auction = ["auction: rounds", "auction: bids", "auction: gap (nats/piece)"];
    columns.extend(auction.map(str::to_owned));
    columns.extend(Sensitivity::TIMES.map(|each| format!("{}: time ratio", each.name())));
    let counts = Sensitivity::COUNTS;
    columns.extend(counts.map(|(each, unit)| format!("{}: {} ratio", each.name(), unit.short())));
    let mut table = Table { name: "sensitivity", columns, rows: Vec::new() };
    for row in &claims.sensitivity {
        let shares = Cell::Count(row.slots_of_share as u64);
        let mut cells = vec![shares, Cell::Number(row.eps.to_f64(), 2)];
        cells.extend([row.rounds, row.bids].map(|count| Cell::Number(count, 0)));
        cells.push(Cell::Number(row.gap_per_piece, 4));
        let ratios = row.times.iter().chain(&row.counts);
        cells.extend(ratios.map(|ratio| Cell::number(*ratio, 2)));
        table.rows.push(cells);
    }
    table
}

fn runs_table(results: &Results) -> Table {
    let columns = [
        "demand",
        "layout",
        "fleet",
        "pieces",
        "providers",
        "slots_of_share",
        "eps_nats",
        "seed",
        "algorithm",
        "mean_inference_time_s",
        "gap_per_piece_nats",
        "jain_pieces",
        "jain_busy_time",
        "jain_inference_time",
        "rounds",
        "bids",
        "examined_pairs",
        "messages",
        "adverts",
        "cut_off",
    ];
    let mut table = Table::new("runs", &columns);
    for run in &results.runs {
        let (scenario, effort, quality) = (&run.scenario, &run.effort, run.quality);
        let names = [scenario.demand.name(), scenario.layout.name(), scenario.fleet.name()];
        let mut cells: Vec<Cell> = names.into_iter().map(Cell::text).collect();
        let sizes = [scenario.pieces, scenario.providers, scenario.slots_of_share];
        cells.extend(sizes.map(|size| Cell::Count(size as u64)));
        cells.extend([Cell::Number(scenario.eps.to_f64(), 2), Cell::Count(run.seed)]);
        cells.push(Cell::text(run.algorithm.name()));
        let figures = quality
            .map(|q| [q.mean_time, q.gap_per_piece, q.jain.pieces, q.jain.busy, q.jain.time]);
        let figures = figures.map_or([None; 5], |figures| figures.map(Some));
        cells.extend(figures.map(|figure| Cell::number(figure, 6)));
        cells.extend([effort.rounds, effort.bids].map(Cell::Count));
        cells.push(effort.examined.map_or(Cell::Missing, Cell::Count));
        cells.extend([effort.messages, effort.adverts].map(Cell::Count));
        cells.push(Cell::text(match effort.ending {
            Ending::CutOff => "yes",
            Ending::Own => "no",
        }));
        table.rows.push(cells);
    }
    table
}
