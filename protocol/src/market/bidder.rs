//! A requester's side of the auction: the bids for the pieces of one session.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    id::{NodeId, PieceId, SessionId, tie_break},
    market::Terms,
    nats::Nats,
    time::Timestamp,
    wire::{Lease, Message},
};

/// A provider as a piece sees it: `ln r_ij`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub provider: NodeId,
    /// The log of the piece's stand-alone rate there.
    pub log_rate: Nats,
}

/// One piece's place in the auction.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Feasible providers, within the terms' spread of the best.
    candidates: Vec<Candidate>,
    /// Those that refused it for another reason than its level.
    excluded: BTreeSet<NodeId>,
    weight_bytes: u64,
    attempt: u32,
    bids: u32,
    state: SeatState,
}

/// How far a piece has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatState {
    /// It has no place and must bid.
    Open,
    /// Its bid is on its way.
    Bidding {
        /// To whom.
        provider: NodeId,
        /// At which level.
        level: Nats,
        /// When it was last sent.
        sent: Timestamp,
        /// How often it was sent.
        sends: u32,
    },
    /// It has a place.
    Held {
        /// Where.
        provider: NodeId,
    },
    /// No place is left for it: its level would pass the cap.
    Infeasible,
}

/// Counts of one auction, as the requester saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The most bids that any one piece made.
    pub rounds: u32,
    /// Bids of all pieces.
    pub bids: u32,
}

/// The bids for the pieces of one session.
#[derive(Clone, Debug)]
pub struct Bidder {
    session: SessionId,
    terms: Terms,
    cap: Nats,
    attempt_floor: u32,
    seats: Vec<Seat>,
}

impl Bidder {
    /// Opens a seat for each piece: its weight bytes and its candidates. `providers` is how many
    /// take part in the market at all, feasible for these pieces or not (see [`Terms::cap`]);
    /// `attempt` must be at least as high as any used by this session before.
    #[must_use]
    pub fn new(
        session: SessionId,
        terms: Terms,
        providers: usize,
        attempt: u32,
        pieces: Vec<(u64, Vec<Candidate>)>,
    ) -> Self {
        let seats = pieces.into_iter().map(|(weight_bytes, candidates)| Seat {
            candidates: within_spread(terms, candidates),
            excluded: BTreeSet::new(),
            weight_bytes,
            attempt,
            bids: 0,
            state: SeatState::Open,
        });
        Self {
            session,
            terms,
            cap: terms.cap(providers),
            attempt_floor: attempt,
            seats: seats.collect(),
        }
    }

