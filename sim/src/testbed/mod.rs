//! The emulated testbed: real `starling` processes on boards that are emulated on this machine.
//!
//! Each board is a network namespace with a shaped link, and a control group with a quota of the
//! processor and a limit of memory. What runs on it is the program that runs on a real board: it
//! finds the others by mDNS, bids, loads, computes, and loses its power when the scenario says so.
//!
//! | file | is |
//! |---|---|
//! | `scenario.rs`, `boards.rs`, `timeline.rs` | what a scenario says: machines, sessions, what happens when |
//! | `net.rs`, `cgroup.rs`, `process.rs` | links, processors, processes; each takes itself away when it is dropped |
//! | `stage.rs`, `arguments.rs` | put these together: boards that have found each other, sessions, events |
//! | `log.rs`, `measure.rs` | what the processes say; what is measured from outside |
//! | `report.rs`, `text.rs`, `files.rs` | the figures; for people; as files |
//! | `predict.rs` | the same run in the simulator |
//!
//! [`docs/TESTBED.md`](https://github.com/) tells people about it.

mod arguments;
mod boards;
mod cgroup;
mod command;
mod files;
mod log;
mod measure;
mod net;
mod predict;
mod process;
mod profile;
mod report;
mod scenario;
mod stage;
mod stop;
mod text;
mod timeline;

use std::{
    fmt::Display,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

pub use boards::{Limits, Preset};
pub use files::{FilesError, files};
pub use predict::Prediction;
pub use report::{Alone, BoardReport, FlockReport, PieceReport, Report, SessionReport};
pub use scenario::{
    Board, Event, Goal, Machine, Model, Run, Scenario, ScenarioError, Session, Verb,
};
pub use stop::Stop;
pub use text::text;
use thiserror::Error;

use stage::Stage;

/// Why a testbed could not be run to its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// This machine, or this user, can't.
    #[error("{0}")]
    Unsuited(String),
    /// Somebody has stopped it.
    #[error("interrupted; everything was taken away again")]
    Interrupted,
    /// The system refuses something.
    #[error("{0}")]
    System(String),
    /// A program of a machine ended that should not have.
    #[error("{who}: {what}")]
    Program {
        /// On which machine.
        who: String,
        /// What it said.
        what: String,
    },
    /// Something took too long.
    #[error("{0}")]
    Slow(String),
}

/// Runs a scenario, and tells `say` of what happens.
///
/// # Errors
/// If it can't be run to its end. Whatever comes of it, nothing of it is left behind.
pub fn run(
    scenario: &Scenario,
    starling: &Path,
    stop: &Stop,
    say: &mut dyn FnMut(&str),
) -> Result<Report, Failure> {
    suits()?;
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let mut warnings = Vec::new();
    if scenario.cores() > cores {
        warnings.push(format!(
            "the boards' quotas are {:.2} cores together, and this machine has {cores}: they will \
             wait for each other, and the figures mean little",
            scenario.cores()
        ));
        say(&format!("warning: {}", warnings[0]));
    }
    let mut stage = Stage::set_up(scenario, starling, stop, say)?;
    stage.start_boards(say)?;
    stage.run_alone(say)?;
    stage.run_served(say)?;
    stage.play(say)?;
    stage.run_alone_again(say)?;
    stage.dismiss();
    let measured = stage.measured()?;
    // All machines are gone before the simulator needs the processor.
    drop(stage);
    let mut report = Report::new(scenario, &measured, warnings);
    if scenario.run.predict {
        stop.look()?;
        match predict::predict(scenario, &measured) {
            Ok(prediction) => report.prediction = Some(prediction),
            Err(reason) => report.warnings.push(format!("no prediction: {reason}")),
        }
    }
    Ok(report)
}

/// The program to run on the boards: the one named, or that beside this program, or else the first
/// on the path.
///
/// # Errors
/// If there is none.
pub fn find_starling(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join(STARLING));
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(STARLING)).find(|file| file.is_file())
    };
    let found = match named {
        Some(file) => Some(file.to_owned()),
        None => beside().filter(|file| file.is_file()).or_else(on_path),
    };
    let found = found.filter(|file| file.is_file()).and_then(|file| fs::canonicalize(file).ok());
    found.ok_or_else(|| {
        let place = named.map_or_else(
            || "beside this program or on the path".to_owned(),
            |file| format!("at {}", file.display()),
        );
        Failure::Unsuited(format!(
            "there is no program {STARLING} {place}; build it with `cargo build --release -p \
             starling-node`, or name it with --starling"
        ))
    })
}

/// Says why this machine can't, if so, before anything is made.
fn suits() -> Result<(), Failure> {
    let unsuited = |text: &str| Err(Failure::Unsuited(format!("the testbed {text}")));
    if !cfg!(target_os = "linux") {
        return unsuited("needs Linux, for its network namespaces and control groups");
    }
    if !is_root() {
        return unsuited("needs root, to make network namespaces and control groups");
    }
    let programs = [
        ("ip", "-Version", "iproute2"),
        ("tc", "-Version", "iproute2"),
        ("nsenter", "-V", "util-linux"),
    ];
    for (program, version, package) in programs {
        if command::run(program, &[version]).is_err() {
            return unsuited(&format!("needs the command `{program}` (package {package})"));
        }
    }
    Ok(())
}

/// A line on stderr: of what is done in passing, and must be done to its end.
fn warn(what: impl Display) {
    writeln!(io::stderr(), "warning: {what}").ok();
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, of the file system.
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

const STARLING: &str = "starling";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_missed() {
        let error = find_starling(Some(Path::new("/no/such/starling"))).expect_err("none there");
        assert!(error.to_string().contains("no program starling at /no/such/starling"), "{error}");
        let shell = find_starling(Some(Path::new("/bin/sh"))).expect("it is a file");
        assert!(shell.is_absolute());
    }
}
