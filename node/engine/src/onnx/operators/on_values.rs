//! The operators whose results' shapes depend on values: computed when a model is read, for which
//! their inputs must be constant.

use bytes::Bytes;

use super::super::view::NodeView;
use super::generate::integers;
use super::{Reading, generate};
use crate::error::ImportError;
use crate::onnx::proto::data_type;
use crate::shape;
use crate::weights::{Constant, Weight};

type Result<T> = std::result::Result<T, ImportError>;

/// `NonZero`: the places of all values that are not 0, one column each.
pub(crate) fn non_zero(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let weight = view.any_weight(0)?;
    let shape = weight.shape().to_vec();
    let size = weight.dtype().bytes();
    let bytes = weight.typed_bytes();
    let non_zero = |value: &[u8]| match value {
        // Minus zero is zero, too.
        [0, 0, 0, sign] if weight.dtype() == crate::DType::F32 => sign & 0x7f != 0,
        value => value.iter().any(|&byte| byte != 0),
    };
    let places: Vec<usize> = bytes
        .chunks_exact(size)
        .enumerate()
        .filter(|(_, value)| non_zero(value))
        .map(|(place, _)| place)
        .collect();
    let mut rows = Vec::with_capacity(places.len() * shape.len());
    for axis in 0..shape.len() {
        let inner = shape::product(&shape[axis + 1..]);
        rows.extend(places.iter().map(|place| (place / inner % shape[axis]) as i64));
    }
    Ok(Reading::Constants(vec![integers(vec![shape.len(), places.len()], &rows)]))
}

/// `Compress`: the slices along an axis for which a condition holds.
pub(crate) fn compress(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=2)?;
    let (weight, condition) = (view.any_weight(0)?, view.any_weight(1)?);
    if condition.dtype() != crate::DType::Bool {
        return Err(view.wrong_type(1, condition.dtype()));
    }
    let shape = match view.optional_int("axis") {
        Some(_) => weight.shape().to_vec(),
        None => vec![shape::product(weight.shape())],
    };
    let axis = view.check(shape::axis(view.int("axis", 0), shape.len()))?;
    let kept: Vec<usize> = condition
        .bytes()
        .iter()
        .take(shape[axis])
        .enumerate()
        .filter(|(_, flag)| **flag != 0)
        .map(|(place, _)| place)
        .collect();
    let slice_bytes = shape::product(&shape[axis + 1..]) * weight.dtype().bytes();
    let bytes = weight.typed_bytes();
    let mut data = Vec::new();
    for outer in bytes.chunks_exact((shape[axis] * slice_bytes).max(1)) {
        for &place in &kept {
            data.extend_from_slice(&outer[place * slice_bytes..][..slice_bytes]);
        }
    }
    let mut dims = shape;
    dims[axis] = kept.len();
    Ok(Reading::Constants(vec![typed(&weight, dims, data.into())]))
}

fn typed(like: &Weight, dims: Vec<usize>, data: Bytes) -> Constant {
    Constant::new(data_type::code(like.dtype()), dims, data)
}

/// `Unique`: each value or slice once, where it was first, which one each is, and how often.
pub(crate) fn unique(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=1)?;
    let weight = view.any_weight(0)?;
    let (shape, axis) = match view.optional_int("axis") {
        Some(axis) => {
            let shape = weight.shape().to_vec();
            let axis = view.check(shape::axis(axis, shape.len()))?;
            (shape, axis)
        }
        None => (vec![shape::product(weight.shape())], 0),
    };
    let inner = shape::product(&shape[axis + 1..]);
    let outer = shape::product(&shape[..axis]);
    let values = ordered(&weight);
    let slice = |place: usize| -> Vec<f64> {
        let row = |o: usize| (o * shape[axis] + place) * inner;
        (0..outer).flat_map(|o| &values[row(o)..row(o) + inner]).copied().collect()
    };
    let slices: Vec<Vec<f64>> = (0..shape[axis]).map(slice).collect();
    let mut firsts: Vec<usize> = Vec::new();
    let mut which = vec![0; slices.len()];
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by(|&a, &b| compare(&slices[a], &slices[b]).then(a.cmp(&b)));
    for pair in 0..order.len() {
        let place = order[pair];
        let same = pair > 0 && compare(&slices[order[pair - 1]], &slices[place]).is_eq();
        if !same {
            firsts.push(place);
        }
        which[place] = firsts.len() - 1;
    }
    if view.int("sorted", 1) == 0 {
        in_order_of_appearance(&mut firsts, &mut which);
    }
    Ok(Reading::Constants(unique_outputs(&weight, shape, axis, &firsts, &which)))
}

