//! The commands, one file each, and the flags that they share.

mod bench;
mod demo;
mod find;
mod flock;
mod infer;
mod input;
mod inspect;
mod labels;
mod node;
mod out;
mod peers;
mod plan;
mod planning;
mod report;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use starling_engine::{ImportError, Model};
use tracing_subscriber::EnvFilter;

/// Peer-to-peer DNN inference on ad-hoc networks: no server, no coordinator, no internet.
#[derive(Debug, Parser)]
#[command(name = "starling", version, about, after_help = EXAMPLES)]
struct Cli {
    /// Print JSON for machines instead of text for people
    #[arg(long, global = true)]
    json: bool,
    /// What to log to stderr: error, warn, info, debug, or a filter such as `starling=debug`
    #[arg(long, global = true, default_value = "error", value_name = "FILTER")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure how long models take on this machine, what memory they need, and how well that is predicted
    Bench(bench::Args),
    /// Run a whole flock of node processes on this machine and classify images through it
    Demo(demo::Args),
    /// Run a model on an image or a tensor, through the flock or locally
    Infer(Box<infer::Args>),
    /// Show what a model is made of, what it costs and where it is best cut
    Inspect(inspect::Args),
    /// Join the flock and offer compute until stopped
    Node(node::Args),
    /// Show who is in the flock, how fast and how loaded
    Peers(peers::Args),
    /// Preview how a model would be divided among the nodes that are here now
    Plan(plan::Args),
}

const EXAMPLES: &str = "Examples:
  starling demo                                  see it work on this machine
  starling node                                  offer this machine to the local network
  starling infer model.onnx --image cat.jpg      classify through whoever is there
  starling inspect model.onnx                    layers, costs, best cuts
  starling bench model.onnx                      time and memory on this machine";

/// A command's failure: one line for the user. Exit code 1; clap's own are 2.
#[derive(Debug)]
struct Failure(String);

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = match EnvFilter::try_new(&cli.log) {
        Ok(filter) => filter,
        Err(error) => return fail(&Failure(format!("--log {}: {error}", cli.log))),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure(format!("can't start: {error}"))),
    };
    let result = runtime.block_on(run(cli));
    // A blocking task, such as a load that nobody waits for any longer, must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

/// On one processor, or a quota of no more, one thread for all: several would only wake each other.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    let one = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut builder = if one { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.enable_all().on_thread_park(crate::work::let_packets_gather).build()
}

async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Bench(args) => bench::run(&args, cli.json),
        Command::Demo(args) => demo::run(args, cli.json).await,
        Command::Infer(args) => infer::run(*args, cli.json).await,
        Command::Inspect(args) => inspect::run(&args, cli.json),
        Command::Node(args) => node::run(args, cli.json).await,
        Command::Peers(args) => peers::run(args, cli.json).await,
        Command::Plan(args) => plan::run(args, cli.json).await,
    }
}

/// Opens a model; the error names the file.
fn open_model(path: &Path) -> Result<Model, Failure> {
    Model::open(path).map_err(|error| match error {
        ImportError::Read { .. } | ImportError::NotOnnx { .. } | ImportError::Truncated { .. } => {
            Failure(error.to_string())
        }
        other => Failure(format!("{}: {other}", path.display())),
    })
}

fn fail(failure: &Failure) -> ExitCode {
    out::complain(format_args!("error: {}", failure.0));
    ExitCode::FAILURE
}

/// Where a user's data goes unless `--data` says otherwise.
fn default_data_dir() -> PathBuf {
    directories::ProjectDirs::from("", "", "starling")
        .map_or_else(|| PathBuf::from(".starling"), |dirs| dirs.data_dir().to_owned())
}
