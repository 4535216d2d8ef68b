//! Leaves only the nodes that compute: what nobody needs goes, `Constant` nodes become constants,
//! and `Identity` and `Dropout` vanish into the names of what they pass on.
//!
//! The result is a list in which every input is a graph input, a constant or an earlier output,
//! so there are no cycles, and in which a tensor has one name. A slice is cut out of this list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::proto::{
    AttributeProto, Dimension, GraphProto, NodeProto, TensorProto, ValueInfoProto, data_type,
};
use super::{constants, view};
use crate::error::ImportError;
use crate::options::ImportOptions;
use crate::shape;
use crate::tensor::TensorInfo;
use crate::weights::{Constant, WeightSource};

/// A graph without ballast.
pub(crate) struct CleanGraph {
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) constants: HashMap<String, Arc<Constant>>,
    pub(crate) inputs: Vec<TensorInfo>,
    pub(crate) outputs: Vec<String>,
}

/// Cleans a decoded graph.
pub(crate) fn clean(
    graph: GraphProto,
    opset: i64,
    source: Option<&dyn WeightSource>,
    options: &ImportOptions,
) -> Result<CleanGraph, ImportError> {
    check_limits(&graph)?;
    let outputs = output_names(&graph)?;
    let nodes = live_nodes(graph.node, &outputs);
    let used: HashSet<&str> =
        nodes.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    let mut cleaner = Cleaner { opset, ..Cleaner::default() };
    cleaner.add_initializers(&graph.initializer, &used, source)?;
    let initializers =
        graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
    cleaner.add_inputs(&graph.input, &initializers, options)?;
    for node in nodes {
        cleaner.add_node(node, source)?;
    }
    cleaner.finish(outputs)
}

#[derive(Default)]
struct Cleaner {
    opset: i64,
    nodes: Vec<NodeProto>,
    constants: HashMap<String, Arc<Constant>>,
    inputs: Vec<TensorInfo>,
    /// Every name defined so far, and the name it stands for.
    roots: HashMap<String, String>,
}

impl Cleaner {
    fn add_initializers(
        &mut self,
        initializers: &[TensorProto],
        used: &HashSet<&str>,
        source: Option<&dyn WeightSource>,
    ) -> Result<(), ImportError> {
        for tensor in initializers {
            let name = tensor.name.as_deref().unwrap_or_default();
            self.define(name, name)?;
            if used.contains(name) {
                let constant = constants::read(tensor, name, source)?;
                self.constants.insert(name.to_owned(), Arc::new(constant));
            }
        }
        Ok(())
    }

    /// Adds the real inputs: before version 4 of the format, initializers are listed there too.
    fn add_inputs(
        &mut self,
        inputs: &[ValueInfoProto],
        initializers: &HashSet<&str>,
        options: &ImportOptions,
    ) -> Result<(), ImportError> {
        let mut fixed = 0;
        for input in inputs {
            let name = input.name.as_deref().unwrap_or_default();
            if initializers.contains(name) {
                continue;
            }
            self.define(name, name)?;
            match options.fixed(name) {
                Some(value) => {
                    self.constants.insert(name.to_owned(), value.clone());
                    fixed += 1;
                }
                None => self.inputs.push(input_info(input, name)?),
            }
        }
        if fixed != options.count() {
            return Err(ImportError::graph("it has no input of the name that is to be fixed"));
        }
        Ok(())
    }

    fn add_node(
        &mut self,
        mut node: NodeProto,
        source: Option<&dyn WeightSource>,
    ) -> Result<(), ImportError> {
        for input in node.input.iter_mut().filter(|input| !input.is_empty()) {
            match self.roots.get(input.as_str()) {
                Some(root) => input.clone_from(root),
                None => {
                    let problem = format!(
                        "input '{input}' is made by no earlier node (it is missing, or the nodes go in a circle)"
                    );
                    return Err(view::node_error(&node, problem));
                }
            }
        }
        let output = node.output.first().cloned().unwrap_or_default();
        match view::own_operator(&node) {
            Some("Constant") => {
                let constant = constants::read_node(&node, &output, source)?;
                self.define(&output, &output)?;
                self.constants.insert(output, Arc::new(constant));
            }
            Some("Identity" | "Dropout") => {
                let root = self.passed_on(&node)?;
                if let Some(mask) = node.output.get(1).filter(|name| !name.is_empty()) {
                    self.add_mask(&node, &root, mask)?;
                }
                self.define(&output, &root)?;
            }
            _ => {
                for output in node.output.iter().filter(|name| !name.is_empty()) {
                    self.define(output, output)?;
                }
                self.nodes.push(node);
            }
        }
        Ok(())
    }

