//! What a session agreed on, for people and for tests.

use std::time::Duration;

use crate::{cost, id::NodeId, plan::LayerRange, rows::RowRange};

/// The outcome of an auction, as its requester sees it.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlacedPiece {
    /// Its layers.
    pub layers: LayerRange,
    /// For a strip, its rows of the first tensor that the layers make.
    pub rows: Option<RowRange>,
    /// Who computes it.
    pub provider: NodeId,
    /// Pieces that share the provider, this one included (`n_j`).
    pub sharers: u16,
    /// Predicted seconds of one inference of the piece: `T_ij * n_j`.
    pub seconds: f64,
}

impl Agreement {
    /// Predicted inferences per second of the whole pipeline: those of its slowest piece.
    #[must_use]
    pub fn rate(&self) -> f64 {
        1.0 / self.pieces.iter().map(|piece| piece.seconds).fold(0.0, f64::max)
    }

    /// Jain's index of the pieces' rates.
    #[must_use]
    pub fn jain(&self) -> f64 {
        let rates: Vec<f64> = self.pieces.iter().map(|piece| 1.0 / piece.seconds).collect();
        cost::jain(&rates)
    }
}
