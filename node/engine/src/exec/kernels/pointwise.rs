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
use super::tile::{Finish, Parts, Store, accumulate_blocks, biased, tiled};
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
        let Plane { size, out_size } = self.plane;
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
            let mut job = Job {
                layer: self,
                input,
                size,
                out_size,
                tiles: parts.bounds(part),
                all_tiles: tiles,
                groups: shares.bounds(share),
                residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
                output: output.get(),
                packed: std::ptr::null_mut(),
            };
            with_scratch(job.packed_values(), |packed| {
                job.packed = packed.as_mut_ptr();
                // SAFETY: the lengths have been checked above.
                unsafe { self.isa.run(job) }
            });
        });
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
        let parts = tiles.div_ceil((PACKED_VALUES / tile_values).clamp(1, tiles));
        if threads == 1 {
            return Self { tiles, parts, shares: 1 };
        }
        let parts = parts.next_multiple_of(threads).min(tiles);
        // With few tiles, an even number of parts may still be uneven work.
        let shares = if tiles < 8 * threads { threads.min(layer.panels.groups()) } else { 1 };
        Self { tiles, parts: if shares > 1 { parts.div_ceil(shares) } else { parts }, shares }
    }
}

/// Some tiles by some groups.
struct Job<'a> {
    layer: &'a Pointwise,
    input: &'a [f32],
    size: [usize; 2],
    out_size: [usize; 2],
    tiles: (usize, usize),
    /// All tiles of the image.
    all_tiles: Parts,
    groups: (usize, usize),
    residual: *const f32,
    output: *mut f32,
    /// Room for the pixels' channels, unless they are read where they are.
    packed: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller says; there is room for the pixels packed.
        unsafe {
            if self.in_place() {
                self.sum::<L>(|tile| {
                    let (first, _) = self.pixels(tile);
                    (self.input.as_ptr().add(first * BLOCK), self.size[0] * self.size[1] * BLOCK)
                });
                return;
            }
            let depth = blocks(self.layer.channels) * BLOCK;
            let start = self.pixels(self.tiles.0).0;
            for tile in self.tiles.0..self.tiles.1 {
                self.pack::<L>(tile, self.packed.add((self.pixels(tile).0 - start) * depth));
            }
            self.sum::<L>(|tile| {
                let (first, last) = self.pixels(tile);
                (self.packed.cast_const().add((first - start) * depth), (last - first) * BLOCK)
            });
        }
    }
}

impl Job<'_> {
    fn in_place(&self) -> bool {
        self.layer.stride == [1, 1] && self.groups.1 - self.groups.0 <= GROUPS_IN_PLACE
    }

    fn packed_values(&self) -> usize {
        if self.in_place() {
            return 0;
        }
        let pixels = self.pixels(self.tiles.1 - 1).1 - self.pixels(self.tiles.0).0;
        pixels * blocks(self.layer.channels) * BLOCK
    }

    /// The pixels of a tile.
    #[inline(always)]
    fn pixels(&self, tile: usize) -> (usize, usize) {
        self.all_tiles.bounds(tile)
    }

    /// Copies a tile's channels to `[block][pixel][16]`.
    #[inline(always)]
    unsafe fn pack<L: Lanes>(&self, tile: usize, packed: *mut f32) {
        let (first, last) = self.pixels(tile);
        let image = self.size[0] * self.size[1];
        let [down, right] = self.layer.stride;
        for pixel in first..last {
            let at = if self.layer.stride == [1, 1] {
                pixel
            } else {
                pixel / self.out_size[1] * down * self.size[1] + pixel % self.out_size[1] * right
            };
            for block in 0..blocks(self.layer.channels) {
                // SAFETY: the pixel is inside the input, and the room is for all of them.
                unsafe {
                    let value = L::load(self.input.as_ptr().add((block * image + at) * BLOCK));
                    value.store(packed.add((block * (last - first) + pixel - first) * BLOCK));
                }
            }
        }
    }

    /// Sums all groups over all tiles; `source` tells a tile's first value, and how far apart its
    /// blocks are.
    #[inline(always)]
    unsafe fn sum<L: Lanes>(&self, source: impl Fn(usize) -> (*const f32, usize)) {
        let image = self.out_size[0] * self.out_size[1] * BLOCK;
        for group in self.groups.0..self.groups.1 {
            let panel = self.layer.panels.panel(group);
            let next = if group + 1 < self.groups.1 {
                self.layer.panels.panel(group + 1).weights
            } else {
                &[]
            };
            let lines = Parts::new(next.len() / BLOCK, self.tiles.1 - self.tiles.0);
            for tile in self.tiles.0..self.tiles.1 {
                let (from, to) = lines.bounds(tile - self.tiles.0);
                let ahead = &next[from * BLOCK..to * BLOCK];
                let (input, block) = source(tile);
                let (first, last) = self.pixels(tile);
                let at = panel.first * image + first * BLOCK;
                // SAFETY: the tile's pixels are inside the output.
                unsafe {
                    let (output, finish) = (self.output, self.layer.finish);
                    let store = Store::at(at, output, self.residual, image, finish);
                    let channels = self.layer.channels;
                    tiled!(
                        L,
                        panel.blocks,
                        last - first,
                        sum_tile(&panel, input, block, channels, ahead, store)
                    );
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
