//! The one loop that owns the clock, the randomness, the swarm and the protocol's state machine.
//! It carries inputs in and outputs out, and decides nothing.

mod clock;
mod edges;
mod guests;
mod handle;
mod link;
mod loader;
mod outbox;
mod own;
mod stream;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use libp2p::{Multiaddr, identity::Keypair};
use starling_protocol::{
    ModelId, NodeId, PieceId, Timestamp,
    model::{Speed, Work},
    node::{Config, Event, Input, Node, Offering, Output},
    plan::Plan,
    session::Bidding,
    wire::{FailureReason, Message},
};
use thiserror::Error;
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinHandle,
    time::Instant,
};

use clock::Clock;
use guests::Guests;
use handle::Request;
pub(crate) use handle::{Handle, News, PeerView};
use link::LinkSpeed;
use loader::Loader;
use own::OwnSessions;
pub(crate) use own::{Answer, SessionNews};
pub(crate) use stream::Stream;

use crate::{
    convert, heap, identity,
    net::{
        Net, NetConfig, NetError, NetEvent, RESULT, ReplyTo, blobs, handling,
        tensors::{self, Arrival, TensorConfig, TensorLinks},
    },
    quota,
    store::{BlobStore, Library},
    work::{WorkConfig, Worker},
};

/// Everything that a node is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where the identity and the weights are kept.
    pub(crate) data: PathBuf,
    /// Where to listen.
    pub(crate) listen: Vec<Multiaddr>,
    /// Whom to dial.
    pub(crate) peers: Vec<Multiaddr>,
    /// Whether to look for others on the local network.
    pub(crate) mdns: bool,
    /// The flock's name.
    pub(crate) swarm: String,
    /// For whom it computes.
    pub(crate) offering: Offering,
    /// The most pieces at once.
    pub(crate) slots: u16,
    /// Bytes of weights that it takes.
    pub(crate) memory: u64,
    /// With what the pieces of its own sessions open.
    pub(crate) bidding: Bidding,
    /// How long its own sessions wait for a provider when there is none.
    pub(crate) patience: Duration,
    /// Bytes of weights that it keeps on disk.
    pub(crate) disk: u64,
    /// Bytes per second of its link, until measured.
    pub(crate) bandwidth: u64,
    /// How it computes.
    pub(crate) work: WorkConfig,
    /// Whether the identity is kept: a passing guest takes a new one.
    pub(crate) identity: Identity,
}

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The one in the data directory, made at the first start.
    Kept,
    /// One for this run alone, so that it can run beside the machine's node.
    Passing,
}

/// Why a node does not start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// Two nodes with one identity would be one node in two places to everyone else.
    #[error(
        "another node is running with the data folder {}; give this one its own with --data",
        .0.display()
    )]
    Busy(PathBuf),
    /// The key is unreadable.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The data folder can't be locked.
    #[error("can't lock {path}: {reason}; choose another folder with --data")]
    Lock {
        /// Where.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The network can't be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The weight cache can't be used.
    #[error("can't use the weight cache in {path}: {reason}; choose another folder with --data")]
    Store {
        /// Where.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// No threads.
    #[error("can't start the compute threads: {0}")]
    Threads(std::io::Error),
}

/// What happens outside the loop, told to it by the tasks it started.
enum Inner {
    EdgeFailed { piece: PieceId, epoch: u32 },
    Loaded { computed: loader::Computed, result: Result<loader::Made, FailureReason> },
    Ran { work: Work, seconds: f64 },
    Sliced { session: u64, plan: Plan, slices: Vec<loader::CutSlice> },
}

/// A started node: its loop, to be awaited, and a handle to speak to it.
pub(crate) struct Started {
    /// To speak to it.
    pub(crate) handle: Handle,
    /// What it tells, from the very beginning.
    pub(crate) news: broadcast::Receiver<News>,
    /// Ends after [`Handle::leave`].
    pub(crate) running: JoinHandle<()>,
}

/// Starts a node: measures its speed if it computes, and joins the flock.
pub(crate) async fn start(settings: Settings) -> Result<Started, StartError> {
    let (keypair, lock) = match settings.identity {
        Identity::Kept => {
            let keypair = identity::load_or_create(&settings.data)?;
            (keypair, Some(lock(&settings.data)?))
        }
        Identity::Passing => (Keypair::generate_ed25519(), None),
    };
    let worker = Worker::start(settings.work).map_err(StartError::Threads)?;
    let blobs_dir = settings.data.join("blobs");
    let store = BlobStore::open(&blobs_dir, settings.disk)
        .map_err(|reason| StartError::Store { path: blobs_dir, reason })?;
    let library = Arc::new(Library::new(Some(Arc::new(store))));
    let net = Net::new(NetConfig {
        keypair,
        listen: settings.listen.clone(),
        peers: settings.peers.clone(),
        mdns: settings.mdns,
        swarm: settings.swarm.clone(),
    })?;
    let local = net.local();
    let config = TensorConfig::default();
    let (links, arrivals) = tensors::tensor_links(net.streams(), local, &settings.swarm, config)?;
    blobs::serve(net.streams(), &settings.swarm, library.clone())?;
    let (requests, inbox) = mpsc::channel(64);
    let (news, events) = broadcast::channel(256);
    let handle = Handle::new(local, requests);
    let (inner, happened) = mpsc::unbounded_channel();
    let loader = Loader::new(
        library,
        net.streams(),
        settings.swarm.clone(),
        settings.memory,
        settings.work.options,
    );
    let parts =
        Parts { net, links, arrivals, worker, loader, inbox, inner, happened, news, _lock: lock };
    let running = tokio::spawn(run(settings, parts));
    Ok(Started { handle, news: events, running })
}

struct Parts {
    net: Net,
    links: TensorLinks,
    arrivals: mpsc::Receiver<Arrival>,
    worker: Worker,
    loader: Loader,
    inbox: mpsc::Receiver<Request>,
    inner: mpsc::UnboundedSender<Inner>,
    happened: mpsc::UnboundedReceiver<Inner>,
    news: broadcast::Sender<News>,
    // Held as long as the identity is in use; the system lets go of it, however the node ends.
    _lock: Option<File>,
}

fn lock(data: &Path) -> Result<File, StartError> {
    let path = data.join("node.lock");
    let refused = |reason| StartError::Lock { path: path.clone(), reason };
    let file = File::create(&path).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Busy(data.to_owned())),
        Err(TryLockError::Error(reason)) => Err(refused(reason)),
    }
}

