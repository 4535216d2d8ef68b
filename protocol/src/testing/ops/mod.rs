//! Runs a [`Trial`]: real books and bidders, whatever a schedule does to them, and all checkers on
//! after every operation. Then the network heals, and everything must come to rest where the
//! auction's bound says.

mod heal;

use std::{collections::BTreeMap, time::Duration};

use super::{
    Instance, Op, Trial, check_outcome, node_id, provider_of,
    watch::{BookWatch, holds},
};
use crate::{
    id::{NodeId, PieceId, SessionId},
    market::{Awarded, Bid, Bidder, Book, BookConfig, Candidate, Moving, Terms, Verdict},
    nats::Nats,
    time::Timestamp,
    wire::{Ask, Lease, Message, RefusalReason},
};

/// What happened in a trial, so that a test can see that something did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Operations.
    pub ops: u64,
    /// Bids that reached a provider.
    pub bids: u64,
    /// Of these, such as made a place for a piece.
    pub awards: u64,
    /// Pieces turned out.
    pub evictions: u64,
    /// Leases that ran out.
    pub expiries: u64,
}

/// Runs a trial to its end.
///
/// # Errors
/// The first rule that was broken, in words, and after which operation.
pub fn run_trial(trial: &Trial) -> Result<Happened, String> {
    let mut market = Market::new(trial);
    for (number, op) in trial.schedule.0.iter().enumerate() {
        let done = market.apply(*op).and_then(|()| market.check());
        done.map_err(|broken| format!("operation {number}, {op:?}: {broken}"))?;
    }
    market.heal().map_err(|broken| format!("after the last operation: {broken}"))?;
    Ok(market.happened)
}

struct Stand {
    book: Book,
    watch: BookWatch,
}

struct Requester {
    bidder: Bidder,
    asks: BTreeMap<NodeId, Ask>,
    renewed: Timestamp,
}

struct Market<'a> {
    trial: &'a Trial,
    terms: Terms,
    now: Timestamp,
    // As it is now: rates change, and providers that are gone have no slots.
    instance: Instance,
    stands: Vec<Option<Stand>>,
    requesters: Vec<Requester>,
    mail: Vec<Parcel>,
    // Places that nobody wants, and since when.
    orphans: BTreeMap<(usize, PieceId, u32), Timestamp>,
    // Pieces that run pay for more than their place: the bound says nothing of them.
    loaded: u64,
    happened: Happened,
}

#[derive(Clone)]
struct Parcel {
    sent: Timestamp,
    provider: usize,
    requester: SessionId,
    to: To,
    message: Message,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Provider,
    Requester,
}

impl<'a> Market<'a> {
    fn new(trial: &'a Trial) -> Self {
        let mut market = Self {
            trial,
            terms: Terms::default(),
            now: Timestamp(1_000_000),
            instance: trial.instance.clone(),
            stands: Vec::new(),
            requesters: Vec::new(),
            mail: Vec::new(),
            orphans: BTreeMap::new(),
            loaded: 0,
            happened: Happened::default(),
        };
        market.stands = (0..trial.instance.providers()).map(|j| Some(market.stand(j))).collect();
        let each = usize::from(trial.pieces_each.max(1));
        for number in 0..trial.instance.pieces().div_ceil(each) {
            let requester = market.requester(number);
            market.requesters.push(requester);
            market.poll(number);
        }
        market
    }

    fn config(&self, provider: usize) -> BookConfig {
        let memory = if self.trial.weights.is_empty() { u64::MAX } else { self.trial.memory };
        BookConfig {
            slots: self.trial.instance.capacity[provider],
            memory,
            ..BookConfig::default()
        }
    }

    fn stand(&self, provider: usize) -> Stand {
        let config = self.config(provider);
        let book = Book::new(self.terms, config, self.now.0);
        let watch = BookWatch::new(self.terms, config, &book);
        Stand { book, watch }
    }

    fn requester(&self, number: usize) -> Requester {
        let session = SessionId { requester: node_id(1000 + number), number: self.now.0 };
        let weights = self.pieces_of(number).map(|piece| self.trial.weight(piece));
        let seats = weights.zip(self.candidates(number)).collect();
        let bidder = Bidder::new(session, self.terms, self.stands.len(), 0, seats);
        Requester { bidder, asks: self.asks(), renewed: self.now }
    }

