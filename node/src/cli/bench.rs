//! `starling bench`: how long a model takes on this machine, layer by layer, what memory it needs,
//! and how well its time was predicted.

mod report;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use starling_engine::{DType, LayerCost, LoadOptions, Model, Piece, Tensor, calibrate};

use super::{Failure, flock::KernelsArg, infer, input, out};
use report::{NetworkReport, Prediction, Report};

/// Measure how long models take on this machine, what memory they need, and how well that is predicted
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  starling bench model.onnx
  starling bench model.onnx --threads 1 --layers       where the time goes
  starling bench model.onnx --input cat.jpg --json
  starling bench *.onnx --predict                      how good this machine's calibration is

Times are of whole runs on this machine alone, after two that don't count; a layer's time is its
median over the runs, and what is computed in one go counts for the layer with the
most FLOPs among them. Memory:
weights in the form that the kernels take them, the room for activations, and the process' own peak,
which includes the pages of the model's file that were read.")]
pub(super) struct Args {
    /// The models
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Threads for compute [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// How many runs are measured
    #[arg(long, value_name = "R", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
    /// Show every layer: its time, its share, its speed
    #[arg(long)]
    layers: bool,
    /// Calibrate like a node that starts, and compare what that predicts with what is measured
    #[arg(long)]
    predict: bool,
    /// Which kernels compute
    #[arg(long, value_enum, default_value_t = KernelsArg::Fast)]
    kernels: KernelsArg,
    /// An input, a tensor (.npy) or a picture; may be repeated for models of several inputs [default: seeded noise]
    #[arg(long, value_name = "FILE")]
    input: Vec<PathBuf>,
}

impl Args {
    fn options(&self) -> LoadOptions {
        LoadOptions { kernels: self.kernels.into(), ..LoadOptions::default() }
    }
}

pub(super) fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or_else(cores, usize::from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let mut networks = Vec::new();
    for path in &args.models {
        networks.push(bench(path, args, &pool)?);
    }
    let report = Report::new(threads, args.runs, networks);
    if json { out::object(&report) } else { out::text(&report.text()) }
}

/// What was measured of one model.
pub(super) struct Measured {
    import: Duration,
    load: Duration,
    /// Of every run, the shortest first.
    runs: Vec<Duration>,
    /// The median of each layer.
    layers: Vec<Duration>,
    /// The layers that are computed in one go.
    groups: Vec<Vec<usize>>,
    peak_rss_bytes: Option<u64>,
}

fn bench(path: &Path, args: &Args, pool: &rayon::ThreadPool) -> Result<NetworkReport, Failure> {
    // Right before, since machines drift, and that is another question.
    let prediction = args.predict.then(|| calibrated(pool, args.options()));
    forget_peak_rss();
    let began = Instant::now();
    let model = super::open_model(path)?;
    let import = began.elapsed();
    let inputs = inputs(&model, &args.input)?;
    let began = Instant::now();
    let layers = 0..model.layers().len();
    let piece = pool.install(|| Piece::load(&model, layers, args.options()))?;
    let load = began.elapsed();
    let bar = progress(model.name(), u64::from(args.runs));
    let (runs, layers) = pool.install(|| time(&piece, &inputs, args.runs, &bar))?;
    bar.finish_and_clear();
    let groups = piece.groups();
    let layers = attributed(layers, &groups, &model.profile().layers);
    let measured = Measured { import, load, runs, layers, groups, peak_rss_bytes: peak_rss() };
    Ok(NetworkReport::new(path, &model, &piece, &measured, prediction, args.layers))
}

/// Times `runs` runs: each as a whole, sorted, and the median of each layer.
fn time(
    piece: &Piece,
    inputs: &[Tensor],
    runs: u32,
    bar: &ProgressBar,
) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    for _ in 0..WARM_UP_RUNS {
        piece.run(inputs)?;
    }
    let mut whole = Vec::new();
    let mut layers = vec![Vec::new(); piece.layers().len()];
    for _ in 0..runs {
        let began = Instant::now();
        let mut last = began;
        piece.run_observed(inputs, &mut |layer| {
            let now = Instant::now();
            layers[layer].push(now - last);
            last = now;
        })?;
        whole.push(began.elapsed());
        bar.inc(1);
    }
    whole.sort_unstable();
    Ok((whole, layers.into_iter().map(median).collect()))
}

