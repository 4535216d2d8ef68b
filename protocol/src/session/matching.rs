//! DINA-O between nodes (Mohammed et al., INFOCOM 2020; our model of it): a matching game over
//! market messages, with no coordinator.
//!
//! 1. *Deferred acceptance.* A piece proposes to the provider with the best share at a full quota,
//!    `r_ij / Q_j`, then to the next; strips side by side prefer different ones. Its bid's level is
//!    how much a provider prefers it, and above the cost of any slot: a book that goes by levels
//!    turns pieces out only when it is full, and then the one it likes least.
//! 2. *Exchanges.* Two pieces that would both be no worse off in each other's places, whose
//!    providers would be neither, and one of these four better off, exchange them: within a session
//!    at once, between sessions by an offer to the other's requester, who looks at it with its own
//!    eyes. Both leave, and bid where the other was. Whoever is overtaken by a third one proposes
//!    again as before.
//!
//! It ends when nobody knows of a pair that blocks: two-sided exchange stability, as far as adverts
//! tell. Nothing is loaded before that, so that a piece without a place for a moment costs nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Phase, Session, View};
use crate::{
    cost,
    id::{NodeId, PieceId, SessionId},
    market::{Candidate, Opening, Pair, SeatState},
    model::PieceProfile,
    nats::{Nats, slot_cost},
    node::Output,
    time::Timestamp,
    wire::{Exchange, ExchangeStage, Message},
};

/// One session's part in the game.
#[derive(Clone, Debug, Default)]
pub(super) struct Matching {
    // By piece: the providers that prefer others.
    refused: BTreeMap<u16, BTreeSet<NodeId>>,
    // By piece: where it exchanges to, and how often it was refused there.
    bound: BTreeMap<u16, (NodeId, u32)>,
    // Pairs that were offered before, in vain; until the others' places change.
    offered: BTreeSet<(u16, PieceId)>,
    // Where the others are, and since when that is so.
    others: BTreeMap<SessionId, Vec<NodeId>>,
    changed: Timestamp,
    began: Option<Timestamp>,
    pending: Option<(Exchange, Timestamp)>,
    exchanges: u32,
}

/// A piece and where it is.
struct Placed<'a> {
    piece: &'a PieceProfile,
    at: NodeId,
}

impl Matching {
    /// A provider prefers others to this piece. Where it exchanges to, the other may only not have
    /// left yet.
    pub(super) fn refuse(&mut self, index: u16, by: NodeId) {
        if let Some((to, times)) = self.bound.get_mut(&index)
            && *to == by
            && *times < BOUND_TIMES_MAX
        {
            *times += 1;
            return;
        }
        self.bound.remove(&index);
        self.refused.entry(index).or_default().insert(by);
    }

    /// Sees where the others are now.
    fn look(&mut self, now: Timestamp, view: &View<'_>) {
        let placed = view.flock.sessions().filter(|(_, advert)| !advert.places.is_empty());
        let others = placed.map(|(session, advert)| (*session, advert.places.clone())).collect();
        if others != self.others {
            (self.others, self.changed) = (others, now);
            self.offered.clear();
        }
    }

    fn begin(&mut self, index: u16, to: NodeId) {
        self.exchanges += 1;
        self.bound.insert(index, (to, 0));
        // What was refused before may be open now.
        self.refused.clear();
    }
}

impl Session {
    /// Where each piece without a place proposes next.
    pub(super) fn proposals(&mut self, view: &View<'_>) -> Vec<Option<Opening>> {
        let states: Vec<SeatState> = self.bidder.states().collect();
        let mut places: Vec<Option<NodeId>> = states.iter().map(SeatState::place).collect();
        let mut openings = Vec::with_capacity(states.len());
        for (index, state) in (0..).zip(&states) {
            let opening =
                (*state == SeatState::Open).then(|| self.proposal(index, &places, view)).flatten();
            if let (Some(opening), Some(place)) = (opening, places.get_mut(usize::from(index))) {
                *place = Some(opening.provider);
            }
            openings.push(opening);
        }
        openings
    }

