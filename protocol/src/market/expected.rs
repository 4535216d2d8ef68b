//! What places are expected to cost, without a forecast.
//!
//! Bids that follow the prices of the moment bid all prices up from nothing, by little more than
//! eps a round. But it is known from adverts how many pieces there are, how many have places, and
//! what providers ask. Until all have places, prices must rise; a piece reckons with that in two
//! ways, and never with all of it:
//!
//! - a provider will have at least half of its fair share of all pieces, if these are like this one;
//! - all prices will rise alike until slots for all pieces open.
//!
//! What is expected counts for no more than [`most`], and until the first review alone:
//! `docs/PROTOCOL.md` shows that no more is needed for the bound.

use crate::{
    id::NodeId,
    market::{
        PIECES_EVER,
        bidder::Bidder,
        offer::{Aside, Offered, Rules, Won},
        seat::{Candidate, Seat, message},
    },
    nats::{Nats, slot_cost},
    time::Timestamp,
    wire::{Ask, Claim, Message},
};

impl Bidder {
    /// So many pieces have or seek places, these among them. Until the first
    /// [`review`](Self::review) they bid as if prices had risen to nearly what that makes of them.
    pub fn expect(&mut self, pieces: usize) {
        self.rules.demand = u32::try_from(pieces).unwrap_or(u32::MAX);
    }

