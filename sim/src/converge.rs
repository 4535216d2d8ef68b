//! One seed, from nodes that know nobody to the end of their auction; or the same problem given to
//! another algorithm.
//!
//! In virtual time:
//!
//! 1. *Gather*: nodes start and advertise, until every requester knows every provider.
//! 2. *Open*: all sessions open at one moment. Their pieces bid against each other.
//! 3. *Settle*: until the auction is quiescent.
//!
//! An agreed session can still lose a place to a later bidder, and then bids again. So the auction
//! is over only when all of these hold at once: every session has agreed since its last bid, no
//! bid, award, refusal, eviction or release is on its way, and every piece is in just one
//! provider's book (an eviction may have been lost, which its requester learns at its next renewal,
//! or a release, which is said again by then). Renewals and adverts go on for ever and don't count.
//!
//! In rounds ([`Timing::Rounds`]) there is no network: the auction runs in [`lockstep`](crate::lockstep), and other
//! algorithms ([`baseline`]) count rounds as they define them.

use std::time::Duration;

use rand::RngExt;
use serde::Serialize;
use starling_protocol::{
    Nats, NodeId, SessionId, cost,
    market::Terms,
    model::Speed,
    node::{Config, Offering},
    session::{Bidding, Planning, SessionError},
    testing::Instance,
};
use thiserror::Error;

use crate::{
    baseline::{self, Algorithm},
    check::{self, Violation},
    churn::Reagreement,
    ledger::Standing,
    network,
    random::{Purpose, generator},
    stats,
    workload::{MEMORY, Machine, Size, SizeError, Workload},
    world::{Settings, Stuck, World},
};

/// In what an auction's length is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Synchronous rounds, without a network.
    Rounds,
    /// Virtual time, over a simulated network with real gossip.
    Virtual,
}

/// Everything but the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// How many of each.
    pub size: Size,
    /// The auction's rules.
    pub terms: Terms,
    /// Who decides.
    pub algorithm: Algorithm,
    /// In what its length is counted; only the protocol's own auction knows virtual time.
    pub timing: Timing,
    /// With what pieces open.
    pub bidding: Bidding,
    /// The share of the others' adverts that each requester misses from the opening on.
    pub missing: f64,
    /// What the world is like.
    pub world: Settings,
    /// How long the gathering may take, and then the settling.
    pub patience: Duration,
    /// For how long inferences run through the agreed pieces, if they do.
    pub observe: Option<Duration>,
    /// What goes wrong after the agreement.
    pub churn: Churn,
}

/// What goes wrong after the agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Churn {
    /// One provider crashes.
    Crash,
    /// Nothing.
    None,
}

/// Why there is no such experiment. Always the caller's fault.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The auction would not end.
    #[error("eps must be a positive number of nats, at least 0.000000001")]
    Eps,
    /// Not a share.
    #[error("the share of missing adverts must be between 0 and 1")]
    Missing,
    /// There is nothing to observe.
    #[error("inferences and crashes are of virtual time only: leave out --timing rounds")]
    Observe,
    /// Baselines have no nodes.
    #[error("{0} is counted in rounds only: add --timing rounds")]
    Timing(&'static str),
    /// The links make no sense.
    #[error(transparent)]
    Network(#[from] network::ConfigError),
    /// The numbers of pieces and providers make no sense.
    #[error(transparent)]
    Size(#[from] SizeError),
}

impl Setup {
    /// So many pieces and providers, and otherwise the defaults.
    #[must_use]
    pub fn new(pieces: usize, providers: usize) -> Self {
        Self {
            size: Size { pieces, providers, slots: None },
            terms: Terms::default(),
            algorithm: Algorithm::Auction,
            timing: Timing::Virtual,
            bidding: Bidding::Forecast,
            missing: 0.0,
            world: Settings::default(),
            patience: Duration::from_secs(120),
            observe: None,
            churn: Churn::None,
        }
    }

    /// Says what is wrong with it, if anything.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn validate(&self) -> Result<(), SetupError> {
        if self.terms.eps <= Nats::ZERO {
            return Err(SetupError::Eps);
        }
        if !(0.0..=1.0).contains(&self.missing) {
            return Err(SetupError::Missing);
        }
        if self.timing == Timing::Virtual && self.algorithm != Algorithm::Auction {
            return Err(SetupError::Timing(self.algorithm.name()));
        }
        let afterwards = self.observe.is_some() || self.churn == Churn::Crash;
        if self.timing == Timing::Rounds && afterwards {
            return Err(SetupError::Observe);
        }
        self.world.network.validate()?;
        Ok(self.size.validate()?)
    }
}

/// Why a seed did not pass.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// There is no such experiment.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The requesters never got to know all providers.
    #[error("gathering: {0}")]
    Gather(Stuck),
    /// The auction did not end.
    #[error("settling: {0}")]
    Settle(Stuck),
    /// A session gave up although there is room for all.
    #[error("session {0} failed: {1}")]
    Session(SessionId, SessionError),
    /// The outcome breaks a rule.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// An algorithm left pieces without a place, or took more rounds than it may.
    #[error("{0} pieces have no place")]
    Unplaced(usize),
    /// The agreed pieces were not loaded.
    #[error("loading: {0}")]
    Load(Stuck),
    /// Something panicked.
    #[error("panic: {0}")]
    Panic(String),
}