    fn proposal(
        &mut self,
        index: u16,
        places: &[Option<NodeId>],
        view: &View<'_>,
    ) -> Option<Opening> {
        let candidates = self.candidates(index, &self.piece(index)?, None, view);
        let beside = self.beside(index, places);
        let matching = self.matching.as_mut()?;
        let bound = matching.bound.get(&index).map(|(to, _)| *to);
        let refused = matching.refused.get(&index);
        let open = |node: &NodeId| refused.is_none_or(|refused| !refused.contains(node));
        let share = |candidate: &Candidate| {
            let slots = f64::from(view.offer(&candidate.provider)?.slots.max(1));
            // Others first, where a strip beside this one is already.
            let apart = !beside.contains(&candidate.provider);
            Some((apart, candidate.log_rate - Nats::ln(slots)?, candidate.provider))
        };
        let free = candidates.iter().filter(|candidate| open(&candidate.provider));
        let best = free.filter_map(share).max().map(|(_, _, provider)| provider);
        let provider = bound.or(best);
        if provider.is_none() {
            // All have refused: from the beginning, for some may have left since.
            matching.refused.remove(&index);
        }
        let chosen = candidates.iter().find(|candidate| Some(candidate.provider) == provider)?;
        let slots = view.offer(&chosen.provider)?.slots;
        Some(Opening { provider: chosen.provider, level: preference(chosen.log_rate, slots) })
    }

    /// Where the strips beside a piece are, or want to be.
    fn beside(&self, index: u16, places: &[Option<NodeId>]) -> BTreeSet<NodeId> {
        let Some(plan) = &self.plan else { return BTreeSet::new() };
        let strips = plan.segment(plan.segment_of(index)).filter(|other| *other != index);
        strips.filter_map(|other| *places.get(usize::from(other))?).collect()
    }

    /// All pieces have places: exchanges some of them if that is better for all. Says until when
    /// to wait before this is asked again; nothing once nobody wants to exchange.
    pub(super) fn exchange_places(
        &mut self,
        now: Timestamp,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) -> Option<Timestamp> {
        let matching = self.matching.as_mut()?;
        matching.look(now, view);
        // The others' places are on their way, or still change.
        let known = matching.changed.max(self.placed_at.unwrap_or(now)) + view.config.doubt;
        let patience = *matching.began.get_or_insert(now) + GAME_MAX;
        if now < known.min(patience) {
            return Some((now + view.config.settle).min(known));
        }
        if let Some((_, asked)) = matching.pending {
            let patience = asked + view.config.inquiry;
            if now < patience {
                return Some(patience);
            }
            matching.pending = None;
        }
        if matching.exchanges >= EXCHANGES_MAX {
            return None;
        }
        if self.exchange_own(view, out) {
            return Some(now);
        }
        self.offer_exchange(now, view, out).then(|| now + view.config.inquiry)
    }

    /// A provider prefers others to a piece.
    pub(super) fn on_preferred(&mut self, by: NodeId, index: u16) {
        if let Some(matching) = self.matching.as_mut() {
            matching.refuse(index, by);
        }
    }

    /// Two of its own pieces.
    fn exchange_own(&mut self, view: &View<'_>, out: &mut Vec<Output>) -> bool {
        let (Some(placement), Some(pieces)) = (self.bidder.placement(), self.pieces()) else {
            return false;
        };
        let placed: Vec<Placed<'_>> =
            pieces.iter().zip(&placement).map(|(piece, at)| Placed { piece, at: *at }).collect();
        let count = u16::try_from(placed.len()).unwrap_or(u16::MAX);
        let pairs = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
        let found = pairs.into_iter().find(|(one, other)| {
            let ends = [*one, *other].map(|index| &placed[usize::from(index)]);
            self.stays_apart(*one, *other, &placement) && blocks(ends, view)
        });
        let Some((one, other)) = found else { return false };
        let (here, there) = (placement[usize::from(one)], placement[usize::from(other)]);
        self.leave_for(one, there, out);
        self.leave_for(other, here, out);
        true
    }

