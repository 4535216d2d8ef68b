//! The command lines of the programs of a testbed.

use std::{ffi::OsString, path::PathBuf};

use super::scenario::{Goal, Machine, Scenario, Session};

/// What `starling` is started with, on which machine for what.
pub(super) struct Arguments<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) machines: Vec<Machine>,
    /// Where its files go.
    pub(super) scratch: PathBuf,
}

impl Arguments<'_> {
    /// What the model costs.
    pub(super) fn inspect(&self) -> Vec<OsString> {
        let mut arguments = words(&["--json", "inspect"]);
        arguments.extend(self.model());
        arguments
    }

    /// What it gives on this machine, with nothing held back.
    pub(super) fn reference(&self) -> Vec<OsString> {
        let mut arguments = words(&["infer", "--local"]);
        arguments.extend(self.model());
        arguments.extend(["--output".into(), self.reference_file().into()]);
        arguments
    }

    /// A board's node.
    pub(super) fn node(&self, board: usize) -> Vec<OsString> {
        let limits = self.machines[board].limits;
        let mut arguments = words(&["--json", "node", "--until-stdin-closes"]);
        arguments.extend(self.threads(board));
        arguments.extend(self.link(board));
        // The other half is for the program, for activations, and for the system.
        let mib = limits.memory_mib.map_or(1024, |mib| (mib / 2).max(1));
        arguments.extend(words(&["--memory", &mib.to_string()]));
        arguments.extend(["--data".into(), self.data(&format!("board-{board}"))]);
        arguments
    }

    /// The whole model on one board, over and over.
    pub(super) fn alone(&self, board: usize) -> Vec<OsString> {
        let mut arguments = words(&["--json", "infer", "--local", "--events", "--in-flight", "1"]);
        arguments.extend(words(&["--duration", &self.scenario.run.alone_s.to_string()]));
        arguments.extend(self.threads(board));
        arguments.extend(self.model());
        arguments.extend(["--data".into(), self.data(&format!("alone-{board}"))]);
        arguments
    }

    /// The whole model on whichever board is best, asked for by the first session's machine.
    pub(super) fn served(&self, boards: usize) -> Vec<OsString> {
        let mut arguments = words(&["--json", "infer", "--no-compute", "--events"]);
        arguments.extend(words(&["--wait", SEARCH_S, "--nodes", &boards.to_string()]));
        arguments.extend(words(&["--strips", "1", "--in-flight", "3"]));
        // Not for longer, or the piece may move to another board, which looks less busy.
        let seconds = self.scenario.run.alone_s / 2.0;
        arguments.extend(words(&["--duration", &seconds.to_string()]));
        arguments.extend(self.link(self.scenario.machine_of(&self.scenario.sessions[0])));
        arguments.extend(self.model());
        arguments.extend(["--data".into(), self.data("served")]);
        arguments
    }

    /// A session's requester, with so many boards to look for.
    pub(super) fn session(&self, number: usize, boards: usize) -> Vec<OsString> {
        let session = &self.scenario.sessions[number];
        let mut arguments = words(&["--json", "infer", "--no-compute", "--events"]);
        arguments.extend(["--check".into(), self.reference_file().into()]);
        arguments.extend(words(&["--wait", SEARCH_S, "--nodes", &boards.to_string()]));
        arguments.extend(plan(session));
        if let Some(patience_s) = session.patience_s {
            arguments.extend(words(&["--patience", &patience_s.to_string()]));
        }
        arguments.extend(load(session));
        arguments.extend(self.link(self.scenario.machine_of(session)));
        arguments.extend(self.model());
        arguments.extend(["--data".into(), self.data(&format!("session-{number}"))]);
        arguments
    }

    fn model(&self) -> Vec<OsString> {
        let model = &self.scenario.model;
        let mut arguments = vec![model.file.clone().into_os_string()];
        for (flag, file) in model
            .image
            .iter()
            .map(|file| ("--image", file))
            .chain(model.inputs.iter().map(|file| ("--input", file)))
        {
            arguments.extend([flag.into(), file.clone().into_os_string()]);
        }
        arguments
    }

    /// A thread for each core that a board has; one where it has less.
    fn threads(&self, board: usize) -> Vec<OsString> {
        let cores = self.machines[board].limits.cores.unwrap_or(1.0);
        words(&["--threads", &format!("{:.0}", cores.ceil().max(1.0))])
    }

    fn link(&self, machine: usize) -> Vec<OsString> {
        if !self.scenario.run.tell_links {
            return Vec::new();
        }
        let mbit = self.machines[machine].limits.link_mbit;
        words(&["--link", &format!("{:.0}", mbit.round().max(1.0))])
    }

    fn data(&self, name: &str) -> OsString {
        self.scratch.join(name).into()
    }

    /// Where the reference is.
    pub(super) fn reference_file(&self) -> PathBuf {
        self.scratch.join("reference.npy")
    }
}

