//! Where a model is cut: from a model's profile and the picture of the providers to a plan.

mod pipeline;

pub use pipeline::{Goal, Proposal, Worker, balance, propose};
