//! Windows over any number of spatial dimensions: how their attributes are read, and the operators
//! that need that generality.

use super::super::view::NodeView;
use super::windows::check_padded;
use super::{FLOATS, Made, Reading};
use crate::error::ImportError;
use crate::graph::{ConvNd, Op, PoolNd, Pooling, WindowNd};
use crate::shape::{self, Rounding};
use crate::tensor::DType;

type Result<T> = std::result::Result<T, ImportError>;

/// A window over an input, and what comes of it.
pub(super) struct Slide {
    pub(super) window: WindowNd,
    pub(super) groups: usize,
    /// The shape of the result.
    pub(super) output: Vec<usize>,
}

/// `Conv` over one or three dimensions, or with computed filters.
pub(super) fn conv(view: &NodeView<'_>) -> Result<Reading> {
    let arguments = view.arguments(0..2 + usize::from(view.input_name(2).is_some()))?;
    arguments.expect_types(view, &FLOATS)?;
    let Slide { window, groups, output } =
        convolution(view, arguments.shape(0), arguments.shape(1))?;
    check_bias(view, arguments.made.get(2), output[1])?;
    let op = Op::ConvNd(ConvNd { window, groups, transposed: false });
    Ok(arguments.one(op, DType::F32, output))
}

/// Reads how the filters of a convolution slide.
pub(super) fn convolution(
    view: &NodeView<'_>,
    input: &[usize],
    filters: &[usize],
) -> Result<Slide> {
    let spatial = spatial(view, input)?;
    if filters.len() != input.len() {
        return Err(view.error(format!(
            "filters of shape {filters:?} are not for {} dimensions",
            spatial.len()
        )));
    }
    let groups = usize::try_from(view.int("group", 1)).unwrap_or(0);
    let (channels, out_channels) = (input[1], filters[0]);
    let divides =
        groups > 0 && channels.is_multiple_of(groups) && out_channels.is_multiple_of(groups);
    if !divides || channels / groups != filters[1] {
        return Err(view.error(format!(
            "{channels} channels do not fit filters of shape {filters:?} in {groups} groups"
        )));
    }
    let mut window = window(view, spatial, Some(&filters[2..]))?;
    pad_automatically(view, spatial, &mut window)?;
    let output = slide(view, input, &window, Rounding::Floor)?;
    check_padded_window(view, input, &window)?;
    let output = [&[input[0], out_channels], &output[..]].concat();
    view.check(shape::elements(&output))?;
    Ok(Slide { window, groups, output })
}

/// `ConvTranspose`.
pub(crate) fn conv_transpose(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=3)?;
    let arguments = view.arguments(0..2 + usize::from(view.input_name(2).is_some()))?;
    arguments.expect_types(view, &FLOATS)?;
    let (input, filters) = (arguments.shape(0), arguments.shape(1));
    let spatial = spatial(view, input)?;
    let groups = usize::try_from(view.int("group", 1)).unwrap_or(0);
    if filters.len() != input.len()
        || groups == 0
        || !input[1].is_multiple_of(groups)
        || filters[0] != input[1]
    {
        return Err(view.error(format!(
            "{} channels do not fit filters of shape {filters:?} in {groups} groups",
            input[1]
        )));
    }
    let mut window = window(view, spatial, Some(&filters[2..]))?;
    let sizes = transposed_sizes(view, spatial, &mut window)?;
    let out_channels = filters[1].saturating_mul(groups);
    check_bias(view, arguments.made.get(2), out_channels)?;
    let output = [&[input[0], out_channels], &sizes[..]].concat();
    view.check(shape::elements(&output))?;
    let op = Op::ConvNd(ConvNd { window, groups, transposed: true });
    Ok(arguments.one(op, DType::F32, output))
}

