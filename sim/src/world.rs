//! Virtual time: nodes, the queue of what will happen to them, and faults as verbs.
//!
//! Events are ordered by (time, insertion number), so ties are first come, first served. Every
//! message goes through the wire's codec, and what a node hears is what the bytes decode to.
//!
//! Gossip is modelled as what it achieves: an advert goes to every other node over that pair's own
//! link, with its own latency and faults.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use starling_protocol::{
    BlobId, NodeId, SessionId, Timestamp,
    host::LoadOrder,
    model::ModelProfile,
    node::{Command, Config, Input, Node, Output},
    plan::Plan,
    session::Planning,
    wire::{self, Advert, Message},
};
use thiserror::Error;

use crate::{
    ledger::{Class, Ledger},
    network::{self, Network},
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
            steps_max: 200_000_000,
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
    settings: Settings,
    now: Timestamp,
    queue: BinaryHeap<Reverse<Event>>,
    pushed: u64,
    steps: u64,
    peers: Vec<Peer>,
    places: BTreeMap<NodeId, usize>,
    network: Network,
    machines: ChaCha12Rng,
    ledger: Ledger,
    trace: blake3::Hasher,
}

struct Peer {
    id: NodeId,
    // Nothing once it has crashed.
    node: Option<Node>,
    // The earliest wake-up in the queue.
    wake: Option<Timestamp>,
}

struct Event {
    at: Timestamp,
    number: u64,
    to: usize,
    what: Delivery,
}

enum Delivery {
    Advert { from: NodeId, bytes: Arc<[u8]> },
    Local(Input),
    Message { from: NodeId, bytes: Arc<[u8]>, class: Class },
    Wake,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            now: Timestamp(0),
            queue: BinaryHeap::new(),
            pushed: 0,
            steps: 0,
            peers: Vec::new(),
            places: BTreeMap::new(),
            network: Network::new(seed, settings.network),
            machines: generator(seed, Purpose::Machines),
            ledger: Ledger::default(),
            trace: blake3::Hasher::new(),
            settings,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
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

