//! A node as the operator readers see it: checked inputs, checked attributes, good errors.

use super::constants;
use super::import::Scope;
use super::operators::{Arguments, Made};
use super::proto::{AttributeProto, NodeProto, data_type};
use crate::error::ImportError;
use crate::graph::TensorId;
use crate::shape;
use crate::tensor::DType;
use crate::weights::{Constant, Weight};

/// What is wrong with a node, with its name and operator.
pub(crate) fn node_error(node: &NodeProto, problem: impl Into<String>) -> ImportError {
    ImportError::Node {
        node: node_name(node).to_owned(),
        op: node.op_type.clone().unwrap_or_default(),
        problem: problem.into(),
    }
}

/// The error that an input of a node is computed where it must be constant.
pub(crate) fn computed(node: &NodeProto, tensor: &str) -> ImportError {
    ImportError::Computed {
        node: node_name(node).to_owned(),
        op: node.op_type.clone().unwrap_or_default(),
        tensor: tensor.to_owned(),
    }
}

/// The node's name, or that of its output if it has none.
pub(crate) fn node_name(node: &NodeProto) -> &str {
    let named = node.name.as_deref().filter(|name| !name.is_empty());
    named.or(node.output.first().map(String::as_str)).unwrap_or("without a name")
}

/// The operator's type, if it is one of ONNX's own.
pub(crate) fn own_operator(node: &NodeProto) -> Option<&str> {
    match node.domain.as_deref() {
        None | Some("" | "ai.onnx") => node.op_type.as_deref(),
        Some(_) => None,
    }
}

/// One node, in the scope of what came before it.
pub(crate) struct NodeView<'a> {
    pub(crate) node: &'a NodeProto,
    pub(crate) opset: i64,
    pub(crate) scope: &'a Scope,
}

impl<'a> NodeView<'a> {
    /// The error that this node has this problem.
    pub(crate) fn error(&self, problem: impl Into<String>) -> ImportError {
        node_error(self.node, problem)
    }

    /// Puts this node's name on a shape problem.
    pub(crate) fn check<T>(&self, result: shape::Result<T>) -> Result<T, ImportError> {
        result.map_err(|problem| self.error(problem))
    }

    /// Checks the number of inputs.
    pub(crate) fn expect_inputs(
        &self,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<(), ImportError> {
        let count = self.node.input.len();
        if range.contains(&count) {
            return Ok(());
        }
        Err(self.error(format!(
            "it has {count} inputs; the operator takes {} to {}",
            range.start(),
            range.end()
        )))
    }

    /// The name of input `i`, unless it is left out.
    pub(crate) fn input_name(&self, i: usize) -> Option<&'a str> {
        self.node.input.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Whether input `i` is constant.
    pub(crate) fn is_constant(&self, i: usize) -> bool {
        self.input_name(i).is_some_and(|name| self.scope.constants.contains_key(name))
    }

    /// Input `i`, which must be an activation of type `f32`, and its shape.
    pub(crate) fn activation(&self, i: usize) -> Result<(TensorId, &'a [usize]), ImportError> {
        let name = self.expect_name(i)?;
        let Some(&id) = self.scope.values.get(name) else {
            return Err(self.error(format!(
                "input '{name}' is a constant, where only a computed tensor is supported; simplify the model first (onnxsim)"
            )));
        };
        let info = &self.scope.tensors[id.0];
        if info.dtype != DType::F32 {
            return Err(self.wrong_type(i, info.dtype));
        }
        Ok((id, &info.shape))
    }

    /// The inputs of these numbers, which must all be there, as arguments of any type.
    pub(crate) fn arguments(
        &self,
        numbers: impl IntoIterator<Item = usize>,
    ) -> Result<Arguments, ImportError> {
        let mut arguments = Arguments::default();
        for (place, i) in numbers.into_iter().enumerate() {
            let made = self.info(i)?;
            let name = self.expect_name(i)?;
            match self.scope.values.get(name) {
                Some(&id) => arguments.inputs.push(id),
                None => arguments.constants.push((place, self.any_weight(i)?)),
            }
            if made.shape.contains(&0) {
                return Err(self.error(format!("input '{name}' is empty")));
            }
            arguments.made.push(made);
        }
        Ok(arguments)
    }

    /// The type and the shape of input `i`, computed or constant.
    pub(crate) fn info(&self, i: usize) -> Result<Made, ImportError> {
        match self.scope.values.get(self.expect_name(i)?) {
            Some(&id) => {
                let info = &self.scope.tensors[id.0];
                Ok(Made { dtype: info.dtype, shape: info.shape.clone() })
            }
            None => {
                let weight = self.any_weight(i)?;
                Ok(Made { dtype: weight.dtype(), shape: weight.shape().to_vec() })
            }
        }
    }

    /// Input `i`, which must be constant, of any type that the engine reads.
    pub(crate) fn any_weight(&self, i: usize) -> Result<Weight, ImportError> {
        let name = self.expect_name(i)?;
        let Some(constant) = self.scope.constants.get(name) else {
            return Err(computed(self.node, name));
        };
        Weight::new(constant.clone()).ok_or_else(|| {
            let kind = data_type::name(constant.data_type);
            self.error(format!("input '{name}' is {kind}, which is not supported"))
        })
    }

    /// The error that an input is of a type that the operator or the engine has no use for.
    pub(crate) fn wrong_type(&self, i: usize, dtype: DType) -> ImportError {
        let name = self.input_name(i).unwrap_or_default();
        self.error(format!("input '{name}' has values of type {dtype}, which is not supported"))
    }

    fn expect_name(&self, i: usize) -> Result<&'a str, ImportError> {
        self.input_name(i).ok_or_else(|| self.error(format!("input {i} is missing")))
    }

