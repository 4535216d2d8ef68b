//! Which rows of its inputs a layer reads to make rows of its output.

use super::features;
use super::range::RowRange;
use crate::graph::{
    AveragePool, Conv, Layer, MaxPool, Normalize, Op, SoftmaxLike, TensorId, Window,
};
use crate::model::Model;
use crate::shape;
use crate::weights::Weight;

/// Whether a layer can make some rows of its output without the others, and from what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerRows {
    /// Yes: by these rules, one for each input.
    Split(Vec<RowRule>),
    /// As [`Whole`](Self::Whole), but it costs nothing: the same bytes under another shape. Each
    /// strip may make all of it.
    View,
    /// No: any row of the output takes all rows of all inputs, and all rows are made at once.
    Whole,
}

/// Which rows of one input rows of the output are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowRule {
    /// All rows: an input that is broadcast over the output's, or that each feature is a sum of.
    All,
    /// Row `i` takes row `i`.
    Same,
    /// Row `i` takes the rows under a window.
    Window(RowWindow),
}

/// How a window slides over rows: row `i` of the output takes the rows
/// `i * stride - before + k * dilation` for `k` in `0..kernel`, where the input has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowWindow {
    /// Rows under the window.
    pub kernel: usize,
    /// The step from one window to the next.
    pub stride: usize,
    /// The distance between neighbouring rows of the window.
    pub dilation: usize,
    /// Padding before the first row.
    pub before: usize,
    /// Rows of the input.
    pub height: usize,
}

impl RowRule {
    /// The rows that these rows of the output are made from, of an input of so many; none for none.
    pub(crate) fn needed(&self, output: RowRange, height: usize) -> RowRange {
        match self {
            _ if output.is_empty() => RowRange::EMPTY,
            Self::All => RowRange::new(0, height),
            Self::Same => output,
            Self::Window(window) => window.needed(output),
        }
    }
}

impl RowWindow {
    /// From the first row that any window reads to the last one; with a stride beyond the kernel
    /// or a dilation, some between them are read by none.
    fn needed(&self, output: RowRange) -> RowRange {
        RowRange::new(self.first(output), self.last(output) + 1)
    }

    /// The first row that a window of these reads.
    ///
    /// That is the first window's, unless dilation makes it step over the border: then a later
    /// window may read an earlier row. Their phases repeat after `dilation` windows.
    fn first(&self, output: RowRange) -> usize {
        let mut first = usize::MAX;
        for i in (output.start..output.end).take(self.dilation.min(PHASES_MAX)) {
            match (i * self.stride).checked_sub(self.before) {
                Some(start) => return first.min(start),
                None => {
                    let outside = self.before - i * self.stride;
                    first = first.min(outside.next_multiple_of(self.dilation) - outside);
                }
            }
        }
        if self.dilation > PHASES_MAX { 0 } else { first }
    }

    /// The last row that a window of these reads: [`first`](Self::first), seen in a mirror.
    fn last(&self, output: RowRange) -> usize {
        let end = self.height - 1;
        let reach = (self.kernel - 1) * self.dilation;
        let mut last = 0;
        for i in (output.start..output.end).rev().take(self.dilation.min(PHASES_MAX)) {
            // Not below zero: every window reads at least one row.
            let tap = i * self.stride + reach - self.before;
            if tap <= end {
                return last.max(tap);
            }
            let outside = tap - end;
            last = last.max(end - (outside.next_multiple_of(self.dilation) - outside));
        }
        if self.dilation > PHASES_MAX { end } else { last }
    }
}

/// Whether an operator makes each value from one value of each input, broadcasts apart.
pub(super) fn works_value_by_value(op: &Op) -> bool {
    matches!(
        op,
        Op::Activation
            | Op::Add(_)
            | Op::BatchNorm(_)
            | Op::Binary(_)
            | Op::Cast
            | Op::Flatten
            | Op::Identity
            | Op::Nary(_)
            | Op::Normalize(Normalize::Batch { .. })
            | Op::Reshape
            | Op::Unary(_)
            | Op::Where
    )
}

/// How a layer's rows follow from those of its inputs.
pub(crate) fn of(model: &Model, layer: &Layer) -> LayerRows {
    let shape = |id: &TensorId| &model.tensor(*id).shape[..];
    let inputs: Vec<_> = layer.inputs.iter().map(shape).collect();
    let output = layer.outputs.first().map_or(&[][..], shape);
    match &layer.op {
        _ if inputs.is_empty() => LayerRows::Whole,
        Op::Flatten | Op::Reshape if inputs != [output] => LayerRows::View,
        _ if matches!(output, [1, _]) => features::of(layer, &inputs, output),
        _ if output.len() != 4 => LayerRows::Whole,
        op if works_value_by_value(op) => value_by_value(layer, &inputs, output),
        Op::AveragePool(pool) => window(&pool.window, inputs[0], output),
        Op::Conv(conv) => window(&conv.window, inputs[0], output),
        Op::MaxPool(pool) => window(&pool.window, inputs[0], output),
        Op::Concat { axis } | Op::Split { axis, .. } if *axis != 2 => {
            within_rows(layer, &inputs, output)
        }
        Op::Pad(pad) if pad.amounts.get(2) == Some(&(0, 0)) => within_rows(layer, &inputs, output),
        Op::Slice(slice) if slice.dims.get(2) == Some(&(0, 1)) => {
            within_rows(layer, &inputs, output)
        }
        Op::Softmax { size, inner }
        | Op::SoftmaxLike(
            SoftmaxLike::Hardmax { size, inner } | SoftmaxLike::Log { size, inner },
        ) => softmax(*size, *inner, output),
        Op::Transpose { order } if order.get(2) == Some(&2) => within_rows(layer, &inputs, output),
        // Right for any operator there is. One that is to be split also needs a look at `narrow`.
        _ => LayerRows::Whole,
    }
}

