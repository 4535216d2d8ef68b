//! What is checked after every operation, and how a market heals: everything arrives, time passes,
//! pieces that would rather be elsewhere move, until nothing is left to do.

use std::{collections::BTreeMap, time::Duration};

use super::{
    EXCLUSION, LATE, Market, RENEW_EVERY, Requester, To, check_outcome, holds, provider_of,
};
use crate::{
    id::{NodeId, PieceId},
    market::{Moving, SeatState},
    testing::{Instance, Outcome, node_id, solve_exactly},
    wire::{Ask, Lease, Message},
};

impl Market<'_> {
    /// No place is kept for nobody for longer than a lease, once what was on its way has arrived.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let mut orphans = BTreeMap::new();
        for (j, stand) in self.stands.iter().enumerate() {
            let Some(stand) = stand else { continue };
            for (piece, holding) in stand.book.holdings() {
                let orphan = (j, *piece, holding.attempt);
                if !self.is_wanted(j, piece, holding.attempt) {
                    let since = self.orphans.get(&orphan).copied().unwrap_or(self.now);
                    let most = LATE + stand.book.lease();
                    holds(self.now <= since + most, "a place is held for nobody")?;
                    orphans.insert(orphan, since);
                }
            }
        }
        self.orphans = orphans;
        Ok(())
    }

    fn is_wanted(&self, provider: usize, piece: &PieceId, attempt: u32) -> bool {
        let mut bidders = self.requesters.iter().map(|requester| &requester.bidder);
        let Some(bidder) = bidders.find(|bidder| bidder.session() == piece.session) else {
            return false;
        };
        let lease = Lease { index: piece.index, attempt };
        bidder.leases().get(&node_id(provider)).is_some_and(|leases| leases.contains(&lease))
    }

    /// Lets everything arrive and come to rest, and holds it against the bound.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.wait(EXCLUSION + LATE)?;
        self.wait(EXCLUSION)?;
        let instance = self.instance_now();
        if !self.trial.weights.is_empty() || solve_exactly(&instance).is_err() {
            // Memory is no part of the instance: a piece that would be better off where it does
            // not fit asks there again and again. And where not all pieces have a place, prices
            // have gone up to the cap, and come down by little more than eps at a time.
            return self.check_agreement();
        }
        let mut reviews = 0;
        while self.review_in_turn(rest(reviews))? {
            reviews += 1;
            holds(reviews < REVIEWS_MAX, "the market did not come to rest")?;
        }
        self.check_agreement()?;
        if self.loaded > 0 || reviews > REVIEWS_RESTED {
            // A piece that runs pays for more than its place, and one that has become reluctant
            // stays further than eps from its best.
            return Ok(());
        }
        check_outcome(&instance, self.terms, &self.outcome())
    }

    /// Providers that are gone have no slots.
    fn instance_now(&self) -> Instance {
        let mut instance = self.instance.clone();
        for (slots, stand) in instance.capacity.iter_mut().zip(&self.stands) {
            *slots = if stand.is_some() { *slots } else { 0 };
        }
        instance
    }

    /// Time passes, and all messages arrive.
    fn wait(&mut self, span: Duration) -> Result<(), String> {
        let end = self.now + span;
        while self.now < end {
            self.flush()?;
            self.pass(span.min(HEALING_STEP))?;
            self.check()?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), String> {
        let mut delivered = 0;
        while !self.mail.is_empty() {
            delivered += 1;
            holds(delivered < DELIVERIES_MAX, "the market does not fall silent")?;
            self.deliver(0, 0)?;
        }
        Ok(())
    }

    /// Everyone hears today's prices, and one piece may move. Says whether any did.
    fn review_in_turn(&mut self, rest: Duration) -> Result<bool, String> {
        self.wait(rest)?;
        let asks = self.asks();
        for requester in &mut self.requesters {
            requester.asks.clone_from(&asks);
        }
        for number in 0..self.requesters.len() {
            if self.mail.is_empty() {
                self.review_one(number);
            }
        }
        for number in 0..self.requesters.len() {
            if self.mail.is_empty() && self.gave_up_early(number, &asks) {
                self.begin_again(number)?;
            }
        }
        let moves = !self.mail.is_empty();
        self.flush()?;
        Ok(moves)
    }

    fn review_one(&mut self, number: usize) {
        let Requester { bidder, asks, .. } = &mut self.requesters[number];
        let quote = |node: &NodeId| asks.get(node).copied();
        let mut bids = bidder.review(self.now, &quote, Moving::Free);
        for (_, message) in bids.drain(bids.len().min(1)..) {
            if let Message::Bid { index, .. } = message {
                bidder.drop_second(index);
            }
        }
        self.send_bids(number, bids);
    }

    /// A piece without a place, although the prices of today leave one below the cap: those that
    /// it knew when it gave up were higher.
    fn gave_up_early(&self, number: usize, asks: &BTreeMap<NodeId, Ask>) -> bool {
        let states = self.requesters[number].bidder.states();
        states.zip(self.candidates(number)).any(|(state, candidates)| {
            let value = |candidate: &crate::market::Candidate| {
                let ask = asks.get(&candidate.provider)?.level?;
                Some((candidate.log_rate - ask, ask))
            };
            let best = candidates.iter().filter_map(value).max();
            let cap = self.terms.cap(self.stands.len());
            let affordable = best.is_some_and(|(_, ask)| ask + self.terms.eps <= cap);
            state == SeatState::Infeasible && affordable
        })
    }

    /// It gives all back before it looks at the prices again, as a session does.
    fn begin_again(&mut self, number: usize) -> Result<(), String> {
        let session = self.requesters[number].bidder.session();
        for (to, leases) in self.requesters[number].bidder.leases() {
            let message = Message::Release { session: session.number, leases };
            self.post(To::Provider, to, session, message);
        }
        self.flush()?;
        self.requesters[number] = self.requester(number);
        self.poll(number);
        Ok(())
    }

    /// Every piece is held once, where its requester takes it to be, and nothing else is held.
    fn check_agreement(&self) -> Result<(), String> {
        let mut believed = 0;
        for requester in &self.requesters {
            let session = requester.bidder.session();
            for (index, state) in (0..).zip(requester.bidder.states()) {
                let SeatState::Held { provider, attempt, .. } = state else {
                    holds(state == SeatState::Infeasible, "a piece still bids")?;
                    continue;
                };
                believed += 1;
                let stand = self.stands[provider_of(&provider)].as_ref();
                let piece = PieceId { session, index };
                let held = stand.is_some_and(|stand| stand.book.holds(&piece, attempt));
                holds(held, "a piece takes itself to be where it is not")?;
            }
        }
        let books = self.stands.iter().flatten();
        let held: usize = books.map(|stand| stand.book.holdings().count()).sum();
        holds(held == believed, "a place is held for nobody, and all is quiet")
    }

    fn outcome(&self) -> Outcome {
        let states = self.requesters.iter().flat_map(|requester| requester.bidder.states());
        let assignment = states.map(|state| match state {
            SeatState::Held { provider, .. } => Some(provider_of(&provider)),
            SeatState::Open | SeatState::Bidding(_) | SeatState::Infeasible => None,
        });
        Outcome::of(assignment.collect())
    }
}

/// At first so long that a piece which has just moved moves again for any gain above eps. Now and
/// then pieces would go round in a circle for ever at that: they must rest once they are reviewed as
/// often as pieces that run. At less than that, a long circle would take so long that each piece's
/// last move is forgotten when it moves again.
fn rest(reviews: u32) -> Duration {
    if reviews < REVIEWS_RESTED { EXCLUSION * 2 + RENEW_EVERY } else { REVIEW_EVERY }
}

/// Very few markets need as many.
const REVIEWS_RESTED: u32 = 1000;
const DELIVERIES_MAX: u32 = 100_000;
/// Prices that went up to the cap while places were held for nobody come down by little more than
/// eps at a time, at one provider after the other: six times 70 nats, a twentieth each.
const REVIEWS_MAX: u32 = 10_000;
/// As sessions do.
const REVIEW_EVERY: Duration = Duration::from_secs(1);
/// Less than a lease.
const HEALING_STEP: Duration = Duration::from_secs(5);
