//! Whole networks in strips, each computed from the rows that it needs alone.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(dead_code, reason = "shares its helpers with other tests")]

mod common;

use std::ops::Range;

use common::{FIXTURES, assert_close, asset, open, peak, random, run, travel};
use starling_engine::{DeviceChoice, Model, Piece, RowRange, Tensor};

/// What a strip gives: its rows of each tensor, and those that are not empty.
struct Made {
    rows: Vec<RowRange>,
    tensors: Vec<Tensor>,
}

impl Made {
    /// The rows that it has of one of the tensors, if any.
    fn part(&self, tensor: usize, rows: RowRange) -> Option<Tensor> {
        let own = self.rows[tensor];
        let both = own.intersection(rows);
        let place = self.rows[..tensor].iter().filter(|rows| !rows.is_empty()).count();
        let from = |row: usize| row - own.start;
        let within = (!both.is_empty()).then(|| RowRange::new(from(both.start), from(both.end)));
        within.map(|within| self.tensors[place].rows(within).unwrap())
    }
}

/// Puts rows together from what the strips before have of them.
fn gather(before: &[Made], rows: &[RowRange]) -> Vec<Tensor> {
    let needed = rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    let gathered = needed.map(|(tensor, &rows)| {
        let parts: Vec<_> = before.iter().filter_map(|made| made.part(tensor, rows)).collect();
        Tensor::join_rows(&parts).unwrap()
    });
    gathered.collect()
}

/// Computes a range of layers in strips, from strips; each as another machine would, from a slice.
fn segment(model: &Model, layers: Range<usize>, weights: &[f64], before: &[Made]) -> Vec<Made> {
    let slice = travel(model, layers.clone());
    let all = 0..layers.len();
    let strip = |rows: Vec<RowRange>| {
        let needed = model.needed_rows(layers.clone(), &rows).unwrap();
        let inputs = gather(before, &needed);
        let cost = model.strip_cost(layers.clone(), &rows).unwrap();
        let sent: usize = inputs.iter().map(|tensor| tensor.as_bytes().len()).sum();
        assert_eq!((cost.input_bytes, &cost.input_rows), (sent as u64, &needed));
        let piece = Piece::load_rows(&slice, all.clone(), &rows, DeviceChoice::Cpu).unwrap();
        Made { rows, tensors: piece.run(&inputs).unwrap() }
    };
    let strips = model.split_rows(layers.end, weights).into_iter();
    // The last images of small networks have fewer rows than there are machines.
    strips.filter(|rows| rows.iter().any(|rows| !rows.is_empty())).map(strip).collect()
}

/// The most layers from the start of which none needs all rows.
fn splittable_prefix(model: &Model) -> usize {
    let layers = model.layers().len();
    (1..=layers).rev().find(|&end| model.splittable(0..end)).unwrap_or(0)
}

/// Runs the layers that can be split in segments of three strips each, ends the network with one
/// machine, and compares with the whole.
fn check(model: &Model, cuts: &[usize]) {
    let prefix = splittable_prefix(model);
    let input = random(&model.inputs()[0].shape, 11);
    let whole = run(model, 0..prefix, std::slice::from_ref(&input));
    let mut made = vec![Made { rows: model.rows(0), tensors: vec![input] }];
    let cuts = cuts.iter().map(|cut| cut * prefix / 100).chain([prefix]);
    let mut start = 0;
    for end in cuts {
        made = segment(model, start..end, &[2.0, 1.0, 1.5], &made);
        start = end;
    }
    let joined = gather(&made, &model.rows(prefix));
    assert_eq!(joined.len(), whole.len());
    for (joined, whole) in joined.iter().zip(&whole) {
        println!("{}: {}", model.name(), if joined == whole { "same bytes" } else { "close" });
        assert_close(joined, whole, 1e-5 * peak(whole));
    }
}

/// The networks that start with more than a few layers that can be split.
fn split_well() -> Vec<Model> {
    let models: Vec<_> = FIXTURES.into_iter().map(open).collect();
    let chosen: Vec<_> = models.into_iter().filter(|model| splittable_prefix(model) > 5).collect();
    assert!(chosen.len() >= 8, "only {} networks can be split", chosen.len());
    chosen
}

#[test]
fn small_networks_in_one_segment_of_strips() {
    for model in split_well() {
        check(&model, &[]);
    }
}

#[test]
fn small_networks_in_segments_of_strips() {
    for model in split_well() {
        check(&model, &[20, 55, 80]);
    }
}

#[test]
fn efficientnet_in_segments_of_strips() {
    let model = Model::open(&asset("efficientnet-lite0.onnx")).unwrap();
    check(&model, &[]);
    check(&model, &[10, 33, 90]);
}

/// The halo makes strips cost more than their part of the whole, and more so the deeper they are.
#[test]
fn a_deep_halo_costs_more_than_a_shallow_one() {
    let model = Model::open(&asset("efficientnet-lite0.onnx")).unwrap();
    let flops = |layers: Range<usize>, rows: &[RowRange]| {
        let cost = model.strip_cost(layers, rows).unwrap();
        cost.flops.iter().sum::<u64>() as f64
    };
    let excess = |end: usize| {
        let strips = model.split_rows(end, &[1.0; 4]);
        let all: f64 = strips.iter().map(|rows| flops(0..end, rows)).sum();
        all / flops(0..end, &model.rows(end))
    };
    let (shallow, deep) = (excess(4), excess(splittable_prefix(&model)));
    println!("4 strips cost {shallow:.3} of 4 layers, {deep:.3} of all that can be split");
    assert!(shallow > 1.0 && shallow < 1.2, "{shallow}");
    assert!(deep > 1.5 && deep < 4.0, "{deep}");
}

#[test]
fn strips_of_all_layers_are_right_and_save_nothing() {
    let model = open("resnet18");
    let layers = 0..model.layers().len();
    let all = model.rows(layers.end);
    assert_eq!(all, [RowRange::new(0, model.outputs()[0].shape[1])]);
    assert!(!model.splittable(layers.clone()));
    let input = random(&model.inputs()[0].shape, 2);
    let piece = Piece::load_rows(&model, layers.clone(), &all, DeviceChoice::Cpu).unwrap();
    let needed = model.needed_rows(layers.clone(), &all).unwrap()[0];
    let output = piece.run(&[input.rows(needed).unwrap()]).unwrap().remove(0);
    let whole = run(&model, layers, &[input]).remove(0);
    assert_close(&output, &whole, 1e-5 * peak(&whole));
}
