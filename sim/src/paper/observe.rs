//! A plan in virtual time: the protocol's own nodes carry it out, and inferences stream through it.

use std::time::Duration;

use starling_protocol::{SessionId, node::Config, session::Planning};

use super::{
    models::Dnn,
    site::{Outcome, REQUESTER, Site},
    table::{Cell, Table},
};
use crate::world::{Settings, Stuck, World};

/// What was observed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Seconds of one inference with nothing else in flight, the median.
    pub latency: f64,
    /// Inferences per second with many in flight.
    pub rate: f64,
}

/// Lets nodes carry out a plan. Nothing if the plan has too many pieces.
///
/// # Errors
/// If it does not come about.
pub fn observe(site: &Site, outcome: &Outcome) -> Result<Option<Observed>, Stuck> {
    let Some(plan) = outcome.layout.plan() else { return Ok(None) };
    let pieces = plan.pieces().len();
    let mut world = World::new(0, Settings::default());
    let requester = site.workers.iter().find(|worker| worker.node == REQUESTER);
    if requester.is_none() {
        let config =
            Config { bandwidth: u64::MAX, ..Config::new(REQUESTER, Default::default(), 0) };
        world.add(config);
    }
    for worker in &site.workers {
        let mut config = Config::new(worker.node, worker.provider.speed, 0);
        // Beyond all bandwidths that anybody has: an f64 of infinity becomes the largest number.
        config.bandwidth = worker.provider.bandwidth as u64;
        config.book.memory = worker.provider.memory_free;
        config.book.slots = u16::MAX;
        world.add(config);
    }
    let place = world.place(&REQUESTER).expect("it was added");
    let session = SessionId { requester: REQUESTER, number: 1 };
    world.run_for(GATHER)?;
    let order = outcome.layout.order(&site.workers);
    world.open(place, session.number, site.profile.clone(), Planning::Placed(plan, order));
    world.run_until(PATIENCE, World::all_ready)?;
    let span = |inferences: f64, seconds: f64| Duration::from_secs_f64(inferences * seconds);
    let latency = outcome.prediction.latency;
    world.stream(place, session.number, 1);
    world.run_for(span(ALONE, latency))?;
    let alone = latencies(&world, &session);
    world.stream(place, session.number, 2 * pieces + 2);
    world.run_for(span(WARM_UP, latency))?;
    world.observe_afresh();
    let seconds = STREAM * outcome.prediction.bottleneck;
    world.run_for(Duration::from_secs_f64(seconds))?;
    let rate = latencies(&world, &session).len() as f64 / seconds;
    Ok(crate::stats::median(&alone).map(|latency| Observed { latency, rate }))
}

fn latencies(world: &World, session: &SessionId) -> Vec<f64> {
    let served = world.observed().sessions.get(session);
    served.map_or(Vec::new(), |served| served.latencies.clone())
}

/// Plans and what was observed of them, with so many decimals of the rates.
pub(super) fn table<'a>(
    observed: impl Iterator<Item = (Dnn, f64, &'a Outcome, Observed)>,
    decimals: usize,
) -> Table {
    let columns = [
        "DNN",
        "Mbit/s",
        "plan",
        "rate predicted (1/s)",
        "rate observed (1/s)",
        "latency predicted (s)",
        "latency observed (s)",
    ];
    let mut table = Table::new("observed", &columns);
    for (dnn, mbit, plan, seen) in observed {
        let predicted = plan.prediction;
        let mut row = vec![Cell::text(dnn.name()), Cell::Number(mbit, 0)];
        row.push(Cell::text(plan.planner.name()));
        row.extend(
            [1.0 / predicted.bottleneck, seen.rate].map(|rate| Cell::Number(rate, decimals)),
        );
        row.extend([predicted.latency, seen.latency].map(|time| Cell::Number(time, 3)));
        table.rows.push(row);
    }
    table
}

/// Until everybody has heard of everybody.
const GATHER: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// In units of one inference's time.
const ALONE: f64 = 3.5;
const WARM_UP: f64 = 4.0;
/// In units of the predicted time from one output to the next.
const STREAM: f64 = 60.0;
