//! A second opinion on a book: what each of its answers must have been, worked out from what it
//! held before, without looking inside.

use std::collections::BTreeMap;

use crate::{
    id::{PieceId, SessionId},
    market::{Bid, Book, BookConfig, Holding, Runs, Terms, Verdict},
    nats::{Nats, slot_cost},
    time::Timestamp,
    wire::{Ask, Claim, Lease, RefusalReason},
};

/// Stands beside a [`Book`] from its beginning. Tell it of everything that was done to the book,
/// and it says whether the book did what its rules say:
///
/// - `s_n <= ask <= s_{n+1}`, the ask is the cheaper of the two, and slots and memory are kept to;
/// - an ask falls only when a piece has left or lowered its level, and its version rises with
///   every change;
/// - a bid makes room only if it offers eps more than the level that it turns out, and is refused
///   only for a reason;
/// - a late copy of a bid changes nothing;
/// - nobody holds a place beyond the lease unless it was renewed.
///
/// It remembers attempts for ever, a book for twenty leases: messages must not be later than that.
#[derive(Clone, Debug)]
pub struct BookWatch {
    terms: Terms,
    config: BookConfig,
    last: Picture,
    seen: BTreeMap<PieceId, u32>,
    // When each place was last granted or renewed.
    granted: BTreeMap<PieceId, Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Picture {
    ask: Ask,
    holdings: BTreeMap<PieceId, Holding>,
}

impl BookWatch {
    /// For a book that has been given nothing yet.
    #[must_use]
    pub fn new(terms: Terms, config: BookConfig, book: &Book) -> Self {
        let (seen, granted) = (BTreeMap::new(), BTreeMap::new());
        Self { terms, config, last: Picture::of(book), seen, granted }
    }

    /// The book has answered a bid.
    ///
    /// # Errors
    /// The first rule that it broke, in words.
    pub fn on_bid(
        &mut self,
        now: Timestamp,
        bid: &Bid,
        verdict: &Verdict,
        book: &Book,
    ) -> Result<(), String> {
        let seen = self.seen.get(&bid.piece).copied();
        let before = self.look(book)?;
        if *verdict == Verdict::Refused(RefusalReason::Busy) {
            let known = seen.is_some() || before.holdings.contains_key(&bid.piece);
            return holds(!known && before == self.last, "a known piece was told to wait");
        }
        self.seen.insert(bid.piece, bid.attempt.max(seen.unwrap_or(0)));
        let held = before.holdings.get(&bid.piece).map(|holding| holding.attempt);
        match seen {
            Some(seen) if seen > bid.attempt => {
                holds(*verdict == Verdict::Stale, "a late copy of a bid was answered")?;
                holds(before == self.last, "a late copy of a bid changed the book")
            }
            Some(seen) if seen == bid.attempt => {
                let accepted = *verdict == Verdict::Accepted { evicted: Vec::new() };
                let right = accepted == (held == Some(bid.attempt));
                holds(right, "a repeated bid was answered otherwise than at first")?;
                if accepted {
                    self.granted.insert(bid.piece, now);
                }
                holds(before.places() == self.last.places(), "a repeated bid changed the book")
            }
            Some(_) | None => self.judge(now, &before, bid, verdict),
        }
    }

    /// A place was given back.
    ///
    /// # Errors
    /// The first rule that the book broke, in words.
    pub fn on_release(&mut self, piece: PieceId, attempt: u32, book: &Book) -> Result<(), String> {
        let seen = self.seen.entry(piece).or_insert(attempt);
        *seen = attempt.max(*seen);
        let mut before = self.look(book)?;
        before.holdings.retain(|held, holding| *held != piece || holding.attempt != attempt);
        holds(before.places() == self.last.places(), "a release changed more than its own place")
    }

