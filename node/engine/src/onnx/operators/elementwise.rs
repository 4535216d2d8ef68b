//! The operators that go value by value.

use super::super::view::NodeView;
use super::{ANY, Arguments, FLOATS, Meaning, NUMBERS, Reading};
use crate::error::ImportError;
use crate::graph::{Activation, Binary, Nary, Op, Operand, Remainder, TensorId, Unary};
use crate::onnx::proto::data_type;
use crate::shape;
use crate::tensor::DType;

type Result<T> = std::result::Result<T, ImportError>;

/// The activation functions that may fold into the layer before them.
pub(crate) fn activation(view: &NodeView<'_>) -> Result<Reading> {
    if view.node.op_type.as_deref() != Some("Clip") {
        view.expect_inputs(1..=1)?;
    }
    let (input, shape) = view.activation(0)?;
    let mut meaning = Meaning::new(Op::Activation, vec![input], shape.to_vec());
    meaning.activation = Some(activation_function(view)?);
    Ok(meaning.into())
}

fn activation_function(view: &NodeView<'_>) -> Result<Activation> {
    let float = |name: &str, default: f32| view.float(name).unwrap_or(default);
    Ok(match view.node.op_type.as_deref().unwrap_or_default() {
        "Celu" => Activation::Celu { alpha: non_zero(view, "alpha", 1.0)? },
        "Clip" => clip(view)?,
        "Elu" => Activation::Elu { alpha: float("alpha", 1.0) },
        "Gelu" => match view.string("approximate")?.unwrap_or("none") {
            "none" => Activation::Gelu,
            "tanh" => Activation::GeluTanh,
            other => return Err(view.error(format!("approximate '{other}' is not one of ONNX's"))),
        },
        "HardSigmoid" => {
            Activation::HardSigmoid { alpha: float("alpha", 0.2), beta: float("beta", 0.5) }
        }
        "HardSwish" => Activation::HardSwish,
        "LeakyRelu" => Activation::LeakyRelu { alpha: float("alpha", 0.01) },
        "Mish" => Activation::Mish,
        "Relu" => Activation::Relu,
        "Selu" => Activation::Selu {
            alpha: float("alpha", 1.673_263_2),
            gamma: float("gamma", 1.050_701),
        },
        "Sigmoid" => Activation::Sigmoid,
        "Softplus" => Activation::Softplus,
        "Softsign" => Activation::Softsign,
        "Swish" => Activation::Swish { alpha: float("alpha", 1.0) },
        "Tanh" => Activation::Tanh,
        "ThresholdedRelu" => Activation::ThresholdedRelu { alpha: float("alpha", 1.0) },
        other => unreachable!("the table has no activation {other}"),
    })
}

fn non_zero(view: &NodeView<'_>, name: &str, default: f32) -> Result<f32> {
    match view.float(name).unwrap_or(default) {
        0.0 => Err(view.error(format!("{name} must not be 0"))),
        value => Ok(value),
    }
}

/// Bounds are inputs since version 11 of the operator, and were attributes before.
fn clip(view: &NodeView<'_>) -> Result<Activation> {
    view.expect_inputs(1..=3)?;
    let min = view.scalar(1)?.or(view.float("min")).unwrap_or(f32::NEG_INFINITY);
    let max = view.scalar(2)?.or(view.float("max")).unwrap_or(f32::INFINITY);
    if min.is_nan() || max.is_nan() {
        return Err(view.error("a bound is not a number"));
    }
    // The upper bound is applied last, so it wins where they contradict.
    Ok(Activation::Clip { min: min.min(max), max })
}

/// One value to one.
pub(crate) fn unary(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = view.arguments([0])?;
    let unary = unary_function(view)?;
    arguments.expect_types(view, allowed(unary))?;
    let dtype = match unary {
        Unary::IsInf { .. } | Unary::IsNan => DType::Bool,
        _ => arguments.dtype(),
    };
    let shape = arguments.shape(0).to_vec();
    Ok(arguments.one(Op::Unary(unary), dtype, shape))
}

