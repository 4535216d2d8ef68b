//! Convolution with constant filters, and pooling, over two spatial dimensions; and what folds into
//! them.

use burn::tensor::Tensor;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};

use super::{Run, Site, flat, image, map, upload};
use crate::fold;
use crate::graph::{AveragePool, BatchNorm, Conv, MaxPool};
use crate::shape;

/// Average pooling.
pub(super) fn average_pool(site: &Site<'_>, pool: &AveragePool) -> Run {
    let options = AvgPoolOptions::new(pool.window.kernel)
        .with_stride(pool.window.stride)
        .with_dilation(pool.window.dilation)
        .with_padding_pairs(pool.window.padding)
        .with_ceil_mode(pool.ceil_mode)
        .with_count_include_pad(pool.count_include_pad);
    let shape = image(site.shape(0));
    map(move |values| flat(avg_pool2d(values.reshape(shape), options.clone())))
}

/// Max pooling.
pub(super) fn max_pool(site: &Site<'_>, pool: &MaxPool) -> Run {
    let options = MaxPoolOptions::new(pool.window.kernel)
        .with_stride(pool.window.stride)
        .with_dilation(pool.window.dilation)
        .with_padding_pairs(pool.window.padding)
        .with_ceil_mode(pool.ceil_mode);
    let shape = image(site.shape(0));
    map(move |values| flat(max_pool2d(values.reshape(shape), options.clone())))
}

/// The mean of each channel.
pub(super) fn global_average_pool(site: &Site<'_>) -> Run {
    let channels = shape::product(site.output.1);
    let shape = [channels, shape::product(site.shape(0)) / channels];
    map(move |values| flat(values.reshape::<2, _>(shape).mean_dim(1)))
}

/// Batch normalization with no convolution to fold into.
pub(super) fn batch_norm(site: &Site<'_>, norm: &BatchNorm) -> Run {
    let (scale, shift) = fold::scale_and_shift(norm);
    let channels = scale.len();
    let row = |values: Vec<f64>| -> Tensor<3> {
        let values = values.into_iter().map(|value| value as f32).collect();
        upload(values, [1, channels, 1], site.device)
    };
    let (scale, shift) = (row(scale), row(shift));
    let input = site.shape(0);
    let shape = [input[0], channels, shape::product(&input[2..])];
    map(move |values| flat(values.reshape(shape).mul(scale.clone()).add(shift.clone())))
}

/// Convolution with constant filters.
pub(super) fn conv(site: &Site<'_>, conv: &Conv) -> Run {
    let (weight, bias) = fold::filters(conv);
    let weight: Tensor<4> = upload(weight, image(conv.weight.shape()), site.device);
    let bias: Option<Tensor<1>> = bias.map(|bias| {
        let channels = bias.len();
        upload(bias, [channels], site.device)
    });
    let window = &conv.window;
    let options =
        ConvOptions::new_with_padding(window.stride, window.padding, window.dilation, conv.groups);
    let shape = image(site.shape(0));
    map(move |values| {
        flat(conv2d(values.reshape(shape), weight.clone(), bias.clone(), options.clone()))
    })
}
