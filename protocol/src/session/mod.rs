//! One session, seen by its requester:
//! plan -> bid -> award -> settle -> slice -> install -> ready -> stream -> renew ... release.
//!
//! Whatever is lost on the way (a provider, a place, a frame) leads back to bidding for the pieces
//! that lost their place, a new epoch, and a replay of every request that has no output yet. A
//! caller sees a delay while anyone can compute the pieces, and a clear error when nobody can.

mod report;
mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use thiserror::Error;

pub use report::{Agreement, PlacedPiece};
use requests::Requests;

use crate::{
    cost,
    id::{BlobId, NodeId, SessionId},
    market::{Bidder, Candidate, Terms},
    model::{ModelProfile, PieceProfile},
    nats::Nats,
    node::{Event, Output},
    partition::{self, Goal, Worker},
    plan::Plan,
    time::Timestamp,
    wire::{Ask, FailureReason, Hop, Lease, Message, RefusalReason},
};

/// How patient a session is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A bid unanswered for this long is sent again.
    pub bid_patience: Duration,
    /// A provider that leaves this many copies of a bid unanswered is taken for lost.
    pub bid_sends_max: u32,
    /// An agreement must stand this long without an eviction before anything is loaded.
    pub settle: Duration,
    /// How often leases are renewed.
    pub renew_every: Duration,
    /// A provider silent for this long while leases are renewed is taken for lost.
    pub silence_max: Duration,
    /// How often an install is sent again until it is answered.
    pub install_every: Duration,
    /// Providers have this long to fetch their weights.
    pub install_max: Duration,
    /// How long to look for providers before giving up.
    pub search_max: Duration,
    /// How long to wait between two tries to plan.
    pub retry_every: Duration,
    /// A split must gain more than this share of time before it is preferred.
    pub gain_min: f64,
    /// Cuts move on a running session only for more than this share.
    pub gain_min_running: f64,
    /// Without an output for this long, and eight predicted latencies, the plan is installed anew.
    pub stall: Duration,
    /// After this many failures without an output in between, the session fails.
    pub strikes_max: u32,
    /// The most requests waiting or in flight.
    pub requests_max: usize,
    /// The most pieces in a plan.
    pub pieces_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bid_patience: Duration::from_millis(500),
            bid_sends_max: 5,
            settle: Duration::from_millis(30),
            renew_every: Duration::from_secs(1),
            silence_max: Duration::from_secs(4),
            install_every: Duration::from_secs(1),
            install_max: Duration::from_secs(120),
            search_max: Duration::from_secs(8),
            retry_every: Duration::from_millis(200),
            gain_min: 0.02,
            gain_min_running: 0.25,
            stall: Duration::from_secs(4),
            strikes_max: 6,
            requests_max: 1024,
            pieces_max: 16,
        }
    }
}

/// How a session's plan is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planning {
    /// The caller's own cuts, which are never moved.
    Fixed(Plan),
    /// The `pf` partitioner.
    Pf(Goal),
}

/// A provider as its requester sees it at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Who.
    pub node: NodeId,
    /// Its speed, link and memory.
    pub provider: cost::Provider,
    /// Its price, as last heard.
    pub ask: Ask,
    /// Pieces there now.
    pub holders: u16,
}

/// What a session may look at while it decides.
pub struct View<'a> {
    /// Everyone who takes pieces, oneself included if so.
    pub offers: &'a [Offer],
    /// The auction's rules.
    pub terms: Terms,
    /// The limits.
    pub config: &'a Config,
}