    /// A hash of all that ever happened to any node: when, to which, and every byte of it.
    #[must_use]
    pub fn trace_hash(&self) -> blake3::Hash {
        self.trace.finalize()
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

    /// Adds a node, which starts within [`Settings::start_max`], and returns its place.
    ///
    /// # Panics
    /// If there is a node of this id already.
    pub fn add(&mut self, config: Config) -> usize {
        let (place, id) = (self.peers.len(), config.id);
        let taken = self.places.insert(id, place);
        assert!(taken.is_none(), "two nodes of one id");
        self.peers.push(Peer { id, node: Some(Node::new(config)), wake: None });
        let start = self.machines.random_range(Duration::ZERO..=self.settings.start_max);
        self.push(start, place, Delivery::Local(Input::Tick));
        place
    }

    /// Opens a session at a node, under a number never used there before.
    pub fn open(&mut self, place: usize, number: u64, profile: ModelProfile, planning: Planning) {
        let requester = self.peers[place].id;
        self.ledger.on_open(SessionId { requester, number });
        let command = Command::Open { session: number, profile, planning };
        self.push(Duration::ZERO, place, Delivery::Local(Input::Command(command)));
    }

    /// A node falls silent for good. The others notice when their connections to it close, one
    /// link latency later; what it had sent before still arrives.
    pub fn crash(&mut self, place: usize) {
        self.peers[place].node = None;
        let id = self.peers[place].id;
        for other in 0..self.peers.len() {
            if other != place {
                let delay = self.network.latency(place, other);
                self.push(delay, other, Delivery::Local(Input::Left(id)));
            }
        }
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
            match self.queue.peek() {
                None => return Err(Stuck::Silence),
                Some(Reverse(next)) if next.at > end => return Err(Stuck::Time(limit)),
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
        let Some(Reverse(event)) = self.queue.pop() else { return };
        assert!(event.at >= self.now, "time runs backwards");
        self.now = event.at;
        self.steps += 1;
        if let Delivery::Message { class, .. } = event.what {
            self.ledger.on_copy_gone(class);
        }
        let Some(node) = &self.peers[event.to].node else { return };
        if let Delivery::Wake = event.what {
            let deadline = node.deadline();
            let wake = &mut self.peers[event.to].wake;
            if *wake != Some(event.at) {
                // An earlier one was set after this.
                return;
            }
            *wake = None;
            if deadline > self.now {
                // It has moved since.
                self.arm(event.to, deadline);
                return;
            }
        }
        self.record(&event);
        self.feed(event.to, open(event.what));
    }

    fn feed(&mut self, place: usize, input: Input) {
        let Some(node) = self.peers[place].node.as_mut() else { return };
        let outputs = node.handle(self.now, input);
        let deadline = node.deadline();
        for output in outputs {
            self.carry_out(place, output);
        }
        self.arm(place, deadline);
    }

    fn carry_out(&mut self, place: usize, output: Output) {
        match output {
            Output::Event(event) => self.ledger.on_event(self.peers[place].id, event),
            Output::Load(order) => self.load(place, &order),
            Output::Publish(advert) => self.publish(place, &advert),
            Output::Send { to, message } => self.send(place, to, &message),
            Output::Slice { session, plan } => {
                let slices = made_up_slices(session, &plan);
                self.push(
                    Duration::ZERO,
                    place,
                    Delivery::Local(Input::Sliced { session, plan, slices }),
                );
            }
            // Inference in virtual time is not simulated: no input is ever sent. What is unloaded
            // leaves nothing behind, and `SessionChanged` never leaves its node.
            Output::SendInput { .. }
            | Output::SessionChanged { .. }
            | Output::Suspect { .. }
            | Output::Unload(_) => {}
        }
    }

    fn load(&mut self, place: usize, order: &LoadOrder) {
        let span = self.machines.random_range(self.settings.load_min..=self.settings.load_max);
        let done = Input::Loaded { piece: order.piece, epoch: order.epoch, result: Ok(()) };
        self.push(span, place, Delivery::Local(done));
    }

    fn publish(&mut self, place: usize, advert: &Advert) {
        let bytes: Arc<[u8]> =
            wire::encode(advert).expect("nodes publish what fits the wire").into();
        self.ledger.on_advert(bytes.len());
        let from = self.peers[place].id;
        for other in (0..self.peers.len()).filter(|other| *other != place) {
            for delay in self.network.transmit(place, other) {
                self.push(delay, other, Delivery::Advert { from, bytes: Arc::clone(&bytes) });
            }
        }
    }

    fn send(&mut self, place: usize, to: NodeId, message: &Message) {
        let bytes: Arc<[u8]> = wire::encode(message).expect("nodes send what fits the wire").into();
        let from = self.peers[place].id;
        self.ledger.on_message(session_of(from, to, message), message, bytes.len());
        let Some(other) = self.place(&to) else { return };
        let class = Class::of(message);
        for delay in self.network.transmit(place, other) {
            self.ledger.on_copy_sent(class);
            self.push(delay, other, Delivery::Message { from, bytes: Arc::clone(&bytes), class });
        }
    }

    /// Sets a wake-up for the deadline, unless an earlier one is set, which will look again.
    fn arm(&mut self, place: usize, deadline: Timestamp) {
        let at = deadline.max(self.now + TIMER_GRAIN);
        let peer = &mut self.peers[place];
        if peer.wake.is_some_and(|wake| wake <= at) {
            return;
        }
        peer.wake = Some(at);
        self.push(at.since(self.now), place, Delivery::Wake);
    }

    fn push(&mut self, delay: Duration, to: usize, what: Delivery) {
        self.pushed += 1;
        self.queue.push(Reverse(Event { at: self.now + delay, number: self.pushed, to, what }));
    }

    fn record(&mut self, event: &Event) {
        match &event.what {
            Delivery::Wake => self.record_parts(event, 0, &[], &[]),
            Delivery::Advert { from, bytes } => self.record_parts(event, 1, &from.0, bytes),
            Delivery::Message { from, bytes, .. } => self.record_parts(event, 2, &from.0, bytes),
            // These never go over a wire, so they have no encoding but this.
            Delivery::Local(input) => {
                self.record_parts(event, 3, &[], format!("{input:?}").as_bytes());
            }
        }
    }

    fn record_parts(&mut self, event: &Event, kind: u8, from: &[u8], bytes: &[u8]) {
        self.trace.update(&event.at.0.to_le_bytes());
        self.trace.update(&(event.to as u64).to_le_bytes());
        self.trace.update(&[kind]);
        self.trace.update(from);
        self.trace.update(&(bytes.len() as u64).to_le_bytes());
        self.trace.update(bytes);
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Event {}

/// The input that a delivery is to its node.
fn open(delivery: Delivery) -> Input {
    let sound = "what was encoded can be decoded";
    match delivery {
        Delivery::Advert { from, bytes } => {
            Input::Advert { from, advert: wire::decode(&bytes).expect(sound) }
        }
        Delivery::Local(input) => input,
        Delivery::Message { from, bytes, .. } => {
            Input::Message { from, message: wire::decode(&bytes).expect(sound) }
        }
        Delivery::Wake => Input::Tick,
    }
}

/// A message carries its session's number alone; whose session it is depends on who speaks.
fn session_of(from: NodeId, to: NodeId, message: &Message) -> SessionId {
    match *message {
        Message::Bid { session, .. }
        | Message::Renew { session, .. }
        | Message::Release { session, .. }
        | Message::Install { session, .. } => SessionId { requester: from, number: session },
        Message::Award { session, .. }
        | Message::Refusal { session, .. }
        | Message::Eviction { session, .. }
        | Message::Renewed { session, .. }
        | Message::Ready { session, .. }
        | Message::Failed { session, .. } => SessionId { requester: to, number: session },
    }
}

/// Slices of a graph that nobody will read, with ids that differ where the graphs would.
fn made_up_slices(session: u64, plan: &Plan) -> Vec<(BlobId, u32)> {
    let slice = |layers| {
        let hash = blake3::hash(format!("{session}:{layers}").as_bytes());
        (BlobId(*hash.as_bytes()), SLICE_BYTES)
    };
    plan.pieces().iter().map(slice).collect()
}

/// What a slice's graph takes without its weights, about.
const SLICE_BYTES: u32 = 4096;

/// No timer fires sooner than this, as on a live node. A deadline that lies in the past for good
/// then costs one event a millisecond and not an endless loop at one instant.
const TIMER_GRAIN: Duration = Duration::from_millis(1);
