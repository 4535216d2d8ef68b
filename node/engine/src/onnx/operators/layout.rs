//! The operators that only move values: joining, cutting, padding, reordering.

use super::super::view::NodeView;
use super::generate::scalar;
use super::reduce::axes;
use super::{ANY, Arguments, Made, Reading};
use crate::error::ImportError;
use crate::graph::{DepthToSpace, Direction, Op, Pad, PadMode, Slice, Triangle};
use crate::shape;
use crate::tensor::DType;

type Result<T> = std::result::Result<T, ImportError>;

/// `Concat`.
pub(crate) fn concat(view: &NodeView<'_>) -> Result<Reading> {
    let arguments = joined(view)?;
    arguments.expect_types(view, &ANY)?;
    let first = arguments.shape(0);
    let axis = view.check(shape::axis(view.int("axis", 1), first.len()))?;
    let mut output = first.to_vec();
    for made in &arguments.made[1..] {
        let shape = &made.shape;
        let fits = shape.len() == output.len()
            && (0..output.len()).all(|d| d == axis || shape[d] == output[d]);
        if !fits {
            return Err(
                view.error(format!("shapes {first:?} and {shape:?} do not join along axis {axis}"))
            );
        }
        output[axis] = output[axis].saturating_add(shape[axis]);
    }
    view.check(shape::elements(&output))?;
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Concat { axis }, dtype, output))
}

/// What is joined; lists that are empty add nothing.
fn joined(view: &NodeView<'_>) -> Result<Arguments> {
    let count = view.node.input.len();
    view.expect_inputs(1..=count.max(1))?;
    let mut filled = Vec::new();
    for i in 0..count {
        if view.info(i)?.shape != [0] {
            filled.push(i);
        }
    }
    view.arguments(if filled.is_empty() { vec![0] } else { filled })
}

/// `Split`; the parts are an attribute, an input, or as many as the outputs, by version.
pub(crate) fn split(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let arguments = view.arguments([0])?;
    let axis = view.check(shape::axis(view.int("axis", 0), arguments.shape(0).len()))?;
    let size = arguments.shape(0)[axis];
    let sizes = match view.integers_of("split", 1)? {
        Some(sizes) => sizes.iter().map(|&part| usize::try_from(part).unwrap_or(0)).collect(),
        None => equal_parts(view, size)?,
    };
    let whole = sizes.iter().try_fold(0usize, |sum, &part| sum.checked_add(part)) == Some(size);
    if !whole || sizes.contains(&0) || sizes.len() < view.node.output.len() {
        return Err(view.error(format!(
            "parts of {sizes:?} are not all of {size}, none of them empty, for {} outputs",
            view.node.output.len()
        )));
    }
    let part = |&part: &usize| {
        let mut shape = arguments.shape(0).to_vec();
        shape[axis] = part;
        Made { dtype: arguments.dtype(), shape }
    };
    let outputs = sizes.iter().map(part).collect();
    Ok(arguments.many(Op::Split { axis, sizes }, outputs))
}

/// As many parts as there are outputs; the last may be smaller since version 18.
fn equal_parts(view: &NodeView<'_>, size: usize) -> Result<Vec<usize>> {
    let outputs = view.node.output.len();
    let count = match view.int("num_outputs", outputs as i64) {
        count if count == outputs as i64 && count > 0 => outputs,
        count => return Err(view.error(format!("{count} parts are not {outputs} outputs"))),
    };
    if view.opset < 18 && !size.is_multiple_of(count) {
        return Err(view.error(format!("{size} is not {count} equal parts")));
    }
    let part = size.div_ceil(count);
    let last = size.checked_sub(part * (count - 1)).filter(|&last| last > 0);
    let Some(last) = last else {
        return Err(view.error(format!("{size} is less than {count} parts")));
    };
    let mut sizes = vec![part; count];
    sizes[count - 1] = last;
    Ok(sizes)
}

/// `Slice`; its bounds are attributes before version 10, and inputs since.
pub(crate) fn slice(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=5)?;
    let arguments = view.arguments([0])?;
    let rank = arguments.shape(0).len();
    let missing = |what: &str| view.error(format!("{what} are missing"));
    let starts = view.integers_of("starts", 1)?.ok_or_else(|| missing("starts"))?;
    let ends = view.integers_of("ends", 2)?.ok_or_else(|| missing("ends"))?;
    let axes = match view.integers_of("axes", 3)? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match view.input_name(4) {
        Some(_) => view.integers(4)?,
        None => vec![1; starts.len()],
    };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(view.error("starts, ends, axes and steps are not of one length"));
    }
    let mut dims = vec![(0, 1); rank];
    let mut output = arguments.shape(0).to_vec();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = view.check(shape::axis(axis, rank))?;
        if steps[i] == 0 {
            return Err(view.error("a step is 0"));
        }
        let (start, length) = part(arguments.shape(0)[axis], starts[i], ends[i], steps[i]);
        dims[axis] = (start, steps[i]);
        output[axis] = length;
    }
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Slice(Slice { dims }), dtype, output))
}

