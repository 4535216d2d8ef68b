//! The operators that make one value of many.

use super::super::view::NodeView;
use super::{Arguments, FLOATS, Made, NUMBERS, Reading};
use crate::error::ImportError;
use crate::graph::{Arg, CumSum, Extreme, Op, Reduce, Reduction, SoftmaxLike, Tie, TopK};
use crate::shape;
use crate::tensor::DType;

type Result<T> = std::result::Result<T, ImportError>;

/// The reductions, whose axes are an attribute or an input, by version.
pub(crate) fn reduce(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let arguments = view.arguments([0])?;
    let by = match view.node.op_type.as_deref().unwrap_or_default() {
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "ReduceLogSum" => Reduction::LogSum,
        "ReduceLogSumExp" => Reduction::LogSumExp,
        "ReduceMax" => Reduction::Max,
        "ReduceMean" => Reduction::Mean,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Prod,
        "ReduceSum" => Reduction::Sum,
        "ReduceSumSquare" => Reduction::SumSquare,
        other => unreachable!("the table has no reduction {other}"),
    };
    let allowed: &[DType] = match by {
        Reduction::Max | Reduction::Min => &super::ANY,
        Reduction::Prod | Reduction::Sum | Reduction::SumSquare | Reduction::L1 => &NUMBERS,
        _ => &FLOATS,
    };
    arguments.expect_types(view, allowed)?;
    let rank = arguments.shape(0).len();
    let listed = view.integers_of("axes", 1)?.unwrap_or_default();
    let axes = match (&listed[..], view.flag("noop_with_empty_axes")?) {
        ([], true) => Vec::new(),
        ([], false) => (0..rank).collect(),
        (listed, _) => axes(view, listed, rank)?,
    };
    let left = Left::of(view);
    Ok(reduced(arguments, Reduce { by, axes }, left))
}

/// What is left of an axis that was reduced.
#[derive(Clone, Copy)]
enum Left {
    Nothing,
    One,
}

impl Left {
    fn of(view: &NodeView<'_>) -> Self {
        if view.int("keepdims", 1) == 0 { Self::Nothing } else { Self::One }
    }
}

fn reduced(arguments: Arguments, reduce: Reduce, left: Left) -> Reading {
    let shape = without(arguments.shape(0), &reduce.axes, left);
    let dtype = arguments.dtype();
    arguments.one(Op::Reduce(reduce), dtype, shape)
}

/// Axes that may count from the end, each once, in ascending order.
pub(super) fn axes(view: &NodeView<'_>, listed: &[i64], rank: usize) -> Result<Vec<usize>> {
    let axes =
        listed.iter().map(|&axis| shape::axis(axis, rank)).collect::<shape::Result<Vec<_>>>();
    let mut axes = view.check(axes)?;
    axes.sort_unstable();
    if axes.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(view.error(format!("axes {listed:?} name one of them twice")));
    }
    Ok(axes)
}

/// A shape with these axes at 1, or without them.
fn without(shape: &[usize], axes: &[usize], left: Left) -> Vec<usize> {
    let dims = shape.iter().enumerate();
    match left {
        Left::One => dims.map(|(i, &dim)| if axes.contains(&i) { 1 } else { dim }).collect(),
        Left::Nothing => dims.filter(|(i, _)| !axes.contains(i)).map(|(_, &dim)| dim).collect(),
    }
}

/// `GlobalAveragePool`.
pub(crate) fn global_average_pool(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let (input, shape) = view.activation(0)?;
    let output = without(shape, &spatial_axes(view, shape)?, Left::One);
    Ok(super::Meaning::new(Op::GlobalAveragePool, vec![input], output).into())
}

/// `GlobalMaxPool` and `GlobalLpPool`: reductions of all that is spatial.
pub(crate) fn global_pool(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = view.arguments([0])?;
    arguments.expect_types(view, &FLOATS)?;
    let by = match (view.node.op_type.as_deref(), view.int("p", 2)) {
        (Some("GlobalMaxPool"), _) => Reduction::Max,
        (_, 1) => Reduction::L1,
        (_, 2) => Reduction::L2,
        (_, p) => return Err(view.error(format!("norm {p} is not supported; 1 and 2 are"))),
    };
    let axes = spatial_axes(view, arguments.shape(0))?;
    Ok(reduced(arguments, Reduce { by, axes }, Left::One))
}

