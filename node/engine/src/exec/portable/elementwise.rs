//! The operators that go value by value.

use burn::tensor::activation::{gelu_approximate, leaky_relu, relu, sigmoid};
use burn::tensor::{IntDType, Tensor};

use super::super::Value;
use super::host::Host;
use super::{Run, Site, broadcast, flat, full_rank, take};
use crate::graph::{Activation, Binary, Nary, Remainder, Unary};
use crate::shape::RANK_MAX;
use crate::tensor::DType;

/// Applies an activation function.
pub(super) fn activate(x: Tensor<1>, activation: Activation) -> Tensor<1> {
    match activation {
        Activation::Celu { alpha } => {
            let below = x.clone().clamp_max(0.0).div_scalar(alpha).exp().sub_scalar(1.0);
            relu(x).add(below.mul_scalar(alpha))
        }
        Activation::Clip { min, max } => match (min > f32::NEG_INFINITY, max < f32::INFINITY) {
            (true, true) => x.clamp(min, max),
            (true, false) => x.clamp_min(min),
            (false, true) => x.clamp_max(max),
            (false, false) => x,
        },
        Activation::Elu { alpha } => exponential_below(x, alpha),
        Activation::Gelu => {
            let share = x.clone().mul_scalar(std::f32::consts::FRAC_1_SQRT_2).erf();
            x.mul(share.add_scalar(1.0).mul_scalar(0.5))
        }
        Activation::GeluTanh => gelu_approximate(x),
        Activation::HardSigmoid { alpha, beta } => hard_sigmoid(x, alpha, beta),
        Activation::HardSwish => x.clone().mul(hard_sigmoid(x, 1.0 / 6.0, 0.5)),
        Activation::LeakyRelu { alpha } => leaky_relu(x, f64::from(alpha)),
        Activation::Mish => x.clone().mul(softplus(x).tanh()),
        Activation::Relu => relu(x),
        Activation::Selu { alpha, gamma } => exponential_below(x, alpha).mul_scalar(gamma),
        Activation::Sigmoid => sigmoid(x),
        Activation::Softplus => softplus(x),
        Activation::Softsign => x.clone().div(x.abs().add_scalar(1.0)),
        Activation::Swish { alpha } => x.clone().mul(sigmoid(x.mul_scalar(alpha))),
        Activation::Tanh => x.tanh(),
        Activation::ThresholdedRelu { alpha } => {
            let low = x.clone().lower_equal_scalar(alpha);
            x.mask_fill(low, 0.0)
        }
    }
}

fn exponential_below(x: Tensor<1>, alpha: f32) -> Tensor<1> {
    let below = x.clone().clamp_max(0.0).exp().sub_scalar(1.0);
    relu(x).add(below.mul_scalar(alpha))
}

fn hard_sigmoid(x: Tensor<1>, alpha: f32, beta: f32) -> Tensor<1> {
    x.mul_scalar(alpha).add_scalar(beta).clamp(0.0, 1.0)
}

/// `log(1 + exp(x))` without overflow.
fn softplus(x: Tensor<1>) -> Tensor<1> {
    let rest = x.clone().abs().neg().exp().log1p();
    relu(x).add(rest)
}

/// One value to one.
pub(super) fn unary(site: &Site<'_>, unary: Unary) -> Run {
    let (dtype, device) = (site.dtype(0), site.device.clone());
    if dtype == DType::F32 {
        return Box::new(move |values| {
            let [value] = take(values);
            vec![float_unary(value.into_float(), unary)]
        });
    }
    Box::new(move |values| {
        let [value] = take(values);
        let result = match Host::download(value) {
            Host::Bool(flags) => Host::Bool(flags.into_iter().map(|flag| !flag).collect()),
            other => {
                let function = int_unary(unary);
                Host::Int(other.into_ints().into_iter().map(function).collect())
            }
        };
        vec![result.upload(dtype, &device)]
    })
}

fn int_unary(unary: Unary) -> fn(i64) -> i64 {
    match unary {
        Unary::Abs => i64::wrapping_abs,
        Unary::BitwiseNot => |value| !value,
        Unary::Neg => i64::wrapping_neg,
        Unary::Sign => i64::signum,
        other => unreachable!("the import has no {} of whole numbers", other.name()),
    }
}

