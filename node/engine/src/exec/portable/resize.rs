//! Scaling, axis by axis: every pixel of the result is a weighted sum of neighbours.

use burn::tensor::module::interpolate;
use burn::tensor::ops::{CoordinateTransformMode, InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Int, Tensor};

use super::super::Value;
use super::layout::{Pick, picks};
use super::{Run, Site, around, each_kind, flat, image, map, places, take, upload};
use crate::graph::{Coordinates, Interpolation, Nearest, Resize, ResizeAxis};

/// Scaling along axes.
pub(super) fn resize(site: &Site<'_>, resize: &Resize) -> Run {
    if let Interpolation::Nearest(nearest) = resize.interpolation {
        let cuts = resize.coordinates == Coordinates::TfCropAndResize;
        if !cuts {
            return nearest_pixels(site, resize, nearest);
        }
    }
    if let Some(options) = stock(site.shape(0), resize) {
        let shape = image(site.shape(0));
        return map(move |values| flat(interpolate(values.reshape(shape), options.clone())));
    }
    let mut shape = site.shape(0).to_vec();
    // What shrinks comes first, so that no step is larger than both ends.
    let mut axes = resize.axes.clone();
    axes.sort_by_key(|axis| axis.size > shape[axis.axis]);
    let step = |axis: &ResizeAxis| {
        let taps = pixels(resize, axis, shape[axis.axis]);
        let step = Blend::new(around(&shape, axis.axis), &taps, resize.extrapolation, site.device);
        shape[axis.axis] = axis.size;
        step
    };
    let steps: Vec<Blend> = axes.iter().map(step).collect();
    map(move |values| steps.iter().fold(values, |values, step| step.run(values)))
}

/// Burn's own scaling, for images in the ways that all its devices have.
fn stock(shape: &[usize], resize: &Resize) -> Option<InterpolateOptions> {
    let mode = match resize.interpolation {
        Interpolation::Cubic { a: -0.75 } => InterpolateMode::Bicubic,
        Interpolation::Linear => InterpolateMode::Bilinear,
        Interpolation::Cubic { .. } | Interpolation::Nearest(_) => return None,
    };
    let coordinates = match resize.coordinates {
        Coordinates::AlignCorners => CoordinateTransformMode::AlignCorners,
        Coordinates::HalfPixel => CoordinateTransformMode::HalfPixel,
        _ => return None,
    };
    let &[_, _, height, width] = shape else { return None };
    let mut size = [height, width];
    for axis in &resize.axes {
        // It takes the scale from the sizes, and knows of two axes.
        let exact = axis.scale * shape[axis.axis] as f64 == axis.size as f64;
        *size.get_mut(axis.axis.checked_sub(2)?).filter(|_| exact)? = axis.size;
    }
    let plain = !resize.antialias && !resize.exclude_outside;
    let options = InterpolateOptions::new(mode).with_coordinate_transform(coordinates);
    plain.then(|| options.with_output_size(size))
}

fn nearest_pixels(site: &Site<'_>, resize: &Resize, nearest: Nearest) -> Run {
    let shape = site.shape(0);
    let map = |axis: &ResizeAxis| {
        let size = shape[axis.axis];
        let place = |i: usize| round(source(resize.coordinates, axis, size, i), nearest, size);
        (axis.axis, (0..axis.size).map(place).collect())
    };
    let picks = picks(shape, resize.axes.iter().map(map), site.device);
    Box::new(move |values| {
        let [value] = take(values);
        let run = |value, pick: &Pick| each_kind!(value, values => pick.run(values));
        vec![picks.iter().fold(value, run)]
    })
}

/// One axis: as many picks as a pixel has neighbours, each with a weight.
struct Blend {
    shape: [usize; 3],
    neighbours: Vec<(Tensor<1, Int>, Tensor<3>)>,
    /// What is added where a pixel lies outside the region that is cut out.
    outside: Option<Tensor<3>>,
}

impl Blend {
    fn new(shape: [usize; 3], pixels: &[Vec<Tap>], extrapolation: f32, device: &Device) -> Self {
        let count = pixels.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let column = |values: Vec<f32>| -> Tensor<3> {
            let size = values.len();
            upload(values, [1, size, 1], device)
        };
        let neighbour = |i: usize| {
            let tap = |taps: &Vec<Tap>| taps.get(i).copied().unwrap_or_default();
            let sources = places(pixels.iter().map(|taps| tap(taps).place), device);
            (sources, column(pixels.iter().map(|taps| tap(taps).weight).collect()))
        };
        let outside = pixels.iter().any(Vec::is_empty).then(|| {
            let value = |taps: &Vec<Tap>| if taps.is_empty() { extrapolation } else { 0.0 };
            column(pixels.iter().map(value).collect())
        });
        Self { shape, neighbours: (0..count).map(neighbour).collect(), outside }
    }

