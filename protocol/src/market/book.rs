//! A provider's book: the pieces that it has accepted, at what levels, and its price.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    id::{PieceId, SessionId},
    market::Terms,
    nats::{Nats, slot_cost},
    time::Timestamp,
    wire::{Ask, Lease, RefusalReason},
};

/// What a provider offers.
#[derive(Clone, Copy, Debug)]
pub struct BookConfig {
    /// The most pieces at once (`Q_j`).
    pub slots: u16,
    /// Bytes of weights that fit.
    pub memory: u64,
    /// How long an award holds without a renewal.
    pub lease: Duration,
    /// The most bids that are remembered after they lost or left.
    pub attempts_max: usize,
}

impl Default for BookConfig {
    fn default() -> Self {
        Self { slots: 8, memory: 1 << 30, lease: Duration::from_secs(6), attempts_max: 1 << 16 }
    }
}

/// An accepted bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What it bid.
    pub level: Nats,
    /// Which bid it was.
    pub attempt: u32,
    /// What it takes of the memory.
    pub weight_bytes: u64,
    /// When it goes unless renewed.
    pub lease_until: Timestamp,
}

/// The answer to a bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a place now; these were turned out for it, with the attempts they had won by.
    Accepted {
        /// Whom to tell.
        evicted: Vec<(PieceId, u32)>,
    },
    /// It has none.
    Refused(RefusalReason),
    /// A late copy of a bid that its own requester has since replaced: no answer is due.
    Stale,
}

/// The book. Asks only rise between departures (a release, an expiry, an eviction for memory).
#[derive(Clone, Debug)]
pub struct Book {
    terms: Terms,
    config: BookConfig,
    holdings: BTreeMap<PieceId, Holding>,
    by_level: BTreeSet<(Nats, PieceId)>,
    // The last attempt seen of each piece, kept after it left: a late copy of an old bid must not
    // turn out a piece that is really here.
    attempts: BTreeMap<PieceId, (u32, Timestamp)>,
    ask: Ask,
}

impl Book {
    /// An empty book. `first_version` must be above those of this node's earlier books: the
    /// clock's time will do.
    #[must_use]
    pub fn new(terms: Terms, config: BookConfig, first_version: u64) -> Self {
        let level = (config.slots > 0).then_some(Nats::ZERO);
        Self {
            terms,
            config,
            holdings: BTreeMap::new(),
            by_level: BTreeSet::new(),
            attempts: BTreeMap::new(),
            ask: Ask { version: first_version, level },
        }
    }

    /// The price for the next place.
    #[must_use]
    pub fn ask(&self) -> Ask {
        self.ask
    }

    /// Pieces held now (`n_j`).
    #[must_use]
    pub fn holders(&self) -> u16 {
        u16::try_from(self.holdings.len()).unwrap_or(u16::MAX)
    }

    /// The accepted bids.
    pub fn holdings(&self) -> impl Iterator<Item = (&PieceId, &Holding)> {
        self.holdings.iter()
    }

    /// Whether this bid has a place.
    #[must_use]
    pub fn holds(&self, piece: &PieceId, attempt: u32) -> bool {
        self.holdings.get(piece).is_some_and(|holding| holding.attempt == attempt)
    }

    /// Bytes of weights that the held pieces leave free.
    #[must_use]
    pub fn memory_free(&self) -> u64 {
        self.config.memory.saturating_sub(self.weights_above(Nats(i64::MIN)))
    }

