//! Any message that may go over the wire.

use quickcheck::{Arbitrary, Gen};

use crate::{
    id::{BlobId, ModelId, NodeId, PieceId, SessionId},
    model::{PieceProfile, Speed, Work},
    nats::Nats,
    plan::{LayerRange, PIECES_MAX},
    rows::RowRange,
    wire::{
        Advert, Ask, Claim, Exchange, ExchangeStage, FailureReason, Lease, Message, NodeAdvert,
        PriceAdvert, RefusalReason, SessionAdvert, Stage,
    },
    wiring::{Link, REQUESTER},
};

/// A market message or an advert, drawn at random within the wire's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyMessage {
    /// Gossiped.
    Advert(Advert),
    /// Directed.
    Market(Message),
}

impl Arbitrary for AnyMessage {
    fn arbitrary(g: &mut Gen) -> Self {
        if bool::arbitrary(g) { Self::Advert(advert(g)) } else { Self::Market(market(g)) }
    }
}

fn advert(g: &mut Gen) -> Advert {
    let sequence = u64::arbitrary(g);
    let ttl_ms = u32::arbitrary(g);
    match u8::arbitrary(g) % 4 {
        0 => Advert::Leaving { sequence },
        1 => Advert::Session(session(g, sequence, ttl_ms)),
        2 => Advert::Price(PriceAdvert { ask: ask(g), memory_free: u64::arbitrary(g) }),
        _ => Advert::Node(NodeAdvert {
            sequence,
            ttl_ms,
            speed: Speed(std::array::from_fn(|_| u64::arbitrary(g))),
            bandwidth: u64::arbitrary(g).max(1),
            byte_ps: u32::arbitrary(g),
            memory_free: u64::arbitrary(g),
            slots: u16::arbitrary(g),
            ask: ask(g),
            models: few(g, 4, |g| ModelId(bytes_32(g))),
            addresses: few(g, 4, |g| few(g, 40, u8::arbitrary)),
        }),
    }
}

fn session(g: &mut Gen, sequence: u64, ttl_ms: u32) -> SessionAdvert {
    let pieces = few(g, 8, piece);
    let placed = usize::arbitrary(g) % (pieces.len() + 1);
    SessionAdvert {
        sequence,
        ttl_ms,
        session: u64::arbitrary(g),
        model: ModelId(bytes_32(g)),
        stage: if bool::arbitrary(g) { Stage::Seeking } else { Stage::Settled },
        pieces,
        places: (0..placed).map(|_| NodeId(bytes_32(g))).collect(),
    }
}

fn exchange(g: &mut Gen, session: u64, index: u16) -> Exchange {
    use ExchangeStage::{Agreed, Offer, Refused};
    let other = SessionId { requester: NodeId(bytes_32(g)), number: u64::arbitrary(g) };
    Exchange {
        session,
        index,
        at: NodeId(bytes_32(g)),
        theirs: PieceId { session: other, index: u16::arbitrary(g) },
        to: NodeId(bytes_32(g)),
        stage: *g.choose(&[Offer, Agreed, Refused]).expect("not empty"),
    }
}

fn market(g: &mut Gen) -> Message {
    let (session, index) = (u64::arbitrary(g), u16::arbitrary(g));
    let (attempt, epoch) = (u32::arbitrary(g), u32::arbitrary(g));
    let leases = few(g, 6, |g| Lease { index: u16::arbitrary(g), attempt: u32::arbitrary(g) });
    match u8::arbitrary(g) % 11 {
        0 => Message::Bid {
            session,
            index,
            attempt,
            level: level(g),
            weight_bytes: u64::arbitrary(g),
            keeps: Option::arbitrary(g),
            claim: if bool::arbitrary(g) { Claim::Any } else { Claim::OpenSlot },
        },
        1 => Message::Award { session, index, attempt, ask: ask(g), lease_ms: epoch },
        2 => Message::Refusal { session, index, attempt, ask: ask(g), reason: refusal(g) },
        3 => Message::Eviction { session, index, attempt, ask: ask(g) },
        4 => Message::Renew { session, leases },
        5 => Message::Renewed { session, lost: leases, ask: ask(g) },
        6 => Message::Release { session, leases },
        7 => install(g, session, index, attempt, epoch),
        8 => Message::Ready { session, index, epoch, ask: ask(g) },
        9 => Message::Exchange(exchange(g, session, index)),
        _ => Message::Failed { session, index, attempt, epoch, reason: failure(g) },
    }
}

fn install(g: &mut Gen, session: u64, index: u16, attempt: u32, epoch: u32) -> Message {
    let first = u16::arbitrary(g) % 1000;
    Message::Install {
        session,
        index,
        attempt,
        epoch,
        model: ModelId(bytes_32(g)),
        layers: LayerRange { first, end: first + 1 + u16::arbitrary(g) % 100 },
        rows: rows(g),
        slice: BlobId(bytes_32(g)),
        slice_bytes: u32::arbitrary(g),
        sources: links(g),
        targets: links(g),
    }
}

fn links(g: &mut Gen) -> Vec<Link> {
    let count = 1 + u8::arbitrary(g) % 5;
    let piece = |g: &mut Gen| u16::arbitrary(g) % PIECES_MAX as u16;
    let end = |g: &mut Gen| if bool::arbitrary(g) { REQUESTER } else { piece(g) };
    (0..count).map(|_| Link { piece: end(g), node: NodeId(bytes_32(g)), rows: rows(g) }).collect()
}

fn rows(g: &mut Gen) -> Vec<RowRange> {
    let count = u8::arbitrary(g) % 4;
    let range = |g: &mut Gen| {
        let first = u32::from(u16::arbitrary(g));
        RowRange::new(first, first + u32::from(u16::arbitrary(g)))
    };
    (0..count).map(|_| range(g)).collect()
}

fn piece(g: &mut Gen) -> PieceProfile {
    PieceProfile {
        work: Work(std::array::from_fn(|_| u64::arbitrary(g))),
        weight_bytes: u64::arbitrary(g),
        bytes_in: u64::arbitrary(g),
        bytes_out: u64::arbitrary(g),
    }
}

fn ask(g: &mut Gen) -> Ask {
    let level = if bool::arbitrary(g) { Some(level(g)) } else { None };
    Ask { version: u64::arbitrary(g), level, holders: u16::arbitrary(g) }
}

fn level(g: &mut Gen) -> Nats {
    Nats((u64::arbitrary(g) >> 4) as i64)
}

fn refusal(g: &mut Gen) -> RefusalReason {
    use RefusalReason::{Busy, Closed, Memory, Outbid};
    *g.choose(&[Busy, Closed, Memory, Outbid]).expect("not empty")
}

fn failure(g: &mut Gen) -> FailureReason {
    use FailureReason::{BadSlice, NextHop, NotHeld, Weights};
    *g.choose(&[BadSlice, NextHop, NotHeld, Weights]).expect("not empty")
}

fn few<T>(g: &mut Gen, max: usize, mut draw: impl FnMut(&mut Gen) -> T) -> Vec<T> {
    let count = usize::arbitrary(g) % (max + 1);
    (0..count).map(|_| draw(g)).collect()
}

fn bytes_32(g: &mut Gen) -> [u8; 32] {
    std::array::from_fn(|_| u8::arbitrary(g))
}
