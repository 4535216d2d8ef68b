//! One session, seen by its requester:
//! plan -> bid -> award -> settle -> slice -> install -> ready -> stream -> renew ... release.
//!
//! Whatever is lost on the way (a provider, a place, a frame) leads back to bidding for the pieces
//! that lost their place, a new epoch, and a replay of every request that has no output yet. A
//! caller sees a delay while anyone can compute the pieces, and a clear error when nobody can.

mod auction;
mod config;
mod install;
mod matching;
mod moves;
mod planning;
mod replan;
mod report;
mod requests;

use std::collections::{BTreeMap, BTreeSet};

pub use config::{Bidding, Config, Offer, Planning, SessionError, View};
use install::Exclusion;
use matching::Matching;
use moves::Migration;
pub use report::{Agreement, PlacedPiece};
use requests::Requests;

use crate::{
    dispatch,
    id::{BlobId, NodeId, SessionId},
    market::{Awarded, Bidder, Forecast},
    model::{ModelProfile, PieceProfile, Speed, Work},
    node::{Event, Output},
    plan::Plan,
    time::Timestamp,
    wire::{Lease, Message, RefusalReason, Stage},
};

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// No plan yet: not enough is known of the flock.
    Searching { since: Timestamp, retry: Timestamp },
    /// The adverts of sessions that open at the same time are awaited.
    Gathering { until: Timestamp },
    /// Some piece has no place.
    Bidding,
    /// All have; evictions may still come, and places be held against what the others ask.
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
    // For whom the planner means each piece; empty where the auction decides.
    meant: Vec<NodeId>,
    // The game by which the pieces find their places, where it is that and no auction.
    matching: Option<Matching>,
    bidder: Bidder,
    // Kept until all has come to rest, with the time of the first bids that followed it.
    forecast: Option<(Timestamp, Forecast)>,
    // Who was told to load the pieces of this epoch.
    installed: Vec<NodeId>,
    migration: Option<Migration>,
    // Places given back of late, and how often that is to be said again.
    left: Vec<(NodeId, Lease, u8)>,
    epoch: u32,
    // The highest that any provider was told: a move that was given up leaves one unused.
    epochs: u32,
    was_running: bool,
    strikes: u32,
    // Since when providers have not answered, and no output has come.
    unanswered: Option<Timestamp>,
    slices: Vec<(BlobId, u32)>,
    heard: BTreeMap<NodeId, Timestamp>,
    // Those that could not load a piece.
    excluded: BTreeMap<NodeId, Exclusion>,
    // Those that did not answer, and no piece bids at for a while.
    silent: BTreeSet<NodeId>,
    renewed: Timestamp,
    // When those that have not answered the last renewal are asked once more.
    renew_again: Option<Timestamp>,
    reviewed: Timestamp,
    // When better cuts are looked for, and how often they were found.
    replan_at: Timestamp,
    replans: u32,
    // What the providers were believed to be capable of when it began to stream.
    speeds: Vec<Speed>,
    reviews: u32,
    inquiries: u32,
    // The fewest pieces without places that it has known of, and since when.
    seeking: usize,
    filled: Timestamp,
    placed_at: Option<Timestamp>,
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
            meant: Vec::new(),
            matching: None,
            bidder: Bidder::new(id, view.terms, 0, 0, Vec::new()),
            forecast: None,
            installed: Vec::new(),
            migration: None,
            left: Vec::new(),
            epoch: 0,
            epochs: 0,
            was_running: false,
            strikes: 0,
            unanswered: None,
            slices: Vec::new(),
            heard: BTreeMap::new(),
            excluded: BTreeMap::new(),
            silent: BTreeSet::new(),
            renewed: now,
            renew_again: None,
            reviewed: now,
            replan_at: now,
            replans: 0,
            speeds: Vec::new(),
            reviews: 0,
            inquiries: 0,
            seeking: usize::MAX,
            filled: now,
            placed_at: None,
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
        Some(plan.pieces().iter().map(|piece| self.profile.piece(piece)).collect())
    }

    /// How far it has come, for others to know.
    #[must_use]
    pub fn stage(&self) -> Stage {
        if !self.meant.is_empty() || self.matching.is_some() {
            // Their bids are not those of the auction.
            return Stage::Settled;
        }
        let seeking = match self.phase {
            Phase::Searching { .. } | Phase::Gathering { .. } | Phase::Bidding => true,
            Phase::Settling { .. } => !self.was_running,
            Phase::Slicing | Phase::Installing { .. } | Phase::Streaming | Phase::Ended => false,
        };
        if seeking { Stage::Seeking } else { Stage::Settled }
    }

    /// Who computes a piece of the plan in force, and what it does there.
    #[must_use]
    pub fn assigned(&self, index: u16) -> Option<(NodeId, Work)> {
        let piece = self.plan.as_ref()?.pieces().get(usize::from(index))?;
        let provider = self.installed.get(usize::from(index))?;
        Some((*provider, self.profile.piece(piece).work))
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
    pub fn on_output(
        &mut self,
        now: Timestamp,
        request: u64,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        if self.requests.complete(now, request) {
            (self.strikes, self.unanswered) = (0, None);
            self.switch_if_ready(now, view, out);
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
        self.readmit(from, view);
        match message {
            Message::Award { index, attempt, .. } => {
                if let Awarded::Unwanted(lease) = self.bidder.on_award(from, *index, *attempt) {
                    self.give_back(from, lease, out);
                }
            }
            Message::Refusal { index, attempt, reason: RefusalReason::Outbid, .. } => {
                self.bidder.on_outbid(from, *index, *attempt);
                self.on_preferred(from, *index);
            }
            Message::Refusal { index, attempt, .. } => {
                let until = now + view.config.exclusion;
                self.bidder.on_excluded(from, *index, *attempt, until);
            }
            Message::Eviction { index, attempt, .. } => {
                if self.bidder.on_eviction(from, *index, *attempt) {
                    self.on_preferred(from, *index);
                }
            }
            Message::Exchange(exchange) => self.on_exchange(now, from, exchange, view, out),
            Message::Renewed { lost, .. } => {
                self.bidder.on_lost(from, lost);
            }
            Message::Ready { index, epoch, .. } => {
                self.on_ready(now, from, *index, *epoch, view, out);
            }
            Message::Failed { index, attempt, epoch, reason, .. } if *epoch == self.epoch => {
                let lease = Lease { index: *index, attempt: *attempt };
                self.on_failed(now, from, lease, *reason, view, out);
            }
            Message::Failed { index, attempt, epoch, .. } if self.moves_to(*epoch) => {
                let lease = Lease { index: *index, attempt: *attempt };
                self.on_move_failed(now, from, lease, view, out);
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
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        let wanted = self.plan.as_ref() == Some(plan) && slices.len() == plan.pieces().len();
        if self.phase == Phase::Slicing && wanted {
            self.slices = slices;
            self.epochs += 1;
            self.epoch = self.epochs;
            self.begin_install(now, BTreeSet::new(), view, out);
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Searching { .. } => self.search(now, view, out),
            Phase::Gathering { until } if now >= until => self.open_bidding(now, view, out),
            _ => {}
        }
        self.renew(now, view, out);
        self.drop_silent(now, view, out);
        self.retry_installs(now, view, out);
        self.check_stall(now, view, out);
        self.review_running(now, view, out);
        self.advance(now, view, out);
    }

    /// A node has described itself: someone to plan with may have come, or a place for a piece that
    /// has none.
    pub fn on_news(
        &mut self,
        now: Timestamp,
        from: NodeId,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        match self.phase {
            Phase::Searching { since, .. } => {
                self.phase = Phase::Searching { since, retry: now };
                self.search(now, view, out);
            }
            Phase::Bidding if !self.bidder.considers(&from) => {
                self.refresh_candidates(view);
                self.advance(now, view, out);
            }
            _ => {}
        }
    }

    /// When [`on_tick`](Self::on_tick) next has something to do.
    #[must_use]
    pub fn deadline(&self, config: &Config) -> Option<Timestamp> {
        let phase = match &self.phase {
            Phase::Searching { since, retry } => Some((*since + config.search_max).min(*retry)),
            Phase::Gathering { until } | Phase::Settling { until } => Some(*until),
            Phase::Bidding => self.bidder.deadline(config.bid_patience),
            Phase::Installing { sent, .. } => Some(*sent + config.install_every),
            Phase::Streaming => Some(self.streaming_deadline(config)),
            Phase::Slicing => None,
            Phase::Ended => return None,
        };
        let renewal = self.bidder.has_leases().then(|| self.renewed + config.renew_every);
        phase.into_iter().chain(renewal).chain(self.renew_again).min()
    }

    fn renew(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        if self.phase == Phase::Ended {
            return;
        }
        if now < self.renewed + view.config.renew_every {
            return self.renew_again(now, out);
        }
        self.renewed = now;
        self.renew_again = Some(now + view.config.bid_patience);
        self.repeat_releases(out);
        for (to, leases) in self.bidder.held() {
            self.heard.entry(to).or_insert(now);
            self.send(to, Message::Renew { session: self.id.number, leases }, out);
        }
        self.ask_the_silent(view, out);
    }

    /// Those that have not answered are asked once more, or a lossy link would soon look like a
    /// provider that is gone.
    fn renew_again(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.renew_again.is_none_or(|at| now < at) {
            return;
        }
        self.renew_again = None;
        for (to, leases) in self.bidder.held() {
            if self.heard.get(&to).is_some_and(|heard| *heard < self.renewed) {
                self.send(to, Message::Renew { session: self.id.number, leases }, out);
            }
        }
    }

    /// Whoever did not answer may only have been cut off for a moment. As long as a piece has no
    /// place, and drives up the prices of those that are left, the others are asked whether they
    /// are there again.
    fn ask_the_silent(&mut self, view: &View<'_>, out: &mut Vec<Output>) {
        if self.phase != Phase::Bidding {
            return;
        }
        for to in self.silent_here(view).collect::<Vec<_>>() {
            self.inquire(to, out);
        }
    }

    /// Not those whose adverts have run out: their next one will tell.
    fn silent_here(&self, view: &View<'_>) -> impl Iterator<Item = NodeId> {
        self.silent.iter().filter(|node| view.offer(node).is_some()).copied()
    }

    /// A renewal of nothing is answered with the price.
    fn inquire(&mut self, to: NodeId, out: &mut Vec<Output>) {
        self.send(to, Message::Renew { session: self.id.number, leases: Vec::new() }, out);
    }

    /// Someone who did not answer does so again: pieces may bid there.
    fn readmit(&mut self, node: NodeId, view: &View<'_>) {
        if !self.silent.remove(&node) {
            return;
        }
        self.bidder.readmit(&node);
        if self.phase == Phase::Bidding {
            self.refresh_candidates(view);
        }
    }

    fn drop_silent(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let silent = self.bidder.silent(view.config.bid_sends_max);
        if self.heard.is_empty() && silent.is_empty() {
            return;
        }
        let leases = self.bidder.leases();
        self.heard.retain(|node, _| leases.contains_key(node));
        let quiet = self.heard.iter().filter(|(_, at)| now.since(**at) >= view.config.silence_max);
        let mut lost: BTreeSet<NodeId> = quiet.map(|(node, _)| *node).collect();
        lost.extend(silent);
        for node in lost {
            self.heard.remove(&node);
            // It may hear, if nothing else.
            for lease in leases.get(&node).cloned().unwrap_or_default() {
                self.give_back(node, lease, out);
            }
            // Its adverts may still say that it is there.
            self.bidder.exclude(node, now + view.config.exclusion);
            self.silent.insert(node);
            self.on_provider_lost(now, node, view, out);
        }
    }

    fn pump(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.phase != Phase::Streaming || self.is_switching() {
            return;
        }
        let segments = self.plan.as_ref().map_or(1, Plan::segments);
        for request in self.requests.start(now, dispatch::window(segments)) {
            let (session, epoch) = (self.id.number, self.epoch);
            out.push(Output::SendInput { session, epoch, request });
        }
    }

    /// Gives a place back while the session goes on elsewhere. Said again a few times: a place
    /// whose release was lost would be held twice until its lease ends.
    fn give_back(&mut self, to: NodeId, lease: Lease, out: &mut Vec<Output>) {
        self.send(to, Message::Release { session: self.id.number, leases: vec![lease] }, out);
        self.left.push((to, lease, RELEASES_REPEATED));
    }

    fn repeat_releases(&mut self, out: &mut Vec<Output>) {
        for (to, lease, repeats) in std::mem::take(&mut self.left) {
            self.send(to, Message::Release { session: self.id.number, leases: vec![lease] }, out);
            if repeats > 1 {
                self.left.push((to, lease, repeats - 1));
            }
        }
    }

    fn release_all(&mut self, out: &mut Vec<Output>) {
        for (to, leases) in self.bidder.leases() {
            self.send(to, Message::Release { session: self.id.number, leases }, out);
        }
        self.bidder = self.bidder.emptied();
        self.forecast = None;
        self.migration = None;
        self.installed.clear();
        self.heard.clear();
        self.silent.clear();
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

/// How often the release of a place is said again, at renewals.
const RELEASES_REPEATED: u8 = 2;
