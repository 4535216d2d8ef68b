//! A requester's side of the auction: the bids for the pieces of one session.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    id::{NodeId, PieceId, SessionId},
    market::{
        Opening, Terms,
        offer::{Aside, Haste, Moving, Offered, Rules, Standing, Turn, Won, silent},
        seat::{Candidate, Seat, SeatState, message},
    },
    time::Timestamp,
    wire::{Ask, Lease, Message},
};

/// Counts of one auction, as the requester saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The most bids that any one piece made.
    pub rounds: u32,
    /// Bids of all pieces.
    pub bids: u32,
}

/// What an award is to the piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awarded {
    /// Its place, as it wanted; or one that it knows of already.
    Place,
    /// A place beside the one that it has: it may move there.
    Second,
    /// It is for a bid that was since abandoned: to be given back.
    Unwanted(Lease),
}

/// The bids for the pieces of one session.
#[derive(Clone, Debug)]
pub struct Bidder {
    pub(super) session: SessionId,
    pub(super) rules: Rules,
    attempt_floor: u32,
    pub(super) seats: Vec<Seat>,
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
        let seats = pieces
            .into_iter()
            .map(|(weight_bytes, candidates)| Seat::new(terms, attempt, weight_bytes, candidates));
        Self {
            session,
            rules: Rules {
                terms,
                cap: terms.cap(providers),
                haste: Haste::None,
                demand: 0,
                providers,
            },
            attempt_floor: attempt,
            seats: seats.collect(),
        }
    }

    /// The same session with no piece, to begin another auction from: attempts go on rising.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { seats: Vec::new(), attempt_floor: self.attempt(), ..self.clone() }
    }

    /// A piece that is refused several times in a row offers more than the prices that it knows
    /// call for, as they must be late: up to three times eps above its second best instead of eps.
    /// For those who [`review`](Self::review) their places before they rely on them.
    #[must_use]
    pub fn in_haste(mut self) -> Self {
        self.rules.haste = Haste::Rising;
        self
    }

    /// Whose pieces these are.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
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
        self.seats.iter().map(Seat::provider).collect()
    }

    /// Whether every piece has a place.
    #[must_use]
    pub fn is_placed(&self) -> bool {
        !self.seats.is_empty() && self.seats.iter().all(|seat| seat.provider().is_some())
    }

    /// Whether a piece has been proved to have no place.
    #[must_use]
    pub fn is_infeasible(&self) -> bool {
        self.states().any(|state| state == SeatState::Infeasible)
    }

    /// Whether any piece waits for an answer to a bid made beside its place.
    #[must_use]
    pub fn is_reviewing(&self) -> bool {
        self.asides().any(|(_, aside)| aside.won == Won::NotYet)
    }

    /// The highest attempt used so far.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.seats.iter().map(|seat| seat.attempt).max().unwrap_or(self.attempt_floor)
    }

    /// The attempt by which a piece holds its place, or bids for one.
    #[must_use]
    pub fn attempt_of(&self, index: u16) -> Option<u32> {
        let seat = self.seats.get(usize::from(index))?;
        match seat.state {
            SeatState::Held { attempt, .. } | SeatState::Bidding(Offered { attempt, .. }) => {
                Some(attempt)
            }
            SeatState::Open | SeatState::Infeasible => None,
        }
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
        let held = |seat: &Seat| match seat.state {
            SeatState::Held { provider, attempt, .. } => Some((provider, attempt)),
            SeatState::Open | SeatState::Bidding(_) | SeatState::Infeasible => None,
        };
        let second = |aside: &Aside| aside.won == Won::Yes;
        self.leases_of(held, second)
    }

    /// What is held or may be by now, since its bid is on its way: to release.
    #[must_use]
    pub fn leases(&self) -> BTreeMap<NodeId, Vec<Lease>> {
        let any = |seat: &Seat| match seat.state {
            SeatState::Held { provider, attempt, .. }
            | SeatState::Bidding(Offered { provider, attempt, .. }) => Some((provider, attempt)),
            SeatState::Open | SeatState::Infeasible => None,
        };
        self.leases_of(any, |_| true)
    }

    /// Whether anything is held, or may be.
    #[must_use]
    pub fn has_leases(&self) -> bool {
        self.states().any(|s| matches!(s, SeatState::Held { .. } | SeatState::Bidding(_)))
    }

    fn leases_of(
        &self,
        first: impl Fn(&Seat) -> Option<(NodeId, u32)>,
        second: impl Fn(&Aside) -> bool,
    ) -> BTreeMap<NodeId, Vec<Lease>> {
        let mut leases: BTreeMap<NodeId, Vec<Lease>> = BTreeMap::new();
        for (index, seat) in (0..).zip(&self.seats) {
            let aside = seat.aside.filter(&second);
            let aside = aside.map(|aside| (aside.bid.provider, aside.bid.attempt));
            for (provider, attempt) in first(seat).into_iter().chain(aside) {
                leases.entry(provider).or_default().push(Lease { index, attempt });
            }
        }
        leases
    }

    /// The bids that are due: one for each open seat, and a copy of each that went unanswered for
    /// `patience`. `quote` is a provider's last-known ask, or nothing where none is known;
    /// `opening` is what a forecast says of a piece, if it says anything.
    pub fn poll(
        &mut self,
        now: Timestamp,
        patience: Duration,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
        opening: &dyn Fn(u16) -> Option<Opening>,
    ) -> Vec<(NodeId, Message)> {
        let (session, rules) = (self.session, self.rules);
        let mut bids = Vec::new();
        for (index, seat) in (0..).zip(&mut self.seats) {
            if seat.state == SeatState::Open {
                let piece = PieceId { session, index };
                let bid = seat.open_bid(now, rules, &piece, quote, opening(index));
                bids.extend(bid.map(|bid| message(session, index, seat, &bid)));
            } else if let SeatState::Bidding(bid) = &mut seat.state
                && bid.is_due(now, patience)
            {
                let bid = *bid;
                bids.push(message(session, index, seat, &bid));
            }
            if let Some(Aside { bid, won: Won::NotYet }) = &mut seat.aside
                && bid.is_due(now, patience)
            {
                let bid = *bid;
                bids.push(message(session, index, seat, &bid));
            }
        }
        bids
    }

    /// Holds every place against the prices of today (eps-complementary slackness), and returns
    /// the bids of the pieces that would gain more elsewhere than eps and what a move costs. From
    /// then on nobody [expects](Self::expect) prices to rise.
    pub fn review(
        &mut self,
        now: Timestamp,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
        moving: Moving,
    ) -> Vec<(NodeId, Message)> {
        self.rules.demand = 0;
        let (session, rules) = (self.session, self.rules);
        let mover = self.mover(quote, moving);
        let mut bids = Vec::new();
        for (index, seat) in (0..).zip(&mut self.seats) {
            let piece = PieceId { session, index };
            let turn =
                if mover.is_none_or(|mover| mover == index) { Turn::Ours } else { Turn::Another };
            if let Some(bid) = seat.review(now, rules, &piece, quote, moving, turn) {
                bids.push(message(session, index, seat, &bid));
            }
        }
        bids
    }

    /// Of the pieces that run, the one that gains the most may move, and only while no other does;
    /// nothing where all may.
    fn mover(&self, quote: &dyn Fn(&NodeId) -> Option<Ask>, moving: Moving) -> Option<u16> {
        if moving == Moving::Free {
            return None;
        }
        let busy = self.asides().next().map(|(index, _)| index);
        let gains = (0..).zip(&self.seats).filter_map(|(index, seat)| {
            Some((seat.gain(moving, quote)?, std::cmp::Reverse(index)))
        });
        busy.or_else(|| gains.max().map(|(_, std::cmp::Reverse(index))| index))
    }

    /// Those of the providers whose prices were heard too long ago, on which it depends whether
    /// every piece is where it should be. Such a price may have risen since, but if a piece is at
    /// that provider, to no more than its own level.
    #[must_use]
    pub fn unsure(
        &self,
        late: &BTreeSet<NodeId>,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> BTreeSet<NodeId> {
        let mut unsure = BTreeSet::new();
        if !late.is_empty() {
            for seat in &self.seats {
                seat.unsure(self.rules, late, quote, &mut unsure);
            }
        }
        unsure
    }

    /// Whether any piece may bid there.
    #[must_use]
    pub fn considers(&self, provider: &NodeId) -> bool {
        self.seats.iter().any(|seat| seat.rate(provider).is_some())
    }

    /// Who may take the pieces has changed, or at which rates. A piece's present provider must be
    /// among its candidates.
    pub fn set_candidates(&mut self, providers: usize, candidates: Vec<Vec<Candidate>>) {
        (self.rules.cap, self.rules.providers) = (self.rules.terms.cap(providers), providers);
        for (seat, candidates) in self.seats.iter_mut().zip(candidates) {
            seat.set_candidates(self.rules.terms, candidates);
        }
    }

    /// When [`poll`](Self::poll) next has a bid to repeat.
    #[must_use]
    pub fn deadline(&self, patience: Duration) -> Option<Timestamp> {
        self.unanswered().map(|bid| bid.sent + patience).min()
    }

    /// Providers that left `sends` copies of a bid unanswered.
    #[must_use]
    pub fn silent(&self, sends_max: u32) -> Vec<NodeId> {
        silent(self.unanswered(), sends_max)
    }

    /// An award of a bid.
    pub fn on_award(&mut self, from: NodeId, index: u16, attempt: u32) -> Awarded {
        let unwanted = Awarded::Unwanted(Lease { index, attempt });
        let Some(seat) = self.seats.get_mut(usize::from(index)) else {
            return unwanted;
        };
        match seat.state {
            SeatState::Bidding(bid) if bid.provider == from && bid.attempt == attempt => {
                seat.state = SeatState::Held { provider: from, attempt, level: bid.level };
                seat.refusals = 0;
                return Awarded::Place;
            }
            SeatState::Held { provider, attempt: held, .. }
                if provider == from && held == attempt =>
            {
                return Awarded::Place;
            }
            _ => {}
        }
        let Some(Aside { bid, .. }) = seat.aside else { return unwanted };
        if bid.provider != from || bid.attempt != attempt {
            return unwanted;
        }
        if seat.provider() == Some(from) {
            seat.state = SeatState::Held { provider: from, attempt, level: bid.level };
            (seat.aside, seat.standing) = (None, Standing::Sure);
            return Awarded::Place;
        }
        seat.aside = Some(Aside { bid, won: Won::Yes });
        Awarded::Second
    }

    /// A refusal for the level's sake: bid again, on the price that came with it. A piece that has
    /// a place stays there.
    pub fn on_outbid(&mut self, from: NodeId, index: u16, attempt: u32) {
        let seat = self.drop_bid(from, index, attempt);
        if let Some(seat) = seat.filter(|seat| seat.state == SeatState::Open) {
            seat.refusals += 1;
        }
    }

    /// A refusal for another reason: that provider is infeasible for the piece until then.
    pub fn on_excluded(&mut self, from: NodeId, index: u16, attempt: u32, until: Timestamp) {
        if let Some(seat) = self.drop_bid(from, index, attempt) {
            seat.exclude(from, until);
        }
    }

    /// An eviction: bid again, unless there is a second place. Says whether it was news.
    pub fn on_eviction(&mut self, from: NodeId, index: u16, attempt: u32) -> bool {
        if let Some(seat) = self.lowering(from, &Lease { index, attempt })
            && seat.aside.is_some_and(|aside| aside.bid.attempt == attempt)
        {
            // The bid for its own place had won, and the news of that is still on its way: with it
            // the old place has gone.
            seat.standing = Standing::Doubtful;
        }
        self.drop_bid(from, index, attempt).is_some()
    }

    /// What a provider says that it no longer holds of a renewal. Reopens and returns what was
    /// still believed to be there; a piece that has moved on since, or come back by another bid,
    /// is left alone.
    pub fn on_lost(&mut self, from: NodeId, leases: &[Lease]) -> Vec<u16> {
        let mut lost = Vec::new();
        for lease in leases {
            if let Some(seat) = self.lowering(from, lease) {
                seat.standing = Standing::Doubtful;
                continue;
            }
            if self.drop_bid(from, lease.index, lease.attempt).is_some() {
                lost.push(lease.index);
            }
        }
        lost
    }

    /// A provider is gone: its pieces bid elsewhere. Returns them.
    pub fn on_provider_lost(&mut self, gone: NodeId) -> Vec<u16> {
        let mut lost = Vec::new();
        for (index, seat) in (0..).zip(&mut self.seats) {
            seat.forget(gone);
            if let SeatState::Held { provider, .. } | SeatState::Bidding(Offered { provider, .. }) =
                seat.state
                && provider == gone
            {
                seat.reopen();
                lost.push(index);
            }
        }
        lost
    }

    /// No piece bids there until then.
    pub fn exclude(&mut self, provider: NodeId, until: Timestamp) {
        for seat in &mut self.seats {
            seat.exclude(provider, until);
        }
    }

    /// Pieces may bid there again.
    pub fn readmit(&mut self, provider: &NodeId) {
        for seat in &mut self.seats {
            seat.readmit(provider);
        }
    }

    /// Pieces that have a second place to move to, and where that is.
    pub fn seconds(&self) -> impl Iterator<Item = (u16, NodeId)> {
        let won = self.asides().filter(|(_, aside)| aside.won == Won::Yes);
        won.map(|(index, aside)| (index, aside.bid.provider))
    }

    /// The attempt by which a piece has its second place.
    #[must_use]
    pub fn second_attempt(&self, index: u16) -> Option<u32> {
        let aside = self.seats.get(usize::from(index))?.aside?;
        (aside.won == Won::Yes).then_some(aside.bid.attempt)
    }

    /// The piece moves to its second place. Returns the first one, to be given back.
    pub fn take_second(&mut self, index: u16) -> Option<(NodeId, Lease)> {
        let seat = self.seats.get_mut(usize::from(index))?;
        let SeatState::Held { provider, attempt, .. } = seat.state else { return None };
        seat.second().map(|_| {
            seat.reopen();
            (provider, Lease { index, attempt })
        })
    }

    /// The piece leaves its place, to bid for another. Returns it, to be given back.
    pub fn leave(&mut self, index: u16) -> Option<(NodeId, Lease)> {
        let seat = self.seats.get_mut(usize::from(index))?;
        let SeatState::Held { provider, attempt, .. } = seat.state else { return None };
        seat.state = SeatState::Open;
        Some((provider, Lease { index, attempt }))
    }

    /// The piece stays where it is. Returns its second place, to be given back, or the bid for one.
    pub fn drop_second(&mut self, index: u16) -> Option<(NodeId, Lease)> {
        let aside = self.seats.get_mut(usize::from(index))?.aside.take()?;
        Some((aside.bid.provider, Lease { index, attempt: aside.bid.attempt }))
    }

    /// Takes away what a piece has, or bids for, by this attempt.
    fn drop_bid(&mut self, from: NodeId, index: u16, attempt: u32) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(usize::from(index))?;
        if let Some(Aside { bid, .. }) = seat.aside
            && bid.provider == from
            && bid.attempt == attempt
        {
            seat.aside = None;
            if seat.standing == Standing::Doubtful {
                // The place that it meant to keep was lost before.
                seat.reopen();
            }
            return Some(seat);
        }
        let (SeatState::Bidding(Offered { provider, attempt: current, .. })
        | SeatState::Held { provider, attempt: current, .. }) = seat.state
        else {
            return None;
        };
        if provider != from || current != attempt {
            return None;
        }
        seat.reopen();
        Some(seat)
    }

    /// The seat, if the piece has bid again where it is, to keep its place at another level.
    fn lowering(&mut self, from: NodeId, lease: &Lease) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(usize::from(lease.index))?;
        let here = seat.provider() == Some(from);
        (here && seat.aside.is_some_and(|aside| aside.bid.provider == from)).then_some(seat)
    }

    fn asides(&self) -> impl Iterator<Item = (u16, &Aside)> {
        let seats = (0..).zip(&self.seats);
        seats.filter_map(|(index, seat)| Some((index, seat.aside.as_ref()?)))
    }

    fn unanswered(&self) -> impl Iterator<Item = &Offered> {
        let first = self.seats.iter().filter_map(|seat| match &seat.state {
            SeatState::Bidding(bid) => Some(bid),
            SeatState::Open | SeatState::Held { .. } | SeatState::Infeasible => None,
        });
        let second = self.asides().filter(|(_, aside)| aside.won == Won::NotYet);
        first.chain(second.map(|(_, aside)| &aside.bid))
    }
}
