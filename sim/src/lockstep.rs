//! The protocol's auction in synchronous rounds: the same books and bidders as on live nodes, with
//! no network, clock or gossip between them.
//!
//! In a round, every piece without a place bids once, at the prices that were known when the round
//! began. The providers judge the bids one by one, in a seeded order, and their answers and
//! evictions are heard at the round's end. This is the unit in which rounds of auctions are
//! counted in the literature, and the fewest messages that the protocol can do with: nothing is
//! lost or repeated, and nobody bids on an old price unless told to (`missing`).
//!
//! With forecasts, every requester runs the whole auction in its own head on the pieces that it
//! knows, opens with what that ends at, and forecasts again whenever it loses. Once nobody bids,
//! every piece holds its place against the prices of the day; those that a wrong forecast has left
//! badly off bid again. Providers that were not heard of, and would draw a piece at the price last
//! known, are asked for theirs: two messages each, and no round.

use std::{ops::Range, sync::Arc, time::Duration};

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha12Rng;
use starling_protocol::{
    Nats, NodeId, PieceId, SessionId, Timestamp,
    cost::Provider,
    market::{
        Awarded, Bid, Bidder, Book, BookConfig, Candidate, Forecast, Moving, News, Prices,
        SeatState, Stall, Terms, Verdict,
    },
    model::Speed,
    session::{self, Bidding},
    testing::{Instance, node_id},
    wire::{Ask, Lease, Message},
};

use crate::{
    baseline::{Settings, Solution},
    random::{Purpose, generator},
};

/// Runs the auction until no piece bids any more.
///
/// | count | is |
/// |---|---|
/// | `accepted`, `refused` | answers to bids |
/// | `kept` | accepted bids for the place that the piece had |
/// | `evicted` | places lost to a higher bid |
/// | `given_back` | places that pieces left |
/// | `inquiries` | prices that were asked for because no advert told them |
/// | `adverts` | asks that changed from one round to the next, each told to all once |
/// | `placed_in_round_1` | pieces with a place after the first round |
#[must_use]
pub fn run(instance: &Instance, settings: &Settings, bidding: Bidding) -> Solution {
    let mut market = Market::new(instance, settings, bidding);
    while market.rounds < settings.rounds_max && market.round() {}
    market.solution()
}

/// What a requester believes of the providers and of the other requesters.
#[derive(Clone, Debug)]
pub struct Picture {
    asks: Vec<Ask>,
    hears: Vec<bool>,
    knows: Vec<bool>,
}

/// A group of pieces that bid together, and the picture that they bid by.
#[derive(Clone, Debug)]
pub struct Requester {
    number: usize,
    pieces: Range<usize>,
    bidder: Bidder,
    picture: Picture,
    forecast: Option<Forecast>,
    reviews: u32,
}

/// How much of everything a requester knows.
struct Shares<'a> {
    own: &'a Range<usize>,
    pieces: usize,
    missing: f64,
}

/// All nodes of one auction.
struct Market {
    books: Vec<Book>,
    requesters: Vec<Requester>,
    rng: ChaCha12Rng,
    advertised: Vec<Ask>,
    course: Course,
    rounds: u64,
    tally: Tally,
}

/// Which way prices go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Pieces without a place bid.
    Rising,
    /// Reviews have not helped, and nobody bids for another place. Levels come down to what places are worth, and pieces whose
    /// places are not worth what they cost leave them.
    Falling,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    accepted: u64,
    refused: u64,
    kept: u64,
    evicted: u64,
    given_back: u64,
    inquiries: u64,
    released: u64,
    adverts: u64,
    placed_in_round_1: u64,
}

/// A message with its two ends.
struct Parcel {
    provider: usize,
    requester: usize,
    message: Message,
}

impl Picture {
    /// Before anyone has bid: a requester that hears of no advert still knows what a provider's
    /// first place costs, since that is the same everywhere, which providers have no places, and
    /// its own pieces.
    fn draw(opening: &[Ask], shares: &Shares<'_>, rng: &mut ChaCha12Rng) -> Self {
        let mut heard = |count| (0..count).map(|_| !rng.random_bool(shares.missing)).collect();
        let hears = heard(opening.len());
        let mut knows: Vec<bool> = heard(shares.pieces);
        knows[shares.own.clone()].fill(true);
        Self { asks: opening.to_vec(), hears, knows }
    }

    /// The last-known ask of a provider.
    #[must_use]
    pub fn ask(&self, provider: usize) -> Ask {
        self.asks[provider]
    }

