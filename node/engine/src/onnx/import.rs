//! Turns a clean graph into layers with concrete shapes.

use std::collections::HashMap;
use std::sync::Arc;

use super::clean::{self, CleanGraph};
use super::evaluate;
use super::operators::{self, Made, Meaning, Reading};
use super::proto::{ModelProto, NodeProto};
use super::reader;
use super::view::{self, NodeView};
use crate::error::ImportError;
use crate::fold;
use crate::graph::{Activation, Binary, Layer, Op, TensorId};
use crate::options::ImportOptions;
use crate::tensor::{DType, TensorInfo};
use crate::weights::{Constant, WeightSource};

/// The typed graph, and the part of the file that slices are cut from.
pub(crate) struct Graph {
    /// Every activation: the inputs first, then the outputs of each layer.
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) inputs: Vec<TensorId>,
    pub(crate) outputs: Vec<TensorId>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) constants: HashMap<String, Arc<Constant>>,
    pub(crate) opset: i64,
    pub(crate) ir_version: i64,
}

/// What has a name at some point of the import.
#[derive(Default)]
pub(crate) struct Scope {
    pub(crate) constants: HashMap<String, Arc<Constant>>,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) values: HashMap<String, TensorId>,
}

/// Imports a decoded model.
pub(crate) fn import(
    mut model: ModelProto,
    source: Option<&dyn WeightSource>,
    options: &ImportOptions,
) -> Result<Graph, ImportError> {
    let opset = reader::opset(&model)?;
    let mut clean = clean::clean(reader::graph(&mut model), opset, source, options)?;
    evaluate::evaluate(&mut clean, opset)?;
    let ir_version = model.ir_version.unwrap_or_default();
    let uses = count_uses(&clean);
    let CleanGraph { nodes, constants, inputs, outputs } = clean;
    let mut importer = Importer {
        scope: Scope { constants, ..Scope::default() },
        layers: Vec::new(),
        producers: HashMap::new(),
        uses,
    };
    let inputs = inputs.into_iter().map(|info| importer.define(info)).collect();
    for (index, node) in nodes.iter().enumerate() {
        let view = NodeView { node, opset, scope: &importer.scope };
        let Reading::Meaning(meaning) = operators::read(&view)? else {
            return Err(view.error("its value was not known when the other nodes' were"));
        };
        importer.add(index, node, *meaning)?;
    }
    let Importer { scope, mut layers, .. } = importer;
    layers.retain(|layer| !layer.nodes.is_empty());
    if layers.is_empty() {
        return Err(ImportError::graph("it computes nothing"));
    }
    let output = |name: &String| {
        let id = scope.values.get(name).copied();
        id.ok_or_else(|| {
            ImportError::tensor(name, "it is an output, but its node does not make it")
        })
    };
    let outputs = outputs.iter().map(output).collect::<Result<_, _>>()?;
    Ok(Graph {
        tensors: scope.tensors,
        inputs,
        outputs,
        layers,
        nodes,
        constants: scope.constants,
        opset,
        ir_version,
    })
}

struct Importer {
    scope: Scope,
    layers: Vec<Layer>,
    /// Which layer makes a tensor; graph inputs have none.
    producers: HashMap<TensorId, usize>,
    /// How often each name is an input of a node or an output of the graph.
    uses: HashMap<String, usize>,
}

impl Importer {
    fn define(&mut self, info: TensorInfo) -> TensorId {
        let id = TensorId(self.scope.tensors.len());
        self.scope.values.insert(info.name.clone(), id);
        self.scope.tensors.push(info);
        id
    }

    /// Folds the node into the layer before it, or makes it a layer of its own.
    fn add(&mut self, index: usize, node: &NodeProto, meaning: Meaning) -> Result<(), ImportError> {
        let Some(meaning) = self.fold(index, node, meaning) else { return Ok(()) };
        let Some(meaning) = self.fold_gate(index, node, meaning) else { return Ok(()) };
        if self.layers.len() == LAYERS_MAX {
            return Err(ImportError::graph(format!("it has more than {LAYERS_MAX} layers")));
        }
        let extra = node.output.iter().skip(meaning.outputs.len());
        if let Some(name) = extra.into_iter().find(|name| self.uses.contains_key(*name)) {
            return Err(view::node_error(node, format!("its output '{name}' is not supported")));
        }
        let (mut outputs, mut results) = (Vec::new(), Vec::new());
        for (i, (name, made)) in node.output.iter().zip(meaning.outputs).enumerate() {
            if self.uses.contains_key(name) {
                let Made { dtype, shape } = made;
                outputs.push(self.define(TensorInfo { name: name.clone(), dtype, shape }));
                self.producers.insert(*outputs.last().expect("just pushed"), self.layers.len());
                results.push(i);
            }
        }
        self.layers.push(Layer {
            name: view::node_name(node).to_owned(),
            op: meaning.op,
            activation: meaning.activation,
            inputs: meaning.inputs,
            constants: meaning.constants,
            outputs,
            results,
            nodes: vec![index],
        });
        Ok(())
    }

