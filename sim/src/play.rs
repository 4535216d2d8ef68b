//! Plays a scenario, with everything that must hold checked from outside the nodes.
//!
//! 1. *Safety*: sessions open and faults come as the scenario says. All the while, what must hold
//!    at any time is checked.
//! 2. *Liveness*: after the last of them, every session that is not over must agree in time.
//! 3. *Steadiness*: then nobody bids any more, every piece has exactly one place, nothing else has
//!    any, and the utility is within its bound unless something that happened speaks against it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use starling_protocol::{
    Nats, NodeId, PieceId, SessionId,
    cost::{self, Provider},
    market::Terms,
    model::Speed,
    node::{Config, Offering},
    session::{self, Planning, SessionError},
    testing::Instance,
};
use thiserror::Error;

use crate::{
    check::{self, Violation, Watch},
    clock::Clock,
    journal::Detail,
    ledger::{Sighting, Standing},
    runner,
    scenario::{Bidding, Name, Scenario, ScenarioError, Verb, seconds},
    workload::{self, MEMORY, Machine, Request},
    world::{Settings, Stuck, World},
};

/// Why a scenario did not go as it must.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// It is none.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// Something was not as it must always be.
    #[error("at {at_s:.3} s: {violation}")]
    Violation {
        /// When it was seen.
        at_s: f64,
        /// What.
        violation: Box<Violation>,
    },
    /// Sessions did not agree in time.
    #[error("not everyone agreed within {0} s after the last fault: {1}")]
    NotAgreed(f64, String),
    /// Pieces go on bidding, or moving, although nothing happens any more.
    #[error("no rest: {stirs} bids or moves in the last {span_s} s, although nothing happens")]
    Restless {
        /// How many.
        stirs: u64,
        /// In what time.
        span_s: f64,
    },
    /// A session failed that had no reason to.
    #[error("session {0} failed without a reason: {1}")]
    Unprovoked(SessionId, SessionError),
    /// What was expected did not come.
    #[error("expected {0}")]
    Unexpected(String),
    /// Too many events.
    #[error(transparent)]
    Stuck(Stuck),
    /// Something panicked.
    #[error("panic: {0}")]
    Panic(String),
}

impl Failure {
    /// Failures of one kind have one fault behind them, most likely.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Violation { violation, .. }, Self::Violation { violation: second, .. }) => {
                std::mem::discriminant(&**violation) == std::mem::discriminant(&**second)
            }
            (first, second) => std::mem::discriminant(first) == std::mem::discriminant(second),
        }
    }
}

/// What came of a scenario that went as it must.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// From the last fault or opening until all had agreed.
    pub agreed_after_s: f64,
    /// Bids of all pieces.
    pub bids: u32,
    /// Pieces that changed their providers.
    pub moves: u64,
    /// Sessions that failed.
    pub failed: usize,
    /// Outputs that arrived.
    pub inferences: usize,
    /// `(U* - U) / N`, where the bound was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_per_piece: Option<f64>,
    /// What happened.
    pub sightings: Vec<Sighting>,
    /// The end, in virtual time.
    pub virtual_s: f64,
    /// Events.
    pub steps: u64,
    /// A hash of all of them.
    pub trace_hash: String,
}

/// Plays a scenario. A panic of a node is a failure like any other.
///
/// # Errors
/// If it does not go as it must.
pub fn play(scenario: &Scenario) -> Result<Outcome, Failure> {
    play_with_journal(scenario, Detail::Nothing).0
}

/// Plays a scenario and writes down what happens, up to a panic if there is one.
pub fn play_with_journal(
    scenario: &Scenario,
    detail: Detail,
) -> (Result<Outcome, Failure>, Vec<String>) {
    if let Err(error) = scenario.validate() {
        return (Err(error.into()), Vec::new());
    }
    let mut player = Player::new(scenario);
    player.world.keep_journal(detail);
    let result = runner::caught(|| player.play()).map_err(Failure::Panic);
    (result.and_then(|result| result), player.world.journal().lines().to_vec())
}

