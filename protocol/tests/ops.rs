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
    let rates = [
        [0, 0, 2460, 0, 0, 2576],
        [1000, 2000, 2748, 2000, 2320, 1000],
        [0, 1000, 1000, 2000, 0, 0],
        [2584, 0, 2000, 2000, 1736, 0],
        [1856, -1000, 1000, -1000, 1000, 1732],
    ];
    let log_rates =
        rates.iter().map(|row| row.iter().map(|rate| Some(Nats(rate * 1_000_000))).collect());
    let rate = |piece, provider, quarters| Op::Rate { piece, provider, quarters };
    let schedule = Schedule(vec![
        rate(104, 38, -6),
        Op::Leave(56),
        Op::Pass(120),
        rate(113, 170, 2),
        Op::Leave(31),
        Op::Join(242),
    ]);
    let instance = Instance { log_rates: log_rates.collect(), capacity: vec![5, 1, 9, 4, 3, 3] };
    let trial = Trial { instance, pieces_each: 2, weights: Vec::new(), memory: 0, schedule };
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
