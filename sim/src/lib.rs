//! Starling's protocol in virtual time.
//!
//! A [`World`](world::World) runs any number of [`starling_protocol::node::Node`]s, the very state
//! machines that live nodes run, over a simulated [`network`]. Nothing of the protocol is written
//! a second time here: the simulator carries out what the nodes ask for, and judges the result
//! from outside ([`check`]) against the exact optimum of the same instance.
//!
//! One seed decides everything: the machines and models ([`workload`]), the links, the faults and
//! the order of events. The same seed gives the same [trace hash](world::World::trace_hash), on
//! any machine and however many seeds run side by side.
//!
//! | module | is |
//! |---|---|
//! | [`random`] | one named generator, one stream per purpose |
//! | [`network`] | links: latency, loss, duplication, reordering |
//! | [`clock`], [`gossip`] | each node's own clock; how adverts spread |
//! | [`world`], [`fault`] | virtual time, and what may go wrong in it, as verbs |
//! | [`inference`] | requests through the loaded pieces, observed |
//! | [`ledger`] | what the nodes said, counted from outside |
//! | [`workload`] | seed to providers and sessions, and the assignment problem that they pose |
//! | [`check`] | what must hold at any time, and once an auction has ended |
//! | [`churn`] | what the crash of one provider costs an agreed flock |
//! | [`converge`] | one seed from cold start to the end of its auction |
//! | [`baseline`] | other algorithms for the same problem |
//! | [`lockstep`] | the protocol's auction in synchronous rounds, with no network |
//! | [`solve`](mod@solve) | one instance from a file |
//! | [`scenario`], [`play`], [`journal`] | what goes wrong when and what must come of it, as TOML; played, and written down |
//! | [`swarm`], [`shrink`] | a seed to a whole scenario; a failing one to a smaller one |
//! | [`runner`] | many seeds on all cores |
//! | [`paper`], [`plot`] | the claims of papers under our model, with pictures |
//! | `testbed` | real node processes on emulated boards, and how well this crate foresees them; on Unix alone |
//! | [`stats`], [`report`] | medians, tables, JSON |
//!
//! ```
//! use starling_sim::converge::{self, Setup};
//!
//! let setup = Setup::new(12, 3);
//! let report = converge::converge(7, &setup)?;
//! assert!(report.gap_per_piece <= 0.05);
//! assert_eq!(converge::converge(7, &setup)?.trace_hash, report.trace_hash);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod baseline;
pub mod check;
pub mod churn;
pub mod clock;
pub mod converge;
mod delivery;
pub mod fault;
pub mod gossip;
pub mod inference;
pub mod journal;
pub mod lanes;
pub mod ledger;
pub mod lockstep;
pub mod network;
pub mod paper;
pub mod play;
pub mod plot;
mod queue;
mod quota;
pub mod random;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod shrink;
pub mod solve;
mod spread;
pub mod stats;
pub mod swarm;
#[cfg(unix)]
pub mod testbed;
pub mod workload;
pub mod world;
