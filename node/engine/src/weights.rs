//! Constant tensors, named by their content.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::Hash;
use crate::onnx::proto::data_type;

/// A weight that a slice needs: which bytes, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightRef {
    /// The blake3 hash of the little-endian bytes.
    pub hash: Hash,
    /// Their number.
    pub bytes: u64,
}

/// Where the bytes of weights come from: a model, a store, a map.
pub trait WeightSource {
    /// The bytes with this blake3 hash, if they are at hand.
    ///
    /// The engine checks the length but does not hash again: who takes bytes from a stranger
    /// checks them once, on arrival.
    fn weight(&self, hash: &Hash) -> Option<Bytes>;
}

/// A constant `f32` tensor of a layer: a filter, a bias, a statistic. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Weight(Arc<Constant>);

impl Weight {
    pub(crate) fn new(constant: Arc<Constant>) -> Self {
        debug_assert_eq!(constant.data_type, data_type::FLOAT, "a weight is made of f32 values");
        Self(constant)
    }

    /// The dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.0.dims
    }

    /// The little-endian bytes: a window of the mapped file, or of what the source gave.
    pub fn bytes(&self) -> &Bytes {
        &self.0.data
    }

    /// The blake3 hash of the bytes; computed on first use and kept.
    pub fn hash(&self) -> Hash {
        self.0.hash()
    }

    /// The values, copied out: bytes of a file are rarely aligned for `f32`.
    pub(crate) fn values(&self) -> Vec<f32> {
        bytemuck::pod_collect_to_vec(&self.0.data)
    }
}

/// An initializer or the value of a `Constant` node.
#[derive(Debug)]
pub(crate) struct Constant {
    /// `TensorProto.DataType`.
    pub(crate) data_type: i32,
    pub(crate) dims: Vec<usize>,
    /// Little-endian values; as many as `dims` says if the type is one that the engine reads.
    pub(crate) data: Bytes,
    hash: OnceLock<Hash>,
}

impl Constant {
    pub(crate) fn new(data_type: i32, dims: Vec<usize>, data: Bytes) -> Self {
        Self { data_type, dims, data, hash: OnceLock::new() }
    }

    /// A constant whose bytes came by their hash.
    pub(crate) fn with_hash(data_type: i32, dims: Vec<usize>, data: Bytes, hash: Hash) -> Self {
        Self { data_type, dims, data, hash: OnceLock::from(hash) }
    }

    pub(crate) fn hash(&self) -> Hash {
        *self.hash.get_or_init(|| blake3::hash(&self.data))
    }

    /// Whether a slice carries the bytes itself instead of naming them.
    pub(crate) fn is_inline(&self) -> bool {
        self.data.len() <= INLINE_BYTES_MAX
    }

    /// How a slice refers to the bytes.
    pub(crate) fn reference(&self) -> WeightRef {
        WeightRef { hash: self.hash(), bytes: self.data.len() as u64 }
    }
}

/// Scalars, shapes and clip bounds are smaller than the hash that would name them.
const INLINE_BYTES_MAX: usize = 64;
