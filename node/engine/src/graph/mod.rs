//! The typed graph: layers with concrete shapes, in topological order.

mod elementwise;
mod moves;
mod window;
mod windows;

pub use elementwise::{Activation, Binary, Nary, Remainder, Unary};
pub use moves::{
    Arg, Coordinates, CumSum, DepthToSpace, Direction, Extreme, Gather, Interpolation, Nearest,
    Pad, PadMode, Resize, ResizeAxis, Scatter, ScatterUpdate, Slice, Tie, TopK, Triangle,
};
pub use window::Window;
pub use windows::{
    AveragePool, BatchNorm, Conv, ConvNd, Gemm, MaxPool, Normalize, PoolNd, Pooling, Product,
    Reduce, Reduction, SoftmaxLike, WindowNd,
};

use crate::weights::Weight;

/// Which tensor of a model: an index for [`Model::tensor`](crate::Model::tensor).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub(crate) usize);

impl Layer {
    /// All constants that the layer needs.
    pub fn weights(&self) -> Vec<&Weight> {
        let arguments = self.constants.iter().map(|(_, weight)| weight);
        self.op.weights().into_iter().chain(arguments).collect()
    }
}

/// One operator, with the batch normalization and the activation that fold into it.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The main node's name in the file, or that of its output if it has none.
    pub name: String,
    /// What the layer computes, before its activation.
    pub op: Op,
    /// What it applies to each value of the result.
    pub activation: Option<Activation>,
    /// The activations it takes, in the operator's order; one may come twice.
    pub inputs: Vec<TensorId>,
    /// Which of the operator's arguments are constant: their places, and their values. The
    /// others are the `inputs`.
    pub constants: Vec<(usize, Weight)>,
    /// The ones it makes that somebody reads, in the operator's order.
    pub outputs: Vec<TensorId>,
    /// Which of the operator's results those are.
    pub(crate) results: Vec<usize>,
    /// The nodes of the file it was made from, by index: what a slice carries.
    pub(crate) nodes: Vec<usize>,
}

/// The operator of a layer. Shapes are NCHW where an operator is about images.
///
/// An operator's arguments are the layer's inputs and constants, in the order of the ONNX operator;
/// only [`Add`](Self::Add), [`MatMul`](Self::MatMul) and those whose variant holds weights name
/// their constants themselves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Op {
    /// An activation with no layer to fold into: the layer's `activation` is all it does.
    Activation,
    /// The sum of two activations of type `f32`, or of one and a constant, with ONNX's
    /// broadcasting.
    Add(Operand),
    /// The place of the largest or smallest value along an axis.
    Arg(Arg),
    /// Average pooling over two spatial dimensions.
    AveragePool(AveragePool),
    /// Batch normalization with no convolution to fold into.
    BatchNorm(BatchNorm),
    /// Two values to one, with ONNX's broadcasting.
    Binary(Binary),
    /// Values of another type; the layer's output says which.
    Cast,
    /// Concatenation along an axis.
    Concat {
        /// The axis, counted from the outermost.
        axis: usize,
    },
    /// Convolution over two spatial dimensions with constant filters.
    Conv(Conv),
    /// Any other convolution: over one or three dimensions, transposed, with computed filters.
    ConvNd(ConvNd),
    /// Sums or counts along an axis, up to each place.
    CumSum(CumSum),
    /// Blocks of channels to blocks of pixels.
    DepthToSpace(DepthToSpace),
    /// The same values, repeated along dimensions of size 1 to the output's shape.
    Expand,
    /// The same values in rows and columns: `[product of dims before the axis, the rest]`.
    Flatten,
    /// Values by computed places.
    Gather(Gather),
    /// Matrix product with a constant, scaled, plus a constant.
    Gemm(Gemm),
    /// The mean of each channel.
    GlobalAveragePool,
    /// The same values: an output of the graph that is a constant or has two names.
    Identity,
    /// Matrix product, by the rules of `numpy.matmul`, of two activations or one and a constant.
    MatMul(Operand),
    /// Max pooling over two spatial dimensions.
    MaxPool(MaxPool),
    /// Any number of tensors to one, value by value, with ONNX's broadcasting.
    Nary(Nary),
    /// Normalization by statistics of the input itself, or by computed ones.
    Normalize(Normalize),
    /// One value of the first index, all others of another: `[depth, values]` are constant.
    OneHot {
        /// The new axis.
        axis: usize,
    },
    /// Padding, or cropping where it is negative.
    Pad(Pad),
    /// Any other pooling: over one or three dimensions, by another norm, with places.
    PoolNd(PoolNd),
    /// `alpha * A * B + beta * C` of computed matrices.
    Product(Product),
    /// Many values to one, along axes.
    Reduce(Reduce),
    /// The same values in another shape.
    Reshape,
    /// Scaling along axes, by neighbours.
    Resize(Resize),
    /// Values into computed places.
    Scatter(Scatter),
    /// Parts along axes.
    Slice(Slice),
    /// Softmax over `size` values that lie `inner` apart.
    Softmax {
        /// How many values sum to one.
        size: usize,
        /// The distance between them, in values.
        inner: usize,
    },
    /// A relative of softmax, over the same kind of rows.
    SoftmaxLike(SoftmaxLike),
    /// Blocks of pixels to channels.
    SpaceToDepth {
        /// A block's side.
        block: usize,
    },
    /// Several parts along an axis.
    Split {
        /// The axis.
        axis: usize,
        /// The parts' sizes.
        sizes: Vec<usize>,
    },
    /// The whole tensor again and again.
    Tile,
    /// The largest or smallest values along an axis, and their places.
    TopK(TopK),
    /// Another order of dimensions.
    Transpose {
        /// Which dimension of the input comes where.
        order: Vec<usize>,
    },
    /// Zeros on one side of a diagonal.
    Triangle(Triangle),
    /// One value to one.
    Unary(Unary),
    /// The second argument where the first is true, and the third elsewhere.
    Where,
}

