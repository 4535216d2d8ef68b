//! The operators that make one value of many, and those that order values.

use burn::tensor::Tensor;

use super::super::Value;
use super::host::Host;
use super::{Run, Site, around, flat, map, permute, take};
use crate::graph::{Arg, CumSum, Extreme, Reduce, Reduction, Tie, TopK};
use crate::shape;
use crate::tensor::DType;

/// Many values to one, along axes.
pub(super) fn reduce(site: &Site<'_>, reduce: &Reduce) -> Run {
    let shape = site.shape(0).to_vec();
    // The axes come last, so that the values to reduce lie side by side.
    let kept = (0..shape.len()).filter(|axis| !reduce.axes.contains(axis));
    let order: Vec<usize> = kept.chain(reduce.axes.iter().copied()).collect();
    let size: usize = reduce.axes.iter().map(|&axis| shape[axis]).product();
    let rows = [shape::product(&shape) / size, size];
    let by = reduce.by;
    if site.dtype(0) == DType::F32 {
        return map(move |values| {
            let values = permute(values, &shape, &order);
            flat(floats(values.reshape(rows), by))
        });
    }
    let (dtype, device) = (site.dtype(0), site.device.clone());
    Box::new(move |values| {
        let [value] = take(values);
        let value = super::each_kind!(value, values => permute(values, &shape, &order));
        let values = Host::download(value).into_ints();
        let results: Vec<i64> = values.chunks_exact(size).map(|row| ints(row, by)).collect();
        let results = match dtype {
            DType::Bool => Host::Bool(results.into_iter().map(|flag| flag != 0).collect()),
            DType::F32 | DType::I32 | DType::I64 => Host::Int(results),
        };
        vec![results.upload(dtype, &device)]
    })
}

fn floats(rows: Tensor<2>, by: Reduction) -> Tensor<2> {
    match by {
        Reduction::L1 => rows.abs().sum_dim(1),
        Reduction::L2 => rows.square().sum_dim(1).sqrt(),
        Reduction::LogSum => rows.sum_dim(1).log(),
        Reduction::LogSumExp => {
            // The largest exponent is taken out, so that none overflows.
            let max = rows.clone().max_dim(1);
            let finite = max.clone().is_finite();
            let max = max.zeros_like().mask_where(finite, max);
            rows.sub(max.clone()).exp().sum_dim(1).log().add(max)
        }
        Reduction::Max => rows.max_dim(1),
        Reduction::Mean => rows.mean_dim(1),
        Reduction::Min => rows.min_dim(1),
        Reduction::Prod => rows.prod_dim(1),
        Reduction::Sum => rows.sum_dim(1),
        Reduction::SumSquare => rows.square().sum_dim(1),
    }
}

fn ints(row: &[i64], by: Reduction) -> i64 {
    let values = row.iter().copied();
    match by {
        Reduction::L1 => values.fold(0, |sum, value| sum.wrapping_add(value.wrapping_abs())),
        Reduction::Max => values.max().unwrap_or_default(),
        Reduction::Min => values.min().unwrap_or_default(),
        Reduction::Prod => values.fold(1, i64::wrapping_mul),
        Reduction::Sum => values.fold(0, i64::wrapping_add),
        Reduction::SumSquare => {
            values.fold(0, |sum, value| sum.wrapping_add(value.wrapping_mul(value)))
        }
        other => unreachable!("the import has no {} of whole numbers", other.name()),
    }
}

/// The place of the largest or smallest value along an axis.
pub(super) fn arg(site: &Site<'_>, arg: Arg) -> Run {
    let shape = around(site.shape(0), arg.axis);
    let device = site.device.clone();
    Box::new(move |values| {
        let [value] = take(values);
        let values = Host::download(value);
        let place = |row: Vec<usize>| {
            let better = |a: usize, b: usize| {
                let order = values.compare(row[a], row[b]);
                let order = if arg.extreme == Extreme::Largest { order.reverse() } else { order };
                order.is_lt() || arg.tie == Tie::Last && order.is_eq()
            };
            (1..row.len()).fold(0, |best, i| if better(i, best) { i } else { best }) as i64
        };
        let places = rows(shape).map(place).collect();
        vec![Host::Int(places).upload(DType::I64, &device)]
    })
}

/// The places of the values of each row along the middle dimension.
fn rows([outer, size, inner]: [usize; 3]) -> impl Iterator<Item = Vec<usize>> {
    (0..outer * inner)
        .map(move |row| (0..size).map(|i| (row / inner * size + i) * inner + row % inner).collect())
}

/// The largest or smallest values along an axis, best first, and their places.
pub(super) fn top_k(site: &Site<'_>, top: TopK) -> Run {
    let shape = around(site.shape(0), top.axis);
    let count = site.output.1[top.axis];
    let (dtype, device) = (site.dtype(0), site.device.clone());
    Box::new(move |values| {
        let [value] = take(values);
        let values = Host::download(value);
        let [outer, _, inner] = shape;
        let (mut sources, mut places) = (vec![0; outer * count * inner], Vec::new());
        places.resize(sources.len(), 0);
        for (row, members) in rows(shape).enumerate() {
            let mut order: Vec<usize> = (0..members.len()).collect();
            // A stable sort: of equal values, the first comes first.
            order.sort_by(|&a, &b| {
                let order = values.compare(members[a], members[b]);
                if top.extreme == Extreme::Largest { order.reverse() } else { order }
            });
            for (i, &place) in order[..count].iter().enumerate() {
                let at = (row / inner * count + i) * inner + row % inner;
                sources[at] = members[place];
                places[at] = place as i64;
            }
        }
        let best = values.pick(&sources).upload(dtype, &device);
        vec![best, Host::Int(places).upload(DType::I64, &device)]
    })
}

/// Sums along an axis, up to each place.
pub(super) fn cum_sum(site: &Site<'_>, sum: CumSum) -> Run {
    let shape = around(site.shape(0), sum.axis);
    let (dtype, device) = (site.dtype(0), site.device.clone());
    if dtype == DType::F32 {
        return map(move |values| flat(running(values.reshape(shape), sum)));
    }
    Box::new(move |values| {
        let [value] = take(values);
        let mut values = Host::download(value).into_ints();
        for mut row in rows(shape) {
            if sum.reverse {
                row.reverse();
            }
            let mut total = 0i64;
            for place in row {
                let value = values[place];
                let with = total.wrapping_add(value);
                values[place] = if sum.exclusive { total } else { with };
                total = with;
            }
        }
        vec![Host::Int(values).upload(dtype, &device)]
    })
}

fn running(values: Tensor<3>, sum: CumSum) -> Tensor<3> {
    let values = if sum.reverse { values.flip([1]) } else { values };
    let sums = values.clone().cumsum(1);
    let sums = if sum.exclusive { shifted(sums) } else { sums };
    if sum.reverse { sums.flip([1]) } else { sums }
}

/// Every place gets the value before it; the first gets 0.
fn shifted(sums: Tensor<3>) -> Tensor<3> {
    let [outer, size, inner] = sums.dims();
    let zeros = Tensor::zeros([outer, 1, inner], &sums.device());
    if size == 1 {
        return zeros;
    }
    Tensor::cat(vec![zeros, sums.narrow(1, 0, size - 1)], 1)
}
