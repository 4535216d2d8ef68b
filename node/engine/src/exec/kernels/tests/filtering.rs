//! Minimal filtering, in all its forms, and convolutions that pool their own outputs.

use super::super::pool::Keep;
use super::super::winograd::{Form, Tiles, Winograd};
use super::*;

/// A case of a convolution that can be filtered.
fn filtered(mut case: Case) -> Case {
    let padding = case.window.padding.map(|(before, after)| (before.min(2), after.min(2)));
    case.window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding };
    for (size, (before, after)) in case.size.iter_mut().zip(padding) {
        *size = (*size).max(3 - (before + after).min(2));
    }
    case
}

/// Now and then so many channels that their filters are transformed in several parts.
fn many_channels(mut case: Case) -> Case {
    if case.seed.is_multiple_of(3) && !cfg!(miri) {
        case.channels += 150;
    }
    case
}

/// The layer of a case.
fn layer(case: &Case, isa: Isa, method: (Tiles, Form), filters: &Filters<'_>) -> Winograd {
    let before = case.window.padding.map(|(before, _)| before);
    Winograd::new(isa, method, case.channels, case.plane(), before, filters, case.finish)
}

fn follows_the_definition(method: (Tiles, Form), case: Case) -> bool {
    let case = filtered(case);
    case.agrees(1, |isa, filters, crew, images| {
        let layer = layer(&case, isa, method, filters);
        layer.run(crew, images.blocked, images.residual, images.output);
    })
}

#[test]
fn minimal_filtering_follows_the_definition() {
    check(100, |case| follows_the_definition((Tiles::F2, Form::Components), case));
    check(100, |case| follows_the_definition((Tiles::F3, Form::Components), case));
    check(100, |case| follows_the_definition((Tiles::F4, Form::Components), case));
}

#[test]
fn filters_that_wait_as_taps_follow_the_definition() {
    check(100, |case| follows_the_definition((Tiles::F2, Form::Taps), many_channels(case)));
    check(100, |case| follows_the_definition((Tiles::F3, Form::Taps), many_channels(case)));
    check(100, |case| follows_the_definition((Tiles::F4, Form::Taps), many_channels(case)));
}

/// What a layer makes of a case.
fn outputs(case: &Case, isa: Isa, method: (Tiles, Form)) -> Lines {
    let data = case.data(1);
    let layer = layer(case, isa, method, &filters(case.outputs, &data.weight, &data.bias));
    let [height, width] = case.out_size();
    let mut output = Lines::zeros(blocks(case.outputs) * height * width * BLOCK);
    Crew::gather(|crew| {
        layer.run(crew, &pack(crew, case.channels, &data.input), None, &mut output);
    });
    output
}

#[test]
fn forms_of_filters_give_the_same_bits() {
    check(50, |case| {
        let case = filtered(many_channels(case));
        Isa::all().into_iter().all(|isa| {
            [Tiles::F2, Tiles::F3, Tiles::F4].into_iter().all(|tiles| {
                let of = |form| outputs(&case, isa, (tiles, form));
                of(Form::Components)[..] == of(Form::Taps)[..]
            })
        })
    });
}

/// Whether a layer that pools gives the bits of one that does not, and of a pooling after it.
fn pools(mut case: Case, run: fn(&Case, Isa, Keep, &Crew<'_>, &Data, &mut [f32])) -> bool {
    case.residual = Residual::None;
    case.finish.curve = Curve::None;
    let pair = Window { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: [(0, 0); 2] };
    let all = case.out_size();
    let kept = Keep::Maxima.size(all);
    if kept.contains(&0) {
        return true;
    }
    let room = |size: [usize; 2]| Lines::zeros(blocks(case.outputs) * size[0] * size[1] * BLOCK);
    let data = case.data(1);
    let threads = rayon::ThreadPoolBuilder::new().num_threads(case.threads).build().unwrap();
    Isa::all().into_iter().all(|isa| {
        let (mut before, mut expected, mut actual) = (room(all), room(kept), room(kept));
        threads.install(|| {
            Crew::gather(|crew| {
                run(&case, isa, Keep::All, crew, &data, &mut before);
                let plane = Plane { size: all, out_size: kept };
                Pool::new(isa, plane, pair, Pooling::Max, Finish::NONE).run(
                    crew,
                    &before,
                    &mut expected,
                );
                run(&case, isa, Keep::Maxima, crew, &data, &mut actual);
            });
        });
        expected[..] == actual[..]
    })
}

#[test]
fn minimal_filtering_pools_its_own_outputs() {
    check(100, |case| {
        pools(filtered(case), |case, isa, keep, crew, data, output| {
            let filters = filters(case.outputs, &data.weight, &data.bias);
            let tiles = if case.seed.is_multiple_of(2) { Tiles::F2 } else { Tiles::F4 };
            let layer = layer(case, isa, (tiles, Form::Components), &filters);
            let layer = if keep == Keep::All { layer } else { layer.pooled() };
            layer.run(crew, &pack(crew, case.channels, &data.input), None, output);
        })
    });
}

#[test]
fn planar_convolutions_pool_their_own_outputs() {
    check(100, |mut case| {
        case.channels = 1 + case.channels % 4;
        pools(case, |case, isa, keep, crew, data, output| {
            let filters = filters(case.outputs, &data.weight, &data.bias);
            let (channels, window) = (case.channels, case.window);
            let layer = Planar::new(isa, channels, case.plane(), window, &filters, case.finish);
            let layer = if keep == Keep::All { layer } else { layer.pooled() };
            layer.run(crew, &data.input, None, output);
        })
    });
}