fn plan(session: &Session) -> Vec<OsString> {
    let goal = match session.goal {
        Goal::Latency => "latency",
        Goal::Throughput => "throughput",
    };
    let mut arguments = words(&["--goal", goal]);
    if let Some(planner) = &session.planner {
        arguments.extend(words(&["--planner", planner]));
    }
    for (flag, numbers) in [("--cuts", &session.cuts), ("--strips", &session.strips)] {
        if !numbers.is_empty() {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            arguments.extend(words(&[flag, &numbers.join(",")]));
        }
    }
    arguments
}

fn load(session: &Session) -> Vec<OsString> {
    let number = |flag: &str, value: String| words(&[flag, &value]);
    let mut arguments = match (session.in_flight, session.rate_per_s) {
        (Some(in_flight), _) => number("--in-flight", in_flight.to_string()),
        (None, rate) => number("--rate", rate.unwrap_or(1.0).to_string()),
    };
    arguments.extend(match (session.count, session.duration_s) {
        (Some(count), _) => number("--repeat", count.to_string()),
        (None, duration) => number("--duration", duration.unwrap_or(1.0).to_string()),
    });
    arguments
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// How long a session looks for nodes.
const SEARCH_S: &str = "30";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(session: &str, expected: &str) {
        let text = format!(
            r#"
            about = "One board."
            model = {{ file = "m.onnx", image = "cat.jpg" }}
            board = [{{ name = "a", preset = "pi3" }}]
            session = [{{ name = "s", {session} }}]
            "#
        );
        let scenario = Scenario::parse(&text).expect("it makes sense");
        let (machines, scratch) = (scenario.machines(), PathBuf::from("/t"));
        let arguments = Arguments { scenario: &scenario, machines, scratch };
        let line: Vec<String> =
            arguments.session(0, 1).iter().map(|word| word.to_string_lossy().into()).collect();
        assert!(line.join(" ").contains(expected), "{line:?}");
    }

    #[test]
    fn sessions_are_asked_for_what_the_scenario_says() {
        check("in_flight = 4, count = 9", "--goal throughput --in-flight 4 --repeat 9 --link 1000");
        check("rate_per_s = 2.5, duration_s = 9", "--rate 2.5 --duration 9");
        check("in_flight = 4, count = 9, cuts = [3, 7]", "--cuts 3,7");
        check("in_flight = 4, count = 9, cuts = [3], strips = [2, 1]", "--cuts 3 --strips 2,1");
        check("in_flight = 4, count = 9, planner = \"dina\"", "--planner dina");
        check("in_flight = 4, count = 9, goal = \"latency\"", "--goal latency");
        check("in_flight = 4, count = 9, patience_s = 60", "--patience 60 --in-flight 4");
        check("in_flight = 4, count = 9, on = \"a\"", "--link 100 m.onnx --image cat.jpg");
    }
}
