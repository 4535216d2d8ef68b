//! From a plan to an agreement: gather, bid, settle.

use std::collections::BTreeSet;

use super::{Bidding, Matching, Phase, Planning, Session, SessionError, View};
use crate::{
    cost,
    id::{NodeId, SessionId},
    market::{Bidder, Candidate, Forecast, Moving, News, Opening, Prices, SeatState, Stall},
    model::PieceProfile,
    nats::slot_cost,
    node::{Event, Output},
    partition::Planner,
    plan::Plan,
    time::Timestamp,
    wire::Stage,
};

impl Session {
    pub(super) fn search(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Phase::Searching { since, retry } = self.phase else {
            return;
        };
        if now < retry {
            return;
        }
        if let Some((plan, meant)) = self.make_plan(view) {
            self.meant = meant;
            let matched =
                matches!(self.planning, Planning::Matched(_) | Planning::By(Planner::Dina, _));
            self.matching = matched.then(Matching::default);
            self.begin_auction(now, plan, view, out);
        } else if now >= since + view.config.search_max {
            self.fail(self.failed_of_late(view).unwrap_or(SessionError::NoProvider), out);
        } else {
            self.phase = Phase::Searching { since, retry: now + view.config.retry_every };
        }
    }

    fn begin_auction(
        &mut self,
        now: Timestamp,
        plan: Plan,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        let pieces = (0..).zip(plan.pieces()).map(|(index, piece)| {
            let piece = self.profile.piece(piece);
            (piece.weight_bytes, self.candidates(index, &piece, None, view))
        });
        let attempt = self.bidder.attempt();
        let providers = view.offers().count();
        let bidder = Bidder::new(self.id, view.terms, providers, attempt, pieces.collect());
        self.bidder = bidder.in_haste();
        self.plan = Some(plan);
        self.auction_began = now;
        self.begin_rounds(now);
        self.messages = 0;
        out.push(Output::SessionChanged { session: self.id.number });
        match view.config.bidding {
            // With nobody else here, there is nobody to wait for.
            Bidding::Forecast if self.forecasts() && !view.flock.is_empty() => {
                self.phase = Phase::Gathering { until: now + view.config.gather };
            }
            Bidding::Forecast | Bidding::Plain => {
                self.phase = Phase::Bidding;
                self.advance(now, view, out);
            }
        }
    }

    fn begin_rounds(&mut self, now: Timestamp) {
        (self.reviews, self.inquiries) = (0, 0);
        (self.seeking, self.filled) = (usize::MAX, now);
    }

    fn forecasts(&self) -> bool {
        self.meant.is_empty() && self.matching.is_none()
    }

    /// Those who may take a piece, at which rates: the one that it is meant for, or anyone. Where it
    /// is already, it fits.
    pub(super) fn candidates(
        &self,
        index: u16,
        piece: &PieceProfile,
        held: Option<NodeId>,
        view: &View<'_>,
    ) -> Vec<Candidate> {
        let meant = self.meant.get(usize::from(index));
        let offers = view.offers().filter(|offer| {
            !self.excludes(offer.node, view) && meant.is_none_or(|node| *node == offer.node)
        });
        let candidate = |mut offer: super::Offer| {
            if held == Some(offer.node) {
                offer.provider.memory_free = u64::MAX;
            }
            let log_rate = cost::log_rate(piece, &offer.provider)?;
            Some(Candidate { provider: offer.node, log_rate })
        };
        offers.filter_map(candidate).collect()
    }

    /// Who may take the pieces as the picture is now.
    pub(super) fn refresh_candidates(&mut self, view: &View<'_>) {
        let places: Vec<Option<NodeId>> = self.bidder.states().map(|state| state.place()).collect();
        let candidates = (0..).zip(places).filter_map(|(index, place)| {
            Some(self.candidates(index, &self.piece(index)?, place, view))
        });
        let candidates = candidates.collect();
        self.bidder.set_candidates(view.offers().count(), candidates);
    }

