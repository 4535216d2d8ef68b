//! The inner product that all dense kernels end in: some pixels by some output channels, summed
//! in registers over all input channels and taps.

use super::BLOCK;
use super::curve::Curve;
use super::lanes::Lanes;

/// What a layer does to its sums before it stores them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Finish {
    /// The factor for negative values: 1 leaves them alone. At most 1.
    pub(crate) slope: f32,
    /// The lower bound.
    pub(crate) low: f32,
    /// The upper bound.
    pub(crate) high: f32,
    /// What comes last, on values that are stored already.
    pub(crate) curve: Curve,
}

impl Finish {
    /// Stores the sums as they are.
    pub(crate) const NONE: Self =
        Self { slope: 1.0, low: f32::NEG_INFINITY, high: f32::INFINITY, curve: Curve::None };

    /// Applies the curve to `pixels` times sixteen values that have been stored.
    ///
    /// # Safety
    /// They are there, and the processor has the instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn bend<L: Lanes>(&self, values: *mut f32, pixels: usize) {
        if !matches!(self.curve, Curve::None) {
            // SAFETY: as the caller says.
            unsafe { L::bend(&self.curve, values, pixels) }
        }
    }

    /// Applies everything but the curve.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn apply<L: Lanes>(&self, value: L) -> L {
        // SAFETY: as the caller says.
        unsafe {
            let value =
                if self.slope < 1.0 { value.max(value.mul(L::splat(self.slope))) } else { value };
            value.max(L::splat(self.low)).min(L::splat(self.high))
        }
    }
}

/// Adds products to the sums of `P` pixels and `B` blocks of output channels: `channels` input
/// channels for each tap.
///
/// `input` is the first pixel's value at offset 0, the next one's is `pixel` further; `taps` are
/// offsets from there. `weights` are `[tap][input channel][B][16]`; what follows those that were
/// used is returned.
///
/// # Safety
/// All these values are there, and the processor has the instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn accumulate<L: Lanes, const B: usize, const P: usize>(
    sums: &mut [[L; P]; B],
    input: *const f32,
    pixel: usize,
    taps: impl Iterator<Item = usize>,
    channels: usize,
    mut weights: *const f32,
) -> *const f32 {
    // SAFETY: as the caller says.
    unsafe {
        for tap in taps {
            let mut from = input.add(tap);
            for _ in 0..channels / UNROLL {
                for i in 0..UNROLL {
                    step(sums, from.add(i), pixel, weights.add(i * B * BLOCK));
                }
                from = from.add(UNROLL);
                weights = weights.add(UNROLL * B * BLOCK);
            }
            for i in 0..channels % UNROLL {
                step(sums, from.add(i), pixel, weights);
                weights = weights.add(B * BLOCK);
            }
        }
    }
    weights
}

/// Adds products to the sums like [`accumulate`], of one tap: `channels` input channels in blocks
/// that are `block` apart. Meanwhile fetches what will be read next.
///
/// # Safety
/// As for [`accumulate`], and pixels lie side by side.
#[inline(always)]
pub(crate) unsafe fn accumulate_blocks<L: Lanes, const B: usize, const P: usize>(
    sums: &mut [[L; P]; B],
    input: *const f32,
    block: usize,
    channels: usize,
    mut weights: *const f32,
    ahead: &[f32],
) {
    let count = channels.div_ceil(BLOCK);
    let lines = (ahead.len() / BLOCK).div_ceil(count);
    let mut line = ahead.as_ptr();
    for i in 0..count {
        // SAFETY: as the caller says; any address may be fetched.
        unsafe {
            for _ in 0..lines {
                L::prefetch(line);
                line = line.wrapping_add(BLOCK);
            }
            let tap = std::iter::once(i * block);
            let lanes = BLOCK.min(channels - i * BLOCK);
            weights = accumulate(sums, input, BLOCK, tap, lanes, weights);
        }
    }
}

/// One input channel of one tap.
#[inline(always)]
pub(crate) unsafe fn step<L: Lanes, const B: usize, const P: usize>(
    sums: &mut [[L; P]; B],
    input: *const f32,
    pixel: usize,
    weights: *const f32,
) {
    // SAFETY: as the caller of `accumulate` says.
    unsafe {
        let mut weight = [L::splat(0.0); B];
        for (b, weight) in weight.iter_mut().enumerate() {
            *weight = L::load(weights.add(b * BLOCK));
        }
        for p in 0..P {
            let value = L::splat(*input.add(p * pixel));
            for (row, &weight) in sums.iter_mut().zip(&weight) {
                row[p] = value.mul_add(weight, row[p]);
            }
        }
    }
}

/// Where the sums of a tile go, and what is done to them on the way.
#[derive(Clone, Copy)]
pub(crate) struct Store {
    /// The first pixel of the first block.
    pub(crate) output: *mut f32,
    /// The same pixel of what is added, or null.
    pub(crate) residual: *const f32,
    /// From a block of channels to the next, in both.
    pub(crate) block: usize,
    pub(crate) finish: Finish,
}

