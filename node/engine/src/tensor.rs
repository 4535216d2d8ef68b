//! Tensors as they enter and leave a piece: a type, a shape, and values in row-major order.

use std::fmt;

use bytes::Bytes;

use crate::error::TensorError;
use crate::rows::range::{self, RowRange};
use crate::shape;

#[cfg(target_endian = "big")]
compile_error!(
    "tensors travel as little-endian bytes and are used in place: big-endian machines are not supported"
);

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// A truth value in one byte, 0 or 1.
    Bool,
    /// A number in single precision. Half-precision models compute in this type, too.
    F32,
    /// A signed number of 32 bits.
    I32,
    /// A signed number of 64 bits.
    I64,
}

impl DType {
    /// How many bytes an element takes, in memory and on the wire.
    pub fn bytes(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// Whether elements are whole numbers; truth values are not.
    pub fn is_int(self) -> bool {
        matches!(self, Self::I32 | Self::I64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::F32 => "f32",
            Self::I32 => "i32",
            Self::I64 => "i64",
        })
    }
}

/// The name, the type and the shape of a tensor of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorInfo {
    /// The tensor's name in the graph.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its dimensions, outermost first; NCHW for images.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// How many values the tensor holds.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |n, &dim| n.saturating_mul(dim as u64))
    }

    /// How many bytes the tensor takes, in memory and on the wire.
    pub fn bytes(&self) -> u64 {
        self.elements().saturating_mul(self.dtype.bytes() as u64)
    }
}

/// A tensor of values of one type: contiguous, row-major, little-endian.
///
/// Cloning shares the values, and neither [`as_bytes`](Self::as_bytes) nor
/// [`into_bytes`](Self::into_bytes) copies, so a tensor can go from a socket through a piece
/// and to the next socket without one.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    /// The dimensions, outermost first.
    pub(crate) shape: Vec<usize>,
    /// Aligned for the type, and as long as the shape says: every constructor sees to it.
    data: Bytes,
}

