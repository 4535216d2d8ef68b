//! Times a model, whole and layer by layer, and says what a calibration would have predicted:
//! `time MODEL.onnx [THREADS] [RUNS]`.

use std::path::Path;
use std::time::{Duration, Instant};

use starling_engine::{DeviceChoice, Model, Piece, Tensor, calibrate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: time MODEL.onnx [THREADS] [RUNS]")?;
    let threads = args.next().map_or(Ok(1), |threads| threads.parse())?;
    let runs: u32 = args.next().map_or(Ok(20), |runs| runs.parse())?;
    let start = Instant::now();
    let model = Model::open(Path::new(&path))?;
    println!("import {:?}", start.elapsed());
    let start = Instant::now();
    let piece = Piece::load(&model, 0..model.layers().len(), DeviceChoice::Cpu)?;
    println!("load {:?}", start.elapsed());
    let zeros = |info: &starling_engine::TensorInfo| {
        let values = (0..info.elements()).map(|i| (i % 19) as f32 / 9.0 - 1.0).collect();
        Tensor::from_f32(info.shape.clone(), values)
    };
    let inputs = model.inputs().iter().map(zeros).collect::<Result<Vec<_>, _>>()?;
    let mut layers = vec![Duration::MAX; model.layers().len()];
    let mut times = Vec::new();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    for _ in 0..runs {
        let start = Instant::now();
        let mut last = start;
        pool.install(|| {
            piece.run_observed(&inputs, &mut |layer| {
                layers[layer] = layers[layer].min(last.elapsed());
                last = Instant::now();
            })
        })?;
        times.push(start.elapsed());
    }
    times.sort();
    for (cost, time) in model.profile().layers.iter().zip(&layers) {
        let gflops = cost.flops as f64 / time.as_secs_f64() / 1e9;
        println!(
            "{:>10.1?} {gflops:>7.2} GFLOP/s {:?} {} {:?}",
            time, cost.class, cost.name, cost.output_shape
        );
    }
    println!("{threads} threads: median {:?}, best {:?}", times[times.len() / 2], times[0]);
    let speed = pool
        .install(|| calibrate::measure(Duration::from_millis(400), DeviceChoice::Cpu, &mut |_| ()));
    let predicted: f64 =
        model.profile().layers.iter().map(|cost| cost.flops as f64 / speed.of(cost.class)).sum();
    println!("calibration: {speed:.1?}, predicts {:?}", Duration::from_secs_f64(predicted));
    Ok(())
}
