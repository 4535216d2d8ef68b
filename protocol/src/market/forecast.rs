//! A requester's forecast: the whole class auction, run in its own head on what it knows.
//!
//! Adverts are small, so every requester holds nearly the same picture of the providers and of the
//! pieces that want a place. A forecast lets all of those pieces bid against each other here, and
//! the requester opens with the levels at which its own pieces ended. Where pictures agree, every
//! piece has its place after one round. Where they don't, the loser tells its forecast what it has
//! learned and asks again; the provider has the last word in any case.
//!
//! Memory is linear in pieces and providers: rates are computed from profiles when they are needed.
//! Values are compared as costs, `T_ij * e^price_j`, whose smallest is the largest `ln r_ij -
//! price_j`: that takes one exponential for a change of price and none for a comparison, and a look
//! at all providers is a few passes over columns of numbers.

mod shelves;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use shelves::Shelves;

use crate::{
    cost::Provider,
    id::{NodeId, PieceId, SessionId, tie_break},
    market::{Bidder, SeatState, Terms},
    model::{OP_CLASSES, PieceProfile},
    nats::Nats,
    wire::Ask,
};

/// A provider as a forecast sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stall {
    /// Its speed, link and memory.
    pub provider: Provider,
    /// The most pieces that it takes (`Q_j`).
    pub slots: u16,
    /// Its price as last heard.
    pub ask: Ask,
}

/// What a forecast says of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Where to bid.
    pub provider: NodeId,
    /// At which level.
    pub level: Nats,
}

/// The class auction on one node's picture.
#[derive(Clone, Debug)]
pub struct Forecast {
    terms: Terms,
    // The node that forecasts: its own pieces reach it without a link.
    local: NodeId,
    shelves: Shelves,
    pieces: Vec<Entry>,
    numbers: BTreeMap<PieceId, u32>,
    vacant: Vec<u32>,
    open: VecDeque<u32>,
    // Providers whose price has fallen, so that pieces elsewhere may want to come.
    fallen: BTreeSet<usize>,
    costs: Vec<f64>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: PieceId,
    work: [f64; OP_CLASSES],
    bytes: f64,
    weights: f64,
    // Instead of the above: seconds by provider, from a table.
    seconds: Option<Arc<[f64]>>,
    place: Place,
    level: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No provider is feasible for it.
    None,
    /// It has been removed; its number is free.
    Gone,
    /// It waits for its turn to bid.
    Open,
    /// It has a place here.
    At(usize),
    /// It really has a place here, so it does not bid.
    Pinned(usize),
}

impl Forecast {
    /// Nobody is known yet. `local` is the node that forecasts.
    #[must_use]
    pub fn new(terms: Terms, local: NodeId) -> Self {
        Self {
            terms,
            local,
            shelves: Shelves::default(),
            pieces: Vec::new(),
            numbers: BTreeMap::new(),
            vacant: Vec::new(),
            open: VecDeque::new(),
            fallen: BTreeSet::new(),
            costs: Vec::new(),
        }
    }

