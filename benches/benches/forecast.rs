//! What a forecast costs its requester: the whole auction in one head, from nothing, and after one
//! advert has changed. The aim is one second on one core for 10,000 pieces and 1,000 providers.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use starling_protocol::{
    Nats, NodeId,
    market::{Forecast, Stall, Terms},
    model::{PieceProfile, Speed},
    wire::Ask,
};
use starling_sim::workload::{Machine, Size, Workload};

/// What seed 0 of the simulator poses: the same on every machine and day.
fn workload(pieces: usize, providers: usize) -> Workload {
    Workload::draw(0, &Size { pieces, providers, slots: None }).expect("a size that makes sense")
}

fn stall(machine: &Machine, version: u64) -> Stall {
    let ask = Ask { version, level: Some(Nats::ZERO), holders: 0 };
    Stall { provider: machine.provider(), slots: machine.slots, ask }
}

/// A picture in which nobody has bid yet.
fn picture(workload: &Workload) -> Forecast {
    let mut forecast = Forecast::new(Terms::default(), NodeId([0; 32]));
    for (n, machine) in workload.machines.iter().enumerate() {
        forecast.set_provider(workload.machine_id(n), &stall(machine, 1));
    }
    for (n, request) in workload.requests.iter().enumerate() {
        let layers = request.plan.pieces().iter();
        let pieces: Vec<PieceProfile> = layers.map(|l| request.profile.piece(l)).collect();
        forecast.set_session(workload.session_id(n), &pieces);
    }
    forecast
}

fn forecast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forecast");
    group.sample_size(10);
    for (pieces, providers) in [(100, 10), (1000, 100), (10_000, 1000)] {
        let workload = workload(pieces, providers);
        let unsettled = picture(&workload);
        group.bench_function(format!("{pieces}x{providers}"), |bencher| {
            bencher.iter_batched(
                || unsettled.clone(),
                |mut forecast| {
                    forecast.settle();
                    black_box(forecast)
                },
                BatchSize::LargeInput,
            );
        });
        let mut settled = unsettled;
        settled.settle();
        // A tenth slower: what a machine tells when something else runs on it.
        let slower = workload.machines[3].speed.0.map(|speed| speed * 9 / 10);
        let machine = Machine { speed: Speed(slower), ..workload.machines[3].clone() };
        let name = format!("{pieces}x{providers}, one advert changed");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || settled.clone(),
                |mut forecast| {
                    forecast.set_provider(workload.machine_id(3), &stall(&machine, 2));
                    forecast.settle();
                    black_box(forecast)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1));
    targets = forecast
}
criterion_main!(benches);
