//! For property tests of this crate and of its users (feature `testing`).
//!
//! **Generators** are quickcheck's, and shrink: [`Instance`] (pieces, providers, and what each pair
//! is worth), [`Mischief`] and [`Openings`] (a network and forecasts that are of no help),
//! [`Schedule`] (whatever may happen to a market: losses, copies, delays, restarts, departures,
//! other rates), [`Trial`] (an instance and a schedule) and [`AnyMessage`]. [`Trial::decode`] reads
//! any bytes as a trial, for fuzzers.
//!
//! **Checkers** look from outside and say in words what is broken:
//!
//! | checker | must hold |
//! |---|---|
//! | [`check_outcome`] | `U* - N*eps <= U <= U*`; who has no place is one too many; it ended |
//! | [`certify`] | a claimed optimum is one |
//! | [`check_book`] | `s_n <= ask <= s_{n+1}`; slots and memory are kept to |
//! | [`BookWatch`] | each answer of a book: the lease, make-room and attempt rules; when asks fall |
//! | [`run_trial`] | all of these after every operation, no bid above the cap, no place held for nobody; at rest, every piece once and within the bound |
//! | [`Table::check_served`] | whole nodes: a piece that moves is served all the while |
//!
//! A mechanism of your own needs no more than an assignment to be held against them:
//! [`Outcome::of`]. `protocol/examples/toy_mechanism.rs` does so, and shows with [`refute`] where a
//! greedy one falls short:
//!
//! ```sh
//! cargo run -p starling-protocol --features testing --example toy_mechanism
//! ```
//!
//! In a test of your own:
//!
//! ```
//! use starling_protocol::{market::Terms, testing::{self, Instance, Mischief}};
//!
//! fn the_auction_is_within_its_bound(instance: Instance, mischief: Mischief) -> bool {
//!     let terms = Terms::default();
//!     let outcome = testing::run_auction(&instance, terms, mischief);
//!     testing::check_outcome(&instance, terms, &outcome).is_ok()
//! }
//!
//! quickcheck::quickcheck(the_auction_is_within_its_bound as fn(Instance, Mischief) -> bool);
//! ```

mod auction;
mod instance;
mod messages;
mod ops;
mod oracle;
mod outcome;
mod refute;
mod schedule;
mod stress;
mod table;
mod watch;

pub use auction::{Mischief, Openings, run_auction, run_auction_from};
use instance::provider_of;
pub use instance::{Instance, node_id};
pub use messages::AnyMessage;
pub use ops::{Happened, run_trial};
pub use oracle::{Blocked, Optimum, certify, optimum, solve_exactly, upper_bound};
pub use outcome::{Outcome, check_outcome};
pub use refute::refute;
pub use schedule::{Op, Schedule, Trial};
pub use stress::stress;
pub use table::{Entry, Table};
pub use watch::{BookWatch, check_book};
