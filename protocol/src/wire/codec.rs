//! One byte of version, then bincode, with a limit: total on any bytes, and never an allocation
//! above the limit whatever length a message claims.

use thiserror::Error;

use super::message::Wire;

/// What this build speaks. The first byte of every message.
pub const VERSION: u8 = 5;

/// The longest message, version included. Adverts ride on gossip, which has 64 KiB for one RPC.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Why bytes are not a message. Always the sender's fault; nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is no byte at all.
    #[error("an empty message")]
    Empty,
    /// Another version of the protocol.
    #[error("protocol version {0}, while this node speaks {VERSION}: update the older of the two")]
    Version(u8),
    /// More bytes than any message may have.
    #[error("{0} bytes, over the limit of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// The bytes don't follow the encoding.
    #[error("not a message: {0}")]
    Malformed(String),
    /// The message ended before the bytes did.
    #[error("{0} bytes after the message's end")]
    Trailing(usize),
    /// A count or a number is out of range.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Why a message can't be sent. Always this node's own fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a message over the limit of {MESSAGE_BYTES_MAX} bytes, or out of range")]
pub struct EncodeError;

/// The bytes of a message.
///
/// # Errors
/// If it is longer than [`MESSAGE_BYTES_MAX`] or its own rules reject it.
pub fn encode<M: Wire>(message: &M) -> Result<Vec<u8>, EncodeError> {
    message.validate().map_err(|_| EncodeError)?;
    let mut bytes = vec![VERSION];
    bincode::encode_into_std_write(message, &mut bytes, CONFIG).map_err(|_| EncodeError)?;
    if bytes.len() > MESSAGE_BYTES_MAX { Err(EncodeError) } else { Ok(bytes) }
}

/// The message that the bytes are.
///
/// # Errors
/// If they are none of this version; the error says why.
pub fn decode<M: Wire>(bytes: &[u8]) -> Result<M, DecodeError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    let (version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if *version != VERSION {
        return Err(DecodeError::Version(*version));
    }
    let (message, used): (M, usize) = bincode::decode_from_slice(body, CONFIG)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if used != body.len() {
        return Err(DecodeError::Trailing(body.len() - used));
    }
    message.validate().map_err(DecodeError::Invalid)?;
    Ok(message)
}

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MESSAGE_BYTES_MAX>,
>;

const CONFIG: Config = bincode::config::standard().with_limit::<MESSAGE_BYTES_MAX>();
