//! The same by trial: which rows layers read, one row after the other; and windows, value by value.

use std::collections::BTreeSet;
use std::ops::Range;

use quickcheck::{TestResult, quickcheck};

use super::network::{self, Groups, Network, Step};
use super::{distance, random_inputs, run};
use crate::graph::{Layer, TensorId, Window};
use crate::rows::RowRange;
use crate::{DeviceChoice, Model, Op, Operand, Piece, Tensor};

/// The rows that are needed of each tensor before the layers, from sets of single rows.
pub(crate) fn needed_rows(model: &Model, layers: Range<usize>, rows: &[RowRange]) -> Vec<RowRange> {
    let mut needed = vec![BTreeSet::new(); model.graph().tensors.len()];
    for (id, rows) in model.frontier_ids(layers.end).iter().zip(rows) {
        needed[id.0].extend(rows.start..rows.end);
    }
    for layer in model.layers()[layers.clone()].iter().rev() {
        // Rows between two that are needed are made, too: strips have no holes.
        let rows = layer.outputs.iter().flat_map(|output| needed[output.0].iter().copied());
        let made = hull(&rows.collect());
        for row in made.start..made.end {
            for (i, &input) in layer.inputs.iter().enumerate() {
                needed[input.0].extend(read(model, layer, i, row));
            }
        }
    }
    let ids: &[TensorId] = model.frontier_ids(layers.start);
    ids.iter().map(|id| hull(&needed[id.0])).collect()
}

fn hull(rows: &BTreeSet<usize>) -> RowRange {
    match (rows.first(), rows.last()) {
        (Some(&first), Some(&last)) => RowRange::new(first, last + 1),
        _ => RowRange::EMPTY,
    }
}

/// The rows of one input that one row of the output is made from.
fn read(model: &Model, layer: &Layer, input: usize, row: usize) -> Vec<usize> {
    let shape = &model.tensor(layer.inputs[input]).shape;
    let output = &model.tensor(layer.outputs[0]).shape;
    let all = || (0..shape[2]).collect();
    match &layer.op {
        Op::Add(Operand::Activation) | Op::Binary(_) if shape[2] != output[2] => vec![0],
        Op::Activation
        | Op::Add(_)
        | Op::BatchNorm(_)
        | Op::Binary(_)
        | Op::Concat { .. }
        | Op::Split { .. }
        | Op::Unary(_) => vec![row],
        Op::Softmax { size, inner } => {
            let column = size * inner;
            if *inner == shape[3] && *size == shape[2] && column > shape[3] {
                all()
            } else {
                vec![row]
            }
        }
        Op::AveragePool(pool) => taps(&pool.window, shape, output, row),
        Op::Conv(conv) => taps(&conv.window, shape, output, row),
        Op::MaxPool(pool) => taps(&pool.window, shape, output, row),
        _ => all(),
    }
}

fn taps(window: &Window, shape: &[usize], output: &[usize], row: usize) -> Vec<usize> {
    let of = |row: usize| -> Vec<usize> {
        let place = |k: usize| row * window.stride[0] + k * window.dilation[0];
        let inside =
            |place: usize| place.checked_sub(window.padding[0].0).filter(|&row| row < shape[2]);
        (0..window.kernel[0]).filter_map(|k| inside(place(k))).collect()
    };
    // A layer with a window that sees nothing but padding is not split.
    if (0..output[2]).any(|row| of(row).is_empty()) { (0..shape[2]).collect() } else { of(row) }
}

quickcheck! {
    /// Strips lean on padding that differs from side to side.
    fn windows_are_right_with_any_padding(network: Network, step: Step) -> TestResult {
        let step = match step {
            Step::Conv { .. } | Step::AveragePool { .. } | Step::MaxPool { .. } => step,
            _ => return TestResult::discard(),
        };
        let Some(model) = (Network { steps: vec![step], ..network }).build() else {
            return TestResult::discard();
        };
        check_windows(&model);
        TestResult::passed()
    }
}

#[test]
fn partial_windows_count_only_what_they_see() {
    for (model, _) in partial_windows() {
        check_windows(&model);
    }
}

