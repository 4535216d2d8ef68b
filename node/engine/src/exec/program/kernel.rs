//! What a step calls: one of the own kernels, with its weights.

use std::ops::Range;

use super::Source;
use super::choose::{self, Method};
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
use crate::exec::kernels::separable::Separable;
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
    /// For each part of the channels by itself, which are whole blocks.
    Parts(Vec<Main>),
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
    Separable(Box<Separable>),
    Unpack {
        channels: usize,
    },
    Winograd(Winograd),
}

impl Kernel {
    /// Makes the kernel of a recipe, which is not Burn's.
    pub(crate) fn load(recipe: &Recipe, source: Source<'_>, isa: Isa) -> Self {
        // What is packed is not needed a second time.
        let release = |bytes: &[u8]| source.mapped.iter().for_each(|file| file.release(bytes));
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
            Recipe::Pooled(recipe) => load_pooled(recipe, source, isa),
            Recipe::Separable(recipes) => load_separable(recipes, source, isa),
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
            let rest = inputs.iter().skip(2).map(|input| &input[of_image(input)]);
            let more: Vec<_> = rest.collect();
            self.main.run(crew, first, second, &more, output);
        }
    }
}

impl Main {
    /// For one image; `more` is what comes after the second input.
    fn run(
        &self,
        crew: &Crew<'_>,
        first: &[f32],
        second: Option<&[f32]>,
        more: &[&[f32]],
        output: &mut [f32],
    ) {
        match self {
            &Self::Join { isa, join, finish } => {
                blocks::join(isa, crew, join, first, second, finish, output);
            }
            &Self::Scale { isa, finish } => {
                let factors = second.expect("it is planned with an image and its factors");
                blocks::scale(isa, crew, first, factors, finish, output);
            }
            Self::Concat => {
                let mut rest = output;
                for part in std::iter::once(first).chain(second).chain(more.iter().copied()) {
                    let (to, after) = rest.split_at_mut(part.len());
                    to.copy_from_slice(part);
                    rest = after;
                }
            }
            Self::Depthwise(kernel) => kernel.run(crew, first, second, output),
            Self::Direct(kernel) => kernel.run(crew, first, second, output),
            Self::Linear(kernel) => kernel.run(crew, first, output),
            Self::Pack { channels } => pack(crew, *channels, first, output),
            Self::Parts(parts) => {
                let [from, to] = [first.len(), output.len()].map(|len| len / parts.len());
                for (i, (part, output)) in parts.iter().zip(output.chunks_exact_mut(to)).enumerate()
                {
                    let residual = second.map(|second| &second[i * to..(i + 1) * to]);
                    part.run(crew, &first[i * from..(i + 1) * from], residual, &[], output);
                }
            }
            Self::Planar(kernel) => kernel.run(crew, first, second, output),
            Self::Pointwise(kernel) => kernel.run(crew, first, second, output),
            Self::Pool(kernel) => kernel.run(crew, first, output),
            Self::Separable(kernel) => kernel.run(crew, first, second, output),
            Self::Unpack { channels } => unpack(crew, *channels, first, output),
            Self::Winograd(kernel) => kernel.run(crew, first, second, output),
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
    let all = Filters {
        outputs: conv.weight.shape()[0],
        weight: bytemuck::cast_slice(&folded.weight),
        scale: folded.scale.as_deref(),
        bias: folded.bias.as_deref(),
        release,
    };
    let load = |filters: &Filters<'_>, channels| {
        load_dense(conv.window, method, channels, plane, filters, finish, isa)
    };
    let parts = choose::parts(conv).unwrap_or(1);
    if conv.groups == 1 || method == Method::Depthwise {
        return load(&all, channels);
    }
    let outputs = all.outputs / parts;
    let part = |part: usize| {
        let of_part = part * outputs..(part + 1) * outputs;
        let weight = among_zeros(conv, all.weight, of_part.clone(), conv.groups / parts);
        let filters = Filters {
            outputs,
            weight: &weight,
            scale: all.scale.map(|scale| &scale[of_part.clone()]),
            bias: all.bias.map(|bias| &bias[of_part]),
            release: &|_| (),
        };
        load(&filters, channels / parts)
    };
    let main = Main::Parts((0..parts).map(part).collect());
    all.packed(0..all.outputs);
    main
}

/// A convolution that pools its own outputs, and for how many images.
fn load_pooled(recipe: &Recipe, source: Source<'_>, isa: Isa) -> (Main, usize) {
    let Kernel { main, images } = Kernel::load(recipe, source, isa);
    let main = match main {
        Main::Planar(kernel) => Main::Planar(kernel.pooled()),
        Main::Winograd(kernel) => Main::Winograd(kernel.pooled()),
        _ => unreachable!("the plan makes this recipe of these"),
    };
    (main, images)
}

/// Two or three convolutions that are computed together, and for how many images.
fn load_separable(recipes: &[Recipe], source: Source<'_>, isa: Isa) -> (Main, usize) {
    let kernels: Vec<_> = recipes.iter().map(|one| Kernel::load(one, source, isa)).collect();
    let images = kernels[0].images;
    let mut backwards = kernels.into_iter().rev().map(|kernel| kernel.main);
    let main = match (backwards.next(), backwards.next(), backwards.next()) {
        (Some(Main::Pointwise(narrow)), Some(Main::Depthwise(depthwise)), None) => {
            Separable::new(isa, None, depthwise, narrow)
        }
        (
            Some(Main::Pointwise(narrow)),
            Some(Main::Depthwise(depthwise)),
            Some(Main::Pointwise(widen)),
        ) => Separable::new(isa, Some(widen), depthwise, narrow),
        _ => unreachable!("the plan makes this recipe of these"),
    };
    (Main::Separable(Box::new(main)), images)
}

fn load_dense(
    window: Window,
    method: Method,
    channels: usize,
    plane: Plane,
    filters: &Filters<'_>,
    finish: Finish,
    isa: Isa,
) -> Main {
    match method {
        Method::Depthwise => Main::Depthwise(Depthwise::new(isa, plane, window, filters, finish)),
        Method::Direct => Main::Direct(Direct::new(isa, channels, plane, window, filters, finish)),
        Method::Planar => Main::Planar(Planar::new(isa, channels, plane, window, filters, finish)),
        Method::Pointwise => {
            let stride = window.stride;
            Main::Pointwise(Pointwise::new(isa, channels, plane, stride, filters, finish))
        }
        Method::Winograd(tiles, form) => {
            let before = window.padding.map(|(before, _)| before);
            Main::Winograd(Winograd::new(
                isa,
                (tiles, form),
                channels,
                plane,
                before,
                filters,
                finish,
            ))
        }
    }
}

/// The filters of some outputs, which are whole groups, as if each read the channels of `merged`
/// groups: zeros for those of the others.
fn among_zeros(
    conv: &Conv,
    weight: &[[u8; 4]],
    outputs: Range<usize>,
    merged: usize,
) -> Vec<[u8; 4]> {
    let filter: usize = conv.weight.shape()[1..].iter().product();
    let group_outputs = conv.weight.shape()[0] / conv.groups;
    let mut dense = vec![0.0f32.to_le_bytes(); outputs.len() * merged * filter];
    for (row, output) in dense.chunks_exact_mut(merged * filter).zip(outputs) {
        let group = output / group_outputs % merged;
        let values = &weight[output * filter..(output + 1) * filter];
        row[group * filter..(group + 1) * filter].copy_from_slice(values);
    }
    dense
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
