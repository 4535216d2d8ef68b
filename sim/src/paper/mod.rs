//! The claims of the papers that the protocol builds on, put to the test under our own model.
//!
//! None of the papers' own parameters were available, so none of this is a reproduction in the
//! strict sense: a claim is taken from an abstract, and the report says for which counts and which
//! rivals it holds *here*.
//!
//! | module | is |
//! |---|---|
//! | [`models`], [`machines`] | DNNs and machines, from `sim/data` |
//! | [`radio`] | what a link carries |
//! | [`scenario`] | seed to the assignment problem of a building full of requesters and providers |

pub mod machines;
pub mod models;
pub mod radio;
pub mod scenario;
