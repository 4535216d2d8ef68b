//! What the nodes said and agreed on, counted from outside.
//!
//! The ledger sees every message that a node hands to the network and every event that it tells
//! its application. It never changes anything: a world with and without it would run alike.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use starling_protocol::{
    NodeId, PieceId, SessionId,
    node::Event,
    session::{Agreement, SessionError},
    wire::Message,
};

/// What a message is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Deciding who computes what: bids, awards, refusals, evictions, releases, and questions for a
    /// price.
    Auction,
    /// Living with the decision: renewals, installs and their answers.
    Upkeep,
}

impl Class {
    /// Of which class a message is.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        match message {
            Message::Bid { .. }
            | Message::Award { .. }
            | Message::Refusal { .. }
            | Message::Eviction { .. }
            | Message::Exchange(_)
            | Message::Release { .. } => Self::Auction,
            Message::Renew { leases, .. } if leases.is_empty() => Self::Auction,
            Message::Renew { .. }
            | Message::Renewed { .. }
            | Message::Install { .. }
            | Message::Ready { .. }
            | Message::Failed { .. } => Self::Upkeep,
        }
    }
}

/// Messages and their bytes as encoded, each counted once when a node hands it to the network:
/// lost ones count, copies that the network makes don't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub messages: u64,
    /// Their encoded lengths together.
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

/// How far a session has come, in the eyes of its requester.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It has not agreed yet, or has lost a provider since.
    Bidding,
    /// All its pieces have places.
    Agreed(Agreement),
    /// It is over.
    Failed(SessionError),
}

/// Something that a run has seen happen. A run that sees too little of them tests little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sighting {
    /// A signed advert arrived with a bit flipped, and was dropped.
    CorruptAdvert,
    /// A market message arrived with a bit flipped, and was dropped.
    CorruptMessage,
    /// A tensor arrived with a wrong checksum, and was dropped.
    CorruptTensor,
    /// A process died.
    Crash,
    /// A provider died while it computed.
    CrashWhileComputing,
    /// A piece lost its place to one that bid more.
    Eviction,
    /// A tensor arrived that belongs to another plan than the one in force.
    FrameOfAnotherPlan,
    /// A message arrived that says something else than was sent.
    GarbledMessage,
    /// A node asked for an advert that it had missed.
    GossipRepaired,
    /// All links healed.
    Heal,
    /// A lease was over before it was renewed.
    LeaseLost,
    /// A provider claimed a speed that it does not have.
    Lie,
    /// A bid got lost on the way.
    LostBid,
    /// A piece is at another provider than before.
    Move,
    /// Links were cut.
    Partition,
    /// A process froze.
    Pause,
    /// A session took a provider for lost.
    ProviderLost,
    /// A bid was refused.
    Refusal,
    /// A request was sent again under a new plan.
    Replay,
    /// A process started again and remembered nothing.
    Restart,
    /// A session ended with an error.
    SessionFailed,
    /// A machine became slower.
    SlowDown,
}

impl Sighting {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::CorruptAdvert,
        Self::CorruptMessage,
        Self::CorruptTensor,
        Self::Crash,
        Self::CrashWhileComputing,
        Self::Eviction,
        Self::FrameOfAnotherPlan,
        Self::GarbledMessage,
        Self::GossipRepaired,
        Self::Heal,
        Self::LeaseLost,
        Self::Lie,
        Self::LostBid,
        Self::Move,
        Self::Partition,
        Self::Pause,
        Self::ProviderLost,
        Self::Refusal,
        Self::Replay,
        Self::Restart,
        Self::SessionFailed,
        Self::SlowDown,
    ];
}

/// The counts of one world.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    adverts: Traffic,
    auction: Traffic,
    upkeep: Traffic,
    auction_in_flight: usize,
    // Questions for a price that have not been answered.
    inquiries: BTreeMap<SessionId, u32>,
    attempts: BTreeMap<PieceId, Attempts>,
    evictions: u64,
    sessions: BTreeMap<SessionId, Standing>,
    bidding: usize,
    failed: usize,
    departures: u64,
    moves: u64,
    // Where each piece was last agreed to be.
    placed: BTreeMap<PieceId, NodeId>,
    // What is said of these no longer counts.
    closed: BTreeSet<SessionId>,
    sightings: BTreeSet<Sighting>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    latest: u32,
    bids: u32,
}

impl Ledger {
    /// Adverts, each counted once however many nodes hear it.
    #[must_use]
    pub fn adverts(&self) -> Traffic {
        self.adverts
    }

    /// Messages of the auction.
    #[must_use]
    pub fn auction(&self) -> Traffic {
        self.auction
    }

    /// All other market messages.
    #[must_use]
    pub fn upkeep(&self) -> Traffic {
        self.upkeep
    }