async fn run(settings: Settings, mut parts: Parts) {
    let (Measured { speed, byte_ps }, missed) = calibrate(&settings, &mut parts).await;
    heap::give_back_soon();
    let clock = Clock::start();
    let local = parts.net.local();
    let mut config = Config::new(local, speed, clock.now().0);
    config.offering = settings.offering;
    (config.bandwidth, config.byte_ps) = (settings.bandwidth, byte_ps);
    config.book.slots = settings.slots;
    config.book.memory = settings.memory;
    config.session.bidding = settings.bidding;
    config.session.search_max = settings.patience;
    let mut runtime = Runtime {
        node: Node::new(config),
        clock,
        guests: Guests::new(local, parts.links.clone(), parts.worker.clone(), parts.inner.clone()),
        own: OwnSessions::new(local, parts.links.clone(), parts.inner.clone(), clock.now().0),
        link: LinkSpeed::told(settings.bandwidth),
        models: Vec::new(),
        parts,
    };
    runtime.parts.news.send(News::Calibrated(speed)).ok();
    for event in missed {
        runtime.on_net(event);
    }
    runtime.run().await;
}

/// What this machine can do.
#[derive(Default)]
struct Measured {
    speed: Speed,
    byte_ps: u32,
}

impl Measured {
    async fn of(worker: Worker) -> Self {
        let speed = worker.measure(CALIBRATION).await;
        let core_seconds = handling::core_seconds_per_byte().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what bytes cost the processor is not known");
            0.0
        });
        let all = || std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let cores = quota::cores().unwrap_or_else(all);
        Self {
            speed: speed.map(|speed| convert::speed(&speed)).unwrap_or_default(),
            byte_ps: (core_seconds / cores * 1e12) as u32,
        }
    }
}

/// Measures the node's speed. The swarm is polled meanwhile, since others may be dialling
/// already; what it says is returned for later.
async fn calibrate(settings: &Settings, parts: &mut Parts) -> (Measured, Vec<NetEvent>) {
    let mut missed = Vec::new();
    if settings.offering == Offering::Nobody {
        return (Measured::default(), missed);
    }
    let measured = Measured::of(parts.worker.clone());
    tokio::pin!(measured);
    loop {
        tokio::select! {
            measured = &mut measured => return (measured, missed),
            // A flood in this half second is no loss: adverts and market messages are repeated.
            event = parts.net.next() => if missed.len() < MISSED_MAX {
                missed.push(event);
            },
        }
    }
}

/// Why the loop woke up.
enum Woken {
    Net(NetEvent),
    Arrival(Arrival),
    Inner(Inner),
    Request(Option<Request>),
    Due,
}

struct Runtime {
    node: Node,
    clock: Clock,
    parts: Parts,
    guests: Guests,
    own: OwnSessions,
    link: LinkSpeed,
    models: Vec<ModelId>,
}

