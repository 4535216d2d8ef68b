//! Shape arithmetic on numbers that a stranger chose: every step is checked.

use crate::graph::WindowNd;

/// A shape problem, in words; the caller adds which node or tensor it is about.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// The number of elements of a tensor of this shape, if the engine can handle it.
pub(crate) fn elements(shape: &[usize]) -> Result<usize> {
    if shape.len() > RANK_MAX {
        return Err(format!("{} dimensions are more than the {RANK_MAX} supported", shape.len()));
    }
    if shape.contains(&0) {
        return Err(format!("shape {shape:?} has an empty dimension"));
    }
    shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .filter(|&product| product <= ELEMENTS_MAX)
        .ok_or_else(|| format!("shape {shape:?} has more than {ELEMENTS_MAX} elements"))
}

/// The product of dimensions that are part of a shape already checked.
pub(crate) fn product(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// Dimensions as ONNX stores them, as a checked shape.
pub(crate) fn from_i64(dims: &[i64]) -> Result<Vec<usize>> {
    if dims.len() > RANK_MAX {
        return Err(format!("{} dimensions are more than the {RANK_MAX} supported", dims.len()));
    }
    let shape = dims
        .iter()
        .map(|&dim| usize::try_from(dim).map_err(|_| format!("dimension {dim} is negative")))
        .collect::<Result<Vec<_>>>()?;
    elements(&shape)?;
    Ok(shape)
}

/// Dimensions of a constant, which may be empty: a list of no axes, for example.
pub(crate) fn of_constant(dims: &[i64]) -> Result<Vec<usize>> {
    if !dims.contains(&0) {
        return from_i64(dims);
    }
    // The other dimensions must be usable all the same.
    let others: Vec<i64> = dims.iter().map(|&dim| if dim == 0 { 1 } else { dim }).collect();
    let shape = from_i64(&others)?;
    Ok(shape.into_iter().zip(dims).map(|(size, &dim)| if dim == 0 { 0 } else { size }).collect())
}

/// An axis that may count from the end, as an index into `0..rank`.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let counted = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    counted
        .and_then(|index| usize::try_from(index).ok())
        .filter(|&index| index < rank)
        .ok_or_else(|| format!("axis {axis} does not exist in {rank} dimensions"))
}

/// Height, width, batch and channels of an image tensor.
pub(crate) fn image(shape: &[usize]) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(shape).map_err(|_| {
        format!("the input has shape {shape:?}; only 4 dimensions (NCHW) are supported")
    })
}

/// How a partly filled last window of a pooling is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    Ceil,
    Floor,
}

/// The output's size along spatial dimension `i` when a window slides over `input`.
pub(crate) fn slide(
    input: usize,
    window: &WindowNd,
    i: usize,
    rounding: Rounding,
) -> Result<usize> {
    let (before, after) = window.padding[i];
    let padded = input.checked_add(before).and_then(|padded| padded.checked_add(after));
    let Some(padded) = padded else {
        return Err(format!("padding {:?} is too large", window.padding));
    };
    let extent = extent(window, i)?;
    let Some(travel) = padded.checked_sub(extent) else {
        return Err(format!("a window of {extent} does not fit into {padded} with its padding"));
    };
    Ok(match rounding {
        Rounding::Floor => travel / window.stride[i] + 1,
        Rounding::Ceil => ceil_windows(travel, window.stride[i], input + before),
    })
}

/// How far a dilated window reaches along spatial dimension `i`.
pub(crate) fn extent(window: &WindowNd, i: usize) -> Result<usize> {
    (window.kernel[i] - 1)
        .checked_mul(window.dilation[i])
        .and_then(|reach| reach.checked_add(1))
        .ok_or_else(|| {
            format!("kernel {:?} with dilation {:?} is too large", window.kernel, window.dilation)
        })
}

/// Windows in ceil mode: one that would start in the padding after the input does not count.
fn ceil_windows(travel: usize, stride: usize, end_of_input: usize) -> usize {
    let windows = travel.div_ceil(stride) + 1;
    if (windows - 1) * stride >= end_of_input { windows - 1 } else { windows }
}

/// The shape of an elementwise operation's result, by ONNX's (numpy's) broadcasting.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let (a_full, b_full) = (lead_with_ones(a, rank), lead_with_ones(b, rank));
    let shape = a_full
        .iter()
        .zip(&b_full)
        .map(|(&x, &y)| match (x, y) {
            (1, dim) | (dim, 1) => Ok(dim),
            (x, y) if x == y => Ok(x),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect::<Result<Vec<_>>>()?;
    elements(&shape)?;
    Ok(shape)
}

/// The shape with ones in front, `rank` dimensions in all.
pub(crate) fn lead_with_ones(shape: &[usize], rank: usize) -> Vec<usize> {
    let ones = rank.saturating_sub(shape.len());
    std::iter::repeat_n(1, ones).chain(shape.iter().copied()).collect()
}

/// The target of a `Reshape`: 0 copies the input's dimension, one -1 takes what is left.
pub(crate) fn reshape(input: &[usize], target: &[i64]) -> Result<Vec<usize>> {
    let total = elements(input)?;
    if target.len() > RANK_MAX {
        return Err(format!(
            "the target shape has {} dimensions, more than {RANK_MAX}",
            target.len()
        ));
    }
    let mut shape = Vec::with_capacity(target.len());
    let mut inferred = None;
    for (i, &dim) in target.iter().enumerate() {
        shape.push(match dim {
            0 => *input.get(i).ok_or_else(|| {
                format!("target {target:?} copies dimension {i}, which {input:?} lacks")
            })?,
            -1 if inferred.is_none() => {
                inferred = Some(i);
                1
            }
            dim => {
                usize::try_from(dim).map_err(|_| format!("target shape {target:?} is not valid"))?
            }
        });
    }
    let known = elements(&shape)?;
    if let Some(i) = inferred {
        shape[i] = total / known;
    }
    if elements(&shape)? != total {
        return Err(format!("shape {input:?} cannot become {target:?}"));
    }
    Ok(shape)
}

/// A matrix product as `batch` products of `[m, k]` by `[k, n]`, and the shape of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MatMulPlan {
    /// `[batch, m, k]`; a batch of 1 is used for every product of the other side.
    pub(crate) left: [usize; 3],
    /// `[batch, k, n]`.
    pub(crate) right: [usize; 3],
    /// The shapes that both sides must be repeated to first, where batches broadcast both ways.
    pub(crate) spread: Option<[Vec<usize>; 2]>,
    pub(crate) output: Vec<usize>,
}

