//! The report: Markdown for people, CSV for programs, SVG for both.

use std::{fs, io, path::Path};

use super::{
    Results, Scale,
    claims::{self, Claims, Iterations, PAPER_JAIN, PAPER_SPEED, Speed, TENFOLD, Unit},
};
use crate::{
    baseline::Algorithm,
    paper::{
        measure::{Ending, Share},
        radio,
        scenario::{CLUSTER, CLUSTER_DEVIATION_M, Demand, Layout, PIECES_EACH, SLOTS_OF_SHARE},
        table::{Cell, Table},
    },
    plot::{Lines, PlotError, Ranges},
};

/// Files by name, ready to be written.
pub type Files = Vec<(String, String)>;

/// Writes all files of a report into a folder.
///
/// # Errors
/// If a file can't be written.
pub fn write(folder: &Path, files: &Files) -> io::Result<()> {
    files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

/// All files of the report.
///
/// # Errors
/// If a plot can't be drawn.
pub fn files(results: &Results) -> Result<Files, PlotError> {
    let claims = Claims::of(results);
    let tables = Tables::of(results, &claims);
    let mut files = vec![("report.md".to_owned(), markdown(results, &claims, &tables))];
    let csv = |table: &Table| (format!("{}.csv", table.name), table.csv());
    files.extend(tables.all().map(csv));
    files.push(("inference_time.svg".to_owned(), plot_speed(&claims).svg()?));
    files.push(("fairness.svg".to_owned(), plot_fairness(&claims).svg()?));
    for (unit, name) in PLOTTED {
        files.push((name.to_owned(), plot_iterations(&claims, unit).svg()?));
    }
    Ok(files)
}

struct Tables {
    headline: Table,
    speed: Table,
    places: Table,
    fairness: Table,
    ratios: Table,
    counts: Table,
    runs: Table,
}

impl Tables {
    fn of(results: &Results, claims: &Claims) -> Self {
        Self {
            headline: headline_table(claims),
            speed: speed_table(claims, results),
            places: places_table(claims),
            fairness: fairness_table(claims),
            ratios: ratios_table(claims),
            counts: counts_table(claims),
            runs: runs_table(results),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Table> {
        let Self { headline, speed, places, fairness, ratios, counts, runs } = self;
        [headline, speed, places, fairness, ratios, counts, runs].into_iter()
    }
}

fn headline_table(claims: &Claims) -> Table {
    let mut table = Table::new("headline", &["claim", "the paper", "here", "verdict"]);
    let row = |claim: &str, paper: String, (here, verdict): (String, String)| {
        [claim, &paper, &here, &verdict].map(Cell::text).to_vec()
    };
    let faster = format!("{} to {} times", PAPER_SPEED.start, PAPER_SPEED.end);
    table.rows = vec![
        row("(a) inference time is shorter", faster, speed_verdict(claims)),
        row("(b) Jain's index", PAPER_JAIN.to_string(), fairness_verdict(claims)),
        row("(c) fewer iterations", format!("{TENFOLD} times"), iterations_verdict(claims)),
    ];
    table
}

fn speed_verdict(claims: &Claims) -> (String, String) {
    let rivals = || claims.speed.iter().filter(|speed| claims::is_rival(speed.algorithm));
    let wins = |speed: &&Speed| speed.ratio.middle >= PAPER_SPEED.start;
    let beaten: Vec<&Speed> = rivals().filter(wins).collect();
    let equal: Vec<&Speed> = rivals().filter(|speed| !wins(speed)).collect();
    let range = |speeds: &[&Speed]| {
        let ratios = || speeds.iter().map(|speed| speed.ratio.middle);
        let least = ratios().fold(f64::INFINITY, f64::min);
        format!("{least:.2} to {:.2} times", ratios().fold(0.0, f64::max))
    };
    let list = |speeds: &[&Speed]| names(speeds.iter().map(|speed| speed.algorithm));
    let mut here = Vec::new();
    if !beaten.is_empty() {
        here.push(format!("{} against {}", range(&beaten), list(&beaten)));
    }
    if !equal.is_empty() {
        here.push(format!("{} against {}", range(&equal), list(&equal)));
    }
    let verdict = match (beaten.is_empty(), equal.is_empty()) {
        (true, _) => "does not hold".to_owned(),
        (false, true) => "holds against every rival".to_owned(),
        (false, false) => format!("holds only against {}", list(&beaten)),
    };
    (here.join("; "), verdict)
}

fn fairness_verdict(claims: &Claims) -> (String, String) {
    let auction = claims.fairness.iter().find(|row| row.algorithm == Algorithm::Auction);
    let Some(auction) = auction else { return ("nothing".to_owned(), "unknown".to_owned()) };
    let units = || Share::ALL.into_iter().zip(auction.jain);
    let here: Vec<String> = units()
        .map(|(share, jain)| format!("{:.2} of the {}", jain.middle, share.name()))
        .collect();
    let holds: Vec<&str> = units()
        .filter(|(_, jain)| jain.middle >= PAPER_JAIN)
        .map(|(share, _)| share.name())
        .collect();
    let verdict = match holds.len() {
        0 => "holds in no unit".to_owned(),
        n if n == Share::ALL.len() => "holds in all three units".to_owned(),
        _ => format!("holds only in the unit {}", holds.join(" and ")),
    };
    (here.join(", "), verdict)
}

fn iterations_verdict(claims: &Claims) -> (String, String) {
    let rivals = || claims.iterations.iter().filter(|row| is_rival_in(row));
    let (mut here, mut verdict) = (Vec::new(), Vec::new());
    for unit in Unit::ALL {
        let rows: Vec<&Iterations> = rivals().filter(|row| row.unit == unit).collect();
        let last = |row: &&Iterations| row.ratio.last_key_value().map(|(_, ratio)| *ratio);
        let ratios: Vec<f64> = rows.iter().filter_map(last).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        if !ratios.is_empty() {
            here.push(format!("{}: {least:.2} to {most:.2} times", unit.name()));
        }
        let won = rows.iter().filter_map(|row| {
            let from = row.tenfold_from()?;
            Some(format!("{} (N >= {from})", row.algorithm.name()))
        });
        let won: Vec<String> = won.collect();
        if !won.is_empty() {
            verdict.push(format!("in {} against {}", unit.name(), won.join(", ")));
        }
    }
    let largest = rivals().filter_map(|row| row.ratio.keys().last()).max();
    let here = match largest {
        Some(pieces) => format!("at N={pieces}: {}", here.join("; ")),
        None => "nothing".to_owned(),
    };
    let verdict = if verdict.is_empty() {
        "holds in no unit".to_owned()
    } else {
        format!("holds only {}", verdict.join("; "))
    };
    (here, verdict)
}

fn is_rival_in(row: &Iterations) -> bool {
    claims::is_rival(row.algorithm) && claims::is_iterative(row.algorithm)
}

fn speed_table(claims: &Claims, results: &Results) -> Table {
    let columns = [
        "algorithm",
        "least ratio",
        "median ratio",
        "largest ratio",
        "worst gap to the optimum (nats per piece)",
        "runs with a piece left over",
        "reading",
    ];
    let mut table = Table::new("inference_time", &columns);
    let eps = results.setup.settings.terms.eps.to_f64();
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
    let mut columns = vec!["DNN".to_owned(), "layout".to_owned()];
    columns.extend(claims.speed.iter().map(|speed| speed.algorithm.name().to_owned()));
    let mut table = Table { name: "inference_time_by_dnn", columns, rows: Vec::new() };
    let places: Vec<(Demand, Layout)> = claims
        .speed
        .first()
        .map(|speed| speed.by_place.keys().copied().collect())
        .unwrap_or_default();
    for place in places {
        let mut row = vec![Cell::text(place.0.name()), Cell::text(place.1.name())];
        let ratios = claims.speed.iter().map(|speed| speed.by_place.get(&place).copied());
        row.extend(ratios.map(|ratio| Cell::number(ratio, 2)));
        table.rows.push(row);
    }
    table
}

fn fairness_table(claims: &Claims) -> Table {
    let mut columns = vec!["algorithm".to_owned()];
    for share in Share::ALL {
        let of = |range: &str| format!("{}: {range}", share.name());
        columns.extend([of("median"), of("least"), of("most")]);
    }
    let mut table = Table { name: "fairness", columns, rows: Vec::new() };
    for row in &claims.fairness {
        let mut cells = vec![Cell::text(row.algorithm.name())];
        for jain in row.jain {
            cells.extend([jain.middle, jain.low, jain.high].map(|index| Cell::Number(index, 2)));
        }
        table.rows.push(cells);
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

fn runs_table(results: &Results) -> Table {
    let columns = [
        "demand",
        "layout",
        "fleet",
        "pieces",
        "providers",
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
        cells
            .extend([scenario.pieces as u64, scenario.providers as u64, run.seed].map(Cell::Count));
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

fn plot_speed(claims: &Claims) -> Ranges {
    let mut rows: Vec<&Speed> = claims.speed.iter().collect();
    rows.sort_by(|a, b| b.ratio.middle.total_cmp(&a.ratio.middle));
    Ranges {
        title: "Mean inference time of each algorithm, relative to the auction's".to_owned(),
        x: "inference time / the auction's (1 = equal); range over scenarios".to_owned(),
        x_from: 0.0,
        series: vec!["median scenario".to_owned()],
        rows: rows
            .into_iter()
            .map(|row| (row.algorithm.name().to_owned(), vec![Some(row.ratio)]))
            .collect(),
        band: Some((PAPER_SPEED, "the paper: 1.14 to 2.62".to_owned())),
    }
}

fn plot_fairness(claims: &Claims) -> Ranges {
    let row = |row: &claims::Fairness| {
        (row.algorithm.name().to_owned(), row.jain.iter().copied().map(Some).collect())
    };
    Ranges {
        title: "Fairness in three units".to_owned(),
        x: "Jain's index (1 = all equal); median and range over scenarios".to_owned(),
        x_from: 0.0,
        series: Share::ALL.map(|share| share.name().to_owned()).to_vec(),
        rows: claims.fairness.iter().map(row).collect(),
        band: Some((PAPER_JAIN..1.0, "the paper: 0.9".to_owned())),
    }
}

fn plot_iterations(claims: &Claims, unit: Unit) -> Lines {
    let mut series = Vec::new();
    for row in claims.iterations.iter().filter(|row| claims::is_iterative(row.algorithm)) {
        let name = row.algorithm.name();
        let points = row.count.iter().filter(|(_, count)| **count > 0.0);
        let points = points.map(|(pieces, count)| (*pieces as f64, *count)).collect();
        match row.unit {
            Unit::Examined if unit == Unit::Bids => series.push((format!("{name}: pairs"), points)),
            own if own == unit => series.push((name.to_owned(), points)),
            Unit::Bids | Unit::Examined | Unit::Messages | Unit::Rounds | Unit::Transmissions => {}
        }
    }
    let (title, y) = match unit {
        Unit::Bids => ("Bids and examined pairs until the end", "bids or pairs"),
        Unit::Examined => ("Examined pairs until the end", "pairs"),
        Unit::Messages => ("Messages until the end", "messages"),
        Unit::Rounds => ("Rounds until the end", "rounds"),
        Unit::Transmissions => ("Messages and adverts until the end", "messages and adverts"),
    };
    Lines { title: title.to_owned(), x: "pieces N".to_owned(), y: y.to_owned(), series }
}

fn markdown(results: &Results, claims: &Claims, tables: &Tables) -> String {
    [
        introduction(results),
        tables.headline.markdown(),
        about_speed(results, claims, tables),
        about_fairness(claims, tables),
        about_iterations(results, tables),
        model(results),
        again(results),
    ]
    .join("\n")
}

fn introduction(results: &Results) -> String {
    let (setup, scenarios) = (&results.setup, results.setup.scenarios().len());
    let note = match setup.scale {
        Scale::Full => "",
        Scale::Quick => "\n**A quick run: few, small scenarios. Its figures say little.**\n",
    };
    format!(
        "# Xu, Mohammed, Di Francesco, Fischione (IEEE IoT-J, 2023), under our model

This is our model; the paper's own parameters were not available. Its abstract makes three claims
\"upon the state of the art\", and does not say whom it means, of what the fairness is, or what an
iteration is. So every rival that we know of was run, and every unit looked at: {scenarios} scenarios
with {seeds} seeds each. A ratio says how many times as much as the auction an algorithm takes on
the same case; figures are medians over seeds, then over scenarios.
{note}
## What holds
",
        seeds = setup.seeds,
    )
}

fn about_speed(results: &Results, claims: &Claims, tables: &Tables) -> String {
    let eps = results.setup.settings.terms.eps.to_f64();
    let rivals = claims.speed.iter().filter(|speed| claims::is_rival(speed.algorithm));
    let optimal = rivals.filter(|speed| speed.incomplete == 0 && speed.gap_max <= eps);
    let optimal = names(optimal.map(|speed| speed.algorithm));
    let equals = if optimal.is_empty() {
        format!("No rival stays within eps = {eps} nats per piece of the optimum on every case.")
    } else {
        format!(
            "Within eps = {eps} nats per piece of the optimum on every case, as the auction is by \
             its guarantee: {optimal}. Against an optimum nothing can be gained, so the claim can \
             only hold against those that miss it."
        )
    };
    format!(
        "## (a) Inference time

Mean inference time over the auction's. {equals} What is optimised is the sum of the logarithms of
rates, not the mean time: a ratio below 1 is possible.

{}
![Inference time](inference_time.svg)

By DNN and layout, over fleets, sizes and seeds:

{}",
        tables.speed.markdown(),
        tables.places.markdown(),
    )
}

fn about_fairness(claims: &Claims, tables: &Tables) -> String {
    let auction = claims.fairness.iter().find(|row| row.algorithm == Algorithm::Auction);
    let compared = Share::ALL.into_iter().enumerate().map(|(n, share)| {
        let own = auction.map_or(1.0, |row| row.jain[n].middle);
        let fairer = claims.fairness.iter().filter(|row| claims::is_rival(row.algorithm));
        let fairer =
            names(fairer.filter(|row| row.jain[n].middle > own + 0.005).map(|row| row.algorithm));
        let fairer = if fairer.is_empty() { "none".to_owned() } else { fairer };
        format!("- {}: fairer than the auction is {fairer}.\n", share.name())
    });
    let compared: String = compared.collect();
    format!(
        "## (b) Fairness

Jain's index over all providers, or all pieces. Equal shares are not the aim but what comes of it: an
algorithm that is slow for everyone is fair as well.

{compared}
{}
![Fairness](fairness.svg)
",
        tables.fairness.markdown(),
    )
}

fn about_iterations(results: &Results, tables: &Tables) -> String {
    let pictures: Vec<String> =
        PLOTTED.iter().map(|(unit, name)| format!("![{}]({name})", unit.name())).collect();
    format!(
        "## (c) Iterations

The count of each algorithm over the auction's, with mixed DNNs on the fleet `spread`. A round of one
algorithm is not as long as that of another. An advert goes to everybody: the dual methods and best
response need many, and messages alone would hide them. An algorithm was cut off after {} rounds,
and would have taken more. Forecast is our own, with {} of the adverts missing.

{}
{}

The counts themselves:

{}",
        results.setup.settings.rounds_max,
        percent(results.setup.settings.missing),
        tables.ratios.markdown(),
        pictures.join("\n"),
        tables.counts.markdown(),
    )
}

fn model(results: &Results) -> String {
    let eps = results.setup.settings.terms.eps.to_f64();
    let sizes = super::SIZES.map(|(pieces, providers)| format!("{pieces}/{providers}")).join(", ");
    format!(
        "## Our model

| what | is |
|---|---|
| piece | each requester has one DNN in {PIECES_EACH} pieces of equal time, cut by the protocol's partitioner for equal machines |
| time | `T_ij = D_in/R_ij + C/F_j + D_out/R_ij`, and `n_j T_ij` with `n_j` pieces on the provider |
| DNNs | AlexNet, MobileNetV2, NiN, ResNet-34, VGG-16 at 224 x 224 (`sim/data`); `mixed`: each requester draws one |
| place | a square of {side} m; requesters anywhere; providers anywhere (`uniform`), or in clusters of {CLUSTER} that deviate by {CLUSTER_DEVIATION_M} m (`clustered`) |
| link | `B log2(1 + SNR)`, B = {bandwidth} MHz, at most {bits} bit/symbol; {power} dBm sent, {noise} dBm noise, {loss} dB lost at 1 m and by the power {exponent} of the distance, shadowing of {shadow} dB; no interference |
| machine | `spread`: 1 to 8 times a Raspberry Pi 3, 0.3 to 1.5 times that by class of operators; `boards`: Pi 3, Pi 4, Jetson Nano or laptop, 0.8 to 1.2 times (`sim/data/README.md`) |
| slots | {SLOTS_OF_SHARE} even shares at each provider |
| N/M | {sizes}; the last three with mixed DNNs on `spread` only |
| eps | {eps} nats |
",
        side = radio::SIDE_M,
        bandwidth = radio::BANDWIDTH_HZ / 1e6,
        bits = radio::BITS_PER_SYMBOL_MAX,
        power = radio::POWER_DBM,
        noise = radio::NOISE_DBM,
        loss = radio::LOSS_AT_1M_DB,
        exponent = radio::EXPONENT,
        shadow = radio::SHADOW_DEVIATION_DB,
    )
}

fn again(results: &Results) -> String {
    let quick = match results.setup.scale {
        Scale::Full => "",
        Scale::Quick => " --quick",
    };
    format!(
        "## Again

    starling-sim paper xu2023 --out DIR --seeds {}{quick}

The same seeds give the same files, on any number of cores. `runs.csv` has every run; each other
table of this page is in a file of its own, with every digit.
",
        results.setup.seeds,
    )
}

fn names(algorithms: impl Iterator<Item = Algorithm>) -> String {
    algorithms.map(Algorithm::name).collect::<Vec<_>>().join(", ")
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// What is drawn over N. Examined pairs are in the plot of bids.
const PLOTTED: [(Unit, &str); 3] = [
    (Unit::Rounds, "iterations_rounds.svg"),
    (Unit::Bids, "iterations_bids.svg"),
    (Unit::Transmissions, "iterations_messages.svg"),
];
