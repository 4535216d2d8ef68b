//! The operators that go value by value.

/// What a layer does to each value it has computed; all values are of type `f32`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x` if it is positive, else `alpha * (exp(x / alpha) - 1)`.
    Celu {
        /// How far negative values go.
        alpha: f32,
    },
    /// Into the range `min..=max`; an infinite bound does nothing. Neither is NaN, `min <= max`.
    Clip {
        /// The lower bound.
        min: f32,
        /// The upper bound.
        max: f32,
    },
    /// `x` if it is positive, else `alpha * (exp(x) - 1)`.
    Elu {
        /// How far negative values go.
        alpha: f32,
    },
    /// `x` times the share of a normal distribution below it.
    Gelu,
    /// `Gelu` by a polynomial and the hyperbolic tangent.
    GeluTanh,
    /// `alpha * x + beta`, into the range 0 to 1.
    HardSigmoid {
        /// The slope.
        alpha: f32,
        /// The value at 0.
        beta: f32,
    },
    /// `x` times its hard sigmoid with slope 1/6 and 1/2 at 0.
    HardSwish,
    /// `x` if it is positive, else `alpha * x`.
    LeakyRelu {
        /// The slope for negative values.
        alpha: f32,
    },
    /// `x * tanh(softplus(x))`.
    Mish,
    /// `x` if it is positive, else 0.
    Relu,
    /// `gamma * x` if it is positive, else `gamma * alpha * (exp(x) - 1)`.
    Selu {
        /// How far negative values go.
        alpha: f32,
        /// The scale.
        gamma: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `log(1 + exp(x))`.
    Softplus,
    /// `x / (1 + abs(x))`.
    Softsign,
    /// `x * sigmoid(alpha * x)`.
    Swish {
        /// How steep the sigmoid is.
        alpha: f32,
    },
    /// The hyperbolic tangent.
    Tanh,
    /// `x` if it is above `alpha`, else 0.
    ThresholdedRelu {
        /// The threshold.
        alpha: f32,
    },
}

/// One value to one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Unary {
    /// The absolute value.
    Abs,
    /// The inverse cosine.
    Acos,
    /// The inverse hyperbolic cosine.
    Acosh,
    /// The inverse sine.
    Asin,
    /// The inverse hyperbolic sine.
    Asinh,
    /// The inverse tangent.
    Atan,
    /// The inverse hyperbolic tangent.
    Atanh,
    /// All bits of a whole number turned.
    BitwiseNot,
    /// The next whole number above.
    Ceil,
    /// The cosine.
    Cos,
    /// The hyperbolic cosine.
    Cosh,
    /// The error function.
    Erf,
    /// The exponential.
    Exp,
    /// The next whole number below.
    Floor,
    /// Whether it is infinite, of the signs asked for.
    IsInf {
        /// Minus infinity counts.
        negative: bool,
        /// Plus infinity counts.
        positive: bool,
    },
    /// Whether it is not a number.
    IsNan,
    /// The natural logarithm.
    Log,
    /// The negative.
    Neg,
    /// The other truth value.
    Not,
    /// One by the value.
    Reciprocal,
    /// The nearest whole number; halves go to the even one.
    Round,
    /// `x + bias` below `-lambda`, `x - bias` above `lambda`, else 0.
    Shrink {
        /// Half the width of the gap.
        lambda: f32,
        /// How far the others move.
        bias: f32,
    },
    /// -1, 0 or 1.
    Sign,
    /// The sine.
    Sin,
    /// The hyperbolic sine.
    Sinh,
    /// The square root.
    Sqrt,
    /// The tangent.
    Tan,
}

impl Unary {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Abs => "Abs",
            Self::Acos => "Acos",
            Self::Acosh => "Acosh",
            Self::Asin => "Asin",
            Self::Asinh => "Asinh",
            Self::Atan => "Atan",
            Self::Atanh => "Atanh",
            Self::BitwiseNot => "BitwiseNot",
            Self::Ceil => "Ceil",
            Self::Cos => "Cos",
            Self::Cosh => "Cosh",
            Self::Erf => "Erf",
            Self::Exp => "Exp",
            Self::Floor => "Floor",
            Self::IsInf { .. } => "IsInf",
            Self::IsNan => "IsNaN",
            Self::Log => "Log",
            Self::Neg => "Neg",
            Self::Not => "Not",
            Self::Reciprocal => "Reciprocal",
            Self::Round => "Round",
            Self::Shrink { .. } => "Shrink",
            Self::Sign => "Sign",
            Self::Sin => "Sin",
            Self::Sinh => "Sinh",
            Self::Sqrt => "Sqrt",
            Self::Tan => "Tan",
        }
    }
}

/// Two values to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// The sum.
    Add,
    /// Whether both are true.
    And,
    /// The bits that both have.
    BitwiseAnd,
    /// The bits that either has.
    BitwiseOr,
    /// The bits that one of them has.
    BitwiseXor,
    /// The quotient; of whole numbers, rounded towards zero, and 0 for a divisor of 0.
    Div,
    /// Whether they are equal.
    Equal,
    /// Whether the first is greater.
    Greater,
    /// Whether the first is not less.
    GreaterOrEqual,
    /// Whether the first is less.
    Less,
    /// Whether the first is not greater.
    LessOrEqual,
    /// What is left of the first after division by the second; 0 for a whole divisor of 0.
    Mod(Remainder),
    /// The product.
    Mul,
    /// Whether either is true.
    Or,
    /// The first to the power of the second, as a value of the first's type.
    Pow,
    /// The first if it is positive, else its product with the second.
    PRelu,
    /// The difference.
    Sub,
    /// Whether one of them is true.
    Xor,
}

impl Binary {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add => "Add",
            Self::And => "And",
            Self::BitwiseAnd => "BitwiseAnd",
            Self::BitwiseOr => "BitwiseOr",
            Self::BitwiseXor => "BitwiseXor",
            Self::Div => "Div",
            Self::Equal => "Equal",
            Self::Greater => "Greater",
            Self::GreaterOrEqual => "GreaterOrEqual",
            Self::Less => "Less",
            Self::LessOrEqual => "LessOrEqual",
            Self::Mod(_) => "Mod",
            Self::Mul => "Mul",
            Self::Or => "Or",
            Self::Pow => "Pow",
            Self::PRelu => "PRelu",
            Self::Sub => "Sub",
            Self::Xor => "Xor",
        }
    }

    /// Whether the result is a truth value.
    pub fn is_comparison(&self) -> bool {
        matches!(
            self,
            Self::Equal | Self::Greater | Self::GreaterOrEqual | Self::Less | Self::LessOrEqual
        )
    }
}

/// Whose sign a remainder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remainder {
    /// The dividend's.
    Dividend,
    /// The divisor's.
    Divisor,
}

/// Any number of values to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nary {
    /// The largest.
    Max,
    /// The mean.
    Mean,
    /// The smallest.
    Min,
    /// The sum.
    Sum,
}

impl Nary {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Max => "Max",
            Self::Mean => "Mean",
            Self::Min => "Min",
            Self::Sum => "Sum",
        }
    }
}
