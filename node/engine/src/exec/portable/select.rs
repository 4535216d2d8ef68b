//! Values from computed places, or into them.
//!
//! A stranger's indices may be anything: a place beyond the dimension is taken as the nearest in
//! it, here and on every device.

use burn::tensor::Tensor;
use burn::tensor::kind::Basic;

use super::super::Value;
use super::host::Host;
use super::{Run, Site, around, each_kind, flat, places, take};
use crate::graph::{Gather, Scatter, ScatterUpdate};
use crate::shape;

/// Values by computed places.
pub(super) fn gather(site: &Site<'_>, gather: Gather) -> Run {
    let (data, indices) = (site.shape(0).to_vec(), site.shape(1).to_vec());
    let device = site.device.clone();
    if let Gather::Axis { axis } = gather {
        let shape = around(&data, axis);
        return Box::new(move |values| {
            let [value, which] = take(values);
            let which = Host::download(which).into_ints();
            let which = places(which.into_iter().map(|i| within(i, shape[1])), &device);
            vec![each_kind!(value, values => select(values.reshape(shape), which.clone()))]
        });
    }
    Box::new(move |values| {
        let [value, which] = take(values);
        let which = Host::download(which).into_ints();
        let sources = match gather {
            Gather::Axis { axis } | Gather::Elements { axis } => {
                elements(&which, &data, &indices, axis)
            }
            Gather::Nd { batch_dims } => slices(&which, &data, &indices, batch_dims),
        };
        let sources = places(sources, &device);
        vec![each_kind!(value, values => values.select(0, sources.clone()))]
    })
}

fn select<K: Basic>(values: Tensor<3, K>, which: Tensor<1, burn::tensor::Int>) -> Tensor<1, K> {
    flat(values.select(1, which))
}

/// A place counted from either end, within the dimension.
fn within(place: i64, size: usize) -> usize {
    let size = size as i64;
    let place = if place < 0 { place.saturating_add(size) } else { place };
    place.clamp(0, size - 1) as usize
}

/// For each index the place of its value: its own, but along the axis.
fn elements(which: &[i64], data: &[usize], indices: &[usize], axis: usize) -> Vec<usize> {
    let place = |(at, &index): (usize, &i64)| {
        let (mut rest, mut place, mut stride) = (at, 0, 1);
        for dim in (0..data.len()).rev() {
            let own = rest % indices[dim];
            rest /= indices[dim];
            place += stride * if dim == axis { within(index, data[dim]) } else { own };
            stride *= data[dim];
        }
        place
    };
    which.iter().enumerate().map(place).collect()
}

/// For each value of each slice its place.
fn slices(which: &[i64], data: &[usize], indices: &[usize], batch_dims: usize) -> Vec<usize> {
    let depth = indices[indices.len() - 1];
    let tuples_of_batch = shape::product(&indices[batch_dims..indices.len() - 1]);
    let batch_size = shape::product(&data[batch_dims..]);
    let slice = shape::product(&data[batch_dims + depth..]);
    let start = |(at, tuple): (usize, &[i64])| {
        let inner = tuple.iter().zip(&data[batch_dims..]);
        let place = inner.fold(0, |place, (&index, &size)| place * size + within(index, size));
        at / tuples_of_batch * batch_size + place * slice
    };
    let starts = which.chunks_exact(depth).enumerate().map(start);
    starts.flat_map(|start| start..start + slice).collect()
}

/// Values into computed places.
pub(super) fn scatter(site: &Site<'_>, scatter: Scatter) -> Run {
    let (data, indices) = (site.shape(0).to_vec(), site.shape(1).to_vec());
    let (dtype, device) = (site.dtype(0), site.device.clone());
    Box::new(move |values| {
        let [value, which, updates] = take(values);
        let which = Host::download(which).into_ints();
        let targets = match scatter.axis {
            Some(axis) => elements(&which, &data, &indices, axis),
            None => slices(&which, &data, &indices, 0),
        };
        let mut values = Host::download(value);
        match (&mut values, Host::download(updates)) {
            (Host::Bool(values), Host::Bool(updates)) => {
                put(values, &targets, updates, |_, new| new);
            }
            (Host::Float(values), Host::Float(updates)) => {
                put(values, &targets, updates, float_update(scatter.update));
            }
            (Host::Int(values), Host::Int(updates)) => {
                put(values, &targets, updates, int_update(scatter.update));
            }
            _ => unreachable!("the import has checked the types"),
        }
        vec![values.upload(dtype, &device)]
    })
}

fn put<T: Copy>(values: &mut [T], targets: &[usize], updates: Vec<T>, update: fn(T, T) -> T) {
    for (&target, new) in targets.iter().zip(updates) {
        values[target] = update(values[target], new);
    }
}

fn float_update(update: ScatterUpdate) -> fn(f32, f32) -> f32 {
    match update {
        ScatterUpdate::Add => |old, new| old + new,
        ScatterUpdate::Max => f32::max,
        ScatterUpdate::Min => f32::min,
        ScatterUpdate::Mul => |old, new| old * new,
        ScatterUpdate::Replace => |_, new| new,
    }
}

fn int_update(update: ScatterUpdate) -> fn(i64, i64) -> i64 {
    match update {
        ScatterUpdate::Add => i64::wrapping_add,
        ScatterUpdate::Max => i64::max,
        ScatterUpdate::Min => i64::min,
        ScatterUpdate::Mul => i64::wrapping_mul,
        ScatterUpdate::Replace => |_, new| new,
    }
}

/// One value at the index, another elsewhere.
pub(super) fn one_hot(site: &Site<'_>, axis: usize) -> Run {
    let [outer, depth, inner] = around(site.output.1, axis);
    let (dtype, device) = (site.output.0, site.device.clone());
    Box::new(move |values| {
        let [which, pair] = take(values);
        let which = Host::download(which).into_ints();
        let mut chosen = vec![0; outer * depth * inner];
        for (at, &index) in which.iter().enumerate() {
            let index = if index < 0 { index.saturating_add(depth as i64) } else { index };
            // An index that is none of these gives no one at all.
            if let Some(index) = usize::try_from(index).ok().filter(|&index| index < depth) {
                chosen[(at / inner * depth + index) * inner + at % inner] = 1;
            }
        }
        vec![Host::download(pair).pick(&chosen).upload(dtype, &device)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_within_the_dimension() {
        for (place, expected) in [(0, 0), (2, 2), (-1, 2), (-3, 0), (3, 2), (-9, 0)] {
            assert_eq!(within(place, 3), expected, "{place}");
        }
        assert_eq!([within(i64::MIN, 3), within(i64::MAX, 3)], [0, 2]);
    }
}