/// Jain's index of three kinds of shares: 1 when all are equal, `1/n` when one has everything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fairness {
    /// Of the pieces' rates, `r_ij / n_j`.
    pub pieces: f64,
    /// Of the providers' loads: the seconds of work that one inference of each of its pieces is.
    pub busy: f64,
    /// Of the pieces' inference times, `T_ij * n_j`.
    pub inference_time: f64,
}

/// What came out of one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// The most bids that any one piece made.
    pub rounds: u64,
    /// Bids of all pieces; a copy that is sent because no answer came is not another bid.
    pub bids: u64,
    /// Bids, awards, refusals, evictions and releases that nodes handed to the network up to the
    /// auction's end, copies sent for want of an answer included. Neither renewals nor installs
    /// and their answers nor adverts.
    pub messages: u64,
    /// The encoded length of these messages; nothing where none are encoded.
    pub bytes: Option<u64>,
    /// From the opening of the sessions to the auction's end, the last settle window included;
    /// nothing in rounds.
    pub virtual_ms: Option<f64>,
    /// `U = sum ln(r_ij / n_j)` in nats.
    pub utility: f64,
    /// `U*`, the exact optimum.
    pub optimum: f64,
    /// `(U* - U) / N`, to be held against eps.
    pub gap_per_piece: f64,
    /// How equally things are shared.
    pub jain: Fairness,
    /// The mean of the pieces' inference times, `T_ij * n_j`, in seconds.
    pub mean_inference_time: f64,
    /// Bytes of gossip that a node sends in a second, what it passes on included; the mean over
    /// all nodes and the time up to the auction's end. Nothing in rounds.
    pub advert_bytes_per_s: Option<f64>,
    /// A hash of every event up to the auction's end; in rounds, of the outcome.
    pub trace_hash: String,
    /// What inferences really took, if they ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observation>,
    /// What the crash of a provider came to, if one crashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reagreement: Option<Reagreement>,
}

/// What was observed of inferences through the agreed pieces. Each session kept as many requests
/// in flight as it has pieces.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Observation {
    /// For how long, in seconds of virtual time.
    pub seconds: f64,
    /// Outputs that arrived in that time.
    pub inferences: usize,
    /// Outputs per second, of all sessions together.
    pub throughput: f64,
    /// From an input's sending to its output's arrival, in seconds; the mean over all.
    pub mean_latency: f64,
    /// The mean of the pieces' times from a frame's arrival to its end, in seconds.
    pub mean_inference_time: f64,
    /// How equally things are shared: the pieces' runs, the providers' seconds of compute, and the
    /// pieces' inference times.
    pub jain: Fairness,
    /// Bytes of gossip that a node sent in a second of that time, what it passed on included; the
    /// mean over all nodes.
    pub advert_bytes_per_s: f64,
}

/// Runs one seed to the auction's end.
///
/// # Errors
/// If it does not get there, or what it gets to breaks a rule.
pub fn converge(seed: u64, setup: &Setup) -> Result<Report, Failure> {
    setup.validate()?;
    if setup.timing == Timing::Rounds {
        return in_rounds(seed, setup);
    }
    let mut run = Run::gather(seed, setup)?;
    run.open();
    run.settle()?;
    let mut report = run.report()?;
    if let Some(span) = setup.observe {
        report.observed = Some(run.observe(span)?);
    }
    if setup.churn == Churn::Crash {
        report.reagreement = Some(run.crash_one()?);
    }
    Ok(report)
}

/// One seed under way, for those who want to interfere.
pub struct Run {
    seed: u64,
    setup: Setup,
    workload: Workload,
    world: World,
    opened: starling_protocol::Timestamp,
}

