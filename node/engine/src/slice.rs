//! Slices: the ONNX of a range of layers, with the weights left outside and named by hash.
//!
//! A slice holds the nodes of the file as they are, not the folded layers. So there is one format
//! and one reader, any ONNX tool can look into a slice, and who runs it folds for himself and
//! gets the same bits.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use prost::Message;

use crate::error::ImportError;
use crate::model::Model;
use crate::onnx::proto::{
    Dimension, GraphProto, ModelProto, OperatorSetId, TensorShape, TensorType, TypeProto,
    ValueInfoProto, data_type,
};
use crate::onnx::{constants, reader};
use crate::tensor::TensorInfo;
use crate::weights::WeightRef;

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
    let graph = model.graph();
    let node: Vec<_> = model.layers()[layers.clone()]
        .iter()
        .flat_map(|layer| &layer.nodes)
        .map(|&i| graph.nodes[i].clone())
        .collect();
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    let (mut initializer, mut weights) = (Vec::new(), Vec::new());
    for name in node.iter().flat_map(|node| &node.input) {
        let Some(constant) = graph.constants.get(name) else { continue };
        if !names.insert(name) {
            continue;
        }
        initializer.push(constants::write(name, constant));
        if !constant.is_inline() && hashes.insert(constant.hash()) {
            weights.push(constant.reference());
        }
    }
    let graph_proto = GraphProto {
        name: Some(format!("{} {}..{}", model.name(), layers.start, layers.end)),
        initializer,
        input: model.frontier(layers.start).iter().map(value_info).collect(),
        output: model.frontier(layers.end).iter().map(value_info).collect(),
        node,
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
    Slice { onnx: proto.encode_to_vec().into(), weights }
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
