//! What a planner decides on, and what all of them ask of it.

use super::{
    layout::Layout,
    planner::Settings,
    room::Room,
    worker::{Goal, Proposal, Worker},
};
use crate::{
    id::NodeId,
    model::{ModelProfile, Work},
    plan::{LayerRange, PIECES_MAX, Piece},
    rows::{RowMap, RowRange, divide_within},
};

/// A model, the workers, whose inferences they are, and what they are for.
pub(super) struct Case<'a> {
    pub(super) profile: &'a ModelProfile,
    pub(super) workers: Vec<Worker>,
    pub(super) requester: NodeId,
    pub(super) goal: Goal,
    pub(super) settings: Settings,
}

impl Case<'_> {
    /// What a layout promises. Nothing if it is impossible, or has too many pieces for a plan.
    pub(super) fn proposal(&self, layout: &Layout) -> Option<Proposal> {
        if !self.has_room(layout) {
            return None;
        }
        let prediction = self.predict(layout);
        let plan = layout.plan()?;
        let order = layout.order(&self.workers);
        let (latency, bottleneck) = (prediction.latency, prediction.bottleneck);
        latency.is_finite().then_some(Proposal { plan, order, bottleneck, latency })
    }

    /// Whether every worker takes so many pieces.
    pub(super) fn has_room(&self, layout: &Layout) -> bool {
        let mut room: Vec<u16> = self.workers.iter().map(|worker| worker.room).collect();
        let mut places = layout.segments.iter().flatten();
        places.all(|(_, at)| match room.get_mut(*at) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            Some(_) | None => false,
        })
    }

    /// What the session wants least of: smaller is better.
    pub(super) fn score(&self, layout: &Layout) -> f64 {
        let prediction = self.predict(layout);
        self.goal.of(prediction.latency, prediction.bottleneck)
    }

    /// The best of some layouts, the first of equals. Nothing if none is possible.
    pub(super) fn best(&self, layouts: impl IntoIterator<Item = Layout>) -> Option<Layout> {
        let taken = layouts.into_iter().filter(|layout| self.has_room(layout));
        let scored = taken.map(|layout| (self.score(&layout), layout));
        let possible = scored.filter(|(score, _)| score.is_finite());
        possible.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, layout)| layout)
    }

    /// The workers that take pieces and can compute every layer, the fastest first.
    pub(super) fn able(&self) -> Vec<usize> {
        let seconds = |at: &usize| self.workers[*at].whole(self.profile);
        let mut team: Vec<usize> = (0..self.workers.len()).collect();
        team.retain(|at| seconds(at).is_finite() && self.workers[*at].room > 0);
        team.sort_by(|a, b| {
            let ids = || self.workers[*a].node.cmp(&self.workers[*b].node);
            seconds(a).total_cmp(&seconds(b)).then_with(ids)
        });
        team
    }

    /// The fastest of them, as many as a plan may have.
    pub(super) fn team(&self) -> Vec<usize> {
        let mut team = self.able();
        team.truncate(self.settings.pieces_max.clamp(1, PIECES_MAX));
        team
    }

    /// The whole model at one worker.
    pub(super) fn single(&self, worker: usize) -> Layout {
        let layers = LayerRange { first: 0, end: self.profile.layers() };
        Layout { segments: vec![vec![(Piece::whole(layers), worker)]] }
    }

    /// The requester's own machine, if it is among the workers.
    pub(super) fn own(&self) -> Option<usize> {
        self.workers.iter().position(|worker| worker.node == self.requester)
    }

    /// Where strips may begin or end: the model's ends, and where one tensor alone passes, so that
    /// a residual block is never cut in two. All cuts if nothing is known of rows.
    pub(super) fn cuts(&self) -> Vec<u16> {
        let last = self.profile.layers();
        let passes_one = |cut: u16| self.profile.rows().is_none_or(|map| map.all(cut).len() == 1);
        let inner: Vec<u16> = (1..last).filter(|cut| passes_one(*cut)).collect();
        // Beyond what anybody gains from, every so many of them: the work grows with the square.
        let step = inner.len().div_ceil(CUTS_MAX).max(1);
        [0].into_iter().chain(inner.into_iter().step_by(step)).chain([last]).collect()
    }

    /// The smallest parts that are worth a segment: what is between two [cuts](Self::cuts). Layers
    /// without weights, such as poolings, go with those before them, and views with those after.
    pub(super) fn units(&self) -> Vec<LayerRange> {
        let mut units: Vec<LayerRange> = Vec::new();
        for pair in self.cuts().windows(2) {
            let layers = LayerRange { first: pair[0], end: pair[1] };
            let weightless = self.profile.range(layers).weight_bytes == 0;
            let is_view = |layers| self.profile.rows().is_some_and(|map| map.is_view(layers));
            let with = |unit: LayerRange| LayerRange { first: unit.first, end: layers.end };
            let goes_along = |unit: LayerRange| {
                let splits = self.splittable(layers);
                let alike = [unit, with(unit)].map(|range| self.splittable(range)) == [splits; 2];
                is_view(unit) || (weightless && !is_view(layers) && alike)
            };
            match units.last_mut().filter(|unit| goes_along(**unit)) {
                Some(unit) => *unit = with(*unit),
                None => units.push(layers),
            }
        }
        units
    }

    /// Seconds that these layers take everywhere, however few of their rows are computed.
    pub(super) fn constant(&self, layers: LayerRange) -> f64 {
        if self.settings.layer == 0.0 {
            return 0.0;
        }
        let ones = (layers.first..layers.end).map(|first| LayerRange { first, end: first + 1 });
        let convolves = |layer: &LayerRange| {
            let Work([dense, pointwise, depthwise, ..]) = self.profile.range(*layer).work;
            dense.max(pointwise).max(depthwise) > 0
        };
        ones.filter(convolves).count() as f64 * self.settings.layer
    }

    /// Whether these layers can be computed in strips.
    pub(super) fn splittable(&self, layers: LayerRange) -> bool {
        self.profile.rows().is_some_and(|map| map.splittable(layers))
    }

    /// Whether strips of these layers divide weights among them.
    pub(super) fn divides_weights(&self, layers: LayerRange) -> bool {
        self.profile.rows().is_some_and(|map| map.divided_weights(layers) > 0)
    }

    /// Bytes of the weights of all layers from one on.
    pub(super) fn weights_from(&self, first: u16) -> u64 {
        self.profile.range(LayerRange { first, end: self.profile.layers() }).weight_bytes
    }

    /// The same workers with the weights that strips of these layers have: those given for images,
    /// and how fast each does it for a matrix product, which has a speed of its own.
    pub(super) fn weighted(&self, layers: LayerRange, team: &[(usize, f64)]) -> Vec<(usize, f64)> {
        if !self.divides_weights(layers) {
            return team.to_vec();
        }
        let whole = self.profile.range(layers);
        team.iter().map(|(at, _)| (*at, 1.0 / self.workers[*at].computing(&whole))).collect()
    }

    /// How much of all layers that can be computed in strips of images a worker does per second.
    pub(super) fn capability(&self, worker: usize) -> f64 {
        let layers = (0..self.profile.layers()).map(|first| LayerRange { first, end: first + 1 });
        let mut work = Work::default();
        let image = |layer: &LayerRange| self.splittable(*layer) && !self.divides_weights(*layer);
        for layer in layers.filter(image) {
            let one = self.profile.range(layer).work;
            work = Work(std::array::from_fn(|class| work.0[class].saturating_add(one.0[class])));
        }
        let seconds = self.workers[worker].provider.speed.seconds(&work);
        1.0 / (seconds * f64::from(self.workers[worker].sharers.max(1)))
    }

    /// Layers in strips, one for each of some workers with their weights. Strips without a row
    /// are left out. Nothing if the layers don't split, or only one strip would be left.
    pub(super) fn strips(&self, layers: LayerRange, team: &[(usize, f64)]) -> Option<Segment> {
        self.strips_within(layers, team, &Room::of_memory(&self.workers).memory())
    }

    /// The same where each worker has so much memory left: what of a strip does not fit goes to
    /// others. Nothing if it fits nowhere.
    pub(super) fn strips_within(
        &self,
        layers: LayerRange,
        team: &[(usize, f64)],
        memory: &[u64],
    ) -> Option<Segment> {
        let map = self.profile.rows().filter(|map| map.splittable(layers))?;
        let height = map.all(layers.end).iter().map(|rows| rows.len()).max()?;
        let most = |(at, _): &(usize, f64)| {
            let memory = memory.get(*at).copied().unwrap_or(0);
            self.rows_within(map, layers, height, memory)
        };
        let most: Vec<u32> = team.iter().map(most).collect();
        let weights: Vec<f64> = team.iter().map(|(_, weight)| *weight).collect();
        let rows = if most.iter().all(|most| *most == height) {
            map.divide(layers.end, &weights)
        } else {
            let tallest = divide_within(height, &weights, &most)?;
            divided_alike(map, layers.end, &tallest)
        };
        let rows = rows.into_iter().zip(team);
        let useful = rows.filter(|(rows, _)| rows.iter().any(|rows| !rows.is_empty()));
        let strips: Segment =
            useful.map(|(rows, (worker, _))| (Piece { layers, rows }, *worker)).collect();
        (strips.len() > 1).then_some(strips)
    }

    /// How many rows of `height` a strip of these layers can have whose weights fit into some
    /// memory.
    fn rows_within(&self, map: &RowMap, layers: LayerRange, height: u32, memory: u64) -> u32 {
        let divided = map.divided_weights(layers);
        let all = self.profile.range(layers).weight_bytes;
        let Some(left) = memory.checked_sub(all.saturating_sub(divided)) else { return 0 };
        if divided <= left {
            return height;
        }
        // Below the height, since less than all that is divided is left.
        (u128::from(left) * u128::from(height) / u128::from(divided)) as u32
    }
}

/// Divides the tensors alive across a cut as the tallest of them has been: none of any for whom
/// that has none.
fn divided_alike(map: &RowMap, cut: u16, tallest: &[RowRange]) -> Vec<Vec<RowRange>> {
    let some: Vec<f64> =
        tallest.iter().filter(|rows| !rows.is_empty()).map(|rows| f64::from(rows.len())).collect();
    let mut divided = map.divide(cut, &some).into_iter();
    let of = |rows: &RowRange| match rows.is_empty() {
        true => Vec::new(),
        false => divided.next().unwrap_or_default(),
    };
    tallest.iter().map(of).collect()
}

/// The pieces of one segment, and who computes them.
pub(super) type Segment = Vec<(Piece, usize)>;

/// Cuts that are looked at.
const CUTS_MAX: usize = 96;
