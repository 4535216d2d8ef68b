//! One piece's place in the auction: what it bids, where it is, and whether it would rather be
//! elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    id::{NodeId, PieceId, SessionId, tie_break},
    market::{
        Opening, Terms,
        offer::{Aside, Haste, Moving, Offered, Rules, Standing, Turn, Won},
    },
    nats::{Nats, slot_cost},
    time::Timestamp,
    wire::{Ask, Claim, Message},
};

/// A provider as a piece sees it: `ln r_ij`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub provider: NodeId,
    /// The log of the piece's stand-alone rate there.
    pub log_rate: Nats,
}

/// How far a piece has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatState {
    /// It has no place and must bid.
    Open,
    /// Its bid is on its way.
    Bidding(Offered),
    /// It has a place.
    Held {
        /// Where.
        provider: NodeId,
        /// By which bid.
        attempt: u32,
        /// At which level.
        level: Nats,
    },
    /// No place is left for it: its level would pass the cap.
    Infeasible,
}

impl SeatState {
    /// Where the piece is, or bids to be.
    #[must_use]
    pub fn place(&self) -> Option<NodeId> {
        match self {
            SeatState::Held { provider, .. } | SeatState::Bidding(Offered { provider, .. }) => {
                Some(*provider)
            }
            SeatState::Open | SeatState::Infeasible => None,
        }
    }
}

/// One piece of a session.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// Feasible providers, within the terms' spread of the best.
    candidates: Vec<Candidate>,
    /// Those that refused it for another reason than its level, and until when that counts.
    excluded: BTreeMap<NodeId, Timestamp>,
    pub(super) weight_bytes: u64,
    pub(super) attempt: u32,
    pub(super) bids: u32,
    /// The most that it offered for the place that it has, to keep it.
    pub(super) defended: Nats,
    /// Refusals for the level's sake since it last had a place.
    pub(super) refusals: u32,
    pub(super) state: SeatState,
    pub(super) aside: Option<Aside>,
    /// Whether its provider has said that it does not hold the place any more, while a bid to
    /// keep that place at another level was under way: the answer to that bid will tell.
    pub(super) standing: Standing,
    /// Moves of its own accord, and when the last was.
    moves: u32,
    moved: Timestamp,
}

impl Seat {
    pub(super) fn new(
        terms: Terms,
        attempt: u32,
        weight_bytes: u64,
        candidates: Vec<Candidate>,
    ) -> Self {
        Self {
            candidates: within_spread(terms, candidates, None),
            excluded: BTreeMap::new(),
            weight_bytes,
            attempt,
            bids: 0,
            defended: Nats::ZERO,
            refusals: 0,
            state: SeatState::Open,
            aside: None,
            standing: Standing::Sure,
            moves: 0,
            moved: Timestamp(0),
        }
    }

    /// The provider where it has its place.
    pub(super) fn provider(&self) -> Option<NodeId> {
        match self.state {
            SeatState::Held { provider, .. } => Some(provider),
            SeatState::Open | SeatState::Bidding(_) | SeatState::Infeasible => None,
        }
    }

    /// The second place, if it is its own already.
    pub(super) fn second(&self) -> Option<Offered> {
        self.aside.filter(|aside| aside.won == Won::Yes).map(|aside| aside.bid)
    }

    /// It has lost its place: it goes to its second one, waits for that, or bids.
    pub(super) fn reopen(&mut self) {
        self.standing = Standing::Sure;
        self.defended = Nats::ZERO;
        self.state = match self.aside.take() {
            Some(Aside { bid, won: Won::Yes }) => {
                let Offered { provider, attempt, level, .. } = bid;
                SeatState::Held { provider, attempt, level }
            }
            Some(Aside { bid, won: Won::NotYet }) => SeatState::Bidding(bid),
            None => SeatState::Open,
        };
    }

    /// Who may take it has changed, or at which rate.
    pub(super) fn set_candidates(&mut self, terms: Terms, candidates: Vec<Candidate>) {
        self.candidates = within_spread(terms, candidates, self.provider());
    }

    pub(super) fn exclude(&mut self, provider: NodeId, until: Timestamp) {
        self.excluded.insert(provider, until);
    }

    pub(super) fn readmit(&mut self, provider: &NodeId) {
        self.excluded.remove(provider);
    }

    pub(super) fn forget(&mut self, gone: NodeId) {
        self.candidates.retain(|candidate| candidate.provider != gone);
        if self.aside.is_some_and(|aside| aside.bid.provider == gone) {
            self.aside = None;
        }
    }

