//! How fast this machine is, by class of operator: measured on real layers, by this executor.
//!
//! Small networks of layers like those of real ones, though of other shapes, run over and over.
//! Each layer gives one equation: its work (see [`Work`]) over five speeds is its shortest time.
//! The speeds are those that come nearest to all of them.

use std::time::{Duration, Instant};

use crate::cost::Work;
use crate::model::Model;
use crate::options::LoadOptions;
use crate::piece::Piece;
use crate::probe::Probe;
use crate::profile::{LayerCost, OpClass};
use crate::tensor::Tensor;

/// The speed of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Units of [`Work`] per second for each class, at its [`OpClass::index`].
    pub units_per_s: [f64; OpClass::ALL.len()],
}

impl Speed {
    /// Units per second for work of this class; finite and positive.
    pub fn of(&self, class: OpClass) -> f64 {
        self.units_per_s[class.index()]
    }

    /// Seconds that a layer takes at this speed.
    pub fn seconds(&self, cost: &LayerCost) -> f64 {
        OpClass::ALL.iter().map(|&class| cost.work[class.index()] as f64 / self.of(class)).sum()
    }
}

/// Measures the speed of a device and its kernels, in about the time given: 0.4 s is enough to be
/// within some 10 %. Runs each probe at least five times.
pub fn measure(budget: Duration, options: impl Into<LoadOptions>) -> Speed {
    let began = Instant::now();
    measure_by(budget, options, &|| began.elapsed())
}

/// The same by a clock of the caller's: for a pool of one thread one that stands still while the
/// thread does, so that neither other programs nor a quota of the system make layers longer.
pub fn measure_by(
    budget: Duration,
    options: impl Into<LoadOptions>,
    clock: &dyn Fn() -> Duration,
) -> Speed {
    let options = options.into();
    let start = Instant::now();
    let mut probes = [matrix(), images()].map(|probe| Loaded::new(&probe.build(), options));
    let others = vec![1_u64; CACHE_BYTES_MAX / size_of::<u64>()];
    let mut runs = 0;
    while runs < RUNS_MIN || (start.elapsed() < budget && runs < RUNS_MAX) {
        // Each layer finds the caches as a large network leaves them for its next run: full of
        // other things.
        std::hint::black_box(others.iter().sum::<u64>());
        probes.iter_mut().for_each(|probe| probe.run(clock));
        runs += 1;
    }
    let rows: Vec<Row> = probes.iter().flat_map(Loaded::rows).collect();
    Speed { units_per_s: fit(&rows).map(|seconds| 1.0 / seconds) }
}

/// A probe on the device.
struct Loaded {
    piece: Piece,
    input: Tensor,
    work: Vec<Work>,
    /// The shortest time of each layer so far. The shortest: whatever another run took beyond
    /// it, other programs took.
    layers: Vec<Duration>,
    whole: Duration,
}

impl Loaded {
    fn new(model: &Model, options: LoadOptions) -> Self {
        let layers = 0..model.layers().len();
        let piece =
            Piece::load(model, layers, options).expect("the range is that of the whole probe");
        let info = &model.inputs()[0];
        let values = (0..info.elements()).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
        let input =
            Tensor::from_f32(info.shape.clone(), values).expect("as many values as the shape says");
        let work: Vec<Work> = model.profile().layers.iter().map(|cost| cost.work).collect();
        let layers = vec![Duration::MAX; work.len()];
        Self { piece, input, work, layers, whole: Duration::MAX }
    }

    fn run(&mut self, clock: &dyn Fn() -> Duration) {
        let start = clock();
        let mut last = start;
        let layers = &mut self.layers;
        let observe = &mut |layer: usize| {
            let now = clock();
            layers[layer] = layers[layer].min(now.saturating_sub(last));
            last = now;
        };
        self.piece
            .run_observed(std::slice::from_ref(&self.input), observe)
            .expect("the input is the probe's own");
        self.whole = self.whole.min(clock().saturating_sub(start));
    }

    /// What the layers took, those that are computed in one go together. On a device that computes
    /// while the next layers are queued, layers seem to take no time, and share what the whole took.
    fn rows(&self) -> Vec<Row> {
        let sum: f64 = self.layers.iter().map(Duration::as_secs_f64).sum();
        let late = (self.whole.as_secs_f64() / sum.max(SECONDS_MIN)).max(1.0);
        let row = |group: &Vec<usize>| {
            let of_class = |class: usize| {
                group.iter().map(|&layer| self.work[layer][class] as f64).sum::<f64>()
            };
            let seconds: f64 = group.iter().map(|&layer| self.layers[layer].as_secs_f64()).sum();
            Row { work: std::array::from_fn(of_class), seconds: (seconds * late).max(SECONDS_MIN) }
        };
        self.piece.groups().iter().map(row).collect()
    }
}

/// One layer: the units of its work, and what they took.
#[derive(Debug, Clone)]
struct Row {
    work: [f64; OpClass::ALL.len()],
    seconds: f64,
}

impl Row {
    fn predicted(&self, seconds_per_unit: &[f64; OpClass::ALL.len()]) -> f64 {
        self.work.iter().zip(seconds_per_unit).map(|(units, seconds)| units * seconds).sum()
    }
}

