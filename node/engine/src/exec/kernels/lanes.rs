//! Sixteen numbers at a time: what every kernel is written against.
//!
//! A kernel is generic over [`Lanes`], so there is one text of it for all instruction sets. It
//! becomes fast code only inside a function that enables the instruction set; [`Isa::run`] is
//! that function, and everything below it is inlined into it.
//!
//! [`Isa::run`]: super::Isa::run

use super::curve::{self, Curve};

/// Sixteen `f32` side by side, the channels of one block.
///
/// # Safety
/// The methods of an implementation may use its instruction set without asking: they may only be
/// called where the processor has it. Those that take a pointer read or write sixteen values
/// there, at any alignment.
pub(crate) trait Lanes: Copy {
    /// Most pixels whose sums stay in registers; at most [`PIXELS_MAX`].
    const PIXELS: usize;
    /// How many blocks of output channels are summed at once: 1 or 2.
    const BLOCKS: usize;

    /// The same value in every lane.
    unsafe fn splat(value: f32) -> Self;
    /// Sixteen values from memory.
    unsafe fn load(from: *const f32) -> Self;
    /// Sixteen values to memory.
    unsafe fn store(self, to: *mut f32);
    /// Lane by lane `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// Lane by lane `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// Lane by lane `self * other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// Lane by lane `self * other + sum`; rounded once where the processor can.
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self;
    /// Lane by lane the greater; `self` where either is not a number.
    unsafe fn max(self, other: Self) -> Self;
    /// Lane by lane the smaller; `self` where either is not a number.
    unsafe fn min(self, other: Self) -> Self;
    /// The quotient.
    unsafe fn div(self, other: Self) -> Self;
    /// The product with 2 to the power of whole numbers from -126 to 127.
    unsafe fn times_power(self, power: Self) -> Self;
    /// Applies a curve to `pixels` times sixteen values in place: [`curve::apply`], compiled once
    /// for the instruction set, because it is long and every kernel ends in it.
    ///
    /// [`curve::apply`]: super::curve::apply
    unsafe fn bend(curve: &Curve, values: *mut f32, pixels: usize);
    /// Asks for a cache line that will be read soon; any address will do.
    unsafe fn prefetch(at: *const f32);
}

/// The most pixels of a tile on any instruction set.
pub(crate) const PIXELS_MAX: usize = 12;

/// Sixteen values in an array: what a processor of unknown abilities gets.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| op(self.0[i], other.0[i])))
    }
}

impl Lanes for Portable {
    const PIXELS: usize = 2;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 16])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has sixteen values there; an unaligned read needs no more.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has room for sixteen values there.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    // Not `f32::mul_add`: without the instruction that is a slow library call.
    #[inline(always)]
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i] + sum.0[i]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if b > a { b } else { a })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if b < a { b } else { a })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn times_power(self, power: Self) -> Self {
        self.zip(power, |a, n| a * f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    #[inline(never)]
    unsafe fn bend(curve: &Curve, values: *mut f32, pixels: usize) {
        // SAFETY: as the caller says; there is nothing that the processor could lack.
        unsafe { curve::apply::<Self>(curve, values, pixels) }
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}
}
