//! The machines of a scenario and what runs on them, from their making to their end.

mod trials;

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    Failure, Stop,
    arguments::Arguments,
    cgroup::Groups,
    command,
    log::{NodeLog, SessionLog},
    measure::{Granted, Measured, Sample, Served, Ticks},
    net::{Lan, Traffic},
    process::{Home, Process, Word},
    scenario::{Scenario, Verb},
    timeline::{Act, Timeline},
};

/// How what happens is told.
type Say<'s> = &'s mut dyn FnMut(&str);

/// Everything that exists for the sake of one run. Dropped, it is gone: processes first, then the
/// groups and namespaces that they were in, then their files.
pub(super) struct Stage<'a> {
    scenario: &'a Scenario,
    starling: PathBuf,
    arguments: Arguments<'a>,
    stop: Stop,
    running: Vec<Running>,
    groups: Groups,
    lan: Lan,
    scratch: TempDir,
    speak: Sender<Word>,
    heard: Receiver<Word>,
    began: Instant,
    zero: Instant,
    ended: Instant,
    discovery_s: f64,
    nodes: Vec<NodeLog>,
    alone: Vec<Option<f64>>,
    alone_again: Vec<Option<f64>>,
    /// Those of the boards that run alone now.
    rates: Vec<Option<f64>>,
    trial: SessionLog,
    served: Option<Served>,
    sessions: Vec<SessionLog>,
    dead: Vec<bool>,
    traffic: Vec<Traffic>,
    granted: Granted,
    own_memory: Vec<Option<u64>>,
    looked: Instant,
    samples: Vec<Sample>,
    happened: Vec<(f64, String)>,
    ticks: Option<Ticks>,
    idle: Option<f64>,
    profile: Value,
}

/// A process and what it is for.
struct Running {
    process: Process,
    machine: usize,
    role: Role,
    // Nothing more will be heard of it.
    over: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// The whole model on one board.
    Alone(usize),
    /// A board's node.
    Node(usize),
    /// The requester of a session.
    Session(usize),
    /// That of the whole model on one board.
    Trial,
}

impl<'a> Stage<'a> {
    /// Makes the machines. What the model gives and costs is found out before.
    pub(super) fn set_up(
        scenario: &'a Scenario,
        starling: &std::path::Path,
        stop: &Stop,
        say: Say<'_>,
    ) -> Result<Self, Failure> {
        let prefix = format!("starling-{}", std::process::id());
        let scratch = tempfile::Builder::new().prefix(&prefix).tempdir();
        let scratch = scratch.map_err(|error| Failure::System(error.to_string()))?;
        let machines = scenario.machines();
        let (speak, heard) = mpsc::channel();
        let (now, boards) = (Instant::now(), scenario.boards.len());
        let cores = scenario.boards.iter().map(|board| board.limits().and_then(|l| l.cores));
        let mut stage = Self {
            scenario,
            starling: starling.to_owned(),
            stop: stop.clone(),
            running: Vec::new(),
            groups: Groups::new(&prefix)?,
            lan: Lan::new(&prefix)?,
            arguments: Arguments { scenario, machines, scratch: scratch.path().to_owned() },
            scratch,
            speak,
            heard,
            began: now,
            zero: now,
            ended: now,
            discovery_s: 0.0,
            nodes: vec![NodeLog::default(); boards],
            alone: vec![None; boards],
            alone_again: vec![None; boards],
            rates: vec![None; boards],
            trial: SessionLog::default(),
            served: None,
            sessions: vec![SessionLog::default(); scenario.sessions.len()],
            dead: vec![false; scenario.machines().len()],
            traffic: Vec::new(),
            granted: Granted::new(cores.map(Option::unwrap_or_default).collect(), now),
            own_memory: vec![None; boards],
            looked: now,
            samples: Vec::new(),
            happened: Vec::new(),
            ticks: None,
            idle: None,
            profile: Value::Null,
        };
        say(&format!("computing what {} must give", scenario.model.file.display()));
        stage.reference()?;
        for machine in &stage.arguments.machines {
            stage.stop.look()?;
            stage.groups.add(&machine.limits)?;
            stage.lan.plug(machine.limits.link_mbit)?;
        }
        Ok(stage)
    }

