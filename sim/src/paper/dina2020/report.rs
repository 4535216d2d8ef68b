//! The report: Markdown for people, CSV for programs, SVG for both.

use super::{
    DRAWS, Run, Scale, plots,
    scenario::{MBIT, NODES, SEEDS},
    tables::Tables,
};
use crate::{
    paper::files::{Files, csv},
    plot::PlotError,
};

/// All files of the report.
///
/// # Errors
/// If a plot can't be drawn.
pub fn files(runs: &[Run], scale: Scale) -> Result<Files, PlotError> {
    let tables = Tables::of(runs);
    let mut files = vec![("report.md".to_owned(), markdown(runs, scale, &tables))];
    files.extend(tables.all().map(csv));
    files.push(("ratio.svg".to_owned(), plots::ratio(runs).svg()?));
    files.push(("seconds.svg".to_owned(), plots::seconds(runs).svg()?));
    Ok(files)
}

fn markdown(runs: &[Run], scale: Scale, tables: &Tables) -> String {
    [introduction(runs, scale), results(tables), ours(tables), model(), again(scale)].join("\n")
}

fn introduction(runs: &[Run], scale: Scale) -> String {
    let note = scale.note();
    format!(
        "# Mohammed, Joe-Wong, Babbar, Di Francesco (INFOCOM, 2020: DINA) under our model

This is our model; the paper's own parameters were not available. Its abstract says that DINA makes
the total latency of inference 2.6 to 4.2 times shorter than the state of the art, for a self-driving
car's images and several DNNs, and that most others split a DNN into two parts. So it is held against
the best split in two (`neurosurgeon`; on a chain the minimum cut of DADS is the same), against
`greedy`, which puts each layer where it would be done first, and against `random` (the mean of
{DRAWS} draws). There are {scenarios} scenarios: a camera with a Raspberry Pi 4 of its own, and 2 to 6
fog nodes that are the same (`alike`), Jetson Nanos (`strong`), or either of these or a laptop
(`mixed`), idle or busy for others, with links of 50 to 1000 Mbit/s each (`parallel`) or for all
together (`shared`).
{note}
## What holds
",
        scenarios = runs.len(),
    )
}

fn results(tables: &Tables) -> String {
    format!(
        "Ratios are taken scenario by scenario: above 1 DINA is faster.

{headline}
![Latency over DINA's](ratio.svg)

Where it holds depends on what there is to gain: a split in two uses two machines, DINA all of them.
Medians by one feature after the other:

{features}
The best split in two over DINA, by DNN, fog and rate (medians over links, load and seeds):

{places}
![Seconds](seconds.svg)

`times.csv` has every scenario.
",
        headline = tables.headline.markdown(),
        features = tables.features.markdown(),
        places = tables.places.markdown(),
    )
}

fn ours(tables: &Tables) -> String {
    format!(
        "## Starling's own planner in the same scenarios

`pf` plans for one inference with strips where they are faster than the best machine alone, and for a
stream a pipeline whose stages may be strips. Medians over scenarios:

{ours}
The same streams in virtual time, with four idle Jetson Nanos and links of their own: the protocol's
own nodes carry out the plan. A machine serves its pieces in the order of arrival, each link carries
its two directions apart, and nodes gossip and renew their leases on the way.

{observed}",
        ours = tables.ours.markdown(),
        observed = tables.observed.markdown(),
    )
}

fn model() -> String {
    format!(
        "## What is the paper's and what is ours

| what | is | from |
|---|---|---|
| DINA-P | layer groups in strips along the height, in proportion to capability over congestion, on the number of machines that is best | the rule of proportion as quoted by others; what a group is, ours: single layers, or all up to the next that makes the image smaller, whichever is better |
| DINA-O | machines by deferred acceptance, and strips exchanged until no two of them, nor their machines, want to | the abstract's matching game, with utilities of ours: the logarithm of a piece's rate |
| utility of the whole | the latency of one inference | ours |
| congestion | a busy machine computes for 1 to 3 pieces, ours included, which share it and its link equally | ours |
| images | {width} x {height}, half of a 1280 x 720 camera's in multiples of 64 | ours; that the data set is BDD is an inference from a thesis of the same group |
| DNNs | AlexNet, NiN, ResNet-34, VGG-16 (`sim/data`); an average pooling before the matrix products of AlexNet and VGG-16 | the same thesis |
| machines | Raspberry Pi 4, Jetson Nano, laptop (`sim/data/README.md`) | ours |
| fog nodes | {nodes} | ours |
| links | {mbit} Mbit/s, no latency; activations go from machine to machine | ours |
| seeds | {SEEDS} where machines or loads are drawn | ours |
",
        width = 640,
        height = 384,
        nodes = NODES.map(|nodes| nodes.to_string()).join(", "),
        mbit = MBIT.map(|mbit| mbit.to_string()).join(", "),
    )
}

fn again(scale: Scale) -> String {
    let quick = match scale {
        Scale::Full => "",
        Scale::Quick => " --quick",
    };
    format!(
        "## Again

    starling-sim paper dina2020 --out DIR{quick}

The same command gives the same files. Each table is in a file of its own, with every digit.
"
    )
}