impl Op {
    /// The ONNX name of the operator, or of the family.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Activation => "Activation",
            Self::Add(_) => "Add",
            Self::Arg(arg) => arg.name(),
            Self::AveragePool(_) => "AveragePool",
            Self::BatchNorm(_) => "BatchNormalization",
            Self::Binary(binary) => binary.name(),
            Self::Cast => "Cast",
            Self::Concat { .. } => "Concat",
            Self::Conv(_) => "Conv",
            Self::ConvNd(conv) => conv.name(),
            Self::CumSum(_) => "CumSum",
            Self::DepthToSpace(_) => "DepthToSpace",
            Self::Expand => "Expand",
            Self::Flatten => "Flatten",
            Self::Gather(gather) => gather.name(),
            Self::Gemm(_) | Self::Product(_) => "Gemm",
            Self::GlobalAveragePool => "GlobalAveragePool",
            Self::Identity => "Identity",
            Self::MatMul(_) => "MatMul",
            Self::MaxPool(_) => "MaxPool",
            Self::Nary(nary) => nary.name(),
            Self::Normalize(normalize) => normalize.name(),
            Self::OneHot { .. } => "OneHot",
            Self::Pad(_) => "Pad",
            Self::PoolNd(pool) => pool.name(),
            Self::Reduce(reduce) => reduce.by.name(),
            Self::Reshape => "Reshape",
            Self::Resize(_) => "Resize",
            Self::Scatter(scatter) => scatter.name(),
            Self::Slice(_) => "Slice",
            Self::Softmax { .. } => "Softmax",
            Self::SoftmaxLike(like) => like.name(),
            Self::SpaceToDepth { .. } => "SpaceToDepth",
            Self::Split { .. } => "Split",
            Self::Tile => "Tile",
            Self::TopK(_) => "TopK",
            Self::Transpose { .. } => "Transpose",
            Self::Triangle(_) => "Trilu",
            Self::Unary(unary) => unary.name(),
            Self::Where => "Where",
        }
    }

    /// The constants that the operator itself names.
    pub fn weights(&self) -> Vec<&Weight> {
        match self {
            Self::Add(operand) | Self::MatMul(operand) => operand.weight().into_iter().collect(),
            Self::BatchNorm(norm) => norm.weights().to_vec(),
            Self::Conv(conv) => {
                let norm = conv.batch_norm.iter().flat_map(BatchNorm::weights);
                std::iter::once(&conv.weight).chain(&conv.bias).chain(norm).collect()
            }
            Self::Gemm(gemm) => std::iter::once(&gemm.weight).chain(&gemm.bias).collect(),
            _ => Vec::new(),
        }
    }
}

/// The second operand of a binary operator.
#[derive(Debug, Clone)]
pub enum Operand {
    /// Both operands are activations: the layer has two inputs.
    Activation,
    /// The left operand is constant.
    ConstantLeft(Weight),
    /// The right operand is constant.
    ConstantRight(Weight),
}

impl Operand {
    pub(crate) fn weight(&self) -> Option<&Weight> {
        match self {
            Self::Activation => None,
            Self::ConstantLeft(weight) | Self::ConstantRight(weight) => Some(weight),
        }
    }
}
