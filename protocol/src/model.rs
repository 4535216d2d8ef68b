//! What a model costs: the profile that the engine measures and the protocol plans with.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::{
    id::ModelId,
    plan::{LayerRange, Piece},
    rows::{RowMap, RowRange},
};

/// Kinds of operators that a machine runs at clearly different speeds.
pub const OP_CLASSES: usize = 5;

/// The op class that counts weights as they are read from memory.
pub const READING: usize = 3;

/// Work per op class: dense convolution, pointwise convolution, depthwise convolution, matrix
/// product, and everything bound by memory. The unit is a floating-point operation, or whatever
/// else makes one speed per class predict times well; whoever counts work and whoever measures
/// speeds must mean the same, and nothing here depends on what that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Work(pub [u64; OP_CLASSES]);

impl Work {
    /// Units of all classes together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, flops| sum.saturating_add(*flops))
    }

    fn plus(&self, other: &Work) -> Work {
        Work(std::array::from_fn(|class| self.0[class].saturating_add(other.0[class])))
    }

    /// What `part` of `whole` takes of it, rounded up.
    fn share(&self, part: u64, whole: u64) -> Work {
        let whole = u128::from(whole.max(1));
        let share = |all: u64| (u128::from(all) * u128::from(part)).div_ceil(whole);
        Work(self.0.map(|all| u64::try_from(share(all)).unwrap_or(u64::MAX)))
    }

    fn minus(&self, other: &Work) -> Work {
        Work(std::array::from_fn(|class| self.0[class].saturating_sub(other.0[class])))
    }
}

/// What a machine does per second, per op class, in units of [`Work`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Speed(pub [u64; OP_CLASSES]);

impl Speed {
    /// Seconds for `work`; infinite if there is work of a class with no speed.
    #[must_use]
    pub fn seconds(&self, work: &Work) -> f64 {
        let per_class = work.0.iter().zip(self.0).filter(|(flops, _)| **flops > 0);
        per_class.map(|(flops, speed)| *flops as f64 / speed as f64).sum()
    }

    /// What this speed should have been, given that `work` took `seconds`. A run tells only the
    /// total, so each op class takes the blame in proportion to its predicted part of the time,
    /// and `weight` of it: 1 would believe a single run. No class changes by more than a thousand.
    #[must_use]
    pub fn corrected(&self, work: &Work, seconds: f64, weight: f64) -> Speed {
        let predicted = self.seconds(work);
        let usable = |seconds: f64| seconds.is_finite() && seconds > 0.0;
        if !usable(seconds) || !usable(predicted) {
            return *self;
        }
        let ratio = (predicted / seconds).clamp(1e-3, 1e3);
        Speed(std::array::from_fn(|class| {
            let speed = self.0[class] as f64;
            let part =
                if work.0[class] == 0 { 0.0 } else { work.0[class] as f64 / speed / predicted };
            ((speed * ratio.powf(weight * part)) as u64).max(1)
        }))
    }

    /// The largest factor by which a class differs between two speeds, at least 1.
    #[must_use]
    pub fn drift(&self, other: &Speed) -> f64 {
        let pairs = self.0.iter().zip(other.0).map(|(a, b)| (*a as f64, b as f64));
        pairs
            .filter(|(a, b)| *a > 0.0 && *b > 0.0)
            .map(|(a, b)| (a / b).max(b / a))
            .fold(1.0, f64::max)
    }
}

/// One layer's cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerProfile {
    /// Operations.
    pub work: Work,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

/// A model's cost by layer and the bytes alive across each cut. Kept as prefix sums, so that the
/// cost of any layer range takes constant time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelProfile {
    model: ModelId,
    work_before: Vec<Work>,
    weights_before: Vec<u64>,
    cut_bytes: Vec<u64>,
    rows: Option<Arc<RowMap>>,
}

impl ModelProfile {
    /// `cut_bytes[c]` is the size of the frontier before layer `c`; the last is the output's.
    /// Nothing if there is no layer, over 65,535 of them, or not one cut more than layers.
    #[must_use]
    pub fn new(model: ModelId, layers: &[LayerProfile], cut_bytes: Vec<u64>) -> Option<Self> {
        let sized = u16::try_from(layers.len()).is_ok() && !layers.is_empty();
        if !sized || cut_bytes.len() != layers.len() + 1 {
            return None;
        }
        let mut work_before = vec![Work::default()];
        let mut weights_before = vec![0_u64];
        for (at, layer) in layers.iter().enumerate() {
            work_before.push(work_before[at].plus(&layer.work));
            weights_before.push(weights_before[at].saturating_add(layer.weight_bytes));
        }
        Some(Self { model, work_before, weights_before, cut_bytes, rows: None })
    }

    /// The same, with what strips of it take. Without, every piece counts as one of all rows.
    #[must_use]
    pub fn with_rows(self, rows: RowMap) -> Self {
        Self { rows: Some(Arc::new(rows)), ..self }
    }

    /// How rows flow through the model, if that is known.
    #[must_use]
    pub fn rows(&self) -> Option<&RowMap> {
        self.rows.as_deref()
    }

