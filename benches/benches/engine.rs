//! One EfficientNet-Lite0 inference on the CPU: whole, and as two pieces one after the other.
//! What two pieces take more than the whole is the price of cutting, apart from the network.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use starling_engine::{DeviceChoice, Model, Piece, Tensor, npy};

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/assets").join(name)
}

fn load(model: &Model, layers: std::ops::Range<usize>) -> Piece {
    Piece::load(model, layers, DeviceChoice::Cpu).expect("layers of the model")
}

fn run(pieces: &[Piece], input: &Tensor) -> Vec<Tensor> {
    let first = vec![input.clone()];
    pieces
        .iter()
        .fold(first, |activations, piece| piece.run(&activations).expect("shapes that fit"))
}

/// The cut that leaves the two halves as equal in work as possible.
fn middle(model: &Model) -> usize {
    let flops: Vec<u64> = model.profile().layers.iter().map(|layer| layer.flops).collect();
    let total: u64 = flops.iter().sum();
    let before = |cut: &usize| flops[..*cut].iter().sum::<u64>();
    (1..flops.len()).min_by_key(|cut| before(cut).abs_diff(total / 2)).expect("more than one layer")
}

fn engine(criterion: &mut Criterion) {
    let model = Model::open(&asset("efficientnet-lite0.onnx")).expect("the repository's model");
    let input = npy::read(&asset("coffee.input.npy")).expect("the repository's picture");
    let (cut, layers) = (middle(&model), model.layers().len());
    let whole = [load(&model, 0..layers)];
    let halves = [load(&model, 0..cut), load(&model, cut..layers)];
    assert_eq!(run(&whole, &input), run(&halves, &input), "a cut changed the answer");

    let mut group = criterion.benchmark_group("efficientnet-lite0");
    group.sample_size(20);
    group.bench_function("whole", |bencher| bencher.iter(|| run(&whole, black_box(&input))));
    group.bench_function("two halves", |bencher| bencher.iter(|| run(&halves, black_box(&input))));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(2));
    targets = engine
}
criterion_main!(benches);
