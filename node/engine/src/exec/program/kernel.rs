//! What a step calls: one of the own kernels, with its weights.

use super::Source;
use super::choose::Method;
use super::plan::Recipe;
use crate::exec::kernels::blocks::{self, Join, pack, unpack};
use crate::exec::kernels::crew::Crew;
use crate::exec::kernels::depthwise::Depthwise;
use crate::exec::kernels::direct::Direct;
use crate::exec::kernels::linear::{Linear, Transposed};
use crate::exec::kernels::panels::{Filters, Release};
use crate::exec::kernels::planar::Planar;
use crate::exec::kernels::pointwise::Pointwise;
use crate::exec::kernels::pool::Pool;
use crate::exec::kernels::tile::Finish;
use crate::exec::kernels::winograd::Winograd;
use crate::exec::kernels::{Isa, Plane};
use crate::fold;
use crate::graph::{BatchNorm, Conv, Gemm, Op, Window};

/// A kernel, and how many images it is called for.
pub(crate) struct Kernel {
    main: Main,
    images: usize,
}

enum Main {
    Join {
        isa: Isa,
        join: Join,
        finish: Finish,
    },
    /// Joins images along the channels; whole blocks of each.
    Concat,
    Depthwise(Depthwise),
    Direct(Direct),
    Linear(Linear),
    Pack {
        channels: usize,
    },
    Planar(Planar),
    Pointwise(Pointwise),
    Pool(Pool),
    Scale {
        isa: Isa,
        finish: Finish,
    },
    Unpack {
        channels: usize,
    },
    Winograd(Winograd),
}

impl Kernel {
    /// Makes the kernel of a recipe, which is not Burn's.
    pub(crate) fn load(recipe: &Recipe, source: Source<'_>, isa: Isa) -> Self {
        // What is packed is not needed a second time.
        let release = |bytes: &[u8]| source.mapped.into_iter().for_each(|file| file.release(bytes));
        let (main, images) = match recipe {
            &Recipe::Conv { layer, method, channels, plane, finish, images } => {
                let Op::Conv(conv) = &source.layers[layer].op else {
                    unreachable!("the plan makes this recipe of convolutions")
                };
                (load_conv(conv, method, channels, plane, finish, isa, &release), images)
            }
            &Recipe::Norm { layer, plane, finish, images } => {
                let Op::BatchNorm(norm) = &source.layers[layer].op else {
                    unreachable!("the plan makes this recipe of batch normalizations")
                };
                (load_norm(norm, plane, finish, isa), images)
            }
            &Recipe::Gemm { layer, finish } => {
                let Op::Gemm(gemm) = &source.layers[layer].op else {
                    unreachable!("the plan makes this recipe of matrix products")
                };
                (load_gemm(gemm, finish, isa, &release), 1)
            }
            &Recipe::Join { join, finish } => (Main::Join { isa, join, finish }, 1),
            &Recipe::Scale { finish, images } => (Main::Scale { isa, finish }, images),
            &Recipe::Concat { images } => (Main::Concat, images),
            &Recipe::Pack { channels, images } => (Main::Pack { channels }, images),
            &Recipe::Unpack { channels, images } => (Main::Unpack { channels }, images),
            &Recipe::Pool { plane, window, pooling, finish } => {
                (Main::Pool(Pool::new(isa, plane, window, pooling, finish)), 1)
            }
            Recipe::Burn(_) | Recipe::Move => unreachable!("there is no own kernel for this"),
        };
        Self { main, images }
    }

