//! `paper`: a paper's claims under our model, as a folder of tables and plots.

#[cfg(unix)]
mod boards;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
#[cfg(unix)]
use starling_sim::paper::boards::Paper;
use starling_sim::paper::{
    dina2020, edgeci2024,
    files::{self, Files},
    xu2023::{self, Scale},
};
use starling_sim::plot::PlotError;

use super::{CliError, Outcome, complain, progress_bar};

/// The flags of `starling-sim paper`.
#[derive(Args)]
pub(super) struct Flags {
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
    /// Mohammed, Joe-Wong, Babbar, Di Francesco 2020 (DINA): the latency of one inference for a
    /// driving camera, against two-way splits, greedy and random.
    ///
    /// Writes report.md, its tables as CSV and its plots as SVG. The paper's own parameters were
    /// not available: the model is ours, and the report says what it is.
    Dina2020(Planners),
    /// Chen, Luo, Fang, Xiong 2024 (EdgeCI): the time of one inference on a cluster of small
    /// devices, against layer-wise, early-fused and optimal-fused parallelism.
    ///
    /// Writes report.md, its tables as CSV and its plots as SVG. The paper's own parameters were
    /// not available: the model is ours, and the report says what it is.
    Edgeci2024(Planners),
}

/// The flags of the reports about planners.
#[derive(Args)]
struct Planners {
    /// The folder to write to; made if it is not there. Files of an earlier report are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Only a few scenarios: seconds instead of a minute, and figures that say little
    #[arg(long)]
    quick: bool,
    #[cfg(unix)]
    #[command(flatten)]
    boards: boards::OnBoards,
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

impl Flags {
    /// Runs what the flags say.
    pub(super) fn run(&self) -> Result<Outcome, CliError> {
        match &self.which {
            Which::Xu2023(flags) => flags.run(),
            Which::Dina2020(flags) => flags.dina2020(),
            Which::Edgeci2024(flags) => flags.edgeci2024(),
        }
    }
}

impl Xu2023 {
    fn run(&self) -> Result<Outcome, CliError> {
        // Before the work, which takes minutes: whoever mistypes a path hears of it now.
        make_folder(&self.out)?;
        let setup = self.setup();
        let progress = progress_bar(setup.cases() as u64);
        let results = xu2023::run(&setup, || progress.inc(1));
        progress.finish_and_clear();
        let results = match results {
            Ok(results) => results,
            Err(failure) => return Ok(failed(&failure)),
        };
        written(&self.out, xu2023::report::files(&results))
    }

    fn setup(&self) -> xu2023::Setup {
        let (scale, seeds) = if self.quick { (Scale::Quick, 2) } else { (Scale::Full, 20) };
        xu2023::Setup::new(self.seeds.unwrap_or(seeds), scale)
    }
}

impl Planners {
    fn dina2020(&self) -> Result<Outcome, CliError> {
        #[cfg(unix)]
        if self.boards.wanted() {
            return self.boards.run(&self.out, Paper::Dina2020);
        }
        make_folder(&self.out)?;
        let scale = if self.quick { dina2020::Scale::Quick } else { dina2020::Scale::Full };
        let progress = progress_bar(dina2020::scenario::Scenario::all(scale).len() as u64);
        let runs = dina2020::run(scale, || progress.inc(1));
        progress.finish_and_clear();
        match runs {
            Ok(runs) => written(&self.out, dina2020::report::files(&runs, scale)),
            Err(text) => Ok(failed(&text)),
        }
    }

    fn edgeci2024(&self) -> Result<Outcome, CliError> {
        #[cfg(unix)]
        if self.boards.wanted() {
            return self.boards.run(&self.out, Paper::EdgeCi2024);
        }
        make_folder(&self.out)?;
        let scale = if self.quick { edgeci2024::Scale::Quick } else { edgeci2024::Scale::Full };
        let progress = progress_bar(edgeci2024::scenario::Scenario::all(scale).len() as u64);
        let runs = edgeci2024::run(scale, || progress.inc(1));
        progress.finish_and_clear();
        match runs {
            Ok(runs) => written(&self.out, edgeci2024::report::files(&runs, scale)),
            Err(text) => Ok(failed(&text)),
        }
    }
}

/// Makes the folder, and sees whether a file can be written to it.
fn make_folder(out: &Path) -> Result<(), CliError> {
    let trial = out.join(TRIAL);
    let made = fs::create_dir_all(out).and_then(|()| fs::write(&trial, ""));
    made.and_then(|()| fs::remove_file(&trial)).map_err(|error| {
        CliError::Usage(format!("cannot write to --out {}: {error}", out.display()))
    })
}

/// Writes the report, and says where.
fn written(out: &Path, report: Result<Files, PlotError>) -> Result<Outcome, CliError> {
    match report {
        Ok(report) => files::write(out, &report)?,
        Err(error) => return Ok(failed(&error)),
    }
    writeln!(io::stdout(), "{}", out.join("report.md").display())?;
    Ok(Outcome::Passed)
}

fn failed(failure: &dyn std::fmt::Display) -> Outcome {
    complain(format_args!("error: {failure}"));
    Outcome::Failed
}

/// A file that is there for a moment only.
const TRIAL: &str = ".starling-sim";
