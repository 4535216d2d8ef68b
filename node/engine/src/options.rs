//! What a caller may decide: about a model when it is read, and about a piece when it is loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::device::DeviceChoice;
use crate::error::TensorError;
use crate::onnx::proto::data_type;
use crate::shape;
use crate::tensor::DType;
use crate::weights::Constant;

/// Options for [`Model::parse_with`](crate::Model::parse_with); the default has none.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    fixed: BTreeMap<String, Arc<Constant>>,
}

impl ImportOptions {
    /// Fixes an input of the graph to a value: the model then has this constant instead of the
    /// input, and is another model, with another id.
    ///
    /// Shapes are static here, so inputs on which shapes depend (a target shape, axes, the bounds
    /// of a slice) must be fixed; [`ImportError::Computed`](crate::ImportError::Computed) names
    /// them. The bytes are little-endian and row-major; the shape may have empty dimensions.
    ///
    /// # Errors
    /// When there are not exactly as many bytes as type and shape say, or the shape is too large.
    pub fn fix(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        bytes: impl Into<Bytes>,
    ) -> Result<(), TensorError> {
        let bytes = bytes.into();
        let dims: Vec<i64> =
            shape.iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect();
        let dims = shape::of_constant(&dims)
            .map_err(|problem| TensorError::Shape { shape: shape.to_vec(), problem })?;
        let (expected, actual) =
            ((shape::product(&dims) * dtype.bytes()) as u64, bytes.len() as u64);
        if expected != actual {
            return Err(TensorError::Length { shape: dims, expected, actual });
        }
        if dtype == DType::Bool
            && let Some(&value) = bytes.iter().find(|&&byte| byte > 1)
        {
            return Err(TensorError::Truth { value });
        }
        let constant = Constant::new(data_type::code(dtype), dims, bytes);
        self.fixed.insert(name.to_owned(), Arc::new(constant));
        Ok(())
    }

    pub(crate) fn fixed(&self, name: &str) -> Option<&Arc<Constant>> {
        self.fixed.get(name)
    }

    /// How many inputs are fixed.
    pub(crate) fn count(&self) -> usize {
        self.fixed.len()
    }

    /// What tells models with other fixed values apart; empty if there are none.
    pub(crate) fn digest(&self) -> Vec<u8> {
        let entry = |(name, constant): (&String, &Arc<Constant>)| {
            let dims = format!("{name}\0{}{:?}\0", constant.data_type, constant.dims);
            [dims.as_bytes(), constant.hash().as_bytes()].concat()
        };
        self.fixed.iter().flat_map(entry).collect()
    }
}

/// Where and how a piece runs. A [`DeviceChoice`] alone is one, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The device.
    pub device: DeviceChoice,
    /// Which kernels it may use.
    pub kernels: Kernels,
    /// Most bytes of weights and activations. Above it, kernels that take less memory are chosen
    /// where there are some, the greatest saving first; it is a wish, not a promise, and
    /// [`Piece::memory`](crate::Piece::memory) says what came of it.
    pub memory: Option<u64>,
}

/// Which kernels compute a piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kernels {
    /// The fastest for each layer: on the processor the engine's own, among them those for 3x3
    /// convolutions that save multiplications and lose some accuracy (about 4e-6 of the peak).
    #[default]
    Fast,
    /// As above, without those that lose accuracy.
    Exact,
    /// Burn's own operators for everything, as on any other device.
    Portable,
}

/// What a piece holds and needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Weights, as they are packed for their kernels.
    pub weights: u64,
    /// Activations of one run, at their most.
    pub activations: u64,
}

impl From<DeviceChoice> for LoadOptions {
    fn from(device: DeviceChoice) -> Self {
        Self { device, ..Self::default() }
    }
}

impl LoadOptions {
    /// The same, with kernels that the device has.
    pub(crate) fn for_device(mut self) -> Self {
        if self.device != DeviceChoice::Cpu {
            self.kernels = Kernels::Portable;
        }
        self
    }
}