/// All values as numbers that compare as they do; whole numbers beyond 2^53 may fall together.
fn ordered(weight: &Weight) -> Vec<f64> {
    match weight.dtype() {
        crate::DType::Bool => weight.bytes().iter().map(|&flag| f64::from(flag)).collect(),
        crate::DType::F32 => weight.values().into_iter().map(f64::from).collect(),
        crate::DType::I32 | crate::DType::I64 => {
            weight.integers().into_iter().map(|value| value as f64).collect()
        }
    }
}

fn compare(a: &[f64], b: &[f64]) -> std::cmp::Ordering {
    let differing = a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
    differing.unwrap_or(std::cmp::Ordering::Equal)
}

fn in_order_of_appearance(firsts: &mut [usize], which: &mut [usize]) {
    let mut order: Vec<usize> = (0..firsts.len()).collect();
    order.sort_by_key(|&i| firsts[i]);
    let mut renamed = vec![0; order.len()];
    for (new, &old) in order.iter().enumerate() {
        renamed[old] = new;
    }
    which.iter_mut().for_each(|old| *old = renamed[*old]);
    firsts.sort_unstable();
}

fn unique_outputs(
    weight: &Weight,
    shape: Vec<usize>,
    axis: usize,
    firsts: &[usize],
    which: &[usize],
) -> Vec<Constant> {
    let slice_bytes = shape::product(&shape[axis + 1..]) * weight.dtype().bytes();
    let bytes = weight.typed_bytes();
    let mut data = Vec::new();
    for outer in bytes.chunks_exact((shape[axis] * slice_bytes).max(1)) {
        for &place in firsts {
            data.extend_from_slice(&outer[place * slice_bytes..][..slice_bytes]);
        }
    }
    let mut dims = shape;
    dims[axis] = firsts.len();
    let mut counts = vec![0; firsts.len()];
    which.iter().for_each(|&i| counts[i] += 1);
    let list = |values: Vec<i64>| integers(vec![values.len()], &values);
    vec![
        typed(weight, dims, data.into()),
        list(firsts.iter().map(|&place| place as i64).collect()),
        list(which.iter().map(|&i| i as i64).collect()),
        list(counts),
    ]
}

/// `NonMaxSuppression`.
pub(crate) fn non_max_suppression(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(2..=5)?;
    let (boxes, scores) = (view.weight(0)?, view.weight(1)?);
    let (&[batches, count, 4], &[score_batches, classes, score_count]) =
        (boxes.shape(), scores.shape())
    else {
        return Err(view.error("boxes are not [batches, boxes, 4], or scores of other dimensions"));
    };
    if batches != score_batches || count != score_count {
        return Err(view.error("there is not one score for each box"));
    }
    generate::bounded(view, &[batches, classes, count, count])?;
    let limit = usize::try_from(view.integer(2)?.unwrap_or(0)).unwrap_or(0).min(count);
    let overlap_max = view.scalar(3)?.unwrap_or(0.0);
    let score_min = view.scalar(4)?.unwrap_or(f32::NEG_INFINITY);
    let corners = if view.flag("center_point_box")? { around_centre } else { from_corners };
    let corners: Vec<[f32; 4]> = boxes.values().chunks_exact(4).map(corners).collect();
    let scores = scores.values();
    let mut chosen = Vec::new();
    for batch in 0..batches {
        for class in 0..classes {
            let scores = &scores[(batch * classes + class) * count..][..count];
            let boxes = &corners[batch * count..][..count];
            for place in suppress(boxes, scores, limit, overlap_max, score_min) {
                chosen.extend([batch as i64, class as i64, place as i64]);
            }
        }
    }
    Ok(Reading::Constants(vec![integers(vec![chosen.len() / 3, 3], &chosen)]))
}

/// A box as `[top, left, bottom, right]`, from its centre and size, x before y.
fn around_centre(sides: &[f32]) -> [f32; 4] {
    let [x, y, width, height] = [sides[0], sides[1], sides[2], sides[3]];
    [y - height / 2.0, x - width / 2.0, y + height / 2.0, x + width / 2.0]
}

/// A box as `[top, left, bottom, right]`, from any two opposite corners.
fn from_corners(sides: &[f32]) -> [f32; 4] {
    let [a, b, c, d] = [sides[0], sides[1], sides[2], sides[3]];
    [a.min(c), b.min(d), a.max(c), b.max(d)]
}

/// The boxes with the best scores that don't overlap a better one too much.
fn suppress(
    boxes: &[[f32; 4]],
    scores: &[f32],
    limit: usize,
    overlap_max: f32,
    score_min: f32,
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..boxes.len()).filter(|&i| scores[i] > score_min).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut kept: Vec<usize> = Vec::new();
    for place in order {
        if kept.len() == limit {
            break;
        }
        if kept.iter().all(|&other| overlap(&boxes[other], &boxes[place]) <= overlap_max) {
            kept.push(place);
        }
    }
    kept
}

/// The share of two boxes' union that both cover.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |[top, left, bottom, right]: &[f32; 4]| (bottom - top) * (right - left);
    let height = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let width = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let common = height * width;
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}
