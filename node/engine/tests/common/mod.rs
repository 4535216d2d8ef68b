//! What the integration tests share.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use starling_engine::{Bytes, DeviceChoice, Hash, Model, Piece, Tensor, WeightSource, npy};

/// A file of the demonstration model's folder.
pub(crate) fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(name)
}

/// A file of this crate's own fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The networks that `make.py` writes.
pub(crate) const FIXTURES: [&str; 14] = [
    "resnet18",
    "mobilenetv2",
    "squeezenet11",
    "alexnet",
    "vgg11",
    "nin",
    "tinyyolov2",
    "exporter",
    "mobilenetv3",
    "detector",
    "nhwc",
    "efficientnet",
    "densenet",
    "resnext",
];

/// Opens a fixture's model.
pub(crate) fn open(name: &str) -> Model {
    Model::open(&fixture(&format!("{name}.onnx"))).unwrap()
}

/// Reads a tensor.
pub(crate) fn read(path: &Path) -> Tensor {
    npy::read(path).unwrap()
}

/// Runs a range of a model's layers.
pub(crate) fn run(model: &Model, layers: Range<usize>, inputs: &[Tensor]) -> Vec<Tensor> {
    Piece::load(model, layers, DeviceChoice::Cpu).unwrap().run(inputs).unwrap()
}

/// Runs all layers of a model.
pub(crate) fn run_whole(model: &Model, inputs: &[Tensor]) -> Vec<Tensor> {
    run(model, 0..model.layers().len(), inputs)
}

/// Only the weights that a slice lists: what a provider has fetched.
pub(crate) struct Fetched(HashMap<Hash, Bytes>);

impl WeightSource for Fetched {
    fn weight(&self, hash: &Hash) -> Option<Bytes> {
        self.0.get(hash).cloned()
    }
}

/// A range of layers as another machine gets it: the ONNX bytes of a slice, read on their own,
/// and copies of the weights that these bytes list.
pub(crate) fn travel(model: &Model, layers: Range<usize>) -> Model {
    let slice = model.slice(layers);
    let listed = Model::slice_weights(&slice.onnx).unwrap();
    assert_eq!(listed, slice.weights);
    let fetch = |hash: &Hash| Bytes::copy_from_slice(&model.weight(hash).unwrap());
    let fetched = Fetched(listed.iter().map(|weight| (weight.hash, fetch(&weight.hash))).collect());
    assert!(listed.iter().all(|weight| fetched.0[&weight.hash].len() as u64 == weight.bytes));
    Model::parse_slice(Bytes::copy_from_slice(&slice.onnx), &fetched).unwrap()
}

/// Asserts that two results differ by at most `tolerance`, absolute.
#[track_caller]
pub(crate) fn assert_close(actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.shape(), expected.shape());
    for (i, (a, e)) in actual.as_f32().iter().zip(expected.as_f32()).enumerate() {
        let same = a == e || (a - e).abs() <= tolerance;
        assert!(same, "value {i} is {a}, expected {e} within {tolerance}");
    }
}

/// The largest magnitude in a tensor.
pub(crate) fn peak(tensor: &Tensor) -> f32 {
    tensor.as_f32().iter().fold(0.0, |peak, value| peak.max(value.abs()))
}

/// Values from -1 to 1 that look random and are the same everywhere.
pub(crate) fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A tensor of such values.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_f32(shape.to_vec(), values(shape.iter().product(), seed)).unwrap()
}
