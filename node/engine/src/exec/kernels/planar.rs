//! The first layer: a dense convolution straight from planar images of few channels.
//!
//! A block of sixteen channels would be mostly zeros, and the values of neighbouring pixels lie
//! side by side anyway: a tap is one value for each of some pixels, read where they are. A task
//! copies the rows of its band, padded, and runs all groups of output channels over them.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::{Shared, with_scratch};
use super::panels::{Filters, Panel, Panels};
use super::pool::Keep;
use super::tile::{Finish, Parts, Store, biased, step, tiled};
use super::{BLOCK, Isa, Kernel, Plane};
use crate::graph::Window;

/// A convolution of planar images with its weights; the output is blocked.
pub(crate) struct Planar {
    isa: Isa,
    channels: usize,
    plane: Plane,
    window: Window,
    finish: Finish,
    keep: Keep,
    panels: Panels,
    /// Where in a band each value of the depth is.
    taps: Vec<usize>,
    /// Those of a row.
    tiles: Parts,
}

impl Planar {
    /// Packs filters of `[outputs][channels][kernel height][kernel width]`.
    pub(crate) fn new(
        isa: Isa,
        channels: usize,
        plane: Plane,
        window: Window,
        filters: &Filters<'_>,
        finish: Finish,
    ) -> Self {
        let [down, right] = window.kernel;
        let depth = channels * down * right;
        let at = |output: usize, k: usize| output * depth + k;
        let panels = Panels::pack(isa, filters, depth, at);
        let tiles = Parts::of_most(plane.out_size[1], isa.tile_pixels());
        let taps = Vec::new();
        let keep = Keep::All;
        let mut layer = Self { isa, channels, plane, window, finish, keep, panels, taps, tiles };
        let width = layer.band_width();
        let tap = |k: usize| {
            let (channel, row, column) = (k / (down * right), k / right % down, k % right);
            let row = row * window.dilation[0] * channels + channel;
            row * width + column * window.dilation[1]
        };
        layer.taps = (0..depth).map(tap).collect();
        layer
    }

    /// The same, with the pooling after it: of every two by two outputs, the greatest is kept.
    pub(crate) fn pooled(self) -> Self {
        Self { keep: Keep::Maxima, ..self }
    }

    /// Convolves one planar image to a blocked one; `residual` has the output's layout.
    pub(crate) fn run(
        &self,
        crew: &Crew<'_>,
        input: &[f32],
        residual: Option<&[f32]>,
        output: &mut [f32],
    ) {
        let Plane { size, out_size } = self.plane;
        assert_eq!(input.len(), self.channels * size[0] * size[1]);
        let kept = self.keep.size(out_size);
        assert_eq!(output.len(), self.panels.blocks() * kept[0] * kept[1] * BLOCK);
        assert!(residual.is_none_or(|residual| residual.len() == output.len()));
        assert!(residual.is_none() || self.keep == Keep::All);
        let rows = (BAND_VALUES / (self.channels * size[1] * self.window.stride[0])).max(1);
        // Rows that are pooled together are in one band.
        let side = self.keep.side();
        let bands = out_size[0].div_ceil(rows).max(4 * (crew.threads() - 1)).min(kept[0]);
        let bands = Parts::new(kept[0], bands.max(1));
        // SAFETY: every task writes its own rows.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(bands.count(), |band| {
            let (first, end) = bands.bounds(band);
            let rows = (first * side, end * side);
            let band = self.band_rows(rows) * self.channels * self.band_width();
            // To whole lines.
            let band = band.next_multiple_of(BLOCK);
            with_scratch(band + self.pair_values(), |scratch| {
                let (band, pair) = scratch.split_at_mut(band);
                self.pad(input, rows.0, band);
                let job = Job {
                    layer: self,
                    band: band.as_ptr(),
                    rows,
                    residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
                    pair: pair.as_mut_ptr(),
                    output: output.get(),
                };
                // SAFETY: the lengths have been checked above.
                unsafe { self.isa.run(job) }
            });
        });
    }

    /// Two rows of a group of outputs, if they are to be pooled.
    fn pair_values(&self) -> usize {
        match self.keep {
            Keep::All => 0,
            Keep::Maxima => 2 * self.plane.out_size[1] * self.isa.tile_blocks() * BLOCK,
        }
    }

    /// Input rows that some output rows read.
    fn band_rows(&self, rows: (usize, usize)) -> usize {
        self.window.reach(0, rows.1 - rows.0)
    }

    /// Input columns that an output row reads.
    fn band_width(&self) -> usize {
        self.window.reach(1, self.plane.out_size[1])
    }

    /// Fills a band, which starts with output row `first`: `[row][channel][column]`.
    fn pad(&self, input: &[f32], first: usize, band: &mut [f32]) {
        let [height, width] = self.plane.size;
        let (top, left) = (self.window.padding[0].0, self.window.padding[1].0);
        let band_width = self.band_width();
        for (i, to) in band.chunks_exact_mut(band_width).enumerate() {
            let (row, channel) =
                (first * self.window.stride[0] + i / self.channels, i % self.channels);
            let source = row.checked_sub(top).filter(|&row| row < height);
            let Some(row) = source else {
                to.fill(0.0);
                continue;
            };
            let copied = width.min(band_width.saturating_sub(left));
            let (before, rest) = to.split_at_mut(left.min(band_width));
            let (inside, after) = rest.split_at_mut(copied);
            before.fill(0.0);
            inside.copy_from_slice(&input[(channel * height + row) * width..][..copied]);
            after.fill(0.0);
        }
    }
}

