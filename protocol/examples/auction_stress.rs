//! Random small auctions, as many as one likes, against the exact optimum: the property tests of
//! `tests/auction.rs` with every case named by a number, so that one that fails can be run again.
//!
//!     cargo run --release -p starling-protocol --features testing --example auction_stress -- 300000

use std::process::ExitCode;

use quickcheck::{Arbitrary, Gen};
use starling_protocol::{
    market::Terms,
    testing::{Instance, Mischief, Openings, check_outcome, run_auction_from},
};

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map_while(|number| number.parse().ok());
    let cases: u64 = numbers.next().unwrap_or(CASES);
    let first: u64 = numbers.next().unwrap_or(0);
    let broken = (first..first + cases).filter(|case| is_broken(*case)).count();
    println!("{broken} of {cases} auctions broke a rule");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

const CASES: u64 = 300_000;
/// Of what quickcheck draws; instances have limits of their own.
const SIZE: usize = 100;