    /// The same session with no piece, to begin another auction from: attempts go on rising.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { seats: Vec::new(), attempt_floor: self.attempt(), ..self.clone() }
    }

    /// How far each piece has come.
    pub fn states(&self) -> impl Iterator<Item = SeatState> {
        self.seats.iter().map(|seat| seat.state)
    }

    /// Each piece's provider, once all have one.
    #[must_use]
    pub fn placement(&self) -> Option<Vec<NodeId>> {
        if self.seats.is_empty() {
            return None;
        }
        let held = self.states().map(|state| match state {
            SeatState::Held { provider } => Some(provider),
            SeatState::Open | SeatState::Bidding { .. } | SeatState::Infeasible => None,
        });
        held.collect()
    }

    /// Whether a piece has been proved to have no place.
    #[must_use]
    pub fn is_infeasible(&self) -> bool {
        self.states().any(|state| state == SeatState::Infeasible)
    }

    /// The highest attempt used so far.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.seats.iter().map(|seat| seat.attempt).max().unwrap_or(self.attempt_floor)
    }

    /// The attempt by which a piece holds its place.
    #[must_use]
    pub fn attempt_of(&self, index: u16) -> Option<u32> {
        self.seats.get(usize::from(index)).map(|seat| seat.attempt)
    }

    /// Rounds and bids so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let counts = self.seats.iter().map(|seat| seat.bids);
        Tally { rounds: counts.clone().max().unwrap_or(0), bids: counts.sum() }
    }

    /// What is held, by provider: to renew.
    #[must_use]
    pub fn held(&self) -> BTreeMap<NodeId, Vec<Lease>> {
        self.leases_where(|state| matches!(state, SeatState::Held { .. }))
    }

    /// What is held or may be by now, since its bid is on its way: to release.
    #[must_use]
    pub fn leases(&self) -> BTreeMap<NodeId, Vec<Lease>> {
        self.leases_where(|_| true)
    }

    fn leases_where(&self, wanted: impl Fn(SeatState) -> bool) -> BTreeMap<NodeId, Vec<Lease>> {
        let mut leases: BTreeMap<NodeId, Vec<Lease>> = BTreeMap::new();
        for (index, seat) in (0..).zip(&self.seats) {
            if let SeatState::Held { provider } | SeatState::Bidding { provider, .. } = seat.state
                && wanted(seat.state)
            {
                leases.entry(provider).or_default().push(Lease { index, attempt: seat.attempt });
            }
        }
        leases
    }

    /// The bids that are due: one for each open seat, and a copy of each that went unanswered for
    /// `patience`. `price` is a provider's last-known ask, or nothing where it takes no bids.
    pub fn poll(
        &mut self,
        now: Timestamp,
        patience: Duration,
        price: &dyn Fn(&NodeId) -> Option<Nats>,
    ) -> Vec<(NodeId, Message)> {
        let session = self.session;
        let (eps, cap) = (self.terms.eps, self.cap);
        let mut bids = Vec::new();
        for (index, seat) in (0..).zip(&mut self.seats) {
            let piece = PieceId { session, index };
            if let Some((provider, level)) = seat.next_bid(now, patience, eps, cap, &piece, price) {
                let (attempt, weight_bytes) = (seat.attempt, seat.weight_bytes);
                let number = session.number;
                let bid = Message::Bid { session: number, index, attempt, level, weight_bytes };
                bids.push((provider, bid));
            }
        }
        bids
    }

    /// When [`poll`](Self::poll) next has a bid to repeat.
    #[must_use]
    pub fn deadline(&self, patience: Duration) -> Option<Timestamp> {
        let sent = self.states().filter_map(|state| match state {
            SeatState::Bidding { sent, .. } => Some(sent),
            SeatState::Open | SeatState::Held { .. } | SeatState::Infeasible => None,
        });
        sent.min().map(|sent| sent + patience)
    }

    /// Providers that left `sends` copies of a bid unanswered.
    #[must_use]
    pub fn silent(&self, sends_max: u32) -> Vec<NodeId> {
        let silent = self.states().filter_map(|state| match state {
            SeatState::Bidding { provider, sends, .. } if sends > sends_max => Some(provider),
            _ => None,
        });
        silent.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// An award. Returns the lease to give back if it is for a bid that was since abandoned.
    pub fn on_award(&mut self, from: NodeId, index: u16, attempt: u32) -> Option<Lease> {
        let unwanted = Some(Lease { index, attempt });
        let Some(seat) = self.seats.get_mut(usize::from(index)) else {
            return unwanted;
        };
        match seat.state {
            SeatState::Bidding { provider, .. } if provider == from && seat.attempt == attempt => {
                seat.state = SeatState::Held { provider };
                None
            }
            SeatState::Held { provider } if provider == from && seat.attempt == attempt => None,
            _ => unwanted,
        }
    }

    /// A refusal for the level's sake: bid again, on the price that came with it.
    pub fn on_outbid(&mut self, from: NodeId, index: u16, attempt: u32) {
        self.reopen(from, index, attempt);
    }

    /// A refusal for another reason: that provider is infeasible for the piece from now on.
    pub fn on_excluded(&mut self, from: NodeId, index: u16, attempt: u32) {
        if let Some(seat) = self.reopen(from, index, attempt) {
            seat.excluded.insert(from);
        }
    }

    /// An eviction: bid again. Says whether it was news.
    pub fn on_eviction(&mut self, from: NodeId, index: u16, attempt: u32) -> bool {
        self.reopen(from, index, attempt).is_some()
    }

    /// What a provider says that it no longer holds of a renewal. Reopens and returns what was
    /// still believed to be there; a piece that has moved on since, or come back by another bid,
    /// is left alone.
    pub fn on_lost(&mut self, from: NodeId, leases: &[Lease]) -> Vec<u16> {
        let mut lost = Vec::new();
        for lease in leases {
            if self.reopen(from, lease.index, lease.attempt).is_some() {
                lost.push(lease.index);
            }
        }
        lost
    }

    /// A provider is gone: its pieces bid elsewhere. Returns them.
    pub fn on_provider_lost(&mut self, gone: NodeId) -> Vec<u16> {
        let mut lost = Vec::new();
        for (index, seat) in (0..).zip(&mut self.seats) {
            seat.candidates.retain(|candidate| candidate.provider != gone);
            if let SeatState::Held { provider } | SeatState::Bidding { provider, .. } = seat.state
                && provider == gone
            {
                seat.state = SeatState::Open;
                lost.push(index);
            }
        }
        lost
    }

    fn reopen(&mut self, from: NodeId, index: u16, attempt: u32) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(usize::from(index))?;
        let (SeatState::Bidding { provider, .. } | SeatState::Held { provider }) = seat.state
        else {
            return None;
        };
        if provider != from || seat.attempt != attempt {
            return None;
        }
        seat.state = SeatState::Open;
        Some(seat)
    }
}