    /// Its level; nothing where it takes no bids.
    #[must_use]
    pub fn price(&self, provider: usize) -> Option<Nats> {
        self.ask(provider).level
    }

    /// Whether the requester has heard of a piece before its round-1 bid.
    #[must_use]
    pub fn knows(&self, piece: usize) -> bool {
        self.knows[piece]
    }

    fn on_advert(&mut self, provider: usize, ask: Ask) {
        if self.hears[provider] {
            self.learn(provider, ask);
        }
    }

    /// From now on the requester knows whom to listen to.
    fn on_answer(&mut self, provider: usize, ask: Ask) {
        self.hears[provider] = true;
        self.learn(provider, ask);
    }

    fn learn(&mut self, provider: usize, ask: Ask) {
        if ask.version >= self.asks[provider].version {
            self.asks[provider] = ask;
        }
    }
}

impl Requester {
    fn new(
        number: usize,
        pieces: Range<usize>,
        picture: Picture,
        market: (&Instance, Terms),
    ) -> Self {
        let (instance, terms) = market;
        let seats = instance.log_rates[pieces.clone()].iter().map(|rates| {
            let feasible = rates.iter().enumerate().filter_map(|(provider, rate)| {
                Some(Candidate { provider: node_id(provider), log_rate: (*rate)? })
            });
            (0, feasible.collect())
        });
        let seats = seats.collect();
        let bidder = Bidder::new(session(number), terms, instance.providers(), 0, seats);
        Self { number, pieces, bidder, picture, forecast: None, reviews: 0 }
    }

    /// Which pieces are its own.
    #[must_use]
    pub fn pieces(&self) -> Range<usize> {
        self.pieces.clone()
    }

    /// Its picture of the market.
    #[must_use]
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Provider by piece, of its own pieces.
    fn places(&self) -> impl Iterator<Item = Option<usize>> {
        self.bidder.states().map(|state| match state {
            SeatState::Held { provider, .. } => Some(number_of(&provider)),
            SeatState::Open | SeatState::Bidding(_) | SeatState::Infeasible => None,
        })
    }

    fn bids(&mut self) -> Vec<Parcel> {
        let picture = &self.picture;
        let asks = picture.asks.iter().enumerate().map(|(j, ask)| (node_id(j), *ask));
        let open = self.bidder.states().any(|state| state == SeatState::Open);
        // As sessions do: whoever has lost so often goes on without.
        let open = open && self.bidder.tally().rounds < session::Config::default().forecasts_max;
        let openings = match self.forecast.as_mut().filter(|_| open) {
            Some(forecast) => forecast.openings(&self.bidder, asks),
            None => Vec::new(),
        };
        let opening = |index: u16| openings.get(usize::from(index)).copied().flatten();
        let prices = self.prices();
        let quote = |node: &NodeId| prices.ask(node);
        let bids = self.bidder.poll(NOW, PATIENCE, &quote, &opening);
        self.parcels(bids)
    }

    /// Bids of pieces that would rather offer more for their places than be turned out.
    fn defences(&mut self) -> Vec<Parcel> {
        if self.reviews > 0 {
            return Vec::new();
        }
        let prices = self.prices();
        let bids = self.bidder.defend(NOW, &|node| prices.ask(node));
        self.parcels(bids)
    }

    /// Bids of pieces that would be better off elsewhere, or pay too much where they are. Not for
    /// ever, as in sessions: each may make others look again.
    fn reviews(&mut self) -> Vec<Parcel> {
        if self.reviews >= session::Config::default().reviews_max {
            return Vec::new();
        }
        let prices = self.prices();
        let quote = |node: &NodeId| prices.ask(node);
        let bids = self.bidder.review(NOW, &quote, Moving::Free);
        self.reviews += u32::from(!bids.is_empty());
        self.parcels(bids)
    }

    fn is_content(&self) -> bool {
        self.bidder.is_content(&|node| Some(self.picture.ask(number_of(node))))
    }

    /// What pieces offer less for, and the places that they leave. Nothing is forecast any more.
    fn falls(&mut self) -> Vec<Parcel> {
        self.forecast = None;
        let picture = &self.picture;
        let messages = self.bidder.fall(NOW, &|node| Some(picture.ask(number_of(node))));
        self.parcels(messages)
    }

