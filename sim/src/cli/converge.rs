//! `converge`: flags to a setup, seeds to a table or JSON.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    time::Duration,
};

use clap::{Args, ValueEnum};
use starling_protocol::{Nats, market::Terms, session::Bidding};
use starling_sim::{
    baseline::Algorithm,
    converge::{self, Churn, Failure, Report, Setup, Timing},
    network, report,
    report::Medians,
    runner,
    workload::Size,
};

use super::{CliError, Outcome, progress_bar};

/// The flags of `starling-sim converge`.
#[derive(Args)]
pub(super) struct Converge {
    /// Pieces of all sessions (N)
    #[arg(long, value_name = "N", default_value_t = 100)]
    pieces: usize,
    /// Nodes that compute (M)
    #[arg(long, value_name = "M", default_value_t = 10)]
    providers: usize,
    /// Places at each provider [default: 1.5 to 3 times an even share, drawn]
    #[arg(long, value_name = "Q")]
    slots: Option<u16>,
    /// How many seeds to run
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first_seed: u64,
    /// The least rise of a price, in nats
    #[arg(long, value_name = "NATS", default_value_t = 0.05)]
    eps: f64,
    /// Who decides; all but the auction need --timing rounds
    #[arg(long, value_enum, default_value_t = Algorithm::Auction, hide_possible_values = true, value_name = "NAME")]
    algorithm: Algorithm,
    /// In what the auction's length is counted: virtual time over a simulated network with real
    /// gossip, or synchronous rounds without one [default: virtual for the auction]
    #[arg(long, value_enum)]
    timing: Option<TimingFlag>,
    /// Share of the others' adverts that each requester misses
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    missing: f64,
    /// With what pieces open: what a forecast ends at, or the best bid at the prices known
    #[arg(long, value_enum, default_value_t = BiddingFlag::Forecast)]
    bidding: BiddingFlag,
    /// Probability that a message is lost
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    loss: f64,
    /// Probability that a message arrives twice
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    duplication: f64,
    /// Probability that a message is held back for up to 50 ms, so that others overtake it
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    reordering: f64,
    /// The shortest latency of a link, one way
    #[arg(long, value_name = "MS", default_value_t = 1)]
    latency_min_ms: u64,
    /// The longest latency of a link, one way
    #[arg(long, value_name = "MS", default_value_t = 20)]
    latency_max_ms: u64,
    /// Run inferences through the agreed pieces for so long, and say what they took
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    observe: Option<u32>,
    /// After the agreement, crash one provider, and say what that came to
    #[arg(long)]
    crash: bool,
    /// Print one JSON object for each seed, and one with the medians
    #[arg(long)]
    json: bool,
}

/// In what an auction's length is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TimingFlag {
    Rounds,
    Virtual,
}

/// How pieces bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BiddingFlag {
    Forecast,
    Plain,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  starling-sim converge --pieces 100 --providers 10 --seeds 20
  starling-sim converge --pieces 1000 --providers 100 --seeds 5 --eps 0.1 --json
  starling-sim converge --bidding plain --pieces 300 --providers 30
  starling-sim converge --missing 0.05 --pieces 500 --providers 50
  starling-sim converge --algorithm textbook --pieces 200 --providers 20
  starling-sim converge --timing rounds --bidding plain --pieces 1000 --providers 100
  starling-sim converge --loss 0.02 --duplication 0.1 --reordering 0.2
  starling-sim converge --pieces 40 --providers 5 --seeds 3 --observe 30
  starling-sim converge --pieces 1000 --providers 100 --seeds 5 --crash

Exit code: 0 if every seed passed, 1 if one failed, 2 if the flags make no sense.";

impl Converge {
    /// Runs what the flags say.
    pub(super) fn run(&self) -> Result<Outcome, CliError> {
        let setup = self.setup().map_err(|error| CliError::Usage(error.to_string()))?;
        let failed = self.over_seeds(&setup)?;
        Ok(if failed == 0 { Outcome::Passed } else { Outcome::Failed })
    }

    fn setup(&self) -> Result<Setup, converge::SetupError> {
        let mut setup = Setup::new(self.pieces, self.providers);
        setup.size = Size { slots: self.slots, ..setup.size };
        setup.terms = Terms { eps: Nats::from_f64(self.eps), ..setup.terms };
        (setup.algorithm, setup.timing) = (self.algorithm, self.timing());
        setup.missing = self.missing;
        setup.bidding = match self.bidding {
            BiddingFlag::Forecast => Bidding::Forecast,
            BiddingFlag::Plain => Bidding::Plain,
        };
        setup.world.network = network::Config {
            latency_min: Duration::from_millis(self.latency_min_ms),
            latency_max: Duration::from_millis(self.latency_max_ms),
            loss: self.loss,
            duplication: self.duplication,
            reordering: self.reordering,
            ..setup.world.network
        };
        setup.churn = if self.crash { Churn::Crash } else { Churn::None };
        setup.observe = self.observe.map(|seconds| Duration::from_secs(u64::from(seconds)));
        setup.validate()?;
        Ok(setup)
    }

