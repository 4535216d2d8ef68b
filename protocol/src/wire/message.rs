//! The messages. Who sent one is known from the connection (market) or the signature (adverts);
//! no message names its own sender, so none can lie about it.

use bincode::{Decode, Encode};

use crate::{
    id::{BlobId, ModelId, NodeId, PieceId},
    model::{PieceProfile, Speed},
    nats::Nats,
    plan::{LayerRange, PIECES_MAX},
    rows::RowRange,
    wiring::{Link, REQUESTER},
};

/// A message that can be encoded and decoded, and knows what is out of range in itself.
pub trait Wire: Encode + Decode<()> {
    /// What bincode's types can't say: counts and ranges. The text says what is wrong.
    ///
    /// # Errors
    /// The first rule that the message breaks.
    fn validate(&self) -> Result<(), &'static str>;
}

/// A provider's price for its next place, with a number that rises at every change, so that late
/// news never replaces fresh news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ask {
    /// Rises at every change, and across restarts (it starts at the clock's time).
    pub version: u64,
    /// What a bid must offer for an open slot, and beat by eps to turn another piece out; nothing
    /// where no bid can succeed.
    pub level: Option<Nats>,
    /// Pieces there now (`n_j`).
    pub holders: u16,
}

/// Gossiped; treated as lossy.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Advert {
    /// What a node offers.
    Node(NodeAdvert),
    /// A node's new price, between two adverts of all that it offers.
    Price(PriceAdvert),
    /// What a session wants.
    Session(SessionAdvert),
    /// The sender leaves: forget it at once.
    Leaving {
        /// Must be above the sequence numbers of its earlier adverts.
        sequence: u64,
    },
}

/// What a node offers to all others.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeAdvert {
    /// Rises with every advert of the node, and across restarts.
    pub sequence: u64,
    /// How long it holds, in milliseconds from its arrival.
    pub ttl_ms: u32,
    /// FLOP/s per op class with the machine to itself.
    pub speed: Speed,
    /// Bytes per second of its link, in and out.
    pub bandwidth: u64,
    /// Picoseconds of its processor for each byte that comes or goes.
    pub byte_ps: u32,
    /// Bytes of weights that it can still take.
    pub memory_free: u64,
    /// The most pieces that it takes at once (`Q_j`); 0 for a node that only asks.
    pub slots: u16,
    /// Its price.
    pub ask: Ask,
    /// Models of which it holds weights, to fetch from.
    pub models: Vec<ModelId>,
    /// Where it can be dialled: multiaddresses, opaque to this crate.
    pub addresses: Vec<Vec<u8>>,
}

/// What changes most often of what a node offers: a tenth of a whole advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PriceAdvert {
    /// Its price.
    pub ask: Ask,
    /// Bytes of weights that it can still take.
    pub memory_free: u64,
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Stage {
    /// Its pieces want places: others reckon with their bids.
    Seeking,
    /// They have places.
    Settled,
}

/// What a session wants. Its pieces' costs let every other requester forecast.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionAdvert {
    /// Rises with every advert of the node, and across restarts.
    pub sequence: u64,
    /// How long it holds, in milliseconds from its arrival.
    pub ttl_ms: u32,
    /// The session's number with its requester.
    pub session: u64,
    /// Which model.
    pub model: ModelId,
    /// How far it has come.
    pub stage: Stage,
    /// Its pieces in order.
    pub pieces: Vec<PieceProfile>,
    /// Where they are, as long as they may exchange their places with others'; else empty.
    pub places: Vec<NodeId>,
}

