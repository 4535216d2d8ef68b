//! `starling infer`: a model on an image or a tensor, through the flock or locally.

mod stream;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use starling_engine::{DType, Model, Piece, Tensor, npy};
use starling_protocol::{
    NodeId,
    node::Offering,
    partition::Goal,
    session::{Agreement, Planning},
};

use super::{
    Failure,
    find::FindArgs,
    flock::FlockArgs,
    input,
    labels::{Guess, Labels},
    out,
    planning::PlanArgs,
    report,
};
use crate::{
    runtime::{Answer, Identity, SessionNews, Started, Stream},
    work::{Done, Job, WorkConfig, Worker},
};
use stream::{LoadArgs, Run, Streamed};

/// Run a model on an image or a tensor, through the flock or locally
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  starling infer model.onnx --image cat.jpg
  starling infer model.onnx --image cat.jpg --image dog.png --repeat 50
  starling infer model.onnx --input x.npy --output y.npy
  starling infer model.onnx --image cat.jpg --local")]
pub(super) struct Args {
    /// The model
    model: PathBuf,
    /// A JPEG or PNG picture for an image classifier; may be repeated
    #[arg(long, value_name = "FILE", required_unless_present = "input")]
    image: Vec<PathBuf>,
    /// An input tensor, f32; may be repeated for models of several inputs
    #[arg(long, value_name = "FILE.npy", conflicts_with = "image")]
    input: Vec<PathBuf>,
    /// Where to write the output tensor
    #[arg(long, value_name = "FILE.npy")]
    output: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
    /// Compute on this machine alone, without any network
    #[arg(long)]
    local: bool,
    /// Let others compute everything: this machine only asks
    #[arg(long, conflicts_with = "local")]
    no_compute: bool,
    /// Names of the classes, one a line [default: ImageNet's for 1000 classes]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    find: FindArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    flock: FlockArgs,
}

/// What came of all the inferences of one command.
struct Outcome {
    streamed: Streamed,
    /// The plan; nothing for a local run.
    agreement: Option<Agreement>,
    lost: Vec<NodeId>,
    /// Of market messages, while inferences streamed.
    round_trips: Vec<Duration>,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    if let Some(path) = &args.output {
        has_folder(path)?;
    }
    let model = super::open_model(&args.model)?;
    let labels = Labels::load(args.labels.as_deref())?;
    let inputs = read_inputs(&args, &model)?;
    let outcome = if args.local {
        args.plan.refuse("--local")?;
        run_locally(&args, &model, &inputs).await?
    } else {
        run_through_flock(&args, &model, &inputs).await?
    };
    // Whatever cannot be written, the rest is there.
    let printed = print(&args, json || args.load.events, &outcome, &labels);
    if let Some(path) = &args.output {
        write_output(path, &outcome.streamed.answers)?;
    }
    printed
}

/// Better now than after hours of inferences.
fn has_folder(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_none_or(Path::is_dir) {
        return Ok(());
    }
    Err(Failure(format!("--output {}: there is no such folder", path.display())))
}

/// Waits for the plan of a session, telling `watch` of everything on the way.
pub(super) async fn until_ready(
    session: &Stream,
    mut watch: impl FnMut(&SessionNews),
) -> Result<Agreement, Failure> {
    while let Some(news) = session.next().await {
        watch(&news);
        match news {
            SessionNews::Ready(agreement) => return Ok(agreement),
            SessionNews::Failed(reason) => return Err(Failure(reason)),
            SessionNews::Agreed(_) | SessionNews::ProviderLost(_) => {}
        }
    }
    Err(Failure("the node has stopped".to_owned()))
}

fn read_inputs(args: &Args, model: &Model) -> Result<Vec<Vec<Tensor>>, Failure> {
    if args.input.is_empty() {
        return args.image.iter().map(|path| Ok(vec![input::read_image(path, model)?])).collect();
    }
    let paths = args.input.iter().map(PathBuf::as_path);
    Ok(vec![input::read_tensors(model, paths)?])
}

async fn run_locally(
    args: &Args,
    model: &Model,
    inputs: &[Vec<Tensor>],
) -> Result<Outcome, Failure> {
    let worker = Worker::start(WorkConfig {
        threads: args.flock.threads(),
        throttle: args.flock.throttle(),
        options: args.flock.options(),
    })?;
    let piece = Arc::new(Piece::load(model, 0..model.layers().len(), args.flock.options())?);
    let bar = progress(args.load.total(inputs.len()));
    args.load.tell(|| json!({"event": "ready", "pieces": []}));
    let streamed = args.load.stream(&Alone { worker, piece }, inputs, &bar).await?;
    bar.finish_and_clear();
    Ok(Outcome { streamed, agreement: None, lost: Vec::new(), round_trips: Vec::new() })
}

