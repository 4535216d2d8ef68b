//! The operators that multiply and add up: convolution, pooling, products, norms, reductions.

use super::Window;
use crate::weights::Weight;

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
    pub(super) fn weights(&self) -> [&Weight; 4] {
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

/// How a window slides over any number of spatial dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowNd {
    /// The window's size, at least 1.
    pub kernel: Vec<usize>,
    /// The step, at least 1.
    pub stride: Vec<usize>,
    /// The distance between neighbouring elements of the window, at least 1.
    pub dilation: Vec<usize>,
    /// Padding `(before, after)`.
    pub padding: Vec<(usize, usize)>,
}

/// A convolution whose filters are its second argument, and its bias the third, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvNd {
    /// How the filters slide; of a transposed one, over the output.
    pub window: WindowNd,
    /// Into how many groups the channels are split.
    pub groups: usize,
    /// Whether it is the transposed convolution, from the output's pixels to the input's.
    pub transposed: bool,
}

impl ConvNd {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        if self.transposed { "ConvTranspose" } else { "Conv" }
    }
}

/// A pooling over any number of spatial dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolNd {
    /// What becomes of a window's values.
    pub pooling: Pooling,
    /// How the window slides. Padding after the input includes what rounding up adds.
    pub window: WindowNd,
    /// The padding after the input that the model itself asks for.
    pub padding_after: Vec<usize>,
}

impl PoolNd {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self.pooling {
            Pooling::Average { .. } => "AveragePool",
            Pooling::Lp { .. } => "LpPool",
            Pooling::Max { .. } => "MaxPool",
        }
    }
}

/// What a pooling makes of a window's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean.
    Average {
        /// Whether padding counts as zeros.
        count_include_pad: bool,
    },
    /// The `p`-th root of the sum of `p`-th powers.
    Lp {
        /// The power.
        p: u32,
    },
    /// The largest value, and its place as the second result.
    Max {
        /// Whether places are counted column by column.
        column_major: bool,
    },
}

/// Normalization. The arguments after the first are scale and shift, as far as the operator has
/// them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Normalize {
    /// By given means and variances for each channel, the fourth and fifth argument.
    Batch {
        /// Keeps the root away from zero, like all that follow.
        epsilon: f32,
    },
    /// Over groups of channels.
    Group {
        /// How many.
        groups: usize,
        /// See `Batch`.
        epsilon: f32,
    },
    /// Over each channel.
    Instance {
        /// See `Batch`.
        epsilon: f32,
    },
    /// Over all dimensions from an axis on; its mean and the inverse of its deviation are
    /// further results.
    Layer {
        /// The axis.
        axis: usize,
        /// See `Batch`.
        epsilon: f32,
    },
    /// To length 1 along an axis.
    Lp {
        /// The axis.
        axis: usize,
        /// Which norm: 1 or 2.
        p: u32,
    },
    /// By the squares of neighbouring channels.
    Lrn {
        /// How many channels.
        size: usize,
        /// The factor of their squares' sum, over all of them.
        alpha: f32,
        /// The exponent.
        beta: f32,
        /// The summand.
        bias: f32,
    },
    /// To mean 0 and variance 1 over axes.
    MeanVariance {
        /// The axes.
        axes: Vec<usize>,
    },
    /// By the root of the mean square over all dimensions from an axis on.
    Rms {
        /// The axis.
        axis: usize,
        /// See `Batch`.
        epsilon: f32,
    },
}

impl Normalize {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Batch { .. } => "BatchNormalization",
            Self::Group { .. } => "GroupNormalization",
            Self::Instance { .. } => "InstanceNormalization",
            Self::Layer { .. } => "LayerNormalization",
            Self::Lp { .. } => "LpNormalization",
            Self::Lrn { .. } => "LRN",
            Self::MeanVariance { .. } => "MeanVarianceNormalization",
            Self::Rms { .. } => "RMSNormalization",
        }
    }
}

/// `alpha * A * B + beta * C` of any matrices; `C` is the third argument, if there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// Scales the product.
    pub alpha: f32,
    /// Scales `C`.
    pub beta: f32,
    /// Whether `A` is `[k, m]`.
    pub transpose_left: bool,
    /// Whether `B` is `[n, k]`.
    pub transpose_right: bool,
}

/// Many values to one, along axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduce {
    /// What becomes of them.
    pub by: Reduction,
    /// The axes; none leaves every value by itself.
    pub axes: Vec<usize>,
}

/// What becomes of many values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The sum of absolute values.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The logarithm of the sum.
    LogSum,
    /// The logarithm of the sum of exponentials.
    LogSumExp,
    /// The largest; of truth values, whether any is true.
    Max,
    /// The mean.
    Mean,
    /// The smallest; of truth values, whether all are true.
    Min,
    /// The product.
    Prod,
    /// The sum.
    Sum,
    /// The sum of squares.
    SumSquare,
}

impl Reduction {
    /// The ONNX name.
    pub fn name(self) -> &'static str {
        match self {
            Self::L1 => "ReduceL1",
            Self::L2 => "ReduceL2",
            Self::LogSum => "ReduceLogSum",
            Self::LogSumExp => "ReduceLogSumExp",
            Self::Max => "ReduceMax",
            Self::Mean => "ReduceMean",
            Self::Min => "ReduceMin",
            Self::Prod => "ReduceProd",
            Self::Sum => "ReduceSum",
            Self::SumSquare => "ReduceSumSquare",
        }
    }
}

/// A relative of softmax, over `size` values that lie `inner` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftmaxLike {
    /// 1 for the first of the largest values, else 0.
    Hardmax {
        /// How many values.
        size: usize,
        /// The distance between them.
        inner: usize,
    },
    /// The logarithm of softmax.
    Log {
        /// How many values.
        size: usize,
        /// The distance between them.
        inner: usize,
    },
}

impl SoftmaxLike {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hardmax { .. } => "Hardmax",
            Self::Log { .. } => "LogSoftmax",
        }
    }
}
