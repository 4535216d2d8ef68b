//! A strip as a model of its own: the same layers on images of less height, and with fewer features.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::features;
use super::plan;
use super::range::{self, RowRange};
use super::rule::{self, LayerRows};
use crate::error::RowsError;
use crate::graph::{Layer, Op, Slice, TensorId};
use crate::model::Model;
use crate::onnx::import::Graph;
use crate::tensor::TensorInfo;
use crate::weights::Weight;

/// Some layers of a model, for some rows of what they make.
pub(crate) struct Strip {
    /// The layers that these rows need, with the heights and the padding of the strip.
    pub(crate) model: Model,
    /// For each of its layers, which one of the whole model that is; none for those that only
    /// cut rows out.
    pub(crate) numbers: Vec<Option<usize>>,
    /// What the strip gives, by the names of the whole model.
    pub(crate) outputs: Vec<TensorInfo>,
}

/// Transforms layers of a model into those of a strip.
///
/// # Errors
/// When the layers are not a range of the model, the rows not one range for each tensor alive
/// after them, or there is no row at all.
pub(crate) fn strip(
    model: &Model,
    layers: Range<usize>,
    rows: &[RowRange],
) -> Result<Strip, RowsError> {
    let held = plan::held(model, &layers, rows)?;
    if rows.iter().all(|rows| rows.is_empty()) {
        return Err(RowsError::Nothing);
    }
    let mut builder = Builder::new(model, held);
    let inputs = builder.take(layers.start);
    for index in layers.clone() {
        builder.add(index);
    }
    let outputs = builder.give(layers.end, rows);
    let numbers = builder.numbers;
    let graph = Graph {
        tensors: builder.tensors,
        inputs,
        outputs,
        layers: builder.layers,
        // What slices are cut from: nobody cuts a slice out of a strip.
        nodes: Vec::new(),
        constants: HashMap::new(),
        opset: model.graph().opset,
        ir_version: model.graph().ir_version,
    };
    let given = model.frontier(layers.end).iter().zip(rows).filter(|(_, rows)| !rows.is_empty());
    let outputs = given.map(|(info, rows)| part(info, info.name.clone(), *rows)).collect();
    let model = model.derive(graph).map_err(|error| RowsError::Graph(error.to_string()))?;
    Ok(Strip { model, numbers, outputs })
}

struct Builder<'a> {
    model: &'a Model,
    /// By tensor of the model: the rows that the strip has of it.
    held: Vec<RowRange>,
    /// The tensors of the strip.
    tensors: Vec<TensorInfo>,
    /// Which tensor of the strip is which rows of which tensor of the model.
    parts: HashMap<(TensorId, RowRange), TensorId>,
    layers: Vec<Layer>,
    numbers: Vec<Option<usize>>,
    names: HashSet<&'a str>,
}

impl<'a> Builder<'a> {
    fn new(model: &'a Model, held: Vec<RowRange>) -> Self {
        Self {
            model,
            held,
            tensors: Vec::new(),
            parts: HashMap::new(),
            layers: Vec::new(),
            numbers: Vec::new(),
            names: model.graph().tensors.iter().map(|info| &info.name[..]).collect(),
        }
    }

    /// The strip's inputs: what it needs of the tensors alive at this cut.
    fn take(&mut self, cut: usize) -> Vec<TensorId> {
        let ids = self.model.frontier_ids(cut).iter();
        let needed: Vec<_> = ids.copied().filter(|id| !self.held[id.0].is_empty()).collect();
        needed.into_iter().map(|id| self.define(id)).collect()
    }

    /// The strip's outputs: these rows of the tensors alive at this cut.
    fn give(&mut self, cut: usize, rows: &[RowRange]) -> Vec<TensorId> {
        let ids = self.model.frontier_ids(cut).iter().copied().zip(rows.iter().copied());
        let given: Vec<_> = ids.filter(|(_, rows)| !rows.is_empty()).collect();
        let mut outputs: Vec<_> = given.iter().map(|&(id, rows)| self.part(id, rows)).collect();
        // Rows that only pass through still need a layer to run.
        if self.layers.is_empty() {
            outputs[0] = self.crop(given[0].0, given[0].1);
        }
        outputs
    }

