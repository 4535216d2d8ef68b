//! Results for people (a table) and for programs (one JSON object a line).

use serde::Serialize;
use starling_protocol::session::Bidding;

use crate::{
    baseline::Algorithm,
    churn::Reagreement,
    converge::{Fairness, Observation, Report, Setup, Timing},
    stats,
};

/// The same figures as a [`Report`], each the median over all seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Medians {
    /// See [`Report::rounds`]; so for all below.
    pub rounds: f64,
    /// Bids of all pieces.
    pub bids: f64,
    /// Messages of the auction.
    pub messages: f64,
    /// Their bytes; nothing in rounds.
    pub bytes: Option<f64>,
    /// Virtual time; nothing in rounds.
    pub virtual_ms: Option<f64>,
    /// What was reached.
    pub utility: f64,
    /// What is possible.
    pub optimum: f64,
    /// Their difference per piece.
    pub gap_per_piece: f64,
    /// Fairness.
    pub jain: Fairness,
    /// Seconds.
    pub mean_inference_time: f64,
    /// Bytes of gossip; nothing in rounds.
    pub advert_bytes_per_s: Option<f64>,
    /// What was observed, if inferences ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<MedianObservation>,
    /// What crashes came to, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reagreement: Option<MedianReagreement>,
}

/// The same figures as a [`Reagreement`], each the median over all seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MedianReagreement {
    /// See [`Reagreement::lost`]; so for all below.
    pub lost: f64,
    /// Other pieces.
    pub moved: f64,
    /// Turned out.
    pub evicted: f64,
    /// Most bids of a piece.
    pub rounds: f64,
    /// Bids of all.
    pub bids: f64,
    /// Messages.
    pub messages: f64,
    /// Virtual time.
    pub virtual_ms: f64,
    /// Nats.
    pub gap_per_piece: f64,
}

/// The same figures as an [`Observation`], each the median over all seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MedianObservation {
    /// See [`Observation::throughput`]; so for all below.
    pub throughput: f64,
    /// Seconds.
    pub mean_latency: f64,
    /// Seconds.
    pub mean_inference_time: f64,
    /// Fairness.
    pub jain: Fairness,
    /// Bytes of gossip.
    pub advert_bytes_per_s: f64,
}

impl Medians {
    /// The medians of some reports; nothing of none.
    #[must_use]
    pub fn of(reports: &[Report]) -> Option<Self> {
        let median = |figure: fn(&Report) -> f64| {
            let figures: Vec<f64> = reports.iter().map(figure).collect();
            stats::median(&figures)
        };
        let known = |figure: fn(&Report) -> Option<f64>| {
            let figures: Vec<f64> = reports.iter().filter_map(figure).collect();
            stats::median(&figures)
        };
        Some(Self {
            rounds: median(|report| report.rounds as f64)?,
            bids: median(|report| report.bids as f64)?,
            messages: median(|report| report.messages as f64)?,
            bytes: known(|report| report.bytes.map(|bytes| bytes as f64)),
            virtual_ms: known(|report| report.virtual_ms),
            utility: median(|report| report.utility)?,
            optimum: median(|report| report.optimum)?,
            gap_per_piece: median(|report| report.gap_per_piece)?,
            jain: Fairness {
                pieces: median(|report| report.jain.pieces)?,
                busy: median(|report| report.jain.busy)?,
                inference_time: median(|report| report.jain.inference_time)?,
            },
            mean_inference_time: median(|report| report.mean_inference_time)?,
            advert_bytes_per_s: known(|report| report.advert_bytes_per_s),
            observed: MedianObservation::of(reports),
            reagreement: MedianReagreement::of(reports),
        })
    }
}

impl MedianObservation {
    fn of(reports: &[Report]) -> Option<Self> {
        let observed: Vec<Observation> =
            reports.iter().filter_map(|report| report.observed).collect();
        let median = |figure: fn(&Observation) -> f64| {
            let figures: Vec<f64> = observed.iter().map(figure).collect();
            stats::median(&figures)
        };
        Some(Self {
            throughput: median(|observed| observed.throughput)?,
            mean_latency: median(|observed| observed.mean_latency)?,
            mean_inference_time: median(|observed| observed.mean_inference_time)?,
            jain: Fairness {
                pieces: median(|observed| observed.jain.pieces)?,
                busy: median(|observed| observed.jain.busy)?,
                inference_time: median(|observed| observed.jain.inference_time)?,
            },
            advert_bytes_per_s: median(|observed| observed.advert_bytes_per_s)?,
        })
    }
}

