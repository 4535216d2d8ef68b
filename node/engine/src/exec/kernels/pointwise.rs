//! 1x1 convolutions: a matrix product of pixels by channels.
//!
//! A task takes some tiles of pixels, copies their channels next to each other so that every
//! group of output channels finds them in the first-level cache, and runs all its groups over
//! them. Without the copy, the blocks of a tile lie a whole image apart, often in the same cache
//! sets. Where one or two groups are all there is, the copy does not pay and is left out.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::{Shared, with_scratch};
use super::panels::{Filters, Panel, Panels};
use super::tile::{Finish, PIXELS_MIN, Parts, Store, accumulate_blocks, biased, tiled};
use super::{BLOCK, Isa, Kernel, Plane, blocks};

/// A 1x1 convolution with its weights.
pub(crate) struct Pointwise {
    isa: Isa,
    channels: usize,
    plane: Plane,
    stride: [usize; 2],
    finish: Finish,
    panels: Panels,
}

impl Pointwise {
    /// Packs filters of `[outputs][channels]`; there is no padding.
    pub(crate) fn new(
        isa: Isa,
        channels: usize,
        plane: Plane,
        stride: [usize; 2],
        filters: &Filters,
        finish: Finish,
    ) -> Self {
        let at = |output: usize, k: usize| output * channels + k;
        let panels = Panels::pack(isa, filters, channels, at);
        Self { isa, channels, plane, stride, finish, panels }
    }

    /// Convolves one blocked image; `residual` has the output's layout.
    pub(crate) fn run(
        &self,
        crew: &Crew<'_>,
        input: &[f32],
        residual: Option<&[f32]>,
        output: &mut [f32],
    ) {
        let Plane { out_size, .. } = self.plane;
        let pixels = out_size[0] * out_size[1];
        self.plane.check(self.channels, input, self.panels.blocks(), residual, output);
        let split = Split::new(self, pixels, crew.threads());
        let tiles = Parts::new(pixels, split.tiles);
        let parts = Parts::new(split.tiles, split.parts);
        let shares = Parts::new(self.panels.groups(), split.shares);
        // SAFETY: every task writes its own pixels of its own groups.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(split.parts * split.shares, |task| {
            let (part, share) = (task / split.shares, task % split.shares);
            let (first, last) = parts.bounds(part);
            let product = Product {
                layer: self,
                pixels: (tiles.bounds(first).0, tiles.bounds(last - 1).1),
                groups: shares.bounds(share),
                residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
                output: output.get(),
                out_block: pixels * BLOCK,
            };
            let mut job = Job { product, input: input.as_ptr(), packed: std::ptr::null_mut() };
            with_scratch(job.packed_values(), |packed| {
                job.packed = packed.as_mut_ptr();
                // SAFETY: the lengths have been checked above.
                unsafe { self.isa.run(job) }
            });
        });
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    pub(super) fn plane(&self) -> Plane {
        self.plane
    }

    /// Blocks of output channels.
    pub(super) fn blocks(&self) -> usize {
        self.panels.blocks()
    }

    /// Groups of as many of these blocks as tiles sum at once.
    pub(super) fn groups(&self) -> usize {
        self.panels.groups()
    }

    /// The first block of a group, and the first after it.
    pub(super) fn group_blocks(&self, group: usize) -> (usize, usize) {
        let panel = self.panels.panel(group);
        (panel.first, panel.first + panel.blocks)
    }
}

/// How the work is divided: into parts of pixels, and these into shares of the groups.
struct Split {
    tiles: usize,
    parts: usize,
    shares: usize,
}

impl Split {
    fn new(layer: &Pointwise, pixels: usize, threads: usize) -> Self {
        let tiles = pixels.div_ceil(layer.isa.tile_pixels());
        let tile_values = layer.isa.tile_pixels() * blocks(layer.channels) * BLOCK;
        let least = PIXELS_MIN.div_ceil(layer.isa.tile_pixels());
        let parts = tiles.div_ceil((PACKED_VALUES / tile_values).max(least));
        if threads == 1 {
            return Self { tiles, parts, shares: 1 };
        }
        let parts = parts.next_multiple_of(threads).min(tiles);
        // With few tiles, an even number of parts may still be uneven work.
        let shares = if tiles < 8 * threads { threads.min(layer.panels.groups()) } else { 1 };
        Self { tiles, parts: if shares > 1 { parts.div_ceil(shares) } else { parts }, shares }
    }
}

/// Some pixels by some groups.
pub(super) struct Product<'a> {
    pub(super) layer: &'a Pointwise,
    pub(super) pixels: (usize, usize),
    pub(super) groups: (usize, usize),
    /// In the output's layout, or null.
    pub(super) residual: *const f32,
    /// Where the first pixel of the first block would be.
    pub(super) output: *mut f32,
    /// From a block of the output to the next.
    pub(super) out_block: usize,
}

