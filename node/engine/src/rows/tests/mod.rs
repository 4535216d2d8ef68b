//! Strips of random networks against the whole, and the rows they need against a search by trial.

mod features;
mod network;
mod reference;

use std::collections::BTreeSet;
use std::ops::Range;

use network::{Network, random};
use quickcheck::{TestResult, quickcheck};

use super::{LayerRows, RowRange, RowRule, strip};
use crate::profile::OpClass;
use crate::{DeviceChoice, Kernels, LoadError, LoadOptions, Model, Piece, RowsError, Tensor};

fn run(piece: &Piece, inputs: &[Tensor]) -> Vec<Tensor> {
    piece.run(inputs).unwrap()
}

fn load(model: &Model, layers: Range<usize>, rows: &[RowRange]) -> Piece {
    Piece::load_rows(model, layers, rows, DeviceChoice::Cpu).unwrap()
}

/// A range of layers from two arbitrary numbers.
fn pick(model: &Model, range: (usize, usize)) -> Range<usize> {
    let layers = model.layers().len();
    let first = range.0 % layers;
    first..first + 1 + range.1 % (layers - first)
}

/// What a machine gets that computes a strip: only the rows that it needs.
fn send(inputs: &[Tensor], rows: &[RowRange]) -> Vec<Tensor> {
    let needed = inputs.iter().zip(rows).filter(|(_, rows)| !rows.is_empty());
    needed.map(|(input, &rows)| input.rows(rows).unwrap()).collect()
}

/// Joins what strips made of each tensor of the whole.
fn join(whole: &[Tensor], strips: &[(Vec<RowRange>, Vec<Tensor>)]) -> Vec<Tensor> {
    let mut parts = vec![Vec::new(); whole.len()];
    for (rows, outputs) in strips {
        let of: Vec<usize> = (0..whole.len()).filter(|&i| !rows[i].is_empty()).collect();
        assert_eq!(of.len(), outputs.len());
        of.into_iter().zip(outputs).for_each(|(i, output)| parts[i].push(output.clone()));
    }
    parts.iter().map(|parts| Tensor::join_rows(parts).unwrap()).collect()
}

/// How far two results are apart, in units of the largest magnitude of the second.
fn distance(actual: &[Tensor], expected: &[Tensor]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let one = |(actual, expected): (&Tensor, &Tensor)| {
        assert_eq!(actual.shape(), expected.shape());
        let peak = expected.as_f32().iter().fold(1e-3, |peak: f32, value| peak.max(value.abs()));
        let pairs = actual.as_f32().iter().zip(expected.as_f32());
        pairs.fold(0.0, |most: f32, (a, e)| most.max((a - e).abs())) / peak
    };
    actual.iter().zip(expected).map(one).fold(0.0, f32::max)
}

/// The strips of a range of layers, each computed from what it needs alone.
fn in_strips(
    model: &Model,
    layers: &Range<usize>,
    weights: &[f64],
    inputs: &[Tensor],
    options: LoadOptions,
) -> Vec<(Vec<RowRange>, Vec<Tensor>)> {
    let strips = model.split_rows(layers.end, weights).into_iter();
    let busy = strips.filter(|rows| rows.iter().any(|rows| !rows.is_empty()));
    busy.map(|rows| {
        let piece = Piece::load_rows(model, layers.clone(), &rows, options).unwrap();
        let needed = model.needed_rows(layers.clone(), &rows).unwrap();
        let inputs = send(inputs, &needed);
        let shapes = piece.input_info().iter().map(|info| &info.shape[..]);
        assert!(shapes.eq(inputs.iter().map(Tensor::shape)));
        let outputs = run(&piece, &inputs);
        let shapes = piece.output_info().iter().map(|info| &info.shape[..]);
        assert!(shapes.eq(outputs.iter().map(Tensor::shape)));
        (rows, outputs)
    })
    .collect()
}

