//! The operators that take values from computed places, or put them there.

use super::super::view::NodeView;
use super::{ANY, Arguments, NUMBERS, Reading};
use crate::error::ImportError;
use crate::graph::{Gather, Op, Scatter, ScatterUpdate};
use crate::shape;
use crate::tensor::DType;

type Result<T> = std::result::Result<T, ImportError>;

/// `Gather`.
pub(crate) fn gather(view: &NodeView<'_>) -> Result<Reading> {
    let arguments = values_and_places(view)?;
    let (data, places) = (arguments.shape(0), arguments.shape(1));
    let axis = view.check(shape::axis(view.int("axis", 0), data.len()))?;
    check_places(view, &arguments, &[data[axis]])?;
    let output = [&data[..axis], places, &data[axis + 1..]].concat();
    view.check(shape::elements(&output))?;
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Gather(Gather::Axis { axis }), dtype, output))
}

/// `GatherElements`.
pub(crate) fn gather_elements(view: &NodeView<'_>) -> Result<Reading> {
    let arguments = values_and_places(view)?;
    let axis = view.check(shape::axis(view.int("axis", 0), arguments.shape(0).len()))?;
    check_within(view, &arguments, axis)?;
    check_places(view, &arguments, &[arguments.shape(0)[axis]])?;
    let (dtype, output) = (arguments.dtype(), arguments.shape(1).to_vec());
    Ok(arguments.one(Op::Gather(Gather::Elements { axis }), dtype, output))
}

/// `GatherND`.
pub(crate) fn gather_nd(view: &NodeView<'_>) -> Result<Reading> {
    let arguments = values_and_places(view)?;
    let (data, places) = (arguments.shape(0), arguments.shape(1));
    let batch_dims = usize::try_from(view.int("batch_dims", 0)).unwrap_or(usize::MAX);
    let depth = places.last().copied().unwrap_or(0);
    let fits = !places.is_empty()
        && batch_dims < places.len()
        && batch_dims.saturating_add(depth) <= data.len()
        && data[..batch_dims] == places[..batch_dims];
    if !fits {
        return Err(view.error(format!(
            "places of shape {places:?} don't lie in {data:?} below {batch_dims} dimensions"
        )));
    }
    check_places(view, &arguments, &data[batch_dims..batch_dims + depth])?;
    let output = [&places[..places.len() - 1], &data[batch_dims + depth..]].concat();
    view.check(shape::elements(&output))?;
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Gather(Gather::Nd { batch_dims }), dtype, output))
}

/// `ScatterElements`, called `Scatter` before version 11.
pub(crate) fn scatter_elements(view: &NodeView<'_>) -> Result<Reading> {
    let (arguments, update) = scattered(view)?;
    let axis = view.check(shape::axis(view.int("axis", 0), arguments.shape(0).len()))?;
    check_within(view, &arguments, axis)?;
    check_places(view, &arguments, &[arguments.shape(0)[axis]])?;
    if arguments.shape(1) != arguments.shape(2) {
        return Err(view.error("places and updates are not of one shape"));
    }
    let (dtype, output) = (arguments.dtype(), arguments.shape(0).to_vec());
    Ok(arguments.one(Op::Scatter(Scatter { axis: Some(axis), update }), dtype, output))
}

/// `ScatterND`.
pub(crate) fn scatter_nd(view: &NodeView<'_>) -> Result<Reading> {
    let (arguments, update) = scattered(view)?;
    let (data, places, updates) = (arguments.shape(0), arguments.shape(1), arguments.shape(2));
    let depth = places.last().copied().unwrap_or(0);
    let fits = !places.is_empty()
        && depth <= data.len()
        && updates == [&places[..places.len() - 1], &data[depth..]].concat();
    if !fits {
        return Err(view.error(format!(
            "places of shape {places:?} and updates of shape {updates:?} don't fit {data:?}"
        )));
    }
    check_places(view, &arguments, &data[..depth])?;
    let (dtype, output) = (arguments.dtype(), data.to_vec());
    Ok(arguments.one(Op::Scatter(Scatter { axis: None, update }), dtype, output))
}

