//! A provider's book: the pieces that it has accepted, at what levels, and its price.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    id::{NodeId, PieceId, SessionId},
    market::Terms,
    nats::{Nats, slot_cost},
    time::Timestamp,
    wire::{Ask, Claim, Lease, Message, RefusalReason},
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
    /// The most of these that one requester may take up.
    pub attempts_each_max: usize,
}

impl Default for BookConfig {
    fn default() -> Self {
        Self {
            slots: 8,
            memory: 1 << 30,
            lease: Duration::from_secs(6),
            attempts_max: 1 << 16,
            attempts_each_max: 1 << 12,
        }
    }
}

/// A bid as it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bid {
    /// For which piece.
    pub piece: PieceId,
    /// Rises with every bid of the piece.
    pub attempt: u32,
    /// What it offers.
    pub level: Nats,
    /// Bytes of weights that the piece needs.
    pub weight_bytes: u64,
    /// The bid by which the piece is here already, and stays if this one is refused.
    pub keeps: Option<u32>,
    /// What it may take.
    pub claim: Claim,
}

impl Bid {
    /// What a requester says in a [`Message::Bid`]; nothing of any other message.
    #[must_use]
    pub fn from_message(requester: NodeId, message: &Message) -> Option<Self> {
        let Message::Bid { session, index, attempt, level, weight_bytes, keeps, claim } = *message
        else {
            return None;
        };
        let session = SessionId { requester, number: session };
        let piece = PieceId { session, index };
        Some(Self { piece, attempt, level, weight_bytes, keeps, claim })
    }
}

/// An accepted bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What it bid, and what a move would cost it once it runs.
    pub level: Nats,
    /// Which bid it was.
    pub attempt: u32,
    /// What it takes of the memory.
    pub weight_bytes: u64,
    /// When it goes unless renewed.
    pub lease_until: Timestamp,
    /// Since when the piece has its place.
    pub since: Timestamp,
    /// How far it has come.
    pub runs: Runs,
}

