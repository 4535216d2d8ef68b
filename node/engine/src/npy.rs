//! NumPy's `.npy` files, for tensors of the engine's types: little-endian, row-major.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::TensorError;
use crate::tensor::{DType, Tensor};

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not one that [`read`] takes.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The shape in the file's header does not fit its data.
    #[error("{}: {source}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The disagreement.
        source: TensorError,
    },
}

/// Reads a tensor.
///
/// # Errors
/// When the file cannot be read, holds anything but row-major little-endian values of one of the
/// engine's types, or has more or fewer of them than its header says.
pub fn read(path: &Path) -> Result<Tensor, NpyError> {
    let bytes = fs::read(path).map_err(|source| NpyError::Io { path: path.to_owned(), source })?;
    let bytes = Bytes::from(bytes);
    let (dtype, shape, data) = parse(&bytes).map_err(|problem| NpyError::Format {
        path: path.to_owned(),
        problem: problem.to_owned(),
    })?;
    Tensor::from_bytes(dtype, shape, data)
        .map_err(|source| NpyError::Tensor { path: path.to_owned(), source })
}

/// Writes a tensor.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, tensor: &Tensor) -> Result<(), NpyError> {
    let dims: String = tensor.shape().iter().map(|dim| format!("{dim}, ")).collect();
    let descr = descr(tensor.dtype());
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    // The data starts at a multiple of 64 bytes, so that it can be mapped.
    let unpadded = PREFIX_LEN + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let header_len =
        u16::try_from(header.len()).expect("eight dimensions fit into a header of 64 KiB");
    let mut bytes = Vec::with_capacity(PREFIX_LEN + header.len() + tensor.as_bytes().len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&header_len.to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(tensor.as_bytes());
    fs::write(path, bytes).map_err(|source| NpyError::Io { path: path.to_owned(), source })
}

/// Takes a file apart into type, shape and data.
fn parse(bytes: &Bytes) -> Result<(DType, Vec<usize>, Bytes), &'static str> {
    const TRUNCATED: &str = "the file is cut short";
    if !bytes.starts_with(MAGIC) {
        return Err("it is not a .npy file");
    }
    let version = *bytes.get(6).ok_or(TRUNCATED)?;
    let length_bytes = if version == 1 { 2 } else { 4 };
    let field = bytes.get(8..8 + length_bytes).ok_or(TRUNCATED)?;
    let header_len =
        field.iter().rev().fold(0usize, |length, &byte| length << 8 | usize::from(byte));
    let start = 8 + length_bytes;
    let header = bytes.get(start..start + header_len).ok_or(TRUNCATED)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is not text")?;
    let described = value(header, "descr").map(|value| value.trim_matches(['\'', '"']));
    let dtype = DTYPES
        .into_iter()
        .find(|&dtype| described == Some(descr(dtype)))
        .ok_or("its values are not little-endian f32; save array.astype('<f4')")?;
    if value(header, "fortran_order") != Some("False") {
        return Err("its values are in column-major order; save numpy.ascontiguousarray(array)");
    }
    let shape = shape(header).ok_or("its header has no valid shape")?;
    Ok((dtype, shape, bytes.slice(start + header_len..)))
}

/// What NumPy calls a type.
fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "|b1",
        DType::F32 => "<f4",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
    }
}

/// What the header's dictionary has for a key, up to the next comma.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}'"))?;
    let rest = rest.trim_start().strip_prefix(':')?;
    Some(rest.split([',', '}']).next()?.trim())
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let (_, rest) = header.split_once("'shape'")?;
    let (inside, _) =
        rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('(')?.split_once(')')?;
    inside
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.parse().ok())
        .collect()
}

const DTYPES: [DType; 4] = [DType::Bool, DType::F32, DType::I32, DType::I64];

const MAGIC: &[u8] = b"\x93NUMPY";

/// Magic, version and the header's length.
const PREFIX_LEN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Tensor, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let prefix = format!("{}: ", file.path().display());
        read(file.path()).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    fn file(header: &str, values: &[f32]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    #[test]
    fn what_is_written_reads_back() {
        for shape in [vec![], vec![3], vec![1, 2, 3], vec![1; 8]] {
            let count = shape.iter().product::<usize>();
            let tensor =
                Tensor::from_f32(shape, (0..count).map(|i| i as f32 - 0.5).collect()).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            write(file.path(), &tensor).unwrap();
            assert_eq!(read(file.path()).unwrap(), tensor);
            assert_eq!((fs::read(file.path()).unwrap().len() - 4 * count) % 64, 0);
        }
    }

    #[test]
    fn every_type_reads_back() {
        let shape = || vec![2];
        for tensor in [
            Tensor::from_i64(shape(), vec![-1, i64::MAX]),
            Tensor::from_i32(shape(), vec![-1, i32::MAX]),
            Tensor::from_bool(shape(), &[true, false]),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            write(file.path(), tensor.as_ref().unwrap()).unwrap();
            assert_eq!(read(file.path()).unwrap(), tensor.unwrap());
        }
    }

    #[test]
    fn wrong_files_say_what_is_wrong() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(read_bytes(&file(good, &[1.0, 2.0])).unwrap().as_f32(), [1.0, 2.0]);
        let check =
            |bytes: &[u8], message: &str| assert_eq!(read_bytes(bytes).unwrap_err(), message);
        check(b"PK\x03\x04", "it is not a .npy file");
        check(&file(good, &[1.0, 2.0])[..30], "the file is cut short");
        check(&file(good, &[1.0]), "a tensor of shape [2] has 8 bytes, not 4");
        check(
            &file("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", &[]),
            "its values are not little-endian f32; save array.astype('<f4')",
        );
        check(
            &file("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", &[]),
            "its values are in column-major order; save numpy.ascontiguousarray(array)",
        );
        check(
            &file("{'descr': '<f4', 'fortran_order': False}", &[]),
            "its header has no valid shape",
        );
        assert!(
            read(Path::new("/nowhere/x.npy"))
                .unwrap_err()
                .to_string()
                .starts_with("/nowhere/x.npy: ")
        );
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        fn survives(bytes: Vec<u8>) -> bool {
            let _ = parse(&Bytes::from([MAGIC, &bytes].concat()));
            let _ = parse(&Bytes::from(bytes));
            true
        }
        quickcheck::quickcheck(survives as fn(Vec<u8>) -> bool);
    }
}
