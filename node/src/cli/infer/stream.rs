//! The stream of inferences of one command: how many at a time or how often, for how long, and
//! whether every output is what it must be.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use indicatif::ProgressBar;
use serde_json::json;
use starling_engine::{Tensor, npy};

use crate::{
    cli::{Failure, out, report},
    net::Timing,
    runtime::Answer,
};

/// How inferences come.
#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// Run each input this many times, pipelined
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) repeat: u32,
    /// Start inferences for so long instead of a number of times
    #[arg(long, value_name = "SECONDS", conflicts_with = "repeat", value_parser = crate::cli::find::seconds)]
    duration: Option<f64>,
    /// How many inferences wait for their outputs at a time: less keeps latencies low
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1000))]
    in_flight: u16,
    /// Start so many inferences a second instead, whether or not earlier ones are done; what finds
    /// 1000 waiting is dropped
    #[arg(long, value_name = "PER-SECOND", conflicts_with = "in_flight", value_parser = rate)]
    rate: Option<f64>,
    /// Hold every output against this tensor; fails if one is off by more than 0.0001 of its peak
    #[arg(long, value_name = "FILE.npy")]
    check: Option<std::path::PathBuf>,
    /// Print a line of JSON for each thing that happens, as it happens
    #[arg(long)]
    pub(super) events: bool,
}

/// What came of a stream.
#[derive(Default)]
pub(super) struct Streamed {
    /// The last answer for each input.
    pub(super) answers: Vec<Answer>,
    /// Where the time went, of every inference.
    pub(super) traces: Vec<Vec<Timing>>,
    /// Outputs that came.
    pub(super) count: u64,
    /// Inferences that found too many waiting.
    pub(super) dropped: u64,
    /// Seconds from an inference's start to its output, its waiting included.
    pub(super) latencies: Vec<f64>,
    /// The largest error of any output relative to the peak, if they were looked at.
    pub(super) error: Option<f64>,
    /// From the first start to the last output.
    pub(super) elapsed: Duration,
}

/// Whoever runs one inference on these inputs.
pub(super) trait Run {
    /// Starts it; the answer may take as long as it likes.
    fn run(&self, inputs: &[Tensor]) -> BoxFuture<'static, Result<Answer, String>>;
}

/// What outputs are held against.
struct Reference {
    values: Vec<f32>,
    peak: f64,
}

/// An inference that is done: when it was started, and what came.
type Done = (Instant, Result<Answer, String>);

impl LoadArgs {
    /// Whether more than one inference is asked for.
    pub(super) fn is_stream(&self, inputs: usize) -> bool {
        self.duration.is_some() || u64::from(self.repeat) * inputs as u64 > 1
    }

    /// How many there will be, if that is known.
    pub(super) fn total(&self, inputs: usize) -> u64 {
        if self.duration.is_some() { 0 } else { u64::from(self.repeat) * inputs as u64 }
    }

    /// Prints a line of JSON, if lines are wanted.
    pub(super) fn tell(&self, event: impl FnOnce() -> serde_json::Value) {
        if self.events {
            out::line(event()).ok();
        }
    }

    /// Runs every input as often as asked, one input after the other.
    pub(super) async fn stream(
        &self,
        runner: &impl Run,
        inputs: &[Vec<Tensor>],
        bar: &ProgressBar,
    ) -> Result<Streamed, Failure> {
        let reference = self.check.as_deref().map(Reference::read).transpose()?;
        let mut stream = Stream {
            load: self,
            reference,
            bar,
            began: Instant::now(),
            last: None,
            streamed: Streamed::default(),
        };
        for tensors in inputs {
            stream.one_input(runner, tensors).await?;
        }
        stream.streamed.elapsed = stream.began.elapsed();
        stream.streamed.check()?;
        Ok(stream.streamed)
    }

    /// When the inference of this number is due; nothing if there is none of it any more.
    fn due(&self, began: Instant, number: u64) -> Option<Instant> {
        let due = match self.rate {
            Some(rate) => began + Duration::from_secs_f64(number as f64 / rate),
            None => Instant::now(),
        };
        let more = match self.duration {
            Some(seconds) => due.duration_since(began).as_secs_f64() < seconds,
            None => number < u64::from(self.repeat),
        };
        more.then_some(due)
    }

