//! What each operator means: its typed form, and the types and concrete shapes of what it makes.
//!
//! [`table`] lists the operators; each has a reader in the file of its family.

mod elementwise;
mod generate;
mod layout;
mod linear;
mod normalize;
mod on_values;
mod reduce;
mod resize;
mod select;
pub(crate) mod table;
mod windows;
mod windows_nd;

use super::view::{NodeView, node_name, own_operator};
use crate::error::ImportError;
use crate::graph::{Activation, Op, TensorId};
use crate::tensor::DType;
use crate::weights::{Constant, Weight};

/// What a node computes.
pub(crate) struct Meaning {
    pub(crate) op: Op,
    pub(crate) activation: Option<Activation>,
    /// The activations it takes.
    pub(crate) inputs: Vec<TensorId>,
    /// The constants it takes as arguments, and at which places.
    pub(crate) constants: Vec<(usize, Weight)>,
    /// What it makes, in the operator's order.
    pub(crate) outputs: Vec<Made>,
}

/// A tensor that a node makes or takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

/// The arguments of an operator that takes activations and constants alike.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) inputs: Vec<TensorId>,
    pub(crate) constants: Vec<(usize, Weight)>,
    /// The types and shapes of all of them.
    pub(crate) made: Vec<Made>,
}

/// What a node turns out to be.
pub(crate) enum Reading {
    /// Values that are known now: its outputs, in the operator's order.
    Constants(Vec<Constant>),
    /// Something to compute.
    Meaning(Box<Meaning>),
}

impl Meaning {
    /// A node that makes one tensor of type `f32` of the given activations.
    pub(crate) fn new(op: Op, inputs: Vec<TensorId>, shape: Vec<usize>) -> Self {
        let outputs = vec![Made { dtype: DType::F32, shape }];
        Self { op, activation: None, inputs, constants: Vec::new(), outputs }
    }
}

impl From<Meaning> for Reading {
    fn from(meaning: Meaning) -> Self {
        Self::Meaning(Box::new(meaning))
    }
}

impl Arguments {
    /// The node that computes one tensor of these arguments.
    pub(crate) fn one(self, op: Op, dtype: DType, shape: Vec<usize>) -> Reading {
        self.many(op, vec![Made { dtype, shape }])
    }

    /// The node that computes these tensors of these arguments.
    pub(crate) fn many(self, op: Op, outputs: Vec<Made>) -> Reading {
        let Self { inputs, constants, .. } = self;
        Meaning { op, activation: None, inputs, constants, outputs }.into()
    }

    /// The type of the first argument.
    pub(crate) fn dtype(&self) -> DType {
        self.made[0].dtype
    }

    /// The shape of argument `i`.
    pub(crate) fn shape(&self, i: usize) -> &[usize] {
        &self.made[i].shape
    }

    /// Checks that all arguments have a type of this list, and the same.
    pub(crate) fn expect_types(
        &self,
        view: &NodeView<'_>,
        allowed: &[DType],
    ) -> Result<(), ImportError> {
        for (i, made) in self.made.iter().enumerate() {
            if !allowed.contains(&made.dtype) {
                return Err(view.wrong_type(i, made.dtype));
            }
            if made.dtype != self.dtype() {
                return Err(view.error(format!(
                    "its inputs have values of different types, {} and {}",
                    self.dtype(),
                    made.dtype
                )));
            }
        }
        Ok(())
    }
}

/// Reads one node.
pub(crate) fn read(view: &NodeView<'_>) -> Result<Reading, ImportError> {
    let operator = own_operator(view.node).and_then(table::find);
    let Some(operator) = operator else { return Err(unsupported(view)) };
    if !operator.versions().contains(&view.opset) {
        return Err(view.error(format!("opset {} has no such operator", view.opset)));
    }
    (operator.reader)(view)
}

fn unsupported(view: &NodeView<'_>) -> ImportError {
    let op = view.node.op_type.as_deref().unwrap_or("without a type");
    let op = match view.node.domain.as_deref() {
        None | Some("") => op.to_owned(),
        Some(domain) => format!("{domain}.{op}"),
    };
    ImportError::UnsupportedOperator {
        op,
        node: node_name(view.node).to_owned(),
        opset: view.opset,
    }
}

/// Every type that there is.
pub(crate) const ANY: [DType; 4] = [DType::Bool, DType::F32, DType::I32, DType::I64];

/// The types that are numbers.
pub(crate) const NUMBERS: [DType; 3] = [DType::F32, DType::I32, DType::I64];

/// The type of most of a network.
pub(crate) const FLOATS: [DType; 1] = [DType::F32];
