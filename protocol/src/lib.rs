//! Every decision of Starling, and nothing else: adverts, the proportional-fair class auction,
//! partitioners and the life of a session. No sockets, no clock, no threads, no ambient
//! randomness: the same inputs give the same outputs, on a live node and in simulation.
//!
//! # The calling contract
//!
//! [`node::Node`] is a whole peer. Feed it with [`Node::handle`](node::Node::handle)`(now, input)`
//! and carry out the [`Output`](node::Output)s it returns, in order. After every call, ask
//! [`Node::deadline`](node::Node::deadline) and call again with [`Input::Tick`](node::Input::Tick)
//! when that time has come. Ticks that come late, early or twice are harmless. `now` must never
//! run backwards between two calls on the same node; different nodes' clocks need not agree.
//!
//! Messages may be lost, duplicated, delayed and reordered. What a peer sends can make a node
//! refuse, never panic: sizes are bounded by the codec ([`wire`]) and every table by its
//! [`Config`](node::Config).
//!
//! # Where to look
//!
//! | module | decides |
//! |---|---|
//! | [`flock`] | who is there, how fast, how loaded |
//! | [`beliefs`] | how fast they really are |
//! | [`budget`] | how much one peer may ask |
//! | [`market`] | who computes which piece: the provider's book, the requester's bids and forecasts |
//! | [`partition`] | where a model is cut |
//! | [`dispatch`] | which of several plans gets a stream's next request |
//! | [`rows`] | what a strip of a layer range takes |
//! | [`session`] | one session from advertise to release, seen by its requester |
//! | [`wiring`] | who sends which rows to whom |
//! | [`gather`] | when all parts of an input have come |
//! | [`host`] | what a provider loads for others |
//! | [`node`] | puts these together |

pub mod beliefs;
pub mod budget;
pub mod cost;
pub mod dispatch;
pub mod flock;
pub mod gather;
pub mod host;
pub mod id;
pub mod market;
pub mod model;
pub mod nats;
pub mod node;
pub mod partition;
pub mod plan;
pub mod rows;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod wire;
pub mod wiring;

pub use id::{BlobId, ModelId, NodeId, PieceId, SessionId};
pub use nats::Nats;
pub use time::Timestamp;
