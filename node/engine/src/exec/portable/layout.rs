//! The operators that only move values.

use burn::tensor::kind::Basic;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use super::super::Value;
use super::{Run, Site, around, broadcast, each_kind, flat, full_rank, permute, places, take};
use crate::graph::{DepthToSpace, Direction, Pad, PadMode, Slice, Triangle};
use crate::shape;

/// Another choice of places along one axis, on values seen as `[before, axis, after]`.
pub(super) struct Pick {
    shape: [usize; 3],
    which: Which,
}

enum Which {
    /// Places that follow each other.
    Range { start: usize, length: usize },
    /// Any places.
    Places(Box<Tensor<1, Int>>),
}

impl Pick {
    pub(super) fn run<K: Basic>(&self, values: Tensor<1, K>) -> Tensor<1, K> {
        let values = values.reshape(self.shape);
        flat(match &self.which {
            Which::Range { start, length } => values.narrow(1, *start, *length),
            Which::Places(places) => values.select(1, (**places).clone()),
        })
    }
}

/// The steps from one shape to another, along each axis by a list of places in the input.
///
/// Axes that get shorter come first, so nothing in between is larger than both ends.
pub(super) fn picks(
    shape: &[usize],
    maps: impl IntoIterator<Item = (usize, Vec<usize>)>,
    device: &Device,
) -> Vec<Pick> {
    let mut maps: Vec<_> = maps
        .into_iter()
        .filter(|(axis, map)| map.len() != shape[*axis] || !map.iter().copied().eq(0..map.len()))
        .collect();
    maps.sort_by_key(|(axis, map)| map.len() > shape[*axis]);
    let mut shape = shape.to_vec();
    let pick = |(axis, map): (usize, Vec<usize>)| {
        let start = map[0];
        let follow = map.iter().enumerate().all(|(i, &place)| place == start + i);
        let before = around(&shape, axis);
        shape[axis] = map.len();
        let which = if follow {
            Which::Range { start, length: map.len() }
        } else {
            Which::Places(Box::new(places(map, device)))
        };
        Pick { shape: before, which }
    };
    maps.into_iter().map(pick).collect()
}

fn picking(picks: Vec<Pick>) -> Run {
    Box::new(move |values| {
        let [value] = take(values);
        let run = |value, pick: &Pick| each_kind!(value, values => pick.run(values));
        vec![picks.iter().fold(value, run)]
    })
}

/// Joins along an axis.
pub(super) fn concat(site: &Site<'_>, axis: usize) -> Run {
    let rows = |i: usize| {
        let (outer, inner) = site.shape(i).split_at(axis);
        [shape::product(outer), shape::product(inner)]
    };
    let shapes: Vec<_> = (0..site.arguments.len()).map(rows).collect();
    Box::new(move |values| {
        let mut values = values.into_iter();
        let first = values.next().expect("the import asks for an argument");
        vec![match first {
            Value::Bool(first) => Value::Bool(join(first, values.map(Value::into_bool), &shapes)),
            Value::Float(first) => {
                Value::Float(join(first, values.map(Value::into_float), &shapes))
            }
            Value::Int(first) => Value::Int(join(first, values.map(Value::into_int), &shapes)),
        }]
    })
}

fn join<K: Basic>(
    first: Tensor<1, K>,
    others: impl Iterator<Item = Tensor<1, K>>,
    shapes: &[[usize; 2]],
) -> Tensor<1, K> {
    let all = std::iter::once(first).chain(others);
    // With one outer row, such as a batch of one along the channels, values just follow each other.
    if shapes.iter().all(|shape| shape[0] == 1) {
        return Tensor::cat(all.collect(), 0);
    }
    let rows = all.zip(shapes).map(|(values, &shape)| values.reshape::<2, _>(shape));
    flat(Tensor::cat(rows.collect(), 1))
}

