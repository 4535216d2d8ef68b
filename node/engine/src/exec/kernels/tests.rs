//! Every kernel on every instruction set of this machine, against the definition.

mod filtering;
mod separable;

use quickcheck::{Arbitrary, Gen, QuickCheck};

use super::blocks::{Join, scale};
use super::crew::Crew;
use super::curve::{self, Curve};
use super::depthwise::Depthwise;
use super::direct::Direct;
use super::linear::{Linear, Transposed};
use super::memory::Lines;
use super::panels::Filters;
use super::planar::Planar;
use super::pointwise::Pointwise;
use super::pool::{Pool, Pooling};
use super::tile::Finish;
use super::{BLOCK, Isa, Plane, blocks};
use crate::graph::Window;

/// A convolution of random shape, with what it adds and how it finishes.
#[derive(Debug, Clone)]
struct Case {
    channels: usize,
    outputs: usize,
    size: [usize; 2],
    window: Window,
    threads: usize,
    residual: Residual,
    finish: Finish,
    seed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Residual {
    None,
    Added,
}

impl Arbitrary for Case {
    fn arbitrary(g: &mut Gen) -> Self {
        let among =
            |g: &mut Gen, from: usize, to: usize| from + usize::arbitrary(g) % (to - from + 1);
        let side = |g: &mut Gen, i: usize| {
            let (kernel, dilation) = (among(g, 1, [5, 4][i]), among(g, 1, 2));
            let padding = (among(g, 0, kernel), among(g, 0, kernel));
            let reach = (kernel - 1) * dilation + 1;
            let size =
                among(g, 1, SIZE_MAX).max(reach.saturating_sub(padding.0 + padding.1)).max(1);
            (kernel, among(g, 1, 3), dilation, padding, size)
        };
        let sides = [side(g, 0), side(g, 1)];
        let high = [f32::INFINITY, 0.75][among(g, 0, 1)];
        Self {
            channels: among(g, 1, CHANNELS_MAX[0]),
            outputs: among(g, 1, CHANNELS_MAX[1]),
            size: sides.map(|side| side.4),
            window: Window {
                kernel: sides.map(|side| side.0),
                stride: sides.map(|side| side.1),
                dilation: sides.map(|side| side.2),
                padding: sides.map(|side| side.3),
            },
            threads: among(g, 1, 2),
            residual: if bool::arbitrary(g) { Residual::Added } else { Residual::None },
            finish: any_curve(g).unwrap_or(Finish {
                slope: [1.0, 0.1][among(g, 0, 1)],
                low: [f32::NEG_INFINITY, 0.0][among(g, 0, 1)],
                high,
                curve: Curve::None,
            }),
            seed: u32::arbitrary(g),
        }
    }
}

/// Now and then a curve, and neither a slope nor bounds.
fn any_curve(g: &mut Gen) -> Option<Finish> {
    u8::arbitrary(g)
        .is_multiple_of(4)
        .then(|| Finish { curve: Curve::arbitrary(g), ..Finish::NONE })
}

impl Case {
    fn out_size(&self) -> [usize; 2] {
        let Window { kernel, stride, dilation, padding } = self.window;
        [0, 1].map(|i| {
            let reach = (kernel[i] - 1) * dilation[i] + 1;
            (self.size[i] + padding[i].0 + padding[i].1 - reach) / stride[i] + 1
        })
    }

    fn plane(&self) -> Plane {
        Plane { size: self.size, out_size: self.out_size() }
    }

    /// The definition, in double precision, and the peak of the sums before they are finished:
    /// what errors are in proportion to. Filters are `[outputs][channels / groups][..]`.
    fn expected(&self, groups: usize, data: &Data) -> (Vec<f32>, f32) {
        let Window { kernel, stride, dilation, padding } = self.window;
        let [height, width] = self.out_size();
        let per_group = self.channels / groups;
        let (mut output, mut peak) = (Vec::new(), 1.0f32);
        for out in 0..self.outputs {
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let mut sum = f64::from(data.bias[out]);
                for k in 0..per_group * kernel[0] * kernel[1] {
                    let (row, column) = (k / kernel[1] % kernel[0], k % kernel[1]);
                    let channel =
                        out / (self.outputs / groups) * per_group + k / (kernel[0] * kernel[1]);
                    let row = (y * stride[0] + row * dilation[0]).checked_sub(padding[0].0);
                    let column = (x * stride[1] + column * dilation[1]).checked_sub(padding[1].0);
                    if let (Some(row), Some(column)) = (row, column)
                        && row < self.size[0]
                        && column < self.size[1]
                    {
                        let at = (channel * self.size[0] + row) * self.size[1] + column;
                        let weight = data.weight[out * per_group * kernel[0] * kernel[1] + k];
                        sum += f64::from(data.input[at]) * f64::from(weight);
                    }
                }
                let mut value = sum as f32;
                if self.residual == Residual::Added {
                    value += data.residual[output.len()];
                }
                peak = peak.max(value.abs());
                output.push(self.finished(value));
            }
        }
        (output, peak)
    }

