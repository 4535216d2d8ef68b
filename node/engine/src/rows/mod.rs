//! Strips: layers for some rows of what they make, and the rows that these need.
//!
//! Layers side by side on several machines is what fused-layer parallelism is: each machine makes
//! a strip of the rows, from the rows under it and a halo around these that its windows reach
//! into. DeepThings (Zhao et al. 2018) fuses layers so, and EdgeCI (Chen et al. 2024) looks for
//! the ranges of layers where it pays, given that neighbours compute the halo twice.
//!
//! # The rows that a strip needs
//!
//! A convolution or pooling with kernel `k`, stride `s`, dilation `d` and `p` rows of padding
//! before an image of `H` rows makes row `o` from the rows
//!
//! ```text
//! o s - p,  o s - p + d,  ...,  o s - p + (k - 1) d        of which those in 0..H exist
//! ```
//!
//! so rows `a..b` of its output need the rows from the first of these for `a` to the last of them
//! for `b - 1`:
//!
//! ```text
//! max(0, a s - p) .. min(H, (b - 1) s - p + (k - 1) d + 1)
//! ```
//!
//! With a dilation, the row at which a window that starts in the padding first meets the image is
//! not row 0 but the next that it does not step over; [`RowWindow`] says how the crate counts.
//! Layers that work value by value need the rows that they make. A tensor that several layers
//! read must have the smallest range that has the rows of all. Applied backwards, layer by layer,
//! this gives what a strip needs of each tensor before its layers. It is exact: some row that the
//! strip makes reads the first of them, some row reads the last, and none reads beyond.
//!
//! The rows of a tensor `[1, features]` are its features. A product with a constant matrix makes
//! any of them from all of its input and from their share of the weights alone: a strip of a fully
//! connected layer holds no more than that. What works value by value goes along.
//!
//! Everything else (sums over all rows, softmax, other shapes) needs all rows, and makes all of its
//! own: [`LayerRows::Whole`]. Strips of such layers are right, but save nothing. Where each layer
//! makes some rows without the others, and from tensors that no strip has to make all of, a range
//! is [`splittable`](Model::splittable).
//!
//! # How a strip is computed
//!
//! By a transformation of the graph, so that no kernel knows of strips: images have the strip's
//! height, and each window keeps its padding only where the strip ends at the image's border.
//! Inside, its windows see the halo's real rows. Where a layer needs fewer rows of a tensor than
//! another layer does, as around a residual block, a layer that cuts rows out goes between.
//!
//! The strips of a range of layers, joined, are what the whole range makes, up to the rounding of
//! sums: kernels may add in another order on images of another height, and those that compute tiles
//! begin them elsewhere. Nothing else differs. The tests bound it by 1e-5 of the largest magnitude.

pub(crate) mod features;
pub(crate) mod plan;
pub(crate) mod range;
pub(crate) mod rule;
pub(crate) mod strip;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use plan::StripCost;
pub use range::RowRange;
pub use rule::{LayerRows, RowRule, RowWindow};

use crate::error::RowsError;
use crate::graph::TensorId;
use crate::model::Model;

/// How rows flow through a model, as plain numbers: for planners that don't have the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowGraph {
    /// By tensor: how many rows it has, at least one, and the bytes of each.
    pub tensors: Vec<(usize, u64)>,
    /// By layer.
    pub layers: Vec<RowLayer>,
    /// By cut: which tensors are alive across it, in the order of [`Model::frontier`].
    pub frontiers: Vec<Vec<usize>>,
}

/// One layer of a [`RowGraph`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLayer {
    /// The tensors that it reads.
    pub inputs: Vec<usize>,
    /// The tensors that it makes.
    pub outputs: Vec<usize>,
    /// Which rows of its inputs it reads for rows of its outputs.
    pub rows: LayerRows,
    /// The bytes of its weights that each row has for itself, and that strips without the row don't
    /// hold; what all rows share is not in it.
    pub row_weight_bytes: u64,
}

