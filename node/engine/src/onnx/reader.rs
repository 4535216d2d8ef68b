//! The outermost layer of the file: is this an ONNX model, and is all of it here?

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::proto::{GraphProto, ModelProto};
use crate::error::ImportError;

/// Decodes a model. Weights stay windows of `bytes`; memory use is linear in its length.
pub(crate) fn decode(bytes: &Bytes, name: &str) -> Result<ModelProto, ImportError> {
    check_envelope(bytes, name)?;
    let not_onnx = |reason: String| ImportError::NotOnnx { name: name.to_owned(), reason };
    let model = ModelProto::decode(bytes.clone()).map_err(|error| not_onnx(error.to_string()))?;
    if model.graph.is_none() {
        return Err(not_onnx("it has no graph".to_owned()));
    }
    Ok(model)
}

/// The version of ONNX's own operators that the model asks for.
pub(crate) fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let own = |domain: &Option<String>| matches!(domain.as_deref(), None | Some("" | "ai.onnx"));
    let version = model
        .opset_import
        .iter()
        .find(|set| own(&set.domain))
        .and_then(|set| set.version)
        .ok_or_else(|| {
            ImportError::graph(
                "it names no version of the ONNX operators; the file may be cut short",
            )
        })?;
    if version < OPSET_MIN {
        let problem = format!(
            "operators of version {version} are too old; export with opset {OPSET_MIN} or newer"
        );
        return Err(ImportError::graph(problem));
    }
    Ok(version)
}

/// Takes the graph out of a decoded model.
pub(crate) fn graph(model: &mut ModelProto) -> GraphProto {
    model.graph.take().unwrap_or_default()
}

/// Walks the top-level fields without decoding them.
///
/// `prost` reports a cut-short file in the same way as random bytes; a user needs to know which.
fn check_envelope(bytes: &Bytes, name: &str) -> Result<(), ImportError> {
    let not_onnx =
        |reason: &str| ImportError::NotOnnx { name: name.to_owned(), reason: reason.to_owned() };
    if bytes.is_empty() {
        return Err(not_onnx("it is empty"));
    }
    let present = bytes.len() as u64;
    let truncated = |needed| ImportError::Truncated { name: name.to_owned(), needed, present };
    let mut rest = &bytes[..];
    while rest.has_remaining() {
        let (tag, wire_type) =
            decode_key(&mut rest).map_err(|_| not_onnx("it does not start like one"))?;
        if tag > FIELD_MAX {
            return Err(not_onnx("it does not start like one"));
        }
        let length = match wire_type {
            WireType::Varint => decode_varint(&mut rest).map(|_| 0),
            WireType::LengthDelimited => decode_varint(&mut rest),
            WireType::ThirtyTwoBit => Ok(4),
            WireType::SixtyFourBit => Ok(8),
            WireType::StartGroup | WireType::EndGroup => {
                return Err(not_onnx("it does not start like one"));
            }
        };
        let length = length.map_err(|_| truncated(present + 1))?;
        let here = (bytes.len() - rest.len()) as u64;
        match usize::try_from(length) {
            Ok(length) if length <= rest.len() => rest.advance(length),
            _ => return Err(truncated(here.saturating_add(length))),
        }
    }
    Ok(())
}

/// Older opsets broadcast by an attribute, which this engine does not implement.
pub(crate) const OPSET_MIN: i64 = 7;

/// `ModelProto`'s highest field is 26 today; leave it room to grow.
const FIELD_MAX: u32 = 64;
