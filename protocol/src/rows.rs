//! Strips: which rows of what a layer range takes are needed to make some rows of what it gives,
//! and what that costs.
//!
//! Layers side by side on several machines are fused-layer parallelism: each machine makes a strip
//! of the rows from the rows under it and a halo around these that its windows reach into
//! (DeepThings, Zhao et al. 2018; EdgeCI, Chen et al. 2024). A window of kernel `k`, stride `s`,
//! dilation `d` and `p` rows of padding before an image of `H` rows makes rows `a..b` from
//!
//! ```text
//! max(0, a s - p) .. min(H, (b - 1) s - p + (k - 1) d + 1)
//! ```
//!
//! and applied backwards, layer by layer, this gives what a strip needs of each tensor before its
//! layers. With a dilation a window may step over the border, and the true range can be smaller
//! than this one; a strip that is given more rows than it needs drops them.
//!
//! The rows of the features that a fully connected layer makes are these features. It makes any of
//! them from all of its input, and from their share of its weights: such strips divide memory too,
//! which those of images don't.

mod divide;

use std::fmt;

use bincode::{Decode, Encode};

pub use divide::{divide, divide_within};

use crate::plan::LayerRange;

/// Rows `first..end` of a tensor's height, which is dimension 2 of NCHW, or of the features of
/// `[1, features]`. Any other tensor counts as one row, so that `0..1` is all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RowRange {
    /// The first row.
    pub first: u32,
    /// One past the last row.
    pub end: u32,
}

impl RowRange {
    /// No rows.
    pub const EMPTY: Self = Self { first: 0, end: 0 };

    /// Rows `first..end`.
    #[must_use]
    pub fn new(first: u32, end: u32) -> Self {
        Self { first, end }
    }

    /// How many rows these are.
    #[must_use]
    pub fn len(self) -> u32 {
        self.end.saturating_sub(self.first)
    }

    /// Whether these are no rows at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The rows that are in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let both = Self::new(self.first.max(other.first), self.end.min(other.end));
        if both.is_empty() { Self::EMPTY } else { both }
    }

    /// The smallest range that has the rows of both; rows between the two come with it.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, true) => Self::EMPTY,
            (true, false) => other,
            (false, true) => self,
            (false, false) => Self::new(self.first.min(other.first), self.end.max(other.end)),
        }
    }
}

impl fmt::Display for RowRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

/// How a window slides over rows: row `i` of the output takes the rows
/// `i * stride - before + k * dilation` for `k` in `0..kernel`, where the input has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowWindow {
    /// Rows under the window.
    pub kernel: u32,
    /// The step from one window to the next.
    pub stride: u32,
    /// The distance between neighbouring rows of the window.
    pub dilation: u32,
    /// Padding before the first row.
    pub before: u32,
}

/// Which rows of one input rows of a layer's output are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowRule {
    /// All of them, whichever rows are made.
    All,
    /// Row `i` takes row `i`.
    Same,
    /// Row `i` takes the rows under a window.
    Window(RowWindow),
}

impl RowRule {
    fn needed(&self, made: RowRange, height: u32) -> RowRange {
        match self {
            _ if made.is_empty() => RowRange::EMPTY,
            RowRule::All => RowRange::new(0, height),
            RowRule::Same => made.intersection(RowRange::new(0, height)),
            RowRule::Window(window) => window.needed(made, height),
        }
    }
}

impl RowWindow {
    fn needed(&self, made: RowRange, height: u32) -> RowRange {
        let start = |row: u32| u64::from(row) * u64::from(self.stride);
        let reach = u64::from(self.kernel.saturating_sub(1)) * u64::from(self.dilation);
        let (before, height) = (u64::from(self.before), u64::from(height));
        let first = start(made.first).saturating_sub(before).min(height);
        let end = (start(made.end - 1) + reach + 1).saturating_sub(before).min(height);
        // Both are at most the height.
        RowRange::new(first as u32, end as u32)
    }
}

/// One tensor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorRows {
    /// How many rows it has, at least one.
    pub height: u32,
    /// Bytes of each of them.
    pub row_bytes: u64,
}

/// How one layer's rows follow from those of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRows {
    /// Which tensors it reads, by number, and which rows of them.
    pub inputs: Vec<(u32, RowRule)>,
    /// Which tensors it makes, by number.
    pub outputs: Vec<u32>,
    /// Whether it can make some rows without the others.
    pub splits: Splits,
}

