//! What goes over the wire, and its encoding. Nothing else in the crate knows bincode's limits or
//! versions, so that the encoding can be replaced here alone.

mod codec;
mod message;

pub use codec::{DecodeError, EncodeError, MESSAGE_BYTES_MAX, VERSION, decode, encode};
pub use message::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Advert, Ask, Claim, Exchange, ExchangeStage, FailureReason,
    Lease, MODELS_MAX, Message, NodeAdvert, PriceAdvert, RefusalReason, SessionAdvert, Stage,
    TENSORS_MAX, Wire,
};