    /// Whose profile this is.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// Number of layers, at least 1.
    #[must_use]
    pub fn layers(&self) -> u16 {
        u16::try_from(self.cut_bytes.len() - 1).expect("checked when it was made")
    }

    /// The cost of a piece, whose layers must lie within the model.
    #[must_use]
    pub fn piece(&self, piece: &Piece) -> PieceProfile {
        let whole = self.range(piece.layers);
        match &self.rows {
            Some(map) if piece.is_strip() => self.strip(map, piece, whole),
            Some(_) | None => whole,
        }
    }

    /// The rows of each tensor before a piece's layers that it takes; nothing for all of them.
    #[must_use]
    pub fn needed(&self, piece: &Piece) -> Vec<RowRange> {
        match &self.rows {
            Some(map) if piece.is_strip() => map.needed(piece.layers, &piece.rows),
            Some(_) | None => Vec::new(),
        }
    }

    /// Bytes of these rows of the tensors alive across a cut; no rows stand for all of them.
    #[must_use]
    pub fn bytes_across(&self, cut: u16, rows: &[RowRange]) -> u64 {
        match &self.rows {
            Some(map) if !rows.is_empty() => map.bytes(cut, rows),
            Some(_) | None => self.cut_bytes.get(usize::from(cut)).copied().unwrap_or(0),
        }
    }

    fn strip(&self, map: &RowMap, piece: &Piece, whole: PieceProfile) -> PieceProfile {
        let made = map.made(piece.layers, &piece.rows);
        let layers = piece.layers.first..piece.layers.end;
        let mut spared = 0_u64;
        let work = layers.zip(made).fold(Work::default(), |sum, (layer, made)| {
            spared = spared.saturating_add(map.spared(layer, made));
            sum.plus(&self.layer_work(map, layer, made))
        });
        let needed = map.needed(piece.layers, &piece.rows);
        let bytes_in = map.bytes(piece.layers.first, &needed);
        let weight_bytes = whole.weight_bytes.saturating_sub(spared);
        let bytes_out = map.bytes(piece.layers.end, &piece.rows);
        PieceProfile { work, weight_bytes, bytes_in, bytes_out }
    }

    /// What a layer costs a strip that makes so many rows of so many: a part of the arithmetic, but
    /// all weights that the strip holds are read, for few rows as for many.
    fn layer_work(&self, map: &RowMap, layer: u16, (rows, height): (u32, u32)) -> Work {
        let PieceProfile { work: all, weight_bytes, .. } =
            self.range(LayerRange { first: layer, end: layer + 1 });
        let mut work = all.share(u64::from(rows), u64::from(height));
        if rows > 0 && weight_bytes > 0 {
            let held = weight_bytes.saturating_sub(map.spared(layer, (rows, height)));
            work.0[READING] = all.share(held, weight_bytes).0[READING];
        }
        work
    }

    /// The pieces that make these rows of the tensors alive before layer `end`, all rows if there
    /// are none: for each first layer from `end - 1` down to 0, the piece's cost and the rows that
    /// it takes. Much faster than one piece after the other.
    #[must_use]
    pub fn pieces_ending(&self, end: u16, rows: &[RowRange]) -> Vec<(PieceProfile, Vec<RowRange>)> {
        let whole = |first: u16| self.range(LayerRange { first, end });
        let Some(map) = self.rows.as_ref().filter(|_| !rows.is_empty()) else {
            return (0..end).rev().map(|first| (whole(first), Vec::new())).collect();
        };
        let (mut work, mut spared) = (Work::default(), 0_u64);
        let bytes_out = map.bytes(end, rows);
        let step = |(first, (made, needed)): (u16, ((u32, u32), Vec<RowRange>))| {
            work = work.plus(&self.layer_work(map, first, made));
            spared = spared.saturating_add(map.spared(first, made));
            let weight_bytes = whole(first).weight_bytes.saturating_sub(spared);
            let bytes_in = map.bytes(first, &needed);
            (PieceProfile { work, weight_bytes, bytes_in, bytes_out }, needed)
        };
        (0..end).rev().zip(map.backwards(end, rows)).map(step).collect()
    }

    /// The cost of a range of layers for all rows, which must lie within the model.
    #[must_use]
    pub fn range(&self, layers: LayerRange) -> PieceProfile {
        let (first, end) = (usize::from(layers.first), usize::from(layers.end));
        PieceProfile {
            work: self.work_before[end].minus(&self.work_before[first]),
            weight_bytes: self.weights_before[end] - self.weights_before[first],
            bytes_in: self.cut_bytes[first],
            bytes_out: self.cut_bytes[end],
        }
    }
}

