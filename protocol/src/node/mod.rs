//! A whole peer: requester and provider at once, composed of the flock's picture, a book, a host
//! and its own sessions. See the crate's page for the calling contract.

mod config;
mod io;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

pub use config::{Config, Offering};
pub use io::{Command, Event, Input, Output, PieceRun};

use crate::{
    beliefs::Beliefs,
    budget::Budgets,
    cost,
    flock::{Flock, Reception},
    host::{Host, InstallAnswer, LoadOrder},
    id::{ModelId, NodeId, PieceId, SessionId},
    market::{Bid, Book, Verdict},
    model::{ModelProfile, Speed, Work},
    partition::{self, Goal, Planner, Proposal},
    session::{Offer, Planning, Session, SessionError, View},
    time::Timestamp,
    wire::{
        ADDRESSES_MAX, Advert, Ask, ExchangeStage, FailureReason, Lease, MODELS_MAX, Message,
        NodeAdvert, PriceAdvert, SessionAdvert,
    },
};

/// A whole peer.
#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    flock: Flock,
    beliefs: Beliefs,
    messages: Budgets,
    adverts: Budgets,
    book: Book,
    host: Host,
    sessions: BTreeMap<u64, Session>,
    addresses: Vec<Vec<u8>>,
    models: Vec<ModelId>,
    // As calibrated, corrected by what pieces really took; and as last advertised.
    speed: Speed,
    speed_told: Speed,
    sequence: u64,
    advertised: Option<Timestamp>,
    // When it describes itself again, which it has told by how long its advert holds.
    introduce_at: Timestamp,
    told: Option<Ask>,
    news: bool,
}

impl Node {
    /// A node that knows nobody yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut book = config.book;
        if config.offering == Offering::Nobody {
            book.slots = 0;
        }
        Self {
            flock: Flock::new(config.flock),
            beliefs: Beliefs::default(),
            messages: Budgets::new(config.messages),
            adverts: Budgets::new(config.adverts),
            book: Book::new(config.terms, book, config.first_sequence),
            host: Host::default(),
            sessions: BTreeMap::new(),
            addresses: Vec::new(),
            models: Vec::new(),
            speed: config.speed,
            speed_told: config.speed,
            sequence: config.first_sequence,
            advertised: None,
            introduce_at: Timestamp(0),
            told: None,
            news: false,
            config,
        }
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Its picture of the others.
    #[must_use]
    pub fn flock(&self) -> &Flock {
        &self.flock
    }

    /// What it has accepted.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Its speed as corrected by what its pieces really took.
    #[must_use]
    pub fn speed(&self) -> Speed {
        self.speed
    }

    /// What it believes of the others' speeds.
    #[must_use]
    pub fn beliefs(&self) -> &Beliefs {
        &self.beliefs
    }