impl Product<'_> {
    /// Sums all groups over all pixels, a tile after the other; `source` tells where a tile's first
    /// value is, and how far apart its blocks are. It is given the tile's pixels, counted from the
    /// product's first.
    ///
    /// # Safety
    /// The values are there, there is room for the results, and the processor has the instruction
    /// set of `L`.
    #[inline(always)]
    pub(super) unsafe fn sum<L: Lanes>(
        &self,
        source: impl Fn((usize, usize)) -> (*const f32, usize),
    ) {
        let Pointwise { channels, finish, panels, .. } = self.layer;
        let tiles = self.tiles::<L>();
        for group in self.groups.0..self.groups.1 {
            let panel = panels.panel(group);
            let next =
                if group + 1 < self.groups.1 { panels.panel(group + 1).weights } else { &[] };
            let lines = Parts::new(next.len() / BLOCK, tiles.count());
            for tile in 0..tiles.count() {
                let (from, to) = lines.bounds(tile);
                let ahead = &next[from * BLOCK..to * BLOCK];
                let (first, last) = tiles.bounds(tile);
                let (input, block) = source((first, last));
                let at = panel.first * self.out_block + (self.pixels.0 + first) * BLOCK;
                // SAFETY: the tile's pixels are inside the output.
                unsafe {
                    let store = Store::at(at, self.output, self.residual, self.out_block, *finish);
                    tiled!(
                        L,
                        panel.blocks,
                        last - first,
                        sum_tile(&panel, input, block, *channels, ahead, store)
                    );
                }
            }
        }
    }

    /// The pixels as they are summed at once.
    #[inline(always)]
    fn tiles<L: Lanes>(&self) -> Parts {
        Parts::of_most(self.pixels.1 - self.pixels.0, L::PIXELS)
    }
}

/// A product of pixels that are still blocks of an image.
struct Job<'a> {
    product: Product<'a>,
    input: *const f32,
    /// Room for the pixels' channels, unless they are read where they are.
    packed: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Pointwise { channels, plane, .. } = self.product.layer;
        // SAFETY: as the caller says; there is room for the pixels packed.
        unsafe {
            if self.in_place() {
                let start = self.input.add(self.product.pixels.0 * BLOCK);
                let image = plane.size[0] * plane.size[1] * BLOCK;
                self.product.sum::<L>(|(first, _)| (start.add(first * BLOCK), image));
                return;
            }
            let depth = blocks(*channels) * BLOCK;
            let tiles = self.product.tiles::<L>();
            for tile in 0..tiles.count() {
                self.pack::<L>(tiles.bounds(tile), self.packed.add(tiles.bounds(tile).0 * depth));
            }
            let packed = self.packed.cast_const();
            self.product
                .sum::<L>(|(first, last)| (packed.add(first * depth), (last - first) * BLOCK));
        }
    }
}

impl Job<'_> {
    fn in_place(&self) -> bool {
        let groups = self.product.groups;
        self.product.layer.stride == [1, 1] && groups.1 - groups.0 <= GROUPS_IN_PLACE
    }

    fn packed_values(&self) -> usize {
        if self.in_place() {
            return 0;
        }
        let (first, last) = self.product.pixels;
        (last - first) * blocks(self.product.layer.channels) * BLOCK
    }

    /// Copies the channels of some pixels, counted from the product's first, to
    /// `[block][pixel][16]`.
    #[inline(always)]
    unsafe fn pack<L: Lanes>(&self, (first, last): (usize, usize), packed: *mut f32) {
        let Pointwise { channels, plane, stride, .. } = self.product.layer;
        let image = plane.size[0] * plane.size[1];
        let [down, right] = *stride;
        for i in 0..last - first {
            let pixel = self.product.pixels.0 + first + i;
            let at = if *stride == [1, 1] {
                pixel
            } else {
                let [row, column] = [pixel / plane.out_size[1], pixel % plane.out_size[1]];
                row * down * plane.size[1] + column * right
            };
            for block in 0..blocks(*channels) {
                // SAFETY: the pixel is inside the input, and the room is for all of them.
                unsafe {
                    let value = L::load(self.input.add((block * image + at) * BLOCK));
                    value.store(packed.add((block * (last - first) + i) * BLOCK));
                }
            }
        }
    }
}

/// # Safety
/// See [`accumulate_blocks`] and [`Store::store`].
#[inline(always)]
unsafe fn sum_tile<L: Lanes, const B: usize, const P: usize>(
    panel: &Panel<'_>,
    input: *const f32,
    block: usize,
    channels: usize,
    ahead: &[f32],
    store: Store,
) {
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = biased::<L, B, P>(panel.bias.as_ptr());
        let weights = panel.weights.as_ptr();
        accumulate_blocks(&mut sums, input, block, channels, weights, ahead);
        store.store(sums);
    }
}

/// Packed values of a task: half of a second-level cache of 256 KiB.
const PACKED_VALUES: usize = 32 * 1024;
/// So few groups of output channels read their input where it is.
const GROUPS_IN_PLACE: usize = 1;
