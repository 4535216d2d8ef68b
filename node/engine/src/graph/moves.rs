//! The operators that move values to other places.

/// The place of the largest or smallest value along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg {
    /// Which value.
    pub extreme: Extreme,
    /// The axis.
    pub axis: usize,
    /// Which of equal values.
    pub tie: Tie,
}

impl Arg {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self.extreme {
            Extreme::Largest => "ArgMax",
            Extreme::Smallest => "ArgMin",
        }
    }
}

/// Which end of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extreme {
    /// The upper end.
    Largest,
    /// The lower end.
    Smallest,
}

/// Which of several equal values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// The one with the lowest place.
    First,
    /// The one with the highest place.
    Last,
}

/// Sums along an axis, up to each place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CumSum {
    /// The axis.
    pub axis: usize,
    /// Whether a place's own value is left out.
    pub exclusive: bool,
    /// Whether it counts from the end.
    pub reverse: bool,
}

/// Blocks of channels to blocks of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthToSpace {
    /// A block's side.
    pub block: usize,
    /// Whether the block's place is the inner part of the channel's number (ONNX's `CRD`) and not
    /// the outer (`DCR`).
    pub inner: bool,
}

/// Values by computed places: the arguments are the values and the places.
///
/// A negative place counts from the end; one beyond the dimension is taken as the nearest in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// Whole slices along an axis.
    Axis {
        /// The axis.
        axis: usize,
    },
    /// For each result a place along an axis, the others being its own.
    Elements {
        /// The axis.
        axis: usize,
    },
    /// Slices by places in several dimensions.
    Nd {
        /// How many outer dimensions both arguments share.
        batch_dims: usize,
    },
}

impl Gather {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Axis { .. } => "Gather",
            Self::Elements { .. } => "GatherElements",
            Self::Nd { .. } => "GatherND",
        }
    }
}

/// Values into computed places: the arguments are the values, the places and the updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scatter {
    /// The axis that places are along, or none if they are places in several dimensions.
    pub axis: Option<usize>,
    /// What becomes of the value that was there.
    pub update: ScatterUpdate,
}

impl Scatter {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        match self.axis {
            Some(_) => "ScatterElements",
            None => "ScatterND",
        }
    }
}

/// What becomes of a value that something is scattered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScatterUpdate {
    /// The sum of both.
    Add,
    /// The larger.
    Max,
    /// The smaller.
    Min,
    /// The product.
    Mul,
    /// The new one; of several, the last.
    Replace,
}

/// Padding along every dimension. The second argument is the value for
/// [`Constant`](PadMode::Constant).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pad {
    /// What is put there.
    pub mode: PadMode,
    /// How much `(before, after)`; negative numbers crop.
    pub amounts: Vec<(i64, i64)>,
}

/// What padding is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadMode {
    /// One value.
    Constant,
    /// The outermost value.
    Edge,
    /// The values in front of the edge, mirrored.
    Reflect,
    /// The values of the other end.
    Wrap,
}

/// Scaling along axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Resize {
    /// The axes whose size changes.
    pub axes: Vec<ResizeAxis>,
    /// How values between pixels are made.
    pub interpolation: Interpolation,
    /// Which place of the input a pixel of the result stands for.
    pub coordinates: Coordinates,
    /// Whether neighbours outside the input don't count, instead of repeating the edge.
    pub exclude_outside: bool,
    /// Whether the filter gets wider where the result is smaller, so that no pixel is skipped.
    pub antialias: bool,
    /// The value of what lies outside the region that is cut out.
    pub extrapolation: f32,
}

/// One axis that is scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResizeAxis {
    /// The axis.
    pub axis: usize,
    /// Its size in the result.
    pub size: usize,
    /// How many pixels of the result there are for one of the input; positive.
    pub scale: f64,
    /// The region `(start, end)` that is cut out, as shares of the input's size.
    pub region: (f64, f64),
}

/// How values between pixels are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Interpolation {
    /// From four neighbours, by a cubic with this parameter.
    Cubic {
        /// ONNX's `cubic_coeff_a`.
        a: f32,
    },
    /// From two neighbours.
    Linear,
    /// The nearest pixel.
    Nearest(Nearest),
}

/// Which pixel is the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearest {
    /// The one above.
    Ceil,
    /// The one below.
    Floor,
    /// The nearest; of two, the upper.
    RoundPreferCeil,
    /// The nearest; of two, the lower.
    RoundPreferFloor,
}

/// Which place of the input a pixel of the result stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinates {
    /// The outermost pixels' centres lie on each other.
    AlignCorners,
    /// The outermost pixels' corners on one side lie on each other.
    Asymmetric,
    /// The images' edges lie on each other.
    HalfPixel,
    /// The images' centres lie on each other, whatever rounding did to the size.
    HalfPixelSymmetric,
    /// Like `HalfPixel`, but one pixel stands for the first.
    PytorchHalfPixel,
    /// A region of the input is cut out.
    TfCropAndResize,
}

/// Parts along dimensions; the output's shape says how long they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// For each dimension the first place, and the step to the next, which may be negative.
    pub dims: Vec<(usize, i64)>,
}

/// The largest or smallest values along an axis; the output's shape says how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopK {
    /// The axis.
    pub axis: usize,
    /// Which end.
    pub extreme: Extreme,
}

/// Zeros on one side of a diagonal of each matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triangle {
    /// Which side is kept.
    pub kept: Direction,
    /// The diagonal: 0 is the main one, positive ones lie above it.
    pub diagonal: i64,
}

/// A side of a diagonal, or of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Below.
    Lower,
    /// Above.
    Upper,
}