    /// Computes the output from the inputs, image by image.
    pub(crate) fn run(&self, crew: &Crew<'_>, inputs: &[&[f32]], output: &mut [f32]) {
        let out_len = output.len() / self.images;
        for (image, output) in output.chunks_exact_mut(out_len).enumerate() {
            let of_image = |input: &&[f32]| {
                let len = input.len() / self.images;
                image * len..(image + 1) * len
            };
            let input = |i: usize| inputs.get(i).map(|input| &input[of_image(input)]);
            let (first, second) = (input(0).expect("every kernel reads something"), input(1));
            match &self.main {
                &Main::Join { isa, join, finish } => {
                    blocks::join(isa, crew, join, first, second, finish, output);
                }
                &Main::Scale { isa, finish } => {
                    let factors = second.expect("it is planned with an image and its factors");
                    blocks::scale(isa, crew, first, factors, finish, output);
                }
                Main::Concat => {
                    let mut rest = output;
                    for part in inputs.iter().map(|input| &input[of_image(input)]) {
                        let (to, after) = rest.split_at_mut(part.len());
                        to.copy_from_slice(part);
                        rest = after;
                    }
                }
                Main::Depthwise(kernel) => kernel.run(crew, first, second, output),
                Main::Direct(kernel) => kernel.run(crew, first, second, output),
                Main::Linear(kernel) => kernel.run(crew, first, output),
                Main::Pack { channels } => pack(crew, *channels, first, output),
                Main::Planar(kernel) => kernel.run(crew, first, second, output),
                Main::Pointwise(kernel) => kernel.run(crew, first, second, output),
                Main::Pool(kernel) => kernel.run(crew, first, output),
                Main::Unpack { channels } => unpack(crew, *channels, first, output),
                Main::Winograd(kernel) => kernel.run(crew, first, second, output),
            }
        }
    }
}

fn load_conv(
    conv: &Conv,
    method: Method,
    channels: usize,
    plane: Plane,
    finish: Finish,
    isa: Isa,
    release: Release<'_>,
) -> Main {
    let folded = fold::folded(conv);
    let filters = Filters {
        outputs: conv.weight.shape()[0],
        weight: bytemuck::cast_slice(&folded.weight),
        scale: folded.scale.as_deref(),
        bias: folded.bias.as_deref(),
        release,
    };
    let window = conv.window;
    match method {
        Method::Depthwise => Main::Depthwise(Depthwise::new(isa, plane, window, &filters, finish)),
        Method::Direct => Main::Direct(Direct::new(isa, channels, plane, window, &filters, finish)),
        Method::Planar => Main::Planar(Planar::new(isa, channels, plane, window, &filters, finish)),
        Method::Pointwise => {
            let stride = window.stride;
            Main::Pointwise(Pointwise::new(isa, channels, plane, stride, &filters, finish))
        }
        Method::Winograd(tiles) => {
            let before = window.padding.map(|(before, _)| before);
            Main::Winograd(Winograd::new(isa, tiles, channels, plane, before, &filters, finish))
        }
    }
}

/// A factor and a summand for each channel: a depthwise convolution with one tap.
fn load_norm(norm: &BatchNorm, plane: Plane, finish: Finish, isa: Isa) -> Main {
    let (scale, shift) = fold::scale_and_shift(norm);
    let ones: Vec<u8> = scale.iter().flat_map(|_| 1.0f32.to_le_bytes()).collect();
    let bias: Vec<_> = shift.into_iter().map(|value| value as f32).collect();
    let window = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], padding: [(0, 0); 2] };
    let filters = Filters {
        outputs: scale.len(),
        weight: bytemuck::cast_slice(&ones),
        scale: Some(&scale),
        bias: Some(&bias),
        release: &|_| (),
    };
    Main::Depthwise(Depthwise::new(isa, plane, window, &filters, finish))
}

fn load_gemm(gemm: &Gemm, finish: Finish, isa: Isa, release: Release<'_>) -> Main {
    let weight = gemm.weight.typed_bytes();
    let [rows, columns] = [gemm.weight.shape()[0], gemm.weight.shape()[1]];
    let (outputs, depth, order) = if gemm.transpose_weight {
        (rows, columns, Transposed::No)
    } else {
        (columns, rows, Transposed::Yes)
    };
    let bias = gemm.bias.as_ref().map(|bias| {
        let mut values = bias.values();
        values.iter_mut().for_each(|value| *value *= gemm.beta);
        if values.len() == 1 { vec![values[0]; outputs] } else { values }
    });
    let scale = (gemm.alpha != 1.0).then(|| vec![f64::from(gemm.alpha); outputs]);
    let filters = Filters {
        outputs,
        weight: bytemuck::cast_slice(&weight),
        scale: scale.as_deref(),
        bias: bias.as_deref(),
        release,
    };
    Main::Linear(Linear::new(isa, depth, order, &filters, finish))
}