    /// Places were renewed, all but those `lost`.
    ///
    /// # Errors
    /// The first rule that the book broke, in words.
    pub fn on_renew(
        &mut self,
        now: Timestamp,
        session: SessionId,
        leases: &[Lease],
        lost: &[Lease],
        book: &Book,
    ) -> Result<(), String> {
        for lease in leases {
            let piece = PieceId { session, index: lease.index };
            let held = self.last.holdings.get(&piece).is_some_and(|h| h.attempt == lease.attempt);
            holds(held != lost.contains(lease), "a renewal was answered wrongly")?;
            if held {
                self.granted.insert(piece, now);
            }
        }
        let before = self.look(book)?;
        holds(before.places() == self.last.places(), "a renewal changed who is there")
    }

    /// Time has passed, and the book has been told.
    ///
    /// # Errors
    /// The first rule that the book broke, in words.
    pub fn on_time(&mut self, now: Timestamp, book: &Book) -> Result<(), String> {
        let mut before = self.look(book)?;
        let (granted, lease) = (&self.granted, self.config.lease);
        let runs = |piece: &PieceId| granted.get(piece).is_some_and(|at| now < *at + lease);
        holds(self.last.holdings.keys().all(runs), "a place is held beyond its lease")?;
        before.holdings.retain(|piece, _| runs(piece));
        holds(before.places() == self.last.places(), "a lease ended before its time")
    }

    /// A piece has been loaded.
    ///
    /// # Errors
    /// The first rule that the book broke, in words.
    pub fn on_entrenched(&mut self, piece: PieceId, book: &Book) -> Result<(), String> {
        let before = self.look(book)?;
        let others = |picture: &Picture| {
            let mut places = picture.places();
            places.retain(|place| place.0 != piece);
            places
        };
        holds(others(&before) == others(&self.last), "loading a piece changed another's place")
    }

    /// A bid that was new: what the answer had to be.
    fn judge(
        &mut self,
        now: Timestamp,
        before: &Picture,
        bid: &Bid,
        verdict: &Verdict,
    ) -> Result<(), String> {
        let mut others = before.clone();
        let old = others.holdings.remove(&bid.piece);
        let (lowest, slot) = (others.lowest(), self.open_slot(&others));
        let takes_slot = slot.is_some_and(|slot| lowest.is_none_or(|lowest| slot <= lowest));
        let Some(price) = [lowest, slot].into_iter().flatten().min() else {
            let closed = *verdict == Verdict::Refused(RefusalReason::Closed);
            return holds(closed, "a closed book answered a bid");
        };
        let least = if takes_slot { price } else { price + self.terms.eps };
        let may = bid.level >= least && (takes_slot || bid.claim == Claim::Any);
        match verdict {
            Verdict::Accepted { evicted } => {
                holds(may, "a bid made room without offering enough")?;
                self.granted.insert(bid.piece, now);
                self.check_accepted(others, bid, evicted, usize::from(!takes_slot))
            }
            Verdict::Refused(reason) => {
                let kept = old.filter(|old| bid.keeps == Some(old.attempt));
                others.holdings.extend(kept.map(|old| (bid.piece, old)));
                let unchanged = others.places() == self.last.places();
                holds(unchanged, "a refusal changed who is there")?;
                match reason {
                    RefusalReason::Outbid => holds(!may, "a good bid was refused"),
                    RefusalReason::Memory => {
                        let kept = kept.map_or(0, |_| bid.weight_bytes);
                        holds(may && !self.fits_above(&others, bid, kept), "refused a fit")
                    }
                    RefusalReason::Closed | RefusalReason::Busy => {
                        Err("refused for no reason".to_owned())
                    }
                }
            }
            Verdict::Stale => Err("a new bid was taken for a late copy".to_owned()),
        }
    }

    fn check_accepted(
        &self,
        mut others: Picture,
        bid: &Bid,
        evicted: &[(PieceId, u32)],
        room: usize,
    ) -> Result<(), String> {
        for (number, (piece, attempt)) in evicted.iter().enumerate() {
            let lowest = others.lowest();
            let holding = others.holdings.remove(piece).ok_or("a stranger was turned out")?;
            holds(Some(holding.level) == lowest, "not the lowest level was turned out")?;
            holds(holding.attempt == *attempt, "an eviction named another bid")?;
            let full = number >= room;
            let memory = full
                && others.weights() + holding.weight_bytes + bid.weight_bytes > self.config.memory;
            holds(!full || memory, "a piece was turned out for nothing")?;
            holds(holding.level < bid.level, "a higher level was turned out")?;
        }
        let new = self.last.holdings.get(&bid.piece).ok_or("an accepted bid has no place")?;
        holds(new.attempt == bid.attempt, "a place of another bid")?;
        holds(new.level >= bid.level, "a place at a lower level than was bid")?;
        let mut now_there = self.last.clone();
        now_there.holdings.remove(&bid.piece);
        holds(others.places() == now_there.places(), "an eviction was not told")
    }

