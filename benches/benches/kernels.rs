//! One layer of each kernel family, by the engine's own kernels and by Burn's operators, on one
//! thread. Throughput is in FLOPs of the definition: minimal filtering does with fewer.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use starling_engine::{Kernels, LoadOptions, Piece, Tensor, probe::Probe};

/// Shapes of layers as networks have them.
fn layers() -> Vec<(&'static str, Probe)> {
    vec![
        ("direct 5x5 64-192@27", Probe::new(&[1, 64, 27, 27]).conv(192, 5, 1, 1)),
        ("direct 3x3/2 128-256@28", Probe::new(&[1, 128, 28, 28]).conv(256, 3, 2, 1)),
        ("winograd 4x4 128-128@28", Probe::new(&[1, 128, 28, 28]).conv(128, 3, 1, 1)),
        ("winograd 2x2 512-512@7", Probe::new(&[1, 512, 7, 7]).conv(512, 3, 1, 1)),
        ("pointwise 256-64@56", Probe::new(&[1, 256, 56, 56]).conv(64, 1, 1, 1)),
        ("pointwise 160-960@7", Probe::new(&[1, 160, 7, 7]).conv(960, 1, 1, 1)),
        ("depthwise 3x3 192@28", Probe::new(&[1, 192, 28, 28]).conv(192, 3, 1, 192)),
        ("depthwise 5x5 672@14", Probe::new(&[1, 672, 14, 14]).conv(672, 5, 1, 672)),
        (
            "separable 24-144-24@56",
            Probe::new(&[1, 24, 56, 56]).conv(144, 1, 1, 1).conv(144, 3, 1, 144).conv(24, 1, 1, 1),
        ),
        ("planar 7x7/2 3-64@224", Probe::new(&[1, 3, 224, 224]).conv(64, 7, 2, 1)),
        ("linear 4096-1000", Probe::new(&[1, 4096]).gemm(1000)),
        ("pool 2x2 64@112", Probe::new(&[1, 64, 112, 112]).max_pool(2, 2)),
    ]
}

fn kernels(criterion: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    for (name, probe) in layers() {
        let model = probe.build();
        let flops = model.profile().layers.iter().map(|layer| layer.flops).sum();
        let info = &model.inputs()[0];
        let values = (0..info.elements()).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
        let input = Tensor::from_f32(info.shape.clone(), values).expect("the input's shape");
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(flops)).sample_size(10);
        for (path, kernels) in [("own", Kernels::Fast), ("burn", Kernels::Portable)] {
            let options = LoadOptions { kernels, ..LoadOptions::default() };
            let piece = Piece::load(&model, 0..model.layers().len(), options).expect("all layers");
            let run = || piece.run(std::slice::from_ref(black_box(&input))).expect("its input");
            group.bench_function(path, |bencher| pool.install(|| bencher.iter(run)));
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
