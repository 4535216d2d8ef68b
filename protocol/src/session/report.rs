//! What a session agreed on, for people and for tests.

use std::{collections::BTreeMap, time::Duration};

use crate::{cost, id::NodeId, plan::LayerRange, rows::RowRange};

/// The outcome of an auction, as its requester sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreement {
    /// The plan's pieces in order.
    pub pieces: Vec<PlacedPiece>,
    /// The most bids that any one piece made.
    pub rounds: u32,
    /// Bids of all pieces.
    pub bids: u32,
    /// Market messages of this session, sent and received.
    pub messages: u32,
    /// From the first bid to the end of the settle window.
    pub elapsed: Duration,
}

/// One piece and its provider.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedPiece {
    /// To which of the plans that serve a stream side by side it belongs; 0 in a session's own.
    pub lane: u16,
    /// Its layers.
    pub layers: LayerRange,
    /// For a strip, its rows of each tensor alive after its layers; empty for all rows.
    pub rows: Vec<RowRange>,
    /// Who computes it.
    pub provider: NodeId,
    /// Pieces that share the provider, this one included (`n_j`).
    pub sharers: u16,
    /// Predicted seconds of one inference of the piece: `T_ij * n_j`.
    pub seconds: f64,
}

impl Agreement {
    /// One agreement of those of several sessions that serve a stream side by side. Their pieces
    /// follow each other, each with its session's place as its lane.
    #[must_use]
    pub fn together<'a>(lanes: impl IntoIterator<Item = &'a Agreement>) -> Agreement {
        let mut all = Agreement::default();
        for (lane, one) in (0..).zip(lanes) {
            all.pieces.extend(one.pieces.iter().map(|piece| PlacedPiece { lane, ..piece.clone() }));
            all.rounds = all.rounds.max(one.rounds);
            all.bids = all.bids.saturating_add(one.bids);
            all.messages = all.messages.saturating_add(one.messages);
            all.elapsed = all.elapsed.max(one.elapsed);
        }
        all
    }

    /// Predicted inferences per second: those of the slowest piece of each lane.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let mut slowest: BTreeMap<u16, f64> = BTreeMap::new();
        for piece in &self.pieces {
            let seconds = slowest.entry(piece.lane).or_insert(0.0);
            *seconds = seconds.max(piece.seconds);
        }
        slowest.values().map(|seconds| 1.0 / seconds).sum()
    }

    /// Jain's index of the pieces' rates.
    #[must_use]
    pub fn jain(&self) -> f64 {
        let rates: Vec<f64> = self.pieces.iter().map(|piece| 1.0 / piece.seconds).collect();
        cost::jain(&rates)
    }
}