/// This machine's own compute thread, and the whole model on it.
struct Alone {
    worker: Worker,
    piece: Arc<Piece>,
}

impl Run for Alone {
    fn run(&self, inputs: &[Tensor]) -> BoxFuture<'static, Result<Answer, String>> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let done = Box::new(move |done: Done| drop(tell.send(done)));
        let (piece, inputs) = (self.piece.clone(), inputs.to_vec());
        let taken = self.worker.run(Job { piece, inputs, queued: Instant::now(), done });
        let answer = async move {
            if !taken {
                return Err("the compute thread is busy".to_owned());
            }
            let done = told.await.map_err(|_| "the compute thread has stopped".to_owned())?;
            let outputs = done.outputs.map_err(|error| error.to_string())?;
            Ok(Answer { outputs, trace: Vec::new(), total: done.compute })
        };
        answer.boxed()
    }
}

impl Run for Stream {
    fn run(&self, inputs: &[Tensor]) -> BoxFuture<'static, Result<Answer, String>> {
        let inputs = inputs.to_vec();
        self.detached(inputs).boxed()
    }
}

async fn run_through_flock(
    args: &Args,
    model: &Model,
    inputs: &[Vec<Tensor>],
) -> Result<Outcome, Failure> {
    let default = match args.load.is_stream(inputs.len()) {
        true => Goal::Throughput,
        false => Goal::Latency,
    };
    let planning = args.plan.planning(model, default)?;
    let offering = if args.no_compute { Offering::Nobody } else { Offering::Own };
    let mut started = args.flock.start(offering, Identity::Passing).await?;
    let result = tokio::select! {
        result = infer(args, &mut started, model, planning, inputs) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure("interrupted".to_owned())),
    };
    started.handle.leave().await;
    result
}

async fn infer(
    args: &Args,
    started: &mut Started,
    model: &Model,
    planning: Planning,
    inputs: &[Vec<Tensor>],
) -> Result<Outcome, Failure> {
    args.find.peers(&args.flock, started, args.no_compute).await?;
    let session = started.handle.open(model, &inputs[0], planning).await?;
    let spinner = spinner("agreeing on who computes what");
    let (mut agreed, mut lost) = (None, Vec::new());
    let ready = until_ready(&session, |news| {
        tell(&args.load, news);
        match news {
            SessionNews::Agreed(agreement) => {
                spinner.set_message("providers load their pieces");
                agreed = Some(agreement.clone());
            }
            // Also while they load.
            SessionNews::ProviderLost(node) => lost.push(*node),
            SessionNews::Ready(_) | SessionNews::Failed(_) => {}
        }
    })
    .await;
    spinner.finish_and_clear();
    let mut agreement = ready?;
    if let Some(agreed) = agreed {
        agreement = Agreement { pieces: agreement.pieces, ..agreed };
    }
    // Those of the agreement and of the load are others.
    started.handle.round_trips().await?;
    let bar = progress(args.load.total(inputs.len()));
    let mut hear = |news: SessionNews| {
        tell(&args.load, &news);
        match news {
            SessionNews::ProviderLost(node) => lost.push(node),
            // A later plan: the one that the last answers came through.
            SessionNews::Ready(now) => agreement.pieces = now.pieces,
            SessionNews::Agreed(_) | SessionNews::Failed(_) => {}
        }
    };
    let streamed = hearing(&session, args.load.stream(&session, inputs, &bar), &mut hear).await?;
    bar.finish_and_clear();
    let round_trips = started.handle.round_trips().await?;
    while let Ok(Some(news)) = tokio::time::timeout(Duration::ZERO, session.next()).await {
        hear(news);
    }
    session.close().await;
    Ok(Outcome { streamed, agreement: Some(agreement), lost, round_trips })
}

/// Does something with a session, and hears at once what happens to it meanwhile.
async fn hearing<T>(
    session: &Stream,
    doing: impl Future<Output = T>,
    hear: &mut impl FnMut(SessionNews),
) -> T {
    tokio::pin!(doing);
    loop {
        tokio::select! {
            done = &mut doing => return done,
            Some(news) = session.next() => hear(news),
        }
    }
}

