//! Constant tensors, named by their content.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::Hash;
use crate::mapped::Mapped;
use crate::onnx::proto::data_type;
use crate::tensor::DType;

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

    /// The mapped files that such bytes are in, if any are: the engine lets go of the memory that
    /// they take there as soon as it has packed them.
    fn mapped(&self) -> Vec<Mapped> {
        Vec::new()
    }
}

/// A constant tensor of a layer: a filter, a bias, a table. Cheap to clone.
///
/// In the file it may be in half or double precision; its values are read as `f32` then.
#[derive(Debug, Clone)]
pub struct Weight(Arc<Constant>);

impl Weight {
    /// A weight, if the constant is of a type that the engine computes with.
    pub(crate) fn new(constant: Arc<Constant>) -> Option<Self> {
        constant.dtype().map(|_| Self(constant))
    }

    /// The type of its values.
    pub fn dtype(&self) -> DType {
        self.0.dtype().expect("checked when the weight was made")
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

    /// Some of what it has along one of its dimensions: shared if that is one stretch of bytes,
    /// copied if not.
    pub(crate) fn part(&self, axis: usize, part: Range<usize>) -> Self {
        Self(Arc::new(self.0.part(axis, part)))
    }

    /// The values of a weight of type `f32`, copied out: bytes of a file are rarely aligned.
    pub(crate) fn values(&self) -> Vec<f32> {
        debug_assert_eq!(self.dtype(), DType::F32, "the import reads weights by their types");
        let bytes = &self.0.data;
        match self.0.data_type {
            data_type::FLOAT16 => elements(bytes).map(from_half).collect(),
            data_type::BFLOAT16 => {
                elements(bytes).map(|bits: u16| f32::from_bits(u32::from(bits) << 16)).collect()
            }
            data_type::DOUBLE => elements(bytes).map(|value: f64| value as f32).collect(),
            _ => bytemuck::pod_collect_to_vec(bytes),
        }
    }

    /// The values as little-endian bytes of the weight's type.
    pub(crate) fn typed_bytes(&self) -> Bytes {
        match self.0.data_type {
            data_type::FLOAT16 | data_type::BFLOAT16 | data_type::DOUBLE => {
                self.values().iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            _ => self.0.data.clone(),
        }
    }

    /// The values of a weight of whole numbers, copied out.
    pub(crate) fn integers(&self) -> Vec<i64> {
        match self.dtype() {
            DType::I32 => elements(&self.0.data).map(|value: i32| i64::from(value)).collect(),
            other => {
                debug_assert_eq!(other, DType::I64, "the import reads weights by their types");
                bytemuck::pod_collect_to_vec(&self.0.data)
            }
        }
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

    /// The type that the engine computes with, if it reads this one.
    pub(crate) fn dtype(&self) -> Option<DType> {
        data_type::dtype(self.data_type)
    }

    pub(crate) fn hash(&self) -> Hash {
        *self.hash.get_or_init(|| blake3::hash(&self.data))
    }

    /// What it has of one of its dimensions at these places, of which there must be some.
    pub(crate) fn part(&self, axis: usize, part: Range<usize>) -> Self {
        let mut dims = self.dims.clone();
        dims[axis] = part.len();
        // Before the dimension, along it, and the bytes of one place.
        let blocks: usize = self.dims[..axis].iter().product();
        let place = self.data.len() / blocks / self.dims[axis];
        let stretch = part.start * place..part.end * place;
        let data = match blocks {
            1 => self.data.slice(stretch),
            _ => {
                let blocks = self.data.chunks_exact(self.data.len() / blocks);
                let parts: Vec<&[u8]> = blocks.map(|block| &block[stretch.clone()]).collect();
                parts.concat().into()
            }
        };
        Self::new(self.data_type, dims, data)
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

/// What a slice names of a constant: made again from the whole when somebody asks for it, since
/// most parts are stretches of a mapped file.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) whole: Arc<Constant>,
    /// The dimension that is divided.
    pub(crate) axis: usize,
    /// Which places along it.
    pub(crate) places: Range<usize>,
    /// Of the part's bytes.
    pub(crate) hash: Hash,
}

impl Part {
    pub(crate) fn bytes(&self) -> Bytes {
        self.whole.part(self.axis, self.places.clone()).data
    }
}

/// The values of bytes that may not be aligned.
fn elements<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> impl Iterator<Item = T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// The value of a half-precision number (IEEE 754 binary16) with these bits; exact.
fn from_half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Subnormal: no hidden bit, at the smallest exponent.
        0 => fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    };
    sign * magnitude
}

/// Scalars, shapes and clip bounds are smaller than the hash that would name them.
const INLINE_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_reads_exactly() {
        let cases: [(u16, f32); 9] = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(from_half(bits), value, "{bits:#x}");
        }
        assert!(from_half(0x7e00).is_nan());
    }

    #[test]
    fn weights_of_other_precisions_are_read_as_f32() {
        let weight = |kind, bytes: &[u8]| {
            let constant = Constant::new(kind, vec![1], Bytes::copy_from_slice(bytes));
            Weight::new(Arc::new(constant)).unwrap()
        };
        assert_eq!(weight(data_type::BFLOAT16, &[0xc0, 0x3f]).values(), [1.5]);
        assert_eq!(weight(data_type::DOUBLE, &2.5f64.to_le_bytes()).values(), [2.5]);
        assert_eq!(
            weight(data_type::FLOAT16, &[0x00, 0x3e]).typed_bytes()[..],
            1.5f32.to_le_bytes()
        );
        assert_eq!(weight(data_type::INT32, &(-7i32).to_le_bytes()).integers(), [-7]);
        assert!(Weight::new(Arc::new(Constant::new(8, vec![0], Bytes::new()))).is_none());
    }
}
