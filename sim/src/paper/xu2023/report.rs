//! The report: Markdown for people, CSV for programs, SVG for both.

use super::{
    LARGE, Results, Scale,
    claims::{self, Claims, Unit, names},
    plots, sensitivity,
    tables::Tables,
};
use crate::{
    baseline::Algorithm,
    paper::{
        files::{Files, csv},
        measure::{Run, Share},
        radio,
        scenario::{CLUSTER, CLUSTER_DEVIATION_M, EPS, PIECES_EACH, SLOTS_OF_SHARE},
        table::{Cell, Table},
    },
    plot::PlotError,
};

/// All files of the report.
///
/// # Errors
/// If a plot can't be drawn.
pub fn files(results: &Results) -> Result<Files, PlotError> {
    let claims = Claims::of(results);
    let tables = Tables::of(results, &claims);
    let mut files = vec![("report.md".to_owned(), markdown(results, &claims, &tables))];
    files.extend(tables.all().map(csv));
    files.push(("inference_time.svg".to_owned(), plots::speed(&claims).svg()?));
    files.push(("fairness.svg".to_owned(), plots::fairness(&claims).svg()?));
    for (unit, name) in PLOTTED {
        files.push((name.to_owned(), plots::iterations(&claims, unit).svg()?));
    }
    Ok(files)
}

fn markdown(results: &Results, claims: &Claims, tables: &Tables) -> String {
    [
        introduction(results),
        tables.headline.markdown(),
        about_speed(claims, tables),
        about_fairness(claims, tables),
        about_iterations(results, tables),
        about_sensitivity(claims, tables),
        model(),
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
        "# Xu, Mohammed, Di Francesco, Fischione (IEEE IoT-J, 2023) under our model

This is our model; the paper's own parameters were not available. Its abstract makes three claims
\"upon the state of the art\", and does not say who that is, what is shared fairly, or what an
iteration is. So every rival that we know of was run, tuned as well as we could, and every unit was
looked at: {scenarios} scenarios, {seeds} seeds each (a third of that from N={LARGE} on).

A ratio is what an algorithm takes over what the auction takes on the very same case. Figures are
medians over the seeds of a scenario, then over scenarios.
{note}
## What holds
",
        seeds = setup.seeds,
    )
}

fn about_speed(claims: &Claims, tables: &Tables) -> String {
    let eps = EPS.to_f64();
    let rivals = claims.speed.iter().filter(|speed| claims::is_rival(speed.algorithm));
    let optimal = rivals.filter(|speed| speed.incomplete == 0 && speed.gap_max <= eps);
    let optimal = match names(optimal.map(|speed| speed.algorithm)) {
        none if none.is_empty() => "no rival".to_owned(),
        some => some,
    };
    format!(
        "## (a) Inference time

Mean inference time of all pieces over the auction's; all DNNs have equally many pieces, so it is
that of whole DNNs too. The auction stays within eps = {eps} nats per piece of the optimum by its
guarantee. On every case that was run, so did: {optimal}.
Nothing can be gained over an optimum, so the claim can hold only against those that miss it. The
optimum is that of proportional fairness and not of the mean time, so a ratio can be below 1.
`worst gap` is how far the worst run was from the optimum; an `incomplete` run left a piece without
a place, and has no inference time.

{}
![Inference time](inference_time.svg)

The auction's mean in seconds, and the others over it, by DNN and layout (medians over fleets, sizes
and seeds):

{}",
        tables.speed.markdown(),
        tables.places.markdown(),
    )
}

fn about_fairness(claims: &Claims, tables: &Tables) -> String {
    let auction = claims.of_auction();
    let fairer = Share::ALL.into_iter().enumerate().map(|(n, share)| {
        // To two digits, as in the table: a difference that nobody can see is none.
        let shown = |row: &claims::Fairness| (row.jain[n].middle * 100.0).round();
        let own = auction.map_or(100.0, shown);
        let fairer = claims.fairness.iter().filter(|row| shown(row) > own);
        let fairer = fairer.filter_map(|row| row.algorithm).filter(|each| claims::is_rival(*each));
        match names(fairer) {
            none if none.is_empty() => {
                format!("- {}: no rival is fairer than the auction.\n", share.name())
            }
            some => format!("- {}: fairer than the auction: {some}.\n", share.name()),
        }
    });
    format!(
        "## (b) Fairness

Jain's index of three shares: how many *pieces* each provider has, how long each provider is *busy*
with one inference of each of its pieces, and the inference *time* of each piece. With mixed DNNs a
large DNN's pieces take longer than a small one's wherever they go, which no assignment can make
equal. The exact optimum says how much: it is the fairest in proportion that there is, and no algorithm
that reaches it has another index. A fair share is not a good one: whoever is slow for everybody is
fair as well.

{}
The auction and the optimum by DNN and layout (medians over fleets, sizes and seeds):

{}
All algorithms, over all scenarios:

{}
![Fairness](fairness.svg)
",
        fairer.collect::<String>(),
        tables.demands.markdown(),
        tables.fairness.markdown(),
    )
}

