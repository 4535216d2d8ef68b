//! The way down, for an auction in which no review helps any more.
//!
//! Reviews mend what a wrong opening has left, a few places at a time, and mostly that is all that
//! is needed. But a piece that moves opens a slot and turns out another, so prices rise here and
//! fall there, and nothing says that it ends. If they only fall it must; and if afterwards they
//! only rise, as in any auction, that ends as well, and nobody is left who would rather be
//! elsewhere (`docs/PROTOCOL.md`). So while prices fall nobody may bid for another place.

use crate::{
    id::NodeId,
    market::{
        bidder::Bidder,
        offer::{Aside, Offered, Rules, Won},
        seat::{Seat, SeatState, message},
    },
    nats::slot_cost,
    time::Timestamp,
    wire::{Ask, Claim, Lease, Message},
};

impl Bidder {
    /// Whether no piece that has a place would gain more than eps elsewhere, and none that gave up
    /// could pay what a place costs now.
    #[must_use]
    pub fn is_content(&self, quote: &dyn Fn(&NodeId) -> Option<Ask>) -> bool {
        self.seats.iter().all(|seat| match seat.state {
            SeatState::Infeasible => !seat.affords(self.rules, quote),
            SeatState::Held { .. } | SeatState::Open | SeatState::Bidding(_) => {
                seat.unrest(self.rules, quote).is_none()
            }
        })
    }

    /// Lowers levels to what places are worth, and leaves those that are not worth what their slots
    /// cost. To be repeated, at the prices of the day, until nobody does anything of it; until then
    /// no piece without a place may bid. Those that gave up may bid once more after it.
    pub fn fall(
        &mut self,
        now: Timestamp,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Vec<(NodeId, Message)> {
        self.rules.demand = 0;
        let (session, rules) = (self.session, self.rules);
        let mut messages = Vec::new();
        for (index, seat) in (0..).zip(&mut self.seats) {
            if seat.state == SeatState::Infeasible {
                seat.state = SeatState::Open;
            }
            messages.extend(match seat.fall(now, rules, quote) {
                Some(Step::Lower(bid)) => Some(message(session, index, seat, &bid)),
                Some(Step::Leave(from, attempt)) => {
                    let leases = vec![Lease { index, attempt }];
                    Some((from, Message::Release { session: session.number, leases }))
                }
                None => None,
            });
        }
        messages
    }
}

enum Step {
    /// It bids where it is, and keeps its place.
    Lower(Offered),
    /// It gives back the place that it had by this attempt.
    Leave(NodeId, u32),
}

impl Seat {
    /// Whether its best provider asks no more than it may pay: then it has not been proved to have
    /// no place.
    fn affords(&self, rules: Rules, quote: &dyn Fn(&NodeId) -> Option<Ask>) -> bool {
        let offers = self.open_candidates().filter_map(|candidate| {
            let ask = quote(&candidate.provider)?.level?;
            Some((candidate.log_rate - ask, ask))
        });
        offers.max().is_some_and(|(_, ask)| ask + rules.terms.eps <= rules.cap)
    }

    fn fall(
        &mut self,
        now: Timestamp,
        rules: Rules,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Option<Step> {
        let SeatState::Held { provider, level, attempt } = self.state else { return None };
        if self.aside.is_some() {
            return None;
        }
        let holders = quote(&provider)?.holders;
        let worth = self.rate(&provider)? - self.best_elsewhere(&provider, quote)?;
        let most = worth + rules.terms.eps;
        if level <= most {
            return None;
        }
        let slot = slot_cost(u32::from(holders));
        if slot > most {
            self.state = SeatState::Open;
            return Some(Step::Leave(provider, attempt));
        }
        // Its level may not be the price. If it is, it comes down by more than it must, or a price
        // that goes on falling a little would be followed for ever.
        let content = self.unrest(rules, quote).is_none();
        let lower = if content { most } else { worth.max(slot) };
        let bid = self.next_bid(now, provider, lower, Claim::Any);
        self.aside = Some(Aside { bid, won: Won::NotYet });
        Some(Step::Lower(bid))
    }
}
