//! `paper --testbed`: the planners on emulated boards.

use std::path::{Path, PathBuf};

use clap::Args;
use starling_sim::{
    paper::boards::{self, Paper, Setup},
    testbed::{Failure, Stop},
};

use super::{failed, make_folder, written};
use crate::cli::{CliError, Outcome, complain};

/// The flags that say what is measured.
#[derive(Args)]
pub(super) struct OnBoards {
    /// Measure the planners on emulated boards instead of simulating them; needs Linux and root
    #[arg(long, requires_all = ["model", "image"], conflicts_with = "quick")]
    testbed: bool,
    /// With --testbed: a network, as an ONNX file; may be repeated
    #[arg(long, value_name = "FILE", requires = "testbed")]
    model: Vec<PathBuf>,
    /// With --testbed: a picture for the networks
    #[arg(long, value_name = "FILE", requires = "testbed")]
    image: Option<PathBuf>,
    /// With --testbed: how many boards
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=16))]
    boards: u16,
    /// With --testbed: the rates of the boards' links
    #[arg(long, value_name = "MBIT,...", value_delimiter = ',', default_value = "100")]
    link: Vec<f64>,
    /// With --testbed: for how long each planner's inferences run
    #[arg(long, value_name = "SECONDS", default_value_t = 8.0)]
    seconds: f64,
    /// With --testbed: the program that runs on the boards [default: beside this one, or on the path]
    #[arg(long, value_name = "PATH", requires = "testbed")]
    starling: Option<PathBuf>,
}

impl OnBoards {
    /// Whether it is to be measured at all.
    pub(super) fn wanted(&self) -> bool {
        self.testbed
    }

    /// Measures, and writes the report.
    pub(super) fn run(&self, out: &Path, paper: Paper) -> Result<Outcome, CliError> {
        make_folder(out)?;
        let setup = Setup {
            paper,
            models: self.model.clone(),
            image: self.image.clone().unwrap_or_default(),
            boards: usize::from(self.boards),
            links: self.link.clone(),
            seconds: self.seconds,
            starling: self.starling.clone(),
        };
        let stop = Stop::on_signals()?;
        match setup.run(&stop, &mut |text: &str| complain(text)) {
            Ok(table) => written(out, Ok(boards::files(&setup, &table))),
            Err(failure @ Failure::Interrupted) => Err(CliError::Interrupted(failure.to_string())),
            Err(failure @ Failure::Unsuited(_)) => Err(CliError::Usage(failure.to_string())),
            Err(failure) => Ok(failed(&failure)),
        }
    }
}