impl Seat {
    fn next_bid(
        &mut self,
        now: Timestamp,
        patience: Duration,
        eps: Nats,
        cap: Nats,
        piece: &PieceId,
        price: &dyn Fn(&NodeId) -> Option<Nats>,
    ) -> Option<(NodeId, Nats)> {
        match self.state {
            SeatState::Open => {
                let Some((provider, level)) = self.choose(eps, cap, piece, price) else {
                    self.state = SeatState::Infeasible;
                    return None;
                };
                self.attempt += 1;
                self.bids += 1;
                self.state = SeatState::Bidding { provider, level, sent: now, sends: 1 };
                Some((provider, level))
            }
            SeatState::Bidding { provider, level, sent, sends } if sent + patience <= now => {
                self.state = SeatState::Bidding { provider, level, sent: now, sends: sends + 1 };
                Some((provider, level))
            }
            SeatState::Bidding { .. } | SeatState::Held { .. } | SeatState::Infeasible => None,
        }
    }

    /// The best provider at the last-known prices, and what to bid there: all that it is better
    /// than the best *other* provider, plus eps. Bertsekas' bid, but the second best is never the
    /// next slot of the same provider: alike slots would start a price war among themselves.
    fn choose(
        &self,
        eps: Nats,
        cap: Nats,
        piece: &PieceId,
        price: &dyn Fn(&NodeId) -> Option<Nats>,
    ) -> Option<(NodeId, Nats)> {
        let open = self.candidates.iter().filter(|c| !self.excluded.contains(&c.provider));
        let mut values: Vec<(Nats, u64, &Candidate)> = open
            .filter_map(|candidate| {
                let value = candidate.log_rate - price(&candidate.provider)?;
                Some((value, tie_break(piece, &candidate.provider), candidate))
            })
            .collect();
        values.sort_unstable_by_key(|(value, tie, _)| std::cmp::Reverse((*value, *tie)));
        let (best_value, _, best) = *values.first()?;
        let ask = best.log_rate - best_value;
        if ask + eps > cap {
            return None;
        }
        let second = values.get(1).map(|(value, _, _)| *value);
        let level = second.map_or(cap, |second| best.log_rate - second + eps);
        Some((best.provider, level.min(cap)))
    }
}

fn within_spread(terms: Terms, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let best = candidates.iter().map(|candidate| candidate.log_rate).max();
    if let Some(best) = best {
        candidates.retain(|candidate| best - candidate.log_rate <= terms.spread);
    }
    candidates
}