fn float_unary(x: Tensor<1>, unary: Unary) -> Value {
    Value::Float(match unary {
        Unary::Abs => x.abs(),
        Unary::Acos => x.acos(),
        Unary::Acosh => x.acosh(),
        Unary::Asin => x.asin(),
        Unary::Asinh => x.asinh(),
        Unary::Atan => x.atan(),
        Unary::Atanh => x.atanh(),
        Unary::Ceil => x.ceil(),
        Unary::Cos => x.cos(),
        Unary::Cosh => x.cosh(),
        Unary::Erf => x.erf(),
        Unary::Exp => x.exp(),
        Unary::Floor => x.floor(),
        Unary::IsInf { negative, positive } => {
            let wanted = |wanted: bool, sign: f32| if wanted { sign } else { 0.0 };
            let above = x.clone().mul_scalar(wanted(positive, 1.0)).equal_scalar(f32::INFINITY);
            let below = x.mul_scalar(wanted(negative, 1.0)).equal_scalar(f32::NEG_INFINITY);
            return Value::Bool(above.bool_or(below));
        }
        Unary::IsNan => return Value::Bool(x.is_nan()),
        Unary::Log => x.log(),
        Unary::Neg => x.neg(),
        Unary::Reciprocal => x.recip(),
        Unary::Round => x.round(),
        Unary::Shrink { lambda, bias } => {
            let above = x.clone().greater_scalar(lambda);
            let below = x.clone().lower_scalar(-lambda);
            let shrunk = x.zeros_like().mask_where(above, x.clone().sub_scalar(bias));
            shrunk.mask_where(below, x.add_scalar(bias))
        }
        Unary::Sign => x.sign(),
        Unary::Sin => x.sin(),
        Unary::Sinh => x.sinh(),
        Unary::Sqrt => x.sqrt(),
        Unary::Tan => x.tan(),
        Unary::BitwiseNot | Unary::Not => unreachable!("the import has no such function of f32"),
    })
}

/// Two values to one.
pub(super) fn binary(site: &Site<'_>, binary: Binary) -> Run {
    let from = [full_rank(site.shape(0)), full_rank(site.shape(1))];
    let to = full_rank(site.output.1);
    if site.dtype(0) == DType::F32 {
        return Box::new(move |values| {
            let [left, right] = take(values);
            vec![float_binary(float(left), float(right), binary, from, to)]
        });
    }
    let (dtype, device) = (site.output.0, site.device.clone());
    Box::new(move |values| {
        let [left, right] = take(values);
        let left = Host::download(expand(left, from[0], to));
        let right = Host::download(expand(right, from[1], to));
        vec![int_binary(left, right, binary).upload(dtype, &device)]
    })
}

fn expand(value: Value, from: [usize; RANK_MAX], to: [usize; RANK_MAX]) -> Value {
    super::each_kind!(value, values => broadcast(values, from, to))
}

/// Numbers of any type as ones of type `f32`: the exponent of a power may be whole.
fn float(value: Value) -> Tensor<1> {
    match value {
        Value::Bool(values) => values.float(),
        Value::Float(values) => values,
        Value::Int(values) => values.float(),
    }
}

fn float_binary(
    left: Tensor<1>,
    right: Tensor<1>,
    binary: Binary,
    [from_left, from_right]: [[usize; RANK_MAX]; 2],
    to: [usize; RANK_MAX],
) -> Value {
    // Burn broadcasts sums and products by itself, and without a copy.
    if from_left != from_right {
        let (a, b) = (left.clone().reshape(from_left), right.clone().reshape(from_right));
        match binary {
            Binary::Add => return Value::Float(flat(a.add(b))),
            Binary::Div => return Value::Float(flat(a.div(b))),
            Binary::Mul => return Value::Float(flat(a.mul(b))),
            Binary::Sub => return Value::Float(flat(a.sub(b))),
            _ => {}
        }
    }
    let a = broadcast(left, from_left, to);
    let b = broadcast(right, from_right, to);
    let truth = match binary {
        Binary::Equal => a.equal(b),
        Binary::Greater => a.greater(b),
        Binary::GreaterOrEqual => a.greater_equal(b),
        Binary::Less => a.lower(b),
        Binary::LessOrEqual => a.lower_equal(b),
        _ => return Value::Float(arithmetic(a, b, binary)),
    };
    Value::Bool(truth)
}

fn arithmetic(a: Tensor<1>, b: Tensor<1>, binary: Binary) -> Tensor<1> {
    match binary {
        Binary::Add => a.add(b),
        Binary::Div => a.div(b),
        Binary::Mod(Remainder::Dividend) => {
            let whole = a.clone().div(b.clone()).trunc();
            a.sub(whole.mul(b))
        }
        Binary::Mod(Remainder::Divisor) => a.remainder(b),
        Binary::Mul => a.mul(b),
        Binary::Pow => a.powf(b),
        Binary::PRelu => {
            let below = a.clone().lower_scalar(0.0);
            a.clone().mask_where(below, a.mul(b))
        }
        Binary::Sub => a.sub(b),
        other => unreachable!("the import has no {} of f32", other.name()),
    }
}

fn int_binary(left: Host, right: Host, binary: Binary) -> Host {
    if binary == Binary::Pow {
        return Host::Int(powers(left.into_ints(), right));
    }
    let (left, right) = (left.into_ints(), right.into_ints());
    let pairs = left.into_iter().zip(right);
    let truths = |holds: fn(&i64, &i64) -> bool| {
        Host::Bool(pairs.clone().map(|(a, b)| holds(&a, &b)).collect())
    };
    match binary {
        Binary::And => return truths(|a, b| a & b != 0),
        Binary::Equal => return truths(i64::eq),
        Binary::Greater => return truths(i64::gt),
        Binary::GreaterOrEqual => return truths(i64::ge),
        Binary::Less => return truths(i64::lt),
        Binary::LessOrEqual => return truths(i64::le),
        Binary::Or => return truths(|a, b| a | b != 0),
        Binary::Xor => return truths(i64::ne),
        _ => {}
    }
    let function = int_arithmetic(binary);
    Host::Int(pairs.map(|(a, b)| function(a, b)).collect())
}

