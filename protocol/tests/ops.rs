//! Whatever happens to a market, in whatever order: its books keep their rules, no place is held
//! for nobody, and when the network heals it comes to rest within the bound.

use quickcheck::{Arbitrary, Gen, QuickCheck};
use starling_protocol::{
    Nats,
    testing::{Happened, Instance, Op, Schedule, Trial, run_trial},
};

#[test]
fn a_market_survives_whatever_happens_to_it() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
    fn property(trial: Trial) -> Result<(), String> {
        run_trial(&trial).map(|_| ())
    }
    QuickCheck::new()
        .rng(Gen::new(OPERATIONS_MAX * 3))
        .tests(TRIALS)
        .quickcheck(property as fn(Trial) -> Result<(), String>);
}

/// What a fuzzer starts from.
#[test]
fn a_market_made_of_any_bytes_survives() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
    fn property(bytes: Vec<u8>) -> Result<(), String> {
        run_trial(&Trial::decode(&bytes)).map(|_| ())
    }
    QuickCheck::new()
        .rng(Gen::new(OPERATIONS_MAX * 3))
        .tests(TRIALS)
        .quickcheck(property as fn(Vec<u8>) -> Result<(), String>);
}

/// A price that falls draws a piece here, so that one falls there, and so on. Only their growing
/// reluctance to move ends it.
#[test]
fn pieces_that_go_round_in_a_circle_come_to_rest() {
    let rates: [&[i64]; 5] = [
        &[0, 0, 2460, 0, 0, 2576],
        &[1000, 2000, 2748, 2000, 2320, 1000],
        &[0, 1000, 1000, 2000, 0, 0],
        &[2584, 0, 2000, 2000, 1736, 0],
        &[1856, -1000, 1000, -1000, 1000, 1732],
    ];
    let schedule = vec![
        rate(104, 38, -6),
        Op::Leave(56),
        Op::Pass(120),
        rate(113, 170, 2),
        Op::Leave(31),
        Op::Join(242),
    ];
    check(&rates, &[5, 1, 9, 4, 3, 3], 2, schedule);
}

/// The same, in a circle of twelve reviews.
#[test]
fn pieces_that_go_round_in_a_long_circle_come_to_rest() {
    let rates: [&[i64]; 5] = [
        &[0, 0, 2580, 1212],
        &[1836, 0, 0, 2096],
        &[600, 2568, 2000, 0],
        &[0, 0, 2888, 1780],
        &[2908, 2732, 1000, 0],
    ];
    check(&rates, &[3, 1, 3, 1], 1, vec![rate(67, 49, -5)]);
}

/// Two of six providers leave, and there are just enough slots for all. As long as one is held for
/// nobody, all prices go up to the cap.
#[test]
fn prices_that_went_up_to_the_cap_come_down() {
    let rates: [&[Option<i64>]; 6] = [
        &[Some(180), Some(0), None, Some(0), Some(2000), Some(1000)],
        &[Some(408), Some(2300), Some(0), Some(2000), Some(0), Some(0)],
        &[None, Some(1112), Some(0), Some(2000), Some(948), Some(0)],
        &[Some(0), Some(-1000), Some(0), Some(0), Some(-496), Some(0)],
        &[Some(1768), Some(-200), Some(0), None, Some(2000), Some(0)],
        &[Some(0), Some(0), Some(0), Some(0), Some(0), Some(1000)],
    ];
    let mut schedule = vec![Op::Deliver(3), Op::Duplicate(81)];
    schedule.extend([1, 179, 1, 0, 2].map(Op::Deliver));
    schedule.extend([Op::Leave(254), Op::Deliver(2), Op::Leave(89)]);
    schedule.extend([83, 47, 156, 111, 61, 213].map(Op::Pass));
    check_with_gaps(&rates, &[3, 2, 1, 0, 1, 1], 1, schedule);
}

/// Places of a requester that has begun again are held for a while, so that all others are wanted;
/// a level comes to be what the next slot would cost, at a provider that has no next slot.
#[test]
fn a_full_provider_that_seems_to_have_a_slot_is_not_asked_for_ever() {
    let rates: [&[i64]; 7] = [
        &[-1000, -1000, 1000, -1000, -1000],
        &[-1000; 5],
        &[-1000; 5],
        &[-1000, 1000, -1000, -1000, -1000],
        &[-1000; 5],
        &[1000, 1000, 1000, -1000, -1000],
        &[-1000; 5],
    ];
    let mut schedule = [1, 3, 3, 3].map(Op::Deliver).to_vec();
    schedule.push(Op::Pass(36));
    schedule.extend([2, 3, 0, 2].map(Op::Deliver));
    schedule.extend([Op::Pass(0), Op::Pass(82), Op::RestartProvider(117), Op::Deliver(2)]);
    schedule.extend([rate(0, 165, 2), Op::Deliver(2), Op::RestartRequester(73), Op::Pass(144)]);
    schedule.extend([Op::Deliver(1), Op::Pass(129), Op::RestartRequester(57), Op::Pass(242)]);
    schedule.extend([Op::Pass(96), Op::RestartRequester(0)]);
    check(&rates, &[1, 1, 3, 1, 3], 1, schedule);
}

fn rate(piece: u8, provider: u8, quarters: i8) -> Op {
    Op::Rate { piece, provider, quarters }
}

/// A market with these rates, in thousandths, survives this and comes to rest.
fn check(rates: &[&[i64]], capacity: &[u16], pieces_each: u8, schedule: Vec<Op>) {
    let rates: Vec<Vec<_>> =
        rates.iter().map(|row| row.iter().copied().map(Some).collect()).collect();
    let rates: Vec<&[Option<i64>]> = rates.iter().map(Vec::as_slice).collect();
    check_with_gaps(&rates, capacity, pieces_each, schedule);
}

/// The same, where some pairs are infeasible.
fn check_with_gaps(rates: &[&[Option<i64>]], capacity: &[u16], pieces_each: u8, schedule: Vec<Op>) {
    let nats = |rate: &Option<i64>| rate.map(|rate| Nats(rate * 1_000_000));
    let log_rates = rates.iter().map(|row| row.iter().map(nats).collect()).collect();
    let instance = Instance { log_rates, capacity: capacity.to_vec() };
    let schedule = Schedule(schedule);
    let trial = Trial { instance, pieces_each, weights: Vec::new(), memory: 0, schedule };
    run_trial(&trial).expect("it comes to rest");
}

/// A property over trials in which nothing happens would always hold.
#[test]
fn much_happens_in_trials() {
    let mut drawn = Gen::new(OPERATIONS_MAX * 3);
    let mut sum = Happened::default();
    for _ in 0..200 {
        let happened = run_trial(&Trial::arbitrary(&mut drawn)).expect("all rules are kept");
        sum.ops += happened.ops;
        sum.bids += happened.bids;
        sum.awards += happened.awards;
        sum.evictions += happened.evictions;
        sum.expiries += happened.expiries;
    }
    let least = Happened { ops: 10_000, bids: 2000, awards: 1000, evictions: 100, expiries: 100 };
    assert!(sum.ops > least.ops && sum.bids > least.bids && sum.awards > least.awards, "{sum:?}");
    assert!(sum.evictions > least.evictions && sum.expiries > least.expiries, "{sum:?}");
}

const TRIALS: u64 = 15_000;
const OPERATIONS_MAX: usize = 200;
