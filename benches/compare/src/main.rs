//! `compare`: Starling's engine beside onnxruntime, stock Burn and tract, in one run.
//!
//! Machines drift: their clocks, and what else they do. So the contestants take turns, in a new
//! random order each round, and what is reported are ratios. See README.md.

mod contestant;
mod local;
mod onnxruntime;
mod report;
mod rounds;
mod setup;
mod stats;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use starling_engine::Kernels;

use contestant::{Contestant, Kind, Result};
use report::{Network, Report};
use setup::Setup;

/// Compare Starling's engine with others, side by side and interleaved
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  compare                                            everything; some ten minutes
  compare --markdown > table.md
  compare --network resnet50 --network vgg16 --threads 1
  compare --only starling,onnxruntime --rounds 5

The first use makes a Python environment and the networks, in a folder beside the program.")]
struct Args {
    /// Contestants [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_enum)]
    only: Vec<Kind>,
    /// A network by name, or an ONNX file; may be repeated [default: the eleven networks]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    network: Vec<String>,
    /// Numbers of threads to compare at
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Rounds; each contestant has a turn in each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Measured runs in a turn, after some that aren't
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Of the order of turns
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the Python environment and the networks are kept
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Print a Markdown table
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let kinds = if args.only.is_empty() { Kind::ALL.to_vec() } else { args.only.clone() };
    let setup = Setup::prepare(args.cache.as_deref(), &kinds)?;
    let mut report = Report::new(args.rounds, args.runs, args.seed, &kinds);
    for path in setup.networks(&args.network)? {
        for &threads in &args.threads {
            let name = setup::name(&path);
            eprintln!("{name}, {threads} threads");
            let network = compare(args, &kinds, &setup, &path, usize::from(threads))?;
            report.networks.push(network);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if args.markdown {
        print!("{}", report.markdown());
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

fn compare(
    args: &Args,
    kinds: &[Kind],
    setup: &Setup,
    path: &Path,
    threads: usize,
) -> Result<Network> {
    let input = setup::noise(path)?;
    let mut contestants = Vec::new();
    for kind in kinds {
        let named = |error| format!("{}: {}: {error}", path.display(), kind.name());
        contestants.push(load(*kind, setup, path, threads, &input).map_err(named)?);
    }
    let outputs = contestants.iter_mut().map(|one| one.output()).collect::<Result<Vec<_>>>()?;
    let order = stats::Random::new(args.seed);
    let rounds = rounds::play(&mut contestants, args.rounds, args.runs, order)?;
    Ok(Network::new(setup::name(path), threads, kinds, &rounds, &outputs))
}

fn load(
    kind: Kind,
    setup: &Setup,
    path: &Path,
    threads: usize,
    input: &setup::Input,
) -> Result<Box<dyn Contestant>> {
    Ok(match kind {
        Kind::Burn => Box::new(local::starling(path, threads, input, Kernels::Portable)?),
        Kind::Starling => Box::new(local::starling(path, threads, input, Kernels::Fast)?),
        Kind::Onnxruntime => {
            Box::new(onnxruntime::Worker::start(&setup.python, path, threads, input)?)
        }
        Kind::Tract => Box::new(local::tract(path, threads, input)?),
    })
}
