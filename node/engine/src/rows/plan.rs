//! Which rows of each tensor a strip holds: the halo arithmetic, backwards through the layers.

use std::ops::Range;

use super::features;
use super::range::{self, RowRange};
use super::rule::{self, LayerRows};
use crate::cost::Work;
use crate::error::RowsError;
use crate::graph::{Layer, TensorId};
use crate::model::Model;
use crate::profile::{self, OpClass};
use crate::tensor::TensorInfo;

/// What a strip costs: a layer range restricted to some rows of what it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripCost {
    /// Floating-point operations of each class, at its [`OpClass::index`], halo included.
    pub flops: [u64; OpClass::ALL.len()],
    /// The work of each class, halo included: what its time is predicted from.
    pub work: Work,
    /// The rows that it takes of each tensor alive before the layers.
    pub input_rows: Vec<RowRange>,
    /// The bytes of these.
    pub input_bytes: u64,
    /// The bytes of the weights that it holds, as they are in the file.
    pub weight_bytes: u64,
    /// The bytes of the rows that it gives.
    pub output_bytes: u64,
}

/// What strips need to know of a model, as numbers: made once, and looked up for each strip.
pub(crate) struct RowTable {
    /// By layer.
    layers: Vec<LayerEntry>,
    /// By tensor.
    tensors: Vec<TensorEntry>,
}

struct LayerEntry {
    rows: LayerRows,
    class: OpClass,
    flops: u64,
    work: Work,
    weight_bytes: u64,
    /// Those of them that each row has for itself.
    row_weight_bytes: u64,
    /// Of the output.
    height: usize,
}

impl LayerEntry {
    /// What some rows of the output take of what all of them do, rounded up.
    fn part(&self, all: u64, made: RowRange) -> u64 {
        let part = u128::from(all) * made.len() as u128;
        part.div_ceil(self.height as u128) as u64
    }

    /// The work of some rows of the output. Of the arithmetic it is a part, but all weights that they
    /// take are read, for few rows as for many.
    fn work(&self, made: RowRange) -> Work {
        let mut work = self.work.map(|all| self.part(all, made));
        if !made.is_empty() && self.weight_bytes > 0 {
            let read = u128::from(self.work[READING]) * u128::from(self.weights(made));
            work[READING] = read.div_ceil(u128::from(self.weight_bytes)) as u64;
        }
        work
    }

    /// The bytes of the weights that some rows of the output take; none take none.
    fn weights(&self, made: RowRange) -> u64 {
        match made.len() {
            0 => 0,
            rows => self.weight_bytes - self.row_weight_bytes * (self.height - rows) as u64,
        }
    }
}

struct TensorEntry {
    height: usize,
    row_bytes: u64,
}

impl RowTable {
    pub(crate) fn new(model: &Model) -> Self {
        let tensor = |info: &TensorInfo| {
            let height = range::height(&info.shape);
            TensorEntry { height, row_bytes: info.bytes() / height as u64 }
        };
        let layer = |layer: &Layer| {
            let cost = profile::layer_cost(model, layer);
            let rows = rule::of(model, layer);
            LayerEntry {
                class: cost.class,
                flops: cost.flops,
                work: cost.work,
                weight_bytes: cost.weight_bytes,
                row_weight_bytes: features::row_weight_bytes(layer, &rows, &cost.output_shape),
                height: range::height(&cost.output_shape),
                rows,
            }
        };
        Self {
            layers: model.layers().iter().map(layer).collect(),
            tensors: model.graph().tensors.iter().map(tensor).collect(),
        }
    }

    /// The height and the bytes of a row of each tensor.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (usize, u64)> {
        self.tensors.iter().map(|tensor| (tensor.height, tensor.row_bytes))
    }

    pub(crate) fn rows(&self, layer: usize) -> &LayerRows {
        &self.layers[layer].rows
    }

    /// Bytes of a layer's weights that each of its rows has for itself.
    pub(crate) fn row_weight_bytes(&self, layer: usize) -> u64 {
        self.layers[layer].row_weight_bytes
    }

    /// How many rows a tensor has.
    pub(crate) fn height(&self, id: TensorId) -> usize {
        self.tensors[id.0].height
    }
}

