//! Who sends which rows to whom: a plan with its providers, edge by edge.
//!
//! Activations flow from provider to provider. A strip takes the rows that it needs, halo
//! included, from whichever pieces of the segment before make them, and the requester takes part
//! like a segment before the first and after the last.

use bincode::{Decode, Encode};

use crate::{
    id::NodeId,
    model::ModelProfile,
    plan::{Piece, Plan},
    rows::RowRange,
};

/// One end of an edge: the other end, and the rows that pass.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    /// The piece at the other end, or [`REQUESTER`].
    pub piece: u16,
    /// Who computes it.
    pub node: NodeId,
    /// Which rows of each tensor alive at the cut between; empty for all rows of all of them.
    pub rows: Vec<RowRange>,
}

/// What stands for the requester where a [`Link`] names a piece.
pub const REQUESTER: u16 = u16::MAX;

/// All edges of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// By piece: where its inputs come from.
    pub sources: Vec<Vec<Link>>,
    /// By piece: where its outputs go.
    pub targets: Vec<Vec<Link>>,
    /// Where the requester sends its inputs.
    pub inputs: Vec<Link>,
    /// Where the requester's outputs come from.
    pub outputs: Vec<Link>,
}

impl Wiring {
    /// The edges of a plan whose pieces are at these nodes, one for each.
    #[must_use]
    pub fn new(
        profile: &ModelProfile,
        plan: &Plan,
        placement: &[NodeId],
        requester: NodeId,
    ) -> Self {
        let none = || vec![Vec::new(); plan.pieces().len()];
        let mut wiring = Self { sources: none(), targets: none(), ..Self::default() };
        let end = |piece: u16| End::new(profile, plan, placement, piece);
        for piece in plan.segment(0) {
            wiring.join(&End::requester(requester), &end(piece));
        }
        for segment in 1..plan.segments() {
            for before in plan.segment(segment - 1) {
                for after in plan.segment(segment) {
                    wiring.join(&end(before), &end(after));
                }
            }
        }
        for piece in plan.segment(plan.segments() - 1) {
            wiring.join(&end(piece), &End::requester(requester));
        }
        wiring
    }

    fn join(&mut self, from: &End, to: &End) {
        let Some(rows) = common(&from.makes, &to.takes) else { return };
        let link = |end: &End| Link { piece: end.piece, node: end.node, rows: rows.clone() };
        let (source, target) = (link(from), link(to));
        match self.targets.get_mut(usize::from(from.piece)) {
            Some(targets) => targets.push(target),
            None => self.inputs.push(target),
        }
        match self.sources.get_mut(usize::from(to.piece)) {
            Some(sources) => sources.push(source),
            None => self.outputs.push(source),
        }
    }
}

/// A piece or the requester, with its rows at the cut before it and the cut after; none for all.
struct End {
    piece: u16,
    node: NodeId,
    takes: Vec<RowRange>,
    makes: Vec<RowRange>,
}

impl End {
    fn requester(node: NodeId) -> Self {
        Self { piece: REQUESTER, node, takes: Vec::new(), makes: Vec::new() }
    }

    fn new(profile: &ModelProfile, plan: &Plan, placement: &[NodeId], piece: u16) -> Self {
        let at = usize::from(piece);
        let (takes, makes) = match plan.pieces().get(at) {
            Some(piece) if reaches_all(profile, piece) => (Vec::new(), Vec::new()),
            Some(piece) => (profile.needed(piece), piece.rows.clone()),
            None => (Vec::new(), Vec::new()),
        };
        let node = placement.get(at).copied().unwrap_or(NodeId([0; 32]));
        Self { piece, node, takes, makes }
    }
}

/// Whether a piece has all rows there are, or nothing is known of rows.
fn reaches_all(profile: &ModelProfile, piece: &Piece) -> bool {
    !piece.is_strip() || profile.rows().is_none()
}