fn random_inputs(model: &Model, cut: usize) -> Vec<Tensor> {
    let infos = model.frontier(cut).iter().zip(1..);
    infos.map(|(info, seed)| random(&info.shape, seed)).collect()
}

quickcheck! {
    fn strips_join_to_the_whole(network: Network, range: (usize, usize), weights: Vec<u8>, kernels: u8) -> TestResult {
        let Some(model) = network.build() else { return TestResult::discard() };
        let layers = pick(&model, range);
        let inputs = random_inputs(&model, layers.start);
        let kernels = [Kernels::Fast, Kernels::Exact, Kernels::Portable][usize::from(kernels % 3)];
        let options = LoadOptions { kernels, ..LoadOptions::default() };
        let whole = run(&Piece::load(&model, layers.clone(), options).unwrap(), &inputs);
        let weights: Vec<f64> = weights.iter().chain(&[1]).take(5).map(|&w| w.into()).collect();
        let strips = in_strips(&model, &layers, &weights, &inputs, options);
        let joined = join(&whole, &strips);
        TestResult::from_bool(distance(&joined, &whole) < TOLERANCE)
    }

    fn a_slice_makes_the_strips_of_its_model(network: Network, range: (usize, usize)) -> TestResult {
        let Some(model) = network.build() else { return TestResult::discard() };
        let layers = pick(&model, range);
        let slice = Model::parse_slice(model.slice(layers.clone()).onnx, &model).unwrap();
        let inputs = random_inputs(&model, layers.start);
        let options = LoadOptions::default();
        let here = in_strips(&model, &layers, &[1.0, 2.0], &inputs, options);
        let there = in_strips(&slice, &(0..layers.len()), &[1.0, 2.0], &inputs, options);
        TestResult::from_bool(here == there)
    }

    fn needed_rows_are_those_that_a_search_finds(network: Network, range: (usize, usize), part: (usize, usize)) -> TestResult {
        let Some(model) = network.build() else { return TestResult::discard() };
        let layers = pick(&model, range);
        let rows = some_rows(&model, layers.end, part);
        let needed = model.needed_rows(layers.clone(), &rows).unwrap();
        TestResult::from_bool(needed == reference::needed_rows(&model, layers, &rows))
    }

    fn any_rows_are_refused_or_right(network: Network, rows: Vec<(usize, usize)>, wild: bool) -> TestResult {
        let Some(model) = network.build() else { return TestResult::discard() };
        let cut = model.layers().len() / 2 + 1;
        let limit = if wild { usize::MAX } else { 9 };
        let row = |&(start, end): &(usize, usize)| RowRange::new(start % limit, end % limit);
        let count = model.frontier(cut).len() + usize::from(wild);
        let rows: Vec<_> = rows.iter().map(row).take(count).collect();
        let needed = model.needed_rows(0..cut, &rows);
        let loaded = Piece::load_rows(&model, 0..cut, &rows, DeviceChoice::Cpu);
        let taken = |piece: Piece| bytes(piece.input_info());
        let same = match (needed, loaded, model.strip_cost(0..cut, &rows)) {
            (Ok(needed), Ok(piece), Ok(cost)) => {
                cost.input_rows == needed && taken(piece) == cost.input_bytes
            }
            (Ok(_), Err(LoadError::Rows(RowsError::Nothing)), Ok(cost)) => cost.output_bytes == 0,
            (Err(a), Err(LoadError::Rows(b)), Err(c)) => a == b && b == c,
            _ => false,
        };
        TestResult::from_bool(same)
    }

    fn each_end_of_the_needed_rows_has_an_effect(network: Network, part: (usize, usize)) -> TestResult {
        let Some(model) = network.linear().build() else { return TestResult::discard() };
        let layers = 0..model.layers().len();
        if !model.splittable(layers.clone()) {
            return TestResult::discard();
        }
        let rows = some_rows(&model, layers.end, part);
        let needed = model.needed_rows(layers, &rows).unwrap()[0];
        let at = |row: Option<usize>| strip_of_impulse(&model, &rows, row);
        let still = at(None);
        let changes = |row: usize| at(Some(row)) != still;
        let height = model.inputs()[0].shape[2];
        let within = changes(needed.start) && changes(needed.end - 1);
        let outside = (0..needed.start).chain(needed.end..height).any(changes);
        TestResult::from_bool(within && !outside)
    }

    fn costs_are_those_of_the_strip(network: Network, range: (usize, usize), part: (usize, usize)) -> TestResult {
        let Some(model) = network.build() else { return TestResult::discard() };
        let layers = pick(&model, range);
        let rows = some_rows(&model, layers.end, part);
        check_cost(&model, layers, &rows);
        TestResult::passed()
    }
}

