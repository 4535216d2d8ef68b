//! An auction among books and bidders, with nothing between them but a bag of messages out of
//! which any may come next, twice, or much later.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quickcheck::{Arbitrary, Gen};

use super::{Instance, Outcome, node_id, provider_of};
use crate::{
    cost::Provider,
    id::{NodeId, PieceId, SessionId},
    market::{
        Awarded, Bid, Bidder, Book, BookConfig, Candidate, Forecast, Moving, Opening, SeatState,
        Stall, Terms, Verdict,
    },
    model::Speed,
    nats::Nats,
    time::Timestamp,
    wire::{Ask, Message},
};

/// How badly the network behaves.
#[derive(Clone, Copy, Debug)]
pub struct Mischief {
    /// Decides which message comes next.
    pub seed: u64,
    /// Of 100 messages, this many come once more at a later time.
    pub duplicated_percent: u8,
    /// Of 100 prices heard, this many are forgotten: later bids use older ones.
    pub stale_percent: u8,
    /// Pieces per requester.
    pub pieces_each: usize,
}

impl Arbitrary for Mischief {
    fn arbitrary(g: &mut Gen) -> Self {
        Self {
            seed: u64::arbitrary(g),
            duplicated_percent: *g.choose(&[0, 10, 50]).expect("not empty"),
            stale_percent: *g.choose(&[0, 20, 60]).expect("not empty"),
            pieces_each: *g.choose(&[1, 3, 12]).expect("not empty"),
        }
    }
}

/// With what pieces open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openings {
    /// With the best bid at the prices known.
    Plain,
    /// The same, at the prices that so many pieces are expected to make.
    Expected {
        /// Of 100 pieces, so many are believed to be there.
        percent: u8,
    },
    /// With what a forecast ends at, each requester's own.
    Forecast {
        /// Of 100 pieces of others, it has not heard of this many.
        missing_percent: u8,
    },
    /// With whatever levels, anywhere: a forecast that is wrong in every way.
    Arbitrary,
}

impl Arbitrary for Openings {
    fn arbitrary(g: &mut Gen) -> Self {
        let expected = |percent| Self::Expected { percent };
        let forecast = |missing_percent| Self::Forecast { missing_percent };
        let expected = [expected(50), expected(100), expected(250)];
        let forecasts = [forecast(0), forecast(20), forecast(60)];
        let all = [&[Self::Plain, Self::Arbitrary], expected.as_slice(), &forecasts].concat();
        *g.choose(&all).expect("not empty")
    }
}

/// Runs an auction to its end, from plain openings. Nothing is reviewed: the bound needs none.
#[must_use]
pub fn run_auction(instance: &Instance, terms: Terms, mischief: Mischief) -> Outcome {
    run_auction_from(instance, terms, mischief, Openings::Plain)
}

/// Runs an auction to its end. Openings that were not plain may have put a piece where it should
/// not be, so whenever all is quiet the places are reviewed, until every piece is content; and if
/// reviews don't help, levels fall once.
#[must_use]
pub fn run_auction_from(
    instance: &Instance,
    terms: Terms,
    mischief: Mischief,
    openings: Openings,
) -> Outcome {
    let mut arena = Arena::new(instance, terms, mischief, openings);
    let (mut messages, mut pauses) = (0, 0);
    let quiescent = loop {
        if messages >= MESSAGES_MAX || pauses >= PAUSES_MAX {
            break false;
        }
        pauses += u64::from(arena.bag.is_empty());
        if arena.course != Course::Falling {
            arena.bid();
        }
        if arena.deliver_one() {
            messages += 1;
        } else if openings == Openings::Plain || arena.is_over() {
            break arena.falls <= 1;
        }
    };
    arena.outcome(messages, quiescent)
}

/// Which way prices go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Pieces without a place bid.
    Rising,
    /// Levels come down, and no piece bids for another place.
    Falling,
}

struct Requester {
    bidder: Bidder,
    forecast: Option<Forecast>,
    asks: BTreeMap<NodeId, Ask>,
}

struct Arena<'a> {
    instance: &'a Instance,
    terms: Terms,
    mischief: Mischief,
    openings: Openings,
    course: Course,
    reviews: u32,
    falls: u32,
    random: u64,
    now: Timestamp,
    providers: Vec<Book>,
    requesters: Vec<Requester>,
    bag: Vec<Parcel>,
}

#[derive(Clone)]
enum Parcel {
    ToProvider { provider: usize, requester: usize, message: Message },
    ToRequester { provider: usize, requester: usize, message: Message },
}

