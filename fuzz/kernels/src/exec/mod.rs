//! As in the engine: the kernels call their macro by its path.

#[path = "../../../../node/engine/src/exec/kernels/mod.rs"]
pub(crate) mod kernels;
