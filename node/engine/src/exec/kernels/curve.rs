//! The activations that are more than bounds and slopes, on values that have just been stored.
//!
//! They are made of one exponential. `e^x = 2^n e^r` with a whole `n` and `|r| <= ln 2 / 2`, where
//! the series of `e^r - 1` is exact to a `f32` after seven terms. Taking one off before the power
//! of two goes on keeps small results accurate to their own size, not only to one.

use super::BLOCK;
use super::lanes::Lanes;

/// A function of each value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Curve {
    /// The value itself.
    None,
    /// `gamma * x` above 0; `gamma * alpha * (exp(x * steep) - 1)` below.
    Exponential { alpha: f32, gamma: f32, steep: f32 },
    /// `x` times the share of a normal distribution below it.
    Gelu,
    /// The same by a polynomial and the hyperbolic tangent.
    GeluTanh,
    /// `alpha * x + beta`, from 0 to 1.
    HardSigmoid { alpha: f32, beta: f32 },
    /// `x` times its hard sigmoid with 1/6 and 1/2.
    HardSwish,
    /// `x * tanh(ln(1 + exp(x)))`.
    Mish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x / (1 + |x|)`.
    Softsign,
    /// `x * sigmoid(alpha * x)`.
    Swish { alpha: f32 },
    /// The hyperbolic tangent.
    Tanh,
}

/// Applies a curve to `pixels` times sixteen values in place.
///
/// # Safety
/// They are there, and the processor has the instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn apply<L: Lanes>(curve: &Curve, values: *mut f32, pixels: usize) {
    // SAFETY: as the caller says, here and in all functions below.
    unsafe {
        match *curve {
            Curve::None => {}
            Curve::Exponential { alpha, gamma, steep } => each::<L>(values, pixels, |x| {
                let below = exp_minus_one(x.min(L::splat(0.0)).mul(L::splat(steep)));
                let above = x.max(L::splat(0.0)).mul(L::splat(gamma));
                below.mul_add(L::splat(alpha * gamma), above)
            }),
            Curve::Gelu => each::<L>(values, pixels, |x| gelu(x)),
            Curve::GeluTanh => each::<L>(values, pixels, |x| {
                let cube = x.mul(x).mul(x);
                // tanh(y) is a sigmoid of 2 y, stretched: so is the half of it plus a half.
                let y = cube.mul_add(L::splat(CUBIC), x).mul(L::splat(2.0 * ROOT_2_BY_PI));
                x.mul(sigmoid(y))
            }),
            Curve::HardSigmoid { alpha, beta } => {
                each::<L>(values, pixels, |x| hard_sigmoid(x, alpha, beta));
            }
            Curve::HardSwish => {
                each::<L>(values, pixels, |x| x.mul(hard_sigmoid(x, 1.0 / 6.0, 0.5)));
            }
            Curve::Mish => each::<L>(values, pixels, |x| {
                // tanh(ln(1 + e)) is (e² + 2 e) / (e² + 2 e + 2); above the bound it is 1.
                let e = exp_minus_one(x.min(L::splat(MISH_MAX))).add(L::splat(1.0));
                let n = e.mul(e.add(L::splat(2.0)));
                x.mul(n.div(n.add(L::splat(2.0))))
            }),
            Curve::Sigmoid => each::<L>(values, pixels, |x| sigmoid(x)),
            Curve::Softsign => {
                each::<L>(values, pixels, |x| x.div(absolute(x).add(L::splat(1.0))));
            }
            Curve::Swish { alpha } => {
                each::<L>(values, pixels, |x| x.mul(sigmoid(x.mul(L::splat(alpha)))));
            }
            Curve::Tanh => each::<L>(values, pixels, |x| {
                let bounded = x.max(L::splat(-TANH_MAX)).min(L::splat(TANH_MAX));
                let e = exp_minus_one(bounded.add(bounded));
                e.div(e.add(L::splat(2.0)))
            }),
        }
    }
}

#[inline(always)]
unsafe fn each<L: Lanes>(values: *mut f32, pixels: usize, function: impl Fn(L) -> L) {
    for i in 0..pixels {
        // SAFETY: as the caller says.
        unsafe {
            let at = values.add(i * BLOCK);
            function(L::load(at)).store(at);
        }
    }
}

#[inline(always)]
unsafe fn absolute<L: Lanes>(x: L) -> L {
    // SAFETY: as the caller says.
    unsafe { x.max(L::splat(0.0).sub(x)) }
}

#[inline(always)]
unsafe fn hard_sigmoid<L: Lanes>(x: L, alpha: f32, beta: f32) -> L {
    // SAFETY: as the caller says.
    unsafe {
        let line = x.mul_add(L::splat(alpha), L::splat(beta));
        line.max(L::splat(0.0)).min(L::splat(1.0))
    }
}

#[inline(always)]
unsafe fn sigmoid<L: Lanes>(x: L) -> L {
    // SAFETY: as the caller says.
    unsafe {
        let one = L::splat(1.0);
        let e = exp_minus_one(L::splat(0.0).sub(x)).add(one);
        one.div(e.add(one))
    }
}

/// By the error function: Abramowitz and Stegun, *Handbook of Mathematical Functions*, 7.1.26,
/// which is right to 1.5e-7. For either sign it is the positive part of `x`, less `|x|` times the
/// share of the normal distribution beyond `|x|`.
#[inline(always)]
unsafe fn gelu<L: Lanes>(x: L) -> L {
    // SAFETY: as the caller says.
    unsafe {
        let size = absolute(x);
        let slope = L::splat(ERF[0] * std::f32::consts::FRAC_1_SQRT_2);
        let t = L::splat(1.0).div(size.mul_add(slope, L::splat(1.0)));
        let mut sum = L::splat(ERF[5]);
        for &factor in ERF[1..5].iter().rev() {
            sum = sum.mul_add(t, L::splat(factor));
        }
        let bell = exp_minus_one(x.mul(x).mul(L::splat(-0.5))).add(L::splat(1.0));
        let beyond = sum.mul(t).mul(bell).mul(L::splat(-0.5));
        size.mul_add(beyond, x.max(L::splat(0.0)))
    }
}

/// `e^x - 1`, from -1 to 1e38.
#[inline(always)]
unsafe fn exp_minus_one<L: Lanes>(x: L) -> L {
    // SAFETY: as the caller says.
    unsafe {
        let x = x.max(L::splat(EXP_MIN)).min(L::splat(EXP_MAX));
        let turns = x.mul(L::splat(std::f32::consts::LOG2_E));
        let n = turns.add(L::splat(ROUND)).sub(L::splat(ROUND));
        let r = n.mul_add(L::splat(-LN_2[1]), n.mul_add(L::splat(-LN_2[0]), x));
        let mut sum = L::splat(SERIES[SERIES.len() - 1]);
        for &factor in SERIES[..SERIES.len() - 1].iter().rev() {
            sum = sum.mul_add(r, L::splat(factor));
        }
        let one = L::splat(1.0);
        sum.mul(r).times_power(n).add(one.times_power(n).sub(one))
    }
}

/// Adding it leaves no room for a fraction, so it rounds to the nearest whole number.
const ROUND: f32 = 12_582_912.0;
/// The logarithm of 2 in two parts; a whole number up to 128 times the first is exact.
const LN_2: [f32; 2] = [0.693_359_4, (std::f64::consts::LN_2 - 0.693_359_375) as f32];
/// One by the factorials, from that of 1 on.
const SERIES: [f32; 7] =
    [1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
/// Beyond, the exponential is less than the smallest normal number ...
const EXP_MIN: f32 = -87.0;
/// ... or near the largest.
const EXP_MAX: f32 = 88.0;
/// Beyond, the hyperbolic tangent rounds to 1.
const TANH_MAX: f32 = 10.0;
/// Beyond, mish is the value itself.
const MISH_MAX: f32 = 20.0;
/// The slope and the five factors of the error function.
const ERF: [f32; 6] =
    [0.327_591_1, 0.254_829_6, -0.284_496_74, 1.421_413_8, -1.453_152, 1.061_405_4];
/// Of the cube, in the polynomial that stands for the error function.
const CUBIC: f32 = 0.044_715;
/// The root of 2 / π.
const ROOT_2_BY_PI: f32 = 0.797_884_6;

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Isa, Kernel};
    use super::*;
    use quickcheck::{Arbitrary, Gen, quickcheck};

    impl Arbitrary for Curve {
        fn arbitrary(g: &mut Gen) -> Self {
            let number = |g: &mut Gen| f32::from(1 + u8::arbitrary(g) % 20) / 8.0;
            match u8::arbitrary(g) % 11 {
                0 => Self::None,
                1 => Self::Exponential { alpha: number(g), gamma: number(g), steep: number(g) },
                2 => Self::Gelu,
                3 => Self::GeluTanh,
                4 => Self::HardSigmoid { alpha: number(g), beta: number(g) },
                5 => Self::HardSwish,
                6 => Self::Mish,
                7 => Self::Sigmoid,
                8 => Self::Softsign,
                9 => Self::Swish { alpha: number(g) },
                _ => Self::Tanh,
            }
        }
    }

    /// The definition, in double precision.
    pub(in super::super) fn defined(curve: Curve, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let hard = |alpha: f64, beta: f64| (alpha * x + beta).clamp(0.0, 1.0);
        match curve {
            Curve::None => x,
            Curve::Exponential { alpha, gamma, steep } => {
                let [alpha, gamma, steep] = [alpha, gamma, steep].map(f64::from);
                gamma * if x > 0.0 { x } else { alpha * (x * steep).exp_m1() }
            }
            Curve::Gelu => x * normal_share(x),
            Curve::GeluTanh => {
                let inner = x + 0.044715 * x * x * x;
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * inner).tanh())
            }
            Curve::HardSigmoid { alpha, beta } => hard(f64::from(alpha), f64::from(beta)),
            Curve::HardSwish => x * hard(1.0 / 6.0, 0.5),
            Curve::Mish => x * x.exp().ln_1p().tanh(),
            Curve::Sigmoid => sigmoid(x),
            Curve::Softsign => x / (1.0 + x.abs()),
            Curve::Swish { alpha } => x * sigmoid(f64::from(alpha) * x),
            Curve::Tanh => x.tanh(),
        }
    }

    /// The share of a normal distribution below `x`, by the trapezoidal rule.
    fn normal_share(x: f64) -> f64 {
        let bell = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
        const STEPS: u32 = 4000;
        let end = x.abs().min(12.0);
        let step = end / f64::from(STEPS);
        let inside: f64 = (1..STEPS).map(|i| bell(f64::from(i) * step)).sum();
        let half = step * (inside + 0.5 * (bell(0.0) + bell(end)));
        if x < 0.0 { 0.5 - half } else { 0.5 + half }
    }

    struct Bend<'a>(Curve, &'a mut [f32; BLOCK]);

    impl Kernel for Bend<'_> {
        #[inline(always)]
        unsafe fn run<L: Lanes>(self) {
            // SAFETY: sixteen values are there.
            unsafe { L::bend(&self.0, self.1.as_mut_ptr(), 1) }
        }
    }

    fn bent(isa: Isa, curve: Curve, mut values: [f32; BLOCK]) -> [f32; BLOCK] {
        // SAFETY: the kernel asks for nothing.
        unsafe { isa.run(Bend(curve, &mut values)) }
        values
    }

    quickcheck! {
        fn curves_follow_their_definitions(curve: Curve, values: Vec<i16>, scale: u8) -> bool {
            // From a thousandth to a few hundred; errors are in proportion to the largest result.
            let scale = 2f32.powi(i32::from(scale % 19) - 10) / 32768.0;
            let x: [f32; BLOCK] =
                std::array::from_fn(|i| f32::from(*values.get(i).unwrap_or(&(i as i16))) * scale);
            let expected = x.map(|x| defined(curve, f64::from(x)));
            let peak = expected.iter().fold(1e-30f64, |peak, value| peak.max(value.abs()));
            Isa::all().into_iter().all(|isa| {
                let values = bent(isa, curve, x);
                let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 1e-6 * peak;
                let fine = values.iter().zip(&expected).all(near);
                if !fine {
                    eprintln!("{curve:?} of {x:?} on {}: {values:?}, {expected:?}", isa.name());
                }
                fine
            })
        }
    }

    #[test]
    fn curves_of_the_extremes_are_as_defined() {
        let curves = [
            (Curve::Exponential { alpha: 2.0, gamma: 1.0, steep: 1.0 }, [-2.0, 1e30]),
            (Curve::Gelu, [0.0, 1e30]),
            (Curve::HardSigmoid { alpha: 0.2, beta: 0.5 }, [0.0, 1.0]),
            (Curve::Sigmoid, [0.0, 1.0]),
            (Curve::Softsign, [-1.0, 1.0]),
            (Curve::Tanh, [-1.0, 1.0]),
        ];
        for (curve, expected) in curves {
            for isa in Isa::all() {
                let mut values = [0.0; BLOCK];
                [values[0], values[1], values[2]] = [-1e30, 1e30, f32::NAN];
                let values = bent(isa, curve, values);
                for (value, expected) in values.iter().zip(expected) {
                    let error = (value - expected).abs();
                    assert!(error <= 1e-6 * expected.abs().max(1.0), "{curve:?}: {values:?}");
                }
                assert!(values[2].is_nan(), "{curve:?} on {}: {values:?}", isa.name());
            }
        }
    }
}