/// Directed from one node to another. `session` is the number of a session: of the sender's where
/// a requester sends, of the receiver's where a provider does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// Requester: I want this piece computed by you, at this level.
    Bid {
        /// The session's number.
        session: u64,
        /// The piece's place in the plan.
        index: u16,
        /// Rises with every bid of this piece, so that a late copy is known as one.
        attempt: u32,
        /// What the piece offers.
        level: Nats,
        /// Bytes of weights that it needs.
        weight_bytes: u64,
        /// The bid by which the piece has a place with this provider already, and keeps it if this
        /// one is refused.
        keeps: Option<u32>,
        /// What it may take.
        claim: Claim,
    },
    /// Provider: the piece is yours to place here, until the lease ends.
    Award {
        /// The session's number.
        session: u64,
        /// The piece's place in the plan.
        index: u16,
        /// Of the bid that won.
        attempt: u32,
        /// The price now.
        ask: Ask,
        /// How long the award holds without a renewal.
        lease_ms: u32,
    },
    /// Provider: not at this level.
    Refusal {
        /// The session's number.
        session: u64,
        /// The piece's place in the plan.
        index: u16,
        /// Of the bid that lost.
        attempt: u32,
        /// The price now.
        ask: Ask,
        /// Why.
        reason: RefusalReason,
    },
    /// Provider: somebody offered more; bid again.
    Eviction {
        /// The session's number.
        session: u64,
        /// The piece's place in the plan.
        index: u16,
        /// Of the bid that had won.
        attempt: u32,
        /// The price now.
        ask: Ask,
    },
    /// Requester: I still want these.
    Renew {
        /// The session's number.
        session: u64,
        /// Which, and from which bid.
        leases: Vec<Lease>,
    },
    /// Provider: all of them are renewed but these.
    Renewed {
        /// The session's number.
        session: u64,
        /// Those of the renewal that are not held here, and never will be again.
        lost: Vec<Lease>,
        /// The price now.
        ask: Ask,
    },
    /// Requester: I no longer want these.
    Release {
        /// The session's number.
        session: u64,
        /// Which, and from which bid.
        leases: Vec<Lease>,
    },
    /// Requester: load this piece and pass its results on.
    Install {
        /// The session's number.
        session: u64,
        /// The piece's place in the plan.
        index: u16,
        /// Of the bid that won it.
        attempt: u32,
        /// Rises at every change of the plan; frames of earlier epochs are dropped.
        epoch: u32,
        /// Which model.
        model: ModelId,
        /// Its layers.
        layers: LayerRange,
        /// For a strip, its rows of each tensor alive after the layers; empty for all rows.
        rows: Vec<RowRange>,
        /// The slice of the graph, to be fetched as a blob.
        slice: BlobId,
        /// The slice's length.
        slice_bytes: u32,
        /// Where its inputs come from; frames of anyone else are dropped.
        sources: Vec<Link>,
        /// Where its outputs go.
        targets: Vec<Link>,
    },
    /// Provider: loaded; send.
    Ready {
        /// The session's number.
        session: u64,
        /// The piece's place in the plan.
        index: u16,
        /// Of the install.
        epoch: u32,
        /// The price now.
        ask: Ask,
    },
    /// Provider: can't load it, or lost it.
    Failed {
        /// The session's number.
        session: u64,
        /// The piece's place in the plan.
        index: u16,
        /// Of the bid that won it: the piece may have moved on by the time that this arrives.
        attempt: u32,
        /// Of the install.
        epoch: u32,
        /// Why.
        reason: FailureReason,
    },
    /// Requester to requester: let our pieces exchange their places; and the answer.
    Exchange(Exchange),
}

/// An exchange of two pieces' places, between two requesters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Exchange {
    /// The session's number, with the requester who offers.
    pub session: u64,
    /// Its piece.
    pub index: u16,
    /// Where that piece is.
    pub at: NodeId,
    /// The other piece.
    pub theirs: PieceId,
    /// Where that one is.
    pub to: NodeId,
    /// How far it has come.
    pub stage: ExchangeStage,
}

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ExchangeStage {
    /// Offered.
    Offer,
    /// The other one has left its place for it.
    Agreed,
    /// The other one stays.
    Refused,
}

/// What a bid may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Claim {
    /// What is the cheapest: an open slot, or the place of the piece with the lowest level.
    Any,
    /// Only an open slot: the piece has a place elsewhere, and turns nobody out for a better one.
    OpenSlot,
}

/// One piece's award.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lease {
    /// The piece's place in the plan.
    pub index: u16,
    /// Of the bid that won it.
    pub attempt: u32,
}

