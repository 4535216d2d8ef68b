//! Pieces and plans.

use std::{fmt, ops::Range};

use bincode::{Decode, Encode};

use crate::rows::RowRange;

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

/// The unit of assignment: what one provider computes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Piece {
    /// Its layers.
    pub layers: LayerRange,
    /// For a strip, its rows of each tensor alive after the layers; empty for all rows.
    pub rows: Vec<RowRange>,
}

impl Piece {
    /// These layers, for all rows.
    #[must_use]
    pub fn whole(layers: LayerRange) -> Self {
        Self { layers, rows: Vec::new() }
    }

    /// Whether it makes some rows only.
    #[must_use]
    pub fn is_strip(&self) -> bool {
        !self.rows.is_empty()
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows.first() {
            None => write!(f, "{}", self.layers),
            Some(rows) => write!(f, "{} rows {rows}", self.layers),
        }
    }
}

/// The segments of a session in order. A segment is one layer range with the pieces that compute
/// it side by side: one piece is a stage of a layer pipeline, several are strips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pieces: Vec<Piece>,
    // Where each segment begins among the pieces, and where the last one ends.
    starts: Vec<u16>,
}

impl Plan {
    /// A layer pipeline from its inner cuts, ascending positions strictly between 0 and `layers`.
    /// Nothing if they are not.
    #[must_use]
    pub fn from_cuts(layers: u16, cuts: &[u16]) -> Option<Plan> {
        let mut first = 0;
        let mut segments = Vec::with_capacity(cuts.len() + 1);
        for &end in cuts.iter().chain([&layers]) {
            segments.push(vec![Piece::whole(LayerRange { first, end })]);
            first = end;
        }
        Self::from_segments(segments)
    }

    /// A plan of segments, each the pieces that compute one layer range side by side. Nothing
    /// unless the ranges begin at layer 0 and follow each other, and a segment is one piece of all
    /// rows, or strips whose rows follow each other from row 0 in every tensor.
    #[must_use]
    pub fn from_segments(segments: Vec<Vec<Piece>>) -> Option<Plan> {
        let mut next = 0;
        let mut starts = vec![0];
        for segment in &segments {
            let layers = segment.first()?.layers;
            if layers.first != next || layers.is_empty() || !is_divided(segment) {
                return None;
            }
            next = layers.end;
            starts.push(starts.last()? + u16::try_from(segment.len()).ok()?);
        }
        let pieces: Vec<Piece> = segments.into_iter().flatten().collect();
        (1..=PIECES_MAX).contains(&pieces.len()).then_some(Plan { pieces, starts })
    }

    /// The pieces, segment by segment, at least one.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// How many segments, at least one.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.starts.len() - 1
    }

    /// Which pieces a segment has; none beyond the last.
    #[must_use]
    pub fn segment(&self, segment: usize) -> Range<u16> {
        match self.starts.get(segment..segment + 2) {
            Some(&[first, end]) => first..end,
            _ => 0..0,
        }
    }

    /// Which segment a piece belongs to.
    #[must_use]
    pub fn segment_of(&self, piece: u16) -> usize {
        self.starts.partition_point(|start| *start <= piece).saturating_sub(1)
    }

    /// Whether every segment is one piece of all rows.
    #[must_use]
    pub fn is_pipeline(&self) -> bool {
        self.pieces.iter().all(|piece| !piece.is_strip())
    }
}

/// Whether these are the pieces of one segment, from its first row to its last.
fn is_divided(segment: &[Piece]) -> bool {
    let Some(first) = segment.first() else { return false };
    if segment.len() == 1 && !first.is_strip() {
        return true;
    }
    let begins = first.is_strip() && first.rows.iter().all(|rows| rows.first == 0);
    let follows = |pair: &[Piece]| {
        let rows = pair[0].rows.iter().zip(&pair[1].rows);
        pair[0].layers == pair[1].layers
            && pair[0].rows.len() == pair[1].rows.len()
            && rows.clone().all(|(before, after)| before.end == after.first)
    };
    let ordered = |piece: &Piece| piece.rows.iter().all(|rows| rows.first <= rows.end);
    let useful = |piece: &Piece| piece.rows.iter().any(|rows| !rows.is_empty());
    begins && segment.windows(2).all(follows) && segment.iter().all(|p| ordered(p) && useful(p))
}

/// The most pieces in one plan: what an advert has room for.
pub const PIECES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_become_contiguous_pieces_or_nothing() {
        let plan = Plan::from_cuts(10, &[3, 7]).expect("good cuts");
        let ranges: Vec<_> = plan.pieces().iter().map(|p| (p.layers.first, p.layers.end)).collect();
        assert_eq!(ranges, [(0, 3), (3, 7), (7, 10)]);
        for bad in [&[0][..], &[3, 3], &[7, 3], &[10], &[11]] {
            assert_eq!(Plan::from_cuts(10, bad), None, "{bad:?}");
        }
        let too_many: Vec<u16> = (1..=64).collect();
        assert_eq!(Plan::from_cuts(100, &too_many), None);
    }

    fn strip(layers: (u16, u16), rows: &[(u32, u32)]) -> Piece {
        let rows = rows.iter().map(|(first, end)| RowRange::new(*first, *end)).collect();
        Piece { layers: LayerRange { first: layers.0, end: layers.1 }, rows }
    }

    #[test]
    fn segments_are_whole_or_divided_without_a_gap() {
        let good = vec![
            vec![strip((0, 2), &[(0, 3), (0, 2)]), strip((0, 2), &[(3, 8), (2, 2)])],
            vec![strip((2, 5), &[])],
        ];
        let plan = Plan::from_segments(good).expect("a right plan");
        assert_eq!((plan.segments(), plan.segment(0), plan.segment(1)), (2, 0..2, 2..3));
        assert_eq!([0, 1, 2].map(|piece| plan.segment_of(piece)), [0, 0, 1]);
        assert!(!plan.is_pipeline());
        let bad = [
            vec![],
            vec![vec![]],
            vec![vec![strip((1, 2), &[])]],
            vec![vec![strip((0, 2), &[]), strip((0, 2), &[])]],
            vec![vec![strip((0, 2), &[(0, 3)]), strip((0, 2), &[(4, 8)])]],
            vec![vec![strip((0, 2), &[(0, 3)]), strip((0, 2), &[(3, 3)])]],
            vec![vec![strip((0, 2), &[(1, 3)])]],
            vec![vec![strip((0, 2), &[(0, 3)]), strip((0, 3), &[(3, 8)])]],
            vec![vec![strip((0, 2), &[(0, 3)]), strip((0, 2), &[(3, 8), (0, 1)])]],
        ];
        for segments in bad {
            assert_eq!(Plan::from_segments(segments.clone()), None, "{segments:?}");
        }
    }
}