    /// What the providers are taken to ask.
    fn prices(&self) -> Prices {
        let asks = self.picture.asks.iter().enumerate().map(|(j, ask)| (node_id(j), *ask));
        let Some(forecast) = &self.forecast else { return Prices::heard(asks) };
        let news =
            self.picture.hears.iter().map(|hears| if *hears { News::Fresh } else { News::Late });
        Prices::expected(forecast, asks.zip(news).map(|((node, ask), news)| (node, ask, news)))
    }

    /// Whose prices it has not heard, and should know to be sure that its pieces are content.
    fn inquiries(&self) -> Vec<usize> {
        if self.forecast.is_none() {
            return Vec::new();
        }
        let hears = self.picture.hears.iter().enumerate();
        let late = hears.filter(|(_, hears)| !**hears).map(|(j, _)| node_id(j)).collect();
        let quote = |node: &NodeId| Some(self.picture.ask(number_of(node)));
        self.bidder.unsure(&late, &quote).iter().map(number_of).collect()
    }

    fn parcels(&self, bids: Vec<(NodeId, Message)>) -> Vec<Parcel> {
        let requester = self.number;
        let parcel = |(to, message)| Parcel { provider: number_of(&to), requester, message };
        bids.into_iter().map(parcel).collect()
    }

    /// Knows what its picture says, and forecasts from that.
    fn learn_market(&mut self, groups: &[Range<usize>], market: &Known<'_>) {
        let mut forecast = Forecast::new(market.terms, session(self.number).requester);
        for (provider, slots) in market.slots.iter().enumerate() {
            let stall = Stall {
                provider: Provider {
                    speed: Speed::default(),
                    bandwidth: 1.0,
                    byte_seconds: 0.0,
                    memory_free: u64::MAX,
                },
                slots: *slots,
                ask: self.picture.ask(provider),
            };
            forecast.set_provider(node_id(provider), &stall);
        }
        for (number, pieces) in groups.iter().enumerate() {
            let unknown = || Arc::clone(&market.nowhere);
            let known = |piece: usize| self.picture.knows(piece);
            let seconds = pieces.clone().map(|piece| {
                if known(piece) { Arc::clone(&market.seconds[piece]) } else { unknown() }
            });
            forecast.set_session_seconds(session(number), &seconds.collect::<Vec<_>>());
        }
        self.forecast = Some(forecast);
        self.bidder = self.bidder.clone().in_haste();
    }

    /// Returns the lease that is to be given back, if any, and to whom.
    fn hear(&mut self, provider: usize, message: &Message) -> Option<(usize, Lease)> {
        let from = node_id(provider);
        match message {
            Message::Award { index, attempt, ask, .. } => {
                self.picture.on_answer(provider, *ask);
                return match self.bidder.on_award(from, *index, *attempt) {
                    Awarded::Place => None,
                    Awarded::Second => {
                        let (left, lease) = self.bidder.take_second(*index)?;
                        Some((number_of(&left), lease))
                    }
                    Awarded::Unwanted(lease) => Some((provider, lease)),
                };
            }
            Message::Refusal { index, attempt, ask, .. } => {
                self.picture.on_answer(provider, *ask);
                self.bidder.on_outbid(from, *index, *attempt);
            }
            Message::Eviction { index, attempt, ask, .. } => {
                self.picture.on_answer(provider, *ask);
                self.bidder.on_eviction(from, *index, *attempt);
            }
            other => unreachable!("no book answers with {other:?}"),
        }
        None
    }
}

impl Market {
    fn new(instance: &Instance, settings: &Settings, bidding: Bidding) -> Self {
        let mut rng = generator(settings.seed, Purpose::Solvers);
        let book = |slots: &u16| {
            let config = BookConfig { slots: *slots, ..BookConfig::default() };
            Book::new(settings.terms, config, 0)
        };
        let books: Vec<Book> = instance.capacity.iter().map(book).collect();
        let opening: Vec<Ask> = books.iter().map(Book::ask).collect();
        let groups = groups(instance.pieces(), &mut rng);
        let requesters = groups.iter().cloned().enumerate().map(|(number, pieces)| {
            let (all, missing) = (instance.pieces(), settings.missing);
            let shares = Shares { own: &pieces, pieces: all, missing };
            let picture = Picture::draw(&opening, &shares, &mut rng);
            Requester::new(number, pieces, picture, (instance, settings.terms))
        });
        let mut requesters: Vec<Requester> = requesters.collect();
        if bidding == Bidding::Plain {
            for requester in &mut requesters {
                let known = requester.picture.knows.iter().filter(|known| **known).count();
                requester.bidder.expect(known);
            }
        }
        if bidding == Bidding::Forecast {
            let known = Known::new(instance, settings.terms);
            for requester in &mut requesters {
                requester.learn_market(&groups, &known);
            }
        }
        Self {
            books,
            requesters,
            rng,
            advertised: opening,
            course: Course::Rising,
            rounds: 0,
            tally: Tally::default(),
        }
    }