/// Why a session ended without being closed by its caller.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Nobody offers compute, or nobody whose memory is enough.
    #[error(
        "no node can compute this model: none is known that offers compute and has the memory for \
         its pieces; start one with `starling node`, or run with --local"
    )]
    NoProvider,
    /// There are providers, but their places are all taken by pieces that bid more.
    #[error("all places are taken: every provider's slots are held by others; try again later")]
    NoPlace,
    /// Providers did not load their pieces.
    #[error("a provider could not load its piece: {0:?}")]
    NotInstalled(FailureReason),
    /// The pieces are loaded, but outputs don't come.
    #[error("no output arrives although every piece is loaded: check the links between the nodes")]
    Stalled,
}

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

    fn make_plan(&self, view: &View<'_>) -> Option<Plan> {
        let workers: Vec<Worker> = view
            .offers
            .iter()
            .filter(|offer| offer.ask.level.is_some() && !self.excluded.contains(&offer.node))
            .map(|offer| Worker {
                node: offer.node,
                provider: offer.provider,
                sharers: offer.holders.saturating_add(1),
            })
            .collect();
        if workers.is_empty() {
            return None;
        }
        match &self.planning {
            Planning::Fixed(plan) => Some(plan.clone()),
            Planning::Pf(goal) => {
                // A session that keeps failing asks for less: one provider at a time.
                let pieces_max = if self.strikes > view.config.strikes_max / 2 {
                    1
                } else {
                    view.config.pieces_max
                };
                let best = partition::propose(
                    &self.profile,
                    &workers,
                    *goal,
                    pieces_max,
                    view.config.gain_min,
                )?;
                Some(best.plan)
            }
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

    /// The auction says who; with providers and shares known, the cuts are fitted to them. Any
    /// order of unequal providers is as fair as any other, so fitting costs no fairness.
    fn move_cuts(&mut self, placement: &[NodeId], view: &View<'_>) {
        let (Planning::Pf(_), Some(plan)) = (&self.planning, &self.plan) else {
            return;
        };
        let workers: Option<Vec<Worker>> =
            placement.iter().map(|node| self.worker(node, view)).collect();
        let Some(workers) = workers else { return };
        let Some(best) = partition::balance(&self.profile, &workers) else {
            return;
        };
        let times = plan.pieces().iter().zip(&workers).map(|(layers, worker)| {
            let piece = self.profile.piece(*layers);
            cost::seconds(&piece, &worker.provider) * f64::from(worker.sharers)
        });
        let bottleneck = times.fold(0.0, f64::max);
        let gain_min =
            if self.was_running { view.config.gain_min_running } else { view.config.gain_min };
        if best.bottleneck < bottleneck * (1.0 - gain_min) {
            self.plan = Some(best.plan);
        }
    }

    fn worker(&self, node: &NodeId, view: &View<'_>) -> Option<Worker> {
        let offer = view.offers.iter().find(|offer| offer.node == *node)?;
        let sharers = self.holders.get(node).copied().unwrap_or(1).max(1);
        Some(Worker { node: *node, provider: offer.provider, sharers })
    }

    fn agreement(
        &self,
        now: Timestamp,
        placement: &[NodeId],
        plan: &Plan,
        view: &View<'_>,
    ) -> Agreement {
        let pieces = plan.pieces().iter().zip(placement).map(|(layers, node)| {
            let piece = self.profile.piece(*layers);
            let worker = self.worker(node, view);
            PlacedPiece {
                layers: *layers,
                provider: *node,
                sharers: worker.map_or(1, |worker| worker.sharers),
                seconds: worker.map_or(f64::INFINITY, |worker| {
                    cost::seconds(&piece, &worker.provider) * f64::from(worker.sharers)
                }),
            }
        });
        let tally = self.bidder.tally();
        Agreement {
            pieces: pieces.collect(),
            rounds: tally.rounds,
            bids: tally.bids,
            messages: self.messages,
            elapsed: now.since(self.auction_began),
        }
    }

    fn send_installs(&mut self, out: &mut Vec<Output>) {
        let (Some(plan), Some(placement)) = (self.plan.clone(), self.bidder.placement()) else {
            return;
        };
        let Phase::Installing { ready, .. } = &self.phase else {
            return;
        };
        let missing: Vec<u16> =
            (0..).take(placement.len()).filter(|i| !ready.contains(i)).collect();
        for index in missing {
            let at = usize::from(index);
            let next = placement.get(at + 1).map_or(Hop::Requester, |node| Hop::Piece(*node));
            let before = at.checked_sub(1).and_then(|at| placement.get(at));
            let previous = before.map_or(Hop::Requester, |node| Hop::Piece(*node));
            let (slice, slice_bytes) = self.slices[at];
            let install = Message::Install {
                session: self.id.number,
                index,
                attempt: self.bidder.attempt_of(index).unwrap_or(0),
                epoch: self.epoch,
                model: self.profile.model(),
                layers: plan.pieces()[at],
                slice,
                slice_bytes,
                previous,
                next,
            };
            self.send(placement[at], install, out);
        }
    }

    fn on_ready(
        &mut self,
        now: Timestamp,
        from: NodeId,
        index: u16,
        epoch: u32,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        let Some(placement) = self.bidder.placement() else {
            return;
        };
        let Phase::Installing { ready, .. } = &mut self.phase else {
            return;
        };
        if epoch != self.epoch || placement.get(usize::from(index)) != Some(&from) {
            return;
        }
        ready.insert(index);
        if ready.len() < placement.len() {
            return;
        }
        let Some(plan) = self.plan.clone() else {
            return;
        };
        self.phase = Phase::Streaming;
        self.was_running = true;
        let agreement = self.agreement(now, &placement, &plan, view);
        out.push(Output::Event(Event::Ready { session: self.id.number, epoch, agreement }));
        self.pump(now, out);
    }

    fn on_failed(
        &mut self,
        now: Timestamp,
        from: NodeId,
        lease: Lease,
        reason: FailureReason,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        let Lease { index, attempt } = lease;
        if self.bidder.attempt_of(index) != Some(attempt) {
            // It has moved on since: this was overtaken by an eviction and a new award.
            return;
        }
        match reason {
            FailureReason::NotHeld => {
                self.bidder.on_eviction(from, index, attempt);
            }
            FailureReason::BadSlice | FailureReason::Weights => {
                let leases = vec![lease];
                self.send(from, Message::Release { session: self.id.number, leases }, out);
                self.bidder.on_excluded(from, index, attempt);
                self.excluded.insert(from);
                self.strike(now, SessionError::NotInstalled(reason), view, out);
            }
            FailureReason::NextHop => self.reinstall(now, view, out),
        }
    }

    fn strike(
        &mut self,
        now: Timestamp,
        error: SessionError,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        self.strikes += 1;
        if self.strikes >= view.config.strikes_max {
            self.release_all(out);
            self.fail(error, out);
        } else if self.strikes == view.config.strikes_max / 2 + 1 {
            // The same plan has failed often enough.
            self.plan_again(now, view, out);
        }
    }

    /// Something between the providers is broken: the same plan, a new epoch, all requests again.
    fn reinstall(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        // A broken link is reported once a frame: only the first report of an epoch counts.
        let running = |phase: &Phase| matches!(phase, Phase::Streaming | Phase::Installing { .. });
        if !running(&self.phase) {
            return;
        }
        self.strike(now, SessionError::Stalled, view, out);
        if !running(&self.phase) {
            return;
        }
        self.requests.hold_back(now);
        self.phase = Phase::Slicing;
        if let Some(plan) = self.plan.clone() {
            out.push(Output::Slice { session: self.id.number, plan });
        }
    }

    fn retry_installs(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Phase::Installing { since, sent, .. } = &mut self.phase else {
            return;
        };
        if now >= *since + view.config.install_max {
            let error = SessionError::NotInstalled(FailureReason::Weights);
            self.start_over(now, error, view, out);
        } else if now >= *sent + view.config.install_every {
            *sent = now;
            self.send_installs(out);
        }
    }

    fn check_stall(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Some(since) = self.requests.waiting_since() else {
            return;
        };
        if self.phase == Phase::Streaming && now >= since + self.stall_after(view.config) {
            self.reinstall(now, view, out);
        }
    }

    fn stall_after(&self, config: &Config) -> Duration {
        let latency = Duration::try_from_secs_f64(self.latency * 8.0).unwrap_or(config.install_max);
        // Twice as patient after each failure: a provider may just be slower than it claims.
        config.stall.max(latency) * (1 << self.strikes.min(6))
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