fn allowed(unary: Unary) -> &'static [DType] {
    match unary {
        Unary::Abs | Unary::Neg | Unary::Sign => &NUMBERS,
        Unary::BitwiseNot => &NUMBERS[1..],
        Unary::Not => &ANY[..1],
        _ => &FLOATS,
    }
}

fn unary_function(view: &NodeView<'_>) -> Result<Unary> {
    Ok(match view.node.op_type.as_deref().unwrap_or_default() {
        "Abs" => Unary::Abs,
        "Acos" => Unary::Acos,
        "Acosh" => Unary::Acosh,
        "Asin" => Unary::Asin,
        "Asinh" => Unary::Asinh,
        "Atan" => Unary::Atan,
        "Atanh" => Unary::Atanh,
        "BitwiseNot" => Unary::BitwiseNot,
        "Ceil" => Unary::Ceil,
        "Cos" => Unary::Cos,
        "Cosh" => Unary::Cosh,
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Floor" => Unary::Floor,
        "IsInf" => Unary::IsInf {
            negative: view.int("detect_negative", 1) != 0,
            positive: view.int("detect_positive", 1) != 0,
        },
        "IsNaN" => Unary::IsNan,
        "Log" => Unary::Log,
        "Neg" => Unary::Neg,
        "Not" => Unary::Not,
        "Reciprocal" => Unary::Reciprocal,
        "Round" => Unary::Round,
        "Shrink" => Unary::Shrink {
            lambda: view.float("lambd").unwrap_or(0.5),
            bias: view.float("bias").unwrap_or(0.0),
        },
        "Sign" => Unary::Sign,
        "Sin" => Unary::Sin,
        "Sinh" => Unary::Sinh,
        "Sqrt" => Unary::Sqrt,
        "Tan" => Unary::Tan,
        other => unreachable!("the table has no function {other}"),
    })
}

/// `Add`: what networks add most, activations of type `f32`, has a layer of its own.
pub(crate) fn add(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=2)?;
    if view.info(0)?.dtype != DType::F32 || view.is_constant(0) && view.is_constant(1) {
        return binary(view);
    }
    let (operand, inputs, [left, right]) = operands(view)?;
    let shape = view.check(shape::broadcast(&left, &right))?;
    Ok(Meaning::new(Op::Add(operand), inputs, shape).into())
}

/// The second operand of a binary operator, its activations, and the shapes of both operands.
pub(super) type Operands = (Operand, Vec<TensorId>, [Vec<usize>; 2]);

/// The operands of a binary operator on type `f32`, at most one of them constant.
pub(super) fn operands(view: &NodeView<'_>) -> Result<Operands> {
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

/// Two values to one.
pub(crate) fn binary(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=2)?;
    let arguments = view.arguments(0..2)?;
    let binary = binary_function(view)?;
    match binary {
        // An exponent may be of another type than the base.
        Binary::Pow => {
            for (i, made) in arguments.made.iter().enumerate() {
                if made.dtype == DType::Bool {
                    return Err(view.wrong_type(i, made.dtype));
                }
            }
        }
        _ => arguments.expect_types(view, operand_types(binary))?,
    }
    let shape = view.check(shape::broadcast(arguments.shape(0), arguments.shape(1)))?;
    if binary == Binary::PRelu && shape != arguments.shape(0) {
        return Err(view.error(format!(
            "the slopes of shape {:?} do not broadcast to {:?}",
            arguments.shape(1),
            arguments.shape(0)
        )));
    }
    let dtype = if binary.is_comparison() { DType::Bool } else { arguments.dtype() };
    Ok(arguments.one(Op::Binary(binary), dtype, shape))
}

fn operand_types(binary: Binary) -> &'static [DType] {
    match binary {
        Binary::And | Binary::Or | Binary::Xor => &ANY[..1],
        Binary::BitwiseAnd | Binary::BitwiseOr | Binary::BitwiseXor => &NUMBERS[1..],
        Binary::Equal => &ANY,
        Binary::PRelu => &FLOATS,
        _ => &NUMBERS,
    }
}

