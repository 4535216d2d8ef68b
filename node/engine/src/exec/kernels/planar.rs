//! The first layer: a dense convolution straight from planar images of few channels.
//!
//! A block of sixteen channels would be mostly zeros, and the values of neighbouring pixels lie
//! side by side anyway: a tap is one value for each of some pixels, read where they are. A task
//! copies the rows of its band, padded, and runs all groups of output channels over them.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::{Shared, with_scratch};
use super::panels::{Filters, Panel, Panels};
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
        let mut layer = Self { isa, channels, plane, window, finish, panels, taps, tiles };
        let width = layer.band_width();
        let tap = |k: usize| {
            let (channel, row, column) = (k / (down * right), k / right % down, k % right);
            let row = row * window.dilation[0] * channels + channel;
            row * width + column * window.dilation[1]
        };
        layer.taps = (0..depth).map(tap).collect();
        layer
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
        assert_eq!(output.len(), self.panels.blocks() * out_size[0] * out_size[1] * BLOCK);
        assert!(residual.is_none_or(|residual| residual.len() == output.len()));
        let rows = (BAND_VALUES / (self.channels * size[1] * self.window.stride[0])).max(1);
        let bands = out_size[0].div_ceil(rows).max(4 * (crew.threads() - 1)).min(out_size[0]);
        let bands = Parts::new(out_size[0], bands);
        // SAFETY: every task writes its own rows.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(bands.count(), |band| {
            let rows = bands.bounds(band);
            with_scratch(self.band_rows(rows) * self.channels * self.band_width(), |band| {
                self.pad(input, rows.0, band);
                let residual = residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
                let job =
                    Job { layer: self, band: band.as_ptr(), rows, residual, output: output.get() };
                // SAFETY: the lengths have been checked above.
                unsafe { self.isa.run(job) }
            });
        });
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
    output: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for group in 0..self.layer.panels.groups() {
            let panel = self.layer.panels.panel(group);
            for row in self.rows.0..self.rows.1 {
                // SAFETY: as the caller says.
                unsafe { self.sum_row::<L>(&panel, row) }
            }
        }
    }
}

impl Job<'_> {
    /// Sums one group over one output row.
    #[inline(always)]
    unsafe fn sum_row<L: Lanes>(&self, panel: &Panel<'_>, row: usize) {
        let Planar { plane, window, channels, .. } = self.layer;
        let width = self.layer.band_width();
        let image = plane.out_size[0] * plane.out_size[1] * BLOCK;
        let tiles = self.layer.tiles;
        let from = (row - self.rows.0) * window.stride[0] * channels * width;
        for tile in 0..tiles.count() {
            let (first, last) = tiles.bounds(tile);
            let at = panel.first * image + (row * plane.out_size[1] + first) * BLOCK;
            // SAFETY: the tile's pixels are inside the output, what they read is in the band.
            unsafe {
                let input = self.band.add(from + first * window.stride[1]);
                let (output, finish) = (self.output, self.layer.finish);
                let store = Store::at(at, output, self.residual, image, finish);
                tiled!(L, panel.blocks, last - first, sum_tile(self.layer, panel, input, store));
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
