//! The operators whose results are known when a model is read.

use std::sync::Arc;

use bytes::Bytes;

use super::super::view::NodeView;
use super::Reading;
use crate::error::ImportError;
use crate::onnx::proto::data_type;
use crate::shape;
use crate::tensor::DType;
use crate::weights::{Constant, Weight};

type Result<T> = std::result::Result<T, ImportError>;

/// `Shape`: all shapes are static.
pub(crate) fn shape(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let shape = view.info(0)?.shape;
    let rank = shape.len() as i64;
    let bound = |name: &str, default: i64| {
        let place = view.int(name, default);
        let place = if place < 0 { place.saturating_add(rank) } else { place };
        place.clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let dims = shape.get(start..end).unwrap_or_default();
    let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
    Ok(Reading::Constants(vec![integers(vec![dims.len()], &dims)]))
}

/// `Size`.
pub(crate) fn size(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let size = shape::product(&view.info(0)?.shape) as i64;
    Ok(Reading::Constants(vec![integers(Vec::new(), &[size])]))
}

/// `ConstantOfShape`.
pub(crate) fn constant_of_shape(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let shape = view.check(shape::of_constant(&view.integers(0)?))?;
    let elements = bounded(view, &shape)?;
    let value = match view.tensor("value")? {
        Some(value) => value,
        None => Constant::new(data_type::FLOAT, vec![1], Bytes::from_static(&[0; 4])),
    };
    let one = shape::product(&value.dims) == 1;
    let weight = Weight::new(Arc::new(value)).filter(|_| one);
    let weight = weight.ok_or_else(|| view.error("value is not one of a supported type"))?;
    let data = weight.typed_bytes().repeat(elements);
    let constant = Constant::new(data_type::code(weight.dtype()), shape, data.into());
    Ok(Reading::Constants(vec![constant]))
}

/// `EyeLike`.
pub(crate) fn eye_like(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let made = view.info(0)?;
    let &[rows, columns] = &made.shape[..] else {
        return Err(view.error(format!("shape {:?} is no matrix", made.shape)));
    };
    let dtype = match view.int("dtype", 0) {
        0 => made.dtype,
        code => i32::try_from(code)
            .ok()
            .and_then(data_type::dtype)
            .ok_or_else(|| view.error(format!("values of type {code} are not supported")))?,
    };
    bounded(view, &made.shape)?;
    let diagonal = view.int("k", 0);
    let mut values = Vec::with_capacity(rows * columns * dtype.bytes());
    for row in 0..rows as i64 {
        for column in 0..columns as i64 {
            let one = column.checked_sub(row) == Some(diagonal);
            push(&mut values, dtype, i64::from(one));
        }
    }
    let constant = Constant::new(data_type::code(dtype), made.shape, values.into());
    Ok(Reading::Constants(vec![constant]))
}

fn push(values: &mut Vec<u8>, dtype: DType, value: i64) {
    match dtype {
        DType::Bool => values.push(u8::from(value != 0)),
        DType::F32 => values.extend((value as f32).to_le_bytes()),
        DType::I32 => values.extend((value as i32).to_le_bytes()),
        DType::I64 => values.extend(value.to_le_bytes()),
    }
}

/// `Range`.
pub(crate) fn range(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(3..=3)?;
    let [start, limit, step] = [0, 1, 2].map(|i| view.any_weight(i));
    let (start, limit, step) = (start?, limit?, step?);
    let same = [&limit, &step].iter().all(|weight| weight.dtype() == start.dtype());
    let scalars = [&start, &limit, &step].iter().all(|weight| shape::product(weight.shape()) == 1);
    if !same || !scalars {
        return Err(view.error("start, limit and delta are not single values of one type"));
    }
    match start.dtype() {
        DType::Bool => Err(view.wrong_type(0, DType::Bool)),
        DType::F32 => {
            let [start, limit, step] =
                [&start, &limit, &step].map(|weight| f64::from(weight.values()[0]));
            let count = count(view, (limit - start) / step)?;
            let values: Vec<u8> =
                (0..count).flat_map(|i| ((start + i as f64 * step) as f32).to_le_bytes()).collect();
            let constant = Constant::new(data_type::FLOAT, vec![count], values.into());
            Ok(Reading::Constants(vec![constant]))
        }
        DType::I32 | DType::I64 => {
            let dtype = start.dtype();
            let [start, limit, step] = [&start, &limit, &step].map(|weight| weight.integers()[0]);
            let count = count(view, (limit as f64 - start as f64) / step as f64)?;
            let mut values = Vec::with_capacity(count * dtype.bytes());
            for i in 0..count as i64 {
                push(&mut values, dtype, start.wrapping_add(i.wrapping_mul(step)));
            }
            let constant = Constant::new(data_type::code(dtype), vec![count], values.into());
            Ok(Reading::Constants(vec![constant]))
        }
    }
}

/// How many values a range has, if it can be had.
fn count(view: &NodeView<'_>, steps: f64) -> Result<usize> {
    if steps.is_nan() {
        return Err(view.error("the range has no end"));
    }
    let count = steps.ceil().max(0.0) as usize;
    bounded(view, &[count])
}

/// The number of values of a constant of this shape, if it may be made up.
pub(super) fn bounded(view: &NodeView<'_>, shape: &[usize]) -> Result<usize> {
    let elements = shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
    match elements.filter(|&elements| elements <= ELEMENTS_MAX) {
        Some(elements) => Ok(elements),
        None => Err(view
            .error(format!("a constant of shape {shape:?} has more than {ELEMENTS_MAX} values"))),
    }
}

/// A constant of type `i64`.
pub(super) fn integers(dims: Vec<usize>, values: &[i64]) -> Constant {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Constant::new(data_type::INT64, dims, data)
}

/// One constant value of this type.
pub(super) fn scalar(dtype: DType, value: f64) -> Weight {
    let mut data = Vec::new();
    match dtype {
        DType::F32 => data.extend((value as f32).to_le_bytes()),
        DType::Bool | DType::I32 | DType::I64 => push(&mut data, dtype, value as i64),
    }
    let constant = Constant::new(data_type::code(dtype), Vec::new(), data.into());
    Weight::new(Arc::new(constant)).expect("these are the supported types")
}

/// Most values of a constant that a file only describes: 256 MiB of `i64`.
const ELEMENTS_MAX: usize = 1 << 25;
