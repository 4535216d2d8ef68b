//! `paper`: a paper's claims under our model, as a folder of tables and plots.

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand};
use starling_sim::paper::xu2023::{self, Scale, Setup};

use super::{CliError, Outcome, progress_bar};

/// The flags of `starling-sim paper`.
#[derive(Args)]
pub(super) struct Paper {
    #[command(subcommand)]
    which: Which,
}

#[derive(Subcommand)]
enum Which {
    /// Xu, Mohammed, Di Francesco, Fischione 2023: inference time, fairness and iterations of the
    /// auction against every other algorithm.
    ///
    /// Writes report.md, its tables as CSV and its plots as SVG. The paper's own parameters were
    /// not available: the model is ours, and the report says what it is.
    #[command(after_help = EXAMPLES)]
    Xu2023(Xu2023),
}

/// The flags of `starling-sim paper xu2023`.
#[derive(Args)]
struct Xu2023 {
    /// The folder to write to; made if it is not there. Files of an earlier report are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many seeds of each scenario to run [default: 20, with --quick 2]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Only small scenarios: seconds instead of minutes, and figures that say little
    #[arg(long)]
    quick: bool,
}

const EXAMPLES: &str = "\
Examples:
  starling-sim paper xu2023 --out report
  starling-sim paper xu2023 --out /tmp/report --quick

Exit code: 0 if the report is written, 1 if it could not be made, 2 if the flags make no sense.";

impl Paper {
    /// Runs what the flags say.
    pub(super) fn run(&self) -> Result<Outcome, CliError> {
        match &self.which {
            Which::Xu2023(flags) => flags.run(),
        }
    }
}

impl Xu2023 {
    fn run(&self) -> Result<Outcome, CliError> {
        // Before the work, which takes minutes: whoever mistypes a path hears of it now.
        self.make_folder()?;
        let setup = self.setup();
        let progress = progress_bar(setup.cases() as u64);
        let results = xu2023::run(&setup, || progress.inc(1));
        progress.finish_and_clear();
        let results = match results {
            Ok(results) => results,
            Err(failure) => return Ok(failed(&failure)),
        };
        match xu2023::report::files(&results) {
            Ok(files) => xu2023::report::write(&self.out, &files)?,
            Err(error) => return Ok(failed(&error)),
        }
        println!("{}", self.out.join("report.md").display());
        Ok(Outcome::Passed)
    }

    fn setup(&self) -> Setup {
        let (scale, seeds) = if self.quick { (Scale::Quick, 2) } else { (Scale::Full, 20) };
        Setup::new(self.seeds.unwrap_or(seeds), scale)
    }

    /// Makes the folder, and sees whether a file can be written to it.
    fn make_folder(&self) -> Result<(), CliError> {
        let trial = self.out.join(TRIAL);
        let made = fs::create_dir_all(&self.out).and_then(|()| fs::write(&trial, ""));
        made.and_then(|()| fs::remove_file(&trial)).map_err(|error| {
            CliError::Usage(format!("cannot write to --out {}: {error}", self.out.display()))
        })
    }
}

fn failed(failure: &dyn std::error::Error) -> Outcome {
    eprintln!("error: {failure}");
    Outcome::Failed
}

/// A file that is there for a moment only.
const TRIAL: &str = ".starling-sim";
