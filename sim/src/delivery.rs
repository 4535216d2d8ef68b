//! What can be on its way to a node, and the record of all that arrived.

use std::sync::Arc;

use starling_protocol::{NodeId, SessionId, Timestamp, node::Input, wire::Message};

use crate::{inference::Frame, ledger::Class};

/// Something on its way to a node. Small, because there are many: senders are numbers.
pub(crate) enum Delivery {
    /// Adverts that someone misses.
    Ask { from: u32, ids: Arc<[u64]> },
    /// A copy of an advert.
    Copy { number: u64, from: u32 },
    /// A piece has been run.
    Done { life: u32, frame: Box<Frame> },
    /// A tensor.
    Frame(Box<Frame>),
    /// It is time to tell others which adverts were seen.
    Heartbeat { life: u32 },
    /// Something that goes over no link.
    Local { life: u32, input: Box<Input> },
    /// A market message.
    Message { from: u32, bytes: Arc<[u8]>, class: Class },
    /// Adverts that someone has seen.
    Tell { from: u32, ids: Arc<[u64]> },
    /// A timer.
    Wake { life: u32 },
}

impl Delivery {
    /// For which of its node's lives it is meant; nothing for what comes from others.
    pub(crate) fn life(&self) -> Option<u32> {
        match self {
            Self::Done { life, .. }
            | Self::Heartbeat { life }
            | Self::Local { life, .. }
            | Self::Wake { life } => Some(*life),
            Self::Ask { .. }
            | Self::Copy { .. }
            | Self::Frame(_)
            | Self::Message { .. }
            | Self::Tell { .. } => None,
        }
    }
}

/// A message carries its session's number alone; whose session it is depends on who speaks.
pub(crate) fn session_of(from: NodeId, to: NodeId, message: &Message) -> SessionId {
    match *message {
        Message::Bid { session, .. }
        | Message::Renew { session, .. }
        | Message::Release { session, .. }
        | Message::Install { session, .. } => SessionId { requester: from, number: session },
        Message::Award { session, .. }
        | Message::Refusal { session, .. }
        | Message::Eviction { session, .. }
        | Message::Renewed { session, .. }
        | Message::Ready { session, .. }
        | Message::Failed { session, .. } => SessionId { requester: to, number: session },
        Message::Exchange(exchange) => exchange.theirs.session,
    }
}

/// The bytes with one bit turned over.
pub(crate) fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

/// A running hash of all that happened.
#[derive(Default)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
}

impl Trace {
    pub(crate) fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    pub(crate) fn wake(&mut self, now: Timestamp, place: usize) {
        self.add(now, place, 0, &[], &[]);
    }

    pub(crate) fn advert(
        &mut self,
        now: Timestamp,
        place: usize,
        from: &NodeId,
        digest: &blake3::Hash,
    ) {
        self.add(now, place, 1, &from.0, digest.as_bytes());
    }

    pub(crate) fn bytes(&mut self, now: Timestamp, place: usize, from: &NodeId, bytes: &[u8]) {
        self.add(now, place, 2, &from.0, bytes);
    }

    /// These never go over a wire, so they have no encoding but this.
    pub(crate) fn local(&mut self, now: Timestamp, place: usize, input: &Input) {
        self.add(now, place, 3, &[], format!("{input:?}").as_bytes());
    }

    pub(crate) fn frame(&mut self, now: Timestamp, place: usize, frame: &Frame) {
        self.add(now, place, 4, &[], format!("{frame:?}").as_bytes());
    }

    fn add(&mut self, now: Timestamp, place: usize, kind: u8, from: &[u8], bytes: &[u8]) {
        let mut head = [0; 25];
        head[..8].copy_from_slice(&now.0.to_le_bytes());
        head[8..16].copy_from_slice(&(place as u64).to_le_bytes());
        head[16] = kind;
        head[17..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(&head);
        self.hasher.update(from);
        self.hasher.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_flipped_and_the_rest_stays() {
        assert_eq!(flip(&[0, 0xff, 0], 9), [0, 0xfd, 0]);
        assert_eq!(flip(&flip(b"advert", 40), 40), b"advert");
    }

    #[test]
    fn a_trace_tells_apart_when_where_and_what() {
        let hash = |at, place, bytes: &[u8]| {
            let mut trace = Trace::default();
            trace.bytes(Timestamp(at), place, &NodeId([1; 32]), bytes);
            trace.hash()
        };
        assert_eq!(hash(1, 2, b"a"), hash(1, 2, b"a"));
        let others = [hash(2, 2, b"a"), hash(1, 1, b"a"), hash(1, 2, b"b")];
        assert!(others.iter().all(|other| *other != hash(1, 2, b"a")));
    }
}
