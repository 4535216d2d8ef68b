//! What each operator means: its typed form and the concrete shape of its output.

use super::view::{NodeView, node_name, own_operator};
use super::windows;
use crate::error::ImportError;
use crate::graph::{Activation, BatchNorm, Gemm, Op, Operand, TensorId};
use crate::shape;
use crate::tensor::DType;
use crate::weights::Weight;

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

/// A result of a node.
pub(crate) struct Made {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

impl Meaning {
    /// A node that makes one tensor of type `f32` of the given activations.
    pub(crate) fn new(op: Op, inputs: Vec<TensorId>, shape: Vec<usize>) -> Self {
        let outputs = vec![Made { dtype: DType::F32, shape }];
        Self { op, activation: None, inputs, constants: Vec::new(), outputs }
    }
}

/// Reads one node.
pub(crate) fn read(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    match own_operator(view.node) {
        Some("Add") => add(view),
        Some("AveragePool") => windows::average_pool(view),
        Some("BatchNormalization") => batch_norm(view),
        Some("Clip") => activation(view, clip),
        Some("Concat") => concat(view),
        Some("Conv") => windows::conv(view),
        Some("Flatten") => flatten(view),
        Some("Gemm") => gemm(view),
        Some("GlobalAveragePool") => global_average_pool(view),
        Some("LeakyRelu") => activation(view, leaky_relu),
        Some("MatMul") => mat_mul(view),
        Some("MaxPool") => windows::max_pool(view),
        Some("Relu") => activation(view, relu),
        Some("Reshape") => reshape(view),
        Some("Softmax") => softmax(view),
        _ => Err(unsupported(view)),
    }
}

fn unsupported(view: &NodeView<'_>) -> ImportError {
    let op = view.node.op_type.as_deref().unwrap_or("without a type");
    let op = match view.node.domain.as_deref() {
        None | Some("") => op.to_owned(),
        Some(domain) => format!("{domain}.{op}"),
    };
    ImportError::UnsupportedOperator { op, node: node_name(view.node).to_owned() }
}

fn activation(
    view: &NodeView<'_>,
    read: impl FnOnce(&NodeView<'_>) -> Result<Activation, ImportError>,
) -> Result<Meaning, ImportError> {
    let (input, shape) = view.activation(0)?;
    let mut meaning = Meaning::new(Op::Activation, vec![input], shape.to_vec());
    meaning.activation = Some(read(view)?);
    Ok(meaning)
}

fn relu(view: &NodeView<'_>) -> Result<Activation, ImportError> {
    view.expect_inputs(1..=1)?;
    Ok(Activation::Relu)
}

fn leaky_relu(view: &NodeView<'_>) -> Result<Activation, ImportError> {
    view.expect_inputs(1..=1)?;
    Ok(Activation::LeakyRelu { alpha: view.float("alpha").unwrap_or(0.01) })
}

/// Bounds are inputs since version 11 of the operator, and were attributes before.
fn clip(view: &NodeView<'_>) -> Result<Activation, ImportError> {
    view.expect_inputs(1..=3)?;
    let min = view.scalar(1)?.or(view.float("min")).unwrap_or(f32::NEG_INFINITY);
    let max = view.scalar(2)?.or(view.float("max")).unwrap_or(f32::INFINITY);
    if min.is_nan() || max.is_nan() {
        return Err(view.error("a bound is not a number"));
    }
    // The upper bound is applied last, so it wins where they contradict.
    Ok(Activation::Clip { min: min.min(max), max })
}

fn add(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    let (operand, inputs, [left, right]) = binary(view)?;
    let shape = view.check(shape::broadcast(&left, &right))?;
    Ok(Meaning::new(Op::Add(operand), inputs, shape))
}

fn mat_mul(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    let (operand, inputs, [left, right]) = binary(view)?;
    let plan = view.check(shape::matmul(&left, &right))?;
    Ok(Meaning::new(Op::MatMul(operand), inputs, plan.output))
}

/// The second operand of a binary operator, its activations, and the shapes of both operands.
type Binary = (Operand, Vec<TensorId>, [Vec<usize>; 2]);

/// The operands of a binary operator, at most one of them constant.
fn binary(view: &NodeView<'_>) -> Result<Binary, ImportError> {
    view.expect_inputs(2..=2)?;
    if view.is_constant(0) {
        let (weight, (input, shape)) = (view.weight(0)?, view.activation(1)?);
        let shapes = [weight.shape().to_vec(), shape.to_vec()];
        return Ok((Operand::ConstantLeft(weight), vec![input], shapes));
    }
    let (left, left_shape) = view.activation(0)?;
    if view.is_constant(1) {
        let weight = view.weight(1)?;
        let shapes = [left_shape.to_vec(), weight.shape().to_vec()];
        return Ok((Operand::ConstantRight(weight), vec![left], shapes));
    }
    let (right, right_shape) = view.activation(1)?;
    Ok((Operand::Activation, vec![left, right], [left_shape.to_vec(), right_shape.to_vec()]))
}

fn batch_norm(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    view.expect_inputs(5..=5)?;
    if view.flag("training_mode")? || view.int("spatial", 1) != 1 {
        return Err(view
            .error("it is in training mode, or not per channel; export the model for inference"));
    }
    let (input, shape) = view.activation(0)?;
    let &[_, channels, ..] = shape else {
        return Err(view.error(format!("the input has shape {shape:?}, which has no channels")));
    };
    let epsilon = view.float("epsilon").unwrap_or(1e-5);
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(view.error(format!("epsilon is {epsilon}; it must be a small positive number")));
    }
    let norm = BatchNorm {
        scale: view.channel_weight(1, channels)?,
        shift: view.channel_weight(2, channels)?,
        mean: view.channel_weight(3, channels)?,
        variance: view.channel_weight(4, channels)?,
        epsilon,
    };
    Ok(Meaning::new(Op::BatchNorm(norm), vec![input], shape.to_vec()))
}

fn concat(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    let count = view.node.input.len();
    view.expect_inputs(1..=count.max(1))?;
    let (first, first_shape) = view.activation(0)?;
    let axis = view.check(shape::axis(view.int("axis", 1), first_shape.len()))?;
    let mut output = first_shape.to_vec();
    let mut inputs = vec![first];
    for i in 1..count {
        let (input, shape) = view.activation(i)?;
        let fits = shape.len() == output.len()
            && (0..output.len()).all(|d| d == axis || shape[d] == output[d]);
        if !fits {
            return Err(view.error(format!(
                "shapes {first_shape:?} and {shape:?} do not join along axis {axis}"
            )));
        }
        output[axis] = output[axis].saturating_add(shape[axis]);
        inputs.push(input);
    }
    view.check(shape::elements(&output))?;
    Ok(Meaning::new(Op::Concat { axis }, inputs, output))
}

fn flatten(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    view.expect_inputs(1..=1)?;
    let (input, shape) = view.activation(0)?;
    // One past the last dimension is allowed here, unlike for other operators.
    let axis = match view.int("axis", 1) {
        axis if axis == shape.len() as i64 => shape.len(),
        axis => view.check(shape::axis(axis, shape.len()))?,
    };
    let (rows, columns) = shape.split_at(axis);
    Ok(Meaning::new(Op::Flatten, vec![input], vec![shape::product(rows), shape::product(columns)]))
}

fn reshape(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    view.expect_inputs(1..=2)?;
    let (input, shape) = view.activation(0)?;
    let target = match view.ints("shape") {
        Some(target) if view.input_name(1).is_none() => target.to_vec(),
        _ => view.integers(1)?,
    };
    if view.flag("allowzero")? && target.contains(&0) {
        return Err(view.error("an empty dimension (allowzero) is not supported"));
    }
    let shape = view.check(shape::reshape(shape, &target))?;
    Ok(Meaning::new(Op::Reshape, vec![input], shape))
}

fn gemm(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    view.expect_inputs(2..=3)?;
    let (input, shape) = view.activation(0)?;
    let (transpose_input, transpose_weight) = (view.flag("transA")?, view.flag("transB")?);
    let weight = view.weight(1)?;
    let (&[a, b], &[c, d]) = (shape, weight.shape()) else {
        return Err(
            view.error(format!("shapes {shape:?} and {:?} are not matrices", weight.shape()))
        );
    };
    let [m, k] = if transpose_input { [b, a] } else { [a, b] };
    let [k_weight, n] = if transpose_weight { [d, c] } else { [c, d] };
    if k != k_weight {
        return Err(
            view.error(format!("shapes {shape:?} and {:?} do not multiply", weight.shape()))
        );
    }
    let output = vec![m, n];
    view.check(shape::elements(&output))?;
    let bias = view.optional_weight(2)?;
    if let Some(bias) = &bias
        && shape::broadcast(bias.shape(), &output).as_ref() != Ok(&output)
    {
        return Err(view.error(format!(
            "the bias of shape {:?} does not broadcast to {output:?}",
            bias.shape()
        )));
    }
    let (alpha, beta) = (view.float("alpha").unwrap_or(1.0), view.float("beta").unwrap_or(1.0));
    let op = Op::Gemm(Gemm { weight, bias, alpha, beta, transpose_input, transpose_weight });
    Ok(Meaning::new(op, vec![input], output))
}

fn global_average_pool(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    view.expect_inputs(1..=1)?;
    let (input, shape) = view.activation(0)?;
    let &[batch, channels, _, ..] = shape else {
        return Err(
            view.error(format!("the input has shape {shape:?}, which has no spatial dimensions"))
        );
    };
    let mut output = vec![1; shape.len()];
    output[..2].copy_from_slice(&[batch, channels]);
    Ok(Meaning::new(Op::GlobalAveragePool, vec![input], output))
}

fn softmax(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    view.expect_inputs(1..=1)?;
    let (input, shape) = view.activation(0)?;
    if shape.is_empty() {
        return Err(view.error("the input has no dimensions"));
    }
    // Before version 13 the operator worked on everything from the axis on.
    let (default, spans_the_rest) = if view.opset >= 13 { (-1, false) } else { (1, true) };
    let axis = view.check(shape::axis(view.int("axis", default), shape.len()))?;
    let (size, inner) = if spans_the_rest {
        (shape::product(&shape[axis..]), 1)
    } else {
        (shape[axis], shape::product(&shape[axis + 1..]))
    };
    Ok(Meaning::new(Op::Softmax { size, inner }, vec![input], shape.to_vec()))
}
