//! The network: everything that touches a socket. Nothing here decides; it carries what the
//! protocol says, checks what peers send, and refuses junk with a reason in the log.
//!
//! | module | carries |
//! |---|---|
//! | [`swarm`] | who is there, adverts (gossip), market messages (request-response) |
//! | [`tensors`] | activations, provider to provider, over long-lived streams with credits |
//! | [`blobs`] | weights and graph slices, named and verified by content |
//!
//! [`handling`] measures what a byte costs the processor.
//!
//! Below them: `names` (one swarm's protocol names), `contacts` (whom to dial, and when again),
//! `book` (the addresses of others), `market` and `frame` (encodings), `gate` (how many streams a
//! peer may have), `io` (reading without trust).

pub(crate) mod blobs;
mod book;
mod contacts;
mod frame;
mod gate;
pub(crate) mod handling;
mod io;
mod market;
mod names;
pub(crate) mod pack;
pub(crate) mod swarm;
pub(crate) mod tensors;
#[cfg(test)]
mod tests;

pub(crate) use frame::{Frame, RESULT, TensorBytes, Timing};
pub(crate) use swarm::{Net, NetConfig, NetError, NetEvent, ReplyTo};
