//! Which operators fold into the layer that makes their input, and the arithmetic of it.

use bytes::Bytes;

use crate::graph::{Activation, BatchNorm, Conv, Layer, Op};
use crate::onnx::operators::Meaning;
use crate::weights::Weight;

/// Folds a node into the layer whose output only it reads; gives it back if it does not fit.
///
/// Batch normalization goes into a convolution, and an activation into anything that has none.
/// The decision looks at these two alone, so it is the same in a slice.
#[expect(
    clippy::result_large_err,
    reason = "not an error: the node is given back to become a layer"
)]
pub(crate) fn fold(layer: &mut Layer, node: Meaning) -> Result<(), Meaning> {
    if layer.activation.is_some() {
        return Err(node);
    }
    match (&mut layer.op, node) {
        (Op::Conv(conv), Meaning { op: Op::BatchNorm(norm), .. }) if conv.batch_norm.is_none() => {
            conv.batch_norm = Some(norm);
            Ok(())
        }
        (_, Meaning { op: Op::Activation, activation, .. }) => {
            layer.activation = activation;
            Ok(())
        }
        (_, node) => Err(node),
    }
}

/// What a value times this function of it is, if that is an activation, too.
pub(crate) fn gated(function: Activation) -> Option<Activation> {
    match function {
        Activation::HardSigmoid { alpha, beta } if (alpha, beta) == (1.0 / 6.0, 0.5) => {
            Some(Activation::HardSwish)
        }
        Activation::Sigmoid => Some(Activation::Swish { alpha: 1.0 }),
        _ => None,
    }
}

/// A convolution's filters as they are in the file, and what its batch normalization makes of them.
pub(crate) struct Folded {
    /// Little-endian `f32`.
    pub(crate) weight: Bytes,
    /// What the filter of each output channel is multiplied by.
    pub(crate) scale: Option<Vec<f64>>,
    /// One value for each output channel.
    pub(crate) bias: Option<Vec<f32>>,
}

/// Filters and bias of a convolution, with its batch normalization as factors and in the bias.
pub(crate) fn folded(conv: &Conv) -> Folded {
    let weight = conv.weight.typed_bytes();
    let bias = conv.bias.as_ref().map(Weight::values);
    let Some(norm) = &conv.batch_norm else { return Folded { weight, scale: None, bias } };
    let (scale, shift) = scale_and_shift(norm);
    let bias = bias.unwrap_or_else(|| vec![0.0; scale.len()]);
    let channels = bias.iter().zip(scale.iter().zip(&shift));
    let bias = channels.map(|(&bias, (scale, shift))| (f64::from(bias) * scale + shift) as f32);
    Folded { weight, bias: Some(bias.collect()), scale: Some(scale) }
}

/// Filters and bias of a convolution with its batch normalization folded in.
pub(crate) fn filters(conv: &Conv) -> (Vec<f32>, Option<Vec<f32>>) {
    let Folded { scale, bias, .. } = folded(conv);
    let mut weight = conv.weight.values();
    if let Some(scale) = scale {
        let filter_len = weight.len() / scale.len();
        for (filter, &scale) in weight.chunks_exact_mut(filter_len).zip(&scale) {
            filter.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        }
    }
    (weight, bias)
}

/// Batch normalization as one factor and one summand for each channel, in double precision.
pub(crate) fn scale_and_shift(norm: &BatchNorm) -> (Vec<f64>, Vec<f64>) {
    let [scale, shift, mean, variance] =
        [&norm.scale, &norm.shift, &norm.mean, &norm.variance].map(Weight::values);
    let factor =
        |i: usize| f64::from(scale[i]) / (f64::from(variance[i]) + f64::from(norm.epsilon)).sqrt();
    (0..scale.len())
        .map(|i| (factor(i), f64::from(shift[i]) - f64::from(mean[i]) * factor(i)))
        .unzip()
}
