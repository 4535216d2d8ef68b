//! Tensors as they enter and leave a piece: a shape, and `f32` values in row-major order.

use bytes::Bytes;

use crate::error::TensorError;
use crate::shape;

#[cfg(target_endian = "big")]
compile_error!(
    "tensors travel as little-endian bytes and are used in place: big-endian machines are not supported"
);

/// The name and the shape of a tensor of a graph; its elements are always `f32`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorInfo {
    /// The tensor's name in the graph.
    pub name: String,
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
        self.elements().saturating_mul(4)
    }
}

/// A tensor of `f32` values: contiguous, row-major, little-endian.
///
/// Cloning shares the values, and neither [`as_bytes`](Self::as_bytes) nor
/// [`into_bytes`](Self::into_bytes) copies, so a tensor can go from a socket through a piece
/// and to the next socket without one.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The dimensions, outermost first.
    pub(crate) shape: Vec<usize>,
    /// Aligned for `f32`, and as long as the shape says: every constructor sees to it.
    data: Bytes,
}

impl Tensor {
    /// A tensor of the given values, in row-major order; takes them over without a copy.
    ///
    /// # Errors
    /// When there are not exactly as many values as the shape says, or the shape is too large.
    pub fn from_f32(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, TensorError> {
        Self::from_bytes(shape, Bytes::from_owner(Values(values)))
    }

    /// A tensor of the given little-endian bytes.
    ///
    /// They are shared, not copied, unless they are not aligned for `f32`.
    ///
    /// # Errors
    /// When there are not exactly as many bytes as the shape says, or the shape is too large.
    pub fn from_bytes(shape: Vec<usize>, bytes: impl Into<Bytes>) -> Result<Self, TensorError> {
        let bytes = bytes.into();
        let elements = shape::elements(&shape).map_err(|problem| TensorError::Shape {
            shape: shape.clone(),
            problem: problem.to_string(),
        })?;
        let (expected, actual) = (elements as u64 * 4, bytes.len() as u64);
        if expected != actual {
            return Err(TensorError::Length { shape, expected, actual });
        }
        Ok(Self { shape, data: aligned(bytes) })
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order.
    pub fn as_f32(&self) -> &[f32] {
        bytemuck::cast_slice(&self.data)
    }

    /// The values as little-endian bytes, in row-major order.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }

    /// The values as shared little-endian bytes: what goes to the wire.
    pub fn into_bytes(self) -> Bytes {
        self.data
    }
}

/// Owned values behind `Bytes`.
struct Values(Vec<f32>);

impl AsRef<[u8]> for Values {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The same bytes at an address where they can be read as `f32`.
fn aligned(bytes: Bytes) -> Bytes {
    if bytemuck::try_cast_slice::<u8, f32>(&bytes).is_ok() {
        return bytes;
    }
    Bytes::from_owner(Values(bytemuck::pod_collect_to_vec(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_through_bytes() {
        let tensor = Tensor::from_f32(vec![2, 2], vec![1.0, -2.5, 3.0, f32::MAX]).unwrap();
        let again = Tensor::from_bytes(vec![2, 2], tensor.clone().into_bytes()).unwrap();
        assert_eq!(again, tensor);
        assert_eq!(again.as_f32(), [1.0, -2.5, 3.0, f32::MAX]);
    }

    #[test]
    fn unaligned_bytes_are_realigned() {
        let mut bytes = vec![0u8; 1];
        bytes.extend([1.5f32, -0.25, 8.0].iter().flat_map(|value| value.to_le_bytes()));
        for offset in 1..4 {
            let mut shifted = vec![0u8; offset - 1];
            shifted.extend_from_slice(&bytes);
            let tensor = Tensor::from_bytes(vec![3], Bytes::from(shifted).slice(offset..)).unwrap();
            assert_eq!(tensor.as_f32(), [1.5, -0.25, 8.0]);
        }
    }

    #[test]
    fn length_must_match_the_shape() {
        let error = Tensor::from_f32(vec![2, 3], vec![0.0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "a tensor of shape [2, 3] has 24 bytes, not 20");
        assert!(Tensor::from_f32(vec![usize::MAX, 2], vec![]).is_err());
        assert!(Tensor::from_f32(vec![0], vec![]).is_err());
    }
}