    /// Says whether anything was done.
    fn round(&mut self) -> bool {
        self.advertise();
        let mut parcels = match self.course {
            Course::Rising => self.bids_and_reviews(),
            Course::Falling => self.falls(),
        };
        if parcels.is_empty() && self.course == Course::Falling {
            self.course = Course::Rising;
            parcels = self.bids_and_reviews();
        }
        if parcels.is_empty() {
            return false;
        }
        parcels.shuffle(&mut self.rng);
        let answers: Vec<Parcel> = parcels.iter().flat_map(|parcel| self.judge(parcel)).collect();
        for answer in &answers {
            self.deliver(answer);
        }
        self.rounds += 1;
        if self.rounds == 1 {
            let places = self.requesters.iter().flat_map(Requester::places);
            self.tally.placed_in_round_1 = places.flatten().count() as u64;
        }
        true
    }

    /// Bids of pieces without a place, and of those that may be turned out next; or if there are
    /// none, reviews; or if none helps and somebody is badly off, the way down.
    fn bids_and_reviews(&mut self) -> Vec<Parcel> {
        let mut parcels: Vec<Parcel> =
            self.requesters.iter_mut().flat_map(Requester::bids).collect();
        if !parcels.is_empty() {
            parcels.extend(self.requesters.iter_mut().flat_map(Requester::defences));
            return parcels;
        }
        self.inquire();
        parcels = self.requesters.iter_mut().flat_map(Requester::reviews).collect();
        if parcels.is_empty() && !self.requesters.iter().all(Requester::is_content) {
            self.course = Course::Falling;
            parcels = self.falls();
        }
        parcels
    }

    fn falls(&mut self) -> Vec<Parcel> {
        self.requesters.iter_mut().flat_map(Requester::falls).collect()
    }

    fn inquire(&mut self) {
        for requester in &mut self.requesters {
            for provider in requester.inquiries() {
                requester.picture.on_answer(provider, self.books[provider].ask());
                self.tally.inquiries += 1;
            }
        }
    }

    /// Tells every ask that has changed to everyone who listens.
    fn advertise(&mut self) {
        for (provider, book) in self.books.iter().enumerate() {
            let ask = book.ask();
            if ask == self.advertised[provider] {
                continue;
            }
            self.advertised[provider] = ask;
            self.tally.adverts += 1;
            for requester in &mut self.requesters {
                requester.picture.on_advert(provider, ask);
            }
        }
    }

    /// The answer, and what those are told who lost their places.
    fn judge(&mut self, parcel: &Parcel) -> Vec<Parcel> {
        let (provider, requester) = (parcel.provider, parcel.requester);
        if let Message::Release { leases, .. } = &parcel.message {
            for lease in leases {
                self.release(requester, provider, lease);
            }
            return Vec::new();
        }
        let bid = Bid::from_message(session(requester).requester, &parcel.message);
        let bid = bid.expect("bidders bid or release");
        let (number, index, attempt) = (bid.piece.session.number, bid.piece.index, bid.attempt);
        let book = &mut self.books[provider];
        let held = book.attempt_of(&bid.piece);
        let verdict = book.bid(NOW, &bid);
        let ask = book.ask();
        let mut parcels = Vec::new();
        match verdict {
            Verdict::Accepted { evicted } => {
                self.tally.accepted += 1;
                self.tally.kept += u64::from(bid.keeps.is_some() && held == bid.keeps);
                let message =
                    Message::Award { session: number, index, attempt, ask, lease_ms: LEASE_MS };
                parcels.push(Parcel { provider, requester, message });
                parcels.extend(evicted.iter().map(|loser| eviction(provider, ask, loser)));
            }
            Verdict::Refused(reason) => {
                self.tally.refused += 1;
                let message = Message::Refusal { session: number, index, attempt, ask, reason };
                parcels.push(Parcel { provider, requester, message });
            }
            Verdict::Stale => {}
        }
        parcels
    }

    fn deliver(&mut self, parcel: &Parcel) {
        let Parcel { provider, requester, message } = parcel;
        if let Message::Eviction { .. } = message {
            self.tally.evicted += 1;
        }
        if let Some((left, lease)) = self.requesters[*requester].hear(*provider, message) {
            self.release(*requester, left, &lease);
        }
    }

