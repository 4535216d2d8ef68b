//! The normalizations, softmax among them.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, softmax as burn_softmax};

use super::super::Value;
use super::host::Host;
use super::{Run, Site, around, flat, full_rank, map, permute, sized, take};
use crate::graph::{Normalize, SoftmaxLike};
use crate::shape::{self, RANK_MAX};
use crate::tensor::DType;

/// Any of the normalizations.
pub(super) fn normalize(site: &Site<'_>, normalize: &Normalize) -> Run {
    let shape = site.shape(0);
    match normalize {
        Normalize::Batch { epsilon } => batch(shape, *epsilon),
        Normalize::Group { groups, epsilon } => {
            let per_group = site.shape(1) == [*groups] && *groups != shape[1];
            group(shape, *groups, *epsilon, if per_group { *groups } else { shape[1] })
        }
        Normalize::Instance { epsilon } => group(shape, shape[1], *epsilon, shape[1]),
        Normalize::Layer { axis, epsilon } => layer(site, *axis, *epsilon),
        Normalize::Lp { axis, p } => lp(shape, *axis, *p),
        Normalize::Lrn { size, alpha, beta, bias } => lrn(shape, *size, [*alpha, *beta, *bias]),
        Normalize::MeanVariance { axes } => mean_variance(shape, axes),
        Normalize::Rms { axis, epsilon } => rms(site, *axis, *epsilon),
    }
}

fn batch(shape: &[usize], epsilon: f32) -> Run {
    let shape = around(shape, 1);
    let row = [1, shape[1], 1];
    Box::new(move |values| {
        let [x, scale, shift, mean, variance] = take(values).map(Value::into_float);
        let [scale, shift, mean, variance] =
            [scale, shift, mean, variance].map(|list| list.reshape::<3, _>(row));
        let factor = scale.div(variance.add_scalar(epsilon).sqrt());
        vec![Value::Float(flat(x.reshape(shape).sub(mean).mul(factor).add(shift)))]
    })
}

/// Over groups of channels; `scales` says how many scales and shifts there are.
fn group(shape: &[usize], groups: usize, epsilon: f32, scales: usize) -> Run {
    let [batch, channels, inner] = around(shape, 1);
    let rows = [batch * groups, channels / groups * inner];
    let scaled = [batch, scales, channels / scales * inner];
    Box::new(move |values| {
        let [x, scale, shift] = take(values).map(Value::into_float);
        let normal = centred(x.reshape(rows), epsilon).0.reshape(scaled);
        let row = [1, scales, 1];
        vec![Value::Float(flat(normal.mul(scale.reshape(row)).add(shift.reshape(row))))]
    })
}

/// Rows with mean 0 and variance 1, their means, and the inverses of their deviations.
fn centred(rows: Tensor<2>, epsilon: f32) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
    let mean = rows.clone().mean_dim(1);
    let rows = rows.sub(mean.clone());
    let variance = rows.clone().square().mean_dim(1);
    let inverse = variance.add_scalar(epsilon).sqrt().recip();
    (rows.mul(inverse.clone()), mean, inverse)
}

fn layer(site: &Site<'_>, axis: usize, epsilon: f32) -> Run {
    let scaling = Scaling::new(site, axis);
    Box::new(move |values| {
        let mut values = values.into_iter().map(Value::into_float);
        let x = values.next().expect("the import asks for an input");
        let (normal, mean, inverse) = centred(x.reshape(scaling.rows), epsilon);
        let result = scaling.run(normal, values);
        [result, flat(mean), flat(inverse)].map(Value::Float).into()
    })
}

fn rms(site: &Site<'_>, axis: usize, epsilon: f32) -> Run {
    let scaling = Scaling::new(site, axis);
    Box::new(move |values| {
        let mut values = values.into_iter().map(Value::into_float);
        let x = values.next().expect("the import asks for an input").reshape(scaling.rows);
        let square = x.clone().square().mean_dim(1);
        let normal = x.div(square.add_scalar(epsilon).sqrt());
        vec![Value::Float(scaling.run(normal, values))]
    })
}

/// Scale, and shift if there is one, along all dimensions from an axis on.
struct Scaling {
    rows: [usize; 2],
    whole: [usize; RANK_MAX],
    arguments: Vec<[usize; RANK_MAX]>,
}

impl Scaling {
    fn new(site: &Site<'_>, axis: usize) -> Self {
        let shape = site.shape(0);
        Self {
            rows: [shape::product(&shape[..axis]), shape::product(&shape[axis..])],
            whole: full_rank(shape),
            arguments: (1..site.arguments.len()).map(|i| full_rank(site.shape(i))).collect(),
        }
    }

