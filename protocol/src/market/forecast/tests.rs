use quickcheck::{TestResult, quickcheck};

use super::*;
use crate::{
    model::{Speed, Work},
    testing::{Instance, node_id, optimum},
};

const LOCAL: NodeId = NodeId([255; 32]);

fn session(number: u64) -> SessionId {
    SessionId { requester: node_id(1000), number }
}

fn piece(flops: u64) -> PieceProfile {
    PieceProfile { work: Work([flops, 0, 0, 0, 0]), weight_bytes: 1, bytes_in: 0, bytes_out: 0 }
}

fn ask(version: u64, level: Option<f64>, holders: u16) -> Ask {
    Ask { version, level: level.map(Nats::from_f64), holders }
}

fn stall(speed: u64, slots: u16) -> Stall {
    let provider = Provider {
        speed: Speed([speed; OP_CLASSES]),
        bandwidth: 1e9,
        byte_seconds: 0.0,
        memory_free: 100,
    };
    Stall { provider, slots, ask: ask(0, Some(0.0), 0) }
}

fn forecast(speeds: &[(u64, u16)], pieces: &[u64]) -> Forecast {
    let mut forecast = Forecast::new(Terms::default(), LOCAL);
    for (n, (speed, slots)) in speeds.iter().enumerate() {
        forecast.set_provider(node_id(n), &stall(*speed, *slots));
    }
    let pieces: Vec<PieceProfile> = pieces.iter().map(|flops| piece(*flops)).collect();
    forecast.set_session(session(0), &pieces);
    forecast.settle();
    forecast
}

fn places(forecast: &Forecast, pieces: u16) -> Vec<Option<usize>> {
    let place = |index| {
        let opening = forecast.opening(&PieceId { session: session(0), index })?;
        (0..9).find(|n| node_id(*n) == opening.provider)
    };
    (0..pieces).map(place).collect()
}

fn holders(forecast: &Forecast, pieces: u16, provider: usize) -> usize {
    places(forecast, pieces).iter().filter(|place| **place == Some(provider)).count()
}

#[test]
fn pieces_go_where_the_shared_rate_is_best() {
    assert_eq!(places(&forecast(&[(100, 4), (10, 4)], &[50, 50]), 2), [Some(0), Some(0)]);
    let shared = forecast(&[(30, 4), (10, 4)], &[50, 50]);
    assert_eq!((holders(&shared, 2, 0), holders(&shared, 2, 1)), (1, 1));
    assert_eq!(places(&forecast(&[(100, 1)], &[50, 50]), 2).iter().flatten().count(), 1);
}

#[test]
fn what_does_not_fit_or_is_closed_is_no_place() {
    let mut forecast = forecast(&[(100, 4), (10, 4)], &[50]);
    forecast.set_provider(node_id(0), &Stall { ask: ask(1, None, 0), ..stall(100, 4) });
    forecast.settle();
    assert_eq!(places(&forecast, 1), [Some(1)]);
    let small = Provider { memory_free: 0, ..stall(10, 4).provider };
    forecast.set_provider(node_id(1), &Stall { provider: small, ..stall(10, 4) });
    forecast.settle();
    assert_eq!(places(&forecast, 1), [None]);
}

#[test]
fn a_newcomer_attracts_whom_it_serves_better() {
    let mut forecast = forecast(&[(10, 4)], &[50, 50, 50]);
    assert_eq!(holders(&forecast, 3, 0), 3);
    forecast.set_provider(node_id(1), &stall(20, 4));
    forecast.settle();
    assert_eq!((holders(&forecast, 3, 0), holders(&forecast, 3, 1)), (1, 2));
    forecast.remove_provider(&node_id(1));
    forecast.settle();
    assert_eq!(holders(&forecast, 3, 0), 3);
}

#[test]
fn a_price_that_was_heard_turns_pieces_away() {
    let mut forecast = forecast(&[(30, 4), (20, 4)], &[50]);
    assert_eq!(places(&forecast, 1), [Some(0)]);
    forecast.hear_ask(&node_id(0), &ask(1, Some(1.0), 1));
    forecast.settle();
    assert_eq!(places(&forecast, 1), [Some(1)]);
    forecast.hear_ask(&node_id(0), &ask(2, Some(0.0), 1));
    forecast.settle();
    assert_eq!(places(&forecast, 1), [Some(1)], "prices of an auction only rise");
}