/// The first place and the number of places from `start` to before `end`.
fn part(size: usize, start: i64, end: i64, step: i64) -> (usize, usize) {
    let size = size as i64;
    let from_end = |place: i64| if place < 0 { place.saturating_add(size) } else { place };
    let (start, end) = if step > 0 {
        (from_end(start).clamp(0, size), from_end(end).clamp(0, size))
    } else {
        (from_end(start).clamp(-1, size - 1), from_end(end).clamp(-1, size - 1))
    };
    let distance = if step > 0 { end - start } else { start - end };
    let length = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    (start.max(0) as usize, length as usize)
}

/// `Pad`; its amounts are attributes before version 11, and inputs since.
pub(crate) fn pad(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=4)?;
    let mode = match view.string("mode")?.unwrap_or("constant") {
        "constant" => PadMode::Constant,
        "edge" => PadMode::Edge,
        "reflect" => PadMode::Reflect,
        "wrap" => PadMode::Wrap,
        other => return Err(view.error(format!("mode '{other}' is not one of ONNX's"))),
    };
    let mut arguments = view.arguments([0])?;
    if mode == PadMode::Constant {
        let value = match (view.input_name(2), view.float("value")) {
            (Some(_), _) => view.any_weight(2)?,
            (None, Some(value)) => scalar(DType::F32, f64::from(value)),
            (None, None) => scalar(arguments.dtype(), 0.0),
        };
        if value.dtype() != arguments.dtype() || shape::product(value.shape()) != 1 {
            return Err(view.error("the padding is not one value of the input's type"));
        }
        arguments.constants.push((1, value));
    }
    let shape = arguments.shape(0).to_vec();
    let amounts = pad_amounts(view, shape.len())?;
    let output = padded(view, &shape, &amounts)?;
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Pad(Pad { mode, amounts }), dtype, output))
}

fn pad_amounts(view: &NodeView<'_>, rank: usize) -> Result<Vec<(i64, i64)>> {
    let pads = view.integers_of("pads", 1)?.ok_or_else(|| view.error("pads are missing"))?;
    let axes = match view.input_name(3) {
        Some(_) => view.integers(3)?,
        None => (0..rank as i64).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(view.error(format!("{} pads are not two for each axis", pads.len())));
    }
    let mut amounts = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        amounts[view.check(shape::axis(axis, rank))?] = (pads[i], pads[axes.len() + i]);
    }
    Ok(amounts)
}

fn padded(view: &NodeView<'_>, shape: &[usize], amounts: &[(i64, i64)]) -> Result<Vec<usize>> {
    let dim = |(&size, &(before, after)): (&usize, &(i64, i64))| {
        let left = (size as i64).checked_add(before.min(0))?.checked_add(after.min(0))?;
        // Something must be left of what is cropped before anything is put beside it.
        let left = Some(left).filter(|&left| left > 0)?;
        let padded = left.checked_add(before.max(0))?.checked_add(after.max(0))?;
        usize::try_from(padded).ok()
    };
    let output = shape.iter().zip(amounts).map(dim).collect::<Option<Vec<_>>>();
    let output =
        output.ok_or_else(|| view.error(format!("pads {amounts:?} do not fit {shape:?}")))?;
    view.check(shape::elements(&output))?;
    Ok(output)
}

/// `Flatten`.
pub(crate) fn flatten(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = view.arguments([0])?;
    let shape = arguments.shape(0);
    // One past the last dimension is allowed here, unlike for other operators.
    let axis = match view.int("axis", 1) {
        axis if axis == shape.len() as i64 => shape.len(),
        axis => view.check(shape::axis(axis, shape.len()))?,
    };
    let (rows, columns) = shape.split_at(axis);
    let output = vec![shape::product(rows), shape::product(columns)];
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Flatten, dtype, output))
}

/// `Reshape`.
pub(crate) fn reshape(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let arguments = view.arguments([0])?;
    let target = view.integers_of("shape", 1)?.ok_or_else(|| view.error("input 1 is missing"))?;
    if view.flag("allowzero")? && target.contains(&0) {
        return Err(view.error("an empty dimension (allowzero) is not supported"));
    }
    let shape = view.check(shape::reshape(arguments.shape(0), &target))?;
    Ok(reshaped(arguments, shape))
}

fn reshaped(arguments: Arguments, shape: Vec<usize>) -> Reading {
    let dtype = arguments.dtype();
    arguments.one(Op::Reshape, dtype, shape)
}