/// Several parts along an axis.
pub(super) fn split(site: &Site<'_>, axis: usize, sizes: &[usize]) -> Run {
    let shape = around(site.shape(0), axis);
    let mut start = 0;
    let part = |&length: &usize| {
        start += length;
        Pick { shape, which: Which::Range { start: start - length, length } }
    };
    let parts: Vec<Pick> = sizes.iter().map(part).collect();
    Box::new(move |values| {
        let [value] = take(values);
        let run = |part: &Pick| each_kind!(value.clone(), values => part.run(values));
        parts.iter().map(run).collect()
    })
}

/// Parts along dimensions.
pub(super) fn slice(site: &Site<'_>, slice: &Slice) -> Run {
    let map = |(axis, &(start, step)): (usize, &(usize, i64))| {
        let place = |i: usize| (start as i64 + i as i64 * step) as usize;
        (axis, (0..site.output.1[axis]).map(place).collect())
    };
    picking(picks(site.shape(0), slice.dims.iter().enumerate().map(map), site.device))
}

/// The whole tensor again and again.
pub(super) fn tile(site: &Site<'_>) -> Run {
    let map = |(axis, &size): (usize, &usize)| {
        (axis, (0..site.output.1[axis]).map(|i| i % size).collect())
    };
    picking(picks(site.shape(0), site.shape(0).iter().enumerate().map(map), site.device))
}

/// The same values along dimensions of size 1.
pub(super) fn expand(site: &Site<'_>) -> Run {
    let (from, to) = (full_rank(site.shape(0)), full_rank(site.output.1));
    Box::new(move |values| {
        let [value] = take(values);
        vec![each_kind!(value, values => broadcast(values, from, to))]
    })
}

/// Another order of dimensions.
pub(super) fn transpose(site: &Site<'_>, order: &[usize]) -> Run {
    permuting(site.shape(0).to_vec(), order.to_vec())
}

fn permuting(shape: Vec<usize>, order: Vec<usize>) -> Run {
    Box::new(move |values| {
        let [value] = take(values);
        vec![each_kind!(value, values => permute(values, &shape, &order))]
    })
}

/// Blocks of channels to blocks of pixels.
pub(super) fn depth_to_space(site: &Site<'_>, DepthToSpace { block, inner }: DepthToSpace) -> Run {
    let [batch, channels, height, width] = super::image(site.shape(0));
    let channels = channels / block / block;
    if inner {
        let shape = vec![batch, channels, block, block, height, width];
        return permuting(shape, vec![0, 1, 4, 2, 5, 3]);
    }
    permuting(vec![batch, block, block, channels, height, width], vec![0, 3, 4, 1, 5, 2])
}

/// Blocks of pixels to channels.
pub(super) fn space_to_depth(site: &Site<'_>, block: usize) -> Run {
    let [batch, channels, height, width] = super::image(site.shape(0));
    let shape = vec![batch, channels, height / block, block, width / block, block];
    permuting(shape, vec![0, 3, 5, 1, 2, 4])
}

/// Padding and cropping.
pub(super) fn pad(site: &Site<'_>, pad: &Pad) -> Run {
    let shape = site.shape(0);
    let dims = pad.amounts.iter().zip(shape).enumerate();
    if pad.mode != PadMode::Constant {
        let map = |(axis, (&(before, _), &size)): (usize, (&(i64, i64), &usize))| {
            let place = |i: usize| mirrored(i as i64 - before, size, pad.mode);
            (axis, (0..site.output.1[axis]).map(place).collect())
        };
        return picking(picks(shape, dims.map(map), site.device));
    }
    // What is cropped goes first; then come blocks of the value, axis by axis.
    let mut cropped = shape.to_vec();
    let mut crops = Vec::new();
    for (axis, (&(before, after), &size)) in dims {
        let start = (-before).max(0) as usize;
        let end = size - (-after).max(0) as usize;
        cropped[axis] = end - start;
        crops.push((axis, (start..end).collect()));
    }
    let crops = picks(shape, crops, site.device);
    let mut grown = cropped;
    let mut blocks = Vec::new();
    for (axis, &(before, after)) in pad.amounts.iter().enumerate() {
        let (before, after) = (before.max(0) as usize, after.max(0) as usize);
        if before + after > 0 {
            blocks.push((around(&grown, axis), before, after));
            grown[axis] += before + after;
        }
    }
    Box::new(move |values| {
        let [value, filling] = take(values);
        vec![match (value, filling) {
            (Value::Bool(values), Value::Bool(f)) => Value::Bool(fill(values, &f, &crops, &blocks)),
            (Value::Float(values), Value::Float(f)) => {
                Value::Float(fill(values, &f, &crops, &blocks))
            }
            (Value::Int(values), Value::Int(f)) => Value::Int(fill(values, &f, &crops, &blocks)),
            _ => unreachable!("the import has checked the types"),
        }]
    })
}

