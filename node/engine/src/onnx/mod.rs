//! From ONNX bytes to the typed graph, in steps that each distrust their input.
//!
//! 1. [`reader`] decodes the protobuf, telling a cut-short file from one that is no model;
//!    [`constants`] reads initializers without copying them.
//! 2. [`clean`] leaves only the nodes that compute something the outputs need.
//! 3. [`operators`] gives each node its typed operator and its outputs' types and concrete shapes,
//!    with the help of [`view`] (a node's inputs and attributes).
//! 4. [`evaluate`] replaces nodes by their values where those don't depend on the graph's inputs.
//! 5. [`import`] drives this, and folds what belongs together into layers.

pub(crate) mod clean;
pub(crate) mod constants;
pub(crate) mod evaluate;
pub(crate) mod import;
pub(crate) mod operators;
pub(crate) mod proto;
pub(crate) mod reader;
pub(crate) mod view;

#[cfg(test)]
mod tests;
