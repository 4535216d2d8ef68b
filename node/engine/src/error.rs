//! What can be wrong with a model file, a piece or its inputs, in words a user can act on.

use std::ops::Range;
use std::path::PathBuf;

use crate::Hash;
use crate::rows::RowRange;
use crate::tensor::DType;

/// Why a file or a slice is not a model this engine can run.
///
/// Every variant is the fault of the bytes given (or of the disk), never of the engine's state:
/// after an error nothing is left behind, and the same bytes give the same error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be opened or mapped.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The bytes are not an ONNX protobuf at all.
    #[error("{name} is not an ONNX model: {reason}")]
    NotOnnx {
        /// The file's or model's name.
        name: String,
        /// What gave it away.
        reason: String,
    },
    /// The bytes start like an ONNX model and stop before its end.
    #[error(
        "{name} is cut short: it says that it goes on to byte {needed}, but has {present} bytes; download or export it again"
    )]
    Truncated {
        /// The file's or model's name.
        name: String,
        /// How many bytes the file claims, at least.
        needed: u64,
        /// How many there are.
        present: u64,
    },
    /// An initializer's bytes are in a file of their own.
    #[error(
        "the weights of tensor '{tensor}' are in an external file, '{location}'; save the model as one file (onnx.save_model(model, path, save_as_external_data=False))"
    )]
    ExternalFile {
        /// The initializer's name.
        tensor: String,
        /// The file it points to.
        location: String,
    },
    /// A slice needs a weight that the given source does not have.
    #[error("the weights of tensor '{tensor}' (blake3 {hash}) are not at hand; fetch them first")]
    MissingWeight {
        /// The initializer's name.
        tensor: String,
        /// The content that it names.
        hash: Hash,
    },
    /// An operator that this engine does not implement.
    #[error("operator {op} of opset {opset} (node '{node}') is not supported")]
    UnsupportedOperator {
        /// The operator's type, with its domain if it is not ONNX's own.
        op: String,
        /// The node's name, or that of its output.
        node: String,
        /// The version of the operators that the model asks for.
        opset: i64,
    },
    /// A node that is malformed, or uses its operator in a way that is not supported.
    #[error("node '{node}' ({op}): {problem}")]
    Node {
        /// The node's name, or that of its output.
        node: String,
        /// The operator's type.
        op: String,
        /// What is wrong, and with what.
        problem: String,
    },
    /// An input that the engine needs to know when it reads a model, because shapes depend on it.
    #[error(
        "node '{node}' ({op}): input '{tensor}' is computed, where only a constant is supported"
    )]
    Computed {
        /// The node's name, or that of its output.
        node: String,
        /// The operator's type.
        op: String,
        /// The input. If it is one of the graph, it can be fixed to a value
        /// ([`ImportOptions::fix`](crate::ImportOptions::fix)).
        tensor: String,
    },
    /// A tensor that is malformed, too large or of a type that is not supported.
    #[error("tensor '{tensor}': {problem}")]
    Tensor {
        /// The tensor's name.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// Something is wrong with the graph as a whole.
    #[error("the graph is not usable: {problem}")]
    Graph {
        /// What is wrong.
        problem: String,
    },
}

impl ImportError {
    pub(crate) fn graph(problem: impl Into<String>) -> Self {
        Self::Graph { problem: problem.into() }
    }

    pub(crate) fn tensor(tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.to_owned(), problem: problem.into() }
    }
}

/// Why a tensor cannot be made from the given parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The data's length is not what the shape asks for.
    #[error("a tensor of shape {shape:?} has {expected} bytes, not {actual}")]
    Length {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Bytes of such a tensor.
        expected: u64,
        /// Bytes given.
        actual: u64,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("a truth value is 0 or 1, not {value}")]
    Truth {
        /// The first such byte.
        value: u8,
    },
    /// The shape is beyond what the engine handles.
    #[error("shape {shape:?} is not usable: {problem}")]
    Shape {
        /// The shape asked for.
        shape: Vec<usize>,
        /// The limit it breaks.
        problem: String,
    },
    /// Rows that the tensor does not have, or none.
    #[error("rows {rows} are not rows of a tensor of shape {shape:?}")]
    Rows {
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The rows asked for.
        rows: RowRange,
    },
    /// Tensors that differ in more than their heights, or none.
    #[error("tensors of shapes {shapes:?} are not rows of one tensor")]
    Join {
        /// The tensors' shapes.
        shapes: Vec<Vec<usize>>,
    },
}

/// Why there is no strip of these rows: always a mistake of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// The layer range is empty or goes beyond the model.
    #[error("layers {}..{} are not a piece of a model of {layers} layers", range.start, range.end)]
    Layers {
        /// The range asked for.
        range: Range<usize>,
        /// How many layers the model has.
        layers: usize,
    },
    /// Not one range of rows for each tensor alive after the layers.
    #[error("{expected} tensors are alive after these layers, but rows are given for {actual}")]
    Count {
        /// Tensors alive.
        expected: usize,
        /// Ranges given.
        actual: usize,
    },
    /// Rows that a tensor does not have.
    #[error("rows {rows} are not rows of '{tensor}', which has {height}")]
    Outside {
        /// The tensor's name.
        tensor: String,
        /// The rows asked for.
        rows: RowRange,
        /// How many rows it has.
        height: usize,
    },
    /// A strip without a row of any tensor.
    #[error("there is not one row in the strip")]
    Nothing,
    /// What cuts the rows out would keep too many tensors alive.
    #[error("the strip is not usable: {0}")]
    Graph(String),
}

/// Why a piece cannot be loaded: always a mistake of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The layer range is empty or goes beyond the model.
    #[error("layers {}..{} are not a piece of a model of {layers} layers", range.start, range.end)]
    Range {
        /// The range asked for.
        range: Range<usize>,
        /// How many layers the model has.
        layers: usize,
    },
    /// There is no such strip.
    #[error(transparent)]
    Rows(#[from] RowsError),
}

/// Why a piece did not run. The piece itself is unharmed and can be run again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Too few or too many inputs.
    #[error("the piece takes {expected} inputs, not {actual}")]
    InputCount {
        /// Inputs of the piece.
        expected: usize,
        /// Inputs given.
        actual: usize,
    },
    /// An input of the wrong type.
    #[error("input '{name}' has values of type {expected}, not {actual}")]
    InputType {
        /// The input's name.
        name: String,
        /// The type it must have.
        expected: DType,
        /// The type given.
        actual: DType,
    },
    /// An input of the wrong shape.
    #[error("input '{name}' has shape {expected:?}, not {actual:?}")]
    InputShape {
        /// The input's name.
        name: String,
        /// The shape it must have.
        expected: Vec<usize>,
        /// The shape given.
        actual: Vec<usize>,
    },
}
