//! The normalizations.

use super::super::view::NodeView;
use super::reduce::axes;
use super::{Arguments, FLOATS, Made, Meaning, Reading};
use crate::error::ImportError;
use crate::graph::{BatchNorm, Normalize, Op};
use crate::shape;
use crate::tensor::DType;

type Result<T> = std::result::Result<T, ImportError>;

/// `BatchNormalization` at inference; with constant statistics it may fold into a convolution.
pub(crate) fn batch_norm(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(5..=5)?;
    if view.flag("training_mode")? || view.int("spatial", 1) != 1 {
        return Err(view
            .error("it is in training mode, or not per channel; export the model for inference"));
    }
    let shape = view.info(0)?.shape;
    let &[_, channels, ..] = &shape[..] else {
        return Err(view.error(format!("the input has shape {shape:?}, which has no channels")));
    };
    let epsilon = epsilon(view)?;
    if view.is_constant(0) || !(1..5).all(|i| view.is_constant(i)) {
        let arguments = view.arguments(0..5)?;
        arguments.expect_types(view, &FLOATS)?;
        (1..5).try_for_each(|i| expect_channels(view, &arguments, i, channels))?;
        let op = Op::Normalize(Normalize::Batch { epsilon });
        return Ok(arguments.one(op, DType::F32, shape));
    }
    let (input, _) = view.activation(0)?;
    let norm = BatchNorm {
        scale: view.channel_weight(1, channels)?,
        shift: view.channel_weight(2, channels)?,
        mean: view.channel_weight(3, channels)?,
        variance: view.channel_weight(4, channels)?,
        epsilon,
    };
    Ok(Meaning::new(Op::BatchNorm(norm), vec![input], shape).into())
}

fn epsilon(view: &NodeView<'_>) -> Result<f32> {
    let epsilon = view.float("epsilon").unwrap_or(1e-5);
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(view.error(format!("epsilon is {epsilon}; it must be a small positive number")));
    }
    Ok(epsilon)
}

fn expect_channels(
    view: &NodeView<'_>,
    arguments: &Arguments,
    i: usize,
    channels: usize,
) -> Result<()> {
    if arguments.shape(i) == [channels] {
        return Ok(());
    }
    let name = view.input_name(i).unwrap_or_default();
    Err(view.error(format!(
        "input '{name}' has shape {:?}, not {:?}",
        arguments.shape(i),
        [channels]
    )))
}

/// `InstanceNormalization`.
pub(crate) fn instance(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(3..=3)?;
    let arguments = floats(view, 3)?;
    let channels = channels(view, &arguments)?;
    (1..3).try_for_each(|i| expect_channels(view, &arguments, i, channels))?;
    Ok(same(arguments, Normalize::Instance { epsilon: epsilon(view)? }))
}

/// `GroupNormalization`; scale and shift were for each group before version 21.
pub(crate) fn group(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(3..=3)?;
    let arguments = floats(view, 3)?;
    let channels = channels(view, &arguments)?;
    let groups = usize::try_from(view.int("num_groups", 0)).unwrap_or(0);
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(view.error(format!("{channels} channels do not split into {groups} groups")));
    }
    let scales = if view.opset < 21 { groups } else { channels };
    (1..3).try_for_each(|i| expect_channels(view, &arguments, i, scales))?;
    Ok(same(arguments, Normalize::Group { groups, epsilon: epsilon(view)? }))
}

/// `LayerNormalization` and `RMSNormalization`.
pub(crate) fn layer(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=3)?;
    let count = 2 + usize::from(view.input_name(2).is_some());
    let arguments = floats(view, count)?;
    let shape = arguments.shape(0).to_vec();
    let axis = view.check(shape::axis(view.int("axis", -1), shape.len()))?;
    for i in 1..count {
        if shape::broadcast(arguments.shape(i), &shape[axis..]).as_deref() != Ok(&shape[axis..]) {
            return Err(view.error(format!(
                "shape {:?} does not broadcast to {:?}",
                arguments.shape(i),
                &shape[axis..]
            )));
        }
    }
    let epsilon = epsilon(view)?;
    if view.node.op_type.as_deref() == Some("RMSNormalization") {
        return Ok(same(arguments, Normalize::Rms { axis, epsilon }));
    }
    let mut rows = shape.clone();
    rows[axis..].fill(1);
    let outputs = [shape, rows.clone(), rows].map(|shape| Made { dtype: DType::F32, shape });
    Ok(arguments.many(Op::Normalize(Normalize::Layer { axis, epsilon }), outputs.into()))
}

/// `LpNormalization`.
pub(crate) fn lp(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = floats(view, 1)?;
    let axis = view.check(shape::axis(view.int("axis", -1), arguments.shape(0).len()))?;
    match view.int("p", 2) {
        1 => Ok(same(arguments, Normalize::Lp { axis, p: 1 })),
        2 => Ok(same(arguments, Normalize::Lp { axis, p: 2 })),
        p => Err(view.error(format!("norm {p} is not one of ONNX's; 1 and 2 are"))),
    }
}

/// `LRN`.
pub(crate) fn lrn(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = floats(view, 1)?;
    let channels = channels(view, &arguments)?;
    let size = usize::try_from(view.int("size", 0)).unwrap_or(0);
    // A wider window than twice the channels sees no more, and would only cost.
    if !(1..=2 * channels + 1).contains(&size) {
        return Err(view.error(format!("size {size} is not from 1 to {}", 2 * channels + 1)));
    }
    let float = |name: &str, default| view.float(name).unwrap_or(default);
    let (alpha, beta, bias) = (float("alpha", 1e-4), float("beta", 0.75), float("bias", 1.0));
    // Burn takes an exponent without a fraction for an integer, which this is then too large for.
    if beta.is_nan() || beta.abs() > LRN_BETA_MAX {
        return Err(view.error(format!("beta {beta} is not a number up to {LRN_BETA_MAX}")));
    }
    Ok(same(arguments, Normalize::Lrn { size, alpha, beta, bias }))
}

/// `MeanVarianceNormalization`.
pub(crate) fn mean_variance(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = floats(view, 1)?;
    let listed = view.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = axes(view, listed, arguments.shape(0).len())?;
    Ok(same(arguments, Normalize::MeanVariance { axes }))
}

fn floats(view: &NodeView<'_>, count: usize) -> Result<Arguments> {
    let arguments = view.arguments(0..count)?;
    arguments.expect_types(view, &FLOATS)?;
    Ok(arguments)
}

fn channels(view: &NodeView<'_>, arguments: &Arguments) -> Result<usize> {
    let shape = arguments.shape(0);
    let &[_, channels, _, ..] = shape else {
        return Err(view.error(format!("the input has shape {shape:?}, which has no channels")));
    };
    Ok(channels)
}

fn same(arguments: Arguments, normalize: Normalize) -> Reading {
    let shape = arguments.shape(0).to_vec();
    arguments.one(Op::Normalize(normalize), DType::F32, shape)
}

/// Far beyond any model's exponent.
const LRN_BETA_MAX: f32 = 1e6;
