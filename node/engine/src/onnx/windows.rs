//! The operators with a sliding window: convolution and pooling.

use super::operators::Meaning;
use super::view::NodeView;
use crate::error::ImportError;
use crate::graph::{AveragePool, Conv, MaxPool, Op, Window};
use crate::shape::{self, Rounding};

/// `Conv` over two spatial dimensions.
pub(crate) fn conv(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    view.expect_inputs(2..=3)?;
    let (input, input_shape) = view.activation(0)?;
    let [batch, channels, height, width] = view.check(shape::image(input_shape))?;
    let weight = view.weight(1)?;
    let [out_channels, group_channels, kernel_height, kernel_width] =
        <[usize; 4]>::try_from(weight.shape()).map_err(|_| {
            view.error(format!("filters of shape {:?} are not for two dimensions", weight.shape()))
        })?;
    let groups = usize::try_from(view.int("group", 1)).unwrap_or(0);
    let divides =
        groups > 0 && channels.is_multiple_of(groups) && out_channels.is_multiple_of(groups);
    if !divides || channels / groups != group_channels {
        return Err(view.error(format!(
            "{channels} channels do not fit filters of shape {:?} in {groups} groups",
            weight.shape()
        )));
    }
    let bias = match view.input_name(2) {
        Some(_) => Some(view.channel_weight(2, out_channels)?),
        None => None,
    };
    let window = window(view, [height, width], Some([kernel_height, kernel_width]))?;
    let [out_height, out_width] =
        view.check(shape::slide([height, width], &window, Rounding::Floor))?;
    view.check(check_padded(input_shape, &window))?;
    let op = Op::Conv(Conv { window, groups, weight, bias, batch_norm: None });
    Ok(Meaning::new(op, vec![input], vec![batch, out_channels, out_height, out_width]))
}

/// `MaxPool` over two spatial dimensions; its second output is not supported.
pub(crate) fn max_pool(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    let ceil_mode = view.flag("ceil_mode")?;
    pool(view, ceil_mode, |window| Op::MaxPool(MaxPool { window, ceil_mode }))
}

/// `AveragePool` over two spatial dimensions.
pub(crate) fn average_pool(view: &NodeView<'_>) -> Result<Meaning, ImportError> {
    let (ceil_mode, count_include_pad) = (view.flag("ceil_mode")?, view.flag("count_include_pad")?);
    pool(view, ceil_mode, |window| {
        Op::AveragePool(AveragePool { window, ceil_mode, count_include_pad })
    })
}

fn pool(
    view: &NodeView<'_>,
    ceil_mode: bool,
    op: impl FnOnce(Window) -> Op,
) -> Result<Meaning, ImportError> {
    view.expect_inputs(1..=1)?;
    let (input, input_shape) = view.activation(0)?;
    let [batch, channels, height, width] = view.check(shape::image(input_shape))?;
    let window = window(view, [height, width], None)?;
    for i in 0..2 {
        let (before, after) = window.padding[i];
        // A window that sees padding only has no maximum and no mean.
        if before.max(after) >= window.kernel[i] {
            return Err(view.error(format!(
                "padding {:?} must be less than the kernel {:?}",
                window.padding, window.kernel
            )));
        }
    }
    let rounding = if ceil_mode { Rounding::Ceil } else { Rounding::Floor };
    let [out_height, out_width] = view.check(shape::slide([height, width], &window, rounding))?;
    view.check(check_padded(input_shape, &window))?;
    Ok(Meaning::new(op(window), vec![input], vec![batch, channels, out_height, out_width]))
}

/// The executor may need the input with its padding as a tensor: that must be possible.
fn check_padded(input: &[usize], window: &Window) -> shape::Result<()> {
    let mut padded = input.to_vec();
    for (dim, (before, after)) in padded[2..].iter_mut().zip(window.padding) {
        *dim += before + after;
    }
    shape::elements(&padded).map(drop)
}

/// Reads the window's attributes; a convolution's filters also say how large it is.
fn window(
    view: &NodeView<'_>,
    input: [usize; 2],
    filter: Option<[usize; 2]>,
) -> Result<Window, ImportError> {
    let kernel = match (pair(view, "kernel_shape")?, filter) {
        (Some(kernel), Some(filter)) if kernel != filter => {
            return Err(
                view.error(format!("kernel_shape {kernel:?} differs from the filters' {filter:?}"))
            );
        }
        (Some(kernel), _) | (None, Some(kernel)) => kernel,
        (None, None) => return Err(view.error("kernel_shape is missing")),
    };
    let mut window = Window {
        kernel,
        stride: pair(view, "strides")?.unwrap_or([1, 1]),
        dilation: pair(view, "dilations")?.unwrap_or([1, 1]),
        padding: [(0, 0); 2],
    };
    window.padding = match view.string("auto_pad")?.unwrap_or("NOTSET") {
        "" | "NOTSET" => explicit_padding(view)?,
        "VALID" => [(0, 0); 2],
        "SAME_UPPER" => same_padding(view, input, &window, |total| (total / 2, total - total / 2))?,
        "SAME_LOWER" => same_padding(view, input, &window, |total| (total - total / 2, total / 2))?,
        other => return Err(view.error(format!("auto_pad '{other}' is not one of ONNX's"))),
    };
    Ok(window)
}

/// Two numbers of at least 1, for height and width.
fn pair(view: &NodeView<'_>, name: &str) -> Result<Option<[usize; 2]>, ImportError> {
    let Some(values) = view.ints(name) else { return Ok(None) };
    let wrong =
        || view.error(format!("{name} {values:?} must be two numbers from 1 to {EXTENT_MAX}"));
    let &[height, width] = values else { return Err(wrong()) };
    let number =
        |value: i64| usize::try_from(value).ok().filter(|value| (1..=EXTENT_MAX).contains(value));
    match (number(height), number(width)) {
        (Some(height), Some(width)) => Ok(Some([height, width])),
        _ => Err(wrong()),
    }
}

fn explicit_padding(view: &NodeView<'_>) -> Result<[(usize, usize); 2], ImportError> {
    let Some(pads) = view.ints("pads") else { return Ok([(0, 0); 2]) };
    let wrong = || view.error(format!("pads {pads:?} must be four numbers from 0 to {EXTENT_MAX}"));
    let numbers = pads
        .iter()
        .map(|&pad| usize::try_from(pad).ok().filter(|&pad| pad <= EXTENT_MAX))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(wrong)?;
    match numbers[..] {
        [top, left, bottom, right] => Ok([(top, bottom), (left, right)]),
        _ => Err(wrong()),
    }
}

/// Padding for one output per `stride` inputs; `split` says on which side an odd one goes.
fn same_padding(
    view: &NodeView<'_>,
    input: [usize; 2],
    window: &Window,
    split: impl Fn(usize) -> (usize, usize),
) -> Result<[(usize, usize); 2], ImportError> {
    let mut padding = [(0, 0); 2];
    for i in 0..2 {
        let extent = view.check(shape::extent(window, i))?;
        let travel = (input[i].div_ceil(window.stride[i]) - 1) * window.stride[i];
        padding[i] = split(travel.saturating_add(extent).saturating_sub(input[i]));
    }
    Ok(padding)
}

/// Largest kernel, stride, dilation or padding: no image is larger than that along one side.
const EXTENT_MAX: usize = 1 << 24;
