//! Scenarios: who lives in a world, what goes wrong when, and what must come of it, as TOML.
//!
//! Machines and models are drawn from the seed and their own numbers, so that one can be left out
//! of a scenario and the others stay what they are.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use starling_protocol::plan::PIECES_MAX;
use thiserror::Error;

use crate::{ledger::Sighting, network};

/// A run from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub about: String,
    /// Decides all that is not said.
    pub seed: u64,
    /// How pieces bid.
    #[serde(default)]
    pub bidding: Bidding,
    /// The links, as long as no fault changes them.
    #[serde(default)]
    pub links: Links,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
    /// Nodes that compute.
    #[serde(rename = "provider")]
    pub providers: Vec<Provider>,
    /// Sessions, each at a node of its own that only asks.
    #[serde(rename = "session")]
    pub sessions: Vec<Session>,
    /// What goes wrong.
    #[serde(rename = "fault", default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// How pieces bid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bidding {
    /// They open with what a forecast ends at.
    #[default]
    Forecast,
    /// At the prices that they hear.
    Plain,
}

/// How good the links are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Links {
    /// The shortest latency, one way.
    pub latency_min_ms: u64,
    /// The longest.
    pub latency_max_ms: u64,
    /// The probability that a message gets lost.
    pub loss: f64,
    /// The probability that it arrives twice.
    pub duplication: f64,
    /// The probability that it is held back for up to 50 ms.
    pub reordering: f64,
}

/// A node that computes: `p` and its number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its number.
    pub number: u32,
    /// Its places.
    pub slots: u16,
    /// By how much its clock is ahead.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clock_ahead_s: f64,
    /// Millionths by which its clock runs fast.
    #[serde(default, skip_serializing_if = "is_none")]
    pub clock_drift_ppm: i32,
    /// It claims this many times its real speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lies: Option<f64>,
}

/// A session, and the node that opens it: `r` and its number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Its number.
    pub number: u32,
    /// When it opens.
    pub at_s: f64,
    /// Pieces of its plan.
    pub pieces: usize,
    /// Requests that it keeps in flight.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub stream: usize,
    /// When it is closed, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_at_s: Option<f64>,
}

/// Something that goes wrong, or right again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When.
    pub at_s: f64,
    /// What.
    #[serde(rename = "do")]
    pub verb: Verb,
}

/// What may go wrong, or right again. See the verbs of [`World`](crate::world::World).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verb {
    /// Bits of messages flip, which is noticed.
    Corrupt {
        /// How likely for each.
        probability: f64,
    },
    /// A process dies.
    Crash {
        /// Which.
        node: Name,
    },
    /// Bits of messages flip, and nothing secures the connections: what still is a message is
    /// heard. Then nodes may believe anything, so only what must hold at any time is checked.
    Garble {
        /// How likely for each.
        probability: f64,
    },
    /// Nothing is cut or corrupted any more.
    Heal,
    /// The links become other ones, except for their latencies.
    Links {
        /// The probability that a message gets lost.
        loss: f64,
        /// The probability that it arrives twice.
        duplication: f64,
        /// The probability that it is held back.
        reordering: f64,
    },
    /// Nothing gets through, either way.
    Partition {
        /// Between these.
        ones: Vec<Name>,
        /// And those.
        others: Vec<Name>,
    },
    /// Nothing gets through, one way.
    PartitionOneWay {
        /// From these.
        from: Vec<Name>,
        /// To those.
        to: Vec<Name>,
    },
    /// A process freezes.
    Pause {
        /// Which.
        node: Name,
    },
    /// A process starts that remembers nothing.
    Restart {
        /// Which.
        node: Name,
    },
    /// A frozen process goes on.
    Resume {
        /// Which.
        node: Name,
    },
    /// A machine takes longer for everything.
    SlowDown {
        /// Which.
        node: Name,
        /// How many times as long.
        factor: f64,
    },
}

/// What must come of it. Beside this, whatever [`check`](crate::check) says must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// After the last opening and the last fault, every session that is not over has agreed within
    /// this time.
    pub agreed_within_s: f64,
    /// And then nobody bids for so long.
    pub steady_s: f64,
    /// The bound holds. Without this it is checked only where nothing speaks against it.
    #[serde(skip_serializing_if = "is_false")]
    pub bound: bool,
    /// No more sessions than this fail.
    pub failed_max: usize,
    /// No more pieces than this change their providers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moves_max: Option<u64>,
    /// At least so many outputs arrive.
    #[serde(skip_serializing_if = "is_nothing")]
    pub inferences_min: usize,
    /// All of these happen.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub sees: BTreeSet<Sighting>,
}