    /// Bids of pieces that would rather offer more for their places than be turned out.
    pub fn defend(
        &mut self,
        now: Timestamp,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Vec<(NodeId, Message)> {
        let (session, rules) = (self.session, self.rules);
        let mut bids = Vec::new();
        for (index, seat) in (0..).zip(&mut self.seats) {
            if let Some(bid) = seat.defend(now, rules, quote) {
                bids.push(message(session, index, seat, &bid));
            }
        }
        bids
    }
}

impl Seat {
    /// Offers more for the place that it has, if it may be turned out next and the prices of the
    /// others have risen since it bid: what it would offer if it had to bid again. But no more than
    /// the slot after the next one costs there: until that is the cheapest, nobody offers more.
    ///
    /// At prices that it does not expect to rise it offers no less than the next slot costs: once
    /// all there have, that slot opens, and none of them has been turned out for it.
    fn defend(
        &mut self,
        now: Timestamp,
        rules: Rules,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Option<Offered> {
        let (provider, level) = self.held().filter(|_| self.aside.is_none())?;
        let eps = rules.terms.eps;
        let ask = quote(&provider)?;
        let step = Nats(eps.0 / DEFENCES_PER_EPS);
        let next = slot_cost(u32::from(ask.holders) + 1);
        let (near, least) = if rules.expects_rise() { (eps, Nats::ZERO) } else { (step, next) };
        if level > ask.level? + near || (!rules.expects_rise() && level >= next) {
            return None;
        }
        let expected = self.expected(rules, quote);
        let elsewhere = self.best_elsewhere(&provider, &|node| expected.ask(node, quote))?;
        let slot = slot_cost(u32::from(ask.holders) + 2);
        let raised = (self.rate(&provider)? - elsewhere + eps).min(slot).min(rules.cap);
        if raised < least.max(level.max(self.defended) + step) {
            return None;
        }
        self.defended = raised;
        let bid = self.next_bid(now, provider, raised, Claim::Any);
        self.aside = Some(Aside { bid, won: Won::NotYet });
        Some(bid)
    }

    /// What this piece expects its candidates to ask; nothing above the asks themselves if it
    /// expects no rise.
    pub(super) fn expected(
        &self,
        rules: Rules,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Expected {
        if !rules.expects_rise() {
            return Expected::default();
        }
        let best = self.open_candidates().map(|candidate| candidate.log_rate).max();
        let weight = |rate: Nats| (rate - best.unwrap_or_default()).to_f64().exp();
        let all: f64 = self.open_candidates().map(|candidate| weight(candidate.log_rate)).sum();
        // Others may go where this piece can't.
        let reach = self.open_candidates().count() as f64 / rules.providers.max(1) as f64;
        let pieces = f64::from(rules.demand) * reach.min(1.0);
        let stalls = self.open_candidates().filter_map(|Candidate { provider, log_rate }| {
            let Ask { level, holders, .. } = quote(provider)?;
            let share = price_of(SHARE_SURE * pieces * weight(*log_rate) / all);
            let price = level?.to_f64().max(share);
            Some(Stall { node: *provider, price, holders: f64::from(holders) })
        });
        let mut expected = Expected { stalls: stalls.collect() };
        expected.stalls.sort_by_key(|stall| stall.node);
        expected.raise(pieces, rules.terms.eps);
        expected
    }
}

/// What the candidates of a piece are expected to ask, in the order of their ids.
#[derive(Default)]
pub(super) struct Expected {
    stalls: Vec<Stall>,
}

struct Stall {
    node: NodeId,
    price: f64,
    holders: f64,
}

impl Expected {
    /// All prices rise alike, by a part of what it takes until there are slots for so many pieces.
    fn raise(&mut self, pieces: f64, eps: Nats) {
        let rise = rise(&self.stalls, pieces) - RISE_EPS * eps.to_f64();
        for stall in &mut self.stalls {
            stall.price = (stall.price + RISE_SURE * rise.max(0.0)).min(most().to_f64());
        }
    }

    /// What a provider asks, or more.
    pub(super) fn ask(&self, node: &NodeId, quote: &dyn Fn(&NodeId) -> Option<Ask>) -> Option<Ask> {
        let ask = quote(node)?;
        let Ok(at) = self.stalls.binary_search_by_key(node, |stall| stall.node) else {
            return Some(ask);
        };
        let expected = Nats::from_f64(self.stalls[at].price);
        Some(Ask { level: ask.level.map(|level| level.max(expected)), ..ask })
    }
}

/// By how much all prices must rise until there are slots for so many pieces.
fn rise(stalls: &[Stall], pieces: f64) -> f64 {
    let open: Vec<(f64, f64)> =
        stalls.iter().map(|stall| ((stall.price - 1.0).exp(), stall.holders.max(1.0))).collect();
    let enough = |rise: f64| {
        let slots = open.iter().map(|(slots, least)| (slots * rise.exp() + 0.5).max(*least));
        slots.sum::<f64>() >= pieces
    };
    let (mut low, mut high) = (0.0, most().to_f64());
    if stalls.is_empty() || enough(low) {
        return low;
    }
    while high - low > RISE_STEP {
        let middle = f64::midpoint(low, high);
        if enough(middle) { high = middle } else { low = middle }
    }
    high
}

/// Between the costs of the slots before and after: their continuous form.
fn price_of(slots: f64) -> f64 {
    if slots > 1.0 { 1.0 + (slots - 0.5).ln() } else { 0.0 }
}

/// No price is expected above this, which every open slot costs less than.
fn most() -> Nats {
    slot_cost(PIECES_EVER)
}

/// Whoever offers more for its own place offers at least half of eps more.
const DEFENCES_PER_EPS: i64 = 2;
/// The part of a provider's fair share of all pieces that is sure to come, though pieces differ.
const SHARE_SURE: f64 = 0.5;
/// The part of a common rise that is reckoned with, less so many times eps: what is too much has to
/// be taken back.
const RISE_SURE: f64 = 0.5;
const RISE_EPS: f64 = 3.0;
const RISE_STEP: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node_id;

    /// At these prices and holders, so much more is needed for so many pieces.
    fn check(stalls: &[(f64, f64)], pieces: f64, expected: f64) {
        let stall = |(n, (price, holders)): (usize, &(f64, f64))| Stall {
            node: node_id(n),
            price: *price,
            holders: *holders,
        };
        let stalls: Vec<Stall> = stalls.iter().enumerate().map(stall).collect();
        let found = rise(&stalls, pieces);
        assert!((found - expected).abs() < 0.01, "{found} for {pieces} pieces");
    }

    #[test]
    fn prices_are_expected_to_rise_until_there_are_slots_for_all() {
        check(&[], 5.0, 0.0);
        check(&[(0.0, 0.0), (0.0, 0.0)], 2.0, 0.0);
        // 1 + ln(10 - 1/2), the cost of the tenth slot.
        check(&[(0.0, 1.0)], 10.0, 3.251);
        check(&[(0.0, 1.0), (0.0, 1.0)], 20.0, 3.251);
        check(&[(2.0, 3.0)], 10.0, 1.251);
        check(&[(0.0, 10.0)], 10.0, 0.0);
    }

    #[test]
    fn a_share_costs_what_its_last_slot_does() {
        assert!(price_of(1.0).abs() < 1e-9);
        for n in 2..100_u32 {
            let error = price_of(f64::from(n)) - slot_cost(n).to_f64();
            assert!(error.abs() < 0.03, "slot {n}: {error}");
        }
    }
}
