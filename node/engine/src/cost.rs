//! What a layer asks of a device, in units that a device has one speed for.
//!
//! A device is described by five speeds, one for each [`OpClass`]: few enough to be measured at
//! every start and to be told to others. FLOPs alone would make them poor predictors, because
//! layers of one class differ in what their FLOPs cost. So a layer's *work* is counted as the
//! executor does it, and may be of several classes at once:
//!
//! | class | a unit is |
//! |---|---|
//! | dense | one FLOP of a dense convolution as it is executed: output channels come in blocks of sixteen, and 3x3 convolutions with stride 1 need only the products of minimal filtering |
//! | pointwise | one FLOP of a 1x1 convolution, output channels in blocks of sixteen |
//! | depthwise | one FLOP of a convolution in groups, and some for the ends of each row; some for a value of a curved activation, which is arithmetic on what is in the nearest cache, too |
//! | linear | half a weight that is read once from memory: a matrix product by one row is nothing else, and minimal filtering reads many |
//! | memory | one value read or written; a pooling window's values and each call of a layer count as several |
//!
//! The time of a layer is predicted as the sum over the classes of work over speed. The counts
//! depend on the layer alone, never on the device: whoever asks prices a layer in the same way for
//! everybody, and what is peculiar to a device is in its five speeds, since [`calibrate`] counts
//! its probes in the same units. A device that computes in another way, such as a graphics
//! processor, gets the speeds that fit its probes best, and is predicted less well.
//!
//! The few factors below that are not counts were fitted to the layers of the networks in
//! `benches/compare`, on AVX-512 and on AVX2; `starling bench --predict` says how well they do.
//!
//! [`calibrate`]: crate::calibrate

use crate::exec::kernels::BLOCK;
use crate::exec::program::choose::{self, PLANAR_CHANNELS_MAX, is_filtered, parts};
use crate::graph::{Activation, Conv, Layer, Op, TensorId, Window};
use crate::profile::OpClass;
use crate::tensor::TensorInfo;

/// Units of work for each class, at its [`OpClass::index`].
pub type Work = [u64; OpClass::ALL.len()];

/// The work of a layer that has so many FLOPs.
pub(crate) fn work(tensors: &[TensorInfo], layer: &Layer, flops: u64) -> Work {
    let read = elements(tensors, &layer.inputs);
    let written = elements(tensors, &layer.outputs);
    let mut work = Work::default();
    let mut add = |class: OpClass, units: u64| {
        let sum = &mut work[class.index()];
        *sum = sum.saturating_add(units);
    };
    add(OpClass::Depthwise, written.saturating_mul(layer.activation.map_or(0, bend)));
    match &layer.op {
        // The same bytes under another shape: not even a call.
        Op::Flatten | Op::Identity | Op::Reshape => {
            add(OpClass::Memory, flops);
            return work;
        }
        Op::Conv(conv) => {
            convolve(tensors, layer, conv, &mut add);
            add(OpClass::Memory, read.saturating_add(written));
        }
        Op::Gemm(gemm) => multiply(product(gemm.weight.shape()), flops, &mut add),
        Op::MaxPool(pool) => add(OpClass::Memory, pooled(&pool.window, read, written)),
        Op::AveragePool(pool) => add(OpClass::Memory, pooled(&pool.window, read, written)),
        Op::GlobalAveragePool => add(OpClass::Memory, read.saturating_mul(MEAN)),
        Op::Binary(_) => add(OpClass::Memory, read.saturating_add(written)),
        op => add(OpClass::of(op), flops),
    }
    add(OpClass::Memory, CALL);
    work
}

