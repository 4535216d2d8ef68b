//! Virtual time: nodes, the queue of what will happen to them, and what becomes of it.
//!
//! Events are ordered by (time, insertion number), so ties are first come, first served. Every
//! message goes through the wire's codec, and what a node hears is what the bytes decode to.
//! Each node reads the time off a [`Clock`] of its own.
//!
//! Adverts spread over a [mesh](crate::gossip), inferences run through the pieces that providers
//! have loaded ([`inference`](crate::inference)), and what may go wrong on purpose is in
//! [`fault`](crate::fault).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use starling_protocol::{
    BlobId, NodeId, SessionId, Timestamp,
    host::LoadOrder,
    model::{ModelProfile, Speed},
    node::{Command, Config, Input, Node, Output},
    plan::{Piece, Plan},
    session::Planning,
    wire::{self, FailureReason, Message},
};
use thiserror::Error;

use crate::{
    clock::Clock,
    delivery::{Delivery, Trace, flip, session_of},
    gossip::{self, Gossip},
    inference::{Frame, Inference},
    journal::{Detail, Journal},
    lanes::Lanes,
    ledger::{Class, Ledger, Sighting},
    network::{self, Flipped, Network},
    queue::Queue,
    random::{Purpose, generator},
};

/// What a world is like, apart from who lives in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The links.
    pub network: network::Config,
    /// Nodes start within this time of each other.
    pub start_max: Duration,
    /// The shortest time in which a provider loads a piece.
    pub load_min: Duration,
    /// The longest.
    pub load_max: Duration,
    /// No world runs for more events than this.
    pub steps_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            network: network::Config::default(),
            start_max: Duration::from_millis(100),
            load_min: Duration::from_millis(5),
            load_max: Duration::from_millis(50),
            steps_max: 2_000_000_000,
        }
    }
}

/// Why a world was stopped before what it was run for had come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Stuck {
    /// It took too long.
    #[error("it did not come true within {0:?} of virtual time")]
    Time(Duration),
    /// It took too many events: most likely a loop of messages.
    #[error("it did not come true within {0} events")]
    Steps(u64),
    /// Nothing is left to happen.
    #[error("nothing is left to happen")]
    Silence,
}

/// Nodes in virtual time.
pub struct World {
    pub(crate) settings: Settings,
    pub(crate) now: Timestamp,
    queue: Queue<Delivery>,
    steps: u64,
    pub(crate) peers: Vec<Peer>,
    // The places of those that live.
    pub(crate) alive: Vec<usize>,
    places: BTreeMap<NodeId, usize>,
    // Whose adverts a node does not hear, though it passes them on.
    pub(crate) hidden: BTreeSet<(usize, NodeId)>,
    pub(crate) network: Network,
    pub(crate) gossip: Gossip,
    machines: ChaCha12Rng,
    pub(crate) ledger: Ledger,
    pub(crate) inference: Inference,
    pub(crate) lanes: Vec<Lanes>,
    journal: Journal,
    pub(crate) trace: Trace,
}