    fn fits_above(&self, others: &Picture, bid: &Bid, own: u64) -> bool {
        let above = others.holdings.values().filter(|holding| holding.level >= bid.level);
        let weights: u64 = above.map(|holding| holding.weight_bytes).sum();
        weights.saturating_sub(own).saturating_add(bid.weight_bytes) <= self.config.memory
    }

    fn open_slot(&self, picture: &Picture) -> Option<Nats> {
        let holders = u32::try_from(picture.holdings.len()).expect("slots are 16 bits");
        (holders < u32::from(self.config.slots)).then(|| slot_cost(holders + 1))
    }

    /// Takes a new picture, checks what always holds, and returns the picture before.
    fn look(&mut self, book: &Book) -> Result<Picture, String> {
        let before = std::mem::replace(&mut self.last, Picture::of(book));
        check_book(self.config, book)?;
        let (then, now) = (before.ask, self.last.ask);
        let changed = (then.level, then.holders) != (now.level, now.holders);
        holds(!changed || now.version > then.version, "a new price under an old version")?;
        let falls = match (then.level, now.level) {
            (Some(then), Some(now)) => now < then,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let lower = |(piece, old): (&PieceId, &Holding)| {
            self.last.holdings.get(piece).is_some_and(|new| new.level < old.level)
        };
        let departed = now.holders < then.holders || before.holdings.iter().any(lower);
        holds(!falls || departed, "an ask fell although nobody left")?;
        Ok(before)
    }
}

/// What holds of a book at any moment: `s_n <= ask <= s_{n+1}`, the ask is the cheaper of the next
/// slot and the lowest level, nobody is there twice, and slots and memory are kept to.
///
/// # Errors
/// The first rule that it breaks, in words.
pub fn check_book(config: BookConfig, book: &Book) -> Result<(), String> {
    let picture = Picture::of(book);
    let holders = picture.holdings.len();
    holds(holders <= usize::from(config.slots), "more pieces than slots")?;
    holds(usize::from(picture.ask.holders) == holders, "the ask counts other holders")?;
    holds(picture.weights() <= config.memory, "more weights than memory")?;
    let count = u32::try_from(holders).expect("slots are 16 bits");
    let slot = (count < u32::from(config.slots)).then(|| slot_cost(count + 1));
    let price = [picture.lowest(), slot].into_iter().flatten().min();
    holds(picture.ask.level == price, "the ask is not the price of the next place")?;
    let least = if count == 0 { Nats::ZERO } else { slot_cost(count) };
    holds(price.is_none_or(|price| price >= least), "the ask is below s_n")
}

impl Picture {
    fn of(book: &Book) -> Self {
        let holdings = book.holdings().map(|(piece, holding)| (*piece, *holding)).collect();
        Self { ask: book.ask(), holdings }
    }

    fn lowest(&self) -> Option<Nats> {
        self.holdings.values().map(|holding| holding.level).min()
    }

    fn weights(&self) -> u64 {
        self.holdings.values().map(|holding| holding.weight_bytes).sum()
    }

    /// Who is there, by which bid and at which level: all but how long the leases run.
    fn places(&self) -> Vec<(PieceId, u32, Nats, Timestamp, Runs)> {
        let places = self.holdings.iter();
        places.map(|(piece, h)| (*piece, h.attempt, h.level, h.since, h.runs)).collect()
    }
}

/// An expression that must be true. It is a `bool` because it is one, and no choice of the caller.
pub(super) fn holds(condition: bool, otherwise: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.to_owned()) }
}