/// The spatial dimensions of the result; sets the padding, which is what is cut off.
fn transposed_sizes(
    view: &NodeView<'_>,
    spatial: &[usize],
    window: &mut WindowNd,
) -> Result<Vec<usize>> {
    let extra = numbers(view, "output_padding", spatial.len(), 0)?;
    let wanted = numbers(view, "output_shape", spatial.len(), 1)?;
    let auto_pad = view.string("auto_pad")?.unwrap_or("NOTSET");
    let mut sizes = Vec::new();
    for i in 0..spatial.len() {
        let extent = view.check(shape::extent(window, i))?;
        let full = (spatial[i] - 1)
            .checked_mul(window.stride[i])
            .and_then(|travel| travel.checked_add(extent))
            .filter(|&full| full <= EXTENT_MAX)
            .ok_or_else(|| {
                view.error(format!("{spatial:?} by {:?} is too large", window.stride))
            })?;
        // What lies beyond the last window is empty but for the bias.
        let full = full + extra.as_ref().map_or(0, |extra| extra[i]);
        let same = auto_pad.starts_with("SAME");
        let target = match &wanted {
            Some(wanted) => Some(wanted[i]),
            None if same => Some(spatial[i] * window.stride[i]),
            None => None,
        };
        if let Some(target) = target {
            let total = full.saturating_sub(target);
            let half = total / 2;
            let upper = auto_pad == "SAME_UPPER";
            let before = if upper { half } else { total - half };
            window.padding[i] = (before, total - before);
        }
        let (before, after) = window.padding[i];
        let size = target.or_else(|| full.checked_sub(before.checked_add(after)?));
        let size = size.filter(|&size| size > 0).ok_or_else(|| {
            view.error(format!("padding {:?} leaves nothing of {full}", window.padding))
        })?;
        sizes.push(size);
    }
    Ok(sizes)
}

fn check_bias(view: &NodeView<'_>, bias: Option<&Made>, channels: usize) -> Result<()> {
    match bias {
        Some(bias) if bias.shape != [channels] => {
            Err(view.error(format!("the bias has shape {:?}, not {:?}", bias.shape, [channels])))
        }
        _ => Ok(()),
    }
}

/// `MaxPool` over one or three dimensions, or with the places of its values.
pub(super) fn max_pool(view: &NodeView<'_>) -> Result<Reading> {
    let column_major = view.flag("storage_order")?;
    pool(view, Pooling::Max { column_major })
}

/// `AveragePool` over one or three dimensions.
pub(super) fn average_pool(view: &NodeView<'_>) -> Result<Reading> {
    let count_include_pad = view.flag("count_include_pad")?;
    pool(view, Pooling::Average { count_include_pad })
}

/// `LpPool`.
pub(crate) fn lp_pool(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let p = u32::try_from(view.int("p", 2)).ok().filter(|p| (1..=16).contains(p));
    let p = p.ok_or_else(|| view.error("p is not from 1 to 16"))?;
    pool(view, Pooling::Lp { p })
}

fn pool(view: &NodeView<'_>, pooling: Pooling) -> Result<Reading> {
    let arguments = view.arguments([0])?;
    arguments.expect_types(view, &FLOATS)?;
    let input = arguments.shape(0).to_vec();
    let Slide { mut window, output, .. } = self::pooling(view, &input)?;
    let taps = window.kernel.iter().fold(1usize, |taps, &size| taps.saturating_mul(size));
    if taps > TAPS_MAX {
        return Err(view.error(format!("a window of {taps} values is more than {TAPS_MAX}")));
    }
    let padding_after = window.padding.iter().map(|&(_, after)| after).collect();
    // Rounded up, the last window may reach beyond the padding.
    for i in 0..window.kernel.len() {
        let reach =
            (output[i + 2] - 1) * window.stride[i] + view.check(shape::extent(&window, i))?;
        let (before, after) = &mut window.padding[i];
        *after = (*after).max(reach.saturating_sub(input[i + 2] + *before));
    }
    check_padded_window(view, &input, &window)?;
    let outputs = [DType::F32, DType::I64].map(|dtype| Made { dtype, shape: output.clone() });
    let count = if matches!(pooling, Pooling::Max { .. }) { 2 } else { 1 };
    let op = Op::PoolNd(PoolNd { pooling, window, padding_after });
    Ok(arguments.many(op, outputs.into_iter().take(count).collect()))
}

/// Reads how the window of a pooling slides.
pub(super) fn pooling(view: &NodeView<'_>, input: &[usize]) -> Result<Slide> {
    let spatial = spatial(view, input)?;
    let rounding = if view.flag("ceil_mode")? { Rounding::Ceil } else { Rounding::Floor };
    let mut window = window(view, spatial, None)?;
    pad_automatically(view, spatial, &mut window)?;
    for (&(before, after), &kernel) in window.padding.iter().zip(&window.kernel) {
        // A window that sees padding only has no maximum and no mean.
        if before.max(after) >= kernel {
            return Err(view.error(format!(
                "padding {:?} must be less than the kernel {:?}",
                window.padding, window.kernel
            )));
        }
    }
    let output = slide(view, input, &window, rounding)?;
    check_padded_window(view, input, &window)?;
    let output = [&input[..2], &output[..]].concat();
    view.check(shape::elements(&output))?;
    Ok(Slide { window, groups: 1, output })
}