    fn release(&mut self, requester: usize, provider: usize, lease: &Lease) {
        let piece = PieceId { session: session(requester), index: lease.index };
        self.tally.released += 1;
        let held = self.books[provider].release(NOW, piece, lease.attempt);
        self.tally.given_back += u64::from(held);
    }

    fn solution(&self) -> Solution {
        let bids = self.requesters.iter().map(|requester| u64::from(requester.bidder.tally().bids));
        let bids: u64 = bids.sum();
        let Tally { accepted, refused, kept, evicted, given_back, .. } = self.tally;
        let Tally { inquiries, released, adverts, placed_in_round_1, .. } = self.tally;
        Solution {
            assignment: self.requesters.iter().flat_map(Requester::places).collect(),
            rounds: self.rounds,
            bids,
            messages: bids + accepted + refused + evicted + released + 2 * inquiries,
            counts: vec![
                ("accepted", accepted),
                ("refused", refused),
                ("kept", kept),
                ("evicted", evicted),
                ("given_back", given_back),
                ("inquiries", inquiries),
                ("adverts", adverts),
                ("placed_in_round_1", placed_in_round_1),
            ],
        }
    }
}

/// What those who know everything know.
struct Known<'a> {
    terms: Terms,
    slots: &'a [u16],
    seconds: Vec<Arc<[f64]>>,
    // The row of a piece that is not known: it goes nowhere.
    nowhere: Arc<[f64]>,
}

impl<'a> Known<'a> {
    fn new(instance: &'a Instance, terms: Terms) -> Self {
        let seconds =
            |rate: &Option<Nats>| rate.map_or(f64::INFINITY, |rate| (-rate.to_f64()).exp());
        let row = |rates: &Vec<Option<Nats>>| rates.iter().map(seconds).collect();
        Self {
            terms,
            slots: &instance.capacity,
            seconds: instance.log_rates.iter().map(row).collect(),
            nowhere: vec![f64::INFINITY; instance.providers()].into(),
        }
    }
}

fn eviction(provider: usize, ask: Ask, loser: &(PieceId, u32)) -> Parcel {
    let (piece, attempt) = loser;
    let session = piece.session.number;
    let message = Message::Eviction { session, index: piece.index, attempt: *attempt, ask };
    Parcel { provider, requester: usize::try_from(session).expect("made by session()"), message }
}

/// Consecutive pieces that one requester bids for.
fn groups(pieces: usize, rng: &mut ChaCha12Rng) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut first = 0;
    while first < pieces {
        let end = (first + rng.random_range(PIECES_EACH)).min(pieces);
        groups.push(first..end);
        first = end;
    }
    groups
}

fn session(requester: usize) -> SessionId {
    SessionId { requester: node_id(REQUESTERS_FROM + requester), number: requester as u64 }
}

/// The inverse of [`node_id`].
fn number_of(node: &NodeId) -> usize {
    let mut first = [0; 8];
    first.copy_from_slice(&node.0[..8]);
    usize::try_from(u64::from_be_bytes(first)).expect("made by node_id")
}

