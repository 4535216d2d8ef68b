//! Execution. Inside a piece, activations are Burn tensors and stay on the device.

pub(crate) mod kernels;
pub(crate) mod portable;

use burn::tensor::{AllocationProperty, Bytes as BurnBytes, DType, Device, TensorData};
use bytes::Bytes;

use crate::tensor::{Tensor, TensorInfo};

/// An activation: contiguous values. Shapes are static, so every operator knows them already,
/// and giving a value a shape costs nothing.
pub(crate) type Value = burn::tensor::Tensor<1>;

/// Brings a tensor to the device; on the CPU, without a copy.
pub(crate) fn upload(tensor: &Tensor, device: &Device) -> Value {
    let bytes = BurnBytes::from_shared(tensor.clone().into_bytes(), AllocationProperty::Native);
    let elements = tensor.as_f32().len();
    Value::from_data(TensorData::from_bytes(bytes, [elements], DType::F32), device)
}

/// Brings a value back from the device; on the CPU, without a copy.
pub(crate) fn download(value: Value, info: &TensorInfo) -> Tensor {
    let bytes = Bytes::from_owner(Downloaded(value.into_data().into_bytes()));
    Tensor::from_bytes(info.shape.clone(), bytes)
        .expect("kernels make the shape that the graph says")
}

/// Burn's bytes behind `Bytes`.
struct Downloaded(BurnBytes);

impl AsRef<[u8]> for Downloaded {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