impl Run {
    /// Starts all nodes and waits until every requester knows every provider. Providers come
    /// first: the `n`-th machine of the workload is at place `n`.
    ///
    /// # Errors
    /// If the setup makes no sense, or adverts don't get through.
    pub fn gather(seed: u64, setup: &Setup) -> Result<Self, Failure> {
        setup.validate()?;
        let workload = Workload::draw(seed, &setup.size).map_err(SetupError::from)?;
        let mut world = World::new(seed, setup.world);
        let nodes = workload.machines.len() + workload.requests.len();
        for (n, machine) in workload.machines.iter().enumerate() {
            world.add(provider(workload.machine_id(n), machine, setup, nodes));
        }
        for n in 0..workload.requests.len() {
            world.add(requester(workload.session_id(n).requester, setup, nodes));
        }
        let mut run =
            Self { seed, setup: *setup, workload, world, opened: starling_protocol::Timestamp(0) };
        run.wait_for_introductions().map_err(Failure::Gather)?;
        Ok(run)
    }

    /// Opens all sessions.
    pub fn open(&mut self) {
        self.opened = self.world.now();
        self.hide_adverts();
        for (n, request) in self.workload.requests.iter().enumerate() {
            let session = self.workload.session_id(n);
            let place = self.world.place(&session.requester).expect("every requester was added");
            let planning = Planning::Fixed(request.plan.clone());
            self.world.open(place, session.number, request.profile.clone(), planning);
        }
    }

    /// From now on each requester misses a share of what the others gossip.
    fn hide_adverts(&mut self) {
        if self.setup.missing <= 0.0 {
            return;
        }
        let mut rng = generator(self.seed, Purpose::Missing);
        let authors: Vec<(usize, NodeId)> =
            self.world.nodes().map(|(place, node)| (place, node.id())).collect();
        let providers = self.workload.machines.len();
        for (place, _) in authors.iter().filter(|(place, _)| *place >= providers) {
            for (_, author) in authors.iter().filter(|(other, _)| other != place) {
                if rng.random_bool(self.setup.missing) {
                    self.world.hide(*place, *author);
                }
            }
        }
    }

    /// Waits for the auction's end, which is defined on the [module's page](self).
    ///
    /// # Errors
    /// If a session fails, or it takes too long.
    pub fn settle(&mut self) -> Result<(), Failure> {
        self.wait_until_settled()
    }

    /// Until every piece has a place, and no message of the auction is on its way.
    pub(crate) fn wait_until_settled(&mut self) -> Result<(), Failure> {
        let workload = &self.workload;
        let over = |world: &World| {
            let ledger = world.ledger();
            let settled = || ledger.is_quiet() && check::all_settled(world);
            ledger.has_failures() || (settled() && check::all_held_once(world, workload))
        };
        self.world.run_until(self.setup.patience, over).map_err(Failure::Settle)?;
        let failed = self.world.ledger().sessions().find_map(|(id, standing)| match standing {
            Standing::Failed(error) => Some(Failure::Session(*id, error.clone())),
            Standing::Agreed(_) | Standing::Bidding => None,
        });
        failed.map_or(Ok(()), Err)
    }

    /// The world, to look at.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The world, to do something to.
    pub fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    /// Which.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Everything but the seed.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Who is in it.
    #[must_use]
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Checks the outcome of a settled auction, and measures it.
    ///
    /// # Errors
    /// If it breaks a rule.
    pub fn report(&self) -> Result<Report, Failure> {
        let assignment = check::assignment(&self.world, &self.workload)?;
        let instance = self.workload.instance(self.setup.terms);
        let values = check::bound(&instance, self.setup.terms, &assignment)?;
        let ledger = self.world.ledger();
        let virtual_ms = self.world.now().since(self.opened).as_secs_f64() * 1e3;
        Ok(Report {
            rounds: ledger.rounds().into(),
            bids: ledger.bids().into(),
            messages: ledger.auction().messages,
            bytes: Some(ledger.auction().bytes),
            virtual_ms: Some(virtual_ms),
            advert_bytes_per_s: Some(self.advert_bytes_per_s()),
            trace_hash: self.world.trace_hash().to_hex().to_string(),
            ..judged(self.seed, &self.workload, &instance, &assignment, values)
        })
    }