    /// Folds the node if it may; gives it back if not.
    ///
    /// It may only when nobody else reads what it folds over. Then that tensor is never part of
    /// a frontier, so no cut comes between the two, and a slice folds as the whole model does.
    fn fold(&mut self, index: usize, node: &NodeProto, meaning: Meaning) -> Option<Meaning> {
        let &[input] = &meaning.inputs[..] else { return Some(meaning) };
        let name = &self.scope.tensors[input.0].name;
        let producer = self.producers.get(&input);
        let (Some(&producer), Some(1)) = (producer, self.uses.get(name)) else {
            return Some(meaning);
        };
        let layer = &mut self.layers[producer];
        if layer.results != [0] || self.scope.tensors[input.0].dtype != DType::F32 {
            return Some(meaning);
        }
        let meaning = match fold::fold(layer, meaning) {
            Ok(()) => {
                layer.nodes.push(index);
                None
            }
            Err(meaning) => Some(meaning),
        };
        if meaning.is_none() {
            self.rename(input, node);
        }
        meaning
    }

    /// Folds a product of a tensor and a function of it, such as `x * sigmoid(x)`, into the layer
    /// of the function; both into the layer that makes the tensor, if nobody else reads it.
    fn fold_gate(&mut self, index: usize, node: &NodeProto, meaning: Meaning) -> Option<Meaning> {
        let Some((gate, activation)) = self.gate(&meaning) else { return Some(meaning) };
        let layer = &mut self.layers[gate];
        layer.activation = Some(activation);
        layer.nodes.push(index);
        let (value, gated) = (layer.inputs[0], layer.outputs[0]);
        let producer = self.producers.get(&value).copied().filter(|&producer| {
            let layer = &self.layers[producer];
            layer.results == [0] && layer.activation.is_none() && self.reads(value) == 2
        });
        let Some(producer) = producer else {
            self.rename(gated, node);
            return None;
        };
        // A layer without nodes: it is taken out when all are there.
        let nodes = std::mem::take(&mut self.layers[gate].nodes);
        self.producers.remove(&gated);
        let layer = &mut self.layers[producer];
        layer.activation = Some(activation);
        layer.nodes.extend(nodes);
        self.scope.values.remove(&self.scope.tensors[gated.0].name);
        self.rename(value, node);
        None
    }

    /// The layer whose function a product multiplies with what the function is of, if the product
    /// alone reads it; and what the two are together.
    fn gate(&self, meaning: &Meaning) -> Option<(usize, Activation)> {
        let &[left, right] = &meaning.inputs[..] else { return None };
        if !matches!(meaning.op, Op::Binary(Binary::Mul)) {
            return None;
        }
        [(left, right), (right, left)].into_iter().find_map(|(value, gated)| {
            let gate = *self.producers.get(&gated)?;
            let layer = &self.layers[gate];
            let fits = matches!(layer.op, Op::Activation) && layer.inputs == [value];
            let activation = fold::gated(layer.activation?)?;
            (fits && self.reads(gated) == 1).then_some((gate, activation))
        })
    }

    /// How often a tensor is read, as an output of the graph or by a node.
    fn reads(&self, id: TensorId) -> usize {
        self.uses.get(&self.scope.tensors[id.0].name).copied().unwrap_or_default()
    }

    /// Gives a tensor the name of the output of a node that was folded into its layer.
    fn rename(&mut self, id: TensorId, node: &NodeProto) {
        let output = node.output.first().map(String::as_str).unwrap_or_default();
        let folded_over = std::mem::replace(&mut self.scope.tensors[id.0].name, output.to_owned());
        self.scope.values.remove(&folded_over);
        self.scope.values.insert(output.to_owned(), id);
    }
}

fn count_uses(clean: &CleanGraph) -> HashMap<String, usize> {
    let mut uses = HashMap::new();
    let inputs = clean.nodes.iter().flat_map(|node| &node.input);
    for name in inputs.chain(&clean.outputs) {
        *uses.entry(name.clone()).or_default() += 1;
    }
    uses
}

/// Most layers of a model; a layer's number travels as 16 bits.
const LAYERS_MAX: usize = 65_535;