/// The rows that a strip holds of each of the model's tensors: takes, or makes.
///
/// # Errors
/// When the layers are not a range of the model, or the rows not one range for each tensor alive
/// after them.
pub(crate) fn held(
    model: &Model,
    layers: &Range<usize>,
    rows: &[RowRange],
) -> Result<Vec<RowRange>, RowsError> {
    check(model, layers, rows)?;
    let table = model.row_table();
    let mut held = vec![RowRange::EMPTY; table.tensors.len()];
    for (id, &rows) in model.frontier_ids(layers.end).iter().zip(rows) {
        held[id.0] = rows.hull(RowRange::EMPTY);
    }
    for index in layers.clone().rev() {
        widen(table, index, &model.layers()[index], &mut held);
    }
    Ok(held)
}

/// Takes what a layer needs of its inputs into account, given what is needed of its outputs.
fn widen(table: &RowTable, index: usize, layer: &Layer, held: &mut [RowRange]) {
    let made = made(layer, held);
    if made.is_empty() {
        return;
    }
    let all = |id: &TensorId| RowRange::new(0, table.height(*id));
    match table.rows(index) {
        LayerRows::Split(rules) => {
            layer.outputs.iter().for_each(|output| held[output.0] = made);
            for (input, rule) in layer.inputs.iter().zip(rules) {
                let needed = rule.needed(made, table.height(*input));
                held[input.0] = held[input.0].hull(needed);
            }
        }
        LayerRows::View | LayerRows::Whole => {
            for id in layer.outputs.iter().chain(&layer.inputs) {
                held[id.0] = all(id);
            }
        }
    }
}

/// The rows that a layer makes: with several outputs, the same of each.
pub(crate) fn made(layer: &Layer, held: &[RowRange]) -> RowRange {
    layer.outputs.iter().fold(RowRange::EMPTY, |rows, output| rows.hull(held[output.0]))
}

/// The rows of each tensor alive before the layers that a strip takes.
pub(crate) fn received(model: &Model, layers: &Range<usize>, held: &[RowRange]) -> Vec<RowRange> {
    model.frontier_ids(layers.start).iter().map(|id| held[id.0]).collect()
}

/// The cost of a strip.
///
/// # Errors
/// Like [`held`].
pub(crate) fn cost(
    model: &Model,
    layers: &Range<usize>,
    rows: &[RowRange],
) -> Result<StripCost, RowsError> {
    let held = held(model, layers, rows)?;
    let table = model.row_table();
    let (mut flops, mut work, mut weight_bytes) = (Work::default(), Work::default(), 0_u64);
    for index in layers.clone() {
        let entry = &table.layers[index];
        let made = made(&model.layers()[index], &held);
        weight_bytes = weight_bytes.saturating_add(entry.weights(made));
        let sum = &mut flops[entry.class.index()];
        *sum = sum.saturating_add(entry.part(entry.flops, made));
        for (sum, part) in work.iter_mut().zip(entry.work(made)) {
            *sum = sum.saturating_add(part);
        }
    }
    let input_rows = received(model, layers, &held);
    let bytes = |cut: usize, rows: &[RowRange]| {
        let tensors = model.frontier_ids(cut).iter().map(|id| &table.tensors[id.0]);
        tensors.zip(rows).map(|(tensor, rows)| tensor.row_bytes * rows.len() as u64).sum()
    };
    Ok(StripCost {
        flops,
        work,
        input_bytes: bytes(layers.start, &input_rows),
        weight_bytes,
        output_bytes: bytes(layers.end, rows),
        input_rows,
    })
}

fn check(model: &Model, layers: &Range<usize>, rows: &[RowRange]) -> Result<(), RowsError> {
    let count = model.layers().len();
    if layers.start >= layers.end || layers.end > count {
        return Err(RowsError::Layers { range: layers.clone(), layers: count });
    }
    let tensors = model.frontier(layers.end);
    if tensors.len() != rows.len() {
        return Err(RowsError::Count { expected: tensors.len(), actual: rows.len() });
    }
    let outside =
        |(info, rows): &(&TensorInfo, &RowRange)| !rows.is_within(range::height(&info.shape));
    match tensors.iter().zip(rows).find(outside) {
        None => Ok(()),
        Some((info, &rows)) => Err(RowsError::Outside {
            tensor: info.name.clone(),
            rows,
            height: range::height(&info.shape),
        }),
    }
}

/// Where work counts the weights that are read.
const READING: usize = OpClass::Linear.index();