/// Layers that are computed in one go are reported right after each other, and the first one seems
/// to have taken all of the time. Gives it to the one with the most FLOPs.
fn attributed(
    mut times: Vec<Duration>,
    groups: &[Vec<usize>],
    costs: &[LayerCost],
) -> Vec<Duration> {
    for group in groups {
        if let Some(&most) = group.iter().max_by_key(|&&layer| costs[layer].flops) {
            times.swap(group[0], most);
        }
    }
    times
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The speed that a node would advertise.
fn calibrated(pool: &rayon::ThreadPool, options: LoadOptions) -> Prediction {
    let spinner = infer::spinner("measuring the speed of this machine");
    let began = Instant::now();
    let speed = pool.install(|| calibrate::measure(CALIBRATION, options));
    spinner.finish_and_clear();
    Prediction { speed, took: began.elapsed() }
}

fn inputs(model: &Model, paths: &[PathBuf]) -> Result<Vec<Tensor>, Failure> {
    match paths {
        [] => noise(model),
        [picture] if picture.extension() != Some(OsStr::new("npy")) => {
            Ok(vec![input::read_image(picture, model)?])
        }
        tensors => input::read_tensors(model, tensors.iter().map(PathBuf::as_path)),
    }
}

/// The same values each time: from -1 to 1, or 0 and 1 where whole numbers are wanted, which are
/// indices more often than not.
fn noise(model: &Model) -> Result<Vec<Tensor>, Failure> {
    let mut state = NOISE_SEED;
    let mut next = || {
        // Marsaglia's xorshift: all that matters is that values neither repeat nor vanish.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 40
    };
    let mut tensors = Vec::new();
    for info in model.inputs() {
        let (shape, count) = (info.shape.clone(), 0..info.elements());
        tensors.push(match info.dtype {
            DType::F32 => {
                let real = |_| next() as f32 / (1_u64 << 23) as f32 - 1.0;
                Tensor::from_f32(shape, count.map(real).collect())?
            }
            DType::I64 => Tensor::from_i64(shape, count.map(|_| next() as i64 & 1).collect())?,
            DType::I32 => Tensor::from_i32(shape, count.map(|_| next() as i32 & 1).collect())?,
            DType::Bool => {
                Tensor::from_bool(shape, &count.map(|_| next() & 1 == 1).collect::<Vec<_>>())?
            }
        });
    }
    Ok(tensors)
}

/// The most memory that the process ever had, in bytes, where the system says so (Linux).
fn peak_rss() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Starts a new peak, so that each of several models has its own. Where that isn't possible, the
/// peak is that of all models so far.
fn forget_peak_rss() {
    fs::write("/proc/self/clear_refs", "5").ok();
}

fn progress(name: &str, runs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("  {msg}  {bar:40} {pos}/{len} runs  {per_sec}");
    ProgressBar::new(runs)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(name.to_owned())
}

/// The first run pays for cold caches and lazily started threads, the second for what it left.
const WARM_UP_RUNS: u32 = 2;
/// The time that a starting node takes for it.
const CALIBRATION: Duration = crate::runtime::CALIBRATION;
const NOISE_SEED: u64 = 0x5eed_cafe_f00d_d00d;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_at_least_what_was_touched() {
        let touched = vec![1_u8; 64 << 20];
        if let Some(peak) = peak_rss() {
            assert!(peak > 64 << 20, "{peak}");
        }
        assert_eq!(touched[1 << 20], 1);
    }

    #[test]
    fn layers_computed_at_once_count_for_the_largest() {
        let model = Model::open(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/assets/efficientnet-lite0.onnx"
        )));
        // It ends with a mean, a flattening and a matrix product.
        let costs = model.expect("bundled").profile().layers;
        let tail = &costs[costs.len() - 3..];
        let times = [9_000, 70_000, 40].map(Duration::from_nanos).to_vec();
        let expected = [9_000, 40, 70_000].map(Duration::from_nanos);
        let groups = [vec![0], vec![1, 2]];
        assert_eq!(attributed(times, &groups, tail), expected);
    }

    #[test]
    fn the_middle_of_an_even_number_is_the_upper_one() {
        let times = [40, 10, 30, 20].map(Duration::from_millis).to_vec();
        assert_eq!(median(times), Duration::from_millis(30));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }
}