    /// Starts a node on every board, and waits until each knows its speed and all others.
    pub(super) fn start_boards(&mut self, say: Say<'_>) -> Result<(), Failure> {
        let boards = self.scenario.boards.len();
        say(&format!("starting {boards} boards on a LAN of their own"));
        self.began = Instant::now();
        for board in 0..boards {
            let arguments = self.arguments.node(board);
            self.start(board, Role::Node(board), &arguments)?;
        }
        let until = self.began + seconds(self.scenario.run.discovery_s);
        while !self.all_acquainted() {
            self.listen(Instant::now() + LOOK_EVERY)?;
            self.complain_of(|_| true)?;
            if Instant::now() >= until {
                return Err(self.strangers());
            }
        }
        self.discovery_s = self.began.elapsed().as_secs_f64();
        say(&format!("all found each other by mDNS after {:.1} s", self.discovery_s));
        Ok(())
    }

    /// The sessions and events of the scenario, until the last session is over.
    pub(super) fn play(&mut self, say: Say<'_>) -> Result<(), Failure> {
        let scenario = self.scenario;
        let mut timeline = Timeline::new(scenario);
        // Boards have had the whole model before.
        self.nodes.iter_mut().for_each(NodeLog::forget_peak);
        let limit = Instant::now() + seconds(scenario.run.limit_s);
        let first = timeline.first_sessions();
        for session in &first {
            self.open(*session)?;
        }
        let ready = |stage: &Self, session: &usize| {
            stage.sessions[*session].is_ready() || stage.is_over(*session)
        };
        while !first.iter().all(|session| ready(self, session)) {
            self.listen(Instant::now() + LOOK_EVERY)?;
            self.look_at_memory();
            self.check_limit(limit)?;
        }
        self.begin_measuring()?;
        say("the sessions stream");
        while timeline.has_sessions() || self.streaming() {
            while let Some(act) = timeline.pop(self.zero.elapsed()) {
                match act {
                    Act::Open(session) => self.open(session)?,
                    Act::Do(verb) => self.befall(verb, say)?,
                }
            }
            self.listen(Instant::now() + LOOK_EVERY)?;
            self.look_at_memory();
            self.sample_if_due()?;
            self.check_limit(limit)?;
        }
        self.end_measuring()
    }

    /// All that was measured.
    pub(super) fn measured(&mut self) -> Result<Measured, Failure> {
        let boards = 0..self.scenario.boards.len();
        Ok(Measured {
            zero: self.zero,
            seconds: self.ended.duration_since(self.zero).as_secs_f64(),
            discovery_s: self.discovery_s,
            alone: std::mem::take(&mut self.alone),
            alone_again: std::mem::take(&mut self.alone_again),
            served: self.served,
            nodes: std::mem::take(&mut self.nodes),
            sessions: std::mem::take(&mut self.sessions),
            traffic: std::mem::take(&mut self.traffic),
            granted: std::mem::take(&mut self.granted.seconds),
            memory: boards.map(|board| self.groups.memory_peak(board)).collect(),
            own_memory: std::mem::take(&mut self.own_memory),
            samples: std::mem::take(&mut self.samples),
            happened: std::mem::take(&mut self.happened),
            idle: self.idle,
            profile: self.profile.take(),
        })
    }

    /// What the model costs, and what it gives on this machine, unhurried.
    fn reference(&mut self) -> Result<(), Failure> {
        let profile = command::run(&self.starling, &self.arguments.inspect())?;
        self.profile = serde_json::from_str(&profile)
            .map_err(|error| Failure::System(format!("starling inspect: {error}")))?;
        command::run(&self.starling, &self.arguments.reference())?;
        self.stop.look()
    }

    fn start(&mut self, machine: usize, role: Role, arguments: &[OsString]) -> Result<(), Failure> {
        self.stop.look()?;
        let home = Home {
            namespace: Some(self.lan.namespace(machine)),
            entrances: self.groups.entrances(machine),
        };
        let number = self.running.len();
        let complaints = self.scratch.path().join(format!("{number}-{}.err", role.name()));
        let listener = (number, self.speak.clone());
        let process = Process::start(&self.starling, arguments, &home, complaints, listener)?;
        self.running.push(Running { process, machine, role, over: false });
        Ok(())
    }

