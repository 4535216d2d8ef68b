//! Whatever happens to a market, in whatever order: its books keep their rules, no place is held
//! for nobody, and when the network heals it comes to rest within the bound.

use quickcheck::QuickCheck;
use starling_protocol::testing::{Trial, run_trial};

#[test]
fn a_market_survives_whatever_happens_to_it() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
    fn property(trial: Trial) -> Result<(), String> {
        run_trial(&trial).map(|_| ())
    }
    QuickCheck::new().tests(3000).quickcheck(property as fn(Trial) -> Result<(), String>);
}
