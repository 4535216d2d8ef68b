//! What a testbed's scenario says, as TOML: the boards, the model, who asks how much of it, and
//! what happens when.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::boards::{Limits, Preset};

/// A run from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub about: String,
    /// What is computed.
    pub model: Model,
    /// How it is measured.
    #[serde(default)]
    pub run: Run,
    /// Machines that compute.
    #[serde(rename = "board")]
    pub boards: Vec<Board>,
    /// Who asks.
    #[serde(rename = "session")]
    pub sessions: Vec<Session>,
    /// What happens when.
    #[serde(rename = "event", default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// What is computed. Paths are relative to the scenario's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// An ONNX file.
    pub file: PathBuf,
    /// A picture for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<PathBuf>,
    /// Or its input tensors (.npy), in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<PathBuf>,
}

/// How it is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// For how long each board runs the whole model alone before the sessions; 0 for not at all.
    pub alone_s: f64,
    /// How long the boards have to find each other.
    pub discovery_s: f64,
    /// How long everything after that may take.
    pub limit_s: f64,
    /// Whether the simulator predicts what the sessions see.
    pub predict: bool,
    /// Whether boards are told what their links carry (`--link`), or have to find out.
    pub tell_links: bool,
}

/// A machine that computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Its name.
    pub name: String,
    /// What it is, where nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Of this machine's processor, in cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<f64>,
    /// Its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Its link, each way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_mbit: Option<f64>,
}

/// A stream of inferences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Its name, and that of its machine if it has one of its own.
    pub name: String,
    /// The board that asks; left out, a machine of its own that computes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// When it opens. What opens at 0 is ready to stream at 0.
    #[serde(default)]
    pub at_s: f64,
    /// Passed on as `--planner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planner: Option<String>,
    /// Passed on as `--goal`.
    #[serde(default)]
    pub goal: Goal,
    /// Passed on as `--cuts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<u16>,
    /// Passed on as `--strips`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strips: Vec<u16>,
    /// Passed on as `--patience`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_s: Option<f64>,
    /// How many inferences wait for their outputs at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u16>,
    /// Or how many start in a second, whether or not earlier ones are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// How many inferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Or for how long they start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// The link of its own machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_mbit: Option<f64>,
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// One inference as soon as possible.
    Latency,
    /// As many a second as possible.
    #[default]
    Throughput,
}

/// Something that happens to the machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, from the moment at which the first sessions stream.
    pub at_s: f64,
    /// What.
    #[serde(rename = "do")]
    pub verb: Verb,
}

/// What may happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verb {
    /// All cables are plugged in again.
    Heal,
    /// A machine loses its power: all its processes are gone.
    Kill {
        /// Which.
        node: String,
    },
    /// Nothing gets from these machines to any others, nor back.
    Partition {
        /// Which. Among themselves they stay connected.
        nodes: Vec<String>,
    },
    /// A machine freezes: its processes stop where they stand, its connections open.
    Pause {
        /// Which.
        node: String,
    },
    /// A frozen machine goes on.
    Resume {
        /// Which.
        node: String,
    },
    /// A machine or its link becomes slower, or faster.
    Throttle {
        /// Which.
        node: String,
        /// Its processor from now on, in cores.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cores: Option<f64>,
        /// Its link from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link_mbit: Option<f64>,
    },
}

/// A machine of a scenario: a board, or that of a session alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// What it may use.
    pub limits: Limits,
}

/// Why something is no scenario.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// It does not follow the format; the text says where and why.
    #[error("{0}")]
    Format(String),
    /// There is nobody to compute, or nobody who asks.
    #[error("a testbed needs at least one board and one session")]
    Empty,
    /// More than there are addresses for.
    #[error("at most {MACHINES_MAX} machines, not {0}")]
    Crowd(usize),
    /// Two machines or sessions of one name.
    #[error("there are two of the name {0:?}")]
    Twice(String),
    /// A name that would not fit on a line or in a file's name.
    #[error("{0:?} is no name: up to 24 letters, digits and dashes, a letter first")]
    Name(String),
    /// An event or a session is about nobody.
    #[error("there is no machine {0:?}")]
    Unknown(String),
    /// A board without a size.
    #[error("board {0:?} needs a preset, or all of cores, memory_mib and link_mbit")]
    Unsized(String),
    /// A model without inputs, or with two kinds of them.
    #[error("the model needs either an image or inputs")]
    Inputs,
    /// A session that says too little, or two things at once.
    #[error("session {0:?} {1}")]
    Session(String, &'static str),
    /// A number makes no sense.
    #[error("{what} must be from {low} to {high}, not {value}")]
    Range {
        /// Of what.
        what: &'static str,
        /// The least that makes sense.
        low: f64,
        /// And the most.
        high: f64,
        /// What it is.
        value: f64,
    },
}