/// Some rows of each tensor alive across a cut.
fn some_rows(model: &Model, cut: usize, part: (usize, usize)) -> Vec<RowRange> {
    let some = |all: RowRange| {
        let start = part.0 % all.end;
        RowRange::new(start, start + 1 + part.1 % (all.end - start))
    };
    model.rows(cut).into_iter().map(some).collect()
}

/// What the whole model makes of these rows when the input is zero but for one row.
fn strip_of_impulse(model: &Model, rows: &[RowRange], row: Option<usize>) -> Vec<Tensor> {
    let shape = &model.inputs()[0].shape;
    let mut values = vec![0.0; shape.iter().product()];
    if let Some(row) = row {
        let random = network::values(values.len(), 9);
        let width = shape[3];
        let in_row = |i: usize| i / width % shape[2] == row;
        (0..values.len()).filter(|&i| in_row(i)).for_each(|i| values[i] = 1e3 * random[i]);
    }
    let input = Tensor::from_f32(shape.clone(), values).unwrap();
    // The fastest kernels compute tiles of several rows, and a row outside may change a rounding.
    let options = LoadOptions { kernels: Kernels::Exact, ..LoadOptions::default() };
    let piece = Piece::load(model, 0..model.layers().len(), options).unwrap();
    send(&run(&piece, &[input]), rows)
}

fn check_cost(model: &Model, layers: Range<usize>, rows: &[RowRange]) {
    let cost = model.strip_cost(layers.clone(), rows).unwrap();
    let strip = strip::strip(model, layers.clone(), rows).unwrap();
    let piece = load(model, layers.clone(), rows);
    assert_eq!(cost.input_rows, model.needed_rows(layers.clone(), rows).unwrap());
    assert_eq!(cost.input_bytes, bytes(piece.input_info()));
    assert_eq!(cost.output_bytes, bytes(piece.output_info()));
    let mut exact = [0; OpClass::ALL.len()];
    let profile = strip.model.profile();
    for (layer, number) in profile.layers.iter().zip(&strip.numbers) {
        // Layers that only cut rows out are not counted: copying is no work of the model.
        exact[layer.class.index()] += if number.is_some() { layer.flops } else { 0 };
    }
    // What is broadcast is read as a whole, but counted in proportion.
    let broadcast: u64 = layers.clone().map(|layer| broadcast_elements(model, layer)).sum();
    for (exact, counted) in exact.into_iter().zip(cost.flops) {
        assert!(counted <= exact + layers.len() as u64, "{counted} of {exact}");
        assert!(counted + broadcast >= exact, "{counted} of {exact}");
    }
}

fn bytes(infos: &[crate::TensorInfo]) -> u64 {
    infos.iter().map(crate::TensorInfo::bytes).sum()
}

fn broadcast_elements(model: &Model, layer: usize) -> u64 {
    let LayerRows::Split(rules) = model.layer_rows(layer) else { return 0 };
    let inputs = model.layers()[layer].inputs.iter().zip(rules);
    let all = inputs.filter(|(_, rule)| **rule == RowRule::All);
    all.map(|(&id, _)| model.tensor(id).elements()).sum()
}

