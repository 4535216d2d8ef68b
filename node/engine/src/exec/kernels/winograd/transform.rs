//! The constant matrices of minimal filtering, for tiles and for filters.
//!
//! They come from polynomial interpolation at chosen points and at infinity (Toom and Cook). F(3x3)
//! takes ±½ and ±√2, which loses half the accuracy that F(4x4) does; with 0, ±1 and 2 it would be as
//! much, and more work. F(4x4) here takes 0, ±√½ and ±√2: with the customary 0, ±1 and ±2 the error is several times greater,
//! and the work is the same. For points 0, ±a, ±b the rows of the input transform are the
//! coefficients of `M(x) / (x - p)` with `M(x) = x (x² - a²) (x² - b²)`, and of `M` itself for
//! infinity; those of the filter transform are `(1, p, p²) / M'(p)`.

use super::super::BLOCK;
use super::super::lanes::Lanes;

/// Transforms a square of inputs, rows `row` apart, to components `stride` apart.
///
/// # Safety
/// The inputs are there, and room for the components.
#[inline(always)]
pub(super) unsafe fn square_in<L: Lanes, T: Transform>(
    from: *const f32,
    row: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller says.
    unsafe {
        let zero = L::splat(0.0);
        let mut half = [[zero; SIDE_MAX]; SIDE_MAX];
        for column in 0..T::INPUTS {
            let mut values = [zero; SIDE_MAX];
            for (i, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                *value = L::load(from.add(i * row + column * BLOCK));
            }
            for (row, value) in half.iter_mut().zip(T::input(values)) {
                row[column] = value;
            }
        }
        for (i, values) in half.into_iter().enumerate().take(T::INPUTS) {
            for (j, value) in T::input(values).into_iter().enumerate().take(T::INPUTS) {
                value.store(to.add((i * T::INPUTS + j) * stride));
            }
        }
    }
}

/// Transforms components `stride` apart to a square of outputs, and adds the bias.
///
/// # Safety
/// The components are there.
#[inline(always)]
pub(super) unsafe fn square_out<L: Lanes, T: Transform>(
    from: *const f32,
    stride: usize,
    bias: L,
) -> [[L; OUTPUTS_MAX]; OUTPUTS_MAX] {
    // SAFETY: as the caller says.
    unsafe {
        let zero = L::splat(0.0);
        let mut half = [[zero; SIDE_MAX]; OUTPUTS_MAX];
        for column in 0..T::INPUTS {
            let mut values = [zero; SIDE_MAX];
            for (i, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                *value = L::load(from.add((i * T::INPUTS + column) * stride));
            }
            for (row, value) in half.iter_mut().zip(T::output(values)) {
                row[column] = value;
            }
        }
        let mut square = [[zero; OUTPUTS_MAX]; OUTPUTS_MAX];
        for i in 0..T::OUTPUTS {
            square[i] = T::output(half[i]).map(|value| value.add(bias));
        }
        square
    }
}

/// Transforms the nine taps of sixteen filters, each tap `row` after the one before, to components
/// `stride` apart.
///
/// # Safety
/// The taps are there, and room for the components.
#[inline(always)]
pub(super) unsafe fn square_filter<L: Lanes, T: Transform>(
    taps: *const f32,
    row: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller says.
    unsafe {
        let zero = L::splat(0.0);
        let mut half = [[zero; 3]; SIDE_MAX];
        for column in 0..3 {
            let tap = |i: usize| L::load(taps.add((i * 3 + column) * row));
            let values = T::filter([tap(0), tap(1), tap(2)]);
            for (row, value) in half.iter_mut().zip(values) {
                row[column] = value;
            }
        }
        for (i, values) in half.into_iter().enumerate().take(T::INPUTS) {
            for (j, value) in T::filter(values).into_iter().enumerate().take(T::INPUTS) {
                value.store(to.add((i * T::INPUTS + j) * stride));
            }
        }
    }
}

/// The one-dimensional transforms. Arrays are as long as the largest; what is beyond does not
/// matter.
pub(super) trait Transform {
    const OUTPUTS: usize;
    const INPUTS: usize;