/// Whether a layer can make some rows of its output without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splits {
    /// It can.
    ByRows,
    /// As [`View`](Self::View), but it is work.
    No,
    /// Any row takes all rows of all inputs, and all rows are made at once. It costs nothing, since
    /// it is the same bytes under another shape: each strip may do it.
    View,
}

/// How rows flow through a model: all that a planner of strips asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMap {
    tensors: Vec<TensorRows>,
    layers: Vec<LayerRows>,
    // By cut: the tensors alive across it, in the order in which they are sent.
    frontiers: Vec<Vec<u32>>,
    // By layer: bytes of its weights that each row has for itself.
    row_weights: Vec<u64>,
    // By tensor: which layer makes it, if one does.
    makers: Vec<Option<u16>>,
}

impl RowMap {
    /// `frontiers[c]` lists the tensors alive before layer `c`; the last, the outputs. Nothing if
    /// a tensor has no row, a number stands for no tensor, or there is not one frontier more than
    /// layers.
    #[must_use]
    pub fn new(
        tensors: Vec<TensorRows>,
        layers: Vec<LayerRows>,
        frontiers: Vec<Vec<u32>>,
    ) -> Option<Self> {
        let known = |tensor: &u32| (*tensor as usize) < tensors.len();
        let ends = layers
            .iter()
            .flat_map(|layer| layer.inputs.iter().map(|(tensor, _)| tensor).chain(&layer.outputs));
        let right = tensors.iter().all(|tensor| tensor.height > 0)
            && ends.chain(frontiers.iter().flatten()).all(known)
            && frontiers.len() == layers.len() + 1;
        right.then(|| {
            let row_weights = vec![0; layers.len()];
            let makers = makers(tensors.len(), &layers);
            Self { tensors, layers, frontiers, row_weights, makers }
        })
    }

    /// The same, with the bytes of weights that each row of a layer has for itself: for each layer,
    /// what a strip without a row does not hold. Layers beyond the list have none.
    #[must_use]
    pub fn with_row_weights(mut self, bytes: &[u64]) -> Self {
        for (own, bytes) in self.row_weights.iter_mut().zip(bytes) {
            *own = *bytes;
        }
        self
    }

    /// All rows of each tensor alive across a cut; nothing beyond the last.
    #[must_use]
    pub fn all(&self, cut: u16) -> Vec<RowRange> {
        self.frontier(cut).map(|tensor| RowRange::new(0, tensor.height)).collect()
    }

    /// Whether a strip of these layers takes less than all of them: every layer can make some rows
    /// without the others, and none takes all rows of what another of them makes in strips, as a
    /// fully connected layer does of the one before. [Views](Splits::View) may come first.
    #[must_use]
    pub fn splittable(&self, layers: LayerRange) -> bool {
        let divided = |tensor: u32| {
            let maker = self.makers[tensor as usize].filter(|maker| *maker >= layers.first);
            let maker = maker.and_then(|maker| self.layers.get(usize::from(maker)));
            maker.is_some_and(|maker| maker.splits == Splits::ByRows)
                && self.tensor(tensor).height > 1
        };
        let splits = |layer: &LayerRows| match layer.splits {
            Splits::ByRows => {
                let mut inputs = layer.inputs.iter();
                !inputs.any(|(tensor, rule)| *rule == RowRule::All && divided(*tensor))
            }
            Splits::No => false,
            Splits::View => !layer.inputs.iter().any(|(tensor, _)| divided(*tensor)),
        };
        let range = self.range(layers);
        range.iter().all(splits) && range.last().is_none_or(|last| last.splits == Splits::ByRows)
    }

    /// Whether a layer of the range costs nothing and can't be divided.
    pub(crate) fn is_view(&self, layers: LayerRange) -> bool {
        self.range(layers).iter().all(|layer| layer.splits == Splits::View)
    }

    /// Bytes of the weights of these layers that strips divide among them; each strip holds all of
    /// the others.
    pub(crate) fn divided_weights(&self, layers: LayerRange) -> u64 {
        let layers = layers.first..layers.end.min(self.layers.len() as u16);
        layers
            .fold(0, |sum, layer| sum.saturating_add(self.spared(layer, (0, self.made_of(layer)))))
    }

