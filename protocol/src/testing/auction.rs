//! An auction among books and bidders, with nothing between them but a bag of messages out of
//! which any may come next, twice, or much later.

use std::{collections::BTreeMap, time::Duration};

use quickcheck::{Arbitrary, Gen};

use super::{Instance, node_id, optimum};
use crate::{
    id::{NodeId, PieceId, SessionId},
    market::{Awarded, Bid, Bidder, Book, BookConfig, Candidate, SeatState, Terms, Verdict},
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

/// How an auction ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Provider by piece; nothing where the piece was declared infeasible.
    pub assignment: Vec<Option<usize>>,
    /// The most bids of any piece.
    pub rounds: u32,
    /// Bids of all pieces.
    pub bids: u32,
    /// Messages delivered, copies included.
    pub messages: u64,
    /// False if the step limit ended it.
    pub quiescent: bool,
}

/// Holds an outcome against the exact optimum.
///
/// # Errors
/// The first property that does not hold, in words.
pub fn check_outcome(instance: &Instance, terms: Terms, outcome: &Outcome) -> Result<(), String> {
    if !outcome.quiescent {
        return Err("the auction did not end".to_owned());
    }
    let placed: Option<Vec<usize>> = outcome.assignment.iter().copied().collect();
    let best = optimum(instance);
    let (placed, (best, _)) = match (placed, best) {
        (None, None) => return Ok(()),
        (Some(_), None) => return Err("pieces placed that have no place".to_owned()),
        (None, Some(_)) => return Err("a piece called infeasible that has a place".to_owned()),
        (Some(placed), Some(best)) => (placed, best),
    };
    let utility = instance.utility(&placed).ok_or("an infeasible assignment")?;
    let bound = best - terms.eps.times(instance.pieces() as u64);
    if utility > best {
        return Err(format!("U = {utility} above the optimum {best}"));
    }
    if utility < bound {
        return Err(format!("U = {utility} below the bound {bound} (optimum {best})"));
    }
    Ok(())
}

/// Runs an auction to its end.
#[must_use]
pub fn run_auction(instance: &Instance, terms: Terms, mischief: Mischief) -> Outcome {
    let mut arena = Arena::new(instance, terms, mischief);
    let steps_max = 2_000_000;
    let mut messages = 0;
    let quiescent = loop {
        if messages >= steps_max {
            break false;
        }
        arena.bid();
        if !arena.deliver_one() {
            break true;
        }
        messages += 1;
    };
    arena.outcome(messages, quiescent)
}

struct Requester {
    bidder: Bidder,
    asks: BTreeMap<NodeId, Ask>,
}

struct Arena {
    mischief: Mischief,
    random: u64,
    providers: Vec<Book>,
    requesters: Vec<Requester>,
    bag: Vec<Parcel>,
}

#[derive(Clone)]
enum Parcel {
    ToProvider { provider: usize, requester: usize, message: Message },
    ToRequester { provider: usize, requester: usize, message: Message },
}

const NOW: Timestamp = Timestamp(1);
/// The price of an empty book, which is what everyone takes a provider for at first.
const UNHEARD: Ask = Ask { version: 0, level: Some(Nats::ZERO), holders: 0 };

impl Arena {
    fn new(instance: &Instance, terms: Terms, mischief: Mischief) -> Self {
        let book = |slots: &u16| {
            let config = BookConfig { slots: *slots, ..BookConfig::default() };
            Book::new(terms, config, 0)
        };
        let chunks = instance.log_rates.chunks(mischief.pieces_each);
        let requesters = chunks.enumerate().map(|(number, pieces)| {
            let seats = pieces.iter().map(|rates| {
                let feasible = rates.iter().enumerate().filter_map(|(provider, rate)| {
                    Some(Candidate { provider: node_id(provider), log_rate: (*rate)? })
                });
                (0, feasible.collect())
            });
            let bidder =
                Bidder::new(session(number), terms, instance.providers(), 0, seats.collect());
            // A provider without a place says so in its adverts, which everyone has heard.
            let closed = instance.capacity.iter().enumerate().filter(|(_, slots)| **slots == 0);
            let ask = Ask { version: 0, level: None, holders: 0 };
            let asks = closed.map(|(j, _)| (node_id(j), ask)).collect();
            Requester { bidder, asks }
        });
        Self {
            mischief,
            random: mischief.seed,
            providers: instance.capacity.iter().map(book).collect(),
            requesters: requesters.collect(),
            bag: Vec::new(),
        }
    }

    fn bid(&mut self) {
        for (number, requester) in self.requesters.iter_mut().enumerate() {
            let asks = &requester.asks;
            let quote = |node: &NodeId| Some(asks.get(node).copied().unwrap_or(UNHEARD));
            let patience = Duration::from_secs(60);
            for (to, message) in requester.bidder.poll(NOW, patience, &quote, &|_| None) {
                let provider = provider_of(&to);
                self.bag.push(Parcel::ToProvider { provider, requester: number, message });
            }
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
            Message::Bid { session, index, attempt, level, weight_bytes, keeps, claim } => {
                let bid = Bid {
                    piece: PieceId { session: id, index: *index },
                    attempt: *attempt,
                    level: *level,
                    weight_bytes: *weight_bytes,
                    keeps: *keeps,
                    claim: *claim,
                };
                let book = &mut self.providers[provider];
                let verdict = book.bid(NOW, &bid);
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
                    self.providers[provider].release(NOW, piece, lease.attempt);
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
                let awarded = requester.bidder.on_award(from, *index, *attempt);
                if let Awarded::Unwanted(lease) = awarded {
                    let message = Message::Release { session: *session, leases: vec![lease] };
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

fn session(number: usize) -> SessionId {
    SessionId { requester: node_id(1000 + number), number: number as u64 }
}

fn provider_of(node: &NodeId) -> usize {
    let mut first = [0; 8];
    first.copy_from_slice(&node.0[..8]);
    usize::try_from(u64::from_be_bytes(first)).expect("made by node_id")
}
