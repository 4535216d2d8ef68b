//! The operators that the engine reads: from which version of ONNX's operators to which, by what,
//! and with which restrictions. `docs/OPERATORS.md` shows this table; a test holds them together.

use super::super::reader::OPSET_MIN;
use super::super::view::NodeView;
use super::{
    Reading, elementwise, generate, layout, linear, normalize, on_values, reduce, resize, select,
    windows, windows_nd,
};
use crate::error::ImportError;

/// An operator of ONNX's own domain.
pub(crate) struct Operator {
    /// Its name.
    pub(crate) name: &'static str,
    /// The opset that brought it, or 7 if it is older.
    pub(crate) since: i64,
    /// The last opset that has it; 0 if it is not gone.
    pub(crate) until: i64,
    pub(crate) reader: fn(&NodeView<'_>) -> Result<Reading, ImportError>,
    /// What of it is not supported, for the documentation.
    pub(crate) limits: &'static str,
}

impl Operator {
    /// The opsets that have it.
    pub(crate) fn versions(&self) -> std::ops::RangeInclusive<i64> {
        self.since..=if self.until == 0 { i64::MAX } else { self.until }
    }
}

/// An operator that the engine reads, for people who want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportedOperator {
    /// Its ONNX name.
    pub name: &'static str,
    /// The first opset of which the engine reads it: 7, or the one that brought it.
    pub since: i64,
    /// The last opset that has it, if it is gone.
    pub until: Option<i64>,
    /// What of it is not supported, in words; empty if all is.
    pub limits: &'static str,
}

/// All operators that the engine reads, by name.
pub fn supported_operators() -> Vec<SupportedOperator> {
    let folded = FOLDED.iter().map(|name| SupportedOperator {
        name,
        since: OPSET_MIN,
        until: None,
        limits: if *name == "Dropout" { "at inference only" } else { "" },
    });
    let read = OPERATORS.iter().map(|operator| SupportedOperator {
        name: operator.name,
        since: operator.since,
        until: (operator.until > 0).then_some(operator.until),
        limits: operator.limits,
    });
    let mut all: Vec<_> = folded.chain(read).collect();
    all.sort_by_key(|operator| operator.name);
    all
}

/// What [`clean`](super::super::clean) takes out of a graph before the others are read.
const FOLDED: [&str; 2] = ["Constant", "Dropout"];

/// The operator of this name.
pub(crate) fn find(name: &str) -> Option<&'static Operator> {
    let place = OPERATORS.binary_search_by_key(&name, |operator| operator.name).ok()?;
    Some(&OPERATORS[place])
}

macro_rules! operators {
    ($($name:ident $since:literal $(..=$until:literal)? $reader:path $(: $limits:literal)?;)*) => {
        [$(Operator {
            name: stringify!($name),
            since: $since,
            until: 0 $(+ $until)?,
            reader: $reader,
            limits: concat!("" $(, $limits)?),
        }),*]
    };
}

