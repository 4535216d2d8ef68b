//! Between the engine's words and the protocol's: profiles, speeds, tensors.

use starling_engine::{Model, Profile, Tensor, TensorInfo, calibrate};
use starling_protocol::{
    ModelId,
    model::{LayerProfile, ModelProfile, Speed, Work},
};

use crate::net::TensorBytes;

/// A model's costs as the protocol plans with them; nothing if it has no layer or over 65,535.
pub(crate) fn model_profile(model: &Model) -> Option<ModelProfile> {
    let profile = model.profile();
    let layers: Vec<LayerProfile> = profile
        .layers
        .iter()
        .map(|layer| LayerProfile { work: Work(layer.work), weight_bytes: layer.weight_bytes })
        .collect();
    let cuts = profile.cuts.iter().map(|cut| cut.bytes).collect();
    ModelProfile::new(ModelId(*model.id().as_bytes()), &layers, cuts)
}

/// All work of a profile, per op class.
pub(crate) fn total_work(profile: &Profile) -> Work {
    let mut work = Work::default();
    for layer in &profile.layers {
        for (sum, units) in work.0.iter_mut().zip(layer.work) {
            *sum = sum.saturating_add(units);
        }
    }
    work
}

/// A measured speed.
pub(crate) fn speed(measured: &calibrate::Speed) -> Speed {
    Speed(measured.units_per_s.map(|units| units as u64))
}

/// A tensor for the wire; no byte is copied.
pub(crate) fn to_wire(tensor: Tensor) -> TensorBytes {
    // The engine bounds every dimension far below this.
    let shape = tensor.shape().iter().map(|dim| u32::try_from(*dim).unwrap_or(u32::MAX)).collect();
    TensorBytes { shape, data: tensor.into_bytes() }
}

/// Tensors from the wire, of the types that the receiver expects; frames don't name them.
///
/// Their shapes are as they came; the error says what is wrong, to be logged.
pub(crate) fn from_wire(
    tensors: Vec<TensorBytes>,
    expected: &[TensorInfo],
) -> Result<Vec<Tensor>, String> {
    if tensors.len() != expected.len() {
        return Err(format!("{} tensors instead of {}", tensors.len(), expected.len()));
    }
    let one = |(tensor, info): (TensorBytes, &TensorInfo)| {
        let shape = tensor.shape.iter().map(|dim| *dim as usize).collect();
        Tensor::from_bytes(info.dtype, shape, tensor.data).map_err(|error| error.to_string())
    };
    tensors.into_iter().zip(expected).map(one).collect()
}
