//! The claims of the papers that the protocol builds on, put to the test under our own model.
//!
//! None of the papers' own parameters were available, so none of this is a reproduction in the
//! strict sense: a claim is taken from an abstract, and the report says in which units and against
//! which rivals it holds *here*.
//!
//! | module | is |
//! |---|---|
//! | [`models`], [`machines`] | DNNs and machines, from `sim/data` |
//! | [`radio`] | what a link carries |
//! | [`scenario`] | seed to the assignment problem of a building full of requesters and providers |
//! | [`measure`] | algorithms on one case, in figures |
//! | [`table`] | tables as Markdown and CSV |
//! | [`xu2023`] | the paper behind the auction |

pub mod machines;
pub mod measure;
pub mod models;
pub mod radio;
pub mod scenario;
pub mod table;
pub mod xu2023;