    /// All adverts that could come have come: forecast, and bid.
    pub(super) fn open_bidding(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        self.forecast = Some((now, self.make_forecast(view)));
        self.phase = Phase::Bidding;
        self.advance(now, view, out);
    }

    /// The pieces of all sessions that seek places, and all providers.
    fn make_forecast(&self, view: &View<'_>) -> Forecast {
        let mut forecast = Forecast::new(view.terms, self.id.requester);
        for offer in view.offers().filter(|offer| !self.excludes(offer.node, view)) {
            forecast.set_provider(
                offer.node,
                &Stall { provider: offer.provider, slots: offer.slots, ask: offer.ask },
            );
        }
        let own = self.pieces().map(|pieces| (self.id, pieces));
        let seeking = view.flock.sessions().filter(|(_, advert)| advert.stage == Stage::Seeking);
        let others = seeking.map(|(id, advert)| (*id, advert.pieces.clone()));
        // In the order of their ids, as everyone else does it.
        let mut sessions: Vec<(SessionId, Vec<PieceProfile>)> = others.chain(own).collect();
        sessions.sort_by_key(|(id, _)| *id);
        for (id, pieces) in sessions {
            forecast.set_session(id, &pieces);
        }
        forecast
    }

    /// Moves on as far as it can without waiting.
    pub(super) fn advance(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Searching { .. } | Phase::Gathering { .. } | Phase::Ended => return,
            _ => {}
        }
        if !self.bidder.is_placed() {
            self.bid(now, view, out);
            return;
        }
        self.take_up_seconds(out);
        match self.phase {
            Phase::Bidding => {
                self.placed_at = Some(now);
                if self.matching.is_some() {
                    // The others must know where its pieces are, to offer exchanges.
                    out.push(Output::SessionChanged { session: self.id.number });
                }
                self.phase = Phase::Settling { until: now + view.config.settle };
            }
            Phase::Settling { until } if now >= until => self.settle(now, view, out),
            Phase::Installing { .. } | Phase::Streaming => self.follow_places(now, view, out),
            Phase::Settling { .. }
            | Phase::Searching { .. }
            | Phase::Gathering { .. }
            | Phase::Slicing
            | Phase::Ended => {}
        }
    }

    fn bid(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        if self.phase != Phase::Bidding {
            if !matches!(self.phase, Phase::Settling { .. }) {
                self.auction_began = now;
                self.begin_rounds(now);
            }
            self.was_running |= self.phase == Phase::Streaming;
            self.migration = None;
            self.phase = Phase::Bidding;
            self.requests.hold_back(now);
        }
        self.take_up_seconds(out);
        self.send_bids(now, view, out);
        if self.bidder.is_infeasible() {
            // Whoever has not answered yet may still, or may come back.
            let waits = self.silent_here(view).next().is_some() || view.offers().next().is_none();
            let error = if waits {
                SessionError::NoAnswer
            } else if let Some(error) = self.failed_of_late(view) {
                error
            } else if self.meant.is_empty() {
                SessionError::NoPlace
            } else {
                SessionError::NotTaken
            };
            self.start_over(now, error, view, out);
        }
    }

    /// As long as nothing is loaded, a piece moves as soon as its second place is its own. Until all
    /// the others have theirs may be for ever, and nobody keeps two places for that long.
    fn take_up_seconds(&mut self, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Bidding | Phase::Settling { .. }) {
            return;
        }
        for (to, lease) in self.take_seconds() {
            self.give_back(to, lease, out);
        }
    }

    /// First bids, further bids, and copies of those that went unanswered.
    pub(super) fn send_bids(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        if self.expects(view) {
            self.bidder.expect(self.demand(view));
        }
        let openings = self.openings(view);
        let prices = self.prices(view);
        let quote = |node: &NodeId| prices.ask(node);
        let opening = |index: u16| openings.get(usize::from(index)).copied().flatten();
        let patience = view.config.bid_patience;
        for (to, message) in self.bidder.poll(now, patience, &quote, &opening) {
            self.send(to, message, out);
        }
        self.defend(now, view, out);
    }

    /// Whether prices are expected to rise: without a forecast, and until places are reviewed.
    fn expects(&self, view: &View<'_>) -> bool {
        view.config.bidding == Bidding::Plain && self.is_rising()
    }

    /// Whether this is an auction in which no place has been reviewed yet.
    fn is_rising(&self) -> bool {
        let auction = matches!(self.phase, Phase::Bidding | Phase::Settling { .. });
        auction && self.forecasts() && !self.was_running && self.reviews == 0
    }

    /// Pieces of all sessions that have or seek places, as far as they are known.
    fn demand(&self, view: &View<'_>) -> usize {
        let own = self.plan.as_ref().map_or(0, |plan| plan.pieces().len());
        own + view.flock.sessions().map(|(_, advert)| advert.pieces.len()).sum::<usize>()
    }

    /// Pieces that have places offer more for them rather than be turned out.
    fn defend(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        // In the rush after an opening nobody knows yet whose place is in danger.
        let over = self.forecast.as_ref().is_none_or(|(at, _)| now >= *at + view.config.rush);
        if !over || !self.is_rising() {
            return;
        }
        let prices = self.prices(view);
        for (to, message) in self.bidder.defend(now, &|node| prices.ask(node)) {
            self.send(to, message, out);
        }
    }

    /// What the forecast says of each piece without a place. A loser has learned something since:
    /// the prices that were heard, and which of its own pieces have places.
    fn openings(&mut self, view: &View<'_>) -> Vec<Option<Opening>> {
        if self.matching.is_some() {
            return self.proposals(view);
        }
        if !self.meant.is_empty() {
            // There is no second best to outbid. What the last slot costs is enough for any open one,
            // and keeps pieces that are meant for one provider from turning each other out.
            let opening = |node: &NodeId| {
                let level = slot_cost(u32::from(view.offer(node)?.slots.max(1)));
                Some(Opening { provider: *node, level })
            };
            return self.meant.iter().map(opening).collect();
        }
        let open = self.bidder.states().any(|state| state == SeatState::Open);
        if !open || self.bidder.tally().rounds >= view.config.forecasts_max {
            return Vec::new();
        }
        let Some((_, forecast)) = self.forecast.as_mut() else { return Vec::new() };
        forecast.openings(&self.bidder, view.asks().map(|(node, ask, _)| (node, ask)))
    }

    /// What the providers are taken to ask.
    pub(super) fn prices(&self, view: &View<'_>) -> Prices {
        match &self.forecast {
            Some((_, forecast)) => Prices::expected(
                forecast,
                view.asks().map(|(node, ask, heard)| (node, ask, self.news(heard, view))),
            ),
            None => Prices::heard(view.asks().map(|(node, ask, _)| (node, ask))),
        }
    }

    fn news(&self, heard: Timestamp, view: &View<'_>) -> News {
        let rush = self.forecast.as_ref().map(|(opened, _)| *opened + view.config.rush);
        if rush.is_none_or(|over| heard >= over) { News::Fresh } else { News::Late }
    }

    /// Everything is given back and the session plans again, unless it has failed too often.
    pub(super) fn start_over(
        &mut self,
        now: Timestamp,
        error: SessionError,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        self.strikes += 1;
        if error == SessionError::NoAnswer {
            // It may take them longer than it takes to ask so often.
            let over = *self.unanswered.get_or_insert(now) + view.config.search_max;
            let strikes_max = view.config.strikes_max.saturating_sub(u32::from(now < over));
            self.strikes = self.strikes.min(strikes_max);
        }
        let waits =
            error == SessionError::NoAnswer || Some(&error) == self.failed_of_late(view).as_ref();
        // There is no other plan than the caller's, and it fails in the same way again.
        let hopeless = self.planning.is_callers() && !waits;
        if self.strikes >= view.config.strikes_max || hopeless {
            self.release_all(out);
            self.fail(error, out);
            return;
        }
        self.plan_again(now, view, out);
    }

    pub(super) fn plan_again(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        self.release_all(out);
        self.requests.hold_back(now);
        (self.plan, self.meant, self.matching) = (None, Vec::new(), None);
        // Not at once: what made it fail is in the picture that it would plan with.
        self.phase = Phase::Searching { since: now, retry: now + view.config.retry_every };
    }

    /// Nobody has turned a piece out for a while. If a forecast was wrong, or a price has fallen,
    /// a piece may still be better off elsewhere; nothing is loaded yet, so that moving is free.
    fn settle(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let until = now + view.config.settle;
        if self.bidder.is_reviewing() {
            self.send_bids(now, view, out);
            self.phase = Phase::Settling { until };
            return;
        }
        if self.matching.is_some() {
            return match self.exchange_places(now, view, out) {
                Some(until) if self.bidder.is_placed() => self.phase = Phase::Settling { until },
                Some(_) => self.advance(now, view, out),
                None => self.agree(now, view, out),
            };
        }
        if self.is_filling(now, view) {
            self.defend(now, view, out);
            self.phase = Phase::Settling { until };
            return;
        }
        if let Some(until) = self.await_news(now, view, out) {
            self.phase = Phase::Settling { until };
            return;
        }
        // A session that ran before has no part in a new auction: it looks for slots, no more.
        let moving = if self.was_running { Moving::Running } else { Moving::Free };
        if self.reviews < view.config.reviews_max && self.review(now, view, moving, out) {
            self.reviews += 1;
            self.phase = Phase::Settling { until };
            return;
        }
        self.agree(now, view, out);
    }

    /// Whether others still look for places: fewer are taken than there are pieces, and not long
    /// ago there were fewer still. Held against prices that are about to rise, places would look
    /// dearer than they are.
    fn is_filling(&mut self, now: Timestamp, view: &View<'_>) -> bool {
        if !self.is_rising() {
            return false;
        }
        let taken = view.asks().map(|(_, ask, _)| usize::from(ask.holders)).sum();
        let seeking = self.demand(view).saturating_sub(taken);
        if seeking < self.seeking {
            (self.seeking, self.filled) = (seeking, now);
        }
        seeking > 0 && now < self.filled + view.config.fill
    }

    /// By prices that were heard before the bids of all others were in, a piece may not be where it
    /// should be. News of them should be on its way; if it does not come in time, they are asked
    /// for. Says until when to wait.
    fn await_news(
        &mut self,
        now: Timestamp,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) -> Option<Timestamp> {
        let late = self.late_prices(view);
        if late.is_empty() {
            return None;
        }
        if now < self.placed_at.unwrap_or(now) + view.config.doubt {
            return Some(now + view.config.settle);
        }
        if self.inquiries >= INQUIRIES_MAX {
            return None;
        }
        self.inquiries += 1;
        for to in late {
            self.inquire(to, out);
        }
        Some(now + view.config.inquiry)
    }

    /// Whose prices are late and matter.
    fn late_prices(&self, view: &View<'_>) -> BTreeSet<NodeId> {
        if self.forecast.is_none() || self.was_running {
            return BTreeSet::new();
        }
        let late = view.asks().filter(|(_, _, heard)| self.news(*heard, view) == News::Late);
        let late = late.map(|(node, _, _)| node).collect();
        self.bidder.unsure(&late, &|node| view.ask(node))
    }

    fn agree(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Some(placement) = self.bidder.placement() else {
            return;
        };
        self.move_cuts(&placement, view);
        let Some(plan) = self.plan.clone() else {
            return;
        };
        let agreement = self.agreement(now, &placement, &plan, view);
        self.latency = agreement.pieces.iter().map(|piece| piece.seconds).sum();
        self.renewed = now;
        self.reviewed = now;
        self.phase = Phase::Slicing;
        out.push(Output::Event(Event::Agreed { session: self.id.number, agreement }));
        out.push(Output::SessionChanged { session: self.id.number });
        out.push(Output::Slice { session: self.id.number, plan });
    }

    pub(super) fn piece(&self, index: u16) -> Option<PieceProfile> {
        let piece = self.plan.as_ref()?.pieces().get(usize::from(index))?;
        Some(self.profile.piece(piece))
    }
}

/// So often prices are asked for that did not come.
const INQUIRIES_MAX: u32 = 2;
