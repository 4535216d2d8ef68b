//! Whatever happens to a market, in whatever order: its books keep their rules, no place is held
//! for nobody, and when the network heals it comes to rest within the bound.

use quickcheck::{Arbitrary, Gen, QuickCheck};
use starling_protocol::testing::{Happened, Trial, run_trial};

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
    let least = Happened { ops: 10_000, bids: 4000, awards: 2000, evictions: 200, expiries: 200 };
    assert!(sum.ops > least.ops && sum.bids > least.bids && sum.awards > least.awards, "{sum:?}");
    assert!(sum.evictions > least.evictions && sum.expiries > least.expiries, "{sum:?}");
}

const TRIALS: u64 = 15_000;
const OPERATIONS_MAX: usize = 200;