impl Runtime {
    async fn run(mut self) {
        self.feed(Input::Tick);
        loop {
            let due = self.clock.instant(self.node.deadline()).max(std::time::Instant::now());
            let woken = tokio::select! {
                event = self.parts.net.next() => Woken::Net(event),
                Some(arrival) = self.parts.arrivals.recv() => Woken::Arrival(arrival),
                Some(inner) = self.parts.happened.recv() => Woken::Inner(inner),
                request = self.parts.inbox.recv() => Woken::Request(request),
                () = tokio::time::sleep_until(Instant::from_std(due)) => Woken::Due,
            };
            self.clock.woken(std::time::Instant::now(), due);
            match woken {
                Woken::Net(event) => self.on_net(event),
                Woken::Arrival(arrival) => self.on_arrival(arrival),
                Woken::Inner(inner) => self.on_inner(inner),
                Woken::Request(Some(Request::Leave(done))) => {
                    self.leave().await;
                    done.send(()).ok();
                    return;
                }
                Woken::Request(Some(request)) => self.on_request(request),
                // Every handle is gone: nobody can ask for anything more.
                Woken::Request(None) => return self.leave().await,
                Woken::Due => self.feed(Input::Tick),
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn feed(&mut self, input: Input) {
        let outputs = self.node.handle(self.now(), input);
        self.perform(outputs, None);
    }

    /// Carries out what the protocol wants. What goes to the node that just asked travels in the
    /// answer, which saves half the messages.
    fn perform(&mut self, outputs: Vec<Output>, asked: Option<(NodeId, ReplyTo)>) {
        let mut answers: Vec<Message> = Vec::new();
        for output in outputs {
            match output {
                Output::Publish(advert) => self.parts.net.publish(&advert),
                Output::Send { to, message } => match &asked {
                    Some((asker, _)) if *asker == to => answers.push(message),
                    Some(_) | None => self.parts.net.send(to, &message),
                },
                Output::Slice { session, plan } => self.slice(session, plan),
                Output::Load(order) => {
                    let holders: Vec<NodeId> = self.node.flock().holders(order.model).collect();
                    let promised = self.node.book().memory_promised();
                    self.parts.loader.load(order, promised, holders, self.parts.inner.clone());
                }
                Output::Unload(piece) => {
                    self.guests.remove(&piece);
                    heap::give_back_soon();
                    self.parts.news.send(News::Dropped { piece }).ok();
                }
                Output::Wire { session, epoch, inputs, outputs } => {
                    self.own.wire(session, epoch, inputs, outputs);
                }
                Output::SendInput { session, epoch, request } => {
                    self.own.send_input(session, epoch, request);
                }
                // The node consumes these itself.
                Output::SessionChanged { .. } | Output::Suspect { .. } => {}
                Output::Event(event) => self.on_event(event),
            }
        }
        if let Some((_, reply)) = asked {
            self.parts.net.reply(reply, &answers);
        }
    }

    fn on_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Listening(address) => {
                self.parts.news.send(News::Listening(address)).ok();
                self.tell_addresses();
            }
            NetEvent::Joined(node) => {
                self.parts.news.send(News::Joined(node)).ok();
                self.feed(Input::Joined(node));
            }
            NetEvent::Left(node) => {
                self.parts.news.send(News::Left(node)).ok();
                self.parts.links.close(&node);
                self.feed(Input::Left(node));
            }
            NetEvent::Advert { from, advert } => {
                if let starling_protocol::wire::Advert::Node(advert) = &advert {
                    self.parts.net.learn(from, &advert.addresses);
                }
                self.feed(Input::Advert { from, advert });
            }
            NetEvent::Request { from, message, reply } => {
                let outputs = self.node.handle(self.now(), Input::Message { from, message });
                self.perform(outputs, Some((from, reply)));
            }
            NetEvent::Reply { from, messages } => {
                for message in messages {
                    self.feed(Input::Message { from, message });
                }
            }
            // The protocol's own timers repeat what matters.
            NetEvent::Undelivered { to, reason } => tracing::debug!(%to, reason, "not delivered"),
            NetEvent::Unreachable { address, reason } => {
                self.parts.news.send(News::Unreachable { address, reason }).ok();
            }
        }
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        self.measure_link(&arrival);
        if arrival.frame.index == RESULT {
            if let Some((session, request, runs)) = self.own.on_result(arrival) {
                self.feed(Input::OutputArrived { session, request, runs });
            }
        } else {
            self.guests.on_frame(arrival);
        }
    }

    fn on_inner(&mut self, inner: Inner) {
        match inner {
            Inner::EdgeFailed { piece, epoch } => self.feed(Input::EdgeFailed { piece, epoch }),
            Inner::Ran { work, seconds } => self.feed(Input::Ran { work, seconds }),
            Inner::Loaded { computed, result } => {
                for outcome in self.parts.loader.finish(computed, &result) {
                    self.on_loaded(outcome);
                }
            }
            Inner::Sliced { session, plan, slices } => {
                let slices = self.parts.loader.keep(session, slices);
                self.feed(Input::Sliced { session, plan, slices });
            }
        }
    }

    fn on_loaded(&mut self, outcome: loader::Outcome) {
        let loader::Outcome { piece, epoch, result } = outcome;
        heap::give_back_soon();
        let awaited = self.node.host().awaits(&piece, epoch);
        let result = result.map(|loaded| {
            if !awaited {
                return tracing::debug!(%piece, epoch, "a load that was overtaken");
            }
            let (layers, model) = (loaded.order.layers, loaded.order.model);
            self.remember_model(model);
            let memory = loaded.piece.memory();
            self.parts.news.send(News::Hosting { piece, layers, model, memory }).ok();
            self.guests.insert(loaded);
        });
        self.feed(Input::Loaded { piece, epoch, result });
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Open { model, profile, planning, reply } => {
                let (number, news) = self.own.open(model.clone());
                self.parts.loader.provide(number, model);
                reply.send((number, news)).ok();
                let open =
                    starling_protocol::node::Command::Open { session: number, profile, planning };
                self.feed(Input::Command(open));
            }
            Request::Infer { session, inputs, reply } => {
                if let Some(request) = self.own.infer(session, inputs, reply) {
                    let infer = starling_protocol::node::Command::Infer { session, request };
                    self.feed(Input::Command(infer));
                }
            }
            Request::Close { session } => {
                self.feed(Input::Command(starling_protocol::node::Command::Close { session }));
                self.end_session(session, "the session was closed");
            }
            Request::Preview { profile, planner, goal, reply } => {
                reply.send(self.node.preview(self.now(), &profile, planner, goal)).ok();
            }
            Request::Lanes { profile, planning, reply } => {
                reply.send(self.node.lanes(self.now(), &profile, &planning)).ok();
            }
            Request::MoreLanes { profile, taken, per_s, reply } => {
                reply.send(self.node.more_lanes(self.now(), &profile, &taken, per_s)).ok();
            }
            Request::Snapshot(reply) => {
                reply.send(handle::snapshot(&self.node)).ok();
            }
            Request::RoundTrips(reply) => {
                reply.send(self.parts.net.take_round_trips()).ok();
            }
            // Taken out by the loop, which it ends.
            Request::Leave(_) => {}
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Agreed { session, agreement } => {
                self.own.tell(session, SessionNews::Agreed(agreement));
            }
            Event::Ready { session, agreement, .. } => self.own.on_ready(session, agreement),
            Event::ProviderLost { session, node } => {
                self.own.tell(session, SessionNews::ProviderLost(node));
            }
            Event::Moved { session, pieces } => {
                tracing::info!(
                    session,
                    pieces,
                    "pieces have moved to nodes that serve them better"
                );
            }
            Event::Refused { session, request } => self.own.on_refused(session, request),
            Event::Failed { session, error } => self.end_session(session, &error.to_string()),
        }
    }

