//! Computes all that does not depend on the graph's inputs, with the executor that runs layers.
//!
//! Shapes are static, so `Shape` is constant, and so is the arithmetic that exporters make of it.
//! What is left are nodes that compute something of the inputs. Slices are cut out of these, so a
//! slice carries values where the file has nodes, and folds just as the whole model does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::clean::{self, CleanGraph};
use super::import::Scope;
use super::operators::{self, Made, Meaning, Reading};
use super::proto::{NodeProto, data_type};
use super::view::{self, NodeView};
use crate::device::DeviceChoice;
use crate::error::ImportError;
use crate::exec::{self, portable};
use crate::graph::{Layer, TensorId};
use crate::profile;
use crate::tensor::TensorInfo;
use crate::weights::{Constant, Weight};

type Result<T> = std::result::Result<T, ImportError>;

/// Replaces nodes by their values where those are known.
pub(crate) fn evaluate(graph: &mut CleanGraph, opset: i64) -> Result<()> {
    let mut evaluator = Evaluator::default();
    evaluator.scope.constants = std::mem::take(&mut graph.constants);
    for input in &graph.inputs {
        evaluator.define(input.clone());
    }
    for node in std::mem::take(&mut graph.nodes) {
        evaluator.add(node, opset)?;
    }
    let Evaluator { scope, mut nodes, .. } = evaluator;
    graph.constants = scope.constants;
    keep_constant_outputs(&mut graph.constants, &mut nodes, &graph.outputs);
    graph.nodes = clean::live_nodes(nodes, &graph.outputs);
    let used: HashSet<&String> = graph.nodes.iter().flat_map(|node| &node.input).collect();
    graph.constants.retain(|name, _| used.contains(name));
    Ok(())
}

#[derive(Default)]
struct Evaluator {
    scope: Scope,
    /// The nodes whose values are not known.
    nodes: Vec<NodeProto>,
    /// Bytes made so far.
    bytes: u64,
    /// Operations done so far.
    flops: u64,
}

impl Evaluator {
    fn define(&mut self, info: TensorInfo) {
        self.scope.values.insert(info.name.clone(), TensorId(self.scope.tensors.len()));
        self.scope.tensors.push(info);
    }

    fn add(&mut self, node: NodeProto, opset: i64) -> Result<()> {
        let inputs = || node.input.iter().filter(|name| !name.is_empty());
        let known = inputs().all(|name| self.scope.constants.contains_key(name));
        // An `Identity` is here only because an output of the graph needs it.
        let known = known && node.op_type.as_deref() != Some("Identity");
        let constants = if known {
            let scope = promoted(&self.scope, inputs());
            match operators::read(&NodeView { node: &node, opset, scope: &scope })? {
                Reading::Constants(constants) => constants,
                Reading::Meaning(meaning) => self.compute(&node, scope, *meaning)?,
            }
        } else {
            match operators::read(&NodeView { node: &node, opset, scope: &self.scope })? {
                Reading::Constants(constants) => constants,
                Reading::Meaning(meaning) => return self.keep(node, *meaning),
            }
        };
        for (name, constant) in node.output.iter().zip(constants) {
            self.spend(&node, constant.data.len() as u64, 0)?;
            if !name.is_empty() {
                self.scope.constants.insert(name.clone(), Arc::new(constant));
            }
        }
        Ok(())
    }

    /// Leaves a node to be computed when the model runs.
    fn keep(&mut self, node: NodeProto, meaning: Meaning) -> Result<()> {
        if let Some(made) = meaning.outputs.iter().find(|made| made.shape.contains(&0)) {
            let problem =
                format!("its result of shape {:?} is empty, which is not supported", made.shape);
            return Err(view::node_error(&node, problem));
        }
        for (name, Made { dtype, shape }) in node.output.iter().zip(meaning.outputs) {
            if !name.is_empty() {
                self.define(TensorInfo { name: name.clone(), dtype, shape });
            }
        }
        self.nodes.push(node);
        Ok(())
    }

