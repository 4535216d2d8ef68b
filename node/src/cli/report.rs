//! Sessions and timings, as tables for people and as JSON for machines.

use std::collections::BTreeMap;

use serde::Serialize;
use starling_protocol::{
    rows::RowRange,
    session::{Agreement, PlacedPiece},
};

use crate::net::Timing;

/// An auction's counts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AuctionReport {
    pub(super) rounds: u32,
    pub(super) bids: u32,
    pub(super) messages: u32,
    pub(super) ms: f64,
}

/// Who computes what, at what share.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PieceReport {
    /// Which of the plans that serve side by side.
    pub(super) lane: u16,
    /// First and last layer, both included.
    pub(super) layers: [u16; 2],
    /// For a strip, its first and last row of the first tensor that is alive after its layers, both
    /// included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<[u32; 2]>,
    /// The same of each of these tensors; those of which it makes no row have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tensor_rows: Vec<Option<[u32; 2]>>,
    pub(super) provider: String,
    /// Of the provider's time: one over the pieces that share it.
    pub(super) share: f64,
    pub(super) predicted_ms: f64,
}

impl AuctionReport {
    pub(super) fn of(agreement: &Agreement) -> Self {
        Self {
            rounds: agreement.rounds,
            bids: agreement.bids,
            messages: agreement.messages,
            ms: millis(agreement.elapsed.as_secs_f64()),
        }
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        format!(
            "{}, {}, {} messages, agreed after {:.0} ms",
            count(self.rounds, "round"),
            count(self.bids, "bid"),
            self.messages,
            self.ms
        )
    }
}

fn count(number: u32, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// One report for each piece of a plan.
pub(super) fn pieces(agreement: &Agreement) -> Vec<PieceReport> {
    let both_ends = |rows: &RowRange| [rows.first, rows.end.saturating_sub(1)];
    let report = |piece: &PlacedPiece| PieceReport {
        lane: piece.lane,
        layers: [piece.layers.first, piece.layers.end - 1],
        rows: piece.rows.first().map(both_ends),
        tensor_rows: piece
            .rows
            .iter()
            .map(|rows| (!rows.is_empty()).then(|| both_ends(rows)))
            .collect(),
        provider: piece.provider.to_string(),
        share: 1.0 / f64::from(piece.sharers),
        predicted_ms: millis(piece.seconds),
    };
    agreement.pieces.iter().map(report).collect()
}

/// How many pieces a plan has, and in how many lanes if these are several.
pub(super) fn shape(pieces: &[PieceReport]) -> String {
    let whole = count(u32::try_from(pieces.len()).unwrap_or(u32::MAX), "piece");
    match pieces.last().map_or(0, |piece| piece.lane) {
        0 => whole,
        last => format!("{whole} in {} lanes, each inference through one of them", last + 1),
    }
}

/// A table of pieces, each line indented by two.
pub(super) fn pieces_table(pieces: &[PieceReport], name: &dyn Fn(&str) -> String) -> String {
    let rows = pieces.iter().enumerate().map(|(index, piece)| {
        format!(
            "  {index:>5}  {:>4}  {:>9}  {:>9}  {:<22}  {:>5.0} %  {:>9.1} ms\n",
            piece.lane,
            format!("{}-{}", piece.layers[0], piece.layers[1]),
            piece.rows.map_or_else(|| "all".to_owned(), |[first, last]| format!("{first}-{last}")),
            name(&piece.provider),
            piece.share * 100.0,
            piece.predicted_ms
        )
    });
    let head =
        "  piece  lane     layers       rows  provider                  share     predicted\n"
            .to_owned();
    head + &rows.collect::<String>()
}

/// Where one inference's time went.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TimingReport {
    pub(super) piece: u16,
    pub(super) provider: String,
    pub(super) network_ms: f64,
    pub(super) queue_ms: f64,
    pub(super) compute_ms: f64,
}

/// Where the time of one inference went, piece by piece.
pub(super) fn trace(timings: &[Timing]) -> Vec<TimingReport> {
    let millis = |micros: u32| f64::from(micros) / 1e3;
    let report = |timing: &Timing| TimingReport {
        piece: timing.index,
        provider: timing.node.to_string(),
        network_ms: millis(timing.transfer_us),
        queue_ms: millis(timing.queue_us),
        compute_ms: millis(timing.compute_us),
    };
    timings.iter().map(report).collect()
}

/// Medians over inferences, piece by piece; pieces that moved count where they were last.
pub(super) fn timings(traces: &[Vec<Timing>]) -> Vec<TimingReport> {
    // Of several lanes, each inference went through one.
    let mut last: BTreeMap<u16, &Timing> = BTreeMap::new();
    for timing in traces.iter().flatten() {
        last.insert(timing.index, timing);
    }
    let of = |index: u16, field: fn(&Timing) -> u32| {
        let same = traces.iter().flatten().filter(|timing| timing.index == index);
        let mut values: Vec<u32> = same.map(field).collect();
        values.sort_unstable();
        values.get(values.len() / 2).map_or(0.0, |micros| f64::from(*micros) / 1e3)
    };
    let report = |timing: &Timing| TimingReport {
        piece: timing.index,
        provider: timing.node.to_string(),
        network_ms: of(timing.index, |timing| timing.transfer_us),
        queue_ms: of(timing.index, |timing| timing.queue_us),
        compute_ms: of(timing.index, |timing| timing.compute_us),
    };
    last.into_values().map(report).collect()
}

/// A table of timings, each line indented by two.
pub(super) fn timings_table(timings: &[TimingReport]) -> String {
    let rows = timings.iter().map(|timing| {
        format!(
            "  {:>5}  {:<10}  {:>9.2} ms  {:>9.2} ms  {:>9.2} ms\n",
            timing.piece, timing.provider, timing.network_ms, timing.queue_ms, timing.compute_ms
        )
    });
    "  piece  provider        network         queue       compute\n".to_owned()
        + &rows.collect::<String>()
}

/// Seconds as milliseconds, to the microsecond.
pub(super) fn millis(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

/// What this share of the times stays at or below, in milliseconds; 0 of none.
pub(super) fn quantile_ms(seconds: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut seconds: Vec<f64> = seconds.into_iter().collect();
    seconds.sort_unstable_by(f64::total_cmp);
    let rank = (seconds.len() as f64 * share).ceil() as usize;
    millis(seconds.get(rank.saturating_sub(1)).copied().unwrap_or(0.0))
}

/// A number to three digits behind the point.
pub(super) fn round3(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

/// A count with a unit: 12.3 G.
pub(super) fn human(count: f64) -> String {
    let units = ["", "k", "M", "G", "T"];
    let mut value = count;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} ") } else { format!("{value:.1} {}", units[unit]) }
}