/// A node of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Name {
    /// The provider of this number.
    Provider(u32),
    /// The requester of this session.
    Requester(u32),
}

/// Why something is no scenario.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// It does not follow the format; the text says where and why.
    #[error("{0}")]
    Format(String),
    /// The links make no sense.
    #[error(transparent)]
    Links(#[from] network::ConfigError),
    /// There is nobody to compute, or nothing to.
    #[error("a scenario needs at least one provider and one session")]
    Empty,
    /// Two of a kind have one number.
    #[error("there are two of {0}")]
    Twice(Name),
    /// A fault befalls nobody.
    #[error("there is no {0}")]
    Unknown(Name),
    /// A number makes no sense.
    #[error("{what} must be {range}, not {value}")]
    Range {
        /// Of what.
        what: &'static str,
        /// What would make sense.
        range: &'static str,
        /// What it is.
        value: f64,
    },
}

impl Scenario {
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

    /// Writes it down, so that [`parse`](Self::parse) reads the same.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("names, numbers and lists of them are TOML")
    }

    /// Says what is wrong with it, if anything.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn validate(&self) -> Result<(), ScenarioError> {
        if self.providers.is_empty() || self.sessions.is_empty() {
            return Err(ScenarioError::Empty);
        }
        self.links.config().validate()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = self.names().find(|name| !names.insert(*name)) {
            return Err(ScenarioError::Twice(twice));
        }
        self.validate_numbers()?;
        self.faults.iter().try_for_each(|fault| fault.verb.validate(&names))
    }

    /// When the last of what it says happens.
    #[must_use]
    pub fn last_at(&self) -> Duration {
        let opens = self
            .sessions
            .iter()
            .flat_map(|session| [Some(session.at_s), session.close_at_s].into_iter().flatten());
        let faults = self.faults.iter().map(|fault| fault.at_s);
        seconds(opens.chain(faults).fold(0.0, f64::max))
    }

    fn names(&self) -> impl Iterator<Item = Name> {
        let providers = self.providers.iter().map(|provider| Name::Provider(provider.number));
        providers.chain(self.sessions.iter().map(|session| Name::Requester(session.number)))
    }

    fn validate_numbers(&self) -> Result<(), ScenarioError> {
        for provider in &self.providers {
            in_range("clock_ahead_s", provider.clock_ahead_s, 0.0..=TIME_MAX)?;
            in_range("lies", provider.lies.unwrap_or(1.0), FACTORS)?;
            in_range("slots", f64::from(provider.slots), 1.0..=f64::from(u16::MAX))?;
        }
        for session in &self.sessions {
            in_range("at_s", session.at_s, 0.0..=TIME_MAX)?;
            in_range("close_at_s", session.close_at_s.unwrap_or(0.0), 0.0..=TIME_MAX)?;
            in_range("pieces", session.pieces as f64, 1.0..=PIECES_MAX as f64)?;
            in_range("stream", session.stream as f64, 0.0..=STREAM_MAX)?;
        }
        for fault in &self.faults {
            in_range("at_s", fault.at_s, 0.0..=TIME_MAX)?;
        }
        in_range("agreed_within_s", self.expect.agreed_within_s, 0.0..=TIME_MAX)?;
        in_range("steady_s", self.expect.steady_s, 0.0..=TIME_MAX)
    }
}

impl Links {
    /// The links of a world.
    #[must_use]
    pub fn config(&self) -> network::Config {
        network::Config {
            latency_min: Duration::from_millis(self.latency_min_ms),
            latency_max: Duration::from_millis(self.latency_max_ms),
            loss: self.loss,
            duplication: self.duplication,
            reordering: self.reordering,
            ..network::Config::default()
        }
    }
}

impl Verb {
    /// Whom it befalls, if it is not everybody.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        match self {
            Self::Crash { node }
            | Self::Pause { node }
            | Self::Restart { node }
            | Self::Resume { node }
            | Self::SlowDown { node, .. } => vec![*node],
            Self::Partition { ones, others } => [ones.as_slice(), others].concat(),
            Self::PartitionOneWay { from, to } => [from.as_slice(), to].concat(),
            Self::Corrupt { .. } | Self::Garble { .. } | Self::Heal | Self::Links { .. } => {
                Vec::new()
            }
        }
    }

    fn validate(&self, known: &BTreeSet<Name>) -> Result<(), ScenarioError> {
        if let Some(unknown) = self.names().into_iter().find(|name| !known.contains(name)) {
            return Err(ScenarioError::Unknown(unknown));
        }
        match *self {
            Self::Corrupt { probability } | Self::Garble { probability } => {
                in_range("probability", probability, 0.0..=1.0)
            }
            Self::Links { loss, duplication, reordering } => {
                let links = Links { loss, duplication, reordering, ..Links::default() };
                Ok(links.config().validate()?)
            }
            Self::SlowDown { factor, .. } => in_range("factor", factor, FACTORS),
            Self::Crash { .. }
            | Self::Heal
            | Self::Partition { .. }
            | Self::PartitionOneWay { .. }
            | Self::Pause { .. }
            | Self::Restart { .. }
            | Self::Resume { .. } => Ok(()),
        }
    }
}

