//! `scenario`: plays a file.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use starling_sim::{
    journal::Detail,
    play::{self, Failure, Outcome},
    scenario::Scenario,
};

use super::{CliError, Outcome as Verdict};

/// The flags of `starling-sim scenario`.
#[derive(Args)]
pub(super) struct Play {
    /// TOML files: see sim/scenarios
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print what happens
    #[arg(long)]
    log: bool,
    /// Print every message too
    #[arg(long)]
    trace: bool,
    /// Print one JSON object for each scenario
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  starling-sim scenario sim/scenarios/crash-one-of-many.toml
  starling-sim scenario sim/scenarios/partition-and-heal.toml --log

Exit code: 0 if all went as they must, 1 if one did not, 2 if a file is no scenario.";

impl Play {
    /// Plays all files.
    pub(super) fn run(&self) -> Result<Verdict, CliError> {
        let mut verdict = Verdict::Passed;
        for file in &self.files {
            let name = file.display();
            let text = fs::read_to_string(file)
                .map_err(|error| CliError::Usage(format!("cannot read {name}: {error}")))?;
            let scenario = Scenario::parse(&text)
                .map_err(|error| CliError::Usage(format!("{name}: {error}")))?;
            let (result, log) = play::play_with_journal(&scenario, detail(self.log, self.trace));
            if !self.json {
                writeln!(io::stdout(), "{name}: {}", scenario.about)?;
            }
            print_log(&log)?;
            if result.is_err() {
                verdict = Verdict::Failed;
            }
            print_result(&name.to_string(), &result, self.json)?;
        }
        Ok(verdict)
    }
}

/// How much is written down.
pub(super) fn detail(log: bool, trace: bool) -> Detail {
    match (log, trace) {
        (_, true) => Detail::Messages,
        (true, false) => Detail::Events,
        (false, false) => Detail::Nothing,
    }
}

pub(super) fn print_log(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// A line that says how it went: to stdout, or to stderr if it went wrong.
pub(super) fn print_result(
    name: &str,
    result: &Result<Outcome, Failure>,
    json: bool,
) -> io::Result<()> {
    match result {
        Ok(outcome) if json => {
            let outcome = serde_json::to_value(outcome).expect("names and numbers are JSON");
            writeln!(io::stdout(), "{}", serde_json::json!({ "name": name, "passed": outcome }))
        }
        Ok(outcome) => writeln!(io::stdout(), "  {}", in_words(outcome)),
        Err(failure) if json => {
            let line = serde_json::json!({ "name": name, "failed": failure.to_string() });
            writeln!(io::stdout(), "{line}")
        }
        Err(failure) => writeln!(io::stderr(), "{name} failed: {failure}"),
    }
}

fn in_words(outcome: &Outcome) -> String {
    let bound = match outcome.gap_per_piece {
        Some(gap) => format!("{gap:.5} nats a piece below the optimum"),
        None => "no bound applies".to_owned(),
    };
    format!(
        "agreed {:.2} s after the last fault or opening; {} bids, {} moves, {} failed, {} outputs; \
         {bound}; trace {}",
        outcome.agreed_after_s,
        outcome.bids,
        outcome.moves,
        outcome.failed,
        outcome.inferences,
        &outcome.trace_hash[..12],
    )
}