    /// A bid for a piece without a place: what `opening` says, or the best at the prices known.
    /// Nothing if it has no place to go.
    pub(super) fn open_bid(
        &mut self,
        now: Timestamp,
        rules: Rules,
        piece: &PieceId,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
        opening: Option<Opening>,
    ) -> Option<Offered> {
        self.excluded.retain(|_, until| *until > now);
        let chosen = self.forecast(rules, quote, opening).or_else(|| {
            let expected = self.expected(rules, quote);
            self.choose(rules, piece, &|node| expected.ask(node, quote), &Prices::AsAsked)
        });
        let Some((provider, level)) = chosen else {
            self.state = SeatState::Infeasible;
            return None;
        };
        let bid = self.next_bid(now, provider, level, Claim::Any);
        self.state = SeatState::Bidding(bid);
        Some(bid)
    }

    /// Holds the piece's place against the prices of today. If it would gain more than eps, and
    /// than what a move costs, elsewhere, it bids there; if it only pays more than its place is
    /// worth, it bids a lower level where it is. It keeps its place until the new one is its own.
    pub(super) fn review(
        &mut self,
        now: Timestamp,
        rules: Rules,
        piece: &PieceId,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
        moving: Moving,
        turn: Turn,
    ) -> Option<Offered> {
        if self.aside.is_some() {
            return None;
        }
        self.excluded.retain(|_, until| *until > now);
        let (provider, level) = self.held()?;
        let quote = |node: &NodeId| moving.quote(*node, provider, quote);
        let Unrest { ask, rate, elsewhere } = self.unrest(rules, &quote)?;
        // If it left, its slot alone would be free: that is what it could stay for.
        let alone = slot_cost(u32::from(ask.holders));
        let (to, level) = if elsewhere > rate - alone + self.tolerance(now, rules, moving) {
            if turn == Turn::Another {
                return None;
            }
            let prices = Prices::Leaving(provider, alone);
            let (to, level) = self.choose(rules, piece, &quote, &prices)?;
            self.moves = if now.since(self.moved) > MOVES_FORGOTTEN { 1 } else { self.moves + 1 };
            self.moved = now;
            (to, level)
        } else {
            // By more than it must, or a price that goes on falling a little would be followed for
            // ever; but not by so much that others would be drawn here, nor below what its slot
            // costs.
            let spare = rules.terms.spare();
            let lower = (rate - elsewhere + spare).max(alone);
            if lower >= level {
                return None;
            }
            (provider, lower)
        };
        let claim = if to == provider { Claim::Any } else { moving.claim() };
        let bid = self.next_bid(now, to, level, claim);
        self.aside = Some(Aside { bid, won: Won::NotYet });
        Some(bid)
    }