/// A band of rows.
struct Job<'a> {
    layer: &'a Planar,
    band: *const f32,
    rows: (usize, usize),
    residual: *const f32,
    /// `[block][2][column][16]`: rows that are to be pooled.
    pair: *mut f32,
    output: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for group in 0..self.layer.panels.groups() {
            let panel = self.layer.panels.panel(group);
            for row in self.rows.0..self.rows.1 {
                // SAFETY: as the caller says; rows come in pairs where they are pooled.
                unsafe {
                    self.sum_row::<L>(&panel, row);
                    if self.layer.keep == Keep::Maxima && !row.is_multiple_of(2) {
                        self.pool_pair::<L>(&panel, row / 2);
                    }
                }
            }
        }
    }
}

impl Job<'_> {
    /// Sums one group over one output row.
    #[inline(always)]
    unsafe fn sum_row<L: Lanes>(&self, panel: &Panel<'_>, row: usize) {
        let Planar { window, channels, plane: Plane { out_size, .. }, .. } = self.layer;
        let width = self.layer.band_width();
        let (to, at, image) = match self.layer.keep {
            Keep::All => {
                let image = out_size[0] * out_size[1] * BLOCK;
                (self.output, panel.first * image + row * out_size[1] * BLOCK, image)
            }
            Keep::Maxima => (self.pair, row % 2 * out_size[1] * BLOCK, 2 * out_size[1] * BLOCK),
        };
        let tiles = self.layer.tiles;
        let from = (row - self.rows.0) * window.stride[0] * channels * width;
        for tile in 0..tiles.count() {
            let (first, last) = tiles.bounds(tile);
            // SAFETY: the tile's pixels are inside the output, what they read is in the band.
            unsafe {
                let input = self.band.add(from + first * window.stride[1]);
                let at = at + first * BLOCK;
                let store = Store::at(at, to, self.residual, image, self.layer.finish);
                tiled!(L, panel.blocks, last - first, sum_tile(self.layer, panel, input, store));
            }
        }
    }

    /// Stores the greatest of every two by two of the pair, as output row `row`. They are compared
    /// in the order of pooling, which matters where something is not a number.
    #[inline(always)]
    unsafe fn pool_pair<L: Lanes>(&self, panel: &Panel<'_>, row: usize) {
        let width = self.layer.plane.out_size[1];
        let kept = self.layer.keep.size(self.layer.plane.out_size);
        for block in 0..panel.blocks {
            for column in 0..kept[1] {
                // SAFETY: the pair has been summed, and the output has these rows and columns.
                unsafe {
                    let from = self.pair.add((2 * block * width + 2 * column) * BLOCK);
                    let mut most = L::splat(f32::NEG_INFINITY);
                    for at in [0, BLOCK, width * BLOCK, (width + 1) * BLOCK] {
                        most = L::load(from.add(at)).max(most);
                    }
                    let at = ((panel.first + block) * kept[0] + row) * kept[1] + column;
                    most.store(self.output.add(at * BLOCK));
                }
            }
        }
    }
}

/// # Safety
/// See [`step`] and [`Store::store`].
#[inline(always)]
unsafe fn sum_tile<L: Lanes, const B: usize, const P: usize>(
    layer: &Planar,
    panel: &Panel<'_>,
    input: *const f32,
    store: Store,
) {
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = biased::<L, B, P>(panel.bias.as_ptr());
        let weights = panel.weights.as_ptr();
        // The usual strides as constants: then a pixel's address is a part of the instruction.
        match layer.window.stride[1] {
            1 => sum_taps(&mut sums, &layer.taps, input, 1, weights),
            2 => sum_taps(&mut sums, &layer.taps, input, 2, weights),
            stride => sum_taps(&mut sums, &layer.taps, input, stride, weights),
        }
        store.store(sums);
    }
}

/// # Safety
/// See [`step`].
#[inline(always)]
unsafe fn sum_taps<L: Lanes, const B: usize, const P: usize>(
    sums: &mut [[L; P]; B],
    taps: &[usize],
    input: *const f32,
    stride: usize,
    mut weights: *const f32,
) {
    for &tap in taps {
        // SAFETY: as the caller says.
        unsafe {
            step(sums, input.add(tap), stride, weights);
            weights = weights.add(B * BLOCK);
        }
    }
}

/// Values of a band: half of a first-level cache of 32 KiB.
const BAND_VALUES: usize = 4 * 1024;
