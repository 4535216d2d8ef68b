//! Times the strips of some layers of a model, and compares with what they cost:
//! `strips MODEL.onnx FIRST-LAST STRIPS [RUNS]`.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use starling_engine::calibrate::{self, Speed};
use starling_engine::{DeviceChoice, Model, OpClass, Piece, RowRange, Tensor};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: strips MODEL.onnx FIRST-LAST STRIPS [RUNS]";
    let path = args.next().ok_or(usage)?;
    let layers = args.next().ok_or(usage)?;
    let (first, last) = layers.split_once('-').ok_or(usage)?;
    let layers = first.parse()?..last.parse::<usize>()? + 1;
    let strips: usize = args.next().ok_or(usage)?.parse()?;
    let runs: u32 = args.next().map_or(Ok(20), |runs| runs.parse())?;
    let model = Model::open(Path::new(&path))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| report(&model, &layers, strips, runs))
}

fn report(model: &Model, layers: &Range<usize>, strips: usize, runs: u32) -> Result<(), Error> {
    let budget = Duration::from_millis(400);
    let speed = calibrate::measure(budget, DeviceChoice::Cpu);
    let all = model.rows(layers.end);
    let whole = time(model, layers, &all, runs)?;
    let predicted = predict(model, layers, &all, &speed)?;
    println!("all rows: {:.2} ms, predicted {:.2}", 1e3 * whole, 1e3 * predicted);
    for rows in model.split_rows(layers.end, &vec![1.0; strips]) {
        let cost = model.strip_cost(layers.clone(), &rows)?;
        let share = time(model, layers, &rows, runs)? / whole;
        let expected = predict(model, layers, &rows, &speed)? / predicted;
        println!(
            "rows {} from {}: {:.1} kB in, {:.1} kB out, {share:.3} of the time of all, predicted {expected:.3}",
            rows[0],
            cost.input_rows[0],
            cost.input_bytes as f64 / 1e3,
            cost.output_bytes as f64 / 1e3,
        );
    }
    let start = Instant::now();
    for _ in 0..LOOKUPS {
        std::hint::black_box(model.strip_cost(layers.clone(), &all)?);
    }
    println!("a cost takes {:?}", start.elapsed() / LOOKUPS);
    Ok(())
}

/// The least seconds of a strip.
fn time(model: &Model, layers: &Range<usize>, rows: &[RowRange], runs: u32) -> Result<f64, Error> {
    let piece = Piece::load_rows(model, layers.clone(), rows, DeviceChoice::Cpu)?;
    let zeros = |info: &starling_engine::TensorInfo| {
        let values = (0..info.elements()).map(|i| (i % 19) as f32 / 9.0 - 1.0).collect();
        Tensor::from_f32(info.shape.clone(), values)
    };
    let inputs = piece.input_info().iter().map(zeros).collect::<Result<Vec<_>, _>>()?;
    let mut least = f64::INFINITY;
    for _ in 0..runs {
        let start = Instant::now();
        piece.run(&inputs)?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least)
}

fn predict(
    model: &Model,
    layers: &Range<usize>,
    rows: &[RowRange],
    speed: &Speed,
) -> Result<f64, Error> {
    let cost = model.strip_cost(layers.clone(), rows)?;
    let seconds = |class: OpClass| cost.work[class.index()] as f64 / speed.of(class);
    Ok(OpClass::ALL.map(seconds).iter().sum())
}

/// Enough for a steady mean of microseconds.
const LOOKUPS: u32 = 10_000;