    /// Bids of all pieces. A copy that is sent because no answer came is not another bid.
    #[must_use]
    pub fn bids(&self) -> u32 {
        self.attempts.values().map(|attempts| attempts.bids).sum()
    }

    /// The most bids that any one piece made.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.attempts.values().map(|attempts| attempts.bids).max().unwrap_or(0)
    }

    /// Bids of each piece that has made any.
    pub fn bids_by_piece(&self) -> impl Iterator<Item = (PieceId, u64)> {
        self.attempts.iter().map(|(piece, attempts)| (*piece, attempts.bids.into()))
    }

    /// Bids of one piece.
    #[must_use]
    pub fn bids_of(&self, piece: &PieceId) -> u64 {
        self.attempts.get(piece).map_or(0, |attempts| attempts.bids.into())
    }

    /// How often a piece was turned out by another.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The sessions in order of their ids.
    pub fn sessions(&self) -> impl Iterator<Item = (&SessionId, &Standing)> {
        self.sessions.iter()
    }

    /// One session.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> Option<&Standing> {
        self.sessions.get(id)
    }

    /// Whether some session has failed.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.failed > 0
    }

    /// Whether every session has agreed and no message of the auction is on its way. A session may
    /// seek new places all the same: see [`check::all_settled`](crate::check::all_settled).
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.bidding == 0 && self.auction_in_flight == 0
    }

    /// What was seen so far.
    #[must_use]
    pub fn sightings(&self) -> &BTreeSet<Sighting> {
        &self.sightings
    }

    /// How often a place was lost other than by an eviction: then an ask may have fallen, and what
    /// moves after that moves only for more than a move costs.
    #[must_use]
    pub fn departures(&self) -> u64 {
        self.departures
    }

    /// How often a session agreed on another provider for a piece than before.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves
    }

    pub(crate) fn see(&mut self, sighting: Sighting) {
        self.sightings.insert(sighting);
    }

    /// A session is over because its application or its whole node says so.
    pub(crate) fn on_close(&mut self, session: SessionId) {
        self.departures += 1;
        if let Some(before) = self.sessions.remove(&session) {
            let (bidding, failed) = weights(&before);
            self.bidding -= bidding;
            self.failed -= failed;
        }
        self.placed.retain(|piece, _| piece.session != session);
        self.closed.insert(session);
    }

    /// A node is dead: its sessions are over, and its places are free.
    pub(crate) fn on_crash(&mut self, node: NodeId) {
        self.departures += 1;
        let own = self.sessions.keys().filter(|session| session.requester == node);
        for session in own.copied().collect::<Vec<_>>() {
            self.on_close(session);
        }
    }

    /// No copy of a message got through.
    pub(crate) fn on_lost(&mut self, message: &Message) {
        if let Message::Bid { .. } = message {
            self.see(Sighting::LostBid);
        }
    }

    pub(crate) fn on_open(&mut self, session: SessionId) {
        self.stand(session, Standing::Bidding);
    }

    pub(crate) fn on_advert(&mut self, bytes: usize) {
        self.adverts.add(bytes);
    }

    /// A message about this session, handed to the network.
    pub(crate) fn on_message(&mut self, session: SessionId, message: &Message, bytes: usize) {
        match self.class_of(session, message) {
            Class::Auction => self.auction.add(bytes),
            Class::Upkeep => self.upkeep.add(bytes),
        }
        self.sight(message);
        if let Message::Bid { index, attempt, .. } = *message {
            let attempts = self.attempts.entry(PieceId { session, index }).or_default();
            if attempt > attempts.latest {
                *attempts = Attempts { latest: attempt, bids: attempts.bids + 1 };
            }
        }
    }

    /// What answers a question for a price looks like any other answer to a renewal.
    fn class_of(&mut self, session: SessionId, message: &Message) -> Class {
        let inquiries = self.inquiries.entry(session).or_default();
        match (Class::of(message), message) {
            (Class::Auction, Message::Renew { .. }) => *inquiries += 1,
            (Class::Upkeep, Message::Renewed { .. }) if *inquiries > 0 => {
                *inquiries -= 1;
                return Class::Auction;
            }
            _ => {}
        }
        Class::of(message)
    }

    fn sight(&mut self, message: &Message) {
        match message {
            Message::Eviction { .. } => {
                self.evictions += 1;
                self.see(Sighting::Eviction);
            }
            Message::Refusal { .. } => self.see(Sighting::Refusal),
            Message::Renewed { lost, .. } if !lost.is_empty() => {
                self.departures += 1;
                self.see(Sighting::LeaseLost);
            }
            _ => {}
        }
    }

    pub(crate) fn on_event(&mut self, requester: NodeId, event: Event) {
        let session = |number| SessionId { requester, number };
        match event {
            Event::Agreed { session: number, agreement }
            | Event::Ready { session: number, agreement, .. } => {
                self.on_agreed(session(number), &agreement);
                self.stand(session(number), Standing::Agreed(agreement));
            }
            Event::ProviderLost { session: number, .. } => {
                self.see(Sighting::ProviderLost);
                self.departures += 1;
                self.stand(session(number), Standing::Bidding);
            }
            Event::Failed { session: number, error } => {
                self.see(Sighting::SessionFailed);
                self.departures += 1;
                self.stand(session(number), Standing::Failed(error));
            }
            // The agreement follows, when the pieces are ready.
            Event::Moved { .. } | Event::Refused { .. } => {}
        }
    }

    pub(crate) fn on_copy_sent(&mut self, class: Class) {
        self.auction_in_flight += usize::from(class == Class::Auction);
    }

    pub(crate) fn on_copy_gone(&mut self, class: Class) {
        self.auction_in_flight -= usize::from(class == Class::Auction);
    }

    fn on_agreed(&mut self, session: SessionId, agreement: &Agreement) {
        for (index, piece) in (0..).zip(&agreement.pieces) {
            let before = self.placed.insert(PieceId { session, index }, piece.provider);
            if before.is_some_and(|before| before != piece.provider) {
                self.moves += 1;
                self.see(Sighting::Move);
            }
        }
    }

    fn stand(&mut self, session: SessionId, standing: Standing) {
        if self.closed.contains(&session) {
            return;
        }
        let (bidding, failed) = weights(&standing);
        self.bidding += bidding;
        self.failed += failed;
        if let Some(before) = self.sessions.insert(session, standing) {
            let (bidding, failed) = weights(&before);
            self.bidding -= bidding;
            self.failed -= failed;
        }
    }
}