    /// Pieces that are known.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.numbers.len()
    }

    /// Providers that are known.
    #[must_use]
    pub fn providers(&self) -> usize {
        self.shelves.len()
    }

    /// Adds a provider, or changes what is known of it. Only what this touches is forecast again.
    pub fn set_provider(&mut self, node: NodeId, stall: &Stall) {
        let at = self.shelves.find_or_add(node);
        self.clear(at);
        self.shelves.set(at, stall);
        self.fallen.insert(at);
    }

    /// Removes a provider; its pieces bid elsewhere.
    pub fn remove_provider(&mut self, node: &NodeId) {
        if let Some(at) = self.shelves.find(node) {
            self.clear(at);
            self.shelves.close(at);
        }
    }

    /// A price that was heard: no piece gets a place there for less. Prices of an auction only
    /// rise, so one that is lower than before is not taken in.
    pub fn hear_ask(&mut self, node: &NodeId, ask: &Ask) {
        let Some(at) = self.shelves.find(node) else { return };
        for piece in self.shelves.hear_ask(at, ask) {
            self.reopen(piece);
        }
    }

    /// Adds a session's pieces, in their order, or replaces those that were there.
    pub fn set_session(&mut self, session: SessionId, pieces: &[PieceProfile]) {
        self.remove_session(session);
        for (index, profile) in (0..).zip(pieces) {
            self.add(PieceId { session, index }, profile);
        }
    }

    /// Adds a session's pieces by their stand-alone seconds at each provider, in the order in which
    /// these were added, infinite where a piece can't go: for those who have a table of times
    /// instead of profiles.
    pub fn set_session_seconds(&mut self, session: SessionId, pieces: &[Arc<[f64]>]) {
        self.remove_session(session);
        for (index, seconds) in (0..).zip(pieces) {
            self.add(PieceId { session, index }, &PieceProfile::default());
            if let Some(number) = self.numbers.get(&PieceId { session, index }) {
                self.pieces[*number as usize].seconds = Some(Arc::clone(seconds));
            }
        }
    }

    /// Removes a session's pieces.
    pub fn remove_session(&mut self, session: SessionId) {
        let first = PieceId { session, index: 0 };
        let last = PieceId { session, index: u16::MAX };
        let gone: Vec<(PieceId, u32)> =
            self.numbers.range(first..=last).map(|(id, number)| (*id, *number)).collect();
        for (id, number) in gone {
            self.numbers.remove(&id);
            self.leave(number);
            self.pieces[number as usize].place = Place::Gone;
            self.vacant.push(number);
        }
    }

    /// A piece really has a place: it is not forecast until [`unpin`](Self::unpin).
    pub fn pin(&mut self, piece: &PieceId, node: &NodeId, level: Nats) {
        let (Some(number), Some(at)) = (self.numbers.get(piece).copied(), self.shelves.find(node))
        else {
            return;
        };
        self.leave(number);
        let entry = &mut self.pieces[number as usize];
        entry.place = Place::Pinned(at);
        entry.level = level.to_f64();
        self.shelves.push(at, entry.level, number);
    }

    /// A piece has lost its real place, and is forecast again.
    pub fn unpin(&mut self, piece: &PieceId) {
        if let Some(number) = self.numbers.get(piece).copied()
            && let Place::Pinned(_) = self.pieces[number as usize].place
        {
            self.reopen(number);
        }
    }

    /// Lets all pieces without a place bid until none is left, and those elsewhere come that would
    /// gain more than eps where a price has fallen.
    pub fn settle(&mut self) {
        if !self.pieces.iter().any(|entry| matches!(entry.place, Place::At(_))) {
            // There is nobody to come from elsewhere.
            self.fallen.clear();
        }
        for _ in 0..PASSES_MAX {
            self.run();
            let fallen = std::mem::take(&mut self.fallen);
            for at in fallen {
                self.attract(at);
            }
            if self.open.is_empty() {
                break;
            }
        }
        self.run();
    }

    /// Where each piece of a session should bid, by what its bidder has learned: the asks that it
    /// heard, and which of its pieces have places.
    pub fn openings(
        &mut self,
        bidder: &Bidder,
        asks: impl Iterator<Item = (NodeId, Ask)>,
    ) -> Vec<Option<Opening>> {
        for (node, ask) in asks {
            self.hear_ask(&node, &ask);
        }
        let session = bidder.session();
        for (index, state) in (0..).zip(bidder.states()) {
            let piece = PieceId { session, index };
            match state {
                SeatState::Held { provider, level, .. } => self.pin(&piece, &provider, level),
                SeatState::Open | SeatState::Bidding(_) | SeatState::Infeasible => {
                    self.unpin(&piece);
                }
            }
        }
        self.settle();
        let pieces = (0..).zip(bidder.states()).map(|(index, _)| PieceId { session, index });
        pieces.map(|piece| self.opening(&piece)).collect()
    }

    /// Where a piece should bid, and at which level; nothing if it is unknown or has no place.
    #[must_use]
    pub fn opening(&self, piece: &PieceId) -> Option<Opening> {
        let entry = &self.pieces[*self.numbers.get(piece)? as usize];
        match entry.place {
            Place::At(at) | Place::Pinned(at) => {
                // As much above the second best as any bid: others know pieces that it does not.
                let level = entry.level - self.eps() + self.terms.eps.to_f64();
                let level = Nats::from_f64(level).min(self.terms.cap(self.shelves.len()));
                Some(Opening { provider: self.shelves.node(at), level })
            }
            Place::None | Place::Gone | Place::Open => None,
        }
    }

    /// What a provider asks in the end, as far as it is known here.
    #[must_use]
    pub fn price(&self, node: &NodeId) -> Option<Nats> {
        let price = self.shelves.price(self.shelves.find(node)?);
        price.is_finite().then(|| Nats::from_f64(price))
    }

    /// The most that a provider can be taken to ask: what leaves room for a bid. Where there are as
    /// many pieces as slots, the forecast ends with all slots at the cap, those of the pieces that
    /// it was made for among them.
    #[must_use]
    pub(crate) fn price_max(&self) -> Nats {
        self.terms.cap(self.shelves.len()) - self.terms.eps
    }

    fn add(&mut self, id: PieceId, profile: &PieceProfile) {
        let entry = Entry {
            id,
            work: profile.work.0.map(|flops| flops as f64),
            bytes: profile.bytes_in.saturating_add(profile.bytes_out) as f64,
            weights: profile.weight_bytes as f64,
            seconds: None,
            place: Place::Open,
            level: 0.0,
        };
        let number = if let Some(number) = self.vacant.pop() {
            self.pieces[number as usize] = entry;
            number
        } else {
            self.pieces.push(entry);
            u32::try_from(self.pieces.len() - 1).expect("tables are far smaller")
        };
        self.numbers.insert(id, number);
        self.open.push_back(number);
    }

    fn run(&mut self) {
        // Enough for any auction that ends; a picture of junk must not hold up its node.
        let mut bids_left = BIDS_EACH_MAX * (self.numbers.len() + 1);
        while let Some(number) = self.open.pop_front() {
            if self.pieces[number as usize].place != Place::Open || bids_left == 0 {
                continue;
            }
            bids_left -= 1;
            self.bid(number);
        }
    }

    fn bid(&mut self, number: u32) {
        let Some((best, cost, second)) = self.choose(number) else {
            self.pieces[number as usize].place = Place::None;
            return;
        };
        let cap = self.terms.cap(self.shelves.len()).to_f64();
        let price = self.shelves.price(best);
        // What it is better than the best other provider, and eps: `ln r - v2 + eps`.
        let level = (price + (second / cost).ln() + self.eps()).min(cap);
        if level < price {
            self.pieces[number as usize].place = Place::None;
            return;
        }
        let evicted = self.shelves.accept(best, level, number);
        let entry = &mut self.pieces[number as usize];
        (entry.place, entry.level) = (Place::At(best), level);
        if let Some(evicted) = evicted {
            self.pieces[evicted as usize].place = Place::Open;
            self.open.push_back(evicted);
        }
    }

    /// The cheapest provider, its cost, and the cost of the second cheapest.
    fn choose(&mut self, number: u32) -> Option<(usize, f64, f64)> {
        let mut costs = std::mem::take(&mut self.costs);
        let entry = &self.pieces[number as usize];
        match &entry.seconds {
            Some(seconds) => self.shelves.costs_of_row(seconds, &mut costs),
            None => self.shelves.costs(&entry.work, entry.bytes, entry.weights, &mut costs),
        }
        if entry.id.session.requester == self.local
            && let Some(at) = self.shelves.find(&self.local)
        {
            costs[at] = self.cost(entry, at);
        }
        let (mut best, cost, second) = two_cheapest(&costs);
        if cost == second && cost.is_finite() {
            // Told apart by piece and provider, the same way at every node.
            let equal = (0..).zip(&costs).filter(|(_, other)| **other == cost).map(|(at, _)| at);
            let winner = equal.max_by_key(|at| tie_break(&entry.id, &self.shelves.node(*at)));
            best = winner.unwrap_or(best);
        }
        self.costs = costs;
        cost.is_finite().then_some((best, cost, second))
    }

    fn cost(&self, entry: &Entry, at: usize) -> f64 {
        if let Some(seconds) = &entry.seconds {
            return seconds.get(at).map_or(f64::INFINITY, |s| s * self.shelves.factor(at));
        }
        let own = entry.id.session.requester == self.local && self.shelves.node(at) == self.local;
        let bytes = if own { 0.0 } else { entry.bytes };
        self.shelves.cost(at, &entry.work, bytes, entry.weights)
    }

    /// Pieces elsewhere that would gain more than eps by coming here bid again.
    fn attract(&mut self, at: usize) {
        let gain = (-self.eps()).exp();
        let coming: Vec<u32> = (0..)
            .zip(&self.pieces)
            .filter_map(|(number, entry)| {
                let now = match entry.place {
                    Place::At(elsewhere) if elsewhere != at => self.cost(entry, elsewhere),
                    Place::None => f64::INFINITY,
                    Place::At(_) | Place::Gone | Place::Open | Place::Pinned(_) => return None,
                };
                (self.cost(entry, at) < now * gain).then_some(number)
            })
            .collect();
        for number in coming {
            self.reopen(number);
        }
    }

    /// Finer than the auction's own: a forecast costs no messages.
    fn eps(&self) -> f64 {
        self.terms.eps.to_f64() / FINER
    }

    fn reopen(&mut self, number: u32) {
        self.leave(number);
        self.pieces[number as usize].place = Place::Open;
        self.open.push_back(number);
    }

    fn leave(&mut self, number: u32) {
        let entry = &self.pieces[number as usize];
        if let Place::At(at) | Place::Pinned(at) = entry.place
            && self.shelves.remove(at, entry.level, number)
        {
            self.fallen.insert(at);
        }
    }

    fn clear(&mut self, at: usize) {
        for number in self.shelves.clear(at) {
            self.pieces[number as usize].place = Place::Open;
            self.open.push_back(number);
        }
    }
}

/// Where the cheapest is, its cost, and the next.
fn two_cheapest(costs: &[f64]) -> (usize, f64, f64) {
    let (mut at, mut best, mut second) = (0, f64::INFINITY, f64::INFINITY);
    for (place, cost) in costs.iter().enumerate() {
        if *cost < second {
            if *cost < best {
                (at, second, best) = (place, best, *cost);
            } else {
                second = *cost;
            }
        }
    }
    (at, best, second)
}

/// By how much a forecast's eps is finer than the auction's.
const FINER: f64 = 2.0;
/// How often pieces are called back to where a price has fallen; each pass is one that the last
/// one caused.
const PASSES_MAX: usize = 4;
/// Bids of one run, for each piece: a hundred times what auctions take.
const BIDS_EACH_MAX: usize = 2000;

#[cfg(test)]
mod tests;