    fn finished(&self, value: f32) -> f32 {
        let value = if value < 0.0 { value * self.finish.slope } else { value };
        let value = value.clamp(self.finish.low, self.finish.high);
        curve::tests::defined(self.finish.curve, f64::from(value)) as f32
    }

    fn data(&self, groups: usize) -> Data {
        let [height, width] = self.out_size();
        let taps = self.window.kernel[0] * self.window.kernel[1];
        let mut noise = Noise(u64::from(self.seed));
        Data {
            input: noise.values(self.channels * self.size[0] * self.size[1]),
            weight: noise.values(self.outputs * self.channels / groups * taps),
            bias: noise.values(self.outputs),
            residual: noise.values(self.outputs * height * width),
        }
    }

    /// Runs a kernel on all instruction sets; it gets blocked images and gives one.
    fn agrees(
        &self,
        groups: usize,
        kernel: impl Fn(Isa, &Filters<'_>, &Crew<'_>, Images<'_>) + Sync,
    ) -> bool {
        let data = self.data(groups);
        let (expected, peak) = self.expected(groups, &data);
        let filters = filters(self.outputs, &data.weight, &data.bias);
        self.gives(&data, &expected, peak, |isa, crew, images| kernel(isa, &filters, crew, images))
    }

    /// The same for kernels that have their filters, and for any output of this case's shape.
    fn gives(
        &self,
        data: &Data,
        expected: &[f32],
        peak: f32,
        kernel: impl Fn(Isa, &Crew<'_>, Images<'_>) + Sync,
    ) -> bool {
        let [height, width] = self.out_size();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build().unwrap();
        Isa::all().into_iter().all(|isa| {
            let mut output = vec![f32::NAN; expected.len()];
            pool.install(|| {
                Crew::gather(|crew| {
                    let blocked = pack(crew, self.channels, &data.input);
                    let residual = pack(crew, self.outputs, &data.residual);
                    let residual = (self.residual == Residual::Added).then_some(&residual[..]);
                    let mut result = Lines::zeros(blocks(self.outputs) * height * width * BLOCK);
                    result.fill(f32::NAN);
                    let images = Images {
                        planar: &data.input,
                        blocked: &blocked,
                        residual,
                        output: &mut result,
                    };
                    kernel(isa, crew, images);
                    super::blocks::unpack(crew, self.outputs, &result, &mut output);
                });
            });
            close(&output, expected, peak)
        })
    }
}

/// What a kernel reads and writes.
struct Images<'a> {
    planar: &'a [f32],
    blocked: &'a [f32],
    residual: Option<&'a [f32]>,
    output: &'a mut [f32],
}

