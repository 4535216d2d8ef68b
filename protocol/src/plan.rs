//! Pieces and plans.

use std::fmt;

use bincode::{Decode, Encode};

/// Layers `first..end` of a model, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LayerRange {
    /// The first layer.
    pub first: u16,
    /// One past the last layer.
    pub end: u16,
}

impl LayerRange {
    /// How many layers.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.end.saturating_sub(self.first)
    }

    /// Whether there is no layer in it, which is so for junk from the wire only.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

/// The segments of a session in order. Today every segment is one piece: a layer pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pieces: Vec<LayerRange>,
}

impl Plan {
    /// A plan from its inner cuts, ascending positions strictly between 0 and `layers`.
    /// Nothing if they are not.
    #[must_use]
    pub fn from_cuts(layers: u16, cuts: &[u16]) -> Option<Plan> {
        let mut first = 0;
        let mut pieces = Vec::with_capacity(cuts.len() + 1);
        for &end in cuts.iter().chain([&layers]) {
            if end <= first {
                return None;
            }
            pieces.push(LayerRange { first, end });
            first = end;
        }
        (pieces.len() <= PIECES_MAX).then_some(Plan { pieces })
    }

    /// The pieces in pipeline order, at least one.
    #[must_use]
    pub fn pieces(&self) -> &[LayerRange] {
        &self.pieces
    }
}

/// The most pieces in one plan: what an advert has room for.
pub const PIECES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_become_contiguous_pieces_or_nothing() {
        let plan = Plan::from_cuts(10, &[3, 7]).expect("good cuts");
        let ranges: Vec<_> = plan.pieces().iter().map(|p| (p.first, p.end)).collect();
        assert_eq!(ranges, [(0, 3), (3, 7), (7, 10)]);
        for bad in [&[0][..], &[3, 3], &[7, 3], &[10], &[11]] {
            assert_eq!(Plan::from_cuts(10, bad), None, "{bad:?}");
        }
        let too_many: Vec<u16> = (1..=64).collect();
        assert_eq!(Plan::from_cuts(100, &too_many), None);
    }
}