    fn run(&self, rows: Tensor<2>, arguments: impl Iterator<Item = Tensor<1>>) -> Tensor<1> {
        let mut arguments =
            arguments.zip(&self.arguments).map(|(values, shape)| values.reshape(*shape));
        let rows: Tensor<RANK_MAX> = rows.reshape(self.whole);
        let scale = arguments.next().expect("the import asks for a scale");
        let scaled = rows.mul(scale);
        flat(match arguments.next() {
            Some(shift) => scaled.add(shift),
            None => scaled,
        })
    }
}

fn lp(shape: &[usize], axis: usize, p: u32) -> Run {
    let shape = around(shape, axis);
    map(move |values| {
        let values: Tensor<3> = values.reshape(shape);
        let norm = match p {
            1 => values.clone().abs().sum_dim(1),
            _ => values.clone().square().sum_dim(1).sqrt(),
        };
        flat(values.div(norm))
    })
}

fn lrn(shape: &[usize], size: usize, [alpha, beta, bias]: [f32; 3]) -> Run {
    let shape = around(shape, 1);
    let [outer, channels, inner] = shape;
    // An even window reaches further to the channels after.
    let (before, after) = ((size - 1) / 2, size / 2);
    map(move |values| {
        let values: Tensor<3> = values.reshape(shape);
        let zeros = |count: usize| Tensor::zeros([outer, count, inner], &values.device());
        let mut parts = vec![values.clone().square()];
        if before > 0 {
            parts.insert(0, zeros(before));
        }
        if after > 0 {
            parts.push(zeros(after));
        }
        let squares = Tensor::cat(parts, 1);
        let windows = (0..size).map(|first| squares.clone().narrow(1, first, channels));
        let sum = windows.reduce(Tensor::add).expect("the import asks for a size above 0");
        let base = sum.mul_scalar(alpha / size as f32).add_scalar(bias);
        flat(values.div(base.powf_scalar(beta)))
    })
}

fn mean_variance(shape: &[usize], axes: &[usize]) -> Run {
    let shape = shape.to_vec();
    let order: Vec<usize> =
        (0..shape.len()).filter(|axis| !axes.contains(axis)).chain(axes.iter().copied()).collect();
    let turned: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
    let back: Vec<usize> =
        (0..shape.len()).map(|axis| order.iter().position(|&at| at == axis).unwrap_or(0)).collect();
    let size: usize = axes.iter().map(|&axis| shape[axis]).product();
    let rows = [shape::product(&shape) / size, size];
    map(move |values| {
        let (normal, _, _) =
            centred(permute(values, &shape, &order).reshape(rows), MEAN_VARIANCE_EPSILON);
        permute(flat(normal), &turned, &back)
    })
}

/// Softmax over `size` values that lie `inner` apart.
pub(super) fn softmax(site: &Site<'_>, size: usize, inner: usize) -> Run {
    let shape = rows(site, size, inner);
    map(move |values| flat(burn_softmax(values.reshape::<3, _>(shape), 1)))
}

fn rows(site: &Site<'_>, size: usize, inner: usize) -> [usize; 3] {
    [shape::product(site.output.1) / size / inner, size, inner]
}

/// The relatives of softmax.
pub(super) fn softmax_like(site: &Site<'_>, like: SoftmaxLike) -> Run {
    match like {
        SoftmaxLike::Log { size, inner } => {
            let shape = rows(site, size, inner);
            map(move |values| flat(log_softmax(values.reshape::<3, _>(shape), 1)))
        }
        SoftmaxLike::Hardmax { size, inner } => {
            let shape: [usize; 3] = sized(&rows(site, size, inner));
            let device = site.device.clone();
            Box::new(move |values| {
                let [value] = take(values);
                let values = Host::download(value).into_floats();
                vec![Host::Float(hardmax(&values, shape)).upload(DType::F32, &device)]
            })
        }
    }
}

/// 1 for the first of the largest values of each row, else 0.
fn hardmax(values: &[f32], [outer, size, inner]: [usize; 3]) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    for row in 0..outer * inner {
        let place = |i: usize| (row / inner * size + i) * inner + row % inner;
        let largest = (1..size)
            .fold(0, |best, i| if values[place(i)] > values[place(best)] { i } else { best });
        result[place(largest)] = 1.0;
    }
    result
}

/// What ONNX's definition of the operator adds to the variance.
const MEAN_VARIANCE_EPSILON: f32 = 1e-9;