    /// # Safety
    /// The processor has the instruction set of `L`, here and below.
    unsafe fn input<L: Lanes>(values: [L; SIDE_MAX]) -> [L; SIDE_MAX];
    /// Three taps of a filter.
    ///
    /// # Safety
    /// As above.
    unsafe fn filter<L: Lanes>(taps: [L; 3]) -> [L; SIDE_MAX];
    /// # Safety
    /// As above.
    unsafe fn output<L: Lanes>(values: [L; SIDE_MAX]) -> [L; OUTPUTS_MAX];
}

/// Points 0, 1, -1 and infinity.
pub(super) struct F2;

impl Transform for F2 {
    const OUTPUTS: usize = 2;
    const INPUTS: usize = 4;

    #[inline(always)]
    unsafe fn input<L: Lanes>([d0, d1, d2, d3, d4, d5]: [L; SIDE_MAX]) -> [L; SIDE_MAX] {
        // SAFETY: as the caller says.
        unsafe { [d2.sub(d0), d1.add(d2), d2.sub(d1), d3.sub(d1), d4, d5] }
    }

    #[inline(always)]
    unsafe fn filter<L: Lanes>([t0, t1, t2]: [L; 3]) -> [L; SIDE_MAX] {
        // SAFETY: as the caller says.
        unsafe {
            let half = L::splat(0.5);
            let (even, odd) = (half.mul(t0.add(t2)), half.mul(t1));
            [L::splat(-1.0).mul(t0), even.add(odd), even.sub(odd), t2, t2, t2]
        }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([m0, m1, m2, m3, ..]: [L; SIDE_MAX]) -> [L; OUTPUTS_MAX] {
        // SAFETY: as the caller says.
        unsafe { [m0.add(m1).add(m2), m1.sub(m2).add(m3), m0, m0] }
    }
}

/// Points c, -c, b, -b and infinity. The row of -c, and that of -b, has its sign in the filter
/// transform changed, and in the input transform: their products are the same.
pub(super) struct F3;

impl Transform for F3 {
    const OUTPUTS: usize = 3;
    const INPUTS: usize = 5;

    #[inline(always)]
    unsafe fn input<L: Lanes>([d0, d1, d2, d3, d4, d5]: [L; SIDE_MAX]) -> [L; SIDE_MAX] {
        // SAFETY: as the caller says.
        unsafe {
            let (minus_b2, minus_c2) = (L::splat(-B * B), L::splat(-C * C));
            let odd_c = d1.mul_add(minus_b2, d3);
            let even_c = L::splat(C).mul(d0.mul_add(minus_b2, d2));
            let odd_b = d1.mul_add(minus_c2, d3);
            let even_b = L::splat(B).mul(d0.mul_add(minus_c2, d2));
            let whole = d0.mul_add(L::splat(B * B * C * C), d4);
            [
                even_c.add(odd_c),
                even_c.sub(odd_c),
                even_b.add(odd_b),
                even_b.sub(odd_b),
                d2.mul_add(L::splat(-(B * B + C * C)), whole),
                d5,
            ]
        }
    }

    #[inline(always)]
    unsafe fn filter<L: Lanes>([t0, t1, t2]: [L; 3]) -> [L; SIDE_MAX] {
        // 1 / M'(c) and 1 / M'(b).
        const OF_C: f32 = 1.0 / (2.0 * C * (C * C - B * B));
        const OF_B: f32 = 1.0 / (2.0 * B * (B * B - C * C));
        // SAFETY: as the caller says.
        unsafe {
            let scaled = |by: f32, tap: L| L::splat(by).mul(tap);
            let plus = |by: f32, tap: L, sum: L| L::splat(by).mul_add(tap, sum);
            let even_c = plus(OF_C * C * C, t2, scaled(OF_C, t0));
            let odd_c = scaled(OF_C * C, t1);
            let even_b = plus(OF_B * B * B, t2, scaled(OF_B, t0));
            let odd_b = scaled(OF_B * B, t1);
            [even_c.add(odd_c), even_c.sub(odd_c), even_b.add(odd_b), even_b.sub(odd_b), t2, t2]
        }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([m0, m1, m2, m3, m4, _]: [L; SIDE_MAX]) -> [L; OUTPUTS_MAX] {
        // SAFETY: as the caller says.
        unsafe {
            let (sum_c, difference_c) = (m0.add(m1), m0.sub(m1));
            let (sum_b, difference_b) = (m2.add(m3), m2.sub(m3));
            let scaled = |c: f32, x: L, b: f32, y: L| L::splat(c).mul_add(x, L::splat(b).mul(y));
            [
                sum_c.add(sum_b),
                scaled(C, difference_c, B, difference_b),
                scaled(C * C, sum_c, B * B, sum_b).add(m4),
                m4,
            ]
        }
    }
}

/// Points 0, a, -a, b, -b and infinity, with `a² b² = 1`.
pub(super) struct F4;

impl Transform for F4 {
    const OUTPUTS: usize = 4;
    const INPUTS: usize = 6;