struct Player<'a> {
    scenario: &'a Scenario,
    world: World,
    watch: Watch,
    requests: BTreeMap<SessionId, Request>,
    // Whether every session knew every provider when it opened.
    introduced: bool,
}

/// Something that a scenario says.
enum Act<'a> {
    Close(u32),
    Do(&'a Verb),
    Open(&'a crate::scenario::Session),
}

impl<'a> Player<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let settings = Settings {
            network: scenario.links.config(),
            steps_max: STEPS_MAX,
            ..Settings::default()
        };
        let mut world = World::new(scenario.seed, settings);
        for provider in &scenario.providers {
            let clock = Clock {
                ahead: seconds(provider.clock_ahead_s),
                drift_ppm: provider.clock_drift_ppm,
            };
            let machine = Machine::numbered(scenario.seed, provider.number, provider.slots);
            world.add_with_clock(provider_config(scenario, provider.number, &machine), clock);
        }
        for session in &scenario.sessions {
            world.add(requester_config(scenario, session.number));
        }
        for provider in &scenario.providers {
            if let (Some(factor), Some(place)) =
                (provider.lies, world.place(&Machine::id(provider.number)))
            {
                world.lie(place, factor);
            }
        }
        let (watch, requests) = (Watch::default(), BTreeMap::new());
        Self { scenario, world, watch, requests, introduced: true }
    }

    fn play(&mut self) -> Result<Outcome, Failure> {
        for (at, act) in timeline(self.scenario) {
            self.run_to(at)?;
            self.perform(&act);
        }
        // What is done at a moment has happened when the moment is over.
        self.run(Duration::from_millis(1))?;
        let quiet_from = self.world.now();
        if self.is_garbled() {
            self.run(seconds(self.scenario.expect.agreed_within_s))?;
            return Ok(self.outcome(Duration::ZERO, None));
        }
        self.wait_for_agreement()?;
        let agreed_after = self.world.now().since(quiet_from);
        self.stay_steady()?;
        let gap_per_piece = self.check_end()?;
        self.expect()?;
        Ok(self.outcome(agreed_after, gap_per_piece))
    }

    fn perform(&mut self, act: &Act<'_>) {
        match act {
            Act::Close(number) => {
                let id = Request::session_id(*number);
                if let Some(place) = self.living(&id.requester) {
                    self.world.close(place, id.number);
                    self.requests.remove(&id);
                }
            }
            Act::Do(verb) => self.perform_verb(verb),
            Act::Open(session) => self.open(session),
        }
    }

    fn open(&mut self, session: &crate::scenario::Session) {
        let id = Request::session_id(session.number);
        let Some(place) = self.living(&id.requester) else { return };
        let node = self.world.node(place).expect("it lives");
        let mut providers = self.scenario.providers.iter();
        self.introduced &=
            providers.all(|provider| node.flock().node(&Machine::id(provider.number)).is_some());
        let request = Request::numbered(self.scenario.seed, session.number, session.pieces);
        let planning = Planning::Fixed(request.plan.clone());
        self.world.open(place, id.number, request.profile.clone(), planning);
        self.world.stream(place, id.number, session.stream);
        self.requests.insert(id, request);
    }

    fn perform_verb(&mut self, verb: &Verb) {
        let place = |name: &Name| self.world.place(&id_of(*name)).expect("the names were checked");
        let places = |names: &[Name]| names.iter().map(place).collect::<Vec<_>>();
        match verb {
            Verb::Corrupt { probability } => self.world.corrupt(*probability),
            Verb::Crash { node } => self.world.crash(place(node)),
            Verb::Garble { probability } => self.world.garble(*probability),
            Verb::Heal => self.world.heal(),
            Verb::Links { loss, duplication, reordering } => {
                self.world.change_links(*loss, *duplication, *reordering);
            }
            Verb::Partition { ones, others } => {
                self.world.partition(&places(ones), &places(others));
            }
            Verb::PartitionOneWay { from, to } => {
                self.world.partition_one_way(&places(from), &places(to));
            }
            Verb::Pause { node } => self.world.pause(place(node)),
            Verb::Restart { node } => self.world.restart(place(node)),
            Verb::Resume { node } => self.world.resume(place(node)),
            Verb::SlowDown { node, factor } => self.world.slow_down(place(node), *factor),
        }
    }

    fn living(&self, id: &NodeId) -> Option<usize> {
        self.world.place(id).filter(|place| self.world.node(*place).is_some())
    }

    fn run_to(&mut self, at: Duration) -> Result<(), Failure> {
        let now = Duration::from_micros(self.world.now().0);
        self.run(at.saturating_sub(now))
    }

    /// Lets time go by, and looks at the world every now and then.
    fn run(&mut self, span: Duration) -> Result<(), Failure> {
        let end = self.world.now() + span;
        while self.world.now() < end {
            let step = LOOK_EVERY.min(end.since(self.world.now()));
            self.world.run_for(step).map_err(Failure::Stuck)?;
            self.watch.look(&self.world).map_err(|violation| self.violation(violation))?;
        }
        Ok(())
    }

    /// Where places have run short, prices rise until that is proved, which takes its time. It is
    /// granted only to a war that ends with the proof.
    fn wait_for_agreement(&mut self) -> Result<(), Failure> {
        let limit = self.scenario.expect.agreed_within_s;
        let failed = self.failed();
        if self.agree_within(seconds(limit))? {
            return Ok(());
        }
        let who = self.who_does_not_agree();
        let proved = self.agree_within(self.proof_max())? && self.failed() > failed;
        if proved { Ok(()) } else { Err(Failure::NotAgreed(limit, who)) }
    }

    fn agree_within(&mut self, limit: Duration) -> Result<bool, Failure> {
        let end = self.world.now() + limit;
        while !check::all_settled(&self.world) {
            if self.world.now() >= end {
                return Ok(false);
            }
            self.run(LOOK_EVERY)?;
        }
        Ok(true)
    }

    /// Every bid raises some provider's price by eps at least, and none rises above the cap.
    fn proof_max(&self) -> Duration {
        let (terms, providers) = (Terms::default(), self.scenario.providers.len());
        let bids = terms.cap(providers).to_f64() / terms.eps.to_f64() * providers as f64;
        let bid = self.world.settings.network.latency_max * 2;
        bid.mul_f64(bids).min(PROOF_MAX)
    }

    fn who_does_not_agree(&self) -> String {
        let sessions = self.world.ledger().sessions();
        let bidding = sessions.filter(|(_, standing)| matches!(standing, Standing::Bidding));
        let ids: Vec<String> = bidding.map(|(id, _)| id.to_string()).collect();
        if ids.is_empty() {
            "a session believes in a place that it does not have".to_owned()
        } else {
            format!("still bidding: {}", ids.join(", "))
        }
    }

    /// The pieces of the sessions that have agreed, in order.
    fn pieces(&self) -> Vec<(PieceId, starling_protocol::model::PieceProfile)> {
        let agreed = self
            .requests
            .iter()
            .filter(|(id, _)| matches!(self.world.ledger().session(id), Some(Standing::Agreed(_))));
        let pieces = agreed.flat_map(|(session, request)| {
            (0..).zip(request.plan.pieces()).map(|(index, layers)| {
                (PieceId { session: *session, index }, request.profile.piece(layers))
            })
        });
        pieces.collect()
    }

    /// Whether nodes were told what nobody said: then they may believe anything for ever.
    fn is_garbled(&self) -> bool {
        let garbles = |verb: &Verb| matches!(verb, Verb::Garble { .. });
        self.scenario.faults.iter().any(|fault| garbles(&fault.verb))
    }

    /// Running sessions hold their places against the prices of the day, and a provider that was
    /// lost is tried again only after a while, so it takes its time until nothing moves for a
    /// while. Once that is so, nothing has a reason to move ever again, unless links go on losing
    /// messages.
    fn stay_steady(&mut self) -> Result<(), Failure> {
        let span = seconds(self.scenario.expect.steady_s);
        if !self.scenario.faults.is_empty() {
            self.run(AFTERMATH)?;
        }
        for _ in 0..STEADY_TRIES {
            let stirs = self.stirs_in(span)?;
            if stirs == 0 && self.assignment().is_ok() && check::all_settled(&self.world) {
                return self.nothing_stirs(span);
            }
        }
        self.assignment().map_err(|violation| self.violation(violation))?;
        self.nothing_stirs(span)
    }

    fn nothing_stirs(&mut self, span: Duration) -> Result<(), Failure> {
        let faults = self.scenario.faults.iter();
        let mended = faults.rev().find_map(|fault| match fault.verb {
            Verb::Links { loss, .. } => Some(loss),
            _ => None,
        });
        if mended.unwrap_or(self.scenario.links.loss) > 0.0 {
            return Ok(());
        }
        if self.stirs_in(span)? == 0 {
            return Ok(());
        }
        // A piece that has moved often takes a minute's rest, and may then move once more. What goes
        // in circles does not leave it at that.
        if self.stirs_in(RELUCTANCE)? == 0 {
            return Ok(());
        }
        match self.stirs_in(RELUCTANCE)? {
            0 => Ok(()),
            stirs => Err(Failure::Restless { stirs, span_s: RELUCTANCE.as_secs_f64() }),
        }
    }

    /// Bids in a time; or, where machines are measured as they run and prices follow that, moves.
    fn stirs_in(&mut self, span: Duration) -> Result<u64, Failure> {
        let streams = self.scenario.sessions.iter().any(|session| session.stream > 0);
        let stirs = |world: &World| match streams {
            true => world.ledger().moves(),
            false => u64::from(world.ledger().bids()),
        };
        let before = stirs(&self.world);
        self.run(span)?;
        Ok(stirs(&self.world) - before)
    }

    fn assignment(&self) -> Result<Vec<usize>, Violation> {
        check::assignment_of(&self.world, self.pieces().iter().map(|(piece, _)| *piece))
    }

    fn check_end(&self) -> Result<Option<f64>, Failure> {
        let assignment = self.assignment().map_err(|violation| self.violation(violation))?;
        self.nobody_failed_in_peace()?;
        if !self.bound_must_hold() || assignment.is_empty() {
            return Ok(None);
        }
        let terms = Terms::default();
        let instance = self.instance(terms);
        let (utility, optimum) =
            check::bound_with(&instance, terms, &assignment, self.migration(terms))
                .map_err(|violation| self.violation(violation))?;
        Ok(Some((optimum - utility).to_f64() / assignment.len() as f64))
    }

    /// What it would cost all pieces to move that ran before the last session opened.
    fn migration(&self, terms: Terms) -> Nats {
        let opened = |number: u64| {
            let sessions = self.scenario.sessions.iter();
            sessions.filter(|s| u64::from(s.number) == number).map(|s| s.at_s).fold(0.0, f64::max)
        };
        let sessions = self.scenario.sessions.iter();
        let last = sessions.map(|session| session.at_s).fold(0.0, f64::max);
        let pieces = self.pieces().into_iter();
        let ran = pieces.filter(|(piece, _)| opened(piece.session.number) < last);
        ran.map(|(_, profile)| terms.migration.of(profile.weight_bytes)).sum()
    }

    /// The problem that the agreed sessions pose to the providers, who come first in the world.
    fn instance(&self, terms: Terms) -> Instance {
        let machines: Vec<Machine> = self
            .scenario
            .providers
            .iter()
            .map(|provider| Machine::numbered(self.scenario.seed, provider.number, provider.slots))
            .collect();
        let providers: Vec<Provider> = machines.iter().map(Machine::provider).collect();
        let log_rates = self.pieces().into_iter().map(|(_, piece)| {
            let rates: Vec<Option<Nats>> =
                providers.iter().map(|provider| cost::log_rate(&piece, provider)).collect();
            workload::within_spread(terms, rates)
        });
        let capacity = machines.iter().map(|machine| machine.slots).collect();
        Instance { log_rates: log_rates.collect(), capacity }
    }

    /// The auction's guarantee rests on prices that only rise, and on requesters that know all
    /// providers as they are.
    fn bound_must_hold(&self) -> bool {
        let scenario = self.scenario;
        let harmless = |verb: &Verb| matches!(verb, Verb::Links { .. });
        let calm = scenario.faults.iter().all(|fault| harmless(&fault.verb));
        let as_believed = scenario.sessions.iter().all(|session| session.stream == 0)
            && scenario.providers.iter().all(|provider| provider.lies.is_none());
        let only_rising = self.world.ledger().departures() == 0;
        calm && as_believed && only_rising && self.introduced && self.failed() == 0
    }

    /// With nothing going wrong, and places for all, no session has a reason to fail. One that
    /// opens when everything has healed has none either.
    fn nobody_failed_in_peace(&self) -> Result<(), Failure> {
        let failed = self.world.ledger().sessions().find_map(|(id, standing)| match standing {
            Standing::Failed(error) if self.opened_in_peace(id) => Some((*id, error.clone())),
            Standing::Failed(_) | Standing::Agreed(_) | Standing::Bidding => None,
        });
        match failed {
            Some((id, error)) if self.places_for_all() => Err(Failure::Unprovoked(id, error)),
            Some(_) | None => Ok(()),
        }
    }

    fn opened_in_peace(&self, id: &SessionId) -> bool {
        let scenario = self.scenario;
        let last_fault = scenario.faults.iter().map(|fault| fault.at_s).fold(0.0, f64::max);
        let lossless = scenario.links.loss == 0.0 || !scenario.faults.is_empty();
        let later = scenario.sessions.iter().any(|session| {
            let after = session.at_s >= last_fault + RECOVERY_S;
            Request::session_id(session.number) == *id && (scenario.faults.is_empty() || after)
        });
        lossless && later
    }

    fn places_for_all(&self) -> bool {
        let providers = self.scenario.providers.iter();
        let living =
            providers.filter(|provider| self.living(&Machine::id(provider.number)).is_some());
        let places: usize = living.map(|provider| usize::from(provider.slots)).sum();
        let pieces: usize = self.scenario.sessions.iter().map(|session| session.pieces).sum();
        places >= pieces
    }

    fn expect(&self) -> Result<(), Failure> {
        let (expect, ledger) = (&self.scenario.expect, self.world.ledger());
        let failed = self.failed();
        let missing = expect.sees.iter().find(|sighting| !ledger.sightings().contains(sighting));
        let complaint = if failed > expect.failed_max {
            Some(format!("at most {} failed sessions, not {failed}", expect.failed_max))
        } else if expect.moves_max.is_some_and(|most| ledger.moves() > most) {
            let most = expect.moves_max.unwrap_or(0);
            Some(format!("at most {most} moves, not {}", ledger.moves()))
        } else if self.inferences() < expect.inferences_min {
            let least = expect.inferences_min;
            Some(format!("at least {least} outputs, not {}", self.inferences()))
        } else if expect.bound && !self.bound_must_hold() {
            Some("the bound, but what happened speaks against it".to_owned())
        } else {
            missing.map(|sighting| format!("to see {sighting:?}, which never happened"))
        };
        complaint.map_or(Ok(()), |complaint| Err(Failure::Unexpected(complaint)))
    }

    fn failed(&self) -> usize {
        let sessions = self.world.ledger().sessions();
        sessions.filter(|(_, standing)| matches!(standing, Standing::Failed(_))).count()
    }

    fn inferences(&self) -> usize {
        let sessions = self.world.observed().sessions.values();
        sessions.map(|served| served.latencies.len()).sum()
    }

    fn outcome(&self, agreed_after: Duration, gap_per_piece: Option<f64>) -> Outcome {
        let ledger = self.world.ledger();
        Outcome {
            agreed_after_s: agreed_after.as_secs_f64(),
            bids: ledger.bids(),
            moves: ledger.moves(),
            failed: self.failed(),
            inferences: self.inferences(),
            gap_per_piece,
            sightings: ledger.sightings().iter().copied().collect(),
            virtual_s: self.world.now().0 as f64 / 1e6,
            steps: self.world.steps(),
            trace_hash: self.world.trace_hash().to_hex().to_string(),
        }
    }

    fn violation(&self, violation: Violation) -> Failure {
        let at_s = self.world.now().0 as f64 / 1e6;
        Failure::Violation { at_s, violation: Box::new(violation) }
    }
}