/// A machine, and the process that runs on it.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    // To start it again from.
    pub(crate) config: Config,
    // Nothing once it has crashed.
    pub(crate) node: Option<Node>,
    // Counts its starts: what was meant for an earlier life does not happen to a later one.
    pub(crate) life: u32,
    // The earliest wake-up in the queue.
    pub(crate) wake: Option<Timestamp>,
    // What waits while the process is frozen; nothing while it runs.
    pub(crate) frozen: Option<VecDeque<Delivery>>,
    pub(crate) clock: Clock,
    // What the machine really does per second, and by how much it is slowed down.
    pub(crate) speed: Speed,
    pub(crate) slowness: f64,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            now: Timestamp(0),
            queue: Queue::new(),
            steps: 0,
            peers: Vec::new(),
            alive: Vec::new(),
            places: BTreeMap::new(),
            hidden: BTreeSet::new(),
            network: Network::new(seed, settings.network),
            gossip: Gossip::new(seed),
            machines: generator(seed, Purpose::Machines),
            ledger: Ledger::default(),
            inference: Inference::default(),
            lanes: Vec::new(),
            journal: Journal::default(),
            trace: Trace::default(),
            settings,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What the clock of the node at a place shows.
    #[must_use]
    pub fn now_at(&self, place: usize) -> Timestamp {
        self.peers[place].clock.read(self.now)
    }

    /// Events so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What the nodes said so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What happened, in words.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How much of what happens is written down.
    pub fn keep_journal(&mut self, detail: Detail) {
        self.journal.keep(detail);
    }

    /// The bytes of gossip that a node has sent and received.
    #[must_use]
    pub fn gossip_load(&self, place: usize) -> gossip::Load {
        self.gossip.load(place)
    }

    /// From now on a node hears nothing that this author gossips: its picture lacks that.
    pub fn hide(&mut self, place: usize, author: NodeId) {
        self.hidden.insert((place, author));
    }

    /// A hash of all that ever happened to any node: when, to which, and every byte of it. Copies
    /// of an advert after the first are dropped before a node hears of them, and don't count.
    #[must_use]
    pub fn trace_hash(&self) -> blake3::Hash {
        self.trace.hash()
    }

    /// The node at a place, unless it has crashed.
    #[must_use]
    pub fn node(&self, place: usize) -> Option<&Node> {
        self.peers.get(place)?.node.as_ref()
    }

    /// All nodes that have not crashed, with their places.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.peers.iter().enumerate().filter_map(|(place, peer)| Some((place, peer.node.as_ref()?)))
    }

    /// The place of the node with this id, alive or not.
    #[must_use]
    pub fn place(&self, id: &NodeId) -> Option<usize> {
        self.places.get(id).copied()
    }

    /// The id of the node at a place.
    #[must_use]
    pub fn id(&self, place: usize) -> NodeId {
        self.peers[place].id
    }

    /// What the node at a place was started from.
    #[must_use]
    pub fn config(&self, place: usize) -> &Config {
        &self.peers[place].config
    }

    /// Adds a node, which starts within [`Settings::start_max`], and returns its place.
    ///
    /// # Panics
    /// If there is a node of this id already.
    pub fn add(&mut self, config: Config) -> usize {
        self.add_with_clock(config, Clock::default())
    }

    /// Adds a node with a clock of its own.
    ///
    /// # Panics
    /// If there is a node of this id already.
    pub fn add_with_clock(&mut self, config: Config, clock: Clock) -> usize {
        let (place, id) = (self.peers.len(), config.id);
        let taken = self.places.insert(id, place);
        assert!(taken.is_none(), "two nodes of one id");
        self.peers.push(Peer {
            id,
            node: None,
            life: 0,
            wake: None,
            frozen: None,
            clock,
            speed: config.speed,
            slowness: 1.0,
            config,
        });
        self.gossip.add();
        self.inference.add();
        let delay = self.machines.random_range(Duration::ZERO..=self.settings.start_max);
        self.begin_life(place, delay);
        place
    }

    /// Opens a session at a node, under a number never used there before.
    pub fn open(&mut self, place: usize, number: u64, profile: ModelProfile, planning: Planning) {
        let session = SessionId { requester: self.peers[place].id, number };
        self.ledger.on_open(session);
        self.inference.on_open(session, profile.clone());
        self.note(Detail::Events, || format!("session {session} opens"));
        self.command(place, Command::Open { session: number, profile, planning });
    }

    /// Closes a session.
    pub fn close(&mut self, place: usize, number: u64) {
        let session = SessionId { requester: self.peers[place].id, number };
        self.ledger.on_close(session);
        self.inference.on_end(session);
        self.note(Detail::Events, || format!("session {session} is closed"));
        self.command(place, Command::Close { session: number });
    }

    /// Runs until `done`, which is asked after each event.
    ///
    /// # Errors
    /// If that takes longer than `limit` of virtual time from now, or too many events.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&World) -> bool,
    ) -> Result<(), Stuck> {
        let end = self.now + limit;
        while !done(self) {
            match self.queue.next_at() {
                None => return Err(Stuck::Silence),
                Some(next) if next > end => return Err(Stuck::Time(limit)),
                Some(_) if self.steps >= self.settings.steps_max => {
                    return Err(Stuck::Steps(self.settings.steps_max));
                }
                Some(_) => self.step(),
            }
        }
        Ok(())
    }

    /// Lets this much time go by.
    ///
    /// # Errors
    /// If too many events happen in it.
    pub fn run_for(&mut self, span: Duration) -> Result<(), Stuck> {
        let end = self.now + span;
        match self.run_until(span, |_| false) {
            Ok(()) | Err(Stuck::Time(_) | Stuck::Silence) => {
                self.now = end;
                Ok(())
            }
            Err(stuck @ Stuck::Steps(_)) => Err(stuck),
        }
    }

    /// Lets the next event happen, if there is any.
    pub fn step(&mut self) {
        let Some(event) = self.queue.pop() else { return };
        assert!(event.at >= self.now, "time runs backwards");
        self.now = event.at;
        self.steps += 1;
        match &mut self.peers[event.to].frozen {
            // It would be woken when it thaws anyhow.
            Some(_) if matches!(event.what, Delivery::Wake { .. }) => {}
            Some(waiting) if waiting.len() < FROZEN_MAX => waiting.push_back(event.what),
            Some(_) => self.lose(&event.what),
            None => self.happen(event.to, event.what),
        }
    }

    fn happen(&mut self, place: usize, what: Delivery) {
        self.lose(&what);
        let peer = &self.peers[place];
        if what.life().is_some_and(|life| life != peer.life) {
            return;
        }
        if peer.node.is_none() {
            return self.bounce(place, what);
        }
        match what {
            Delivery::Ask { from, ids } => self.on_asked(place, from, &ids),
            Delivery::Copy { number, from } => self.on_copy(place, number, from),
            Delivery::Done { frame, .. } => self.on_done(place, &frame),
            Delivery::Frame(frame) => self.on_frame(place, &frame),
            Delivery::Heartbeat { .. } => self.on_heartbeat(place),
            Delivery::Local { input, .. } => self.on_local(place, *input),
            Delivery::Message { from, bytes, .. } => self.on_message(place, from, &bytes),
            Delivery::Tell { from, ids } => self.on_told(place, from, &ids),
            Delivery::Wake { .. } => self.on_wake(place),
        }
    }

    /// A copy of a message is on its way no longer, whatever becomes of it.
    pub(crate) fn lose(&mut self, what: &Delivery) {
        if let Delivery::Message { class, .. } = what {
            self.ledger.on_copy_gone(*class);
        }
    }

    fn on_wake(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        let Some(node) = &peer.node else { return };
        if peer.wake != Some(self.now) {
            // An earlier one was set after this.
            return;
        }
        peer.wake = None;
        let deadline = node.deadline();
        if deadline > peer.clock.read(self.now) {
            // It has moved since.
            return self.arm(place, deadline);
        }
        self.trace.wake(self.now, place);
        self.feed(place, Input::Tick);
    }

    fn on_local(&mut self, place: usize, input: Input) {
        self.trace.local(self.now, place, &input);
        if let Input::Loaded { piece, epoch, result: Ok(()) } = &input {
            self.inference.on_loaded(place, piece, *epoch);
        }
        self.feed(place, input);
    }

    fn on_message(&mut self, place: usize, from: u32, bytes: &[u8]) {
        let from = self.peers[from as usize].id;
        self.trace.bytes(self.now, place, &from, bytes);
        let message = wire::decode(bytes).expect("what can't be decoded does not arrive");
        self.feed(place, Input::Message { from, message });
    }

    pub(crate) fn feed(&mut self, place: usize, input: Input) {
        let peer = &mut self.peers[place];
        let Some(node) = peer.node.as_mut() else { return };
        let outputs = node.handle(peer.clock.read(self.now), input);
        let deadline = node.deadline();
        for output in outputs {
            self.carry_out(place, output);
        }
        self.arm(place, deadline);
    }

    fn carry_out(&mut self, place: usize, output: Output) {
        match output {
            Output::Event(event) => {
                let id = self.peers[place].id;
                self.note(Detail::Events, || format!("{id} says {event:?}"));
                self.on_event(place, &event);
                self.ledger.on_event(id, event);
            }
            Output::Load(order) => self.load(place, order),
            Output::Publish(advert) => self.publish(place, &advert),
            Output::Send { to, message } => self.send(place, to, &message),
            Output::SendInput { session, epoch, request } => {
                self.send_input(place, session, epoch, request);
            }
            Output::Slice { session, plan } => {
                let slices = made_up_slices(session, &plan);
                self.push_local(Duration::ZERO, place, Input::Sliced { session, plan, slices });
            }
            Output::Unload(piece) => self.inference.unload(place, &piece),
            Output::Wire { session, inputs, outputs, .. } => {
                self.wire(place, session, inputs, &outputs);
            }
            // These never leave their node.
            Output::SessionChanged { .. } | Output::Suspect { .. } => {}
        }
    }

    fn load(&mut self, place: usize, order: LoadOrder) {
        let span = self.machines.random_range(self.settings.load_min..=self.settings.load_max);
        let (piece, epoch) = (order.piece, order.epoch);
        // Garbled installs ask for layers that their models don't have, which an engine refuses.
        let sound = self.inference.on_order(place, order);
        let done = Input::Loaded { piece, epoch, result: sound.ok_or(FailureReason::BadSlice) };
        self.push_local(span, place, done);
    }

    fn send(&mut self, place: usize, to: NodeId, message: &Message) {
        let bytes: Arc<[u8]> = wire::encode(message).expect("nodes send what fits the wire").into();
        let from = self.peers[place].id;
        self.note(Detail::Messages, || format!("{from} to {to}: {message:?}"));
        self.ledger.on_message(session_of(from, to, message), message, bytes.len());
        let Some(other) = self.place(&to) else { return };
        let mut arrives = false;
        for delay in self.network.transmit(place, other) {
            let Some(bytes) = self.survive(&bytes) else { continue };
            let class = Class::of(message);
            self.ledger.on_copy_sent(class);
            self.push(delay, other, Delivery::Message { from: short(place), bytes, class });
            arrives = true;
        }
        if !arrives {
            self.ledger.on_lost(message);
        }
    }

    /// The bytes that arrive of a message, if any do.
    fn survive(&mut self, bytes: &Arc<[u8]>) -> Option<Arc<[u8]>> {
        let Some(bit) = self.network.flipped_bit(bytes.len()) else {
            return Some(Arc::clone(bytes));
        };
        let flipped: Arc<[u8]> = flip(bytes, bit).into();
        let sound = wire::decode::<Message>(&flipped).is_ok();
        if sound && self.network.flipped() == Flipped::Heard {
            self.ledger.see(Sighting::GarbledMessage);
            return Some(flipped);
        }
        self.ledger.see(Sighting::CorruptMessage);
        None
    }

    /// Sets a wake-up for the deadline, unless an earlier one is set, which will look again.
    pub(crate) fn arm(&mut self, place: usize, deadline: Timestamp) {
        let peer = &mut self.peers[place];
        let at = peer.clock.when(deadline).max(self.now + TIMER_GRAIN);
        if peer.wake.is_some_and(|wake| wake <= at) {
            return;
        }
        peer.wake = Some(at);
        let life = peer.life;
        self.queue.push(at, place, Delivery::Wake { life });
    }

    /// Starts the process at a place, after a while.
    pub(crate) fn begin_life(&mut self, place: usize, delay: Duration) {
        let peer = &mut self.peers[place];
        peer.life += 1;
        peer.wake = None;
        peer.frozen = None;
        peer.node = Some(Node::new(peer.config.clone()));
        let life = peer.life;
        self.count_the_living();
        self.graft(place);
        self.push_local(delay, place, Input::Tick);
        let first = delay + self.gossip.first_heartbeat();
        self.push(first, place, Delivery::Heartbeat { life });
    }

    pub(crate) fn count_the_living(&mut self) {
        self.alive = self.nodes().map(|(place, _)| place).collect();
    }

    pub(crate) fn command(&mut self, place: usize, command: Command) {
        self.push_local(Duration::ZERO, place, Input::Command(command));
    }

    pub(crate) fn push_local(&mut self, delay: Duration, place: usize, input: Input) {
        let life = self.peers[place].life;
        self.push(delay, place, Delivery::Local { life, input: Box::new(input) });
    }

    pub(crate) fn push(&mut self, delay: Duration, to: usize, what: Delivery) {
        self.queue.push(self.now + delay, to, what);
    }

    pub(crate) fn trace_frame(&mut self, place: usize, frame: &Frame) {
        self.trace.frame(self.now, place, frame);
    }

    pub(crate) fn note(&mut self, detail: Detail, text: impl FnOnce() -> String) {
        self.journal.note(detail, self.now, text);
    }
}

/// A place as messages carry it: they are many.
pub(crate) fn short(place: usize) -> u32 {
    u32::try_from(place).expect("few nodes")
}

/// Slices of a graph that nobody will read, with ids that differ where the graphs would.
fn made_up_slices(session: u64, plan: &Plan) -> Vec<(BlobId, u32)> {
    let slice = |piece: &Piece| {
        let hash = blake3::hash(format!("{session}:{}", piece.layers).as_bytes());
        (BlobId(*hash.as_bytes()), SLICE_BYTES)
    };
    plan.pieces().iter().map(slice).collect()
}

/// What a slice's graph takes without its weights, about.
const SLICE_BYTES: u32 = 4096;

/// No timer fires sooner than this, as on a live node. A deadline that lies in the past for good
/// then costs one event a millisecond and not an endless loop at one instant.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// What waits for a frozen process, at most: a kernel's buffers end somewhere too.
const FROZEN_MAX: usize = 1 << 16;