/// Models of one layer whose windows are partly inside, in many ways, and their heights.
pub(crate) fn partial_windows() -> Vec<(Model, usize)> {
    let mut models = Vec::new();
    for (ceil, include, before, after, dilation) in cases() {
        let window = network::Window {
            kernel: [3, 2],
            stride: [2, 3],
            dilation: [dilation, 1],
            padding: [before, 0, after, 1],
        };
        let average = Step::AveragePool { window, ceil, include };
        let conv = Step::Conv { window, groups: Groups::Depthwise, filters: 2 };
        for step in [average, Step::MaxPool { window, ceil }, conv] {
            for height in 3..9 {
                let network = Network { channels: 2, height, width: 5, steps: vec![step.clone()] };
                models.extend(network.build().map(|model| (model, height)));
            }
        }
    }
    models
}

fn cases() -> impl Iterator<Item = (bool, bool, usize, usize, usize)> {
    (0..72).map(|i| (i % 2 == 0, i / 2 % 2 == 0, i / 4 % 3, i / 12 % 3, 1 + i / 36))
}

/// Runs a model of one layer, and compares with the definition of its operator.
fn check_windows(model: &Model) {
    let inputs = random_inputs(model, 0);
    let piece = Piece::load(model, 0..1, DeviceChoice::Cpu).unwrap();
    let actual = run(&piece, &inputs);
    let expected = compute(model, &inputs[0]);
    assert!(distance(&actual, &[expected]) < 1e-5, "{:?}", model.layers()[0].op);
}

fn compute(model: &Model, input: &Tensor) -> Tensor {
    let shape = model.outputs()[0].shape.clone();
    let [channels, height, width] = [shape[1], shape[2], shape[3]];
    let mut values = Vec::new();
    for channel in 0..channels {
        for row in 0..height {
            for column in 0..width {
                values.push(value(&model.layers()[0].op, input, channel, [row, column]) as f32);
            }
        }
    }
    Tensor::from_f32(shape, values).unwrap()
}

fn value(op: &Op, input: &Tensor, channel: usize, at: [usize; 2]) -> f64 {
    match op {
        Op::MaxPool(pool) => {
            let taps = under(&pool.window, input, channel, at).into_iter().flatten();
            taps.map(|(_, value)| value).fold(f64::NEG_INFINITY, f64::max)
        }
        Op::AveragePool(pool) => {
            let taps = under(&pool.window, input, channel, at);
            let count =
                if pool.count_include_pad { taps.len() } else { taps.iter().flatten().count() };
            taps.iter().flatten().map(|(_, value)| value).sum::<f64>() / count.max(1) as f64
        }
        Op::Conv(conv) => {
            let [filters, group] = [conv.weight.shape()[0], conv.weight.shape()[1]];
            let (weights, bias) = (conv.weight.values(), conv.bias.as_ref().unwrap().values());
            let first = channel / (filters / conv.groups) * group;
            let area = conv.window.kernel[0] * conv.window.kernel[1];
            let products = (0..group).flat_map(|i| {
                let weights = &weights[(channel * group + i) * area..];
                let taps = under(&conv.window, input, first + i, at);
                let product = |(place, value): (usize, f64)| f64::from(weights[place]) * value;
                taps.into_iter().flatten().map(product).collect::<Vec<_>>()
            });
            f64::from(bias[channel]) + products.sum::<f64>()
        }
        _ => unreachable!("only operators with a window are asked for"),
    }
}

/// What is under a window: each place within the image or its padding, and the value there if it
/// is in the image.
fn under(
    window: &Window,
    input: &Tensor,
    channel: usize,
    at: [usize; 2],
) -> Vec<Option<(usize, f64)>> {
    let shape = input.shape();
    let place = |i: usize, k: usize| at[i] * window.stride[i] + k * window.dilation[i];
    let within =
        |i: usize, place: usize| place < shape[2 + i] + window.padding[i].0 + window.padding[i].1;
    let inside = |i: usize, place: usize| {
        place.checked_sub(window.padding[i].0).filter(|&at| at < shape[2 + i])
    };
    let mut taps = Vec::new();
    for tap in 0..window.kernel[0] * window.kernel[1] {
        let [y, x] = [place(0, tap / window.kernel[1]), place(1, tap % window.kernel[1])];
        if !within(0, y) || !within(1, x) {
            continue;
        }
        let row = inside(0, y).zip(inside(1, x));
        taps.push(row.map(|(y, x)| {
            let index = (channel * shape[2] + y) * shape[3] + x;
            (tap, f64::from(input.as_f32()[index]))
        }));
    }
    taps
}