fn check_padded_window(view: &NodeView<'_>, input: &[usize], window: &WindowNd) -> Result<()> {
    view.check(check_padded(input, window))
}

/// The spatial dimensions of an input.
fn spatial<'a>(view: &NodeView<'_>, input: &'a [usize]) -> Result<&'a [usize]> {
    match input {
        [_, _, spatial @ ..] if (1..=3).contains(&spatial.len()) => Ok(spatial),
        _ => Err(view.error(format!(
            "the input has shape {input:?}; one to three spatial dimensions are supported"
        ))),
    }
}

fn slide(
    view: &NodeView<'_>,
    input: &[usize],
    window: &WindowNd,
    rounding: Rounding,
) -> Result<Vec<usize>> {
    let along = |i: usize| shape::slide(input[i + 2], window, i, rounding);
    view.check((0..input.len() - 2).map(along).collect())
}

/// Reads the window's attributes; a convolution's filters also say how large it is.
fn window(view: &NodeView<'_>, spatial: &[usize], filter: Option<&[usize]>) -> Result<WindowNd> {
    let dims = spatial.len();
    let kernel = match (numbers(view, "kernel_shape", dims, 1)?, filter) {
        (Some(kernel), Some(filter)) if kernel != filter => {
            return Err(
                view.error(format!("kernel_shape {kernel:?} differs from the filters' {filter:?}"))
            );
        }
        (Some(kernel), _) => kernel,
        (None, Some(filter)) => filter.to_vec(),
        (None, None) => return Err(view.error("kernel_shape is missing")),
    };
    let padding = match numbers(view, "pads", 2 * dims, 0)? {
        Some(pads) => (0..dims).map(|i| (pads[i], pads[i + dims])).collect(),
        None => vec![(0, 0); dims],
    };
    Ok(WindowNd {
        kernel,
        stride: numbers(view, "strides", dims, 1)?.unwrap_or_else(|| vec![1; dims]),
        dilation: numbers(view, "dilations", dims, 1)?.unwrap_or_else(|| vec![1; dims]),
        padding,
    })
}

/// A list of as many numbers of at least `min`, if it is there.
fn numbers(
    view: &NodeView<'_>,
    name: &str,
    count: usize,
    min: usize,
) -> Result<Option<Vec<usize>>> {
    let Some(values) = view.ints(name) else { return Ok(None) };
    let number = |&value: &i64| {
        usize::try_from(value).ok().filter(|value| (min..=EXTENT_MAX).contains(value))
    };
    let numbers = values.iter().map(number).collect::<Option<Vec<_>>>();
    match numbers.filter(|numbers| numbers.len() == count) {
        Some(numbers) => Ok(Some(numbers)),
        None => Err(view.error(format!(
            "{name} {values:?} must be {count} numbers from {min} to {EXTENT_MAX}"
        ))),
    }
}

/// Sets the padding where `auto_pad` says how: one output per `stride` inputs, or none.
fn pad_automatically(view: &NodeView<'_>, spatial: &[usize], window: &mut WindowNd) -> Result<()> {
    let upper = match view.string("auto_pad")?.unwrap_or("NOTSET") {
        "" | "NOTSET" => return Ok(()),
        "VALID" => {
            window.padding.fill((0, 0));
            return Ok(());
        }
        "SAME_UPPER" => true,
        "SAME_LOWER" => false,
        other => return Err(view.error(format!("auto_pad '{other}' is not one of ONNX's"))),
    };
    for (i, &size) in spatial.iter().enumerate() {
        let extent = view.check(shape::extent(window, i))?;
        let travel = (size.div_ceil(window.stride[i]) - 1) * window.stride[i];
        let total = travel.saturating_add(extent).saturating_sub(size);
        let half = total / 2;
        window.padding[i] = if upper { (half, total - half) } else { (total - half, half) };
    }
    Ok(())
}

/// Largest kernel, stride, dilation or padding: no image is larger than that along one side.
const EXTENT_MAX: usize = 1 << 24;

/// Most values of a window that the general pooling looks at one after the other.
const TAPS_MAX: usize = 1 << 12;