    /// Bytes of a layer's weights that a strip does not hold that makes so many rows of so many.
    pub(crate) fn spared(&self, layer: u16, (rows, height): (u32, u32)) -> u64 {
        let each = self.row_weights.get(usize::from(layer)).copied().unwrap_or(0);
        each.saturating_mul(u64::from(height.saturating_sub(rows)))
    }

    /// Divides the tensors alive across a cut into strips, in proportion to weights: for each
    /// strip, its rows of each tensor. Every row is in exactly one strip, and each strip has a row
    /// of each tensor that has as many rows as there are strips. Weights that are not positive and
    /// finite count as nothing; if all do, the strips are equal.
    #[must_use]
    pub fn divide(&self, cut: u16, weights: &[f64]) -> Vec<Vec<RowRange>> {
        let mut strips = vec![Vec::new(); weights.len()];
        for tensor in self.frontier(cut) {
            for (strip, rows) in strips.iter_mut().zip(divide(tensor.height, weights)) {
                strip.push(rows);
            }
        }
        strips
    }

    /// The rows of each tensor alive before some layers that are needed to make these rows of each
    /// tensor alive after them; none of a tensor that is not needed at all.
    #[must_use]
    pub fn needed(&self, layers: LayerRange, rows: &[RowRange]) -> Vec<RowRange> {
        let held = self.held(layers, rows);
        self.numbers(layers.first).iter().map(|tensor| held[*tensor as usize]).collect()
    }

    /// What part of each layer a strip computes, halo included: rows made and rows in all.
    pub(crate) fn made(&self, layers: LayerRange, rows: &[RowRange]) -> Vec<(u32, u32)> {
        let held = self.held(layers, rows);
        self.range(layers).iter().map(|layer| self.part(layer, &held)).collect()
    }

    /// Backwards from a cut: for each layer before it, which part of the layer is computed for
    /// these rows of the tensors alive across the cut, and what is needed of those before the layer.
    pub(crate) fn backwards(
        &self,
        end: u16,
        rows: &[RowRange],
    ) -> Vec<((u32, u32), Vec<RowRange>)> {
        let mut held = vec![RowRange::EMPTY; self.tensors.len()];
        self.hold(end, rows, &mut held);
        let step = |at: u16| {
            let layer = &self.layers[usize::from(at)];
            self.widen(layer, &mut held);
            let needed = self.numbers(at).iter().map(|tensor| held[*tensor as usize]).collect();
            (self.part(layer, &held), needed)
        };
        (0..end.min(self.layers.len() as u16)).rev().map(step).collect()
    }

    /// Bytes of these rows of the tensors alive across a cut.
    #[must_use]
    pub fn bytes(&self, cut: u16, rows: &[RowRange]) -> u64 {
        let parts = self.frontier(cut).zip(rows);
        parts.fold(0, |sum, (tensor, rows)| {
            sum.saturating_add(tensor.row_bytes.saturating_mul(u64::from(rows.len())))
        })
    }

    fn held(&self, layers: LayerRange, rows: &[RowRange]) -> Vec<RowRange> {
        let mut held = vec![RowRange::EMPTY; self.tensors.len()];
        self.hold(layers.end, rows, &mut held);
        for layer in self.range(layers).iter().rev() {
            self.widen(layer, &mut held);
        }
        held
    }

    fn hold(&self, cut: u16, rows: &[RowRange], held: &mut [RowRange]) {
        for (tensor, rows) in self.numbers(cut).iter().zip(rows) {
            held[*tensor as usize] = rows.intersection(self.whole(*tensor));
        }
    }

    fn part(&self, layer: &LayerRows, held: &[RowRange]) -> (u32, u32) {
        let height = self.height(layer);
        (made(layer, held).len().min(height), height)
    }

    fn made_of(&self, layer: u16) -> u32 {
        self.layers.get(usize::from(layer)).map_or(0, |layer| self.height(layer))
    }

    /// How many rows a layer makes in all.
    fn height(&self, layer: &LayerRows) -> u32 {
        layer.outputs.first().map_or(1, |tensor| self.tensor(*tensor).height)
    }

    /// Takes what a layer needs of its inputs into account, given what is needed of its outputs.
    fn widen(&self, layer: &LayerRows, held: &mut [RowRange]) {
        let made = made(layer, held);
        if made.is_empty() {
            return;
        }
        for output in &layer.outputs {
            held[*output as usize] = match layer.splits {
                Splits::ByRows => made,
                Splits::No | Splits::View => self.whole(*output),
            };
        }
        for (input, rule) in &layer.inputs {
            let needed = match layer.splits {
                Splits::ByRows => rule.needed(made, self.tensor(*input).height),
                Splits::No | Splits::View => self.whole(*input),
            };
            held[*input as usize] = held[*input as usize].hull(needed);
        }
    }