    #[inline(always)]
    unsafe fn input<L: Lanes>([d0, d1, d2, d3, d4, d5]: [L; SIDE_MAX]) -> [L; SIDE_MAX] {
        // SAFETY: as the caller says.
        unsafe {
            let (minus_a2, minus_b2) = (L::splat(-A * A), L::splat(-B * B));
            let minus_sum = L::splat(-(A * A + B * B));
            let even_a = d2.mul_add(minus_b2, d4);
            let odd_a = L::splat(A).mul(d1.mul_add(minus_b2, d3));
            let even_b = d2.mul_add(minus_a2, d4);
            let odd_b = L::splat(B).mul(d1.mul_add(minus_a2, d3));
            [
                d2.mul_add(minus_sum, d0.add(d4)),
                even_a.add(odd_a),
                even_a.sub(odd_a),
                even_b.add(odd_b),
                even_b.sub(odd_b),
                d3.mul_add(minus_sum, d1.add(d5)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn filter<L: Lanes>([t0, t1, t2]: [L; 3]) -> [L; SIDE_MAX] {
        // SAFETY: as the caller says.
        unsafe {
            let scaled = |by: f32, tap: L| L::splat(by).mul(tap);
            let plus = |by: f32, tap: L, sum: L| L::splat(by).mul_add(tap, sum);
            let even_a = plus(NEAR * A * A, t2, scaled(NEAR, t0));
            let odd_a = scaled(NEAR * A, t1);
            let even_b = plus(FAR * B * B, t2, scaled(FAR, t0));
            let odd_b = scaled(FAR * B, t1);
            // M'(0) is a² b², which is 1.
            [t0, even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b), t2]
        }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([m0, m1, m2, m3, m4, m5]: [L; SIDE_MAX]) -> [L; OUTPUTS_MAX] {
        // SAFETY: as the caller says.
        unsafe {
            let (sum_a, difference_a) = (m1.add(m2), m1.sub(m2));
            let (sum_b, difference_b) = (m3.add(m4), m3.sub(m4));
            let scaled = |a: f32, x: L, b: f32, y: L| L::splat(a).mul_add(x, L::splat(b).mul(y));
            [
                m0.add(sum_a).add(sum_b),
                scaled(A, difference_a, B, difference_b),
                scaled(A * A, sum_a, B * B, sum_b),
                scaled(A * A * A, difference_a, B * B * B, difference_b).add(m5),
            ]
        }
    }
}

/// The nearer points of F(3x3), ±½.
const C: f32 = 0.5;
/// The nearer points of F(4x4), ±√½ ...
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// ... and the farther ones of both, ±√2.
const B: f32 = std::f32::consts::SQRT_2;

/// `1 / M'(±a)` ...
const NEAR: f32 = 1.0 / (2.0 * A * A * (A * A - B * B));
/// ... and `1 / M'(±b)`.
const FAR: f32 = 1.0 / (2.0 * B * B * (B * B - A * A));

/// Inputs along a side of the largest tile.
pub(super) const SIDE_MAX: usize = 6;
/// Outputs along its side.
pub(super) const OUTPUTS_MAX: usize = 4;