impl Scenario {
    /// Reads a scenario's file; its paths become relative to the file's folder.
    ///
    /// # Errors
    /// If it can't be read, or is none.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ScenarioError::Format(format!("cannot be read: {error}")))?;
        let mut scenario = Self::parse(&text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let model = &mut scenario.model;
        let paths = model.image.iter_mut().chain(&mut model.inputs);
        paths.chain([&mut model.file]).for_each(|path| *path = folder.join(&path));
        Ok(scenario)
    }

    /// Reads a scenario. Keys that it does not know are refused, with their line.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|error| ScenarioError::Format(error.to_string().trim_end().to_owned()))?;
        scenario.validate()?;
        Ok(scenario)
    }

    /// All machines: the boards first, then those of sessions alone, each in the file's order.
    #[must_use]
    pub fn machines(&self) -> Vec<Machine> {
        let boards = self.boards.iter().map(|board| Machine {
            name: board.name.clone(),
            limits: board.limits().unwrap_or(UNLIMITED),
        });
        let alone = self.sessions.iter().filter(|session| session.on.is_none());
        let alone = alone.map(|session| Machine {
            name: session.name.clone(),
            limits: Limits {
                link_mbit: session.link_mbit.unwrap_or(UNLIMITED.link_mbit),
                ..UNLIMITED
            },
        });
        boards.chain(alone).collect()
    }

    /// Which of all machines a session runs on.
    #[must_use]
    pub fn machine_of(&self, session: &Session) -> usize {
        let name = session.on.as_ref().unwrap_or(&session.name);
        let machines = self.machines();
        machines.iter().position(|machine| machine.name == *name).unwrap_or(0)
    }

    /// The cores of all boards together.
    #[must_use]
    pub fn cores(&self) -> f64 {
        self.boards.iter().filter_map(Board::cores).sum()
    }

    fn validate(&self) -> Result<(), ScenarioError> {
        if self.boards.is_empty() || self.sessions.is_empty() {
            return Err(ScenarioError::Empty);
        }
        if self.model.image.is_some() != self.model.inputs.is_empty() {
            return Err(ScenarioError::Inputs);
        }
        in_range("alone_s", self.run.alone_s, 0.0..=SECONDS_MAX)?;
        in_range("discovery_s", self.run.discovery_s, 1.0..=SECONDS_MAX)?;
        in_range("limit_s", self.run.limit_s, 1.0..=SECONDS_MAX)?;
        self.validate_names()?;
        self.boards.iter().try_for_each(Board::validate)?;
        self.sessions.iter().try_for_each(Session::validate)?;
        self.events.iter().try_for_each(|event| self.validate_event(event))
    }

    fn validate_names(&self) -> Result<(), ScenarioError> {
        let names = self.boards.iter().map(|board| &board.name);
        let names = names.chain(self.sessions.iter().map(|session| &session.name));
        let mut seen = BTreeSet::new();
        for name in names {
            if !is_name(name) {
                return Err(ScenarioError::Name(name.clone()));
            }
            if !seen.insert(name) {
                return Err(ScenarioError::Twice(name.clone()));
            }
        }
        let machines = self.machines().len();
        if machines > MACHINES_MAX {
            return Err(ScenarioError::Crowd(machines));
        }
        let asked = self.sessions.iter().filter_map(|session| session.on.as_ref());
        let mut asked = asked.filter(|on| self.boards.iter().all(|board| board.name != **on));
        asked.next().map_or(Ok(()), |on| Err(ScenarioError::Unknown(on.clone())))
    }

    fn validate_event(&self, event: &Event) -> Result<(), ScenarioError> {
        in_range("at_s", event.at_s, 0.0..=SECONDS_MAX)?;
        if let Verb::Throttle { cores, link_mbit, .. } = &event.verb {
            in_range("cores", cores.unwrap_or(1.0), CORES)?;
            in_range("link_mbit", link_mbit.unwrap_or(1.0), LINKS)?;
        }
        let machines = self.machines();
        let known = |name: &String| machines.iter().any(|machine| machine.name == *name);
        let unknown = event.verb.nodes().into_iter().find(|name| !known(name));
        unknown.map_or(Ok(()), |name| Err(ScenarioError::Unknown(name)))
    }
}