impl<'a> Arena<'a> {
    fn new(instance: &'a Instance, terms: Terms, mischief: Mischief, openings: Openings) -> Self {
        let book = |slots: &u16| {
            let config = BookConfig { slots: *slots, ..BookConfig::default() };
            Book::new(terms, config, 0)
        };
        // A provider without a place says so in its adverts, which everyone has heard.
        let closed = instance.capacity.iter().enumerate().filter(|(_, slots)| **slots == 0);
        let ask = Ask { version: 0, level: None, holders: 0 };
        let asks: BTreeMap<NodeId, Ask> = closed.map(|(j, _)| (node_id(j), ask)).collect();
        let mut arena = Self {
            instance,
            terms,
            mischief,
            openings,
            course: Course::Rising,
            reviews: REVIEWS[mischief.seed as usize % REVIEWS.len()],
            falls: 0,
            random: mischief.seed,
            now: Timestamp(1),
            providers: instance.capacity.iter().map(book).collect(),
            requesters: Vec::new(),
            bag: Vec::new(),
        };
        for number in 0..instance.pieces().div_ceil(mischief.pieces_each) {
            let (bidder, forecast) = (arena.bidder(number), arena.forecast(number));
            arena.requesters.push(Requester { bidder, forecast, asks: asks.clone() });
        }
        arena
    }

    fn bidder(&self, number: usize) -> Bidder {
        let seats = pieces_of(self.instance, self.mischief, number).iter().map(|rates| {
            let feasible = rates.iter().enumerate().filter_map(|(provider, rate)| {
                Some(Candidate { provider: node_id(provider), log_rate: (*rate)? })
            });
            (0, feasible.collect())
        });
        let providers = self.instance.providers();
        let mut bidder = Bidder::new(session(number), self.terms, providers, 0, seats.collect());
        if let Openings::Expected { percent } = self.openings {
            bidder.expect(self.instance.pieces() * usize::from(percent) / 100);
        }
        bidder
    }

    /// A requester's own forecast: it knows its own pieces, and those of the others that it has
    /// heard of.
    fn forecast(&mut self, own: usize) -> Option<Forecast> {
        let Openings::Forecast { missing_percent } = self.openings else { return None };
        let mut forecast = Forecast::new(self.terms, session(own).requester);
        let provider = Provider {
            speed: Speed([1; 5]),
            bandwidth: f64::INFINITY,
            byte_seconds: 0.0,
            memory_free: u64::MAX,
        };
        for (number, book) in self.providers.iter().enumerate() {
            let (slots, ask) = (self.instance.capacity[number], book.ask());
            forecast.set_provider(node_id(number), &Stall { provider, slots, ask });
        }
        for number in 0..self.instance.pieces().div_ceil(self.mischief.pieces_each) {
            let rows = pieces_of(self.instance, self.mischief, number);
            let heard = |_: &&Vec<Option<Nats>>| own == number || !self.chance(missing_percent);
            let known: Vec<_> = rows.iter().filter(heard).collect();
            let seconds: Vec<_> = known.into_iter().map(|rates| seconds(rates)).collect();
            forecast.set_session_seconds(session(number), &seconds);
        }
        Some(forecast)
    }

    fn bid(&mut self) {
        for number in 0..self.requesters.len() {
            let openings = self.openings_of(number);
            let opening = |index: u16| openings.get(usize::from(index)).copied().flatten();
            let Requester { bidder, asks, .. } = &mut self.requesters[number];
            let quote = |node: &NodeId| Some(asks.get(node).copied().unwrap_or(UNHEARD));
            let mut bids = bidder.poll(self.now, PATIENCE, &quote, &opening);
            if let Openings::Expected { .. } | Openings::Forecast { .. } = self.openings {
                bids.extend(bidder.defend(self.now, &quote));
            }
            self.send(number, bids);
        }
    }

    fn send(&mut self, requester: usize, messages: Vec<(NodeId, Message)>) {
        let parcels = messages.into_iter().map(|(to, message)| Parcel::ToProvider {
            provider: provider_of(&to),
            requester,
            message,
        });
        self.bag.extend(parcels);
    }

    fn openings_of(&mut self, number: usize) -> Vec<Option<Opening>> {
        let Requester { bidder, forecast, asks } = &mut self.requesters[number];
        let open = bidder.states().filter(|state| *state == SeatState::Open).count();
        if open == 0 || self.falls > 0 || bidder.tally().rounds >= FORECASTS_MAX {
            return Vec::new();
        }
        if let Some(forecast) = forecast {
            return forecast.openings(bidder, asks.iter().map(|(node, ask)| (*node, *ask)));
        }
        let pieces = bidder.states().count();
        match self.openings {
            Openings::Arbitrary => (0..pieces).map(|_| Some(self.any_opening())).collect(),
            Openings::Plain | Openings::Expected { .. } | Openings::Forecast { .. } => Vec::new(),
        }
    }