/// The rows that one end makes and the other takes, where no rows stand for all of them; nothing
/// if there is no row in common.
fn common(makes: &[RowRange], takes: &[RowRange]) -> Option<Vec<RowRange>> {
    match (makes.is_empty(), takes.is_empty()) {
        (true, true) => Some(Vec::new()),
        (true, false) => Some(takes.to_vec()),
        (false, true) => Some(makes.to_vec()),
        (false, false) => {
            let both: Vec<RowRange> =
                makes.iter().zip(takes).map(|(makes, takes)| makes.intersection(*takes)).collect();
            both.iter().any(|rows| !rows.is_empty()).then_some(both)
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::{
        id::ModelId,
        model::LayerProfile,
        plan::LayerRange,
        rows::{LayerRows, RowMap, RowRule, RowWindow, Splits, TensorRows, divide},
    };

    /// A chain of 3x3 convolutions over images of this height.
    fn profile(layers: u16, height: u32) -> ModelProfile {
        let window = RowWindow { kernel: 3, stride: 1, dilation: 1, before: 1 };
        let layer = |at: u32| LayerRows {
            inputs: vec![(at, RowRule::Window(window))],
            outputs: vec![at + 1],
            splits: Splits::ByRows,
        };
        let tensors = vec![TensorRows { height, row_bytes: 8 }; usize::from(layers) + 1];
        let layers = u32::from(layers);
        let map = RowMap::new(
            tensors,
            (0..layers).map(layer).collect(),
            (0..=layers).map(|cut| vec![cut]).collect(),
        );
        let costs = vec![LayerProfile::default(); layers as usize];
        let bytes = vec![8 * u64::from(height); layers as usize + 1];
        let profile = ModelProfile::new(ModelId([1; 32]), &costs, bytes).expect("a right profile");
        profile.with_rows(map.expect("a right map"))
    }

    /// One segment for each entry: how many strips it has, 0 for a whole piece.
    fn plan(strips: &[u8], height: u32) -> Plan {
        let segment = |(at, strips): (u16, &u8)| -> Vec<Piece> {
            let layers = LayerRange { first: at * 2, end: at * 2 + 2 };
            let weights = vec![1.0; usize::from(*strips)];
            match strips {
                0 => vec![Piece::whole(layers)],
                _ => divide(height, &weights)
                    .into_iter()
                    .map(|rows| Piece { layers, rows: vec![rows] })
                    .collect(),
            }
        };
        Plan::from_segments((0..).zip(strips).map(segment).collect()).expect("a right plan")
    }

    fn nodes(count: usize) -> Vec<NodeId> {
        (1..=count).map(|at| NodeId([at as u8; 32])).collect()
    }

    #[test]
    fn a_pipeline_passes_everything_on() {
        let plan = plan(&[0, 0], 8);
        let wiring = Wiring::new(&profile(4, 8), &plan, &nodes(2), NodeId([9; 32]));
        let link = |piece, node| Link { piece, node: NodeId([node; 32]), rows: Vec::new() };
        assert_eq!(wiring.inputs, [link(0, 1)]);
        assert_eq!(wiring.sources, [[link(REQUESTER, 9)], [link(0, 1)]]);
        assert_eq!(wiring.targets, [[link(1, 2)], [link(REQUESTER, 9)]]);
        assert_eq!(wiring.outputs, [link(1, 2)]);
    }

    #[test]
    fn strips_get_their_halo_from_their_neighbours_and_no_more() {
        let plan = plan(&[2, 2, 0], 16);
        let wiring = Wiring::new(&profile(6, 16), &plan, &nodes(5), NodeId([9; 32]));
        let rows = |links: &[Link]| -> Vec<(u16, u32, u32)> {
            links.iter().map(|link| (link.piece, link.rows[0].first, link.rows[0].end)).collect()
        };
        assert_eq!(rows(&wiring.inputs), [(0, 0, 10), (1, 6, 16)]);
        assert_eq!(rows(&wiring.targets[0]), [(2, 0, 8), (3, 6, 8)]);
        assert_eq!(rows(&wiring.targets[1]), [(2, 8, 10), (3, 8, 16)]);
        assert_eq!(rows(&wiring.sources[4]), [(2, 0, 8), (3, 8, 16)]);
        assert_eq!(wiring.outputs[0].rows, []);
    }

    quickcheck! {
        fn every_needed_row_comes_once_and_no_other(strips: Vec<u8>, height: u8) -> bool {
            let height = u32::from(height % 40) + 4;
            let mut strips: Vec<u8> = strips.iter().take(4).map(|count| count % 5).collect();
            strips.push(3);
            let plan = plan(&strips, height);
            let profile = profile(2 * strips.len() as u16, height);
            let wiring =
                Wiring::new(&profile, &plan, &nodes(plan.pieces().len()), NodeId([0; 32]));
            let whole = RowRange::new(0, height);
            plan.pieces().iter().zip(&wiring.sources).all(|(piece, sources)| {
                let needed = profile.needed(piece).first().copied().unwrap_or(whole);
                let mut next = needed.first;
                sources.iter().all(|source| {
                    let rows = source.rows.first().copied().unwrap_or(whole);
                    let follows = rows.first == next;
                    next = rows.end;
                    follows
                }) && next == needed.end
            })
        }
    }
}
