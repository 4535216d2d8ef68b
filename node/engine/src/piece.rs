//! Pieces: layers loaded on a device, ready to run.

use std::fmt;
use std::ops::Range;

use crate::error::{LoadError, RunError};
use crate::exec::program::{self, Program, Source};
use crate::graph::Layer;
use crate::model::Model;
use crate::options::{LoadOptions, Memory};
use crate::rows::RowRange;
use crate::rows::strip::{self, Strip};
use crate::tensor::{Tensor, TensorInfo};

/// A range of a model's layers, folded, with its weights on a device.
///
/// Running it changes nothing in it: threads may share one, and each run has its own activations.
pub struct Piece {
    layers: Range<usize>,
    /// For each layer that it runs, which one of the model that is, if it is one of the model's.
    numbers: Vec<Option<usize>>,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    program: Program,
    weight_bytes: u64,
}

impl Piece {
    /// Loads a range of layers; the whole model is `0..model.layers().len()`.
    ///
    /// # Errors
    /// When the range is empty or goes beyond the model.
    pub fn load(
        model: &Model,
        layers: Range<usize>,
        options: impl Into<LoadOptions>,
    ) -> Result<Self, LoadError> {
        with_source(model, layers.clone(), |source| Self {
            weight_bytes: weight_bytes(source.layers),
            inputs: model.frontier(layers.start).to_vec(),
            outputs: model.frontier(layers.end).to_vec(),
            program: Program::load(source, &options.into().for_device()),
            numbers: layers.clone().map(Some).collect(),
            layers,
        })
    }

    /// Loads a strip: a range of layers for some rows of what they make, one range for each
    /// tensor of [`Model::frontier`] after them.
    ///
    /// The piece takes the rows of [`Model::needed_rows`], and gives the rows asked for. Both leave
    /// out the tensors of which there are none; the others follow in the frontier's order, with
    /// the heights that [`input_info`](Self::input_info) and [`output_info`](Self::output_info)
    /// say.
    ///
    /// # Errors
    /// When the layers are not a range of the model, the rows not one range for each tensor alive
    /// after them, or there is no row at all.
    pub fn load_rows(
        model: &Model,
        layers: Range<usize>,
        rows: &[RowRange],
        options: impl Into<LoadOptions>,
    ) -> Result<Self, LoadError> {
        let Strip { model, numbers, outputs } = strip::strip(model, layers.clone(), rows)?;
        let piece = Self::load(&model, 0..model.layers().len(), options)?;
        Ok(Self { layers, numbers, outputs, ..piece })
    }

    /// What a piece would hold and need, without loading it.
    ///
    /// # Errors
    /// Like [`load`](Self::load).
    pub fn plan_memory(
        model: &Model,
        layers: Range<usize>,
        options: impl Into<LoadOptions>,
    ) -> Result<Memory, LoadError> {
        with_source(model, layers, |source| program::memory(source, &options.into().for_device()))
    }

    /// What a strip would hold and need, without loading it.
    ///
    /// # Errors
    /// Like [`load_rows`](Self::load_rows).
    pub fn plan_rows_memory(
        model: &Model,
        layers: Range<usize>,
        rows: &[RowRange],
        options: impl Into<LoadOptions>,
    ) -> Result<Memory, LoadError> {
        let strip = strip::strip(model, layers, rows)?.model;
        Self::plan_memory(&strip, 0..strip.layers().len(), options)
    }

    /// The layers of the model that the piece runs.
    pub fn layers(&self) -> Range<usize> {
        self.layers.clone()
    }