    /// Runs inferences through all sessions of a settled auction.
    ///
    /// # Errors
    /// If the pieces are not loaded in time.
    pub fn observe(&mut self, span: Duration) -> Result<Observation, Failure> {
        self.world.run_until(self.setup.patience, World::all_ready).map_err(Failure::Load)?;
        for (n, request) in self.workload.requests.iter().enumerate() {
            let session = self.workload.session_id(n);
            let place = self.world.place(&session.requester).expect("every requester was added");
            self.world.stream(place, session.number, request.plan.pieces().len());
        }
        // The first inferences meet empty queues.
        self.world.run_for(span / WARM_UP).map_err(Failure::Load)?;
        self.world.observe_afresh();
        let gossiped = self.gossip_sent();
        self.world.run_for(span).map_err(Failure::Load)?;
        let gossiped = self.gossip_sent() - gossiped;
        let nodes = self.workload.machines.len() + self.workload.requests.len();
        let advert_bytes_per_s = gossiped as f64 / nodes as f64 / span.as_secs_f64();
        Ok(Observation { advert_bytes_per_s, ..self.observation(span) })
    }

    fn observation(&self, span: Duration) -> Observation {
        let observed = self.world.observed();
        let latencies = observed.sessions.values().flat_map(|served| &served.latencies);
        let latencies: Vec<f64> = latencies.copied().collect();
        let runs: Vec<f64> = observed.pieces.values().map(|(runs, _)| *runs as f64).collect();
        let times = observed.pieces.values().map(|(runs, seconds)| seconds / *runs as f64);
        let times: Vec<f64> = times.collect();
        let seconds = span.as_secs_f64();
        Observation {
            seconds,
            inferences: latencies.len(),
            throughput: latencies.len() as f64 / seconds,
            mean_latency: stats::mean(&latencies).unwrap_or(0.0),
            mean_inference_time: stats::mean(&times).unwrap_or(0.0),
            jain: Fairness {
                pieces: cost::jain(&runs),
                busy: cost::jain(&observed.busy[..self.workload.machines.len()]),
                inference_time: cost::jain(&times),
            },
            advert_bytes_per_s: 0.0,
        }
    }

    fn gossip_sent(&self) -> u64 {
        let nodes = self.workload.machines.len() + self.workload.requests.len();
        (0..nodes).map(|place| self.world.gossip_load(place).sent).sum()
    }

    fn advert_bytes_per_s(&self) -> f64 {
        let nodes = self.workload.machines.len() + self.workload.requests.len();
        let sent = self.gossip_sent();
        let seconds = self.world.now().since(starling_protocol::Timestamp(0)).as_secs_f64();
        sent as f64 / nodes as f64 / seconds
    }

    fn wait_for_introductions(&mut self) -> Result<(), Stuck> {
        let end = self.world.now() + self.setup.patience;
        loop {
            // Looked at every now and then, because looking takes longer than an event does.
            self.world.run_for(INTRODUCTIONS_EVERY)?;
            if self.all_are_introduced() {
                return Ok(());
            }
            if self.world.now() >= end {
                return Err(Stuck::Time(self.setup.patience));
            }
        }
    }

    fn all_are_introduced(&self) -> bool {
        let providers = self.workload.machines.len();
        let requesters = self.world.nodes().filter(|(place, _)| *place >= providers);
        let knows_all = |node: &starling_protocol::node::Node| {
            (0..providers).all(|n| node.flock().node(&self.workload.machine_id(n)).is_some())
        };
        requesters.into_iter().all(|(_, node)| knows_all(node))
    }
}

/// The same problem, solved without a network.
fn in_rounds(seed: u64, setup: &Setup) -> Result<Report, Failure> {
    let workload = Workload::draw(seed, &setup.size).map_err(SetupError::from)?;
    let instance = workload.instance(setup.terms);
    let settings = baseline::Settings {
        terms: setup.terms,
        seed,
        missing: setup.missing,
        ..Default::default()
    };
    let algorithm = match (setup.algorithm, setup.bidding) {
        (Algorithm::Auction, Bidding::Forecast) => Algorithm::Forecast,
        (other, _) => other,
    };
    let solution = baseline::solve(algorithm, &instance, &settings)
        .map_err(|_| Failure::Setup(SetupError::Eps))?;
    let unplaced = solution.assignment.iter().filter(|place| place.is_none()).count();
    if unplaced > 0 {
        return Err(Failure::Unplaced(unplaced));
    }
    let assignment: Vec<usize> = solution.assignment.iter().flatten().copied().collect();
    let values = match algorithm {
        Algorithm::Auction | Algorithm::Forecast | Algorithm::Textbook => {
            check::bound(&instance, setup.terms, &assignment)?
        }
        _ => check::values(&instance, &assignment)?,
    };
    let outcome = format!("{:?}", (&assignment, solution.rounds, solution.bids, solution.messages));
    Ok(Report {
        rounds: solution.rounds,
        bids: solution.bids,
        messages: solution.messages,
        trace_hash: blake3::hash(outcome.as_bytes()).to_hex().to_string(),
        ..judged(seed, &workload, &instance, &assignment, values)
    })
}