    fn run(&self, values: Tensor<1>) -> Tensor<1> {
        let values: Tensor<3> = values.reshape(self.shape);
        let weighted = self
            .neighbours
            .iter()
            .map(|(places, weights)| values.clone().select(1, places.clone()).mul(weights.clone()));
        let sum = weighted.reduce(Tensor::add).expect("a pixel has a neighbour");
        flat(match &self.outside {
            Some(outside) => sum.add(outside.clone()),
            None => sum,
        })
    }
}

/// A neighbour of a pixel, and how much it counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tap {
    place: usize,
    weight: f32,
}

/// The neighbours of each pixel along an axis; none for one outside the region that is cut out.
fn pixels(resize: &Resize, axis: &ResizeAxis, size: usize) -> Vec<Vec<Tap>> {
    let pixel = |i: usize| {
        let at = source(resize.coordinates, axis, size, i);
        let cuts = resize.coordinates == Coordinates::TfCropAndResize;
        if cuts && !(0.0..=(size - 1) as f64).contains(&at) {
            return Vec::new();
        }
        if let Interpolation::Nearest(nearest) = resize.interpolation {
            return vec![Tap { place: round(at, nearest, size), weight: 1.0 }];
        }
        let (first, weights) = weights(resize, axis.scale, at);
        taps(resize, first, weights, size)
    };
    (0..axis.size).map(pixel).collect()
}

/// The place in the input that pixel `i` of the result stands for.
fn source(coordinates: Coordinates, axis: &ResizeAxis, size: usize, i: usize) -> f64 {
    let (i, scale) = (i as f64, axis.scale);
    let length = scale * size as f64;
    let last = (size - 1) as f64;
    let half_pixel = (i + 0.5) / scale - 0.5;
    match coordinates {
        Coordinates::AlignCorners if length == 1.0 => 0.0,
        Coordinates::AlignCorners => i * last / (length - 1.0),
        Coordinates::Asymmetric => i / scale,
        Coordinates::HalfPixel => half_pixel,
        Coordinates::HalfPixelSymmetric => {
            let adjustment = axis.size as f64 / length;
            size as f64 / 2.0 * (1.0 - adjustment) + half_pixel
        }
        Coordinates::PytorchHalfPixel if axis.size == 1 => -0.5,
        Coordinates::PytorchHalfPixel => half_pixel,
        Coordinates::TfCropAndResize => {
            let (start, end) = axis.region;
            let within = if axis.size == 1 {
                (end - start) * last / 2.0
            } else {
                i * (end - start) * last / (axis.size - 1) as f64
            };
            start * last + within
        }
    }
}

/// The pixel that is nearest to a place, within the input.
fn round(at: f64, nearest: Nearest, size: usize) -> usize {
    let place = match nearest {
        Nearest::Ceil => at.ceil(),
        Nearest::Floor => at.floor(),
        Nearest::RoundPreferCeil => (at + 0.5).floor(),
        Nearest::RoundPreferFloor => (at - 0.5).ceil(),
    };
    place.clamp(0.0, (size - 1) as f64) as usize
}

/// The first neighbour of a place, and the weights from there on.
fn weights(resize: &Resize, scale: f64, at: f64) -> (i64, Vec<f64>) {
    let stretch = if resize.antialias { 1.0 / scale.min(1.0) } else { 1.0 };
    let reach = match resize.interpolation {
        Interpolation::Cubic { .. } => 2.0 * stretch,
        Interpolation::Linear | Interpolation::Nearest(_) => stretch,
    };
    // From the first place within reach to the last, of a place between two pixels.
    let base = at.ceil() as i64 - 1;
    let ratio = at - base as f64;
    let before = (-reach).floor() as i64 + 1;
    let after = 1 - before;
    let weight = |i: i64| {
        let distance = (i as f64 - ratio).abs() / stretch;
        match resize.interpolation {
            Interpolation::Cubic { a } => cubic(distance, f64::from(a)),
            Interpolation::Linear | Interpolation::Nearest(_) => (1.0 - distance).max(0.0),
        }
    };
    let weights: Vec<f64> = (before..=after).map(weight).collect();
    let sum: f64 = if resize.antialias { weights.iter().sum() } else { 1.0 };
    (base + before, weights.into_iter().map(|weight| weight / sum).collect())
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Neighbours outside the input are the edge, or don't count.
fn taps(resize: &Resize, first: i64, mut weights: Vec<f64>, size: usize) -> Vec<Tap> {
    let places = first..first + weights.len() as i64;
    if resize.exclude_outside {
        for (weight, place) in weights.iter_mut().zip(places.clone()) {
            if !(0..size as i64).contains(&place) {
                *weight = 0.0;
            }
        }
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    let tap = |(place, weight): (i64, f64)| Tap {
        place: place.clamp(0, size as i64 - 1) as usize,
        weight: weight as f32,
    };
    places.zip(weights).map(tap).collect()
}