    fn timing(&self) -> Timing {
        match (self.timing, self.algorithm) {
            (Some(TimingFlag::Virtual), _) | (None, Algorithm::Auction) => Timing::Virtual,
            (Some(TimingFlag::Rounds) | None, _) => Timing::Rounds,
        }
    }

    /// Runs all seeds and returns how many failed.
    fn over_seeds(&self, setup: &Setup) -> io::Result<usize> {
        let progress = progress_bar(self.seeds);
        let mut sink = Sink {
            flags: self,
            setup,
            eps: setup.terms.eps.to_f64(),
            passed: Vec::new(),
            failed: 0,
        };
        let mut outcome = progress.suspend(|| sink.begin());
        let seeds = self.first_seed..self.first_seed.saturating_add(self.seeds);
        runner::over_seeds(
            seeds,
            |seed| converge::converge(seed, setup),
            |seed, result| {
                let result = result.map_err(Failure::Panic).and_then(|result| result);
                outcome = progress.suspend(|| sink.take(seed, result));
                progress.inc(1);
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        progress.finish_and_clear();
        outcome?;
        sink.end()?;
        Ok(sink.failed)
    }

    /// The command that runs one seed again.
    fn replay(&self, seed: u64) -> String {
        let Self { pieces, providers, eps, .. } = self;
        let mut command =
            format!("starling-sim converge --pieces {pieces} --providers {providers} --eps {eps}");
        if let Some(slots) = self.slots {
            command += &format!(" --slots {slots}");
        }
        if self.algorithm != Algorithm::Auction {
            command += &format!(" --algorithm {}", self.algorithm.name());
        }
        if self.timing == Some(TimingFlag::Rounds) {
            command += " --timing rounds";
        }
        if self.missing > 0.0 {
            command += &format!(" --missing {}", self.missing);
        }
        if self.bidding == BiddingFlag::Plain {
            command += " --bidding plain";
        }
        let faults = [
            ("loss", self.loss),
            ("duplication", self.duplication),
            ("reordering", self.reordering),
        ];
        for (name, probability) in faults.into_iter().filter(|(_, probability)| *probability > 0.0)
        {
            command += &format!(" --{name} {probability}");
        }
        let (shortest, longest) = (self.latency_min_ms, self.latency_max_ms);
        command += &format!(" --latency-min-ms {shortest} --latency-max-ms {longest}");
        if let Some(seconds) = self.observe {
            command += &format!(" --observe {seconds}");
        }
        if self.crash {
            command += " --crash";
        }
        command + &format!(" --first-seed {seed} --seeds 1")
    }
}

/// Where results go as they come in: figures to stdout, failures to stderr.
struct Sink<'a> {
    flags: &'a Converge,
    setup: &'a Setup,
    eps: f64,
    passed: Vec<Report>,
    failed: usize,
}

impl Sink<'_> {
    fn begin(&mut self) -> io::Result<()> {
        if self.flags.json {
            return Ok(());
        }
        writeln!(io::stdout(), "{}\n\n{}", report::heading(self.setup), report::table_head())
    }

    fn take(&mut self, seed: u64, result: Result<Report, Failure>) -> io::Result<()> {
        match result {
            Ok(report) => {
                let mut line = if self.flags.json {
                    report::json(&report, self.setup)
                } else {
                    report::table_row(&report, self.eps)
                };
                if let Some(observed) = report.observed.filter(|_| !self.flags.json) {
                    line += &format!("\n{}", report::observed_line(&observed));
                }
                if let Some(crash) = report.reagreement.filter(|_| !self.flags.json) {
                    line += &format!("\n{}", report::crash_line(&crash));
                }
                self.passed.push(report);
                writeln!(io::stdout(), "{line}")
            }
            Err(failure) => {
                self.failed += 1;
                let replay = self.flags.replay(seed);
                writeln!(io::stderr(), "seed {seed} failed: {failure}\n  again: {replay}")
            }
        }
    }

    fn end(&self) -> io::Result<()> {
        if self.flags.json {
            return writeln!(
                io::stdout(),
                "{}",
                report::json_medians(&self.passed, self.failed, self.setup)
            );
        }
        if let Some(medians) = Medians::of(&self.passed) {
            writeln!(io::stdout(), "{}", report::table_foot(&medians, self.eps))?;
        }
        let (passed, all) = (self.passed.len(), self.passed.len() + self.failed);
        let guaranteed = matches!(self.setup.algorithm, Algorithm::Auction | Algorithm::Textbook);
        let what = if guaranteed { "within U* - N*eps <= U <= U*" } else { "placed all pieces" };
        writeln!(io::stdout(), "\n{passed} of {all} seeds {what}")
    }
}