/// What an assignment is worth; how it came about is to be filled in.
fn judged(
    seed: u64,
    workload: &Workload,
    instance: &Instance,
    assignment: &[usize],
    (utility, optimum): (Nats, Nats),
) -> Report {
    let times = inference_times(workload, instance, assignment);
    let rates: Vec<f64> = times.iter().map(|time| 1.0 / time).collect();
    Report {
        seed,
        rounds: 0,
        bids: 0,
        messages: 0,
        bytes: None,
        virtual_ms: None,
        utility: utility.to_f64(),
        optimum: optimum.to_f64(),
        gap_per_piece: (optimum - utility).to_f64() / instance.pieces() as f64,
        jain: Fairness {
            pieces: cost::jain(&rates),
            busy: cost::jain(&loads(workload, assignment)),
            inference_time: cost::jain(&times),
        },
        mean_inference_time: stats::mean(&times).unwrap_or(0.0),
        advert_bytes_per_s: None,
        trace_hash: String::new(),
        observed: None,
        reagreement: None,
    }
}

/// What all nodes of an experiment have in common: the protocol's defaults, except where these
/// are about a live network's failures and would turn a lossy link into a lost provider, whose
/// candidacy no optimum knows to be over.
fn common(mut config: Config, setup: &Setup, nodes: usize) -> Config {
    config.terms = setup.terms;
    config.session.bidding = setup.bidding;
    config.adverts_lost_max = ADVERTS_LOST_MAX;
    config.flock.nodes_max = config.flock.nodes_max.max(nodes);
    config.session.bid_sends_max = BID_SENDS_MAX;
    config.session.silence_max = SILENCE_MAX;
    config
}

fn provider(
    id: starling_protocol::NodeId,
    machine: &Machine,
    setup: &Setup,
    nodes: usize,
) -> Config {
    let mut config = common(Config::new(id, machine.speed, FIRST_SEQUENCE), setup, nodes);
    config.bandwidth = machine.bandwidth;
    config.book.slots = machine.slots;
    config.book.memory = MEMORY;
    config
}

fn requester(id: starling_protocol::NodeId, setup: &Setup, nodes: usize) -> Config {
    let config = common(Config::new(id, Speed::default(), FIRST_SEQUENCE), setup, nodes);
    Config { offering: Offering::Nobody, ..config }
}

/// `T_ij * n_j` of each piece, in seconds.
fn inference_times(workload: &Workload, instance: &Instance, assignment: &[usize]) -> Vec<f64> {
    let mut holders = vec![0_u32; instance.providers()];
    for provider in assignment {
        holders[*provider] += 1;
    }
    let alone = stand_alone_times(workload, assignment);
    alone
        .zip(assignment)
        .map(|(seconds, provider)| seconds * f64::from(holders[*provider]))
        .collect()
}

/// The stand-alone seconds of all pieces at each provider.
fn loads(workload: &Workload, assignment: &[usize]) -> Vec<f64> {
    let mut loads = vec![0.0; workload.machines.len()];
    for (seconds, provider) in stand_alone_times(workload, assignment).zip(assignment) {
        loads[*provider] += seconds;
    }
    loads
}

fn stand_alone_times(workload: &Workload, assignment: &[usize]) -> impl Iterator<Item = f64> {
    let at = assignment.iter().map(|provider| workload.machines[*provider].provider());
    workload.pieces().zip(at).map(|((_, piece), provider)| cost::seconds(&piece, &provider))
}

/// One part in so many of the time of an observation goes by before it begins.
const WARM_UP: u32 = 5;
const INTRODUCTIONS_EVERY: Duration = Duration::from_millis(100);
/// So many adverts in a row are never lost.
const ADVERTS_LOST_MAX: u32 = 20;
/// So many copies of a bid are never lost.
const BID_SENDS_MAX: u32 = 50;
/// So many renewals in a row are never lost.
const SILENCE_MAX: Duration = Duration::from_secs(50);
/// Nodes of a new world have no earlier lives.
const FIRST_SEQUENCE: u64 = 1;