/// What happens to a session, as a line of JSON.
fn tell(load: &LoadArgs, news: &SessionNews) {
    load.tell(|| match news {
        SessionNews::Agreed(agreement) => {
            json!({"event": "agreed", "auction": report::AuctionReport::of(agreement)})
        }
        SessionNews::Ready(agreement) => {
            json!({"event": "ready", "pieces": report::pieces(agreement)})
        }
        SessionNews::ProviderLost(node) => json!({"event": "lost", "node": node.to_string()}),
        SessionNews::Failed(reason) => json!({"event": "failed", "reason": reason}),
    });
}

fn write_output(path: &Path, answers: &[Answer]) -> Result<(), Failure> {
    let last = answers.last().and_then(|answer| answer.outputs.first());
    let tensor = last.ok_or_else(|| Failure("the model gave no output".to_owned()))?;
    npy::write(path, tensor)?;
    Ok(())
}

fn names(args: &Args) -> Vec<String> {
    let files = if args.input.is_empty() { args.image.as_slice() } else { &args.input[..1] };
    files.iter().map(|path| path.display().to_string()).collect()
}

fn guesses(outcome: &Outcome, labels: &Labels) -> Vec<Vec<Guess>> {
    let top = |answer: &Answer| match answer.outputs.first() {
        Some(scores) if scores.dtype() == DType::F32 => labels.top(scores.as_f32(), TOP),
        _ => Vec::new(),
    };
    outcome.streamed.answers.iter().map(top).collect()
}

fn print(args: &Args, json: bool, outcome: &Outcome, labels: &Labels) -> Result<(), Failure> {
    let streamed = &outcome.streamed;
    let per_s = streamed.count as f64 / streamed.elapsed.as_secs_f64();
    let timings = report::timings(&streamed.traces);
    let pieces = outcome.agreement.as_ref().map(report::pieces).unwrap_or_default();
    let auction = outcome.agreement.as_ref().map(report::AuctionReport::of);
    let round_trip_ms =
        |share| report::quantile_ms(outcome.round_trips.iter().map(Duration::as_secs_f64), share);
    if json {
        let results: Vec<serde_json::Value> = names(args)
            .into_iter()
            .zip(guesses(outcome, labels))
            .zip(&streamed.answers)
            .map(|((file, top), answer)| {
                let latency_ms = report::millis(answer.total.as_secs_f64());
                json!({"file": file, "top": top, "latency_ms": latency_ms})
            })
            .collect();
        let whole = json!({
            "results": results,
            "per_s": report::round3(per_s),
            "inferences": streamed.count,
            "dropped": streamed.dropped,
            "latency_ms": {
                "p50": streamed.latency_ms(0.5),
                "p95": streamed.latency_ms(0.95),
                "p99": streamed.latency_ms(0.99),
            },
            "market_round_trip_ms": {
                "count": outcome.round_trips.len(),
                "p50": round_trip_ms(0.5),
                "p99": round_trip_ms(0.99),
            },
            "error_max": streamed.error,
            "local": args.local,
            "auction": auction,
            "pieces": pieces,
            "timings": timings,
            "providers_lost": outcome.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        return if args.load.events {
            out::line(json!({"event": "finished", "report": whole}))
        } else {
            out::object(&whole)
        };
    }
    for (file, top) in names(args).into_iter().zip(guesses(outcome, labels)) {
        out::line(file)?;
        for Guess { probability, label, class } in top {
            out::line(format_args!("  {:>5.1} %  {label} ({class})", probability * 100.0))?;
        }
    }
    if let Some(auction) = auction {
        out::line(format_args!("\nplan: {}; {}", report::shape(&pieces), auction.line()))?;
        out::text(&report::pieces_table(&pieces, &str::to_owned))?;
        out::line("\ntime of each piece (medians)")?;
        out::text(&report::timings_table(&timings))?;
    }
    for node in &outcome.lost {
        out::line(format_args!("\nnode {node} was lost on the way; its pieces moved"))?;
    }
    let latency = streamed.answers.last().map_or(Duration::ZERO, |answer| answer.total);
    let latency_ms = latency.as_secs_f64() * 1e3;
    out::line(format_args!("\nlatency {latency_ms:.1} ms, {per_s:.2} inferences/s"))?;
    if args.load.is_stream(streamed.answers.len()) {
        out::line(streamed)?;
    }
    Ok(())
}

/// A bar for a known number of inferences; hidden for a single one, and where nobody looks.
pub(super) fn progress(total: u64) -> ProgressBar {
    if total <= 1 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {bar:40} {pos}/{len} inferences  {per_sec}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A sign of life while something takes a while.
pub(super) fn spinner(message: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

const TOP: usize = 3;