#[test]
fn each_row_alone_of_partial_windows_is_that_of_the_whole() {
    for (model, height) in reference::partial_windows() {
        let inputs = random_inputs(&model, 0);
        let whole = run(&Piece::load(&model, 0..1, DeviceChoice::Cpu).unwrap(), &inputs);
        let rows = model.outputs()[0].shape[2];
        let options = LoadOptions::default();
        let strips = in_strips(&model, &(0..1), &vec![1.0; rows], &inputs, options);
        assert_eq!(strips.len(), rows);
        let distance = distance(&join(&whole, &strips), &whole);
        assert!(distance < TOLERANCE, "{distance}: {height} rows, {:?}", model.layers()[0].op);
    }
}

/// A chain that takes 8 rows to 4 and to 2.
fn chain() -> Model {
    use network::{Groups, Step, Window};
    let window = |stride, before| Window {
        kernel: [3, 1],
        stride: [stride, 1],
        dilation: [1, 1],
        padding: [before, 0, 1, 0],
    };
    let conv = |window| Step::Conv { window, groups: Groups::One, filters: 2 };
    let max = Step::MaxPool { window: window(2, 1), ceil: false };
    let steps = vec![conv(window(2, 1)), Step::Relu, max];
    Network { channels: 1, height: 8, width: 3, steps }.build().unwrap()
}

#[track_caller]
fn check_needed(output: Range<usize>, needed: Range<usize>) {
    let model = chain();
    let rows = model.needed_rows(0..model.layers().len(), &[output.into()]);
    assert_eq!(rows, Ok(vec![needed.into()]));
}

#[test]
fn the_halo_of_a_chain() {
    assert_eq!(chain().outputs()[0].shape[2], 2);
    check_needed(0..2, 0..8);
    check_needed(0..1, 0..4);
    check_needed(1..2, 1..8);
    check_needed(0..0, 0..0);
    check_needed(1..1, 0..0);
}

#[track_caller]
fn check_error(layers: Range<usize>, rows: &[RowRange], message: &str) {
    let model = chain();
    let load = Piece::load_rows(&model, layers.clone(), rows, DeviceChoice::Cpu);
    assert_eq!(load.unwrap_err().to_string(), message);
    if rows.iter().any(|rows| !rows.is_empty()) {
        assert_eq!(model.needed_rows(layers.clone(), rows).unwrap_err().to_string(), message);
        assert_eq!(model.strip_cost(layers, rows).unwrap_err().to_string(), message);
    }
}

#[test]
fn bad_ranges_are_refused() {
    let one = RowRange::new(0, 1);
    check_error(0..3, &[one], "layers 0..3 are not a piece of a model of 2 layers");
    check_error(1..1, &[one], "layers 1..1 are not a piece of a model of 2 layers");
    check_error(0..2, &[], "1 tensors are alive after these layers, but rows are given for 0");
    check_error(
        0..2,
        &[one; 2],
        "1 tensors are alive after these layers, but rows are given for 2",
    );
    check_error(0..2, &[RowRange::new(1, 3)], "rows 1..3 are not rows of 't2', which has 2");
    check_error(0..2, &[RowRange::new(1, 1)], "there is not one row in the strip");
    let backwards = Piece::load_rows(&chain(), 0..2, &[RowRange::new(2, 1)], DeviceChoice::Cpu);
    let error = backwards.unwrap_err();
    assert!(matches!(error, LoadError::Rows(RowsError::Outside { height: 2, .. })), "{error}");
}

#[test]
fn layers_are_told_once_each_in_their_order() {
    let network = Network {
        channels: 2,
        height: 9,
        width: 3,
        steps: vec![network::Step::Residual { kernel: 3 }, network::Step::Residual { kernel: 5 }],
    };
    let model = network.build().unwrap();
    let layers = 1..model.layers().len();
    let rows = vec![RowRange::new(3, 6)];
    let piece = load(&model, layers.clone(), &rows);
    let needed = model.needed_rows(layers.clone(), &rows).unwrap();
    let inputs = send(&random_inputs(&model, layers.start), &needed);
    let mut told = Vec::new();
    piece.run_observed(&inputs, &mut |layer| told.push(layer)).unwrap();
    assert_eq!(told, layers.clone().collect::<Vec<_>>());
    assert_eq!(piece.layers(), layers);
}

