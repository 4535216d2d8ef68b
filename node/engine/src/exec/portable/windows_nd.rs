//! Windows over any number of spatial dimensions.

use burn::tensor::module::{conv_transpose2d, conv_transpose3d, conv2d, conv3d};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, PadMode};
use burn::tensor::{Slice, Tensor};

use super::super::Value;
use super::host::Host;
use super::{Run, Site, flat, map, sized, take, upload};
use crate::graph::{ConvNd, PoolNd, Pooling, WindowNd};
use crate::shape;
use crate::tensor::DType;

/// Convolution with any filters, over one to three dimensions, or transposed.
pub(super) fn conv(site: &Site<'_>, conv: &ConvNd) -> Run {
    if conv.window.kernel.len() < 3 { conv_flat(site, conv) } else { conv_deep(site, conv) }
}

/// One dimension is two of which one has size 1.
fn conv_flat(site: &Site<'_>, conv: &ConvNd) -> Run {
    let (input, filters, output) =
        (padded::<4>(site.shape(0)), padded::<4>(site.shape(1)), padded::<4>(site.output.1));
    let window = &conv.window;
    let [stride, dilation] =
        [&window.stride, &window.dilation].map(|list| trailing::<_, 2>(list, 1));
    let padding = trailing::<_, 2>(&window.padding, (0, 0));
    let groups = conv.groups;
    if conv.transposed {
        let options = ConvTransposeOptions::new(stride, [0; 2], [0; 2], dilation, groups);
        return transposed(output, padding, move |x, w| {
            conv_transpose2d(x.reshape(input), w.reshape(filters), None, options.clone())
        });
    }
    let options = ConvOptions::new_with_padding(stride, padding, dilation, groups);
    forward(move |x, w, bias| {
        flat(conv2d(x.reshape(input), w.reshape(filters), bias, options.clone()))
    })
}

fn conv_deep(site: &Site<'_>, conv: &ConvNd) -> Run {
    let (input, filters, output) =
        (padded::<5>(site.shape(0)), padded::<5>(site.shape(1)), padded::<5>(site.output.1));
    let window = &conv.window;
    let [stride, dilation] =
        [&window.stride, &window.dilation].map(|list| trailing::<_, 3>(list, 1));
    let padding = trailing::<_, 3>(&window.padding, (0, 0));
    let groups = conv.groups;
    if conv.transposed {
        let options = ConvTransposeOptions::new(stride, [0; 3], [0; 3], dilation, groups);
        return transposed(output, padding, move |x, w| {
            conv_transpose3d(x.reshape(input), w.reshape(filters), None, options.clone())
        });
    }
    // Burn pads both sides of three dimensions alike; otherwise it is done before.
    let alike = padding.iter().all(|(before, after)| before == after);
    let (before, padding) = if alike { (None, padding) } else { (Some(padding), [(0, 0); 3]) };
    let options = ConvOptions::new_with_padding(stride, padding, dilation, groups);
    forward(move |x, w, bias| {
        let x: Tensor<5> = x.reshape(input);
        let x = match before {
            Some(padding) => x.pad(padding, PadMode::Constant(0.0)),
            None => x,
        };
        flat(conv3d(x, w.reshape(filters), bias, options.clone()))
    })
}

fn forward(
    run: impl Fn(Tensor<1>, Tensor<1>, Option<Tensor<1>>) -> Tensor<1> + Send + Sync + 'static,
) -> Run {
    Box::new(move |values| {
        let mut values = values.into_iter().map(Value::into_float);
        let mut next = || values.next().expect("the import asks for input and filters");
        let (input, filters) = (next(), next());
        vec![Value::Float(run(input, filters, values.next()))]
    })
}

/// The whole transposed convolution, cut to the output's size: then the bias.
fn transposed<const D: usize, const N: usize>(
    output: [usize; D],
    padding: [(usize, usize); N],
    run: impl Fn(Tensor<1>, Tensor<1>) -> Tensor<D> + Send + Sync + 'static,
) -> Run {
    forward(move |x, w, bias| {
        let mut result = run(x, w);
        for (i, &(before, _)) in padding.iter().enumerate() {
            let axis = i + 2;
            let there = result.dims()[axis].saturating_sub(before).min(output[axis]);
            result = result.narrow(axis, before, there);
            let mut missing = result.dims();
            missing[axis] = output[axis] - there;
            if missing[axis] > 0 {
                // Beyond the last window there is nothing.
                let zeros = Tensor::zeros(missing, &result.device());
                result = Tensor::cat(vec![result, zeros], axis);
            }
        }
        match bias {
            Some(bias) => {
                let mut shape = [1; D];
                shape[1] = output[1];
                flat(result.add(bias.reshape(shape)))
            }
            None => flat(result),
        }
    })
}

