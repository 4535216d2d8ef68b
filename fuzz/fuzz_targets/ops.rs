//! Any bytes as what happens to a market: every rule of the auction is checked after every
//! operation, and when the network heals the market comes to rest within the bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use starling_protocol::testing::{Trial, run_trial};

fuzz_target!(|bytes: &[u8]| {
    let trial = Trial::decode(bytes);
    if let Err(broken) = run_trial(&trial) {
        panic!("{broken}\nin {trial:#?}");
    }
});