#[test]
fn rows_that_only_pass_through_are_given_as_they_are() {
    let network = Network {
        channels: 2,
        height: 6,
        width: 2,
        steps: vec![network::Step::Residual { kernel: 3 }],
    };
    let model = network.build().unwrap();
    let (x, rows) = (random(&[1, 2, 6, 2], 3), RowRange::new(2, 5));
    // After the first convolution, the input is still alive.
    assert_eq!(model.frontier(1).len(), 2);
    let piece = load(&model, 0..1, &[rows, RowRange::EMPTY]);
    let input = x.rows(rows).unwrap();
    assert_eq!(run(&piece, std::slice::from_ref(&input)), [input]);
    assert_eq!(piece.output_info()[0].name, "x");
}

#[test]
fn random_networks_have_all_that_can_be_split_and_more() {
    let mut g = quickcheck::Gen::new(100);
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        let network: Network = quickcheck::Arbitrary::arbitrary(&mut g);
        let Some(model) = network.build() else { continue };
        for (index, layer) in model.layers().iter().enumerate() {
            seen.insert((layer.op.name(), matches!(model.layer_rows(index), LayerRows::Split(_))));
        }
    }
    let split = [
        "Activation",
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Concat",
        "Conv",
        "MaxPool",
        "Mul",
        "Split",
        "Abs",
        "Softmax",
    ];
    for op in split {
        assert!(seen.contains(&(op, true)), "{op} is never split: {seen:?}");
    }
    assert!(seen.contains(&("GlobalAveragePool", false)) && seen.contains(&("Softmax", false)));
}

#[test]
fn rows_are_cut_out_and_joined() {
    let image = random(&[2, 3, 5, 2], 1);
    let cut = |start, end| image.rows(RowRange::new(start, end)).unwrap();
    assert_eq!(Tensor::join_rows(&[cut(0, 1), cut(1, 4), cut(4, 5)]).unwrap(), image);
    assert_eq!(cut(1, 2).as_f32()[2..4], image.as_f32()[12..14]);
    let plane = Tensor::from_i64(vec![1, 1, 3, 1], vec![7, 8, 9]).unwrap();
    assert_eq!(plane.rows(RowRange::new(1, 3)).unwrap().as_i64(), [8, 9]);
    let features = random(&[1, 7], 1);
    let some = |start, end| features.rows(RowRange::new(start, end)).unwrap();
    assert_eq!(some(2, 5).as_f32(), &features.as_f32()[2..5]);
    assert_eq!(Tensor::join_rows(&[some(0, 2), some(2, 5), some(5, 7)]).unwrap(), features);
    let vector = random(&[7], 1);
    assert_eq!(vector.rows(RowRange::new(0, 1)).unwrap(), vector);
    assert_eq!(Tensor::join_rows(std::slice::from_ref(&vector)).unwrap(), vector);
    for (start, end) in [(0, 6), (2, 2), (3, 2)] {
        assert!(image.rows(RowRange::new(start, end)).is_err(), "{start}..{end}");
    }
    let other = Tensor::from_i64(vec![2, 3, 5, 2], vec![0; 60]).unwrap();
    for strips in [
        vec![],
        vec![vector.clone(), vector],
        vec![image.clone(), random(&[2, 3, 5, 3], 1)],
        vec![image.clone(), other],
    ] {
        assert!(Tensor::join_rows(&strips).is_err(), "{strips:?}");
    }
}

/// Sums of up to a hundred products, some layers deep, in another order.
const TOLERANCE: f32 = 1e-5;
