//! Random small auctions, as many as one likes, against the exact optimum: the property tests of
//! `tests/auction.rs` with every case named by a number, so that one that fails can be run again.
//!
//!     cargo run --release -p starling-protocol --features testing --example auction_stress -- 300000

use std::process::ExitCode;

use quickcheck::{Arbitrary, Gen};
use starling_protocol::{
    market::Terms,
    testing::{Instance, Mischief, Openings, check_outcome, run_auction_from, stress},
};

fn main() -> ExitCode {
    stress("auctions", is_broken)
}

fn is_broken(case: u64) -> bool {
    let mut source = Gen::from_size_and_seed(SIZE, case);
    let instance = Instance::arbitrary(&mut source);
    let mischief = Mischief::arbitrary(&mut source);
    let openings = Openings::arbitrary(&mut source);
    let terms = Terms::default();
    let outcome = run_auction_from(&instance, terms, mischief, openings);
    let result = check_outcome(&instance, terms, &outcome);
    if let Err(broken) = &result {
        println!("case {case}, {openings:?}, {mischief:?}: {broken}");
    }
    result.is_err()
}

/// Of what quickcheck draws; instances have limits of their own.
const SIZE: usize = 100;