/// What a session adds to the counts of those that bid and of those that failed.
fn weights(standing: &Standing) -> (usize, usize) {
    match standing {
        Standing::Agreed(_) => (0, 0),
        Standing::Bidding => (1, 0),
        Standing::Failed(_) => (0, 1),
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::{
        Nats,
        testing::node_id,
        wire::{Ask, Claim, Lease},
    };

    use super::*;

    fn bid(index: u16, attempt: u32) -> Message {
        let (level, claim) = (Nats::ZERO, Claim::Any);
        Message::Bid { session: 1, index, attempt, level, weight_bytes: 0, keeps: None, claim }
    }

    #[test]
    fn a_copy_of_a_bid_is_a_message_but_no_bid() {
        let session = SessionId { requester: node_id(1), number: 1 };
        let mut ledger = Ledger::default();
        for (index, attempt) in [(0, 1), (0, 1), (0, 2), (1, 1)] {
            ledger.on_message(session, &bid(index, attempt), 10);
        }
        assert_eq!((ledger.bids(), ledger.rounds()), (3, 2));
        assert_eq!(ledger.auction(), Traffic { messages: 4, bytes: 40 });
    }

    #[test]
    fn a_question_for_a_price_and_its_answer_are_part_of_the_auction() {
        let session = SessionId { requester: node_id(1), number: 1 };
        let ask = Ask { version: 1, level: None, holders: 0 };
        let renewed = Message::Renewed { session: 1, lost: Vec::new(), ask };
        let renew = |leases| Message::Renew { session: 1, leases };
        let mut ledger = Ledger::default();
        ledger.on_message(session, &renew(vec![Lease { index: 0, attempt: 1 }]), 10);
        ledger.on_message(session, &renewed, 10);
        assert_eq!(ledger.auction(), Traffic::default());
        ledger.on_message(session, &renew(Vec::new()), 10);
        ledger.on_message(session, &renewed, 10);
        ledger.on_message(session, &renewed, 10);
        assert_eq!(ledger.auction(), Traffic { messages: 2, bytes: 20 });
        assert_eq!(ledger.upkeep(), Traffic { messages: 3, bytes: 30 });
    }

    #[test]
    fn a_world_is_quiet_once_all_agree_and_nothing_is_on_its_way() {
        let session = SessionId { requester: node_id(1), number: 1 };
        let agreement = Agreement {
            pieces: Vec::new(),
            rounds: 1,
            bids: 1,
            messages: 2,
            elapsed: std::time::Duration::ZERO,
        };
        let mut ledger = Ledger::default();
        ledger.on_open(session);
        assert!(!ledger.is_quiet());
        ledger.on_copy_sent(Class::Auction);
        ledger.on_event(session.requester, Event::Agreed { session: 1, agreement });
        assert!(!ledger.is_quiet());
        ledger.on_copy_gone(Class::Auction);
        assert!(ledger.is_quiet());
        let node = starling_protocol::testing::node_id(2);
        ledger.on_event(session.requester, Event::ProviderLost { session: 1, node });
        assert!(!ledger.is_quiet());
        ledger.on_event(
            session.requester,
            Event::Failed { session: 1, error: SessionError::NoPlace },
        );
        assert!(ledger.is_quiet() && ledger.has_failures());
    }
}