    /// Whether strips side by side are still at different providers after an exchange.
    fn stays_apart(&self, one: u16, other: u16, placement: &[NodeId]) -> bool {
        let mut places: Vec<Option<NodeId>> = placement.iter().copied().map(Some).collect();
        places.swap(usize::from(one), usize::from(other));
        [one, other].iter().all(|index| {
            let place = places.get(usize::from(*index)).copied().flatten();
            place.is_none_or(|place| !self.beside(*index, &places).contains(&place))
        })
    }

    /// One of its own pieces and another session's. Says whether it has offered any.
    fn offer_exchange(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) -> bool {
        let Some(exchange) = self.find_exchange(view) else { return false };
        let Exchange { index, theirs, .. } = exchange;
        if let Some(matching) = self.matching.as_mut() {
            matching.offered.insert((index, theirs));
            matching.pending = Some((exchange, now));
        }
        self.send(theirs.session.requester, Message::Exchange(exchange), out);
        true
    }

    fn find_exchange(&self, view: &View<'_>) -> Option<Exchange> {
        let (placement, pieces) = (self.bidder.placement()?, self.pieces()?);
        let matching = self.matching.as_ref()?;
        let own = || (0..).zip(pieces.iter().zip(&placement));
        let exchange = |theirs: PieceId, other: &Placed<'_>| {
            own().find_map(|(index, (piece, at))| {
                let mine = Placed { piece, at: *at };
                let new = !matching.offered.contains(&(index, theirs));
                let apart = self.may_come(index, other.at, &placement);
                (new && apart && blocks([&mine, other], view)).then_some(Exchange {
                    session: self.id.number,
                    index,
                    at: mine.at,
                    theirs,
                    to: other.at,
                    stage: ExchangeStage::Offer,
                })
            })
        };
        view.flock.sessions().find_map(|(session, advert)| {
            let placed = (0..).zip(advert.pieces.iter().zip(&advert.places));
            placed.into_iter().find_map(|(index, (piece, at))| {
                exchange(PieceId { session: *session, index }, &Placed { piece, at: *at })
            })
        })
    }

    /// Whether no strip beside a piece is at this provider.
    fn may_come(&self, index: u16, to: NodeId, placement: &[NodeId]) -> bool {
        let places: Vec<Option<NodeId>> = placement.iter().copied().map(Some).collect();
        !self.beside(index, &places).contains(&to)
    }

    /// Another session offers an exchange with one of ours, or answers our own offer.
    pub(super) fn on_exchange(
        &mut self,
        now: Timestamp,
        from: NodeId,
        exchange: &Exchange,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        match exchange.stage {
            ExchangeStage::Offer => {
                let agreed = self.accepts_exchange(from, exchange, view);
                let stage = if agreed { ExchangeStage::Agreed } else { ExchangeStage::Refused };
                self.send(from, Message::Exchange(Exchange { stage, ..*exchange }), out);
                if agreed {
                    self.leave_for(exchange.theirs.index, exchange.at, out);
                }
            }
            ExchangeStage::Agreed | ExchangeStage::Refused => {
                let Some(matching) = self.matching.as_mut() else { return };
                let pending = matching.pending.take_if(|(asked, _)| {
                    Exchange { stage: exchange.stage, ..*asked } == *exchange
                        && asked.theirs.session.requester == from
                });
                let settling = matches!(self.phase, Phase::Settling { .. });
                if pending.is_some() && settling && exchange.stage == ExchangeStage::Agreed {
                    self.leave_for(exchange.index, exchange.to, out);
                }
            }
        }
        if matches!(self.phase, Phase::Settling { .. }) {
            self.phase = Phase::Settling { until: now + view.config.settle };
        }
    }

    fn accepts_exchange(&self, from: NodeId, exchange: &Exchange, view: &View<'_>) -> bool {
        let Exchange { session, index, at, theirs, to, .. } = *exchange;
        let free = self.matching.as_ref().is_some_and(|matching| {
            matching.pending.is_none() && matching.exchanges < EXCHANGES_MAX
        });
        let settling = matches!(self.phase, Phase::Settling { .. });
        let (Some(placement), Some(mine)) = (self.bidder.placement(), self.piece(theirs.index))
        else {
            return false;
        };
        let here = placement.get(usize::from(theirs.index)) == Some(&to);
        let asker = SessionId { requester: from, number: session };
        let advert = view.flock.session(&asker);
        let Some(other) = advert.and_then(|advert| advert.pieces.get(usize::from(index))) else {
            return false;
        };
        let ends = [Placed { piece: &mine, at: to }, Placed { piece: other, at }];
        let apart = self.may_come(theirs.index, at, &placement);
        let ours = theirs.session == self.id;
        ours && free && settling && here && apart && blocks([&ends[0], &ends[1]], view)
    }

    /// A piece gives its place back and bids where it exchanges to.
    fn leave_for(&mut self, index: u16, to: NodeId, out: &mut Vec<Output>) {
        if let Some(matching) = self.matching.as_mut() {
            matching.begin(index, to);
        }
        if let Some((provider, lease)) = self.bidder.leave(index) {
            self.give_back(provider, lease, out);
        }
    }

    /// Where its pieces are, for others to exchange with; nobody's business once they are loaded.
    #[must_use]
    pub fn places(&self) -> Vec<NodeId> {
        let settling = matches!(self.phase, Phase::Settling { .. });
        let placement = self.matching.as_ref().filter(|_| settling);
        placement.and_then(|_| self.bidder.placement()).unwrap_or_default()
    }
}

