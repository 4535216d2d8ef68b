//! Random trials of a market, as many as one likes: the property test of `tests/ops.rs` with every
//! case named by a number. Of one that fails it prints the least that fails in the same way.
//!
//!     cargo run --release -p starling-protocol --features testing --example ops_stress -- 300000

use std::process::ExitCode;

use quickcheck::{Arbitrary, Gen};
use starling_protocol::testing::{Trial, run_trial, stress};

fn main() -> ExitCode {
    stress("trials", is_broken)
}

fn is_broken(case: u64) -> bool {
    let trial = Trial::arbitrary(&mut Gen::from_size_and_seed(SIZE, case));
    let result = run_trial(&trial);
    if let Err(broken) = &result {
        println!("case {case}: {broken}: {:?}", least(trial, broken));
    }
    result.is_err()
}

/// Takes away whatever the rule is broken without.
fn least(mut trial: Trial, broken: &str) -> Trial {
    let fails = |less: &Trial| run_trial(less).is_err_and(|other| other == broken);
    while let Some(less) = trial.shrink().find(fails) {
        trial = less;
    }
    trial
}

/// Of what quickcheck draws: a third of it is the most operations.
const SIZE: usize = 600;
