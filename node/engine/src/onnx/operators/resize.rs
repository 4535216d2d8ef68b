//! `Resize`, and its forerunner `Upsample`.

use super::super::view::NodeView;
use super::{Arguments, FLOATS, Reading};
use crate::error::ImportError;
use crate::graph::{Coordinates, Interpolation, Nearest, Op, Resize, ResizeAxis};
use crate::shape;

type Result<T> = std::result::Result<T, ImportError>;

/// `Upsample`: scales are an attribute before version 9.
pub(crate) fn upsample(view: &NodeView<'_>) -> Result<Reading> {
    view.expect_inputs(1..=2)?;
    let scales = match view.floats("scales") {
        Some(scales) => scales.to_vec(),
        None => view.weight(1)?.values(),
    };
    old(view, &scales)
}

/// `Resize`; version 10 has only scales, and one way to find a pixel's place.
pub(crate) fn resize(view: &NodeView<'_>) -> Result<Reading> {
    if view.opset < 11 {
        view.expect_inputs(2..=2)?;
        return old(view, &view.weight(1)?.values());
    }
    view.expect_inputs(2..=4)?;
    let arguments = view.arguments([0])?;
    let rank = arguments.shape(0).len();
    let listed: Vec<usize> = match view.ints("axes") {
        Some(listed) => {
            let axes = listed.iter().map(|&axis| shape::axis(axis, rank));
            view.check(axes.collect::<shape::Result<_>>())?
        }
        None => (0..rank).collect(),
    };
    let coordinates = coordinates(view)?;
    let regions = regions(view, coordinates, listed.len())?;
    let scaled = scales_and_sizes(view, arguments.shape(0), &listed)?;
    let axes = listed.iter().zip(scaled).zip(regions);
    let axes = axes
        .map(|((&axis, (scale, size)), region)| ResizeAxis { axis, size, scale, region })
        .collect();
    let resize = Resize {
        axes,
        interpolation: interpolation(view)?,
        coordinates,
        exclude_outside: view.flag("exclude_outside")?,
        antialias: view.flag("antialias")?,
        extrapolation: view.float("extrapolation_value").unwrap_or(0.0),
    };
    finish(view, arguments, resize)
}

fn old(view: &NodeView<'_>, scales: &[f32]) -> Result<Reading> {
    let arguments = view.arguments([0])?;
    let scaled = by_scales(view, arguments.shape(0), scales)?;
    let axis = |(axis, (scale, size))| ResizeAxis { axis, size, scale, region: (0.0, 1.0) };
    let interpolation = match view.string("mode")?.unwrap_or("nearest") {
        "nearest" => Interpolation::Nearest(Nearest::Floor),
        "linear" | "bilinear" => Interpolation::Linear,
        other => return Err(view.error(format!("mode '{other}' is not one of ONNX's"))),
    };
    let resize = Resize {
        axes: scaled.into_iter().enumerate().map(axis).collect(),
        interpolation,
        coordinates: Coordinates::Asymmetric,
        exclude_outside: false,
        antialias: false,
        extrapolation: 0.0,
    };
    finish(view, arguments, resize)
}

fn finish(view: &NodeView<'_>, arguments: Arguments, mut resize: Resize) -> Result<Reading> {
    if !matches!(resize.interpolation, Interpolation::Nearest(_)) {
        arguments.expect_types(view, &FLOATS)?;
    }
    let mut output = arguments.shape(0).to_vec();
    for axis in &resize.axes {
        output[axis.axis] = axis.size;
    }
    view.check(shape::elements(&output))?;
    // What stays as it is needs no taps, unless a region of it is cut out.
    let input = arguments.shape(0);
    let crops = resize.coordinates == Coordinates::TfCropAndResize;
    resize.axes.retain(|axis| crops || axis.scale != 1.0 || axis.size != input[axis.axis]);
    for axis in &resize.axes {
        // Antialiasing looks at as many pixels as become one, for each of the result.
        let taps = 4.0 * (1.0 / axis.scale).max(1.0);
        if resize.antialias && taps * axis.size as f64 > TAPS_MAX {
            return Err(view.error(format!("a scale of {} is too small", axis.scale)));
        }
    }
    let dtype = arguments.dtype();
    Ok(arguments.one(Op::Resize(resize), dtype, output))
}

