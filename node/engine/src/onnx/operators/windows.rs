//! The operators with a sliding window, as networks for images have them: convolution with
//! constant filters and pooling, over two spatial dimensions. All others are in [`windows_nd`].

use super::super::view::NodeView;
use super::windows_nd::{self, Slide};
use super::{FLOATS, Meaning, Reading};
use crate::error::ImportError;
use crate::graph::{AveragePool, Conv, MaxPool, Op, Window, WindowNd};
use crate::shape;

type Result<T> = std::result::Result<T, ImportError>;

/// `Conv`.
pub(crate) fn conv(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=3)?;
    let constant = view.is_constant(1) && (view.input_name(2).is_none() || view.is_constant(2));
    let shape = view.info(0)?.shape;
    if shape.len() != 4 || view.is_constant(0) || !constant {
        return windows_nd::conv(view);
    }
    let (input, _) = view.activation(0)?;
    let weight = view.weight(1)?;
    let Slide { window, groups, output, .. } =
        windows_nd::convolution(view, &shape, weight.shape())?;
    let bias = match view.input_name(2) {
        Some(_) => Some(view.channel_weight(2, output[1])?),
        None => None,
    };
    let op = Op::Conv(Conv { window: flat(&window), groups, weight, bias, batch_norm: None });
    Ok(Meaning::new(op, vec![input], output).into())
}

/// `MaxPool`.
pub(crate) fn max_pool(view: &NodeView<'_>) -> Result<Reading> {
    let shape = pooled(view)?;
    if shape.len() != 4 || view.has_output(1) {
        return windows_nd::max_pool(view);
    }
    let ceil_mode = view.flag("ceil_mode")?;
    pool(view, |window| Op::MaxPool(MaxPool { window, ceil_mode }))
}

/// `AveragePool`.
pub(crate) fn average_pool(view: &NodeView<'_>) -> Result<Reading> {
    let shape = pooled(view)?;
    if shape.len() != 4 {
        return windows_nd::average_pool(view);
    }
    let (ceil_mode, count_include_pad) = (view.flag("ceil_mode")?, view.flag("count_include_pad")?);
    pool(view, |window| Op::AveragePool(AveragePool { window, ceil_mode, count_include_pad }))
}

fn pooled(view: &NodeView<'_>) -> Result<Vec<usize>> {
    view.expect_inputs(1..=1)?;
    let made = view.info(0)?;
    if !FLOATS.contains(&made.dtype) {
        return Err(view.wrong_type(0, made.dtype));
    }
    Ok(made.shape)
}

fn pool(view: &NodeView<'_>, op: impl FnOnce(Window) -> Op) -> Result<Reading> {
    let (input, shape) = view.activation(0)?;
    let Slide { window, output, .. } = windows_nd::pooling(view, shape)?;
    Ok(Meaning::new(op(flat(&window)), vec![input], output).into())
}

/// The window over the two dimensions that it has.
fn flat(window: &WindowNd) -> Window {
    let two = |values: &[usize]| <[usize; 2]>::try_from(values).expect("images have two");
    Window {
        kernel: two(&window.kernel),
        stride: two(&window.stride),
        dilation: two(&window.dilation),
        padding: [window.padding[0], window.padding[1]],
    }
}

/// The executor may need the input with its padding as a tensor: that must be possible.
pub(super) fn check_padded(input: &[usize], window: &WindowNd) -> shape::Result<()> {
    let mut padded = input.to_vec();
    for (dim, (before, after)) in padded[2..].iter_mut().zip(&window.padding) {
        *dim += before + after;
    }
    shape::elements(&padded).map(drop)
}
