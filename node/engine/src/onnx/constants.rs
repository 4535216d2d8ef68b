//! Initializers and `Constant` nodes, read without copying their bytes.

use bytes::Bytes;

use super::proto::{EXTERNAL, NodeProto, StringStringEntry, TensorProto, data_type};
use crate::Hash;
use crate::error::ImportError;
use crate::shape;
use crate::weights::{Constant, WeightRef, WeightSource};

/// Reads a constant; bytes that the model names by hash come from `source`.
pub(crate) fn read(
    tensor: &TensorProto,
    name: &str,
    source: Option<&dyn WeightSource>,
) -> Result<Constant, ImportError> {
    let fail = |problem: String| ImportError::tensor(name, problem);
    let dims = shape::of_constant(&tensor.dims).map_err(fail)?;
    let kind = tensor.data_type.unwrap_or_default();
    let constant = if is_external(tensor) {
        let reference = external(tensor, name)?;
        let bytes = source.and_then(|source| source.weight(&reference.hash)).ok_or_else(|| {
            ImportError::MissingWeight { tensor: name.to_owned(), hash: reference.hash }
        })?;
        Constant::with_hash(kind, dims, bytes, reference.hash)
    } else {
        Constant::new(kind, dims, inline(tensor))
    };
    check_length(&constant).map_err(fail)?;
    Ok(constant)
}

/// The value of a `Constant` node, if it is one that the engine reads.
pub(crate) fn read_node(
    node: &NodeProto,
    name: &str,
    source: Option<&dyn WeightSource>,
) -> Result<Constant, ImportError> {
    let attribute = node.attribute.first();
    match attribute.and_then(|attribute| attribute.name.as_deref().map(|kind| (kind, attribute))) {
        Some(("value", attribute)) if attribute.t.is_some() => {
            read(attribute.t.as_ref().expect("checked by the guard"), name, source)
        }
        Some(("value_float", attribute)) => {
            Ok(scalar(data_type::FLOAT, &attribute.f.unwrap_or_default().to_le_bytes()))
        }
        Some(("value_int", attribute)) => {
            Ok(scalar(data_type::INT64, &attribute.i.unwrap_or_default().to_le_bytes()))
        }
        Some(("value_floats", attribute)) => {
            vector(name, data_type::FLOAT, attribute.floats.len(), floats(&attribute.floats))
        }
        Some(("value_ints", attribute)) => {
            vector(name, data_type::INT64, attribute.ints.len(), integers(&attribute.ints))
        }
        _ => Err(ImportError::tensor(name, "this kind of Constant node is not supported")),
    }
}

/// Whether the bytes are outside the file.
pub(crate) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(EXTERNAL)
}

/// Which bytes an initializer of a slice names.
pub(crate) fn external(tensor: &TensorProto, name: &str) -> Result<WeightRef, ImportError> {
    let location = entry(&tensor.external_data, "location").unwrap_or_default();
    let Some(hex) = location.strip_prefix(HASH_SCHEME) else {
        return Err(ImportError::ExternalFile {
            tensor: name.to_owned(),
            location: location.to_owned(),
        });
    };
    let hash = Hash::from_hex(hex)
        .map_err(|_| ImportError::tensor(name, format!("'{location}' is not a blake3 hash")))?;
    let bytes =
        entry(&tensor.external_data, "length").and_then(|length| length.parse().ok()).ok_or_else(
            || ImportError::tensor(name, "it does not say how long its external bytes are"),
        )?;
    let dims =
        shape::of_constant(&tensor.dims).map_err(|problem| ImportError::tensor(name, problem))?;
    let expected = data_type::element_bytes(tensor.data_type.unwrap_or_default())
        .map(|size| shape::product(&dims) as u64 * size);
    if expected != Some(bytes) {
        return Err(ImportError::tensor(
            name,
            format!("{bytes} external bytes do not fill a shape of {dims:?}"),
        ));
    }
    Ok(WeightRef { hash, bytes })
}

/// The constant as an initializer of a slice: by value if it is small, else by hash.
pub(crate) fn write(name: &str, constant: &Constant) -> TensorProto {
    let mut tensor = TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(constant.data_type),
        dims: constant.dims.iter().map(|&dim| dim as i64).collect(),
        ..TensorProto::default()
    };
    if constant.is_inline() {
        tensor.raw_data = Some(constant.data.clone());
        return tensor;
    }
    let WeightRef { hash, bytes } = constant.reference();
    let entry = |key: &str, value: String| StringStringEntry {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    tensor.data_location = Some(EXTERNAL);
    tensor.external_data =
        vec![entry("location", format!("{HASH_SCHEME}{hash}")), entry("length", bytes.to_string())];
    tensor
}

/// The little-endian bytes of a tensor that carries them itself, in whichever field.
fn inline(tensor: &TensorProto) -> Bytes {
    if let Some(raw) = &tensor.raw_data {
        return raw.clone();
    }
    match tensor.data_type.unwrap_or_default() {
        data_type::FLOAT => floats(&tensor.float_data),
        data_type::INT64 => integers(&tensor.int64_data),
        data_type::DOUBLE => {
            tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        // Narrow types are stored one to a number of 32 bits: its low bytes are the value.
        kind => {
            let size = data_type::element_bytes(kind).unwrap_or(4).min(4) as usize;
            let narrow = |value: &i32| value.to_le_bytes().into_iter().take(size);
            tensor.int32_data.iter().flat_map(narrow).collect()
        }
    }
}

fn check_length(constant: &Constant) -> shape::Result<()> {
    let Some(size) = data_type::element_bytes(constant.data_type) else {
        // Of another type, such as a flag: whoever uses it must know what to make of it.
        return Ok(());
    };
    let (expected, actual) =
        (shape::product(&constant.dims) as u64 * size, constant.data.len() as u64);
    if expected != actual {
        return Err(format!(
            "shape {:?} needs {expected} bytes, but there are {actual}",
            constant.dims
        ));
    }
    if constant.data_type == data_type::BOOL && constant.data.iter().any(|&byte| byte > 1) {
        return Err("a truth value is neither 0 nor 1".to_owned());
    }
    Ok(())
}

fn scalar(kind: i32, bytes: &[u8]) -> Constant {
    Constant::new(kind, Vec::new(), Bytes::copy_from_slice(bytes))
}

fn vector(name: &str, kind: i32, length: usize, data: Bytes) -> Result<Constant, ImportError> {
    shape::of_constant(&[length as i64]).map_err(|problem| ImportError::tensor(name, problem))?;
    Ok(Constant::new(kind, vec![length], data))
}

fn floats(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn integers(values: &[i64]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn entry<'a>(entries: &'a [StringStringEntry], key: &str) -> Option<&'a str> {
    entries
        .iter()
        .find(|entry| entry.key.as_deref() == Some(key))
        .and_then(|entry| entry.value.as_deref())
}

/// What an `external_data` location starts with when it names content instead of a file.
const HASH_SCHEME: &str = "blake3:";
