//! Matrix products.

use super::super::view::NodeView;
use super::elementwise::operands;
use super::{FLOATS, Meaning, Reading};
use crate::error::ImportError;
use crate::graph::{Gemm, Op, Product};
use crate::shape;
use crate::tensor::DType;

type Result<T> = std::result::Result<T, ImportError>;

/// `MatMul`.
pub(crate) fn mat_mul(view: &NodeView<'_>) -> Result<Reading> {
    let (operand, inputs, [left, right]) = operands(view)?;
    let plan = view.check(shape::matmul(&left, &right))?;
    Ok(Meaning::new(Op::MatMul(operand), inputs, plan.output).into())
}

/// `Gemm`; with constant weights and bias, as in a network's last layer, it is one of its own.
pub(crate) fn gemm(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=3)?;
    let (left, right) = (view.info(0)?.shape, view.info(1)?.shape);
    let (&[a, b], &[c, d]) = (&left[..], &right[..]) else {
        return Err(view.error(format!("shapes {left:?} and {right:?} are not matrices")));
    };
    let (transpose_input, transpose_weight) = (view.flag("transA")?, view.flag("transB")?);
    let [m, k] = if transpose_input { [b, a] } else { [a, b] };
    let [k_right, n] = if transpose_weight { [d, c] } else { [c, d] };
    if k != k_right {
        return Err(view.error(format!("shapes {left:?} and {right:?} do not multiply")));
    }
    let output = vec![m, n];
    view.check(shape::elements(&output))?;
    let has_bias = view.input_name(2).is_some();
    if has_bias {
        let bias = view.info(2)?.shape;
        if shape::broadcast(&bias, &output).as_ref() != Ok(&output) {
            return Err(
                view.error(format!("the bias of shape {bias:?} does not broadcast to {output:?}"))
            );
        }
    }
    let (alpha, beta) = (view.float("alpha").unwrap_or(1.0), view.float("beta").unwrap_or(1.0));
    let constant = view.is_constant(1) && (!has_bias || view.is_constant(2));
    if !constant || view.is_constant(0) {
        let arguments = view.arguments(0..2 + usize::from(has_bias))?;
        arguments.expect_types(view, &FLOATS)?;
        let (transpose_left, transpose_right) = (transpose_input, transpose_weight);
        let op = Op::Product(Product { alpha, beta, transpose_left, transpose_right });
        return Ok(arguments.one(op, DType::F32, output));
    }
    let (input, _) = view.activation(0)?;
    let (weight, bias) = (view.weight(1)?, view.optional_weight(2)?);
    let op = Op::Gemm(Gemm { weight, bias, alpha, beta, transpose_input, transpose_weight });
    Ok(Meaning::new(op, vec![input], output).into())
}