    /// Runs a node whose inputs are constant.
    fn compute(
        &mut self,
        node: &NodeProto,
        mut scope: Scope,
        meaning: Meaning,
    ) -> Result<Vec<Constant>> {
        if meaning.outputs.iter().all(|made| made.shape.contains(&0)) {
            let empty = |made: Made| {
                Constant::new(data_type::code(made.dtype), made.shape, bytes::Bytes::new())
            };
            return Ok(meaning.outputs.into_iter().map(empty).collect());
        }
        let made = meaning.outputs.iter().zip(0..);
        let outputs: Vec<TensorId> = made
            .map(|(Made { dtype, shape }, i)| {
                let (name, shape) = (format!("result {i}"), shape.clone());
                scope.tensors.push(TensorInfo { name, dtype: *dtype, shape });
                TensorId(scope.tensors.len() - 1)
            })
            .collect();
        let layer = Layer {
            name: view::node_name(node).to_owned(),
            op: meaning.op,
            activation: meaning.activation,
            inputs: meaning.inputs,
            constants: meaning.constants,
            results: (0..outputs.len()).collect(),
            outputs,
            nodes: Vec::new(),
        };
        let bytes = layer.outputs.iter().map(|id| scope.tensors[id.0].bytes()).sum();
        self.spend(node, bytes, profile::flops(&scope.tensors, &layer))?;
        Ok(run(&scope, &layer))
    }

    /// Files come from strangers: what is computed while reading one is bounded.
    fn spend(&mut self, node: &NodeProto, bytes: u64, flops: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.flops = self.flops.saturating_add(flops);
        if self.bytes > BYTES_MAX || self.flops > FLOPS_MAX {
            return Err(view::node_error(
                node,
                "what the model computes from constants alone is too large; simplify it first (onnxsim)",
            ));
        }
        Ok(())
    }
}

/// The scope of a node whose inputs are constants, in which they count as computed, too.
fn promoted<'a>(scope: &Scope, inputs: impl Iterator<Item = &'a String>) -> Scope {
    let mut small = Scope::default();
    for name in inputs {
        let constant = &scope.constants[name];
        let new = small.constants.insert(name.clone(), constant.clone()).is_none();
        let dtype = constant.dtype().filter(|_| new && !constant.dims.contains(&0));
        if let Some(dtype) = dtype {
            small.values.insert(name.clone(), TensorId(small.tensors.len()));
            small.tensors.push(TensorInfo {
                name: name.clone(),
                dtype,
                shape: constant.dims.clone(),
            });
        }
    }
    small
}

fn run(scope: &Scope, layer: &Layer) -> Vec<Constant> {
    let device = DeviceChoice::Cpu.open();
    let kernel = portable::prepare(&scope.tensors, layer, &device);
    let upload = |id: &TensorId| {
        let constant = &scope.constants[&scope.tensors[id.0].name];
        let weight = Weight::new(constant.clone()).expect("promoted constants have a known type");
        exec::upload_weight(&weight, &device)
    };
    let values = kernel.run(layer.inputs.iter().map(upload).collect());
    let outputs = layer.outputs.iter().zip(values);
    outputs
        .map(|(id, value)| {
            let info = &scope.tensors[id.0];
            let data = exec::download(value, info).into_bytes();
            Constant::new(data_type::code(info.dtype), info.shape.clone(), data)
        })
        .collect()
}

/// An output that is constant is made of a constant of another name, by an `Identity`.
fn keep_constant_outputs(
    constants: &mut HashMap<String, Arc<Constant>>,
    nodes: &mut Vec<NodeProto>,
    outputs: &[String],
) {
    for output in outputs {
        let Some(constant) = constants.remove(output) else { continue };
        let mut name = format!("{output}:value");
        while constants.contains_key(&name) {
            name.push('\'');
        }
        for input in nodes.iter_mut().flat_map(|node| &mut node.input) {
            if input == output {
                input.clone_from(&name);
            }
        }
        constants.insert(name.clone(), constant);
        nodes.push(clean::identity(name, output.clone()));
    }
}

/// Most bytes of computed constants.
const BYTES_MAX: u64 = 1 << 28;

/// Most operations to compute them: about a second.
const FLOPS_MAX: u64 = 1 << 31;
