//! Tensors as they enter and leave a piece: a shape, and `f32` values in row-major order.

use bytes::Bytes;

use crate::error::TensorError;
use crate::rows::range::{self, RowRange};
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

    /// Some rows of an image, cut out of all its channels; shares the values if there is one
    /// channel. A tensor that has no height is one row.
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
            return Self::from_bytes(shape, self.data.slice(plane));
        }
        let mut data = Vec::with_capacity(planes * plane.len());
        for bytes in self.data.chunks_exact(height * row_bytes) {
            data.extend_from_slice(&bytes[plane.clone()]);
        }
        Self::from_bytes(shape, data)
    }

    /// Images of the same batch, channels and width below each other.
    ///
    /// # Errors
    /// When there are none, they differ in more than their heights, or there are several of which
    /// one has no height.
    pub fn join_rows(strips: &[Self]) -> Result<Self, TensorError> {
        let Some(first) = strips.first() else {
            return Err(TensorError::Join { shapes: Vec::new() });
        };
        if strips.len() == 1 {
            return Ok(first.clone());
        }
        let joins = |strip: &Self| {
            strip.shape.len() == first.shape.len()
                && range::with_height(&strip.shape, 1) == range::with_height(&first.shape, 1)
        };
        if first.shape.len() != 4 || !strips.iter().all(joins) {
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
        let height = strips.iter().map(|strip| strip.shape[2]).fold(0, usize::saturating_add);
        Self::from_bytes(range::with_height(&first.shape, height), data)
    }

    /// How many images of one channel the tensor is.
    fn planes(&self) -> usize {
        if self.shape.len() == 4 { self.shape[0] * self.shape[1] } else { 1 }
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
