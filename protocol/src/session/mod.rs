//! One session, seen by its requester:
//! plan -> bid -> award -> settle -> slice -> install -> ready -> stream -> renew ... release.
//!
//! Whatever is lost on the way (a provider, a place, a frame) leads back to bidding for the pieces
//! that lost their place, a new epoch, and a replay of every request that has no output yet. A
//! caller sees a delay while anyone can compute the pieces, and a clear error when nobody can.

mod config;
mod install;
mod planning;
mod report;
mod requests;

use std::collections::{BTreeMap, BTreeSet};

pub use config::{Config, Offer, Planning, SessionError, View};
pub use report::{Agreement, PlacedPiece};
use requests::Requests;

use crate::{
    cost,
    id::{BlobId, NodeId, SessionId},
    market::{Bidder, Candidate},
    model::{ModelProfile, PieceProfile},
    nats::Nats,
    node::{Event, Output},
    plan::Plan,
    time::Timestamp,
    wire::{Lease, Message, RefusalReason},
};

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// No plan yet: not enough is known of the flock.
    Searching { since: Timestamp, retry: Timestamp },
    /// Some piece has no place.
    Bidding,
    /// All have; evictions may still come.
    Settling { until: Timestamp },
    /// The engine cuts the graph.
    Slicing,
    /// Providers load their pieces.
    Installing { since: Timestamp, sent: Timestamp, ready: BTreeSet<u16> },
    /// Requests flow.
    Streaming,
    /// It is over.
    Ended,
}

/// The requester's state of one session.
#[derive(Clone, Debug)]
pub struct Session {
    id: SessionId,
    profile: ModelProfile,
    planning: Planning,
    phase: Phase,
    plan: Option<Plan>,
    bidder: Bidder,
    epoch: u32,
    was_running: bool,
    strikes: u32,
    slices: Vec<(BlobId, u32)>,
    holders: BTreeMap<NodeId, u16>,
    heard: BTreeMap<NodeId, Timestamp>,
    excluded: BTreeSet<NodeId>,
    renewed: Timestamp,
    auction_began: Timestamp,
    messages: u32,
    requests: Requests,
    latency: f64,
}

impl Session {
    /// Opens a session; the first bids are among `out` if enough is known already.
    #[must_use]
    pub fn open(
        now: Timestamp,
        id: SessionId,
        profile: ModelProfile,
        planning: Planning,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) -> Self {
        let mut session = Self {
            id,
            profile,
            planning,
            phase: Phase::Searching { since: now, retry: now },
            plan: None,
            bidder: Bidder::new(id, view.terms, 0, 0, Vec::new()),
            epoch: 0,
            was_running: false,
            strikes: 0,
            slices: Vec::new(),
            holders: BTreeMap::new(),
            heard: BTreeMap::new(),
            excluded: BTreeSet::new(),
            renewed: now,
            auction_began: now,
            messages: 0,
            requests: Requests::default(),
            latency: 0.0,
        };
        session.search(now, view, out);
        session
    }

    /// Whether it is over, and may be forgotten.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Its model and pieces for others to know, once there is a plan.
    #[must_use]
    pub fn pieces(&self) -> Option<Vec<PieceProfile>> {
        let plan = self.plan.as_ref()?;
        Some(plan.pieces().iter().map(|layers| self.profile.piece(*layers)).collect())
    }

    /// The attempt by which a piece holds its place.
    #[must_use]
    pub fn attempt_of(&self, index: u16) -> Option<u32> {
        self.bidder.attempt_of(index)
    }

    /// Which model.
    #[must_use]
    pub fn profile(&self) -> &ModelProfile {
        &self.profile
    }

    /// A request of the caller's. Says whether there was room for it.
    #[must_use]
    pub fn request(
        &mut self,
        now: Timestamp,
        request: u64,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) -> bool {
        let accepted = self.requests.push(request, view.config.requests_max);
        self.pump(now, out);
        accepted
    }

    /// A request's output has arrived.
    pub fn on_output(&mut self, now: Timestamp, request: u64, out: &mut Vec<Output>) {
        if self.requests.complete(now, request) {
            self.strikes = 0;
            self.pump(now, out);
        }
    }

    /// Gives everything back.
    pub fn close(&mut self, out: &mut Vec<Output>) {
        self.release_all(out);
        self.phase = Phase::Ended;
    }

