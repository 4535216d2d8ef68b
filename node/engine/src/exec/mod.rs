//! Execution. Inside a piece, activations are Burn tensors and stay on the device.

pub(crate) mod kernels;
pub(crate) mod portable;
pub(crate) mod program;

use burn::tensor::{
    AllocationProperty, Bool, BoolStore, Bytes as BurnBytes, DType as BurnType, Device, Int,
    TensorData,
};
use bytes::Bytes;

use crate::tensor::{DType, Tensor, TensorInfo};
use crate::weights::Weight;

/// An activation: contiguous values. Shapes are static, so every operator knows them already,
/// and giving a value a shape costs nothing.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Truth values.
    Bool(burn::tensor::Tensor<1, Bool>),
    /// Values of type `f32`.
    Float(burn::tensor::Tensor<1>),
    /// Values of type `i32` or `i64`: Burn's tensor knows which.
    Int(burn::tensor::Tensor<1, Int>),
}

impl Value {
    /// The values of an activation of type `f32`.
    pub(crate) fn into_float(self) -> burn::tensor::Tensor<1> {
        match self {
            Self::Float(values) => values,
            Self::Bool(_) | Self::Int(_) => unreachable!("the import has checked the types"),
        }
    }

    /// The values of an activation of a type of whole numbers.
    pub(crate) fn into_int(self) -> burn::tensor::Tensor<1, Int> {
        match self {
            Self::Int(values) => values,
            Self::Bool(_) | Self::Float(_) => unreachable!("the import has checked the types"),
        }
    }

    /// The values of an activation of truth values.
    pub(crate) fn into_bool(self) -> burn::tensor::Tensor<1, Bool> {
        match self {
            Self::Bool(values) => values,
            Self::Float(_) | Self::Int(_) => unreachable!("the import has checked the types"),
        }
    }
}

/// Brings a tensor to the device; on the CPU, without a copy.
pub(crate) fn upload(tensor: &Tensor, device: &Device) -> Value {
    let (dtype, elements) = (tensor.dtype(), tensor.shape().iter().product());
    upload_bytes(dtype, elements, tensor.clone().into_bytes(), device)
}

/// Brings a constant of any type to the device.
pub(crate) fn upload_weight(weight: &Weight, device: &Device) -> Value {
    let (dtype, shape) = (weight.dtype(), weight.shape().to_vec());
    let tensor = Tensor::from_bytes(dtype, shape, weight.typed_bytes())
        .expect("the import has checked the constant, and takes no empty one");
    upload(&tensor, device)
}

/// Brings as many values of this type to the device, as aligned bytes.
fn upload_bytes(dtype: DType, elements: usize, bytes: Bytes, device: &Device) -> Value {
    let bytes = BurnBytes::from_shared(bytes, AllocationProperty::Native);
    let burn_type = burn_type(dtype);
    let data = TensorData::from_bytes(bytes, [elements], burn_type);
    match dtype {
        DType::Bool => Value::Bool(burn::tensor::Tensor::from_data(data, device)),
        DType::F32 => Value::Float(burn::tensor::Tensor::from_data(data, (device, burn_type))),
        DType::I32 | DType::I64 => {
            Value::Int(burn::tensor::Tensor::from_data(data, (device, burn_type)))
        }
    }
}

/// Brings a copy of some values to the device.
pub(crate) fn upload_values(values: &[f32], device: &Device) -> Value {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Value::Float(burn::tensor::Tensor::from_data(data, device))
}

/// Brings a value back from the device; on the CPU, without a copy.
pub(crate) fn download(value: Value, info: &TensorInfo) -> Tensor {
    let data = match value {
        Value::Bool(values) => values.into_data(),
        Value::Float(values) => values.into_data(),
        Value::Int(values) => values.into_data(),
    };
    // A device may keep truth values and whole numbers in another width.
    let data = data.convert_dtype(burn_type(info.dtype));
    let bytes = Bytes::from_owner(Downloaded(data.into_bytes()));
    Tensor::from_bytes(info.dtype, info.shape.clone(), bytes)
        .expect("kernels make the type and the shape that the graph says")
}

/// What Burn calls a type.
pub(crate) fn burn_type(dtype: DType) -> BurnType {
    match dtype {
        DType::Bool => BurnType::Bool(BoolStore::Native),
        DType::F32 => BurnType::F32,
        DType::I32 => BurnType::I32,
        DType::I64 => BurnType::I64,
    }
}

/// Burn's bytes behind `Bytes`.
struct Downloaded(BurnBytes);

impl AsRef<[u8]> for Downloaded {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