impl Store {
    /// Tiles `at` so many values from the start of an output and of its residual, which is null if
    /// there is none.
    ///
    /// # Safety
    /// There is room for the tile.
    #[inline(always)]
    pub(crate) unsafe fn at(
        at: usize,
        output: *mut f32,
        residual: *const f32,
        block: usize,
        finish: Finish,
    ) -> Self {
        // What starts in the middle of an image may say where that would start.
        let output = output.wrapping_add(at);
        // SAFETY: as the caller says.
        let residual = if residual.is_null() { residual } else { unsafe { residual.add(at) } };
        Self { output, residual, block, finish }
    }

    /// Stores the sums of `P` neighbouring pixels.
    ///
    /// # Safety
    /// There is room for them, and the processor has the instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn store<L: Lanes, const B: usize, const P: usize>(&self, sums: [[L; P]; B]) {
        // SAFETY: as the caller says.
        unsafe {
            for (b, row) in sums.into_iter().enumerate() {
                for (p, mut sum) in row.into_iter().enumerate() {
                    let at = b * self.block + p * BLOCK;
                    if !self.residual.is_null() {
                        sum = sum.add(L::load(self.residual.add(at)));
                    }
                    self.finish.apply(sum).store(self.output.add(at));
                }
                self.finish.bend::<L>(self.output.add(b * self.block), P);
            }
        }
    }
}

/// The bias in every pixel's sums.
///
/// # Safety
/// `bias` has `B` blocks, and the processor has the instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn biased<L: Lanes, const B: usize, const P: usize>(
    bias: *const f32,
) -> [[L; P]; B] {
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [[L::splat(0.0); P]; B];
        for (b, row) in sums.iter_mut().enumerate() {
            *row = [L::load(bias.add(b * BLOCK)); P];
        }
        sums
    }
}

/// Things divided into parts of nearly equal size; the larger ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    count: usize,
    size: usize,
    /// How many parts have one more.
    larger: usize,
}

impl Parts {
    /// So many parts.
    pub(crate) fn new(things: usize, count: usize) -> Self {
        Self { count, size: things / count, larger: things % count }
    }

    /// As few parts as need be, of at most `most` things each.
    pub(crate) fn of_most(things: usize, most: usize) -> Self {
        Self::new(things, things.div_ceil(most).max(1))
    }

    /// How many parts there are.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The first thing of part `i`, and the first after it. Without a division: tiles ask often.
    #[inline(always)]
    pub(crate) fn bounds(&self, i: usize) -> (usize, usize) {
        let start = |i: usize| i * self.size + i.min(self.larger);
        (start(i), start(i + 1))
    }
}

/// Calls `$function::<L, B, P>` for a number of pixels known only at run time, and for one or two
/// blocks of output channels. What an instruction set has no registers for is not compiled: hence
/// the constant conditions.
macro_rules! tiled {
    ($lanes:ident, $blocks:expr, $pixels:expr, $function:ident $arguments:tt) => {
        if const { $lanes::BLOCKS == 2 } && $blocks == 2 {
            $crate::exec::kernels::tile::tiled!(@ $lanes, 2, $pixels, $function $arguments)
        } else {
            $crate::exec::kernels::tile::tiled!(@ $lanes, 1, $pixels, $function $arguments)
        }
    };
    (@ $lanes:ident, $blocks:literal, $pixels:expr, $function:ident $arguments:tt) => {
        match $pixels {
            12 if const { $lanes::PIXELS >= 12 } => $function::<$lanes, $blocks, 12> $arguments,
            11 if const { $lanes::PIXELS >= 11 } => $function::<$lanes, $blocks, 11> $arguments,
            10 if const { $lanes::PIXELS >= 10 } => $function::<$lanes, $blocks, 10> $arguments,
            9 if const { $lanes::PIXELS >= 9 } => $function::<$lanes, $blocks, 9> $arguments,
            8 if const { $lanes::PIXELS >= 8 } => $function::<$lanes, $blocks, 8> $arguments,
            7 if const { $lanes::PIXELS >= 7 } => $function::<$lanes, $blocks, 7> $arguments,
            6 if const { $lanes::PIXELS >= 6 } => $function::<$lanes, $blocks, 6> $arguments,
            5 if const { $lanes::PIXELS >= 5 } => $function::<$lanes, $blocks, 5> $arguments,
            4 if const { $lanes::PIXELS >= 4 } => $function::<$lanes, $blocks, 4> $arguments,
            3 if const { $lanes::PIXELS >= 3 } => $function::<$lanes, $blocks, 3> $arguments,
            2 => $function::<$lanes, $blocks, 2> $arguments,
            1 => $function::<$lanes, $blocks, 1> $arguments,
            pixels => unreachable!("a tile of {pixels} pixels"),
        }
    };
}
pub(crate) use tiled;

/// A task has at least so many pixels, if there are so many and threads don't need more tasks. It
/// reads its weights once, from far away where they are many: with fewer pixels that would take
/// longer than the sums.
pub(crate) const PIXELS_MIN: usize = 48;

/// Input channels between two checks of the loop.
const UNROLL: usize = 4;
