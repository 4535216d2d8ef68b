//! Convolutions that are computed together, against one definition after the other.

use super::super::depthwise::Depthwise;
use super::super::pointwise::Pointwise;
use super::super::separable::Separable;
use super::{Case, Residual, check, filters};
use crate::graph::Window;

/// The three layers of a case: to the depthwise one's channels, it, and to the outputs.
fn layers(case: &Case) -> [Case; 3] {
    let one = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], padding: [(0, 0); 2] };
    let (residual, seed) = (Residual::None, case.seed);
    let channels = 1 + case.outputs % 20;
    let widen = Case { channels, outputs: case.channels, window: one, residual, ..case.clone() };
    let depthwise =
        Case { outputs: case.channels, residual, seed: seed.wrapping_add(1), ..case.clone() };
    let size = depthwise.out_size();
    let narrow = Case { size, window: one, seed: seed.wrapping_add(2), ..case.clone() };
    [widen, depthwise, narrow]
}

fn agrees(case: &Case, first: usize) -> bool {
    let layers = layers(case);
    let groups = [1, case.channels, 1];
    let mut data = [0, 1, 2].map(|i| layers[i].data(groups[i]));
    let mut peak = 0.0;
    let mut results = Vec::new();
    for i in first..3 {
        let (result, of_sums) = layers[i].expected(groups[i], &data[i]);
        peak = of_sums;
        if let Some(next) = data.get_mut(i + 1) {
            next.input.clone_from(&result);
        }
        results = result;
    }
    let filters = [0, 1, 2].map(|i| filters(layers[i].outputs, &data[i].weight, &data[i].bias));
    let whole = Case { channels: layers[first].channels, ..layers[2].clone() };
    let mut given = layers[2].data(1);
    given.input.clone_from(&data[first].input);
    whole.gives(&given, &results, peak, |isa, crew, images| {
        let pointwise = |i: usize| {
            let Case { channels, finish, .. } = layers[i];
            Pointwise::new(isa, channels, layers[i].plane(), [1, 1], &filters[i], finish)
        };
        let Case { window, finish, .. } = layers[1];
        let depthwise = Depthwise::new(isa, layers[1].plane(), window, &filters[1], finish);
        let widen = (first == 0).then(|| pointwise(0));
        let kernel = Separable::new(isa, widen, depthwise, pointwise(2));
        kernel.run(crew, images.blocked, images.residual, images.output);
    })
}

/// Large enough for several bands, now and then.
fn sized(mut case: Case) -> Case {
    if case.seed.is_multiple_of(2) && !cfg!(miri) {
        case.size = case.size.map(|size| size + 30);
    }
    case
}

#[test]
fn depthwise_and_narrowing_convolutions_follow_the_definitions() {
    check(150, |case| agrees(&sized(case), 1));
}

#[test]
fn widening_depthwise_and_narrowing_convolutions_follow_the_definitions() {
    check(150, |case| agrees(&sized(case), 0));
}