    /// What it would gain elsewhere if it left for good; nothing if it has no place, or a second
    /// one in sight.
    pub(super) fn gain(
        &self,
        moving: Moving,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Option<Nats> {
        let (provider, _) = self.held().filter(|_| self.aside.is_none())?;
        let alone = slot_cost(u32::from(quote(&provider)?.holders));
        let quote = |node: &NodeId| moving.quote(*node, provider, quote);
        Some(self.best_elsewhere(&provider, &quote)? - (self.rate(&provider)? - alone))
    }

    /// Whether it breaks eps-complementary slackness: it would gain more than eps elsewhere at
    /// these prices.
    pub(super) fn unrest(
        &self,
        rules: Rules,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Option<Unrest> {
        let (provider, level) = self.held()?;
        let ask = quote(&provider)?;
        let rate = self.rate(&provider)?;
        let elsewhere = self.best_elsewhere(&provider, quote)?;
        let price = ask.level.unwrap_or(level).min(level);
        let gains = elsewhere > rate - price + rules.terms.eps;
        gains.then_some(Unrest { ask, rate, elsewhere })
    }

    /// Adds the providers of late prices for which it can't say whether it is content within eps.
    pub(super) fn unsure(
        &self,
        rules: Rules,
        late: &BTreeSet<NodeId>,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
        unsure: &mut BTreeSet<NodeId>,
    ) {
        let Some((provider, level)) = self.held() else { return };
        let Some(rate) = self.rate(&provider) else { return };
        let heard = |node: &NodeId| quote(node).and_then(|ask| ask.level);
        let here_late = late.contains(&provider);
        // An opening bid is above what the forecast ended at by this, to be on the safe side.
        let safe = if self.bids == 1 { rules.terms.spare() } else { Nats::ZERO };
        let price = heard(&provider).filter(|_| !here_late).unwrap_or(level - safe).min(level);
        for other in self.open_candidates().filter(|other| other.provider != provider) {
            let there = heard(&other.provider).map(|price| other.log_rate - price);
            if there.is_some_and(|there| there > rate - price + rules.terms.eps) {
                let ends = [other.provider, provider];
                unsure.extend(ends.iter().filter(|node| late.contains(node)));
            }
        }
    }

    pub(super) fn held(&self) -> Option<(NodeId, Nats)> {
        match self.state {
            SeatState::Held { provider, level, .. } => Some((provider, level)),
            SeatState::Open | SeatState::Bidding(_) | SeatState::Infeasible => None,
        }
    }

    /// eps, what a move costs, and more for a piece that keeps moving: it is sure to come to rest.
    fn tolerance(&self, now: Timestamp, rules: Rules, moving: Moving) -> Nats {
        let cost = match moving {
            Moving::Free => Nats::ZERO,
            Moving::Running => rules.terms.migration.of(self.weight_bytes),
        };
        let recent = now.since(self.moved) <= MOVES_FORGOTTEN;
        let restless = if recent { self.moves.saturating_sub(MOVES_FREE).min(32) } else { 0 };
        rules.terms.eps.times(1 << restless) + cost
    }

    pub(super) fn best_elsewhere(
        &self,
        provider: &NodeId,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Option<Nats> {
        let others = self.open_candidates().filter(|other| other.provider != *provider);
        others.filter_map(|other| Some(other.log_rate - quote(&other.provider)?.level?)).max()
    }

    pub(super) fn rate(&self, provider: &NodeId) -> Option<Nats> {
        let here = self.candidates.iter().find(|candidate| candidate.provider == *provider);
        here.map(|candidate| candidate.log_rate)
    }

    pub(super) fn open_candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(|c| !self.excluded.contains_key(&c.provider))
    }

    pub(super) fn next_bid(
        &mut self,
        now: Timestamp,
        provider: NodeId,
        level: Nats,
        claim: Claim,
    ) -> Offered {
        self.attempt += 1;
        self.bids += 1;
        Offered { provider, attempt: self.attempt, level, sent: now, sends: 1, claim }
    }

    /// What a forecast says, if it is possible at all. The provider's word stands above it.
    fn forecast(
        &self,
        rules: Rules,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
        opening: Option<Opening>,
    ) -> Option<(NodeId, Nats)> {
        let Opening { provider, level } = opening?;
        let known = self.open_candidates().any(|candidate| candidate.provider == provider);
        let ask = quote(&provider)?;
        let least = ask.level? + if ask.holders == 0 { Nats::ZERO } else { rules.terms.eps };
        let level = level.max(least);
        (known && level <= rules.cap).then_some((provider, level))
    }

    /// Whoever is refused again and again knows prices that rise faster than news of them comes.
    fn haste(&self, rules: Rules) -> Nats {
        let late = match rules.haste {
            Haste::None => 0,
            Haste::Rising => self.refusals.saturating_sub(1).min(HASTE_STEPS_MAX),
        };
        Nats(rules.terms.eps.0 / HASTE_STEPS_PER_EPS).times(u64::from(late))
    }

    /// The best provider at the last-known prices, and what to bid there: all that it is better
    /// than the best *other* provider, plus eps. Bertsekas' bid, but the second best is never the
    /// next slot of the same provider: alike slots would start a price war among themselves.
    ///
    /// Open slots that are worse by less than eps will do as well, for what they are worse by less.
    /// Pieces that lose their places together see the same best slot, so each takes another of
    /// these: with its first bid, no later, and none that reviews its place.
    fn choose(
        &self,
        rules: Rules,
        piece: &PieceId,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
        prices: &Prices,
    ) -> Option<(NodeId, Nats)> {
        let offers: Vec<Offer<'_>> = self.offers(quote, prices).collect();
        let tie = |offer: &&Offer<'_>| tie_break(piece, &offer.candidate.provider);
        let most = offers.iter().map(|offer| offer.value).max()?;
        let best = offers.iter().filter(|offer| offer.value == most).max_by_key(tie)?;
        if best.candidate.log_rate - most + rules.terms.eps > rules.cap {
            return None;
        }
        let near = |offer: &&Offer<'_>| offer.open && offer.value + rules.terms.eps > most;
        let slot =
            offers.iter().filter(near).max_by_key(tie).filter(|_| self.spreads(rules, prices));
        let Candidate { provider, log_rate } = *slot.unwrap_or(best).candidate;
        let others = offers.iter().filter(|offer| offer.candidate.provider != provider);
        let second = others.map(|offer| offer.value).max();
        let more = rules.terms.eps + self.haste(rules);
        let level = second.map_or(rules.cap, |second| log_rate - second + more);
        Some((provider, level.min(rules.cap)))
    }

    /// Whether it takes a slot that is only nearly the best.
    ///
    /// A full provider whose lowest level happens to be what a next slot would cost can't be told
    /// from one that has that slot. It refuses such a bid, and its price stays: asked again, it
    /// would refuse again, for ever. Where prices are expected to rise, there are no slots yet. And
    /// whoever leaves a place has to gain what it leaves for.
    fn spreads(&self, rules: Rules, prices: &Prices) -> bool {
        let asked = matches!(prices, Prices::AsAsked);
        asked && self.refusals == 0 && !rules.expects_rise()
    }

    fn offers(
        &self,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
        prices: &Prices,
    ) -> impl Iterator<Item = Offer<'_>> {
        self.open_candidates().filter_map(|candidate| {
            let price = prices.of(&candidate.provider, quote)?;
            let ask = quote(&candidate.provider)?;
            let open = ask.level == Some(slot_cost(u32::from(ask.holders) + 1));
            Some(Offer { candidate, value: candidate.log_rate - price, open })
        })
    }
}

/// What a provider would leave a piece.
struct Offer<'a> {
    candidate: &'a Candidate,
    /// Rate less price.
    value: Nats,
    /// Whether a slot is the cheapest there, so that nobody need be turned out; or so it seems.
    open: bool,
}