/// Batch, channels and spatial dimensions, with ones before the spatial ones.
fn padded<const D: usize>(shape: &[usize]) -> [usize; D] {
    let ones = std::iter::repeat_n(1, D - shape.len());
    let dims: Vec<usize> =
        shape[..2].iter().copied().chain(ones).chain(shape[2..].iter().copied()).collect();
    sized(&dims)
}

/// A list with as much of a filling in front as makes it this long.
fn trailing<T: Copy, const N: usize>(list: &[T], filling: T) -> [T; N] {
    std::array::from_fn(|i| if i < N - list.len() { filling } else { list[i + list.len() - N] })
}

/// A pooling: the windows' first values, then their second ones, and so on, each a part of the
/// padded input.
pub(super) fn pool(site: &Site<'_>, pool: &PoolNd) -> Run {
    if matches!(pool.pooling, Pooling::Max { .. }) && site.layer.results.contains(&1) {
        return pool_with_places(site, pool);
    }
    let input = volume(site.shape(0));
    let output = volume(site.output.1);
    let window = Volume::new(&pool.window);
    let padding = [(0, 0), window.padding[0], window.padding[1], window.padding[2]];
    let pooling = pool.pooling;
    let filling = match pooling {
        Pooling::Max { .. } => f32::NEG_INFINITY,
        Pooling::Average { .. } | Pooling::Lp { .. } => 0.0,
    };
    let taps = window.taps(output);
    let shares: Option<Tensor<4>> = match pooling {
        Pooling::Average { .. } => {
            let shares = shares(pool, input, output);
            Some(upload(shares, [1, output[1], output[2], output[3]], site.device))
        }
        Pooling::Lp { .. } | Pooling::Max { .. } => None,
    };
    map(move |values| {
        let values: Tensor<4> = values.reshape(input).pad(padding, PadMode::Constant(filling));
        let values = match pooling {
            Pooling::Lp { p } => values.abs().powi_scalar(p),
            Pooling::Average { .. } | Pooling::Max { .. } => values,
        };
        let parts = taps.iter().map(|tap| values.clone().slice(*tap));
        let combine = |a: Tensor<4>, b: Tensor<4>| match pooling {
            Pooling::Max { .. } => a.max_pair(b),
            Pooling::Average { .. } | Pooling::Lp { .. } => a.add(b),
        };
        let result = parts.reduce(combine).expect("a window has a value");
        flat(match (pooling, &shares) {
            (Pooling::Average { .. }, Some(shares)) => result.mul(shares.clone()),
            (Pooling::Lp { p }, _) => result.powf_scalar(1.0 / p as f32),
            _ => result,
        })
    })
}

/// A shape as images of three dimensions.
fn volume(shape: &[usize]) -> [usize; 4] {
    let [depth, height, width] = trailing(&shape[2..], 1);
    [shape[0] * shape[1], depth, height, width]
}

/// A window over three dimensions.
struct Volume {
    kernel: [usize; 3],
    stride: [usize; 3],
    dilation: [usize; 3],
    padding: [(usize, usize); 3],
}

impl Volume {
    fn new(window: &WindowNd) -> Self {
        Self {
            kernel: trailing(&window.kernel, 1),
            stride: trailing(&window.stride, 1),
            dilation: trailing(&window.dilation, 1),
            padding: trailing(&window.padding, (0, 0)),
        }
    }

    /// All places within a window.
    fn places(&self) -> impl Iterator<Item = [usize; 3]> {
        let [depth, height, width] = self.kernel;
        (0..depth * height * width)
            .map(move |i| [i / width / height, i / width % height, i % width])
    }

    /// For each place in the window the part of the padded input that it sees.
    fn taps(&self, output: [usize; 4]) -> Vec<[Slice; 4]> {
        let along = |i: usize, place: usize| {
            let start = place * self.dilation[i];
            let end = start + (output[i + 1] - 1) * self.stride[i] + 1;
            Slice::new(start as isize, Some(end as isize), self.stride[i] as isize)
        };
        let tap = |[z, y, x]: [usize; 3]| [Slice::full(), along(0, z), along(1, y), along(2, x)];
        self.places().map(tap).collect()
    }