/// Seconds per unit for each class, positive, with the least squares of relative errors.
///
/// One class after the other is set to what is best given the rest, until they agree. An error is
/// weighed against the mean of what was measured and what was last predicted: against what was
/// measured alone, twice too long would count four times as much as twice too short.
fn fit(rows: &[Row]) -> [f64; OpClass::ALL.len()] {
    let mut fitted = OpClass::ALL.map(|class| first_guess(rows, class.index()));
    for _ in 0..FIT_ROUNDS {
        let weights: Vec<f64> =
            rows.iter().map(|row| 1.0 / (row.predicted(&fitted) * row.seconds)).collect();
        for class in 0..fitted.len() {
            let (mut above, mut below) = (0.0, 0.0);
            for (row, weight) in rows.iter().zip(&weights) {
                let units = row.work[class];
                let rest = row.predicted(&fitted) - units * fitted[class];
                above += weight * units * (row.seconds - rest);
                below += weight * units * units;
            }
            if below > 0.0 {
                fitted[class] = (above / below).max(SECONDS_PER_UNIT_MIN);
            }
        }
    }
    fitted
}

/// What the class would take if it were all that layers with work of it do; the least of that.
fn first_guess(rows: &[Row], class: usize) -> f64 {
    let with = rows.iter().filter(|row| row.work[class] > 0.0);
    let guesses = with.map(|row| row.seconds / row.work[class]);
    guesses.fold(f64::INFINITY, f64::min).clamp(SECONDS_PER_UNIT_MIN, 1.0)
}

/// A network with the operators and activations of real ones in other sizes: large images with few
/// channels, which memory holds back, and small ones with many.
fn images() -> Probe {
    Probe::new(&[1, 3, 256, 256])
        .conv(64, 3, 2, 1)
        .max_pool(3, 2)
        .conv(64, 3, 1, 64)
        .conv(128, 1, 1, 1)
        .conv(128, 3, 2, 128)
        .conv(64, 1, 1, 1)
        .conv(96, 3, 1, 1)
        .add()
        .conv(32, 1, 1, 1)
        .conv(64, 5, 1, 1)
        .conv(128, 3, 2, 1)
        .conv(192, 3, 1, 1)
        .conv(384, 1, 1, 1)
        .conv(384, 5, 1, 384)
        .conv(192, 1, 1, 1)
        .max_pool(2, 2)
        .conv(256, 3, 1, 1)
        .conv(512, 1, 1, 1)
        .conv(512, 3, 1, 512)
        .conv(256, 1, 1, 1)
        .global_average_pool()
}

/// A matrix product with 16 MiB of weights.
fn matrix() -> Probe {
    Probe::new(&[1, 2048]).gemm(2048)
}

/// With fewer, every one may be interrupted on a machine that is busy with other things.
const RUNS_MIN: usize = 5;
/// Enough for the shortest of them to be steady on a fast machine.
const RUNS_MAX: usize = 1_000;
/// More than most caches hold.
const CACHE_BYTES_MAX: usize = 64 << 20;
/// More than the classes need to agree with each other.
const FIT_ROUNDS: usize = 300;
/// No class is infinitely fast, even if the probes don't show it.
const SECONDS_PER_UNIT_MIN: f64 = 1e-15;
/// What a clock can tell from nothing.
const SECONDS_MIN: f64 = 1e-7;

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> Vec<LayerCost> {
        [images(), matrix()].into_iter().flat_map(|probe| probe.build().profile().layers).collect()
    }

    #[test]
    fn every_class_is_probed() {
        let layers = costs();
        for class in OpClass::ALL {
            assert!(layers.iter().any(|layer| layer.class == class), "{class:?}");
        }
    }

    #[test]
    fn speeds_are_finite_and_positive() {
        let speed = measure(Duration::from_millis(20), LoadOptions::default());
        for class in OpClass::ALL {
            assert!(speed.of(class).is_finite() && speed.of(class) > 0.0, "{class:?}: {speed:?}");
        }
    }

    /// What the probes would take on a machine of known speeds, each a little off.
    fn rows(seconds_per_unit: [f64; 5], off: f64) -> Vec<Row> {
        let row = |(at, cost): (usize, LayerCost)| {
            let mut row = Row { work: cost.work.map(|units| units as f64), seconds: 0.0 };
            let factor = if at % 2 == 0 { 1.0 + off } else { 1.0 / (1.0 + off) };
            row.seconds = row.predicted(&seconds_per_unit) * factor;
            row
        };
        costs().into_iter().enumerate().map(row).collect()
    }

    #[test]
    fn known_speeds_are_found_again() {
        let machines = [
            [5e-12, 5e-12, 15e-12, 50e-12, 40e-12],
            [100e-12, 50e-12, 300e-12, 500e-12, 800e-12],
            [1e-12, 30e-12, 1e-12, 900e-12, 2e-12],
        ];
        for machine in machines {
            for (off, tolerance) in [(0.0, 0.01), (0.1, 0.35)] {
                for (found, real) in fit(&rows(machine, off)).iter().zip(machine) {
                    let ratio = found / real;
                    assert!((ratio.ln()).abs() < tolerance, "{machine:?} by {off}: {ratio}");
                }
            }
        }
    }
}