fn values_and_places(view: &NodeView<'_>) -> Result<Arguments> {
    view.expect_inputs(2..=2)?;
    let arguments = view.arguments(0..2)?;
    expect_places(view, &arguments)?;
    Ok(arguments)
}

fn scattered(view: &NodeView<'_>) -> Result<(Arguments, ScatterUpdate)> {
    view.expect_inputs(3..=3)?;
    let arguments = view.arguments(0..3)?;
    expect_places(view, &arguments)?;
    let dtype = arguments.made[2].dtype;
    if dtype != arguments.dtype() {
        return Err(view.wrong_type(2, dtype));
    }
    let update = match view.string("reduction")?.unwrap_or("none") {
        "none" => ScatterUpdate::Replace,
        "add" => ScatterUpdate::Add,
        "max" => ScatterUpdate::Max,
        "min" => ScatterUpdate::Min,
        "mul" => ScatterUpdate::Mul,
        other => return Err(view.error(format!("reduction '{other}' is not one of ONNX's"))),
    };
    let allowed: &[DType] = if update == ScatterUpdate::Replace { &ANY } else { &NUMBERS };
    if !allowed.contains(&dtype) {
        return Err(view.wrong_type(0, dtype));
    }
    Ok((arguments, update))
}

fn expect_places(view: &NodeView<'_>, arguments: &Arguments) -> Result<()> {
    let dtype = arguments.made[1].dtype;
    if dtype.is_int() { Ok(()) } else { Err(view.wrong_type(1, dtype)) }
}

/// Checks that constant places, whose last dimension is one for each of `sizes`, lie within them.
fn check_places(view: &NodeView<'_>, arguments: &Arguments, sizes: &[usize]) -> Result<()> {
    let Some((_, weight)) = arguments.constants.iter().find(|(place, _)| *place == 1) else {
        return Ok(());
    };
    let places = weight.integers();
    let outside = places.iter().zip(sizes.iter().cycle()).find(|&(&place, &size)| {
        let size = size as i64;
        !(-size..size).contains(&place)
    });
    match outside {
        Some((place, size)) => Err(view.error(format!("place {place} is not within {size}"))),
        None => Ok(()),
    }
}

/// Checks that places lie within the values along all other axes.
fn check_within(view: &NodeView<'_>, arguments: &Arguments, axis: usize) -> Result<()> {
    let (data, places) = (arguments.shape(0), arguments.shape(1));
    let within =
        data.len() == places.len() && (0..data.len()).all(|i| i == axis || places[i] <= data[i]);
    if within {
        return Ok(());
    }
    Err(view.error(format!("places of shape {places:?} don't lie in {data:?} along axis {axis}")))
}

/// `OneHot`.
pub(crate) fn one_hot(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(3..=3)?;
    let arguments = view.arguments([0, 2])?;
    if arguments.dtype() == DType::Bool {
        return Err(view.wrong_type(0, DType::Bool));
    }
    if arguments.shape(1) != [2] {
        return Err(view.error("the values are not two: for others, and for the one"));
    }
    let depth = view.any_weight(1)?;
    let depth = match depth.dtype() {
        DType::F32 => depth.values().first().map_or(0, |&depth| depth as i64),
        _ => view.integer(1)?.unwrap_or(0),
    };
    let depth = usize::try_from(depth).unwrap_or(0);
    let mut output = arguments.shape(0).to_vec();
    let axis = view.check(shape::axis(view.int("axis", -1), output.len() + 1))?;
    output.insert(axis, depth);
    view.check(shape::elements(&output))?;
    let dtype = arguments.made[1].dtype;
    Ok(arguments.one(Op::OneHot { axis }, dtype, output))
}