/// `Squeeze`; without axes, all dimensions of 1 go.
pub(crate) fn squeeze(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let arguments = view.arguments([0])?;
    let shape = arguments.shape(0);
    let gone = match view.integers_of("axes", 1)? {
        Some(listed) => axes(view, &listed, shape.len())?,
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
    };
    if gone.iter().any(|&axis| shape[axis] != 1) {
        return Err(view.error(format!("axes {gone:?} of shape {shape:?} are not all 1")));
    }
    let left = (0..shape.len()).filter(|i| !gone.contains(i)).map(|i| shape[i]).collect();
    Ok(reshaped(arguments, left))
}

/// `Unsqueeze`.
pub(crate) fn unsqueeze(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let arguments = view.arguments([0])?;
    let listed = view.integers_of("axes", 1)?.ok_or_else(|| view.error("axes are missing"))?;
    let rank = arguments.shape(0).len().saturating_add(listed.len());
    if rank > shape::RANK_MAX {
        return Err(view.error(format!("{rank} dimensions are more than {}", shape::RANK_MAX)));
    }
    let new = axes(view, &listed, rank)?;
    let mut old = arguments.shape(0).iter();
    let dim = |i: usize| if new.contains(&i) { Some(1) } else { old.next().copied() };
    let shape = (0..rank).filter_map(dim).collect();
    Ok(reshaped(arguments, shape))
}

/// `Transpose`.
pub(crate) fn transpose(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = view.arguments([0])?;
    let rank = arguments.shape(0).len();
    let order = match view.ints("perm") {
        Some(perm) => {
            let order = perm.iter().map(|&axis| shape::axis(axis, rank));
            view.check(order.collect::<shape::Result<Vec<_>>>())?
        }
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank || (0..rank).any(|axis| !order.contains(&axis)) {
        return Err(view.error(format!("perm {order:?} is no order of {rank} dimensions")));
    }
    let shape = order.iter().map(|&axis| arguments.shape(0)[axis]).collect();
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Transpose { order }, dtype, shape))
}

/// `Expand`.
pub(crate) fn expand(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=2)?;
    let arguments = view.arguments([0])?;
    let target = view.check(shape::from_i64(&view.integers(1)?))?;
    let shape = view.check(shape::broadcast(arguments.shape(0), &target))?;
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Expand, dtype, shape))
}

/// `Tile`.
pub(crate) fn tile(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=2)?;
    let arguments = view.arguments([0])?;
    let repeats = view.check(shape::from_i64(&view.integers(1)?))?;
    if repeats.len() != arguments.shape(0).len() {
        return Err(view.error(format!("{} repeats are not one for each axis", repeats.len())));
    }
    let dims = arguments.shape(0).iter().zip(&repeats);
    let output: Vec<usize> = dims.map(|(&size, &times)| size.saturating_mul(times)).collect();
    view.check(shape::elements(&output))?;
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Tile, dtype, output))
}

/// `DepthToSpace`.
pub(crate) fn depth_to_space(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = view.arguments([0])?;
    let ([batch, channels, height, width], block) = blocks(view, &arguments)?;
    let inner = match view.string("mode")?.unwrap_or("DCR") {
        "DCR" => false,
        "CRD" => true,
        other => return Err(view.error(format!("mode '{other}' is not one of ONNX's"))),
    };
    if !channels.is_multiple_of(block * block) {
        return Err(view.error(format!("{channels} channels are no blocks of {block} x {block}")));
    }
    let shape = vec![batch, channels / block / block, height * block, width * block];
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::DepthToSpace(DepthToSpace { block, inner }), dtype, shape))
}

/// `SpaceToDepth`.
pub(crate) fn space_to_depth(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = view.arguments([0])?;
    let ([batch, channels, height, width], block) = blocks(view, &arguments)?;
    if !height.is_multiple_of(block) || !width.is_multiple_of(block) {
        return Err(view.error(format!("{height} x {width} is no blocks of {block} x {block}")));
    }
    let shape = vec![batch, channels * block * block, height / block, width / block];
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::SpaceToDepth { block }, dtype, shape))
}

fn blocks(view: &NodeView<'_>, arguments: &Arguments) -> Result<([usize; 4], usize)> {
    let image = view.check(shape::image(arguments.shape(0)))?;
    let block = usize::try_from(view.int("blocksize", 0)).unwrap_or(0);
    if !(1..=1 << 15).contains(&block) {
        return Err(view.error(format!("blocksize {block} is not usable")));
    }
    Ok((image, block))
}

/// `Trilu`.
pub(crate) fn trilu(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let arguments = view.arguments([0])?;
    let shape = arguments.shape(0).to_vec();
    if shape.len() < 2 {
        return Err(view.error(format!("shape {shape:?} is no matrix")));
    }
    let kept = if view.int("upper", 1) != 0 { Direction::Upper } else { Direction::Lower };
    let diagonal = view.integer(1)?.unwrap_or(0);
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Triangle(Triangle { kept, diagonal }), dtype, shape))
}
