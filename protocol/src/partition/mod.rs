//! Where a model is cut: from a model's profile and the picture of the providers to a plan.
//!
//! | module | is |
//! |---|---|
//! | `planner` | all planners by name |
//! | [`predict()`] | what a plan will take: the yardstick that all of them share |
//! | `pf` | Starling's own: pipelines, whose stages may be strips |
//! | [`lanes()`] | several plans side by side, where that serves a stream better than one |
//! | `pipeline` | layer ranges of equal time, one after the other |
//! | `dina` | strips of layer groups in proportion to capability, and a matching game |
//! | `edgeci` | strips of fused layers, by dynamic programming and an auction |
//! | `baseline` | what those are compared with |

mod baseline;
mod case;
pub mod dina;
pub mod edgeci;
#[cfg(test)]
mod fixtures;
mod lanes;
mod layout;
mod pf;
mod pipeline;
mod planner;
mod predict;
mod room;
mod worker;

pub use lanes::lanes;
pub use layout::Layout;
pub use pipeline::{balance, propose};
pub use planner::{Planner, Settings, UnknownPlanner, lay_out, plan};
pub use predict::{LinkModel, Prediction, Route, predict};
pub use worker::{Goal, Proposal, Worker};