    fn pieces_of(&self, requester: usize) -> std::ops::Range<usize> {
        let each = usize::from(self.trial.pieces_each.max(1));
        requester * each..((requester + 1) * each).min(self.instance.pieces())
    }

    fn candidates(&self, requester: usize) -> Vec<Vec<Candidate>> {
        let there = |j: &usize| self.stands[*j].is_some();
        let candidates = |piece: usize| {
            let rates = &self.instance.log_rates[piece];
            let feasible = (0..self.stands.len())
                .filter(there)
                .filter_map(|j| Some(Candidate { provider: node_id(j), log_rate: rates[j]? }));
            feasible.collect()
        };
        self.pieces_of(requester).map(candidates).collect()
    }

    /// Everyone's prices of today.
    fn asks(&self) -> BTreeMap<NodeId, Ask> {
        let asks = self.stands.iter().enumerate();
        asks.filter_map(|(j, stand)| Some((node_id(j), stand.as_ref()?.book.ask()))).collect()
    }

    fn apply(&mut self, op: Op) -> Result<(), String> {
        self.happened.ops += 1;
        self.now = self.now + INSTANT;
        let (requesters, providers) = (self.requesters.len(), self.stands.len());
        let (requester, provider) =
            (|n: u8| usize::from(n) % requesters, |n: u8| usize::from(n) % providers);
        match op {
            Op::Deliver(n) => return self.deliver(n, 0),
            Op::Duplicate(n) => return self.deliver(n, 1),
            Op::Drop(n) => drop(self.take(n, 0)),
            Op::Pass(n) => return self.pass(STEP * u32::from(n)),
            Op::Hear { requester: r, provider: p } => self.hear(requester(r), provider(p)),
            Op::Review(n) => self.review(requester(n), Moving::Free),
            Op::ReviewRunning(n) => self.review(requester(n), Moving::Running),
            Op::Load(n) => return self.load(usize::from(n) % self.instance.pieces()),
            Op::RestartRequester(n) => {
                self.requesters[requester(n)] = self.requester(requester(n));
                self.poll(requester(n));
            }
            Op::RestartProvider(n) => {
                if self.stands[provider(n)].is_some() {
                    self.stands[provider(n)] = Some(self.stand(provider(n)));
                }
            }
            Op::Leave(n) => self.leave(provider(n)),
            Op::Join(n) => {
                if self.stands[provider(n)].is_none() {
                    self.stands[provider(n)] = Some(self.stand(provider(n)));
                    self.tell_rates();
                }
            }
            Op::Rate { piece, provider: p, quarters } => {
                let piece = usize::from(piece) % self.instance.pieces();
                let rate = &mut self.instance.log_rates[piece][provider(p)];
                *rate = rate.map(|_| Nats(i64::from(quarters) * 250_000_000));
                self.tell_rates();
            }
        }
        Ok(())
    }

    fn hear(&mut self, requester: usize, provider: usize) {
        if let Some(stand) = &self.stands[provider] {
            hear(&mut self.requesters[requester].asks, node_id(provider), stand.book.ask());
        }
    }

    fn leave(&mut self, provider: usize) {
        self.stands[provider] = None;
        self.orphans.retain(|(j, ..), _| *j != provider);
        for requester in &mut self.requesters {
            requester.asks.remove(&node_id(provider));
            requester.bidder.on_provider_lost(node_id(provider));
        }
        self.poll_all();
    }

    fn tell_rates(&mut self) {
        for number in 0..self.requesters.len() {
            let candidates = self.candidates(number);
            self.requesters[number].bidder.set_candidates(self.stands.len(), candidates);
        }
    }

    fn review(&mut self, number: usize, moving: Moving) {
        let Requester { bidder, asks, .. } = &mut self.requesters[number];
        let bids = bidder.review(self.now, &|node| asks.get(node).copied(), moving);
        self.send_bids(number, bids);
    }

