//! The typed graph: layers with concrete shapes, in topological order.

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
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Op {
    /// An activation with no layer to fold into: the layer's `activation` is all it does.
    Activation,
    /// The sum of two activations, or of one and a constant, with ONNX's broadcasting.
    Add(Operand),
    /// Average pooling.
    AveragePool(AveragePool),
    /// Batch normalization with no convolution to fold into.
    BatchNorm(BatchNorm),
    /// Concatenation along an axis.
    Concat {
        /// The axis, counted from the outermost.
        axis: usize,
    },
    /// Convolution over two spatial dimensions.
    Conv(Conv),
    /// The same values in rows and columns: `[product of dims before the axis, the rest]`.
    Flatten,
    /// Matrix product with a constant, scaled, plus a constant.
    Gemm(Gemm),
    /// The mean of each channel.
    GlobalAveragePool,
    /// Matrix product, by the rules of `numpy.matmul`, of two activations or one and a constant.
    MatMul(Operand),
    /// Max pooling.
    MaxPool(MaxPool),
    /// The same values in another shape.
    Reshape,
    /// Softmax over `size` values that lie `inner` apart.
    Softmax {
        /// How many values sum to one.
        size: usize,
        /// The distance between them, in values.
        inner: usize,
    },
}

impl Op {
    /// The ONNX name of the operator, or of the family.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Activation => "Activation",
            Self::Add(_) => "Add",
            Self::AveragePool(_) => "AveragePool",
            Self::BatchNorm(_) => "BatchNormalization",
            Self::Concat { .. } => "Concat",
            Self::Conv(_) => "Conv",
            Self::Flatten => "Flatten",
            Self::Gemm(_) => "Gemm",
            Self::GlobalAveragePool => "GlobalAveragePool",
            Self::MatMul(_) => "MatMul",
            Self::MaxPool(_) => "MaxPool",
            Self::Reshape => "Reshape",
            Self::Softmax { .. } => "Softmax",
        }
    }

    /// The constants that the operator needs.
    pub fn weights(&self) -> Vec<&Weight> {
        match self {
            Self::Add(operand) | Self::MatMul(operand) => operand.weight().into_iter().collect(),
            Self::BatchNorm(norm) => norm.weights().to_vec(),
            Self::Conv(conv) => {
                let norm = conv.batch_norm.iter().flat_map(BatchNorm::weights);
                std::iter::once(&conv.weight).chain(&conv.bias).chain(norm).collect()
            }
            Self::Gemm(gemm) => std::iter::once(&gemm.weight).chain(&gemm.bias).collect(),
            Self::Activation
            | Self::AveragePool(_)
            | Self::Concat { .. }
            | Self::Flatten
            | Self::GlobalAveragePool
            | Self::MaxPool(_)
            | Self::Reshape
            | Self::Softmax { .. } => Vec::new(),
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
    fn weight(&self) -> Option<&Weight> {
        match self {
            Self::Activation => None,
            Self::ConstantLeft(weight) | Self::ConstantRight(weight) => Some(weight),
        }
    }
}

/// What a layer does to each value it has computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// Into the range `min..=max`; an infinite bound does nothing. Neither is NaN, `min <= max`.
    Clip {
        /// The lower bound.
        min: f32,
        /// The upper bound.
        max: f32,
    },
    /// `x` if it is positive, else `alpha * x`.
    LeakyRelu {
        /// The slope for negative values.
        alpha: f32,
    },
    /// `x` if it is positive, else 0.
    Relu,
}

/// How a window slides over the two spatial dimensions; `[height, width]` everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The window's size, at least 1.
    pub kernel: [usize; 2],
    /// The step, at least 1.
    pub stride: [usize; 2],
    /// The distance between neighbouring elements of the window, at least 1.
    pub dilation: [usize; 2],
    /// Padding `(before, after)`.
    pub padding: [(usize, usize); 2],
}

/// A convolution.
#[derive(Debug, Clone)]
pub struct Conv {
    /// How the filters slide.
    pub window: Window,
    /// Into how many groups the channels are split; divides both channel counts.
    pub groups: usize,
    /// The filters: `[out channels, in channels / groups, height, width]`.
    pub weight: Weight,
    /// One value for each output channel.
    pub bias: Option<Weight>,
    /// Batch normalization of the result, folded into filters and bias when a piece is loaded.
    pub batch_norm: Option<BatchNorm>,
}

/// Batch normalization at inference: `(x - mean) / sqrt(variance + epsilon) * scale + shift`.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    /// One value for each channel, like the three that follow.
    pub scale: Weight,
    /// Added last.
    pub shift: Weight,
    /// Subtracted first.
    pub mean: Weight,
    /// Divided by, under the root.
    pub variance: Weight,
    /// Keeps the root away from zero.
    pub epsilon: f32,
}

impl BatchNorm {
    fn weights(&self) -> [&Weight; 4] {
        [&self.scale, &self.shift, &self.mean, &self.variance]
    }
}

/// Max pooling.
#[derive(Debug, Clone)]
pub struct MaxPool {
    /// How the window slides; padding counts as minus infinity.
    pub window: Window,
    /// Whether a last window that is only partly inside counts.
    pub ceil_mode: bool,
}

/// Average pooling.
#[derive(Debug, Clone)]
pub struct AveragePool {
    /// How the window slides.
    pub window: Window,
    /// Whether a last window that is only partly inside counts.
    pub ceil_mode: bool,
    /// Whether padding counts as zeros in the mean, or not at all.
    pub count_include_pad: bool,
}

/// `alpha * A * B + beta * C` with constant `B` and `C`.
#[derive(Debug, Clone)]
pub struct Gemm {
    /// `B`: `[k, n]`, or `[n, k]` if transposed.
    pub weight: Weight,
    /// `C`, broadcast to `[m, n]`.
    pub bias: Option<Weight>,
    /// Scales the product.
    pub alpha: f32,
    /// Scales `C`.
    pub beta: f32,
    /// Whether the input is `[k, m]` instead of `[m, k]`.
    pub transpose_input: bool,
    /// Whether `B` is `[n, k]`.
    pub transpose_weight: bool,
}