    /// What an `Identity` or `Dropout` passes on.
    fn passed_on(&self, node: &NodeProto) -> Result<String, ImportError> {
        let Some(root) = node.input.first().filter(|name| !name.is_empty()) else {
            return Err(view::node_error(node, "it has no input"));
        };
        if let Some(training) = node.input.get(2).filter(|name| !name.is_empty()) {
            let Some(flag) = self.constants.get(training) else {
                return Err(view::computed(node, training));
            };
            if flag.data.iter().any(|&byte| byte != 0) {
                return Err(view::node_error(
                    node,
                    "it is in training mode; export the model for inference",
                ));
            }
        }
        Ok(root.clone())
    }

    /// The mask of a `Dropout` that drops nothing: as many truths as it passes on values.
    fn add_mask(&mut self, node: &NodeProto, root: &str, mask: &str) -> Result<(), ImportError> {
        if self.opset < 10 {
            return Err(view::node_error(node, "its mask is supported since opset 10"));
        }
        let shape = format!("{mask}:shape");
        self.define(&shape, &shape)?;
        self.define(mask, mask)?;
        self.nodes.push(new_node("Shape", root.to_owned(), shape.clone()));
        let mut truths = new_node("ConstantOfShape", shape, mask.to_owned());
        truths.attribute.push(AttributeProto {
            name: Some("value".to_owned()),
            t: Some(TensorProto {
                dims: vec![1],
                data_type: Some(data_type::BOOL),
                int32_data: vec![1],
                ..TensorProto::default()
            }),
            ..AttributeProto::default()
        });
        self.nodes.push(truths);
        Ok(())
    }

    fn define(&mut self, name: &str, root: &str) -> Result<(), ImportError> {
        if name.is_empty() {
            return Err(ImportError::graph("a tensor has no name"));
        }
        match self.roots.insert(name.to_owned(), root.to_owned()) {
            None => Ok(()),
            Some(_) => Err(ImportError::tensor(name, "it is defined twice")),
        }
    }

    fn finish(mut self, outputs: Vec<String>) -> Result<CleanGraph, ImportError> {
        let renamed = self.output_renames(&outputs)?;
        for node in &mut self.nodes {
            for name in node.input.iter_mut().chain(&mut node.output) {
                if let Some(new) = renamed.get(name.as_str()) {
                    name.clone_from(new);
                }
            }
        }
        for output in &outputs {
            let root = &self.roots[output];
            let root = renamed.get(root).unwrap_or(root);
            if root != output {
                self.nodes.push(identity(root.clone(), output.clone()));
            }
        }
        Ok(CleanGraph {
            nodes: self.nodes,
            constants: self.constants,
            inputs: self.inputs,
            outputs,
        })
    }

    /// An output that an `Identity` made keeps its name: what it stands for takes that name. Where
    /// it cannot, being an input, a constant or another output already, the `Identity` stays.
    fn output_renames(&self, outputs: &[String]) -> Result<HashMap<String, String>, ImportError> {
        let computed: HashSet<&String> = self.nodes.iter().flat_map(|node| &node.output).collect();
        let mut renamed = HashMap::new();
        let mut seen = HashSet::new();
        for output in outputs {
            let Some(root) = self.roots.get(output) else {
                return Err(ImportError::tensor(output, "it is an output, but no node makes it"));
            };
            if !seen.insert(output) {
                return Err(ImportError::tensor(output, "another output is the same tensor"));
            }
            // An output that is listed under its root's own name takes that in any case.
            let taken = outputs.contains(root) && root != output;
            if computed.contains(root) && !taken {
                renamed.entry(root.clone()).or_insert_with(|| output.clone());
            }
        }
        Ok(renamed)
    }
}