    fn load(&mut self, piece: usize) -> Result<(), String> {
        let each = usize::from(self.trial.pieces_each.max(1));
        let bidder = &self.requesters[piece / each].bidder;
        let index = u16::try_from(piece % each).expect("few");
        let piece = PieceId { session: bidder.session(), index };
        for stand in self.stands.iter_mut().flatten() {
            if stand.book.attempt_of(&piece).is_some() {
                self.loaded += 1;
                stand.book.entrench(&piece);
                stand.watch.on_entrenched(piece, &stand.book)?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, span: Duration) -> Result<(), String> {
        self.now = self.now + span;
        let now = self.now;
        // The transport gives up on what is late.
        self.mail.retain(|parcel| now < parcel.sent + LATE);
        for stand in self.stands.iter_mut().flatten() {
            self.happened.expiries += stand.book.expire(now).len() as u64;
            stand.watch.on_time(now, &stand.book)?;
        }
        for number in 0..self.requesters.len() {
            self.renew(number);
            for node in self.requesters[number].bidder.silent(SENDS_MAX) {
                let bidder = &mut self.requesters[number].bidder;
                bidder.exclude(node, now + EXCLUSION);
                bidder.on_provider_lost(node);
                let candidates = self.candidates(number);
                self.requesters[number].bidder.set_candidates(self.stands.len(), candidates);
            }
        }
        self.poll_all();
        Ok(())
    }

    fn renew(&mut self, number: usize) {
        let requester = &mut self.requesters[number];
        if self.now < requester.renewed + RENEW_EVERY {
            return;
        }
        requester.renewed = self.now;
        for (to, leases) in requester.bidder.held() {
            let session = self.requesters[number].bidder.session();
            self.post(
                To::Provider,
                to,
                session,
                Message::Renew { session: session.number, leases },
            );
        }
    }

    fn poll_all(&mut self) {
        for number in 0..self.requesters.len() {
            self.poll(number);
        }
    }

    fn poll(&mut self, number: usize) {
        let Requester { bidder, asks, .. } = &mut self.requesters[number];
        let quote = |node: &NodeId| asks.get(node).copied();
        let bids = bidder.poll(self.now, PATIENCE, &quote, &|_| None);
        self.send_bids(number, bids);
    }

    fn send_bids(&mut self, number: usize, bids: Vec<(NodeId, Message)>) {
        let session = self.requesters[number].bidder.session();
        for (to, message) in bids {
            self.post(To::Provider, to, session, message);
        }
    }

    fn post(&mut self, to: To, provider: NodeId, requester: SessionId, message: Message) {
        let provider = provider_of(&provider);
        self.mail.push(Parcel { sent: self.now, provider, requester, to, message });
    }

    fn take(&mut self, n: u8, copies: usize) -> Option<Parcel> {
        if self.mail.is_empty() {
            return None;
        }
        let at = usize::from(n) % self.mail.len();
        Some(if copies > 0 { self.mail[at].clone() } else { self.mail.remove(at) })
    }

    fn deliver(&mut self, n: u8, copies: usize) -> Result<(), String> {
        let Some(parcel) = self.take(n, copies) else { return Ok(()) };
        match parcel.to {
            To::Provider => self.pass_to_provider(&parcel),
            To::Requester => {
                self.pass_to_requester(&parcel);
                Ok(())
            }
        }
    }

    fn pass_to_provider(&mut self, parcel: &Parcel) -> Result<(), String> {
        let (session, now) = (parcel.requester, self.now);
        let Some(Stand { book, watch }) = &mut self.stands[parcel.provider] else { return Ok(()) };
        match &parcel.message {
            message @ Message::Bid { .. } => {
                let bid = Bid::from_message(session.requester, message).expect("it is a bid");
                let verdict = book.bid(now, &bid);
                watch.on_bid(now, &bid, &verdict, book)?;
                return self.answer_bid(parcel.provider, &bid, verdict);
            }
            Message::Renew { leases, .. } => {
                let lost = book.renew(now, session, leases);
                watch.on_renew(now, session, leases, &lost, book)?;
                let message = Message::Renewed { session: session.number, lost, ask: book.ask() };
                self.post(To::Requester, node_id(parcel.provider), session, message);
            }
            Message::Release { leases, .. } => {
                for Lease { index, attempt } in leases {
                    let piece = PieceId { session, index: *index };
                    book.release(now, piece, *attempt);
                    watch.on_release(piece, *attempt, book)?;
                }
            }
            other => return Err(format!("a requester sent {other:?}")),
        }
        Ok(())
    }

    fn answer_bid(&mut self, provider: usize, bid: &Bid, verdict: Verdict) -> Result<(), String> {
        let cap = self.terms.cap(self.stands.len());
        holds((Nats::ZERO..=cap).contains(&bid.level), "a bid beyond the cap")?;
        self.happened.bids += 1;
        let Some(stand) = &self.stands[provider] else { return Ok(()) };
        let (ask, session) = (stand.book.ask(), bid.piece.session);
        let (number, index, attempt) = (session.number, bid.piece.index, bid.attempt);
        let message = match verdict {
            Verdict::Stale => return Ok(()),
            Verdict::Refused(reason) => {
                Message::Refusal { session: number, index, attempt, ask, reason }
            }
            Verdict::Accepted { evicted } => {
                self.happened.awards += 1;
                self.happened.evictions += evicted.len() as u64;
                for (piece, attempt) in evicted {
                    let (session, index) = (piece.session.number, piece.index);
                    let message = Message::Eviction { session, index, attempt, ask };
                    self.post(To::Requester, node_id(provider), piece.session, message);
                }
                Message::Award { session: number, index, attempt, ask, lease_ms: 6000 }
            }
        };
        self.post(To::Requester, node_id(provider), session, message);
        Ok(())
    }

    fn pass_to_requester(&mut self, parcel: &Parcel) {
        let from = node_id(parcel.provider);
        let known = self.requesters.iter().position(|r| r.bidder.session() == parcel.requester);
        let Some(number) = known else {
            // Of a session that is forgotten: given back, as a node does.
            if let Message::Award { index, attempt, .. } = parcel.message {
                self.give_back(parcel.requester, from, Lease { index, attempt });
            }
            return;
        };
        let Requester { bidder, asks, .. } = &mut self.requesters[number];
        if let Some(ask) = ask_of(&parcel.message)
            && self.stands[parcel.provider].is_some()
        {
            hear(asks, from, ask);
        }
        let excluded_until = self.now + EXCLUSION;
        let left = take_in(bidder, from, &parcel.message, excluded_until);
        if let Some((to, lease)) = left {
            self.give_back(parcel.requester, to, lease);
        }
        self.poll(number);
    }

    fn give_back(&mut self, session: SessionId, to: NodeId, lease: Lease) {
        let message = Message::Release { session: session.number, leases: vec![lease] };
        self.post(To::Provider, to, session, message);
    }
}

/// A provider's answer reaches its session. Returns the place that it gives back for it, if any.
fn take_in(
    bidder: &mut Bidder,
    from: NodeId,
    message: &Message,
    excluded_until: Timestamp,
) -> Option<(NodeId, Lease)> {
    match message {
        Message::Award { index, attempt, .. } => {
            return match bidder.on_award(from, *index, *attempt) {
                Awarded::Place => None,
                Awarded::Unwanted(lease) => Some((from, lease)),
                Awarded::Second => bidder.take_second(*index),
            };
        }
        Message::Refusal { index, attempt, reason: RefusalReason::Outbid, .. } => {
            bidder.on_outbid(from, *index, *attempt);
        }
        Message::Refusal { index, attempt, .. } => {
            bidder.on_excluded(from, *index, *attempt, excluded_until);
        }
        Message::Eviction { index, attempt, .. } => {
            bidder.on_eviction(from, *index, *attempt);
        }
        Message::Renewed { lost, .. } => {
            bidder.on_lost(from, lost);
        }
        other => unreachable!("no provider of this market sends {other:?}"),
    }
    None
}

fn ask_of(message: &Message) -> Option<Ask> {
    match message {
        Message::Award { ask, .. }
        | Message::Refusal { ask, .. }
        | Message::Eviction { ask, .. }
        | Message::Renewed { ask, .. } => Some(*ask),
        _ => None,
    }
}

fn hear(asks: &mut BTreeMap<NodeId, Ask>, from: NodeId, ask: Ask) {
    if asks.get(&from).is_none_or(|known| ask.version > known.version) {
        asks.insert(from, ask);
    }
}

/// Every operation takes a little time, so that no two lives begin at once.
const INSTANT: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_millis(20);
/// As sessions do.
const PATIENCE: Duration = Duration::from_millis(500);
const SENDS_MAX: u32 = 5;
const RENEW_EVERY: Duration = Duration::from_secs(1);
const EXCLUSION: Duration = Duration::from_secs(30);
/// What has not arrived by then never does.
const LATE: Duration = Duration::from_secs(2);