fn interpolation(view: &NodeView<'_>) -> Result<Interpolation> {
    Ok(match view.string("mode")?.unwrap_or("nearest") {
        "nearest" => {
            let nearest = match view.string("nearest_mode")?.unwrap_or("round_prefer_floor") {
                "ceil" => Nearest::Ceil,
                "floor" => Nearest::Floor,
                "round_prefer_ceil" => Nearest::RoundPreferCeil,
                "round_prefer_floor" => Nearest::RoundPreferFloor,
                other => {
                    return Err(view.error(format!("nearest_mode '{other}' is not one of ONNX's")));
                }
            };
            Interpolation::Nearest(nearest)
        }
        "linear" => Interpolation::Linear,
        "cubic" => Interpolation::Cubic { a: view.float("cubic_coeff_a").unwrap_or(-0.75) },
        other => return Err(view.error(format!("mode '{other}' is not one of ONNX's"))),
    })
}

fn coordinates(view: &NodeView<'_>) -> Result<Coordinates> {
    let name = view.string("coordinate_transformation_mode")?.unwrap_or("half_pixel");
    Ok(match name {
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "tf_crop_and_resize" => Coordinates::TfCropAndResize,
        other => {
            let problem = format!("coordinate_transformation_mode '{other}' is not supported");
            return Err(view.error(problem));
        }
    })
}

/// The region of each axis that is cut out.
fn regions(view: &NodeView<'_>, coordinates: Coordinates, axes: usize) -> Result<Vec<(f64, f64)>> {
    if coordinates != Coordinates::TfCropAndResize {
        return Ok(vec![(0.0, 1.0); axes]);
    }
    let roi = view.weight(1)?.values();
    if roi.len() != 2 * axes || roi.iter().any(|value| !value.is_finite()) {
        return Err(view.error("roi is not two finite numbers for each axis"));
    }
    Ok((0..axes).map(|i| (f64::from(roi[i]), f64::from(roi[i + axes]))).collect())
}

/// The scale and the size in the result of each listed axis.
fn scales_and_sizes(
    view: &NodeView<'_>,
    shape: &[usize],
    listed: &[usize],
) -> Result<Vec<(f64, usize)>> {
    let sizes: Vec<usize> = listed.iter().map(|&axis| shape[axis]).collect();
    if let Some(scales) = view.optional_weight(2)?
        && shape::product(scales.shape()) > 0
    {
        return by_scales(view, &sizes, &scales.values());
    }
    let targets = view.integers(3)?;
    let targets = view.check(shape::from_i64(&targets))?;
    if targets.len() != sizes.len() {
        return Err(view.error(format!("{} sizes are not one for each axis", targets.len())));
    }
    let scale = |(&target, &size): (&usize, &usize)| target as f64 / size as f64;
    let scales = targets.iter().zip(&sizes).map(scale);
    let common = match view.string("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
        "stretch" => return Ok(scales.zip(targets.iter().copied()).collect()),
        "not_larger" => scales.fold(f64::INFINITY, f64::min),
        "not_smaller" => scales.fold(0.0, f64::max),
        other => {
            let problem = format!("keep_aspect_ratio_policy '{other}' is not one of ONNX's");
            return Err(view.error(problem));
        }
    };
    let size = |&size: &usize| (common, ((common * size as f64 + 0.5).floor() as usize).max(1));
    Ok(sizes.iter().map(size).collect())
}

fn by_scales(view: &NodeView<'_>, sizes: &[usize], scales: &[f32]) -> Result<Vec<(f64, usize)>> {
    let usable = |scale: &f32| scale.is_finite() && *scale > 0.0;
    if scales.len() != sizes.len() || !scales.iter().all(usable) {
        return Err(view.error(format!("scales {scales:?} are not one for each axis")));
    }
    let scaled = |(&size, &scale): (&usize, &f32)| {
        let size = (f64::from(scale) * size as f64).floor() as usize;
        if size == 0 { None } else { Some((f64::from(scale), size)) }
    };
    let scaled = sizes.iter().zip(scales).map(scaled).collect::<Option<Vec<_>>>();
    scaled.ok_or_else(|| view.error(format!("scales {scales:?} leave nothing of {sizes:?}")))
}

/// Most pixels that a whole axis looks at.
const TAPS_MAX: f64 = (1u64 << 24) as f64;