    fn at_once(&self) -> usize {
        if self.rate.is_some() { WAITING_MAX } else { usize::from(self.in_flight) }
    }
}

struct Stream<'a> {
    load: &'a LoadArgs,
    reference: Option<Reference>,
    bar: &'a ProgressBar,
    began: Instant,
    last: Option<Answer>,
    streamed: Streamed,
}

impl Stream<'_> {
    async fn one_input(&mut self, runner: &impl Run, tensors: &[Tensor]) -> Result<(), Failure> {
        let began = Instant::now();
        let mut waiting: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        let mut number = 0;
        loop {
            let due = self.load.due(began, number);
            let room = waiting.len() < self.load.at_once();
            let turn = due.filter(|_| room || self.load.rate.is_some());
            if turn.is_none() && waiting.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some(done) = waiting.next() => self.take(done)?,
                () = until(turn) => {
                    number += 1;
                    if room {
                        // What is late counts from when it was due: nobody waits for free.
                        let started = turn.unwrap_or_else(Instant::now);
                        let answer = runner.run(tensors);
                        waiting.push(answer.map(move |answer| (started, answer)).boxed());
                    } else {
                        self.streamed.dropped += 1;
                    }
                }
            }
        }
        self.streamed.answers.extend(self.last.take());
        Ok(())
    }

    fn take(&mut self, (started, answer): Done) -> Result<(), Failure> {
        let answer = answer.map_err(Failure)?;
        let latency = started.elapsed().as_secs_f64();
        let error = self.reference.as_ref().map(|reference| reference.error_of(&answer));
        let streamed = &mut self.streamed;
        if let Some(error) = error {
            streamed.error = Some(worse(streamed.error.unwrap_or(0.0), error));
        }
        self.load.tell(|| {
            json!({
                "event": "inference",
                "started_s": seconds_since(self.began, started),
                "latency_ms": report::millis(latency),
                "error": error.map(finite),
                "pieces": report::trace(&answer.trace),
            })
        });
        streamed.count += 1;
        streamed.latencies.push(latency);
        streamed.traces.push(answer.trace.clone());
        self.last = Some(answer);
        self.bar.inc(1);
        Ok(())
    }
}

impl Streamed {
    /// The latency that this share of all inferences stays below, in milliseconds.
    pub(super) fn latency_ms(&self, share: f64) -> f64 {
        report::quantile_ms(self.latencies.iter().copied(), share)
    }