/// A convolution's arithmetic, and the weights that it waits for.
fn convolve(
    tensors: &[TensorInfo],
    layer: &Layer,
    conv: &Conv,
    add: &mut impl FnMut(OpClass, u64),
) {
    let output = &tensors[layer.outputs[0].0].shape;
    let size = |dimension: usize| output.get(dimension).map_or(1, |&size| size as u64);
    let (images, rows, columns) = (size(0), size(2), size(3));
    let pixels = chain([images, rows, columns]);
    let outputs = blocked(size(1));
    let channels = conv.weight.shape()[1] as u64;
    let taps = product(&conv.window.kernel);
    let by_definition = chain([2, outputs, channels, taps, pixels]);
    match OpClass::of(&layer.op) {
        OpClass::Depthwise if channels > 1 || outputs != blocked(conv.groups as u64) => {
            // Some groups are computed as one, with zeros.
            let parts = parts(conv).unwrap_or(conv.groups);
            add(OpClass::Dense, by_definition.saturating_mul((conv.groups / parts) as u64));
        }
        OpClass::Depthwise => {
            add(OpClass::Depthwise, by_definition);
            add(OpClass::Depthwise, chain([ROW_ENDS, outputs, images, rows]));
        }
        // As a matrix product by one row.
        OpClass::Pointwise if pixels == 1 => add(OpClass::Linear, by_definition),
        OpClass::Pointwise => add(OpClass::Pointwise, by_definition),
        _ if channels <= PLANAR_CHANNELS_MAX as u64 => {
            add(OpClass::Dense, by_definition / 10 * PLANAR_TENTHS);
        }
        _ if is_filtered(&conv.window) => {
            let out_size = [rows, columns].map(|size| size as usize);
            let side = choose::tiles(conv, out_size).outputs() as u64;
            let tiles = chain([images, rows.div_ceil(side), columns.div_ceil(side)]);
            let components = (side + 2) * (side + 2);
            let weights = chain([outputs, channels, components]);
            add(OpClass::Dense, chain([2, weights, tiles]));
            // Half of a unit for each weight, where a matrix product has two: the arithmetic
            // hides most of the waiting.
            add(OpClass::Linear, weights / 2);
            // Both transforms write and read every component once, and hide half of that.
            let transformed = chain([tiles, components, outputs.saturating_add(blocked(channels))]);
            add(OpClass::Memory, transformed / 2);
        }
        _ => add(OpClass::Dense, by_definition),
    }
}

/// What an activation costs for each value, in FLOPs: bounds and slopes, nothing, since they are
/// applied to values in registers.
fn bend(activation: Activation) -> u64 {
    use Activation as A;
    match activation {
        A::Clip { .. } | A::LeakyRelu { .. } | A::Relu | A::ThresholdedRelu { .. } => 0,
        A::HardSigmoid { .. } | A::HardSwish | A::Softsign => LINE,
        A::Celu { .. } | A::Elu { .. } | A::Selu { .. } | A::Softplus | A::Tanh => EXPONENTIAL,
        A::Gelu | A::GeluTanh | A::Mish | A::Sigmoid | A::Swish { .. } => EXPONENTIAL,
    }
}

/// A matrix product: one row waits for the weights, and the others find them in the cache.
fn multiply(weights: u64, flops: u64, add: &mut impl FnMut(OpClass, u64)) {
    let once = weights.saturating_mul(2);
    add(OpClass::Linear, once);
    add(OpClass::Pointwise, flops.saturating_sub(once));
}

/// Pooling reads every window's values one by one.
fn pooled(window: &Window, read: u64, written: u64) -> u64 {
    let windows = chain([written, product(&window.kernel), WINDOW]);
    read.saturating_add(written).saturating_add(windows)
}

fn elements(tensors: &[TensorInfo], ids: &[TensorId]) -> u64 {
    ids.iter().fold(0, |sum, &id| sum.saturating_add(tensors[id.0].elements()))
}

/// Channels as they are computed: in whole blocks.
fn blocked(channels: u64) -> u64 {
    channels.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
}

fn product(dims: &[usize]) -> u64 {
    dims.iter().fold(1, |product, &dim| product.saturating_mul(dim as u64))
}

fn chain<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

