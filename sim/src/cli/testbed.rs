//! `testbed`: a scenario on emulated boards.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use starling_sim::testbed::{self, Failure, Report, Scenario, Stop};

use super::{CliError, Outcome, complain};

/// The flags of `starling-sim testbed`.
#[derive(Args)]
pub(super) struct Testbed {
    /// A TOML file: see sim/scenarios/testbed
    #[arg(value_name = "SCENARIO")]
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write the report, its tables and its pictures to this folder; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The program that runs on the boards [default: beside this one, or on the path]
    #[arg(long, value_name = "PATH")]
    starling: Option<PathBuf>,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo starling-sim testbed sim/scenarios/testbed/four-equal.toml
  sudo starling-sim testbed sim/scenarios/testbed/churn.toml --out /tmp/churn --json

Needs Linux and root: boards are network namespaces and control groups. Nothing of them is left
behind, whatever ends the run, and the machine's own network is not touched.

Exit code: 0 if every session came to its end with every output right, 1 if not, 2 if the file
makes no sense or this machine can't, 130 if it was interrupted.";

impl Testbed {
    /// Runs the scenario.
    pub(super) fn run(&self) -> Result<Outcome, CliError> {
        let usage = |error: &dyn std::error::Error| {
            CliError::Usage(format!("{}: {error}", self.file.display()))
        };
        let scenario = Scenario::read(&self.file).map_err(|error| usage(&error))?;
        let starling = testbed::find_starling(self.starling.as_deref()).map_err(refused)?;
        if let Some(folder) = &self.out {
            fs::create_dir_all(folder).map_err(|error| {
                CliError::Usage(format!("cannot write to --out {}: {error}", folder.display()))
            })?;
        }
        let stop = Stop::on_signals()?;
        let mut say = |text: &str| {
            // Progress is for people, and the report for whoever reads stdout. What runs goes on,
            // whether or not anybody still looks.
            if self.json { complain(text) } else { writeln!(io::stdout(), "{text}").unwrap_or(()) }
        };
        say(&scenario.about);
        match testbed::run(&scenario, &starling, &stop, &mut say) {
            Ok(report) => self.print(&report),
            Err(failure @ (Failure::Interrupted | Failure::Unsuited(_))) => Err(refused(failure)),
            Err(failure) => {
                complain(format_args!("error: {failure}"));
                Ok(Outcome::Failed)
            }
        }
    }

    fn print(&self, report: &Report) -> Result<Outcome, CliError> {
        let text = if self.json {
            serde_json::to_string(report).expect("names and numbers are JSON") + "\n"
        } else {
            testbed::text(report)
        };
        if let Some(folder) = &self.out {
            let files = testbed::files(report)
                .map_err(|error| CliError::Io(io::Error::other(error.to_string())))?;
            for (name, content) in files {
                fs::write(folder.join(name), content)?;
            }
        }
        write!(io::stdout(), "{text}")?;
        Ok(if report.is_good() { Outcome::Passed } else { Outcome::Failed })
    }
}

fn refused(failure: Failure) -> CliError {
    match failure {
        Failure::Interrupted => CliError::Interrupted(failure.to_string()),
        other => CliError::Usage(other.to_string()),
    }
}