    /// What [`run`](Self::run) takes, in order.
    pub fn input_info(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// What [`run`](Self::run) gives, in order.
    pub fn output_info(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Bytes of the weights, as they are in the file.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// What the piece holds and needs, in the form that its kernels use.
    pub fn memory(&self) -> Memory {
        self.program.memory()
    }

    /// Runs the piece once.
    ///
    /// The same inputs give the same bytes; on the CPU, whatever the number of threads.
    ///
    /// # Errors
    /// When the number, the types or the shapes of the inputs are not those of [`input_info`](Self::input_info).
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        self.run_observed(inputs, &mut |_| ())
    }

    /// Runs the piece once, and tells after each layer which one of the model that was.
    ///
    /// The next layer starts when `after_layer` returns, so a node can pause there.
    ///
    /// # Errors
    /// Like [`run`](Self::run).
    pub fn run_observed(
        &self,
        inputs: &[Tensor],
        after_layer: &mut dyn FnMut(usize),
    ) -> Result<Vec<Tensor>, RunError> {
        self.check(inputs)?;
        let mut after_own = |layer: usize| {
            // What only cuts rows out is no layer of the model.
            self.numbers[layer].into_iter().for_each(&mut *after_layer);
        };
        Ok(self.program.run(inputs, &mut after_own))
    }

    /// The layers of the model that are computed in one go, which
    /// [`run_observed`](Self::run_observed) tells of one right after the other; in order.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let of_model = |own: Range<usize>| self.numbers[own].iter().copied().flatten().collect();
        self.program.groups().into_iter().map(of_model).collect()
    }

    fn check(&self, inputs: &[Tensor]) -> Result<(), RunError> {
        if inputs.len() != self.inputs.len() {
            return Err(RunError::InputCount { expected: self.inputs.len(), actual: inputs.len() });
        }
        for (info, input) in self.inputs.iter().zip(inputs) {
            let name = info.name.clone();
            if info.dtype != input.dtype() {
                let (expected, actual) = (info.dtype, input.dtype());
                return Err(RunError::InputType { name, expected, actual });
            }
            if info.shape != input.shape() {
                let (expected, actual) = (info.shape.clone(), input.shape().to_vec());
                return Err(RunError::InputShape { name, expected, actual });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece")
            .field("layers", &self.layers)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// Does something with the layers of a range of the model.
fn with_source<R>(
    model: &Model,
    layers: Range<usize>,
    work: impl FnOnce(Source<'_>) -> R,
) -> Result<R, LoadError> {
    let count = model.layers().len();
    if layers.start >= layers.end || layers.end > count {
        return Err(LoadError::Range { range: layers, layers: count });
    }
    let tensors = &model.graph().tensors;
    let (inputs, outputs) = (model.frontier_ids(layers.start), model.frontier_ids(layers.end));
    let layers = &model.layers()[layers];
    Ok(work(Source { tensors, layers, inputs, outputs, mapped: model.mapped() }))
}

fn weight_bytes(layers: &[Layer]) -> u64 {
    layers.iter().flat_map(Layer::weights).map(|weight| weight.bytes().len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceChoice;
    use crate::probe::Probe;

    /// A block of a network for phones after a first layer, for images of so many rows.
    fn block(rows: usize) -> Model {
        let first = Probe::new(&[1, 3, rows, 20]).conv(24, 3, 1, 1);
        first.conv(72, 1, 1, 1).conv(72, 5, 1, 72).conv(40, 1, 1, 1).build()
    }

    fn load(model: &Model, layers: Range<usize>) -> Piece {
        Piece::load(model, layers, DeviceChoice::Cpu).unwrap()
    }

    #[test]
    fn convolutions_around_a_depthwise_one_are_computed_in_one_go() {
        let groups = |rows: usize| load(&block(rows), 0..4).groups();
        assert_eq!(groups(8), [vec![0], vec![1], vec![2], vec![3]]);
        assert_eq!(groups(27), [vec![0], vec![1], vec![2, 3]]);
        assert_eq!(groups(28), [vec![0], vec![1, 2, 3]]);
        assert_eq!(load(&block(28), 1..3).groups(), [vec![1], vec![2]]);
    }

    #[test]
    fn a_cut_between_them_changes_no_bit() {
        for rows in [8, 27, 90] {
            let model = block(rows);
            let values = (0..3 * rows * 20).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
            let input = [Tensor::from_f32(vec![1, 3, rows, 20], values).unwrap()];
            let whole = load(&model, 0..4).run(&input).unwrap();
            for cut in 1..4 {
                let between = load(&model, 0..cut).run(&input).unwrap();
                let parts = load(&model, cut..4).run(&between).unwrap();
                assert_eq!(parts[0].as_f32(), whole[0].as_f32(), "{rows} rows, cut at {cut}");
            }
        }
    }
}