/// Whether a piece that has its place runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// It has not been loaded.
    NotYet,
    /// It has: to turn it out costs its requester a move.
    Yes,
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
    // Nothing runs out before these, so there is nothing to look for.
    leases_run_until: Timestamp,
    attempts_run_until: Timestamp,
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
            leases_run_until: NEVER,
            attempts_run_until: NEVER,
            ask: Ask { version: first_version, level, holders: 0 },
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

    /// Bytes of weights of the held pieces.
    #[must_use]
    pub fn memory_promised(&self) -> u64 {
        self.weights_above(Nats(i64::MIN))
    }

    /// Bytes of weights that the held pieces leave free.
    #[must_use]
    pub fn memory_free(&self) -> u64 {
        self.config.memory.saturating_sub(self.memory_promised())
    }

    /// How long an award holds.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.config.lease
    }

    /// Answers a bid. A repeated bid gets the answer that it had, as far as it still holds.
    pub fn bid(&mut self, now: Timestamp, bid: &Bid) -> Verdict {
        match self.attempts.get(&bid.piece) {
            Some((last, _)) if *last > bid.attempt => return Verdict::Stale,
            Some((last, _)) if *last == bid.attempt => return self.repeat(now, bid),
            None if self.is_busy(bid.piece.session.requester) => {
                return Verdict::Refused(RefusalReason::Busy);
            }
            Some(_) | None => {}
        }
        self.remember(now, bid.piece, bid.attempt);
        // A new bid for a piece that is here is judged as if it were not: its requester has given
        // the old place up, unless it says that it keeps it.
        let old = self.remove(&bid.piece);
        let verdict = self.judge(now, bid);
        if let (Some(old), Some(new)) = (&old, self.holdings.get_mut(&bid.piece)) {
            new.since = old.since;
            if old.runs == Runs::Yes {
                self.entrench(&bid.piece);
            }
        }
        if let (Verdict::Refused(_), Some(old)) = (&verdict, old)
            && bid.keeps == Some(old.attempt)
        {
            self.by_level.insert((old.level, bid.piece));
            self.holdings.insert(bid.piece, old);
        }
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
                    // It may have bid again since, to keep this place.
                    let last = self.attempts.get(&piece).map_or(0, |(last, _)| *last);
                    self.remember(now, piece, last.max(lease.attempt));
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

    /// The piece runs here now: whoever wants its place must offer what a move costs it, too.
    pub fn entrench(&mut self, piece: &PieceId) {
        let Some(holding) = self.holdings.get_mut(piece).filter(|h| h.runs == Runs::NotYet) else {
            return;
        };
        self.by_level.remove(&(holding.level, *piece));
        holding.level = holding.level + self.terms.migration.of(holding.weight_bytes);
        holding.runs = Runs::Yes;
        self.by_level.insert((holding.level, *piece));
        self.reprice();
    }

    /// Since when a piece has its place here.
    #[must_use]
    pub fn held_since(&self, piece: &PieceId) -> Option<Timestamp> {
        self.holdings.get(piece).map(|holding| holding.since)
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
        if self.attempts_run_until <= now {
            self.attempts.retain(|_, (_, forget_at)| *forget_at > now);
            let forget_at = self.attempts.values().map(|(_, forget_at)| *forget_at);
            self.attempts_run_until = forget_at.min().unwrap_or(NEVER);
        }
        if self.leases_run_until > now {
            return Vec::new();
        }
        let ended = |entry: &(&PieceId, &Holding)| entry.1.lease_until <= now;
        let pieces: Vec<PieceId> =
            self.holdings.iter().filter(ended).map(|(piece, _)| *piece).collect();
        for piece in &pieces {
            self.remove(piece);
        }
        let leases = self.holdings.values().map(|holding| holding.lease_until);
        self.leases_run_until = leases.min().unwrap_or(NEVER);
        self.reprice();
        pieces
    }

    /// When [`expire`](Self::expire) should look next: never after a lease's end.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        (self.leases_run_until != NEVER).then_some(self.leases_run_until)
    }

    fn is_busy(&self, requester: NodeId) -> bool {
        let BookConfig { attempts_max, attempts_each_max, .. } = self.config;
        if self.attempts.len() < attempts_max.min(attempts_each_max) {
            return false;
        }
        let first = |number| PieceId { session: SessionId { requester, number }, index: 0 };
        let last = PieceId { index: u16::MAX, ..first(u64::MAX) };
        self.attempts.len() >= attempts_max
            || self.attempts.range(first(0)..=last).count() >= attempts_each_max
    }

    fn repeat(&mut self, now: Timestamp, bid: &Bid) -> Verdict {
        match self.holdings.get_mut(&bid.piece) {
            Some(holding) if holding.attempt == bid.attempt => {
                holding.lease_until = now + self.config.lease;
                Verdict::Accepted { evicted: Vec::new() }
            }
            // Even if a place has opened since: its requester may have read the first refusal, and
            // be bidding elsewhere by now.
            _ => Verdict::Refused(RefusalReason::Outbid),
        }
    }

    fn judge(&mut self, now: Timestamp, bid: &Bid) -> Verdict {
        let Bid { piece, attempt, level, weight_bytes, .. } = *bid;
        let Some(ask) = self.price() else {
            return Verdict::Refused(RefusalReason::Closed);
        };
        // To turn another piece out takes eps more than its level, or two could do so to each
        // other for ever. An open slot harms nobody.
        let slot = self.open_slot_is_cheapest();
        let least = if slot { ask } else { ask + self.terms.eps };
        if level < least || (!slot && bid.claim == Claim::OpenSlot) {
            return Verdict::Refused(RefusalReason::Outbid);
        }
        if self.weights_above(level).saturating_add(weight_bytes) > self.config.memory {
            return Verdict::Refused(RefusalReason::Memory);
        }
        let mut evicted = Vec::new();
        if !self.open_slot_is_cheapest() {
            evicted.extend(self.evict_lowest());
        }
        let lease_until = now + self.config.lease;
        let (since, runs) = (now, Runs::NotYet);
        let holding = Holding { level, attempt, weight_bytes, lease_until, since, runs };
        self.holdings.insert(piece, holding);
        self.by_level.insert((level, piece));
        self.leases_run_until = self.leases_run_until.min(lease_until);
        while self.memory_promised() > self.config.memory {
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
        let forget_at = now + self.config.lease * LEASES_REMEMBERED;
        self.attempts.insert(piece, (attempt, forget_at));
        self.attempts_run_until = self.attempts_run_until.min(forget_at);
    }

    /// `min(lowest accepted level, s_{n+1})`.
    fn price(&self) -> Option<Nats> {
        let lowest = self.by_level.first().map(|(level, _)| *level);
        match (lowest, self.open_slot()) {
            (Some(lowest), Some(slot)) => Some(lowest.min(slot)),
            (lowest, slot) => lowest.or(slot),
        }
    }

    fn reprice(&mut self) {
        let (level, holders) = (self.price(), self.holders());
        if (level, holders) != (self.ask.level, self.ask.holders) {
            self.ask = Ask { version: self.ask.version + 1, level, holders };
        }
    }
}