    /// A market message from a provider, about this session.
    pub fn on_message(
        &mut self,
        now: Timestamp,
        from: NodeId,
        message: &Message,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        self.heard.insert(from, now);
        self.messages += 1;
        match message {
            Message::Award { index, attempt, holders, .. } => {
                self.holders.insert(from, *holders);
                if let Some(lease) = self.bidder.on_award(from, *index, *attempt) {
                    self.send(
                        from,
                        Message::Release { session: self.id.number, leases: vec![lease] },
                        out,
                    );
                }
            }
            Message::Refusal { index, attempt, reason: RefusalReason::Outbid, .. } => {
                self.bidder.on_outbid(from, *index, *attempt);
            }
            Message::Refusal { index, attempt, .. } => {
                self.bidder.on_excluded(from, *index, *attempt);
            }
            Message::Eviction { index, attempt, .. } => {
                self.bidder.on_eviction(from, *index, *attempt);
            }
            Message::Renewed { lost, holders, .. } => {
                self.holders.insert(from, *holders);
                self.bidder.on_lost(from, lost);
            }
            Message::Ready { index, epoch, holders, .. } => {
                self.holders.insert(from, *holders);
                self.on_ready(now, from, *index, *epoch, view, out);
            }
            Message::Failed { index, attempt, epoch, reason, .. } if *epoch == self.epoch => {
                let lease = Lease { index: *index, attempt: *attempt };
                self.on_failed(now, from, lease, *reason, view, out);
            }
            // Only requesters send these, and they go to the book.
            Message::Failed { .. }
            | Message::Bid { .. }
            | Message::Renew { .. }
            | Message::Release { .. }
            | Message::Install { .. } => {}
        }
        self.advance(now, view, out);
    }

    /// A node is gone: its connection closed, it said farewell, or its advert ran out.
    pub fn on_provider_lost(
        &mut self,
        now: Timestamp,
        node: NodeId,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        let lost = self.bidder.on_provider_lost(node);
        if !lost.is_empty() {
            out.push(Output::Event(Event::ProviderLost { session: self.id.number, node }));
        }
        self.advance(now, view, out);
    }