impl Verb {
    /// Whom it befalls.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        match self {
            Self::Heal => Vec::new(),
            Self::Partition { nodes } => nodes.clone(),
            Self::Kill { node }
            | Self::Pause { node }
            | Self::Resume { node }
            | Self::Throttle { node, .. } => vec![node.clone()],
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heal => write!(f, "all cables are plugged in again"),
            Self::Kill { node } => write!(f, "{node} loses its power"),
            Self::Partition { nodes } => write!(f, "{} cut off", nodes.join(", ")),
            Self::Pause { node } => write!(f, "{node} freezes"),
            Self::Resume { node } => write!(f, "{node} goes on"),
            Self::Throttle { node, cores, link_mbit } => {
                let cores = cores.map(|cores| format!("{cores} cores"));
                let link = link_mbit.map(|mbit| format!("{mbit} Mbit/s"));
                let limits: Vec<String> = cores.into_iter().chain(link).collect();
                write!(f, "{node} is given {}", limits.join(", "))
            }
        }
    }
}

impl Board {
    /// What it may use; nothing if the file does not say.
    #[must_use]
    pub fn limits(&self) -> Option<Limits> {
        let preset = self.preset.map(Preset::limits);
        Some(Limits {
            cores: Some(self.cores.or(preset.and_then(|preset| preset.cores))?),
            memory_mib: Some(self.memory_mib.or(preset.and_then(|preset| preset.memory_mib))?),
            link_mbit: self.link_mbit.or(preset.map(|preset| preset.link_mbit))?,
        })
    }

    /// Its share of the processor.
    pub(super) fn cores(&self) -> Option<f64> {
        self.limits().and_then(|limits| limits.cores)
    }

    fn validate(&self) -> Result<(), ScenarioError> {
        let limits = self.limits().ok_or_else(|| ScenarioError::Unsized(self.name.clone()))?;
        in_range("cores", limits.cores.unwrap_or(1.0), CORES)?;
        in_range("memory_mib", limits.memory_mib.unwrap_or(1024) as f64, MEMORY)?;
        in_range("link_mbit", limits.link_mbit, LINKS)
    }
}

impl Session {
    fn validate(&self) -> Result<(), ScenarioError> {
        let complain = |text| Err(ScenarioError::Session(self.name.clone(), text));
        if self.in_flight.is_some() == self.rate_per_s.is_some() {
            return complain("needs either in_flight or rate_per_s");
        }
        if self.count.is_some() == self.duration_s.is_some() {
            return complain("needs either count or duration_s");
        }
        if self.on.is_some() && self.link_mbit.is_some() {
            return complain("is on a board, whose link is the board's");
        }
        if self.planner.as_ref().is_some_and(|planner| !is_name(planner)) {
            return complain("names no planner");
        }
        if !self.strips.is_empty() && self.strips.len() != self.cuts.len() + 1 {
            return complain("needs one number of strips for each segment that its cuts make");
        }
        in_range("at_s", self.at_s, 0.0..=SECONDS_MAX)?;
        in_range("patience_s", self.patience_s.unwrap_or(1.0), 0.0..=SECONDS_MAX)?;
        in_range("in_flight", f64::from(self.in_flight.unwrap_or(1)), 1.0..=1000.0)?;
        in_range("rate_per_s", self.rate_per_s.unwrap_or(1.0), 1e-3..=1e5)?;
        in_range("count", f64::from(self.count.unwrap_or(2)), 2.0..=1e6)?;
        in_range("duration_s", self.duration_s.unwrap_or(1.0), 0.1..=SECONDS_MAX)?;
        in_range("link_mbit", self.link_mbit.unwrap_or(1.0), LINKS)
    }
}

impl Default for Run {
    fn default() -> Self {
        Self { alone_s: 4.0, discovery_s: 60.0, limit_s: 300.0, predict: true, tell_links: true }
    }
}