/// What one piece costs, wherever it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PieceProfile {
    /// Operations per inference.
    pub work: Work,
    /// Bytes of weights that its provider must hold.
    pub weight_bytes: u64,
    /// Bytes that come in per inference.
    pub bytes_in: u64,
    /// Bytes that go out per inference.
    pub bytes_out: u64,
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::rows::{LayerRows, RowRule, RowWindow, Splits, TensorRows};

    /// A convolution of so many rows by a window of three, whose weights all rows need.
    fn convolution(height: u32) -> ModelProfile {
        let window = RowWindow { kernel: 3, stride: 1, dilation: 1, before: 1 };
        let layer = LayerRows {
            inputs: vec![(0, RowRule::Window(window))],
            outputs: vec![1],
            splits: Splits::ByRows,
        };
        let tensors = vec![TensorRows { height, row_bytes: 4 }; 2];
        let map = RowMap::new(tensors, vec![layer], vec![vec![0], vec![1]]);
        let work = Work([10 * u64::from(height), 0, 0, 1000, 0]);
        let costs = [LayerProfile { work, weight_bytes: 500 }];
        let bytes = vec![4 * u64::from(height); 2];
        let profile = ModelProfile::new(ModelId([1; 32]), &costs, bytes);
        profile.expect("a right profile").with_rows(map.expect("a right map"))
    }

    /// A product of so many features, each with weights of its own, and what follows it value by
    /// value; beside the products' own there are 3 bytes that all features need.
    fn product(features: u32, own: u64) -> ModelProfile {
        let layer = |at: u32, rule| LayerRows {
            inputs: vec![(at, rule)],
            outputs: vec![at + 1],
            splits: Splits::ByRows,
        };
        let heights = [5, features, features];
        let tensors = heights.map(|height| TensorRows { height, row_bytes: 4 }).to_vec();
        let layers = vec![layer(0, RowRule::All), layer(1, RowRule::Same)];
        let map = RowMap::new(tensors, layers, vec![vec![0], vec![1], vec![2]]);
        let features = u64::from(features);
        let costs = [own * features, 2 * features + 3].map(|weight_bytes| LayerProfile {
            work: Work([0, 0, 0, 10 * features, 0]),
            weight_bytes,
        });
        let profile =
            ModelProfile::new(ModelId([1; 32]), &costs, vec![20, 4 * features, 4 * features]);
        let map = map.expect("a right map").with_row_weights(&[own, 2]);
        profile.expect("a right profile").with_rows(map)
    }

    quickcheck! {
        fn strips_of_a_product_hold_its_weights_once(features: u8, own: u8, weights: Vec<f64>) -> bool {
            let profile = product(u32::from(features) + 1, u64::from(own));
            let layers = LayerRange { first: 0, end: 2 };
            let map = profile.rows().expect("known");
            let strips: Vec<Vec<RowRange>> = map.divide(2, &weights).into_iter().filter(|rows| !rows[0].is_empty()).collect();
            let costs: Vec<PieceProfile> =
                strips.iter().map(|rows| profile.piece(&Piece { layers, rows: rows.clone() })).collect();
            let together = |rows: &Vec<RowRange>| profile.pieces_ending(2, rows)[1].0;
            let shared = 3 * costs.len() as u64;
            let sum: u64 = costs.iter().map(|cost| cost.weight_bytes).sum();
            strips.is_empty()
                || (sum - shared == profile.range(layers).weight_bytes - 3
                    && costs.iter().all(|cost| cost.bytes_in == 20)
                    && costs == strips.iter().map(together).collect::<Vec<_>>())
        }

        fn strips_read_all_weights_that_they_hold(height: u8, weights: Vec<f64>) -> bool {
            let profile = convolution(u32::from(height) + 1);
            let layers = LayerRange { first: 0, end: 1 };
            let whole = profile.range(layers).work.0;
            let strips = profile.rows().expect("known").divide(1, &weights);
            let strips = strips.into_iter().filter(|rows| !rows[0].is_empty());
            let costs: Vec<Work> =
                strips.map(|rows| profile.piece(&Piece { layers, rows }).work).collect();
            costs.is_empty()
                || (costs.iter().all(|work| work.0[READING] == whole[READING])
                    && costs.iter().map(|work| work.0[0]).sum::<u64>() == whole[0])
        }
    }

    #[test]
    fn a_wrong_speed_is_corrected_by_what_runs_take() {
        let truth = Speed([100, 400, 50, 200, 10]);
        let mut believed = Speed([1000, 100, 50, 200, 10]);
        let pieces =
            [Work([1000, 100, 0, 0, 0]), Work([10, 4000, 10, 0, 1]), Work([0, 10, 500, 9, 9])];
        for work in pieces.iter().cycle().take(300) {
            believed = believed.corrected(work, truth.seconds(work), 0.2);
        }
        for work in &pieces {
            let (guess, real) = (believed.seconds(work), truth.seconds(work));
            assert!((guess / real - 1.0).abs() < 0.05, "{guess} against {real}");
        }
    }

    #[test]
    fn junk_measurements_change_nothing() {
        let speed = Speed([100; OP_CLASSES]);
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(speed.corrected(&Work([1; OP_CLASSES]), seconds, 1.0), speed);
        }
        assert_eq!(speed.corrected(&Work::default(), 1.0, 1.0), speed);
    }
}