/// A node that passes a tensor on under another name.
pub(crate) fn identity(input: String, output: String) -> NodeProto {
    new_node("Identity", input, output)
}

fn new_node(op: &str, input: String, output: String) -> NodeProto {
    NodeProto {
        input: vec![input],
        output: vec![output],
        op_type: Some(op.to_owned()),
        ..NodeProto::default()
    }
}

fn check_limits(graph: &GraphProto) -> Result<(), ImportError> {
    if graph.node.len() > NODES_MAX {
        let problem = format!("{} nodes are more than the {NODES_MAX} supported", graph.node.len());
        return Err(ImportError::graph(problem));
    }
    let from_nodes = graph.node.iter().flat_map(|node| node.output.iter().chain(&node.input));
    let declared = graph.input.iter().chain(&graph.output).filter_map(|info| info.name.as_ref());
    let initializers = graph.initializer.iter().filter_map(|tensor| tensor.name.as_ref());
    match from_nodes.chain(declared).chain(initializers).find(|name| name.len() > NAME_BYTES_MAX) {
        Some(name) => {
            let problem =
                format!("a tensor's name is {} bytes long, more than {NAME_BYTES_MAX}", name.len());
            Err(ImportError::graph(problem))
        }
        None => Ok(()),
    }
}

fn output_names(graph: &GraphProto) -> Result<Vec<String>, ImportError> {
    let outputs: Vec<String> =
        graph.output.iter().map(|output| output.name.clone().unwrap_or_default()).collect();
    if outputs.is_empty() {
        return Err(ImportError::graph("it has no outputs"));
    }
    Ok(outputs)
}

/// The nodes that the outputs depend on, in their order.
pub(crate) fn live_nodes(nodes: Vec<NodeProto>, outputs: &[String]) -> Vec<NodeProto> {
    let mut needed: HashSet<String> = outputs.iter().cloned().collect();
    let mut live: Vec<NodeProto> = nodes
        .into_iter()
        .rev()
        .filter(|node| {
            let is_live = node.output.iter().any(|output| needed.contains(output));
            if is_live {
                needed.extend(node.input.iter().filter(|input| !input.is_empty()).cloned());
            }
            is_live
        })
        .collect();
    live.reverse();
    live
}

/// The type and the concrete shape of a graph input; an open batch becomes 1.
fn input_info(input: &ValueInfoProto, name: &str) -> Result<TensorInfo, ImportError> {
    let fail = |problem: String| ImportError::tensor(name, problem);
    let tensor = input
        .r#type
        .as_ref()
        .and_then(|kind| kind.tensor_type.as_ref())
        .ok_or_else(|| fail("it is an input, but not a tensor".to_owned()))?;
    let kind = tensor.elem_type.unwrap_or_default();
    // Half precision becomes single at the edge; double is refused, for it would lose digits.
    let dtype = data_type::dtype(kind).filter(|_| kind != data_type::DOUBLE).ok_or_else(|| {
        let kind = data_type::name(kind);
        fail(format!("its type is {kind}; supported are FLOAT, FLOAT16, INT64, INT32 and BOOL"))
    })?;
    let dims = &tensor
        .shape
        .as_ref()
        .ok_or_else(|| fail("it is an input without a shape".to_owned()))?
        .dim;
    if dims.len() > shape::RANK_MAX {
        return Err(fail(format!(
            "{} dimensions are more than the {} supported",
            dims.len(),
            shape::RANK_MAX
        )));
    }
    let known = |(i, dim): (usize, &Dimension)| match dim.dim_value {
        Some(value) if value > 0 => Ok(value),
        _ if i == 0 => Ok(1),
        _ => Err(fail(format!(
            "dimension {i} has no fixed size; export the model with a fixed input size"
        ))),
    };
    let dims = dims.iter().enumerate().map(known).collect::<Result<Vec<_>, _>>()?;
    let shape = shape::from_i64(&dims).map_err(fail)?;
    Ok(TensorInfo { name: name.to_owned(), dtype, shape })
}

/// Most nodes of a graph, before folding.
const NODES_MAX: usize = 1 << 18;

/// Longest name of a tensor; names are repeated in every frontier that the tensor crosses.
const NAME_BYTES_MAX: usize = 512;