/// Why a bid was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RefusalReason {
    /// The bidder's budget or the provider's table is full; it may try again later.
    Busy,
    /// The provider takes no pieces from this requester.
    Closed,
    /// The weights don't fit beside the pieces of higher level.
    Memory,
    /// The level is below ask + eps.
    Outbid,
}

/// Why a piece could not be loaded or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FailureReason {
    /// The engine refused the slice.
    BadSlice,
    /// The results could not be passed on.
    NextHop,
    /// The lease is not (or no longer) held.
    NotHeld,
    /// A weight could not be fetched from any holder, or its bytes were wrong.
    Weights,
}

impl Wire for Advert {
    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Advert::Node(node) => node.validate(),
            Advert::Price(price) => price.ask.validate(),
            Advert::Session(session) if session.pieces.len() > PIECES_MAX => {
                Err("a session with too many pieces")
            }
            Advert::Session(session) if session.places.len() > session.pieces.len() => {
                Err("more places than pieces")
            }
            Advert::Session(_) | Advert::Leaving { .. } => Ok(()),
        }
    }
}

impl NodeAdvert {
    fn validate(&self) -> Result<(), &'static str> {
        if self.bandwidth == 0 {
            return Err("a link of no bandwidth");
        }
        if self.models.len() > MODELS_MAX {
            return Err("too many models");
        }
        if self.addresses.len() > ADDRESSES_MAX {
            return Err("too many addresses");
        }
        if self.addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX) {
            return Err("an address that is too long");
        }
        self.ask.validate()
    }
}

impl Ask {
    fn validate(&self) -> Result<(), &'static str> {
        match self.level {
            Some(level) => validate_level(level),
            None => Ok(()),
        }
    }
}

impl Wire for Message {
    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Message::Bid { level, .. } => validate_level(*level),
            Message::Award { ask, .. }
            | Message::Refusal { ask, .. }
            | Message::Eviction { ask, .. }
            | Message::Ready { ask, .. } => ask.validate(),
            Message::Renew { leases, .. } | Message::Release { leases, .. } => {
                validate_leases(leases)
            }
            Message::Renewed { lost, ask, .. } => validate_leases(lost).and(ask.validate()),
            Message::Install { layers, .. } if layers.is_empty() => Err("a piece of no layers"),
            Message::Install { rows, sources, targets, .. } => {
                validate_rows(rows).and(validate_links(sources)).and(validate_links(targets))
            }
            Message::Exchange(_) | Message::Failed { .. } => Ok(()),
        }
    }
}

fn validate_leases(leases: &[Lease]) -> Result<(), &'static str> {
    // A piece that moves is held twice for a while.
    if leases.len() > 2 * PIECES_MAX { Err("too many leases") } else { Ok(()) }
}

fn validate_links(links: &[Link]) -> Result<(), &'static str> {
    if links.is_empty() {
        return Err("a piece without a neighbour");
    }
    if links.len() > PIECES_MAX {
        return Err("too many neighbours");
    }
    let known = |link: &Link| usize::from(link.piece) < PIECES_MAX || link.piece == REQUESTER;
    if !links.iter().all(known) {
        return Err("a neighbour that no plan has");
    }
    links.iter().try_for_each(|link| validate_rows(&link.rows))
}

fn validate_rows(rows: &[RowRange]) -> Result<(), &'static str> {
    if rows.len() > TENSORS_MAX {
        return Err("rows of too many tensors");
    }
    if rows.iter().all(|rows| rows.first <= rows.end) {
        Ok(())
    } else {
        Err("rows that run backwards")
    }
}

fn validate_level(level: Nats) -> Result<(), &'static str> {
    let range = Nats::ZERO..=LEVEL_MAX;
    if range.contains(&level) { Ok(()) } else { Err("a level out of range") }
}

/// The most tensors that an edge carries.
pub const TENSORS_MAX: usize = 64;
/// The most models that an advert lists.
pub const MODELS_MAX: usize = 64;
/// The most addresses that an advert lists.
pub const ADDRESSES_MAX: usize = 8;
/// The longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 128;
/// Far above any cap on levels (see `market`), far below overflow.
const LEVEL_MAX: Nats = Nats(1 << 60);