#[test]
fn settled_pieces_take_slots() {
    let mut forecast = forecast(&[(40, 2), (10, 2)], &[]);
    let two = Stall { ask: ask(1, Some(1.0), 1), ..stall(40, 2) };
    forecast.set_provider(node_id(0), &two);
    forecast.set_session(session(0), &[piece(50), piece(50)]);
    forecast.settle();
    assert_eq!(holders(&forecast, 2, 1), 1, "one slot is left at the faster");
}

#[test]
fn a_pinned_piece_stays() {
    let mut forecast = forecast(&[(40, 2), (10, 2)], &[50]);
    let id = PieceId { session: session(0), index: 0 };
    forecast.pin(&id, &node_id(1), Nats::from_f64(0.1));
    forecast.settle();
    assert_eq!(places(&forecast, 1), [Some(1)]);
    forecast.unpin(&id);
    forecast.settle();
    assert_eq!(places(&forecast, 1), [Some(0)]);
}

/// Speeds per op class, slots; and work by class of each piece.
type Picture = (Vec<([u16; 2], u8)>, Vec<[u16; 2]>);

fn known(picture: &Picture) -> Option<(Forecast, Instance)> {
    let (providers, pieces) = picture;
    let providers: Vec<_> = providers.iter().take(6).collect();
    let pieces: Vec<_> = pieces.iter().take(12).collect();
    if providers.is_empty() || pieces.is_empty() {
        return None;
    }
    let stall = |(speed, slots): &([u16; 2], u8)| {
        let [a, b] = speed.map(|speed| u64::from(speed % 100) + 1);
        Stall {
            provider: Provider { speed: Speed([a, b, 1, 1, 1]), ..stall(1, 1).provider },
            ..stall(1, u16::from(slots % 5))
        }
    };
    let profile = |work: &[u16; 2]| {
        let [a, b] = work.map(|flops| u64::from(flops % 1000) + 1);
        PieceProfile { work: Work([a, b, 0, 0, 0]), ..piece(0) }
    };
    let stalls: Vec<Stall> = providers.iter().map(|provider| stall(provider)).collect();
    let profiles: Vec<PieceProfile> = pieces.iter().map(|work| profile(work)).collect();
    let mut forecast = Forecast::new(Terms::default(), LOCAL);
    for (n, stall) in stalls.iter().enumerate() {
        forecast.set_provider(node_id(n), stall);
    }
    forecast.set_session(session(0), &profiles);
    let rates = |piece: &PieceProfile| {
        stalls.iter().map(|stall| crate::cost::log_rate(piece, &stall.provider)).collect()
    };
    let instance = Instance {
        log_rates: profiles.iter().map(rates).collect(),
        capacity: stalls.iter().map(|stall| stall.slots).collect(),
    };
    Some((forecast, instance))
}

fn placed(forecast: &Forecast, instance: &Instance) -> Option<Vec<usize>> {
    places(forecast, instance.pieces() as u16).into_iter().collect()
}

quickcheck! {
    fn a_forecast_is_within_the_bound(picture: Picture) -> TestResult {
        let Some((mut forecast, instance)) = known(&picture) else { return TestResult::discard() };
        forecast.settle();
        let Some((best, _)) = optimum(&instance) else { return TestResult::discard() };
        let Some(placed) = placed(&forecast, &instance) else { return TestResult::failed() };
        let bound = best - Terms::default().eps.times(instance.pieces() as u64);
        let utility = instance.utility(&placed).expect("feasible");
        // Floating point: half a unit of the last place for each piece.
        TestResult::from_bool(utility >= bound - Nats(instance.pieces() as i64))
    }

    fn a_changed_advert_costs_no_more_than_its_bound(picture: Picture, at: usize, speed: u16) -> TestResult {
        let Some((mut forecast, mut instance)) = known(&picture) else { return TestResult::discard() };
        forecast.settle();
        let at = at % instance.providers();
        let slots = instance.capacity[at];
        let changed = stall(u64::from(speed % 200) + 1, slots);
        forecast.set_provider(node_id(at), &changed);
        forecast.settle();
        for (rates, work) in instance.log_rates.iter_mut().zip(&picture.1) {
            let [a, b] = work.map(|flops| u64::from(flops % 1000) + 1);
            let piece = PieceProfile { work: Work([a, b, 0, 0, 0]), ..piece(0) };
            rates[at] = crate::cost::log_rate(&piece, &changed.provider);
        }
        let Some((best, _)) = optimum(&instance) else { return TestResult::discard() };
        let Some(placed) = placed(&forecast, &instance) else { return TestResult::failed() };
        let bound = best - Terms::default().eps.times(instance.pieces() as u64 * 2);
        TestResult::from_bool(instance.utility(&placed).expect("feasible") >= bound)
    }
}