fn is_name(name: &str) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let length = 1..=24;
    length.contains(&name.len())
        && name.chars().all(sound)
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn in_range(
    what: &'static str,
    value: f64,
    range: std::ops::RangeInclusive<f64>,
) -> Result<(), ScenarioError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ScenarioError::Range { what, low: *range.start(), high: *range.end(), value })
}

/// A requester's own machine: whatever this one has, behind fast Ethernet of the day.
const UNLIMITED: Limits = Limits { cores: None, memory_mib: None, link_mbit: 1000.0 };
/// Addresses that the LAN has.
const MACHINES_MAX: usize = 200;
const SECONDS_MAX: f64 = 3600.0;
/// A smaller share would be given in slices of seconds.
const CORES: std::ops::RangeInclusive<f64> = 0.005..=1024.0;
const LINKS: std::ops::RangeInclusive<f64> = 0.1..=100_000.0;
/// With less, no process starts.
const MEMORY: std::ops::RangeInclusive<f64> = 32.0..=16_777_216.0;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        about = "Two boards."
        [model]
        file = "m.onnx"
        image = "cat.jpg"
        [[board]]
        name = "pi"
        preset = "pi4"
        link_mbit = 50
        [[board]]
        name = "box"
        cores = 0.3
        memory_mib = 512
        link_mbit = 100
        [[session]]
        name = "camera"
        in_flight = 4
        count = 10
    "#;

    fn check_refused(from: &str, to: &str, complaint: &str) {
        assert!(SMALL.contains(from), "{from}");
        let error = Scenario::parse(&SMALL.replace(from, to)).expect_err("it makes no sense");
        assert!(error.to_string().contains(complaint), "{error}");
    }

    #[test]
    fn presets_give_what_is_not_said() {
        let scenario = Scenario::parse(SMALL).expect("it makes sense");
        let machines = scenario.machines();
        let names: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
        assert_eq!(names, ["pi", "box", "camera"]);
        assert_eq!(machines[0].limits.link_mbit, 50.0);
        assert_eq!(machines[0].limits.cores, Preset::Pi4.limits().cores);
        assert_eq!(machines[2].limits, UNLIMITED);
        assert_eq!(scenario.machine_of(&scenario.sessions[0]), 2);
        assert!((scenario.cores() - 0.45).abs() < 1e-9);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        check_refused("cores = 0.3", "", "needs a preset, or all of");
        check_refused("cores = 0.3", "cores = 0", "cores must be from 0.005");
        check_refused("name = \"box\"", "name = \"pi\"", "two of the name \"pi\"");
        check_refused("name = \"box\"", "name = \"a b\"", "is no name");
        check_refused("image = \"cat.jpg\"", "", "either an image or inputs");
        check_refused("in_flight = 4", "", "either in_flight or rate_per_s");
        check_refused("count = 10", "count = 10\nduration_s = 3", "either count or duration_s");
        check_refused("count = 10", "count = 10\non = \"pie\"", "no machine \"pie\"");
        check_refused("count = 10", "count = 10\nplanner = \"--x\"", "names no planner");
        check_refused("count = 10", "count = 10\nstrips = [2, 2]", "one number of strips for each");
        check_refused("preset = \"pi4\"", "preset = \"pi5\"", "unknown variant");
        check_refused("about", "abuot", "unknown field");
        let event = "[[event]]\nat_s = 1\ndo = { kill = { node = \"pie\" } }";
        check_refused("count = 10", &format!("count = 10\n{event}"), "no machine \"pie\"");
    }

    #[test]
    fn all_verbs_can_be_written() {
        let verbs = [
            ("\"heal\"", 0),
            ("{ kill = { node = \"pi\" } }", 1),
            ("{ partition = { nodes = [\"pi\", \"camera\"] } }", 2),
            ("{ pause = { node = \"pi\" } }", 1),
            ("{ resume = { node = \"pi\" } }", 1),
            ("{ throttle = { node = \"pi\", cores = 0.1 } }", 1),
        ];
        for (verb, nodes) in verbs {
            let text = format!("{SMALL}\n[[event]]\nat_s = 2.5\ndo = {verb}\n");
            let scenario = Scenario::parse(&text).expect(verb);
            assert_eq!(scenario.events[0].verb.nodes().len(), nodes);
        }
    }
}