    fn check(&self) -> Result<(), Failure> {
        match self.error {
            // Not a number is no good either.
            Some(error) if error.is_nan() || error > ERROR_MAX => Err(Failure(format!(
                "an output is wrong: it differs from that of --check by {error:.1e} of its peak"
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

impl Reference {
    fn read(path: &Path) -> Result<Self, Failure> {
        let tensor = npy::read(path)?;
        if tensor.dtype() != starling_engine::DType::F32 {
            return Err(Failure(format!("{}: --check needs a tensor of f32", path.display())));
        }
        let values = tensor.as_f32().to_vec();
        let peak = values.iter().fold(0.0_f64, |peak, value| peak.max(f64::from(value.abs())));
        Ok(Self { values, peak })
    }

    /// The largest difference of the first output, in parts of the reference's peak; infinite for
    /// an output of another size.
    fn error_of(&self, answer: &Answer) -> f64 {
        let output = answer.outputs.first();
        let output = output.filter(|output| output.dtype() == starling_engine::DType::F32);
        let Some(values) = output.map(Tensor::as_f32) else { return f64::INFINITY };
        if values.len() != self.values.len() {
            return f64::INFINITY;
        }
        let differences = values.iter().zip(&self.values).map(|(a, b)| f64::from((a - b).abs()));
        differences.fold(0.0, worse) / self.peak.max(f64::MIN_POSITIVE)
    }
}

impl fmt::Display for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| self.latency_ms(share));
        write!(f, "latencies: {p50:.1} ms (median), {p95:.1} ms (95 %), {p99:.1} ms (99 %)")?;
        if self.dropped > 0 {
            write!(f, "; {} found too many waiting and were dropped", self.dropped)?;
        }
        match self.error {
            Some(error) => write!(f, "; every output within {error:.1e} of --check"),
            None => Ok(()),
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn seconds_since(began: Instant, at: Instant) -> f64 {
    report::millis(at.saturating_duration_since(began).as_secs_f64()) / 1e3
}

/// The larger error. What is not a number is the worst of all, and must not get lost in a maximum.
fn worse(worst: f64, next: f64) -> f64 {
    if next > worst || next.is_nan() { next } else { worst }
}

/// JSON knows no infinity.
fn finite(error: f64) -> f64 {
    if error.is_finite() { error } else { f64::MAX }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1e-3..=1e5).contains(&rate) => Ok(rate),
        _ => Err("inferences per second, from 0.001 to 100000".to_owned()),
    }
}

/// What an output may differ, in parts of the peak: pieces run the same arithmetic wherever they
/// are, and machines of different kinds round differently.
const ERROR_MAX: f64 = 1e-4;
/// No more than a session takes.
const WAITING_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(repeat: u32, in_flight: u16, rate: Option<f64>) -> LoadArgs {
        LoadArgs { repeat, duration: None, in_flight, rate, check: None, events: false }
    }

    /// Answers after a while, with what it was given.
    struct Echo(Duration);

    impl Run for Echo {
        fn run(&self, inputs: &[Tensor]) -> BoxFuture<'static, Result<Answer, String>> {
            let (outputs, pause) = (inputs.to_vec(), self.0);
            let answer = async move {
                tokio::time::sleep(pause).await;
                Ok(Answer { outputs, trace: Vec::new(), total: pause })
            };
            answer.boxed()
        }
    }

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_f32(vec![values.len()], values.to_vec()).expect("as many as the shape says")
    }

    async fn check(load: LoadArgs, pause: u64, seconds: f64) -> Streamed {
        let inputs = [vec![tensor(&[1.0])], vec![tensor(&[2.0])]];
        let bar = ProgressBar::hidden();
        let echo = Echo(Duration::from_millis(pause));
        let streamed = load.stream(&echo, &inputs, &bar).await.expect("no error");
        assert_eq!(streamed.answers.len(), 2);
        assert_eq!(streamed.latencies.len() as u64, streamed.count);
        // Sleeps last longer than asked where a machine is busy, and never shorter.
        assert!(streamed.elapsed.as_secs_f64() >= seconds, "{:?}", streamed.elapsed);
        streamed
    }

    #[tokio::test]
    async fn a_closed_loop_keeps_so_many_in_flight() {
        assert_eq!(check(load(4, 1, None), 10, 0.08).await.count, 8);
        assert_eq!(check(load(4, 2, None), 10, 0.04).await.count, 8);
    }

    #[tokio::test]
    async fn a_rate_does_not_wait_for_answers() {
        let streamed = check(load(5, 1, Some(100.0)), 100, 0.14).await;
        assert_eq!((streamed.count, streamed.dropped), (10, 0));
        assert!(streamed.latency_ms(0.5) >= 100.0);
    }

    #[tokio::test]
    async fn a_duration_ends_a_stream() {
        let endless = LoadArgs { duration: Some(0.05), ..load(1, 1, None) };
        assert!(endless.is_stream(1));
        assert!(check(endless, 5, 0.1).await.count >= 2);
    }

    #[test]
    fn errors_are_relative_to_the_peak() {
        let reference = Reference { values: vec![-4.0, 1.0], peak: 4.0 };
        let error = |values: &[f32]| {
            let outputs = vec![tensor(values)];
            reference.error_of(&Answer { outputs, trace: Vec::new(), total: Duration::ZERO })
        };
        assert_eq!(error(&[-4.0, 1.0]), 0.0);
        assert_eq!(error(&[-4.0, 2.0]), 0.25);
        assert_eq!(error(&[1.0]), f64::INFINITY);
        assert!(error(&[f32::NAN, 1.0]).is_nan());
        assert!(error(&[-4.0, f32::NAN]).is_nan());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let streamed = |error| Streamed { error: Some(error), ..Streamed::default() };
        assert!(streamed(1e-5).check().is_ok());
        for error in [1.1e-4, f64::INFINITY, f64::NAN] {
            assert!(streamed(error).check().is_err(), "{error}");
        }
    }
}
