//! Slices: the ONNX of a range of layers, with the weights left outside and named by hash.
//!
//! A slice holds the nodes of the file as they are, not the folded layers. So there is one format
//! and one reader, any ONNX tool can look into a slice, and who runs it folds for himself and
//! gets the same bits.
//!
//! The slice of a strip whose rows are features is that of a smaller network: each constant that is
//! divided as the features are is there in part, under the hash of these bytes. The tensors that it
//! makes have the strip's features and no others.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::Hash;
use crate::error::{ImportError, RowsError};
use crate::graph::{Layer, Op, TensorId};
use crate::model::Model;
use crate::onnx::proto::{
    Dimension, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto, TensorShape,
    TensorType, TypeProto, ValueInfoProto, data_type,
};
use crate::onnx::{constants, reader};
use crate::rows::range::{self, RowRange};
use crate::rows::{LayerRows, RowRule, features, plan};
use crate::tensor::TensorInfo;
use crate::weights::{Constant, Part, WeightRef};

/// A range of layers, ready to travel.
#[derive(Debug, Clone)]
pub struct Slice {
    /// An ONNX model of these layers alone. Small weights are in it; others are
    /// external, at the location `blake3:<hash>`.
    pub onnx: Bytes,
    /// The external weights, each once, in the order of first use.
    pub weights: Vec<WeightRef>,
}

/// Cuts out a range of layers that the model has.
pub(crate) fn cut(model: &Model, layers: Range<usize>) -> Slice {
    cut_parts(model, layers, &Narrowed::default()).0
}

/// Cuts out a range of layers for some rows of what they make, and the parts of constants that the
/// slice names instead of the whole ones.
///
/// # Errors
/// When the layers are not a range of the model, or the rows not one range for each tensor alive
/// after them.
pub(crate) fn cut_rows(
    model: &Model,
    layers: Range<usize>,
    rows: &[RowRange],
) -> Result<(Slice, Vec<Part>), RowsError> {
    let held = plan::held(model, &layers, rows)?;
    let narrowed = Narrowed::new(model, layers.clone(), &held, rows).unwrap_or_default();
    Ok(cut_parts(model, layers, &narrowed))
}

fn cut_parts(model: &Model, layers: Range<usize>, narrowed: &Narrowed) -> (Slice, Vec<Part>) {
    let graph = model.graph();
    let mut cutter = Cutter::new(model);
    for layer in &model.layers()[layers.clone()] {
        cutter.add(layer, narrowed);
    }
    let Cutter { nodes, initializers, weights, parts, .. } = cutter;
    let info = |(id, info): (&TensorId, &TensorInfo)| match narrowed.rows.get(id) {
        Some(rows) => {
            let shape = range::with_height(&info.shape, rows.len());
            value_info(&TensorInfo { shape, ..info.clone() })
        }
        None => value_info(info),
    };
    let frontier = |cut: usize| model.frontier_ids(cut).iter().zip(model.frontier(cut)).map(info);
    let graph_proto = GraphProto {
        name: Some(format!("{} {}..{}", model.name(), layers.start, layers.end)),
        initializer: initializers,
        input: frontier(layers.start).collect(),
        output: frontier(layers.end).collect(),
        node: nodes,
    };
    let proto = ModelProto {
        // Before version 4, initializers had to be inputs, too.
        ir_version: Some(graph.ir_version.max(4)),
        producer_name: Some("starling".to_owned()),
        graph: Some(graph_proto),
        opset_import: vec![OperatorSetId {
            domain: Some(String::new()),
            version: Some(graph.opset),
        }],
    };
    (Slice { onnx: proto.encode_to_vec().into(), weights }, parts)
}

/// The tensors of which a slice has some features only, and which these are.
#[derive(Default)]
struct Narrowed {
    rows: HashMap<TensorId, RowRange>,
}

impl Narrowed {
    /// What the strip's products make, and what follows from it value by value. Nothing if not all
    /// of that has the same features: then the slice is that of all rows.
    fn new(
        model: &Model,
        layers: Range<usize>,
        held: &[RowRange],
        rows: &[RowRange],
    ) -> Option<Self> {
        let mut narrowed = Self::default();
        for index in layers.clone() {
            narrowed.follow(model, index, held)?;
        }
        let mut given = model.frontier_ids(layers.end).iter().zip(rows);
        let same = given.all(|(id, rows)| narrowed.rows.get(id).is_none_or(|part| part == rows));
        same.then_some(narrowed)
    }