/// Whether two pieces want to exchange their places, and neither of their providers objects.
fn blocks(ends: [&Placed<'_>; 2], view: &View<'_>) -> bool {
    let [one, other] = ends;
    if one.at == other.at {
        return false;
    }
    let rate = |piece: &PieceProfile, at: &NodeId, leaves: &PieceProfile| {
        let offer = view.offer(at)?;
        let mut provider = offer.provider;
        provider.memory_free = provider.memory_free.saturating_add(leaves.weight_bytes);
        cost::log_rate(piece, &provider)
    };
    let holders = |at: &NodeId| Some(usize::from(view.offer(at)?.ask.holders.max(1)));
    let found = || {
        Some(Pair {
            one: [rate(one.piece, &one.at, one.piece)?, rate(one.piece, &other.at, other.piece)?],
            other: [
                rate(other.piece, &other.at, other.piece)?,
                rate(other.piece, &one.at, one.piece)?,
            ],
            holders: [holders(&one.at)?, holders(&other.at)?],
        })
    };
    found().is_some_and(|pair| pair.blocks())
}

/// How much a provider prefers a piece of this rate, as a level above the cost of all its slots.
fn preference(log_rate: Nats, slots: u16) -> Nats {
    let liking = (log_rate.to_f64().clamp(-RATE_MAX, RATE_MAX) + RATE_MAX) / LIKING_PARTS;
    slot_cost(u32::from(slots.max(1))) + Nats::from_f64(LIKING_LEAST + liking)
}

/// So often a session exchanges at most: pictures that differ could go round in circles.
const EXCHANGES_MAX: u32 = 64;
/// A session that has had places for so long does not wait for others to come to rest any more.
const GAME_MAX: Duration = Duration::from_secs(3);
/// So often a piece bids for a place that the other one has not left yet.
const BOUND_TIMES_MAX: u32 = 10;
/// Rates from e^-8 to e^8 inferences per second make a difference.
const RATE_MAX: f64 = 8.0;
/// Their levels are between 0.2 and 4.2 above the slots' costs.
const LIKING_PARTS: f64 = 4.0;
const LIKING_LEAST: f64 = 0.2;
