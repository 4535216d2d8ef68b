//! Convolutions with one filter for each channel.
//!
//! Every output needs as many loads as multiplications, so all there is to gain is to keep them
//! in the nearest cache and to leave nothing else to do. Small images are mostly border: a task
//! copies the rows that it reads, padded, into room of its own, which costs one load and one store
//! for each input. Large ones hardly have any, and do not fit that cache: they are read where
//! they are, and outputs at the border leave out the taps that are outside.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::{Lines, Shared, with_scratch};
use super::pad::pad;
use super::panels::Filters;
use super::taps::Taps;
use super::tile::{Finish, Parts, tiled};
use super::{BLOCK, Isa, Kernel, Plane, blocks};
use crate::graph::Window;

/// A depthwise convolution with its weights.
pub(crate) struct Depthwise {
    isa: Isa,
    channels: usize,
    plane: Plane,
    window: Window,
    finish: Finish,
    /// `[block][tap][16]`.
    weights: Lines,
    /// `[block][16]`.
    bias: Lines,
    /// Those of a row of a small image.
    tiles: Parts,
    /// Down and across.
    taps: [Taps; 2],
}

impl Depthwise {
    /// Packs filters of `[channels][1][kernel height][kernel width]`.
    pub(crate) fn new(
        isa: Isa,
        plane: Plane,
        window: Window,
        filters: &Filters<'_>,
        finish: Finish,
    ) -> Self {
        let channels = filters.outputs;
        let taps = window.kernel[0] * window.kernel[1];
        let mut weights = Lines::zeros(blocks(channels) * taps * BLOCK);
        for i in 0..channels * taps {
            let (channel, tap) = (i / taps, i % taps);
            let at = (channel / BLOCK * taps + tap) * BLOCK + channel % BLOCK;
            weights[at] = filters.value(channel, i);
        }
        filters.packed(0..channels);
        let mut bias = Lines::zeros(blocks(channels) * BLOCK);
        if let Some(values) = filters.bias {
            bias[..channels].copy_from_slice(values);
        }
        let tiles = Parts::of_most(plane.out_size[1], isa.tile_pixels());
        let taps = [0, 1].map(|i| Taps::new(&window, i, plane.size[i], plane.out_size[i]));
        Self { isa, channels, plane, window, finish, weights, bias, tiles, taps }
    }

    /// Bytes that the packed weights take.
    pub(crate) fn weight_bytes(channels: usize, window: &Window) -> u64 {
        let taps = window.kernel[0] * window.kernel[1];
        (blocks(channels) * BLOCK * (taps + 1) * 4) as u64
    }

