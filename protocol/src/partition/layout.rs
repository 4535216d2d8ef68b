//! A plan with its workers, before it is a plan.

use super::worker::Worker;
use crate::{
    id::NodeId,
    plan::{Piece, Plan},
};

/// The segments of a plan in order. For each piece of a segment, the place of its worker among
/// the workers. A layout may have more pieces than a plan has room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// For each segment, the pieces that compute it side by side, and by whom.
    pub segments: Vec<Vec<(Piece, usize)>>,
}

impl Layout {
    /// The same as a plan. Nothing if it has more pieces than a plan may have.
    #[must_use]
    pub fn plan(&self) -> Option<Plan> {
        let pieces = |segment: &Vec<(Piece, usize)>| {
            segment.iter().map(|(piece, _)| piece.clone()).collect()
        };
        Plan::from_segments(self.segments.iter().map(pieces).collect())
    }

    /// Who computes each piece, in the order of the plan.
    #[must_use]
    pub fn order(&self, workers: &[Worker]) -> Vec<NodeId> {
        let places = self.segments.iter().flatten();
        places.filter_map(|(_, place)| Some(workers.get(*place)?.node)).collect()
    }

    /// The other way round. Nothing unless every piece is at one of the workers.
    pub(super) fn of(plan: &Plan, placement: &[NodeId], workers: &[Worker]) -> Option<Self> {
        let mut places =
            placement.iter().map(|node| workers.iter().position(|worker| worker.node == *node));
        let segment = |at| {
            let pieces = plan.segment(at).map(|piece| &plan.pieces()[usize::from(piece)]);
            pieces.map(|piece| Some((piece.clone(), places.next()??))).collect()
        };
        Some(Self { segments: (0..plan.segments()).map(segment).collect::<Option<_>>()? })
    }

    /// Segments of one whole piece that follow each other at one worker become one.
    pub(super) fn merged(self) -> Self {
        let mut segments: Vec<Vec<(Piece, usize)>> = Vec::new();
        for segment in self.segments {
            match (segments.last_mut().map(Vec::as_mut_slice), segment.as_slice()) {
                (Some([(before, here)]), [(piece, place)])
                    if here == place && !before.is_strip() && !piece.is_strip() =>
                {
                    before.layers.end = piece.layers.end;
                }
                _ => segments.push(segment),
            }
        }
        Self { segments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LayerRange;

    #[test]
    fn a_worker_does_not_send_to_itself() {
        let whole = |first, end, place| vec![(Piece::whole(LayerRange { first, end }), place)];
        let layout = Layout { segments: vec![whole(0, 1, 4), whole(1, 3, 4), whole(3, 4, 2)] };
        assert_eq!(layout.merged().segments, [whole(0, 3, 4), whole(3, 4, 2)]);
    }
}