fn int_arithmetic(binary: Binary) -> fn(i64, i64) -> i64 {
    match binary {
        Binary::Add => i64::wrapping_add,
        Binary::BitwiseAnd => |a, b| a & b,
        Binary::BitwiseOr => |a, b| a | b,
        Binary::BitwiseXor => |a, b| a ^ b,
        Binary::Div => |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
        Binary::Mod(Remainder::Dividend) => |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) },
        Binary::Mod(Remainder::Divisor) => |a, b| match b {
            0 => 0,
            b => {
                let rest = a.wrapping_rem(b);
                if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
            }
        },
        Binary::Mul => i64::wrapping_mul,
        Binary::Sub => i64::wrapping_sub,
        other => unreachable!("the import has no {} of whole numbers", other.name()),
    }
}

fn powers(bases: Vec<i64>, exponents: Host) -> Vec<i64> {
    match exponents {
        Host::Float(exponents) => {
            let power =
                |(base, exponent): (i64, f32)| (base as f64).powf(f64::from(exponent)) as i64;
            bases.into_iter().zip(exponents).map(power).collect()
        }
        exponents => {
            let power = |(base, exponent): (i64, i64)| match u32::try_from(exponent) {
                Ok(exponent) => base.wrapping_pow(exponent),
                // One by a whole number above 1 is rounded to 0.
                Err(_) => (base as f64).powf(exponent as f64) as i64,
            };
            bases.into_iter().zip(exponents.into_ints()).map(power).collect()
        }
    }
}

/// Any number of tensors to one.
pub(super) fn nary(site: &Site<'_>, nary: Nary) -> Run {
    let from: Vec<_> = (0..site.arguments.len()).map(|i| full_rank(site.shape(i))).collect();
    let to = full_rank(site.output.1);
    let (dtype, device) = (site.dtype(0), site.device.clone());
    if dtype == DType::F32 {
        return Box::new(move |values| {
            let count = values.len() as f32;
            let values = values.into_iter().zip(&from);
            let values = values.map(|(value, &from)| broadcast(value.into_float(), from, to));
            let combine = |a: Tensor<1>, b: Tensor<1>| match nary {
                Nary::Max => a.max_pair(b),
                Nary::Min => a.min_pair(b),
                Nary::Mean | Nary::Sum => a.add(b),
            };
            let result = values.reduce(combine).expect("the import asks for an argument");
            vec![Value::Float(match nary {
                Nary::Mean => result.div_scalar(count),
                _ => result,
            })]
        });
    }
    Box::new(move |values| {
        let combine = if nary == Nary::Max { i64::max } else { i64::min };
        let values = values.into_iter().zip(&from);
        let values =
            values.map(|(value, &from)| Host::download(expand(value, from, to)).into_ints());
        let result =
            values.reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| combine(a, b)).collect());
        vec![Host::Int(result.unwrap_or_default()).upload(dtype, &device)]
    })
}

/// The second argument where the first is true, else the third.
pub(super) fn choose(site: &Site<'_>) -> Run {
    let from = [0, 1, 2].map(|i| full_rank(site.shape(i)));
    let to = full_rank(site.output.1);
    Box::new(move |values| {
        let [condition, yes, no] = take(values);
        let condition = broadcast(condition.into_bool(), from[0], to);
        vec![match (yes, no) {
            (Value::Float(yes), Value::Float(no)) => Value::Float(
                broadcast(no, from[2], to).mask_where(condition, broadcast(yes, from[1], to)),
            ),
            (Value::Int(yes), Value::Int(no)) => Value::Int(
                broadcast(no, from[2], to).mask_where(condition, broadcast(yes, from[1], to)),
            ),
            (Value::Bool(yes), Value::Bool(no)) => Value::Bool(
                broadcast(no, from[2], to).mask_where(condition, broadcast(yes, from[1], to)),
            ),
            _ => unreachable!("the import has checked the types"),
        }]
    })
}

/// Values of another type.
pub(super) fn cast(site: &Site<'_>) -> Run {
    let (dtype, device) = (site.output.0, site.device.clone());
    let width = if dtype == DType::I32 { IntDType::I32 } else { IntDType::I64 };
    Box::new(move |values| {
        let [value] = take(values);
        vec![match (value, dtype) {
            (value, DType::F32) => Value::Float(float(value)),
            (Value::Bool(values), DType::Bool) => Value::Bool(values),
            (Value::Float(values), DType::Bool) => Value::Bool(values.not_equal_scalar(0.0)),
            (Value::Int(values), DType::Bool) => Value::Bool(values.not_equal_scalar(0)),
            (Value::Bool(values), _) => Value::Int(values.int().cast(width)),
            (Value::Int(values), _) => Value::Int(values.cast(width)),
            (value @ Value::Float(_), _) => {
                Host::Int(Host::download(value).into_ints()).upload(dtype, &device)
            }
        }]
    })
}