    /// Convolves one blocked image; `residual` has the output's layout.
    pub(crate) fn run(
        &self,
        crew: &Crew<'_>,
        input: &[f32],
        residual: Option<&[f32]>,
        output: &mut [f32],
    ) {
        let count = blocks(self.channels);
        self.plane.check(self.channels, input, count, residual, output);
        let bands = self.bands(crew.threads());
        let [area, out_area] =
            [self.plane.size, self.plane.out_size].map(|size| size[0] * size[1] * BLOCK);
        // SAFETY: every task writes its own rows of its own block.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(count * bands.count(), |task| {
            let rows = bands.bounds(task % bands.count());
            with_scratch(self.room(rows), |band| {
                let block = task / bands.count();
                let job = Job {
                    layer: self,
                    block,
                    rows,
                    input: input[block * area..].as_ptr(),
                    residual: residual
                        .map_or(std::ptr::null(), |residual| residual[block * out_area..].as_ptr()),
                    // SAFETY: the block is one of the output's.
                    output: unsafe { output.get().add(block * out_area) },
                    band: band.as_mut_ptr(),
                };
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

    /// Enough bands of rows for all threads.
    fn bands(&self, threads: usize) -> Parts {
        let rows = self.plane.out_size[0];
        let wanted = if threads == 1 { 1 } else { TASKS_PER_THREAD * threads };
        Parts::new(rows, wanted.div_ceil(blocks(self.channels)).min(rows))
    }

    /// The first of the input rows that some output rows read, and the first after them.
    pub(super) fn input_rows(&self, rows: (usize, usize)) -> (usize, usize) {
        let (height, top) = (self.plane.size[0], self.window.padding[0].0);
        let origin = rows.0 * self.window.stride[0];
        let first = origin.saturating_sub(top).min(height);
        let end = (origin + self.window.reach(0, rows.1 - rows.0)).saturating_sub(top);
        (first, end.clamp(first, height))
    }

    /// How many input rows some output rows read at most.
    pub(super) fn input_rows_most(&self, rows: usize) -> usize {
        self.window.reach(0, rows).min(self.plane.size[0])
    }

    /// Values of the room for padded copies that these rows of a block need.
    pub(super) fn room(&self, rows: (usize, usize)) -> usize {
        let [height, width] = self.band_size(rows);
        if self.is_small() { height * width * BLOCK } else { 0 }
    }

    fn is_small(&self) -> bool {
        let [height, width] = self.band_size((0, self.plane.out_size[0]));
        height * width * BLOCK <= SMALL_VALUES
    }

    /// Rows and columns of the padded input that some output rows read.
    fn band_size(&self, rows: (usize, usize)) -> [usize; 2] {
        let window = &self.window;
        [window.reach(0, rows.1 - rows.0), window.reach(1, self.plane.out_size[1])]
    }
}

/// A band of rows of one block.
pub(super) struct Job<'a> {
    pub(super) layer: &'a Depthwise,
    pub(super) block: usize,
    pub(super) rows: (usize, usize),
    /// Where the block's first row would be; the rows that the outputs read are there.
    pub(super) input: *const f32,
    /// The block's first row, or null.
    pub(super) residual: *const f32,
    /// Where the block's first row would be.
    pub(super) output: *mut f32,
    /// Room for the padded input rows.
    pub(super) band: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller says.
        unsafe {
            if self.layer.is_small() {
                self.sum_padded::<L>();
            } else {
                self.sum_in_place::<L>();
            }
        }
    }
}

/// Some neighbouring outputs with the same taps: where they start.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    column: usize,
    /// The first one's first input.
    input: *const f32,
    /// From an input to the one below it.
    below: usize,
    /// First and end of the taps, down and across.
    taps: [(usize, usize); 2],
}