    /// Takes in all that is said until then.
    fn listen(&mut self, until: Instant) -> Result<(), Failure> {
        loop {
            self.stop.look()?;
            let left = until.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(word) => self.hear(&word),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn hear(&mut self, word: &Word) {
        let Some(running) = self.running.get_mut(word.from) else { return };
        let Some(line) = &word.line else {
            running.over = true;
            if let Role::Session(session) = running.role
                && self.sessions[session].report.is_none()
            {
                let complaint = running.process.complaint();
                self.sessions[session].failed =
                    Some(complaint.unwrap_or_else(|| NO_REASON.to_owned()));
            }
            return;
        };
        match running.role {
            Role::Node(board) => self.nodes[board].hear(line),
            Role::Session(session) => self.sessions[session].hear(word.at, line),
            Role::Alone(board) if line["event"] == "finished" => {
                self.rates[board] = line["report"]["per_s"].as_f64();
            }
            Role::Alone(_) => {}
            Role::Trial => self.trial.hear(word.at, line),
        }
    }

    fn all_acquainted(&self) -> bool {
        let others = self.nodes.len() - 1;
        self.nodes.iter().all(|node| !node.speed.is_empty() && node.knows.len() >= others)
    }

    /// Listens until that is so, no longer than anything may take, and fails if a node ends.
    fn wait_for(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let limit = self.scenario.run.limit_s;
        let until = Instant::now() + seconds(limit);
        while !done(self) {
            self.listen(Instant::now() + LOOK_EVERY)?;
            self.complain_of(|role| matches!(role, Role::Node(_)))?;
            if Instant::now() >= until {
                let text = format!("{what}: not done after {limit} s; raise limit_s");
                return Err(Failure::Slow(text));
            }
        }
        Ok(())
    }

    /// Fails if one of these processes has ended.
    fn complain_of(&self, role: impl Fn(Role) -> bool) -> Result<(), Failure> {
        let mut gone = self.running.iter().filter(|running| running.over && role(running.role));
        gone.next().map_or(Ok(()), |gone| {
            let who = self.arguments.machines[gone.machine].name.clone();
            Err(Failure::Program { who, what: self.reason_of(gone.role) })
        })
    }

    fn reason_of(&self, role: Role) -> String {
        let process = self.running.iter().find(|running| running.role == role);
        let complaint = process.and_then(|running| running.process.complaint());
        complaint.unwrap_or_else(|| NO_REASON.to_owned())
    }

    fn strangers(&self) -> Failure {
        let others = self.nodes.len() - 1;
        let stranger = self.nodes.iter().position(|node| node.knows.len() < others);
        let who = stranger.map_or("a board", |board| &self.arguments.machines[board].name);
        let known = stranger.map_or(0, |board| self.nodes[board].knows.len());
        Failure::Slow(format!(
            "{who} found {known} of {others} others within {} s; raise discovery_s",
            self.scenario.run.discovery_s
        ))
    }

    fn open(&mut self, session: usize) -> Result<(), Failure> {
        let machine = self.scenario.machine_of(&self.scenario.sessions[session]);
        if self.dead[machine] {
            self.sessions[session].failed = Some("its machine has no power".to_owned());
            return Ok(());
        }
        let boards = self.dead[..self.scenario.boards.len()].iter().filter(|dead| !**dead);
        let arguments = self.arguments.session(session, boards.count());
        self.start(machine, Role::Session(session), &arguments)
    }

    fn is_over(&self, session: usize) -> bool {
        let role = Role::Session(session);
        let process = self.running.iter().find(|running| running.role == role);
        process.map_or(self.sessions[session].failed.is_some(), |running| running.over)
    }

    fn streaming(&self) -> bool {
        let open = |running: &&Running| matches!(running.role, Role::Session(_));
        self.running.iter().filter(open).any(|running| !running.over)
    }

    fn check_limit(&self, limit: Instant) -> Result<(), Failure> {
        if Instant::now() < limit {
            return Ok(());
        }
        let names = (0..self.sessions.len()).filter(|session| !self.is_over(*session));
        let names: Vec<&str> =
            names.map(|session| self.scenario.sessions[session].name.as_str()).collect();
        let limit = self.scenario.run.limit_s;
        Err(Failure::Slow(format!("{} not done after {limit} s; raise limit_s", names.join(", "))))
    }

    fn befall(&mut self, verb: &Verb, say: Say<'_>) -> Result<(), Failure> {
        let numbers: Vec<usize> = verb.nodes().iter().map(|name| self.number(name)).collect();
        let text = verb.to_string();
        let at_s = self.zero.elapsed().as_secs_f64();
        say(&format!("{at_s:6.1} s  {text}"));
        self.happened.push((at_s, text));
        match verb {
            Verb::Heal => self.lan.heal(),
            Verb::Partition { .. } => self.lan.partition(&numbers),
            Verb::Kill { .. } => {
                numbers.iter().for_each(|machine| self.dead[*machine] = true);
                self.on_each(&numbers, |process| {
                    process.kill();
                    Ok(())
                })
            }
            Verb::Pause { .. } => self.on_each(&numbers, Process::pause),
            Verb::Resume { .. } => self.on_each(&numbers, Process::resume),
            Verb::Throttle { cores, link_mbit, .. } => {
                let machine = numbers[0];
                if let Some(cores) = cores {
                    self.groups.set_cores(machine, *cores)?;
                    self.granted.set(machine, *cores);
                }
                link_mbit.map_or(Ok(()), |mbit| self.lan.set_rate(machine, mbit))
            }
        }
    }

    fn on_each(
        &mut self,
        machines: &[usize],
        mut act: impl FnMut(&mut Process) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let there = self.running.iter_mut().filter(|running| machines.contains(&running.machine));
        there.map(|running| &mut running.process).try_for_each(&mut act)
    }

    fn number(&self, name: &str) -> usize {
        let known = self.arguments.machines.iter().position(|machine| machine.name == name);
        known.expect("a scenario names only machines that are there")
    }

    fn begin_measuring(&mut self) -> Result<(), Failure> {
        self.zero = Instant::now();
        self.ticks = Ticks::now();
        self.granted = Granted::new(self.granted.cores.clone(), self.zero);
        self.traffic = self.lan.traffic()?;
        self.sample()
    }

    fn end_measuring(&mut self) -> Result<(), Failure> {
        self.sample()?;
        self.ended = Instant::now();
        let ticks = self.ticks.zip(Ticks::now());
        self.idle = ticks.map(|(before, after)| after.idle_since(before));
        self.granted.count();
        let before = std::mem::take(&mut self.traffic);
        let all = self.lan.traffic()?.into_iter().zip(before);
        self.traffic = all.map(|(after, before)| after.since(before)).collect();
        Ok(())
    }

    fn sample_if_due(&mut self) -> Result<(), Failure> {
        let last = self.samples.last().map_or(0.0, |sample| sample.at_s);
        if self.zero.elapsed().as_secs_f64() < last + SAMPLE_EVERY_S {
            return Ok(());
        }
        self.sample()
    }

    fn sample(&mut self) -> Result<(), Failure> {
        let used = self.used()?;
        self.samples.push(Sample { at_s: self.zero.elapsed().as_secs_f64(), used });
        Ok(())
    }

    fn look_at_memory(&mut self) {
        // The system adds it all up anew each time.
        if self.looked.elapsed() < MEMORY_EVERY {
            return;
        }
        self.looked = Instant::now();
        for (board, most) in self.own_memory.iter_mut().enumerate() {
            *most = (*most).max(self.groups.memory_own(board));
        }
    }

    /// The core seconds of each board so far.
    fn used(&self) -> Result<Vec<f64>, Failure> {
        (0..self.nodes.len()).map(|board| self.groups.cpu_seconds(board)).collect()
    }

    /// Lets all nodes leave in good order.
    pub(super) fn dismiss(&mut self) {
        for running in &mut self.running {
            // Who stands still can't leave.
            running.process.resume().ok();
            running.process.dismiss();
        }
        let until = Instant::now() + FAREWELL_MAX;
        self.running.iter_mut().for_each(|running| running.process.end_by(until));
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Alone(_) => "alone",
            Self::Node(_) => "node",
            Self::Session(_) => "session",
            Self::Trial => "trial",
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const MEMORY_EVERY: Duration = Duration::from_millis(200);
const SAMPLE_EVERY_S: f64 = 0.5;
/// How long nodes have to leave.
const FAREWELL_MAX: Duration = Duration::from_secs(3);
const NO_REASON: &str = "ended without a reason";
