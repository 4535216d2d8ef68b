//! For property tests of this crate and of its users (feature `testing`): instances of the
//! assignment problem as quickcheck generators, the exact optimum, and an auction run under any
//! order, duplication and delay of its messages.
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
mod schedule;
mod table;
mod watch;

pub use auction::{Mischief, Openings, Outcome, check_outcome, run_auction, run_auction_from};
use instance::provider_of;
pub use instance::{Instance, node_id};
pub use messages::AnyMessage;
pub use ops::{Happened, run_trial};
pub use oracle::{Blocked, Optimum, certify, optimum, solve_exactly, upper_bound};
pub use schedule::{Op, Schedule, Trial};
pub use table::{Entry, Table};
pub use watch::{BookWatch, check_book};