    /// Messages and adverts that it did not take because their senders had sent too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.messages.refused() + self.adverts.refused()
    }

    /// What is loaded here for others, or for itself.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its sessions, in order of their numbers.
    pub fn sessions(&self) -> impl Iterator<Item = (u64, &Session)> {
        self.sessions.iter().map(|(number, session)| (*number, session))
    }

    /// One of its sessions.
    #[must_use]
    pub fn session(&self, number: u64) -> Option<&Session> {
        self.sessions.get(&number)
    }

    /// Takes in what happened and says what to do about it, in order.
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.expire(now, &mut out);
        self.dispatch(now, input, &mut out);
        let mut done = self.deliver_to_self(now, out);
        self.advertise(now, &mut done);
        self.sessions.retain(|_, session| !session.is_ended());
        done
    }

    /// When to call with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        let sessions = self.sessions.values().filter_map(|s| s.deadline(&self.config.session));
        let advert = self.next_advert();
        sessions.chain(self.book.deadline()).chain(self.flock.deadline()).fold(advert, Ord::min)
    }

    fn dispatch(&mut self, now: Timestamp, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.each_session(now, out, |session, view, out| {
                session.on_tick(now, view, out);
            }),
            Input::Advert { from, advert } => {
                if from != self.config.id && self.adverts.allows(now, from) {
                    self.on_advert(now, from, advert, out);
                }
            }
            Input::Message { from, message } => {
                if self.messages.allows(now, from) {
                    self.on_message(now, from, &message, out);
                }
            }
            // The newcomer has heard none of the earlier adverts.
            Input::Joined(_) => self.news = true,
            Input::Left(node) => self.on_lost(now, node, out),
            Input::Command(command) => self.on_command(now, command, out),
            Input::Sliced { session, plan, slices } => {
                self.with_session(now, session, out, |session, view, out| {
                    session.on_sliced(now, &plan, slices, view, out);
                });
            }
            Input::Loaded { piece, epoch, result } => self.on_loaded(piece, epoch, result, out),
            Input::EdgeFailed { piece, epoch } => {
                self.report_failure(piece, epoch, FailureReason::NextHop, out);
            }
            Input::Ran { work, seconds } => self.on_ran(now, &work, seconds),
            Input::OutputArrived { session, request, runs } => {
                self.learn_speeds(now, session, &runs);
                self.with_session(now, session, out, |session, view, out| {
                    session.on_output(now, request, view, out);
                });
            }
            Input::Bandwidth(bandwidth) => self.config.bandwidth = bandwidth.max(1),
            Input::Addresses(mut addresses) => {
                addresses.truncate(ADDRESSES_MAX);
                self.news |= self.addresses != addresses;
                self.addresses = addresses;
            }
            Input::Models(mut models) => {
                models.truncate(MODELS_MAX);
                self.news |= self.models != models;
                self.models = models;
            }
        }
    }

    fn on_advert(&mut self, now: Timestamp, from: NodeId, advert: Advert, out: &mut Vec<Output>) {
        match advert {
            Advert::Node(advert) => {
                let reception = self.flock.hear_node(now, from, advert);
                if reception == Reception::Fresh {
                    self.each_session(now, out, |session, view, out| {
                        session.on_news(now, from, view, out);
                    });
                }
            }
            Advert::Price(price) => {
                self.flock.hear_price(now, from, &price);
            }
            Advert::Session(advert) => {
                self.flock.hear_session(now, from, advert);
            }
            Advert::Leaving { sequence } => {
                if self.flock.hear_leaving(now, from, sequence) == Reception::Fresh {
                    self.on_lost(now, from, out);
                }
            }
        }
    }

    fn on_message(
        &mut self,
        now: Timestamp,
        from: NodeId,
        message: &Message,
        out: &mut Vec<Output>,
    ) {
        match message {
            Message::Bid { .. } => {
                let bid = Bid::from_message(from, message);
                let answer = bid.and_then(|bid| self.on_bid(now, &bid, out));
                out.extend(answer.map(|message| Output::Send { to: from, message }));
            }
            Message::Renew { session, leases } => self.on_renew(now, from, *session, leases, out),
            Message::Release { session, leases } => {
                for lease in leases {
                    let piece = piece_of(from, *session, lease.index);
                    if self.book.release(now, piece, lease.attempt) {
                        self.unload(piece, out);
                    }
                }
            }
            Message::Install { .. } => self.on_install(from, message, out),
            Message::Award { session, ask, index, attempt, .. } => {
                self.flock.hear_ask(now, from, *ask);
                if !self.sessions.contains_key(session) {
                    // Of a session that is over: give it back now rather than let it expire.
                    let leases = vec![Lease { index: *index, attempt: *attempt }];
                    let message = Message::Release { session: *session, leases };
                    out.push(Output::Send { to: from, message });
                }
                self.pass_to_session(now, *session, from, message, out);
            }
            Message::Refusal { session, ask, .. }
            | Message::Eviction { session, ask, .. }
            | Message::Renewed { session, ask, .. }
            | Message::Ready { session, ask, .. } => {
                self.flock.hear_ask(now, from, *ask);
                self.pass_to_session(now, *session, from, message, out);
            }
            Message::Failed { session, .. } => {
                self.pass_to_session(now, *session, from, message, out);
            }
            Message::Exchange(exchange) => {
                let number = match exchange.stage {
                    ExchangeStage::Offer => exchange.theirs.session.number,
                    ExchangeStage::Agreed | ExchangeStage::Refused => exchange.session,
                };
                self.pass_to_session(now, number, from, message, out);
            }
        }
    }

    fn pass_to_session(
        &mut self,
        now: Timestamp,
        number: u64,
        from: NodeId,
        message: &Message,
        out: &mut Vec<Output>,
    ) {
        self.with_session(now, number, out, |session, view, out| {
            session.on_message(now, from, message, view, out);
        });
    }

    fn on_bid(&mut self, now: Timestamp, bid: &Bid, out: &mut Vec<Output>) -> Option<Message> {
        let (session, index, attempt) = (bid.piece.session.number, bid.piece.index, bid.attempt);
        let stranger = bid.piece.session.requester != self.config.id;
        let verdict = if self.config.offering == Offering::Own && stranger {
            Verdict::Refused(crate::wire::RefusalReason::Closed)
        } else {
            self.book.bid(now, bid)
        };
        let ask = self.book.ask();
        match verdict {
            Verdict::Stale => None,
            Verdict::Refused(reason) => {
                Some(Message::Refusal { session, index, attempt, ask, reason })
            }
            Verdict::Accepted { evicted } => {
                for (piece, attempt) in evicted {
                    self.evict(piece, attempt, out);
                }
                let lease_ms = u32::try_from(self.book.lease().as_millis()).unwrap_or(u32::MAX);
                Some(Message::Award { session, index, attempt, ask, lease_ms })
            }
        }
    }

    fn on_renew(
        &mut self,
        now: Timestamp,
        from: NodeId,
        session: u64,
        leases: &[Lease],
        out: &mut Vec<Output>,
    ) {
        for lease in leases {
            let piece = piece_of(from, session, lease.index);
            let since = self.book.held_since(&piece).filter(|_| !self.host.has(&piece));
            // Places are for pieces that are computed: what is never loaded only keeps others out.
            if since.is_some_and(|since| now.since(since) > self.config.install_grace) {
                self.book.release(now, piece, lease.attempt);
            }
        }
        let id = SessionId { requester: from, number: session };
        let lost = self.book.renew(now, id, leases);
        let message = Message::Renewed { session, lost, ask: self.book.ask() };
        out.push(Output::Send { to: from, message });
    }

    fn evict(&mut self, piece: PieceId, attempt: u32, out: &mut Vec<Output>) {
        let (session, index, ask) = (piece.session.number, piece.index, self.book.ask());
        let message = Message::Eviction { session, index, attempt, ask };
        out.push(Output::Send { to: piece.session.requester, message });
        self.unload(piece, out);
    }

    fn unload(&mut self, piece: PieceId, out: &mut Vec<Output>) {
        if self.host.remove(&piece) {
            out.push(Output::Unload(piece));
        }
    }

    fn on_install(&mut self, from: NodeId, message: &Message, out: &mut Vec<Output>) {
        let &Message::Install { session, index, attempt, epoch, .. } = message else {
            return;
        };
        let piece = piece_of(from, session, index);
        let order = LoadOrder::new(piece, message).filter(|_| self.book.holds(&piece, attempt));
        let answer = if let Some(order) = order {
            match self.host.install(order) {
                InstallAnswer::Load(order) => {
                    out.push(Output::Load(order));
                    None
                }
                InstallAnswer::AlreadyReady => {
                    Some(Message::Ready { session, index, epoch, ask: self.book.ask() })
                }
                InstallAnswer::Nothing => None,
            }
        } else {
            let reason = FailureReason::NotHeld;
            Some(Message::Failed { session, index, attempt, epoch, reason })
        };
        out.extend(answer.map(|message| Output::Send { to: from, message }));
    }

    fn on_loaded(
        &mut self,
        piece: PieceId,
        epoch: u32,
        result: Result<(), FailureReason>,
        out: &mut Vec<Output>,
    ) {
        if !self.host.loaded(&piece, epoch, result) {
            return;
        }
        match result {
            Ok(()) => {
                self.book.entrench(&piece);
                let (session, index) = (piece.session.number, piece.index);
                let message = Message::Ready { session, index, epoch, ask: self.book.ask() };
                out.push(Output::Send { to: piece.session.requester, message });
            }
            Err(reason) => self.report_failure(piece, epoch, reason, out),
        }
    }

    /// Tells a requester that its piece does not run here. If the piece has lost its place, that
    /// was told already.
    fn report_failure(
        &mut self,
        piece: PieceId,
        epoch: u32,
        reason: FailureReason,
        out: &mut Vec<Output>,
    ) {
        let (session, index) = (piece.session.number, piece.index);
        // An own session's input has no place in the book: the first piece's provider has.
        let own = piece.session.requester == self.config.id;
        let attempt = self.book.attempt_of(&piece).or_else(|| {
            let session = self.sessions.get(&session).filter(|_| own)?;
            session.attempt_of(index)
        });
        if let Some(attempt) = attempt {
            let message = Message::Failed { session, index, attempt, epoch, reason };
            out.push(Output::Send { to: piece.session.requester, message });
        }
    }

    fn on_ran(&mut self, now: Timestamp, work: &Work, seconds: f64) {
        self.speed = self.speed.corrected(work, seconds, RUN_WEIGHT);
        // A machine that is sometimes busy would say so ten times a second to everybody.
        let soon = self.advertised.is_some_and(|last| now < last + DRIFT_TOLD_EVERY);
        self.news |= !soon && self.speed.drift(&self.speed_told) > DRIFT_TOLD;
    }

    fn learn_speeds(&mut self, now: Timestamp, session: u64, runs: &[PieceRun]) {
        let Some(session) = self.sessions.get(&session) else { return };
        for run in runs {
            let Some((provider, work)) = session.assigned(run.index) else { continue };
            let known = self.flock.node(&provider).filter(|_| provider == run.provider);
            if let Some(claimed) = known.map(|known| known.advert.speed) {
                self.beliefs.observe(now, provider, &claimed, &work, run.seconds);
            }
        }
    }

    fn on_suspect(&mut self, now: Timestamp, node: NodeId) {
        if let Some(claimed) = self.flock.node(&node).map(|known| known.advert.speed) {
            self.beliefs.suspect(now, node, &claimed);
        }
    }

    fn on_lost(&mut self, now: Timestamp, node: NodeId, out: &mut Vec<Output>) {
        self.flock.forget(&node);
        self.each_session(now, out, |session, view, out| {
            session.on_provider_lost(now, node, view, out);
        });
    }

    fn on_command(&mut self, now: Timestamp, command: Command, out: &mut Vec<Output>) {
        match command {
            Command::Open { session, profile, planning } => {
                self.open(now, session, profile, planning, out);
            }
            Command::Infer { session, request } => {
                let mut taken = false;
                self.with_session(now, session, out, |session, view, out| {
                    taken = session.request(now, request, view, out);
                });
                if !taken {
                    out.push(Output::Event(Event::Refused { session, request }));
                }
            }
            Command::Close { session } => {
                self.with_session(now, session, out, |session, _, out| session.close(out));
            }
            Command::Leave => {
                self.each_session(now, out, |session, _, out| session.close(out));
                let held: Vec<(PieceId, u32)> = self
                    .book
                    .holdings()
                    .map(|(piece, holding)| (*piece, holding.attempt))
                    .collect();
                for (piece, attempt) in held {
                    self.book.release(now, piece, attempt);
                    self.evict(piece, attempt, out);
                }
                self.sequence += 1;
                out.push(Output::Publish(Advert::Leaving { sequence: self.sequence }));
                // It says nothing more of its own accord.
                self.advertised = Some(Timestamp(u64::MAX));
                self.introduce_at = Timestamp(u64::MAX);
            }
        }
    }

    fn open(
        &mut self,
        now: Timestamp,
        number: u64,
        profile: ModelProfile,
        planning: Planning,
        out: &mut Vec<Output>,
    ) {
        if self.sessions.len() >= self.config.sessions_max {
            let error = SessionError::NoPlace;
            out.push(Output::Event(Event::Failed { session: number, error }));
            return;
        }
        let id = SessionId { requester: self.config.id, number };
        let session = Session::open(now, id, profile, planning, &self.view(now), out);
        self.sessions.insert(number, session);
    }

    /// What a planner would come to now, for a model of this node's own: the plans of a stream's
    /// lanes, or one. None if there is nobody who can compute it, or the planner's kind of plan is
    /// impossible.
    #[must_use]
    pub fn preview(
        &self,
        now: Timestamp,
        profile: &ModelProfile,
        planner: Planner,
        goal: Goal,
    ) -> Vec<Proposal> {
        let view = self.view(now);
        let (workers, settings) = (view.workers(), view.config.plans());
        if (planner, goal) == (Planner::Pf, Goal::Throughput) {
            let uplink = self.config.bandwidth as f64;
            return partition::lanes(profile, &workers, self.config.id, uplink, &settings);
        }
        let one = partition::plan(planner, profile, &workers, self.config.id, goal, &settings);
        one.into_iter().collect()
    }

    /// With what the sessions of one stream are to be opened, one for each lane: for several lanes
    /// the plans that were found now, which stay as they are.
    #[must_use]
    pub fn lanes(
        &self,
        now: Timestamp,
        profile: &ModelProfile,
        planning: &Planning,
    ) -> Vec<Planning> {
        let Planning::By(planner, goal) = planning else { return vec![planning.clone()] };
        let proposals = self.preview(now, profile, *planner, *goal);
        if proposals.len() < 2 {
            return vec![planning.clone()];
        }
        proposals.into_iter().map(Planning::as_proposed).collect()
    }

    /// With what lanes a stream may grow that has these nodes in its lanes already and is predicted
    /// to give so many outputs a second: none where those who are left would add too little.
    #[must_use]
    pub fn more_lanes(
        &self,
        now: Timestamp,
        profile: &ModelProfile,
        taken: &BTreeSet<NodeId>,
        per_s: f64,
    ) -> Vec<Planning> {
        let view = self.view(now);
        let (mut workers, settings) = (view.workers(), view.config.plans());
        workers.retain(|worker| !taken.contains(&worker.node));
        let uplink = self.config.bandwidth as f64;
        let found = partition::lanes(profile, &workers, self.config.id, uplink, &settings);
        let gain: f64 = found.iter().map(|lane| 1.0 / lane.bottleneck).sum();
        if gain <= per_s * settings.gain_min {
            return Vec::new();
        }
        found.into_iter().map(Planning::as_proposed).collect()
    }

    /// What a session may look at.
    fn view(&self, now: Timestamp) -> View<'_> {
        let own = (self.config.offering != Offering::Nobody).then(|| Offer {
            node: self.config.id,
            provider: cost::Provider {
                speed: self.speed,
                bandwidth: f64::INFINITY,
                byte_seconds: 0.0,
                memory_free: self.book.memory_free(),
            },
            slots: self.config.book.slots,
            ask: self.book.ask(),
        });
        View {
            now,
            flock: &self.flock,
            beliefs: &self.beliefs,
            own,
            terms: self.config.terms,
            config: &self.config.session,
        }
    }

    fn with_session(
        &mut self,
        now: Timestamp,
        number: u64,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Session, &View<'_>, &mut Vec<Output>),
    ) {
        let Some(mut session) = self.sessions.remove(&number) else {
            return;
        };
        act(&mut session, &self.view(now), out);
        self.sessions.insert(number, session);
    }

    fn each_session(
        &mut self,
        now: Timestamp,
        out: &mut Vec<Output>,
        mut act: impl FnMut(&mut Session, &View<'_>, &mut Vec<Output>),
    ) {
        let mut sessions = std::mem::take(&mut self.sessions);
        let view = self.view(now);
        for session in sessions.values_mut() {
            act(session, &view, out);
        }
        self.sessions = sessions;
    }

    /// A node may be its own provider: what it sends to itself arrives at once.
    fn deliver_to_self(&mut self, now: Timestamp, out: Vec<Output>) -> Vec<Output> {
        let mut queue = VecDeque::from(out);
        let mut done = Vec::new();
        while let Some(output) = queue.pop_front() {
            match output {
                Output::Send { to, message } if to == self.config.id => {
                    let mut more = Vec::new();
                    self.on_message(now, to, &message, &mut more);
                    queue.extend(more);
                }
                Output::SessionChanged { session } => {
                    done.extend(self.session_advert(session).map(Output::Publish));
                }
                Output::Suspect { node } => self.on_suspect(now, node),
                other => done.push(other),
            }
        }
        done
    }

    fn expire(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for piece in self.book.expire(now) {
            self.unload(piece, out);
        }
        for node in self.flock.expire(now) {
            self.each_session(now, out, |session, view, out| {
                session.on_provider_lost(now, node, view, out);
            });
        }
    }

    /// When it next says something of its own accord: soon if there is news, else from time to
    /// time, so that those who have missed it hear it and nobody forgets it.
    fn next_advert(&self) -> Timestamp {
        let Some(last) = self.advertised else {
            return Timestamp(0);
        };
        if self.news || self.told != Some(self.book.ask()) {
            return last + self.config.advert_gap;
        }
        self.introduce_at
    }

    fn introduce_every(&self) -> Duration {
        let nodes = u32::try_from(self.flock.len()).unwrap_or(u32::MAX);
        self.config.advert_every + self.config.advert_every_each.saturating_mul(nodes)
    }

    fn advertise(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if now < self.next_advert() {
            return;
        }
        self.advertised = Some(now);
        self.told = Some(self.book.ask());
        if !self.news && now < self.introduce_at {
            if self.config.offering == Offering::Everyone {
                let (ask, memory_free) = (self.book.ask(), self.book.memory_free());
                out.push(Output::Publish(Advert::Price(PriceAdvert { ask, memory_free })));
            }
            return;
        }
        self.introduce_at = now + self.introduce_every();
        self.news = false;
        self.speed_told = self.speed;
        self.sequence += 1;
        out.push(Output::Publish(Advert::Node(self.node_advert())));
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for number in sessions {
            out.extend(self.session_advert(number).map(Output::Publish));
        }
    }

    fn node_advert(&self) -> NodeAdvert {
        let open = self.config.offering == Offering::Everyone;
        let ask = self.book.ask();
        NodeAdvert {
            sequence: self.sequence,
            ttl_ms: self.ttl_ms(),
            speed: self.speed,
            bandwidth: self.config.bandwidth,
            byte_ps: self.config.byte_ps,
            memory_free: self.book.memory_free(),
            slots: if open { self.config.book.slots } else { 0 },
            ask: if open { ask } else { Ask { level: None, ..ask } },
            models: self.models.clone(),
            addresses: self.addresses.clone(),
        }
    }

    fn session_advert(&mut self, number: u64) -> Option<Advert> {
        let session = self.sessions.get(&number)?;
        let pieces = session.pieces()?;
        let (model, stage) = (session.profile().model(), session.stage());
        let places = session.places();
        self.sequence += 1;
        let (sequence, ttl_ms) = (self.sequence, self.ttl_ms());
        let session = number;
        let advert = SessionAdvert { sequence, ttl_ms, session, model, stage, pieces, places };
        Some(Advert::Session(advert))
    }

    fn ttl_ms(&self) -> u32 {
        let every = self.introduce_every();
        // A fifth for the way.
        let ttl = every * (self.config.adverts_lost_max + 1) + every / 5;
        u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX)
    }
}

fn piece_of(requester: NodeId, number: u64, index: u16) -> PieceId {
    PieceId { session: SessionId { requester, number }, index }
}

/// How far one run moves the belief about this machine's speed.
const RUN_WEIGHT: f64 = 0.1;
/// A change of any op class's speed by more than this factor is told to the others.
const DRIFT_TOLD: f64 = 1.1;
/// But no sooner after the last advert than this.
const DRIFT_TOLD_EVERY: Duration = Duration::from_secs(1);