    /// Adds a layer of the model, if anything that it makes is needed.
    fn add(&mut self, index: usize) {
        let layer = &self.model.layers()[index];
        let made = plan::made(layer, &self.held);
        if made.is_empty() {
            return;
        }
        let needed = self.needed(index, layer, made);
        let inputs = layer.inputs.iter().zip(&needed).map(|(&id, &rows)| self.part(id, rows));
        let inputs: Vec<TensorId> = inputs.collect();
        let (op, constants) = self.narrow(index, layer, &needed, made);
        let outputs = layer.outputs.iter().map(|&id| self.define(id)).collect();
        self.layers.push(Layer {
            name: layer.name.clone(),
            op,
            activation: layer.activation,
            inputs,
            constants,
            outputs,
            results: layer.results.clone(),
            nodes: Vec::new(),
        });
        self.numbers.push(Some(index));
    }

    /// A layer's operator and constants for some rows alone.
    fn narrow(
        &self,
        index: usize,
        layer: &Layer,
        needed: &[RowRange],
        made: RowRange,
    ) -> (Op, Vec<(usize, Weight)>) {
        let shape = |id: TensorId| &self.model.tensor(id).shape[..];
        let whole = || (layer.op.clone(), layer.constants.clone());
        match self.model.layer_rows(index) {
            LayerRows::View | LayerRows::Whole => whole(),
            LayerRows::Split(_) => match shape(layer.outputs[0]) {
                &[_, features] if made.len() == features => whole(),
                &[_, features] => features::narrow(layer, features, made),
                output => {
                    let height = range::height(shape(layer.inputs[0]));
                    let op = rule::narrow(&layer.op, height, needed[0], made, output);
                    (op, layer.constants.clone())
                }
            },
        }
    }

    /// The rows that a layer reads of each of its inputs.
    fn needed(&self, index: usize, layer: &Layer, made: RowRange) -> Vec<RowRange> {
        match self.model.layer_rows(index) {
            LayerRows::Split(rules) => {
                let table = self.model.row_table();
                let inputs = layer.inputs.iter().zip(rules);
                inputs.map(|(id, rule)| rule.needed(made, table.height(*id))).collect()
            }
            LayerRows::View | LayerRows::Whole => {
                layer.inputs.iter().map(|&id| RowRange::all(&self.model.tensor(id).shape)).collect()
            }
        }
    }

    /// Some rows of a tensor that the strip holds at least these of.
    fn part(&mut self, id: TensorId, rows: RowRange) -> TensorId {
        match self.parts.get(&(id, rows)) {
            Some(&part) => part,
            None => self.crop(id, rows),
        }
    }

    /// A layer that cuts rows out of what the strip holds of a tensor.
    fn crop(&mut self, id: TensorId, rows: RowRange) -> TensorId {
        let held = self.held[id.0];
        let info = self.model.tensor(id);
        let mut name = format!("{} rows {rows}", info.name);
        while self.names.contains(&name[..]) {
            name.push('\'');
        }
        let output = self.push(part(info, name.clone(), rows));
        let mut dims = vec![(0, 1); info.shape.len()];
        if let Some(axis) = range::axis(&info.shape) {
            dims[axis].0 = rows.start - held.start;
        }
        self.layers.push(Layer {
            name,
            op: Op::Slice(Slice { dims }),
            activation: None,
            inputs: vec![self.parts[&(id, held)]],
            constants: Vec::new(),
            outputs: vec![output],
            results: vec![0],
            nodes: Vec::new(),
        });
        self.numbers.push(None);
        self.parts.insert((id, rows), output);
        output
    }

    /// The tensor that is all that the strip holds of one of the model's.
    fn define(&mut self, id: TensorId) -> TensorId {
        let (info, rows) = (self.model.tensor(id), self.held[id.0]);
        let new = self.push(part(info, info.name.clone(), rows));
        self.parts.insert((id, rows), new);
        new
    }

    fn push(&mut self, info: TensorInfo) -> TensorId {
        self.tensors.push(info);
        TensorId(self.tensors.len() - 1)
    }
}

/// A tensor of fewer rows.
fn part(info: &TensorInfo, name: String, rows: RowRange) -> TensorInfo {
    TensorInfo { name, dtype: info.dtype, shape: range::with_height(&info.shape, rows.len()) }
}