/// How long a bid that left is remembered, in leases: longer than any copy of it is on its way.
const LEASES_REMEMBERED: u32 = 20;
const NEVER: Timestamp = Timestamp(u64::MAX);

#[cfg(test)]
mod tests {
    use super::*;

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

    fn bid(index: u16, attempt: u32, level: f64, weight_bytes: u64) -> Bid {
        Bid {
            piece: piece(index),
            attempt,
            level: nats(level),
            weight_bytes,
            keeps: None,
            claim: Claim::Any,
        }
    }

    /// Bids `(piece, level, bytes)` in order, and compares who is held in the end and the ask.
    fn check(slots: u16, bids: &[(u16, f64, u64)], held: &[u16], ask: Option<f64>) {
        let mut book = book(slots, 100);
        for (attempt, (index, level, bytes)) in (1..).zip(bids) {
            book.bid(NOW, &bid(*index, attempt, *level, *bytes));
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
    fn an_open_slot_takes_its_price_and_no_more() {
        check(2, &[(0, 0.0, 0)], &[0], Some(0.0));
        check(2, &[(0, 1.4, 0), (1, 1.387, 0)], &[0, 1], Some(1.387));
    }

    #[test]
    fn a_bid_for_a_piece_that_is_here_keeps_its_place_only_if_it_says_so() {
        let refused = |keeps| {
            let mut book = book(1, 100);
            book.bid(NOW, &bid(0, 1, 1.0, 0));
            let verdict = book.bid(NOW, &Bid { keeps, ..bid(0, 2, 0.5, 200) });
            assert_eq!(verdict, Verdict::Refused(RefusalReason::Memory));
            book.attempt_of(&piece(0))
        };
        assert_eq!(refused(Some(1)), Some(1));
        assert_eq!(refused(None), None);
        assert_eq!(refused(Some(9)), None, "that place is lost already");
        let mut book = book(1, 100);
        book.bid(NOW, &bid(0, 1, 1.0, 0));
        let lower = Bid { keeps: Some(1), ..bid(0, 2, 0.5, 0) };
        assert_eq!(book.bid(NOW, &lower), Verdict::Accepted { evicted: Vec::new() });
        assert_eq!(book.ask().level, Some(nats(0.5)), "it has lowered its own level");
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
        assert!(matches!(book.bid(NOW, &bid(0, 1, 1.0, 0)), Verdict::Accepted { .. }));
        assert!(matches!(book.bid(NOW, &bid(1, 1, 2.0, 0)), Verdict::Accepted { .. }));
        assert_eq!(book.bid(NOW, &bid(0, 1, 9.0, 0)), Verdict::Refused(RefusalReason::Outbid));
        assert!(book.release(NOW, piece(1), 1));
        assert_eq!(book.bid(NOW, &bid(1, 1, 9.0, 0)), Verdict::Refused(RefusalReason::Outbid));
        book.release(NOW, piece(2), 5);
        assert_eq!(book.bid(NOW, &bid(2, 4, 9.0, 0)), Verdict::Stale);
    }

    #[test]
    fn a_bid_for_an_open_slot_turns_nobody_out() {
        let gentle = |book: &mut Book, level| {
            let attempt = book.ask().version as u32 + 1;
            let bid = Bid { claim: Claim::OpenSlot, ..bid(9, attempt, level, 0) };
            matches!(book.bid(NOW, &bid), Verdict::Accepted { .. })
        };
        let mut book = book(2, 100);
        book.bid(NOW, &bid(0, 1, 1.0, 0));
        assert!(!gentle(&mut book, 5.0), "the piece that is there is cheaper than a slot");
        book.bid(NOW, &bid(0, 2, 2.0, 0));
        assert!(gentle(&mut book.clone(), 1.387));
        book.bid(NOW, &bid(1, 1, 2.0, 0));
        assert!(!gentle(&mut book, 5.0), "there is no slot");
    }

    #[test]
    fn a_piece_that_runs_is_turned_out_for_what_a_move_costs() {
        let mut book = book(1, 1 << 30);
        let heavy = 100_000_000;
        book.bid(NOW, &bid(0, 1, 1.0, heavy));
        book.entrench(&piece(0));
        book.entrench(&piece(0));
        let cost = Terms::default().migration.of(heavy);
        assert_eq!(book.ask().level, Some(nats(1.0) + cost));
        book.bid(NOW, &Bid { keeps: Some(1), ..bid(0, 2, 0.5, heavy) });
        assert_eq!(book.ask().level, Some(nats(0.5) + cost), "it still runs");
    }

    #[test]
    fn a_lease_ends_unless_renewed() {
        let mut book = book(2, 100);
        book.bid(NOW, &bid(0, 1, 1.0, 0));
        book.bid(NOW, &bid(1, 1, 2.0, 0));
        let half = NOW + book.lease() / 2;
        let lease = Lease { index: 0, attempt: 1 };
        let lost = book.renew(half, piece(0).session, &[lease]);
        assert_eq!(lost, [lease], "the first bid was cheaper than an open slot, so it was evicted");
        assert_eq!(book.expire(NOW + book.lease()), [piece(1)]);
        assert_eq!(book.holders(), 0);
    }

    #[test]
    fn one_requester_can_not_fill_the_table_of_attempts() {
        let config = BookConfig { attempts_each_max: 2, ..BookConfig::default() };
        let mut book = Book::new(Terms::default(), config, 0);
        book.bid(NOW, &bid(0, 1, 1.0, 0));
        book.bid(NOW, &bid(1, 1, 1.0, 0));
        assert_eq!(book.bid(NOW, &bid(2, 1, 3.0, 0)), Verdict::Refused(RefusalReason::Busy));
        let other = SessionId { requester: NodeId([2; 32]), number: 7 };
        let theirs = Bid { piece: PieceId { session: other, index: 0 }, ..bid(0, 1, 9.0, 0) };
        assert!(matches!(book.bid(NOW, &theirs), Verdict::Accepted { .. }));
    }

    #[test]
    fn the_table_of_attempts_is_bounded() {
        let config = BookConfig { attempts_max: 2, ..BookConfig::default() };
        let mut book = Book::new(Terms::default(), config, 0);
        book.bid(NOW, &bid(0, 1, 1.0, 0));
        book.bid(NOW, &bid(1, 1, 2.0, 0));
        let verdict = book.bid(NOW, &bid(2, 1, 3.0, 0));
        assert_eq!(verdict, Verdict::Refused(RefusalReason::Busy));
    }
}