/// Plans the product of two shapes by the rules of `numpy.matmul`.
pub(crate) fn matmul(left: &[usize], right: &[usize]) -> Result<MatMulPlan> {
    if left.is_empty() || right.is_empty() {
        return Err("a matrix product needs at least one dimension on each side".to_owned());
    }
    let (left_row, right_column) = (left.len() == 1, right.len() == 1);
    let mut a = left.to_vec();
    let mut b = right.to_vec();
    if left_row {
        a.insert(0, 1);
    }
    if right_column {
        b.push(1);
    }
    let (a_batch, a_matrix) = a.split_at(a.len() - 2);
    let (b_batch, b_matrix) = b.split_at(b.len() - 2);
    let ([m, k], [k_right, n]) = ([a_matrix[0], a_matrix[1]], [b_matrix[0], b_matrix[1]]);
    if k != k_right {
        return Err(format!("shapes {left:?} and {right:?} do not multiply: {k} is not {k_right}"));
    }
    let batch = broadcast(a_batch, b_batch)?;
    let whole = |part: &[usize]| product(part) == 1 || product(part) == product(&batch);
    let both_ways = !whole(a_batch) || !whole(b_batch);
    let spread =
        both_ways.then(|| [[&batch[..], &[m, k]].concat(), [&batch[..], &[k, n]].concat()]);
    for shape in spread.iter().flatten() {
        elements(shape)?;
    }
    let [a_count, b_count] =
        if both_ways { [product(&batch); 2] } else { [product(a_batch), product(b_batch)] };
    let mut output = batch;
    output.extend((!left_row).then_some(m));
    output.extend((!right_column).then_some(n));
    elements(&output)?;
    Ok(merge_rows(MatMulPlan { left: [a_count, m, k], right: [b_count, k, n], spread, output }))
}

/// Many left matrices by one right matrix are one taller product.
fn merge_rows(mut plan: MatMulPlan) -> MatMulPlan {
    if plan.right[0] == 1 {
        plan.left = [1, plan.left[0] * plan.left[1], plan.left[2]];
    }
    plan
}

/// Most dimensions of a tensor.
pub(crate) const RANK_MAX: usize = 8;

/// Most elements of a tensor: 8 GiB of `f32`.
pub(crate) const ELEMENTS_MAX: usize = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_limited() {
        assert_eq!(elements(&[]), Ok(1));
        assert_eq!(elements(&[1 << 16, 1 << 15]), Ok(1 << 31));
        assert!(elements(&[1 << 16, 1 << 15, 2]).is_err());
        assert!(elements(&[usize::MAX, usize::MAX]).is_err());
        assert!(elements(&[3, 0]).is_err());
        assert!(elements(&[1; 8]).is_ok());
        assert!(elements(&[1; 9]).is_err());
    }

    #[test]
    fn reshape_targets() {
        assert_eq!(reshape(&[2, 3, 4], &[0, -1]), Ok(vec![2, 12]));
        assert_eq!(reshape(&[2, 3, 4], &[4, 0, 2]), Ok(vec![4, 3, 2]));
        assert_eq!(reshape(&[1], &[]), Ok(vec![]));
        for target in [&[-1i64, -1][..], &[5, -1], &[0, 0, 0, 0], &[-2, 12], &[i64::MAX, -1], &[7]]
        {
            assert!(reshape(&[2, 3, 4], target).is_err(), "{target:?}");
        }
    }

    #[test]
    fn matmul_shapes() {
        let output = |a: &[usize], b: &[usize]| matmul(a, b).map(|plan| plan.output);
        assert_eq!(output(&[2, 3], &[3, 4]), Ok(vec![2, 4]));
        assert_eq!(output(&[3], &[3]), Ok(vec![]));
        assert_eq!(output(&[5, 2, 3], &[3]), Ok(vec![5, 2]));
        assert_eq!(output(&[5, 1, 2, 3], &[5, 1, 3, 4]), Ok(vec![5, 1, 2, 4]));
        assert!(output(&[2, 3], &[4, 3]).is_err());
        assert_eq!(output(&[2, 1, 2, 3], &[1, 2, 3, 4]), Ok(vec![2, 2, 2, 4]));
        assert_eq!(matmul(&[5, 2, 3], &[3, 4]).unwrap().left, [1, 10, 3]);
    }
}