/// Why a piece would rather be elsewhere.
pub(super) struct Unrest {
    /// What its provider asks.
    pub(super) ask: Ask,
    /// Its rate there.
    rate: Nats,
    /// What it would have elsewhere: rate less price.
    elsewhere: Nats,
}

/// At which prices a piece chooses.
enum Prices {
    /// As the providers ask.
    AsAsked,
    /// As they ask, but with its own place's price as it would be if it left.
    Leaving(NodeId, Nats),
}

impl Prices {
    fn of(&self, provider: &NodeId, quote: &dyn Fn(&NodeId) -> Option<Ask>) -> Option<Nats> {
        match self {
            Prices::Leaving(own, price) if own == provider => Some(*price),
            Prices::Leaving(..) | Prices::AsAsked => quote(provider)?.level,
        }
    }
}

fn within_spread(
    terms: Terms,
    mut candidates: Vec<Candidate>,
    kept: Option<NodeId>,
) -> Vec<Candidate> {
    let best = candidates.iter().map(|candidate| candidate.log_rate).max();
    if let Some(best) = best {
        let near = |rate: Nats| best - rate <= terms.spread;
        candidates.retain(|c| near(c.log_rate) || kept == Some(c.provider));
    }
    candidates
}

/// A piece's bid as its requester says it.
pub(super) fn message(
    session: SessionId,
    index: u16,
    seat: &Seat,
    bid: &Offered,
) -> (NodeId, Message) {
    let keeps = match seat.state {
        SeatState::Held { provider, attempt, .. } if provider == bid.provider => Some(attempt),
        SeatState::Held { .. }
        | SeatState::Open
        | SeatState::Bidding(_)
        | SeatState::Infeasible => None,
    };
    let (attempt, level, weight_bytes) = (bid.attempt, bid.level, seat.weight_bytes);
    let (session, claim) = (session.number, bid.claim);
    (bid.provider, Message::Bid { session, index, attempt, level, weight_bytes, keeps, claim })
}

/// A quarter of eps for each refusal after the first, and never more than twice eps: a piece that
/// offered too much is held against the prices of the day before it is agreed on.
const HASTE_STEPS_PER_EPS: i64 = 4;
const HASTE_STEPS_MAX: u32 = 8;
/// So often a piece may move for any gain above eps, until it has rested for
/// [`MOVES_FORGOTTEN`]; each further move must gain twice as much as the one before.
const MOVES_FREE: u32 = 4;
const MOVES_FORGOTTEN: Duration = Duration::from_secs(60);