    fn any_opening(&mut self) -> Opening {
        let providers = self.instance.providers();
        let provider = node_id(self.draw() as usize % providers);
        let cap = self.terms.cap(providers);
        // Often so high that nobody could want the place for it, sometimes beyond what is allowed.
        let most = if self.chance(50) { cap } else { self.terms.spread };
        Opening { provider, level: Nats((self.draw() % (most.0 as u64 * 5 / 4)) as i64) }
    }

    /// All is quiet. Everyone hears today's prices, and looks whether there is anything to mend.
    fn is_over(&mut self) -> bool {
        self.now = self.now + BETWEEN_REVIEWS;
        let asks: BTreeMap<NodeId, Ask> =
            self.providers.iter().enumerate().map(|(j, book)| (node_id(j), book.ask())).collect();
        for number in 0..self.requesters.len() {
            self.renew(number);
            self.requesters[number].asks.clone_from(&asks);
        }
        let open = |state| state == SeatState::Open;
        if self.course == Course::Falling {
            self.fall(&asks);
            if self.bag.is_empty() {
                self.course = Course::Rising;
            }
            return false;
        }
        if self.requesters.iter().any(|requester| requester.bidder.states().any(open)) {
            return false;
        }
        if self.reviews > 0 && self.review(&asks) {
            self.reviews -= 1;
            return false;
        }
        let quote = |node: &NodeId| asks.get(node).copied();
        if self.requesters.iter().all(|requester| requester.bidder.is_content(&quote)) {
            return true;
        }
        (self.course, self.falls) = (Course::Falling, self.falls + 1);
        self.fall(&asks);
        false
    }

    /// Pieces that would rather be elsewhere bid there. Says whether any did.
    fn review(&mut self, asks: &BTreeMap<NodeId, Ask>) -> bool {
        let first = self.draw() as usize;
        for turn in 0..self.requesters.len() {
            if self.bag.is_empty() {
                self.review_one(first.wrapping_add(turn) % self.requesters.len(), asks);
            }
        }
        !self.bag.is_empty()
    }

    /// All at once, each by what it has heard before. Nothing that was forecast counts any more.
    fn fall(&mut self, asks: &BTreeMap<NodeId, Ask>) {
        let quote = |node: &NodeId| asks.get(node).copied();
        for number in 0..self.requesters.len() {
            let requester = &mut self.requesters[number];
            requester.forecast = None;
            let messages = requester.bidder.fall(self.now, &quote);
            self.send(number, messages);
        }
    }

    /// One piece moves at a time. Those that move together follow each other about, until each has
    /// become so reluctant that it rests; but then it may rest further than eps from its best.
    fn review_one(&mut self, number: usize, asks: &BTreeMap<NodeId, Ask>) {
        let quote = |node: &NodeId| asks.get(node).copied();
        let bidder = &mut self.requesters[number].bidder;
        let mut bids = bidder.review(self.now, &quote, Moving::Free);
        for (_, message) in bids.drain(bids.len().min(1)..) {
            if let Message::Bid { index, .. } = message {
                bidder.drop_second(index);
            }
        }
        self.send(number, bids);
    }

    /// An eviction that overtook its award may have gone unnoticed; a renewal tells.
    fn renew(&mut self, number: usize) {
        let bidder = &mut self.requesters[number].bidder;
        for (node, leases) in bidder.held() {
            let lost = self.providers[provider_of(&node)].renew(self.now, session(number), &leases);
            bidder.on_lost(node, &lost);
        }
    }

    fn deliver_one(&mut self) -> bool {
        if self.bag.is_empty() {
            return false;
        }
        let at = self.draw() as usize % self.bag.len();
        let parcel = if self.chance(self.mischief.duplicated_percent) {
            self.bag[at].clone()
        } else {
            self.bag.swap_remove(at)
        };
        match parcel {
            Parcel::ToProvider { provider, requester, message } => {
                self.pass_to_provider(provider, requester, &message);
            }
            Parcel::ToRequester { provider, requester, message } => {
                self.pass_to_requester(provider, requester, &message);
            }
        }
        true
    }