    /// How long an award holds.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.config.lease
    }

    /// Answers a bid. A repeated bid gets the answer that it had, as far as it still holds.
    pub fn bid(
        &mut self,
        now: Timestamp,
        piece: PieceId,
        attempt: u32,
        level: Nats,
        weight_bytes: u64,
    ) -> Verdict {
        match self.attempts.get(&piece) {
            Some((last, _)) if *last > attempt => return Verdict::Stale,
            Some((last, _)) if *last == attempt => return self.repeat(now, &piece, attempt),
            None if self.attempts.len() >= self.config.attempts_max => {
                return Verdict::Refused(RefusalReason::Busy);
            }
            Some(_) | None => {}
        }
        self.remember(now, piece, attempt);
        // A new bid for a piece that is here: its requester has given the old place up.
        self.remove(&piece);
        let verdict = self.judge(now, piece, attempt, level, weight_bytes);
        self.reprice();
        verdict
    }

    /// Prolongs what the session still holds of `leases`, and returns the others.
    pub fn renew(&mut self, now: Timestamp, session: SessionId, leases: &[Lease]) -> Vec<Lease> {
        let mut lost = Vec::new();
        for lease in leases {
            let piece = PieceId { session, index: lease.index };
            match self.holdings.get_mut(&piece) {
                Some(holding) if holding.attempt == lease.attempt => {
                    holding.lease_until = now + self.config.lease;
                    self.remember(now, piece, lease.attempt);
                }
                Some(_) | None => lost.push(*lease),
            }
        }
        lost
    }

    /// The attempt by which a piece has its place here.
    #[must_use]
    pub fn attempt_of(&self, piece: &PieceId) -> Option<u32> {
        self.holdings.get(piece).map(|holding| holding.attempt)
    }

    /// Gives a place back. Says whether there was one.
    pub fn release(&mut self, now: Timestamp, piece: PieceId, attempt: u32) -> bool {
        let known = self.attempts.get(&piece).is_some_and(|(last, _)| *last >= attempt);
        if !known && self.attempts.len() < self.config.attempts_max {
            // The release overtook its bid: the bid must find the door closed.
            self.remember(now, piece, attempt);
        }
        let held = self.holds(&piece, attempt);
        if held {
            self.remove(&piece);
            self.reprice();
        }
        held
    }

    /// Drops the pieces whose leases have run out, and returns them.
    pub fn expire(&mut self, now: Timestamp) -> Vec<PieceId> {
        let ended = |entry: &(&PieceId, &Holding)| entry.1.lease_until <= now;
        let pieces: Vec<PieceId> =
            self.holdings.iter().filter(ended).map(|(piece, _)| *piece).collect();
        for piece in &pieces {
            self.remove(piece);
        }
        self.attempts.retain(|_, (_, forget_at)| *forget_at > now);
        self.reprice();
        pieces
    }

    /// When [`expire`](Self::expire) next has a lease to end.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.holdings.values().map(|holding| holding.lease_until).min()
    }

    fn repeat(&mut self, now: Timestamp, piece: &PieceId, attempt: u32) -> Verdict {
        match self.holdings.get_mut(piece) {
            Some(holding) if holding.attempt == attempt => {
                holding.lease_until = now + self.config.lease;
                Verdict::Accepted { evicted: Vec::new() }
            }
            // Even if a place has opened since: its requester may have read the first refusal, and
            // be bidding elsewhere by now.
            _ => Verdict::Refused(RefusalReason::Outbid),
        }
    }

    fn judge(
        &mut self,
        now: Timestamp,
        piece: PieceId,
        attempt: u32,
        level: Nats,
        weight_bytes: u64,
    ) -> Verdict {
        self.reprice();
        match self.ask.level {
            None => return Verdict::Refused(RefusalReason::Closed),
            Some(ask) if level < ask + self.terms.eps => {
                return Verdict::Refused(RefusalReason::Outbid);
            }
            Some(_) => {}
        }
        if self.weights_above(level).saturating_add(weight_bytes) > self.config.memory {
            return Verdict::Refused(RefusalReason::Memory);
        }
        let mut evicted = Vec::new();
        if !self.open_slot_is_cheapest() {
            evicted.extend(self.evict_lowest());
        }
        let lease_until = now + self.config.lease;
        self.holdings.insert(piece, Holding { level, attempt, weight_bytes, lease_until });
        self.by_level.insert((level, piece));
        while self.weights_above(Nats(i64::MIN)) > self.config.memory {
            evicted.extend(self.evict_lowest());
        }
        Verdict::Accepted { evicted }
    }

    fn open_slot_is_cheapest(&self) -> bool {
        match (self.open_slot(), self.by_level.first()) {
            (Some(cost), Some((lowest, _))) => cost <= *lowest,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// `s_{n+1}`, unless the provider is full.
    fn open_slot(&self) -> Option<Nats> {
        (self.holders() < self.config.slots).then(|| slot_cost(u32::from(self.holders()) + 1))
    }

    fn evict_lowest(&mut self) -> Option<(PieceId, u32)> {
        let (_, piece) = *self.by_level.first()?;
        self.remove(&piece).map(|holding| (piece, holding.attempt))
    }

    fn remove(&mut self, piece: &PieceId) -> Option<Holding> {
        let holding = self.holdings.remove(piece)?;
        self.by_level.remove(&(holding.level, *piece));
        Some(holding)
    }

    fn weights_above(&self, level: Nats) -> u64 {
        let above = self.holdings.values().filter(|holding| holding.level >= level);
        above.fold(0, |sum, holding| sum.saturating_add(holding.weight_bytes))
    }

    fn remember(&mut self, now: Timestamp, piece: PieceId, attempt: u32) {
        self.attempts.insert(piece, (attempt, now + self.config.lease * LEASES_REMEMBERED));
    }

    fn reprice(&mut self) {
        let lowest = self.by_level.first().map(|(level, _)| *level);
        let level = match (lowest, self.open_slot()) {
            (Some(lowest), Some(slot)) => Some(lowest.min(slot)),
            (lowest, slot) => lowest.or(slot),
        };
        if level != self.ask.level {
            self.ask = Ask { version: self.ask.version + 1, level };
        }
    }
}

/// How long a bid that left is remembered, in leases: longer than any copy of it is on its way.
const LEASES_REMEMBERED: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    const NOW: Timestamp = Timestamp(0);

    fn piece(index: u16) -> PieceId {
        PieceId { session: SessionId { requester: NodeId([1; 32]), number: 7 }, index }
    }

    fn book(slots: u16, memory: u64) -> Book {
        let config = BookConfig { slots, memory, ..BookConfig::default() };
        Book::new(Terms::default(), config, 0)
    }

    fn nats(x: f64) -> Nats {
        Nats::from_f64(x)
    }

    /// Bids `(piece, level, bytes)` in order, and compares who is held in the end and the ask.
    fn check(slots: u16, bids: &[(u16, f64, u64)], held: &[u16], ask: Option<f64>) {
        let mut book = book(slots, 100);
        for (attempt, (index, level, bytes)) in (1..).zip(bids) {
            book.bid(NOW, piece(*index), attempt, nats(*level), *bytes);
        }
        let indices: Vec<u16> = book.holdings().map(|(piece, _)| piece.index).collect();
        assert_eq!(indices, held);
        match (book.ask().level, ask) {
            (None, None) => {}
            (Some(level), Some(ask)) => assert!((level.to_f64() - ask).abs() < 1e-3, "{level}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ask_is_the_lower_of_the_lowest_level_and_the_next_slot() {
        check(2, &[], &[], Some(0.0));
        check(2, &[(0, 1.0, 0)], &[0], Some(1.0));
        check(2, &[(0, 3.0, 0)], &[0], Some(1.386));
        check(2, &[(0, 3.0, 0), (1, 2.0, 0)], &[0, 1], Some(2.0));
        check(0, &[(0, 9.0, 0)], &[], None);
    }

    #[test]
    fn a_bid_must_beat_the_ask_by_eps() {
        check(1, &[(0, 1.0, 0), (1, 1.04, 0)], &[0], Some(1.0));
        check(1, &[(0, 1.0, 0), (1, 1.05, 0)], &[1], Some(1.05));
    }

    #[test]
    fn the_lowest_holder_is_evicted_when_that_is_cheaper_than_the_open_slot() {
        check(3, &[(0, 0.5, 0), (1, 0.7, 0)], &[1], Some(0.7));
    }

    #[test]
    fn memory_refuses_the_lower_and_evicts_for_the_higher() {
        check(4, &[(0, 5.0, 80), (1, 2.0, 30)], &[0], Some(1.386));
        check(4, &[(0, 3.0, 80), (1, 5.0, 30)], &[1], Some(1.386));
    }

    #[test]
    fn a_late_copy_of_a_bid_never_wins_again() {
        let mut book = book(1, 100);
        assert!(matches!(book.bid(NOW, piece(0), 1, nats(1.0), 0), Verdict::Accepted { .. }));
        assert!(matches!(book.bid(NOW, piece(1), 1, nats(2.0), 0), Verdict::Accepted { .. }));
        assert_eq!(
            book.bid(NOW, piece(0), 1, nats(9.0), 0),
            Verdict::Refused(RefusalReason::Outbid)
        );
        assert!(book.release(NOW, piece(1), 1));
        assert_eq!(
            book.bid(NOW, piece(1), 1, nats(9.0), 0),
            Verdict::Refused(RefusalReason::Outbid)
        );
        book.release(NOW, piece(2), 5);
        assert_eq!(book.bid(NOW, piece(2), 4, nats(9.0), 0), Verdict::Stale);
    }

    #[test]
    fn a_lease_ends_unless_renewed() {
        let mut book = book(2, 100);
        book.bid(NOW, piece(0), 1, nats(1.0), 0);
        book.bid(NOW, piece(1), 1, nats(2.0), 0);
        let half = NOW + book.lease() / 2;
        let lease = Lease { index: 0, attempt: 1 };
        let lost = book.renew(half, piece(0).session, &[lease]);
        assert_eq!(lost, [lease], "the first bid was cheaper than an open slot, so it was evicted");
        assert_eq!(book.expire(NOW + book.lease()), [piece(1)]);
        assert_eq!(book.holders(), 0);
    }

    #[test]
    fn the_table_of_attempts_is_bounded() {
        let config = BookConfig { attempts_max: 2, ..BookConfig::default() };
        let mut book = Book::new(Terms::default(), config, 0);
        book.bid(NOW, piece(0), 1, nats(1.0), 0);
        book.bid(NOW, piece(1), 1, nats(2.0), 0);
        let verdict = book.bid(NOW, piece(2), 1, nats(3.0), 0);
        assert_eq!(verdict, Verdict::Refused(RefusalReason::Busy));
    }
}
