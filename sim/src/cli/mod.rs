//! The command line. Each command has a file of its own; this one has what they share.

mod converge;
mod paper;
mod replay;
mod scenario;
mod solve;
mod swarm;
#[cfg(unix)]
mod testbed;

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

/// Starling's protocol in virtual time, checked against the exact optimum.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the auction to its end, seed by seed, and hold it against the optimum.
    ///
    /// Each seed draws its own machines, models and links. Nodes start cold, gather, and bid until
    /// every piece of every session has a place. Then U* - N*eps <= U <= U* must hold exactly, and
    /// each piece must have one place with a running lease.
    #[command(after_help = converge::EXAMPLES)]
    Converge(converge::Converge),
    /// Put a paper's claims to the test, and write a report with tables and plots
    Paper(paper::Flags),
    /// Solve an instance of the assignment problem from a file, by any of the algorithms.
    ///
    /// Prints one JSON object: the assignment, its utility and the exact optimum's, and what it
    /// took in rounds, bids and messages. What these count is told in the docs of
    /// `starling_sim::baseline`.
    #[command(after_help = solve::EXAMPLES)]
    Solve(solve::Solve),
    /// Play one seed of a swarm, and print its configuration and what happens.
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Replay),
    /// Play scenarios: who lives in a world, what goes wrong when, and what must come of it.
    #[command(after_help = scenario::EXAMPLES)]
    Scenario(scenario::Play),
    /// Play many seeds, each of which picks everything: machines, links, faults and their times.
    ///
    /// A failing seed is printed with its whole configuration, the command that plays it again and
    /// a smaller scenario that fails alike.
    #[command(after_help = swarm::EXAMPLES)]
    Swarm(swarm::Swarm),
    /// Run real node processes on emulated boards: links, processors and memory as a scenario says.
    ///
    /// Needs Linux and root. Each board is a network namespace and a control group of this machine.
    #[cfg(unix)]
    #[command(after_help = testbed::EXAMPLES)]
    Testbed(testbed::Testbed),
}

/// How a command ended that could do its work.
enum Outcome {
    Passed,
    /// Something that it looked at is not as it must be; it has said what.
    Failed,
}

/// Why a command could not do its work.
enum CliError {
    /// The flags or the input make no sense.
    Usage(String),
    /// Results can't be written.
    Io(io::Error),
    /// Somebody wanted it to end.
    #[cfg(unix)]
    Interrupted(String),
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Runs what the command line says: exit code 0 if all went well, 1 if something failed, 2 if the
/// flags make no sense.
pub(crate) fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Converge(flags) => flags.run(),
        Command::Paper(flags) => flags.run(),
        Command::Solve(flags) => flags.run(),
        Command::Replay(flags) => flags.run(),
        Command::Scenario(flags) => flags.run(),
        Command::Swarm(flags) => flags.run(),
        #[cfg(unix)]
        Command::Testbed(flags) => flags.run(),
    };
    match result {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        // Whoever reads has seen enough (`| head`).
        Err(CliError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(CliError::Io(error)) => {
            complain(format_args!("error: cannot write the results: {error}"));
            ExitCode::FAILURE
        }
        #[cfg(unix)]
        Err(CliError::Interrupted(text)) => {
            complain(text);
            ExitCode::from(INTERRUPTED)
        }
        Err(CliError::Usage(text)) => {
            complain(format_args!("error: {text}"));
            ExitCode::from(2)
        }
    }
}

/// A line on stderr. Where that can't be written to, there is nobody to tell.
fn complain(line: impl Display) {
    writeln!(io::stderr(), "{line}").ok();
}

/// On stderr, and only if that is a terminal.
fn progress_bar(seeds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {eta} left");
    ProgressBar::new(seeds).with_style(style.expect("a template that is right"))
}

/// What shells say of a program that Ctrl-C has ended.
#[cfg(unix)]
const INTERRUPTED: u8 = 130;