fn spatial_axes(view: &NodeView<'_>, shape: &[usize]) -> Result<Vec<usize>> {
    if shape.len() < 3 {
        return Err(
            view.error(format!("the input has shape {shape:?}, which has no spatial dimensions"))
        );
    }
    Ok((2..shape.len()).collect())
}

/// `ArgMax` and `ArgMin`.
pub(crate) fn arg(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let arguments = view.arguments([0])?;
    arguments.expect_types(view, &NUMBERS)?;
    let axis = view.check(shape::axis(view.int("axis", 0), arguments.shape(0).len()))?;
    let largest = view.node.op_type.as_deref() == Some("ArgMax");
    let extreme = if largest { Extreme::Largest } else { Extreme::Smallest };
    let tie = if view.flag("select_last_index")? { Tie::Last } else { Tie::First };
    let shape = without(arguments.shape(0), &[axis], Left::of(view));
    Ok(arguments.one(Op::Arg(Arg { extreme, axis, tie }), DType::I64, shape))
}

/// `TopK`; the count is an input since version 10 of the operator.
pub(crate) fn top_k(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let arguments = view.arguments([0])?;
    arguments.expect_types(view, &NUMBERS)?;
    let axis = view.check(shape::axis(view.int("axis", -1), arguments.shape(0).len()))?;
    let size = arguments.shape(0)[axis];
    let count = match view.integer(1)? {
        Some(count) => count,
        None => view.int("k", 0),
    };
    let count = usize::try_from(count).ok().filter(|count| (1..=size).contains(count));
    let Some(count) = count else {
        return Err(view.error(format!("k must be from 1 to {size}")));
    };
    let extreme = if view.int("largest", 1) != 0 { Extreme::Largest } else { Extreme::Smallest };
    let mut shape = arguments.shape(0).to_vec();
    shape[axis] = count;
    let outputs = vec![
        Made { dtype: arguments.dtype(), shape: shape.clone() },
        Made { dtype: DType::I64, shape },
    ];
    Ok(arguments.many(Op::TopK(TopK { axis, extreme }), outputs))
}

/// `Softmax` and its relatives. Before version 13 they worked on everything from the axis on.
pub(crate) fn softmax(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let (input, shape) = view.activation(0)?;
    if shape.is_empty() {
        return Err(view.error("the input has no dimensions"));
    }
    let (default, spans_the_rest) = if view.opset >= 13 { (-1, false) } else { (1, true) };
    let axis = view.check(shape::axis(view.int("axis", default), shape.len()))?;
    let (size, inner) = if spans_the_rest {
        (shape::product(&shape[axis..]), 1)
    } else {
        (shape[axis], shape::product(&shape[axis + 1..]))
    };
    let op = match view.node.op_type.as_deref() {
        Some("Hardmax") => Op::SoftmaxLike(SoftmaxLike::Hardmax { size, inner }),
        Some("LogSoftmax") => Op::SoftmaxLike(SoftmaxLike::Log { size, inner }),
        _ => Op::Softmax { size, inner },
    };
    Ok(super::Meaning::new(op, vec![input], shape.to_vec()).into())
}

/// `CumSum`.
pub(crate) fn cum_sum(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=2)?;
    let arguments = view.arguments([0])?;
    arguments.expect_types(view, &NUMBERS)?;
    let axis = view.integer(1)?.unwrap_or_default();
    let axis = view.check(shape::axis(axis, arguments.shape(0).len()))?;
    let (exclusive, reverse) = (view.flag("exclusive")?, view.flag("reverse")?);
    let (dtype, shape) = (arguments.dtype(), arguments.shape(0).to_vec());
    Ok(arguments.one(Op::CumSum(CumSum { axis, exclusive, reverse }), dtype, shape))
}
