//! Any bytes from a peer: decoding never panics, and what decodes survives the way back.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use starling_protocol::wire::{self, Advert, Message, Wire};

fuzz_target!(|bytes: &[u8]| {
    check::<Advert>(bytes);
    check::<Message>(bytes);
});

/// The bytes may differ, for a number can be written longer than it need be; the message may not.
fn check<M: Wire + Debug + PartialEq>(bytes: &[u8]) {
    let Ok(message) = wire::decode::<M>(bytes) else { return };
    let again = wire::encode(&message).expect("what was accepted can be sent on");
    assert_eq!(wire::decode::<M>(&again).as_ref(), Ok(&message));
}