/// Rows: which ones there are, and which need which.
impl Model {
    /// All rows of each tensor alive across a cut.
    ///
    /// # Panics
    /// When there is no such cut.
    pub fn rows(&self, cut: usize) -> Vec<RowRange> {
        self.frontier(cut).iter().map(|info| RowRange::all(&info.shape)).collect()
    }

    /// Divides the tensors alive across a cut into strips, in proportion to weights: for each
    /// strip, its rows of each tensor.
    ///
    /// Every row is in exactly one strip. Each strip has a row of each tensor that has as many
    /// rows as there are strips; a strip may have none of a tensor of fewer. Weights that are not
    /// positive and finite count as nothing; if all do, the strips are equal.
    ///
    /// # Panics
    /// When there is no such cut.
    pub fn split_rows(&self, cut: usize, weights: &[f64]) -> Vec<Vec<RowRange>> {
        let mut strips = vec![Vec::new(); weights.len()];
        for all in self.rows(cut) {
            for (strip, rows) in strips.iter_mut().zip(range::divide(all.end, weights)) {
                strip.push(rows);
            }
        }
        strips
    }

    /// The rows of each tensor alive before some layers that are needed to make these rows of each
    /// tensor alive after them; none of a tensor that is not needed at all.
    ///
    /// Takes time in proportion to the layers.
    ///
    /// # Errors
    /// When the layers are not a range of the model, or the rows not one range for each tensor
    /// alive after them.
    pub fn needed_rows(
        &self,
        layers: Range<usize>,
        rows: &[RowRange],
    ) -> Result<Vec<RowRange>, RowsError> {
        let held = plan::held(self, &layers, rows)?;
        Ok(plan::received(self, &layers, &held))
    }

    /// Whether a strip of these layers takes less than all of them: no layer is
    /// [`Whole`](LayerRows::Whole), and none takes all rows of what another of them makes by rows,
    /// as a fully connected layer does of the one before. A [view](LayerRows::View) may come first.
    ///
    /// # Panics
    /// When the range goes beyond the layers.
    pub fn splittable(&self, layers: Range<usize>) -> bool {
        let table = self.row_table();
        let mut divided = vec![false; self.graph().tensors.len()];
        let mut last = false;
        for index in layers {
            let layer = &self.layers()[index];
            let taken_whole = |at: usize| match self.layer_rows(index) {
                LayerRows::Split(rules) => rules[at] == RowRule::All,
                LayerRows::View | LayerRows::Whole => true,
            };
            let gathers = |(at, id): (usize, &TensorId)| {
                divided[id.0] && table.height(*id) > 1 && taken_whole(at)
            };
            if layer.inputs.iter().enumerate().any(gathers) {
                return false;
            }
            last = match self.layer_rows(index) {
                LayerRows::Split(_) => true,
                LayerRows::View => false,
                LayerRows::Whole => return false,
            };
            layer.outputs.iter().for_each(|output| divided[output.0] = last);
        }
        last
    }

    /// How a layer's rows follow from those of its inputs.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn layer_rows(&self, layer: usize) -> &LayerRows {
        self.row_table().rows(layer)
    }

    /// How rows flow through the model.
    pub fn row_graph(&self) -> RowGraph {
        let numbers = |ids: &[TensorId]| ids.iter().map(|id| id.0).collect();
        let layers = self.layers().iter().enumerate().map(|(index, layer)| RowLayer {
            inputs: numbers(&layer.inputs),
            outputs: numbers(&layer.outputs),
            rows: self.layer_rows(index).clone(),
            row_weight_bytes: self.row_table().row_weight_bytes(index),
        });
        RowGraph {
            tensors: self.row_table().tensors().collect(),
            layers: layers.collect(),
            frontiers: (0..=self.layers().len())
                .map(|cut| numbers(self.frontier_ids(cut)))
                .collect(),
        }
    }

    /// What it costs to make these rows of each tensor alive after some layers: for a planner
    /// that weighs strips against each other. Takes one look at a table for each layer.
    ///
    /// # Errors
    /// Like [`needed_rows`](Self::needed_rows).
    pub fn strip_cost(
        &self,
        layers: Range<usize>,
        rows: &[RowRange],
    ) -> Result<StripCost, RowsError> {
        plan::cost(self, &layers, rows)
    }
}
