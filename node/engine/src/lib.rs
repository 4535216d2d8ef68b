//! Runs convolutional networks from ONNX files, whole or in pieces.
//!
//! A [`Model`] is an ONNX file (or a slice of one) read into a typed graph of [`Layer`]s with
//! concrete shapes. Its weights stay where they are, in the mapped file, each named by the
//! blake3 hash of its bytes. From a model one gets
//!
//! - its [`Profile`]: what each layer costs, and what crosses each cut between two layers;
//! - a [`Slice`]: the ONNX of a range of layers, and the names of the weights it needs. Another
//!   machine turns these back into a model with [`Model::parse_slice`];
//! - a [`Piece`]: a range of layers loaded on a device, ready to [`run`](Piece::run);
//! - strips: pieces that make some rows of what their layers make, from the rows that
//!   [`Model::needed_rows`] names, so that several machines compute a range of layers side by side.
//!
//! Running the pieces of a model one after the other gives the bytes that the whole model gives,
//! wherever it is cut: what folds together is never cut apart, and a slice is read by the same
//! importer as a file.
//!
//! ```no_run
//! use starling_engine::{DeviceChoice, Model, Piece, picture};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::open("efficientnet-lite0.onnx".as_ref())?;
//! let half = model.layers().len() / 2;
//!
//! // One machine runs the first half ...
//! let first = Piece::load(&model, 0..half, DeviceChoice::Cpu)?;
//! let photo = picture::preprocess(&std::fs::read("cat.jpg")?, 224)?;
//! let activations = first.run(&[photo])?;
//!
//! // ... and another the second, from its slice and the weights that the slice lists.
//! let slice = model.slice(half..model.layers().len());
//! let theirs = Model::parse_slice(slice.onnx, &model)?;
//! let second = Piece::load(&theirs, 0..theirs.layers().len(), DeviceChoice::Cpu)?;
//! let logits = second.run(&activations)?;
//! # Ok(()) }
//! ```
//!
//! Files and slices may come from anyone. Reading one never panics, and takes time and memory in
//! proportion to its size, and beside that no more than 256 MiB and a moment for what it computes of
//! constants. What is not supported is refused then: a model that reads also runs. Whether a model that reads is worth running, given the memory that its
//! [`Profile`] says it takes, is for the caller to decide.
//!
//! The crate knows nothing of peers, bids or sockets, and keeps no threads of its own: operators
//! use the rayon pool of the thread that calls them.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test, a panic is the report"))]

pub mod calibrate;
mod cost;
mod device;
mod error;
mod exec;
mod fold;
mod graph;
mod mapped;
mod model;
pub mod npy;
mod onnx;
mod options;
pub mod picture;
mod piece;
pub mod probe;
mod profile;
mod rows;
mod shape;
mod slice;
mod tensor;
mod weights;

pub use blake3::Hash;
pub use bytes::Bytes;

pub use cost::Work;
pub use device::DeviceChoice;
pub use error::{ImportError, LoadError, RowsError, RunError, TensorError};
pub use graph::{
    Activation, Arg, AveragePool, BatchNorm, Binary, Conv, ConvNd, Coordinates, CumSum,
    DepthToSpace, Direction, Extreme, Gather, Gemm, Interpolation, Layer, MaxPool, Nary, Nearest,
    Normalize, Op, Operand, Pad, PadMode, PoolNd, Pooling, Product, Reduce, Reduction, Remainder,
    Resize, ResizeAxis, Scatter, ScatterUpdate, Slice as SliceOp, SoftmaxLike, TensorId, Tie, TopK,
    Triangle, Unary, Window, WindowNd,
};
pub use mapped::Mapped;
pub use model::Model;
pub use onnx::operators::table::{SupportedOperator, supported_operators};
pub use options::{ImportOptions, Kernels, LoadOptions, Memory};
pub use piece::Piece;
pub use profile::{CutCost, LayerCost, OpClass, Profile};
pub use rows::{LayerRows, RowGraph, RowLayer, RowRange, RowRule, RowWindow, StripCost};
pub use slice::Slice;
pub use tensor::{DType, Tensor, TensorInfo};
pub use weights::{Weight, WeightRef, WeightSource};
