//! The report: Markdown for people, CSV for programs, SVG for both.

use starling_protocol::partition::Route;

use super::{
    Run, Scale, plots,
    scenario::{FLEETS, MBIT, SECONDS_PER_CONVOLUTION, SECONDS_PER_FLOP},
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
    files.push(("saved.svg".to_owned(), plots::saved(runs).svg()?));
    for (route, name) in
        [(Route::Relayed, "seconds_relayed.svg"), (Route::Direct, "seconds_direct.svg")]
    {
        files.push((name.to_owned(), plots::seconds(runs, route).svg()?));
    }
    Ok(files)
}

fn markdown(runs: &[Run], scale: Scale, tables: &Tables) -> String {
    [introduction(runs, scale), results(tables), ours(tables), model(), again(scale)].join("\n")
}

fn introduction(runs: &[Run], scale: Scale) -> String {
    let note = scale.note();
    format!(
        "# Chen, Luo, Fang, Xiong (ACM TOIT, 2024: EdgeCI) under our model

This is our model; the paper's own parameters were not available. Its abstract says that AWAS and
DPFL together \"improve inference speed by 34.72 % to 43.52 %\" with VGG-16 and ResNet-34 on a cluster
of IoT devices, and does not say against whom, on which devices and links, or whether speed is a time
or a rate. The rivals are those that this literature compares itself with: `layer-wise` (MoDNN, where
we let devices pool before they send; `as published`, the requester pools), `early-fused` (DeepThings,
with the best number of fused layers) and `optimal-fused` (AOFL). There are {scenarios} scenarios:
VGG-16 and ResNet-34, 4 to 6 devices, 50 to 1000 Mbit/s, each device with a link of its own
(`parallel`) or all on one radio channel (`shared`), and activations that go back to the requester
after each segment (`relayed`, as in MoDNN and EdgeLD) or from device to device (`direct`, as
Starling's do).
{note}
## What holds
",
        scenarios = runs.len(),
    )
}

fn results(tables: &Tables) -> String {
    format!(
        "`within` means that the median scenario lies in the paper's range, `above` that more is gained.

{headline}
![What EdgeCI saves](saved.svg)

Time saved against each, medians by DNN:

{dnns}
and by DNN and the links' rate:

{rates}
![Seconds, relayed](seconds_relayed.svg)
![Seconds, direct](seconds_direct.svg)

`times.csv` has every scenario.
",
        headline = tables.headline.markdown(),
        dnns = tables.dnns.markdown(),
        rates = tables.rates.markdown(),
    )
}

fn ours(tables: &Tables) -> String {
    format!(
        "## Starling's own planner in the same scenarios

`pf` plans for one inference with strips where they are faster than the best device alone, and for a
stream a pipeline whose stages may be strips. Medians over scenarios:

{ours}
The same streams in virtual time: the protocol's own nodes carry out the plan on devices of 1.5, 1.5,
1 and 1, links of their own, direct. A device serves its pieces in the order of arrival, each link
carries its two directions apart, and nodes gossip and renew their leases on the way. Here without a
constant for each convolution, which the simulated processors do not have.

{observed}",
        ours = tables.ours.markdown(),
        observed = tables.observed.markdown(),
    )
}

fn model() -> String {
    let fleets: Vec<String> = FLEETS
        .iter()
        .map(|fleet| fleet.iter().map(f64::to_string).collect::<Vec<_>>().join(" "))
        .collect();
    format!(
        "## What is the paper's and what is ours

| what | is | from |
|---|---|---|
| DPFL | a dynamic programme without recursion over fused segments: `f[j] = min f[i] + T(i..j)`; where activations go directly, also over who had the segment before | the idea is the abstract's, the recurrence ours |
| AWAS | strips in proportion to capability, then auctioned to devices and re-sized row by row from the slowest device, while the prediction falls | the idea is the abstract's, the rules ours |
| cost | {flop:e} s per FLOP on a device of speed 1, and {conv} s for each convolution however few its rows | EdgeLD (HPCC 2020), the slope calibrated to the times that it measured |
| devices | relative speeds {fleets} | ours |
| links | {mbit} Mbit/s, no latency | ours |
| `parallel` | a segment takes what its slowest device takes to receive, compute and, if relayed, send back | EdgeLD |
| `shared` | the slowest computation, and all transfers one after the other | PICO (TMC 2022) |
| halo | exact, layer by layer; a residual block is one unit | ours |
| DNNs | whole networks at 224 x 224, from `sim/data`; what cannot be split (matrix products) on one device | ours |
| requester | asks, and does not compute | EdgeLD |
",
        flop = SECONDS_PER_FLOP,
        conv = SECONDS_PER_CONVOLUTION,
        fleets = fleets.join("; "),
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

    starling-sim paper edgeci2024 --out DIR{quick}

There is no chance in it: the same command gives the same files. Each table is in a file of its own,
with every digit.
"
    )
}