    fn pass_to_provider(&mut self, provider: usize, requester: usize, message: &Message) {
        let id = session(requester);
        match message {
            Message::Bid { session, index, attempt, .. } => {
                let bid = Bid::from_message(id.requester, message).expect("it is a bid");
                let book = &mut self.providers[provider];
                let verdict = book.bid(self.now, &bid);
                let ask = book.ask();
                let (session, index, attempt) = (*session, *index, *attempt);
                let answer = match verdict {
                    Verdict::Stale => return,
                    Verdict::Refused(reason) => {
                        Message::Refusal { session, index, attempt, ask, reason }
                    }
                    Verdict::Accepted { evicted } => {
                        self.tell_evicted(provider, ask, &evicted);
                        Message::Award { session, index, attempt, ask, lease_ms: 1000 }
                    }
                };
                self.bag.push(Parcel::ToRequester { provider, requester, message: answer });
            }
            Message::Release { leases, .. } => {
                for lease in leases {
                    let piece = PieceId { session: id, index: lease.index };
                    self.providers[provider].release(self.now, piece, lease.attempt);
                }
            }
            other => unreachable!("no requester of this arena sends {other:?}"),
        }
    }

    fn tell_evicted(&mut self, provider: usize, ask: Ask, evicted: &[(PieceId, u32)]) {
        for (piece, attempt) in evicted {
            let (session, index, attempt) = (piece.session.number, piece.index, *attempt);
            let message = Message::Eviction { session, index, attempt, ask };
            let requester = usize::try_from(session).expect("small");
            self.bag.push(Parcel::ToRequester { provider, requester, message });
        }
    }

    fn pass_to_requester(&mut self, provider: usize, number: usize, message: &Message) {
        let from = node_id(provider);
        let forgets = self.chance(self.mischief.stale_percent);
        let requester = &mut self.requesters[number];
        if let Message::Award { ask, .. }
        | Message::Refusal { ask, .. }
        | Message::Eviction { ask, .. } = message
        {
            let known = requester.asks.get(&from).map_or(0, |ask| ask.version);
            if ask.version >= known && !forgets {
                requester.asks.insert(from, *ask);
            }
        }
        match message {
            Message::Award { session, index, attempt, .. } => {
                let left = match requester.bidder.on_award(from, *index, *attempt) {
                    Awarded::Place => return,
                    Awarded::Unwanted(lease) => Some((from, lease)),
                    Awarded::Second => requester.bidder.take_second(*index),
                };
                if let Some((to, lease)) = left {
                    let message = Message::Release { session: *session, leases: vec![lease] };
                    let provider = provider_of(&to);
                    self.bag.push(Parcel::ToProvider { provider, requester: number, message });
                }
            }
            Message::Refusal { index, attempt, .. } => {
                requester.bidder.on_outbid(from, *index, *attempt);
            }
            Message::Eviction { index, attempt, .. } => {
                requester.bidder.on_eviction(from, *index, *attempt);
            }
            other => unreachable!("no provider of this arena sends {other:?}"),
        }
    }

    fn outcome(&self, messages: u64, quiescent: bool) -> Outcome {
        let states = self.requesters.iter().flat_map(|requester| requester.bidder.states());
        let assignment = states.map(|state| match state {
            SeatState::Held { provider, .. } => Some(provider_of(&provider)),
            SeatState::Open | SeatState::Bidding(_) | SeatState::Infeasible => None,
        });
        let tallies = self.requesters.iter().map(|requester| requester.bidder.tally());
        Outcome {
            assignment: assignment.collect(),
            rounds: tallies.clone().map(|tally| tally.rounds).max().unwrap_or(0),
            bids: tallies.map(|tally| tally.bids).sum(),
            messages,
            quiescent,
        }
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.draw() % 100 < u64::from(percent)
    }

    /// SplitMix64: order only has to be arbitrary, and the same for the same seed.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The rates of a requester's pieces.
fn pieces_of(instance: &Instance, mischief: Mischief, number: usize) -> &[Vec<Option<Nats>>] {
    instance.log_rates.chunks(mischief.pieces_each).nth(number).unwrap_or_default()
}

fn seconds(rates: &[Option<Nats>]) -> Arc<[f64]> {
    let seconds = |rate: &Option<Nats>| rate.map_or(f64::INFINITY, |rate| (-rate.to_f64()).exp());
    rates.iter().map(seconds).collect()
}

fn session(number: usize) -> SessionId {
    SessionId { requester: node_id(1000 + number), number: number as u64 }
}

/// The price of an empty book, which is what everyone takes a provider for at first.
const UNHEARD: Ask = Ask { version: 0, level: Some(Nats::ZERO), holders: 0 };
/// How often places may be reviewed before all levels fall; by the seed.
const REVIEWS: [u32; 3] = [0, 1, 100];
const PAUSES_MAX: u64 = 100_000;
const MESSAGES_MAX: u64 = 2_000_000;
/// Every message arrives, so none is sent again.
const PATIENCE: Duration = Duration::from_secs(1 << 40);
/// So many bids of a piece follow its opening, as in a session.
const FORECASTS_MAX: u32 = 8;
/// Pieces that have rested move for any gain above eps.
const BETWEEN_REVIEWS: Duration = Duration::from_secs(3600);
