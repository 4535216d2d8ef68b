//! Layers whose rows are features: matrix products with a constant, and what follows them value by
//! value.
//!
//! A product `[1, k] x [k, n]` makes any of its `n` features from all `k` of its input and the
//! feature's own `k` weights. So strips of it divide the weights, as no strips of images do.

use super::range::RowRange;
use super::rule::{LayerRows, RowRule, works_value_by_value};
use crate::graph::{Layer, Op, Operand};
use crate::weights::Weight;

/// How a layer's features follow from its inputs; `output` is `[1, features]`.
pub(super) fn of(layer: &Layer, inputs: &[&[usize]], output: &[usize]) -> LayerRows {
    match &layer.op {
        Op::Gemm(gemm) if !gemm.transpose_input => LayerRows::Split(vec![RowRule::All]),
        Op::MatMul(Operand::ConstantRight(weight))
            if weight.shape().len() == 2 && inputs[0].len() == 2 =>
        {
            LayerRows::Split(vec![RowRule::All])
        }
        op if works_value_by_value(op) => value_by_value(layer, inputs, output),
        // Right for any operator there is. One that is to be split also needs a look at `divided`.
        _ => LayerRows::Whole,
    }
}

/// Operands have the output's features, or one value for all of them.
fn value_by_value(layer: &Layer, inputs: &[&[usize]], output: &[usize]) -> LayerRows {
    let one = |shape: &[usize]| shape.iter().product::<usize>() == 1;
    let rule = |shape: &&[usize]| match *shape {
        shape if shape == output => Some(RowRule::Same),
        shape if one(shape) => Some(RowRule::All),
        _ => None,
    };
    let rules: Option<Vec<_>> = inputs.iter().map(rule).collect();
    let fits = |weight: &&Weight| one(weight.shape()) || weight.shape().last() == output.last();
    match rules {
        Some(rules) if layer.weights().iter().all(fits) => LayerRows::Split(rules),
        _ => LayerRows::Whole,
    }
}

/// Along which dimension the constant at one of a layer's places is divided as its features are;
/// none if each feature needs all of it.
pub(crate) fn divided(op: &Op, place: usize, shape: &[usize], features: usize) -> Option<usize> {
    match (op, place) {
        (Op::Gemm(gemm), 1) => Some(usize::from(!gemm.transpose_weight)),
        (Op::MatMul(_), 1) => Some(1),
        _ if features > 1 && shape.last() == Some(&features) => Some(shape.len() - 1),
        _ => None,
    }
}

/// The bytes of a layer's weights that each of its features has for itself.
pub(super) fn row_weight_bytes(layer: &Layer, rows: &LayerRows, output: &[usize]) -> u64 {
    let (LayerRows::Split(_), &[1, features]) = (rows, output) else { return 0 };
    let of_feature = |(place, weight): (usize, &Weight)| {
        let axis = divided(&layer.op, place, weight.shape(), features);
        axis.map_or(0, |_| weight.bytes().len() as u64 / features as u64)
    };
    placed(layer).into_iter().map(of_feature).sum()
}

/// A layer's operator and constants for these of its features alone.
pub(super) fn narrow(layer: &Layer, features: usize, made: RowRange) -> (Op, Vec<(usize, Weight)>) {
    let part = |place: usize, weight: &Weight| {
        let axis = divided(&layer.op, place, weight.shape(), features);
        axis.map_or_else(|| weight.clone(), |axis| weight.part(axis, made.start..made.end))
    };
    let mut op = layer.op.clone();
    match &mut op {
        Op::Add(Operand::ConstantLeft(weight)) => *weight = part(0, weight),
        Op::Add(Operand::ConstantRight(weight)) | Op::MatMul(Operand::ConstantRight(weight)) => {
            *weight = part(1, weight);
        }
        Op::BatchNorm(norm) => {
            let weights = [&mut norm.scale, &mut norm.shift, &mut norm.mean, &mut norm.variance];
            (1..).zip(weights).for_each(|(place, weight)| *weight = part(place, weight));
        }
        Op::Gemm(gemm) => {
            gemm.weight = part(1, &gemm.weight);
            gemm.bias = gemm.bias.as_ref().map(|bias| part(2, bias));
        }
        _ => {}
    }
    let constants = layer.constants.iter().map(|(place, weight)| (*place, part(*place, weight)));
    (op, constants.collect())
}

/// A layer's constants, with their places among the operator's arguments.
fn placed(layer: &Layer) -> Vec<(usize, &Weight)> {
    let first = usize::from(!matches!(layer.op, Op::Add(Operand::ConstantLeft(_))));
    let own = (first..).zip(layer.op.weights());
    own.chain(layer.constants.iter().map(|(place, weight)| (*place, weight))).collect()
}
