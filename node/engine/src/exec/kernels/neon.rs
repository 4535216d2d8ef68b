//! Sixteen lanes on aarch64: four NEON registers, which every such processor has.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddq_s32, vbslq_f32, vcgtq_f32, vcltq_f32, vcvtnq_s32_f32, vdivq_f32,
    vdupq_n_f32, vdupq_n_s32, vfmaq_f32, vld1q_f32, vmulq_f32, vreinterpretq_f32_s32, vshlq_n_s32,
    vst1q_f32, vsubq_f32,
};

use super::curve::{self, Curve};
use super::lanes::Lanes;

/// Four registers of four.
#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 4]);

impl Neon {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self(std::array::from_fn(|i| op(self.0[i], other.0[i])))
    }
}

// 32 registers: 6 pixels x 4 sums, 4 weights, 1 input.
impl Lanes for Neon {
    const PIXELS: usize = 6;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: NEON is part of every aarch64 target, here and below.
        Self([unsafe { vdupq_n_f32(value) }; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: sixteen values are there.
        Self(std::array::from_fn(|i| unsafe { vld1q_f32(from.add(4 * i)) }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        for (i, part) in self.0.into_iter().enumerate() {
            // SAFETY: there is room for sixteen values.
            unsafe { vst1q_f32(to.add(4 * i), part) }
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        self.zip(other, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        self.zip(other, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        self.zip(other, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `splat`.
        Self(std::array::from_fn(|i| unsafe { vfmaq_f32(sum.0[i], self.0[i], other.0[i]) }))
    }

    // NEON's own maximum gives "not a number" for either operand, and the trait asks for `self`.
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        self.zip(other, |a, b| unsafe { vbslq_f32(vcgtq_f32(b, a), b, a) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        self.zip(other, |a, b| unsafe { vbslq_f32(vcltq_f32(b, a), b, a) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        self.zip(other, |a, b| unsafe { vdivq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn times_power(self, power: Self) -> Self {
        // SAFETY: see `splat`.
        self.zip(power, |a, n| unsafe {
            let biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased)))
        })
    }

    #[inline(never)]
    unsafe fn bend(curve: &Curve, values: *mut f32, pixels: usize) {
        // SAFETY: as the caller says.
        unsafe { curve::apply::<Self>(curve, values, pixels) }
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}
}