fn about_iterations(results: &Results, tables: &Tables) -> String {
    let settings = &results.setup.settings;
    let pictures: Vec<String> =
        PLOTTED.iter().map(|(unit, name)| format!("![{}]({name})", unit.name())).collect();
    let is_forecast = |run: &Run| run.algorithm == Algorithm::Forecast;
    let forecast = if results.runs.iter().any(is_forecast) {
        let missing = settings.missing * 100.0;
        format!("- forecast is our own, with {missing:.0} % of the adverts missing.\n")
    } else {
        String::new()
    };
    let is_auction = |row: &&Vec<Cell>| row[1] == Cell::text(Algorithm::Auction.name());
    let counts = &tables.counts;
    let own =
        Table { rows: counts.rows.iter().filter(is_auction).cloned().collect(), ..counts.clone() };
    format!(
        "## (c) Iterations

Counted with mixed DNNs on the fleet `spread`, until each algorithm ends by itself (`runs cut off`
ended after {rounds_max} rounds and would have gone on: their ratios are too low). random,
round-robin and greedy only go through the pieces once, and are left out. Know before you compare:

- A round of one algorithm is not as long as a round of another.
- An advert goes to everybody. Messages alone hide that the dual methods and best response need
  adverts; `messages and adverts` counts each advert once.
- DINA looks at pairs before it exchanges any. Each look would be a question and an answer in a real
  network; these are not among its messages, so `examined pairs` is a unit of its own.
- The dual methods end when somebody has added up that the gap is at most N eps. dual-tuned counts
  only the best of its steps, which is known afterwards.
- best-response and self-selection end where nobody gains alone, and guarantee no gap.
{forecast}
What the auction takes:

{own}
What the others take, over that:

{ratios}
{pictures}
",
        rounds_max = settings.rounds_max,
        own = own.markdown(),
        ratios = tables.ratios.markdown(),
        pictures = pictures.join("\n"),
    )
}

fn about_sensitivity(claims: &Claims, tables: &Tables) -> String {
    let changes = sensitivity::changes(&claims.sensitivity);
    let changes: String = changes.iter().map(|change| format!("- {change}\n")).collect();
    format!(
        "## How far it depends on what we chose

The paper's eps and quotas are unknown, and both matter: a larger eps ends an auction sooner and
further from the optimum (the dual methods stop at a gap of N eps, too), and the slots are what
greedy fills, and limit DINA's quotas. One size, mixed DNNs on the fleet `spread`; medians over
layouts and seeds.

{}
{changes}",
        tables.sensitivity.markdown(),
    )
}

fn model() -> String {
    let sizes = super::SIZES.map(|(pieces, providers)| format!("{pieces}/{providers}")).join(", ");
    format!(
        "## Our model

| what | is |
|---|---|
| piece | each requester has one DNN in {PIECES_EACH} pieces, cut such that the slowest takes the least `T_ij` on equal machines |
| time | `T_ij = D_in/R_ij + C/F_j + D_out/R_ij` with the link between the requester and the provider, and `n_j T_ij` with `n_j` pieces on the provider |
| DNNs | AlexNet, MobileNetV2, NiN, ResNet-34, VGG-16 at 224 x 224 (`sim/data`); `mixed`: each requester draws one |
| place | a square of {side} m; requesters anywhere; providers anywhere (`uniform`), or in clusters of {CLUSTER} that deviate by {CLUSTER_DEVIATION_M} m (`clustered`) |
| link | `B log2(1 + SNR)`, B = {bandwidth} MHz, at most {bits} bit/symbol; {power} dBm sent, {noise} dBm noise, {loss} dB lost at 1 m and by the power {exponent} of the distance, shadowing of {shadow} dB; no interference |
| machine | `spread`: 1 to 8 times a Raspberry Pi 3, 0.3 to 1.5 times that by class of operators; `boards`: Pi 3, Pi 4, Jetson Nano or laptop, 0.8 to 1.2 times (`sim/data/README.md`) |
| slots | {SLOTS_OF_SHARE} even shares at each provider |
| N/M | {sizes}; the last three with mixed DNNs on `spread` only |
| eps | {eps} nats |
",
        eps = EPS.to_f64(),
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

/// What is drawn over N. Examined pairs are in the plot of bids.
const PLOTTED: [(Unit, &str); 3] = [
    (Unit::Rounds, "iterations_rounds.svg"),
    (Unit::Bids, "iterations_bids.svg"),
    (Unit::Transmissions, "iterations_messages.svg"),
];