    /// Where along dimension `i` of the input a window's value comes from, if from within.
    fn source(&self, input: [usize; 4], i: usize, window: usize, place: usize) -> Option<usize> {
        let padded = window * self.stride[i] + place * self.dilation[i];
        padded.checked_sub(self.padding[i].0).filter(|&source| source < input[i + 1])
    }
}

/// What each value of a window counts for in its mean.
fn shares(pool: &PoolNd, input: [usize; 4], output: [usize; 4]) -> Vec<f32> {
    let padding_counts = pool.pooling == Pooling::Average { count_include_pad: true };
    let window = Volume::new(&pool.window);
    let after: [usize; 3] = trailing(&pool.padding_after, 0);
    let counted = |i: usize, at: usize| {
        let along = |place: &usize| {
            let padded = at * window.stride[i] + place * window.dilation[i];
            let (before, size) = (window.padding[i].0, input[i + 1]);
            // What rounding up adds never counts.
            if padding_counts {
                padded < before + size + after[i]
            } else {
                (before..before + size).contains(&padded)
            }
        };
        (0..window.kernel[i]).filter(along).count()
    };
    let lists: [Vec<usize>; 3] =
        std::array::from_fn(|i| (0..output[i + 1]).map(|at| counted(i, at)).collect());
    let mut shares = Vec::with_capacity(output[1] * output[2] * output[3]);
    for depth in &lists[0] {
        for height in &lists[1] {
            shares.extend(lists[2].iter().map(|width| 1.0 / (depth * height * width) as f32));
        }
    }
    shares
}

/// Max pooling that also says where its values came from: on the host, for Burn counts places
/// within a channel and over two dimensions only.
fn pool_with_places(site: &Site<'_>, pool: &PoolNd) -> Run {
    let column_major = pool.pooling == Pooling::Max { column_major: true };
    let (input, output) = (volume(site.shape(0)), volume(site.output.1));
    let window = Volume::new(&pool.window);
    let spatial = site.shape(0)[2..].to_vec();
    let device = site.device.clone();
    Box::new(move |values| {
        let [value] = take(values);
        let values = Host::download(value).into_floats();
        let (mut maxima, mut places) = (Vec::new(), Vec::new());
        for at in 0..shape::product(&output) {
            let (max, place) = window.largest(&values, input, output, at);
            maxima.push(max);
            places.push(if column_major { turned(place, &spatial) } else { place } as i64);
        }
        let places = Host::Int(places).upload(DType::I64, &device);
        vec![Host::Float(maxima).upload(DType::F32, &device), places]
    })
}

impl Volume {
    /// The largest value of a window, and its place in the whole input.
    fn largest(
        &self,
        values: &[f32],
        input: [usize; 4],
        output: [usize; 4],
        at: usize,
    ) -> (f32, usize) {
        let [_, depth, height, width] = output;
        let (x, y, z) = (at % width, at / width % height, at / width / height % depth);
        let plane = at / width / height / depth;
        let mut best: Option<(f32, usize)> = None;
        for [dz, dy, dx] in self.places() {
            let source = (
                self.source(input, 0, z, dz),
                self.source(input, 1, y, dy),
                self.source(input, 2, x, dx),
            );
            let (Some(z), Some(y), Some(x)) = source else { continue };
            let place = ((plane * input[1] + z) * input[2] + y) * input[3] + x;
            if best.is_none_or(|(max, _)| values[place] > max) {
                best = Some((values[place], place));
            }
        }
        best.expect("padding is smaller than the window, so each has a value")
    }
}

/// A place counted row by row, as one counted column by column: the first dimension is the inner.
fn turned(place: usize, spatial: &[usize]) -> usize {
    let plane = shape::product(spatial);
    let mut rest = place % plane;
    let mut coordinates = vec![0; spatial.len()];
    for (coordinate, &size) in coordinates.iter_mut().zip(spatial).rev() {
        *coordinate = rest % size;
        rest /= size;
    }
    let column = coordinates.iter().zip(spatial).rev();
    place / plane * plane + column.fold(0, |place, (&at, &size)| place * size + at)
}
