//! Values on the host: whole numbers and truth values, which are indices and flags, never the
//! bulk of a network. Burn's integer arithmetic may panic on a division by zero or an overflow;
//! here everything wraps.

use burn::tensor::{Bool, DType as BurnType, Device, Int, Tensor, TensorData};

use super::super::{Value, burn_type};
use crate::tensor::DType;

/// Values of one tensor.
#[derive(Debug, Clone)]
pub(super) enum Host {
    Bool(Vec<bool>),
    Float(Vec<f32>),
    /// Of either width.
    Int(Vec<i64>),
}

impl Host {
    /// Values brought from the device.
    pub(super) fn download(value: Value) -> Self {
        match value {
            Value::Bool(values) => {
                let ints = list::<i64>(values.int().into_data(), BurnType::I64);
                Self::Bool(ints.into_iter().map(|flag| flag != 0).collect())
            }
            Value::Float(values) => Self::Float(list(values.into_data(), BurnType::F32)),
            Value::Int(values) => Self::Int(list(values.into_data(), BurnType::I64)),
        }
    }

    /// Brings the values to the device, as ones of this type.
    pub(super) fn upload(self, dtype: DType, device: &Device) -> Value {
        match self {
            Self::Bool(values) => {
                let count = values.len();
                let data = TensorData::new(values, [count]);
                Value::Bool(Tensor::<1, Bool>::from_data(data, device))
            }
            Self::Float(values) => {
                let count = values.len();
                Value::Float(super::upload(values, [count], device))
            }
            Self::Int(values) => Value::Int(upload_ints(values, dtype, device)),
        }
    }

    /// The values at these places.
    pub(super) fn pick(&self, places: &[usize]) -> Self {
        match self {
            Self::Bool(values) => Self::Bool(places.iter().map(|&i| values[i]).collect()),
            Self::Float(values) => Self::Float(places.iter().map(|&i| values[i]).collect()),
            Self::Int(values) => Self::Int(places.iter().map(|&i| values[i]).collect()),
        }
    }

    /// Whole numbers, truth values as 0 and 1.
    pub(super) fn into_ints(self) -> Vec<i64> {
        match self {
            Self::Bool(values) => values.into_iter().map(i64::from).collect(),
            // `as` keeps to the range, and makes 0 of what is no number.
            Self::Float(values) => values.into_iter().map(|value| value as i64).collect(),
            Self::Int(values) => values,
        }
    }

    /// The values as numbers that compare as they do.
    pub(super) fn into_floats(self) -> Vec<f32> {
        match self {
            Self::Bool(values) => values.into_iter().map(f32::from).collect(),
            Self::Float(values) => values,
            Self::Int(values) => values.into_iter().map(|value| value as f32).collect(),
        }
    }

    /// The values in an order that a stable sort can use: `compare(a, b)` by their places.
    pub(super) fn compare(&self, a: usize, b: usize) -> std::cmp::Ordering {
        match self {
            Self::Bool(values) => values[a].cmp(&values[b]),
            Self::Float(values) => values[a].total_cmp(&values[b]),
            Self::Int(values) => values[a].cmp(&values[b]),
        }
    }
}

/// Whole numbers on the device; those of 32 bits keep their low bits.
pub(super) fn upload_ints(values: Vec<i64>, dtype: DType, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    let data = match dtype {
        DType::I32 => {
            TensorData::new(values.into_iter().map(|value| value as i32).collect(), [count])
        }
        DType::Bool | DType::F32 | DType::I64 => TensorData::new(values, [count]),
    };
    let dtype = if dtype == DType::I32 { DType::I32 } else { DType::I64 };
    Tensor::from_data(data, (device, burn_type(dtype)))
}

fn list<E: burn::tensor::Element>(data: TensorData, dtype: BurnType) -> Vec<E> {
    data.convert_dtype(dtype).try_into_vec().expect("the data was just converted to this type")
}