fn binary_function(view: &NodeView<'_>) -> Result<Binary> {
    Ok(match view.node.op_type.as_deref().unwrap_or_default() {
        "Add" => Binary::Add,
        "And" => Binary::And,
        "BitwiseAnd" => Binary::BitwiseAnd,
        "BitwiseOr" => Binary::BitwiseOr,
        "BitwiseXor" => Binary::BitwiseXor,
        "Div" => Binary::Div,
        "Equal" => Binary::Equal,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Mod" if view.flag("fmod")? => Binary::Mod(Remainder::Dividend),
        "Mod" => Binary::Mod(Remainder::Divisor),
        "Mul" => Binary::Mul,
        "Or" => Binary::Or,
        "Pow" => Binary::Pow,
        "PRelu" => Binary::PRelu,
        "Sub" => Binary::Sub,
        "Xor" => Binary::Xor,
        other => unreachable!("the table has no function {other}"),
    })
}

/// Any number of tensors to one.
pub(crate) fn nary(view: &NodeView<'_>) -> Result<Reading> {
    let arguments = all_arguments(view)?;
    let nary = match view.node.op_type.as_deref().unwrap_or_default() {
        "Max" => Nary::Max,
        "Mean" => Nary::Mean,
        "Min" => Nary::Min,
        _ => Nary::Sum,
    };
    let floats = matches!(nary, Nary::Mean | Nary::Sum);
    arguments.expect_types(view, if floats { &FLOATS } else { &NUMBERS })?;
    let mut shape = arguments.shape(0).to_vec();
    for made in &arguments.made[1..] {
        shape = view.check(shape::broadcast(&shape, &made.shape))?;
    }
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Nary(nary), dtype, shape))
}

/// The arguments of an operator that takes as many as it is given, at least one.
pub(super) fn all_arguments(view: &NodeView<'_>) -> Result<Arguments> {
    let count = view.node.input.len();
    view.expect_inputs(1..=count.max(1))?;
    view.arguments(0..count)
}

/// The second argument where the first is true, else the third.
pub(crate) fn choose(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(3..=3)?;
    let arguments = view.arguments(0..3)?;
    let [condition, yes, no] = &arguments.made[..] else { unreachable!("three were asked for") };
    if condition.dtype != DType::Bool {
        return Err(view.wrong_type(0, condition.dtype));
    }
    if yes.dtype != no.dtype {
        return Err(view.wrong_type(2, no.dtype));
    }
    let shape = view.check(shape::broadcast(&yes.shape, &no.shape))?;
    let shape = view.check(shape::broadcast(&condition.shape, &shape))?;
    let dtype = yes.dtype;
    Ok(arguments.one(Op::Where, dtype, shape))
}

/// `Cast` and `CastLike`.
pub(crate) fn cast(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let arguments = view.arguments([0])?;
    let dtype = match view.input_name(1) {
        Some(_) => view.info(1)?.dtype,
        None => cast_target(view)?,
    };
    let shape = arguments.shape(0).to_vec();
    Ok(arguments.one(Op::Cast, dtype, shape))
}

/// Half precision is computed in single, so a cast to it is one to `f32`.
fn cast_target(view: &NodeView<'_>) -> Result<DType> {
    let code = i32::try_from(view.int("to", 0)).unwrap_or_default();
    match data_type::dtype(code) {
        Some(dtype) if code != data_type::DOUBLE => Ok(dtype),
        _ => {
            let name = data_type::name(code);
            Err(view.error(format!("values of type {name} are not supported")))
        }
    }
}

/// An `Identity` that is left: an output that is a constant or has two names.
pub(crate) fn identity(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = view.arguments([0])?;
    let (dtype, shape) = (arguments.dtype(), arguments.shape(0).to_vec());
    Ok(arguments.one(Op::Identity, dtype, shape))
}