/// All that a scenario says, in order of time; what comes at once, in the order of the file.
fn timeline(scenario: &Scenario) -> Vec<(Duration, Act<'_>)> {
    let mut acts: Vec<(Duration, Act<'_>)> = Vec::new();
    for session in &scenario.sessions {
        acts.push((seconds(session.at_s), Act::Open(session)));
        if let Some(at) = session.close_at_s {
            acts.push((seconds(at), Act::Close(session.number)));
        }
    }
    acts.extend(scenario.faults.iter().map(|fault| (seconds(fault.at_s), Act::Do(&fault.verb))));
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn id_of(name: Name) -> NodeId {
    match name {
        Name::Provider(number) => Machine::id(number),
        Name::Requester(number) => Request::session_id(number).requester,
    }
}

fn provider_config(scenario: &Scenario, number: u32, machine: &Machine) -> Config {
    let mut config = common(scenario, Machine::id(number), machine.speed);
    config.bandwidth = machine.bandwidth;
    config.book.slots = machine.slots;
    config.book.memory = MEMORY;
    config
}

fn requester_config(scenario: &Scenario, number: u32) -> Config {
    let id = Request::session_id(number).requester;
    Config { offering: Offering::Nobody, ..common(scenario, id, Speed::default()) }
}

/// The protocol's defaults, with tables that are as large as they must be and no larger.
fn common(scenario: &Scenario, id: NodeId, speed: Speed) -> Config {
    let mut config = Config::new(id, speed, 1);
    config.session.bidding = match scenario.bidding {
        Bidding::Forecast => session::Bidding::Forecast,
        Bidding::Plain => session::Bidding::Plain,
    };
    config.flock.nodes_max = scenario.providers.len() + scenario.sessions.len() - 1;
    config.flock.sessions_max = scenario.sessions.len();
    config
}

/// How often the world is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long after the last fault everyone knows everyone again: adverts come every five seconds.
const RECOVERY_S: f64 = 6.0;
/// Longer than any war over places that a scenario can have.
const PROOF_MAX: Duration = Duration::from_secs(1800);
/// How long after the last fault its consequences last: a provider that was lost is not asked again
/// for 30 seconds, and adverts take some more.
const AFTERMATH: Duration = Duration::from_secs(45);
/// How often bids may come back to life after the faults before that is a failure.
const STEADY_TRIES: u32 = 4;
/// Longer than a piece that has moved often is reluctant to move again, which is 60 seconds.
const RELUCTANCE: Duration = Duration::from_secs(70);
/// Far more than any scenario needs, so that a loop of messages ends.
const STEPS_MAX: u64 = 50_000_000;