    /// Input `i`, which must be constant and of type `f32`.
    pub(crate) fn weight(&self, i: usize) -> Result<Weight, ImportError> {
        self.optional_weight(i)?.ok_or_else(|| self.error(format!("input {i} is missing")))
    }

    /// Input `i`, which must be constant and of type `f32` unless it is left out.
    pub(crate) fn optional_weight(&self, i: usize) -> Result<Option<Weight>, ImportError> {
        let Some(name) = self.input_name(i) else { return Ok(None) };
        let weight = self.any_weight(i)?;
        if weight.dtype() != DType::F32 {
            let dtype = weight.dtype();
            return Err(self.error(format!("input '{name}' has values of type {dtype}, not f32")));
        }
        Ok(Some(weight))
    }

    /// A constant `f32` of this length along its only dimension, for each channel.
    pub(crate) fn channel_weight(&self, i: usize, channels: usize) -> Result<Weight, ImportError> {
        let weight = self.weight(i)?;
        self.expect_shape(i, &weight, &[channels])?;
        Ok(weight)
    }

    /// Checks the shape of weight `i`.
    pub(crate) fn expect_shape(
        &self,
        i: usize,
        weight: &Weight,
        expected: &[usize],
    ) -> Result<(), ImportError> {
        if weight.shape() == expected {
            return Ok(());
        }
        let name = self.input_name(i).unwrap_or_default();
        Err(self.error(format!("input '{name}' has shape {:?}, not {expected:?}", weight.shape())))
    }

    /// The one `f32` of constant input `i`, unless it is left out.
    pub(crate) fn scalar(&self, i: usize) -> Result<Option<f32>, ImportError> {
        let Some(weight) = self.optional_weight(i)? else { return Ok(None) };
        match weight.values()[..] {
            [value] => Ok(Some(value)),
            _ => Err(self
                .error(format!("input {i} must be one number, not of shape {:?}", weight.shape()))),
        }
    }

    /// The integers of constant input `i`.
    pub(crate) fn integers(&self, i: usize) -> Result<Vec<i64>, ImportError> {
        let weight = self.any_weight(i)?;
        if !weight.dtype().is_int() {
            return Err(self.wrong_type(i, weight.dtype()));
        }
        Ok(weight.integers())
    }

    /// The integers of an attribute, or of constant input `i`; which of them it is depends on the
    /// operator's version.
    pub(crate) fn integers_of(
        &self,
        attribute: &str,
        i: usize,
    ) -> Result<Option<Vec<i64>>, ImportError> {
        match (self.ints(attribute), self.input_name(i)) {
            (_, Some(_)) => self.integers(i).map(Some),
            (Some(values), None) => Ok(Some(values.to_vec())),
            (None, None) => Ok(None),
        }
    }

    /// The one integer of constant input `i`, unless it is left out.
    pub(crate) fn integer(&self, i: usize) -> Result<Option<i64>, ImportError> {
        if self.input_name(i).is_none() {
            return Ok(None);
        }
        match self.integers(i)?[..] {
            [value] => Ok(Some(value)),
            _ => Err(self.error(format!("input {i} must be one number"))),
        }
    }

    /// The only tensor attribute of this name, if it is there.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Constant>, ImportError> {
        let Some(tensor) = self.attribute(name).and_then(|attribute| attribute.t.as_ref()) else {
            return Ok(None);
        };
        constants::read(tensor, name, None).map(Some)
    }

    /// Whether somebody may read output `i`.
    pub(crate) fn has_output(&self, i: usize) -> bool {
        self.node.output.get(i).is_some_and(|name| !name.is_empty())
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    /// An integer attribute.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i.unwrap_or_default())
    }

    /// An integer attribute, if it is there.
    pub(crate) fn optional_int(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(|attribute| attribute.i.unwrap_or_default())
    }

    /// A list of floating-point numbers, if it is there.
    pub(crate) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|attribute| &attribute.floats[..])
    }

    /// A flag: 0 or 1.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ImportError> {
        match self.int(name, 0) {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.error(format!("{name} is {other}; it must be 0 or 1"))),
        }
    }

    /// A floating-point attribute, if it is there.
    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).map(|attribute| attribute.f.unwrap_or_default())
    }

    /// A list of integers, if it is there.
    pub(crate) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| &attribute.ints[..])
    }

    /// A string attribute, if it is there.
    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, ImportError> {
        let Some(attribute) = self.attribute(name) else { return Ok(None) };
        std::str::from_utf8(attribute.s.as_deref().unwrap_or_default())
            .map(Some)
            .map_err(|_| self.error(format!("{name} is not text")))
    }
}
