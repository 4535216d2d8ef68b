//! The files of the engine's kernels and their tests, as they are, in a crate that takes seconds to
//! build: all unsafe code of the engine's arithmetic is here, and nothing of Burn.

#![expect(dead_code, reason = "the layers that call the kernels are not here")]

pub mod exec;
pub mod graph;