fn fill<K: Basic>(
    values: Tensor<1, K>,
    filling: &Tensor<1, K>,
    crops: &[Pick],
    blocks: &[([usize; 3], usize, usize)],
) -> Tensor<1, K> {
    let values = crops.iter().fold(values, |values, crop| crop.run(values));
    blocks.iter().fold(values, |values, &([outer, size, inner], before, after)| {
        let block = |count: usize| {
            let one: Tensor<3, K> = filling.clone().reshape([1, 1, 1]);
            one.expand([outer, count, inner])
        };
        let mut parts = Vec::new();
        if before > 0 {
            parts.push(block(before));
        }
        parts.push(values.reshape([outer, size, inner]));
        if after > 0 {
            parts.push(block(after));
        }
        flat(Tensor::cat(parts, 1))
    })
}

/// The place within `size` that a place outside stands for.
fn mirrored(place: i64, size: usize, mode: PadMode) -> usize {
    let size = size as i64;
    let place = match mode {
        PadMode::Constant | PadMode::Edge => place.clamp(0, size - 1),
        PadMode::Wrap => place.rem_euclid(size),
        PadMode::Reflect if size == 1 => 0,
        PadMode::Reflect => {
            let period = 2 * (size - 1);
            let place = place.rem_euclid(period);
            place.min(period - place)
        }
    };
    place as usize
}

/// Zeros on one side of a diagonal.
pub(super) fn triangle(site: &Site<'_>, Triangle { kept, diagonal }: Triangle) -> Run {
    let shape = site.shape(0);
    let (outer, matrix) = shape.split_at(shape.len() - 2);
    let (rows, columns) = (matrix[0] as i64, matrix[1] as i64);
    let gone = |row: i64, column: i64| {
        let side = (column - row).cmp(&diagonal);
        match kept {
            Direction::Lower => side.is_gt(),
            Direction::Upper => side.is_lt(),
        }
    };
    let mask: Vec<bool> =
        (0..rows).flat_map(|row| (0..columns).map(move |column| gone(row, column))).collect();
    let shape = [shape::product(outer), mask.len()];
    let mask: Tensor<2, Bool> =
        Tensor::from_data(TensorData::new(mask, [1, shape[1]]), site.device);
    Box::new(move |values| {
        let [value] = take(values);
        vec![each_kind!(value, values => clear(values.reshape(shape), mask.clone()))]
    })
}

fn clear<K: Basic>(values: Tensor<2, K>, mask: Tensor<2, Bool>) -> Tensor<1, K> {
    let zeros = values.zeros_like();
    let mask = mask.expand(values.dims());
    flat(values.mask_where(mask, zeros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_stand_for_places_inside() {
        let check = |mode, expected: [usize; 9]| {
            let places: Vec<usize> = (-3..6).map(|place| mirrored(place, 3, mode)).collect();
            assert_eq!(places, expected, "{mode:?}");
            assert_eq!(mirrored(-7, 1, mode), 0, "{mode:?}");
        };
        check(PadMode::Edge, [0, 0, 0, 0, 1, 2, 2, 2, 2]);
        check(PadMode::Reflect, [1, 2, 1, 0, 1, 2, 1, 0, 1]);
        check(PadMode::Wrap, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }
}