/// Random numbers for a case.
struct Data {
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

/// Numbers between -1 and 1, the same for the same seed.
struct Noise(u64);

impl Noise {
    fn values(&mut self, count: usize) -> Vec<f32> {
        let next = |state: &mut u64| {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (*state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next(&mut self.0)).collect()
    }
}

fn filters<'a>(outputs: usize, weight: &'a [f32], bias: &'a [f32]) -> Filters<'a> {
    let weight = bytemuck::cast_slice(weight);
    Filters { outputs, weight, scale: None, bias: Some(bias), release: &|_| () }
}

fn pack(crew: &Crew<'_>, channels: usize, planar: &[f32]) -> Lines {
    let mut blocked = Lines::zeros(planar.len() / channels * blocks(channels) * BLOCK);
    super::blocks::pack(crew, channels, planar, &mut blocked);
    blocked
}

fn close(actual: &[f32], expected: &[f32], peak: f32) -> bool {
    actual.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-5 * peak)
}

fn check(tests: u64, property: fn(Case) -> bool) {
    // An interpreter takes a second for a case.
    let tests = if cfg!(miri) { 2 } else { tests };
    QuickCheck::new().tests(tests).quickcheck(property);
}

#[test]
fn direct_convolutions_follow_the_definition() {
    check(150, |case| {
        case.agrees(1, |isa, filters, crew, images| {
            Direct::new(isa, case.channels, case.plane(), case.window, filters, case.finish).run(
                crew,
                images.blocked,
                images.residual,
                images.output,
            );
        })
    });
}

#[test]
fn planar_convolutions_follow_the_definition() {
    check(100, |mut case| {
        case.channels = 1 + case.channels % 4;
        case.agrees(1, |isa, filters, crew, images| {
            Planar::new(isa, case.channels, case.plane(), case.window, filters, case.finish).run(
                crew,
                images.planar,
                images.residual,
                images.output,
            );
        })
    });
}

#[test]
fn pointwise_convolutions_follow_the_definition() {
    check(150, |mut case| {
        case.window.kernel = [1, 1];
        case.window.padding = [(0, 0); 2];
        case.agrees(1, |isa, filters, crew, images| {
            let stride = case.window.stride;
            Pointwise::new(isa, case.channels, case.plane(), stride, filters, case.finish).run(
                crew,
                images.blocked,
                images.residual,
                images.output,
            );
        })
    });
}

#[test]
fn depthwise_convolutions_follow_the_definition() {
    check(150, |mut case| {
        case.outputs = case.channels;
        if case.seed.is_multiple_of(2) && !cfg!(miri) {
            // Large enough to be read in place.
            case.size = case.size.map(|size| size + 30);
        }
        case.agrees(case.channels, |isa, filters, crew, images| {
            Depthwise::new(isa, case.plane(), case.window, filters, case.finish).run(
                crew,
                images.blocked,
                images.residual,
                images.output,
            );
        })
    });
}

#[test]
fn linear_layers_follow_the_definition() {
    check(100, |mut case| {
        let rows = case.size[0];
        case.residual = Residual::None;
        let depth = case.channels * 3;
        let mut noise = Noise(u64::from(case.seed));
        let (input, weight) = (noise.values(rows * depth), noise.values(depth * case.outputs));
        let bias = noise.values(case.outputs);
        let at = |row: usize, output: usize| {
            let products = (0..depth)
                .map(|k| f64::from(input[row * depth + k]) * f64::from(weight[output * depth + k]));
            case.finished((f64::from(bias[output]) + products.sum::<f64>()) as f32)
        };
        let expected: Vec<_> = (0..rows)
            .flat_map(|row| (0..case.outputs).map(move |o| (row, o)))
            .map(|(r, o)| at(r, o))
            .collect();
        let transposed: Vec<_> = (0..depth * case.outputs)
            .map(|i| weight[i % case.outputs * depth + i / case.outputs])
            .collect();
        Isa::all().into_iter().all(|isa| {
            [(Transposed::No, &weight), (Transposed::Yes, &transposed)].into_iter().all(
                |(order, weight)| {
                    let filters = filters(case.outputs, weight, &bias);
                    let layer = Linear::new(isa, depth, order, &filters, case.finish);
                    let mut output = vec![f32::NAN; expected.len()];
                    Crew::gather(|crew| layer.run(crew, &input, &mut output));
                    close(&output, &expected, (depth as f32).sqrt() * 3.0)
                },
            )
        })
    });
}

/// The definition of pooling over one window.
fn pooled(case: &Case, pooling: Pooling, plane: &[f32], y: usize, x: usize) -> f32 {
    let Window { kernel, stride, dilation, padding } = case.window;
    let mut inside = Vec::new();
    let mut counted = 0;
    for (row, column) in (0..kernel[0]).flat_map(|r| (0..kernel[1]).map(move |c| (r, c))) {
        let at = [y * stride[0] + row * dilation[0], x * stride[1] + column * dilation[1]];
        let within = |i: usize| at[i] >= padding[i].0 && at[i] < padding[i].0 + case.size[i];
        counted += usize::from((0..2).all(|i| at[i] < padding[i].0 + case.size[i] + padding[i].1));
        if within(0) && within(1) {
            inside.push(plane[(at[0] - padding[0].0) * case.size[1] + at[1] - padding[1].0]);
        }
    }
    let sum: f32 = inside.iter().sum();
    match pooling {
        Pooling::Max => inside.iter().fold(f32::NEG_INFINITY, |max, &value| max.max(value)),
        Pooling::Mean { count_padding: true } => sum / counted as f32,
        Pooling::Mean { count_padding: false } => sum / inside.len() as f32,
    }
}

#[test]
fn pooling_follows_the_definition() {
    let pools = |pooling: Pooling| {
        move |mut case: Case| {
            case.outputs = case.channels;
            case.residual = Residual::None;
            for i in 0..2 {
                // A window that sees padding alone has no maximum: the import refuses it.
                let padding = &mut case.window.padding[i];
                *padding = (padding.0.min(case.window.kernel[i] - 1), 0);
                case.window.dilation[i] = 1;
                case.size[i] = case.size[i].max(case.window.kernel[i]);
            }
            let data = case.data(case.channels);
            let [height, width] = case.out_size();
            let area = case.size[0] * case.size[1];
            let expected: Vec<_> = (0..case.channels * height * width)
                .map(|i| {
                    let plane = &data.input[i / (height * width) * area..][..area];
                    case.finished(pooled(&case, pooling, plane, i / width % height, i % width))
                })
                .collect();
            Isa::all().into_iter().all(|isa| {
                Crew::gather(|crew| {
                    let input = pack(crew, case.channels, &data.input);
                    let mut output = Lines::zeros(blocks(case.channels) * height * width * BLOCK);
                    let (plane, window, finish) = (case.plane(), case.window, case.finish);
                    Pool::new(isa, plane, window, pooling, finish).run(crew, &input, &mut output);
                    let mut planar = vec![f32::NAN; expected.len()];
                    super::blocks::unpack(crew, case.channels, &output, &mut planar);
                    close(&planar, &expected, 1.0)
                })
            })
        }
    };
    for pooling in [
        Pooling::Max,
        Pooling::Mean { count_padding: true },
        Pooling::Mean { count_padding: false },
    ] {
        for seed in 0..if cfg!(miri) { 2 } else { 60 } {
            let case = Case::arbitrary(&mut Gen::new(seed + 1));
            assert!(pools(pooling)(case.clone()), "{pooling:?} {case:?}");
        }
    }
}

#[test]
fn sums_and_products_are_finished() {
    check(100, |case| {
        let mut noise = Noise(u64::from(case.seed));
        let count = case.channels * case.outputs;
        let (left, right) = (noise.values(count), noise.values(count));
        let right = (case.residual == Residual::Added).then_some(&right[..]);
        let join = if case.threads == 1 { Join::Add } else { Join::Multiply };
        let at = |i: usize| {
            case.finished(match (join, right) {
                (_, None) => left[i],
                (Join::Add, Some(right)) => left[i] + right[i],
                (Join::Multiply, Some(right)) => left[i] * right[i],
            })
        };
        let expected: Vec<_> = (0..count).map(at).collect();
        Isa::all().into_iter().all(|isa| {
            let mut output = vec![f32::NAN; count];
            Crew::gather(|crew| {
                let finish = case.finish;
                super::blocks::join(isa, crew, join, &left, right, finish, &mut output);
            });
            close(&output, &expected, 10.0)
        })
    });
}

#[test]
fn channels_are_scaled() {
    check(100, |case| {
        let mut noise = Noise(u64::from(case.seed));
        let area = case.size[0] * case.size[1];
        let (image, factors) = (noise.values(case.channels * area), noise.values(case.channels));
        let at = |i: usize| case.finished(image[i] * factors[i / area]);
        let expected: Vec<_> = (0..case.channels * area).map(at).collect();
        Isa::all().into_iter().all(|isa| {
            let mut planar = vec![f32::NAN; expected.len()];
            Crew::gather(|crew| {
                let image = pack(crew, case.channels, &image);
                let factors = pack(crew, case.channels, &factors);
                let mut output = Lines::zeros(image.len());
                scale(isa, crew, &image, &factors, case.finish, &mut output);
                super::blocks::unpack(crew, case.channels, &output, &mut planar);
            });
            close(&planar, &expected, 10.0)
        })
    });
}

/// The longest side of an image; little enough for an interpreter.
const SIZE_MAX: usize = if cfg!(miri) { 7 } else { 22 };
/// Most channels of inputs and outputs.
const CHANNELS_MAX: [usize; 2] = if cfg!(miri) { [18, 20] } else { [40, 70] };