/// All of them, by name.
#[rustfmt::skip]
pub(crate) static OPERATORS: &[Operator] = &operators! {
    Abs 7 elementwise::unary;
    Acos 7 elementwise::unary;
    Acosh 9 elementwise::unary;
    Add 7 elementwise::add;
    And 7 elementwise::binary;
    ArgMax 7 reduce::arg;
    ArgMin 7 reduce::arg;
    Asin 7 elementwise::unary;
    Asinh 9 elementwise::unary;
    Atan 7 elementwise::unary;
    Atanh 9 elementwise::unary;
    AveragePool 7 windows::average_pool: "one to three spatial dimensions; padding less than the kernel";
    BatchNormalization 7 normalize::batch_norm: "at inference only";
    BitwiseAnd 18 elementwise::binary;
    BitwiseNot 18 elementwise::unary;
    BitwiseOr 18 elementwise::binary;
    BitwiseXor 18 elementwise::binary;
    Cast 7 elementwise::cast: "to FLOAT, INT64, INT32 and BOOL; to half precision is to FLOAT";
    CastLike 15 elementwise::cast;
    Ceil 7 elementwise::unary;
    Celu 12 elementwise::activation;
    Clip 7 elementwise::activation: "FLOAT; constant bounds";
    Compress 9 on_values::compress: "of constants only: the result's shape depends on them";
    Concat 7 layout::concat;
    ConstantOfShape 9 generate::constant_of_shape: "constant shape";
    Conv 7 windows::conv: "one to three spatial dimensions";
    ConvTranspose 7 windows_nd::conv_transpose: "one to three spatial dimensions";
    Cos 7 elementwise::unary;
    Cosh 9 elementwise::unary;
    CumSum 11 reduce::cum_sum: "constant axis";
    DepthToSpace 7 layout::depth_to_space;
    Div 7 elementwise::binary;
    Elu 7 elementwise::activation;
    Equal 7 elementwise::binary;
    Erf 9 elementwise::unary;
    Exp 7 elementwise::unary;
    Expand 8 layout::expand: "constant shape";
    EyeLike 9 generate::eye_like;
    Flatten 7 layout::flatten;
    Floor 7 elementwise::unary;
    Gather 7 select::gather;
    GatherElements 11 select::gather_elements;
    GatherND 11 select::gather_nd;
    Gelu 20 elementwise::activation;
    Gemm 7 linear::gemm: "FLOAT";
    GlobalAveragePool 7 reduce::global_average_pool;
    GlobalLpPool 7 reduce::global_pool: "p of 1 or 2";
    GlobalMaxPool 7 reduce::global_pool;
    Greater 7 elementwise::binary;
    GreaterOrEqual 12 elementwise::binary;
    GroupNormalization 18 normalize::group;
    HardSigmoid 7 elementwise::activation;
    HardSwish 14 elementwise::activation;
    Hardmax 7 reduce::softmax;
    Identity 7 elementwise::identity;
    InstanceNormalization 7 normalize::instance;
    IsInf 10 elementwise::unary;
    IsNaN 9 elementwise::unary;
    LRN 7 normalize::lrn;
    LayerNormalization 17 normalize::layer;
    LeakyRelu 7 elementwise::activation;
    Less 7 elementwise::binary;
    LessOrEqual 12 elementwise::binary;
    Log 7 elementwise::unary;
    LogSoftmax 7 reduce::softmax;
    LpNormalization 7 normalize::lp;
    LpPool 7 windows_nd::lp_pool: "one to three spatial dimensions; padding less than the kernel";
    MatMul 7 linear::mat_mul: "FLOAT";
    Max 7 elementwise::nary;
    MaxPool 7 windows::max_pool: "one to three spatial dimensions; padding less than the kernel";
    Mean 7 elementwise::nary;
    MeanVarianceNormalization 9 normalize::mean_variance;
    Min 7 elementwise::nary;
    Mish 18 elementwise::activation;
    Mod 10 elementwise::binary;
    Mul 7 elementwise::binary;
    Neg 7 elementwise::unary;
    NonMaxSuppression 10 on_values::non_max_suppression: "of constants only: the result's shape depends on them";
    NonZero 9 on_values::non_zero: "of constants only: the result's shape depends on them";
    Not 7 elementwise::unary;
    OneHot 9 select::one_hot: "constant depth";
    Or 7 elementwise::binary;
    PRelu 7 elementwise::binary;
    Pad 7 layout::pad: "constant amounts and value";
    Pow 7 elementwise::binary;
    RMSNormalization 23 normalize::layer;
    Range 11 generate::range: "of constants only: the result's shape depends on them";
    Reciprocal 7 elementwise::unary;
    ReduceL1 7 reduce::reduce: "constant axes";
    ReduceL2 7 reduce::reduce: "constant axes";
    ReduceLogSum 7 reduce::reduce: "constant axes";
    ReduceLogSumExp 7 reduce::reduce: "constant axes";
    ReduceMax 7 reduce::reduce: "constant axes";
    ReduceMean 7 reduce::reduce: "constant axes";
    ReduceMin 7 reduce::reduce: "constant axes";
    ReduceProd 7 reduce::reduce: "constant axes";
    ReduceSum 7 reduce::reduce: "constant axes";
    ReduceSumSquare 7 reduce::reduce: "constant axes";
    Relu 7 elementwise::activation;
    Reshape 7 layout::reshape: "constant shape";
    Resize 10 resize::resize: "constant scales, sizes and roi";
    Round 11 elementwise::unary;
    Scatter 9..=10 select::scatter_elements;
    ScatterElements 11 select::scatter_elements;
    ScatterND 11 select::scatter_nd;
    Selu 7 elementwise::activation;
    Shape 7 generate::shape;
    Shrink 9 elementwise::unary;
    Sigmoid 7 elementwise::activation;
    Sign 9 elementwise::unary;
    Sin 7 elementwise::unary;
    Sinh 9 elementwise::unary;
    Size 7 generate::size;
    Slice 7 layout::slice: "constant bounds; no empty result";
    Softmax 7 reduce::softmax;
    Softplus 7 elementwise::activation;
    Softsign 7 elementwise::activation;
    SpaceToDepth 7 layout::space_to_depth;
    Split 7 layout::split: "constant parts, none of them empty";
    Sqrt 7 elementwise::unary;
    Squeeze 7 layout::squeeze: "constant axes";
    Sub 7 elementwise::binary;
    Sum 7 elementwise::nary;
    Swish 24 elementwise::activation;
    Tan 7 elementwise::unary;
    Tanh 7 elementwise::activation;
    ThresholdedRelu 10 elementwise::activation;
    Tile 7 layout::tile: "constant repeats";
    TopK 7 reduce::top_k: "constant k";
    Transpose 7 layout::transpose;
    Trilu 14 layout::trilu: "constant k";
    Unique 11 on_values::unique: "of constants only: the result's shape depends on them";
    Unsqueeze 7 layout::unsqueeze: "constant axes";
    Upsample 7..=9 resize::upsample: "constant scales";
    Where 9 elementwise::choose;
    Xor 7 elementwise::binary;
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_sorted_so_that_they_are_found() {
        assert!(OPERATORS.is_sorted_by_key(|operator| operator.name));
        assert!(OPERATORS.iter().all(|operator| find(operator.name).is_some()));
        assert!(find("Einsum").is_none());
    }
}
