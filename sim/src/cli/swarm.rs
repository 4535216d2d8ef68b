//! `swarm`: many seeds, each a scenario of its own.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    ops::{ControlFlow, Range},
};

use clap::Args;
use starling_sim::{
    ledger::Sighting,
    play::{self, Failure},
    runner,
    scenario::Scenario,
    shrink,
    swarm::{self, Limits},
};

use super::{CliError, Outcome, progress_bar};

/// The flags of `starling-sim swarm`.
#[derive(Args)]
pub(super) struct Swarm {
    /// Which seeds, the last one excluded
    #[arg(long, value_name = "A..B", default_value = "0..200", value_parser = range)]
    seeds: Range<u64>,
    #[command(flatten)]
    limits: LimitFlags,
    /// Go on after this many failures, but don't shrink any more of them
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    shrink: usize,
    /// Print one JSON object for each seed, and one for the swarm
    #[arg(long)]
    json: bool,
}

/// What runs are held to.
#[derive(Args)]
pub(super) struct LimitFlags {
    /// After the last fault everyone agrees within this time
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().agreed_within_s)]
    agreed_within: f64,
}

impl LimitFlags {
    /// The same, for the library.
    pub(super) fn limits(&self) -> Limits {
        Limits { agreed_within_s: self.agreed_within }
    }

    fn replay(&self, seed: u64) -> String {
        let mut command = format!("starling-sim replay --seed {seed}");
        if self.limits() != Limits::default() {
            command += &format!(" --agreed-within {}", self.agreed_within);
        }
        command
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  starling-sim swarm --seeds 0..1000
  starling-sim swarm --seeds 0..200 --json

Exit code: 0 if every seed passed and, of 200 seeds or more, all that can happen did; 1 if not.";

impl Swarm {
    /// Runs all seeds.
    pub(super) fn run(&self) -> Result<Outcome, CliError> {
        let limits = self.limits.limits();
        let drawn = swarm::draw(self.seeds.start, limits);
        drawn.validate().map_err(|error| CliError::Usage(error.to_string()))?;
        let progress = progress_bar(self.seeds.end - self.seeds.start);
        let mut sink = Sink { flags: self, passed: 0, failed: 0, seen: BTreeSet::new() };
        let mut written = Ok(());
        runner::over_seeds(
            self.seeds.clone(),
            |seed| play::play(&swarm::draw(seed, limits)),
            |seed, result| {
                let result = result.map_err(Failure::Panic).and_then(|result| result);
                written = progress.suspend(|| sink.take(seed, &result));
                progress.inc(1);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        progress.finish_and_clear();
        written?;
        Ok(sink.end()?)
    }
}

struct Sink<'a> {
    flags: &'a Swarm,
    passed: u64,
    failed: usize,
    seen: BTreeSet<Sighting>,
}

impl Sink<'_> {
    fn take(&mut self, seed: u64, result: &Result<play::Outcome, Failure>) -> io::Result<()> {
        match result {
            Ok(outcome) => {
                self.passed += 1;
                self.seen.extend(&outcome.sightings);
                if self.flags.json {
                    let line = serde_json::json!({ "seed": seed, "passed": outcome });
                    writeln!(io::stdout(), "{line}")?;
                }
                Ok(())
            }
            Err(failure) => {
                self.failed += 1;
                self.report(seed, failure)
            }
        }
    }

    /// The configuration first, then what went wrong, then how to see it again.
    fn report(&self, seed: u64, failure: &Failure) -> io::Result<()> {
        let scenario = swarm::draw(seed, self.flags.limits.limits());
        let again = self.flags.limits.replay(seed);
        if self.flags.json {
            let text = failure.to_string();
            let line = serde_json::json!({ "seed": seed, "failed": text, "again": again });
            writeln!(io::stdout(), "{line}")?;
        }
        let mut out = io::stderr().lock();
        writeln!(out, "# seed {seed}\n{}", scenario.to_toml())?;
        writeln!(out, "seed {seed} failed: {failure}\n  again: {again}")?;
        if self.failed <= self.flags.shrink {
            let small = shrunk(&scenario, failure);
            let file = std::env::temp_dir().join(format!("starling-seed-{seed}.toml"));
            std::fs::write(&file, small.to_toml())?;
            writeln!(out, "  shrunk: starling-sim scenario --log {}", file.display())?;
            writeln!(out, "\n{}", small.to_toml())?;
        }
        Ok(())
    }

    fn end(&self) -> io::Result<Outcome> {
        let runs = self.passed + self.failed as u64;
        let missing = swarm::never_seen(runs, &self.seen);
        if self.flags.json {
            let line = serde_json::json!({
                "passed_seeds": self.passed,
                "failed_seeds": self.failed,
                "seen": self.seen,
                "never_seen": missing,
            });
            writeln!(io::stdout(), "{line}")?;
        } else {
            writeln!(io::stdout(), "{} of {runs} seeds passed", self.passed)?;
            writeln!(io::stdout(), "seen: {}", names(self.seen.iter().copied()))?;
        }
        if !missing.is_empty() {
            let names = names(missing.iter().copied());
            writeln!(io::stderr(), "never seen in {runs} runs, so never tested: {names}")?;
        }
        let passed = self.failed == 0 && missing.is_empty();
        Ok(if passed { Outcome::Passed } else { Outcome::Failed })
    }
}

fn shrunk(scenario: &Scenario, failure: &Failure) -> Scenario {
    shrink::shrink(scenario, failure, SHRINK_RUNS_MAX, |smaller| play::play(smaller).err())
}

fn names(sightings: impl Iterator<Item = Sighting>) -> String {
    let names = sightings.map(|sighting| match serde_json::to_value(sighting) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{sighting:?}"),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let seeds = text.split_once("..").and_then(|(first, end)| {
        let seeds = first.parse().ok()?..end.parse().ok()?;
        (!Range::is_empty(&seeds)).then_some(seeds)
    });
    seeds.ok_or_else(|| "two numbers like 0..200, the second above the first".to_owned())
}

/// A shrunk scenario takes some seconds, not minutes.
const SHRINK_RUNS_MAX: usize = 400;
