//! Sixteen lanes on x86-64: two AVX2 registers, or one of AVX-512.
//!
//! `max` and `min` of these instruction sets give their second operand where one is not a number,
//! so the operands are passed the other way round than they read.

use std::arch::x86_64::{
    __m256, __m512, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi32, _mm256_add_ps,
    _mm256_castsi256_ps, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_div_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::curve::{self, Curve};
use super::lanes::Lanes;

/// Two registers of eight; needs AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

/// One register of sixteen; needs AVX-512F.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// 16 registers: 6 pixels x 2 sums, 2 weights, 1 input.
impl Lanes for Avx2 {
    const PIXELS: usize = 6;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller is on a processor with AVX2 and FMA, here and below.
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above, and sixteen values are there.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above, and there is room for sixteen values.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe {
            Self(_mm256_fmadd_ps(self.0, other.0, sum.0), _mm256_fmadd_ps(self.1, other.1, sum.1))
        }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { Self(_mm256_max_ps(other.0, self.0), _mm256_max_ps(other.1, self.1)) }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { Self(_mm256_min_ps(other.0, self.0), _mm256_min_ps(other.1, self.1)) }
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn times_power(self, power: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe {
            let times = |value, power| {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
                _mm256_mul_ps(value, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
            };
            Self(times(self.0, power.0), times(self.1, power.1))
        }
    }

    #[inline(always)]
    unsafe fn bend(curve: &Curve, values: *mut f32, pixels: usize) {
        // SAFETY: as the caller says.
        unsafe { bend_avx2(curve, values, pixels) }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a prefetch of a bad address does nothing.
        unsafe { _mm_prefetch(at.cast(), _MM_HINT_T0) }
    }
}

// 32 registers: 12 pixels x 2 sums, 2 weights, 1 input.
impl Lanes for Avx512 {
    const PIXELS: usize = 12;
    const BLOCKS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller is on a processor with AVX-512F, here and below.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above, and sixteen values are there.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above, and there is room for sixteen values.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { _mm512_fmadd_ps(self.0, other.0, sum.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { _mm512_max_ps(other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { _mm512_min_ps(other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn times_power(self, power: Self) -> Self {
        // SAFETY: see `splat`.
        Self(unsafe { _mm512_scalef_ps(self.0, power.0) })
    }

    #[inline(always)]
    unsafe fn bend(curve: &Curve, values: *mut f32, pixels: usize) {
        // SAFETY: as the caller says.
        unsafe { bend_avx512(curve, values, pixels) }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a prefetch of a bad address does nothing.
        unsafe { _mm_prefetch(at.cast(), _MM_HINT_T0) }
    }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn bend_avx2(curve: &Curve, values: *mut f32, pixels: usize) {
    // SAFETY: as the caller says; the features are enabled here.
    unsafe { curve::apply::<Avx2>(curve, values, pixels) }
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn bend_avx512(curve: &Curve, values: *mut f32, pixels: usize) {
    // SAFETY: as the caller says; the features are enabled here.
    unsafe { curve::apply::<Avx512>(curve, values, pixels) }
}