impl Default for Links {
    fn default() -> Self {
        Self { latency_min_ms: 1, latency_max_ms: 20, loss: 0.0, duplication: 0.0, reordering: 0.0 }
    }
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            agreed_within_s: 30.0,
            steady_s: 10.0,
            bound: false,
            failed_max: 0,
            moves_max: None,
            inferences_min: 0,
            sees: BTreeSet::new(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(number) => write!(f, "p{number}"),
            Self::Requester(number) => write!(f, "r{number}"),
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let kind = text.get(..1).unwrap_or_default();
        let number = text.get(1..).and_then(|digits| digits.parse().ok());
        match (kind, number) {
            ("p", Some(number)) => Ok(Self::Provider(number)),
            ("r", Some(number)) => Ok(Self::Requester(number)),
            _ => Err(format!("`{text}` names no node: providers are p0, p1, ..., requesters r0")),
        }
    }
}

/// A time of a scenario.
#[must_use]
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn in_range(
    what: &'static str,
    value: f64,
    range: std::ops::RangeInclusive<f64>,
) -> Result<(), ScenarioError> {
    if range.contains(&value) {
        return Ok(());
    }
    let range = match what {
        "slots" | "pieces" => "a whole number from 1",
        "factor" | "lies" => "between 0.001 and 1000",
        "probability" => "between 0 and 1",
        "stream" => "at most 1000",
        _ => "between 0 and 100000 seconds",
    };
    Err(ScenarioError::Range { what, range, value })
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

fn is_none(number: &i32) -> bool {
    *number == 0
}

fn is_nothing(number: &usize) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

const TIME_MAX: f64 = 1e5;
const STREAM_MAX: f64 = 1e3;
const FACTORS: std::ops::RangeInclusive<f64> = 1e-3..=1e3;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
about = "Two of everything."
seed = 3

[[provider]]
number = 0
slots = 4

[[session]]
number = 1
at_s = 1.5
pieces = 2

[[fault]]
at_s = 2.0
do = { partition = { ones = ["p0"], others = ["r1"] } }

[[fault]]
at_s = 3.0
do = "heal"
"#;

    fn check_refused(text: &str, complaint: &str) {
        let error = Scenario::parse(text).expect_err("no scenario").to_string();
        assert!(error.contains(complaint), "{error}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let scenario = Scenario::parse(SMALL).expect("a scenario");
        assert_eq!(scenario.last_at(), Duration::from_secs(3));
        let (ones, others) = (vec![Name::Provider(0)], vec![Name::Requester(1)]);
        assert_eq!(scenario.faults[0].verb, Verb::Partition { ones, others });
        assert_eq!(Scenario::parse(&scenario.to_toml()), Ok(scenario));
    }

    #[test]
    fn unknown_keys_are_refused_by_name_and_line() {
        check_refused(&SMALL.replace("slots", "slotz"), "unknown field `slotz`");
        check_refused(&SMALL.replace("slots", "slotz"), "line 7");
        check_refused(&SMALL.replace("seed = 3", "seed = 3\nnote = 1"), "unknown field `note`");
        let verb = SMALL.replace("ones =", "these =");
        check_refused(&verb, "unexpected keys in table: these");
        check_refused(&verb, "line 16");
        check_refused(&SMALL.replace("\"heal\"", "\"help\""), "unknown variant `help`");
        check_refused(&SMALL.replace("\"p0\"", "\"x0\""), "`x0` names no node");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check_refused(&SMALL.replace("\"p0\"", "\"p7\""), "there is no p7");
        check_refused(&SMALL.replace("at_s = 1.5", "at_s = -1.5"), "at_s must be between 0");
        check_refused(&SMALL.replace("pieces = 2", "pieces = 0"), "pieces must be");
        let twice = format!("{SMALL}\n[[provider]]\nnumber = 0\nslots = 1\n");
        check_refused(&twice, "there are two of p0");
        check_refused(&format!("{SMALL}\n[links]\nloss = 0.9\n"), "the loss must be between");
        check_refused("about = \"\"\nseed = 0\nprovider = []\nsession = []", "at least one");
    }
}