impl MedianReagreement {
    fn of(reports: &[Report]) -> Option<Self> {
        let crashes: Vec<Reagreement> =
            reports.iter().filter_map(|report| report.reagreement).collect();
        let median = |figure: fn(&Reagreement) -> f64| {
            let figures: Vec<f64> = crashes.iter().map(figure).collect();
            stats::median(&figures)
        };
        Some(Self {
            lost: median(|crash| crash.lost as f64)?,
            moved: median(|crash| crash.moved as f64)?,
            evicted: median(|crash| crash.evicted as f64)?,
            rounds: median(|crash| crash.rounds as f64)?,
            bids: median(|crash| crash.bids as f64)?,
            messages: median(|crash| crash.messages as f64)?,
            virtual_ms: median(|crash| crash.virtual_ms)?,
            gap_per_piece: median(|crash| crash.gap_per_piece)?,
        })
    }
}

/// A seed's line of JSON.
#[must_use]
pub fn json(report: &Report, setup: &Setup) -> String {
    to_json(&Tagged::new(setup, report))
}

/// The last line of JSON: the medians over the seeds that passed, and how many did and did not.
/// Without any that did, it has no figures.
#[must_use]
pub fn json_medians(reports: &[Report], failed: usize, setup: &Setup) -> String {
    #[derive(Serialize)]
    struct Summary {
        median_of_seeds: usize,
        failed_seeds: usize,
        #[serde(flatten)]
        medians: Option<Medians>,
    }
    let summary = Summary {
        median_of_seeds: reports.len(),
        failed_seeds: failed,
        medians: Medians::of(reports),
    };
    to_json(&Tagged::new(setup, &summary))
}

/// What is about to run, in words.
#[must_use]
pub fn heading(setup: &Setup) -> String {
    let (size, network) = (setup.size, setup.world.network);
    let mut heading = format!(
        "{}: {} pieces, {} providers, eps {}",
        described(setup),
        size.pieces,
        size.providers,
        setup.terms.eps.to_f64(),
    );
    if setup.missing > 0.0 {
        heading += &format!(", {} of all adverts missing", setup.missing);
    }
    if setup.timing == Timing::Rounds {
        return heading + ", in rounds";
    }
    let (shortest, longest) = (network.latency_min.as_millis(), network.latency_max.as_millis());
    heading += &format!(", links of {shortest} to {longest} ms");
    let faults = [
        ("loss", network.loss),
        ("duplication", network.duplication),
        ("reordering", network.reordering),
    ];
    for (name, probability) in faults.into_iter().filter(|(_, probability)| *probability > 0.0) {
        heading += &format!(", {name} {probability}");
    }
    heading
}

/// The table's first line.
#[must_use]
pub fn table_head() -> String {
    line([
        "seed",
        "rounds",
        "bids",
        "messages",
        "KiB",
        "virtual ms",
        "gap/piece",
        "of eps",
        "Jain rate",
        "Jain load",
        "Jain time",
        "trace",
    ])
}

/// A seed's line of the table.
#[must_use]
pub fn table_row(report: &Report, eps: f64) -> String {
    line([
        &report.seed.to_string(),
        &report.rounds.to_string(),
        &report.bids.to_string(),
        &report.messages.to_string(),
        &or_dash(report.bytes, |bytes| format!("{:.1}", bytes as f64 / 1024.0)),
        &or_dash(report.virtual_ms, |ms| format!("{ms:.0}")),
        &format!("{:.5}", report.gap_per_piece),
        &format!("{:.1} %", report.gap_per_piece / eps * 100.0),
        &format!("{:.3}", report.jain.pieces),
        &format!("{:.3}", report.jain.busy),
        &format!("{:.3}", report.jain.inference_time),
        &report.trace_hash[..TRACE_DIGITS],
    ])
}

/// The table's last line.
#[must_use]
pub fn table_foot(medians: &Medians, eps: f64) -> String {
    line([
        "median",
        &format!("{:.0}", medians.rounds),
        &format!("{:.0}", medians.bids),
        &format!("{:.0}", medians.messages),
        &or_dash(medians.bytes, |bytes| format!("{:.1}", bytes / 1024.0)),
        &or_dash(medians.virtual_ms, |ms| format!("{ms:.0}")),
        &format!("{:.5}", medians.gap_per_piece),
        &format!("{:.1} %", medians.gap_per_piece / eps * 100.0),
        &format!("{:.3}", medians.jain.pieces),
        &format!("{:.3}", medians.jain.busy),
        &format!("{:.3}", medians.jain.inference_time),
        "",
    ])
}