    fn whole(&self, tensor: u32) -> RowRange {
        RowRange::new(0, self.tensor(tensor).height)
    }

    fn tensor(&self, tensor: u32) -> &TensorRows {
        &self.tensors[tensor as usize]
    }

    fn range(&self, layers: LayerRange) -> &[LayerRows] {
        self.layers.get(usize::from(layers.first)..usize::from(layers.end)).unwrap_or_default()
    }

    fn numbers(&self, cut: u16) -> &[u32] {
        self.frontiers.get(usize::from(cut)).map_or(&[], Vec::as_slice)
    }

    fn frontier(&self, cut: u16) -> impl Iterator<Item = &TensorRows> {
        self.numbers(cut).iter().map(|tensor| self.tensor(*tensor))
    }
}

/// The rows that a layer makes: with several outputs, the same of each.
fn made(layer: &LayerRows, held: &[RowRange]) -> RowRange {
    let outputs = layer.outputs.iter().map(|tensor| held[*tensor as usize]);
    outputs.fold(RowRange::EMPTY, RowRange::hull)
}

fn makers(tensors: usize, layers: &[LayerRows]) -> Vec<Option<u16>> {
    let mut makers = vec![None; tensors];
    for (at, layer) in (0..).zip(layers) {
        layer.outputs.iter().for_each(|output| makers[*output as usize] = Some(at));
    }
    makers
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn window(kernel: u32, stride: u32, before: u32) -> RowRule {
        RowRule::Window(RowWindow { kernel, stride, dilation: 1, before })
    }

    /// A chain of layers over images of the given heights.
    fn chain(heights: &[u32], rules: &[RowRule]) -> RowMap {
        let tensors =
            heights.iter().map(|height| TensorRows { height: *height, row_bytes: 10 }).collect();
        let layer = |(at, rule): (u32, &RowRule)| LayerRows {
            inputs: vec![(at, *rule)],
            outputs: vec![at + 1],
            splits: Splits::ByRows,
        };
        let layers = (0..).zip(rules).map(layer).collect();
        let frontiers = (0..).zip(heights).map(|(at, _)| vec![at]).collect();
        RowMap::new(tensors, layers, frontiers).expect("a right map")
    }

    #[track_caller]
    fn check_needed(rules: &[RowRule], heights: &[u32], rows: (u32, u32), needed: (u32, u32)) {
        let map = chain(heights, rules);
        let layers = LayerRange { first: 0, end: rules.len() as u16 };
        let got = map.needed(layers, &[RowRange::new(rows.0, rows.1)]);
        assert_eq!(got, [RowRange::new(needed.0, needed.1)]);
    }

    #[test]
    fn halos_grow_backwards_and_end_at_the_border() {
        let conv = window(3, 1, 1);
        check_needed(&[conv], &[8, 8], (0, 4), (0, 5));
        check_needed(&[conv], &[8, 8], (3, 5), (2, 6));
        check_needed(&[conv, conv], &[8, 8, 8], (4, 8), (2, 8));
        check_needed(&[conv, window(2, 2, 0)], &[8, 8, 4], (2, 4), (3, 8));
        check_needed(&[RowRule::Same, conv], &[8, 8, 8], (7, 8), (6, 8));
        check_needed(&[RowRule::All], &[5, 8], (7, 8), (0, 5));
        check_needed(&[conv], &[8, 8], (3, 3), (0, 0));
    }

    #[test]
    fn a_residual_block_needs_the_rows_of_its_widest_path() {
        let tensor = TensorRows { height: 10, row_bytes: 4 };
        let conv = window(3, 1, 1);
        let layer = |inputs: Vec<(u32, RowRule)>, output| LayerRows {
            inputs,
            outputs: vec![output],
            splits: Splits::ByRows,
        };
        let layers = vec![
            layer(vec![(0, conv)], 1),
            layer(vec![(1, conv)], 2),
            layer(vec![(2, RowRule::Same), (0, RowRule::Same)], 3),
        ];
        let frontiers = vec![vec![0], vec![0, 1], vec![0, 2], vec![3]];
        let map = RowMap::new(vec![tensor; 4], layers, frontiers).expect("a right map");
        let rows = [RowRange::new(4, 6)];
        assert_eq!(map.needed(LayerRange { first: 0, end: 3 }, &rows), [RowRange::new(2, 8)]);
        let inside = map.needed(LayerRange { first: 1, end: 3 }, &rows);
        assert_eq!(inside, [RowRange::new(4, 6), RowRange::new(3, 7)]);
        assert_eq!(map.made(LayerRange { first: 0, end: 3 }, &rows), [(4, 10), (2, 10), (2, 10)]);
        assert_eq!(map.bytes(1, &inside), 24);
    }

    #[test]
    fn a_layer_that_needs_everything_makes_everything() {
        let mut map = chain(&[6, 6, 1], &[window(3, 1, 1), RowRule::All]);
        map.layers[1].splits = Splits::No;
        let layers = LayerRange { first: 0, end: 2 };
        assert_eq!(map.needed(layers, &[RowRange::new(0, 1)]), [RowRange::new(0, 6)]);
        assert!(!map.splittable(layers));
        assert!(map.splittable(LayerRange { first: 0, end: 1 }));
    }

    /// Two products after a convolution and a view of it.
    fn products() -> RowMap {
        let rules = [window(3, 1, 1), RowRule::All, RowRule::All, RowRule::Same, RowRule::All];
        let mut map = chain(&[6, 6, 12, 8, 8, 5], &rules).with_row_weights(&[0, 0, 13, 1, 9]);
        map.layers[1].splits = Splits::View;
        map
    }

    #[test]
    fn a_product_ends_what_a_strip_can_be_of() {
        let map = products();
        let splits = |first, end| map.splittable(LayerRange { first, end });
        assert!(splits(0, 1) && splits(1, 3) && splits(1, 4) && splits(2, 4) && splits(4, 5));
        assert!(!splits(0, 2) && !splits(1, 2) && !splits(0, 3) && !splits(2, 5) && !splits(3, 5));
        let needed = map.needed(LayerRange { first: 1, end: 4 }, &[RowRange::new(2, 5)]);
        assert_eq!(needed, [RowRange::new(0, 6)]);
        assert_eq!(
            map.made(LayerRange { first: 1, end: 4 }, &[RowRange::new(2, 5)]),
            [(12, 12), (3, 8), (3, 8)]
        );
        assert_eq!(map.divided_weights(LayerRange { first: 1, end: 4 }), 8 * 14);
    }

    #[test]
    fn a_map_of_nonsense_is_none() {
        let tensor = TensorRows { height: 1, row_bytes: 1 };
        let layer = || LayerRows {
            inputs: vec![(0, RowRule::Same)],
            outputs: vec![1],
            splits: Splits::ByRows,
        };
        let frontiers = || vec![vec![0], vec![1]];
        assert!(RowMap::new(vec![tensor; 2], vec![layer()], frontiers()).is_some());
        assert!(RowMap::new(vec![tensor], vec![layer()], frontiers()).is_none());
        assert!(RowMap::new(vec![tensor; 2], vec![layer()], vec![vec![0]]).is_none());
        let flat = TensorRows { height: 0, row_bytes: 1 };
        assert!(RowMap::new(vec![flat; 2], vec![layer()], frontiers()).is_none());
    }

    quickcheck! {
        fn strips_need_the_rows_under_their_windows(
            kernel: u8, stride: u8, before: u8, height: u8, rows: (u8, u8)
        ) -> bool {
            let (kernel, stride) = (u32::from(kernel % 7) + 1, u32::from(stride % 3) + 1);
            let (before, height) = (u32::from(before) % kernel, u32::from(height) + 1);
            let window = RowWindow { kernel, stride, dilation: 1, before };
            // Every window sees some of the image.
            let last = (height - 1 + before) / stride;
            let first = u32::from(rows.0) % (last + 1);
            let made = RowRange::new(first, (first + u32::from(rows.1) + 1).min(last + 1));
            let taps = (made.first..made.end).flat_map(|row| {
                (0..kernel).filter_map(move |tap| (row * stride + tap).checked_sub(before))
            });
            let taps: Vec<u32> = taps.filter(|tap| *tap < height).collect();
            let needed = window.needed(made, height);
            let (first, last) = (taps.iter().min(), taps.iter().max());
            first == Some(&needed.first) && last.map(|last| last + 1) == Some(needed.end)
        }
    }
}