impl Tensor {
    /// A tensor of the given values, in row-major order; takes them over without a copy.
    ///
    /// # Errors
    /// When there are not exactly as many values as the shape says, or the shape is too large.
    pub fn from_f32(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, TensorError> {
        Self::from_bytes(DType::F32, shape, Bytes::from_owner(Values(values)))
    }

    /// A tensor of the given values, like [`from_f32`](Self::from_f32).
    ///
    /// # Errors
    /// When there are not exactly as many values as the shape says, or the shape is too large.
    pub fn from_i64(shape: Vec<usize>, values: Vec<i64>) -> Result<Self, TensorError> {
        Self::from_bytes(DType::I64, shape, Bytes::from_owner(Values(values)))
    }

    /// A tensor of the given values, like [`from_f32`](Self::from_f32).
    ///
    /// # Errors
    /// When there are not exactly as many values as the shape says, or the shape is too large.
    pub fn from_i32(shape: Vec<usize>, values: Vec<i32>) -> Result<Self, TensorError> {
        Self::from_bytes(DType::I32, shape, Bytes::from_owner(Values(values)))
    }

    /// A tensor of the given truth values, in row-major order.
    ///
    /// # Errors
    /// When there are not exactly as many values as the shape says, or the shape is too large.
    pub fn from_bool(shape: Vec<usize>, values: &[bool]) -> Result<Self, TensorError> {
        let bytes: Vec<u8> = values.iter().map(|&value| u8::from(value)).collect();
        Self::from_bytes(DType::Bool, shape, bytes)
    }

    /// A tensor of the given little-endian bytes.
    ///
    /// They are shared, not copied, unless they are not aligned for the type.
    ///
    /// # Errors
    /// When there are not exactly as many bytes as type and shape say, the shape is too large, or
    /// a truth value is neither 0 nor 1.
    pub fn from_bytes(
        dtype: DType,
        shape: Vec<usize>,
        bytes: impl Into<Bytes>,
    ) -> Result<Self, TensorError> {
        let bytes = bytes.into();
        let elements = shape::elements(&shape).map_err(|problem| TensorError::Shape {
            shape: shape.clone(),
            problem: problem.to_string(),
        })?;
        let (expected, actual) = ((elements * dtype.bytes()) as u64, bytes.len() as u64);
        if expected != actual {
            return Err(TensorError::Length { shape, expected, actual });
        }
        if dtype == DType::Bool
            && let Some(&value) = bytes.iter().find(|&&byte| byte > 1)
        {
            return Err(TensorError::Truth { value });
        }
        let data = match dtype {
            DType::Bool => bytes,
            DType::F32 => aligned::<f32>(bytes),
            DType::I32 => aligned::<i32>(bytes),
            DType::I64 => aligned::<i64>(bytes),
        };
        Ok(Self { dtype, shape, data })
    }

    /// The type of the values.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order.
    ///
    /// # Panics
    /// When the values are of another type.
    pub fn as_f32(&self) -> &[f32] {
        self.values(DType::F32)
    }

    /// The values in row-major order.
    ///
    /// # Panics
    /// When the values are of another type.
    pub fn as_i64(&self) -> &[i64] {
        self.values(DType::I64)
    }

    /// The values in row-major order.
    ///
    /// # Panics
    /// When the values are of another type.
    pub fn as_i32(&self) -> &[i32] {
        self.values(DType::I32)
    }

    /// The values in row-major order, each 0 or 1.
    ///
    /// # Panics
    /// When the values are of another type.
    pub fn as_bool(&self) -> &[u8] {
        self.values(DType::Bool)
    }

    /// Some rows of an image, cut out of all its channels, or some features of `[1, features]`;
    /// shares the values if they are next to each other. Any other tensor is one row.
    ///
    /// # Errors
    /// When the tensor does not have these rows, or they are none.
    pub fn rows(&self, rows: RowRange) -> Result<Self, TensorError> {
        let height = range::height(&self.shape);
        if rows.is_empty() || !rows.is_within(height) {
            return Err(TensorError::Rows { shape: self.shape.clone(), rows });
        }
        let planes = self.planes();
        let row_bytes = self.data.len() / planes / height;
        let plane = rows.start * row_bytes..rows.end * row_bytes;
        let shape = range::with_height(&self.shape, rows.len());
        if planes == 1 {
            return Self::from_bytes(self.dtype, shape, self.data.slice(plane));
        }
        let mut data = Vec::with_capacity(planes * plane.len());
        for bytes in self.data.chunks_exact(height * row_bytes) {
            data.extend_from_slice(&bytes[plane.clone()]);
        }
        Self::from_bytes(self.dtype, shape, data)
    }

    /// Images of the same batch, channels and width below each other, or features one after the
    /// other.
    ///
    /// # Errors
    /// When there are none, they differ in more than their heights, or there are several that have
    /// no height.
    pub fn join_rows(strips: &[Self]) -> Result<Self, TensorError> {
        let Some(first) = strips.first() else {
            return Err(TensorError::Join { shapes: Vec::new() });
        };
        if strips.len() == 1 {
            return Ok(first.clone());
        }
        let joins = |strip: &Self| {
            strip.dtype == first.dtype
                && range::with_height(&strip.shape, 1) == range::with_height(&first.shape, 1)
        };
        if range::axis(&first.shape).is_none() || !strips.iter().all(joins) {
            let shapes = strips.iter().map(|strip| strip.shape.clone()).collect();
            return Err(TensorError::Join { shapes });
        }
        let planes = first.planes();
        let mut data = Vec::with_capacity(strips.iter().map(|strip| strip.data.len()).sum());
        for plane in 0..planes {
            for strip in strips {
                let bytes = strip.data.len() / planes;
                data.extend_from_slice(&strip.data[plane * bytes..][..bytes]);
            }
        }
        let height =
            strips.iter().map(|strip| range::height(&strip.shape)).fold(0, usize::saturating_add);
        Self::from_bytes(first.dtype, range::with_height(&first.shape, height), data)
    }

    /// How many images of one channel the tensor is: what has all its rows next to each other.
    fn planes(&self) -> usize {
        range::axis(&self.shape).map_or(1, |axis| self.shape[..axis].iter().product())
    }

    /// The values as little-endian bytes, in row-major order.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }

    /// The values as shared little-endian bytes: what goes to the wire.
    pub fn into_bytes(self) -> Bytes {
        self.data
    }

    fn values<T: bytemuck::AnyBitPattern>(&self, dtype: DType) -> &[T] {
        assert_eq!(self.dtype, dtype, "the tensor's values are read as they are");
        bytemuck::cast_slice(&self.data)
    }
}

/// Owned values behind `Bytes`.
struct Values<T>(Vec<T>);

impl<T: bytemuck::NoUninit> AsRef<[u8]> for Values<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The same bytes at an address where they can be read as `T`.
fn aligned<T: bytemuck::Pod + Send + Sync>(bytes: Bytes) -> Bytes {
    if bytemuck::try_cast_slice::<u8, T>(&bytes).is_ok() {
        return bytes;
    }
    Bytes::from_owner(Values::<T>(bytemuck::pod_collect_to_vec(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_through_bytes() {
        let shape = || vec![2, 2];
        let floats = Tensor::from_f32(shape(), vec![1.0, -2.5, 3.0, f32::MAX]).unwrap();
        let longs = Tensor::from_i64(shape(), vec![1, -2, i64::MIN, i64::MAX]).unwrap();
        let ints = Tensor::from_i32(shape(), vec![1, -2, i32::MIN, i32::MAX]).unwrap();
        let flags = Tensor::from_bool(shape(), &[true, false, false, true]).unwrap();
        for tensor in [&floats, &longs, &ints, &flags] {
            let bytes = tensor.clone().into_bytes();
            assert_eq!(bytes.len(), 4 * tensor.dtype().bytes());
            assert_eq!(Tensor::from_bytes(tensor.dtype(), shape(), bytes).unwrap(), *tensor);
        }
        assert_eq!(floats.as_f32(), [1.0, -2.5, 3.0, f32::MAX]);
        assert_eq!(longs.as_i64(), [1, -2, i64::MIN, i64::MAX]);
        assert_eq!(ints.as_i32(), [1, -2, i32::MIN, i32::MAX]);
        assert_eq!(flags.as_bool(), [1, 0, 0, 1]);
    }

    #[test]
    fn unaligned_bytes_are_realigned() {
        let mut bytes = vec![0u8; 1];
        bytes.extend([1.5f32, -0.25, 8.0].iter().flat_map(|value| value.to_le_bytes()));
        for offset in 1..4 {
            let mut shifted = vec![0u8; offset - 1];
            shifted.extend_from_slice(&bytes);
            let bytes = Bytes::from(shifted).slice(offset..);
            let tensor = Tensor::from_bytes(DType::F32, vec![3], bytes).unwrap();
            assert_eq!(tensor.as_f32(), [1.5, -0.25, 8.0]);
        }
    }

    #[test]
    fn length_must_match_the_shape() {
        let error = Tensor::from_f32(vec![2, 3], vec![0.0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "a tensor of shape [2, 3] has 24 bytes, not 20");
        let error = Tensor::from_i64(vec![2, 3], vec![0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "a tensor of shape [2, 3] has 48 bytes, not 40");
        assert!(Tensor::from_f32(vec![usize::MAX, 2], vec![]).is_err());
        assert!(Tensor::from_f32(vec![0], vec![]).is_err());
    }

    #[test]
    fn truth_values_are_zero_or_one() {
        let error = Tensor::from_bytes(DType::Bool, vec![2], vec![1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "a truth value is 0 or 1, not 2");
    }
}
