//! What the kernels know of the graph.

#[path = "../../../node/engine/src/graph/window.rs"]
mod window;

pub use window::Window;
