//! The protocol's own costs: an auction from the first bid to the last, the codec, and the exact
//! oracle beside them for scale.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use starling_protocol::{
    Nats,
    market::Terms,
    model::Speed,
    testing::{self, Instance, Mischief},
    wire::{self, Advert, Ask, Claim, Message, NodeAdvert},
};
use starling_sim::workload::{Size, Workload};

/// The instance that the simulator's seed 0 poses: the same one on every machine and day.
fn instance(pieces: usize, providers: usize) -> Instance {
    let size = Size { pieces, providers, slots: None };
    Workload::draw(0, &size).expect("a size that makes sense").instance(Terms::default())
}

/// Messages arrive in an arbitrary but fixed order, each once.
const CALM: Mischief =
    Mischief { seed: 1, duplicated_percent: 0, stale_percent: 0, pieces_each: 4 };

fn auction(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auction");
    group.sample_size(10);
    // Not larger: the arena asks every requester after every message, and 1000 x 100 takes it half a
    // minute. `starling-sim converge` is the one to time at that size.
    for (pieces, providers) in [(100, 10), (300, 30)] {
        let instance = instance(pieces, providers);
        let outcome = testing::run_auction(&instance, Terms::default(), CALM);
        assert!(outcome.quiescent, "an auction cut short says nothing");
        // Per message, which is what a node's work is counted in.
        group.throughput(Throughput::Elements(outcome.messages));
        group.bench_function(format!("{pieces}x{providers}"), |bencher| {
            bencher.iter(|| testing::run_auction(black_box(&instance), Terms::default(), CALM));
        });
    }
    group.finish();
}

fn oracle(criterion: &mut Criterion) {
    let instance = instance(100, 10);
    criterion.bench_function("oracle/100x10", |bencher| {
        bencher.iter(|| testing::optimum(black_box(&instance)));
    });
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    let bid = bid();
    group.bench_function("bid", |bencher| bencher.iter(|| there_and_back(black_box(&bid))));
    let advert = advert();
    group.bench_function("node advert", |bencher| {
        bencher.iter(|| there_and_back(black_box(&advert)));
    });
    group.finish();
}

fn there_and_back<M: wire::Wire>(message: &M) -> M {
    let bytes = wire::encode(message).expect("within the limits");
    wire::decode(&bytes).expect("its own bytes")
}

fn bid() -> Message {
    Message::Bid {
        session: 7,
        index: 2,
        attempt: 30,
        level: Nats::from_f64(3.21),
        weight_bytes: 4_000_000,
        keeps: None,
        claim: Claim::Any,
    }
}

fn advert() -> Advert {
    Advert::Node(NodeAdvert {
        sequence: 1_700_000_000_000_000,
        ttl_ms: 16_000,
        speed: Speed([
            40_000_000_000,
            30_000_000_000,
            9_000_000_000,
            20_000_000_000,
            5_000_000_000,
        ]),
        byte_ps: 0,
        bandwidth: 12_500_000,
        memory_free: 1 << 30,
        slots: 8,
        ask: Ask { version: 1_700_000_000_000_042, level: Some(Nats::from_f64(2.249)), holders: 3 },
        models: vec![starling_protocol::ModelId([7; 32]); 2],
        addresses: vec![vec![4; 24]; 3],
    })
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1));
    targets = auction, oracle, codec
}
criterion_main!(benches);
