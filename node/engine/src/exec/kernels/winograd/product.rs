//! The products of components, and the filters that are transformed for them.

use super::super::lanes::Lanes;
use super::super::panels::Panel;
use super::super::tile::{accumulate_blocks, tiled};
use super::super::{BLOCK, Kernel};
use super::transform::{Transform, square_filter};
use super::weights::TAPS;

/// The taps of some input channels for one group of outputs.
pub(super) struct TapsPart<'a> {
    /// `[channel][tap][block][16]`.
    pub(super) taps: &'a [f32],
    /// Output blocks.
    pub(super) blocks: usize,
    /// The first block of input channels.
    pub(super) first: usize,
    /// How many of these channels there are.
    pub(super) channels: usize,
}

impl<'a> TapsPart<'a> {
    /// From a block of input channels to a channel.
    #[inline(always)]
    pub(super) fn new(panel: &Panel<'a>, first: usize, end: usize) -> Self {
        let filter = TAPS * panel.blocks * BLOCK;
        let taps = &panel.weights[first * BLOCK * filter..end * filter];
        Self { taps, blocks: panel.blocks, first, channels: end - first * BLOCK }
    }

    /// Transforms them.
    ///
    /// # Safety
    /// There is room for the components.
    #[inline(always)]
    pub(super) unsafe fn transform<L: Lanes, T: Transform>(&self, to: *mut f32) {
        let wide = self.blocks * BLOCK;
        for channel in 0..self.channels {
            for block in 0..self.blocks {
                // SAFETY: as the caller says; these taps are in the slice.
                unsafe {
                    let taps = self.taps.as_ptr().add(channel * TAPS * wide + block * BLOCK);
                    let to = to.add(channel * wide + block * BLOCK);
                    square_filter::<L, T>(taps, wide, to, filter_stride(L::BLOCKS));
                }
            }
        }
    }
}

/// One component of some tiles by one group of outputs.
///
/// A kernel of its own, and no part of the job's: it is compiled for every number of tiles, so once
/// is enough.
pub(super) struct Product<'a> {
    pub(super) tiles: usize,
    /// Blocks of outputs.
    pub(super) blocks: usize,
    /// Input channels.
    pub(super) channels: usize,
    /// `[block of channels][tile][16]`.
    pub(super) input: *const f32,
    /// `[channel][block][16]`.
    pub(super) weights: *const f32,
    /// What the products are added to, in their own order; null for nothing.
    pub(super) before: *const f32,
    /// `[tile][block][16]`.
    pub(super) to: *mut f32,
    /// What is read next, and fetched meanwhile.
    pub(super) ahead: &'a [f32],
}

impl Kernel for Product<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller says.
        unsafe { tiled!(L, self.blocks, self.tiles, multiply(&self)) }
    }
}

/// # Safety
/// See [`accumulate_blocks`]; there is room for the products.
#[inline(always)]
unsafe fn multiply<L: Lanes, const B: usize, const P: usize>(product: &Product<'_>) {
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [[L::splat(0.0); P]; B];
        if !product.before.is_null() {
            for (b, row) in sums.iter_mut().enumerate() {
                for (p, sum) in row.iter_mut().enumerate() {
                    *sum = L::load(product.before.add((p * B + b) * BLOCK));
                }
            }
        }
        let &Product { channels, input, weights, to, ahead, .. } = product;
        accumulate_blocks(&mut sums, input, P * BLOCK, channels, weights, ahead);
        for (b, row) in sums.into_iter().enumerate() {
            for (p, sum) in row.into_iter().enumerate() {
                sum.store(to.add((p * B + b) * BLOCK));
            }
        }
    }
}

/// From a component of the transformed filters to the next, where a group has so many blocks. A
/// line is left free as between those of the inputs.
#[inline(always)]
pub(super) fn filter_stride(blocks: usize) -> usize {
    FILTER_BLOCKS * BLOCK * blocks * BLOCK + BLOCK
}

/// Blocks of input channels whose filters are transformed at a time: with two blocks of outputs and
/// F(4x4) they take 0.3 MiB.
pub(super) const FILTER_BLOCKS: usize = 4;
