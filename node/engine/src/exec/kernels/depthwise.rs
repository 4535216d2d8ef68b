//! Convolutions with one filter for each channel.
//!
//! Every output needs as many loads as multiplications, so all there is to gain is to keep them
//! in the first-level cache and to leave nothing else to do: a tile of neighbouring outputs
//! shares each weight, borders only shorten the loops over taps, and there is no padded copy.

use super::crew::Crew;
use super::lanes::{Lanes, PIXELS_MAX};
use super::memory::{Lines, Shared};
use super::panels::Filters;
use super::taps::Taps;
use super::tile::{Finish, Parts};
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
        for (i, &weight) in filters.weight.iter().enumerate() {
            let (channel, tap) = (i / taps, i % taps);
            weights[(channel / BLOCK * taps + tap) * BLOCK + channel % BLOCK] = weight;
        }
        let mut bias = Lines::zeros(blocks(channels) * BLOCK);
        if let Some(values) = filters.bias {
            bias[..channels].copy_from_slice(values);
        }
        let taps = [0, 1].map(|i| Taps::new(&window, i, plane.size[i], plane.out_size[i]));
        Self { isa, channels, plane, window, finish, weights, bias, taps }
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
        let rows = self.plane.out_size[0];
        let bands = (TASKS_PER_THREAD * crew.threads()).div_ceil(count).min(rows);
        let bands = Parts::new(rows, if crew.threads() == 1 { 1 } else { bands });
        // SAFETY: every task writes its own rows of its own block.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(count * bands.count(), |task| {
            let job = Job {
                layer: self,
                block: task / bands.count(),
                rows: bands.bounds(task % bands.count()),
                input: input.as_ptr(),
                residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
                output: output.get(),
            };
            // SAFETY: the lengths have been checked above.
            unsafe { self.isa.run(job) }
        });
    }
}

/// A band of rows of one block.
struct Job<'a> {
    layer: &'a Depthwise,
    block: usize,
    rows: (usize, usize),
    input: *const f32,
    residual: *const f32,
    output: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let columns = &self.layer.taps[1];
        let (whole, all) = (columns.whole(), (0, self.layer.window.kernel[1]));
        for row in self.rows.0..self.rows.1 {
            // SAFETY: as the caller says; taps outside the image are left out.
            unsafe {
                for column in (0..whole.start).chain(whole.end..columns.outputs()) {
                    self.sum::<L, 1>(row, column, columns.of(column));
                }
                let mut column = whole.start;
                while column < whole.end {
                    column += match whole.end - column {
                        8.. => self.sum::<L, 8>(row, column, all),
                        4..8 => self.sum::<L, 4>(row, column, all),
                        _ => self.sum::<L, 1>(row, column, all),
                    };
                }
            }
        }
    }
}

impl Job<'_> {
    /// Computes `P` neighbouring outputs, which have the same taps; returns `P`.
    #[inline(always)]
    unsafe fn sum<L: Lanes, const P: usize>(
        &self,
        row: usize,
        column: usize,
        columns: (usize, usize),
    ) -> usize {
        const { assert!(P <= PIXELS_MAX) };
        let Depthwise { plane, window, weights, bias, .. } = self.layer;
        let [height, width] = plane.size;
        let [taps_down, taps_right] = window.kernel;
        let pixel = window.stride[1] * BLOCK;
        let [down, across] = &self.layer.taps;
        let rows = down.of(row);
        // SAFETY: the taps are inside the image, the outputs inside theirs.
        unsafe {
            let mut sums = [L::load(bias.as_ptr().add(self.block * BLOCK)); P];
            for tap_row in rows.0..rows.1 {
                let (y, x) = (down.at(row, tap_row), across.at(column, columns.0));
                let mut input = self.input.add(((self.block * height + y) * width + x) * BLOCK);
                let weight = (self.block * taps_down + tap_row) * taps_right;
                for tap in columns.0..columns.1 {
                    let weight = L::load(weights.as_ptr().add((weight + tap) * BLOCK));
                    for (p, sum) in sums.iter_mut().enumerate() {
                        *sum = L::load(input.add(p * pixel)).mul_add(weight, *sum);
                    }
                    input = input.wrapping_add(window.dilation[1] * BLOCK);
                }
            }
            let at = ((self.block * plane.out_size[0] + row) * plane.out_size[1] + column) * BLOCK;
            for (p, mut sum) in sums.into_iter().enumerate() {
                if !self.residual.is_null() {
                    sum = sum.add(L::load(self.residual.add(at + p * BLOCK)));
                }
                self.layer.finish.apply(sum).store(self.output.add(at + p * BLOCK));
            }
        }
        P
    }
}

/// So many tasks share the work evenly enough.
const TASKS_PER_THREAD: usize = 8;