/// Time stands still: no lease ends, and no bid is repeated.
const NOW: Timestamp = Timestamp(0);
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE_MS: u32 = 6000;
const PIECES_EACH: std::ops::RangeInclusive<usize> = 1..=6;
/// Providers are numbered from 0, and never so many.
const REQUESTERS_FROM: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use quickcheck::{QuickCheck, quickcheck};
    use starling_protocol::testing::{Outcome, check_outcome};

    use super::*;
    use crate::paper::scenario::{Cuts, Demand, Fleet, Layout, Scenario};

    fn market(pieces: usize, missing: f64) -> Market {
        let rates = |i: usize| (0..5).map(move |j| Nats::ln(((i * 7 + j * 3) % 11 + 1) as f64));
        let log_rates = (0..pieces).map(|i| rates(i).collect()).collect();
        let instance = Instance { log_rates, capacity: vec![u16::MAX; 5] };
        Market::new(&instance, &Settings { missing, ..Settings::default() }, Bidding::Plain)
    }

    #[test]
    fn every_requester_has_one_to_six_pieces() {
        let market = market(100, 0.0);
        let mut next = 0;
        for requester in &market.requesters {
            assert_eq!(requester.pieces().start, next);
            assert!(PIECES_EACH.contains(&requester.pieces().len()));
            next = requester.pieces().end;
        }
        assert_eq!(next, 100);
        assert!(market.requesters.len() > 100 / 6);
    }

    #[test]
    fn a_requester_listens_to_those_whom_it_knows() {
        let check = |missing: f64, pieces_known: usize, asks_known: usize| {
            let mut market = market(40, missing);
            assert!(market.round());
            let asks: Vec<Ask> = market.books.iter().map(Book::ask).collect();
            assert!(asks.iter().any(|ask| ask.version > 0), "nobody bid");
            let before: Vec<Picture> =
                market.requesters.iter().map(|requester| requester.picture().clone()).collect();
            market.advertise();
            for (requester, before) in market.requesters.iter().zip(before) {
                let picture = requester.picture();
                let own = requester.pieces().len();
                assert_eq!((0..40).filter(|i| picture.knows(*i)).count(), pieces_known.max(own));
                // Those that answered its bids are known by now, whatever was missing.
                let fresh = (0..5).filter(|j| picture.price(*j) == asks[*j].level).count();
                let stale = (0..5).filter(|j| before.price(*j) == asks[*j].level).count();
                assert!(fresh >= asks_known.max(stale));
            }
        };
        check(0.0, 40, 5);
        check(1.0, 0, 0);
    }

    fn ask(version: u64, level: i64) -> Ask {
        Ask { version, level: Some(Nats(level)), holders: 1 }
    }

    #[test]
    fn news_never_makes_way_for_older_news() {
        let mut picture = Picture { asks: vec![ask(3, 30)], hears: vec![false], knows: Vec::new() };
        picture.on_advert(0, ask(4, 40));
        assert_eq!(picture.price(0), Some(Nats(30)), "it doesn't know whom to listen to");
        picture.on_answer(0, ask(2, 20));
        assert_eq!(picture.price(0), Some(Nats(30)), "that is old");
        picture.on_advert(0, ask(4, 40));
        assert_eq!(picture.price(0), Some(Nats(40)));
    }

    /// In clusters, levels that a wrong forecast had left too low let one piece turn out the next
    /// for 11,000 rounds.
    #[test]
    fn one_piece_too_many_does_not_wander_about_the_clusters() {
        let size = (1000, 100);
        let scenario = Scenario::new(Demand::Mixed, Layout::Clustered, Fleet::Spread, size);
        let case = scenario.draw(6, &Cuts::new());
        let settings =
            Settings { seed: 6, terms: scenario.terms(), missing: 0.05, rounds_max: 4000 };
        let solution = run(&case.instance, &settings, Bidding::Forecast);
        assert!(solution.complete().is_some(), "{solution:?}");
        assert!(solution.rounds < settings.rounds_max, "{} rounds", solution.rounds);
    }

    /// However pieces bid, and whatever they have not heard of.
    #[test]
    fn the_bound_holds_in_synchronous_rounds() {
        #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
        fn property(instance: Instance, seed: u64, missing: u8) -> Result<(), String> {
            for (bidding, missing) in [
                (Bidding::Plain, 0.0),
                (Bidding::Plain, f64::from(missing) / 255.0),
                (Bidding::Forecast, 0.0),
                (Bidding::Forecast, f64::from(missing) / 255.0),
            ] {
                let settings = Settings { seed, missing, ..Settings::default() };
                let solution = run(&instance, &settings, bidding);
                if solution.rounds >= settings.rounds_max {
                    return Err("it did not end".to_owned());
                }
                let outcome = Outcome::of(solution.assignment);
                check_outcome(&instance, settings.terms, &outcome)
                    .map_err(|broken| format!("{bidding:?}, {missing} missing: {broken}"))?;
            }
            Ok(())
        }
        QuickCheck::new()
            .tests(1000)
            .quickcheck(property as fn(Instance, u64, u8) -> Result<(), String>);
    }

    quickcheck! {
        fn what_is_counted_adds_up(instance: Instance, seed: u64) -> bool {
            let settings = Settings { seed, ..Settings::default() };
            let solution = run(&instance, &settings, Bidding::Plain);
            let [accepted, refused, kept, evicted, given_back] =
                ["accepted", "refused", "kept", "evicted", "given_back"]
                    .map(|name| solution.count(name));
            accepted + refused == solution.bids
                && accepted - kept - evicted - given_back
                    == solution.assignment.iter().flatten().count() as u64
                && solution.rounds <= solution.bids + given_back
        }
    }
}