impl Job<'_> {
    #[inline(always)]
    unsafe fn sum_padded<L: Lanes>(&self) {
        let Depthwise { plane, window, tiles, .. } = self.layer;
        let band_size = self.layer.band_size(self.rows);
        let taps = window.kernel.map(|taps| (0, taps));
        // SAFETY: as the caller says; the band holds all that is read.
        unsafe {
            pad::<L>(self.input, plane.size, window, self.rows.0, self.band, band_size);
            for row in self.rows.0..self.rows.1 {
                let line = (row - self.rows.0) * window.stride[0] * band_size[1];
                for tile in 0..tiles.count() {
                    let (column, end) = tiles.bounds(tile);
                    let at = (line + column * window.stride[1]) * BLOCK;
                    let input = self.band.cast_const().add(at);
                    let tile = Tile { row, column, input, below: band_size[1] * BLOCK, taps };
                    tiled!(L, 1, end - column, sum_whole(self, tile));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn sum_in_place<L: Lanes>(&self) {
        let [_, width] = self.layer.plane.size;
        let [down, across] = &self.layer.taps;
        let whole = across.whole();
        let tiles = Parts::of_most(whole.len(), L::PIXELS);
        for row in self.rows.0..self.rows.1 {
            let (first, end) = down.of(row);
            let line = if first < end { down.at(row, first) } else { 0 };
            let tile = |column: usize| {
                let (left, right) = across.of(column);
                let x = if left < right { across.at(column, left) } else { 0 };
                Tile {
                    row,
                    column,
                    input: self.input.wrapping_add((line * width + x) * BLOCK),
                    below: width * BLOCK,
                    taps: [(first, end), (left, right)],
                }
            };
            // SAFETY: as the caller says; taps outside the image are left out.
            unsafe {
                for column in (0..whole.start).chain(whole.end..across.outputs()) {
                    sum_tile::<L, 1, 1>(self, tile(column));
                }
                for i in 0..if whole.is_empty() { 0 } else { tiles.count() } {
                    let (from, to) = tiles.bounds(i);
                    tiled!(L, 1, to - from, sum_whole(self, tile(whole.start + from)));
                }
            }
        }
    }
}

/// Computes `P` neighbouring outputs whose taps across are all inside. The usual windows are
/// unrolled: an input that several outputs read is loaded once, and there are no loops.
///
/// # Safety
/// As for [`sum_tile`].
#[inline(always)]
unsafe fn sum_whole<L: Lanes, const B: usize, const P: usize>(job: &Job<'_>, tile: Tile) {
    let Window { kernel, stride, dilation, .. } = job.layer.window;
    // SAFETY: as the caller says.
    unsafe {
        match (kernel, stride[1], dilation) {
            ([_, 3], 1, [1, 1]) => sum_lines::<L, P, 3, 1>(job, tile),
            ([_, 3], 2, [1, 1]) => sum_lines::<L, P, 3, 2>(job, tile),
            ([_, 5], 1, [1, 1]) => sum_lines::<L, P, 5, 1>(job, tile),
            ([_, 5], 2, [1, 1]) => sum_lines::<L, P, 5, 2>(job, tile),
            _ => sum_tile::<L, B, P>(job, tile),
        }
    }
}

/// Computes `P` neighbouring outputs, `S` inputs apart, of a window of `K` columns which are all
/// inside. Rows are counted: unrolled too, they would be more than the registers hold.
///
/// # Safety
/// As for [`sum_tile`].
#[inline(always)]
unsafe fn sum_lines<L: Lanes, const P: usize, const K: usize, const S: usize>(
    job: &Job<'_>,
    tile: Tile,
) {
    let Depthwise { window, weights, bias, .. } = job.layer;
    let (first, end) = tile.taps[0];
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [L::load(bias.as_ptr().add(job.block * BLOCK)); P];
        let mut weight = weights.as_ptr().add((job.block * window.kernel[0] + first) * K * BLOCK);
        let mut line = tile.input;
        for _ in first..end {
            for column in 0..K {
                let factor = L::load(weight.add(column * BLOCK));
                for (p, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(line.add((p * S + column) * BLOCK)).mul_add(factor, *sum);
                }
            }
            weight = weight.wrapping_add(K * BLOCK);
            line = line.wrapping_add(tile.below);
        }
        store(job, tile, sums);
    }
}

/// Computes `P` neighbouring outputs.
///
/// # Safety
/// They are outputs of the job, and the inputs of all their taps are there.
#[inline(always)]
unsafe fn sum_tile<L: Lanes, const B: usize, const P: usize>(job: &Job<'_>, tile: Tile) {
    let Depthwise { window, weights, bias, .. } = job.layer;
    let [down, across] = window.kernel;
    let pixel = window.stride[1] * BLOCK;
    let [rows, columns] = tile.taps;
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [L::load(bias.as_ptr().add(job.block * BLOCK)); P];
        let mut line = tile.input;
        for row in rows.0..rows.1 {
            let tap = (job.block * down + row) * across + columns.0;
            let mut weight = weights.as_ptr().add(tap * BLOCK);
            let mut input = line;
            for _ in columns.0..columns.1 {
                let factor = L::load(weight);
                for (p, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(input.add(p * pixel)).mul_add(factor, *sum);
                }
                weight = weight.wrapping_add(BLOCK);
                input = input.wrapping_add(window.dilation[1] * BLOCK);
            }
            line = line.wrapping_add(window.dilation[0] * tile.below);
        }
        store(job, tile, sums);
    }
}

/// Adds the residual, finishes and stores.
///
/// # Safety
/// As for [`sum_tile`].
#[inline(always)]
unsafe fn store<L: Lanes, const P: usize>(job: &Job<'_>, tile: Tile, sums: [L; P]) {
    let Depthwise { plane, finish, .. } = job.layer;
    // SAFETY: as the caller says.
    unsafe {
        let at = (tile.row * plane.out_size[1] + tile.column) * BLOCK;
        // The first row of all may be outside, but not the tile's.
        let output = job.output.wrapping_add(at);
        for (p, mut sum) in sums.into_iter().enumerate() {
            if !job.residual.is_null() {
                sum = sum.add(L::load(job.residual.add(at + p * BLOCK)));
            }
            finish.apply(sum).store(output.add(p * BLOCK));
        }
        finish.bend::<L>(output, P);
    }
}

/// So many tasks share the work evenly enough.
const TASKS_PER_THREAD: usize = 8;
/// Values of a padded image that counts as small: a first-level cache of 32 KiB and then some.
const SMALL_VALUES: usize = 16 * 1024;
