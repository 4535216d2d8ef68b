//! Dense convolutions by the definition: any kernel, stride, dilation and padding.
//!
//! A task takes a band of output rows, copies the input rows that it reads, padded, into room of
//! its own, and runs groups of output channels over them. So the inner product has no borders to
//! look after, and its input stays in the second-level cache for all groups.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::{Shared, with_scratch};
use super::pad::pad;
use super::panels::{Filters, Panel, Panels};
use super::tile::{Finish, PIXELS_MIN, Parts, Store, accumulate, biased, tiled};
use super::{BLOCK, Isa, Kernel, Plane, blocks};
use crate::graph::Window;

/// A convolution with its weights.
pub(crate) struct Direct {
    isa: Isa,
    channels: usize,
    plane: Plane,
    window: Window,
    finish: Finish,
    panels: Panels,
    /// Those of a row.
    tiles: Parts,
}

impl Direct {
    /// Packs filters of `[outputs][channels][kernel height][kernel width]`.
    pub(crate) fn new(
        isa: Isa,
        channels: usize,
        plane: Plane,
        window: Window,
        filters: &Filters,
        finish: Finish,
    ) -> Self {
        let taps = window.kernel[0] * window.kernel[1];
        let depth = channels * taps;
        // Full blocks: block, tap, lane. The last block has fewer lanes.
        let place = |k: usize| {
            let block = k / (BLOCK * taps);
            let lanes = BLOCK.min(channels - block * BLOCK);
            let within = k - block * BLOCK * taps;
            (block * BLOCK + within % lanes) * taps + within / lanes
        };
        // Worked out once for all outputs: that takes divisions.
        let places: Vec<_> = (0..depth).map(place).collect();
        let at = |output: usize, k: usize| output * depth + places[k];
        let panels = Panels::pack(isa, filters, depth, at);
        let tiles = Parts::of_most(plane.out_size[1], isa.tile_pixels());
        Self { isa, channels, plane, window, finish, panels, tiles }
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
        self.plane.check(self.channels, input, self.panels.blocks(), residual, output);
        let (bands, shares) = self.split(crew.threads());
        let (bands, shares) =
            (Parts::new(out_size[0], bands), Parts::new(self.panels.groups(), shares));
        // SAFETY: every task writes its own rows of its own groups.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(bands.count() * shares.count(), |task| {
            let rows = bands.bounds(task / shares.count());
            let groups = shares.bounds(task % shares.count());
            let mut job = Job {
                layer: self,
                input: input.as_ptr(),
                size,
                out_size,
                rows,
                groups,
                residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
                output: output.get(),
                band: std::ptr::null_mut(),
            };
            with_scratch(job.band_values(), |band| {
                job.band = band.as_mut_ptr();
                // SAFETY: the lengths have been checked above.
                unsafe { self.isa.run(job) }
            });
        });
    }

    /// Into how many bands of rows the work is divided, and how many shares of groups.
    fn split(&self, threads: usize) -> (usize, usize) {
        let Plane { size, out_size } = self.plane;
        let row = blocks(self.channels) * BLOCK * (size[1] + 2 * self.window.padding[1].0);
        let least = PIXELS_MIN.div_ceil(out_size[1].max(1));
        let rows = (BAND_VALUES / (row * self.window.stride[0])).max(least).min(out_size[0]);
        let bands = out_size[0].div_ceil(rows);
        if threads == 1 {
            return (bands, 1);
        }
        let shares = (2 * threads).min(self.panels.groups());
        if bands < threads && shares >= threads {
            // Of a small image, whose weights are most of what is read: each share is read once.
            return (bands, shares);
        }
        let bands = bands.next_multiple_of(threads).min(out_size[0]);
        if bands >= 4 * threads {
            return (bands, 1);
        }
        // Few bands may be uneven work, and copying for each share costs little.
        (bands, threads.min(self.panels.groups()))
    }
}

/// A band of rows by some groups.
struct Job<'a> {
    layer: &'a Direct,
    input: *const f32,
    size: [usize; 2],
    out_size: [usize; 2],
    rows: (usize, usize),
    groups: (usize, usize),
    residual: *const f32,
    output: *mut f32,
    /// Room for the padded input rows.
    band: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller says.
        unsafe {
            let (area, band_size) = (self.size[0] * self.size[1] * BLOCK, self.band_size());
            for block in 0..blocks(self.layer.channels) {
                let band = self.band.add(block * band_size[0] * band_size[1] * BLOCK);
                let image = self.input.add(block * area);
                pad::<L>(image, self.size, &self.layer.window, self.rows.0, band, band_size);
            }
            for group in self.groups.0..self.groups.1 {
                let panel = self.layer.panels.panel(group);
                for row in self.rows.0..self.rows.1 {
                    self.sum_row::<L>(&panel, row);
                }
            }
        }
    }
}

impl Job<'_> {
    /// Rows and columns of the padded band.
    #[inline(always)]
    fn band_size(&self) -> [usize; 2] {
        let window = &self.layer.window;
        [window.reach(0, self.rows.1 - self.rows.0), window.reach(1, self.out_size[1])]
    }

    fn band_values(&self) -> usize {
        let [height, width] = self.band_size();
        blocks(self.layer.channels) * height * width * BLOCK
    }

    /// Sums one group over one output row.
    #[inline(always)]
    unsafe fn sum_row<L: Lanes>(&self, panel: &Panel<'_>, row: usize) {
        let [_, width] = self.band_size();
        let [down, right] = self.layer.window.stride;
        let image = self.out_size[0] * self.out_size[1] * BLOCK;
        let tiles = self.layer.tiles;
        for tile in 0..tiles.count() {
            let (first, last) = tiles.bounds(tile);
            let at = panel.first * image + (row * self.out_size[1] + first) * BLOCK;
            // SAFETY: the tile's pixels are inside the output, what they read is in the band.
            unsafe {
                let input =
                    self.band.add(((row - self.rows.0) * down * width + first * right) * BLOCK);
                let (output, finish) = (self.output, self.layer.finish);
                let store = Store::at(at, output, self.residual, image, finish);
                tiled!(L, panel.blocks, last - first, sum_tile(self, panel, input, store));
            }
        }
    }
}

/// # Safety
/// See [`accumulate`] and [`Store::store`].
#[inline(always)]
unsafe fn sum_tile<L: Lanes, const B: usize, const P: usize>(
    job: &Job<'_>,
    panel: &Panel<'_>,
    input: *const f32,
    store: Store,
) {
    let Direct { channels, window, .. } = job.layer;
    let [height, width] = job.band_size();
    let taps = |block: usize| {
        let rows = (0..window.kernel[0]).map(move |row| row * window.dilation[0]);
        rows.flat_map(move |row| {
            (0..window.kernel[1]).map(move |column| {
                ((block * height + row) * width + column * window.dilation[1]) * BLOCK
            })
        })
    };
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = biased::<L, B, P>(panel.bias.as_ptr());
        let mut weights = panel.weights.as_ptr();
        for block in 0..blocks(*channels) {
            let lanes = BLOCK.min(channels - block * BLOCK);
            // The usual strides as constants: then a pixel's address is a part of the instruction.
            weights = match window.stride[1] {
                1 => accumulate(&mut sums, input, BLOCK, taps(block), lanes, weights),
                2 => accumulate(&mut sums, input, 2 * BLOCK, taps(block), lanes, weights),
                stride => accumulate(&mut sums, input, stride * BLOCK, taps(block), lanes, weights),
            };
        }
        store.store(sums);
    }
}

/// Values of a band: half of a second-level cache of 512 KiB.
const BAND_VALUES: usize = 64 * 1024;
