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
//! | [`site`] | a requester and a handful of machines, and what each planner makes of them |
//! | [`observe`] | a plan in virtual time |
//! | `boards` | what planners give on emulated boards; on Unix alone |
//! | [`table`], [`files`] | tables as Markdown and CSV, and the files of a report |
//! | [`xu2023`] | the paper behind the auction |
//! | [`dina2020`], [`edgeci2024`] | the papers behind two planners |

#[cfg(unix)]
pub mod boards;
pub mod dina2020;
pub mod edgeci2024;
pub mod files;
pub mod machines;
pub mod measure;
pub mod models;
pub mod observe;
pub mod radio;
pub mod scenario;
pub mod site;
pub mod table;
pub mod xu2023;