/// What was observed of a seed's inferences, in words.
#[must_use]
pub fn observed_line(observed: &Observation) -> String {
    format!(
        "        observed for {} s: {:.1} inferences/s, mean latency {:.1} ms, mean inference time \
         of a piece {:.1} ms, Jain rate {:.3}, load {:.3}, time {:.3}, gossip {:.0} bytes/s",
        observed.seconds,
        observed.throughput,
        observed.mean_latency * 1e3,
        observed.mean_inference_time * 1e3,
        observed.jain.pieces,
        observed.jain.busy,
        observed.jain.inference_time,
        observed.advert_bytes_per_s,
    )
}

/// What a seed's crash came to, in words.
#[must_use]
pub fn crash_line(crash: &Reagreement) -> String {
    format!(
        "        one provider crashed: {} pieces lost, {} others turned out, {} others elsewhere now; \
         {} rounds, {} bids, {} messages, {:.0} ms, gap/piece {:.5}",
        crash.lost,
        crash.evicted,
        crash.moved,
        crash.rounds,
        crash.bids,
        crash.messages,
        crash.virtual_ms,
        crash.gap_per_piece,
    )
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    algorithm: &'static str,
    bidding: Option<&'static str>,
    timing: &'static str,
    missing: f64,
    #[serde(flatten)]
    figures: &'a T,
}

impl<'a, T> Tagged<'a, T> {
    fn new(setup: &Setup, figures: &'a T) -> Self {
        let timing = match setup.timing {
            Timing::Rounds => "rounds",
            Timing::Virtual => "virtual",
        };
        let bidding = bids(setup).then(|| name_of(setup.bidding));
        Self { algorithm: setup.algorithm.name(), bidding, timing, missing: setup.missing, figures }
    }
}

/// Only the protocol's own auction knows two ways to bid.
fn bids(setup: &Setup) -> bool {
    setup.algorithm == Algorithm::Auction
}

fn described(setup: &Setup) -> String {
    let name = setup.algorithm.name();
    if bids(setup) {
        format!("{name}, {} bidding", name_of(setup.bidding))
    } else {
        name.to_owned()
    }
}

fn or_dash<T>(figure: Option<T>, text: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), text)
}

/// How pieces bid: at the prices that they hear, or with what a forecast ends at.
fn name_of(bidding: Bidding) -> &'static str {
    match bidding {
        Bidding::Forecast => "forecast",
        Bidding::Plain => "plain",
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names and numbers are JSON")
}

fn line(cells: [&str; COLUMNS.len()]) -> String {
    let padded = cells.iter().zip(COLUMNS).map(|(cell, width)| format!("{cell:>width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

const COLUMNS: [usize; 12] = [6, 6, 7, 8, 8, 10, 9, 7, 9, 9, 9, 12];
const TRACE_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seed: u64, rounds: u64) -> Report {
        Report {
            seed,
            rounds,
            bids: 10,
            messages: 20,
            bytes: Some(300),
            virtual_ms: Some(40.5),
            utility: 1.0,
            optimum: 1.5,
            gap_per_piece: 0.01,
            jain: Fairness { pieces: 0.9, busy: 0.8, inference_time: 0.7 },
            mean_inference_time: 0.02,
            advert_bytes_per_s: Some(1000.0),
            observed: None,
            reagreement: None,
            trace_hash: "ab".repeat(32),
        }
    }

    #[test]
    fn the_medians_are_taken_figure_by_figure() {
        let reports = [report(0, 7), report(1, 3), report(2, 5)];
        let medians = Medians::of(&reports).expect("there are some");
        assert_eq!((medians.rounds, medians.bids, medians.jain.busy), (5.0, 10.0, 0.8));
        assert_eq!(Medians::of(&[]), None);
    }

    #[test]
    fn head_rows_and_foot_line_up() {
        let medians = Medians::of(&[report(0, 7)]).expect("there is one");
        let row = table_row(&report(0, 7), 0.05);
        assert_eq!(row.len(), table_head().len());
        assert_eq!(row.find("20.0 %"), table_foot(&medians, 0.05).find("20.0 %"));
    }

    #[test]
    fn the_last_line_says_how_many_seeds_failed() {
        let line = json_medians(&[], 3, &Setup::new(1, 1));
        let expected = r#"{"algorithm":"auction","bidding":"forecast","timing":"virtual","missing":0.0,"median_of_seeds":0,"failed_seeds":3}"#;
        assert_eq!(line, expected);
    }
}
