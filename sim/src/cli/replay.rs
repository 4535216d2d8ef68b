//! `replay`: one seed of a swarm, with its configuration and what happens.

use std::io::{self, Write};

use clap::Args;
use starling_sim::{journal::Detail, play, swarm};

use super::{
    CliError, Outcome,
    scenario::{print_log, print_result},
};

/// The flags of `starling-sim replay`.
#[derive(Args)]
pub(super) struct Replay {
    /// Which seed
    #[arg(long, value_name = "SEED")]
    seed: u64,
    /// Print every message too
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    limits: super::swarm::LimitFlags,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  starling-sim replay --seed 17
  starling-sim replay --seed 17 --trace | grep 'a0000001 to'
  starling-sim replay --seed 17 | grep -v ' s  ' > seed-17.toml

Exit code: 0 if all went as it must, 1 if not.";

impl Replay {
    /// Plays the seed.
    pub(super) fn run(&self) -> Result<Outcome, CliError> {
        let scenario = swarm::draw(self.seed, self.limits.limits());
        writeln!(io::stdout(), "{}", scenario.to_toml())?;
        let detail = if self.trace { Detail::Messages } else { Detail::Events };
        let (result, log) = play::play_with_journal(&scenario, detail);
        print_log(&log)?;
        print_result(&format!("seed {}", self.seed), &result, false)?;
        Ok(if result.is_ok() { Outcome::Passed } else { Outcome::Failed })
    }
}