    /// The engine has cut the graph as asked: blob and length of each piece's slice.
    pub fn on_sliced(
        &mut self,
        now: Timestamp,
        plan: &Plan,
        slices: Vec<(BlobId, u32)>,
        out: &mut Vec<Output>,
    ) {
        let wanted = self.plan.as_ref() == Some(plan) && slices.len() == plan.pieces().len();
        if self.phase == Phase::Slicing && wanted {
            self.slices = slices;
            self.epoch += 1;
            self.phase = Phase::Installing { since: now, sent: now, ready: BTreeSet::new() };
            self.send_installs(out);
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        if let Phase::Searching { .. } = self.phase {
            self.search(now, view, out);
        }
        self.renew(now, view, out);
        self.drop_silent(now, view, out);
        self.retry_installs(now, view, out);
        self.check_stall(now, view, out);
        self.advance(now, view, out);
    }

    /// The picture of the flock has changed: someone to plan with may have come.
    pub fn on_news(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        if let Phase::Searching { since, .. } = self.phase {
            self.phase = Phase::Searching { since, retry: now };
            self.search(now, view, out);
        }
    }

    /// When [`on_tick`](Self::on_tick) next has something to do.
    #[must_use]
    pub fn deadline(&self, config: &Config) -> Option<Timestamp> {
        let phase = match &self.phase {
            Phase::Searching { since, retry } => Some((*since + config.search_max).min(*retry)),
            Phase::Bidding => self.bidder.deadline(config.bid_patience),
            Phase::Settling { until } => Some(*until),
            Phase::Installing { sent, .. } => Some(*sent + config.install_every),
            Phase::Streaming => self.requests.waiting_since().map(|t| t + self.stall_after(config)),
            Phase::Slicing => None,
            Phase::Ended => return None,
        };
        let renewal = (!self.bidder.leases().is_empty()).then(|| self.renewed + config.renew_every);
        phase.into_iter().chain(renewal).min()
    }

    fn search(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Phase::Searching { since, retry } = self.phase else {
            return;
        };
        if now < retry {
            return;
        }
        if let Some(plan) = self.make_plan(view) {
            self.begin_auction(now, plan, view, out);
        } else if now >= since + view.config.search_max {
            self.fail(SessionError::NoProvider, out);
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
        let pieces = plan.pieces().iter().map(|layers| {
            let piece = self.profile.piece(*layers);
            let offers = view.offers.iter().filter(|o| !self.excluded.contains(&o.node));
            let candidates = offers.filter_map(|offer| {
                let log_rate = cost::log_rate(&piece, &offer.provider)?;
                Some(Candidate { provider: offer.node, log_rate })
            });
            (piece.weight_bytes, candidates.collect())
        });
        let attempt = self.bidder.attempt();
        self.bidder =
            Bidder::new(self.id, view.terms, view.offers.len(), attempt, pieces.collect());
        self.plan = Some(plan);
        self.auction_began = now;
        self.messages = 0;
        self.phase = Phase::Bidding;
        out.push(Output::SessionChanged { session: self.id.number });
        self.advance(now, view, out);
    }

    /// Moves on as far as it can without waiting.
    fn advance(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Searching { .. } | Phase::Ended) {
            return;
        }
        if self.bidder.placement().is_none() {
            self.bid(now, view, out);
            return;
        }
        match self.phase {
            Phase::Bidding => {
                self.phase = Phase::Settling { until: now + view.config.settle };
            }
            Phase::Settling { until } if now >= until => self.agree(now, view, out),
            Phase::Settling { .. }
            | Phase::Searching { .. }
            | Phase::Slicing
            | Phase::Installing { .. }
            | Phase::Streaming
            | Phase::Ended => {}
        }
    }

    fn bid(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        if self.phase != Phase::Bidding {
            if !matches!(self.phase, Phase::Settling { .. }) {
                self.auction_began = now;
            }
            self.was_running |= self.phase == Phase::Streaming;
            self.phase = Phase::Bidding;
            self.requests.hold_back(now);
        }
        let asks: BTreeMap<NodeId, Option<Nats>> =
            view.offers.iter().map(|offer| (offer.node, offer.ask.level)).collect();
        let price = |node: &NodeId| asks.get(node).copied().flatten();
        for (to, message) in self.bidder.poll(now, view.config.bid_patience, &price) {
            self.send(to, message, out);
        }
        if self.bidder.is_infeasible() {
            self.start_over(now, SessionError::NoPlace, view, out);
        }
    }

    /// Everything is given back and the session plans again, unless it has failed too often.
    fn start_over(
        &mut self,
        now: Timestamp,
        error: SessionError,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        self.strikes += 1;
        if self.strikes >= view.config.strikes_max || matches!(self.planning, Planning::Fixed(_)) {
            self.release_all(out);
            self.fail(error, out);
            return;
        }
        self.plan_again(now, view, out);
    }

    fn plan_again(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        self.release_all(out);
        self.requests.hold_back(now);
        self.plan = None;
        // Not at once: what made it fail is in the picture that it would plan with.
        self.phase = Phase::Searching { since: now, retry: now + view.config.retry_every };
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
        self.phase = Phase::Slicing;
        out.push(Output::Event(Event::Agreed { session: self.id.number, agreement }));
        out.push(Output::SessionChanged { session: self.id.number });
        out.push(Output::Slice { session: self.id.number, plan });
    }

    fn renew(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        if now < self.renewed + view.config.renew_every || self.phase == Phase::Ended {
            return;
        }
        self.renewed = now;
        for (to, leases) in self.bidder.held() {
            self.heard.entry(to).or_insert(now);
            self.send(to, Message::Renew { session: self.id.number, leases }, out);
        }
    }

    fn drop_silent(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let leases = self.bidder.leases();
        self.heard.retain(|node, _| leases.contains_key(node));
        let quiet = self.heard.iter().filter(|(_, at)| now.since(**at) >= view.config.silence_max);
        let mut lost: BTreeSet<NodeId> = quiet.map(|(node, _)| *node).collect();
        lost.extend(self.bidder.silent(view.config.bid_sends_max));
        for node in lost {
            self.heard.remove(&node);
            self.on_provider_lost(now, node, view, out);
        }
    }

    fn pump(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.phase != Phase::Streaming {
            return;
        }
        let Some(first) = self.bidder.placement().and_then(|nodes| nodes.first().copied()) else {
            return;
        };
        let pieces = self.plan.as_ref().map_or(1, |plan| plan.pieces().len());
        // Enough to keep every piece busy and one input waiting at each.
        let window = pieces * 2 + 1;
        for request in self.requests.start(now, window) {
            let (session, epoch) = (self.id.number, self.epoch);
            out.push(Output::SendInput { session, epoch, request, to: first });
        }
    }

    fn release_all(&mut self, out: &mut Vec<Output>) {
        for (to, leases) in self.bidder.leases() {
            self.send(to, Message::Release { session: self.id.number, leases }, out);
        }
        self.bidder = self.bidder.emptied();
        self.heard.clear();
    }

    fn fail(&mut self, error: SessionError, out: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        out.push(Output::Event(Event::Failed { session: self.id.number, error }));
    }

    fn send(&mut self, to: NodeId, message: Message, out: &mut Vec<Output>) {
        self.messages += 1;
        out.push(Output::Send { to, message });
    }
}
