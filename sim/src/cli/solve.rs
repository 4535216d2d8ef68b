//! `solve`: a file to JSON.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use starling_protocol::{Nats, market::Terms};
use starling_sim::{
    baseline::{Algorithm, Settings},
    solve::{self, Failure},
};

use super::{CliError, Outcome, complain};

/// The flags of `starling-sim solve`.
#[derive(Args)]
pub(super) struct Solve {
    /// The instance, a JSON file
    #[arg(long, value_name = "FILE")]
    instance: PathBuf,
    /// What to solve it by
    #[arg(long, value_name = "NAME", value_enum, default_value = "auction")]
    algorithm: Algorithm,
    /// The least rise of a price, in nats; the dual methods stop at this gap per piece
    #[arg(long, value_name = "NATS", default_value_t = 0.05)]
    eps: f64,
    /// Decides orders of arrival
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Stop after so many rounds
    #[arg(long, value_name = "ROUNDS", default_value_t = Settings::default().rounds_max)]
    rounds_max: u64,
}

pub(super) const EXAMPLES: &str = "\
The file is one JSON object: rates[i][j] is the rate of piece i alone at provider j, or null where
it can't go there, and capacity[j] is how many pieces provider j takes, or null for any number:
  {\"rates\": [[8.0, 3.0], [8.0, 7.0], [null, 5.0]], \"capacity\": [2, null]}

Examples:
  starling-sim solve --instance three.json
  starling-sim solve --instance three.json --algorithm dina-swap-move --seed 7
  starling-sim solve --instance three.json --algorithm dual-tuned --eps 0.01 | jq .rounds

Exit code: 0 if every piece has a place, 1 if one has none, 2 if the file or the flags make no
sense.";

impl Solve {
    /// Solves the instance of the file.
    pub(super) fn run(&self) -> Result<Outcome, CliError> {
        let usage = |error: &dyn std::error::Error| {
            CliError::Usage(format!("{}: {error}", self.instance.display()))
        };
        let settings = self.settings()?;
        let instance = solve::read(&self.instance).map_err(|error| usage(&error))?;
        let answer = match solve::solve(&instance, self.algorithm, &settings) {
            Ok(answer) => answer,
            Err(failure @ Failure::Infeasible(_)) => {
                complain(format_args!("{}: {failure}", self.instance.display()));
                return Ok(Outcome::Failed);
            }
            Err(failure) => return Err(CliError::Usage(failure.to_string())),
        };
        let json = serde_json::to_string(&answer).expect("numbers, names and lists");
        writeln!(io::stdout(), "{json}")?;
        let unplaced = answer.unplaced();
        if unplaced.is_empty() {
            return Ok(Outcome::Passed);
        }
        let (name, pieces) = (answer.algorithm, solve::list("piece", &unplaced));
        complain(format_args!("{name} found no place for {pieces}, although there is one for all"));
        Ok(Outcome::Failed)
    }

    fn settings(&self) -> Result<Settings, CliError> {
        if !(EPS_MIN..=EPS_MAX).contains(&self.eps) {
            let text = format!("--eps {}: it must be from {EPS_MIN} to {EPS_MAX} nats", self.eps);
            return Err(CliError::Usage(text));
        }
        let terms = Terms { eps: Nats::from_f64(self.eps), ..Terms::default() };
        let (seed, rounds_max) = (self.seed, self.rounds_max);
        Ok(Settings { terms, seed, rounds_max, ..Settings::default() })
    }
}

/// One unit of fixed-point arithmetic.
const EPS_MIN: f64 = 1e-9;
/// No price is anywhere near it.
const EPS_MAX: f64 = 1000.0;