    fn end_session(&mut self, session: u64, reason: &str) {
        self.own.end(session, reason);
        self.parts.loader.withdraw(session);
    }

    fn slice(&mut self, session: u64, plan: Plan) {
        if let Some(model) = self.own.model(session) {
            loader::slice(session, plan, model, self.parts.inner.clone());
        }
    }

    /// Frames show what the link carries.
    fn measure_link(&mut self, arrival: &Arrival) {
        if arrival.from == self.node.id() {
            return;
        }
        if let Some(bytes_per_s) = self.link.on_frame(arrival.bytes, arrival.transfer) {
            self.feed(Input::Bandwidth(bytes_per_s));
        }
    }

    fn remember_model(&mut self, model: ModelId) {
        if !self.models.contains(&model) {
            self.models.push(model);
            self.feed(Input::Models(self.models.clone()));
        }
    }

    fn tell_addresses(&mut self) {
        let addresses = self.parts.net.addresses();
        self.feed(Input::Addresses(addresses));
    }

    /// Gives back, says farewell, and lets the messages go out.
    async fn leave(mut self) {
        self.feed(Input::Command(starling_protocol::node::Command::Leave));
        let until = Instant::now() + FAREWELL;
        while let Ok(event) = tokio::time::timeout_at(until, self.parts.net.next()).await {
            if let NetEvent::Request { reply, .. } = event {
                self.parts.net.reply(reply, &[]);
            }
        }
        self.parts.net.shutdown().await;
    }
}

/// How long a node measures itself at its start.
pub(crate) const CALIBRATION: Duration = Duration::from_millis(400);
/// The most events kept for after the calibration.
const MISSED_MAX: usize = 4096;
/// How long the last messages have to go out.
const FAREWELL: Duration = Duration::from_millis(200);