/// A layer's call, in values that could be moved meanwhile.
const CALL: u64 = 5_000;
/// The ends of an output row of a depthwise convolution, in FLOPs for each channel.
const ROW_ENDS: u64 = 40;
/// A value of an activation without an exponential, in FLOPs.
const LINE: u64 = 3;
/// A value of one that takes an exponential.
const EXPONENTIAL: u64 = 25;
/// A first layer's FLOPs cost more, in tenths: its few channels are read value by value.
const PLANAR_TENTHS: u64 = 15;
/// A value in a pooling window, in values moved.
const WINDOW: u64 = 3;
/// A value in a mean over a whole image, in values moved: it is a chain of sums.
const MEAN: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Probe;

    fn check(probe: Probe, expected: [u64; 5]) {
        let model = probe.build();
        let layers = model.profile().layers;
        assert_eq!(layers.last().unwrap().work, expected);
    }

    #[test]
    fn work_is_counted_as_it_is_done() {
        // Blocks of sixteen channels, and what is read and written.
        check(
            Probe::new(&[1, 32, 20, 20]).conv(24, 1, 1, 1),
            [0, 2 * 32 * 32 * 400, 0, 0, 56 * 400 + CALL],
        );
        check(
            Probe::new(&[1, 16, 20, 20]).conv(16, 3, 2, 1),
            [2 * 9 * 16 * 16 * 100, 0, 0, 0, 16 * 500 + CALL],
        );
        check(
            Probe::new(&[1, 16, 20, 20]).conv(16, 3, 1, 16),
            [0, 0, (2 * 9 * 400 + ROW_ENDS * 20) * 16, 0, 32 * 400 + CALL],
        );
        // Minimal filtering: 25 tiles of 36 products each.
        check(
            Probe::new(&[1, 16, 20, 20]).conv(16, 3, 1, 1),
            [2 * 256 * 36 * 25, 0, 0, 256 * 36 / 2, 32 * 400 + 25 * 36 * 16 + CALL],
        );
        // 9 of 16, where the image is small.
        check(
            Probe::new(&[1, 16, 6, 6]).conv(16, 3, 1, 1),
            [2 * 256 * 16 * 9, 0, 0, 256 * 16 / 2, 32 * 36 + 9 * 16 * 16 + CALL],
        );
        // 25 of 25, where it is not much larger and filters are many.
        check(
            Probe::new(&[1, 192, 13, 13]).conv(192, 3, 1, 1),
            [2 * 36864 * 625, 0, 0, 36864 * 25 / 2, 2 * 192 * 169 + 625 * 192 + CALL],
        );
        // One row is bound by its weights, and one pixel, the others are not.
        check(Probe::new(&[1, 32, 1, 1]).conv(16, 1, 1, 1), [0, 0, 0, 2 * 32 * 16, 48 + CALL]);
        check(Probe::new(&[1, 64]).gemm(32), [0, 0, 0, 2 * 64 * 32, CALL]);
        check(Probe::new(&[3, 64]).gemm(32), [0, 2 * 2 * 64 * 32, 0, 2 * 64 * 32, CALL]);
        check(
            Probe::new(&[1, 16, 20, 20]).max_pool(2, 2),
            [0, 0, 0, 0, 16 * 500 + WINDOW * 4 * 16 * 100 + CALL],
        );
    }

    #[test]
    fn curves_are_arithmetic() {
        let model = Probe::new(&[1, 16, 20, 20]).conv(16, 3, 2, 1).build();
        let units = |activation| {
            let layer = Layer { activation: Some(activation), ..model.layers()[0].clone() };
            work(&model.graph().tensors, &layer, 0)[OpClass::Depthwise.index()]
        };
        assert_eq!(units(Activation::Relu), 0);
        assert_eq!(units(Activation::HardSwish), LINE * 16 * 100);
        assert_eq!(units(Activation::Tanh), EXPONENTIAL * 16 * 100);
    }
}