    fn follow(&mut self, model: &Model, index: usize, held: &[RowRange]) -> Option<()> {
        let layer = &model.layers()[index];
        let made = plan::made(layer, held);
        let divides = model.row_table().row_weight_bytes(index) > 0;
        let product = divides && matches!(layer.op, Op::Gemm(_) | Op::MatMul(_));
        let parts = layer.inputs.iter().filter(|id| self.rows.contains_key(id)).count();
        if !product && parts == 0 {
            return Some(());
        }
        let all = model.row_table().height(*layer.outputs.first()?);
        let LayerRows::Split(rules) = model.layer_rows(index) else { return None };
        let fits = |(id, rule): (&TensorId, &RowRule)| match rule {
            RowRule::All => !self.rows.contains_key(id),
            RowRule::Same => self.rows.get(id) == Some(&made),
            RowRule::Window(_) => false,
        };
        // Another shape may be told by a constant, which would have to be another one.
        let shaped = matches!(layer.op, Op::Reshape);
        if made.is_empty() || shaped || !layer.inputs.iter().zip(rules).all(fits) {
            return None;
        }
        if made.len() < all {
            self.rows.extend(layer.outputs.iter().map(|output| (*output, made)));
        }
        Some(())
    }
}

/// A slice in the making.
struct Cutter<'a> {
    model: &'a Model,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    names: HashSet<String>,
    weights: Vec<WeightRef>,
    hashes: HashSet<Hash>,
    parts: Vec<Part>,
}

impl<'a> Cutter<'a> {
    fn new(model: &'a Model) -> Self {
        Self {
            model,
            nodes: Vec::new(),
            initializers: Vec::new(),
            names: HashSet::new(),
            weights: Vec::new(),
            hashes: HashSet::new(),
            parts: Vec::new(),
        }
    }

    /// Adds the nodes of a layer, and the constants that they name.
    fn add(&mut self, layer: &Layer, narrowed: &Narrowed) {
        let part = layer.outputs.first().and_then(|output| narrowed.rows.get(output));
        // What folds into a layer has no constants that differ from feature to feature.
        for (at, &index) in layer.nodes.iter().enumerate() {
            let mut node = self.model.graph().nodes[index].clone();
            for (place, input) in node.input.iter_mut().enumerate() {
                let Some(constant) = self.model.graph().constants.get(input).cloned() else {
                    continue;
                };
                let features =
                    layer.outputs.first().map_or(1, |id| self.model.row_table().height(*id));
                let axis = features::divided(&layer.op, place, &constant.dims, features);
                match part.zip(axis).filter(|_| at == 0) {
                    Some((rows, axis)) => *input = self.part(input, constant, axis, *rows),
                    None => self.constant(input, &constant),
                }
            }
            self.nodes.push(node);
        }
    }

    /// Names some of a constant, under a name of its own.
    fn part(&mut self, name: &str, whole: Arc<Constant>, axis: usize, rows: RowRange) -> String {
        let mut name = format!("{name} {rows} of dimension {axis}");
        while self.model.graph().constants.contains_key(&name) {
            name.push('\'');
        }
        let places = rows.start..rows.end;
        let constant = whole.part(axis, places.clone());
        self.constant(&name, &constant);
        if !constant.is_inline() {
            self.parts.push(Part { whole, axis, places, hash: constant.hash() });
        }
        name
    }

    fn constant(&mut self, name: &str, constant: &Constant) {
        if !self.names.insert(name.to_owned()) {
            return;
        }
        self.initializers.push(constants::write(name, constant));
        if !constant.is_inline() && self.hashes.insert(constant.hash()) {
            self.weights.push(constant.reference());
        }
    }
}

/// The weights that a slice names, each once.
pub(crate) fn weights(onnx: &Bytes) -> Result<Vec<WeightRef>, ImportError> {
    let graph = reader::graph(&mut reader::decode(onnx, "the slice")?);
    let mut seen = HashSet::new();
    let mut weights = Vec::new();
    for tensor in graph.initializer.iter().filter(|tensor| constants::is_external(tensor)) {
        let weight = constants::external(tensor, tensor.name.as_deref().unwrap_or_default())?;
        if seen.insert(weight.hash) {
            weights.push(weight);
        }
    }
    Ok(weights)
}

fn value_info(info: &TensorInfo) -> ValueInfoProto {
    let dimension = |&dim: &usize| Dimension { dim_value: Some(dim as i64), dim_param: None };
    let shape = TensorShape { dim: info.shape.iter().map(dimension).collect() };
    let tensor_type =
        TensorType { elem_type: Some(data_type::code(info.dtype)), shape: Some(shape) };
    ValueInfoProto {
        name: Some(info.name.clone()),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
    }
}