/// Operands are broadcast to the output. Those of another rank, or constants that differ from row
/// to row, would have to be cut in other ways than images are: such layers are rare, and stay
/// whole.
fn value_by_value(layer: &Layer, inputs: &[&[usize]], output: &[usize]) -> LayerRows {
    let rows = |shape: &[usize]| shape::lead_with_ones(shape, 4)[2];
    let rule = |shape: &&[usize]| match (shape.len(), rows(shape)) {
        (4, height) if height == output[2] => Some(RowRule::Same),
        (_, 1) => Some(RowRule::All),
        _ => None,
    };
    let constants = layer.weights();
    let rules: Option<Vec<_>> = inputs.iter().map(rule).collect();
    match rules {
        Some(rules) if constants.iter().all(|weight| rows(weight.shape()) == 1) => {
            LayerRows::Split(rules)
        }
        _ => LayerRows::Whole,
    }
}

/// Values move within their rows, if all images have the same ones and no constant has any.
fn within_rows(layer: &Layer, inputs: &[&[usize]], output: &[usize]) -> LayerRows {
    let same = |shape: &&[usize]| shape.len() == 4 && shape[2] == output[2];
    let image = |(_, weight): &(usize, Weight)| weight.shape().len() == 4;
    if inputs.iter().all(same) && !layer.constants.iter().any(image) {
        LayerRows::Split(vec![RowRule::Same; inputs.len()])
    } else {
        LayerRows::Whole
    }
}

/// A layer is whole if one of its windows may see nothing but padding: rows made of those alone
/// would be made from nothing.
fn window(window: &Window, input: &[usize], output: &[usize]) -> LayerRows {
    let rows = RowWindow {
        kernel: window.kernel[0],
        stride: window.stride[0],
        dilation: window.dilation[0],
        before: window.padding[0].0,
        height: input[2],
    };
    let reach = (rows.kernel - 1) * rows.dilation;
    let last_start = (output[2] - 1) * rows.stride;
    let inside = rows.before <= reach && last_start < rows.before + rows.height;
    // Larger steps than the image may step over all of it.
    if inside && (rows.kernel == 1 || rows.dilation <= rows.height) {
        LayerRows::Split(vec![RowRule::Window(rows)])
    } else {
        LayerRows::Whole
    }
}

/// The values that sum to one must lie within a row, or have their rows in common.
fn softmax(size: usize, inner: usize, output: &[usize]) -> LayerRows {
    let [height, width] = [output[2], output[3]];
    if size * inner <= width || inner.is_multiple_of(height * width) {
        LayerRows::Split(vec![RowRule::Same])
    } else {
        LayerRows::Whole
    }
}

/// The operator for some rows alone, made from these rows of its first input; `shape` is that of
/// the whole output.
pub(crate) fn narrow(
    op: &Op,
    input_height: usize,
    input: RowRange,
    output: RowRange,
    shape: &[usize],
) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::AveragePool(AveragePool { window, .. })
        | Op::Conv(Conv { window, .. })
        | Op::MaxPool(MaxPool { window, .. }) => {
            window.padding[0] = padding(window, input_height, input, output);
        }
        // Sums over anything but a row have all rows between two of their values.
        Op::Softmax { size, inner }
        | Op::SoftmaxLike(
            SoftmaxLike::Hardmax { size, inner } | SoftmaxLike::Log { size, inner },
        ) if *size * *inner > shape[3] => {
            *inner = *inner / shape[2] * output.len();
        }
        _ => {}
    }
    op
}

/// The padding that a window keeps for some rows alone: none where they end inside the image, for
/// there it sees real rows.
fn padding(window: &Window, height: usize, input: RowRange, output: RowRange) -> (usize, usize) {
    let (before, after) = window.padding[0];
    let reach = (window.kernel[0] - 1) * window.dilation[0];
    // Where the first window starts and the last ends, both counted from the padding's start.
    let start = output.start * window.stride[0];
    let end = (output.end - 1) * window.stride[0] + reach + 1;
    // In ceil mode, the last window may go beyond the padding, which must not grow for that: what
    // lies beyond does not count in a mean.
    let end = end.min(before + height + after);
    (before + input.start - start, end - before - input.end)
}

/// Dilations beyond this are treated as if their windows had no gaps at the borders: they are
/// needed by nobody, and looking for the exact row takes time in proportion to them.
const PHASES_MAX: usize = 64;
