//! Pooling of blocked images: each output from the part of its window that is inside the image.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::Shared;
use super::taps::Taps;
use super::tile::{Finish, Parts};
use super::{BLOCK, Isa, Kernel, Plane};
use crate::graph::Window;

/// What is made of the values of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pooling {
    /// Their maximum.
    Max,
    /// Their mean.
    Mean {
        /// Whether padding counts as zeros, or not at all.
        count_padding: bool,
    },
}

/// Which outputs a convolution keeps that may do the pooling after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    All,
    /// The greatest of every two by two; what is left over at the end of a side is dropped.
    Maxima,
}

impl Keep {
    /// Of how many outputs along a side one is kept.
    pub(crate) fn side(self) -> usize {
        match self {
            Self::All => 1,
            Self::Maxima => 2,
        }
    }

    /// What is kept of images of this size.
    pub(crate) fn size(self, size: [usize; 2]) -> [usize; 2] {
        size.map(|outputs| outputs / self.side())
    }
}

/// A pooling layer.
pub(crate) struct Pool {
    isa: Isa,
    plane: Plane,
    window: Window,
    pooling: Pooling,
    finish: Finish,
    /// Down and across.
    taps: [Taps; 2],
}

impl Pool {
    /// A layer for images of these sizes.
    pub(crate) fn new(
        isa: Isa,
        plane: Plane,
        window: Window,
        pooling: Pooling,
        finish: Finish,
    ) -> Self {
        let taps = [0, 1].map(|i| Taps::new(&window, i, plane.size[i], plane.out_size[i]));
        Self { isa, plane, window, pooling, finish, taps }
    }

    /// Pools blocks of images, as many as there are.
    pub(crate) fn run(&self, crew: &Crew<'_>, input: &[f32], output: &mut [f32]) {
        let [area, out_area] =
            [self.plane.size, self.plane.out_size].map(|size| size[0] * size[1] * BLOCK);
        let count = input.len() / area;
        assert_eq!(input.len(), count * area);
        assert_eq!(output.len(), count * out_area);
        let rows = self.plane.out_size[0];
        let bands = Parts::new(rows, if crew.threads() == 1 { 1 } else { rows.div_ceil(ROWS) });
        // SAFETY: every task writes its own rows of its own block.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(count * bands.count(), |task| {
            let block = task / bands.count();
            let job = Job {
                layer: self,
                input: input[block * area..].as_ptr(),
                rows: bands.bounds(task % bands.count()),
                // SAFETY: the block is one of the output's.
                output: unsafe { output.get().add(block * out_area) },
            };
            // SAFETY: the lengths have been checked above.
            unsafe { self.isa.run(job) }
        });
    }

    /// What the sum of a window is divided by.
    #[inline(always)]
    fn divisor(&self, row: usize, column: usize) -> usize {
        let counted = |i: usize, output: usize| match self.pooling {
            // A last window of ceil mode may reach beyond the padding: that never counts.
            Pooling::Mean { count_padding: true } => {
                let Window { kernel, stride, dilation, padding } = self.window;
                let end = self.plane.size[i] + padding[i].0 + padding[i].1;
                (end - output * stride[i]).div_ceil(dilation[i]).min(kernel[i])
            }
            _ => {
                let (first, end) = self.taps[i].of(output);
                end - first
            }
        };
        counted(0, row) * counted(1, column)
    }
}

/// A band of rows of one block.
struct Job<'a> {
    layer: &'a Pool,
    input: *const f32,
    rows: (usize, usize),
    output: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller says; only taps inside the image are read.
        unsafe {
            match self.layer.pooling {
                Pooling::Max => self.pool::<L>(f32::NEG_INFINITY, |most, value| value.max(most)),
                Pooling::Mean { .. } => self.pool::<L>(0.0, |sum, value| sum.add(value)),
            }
        }
    }
}

impl Job<'_> {
    #[inline(always)]
    unsafe fn pool<L: Lanes>(&self, start: f32, join: impl Fn(L, L) -> L + Copy) {
        let columns = &self.layer.taps[1];
        let (whole, all) = (columns.whole(), (0, self.layer.window.kernel[1]));
        for row in self.rows.0..self.rows.1 {
            // SAFETY: as the caller says.
            unsafe {
                for column in (0..whole.start).chain(whole.end..columns.outputs()) {
                    self.window::<L, 1>(row, column, columns.of(column), start, join);
                }
                let mut column = whole.start;
                while column < whole.end {
                    column += match whole.end - column {
                        4.. => self.window::<L, 4>(row, column, all, start, join),
                        _ => self.window::<L, 1>(row, column, all, start, join),
                    };
                }
            }
        }
    }

    /// Pools `P` neighbouring windows, which have the same taps; returns `P`.
    #[inline(always)]
    unsafe fn window<L: Lanes, const P: usize>(
        &self,
        row: usize,
        column: usize,
        columns: (usize, usize),
        start: f32,
        join: impl Fn(L, L) -> L,
    ) -> usize {
        let Pool { plane, window, taps: [down, across], .. } = self.layer;
        let rows = down.of(row);
        // SAFETY: the taps are inside the image, the outputs inside theirs.
        unsafe {
            let mut results = [L::splat(start); P];
            for tap_row in rows.0..rows.1 {
                let (y, x) = (down.at(row, tap_row), across.at(column, columns.0));
                let mut input = self.input.add((y * plane.size[1] + x) * BLOCK);
                for _ in columns.0..columns.1 {
                    for (p, result) in results.iter_mut().enumerate() {
                        *result = join(*result, L::load(input.add(p * window.stride[1] * BLOCK)));
                    }
                    input = input.wrapping_add(window.dilation[1] * BLOCK);
                }
            }
            let first = (row * plane.out_size[1] + column) * BLOCK;
            for (p, mut result) in results.into_iter().enumerate() {
                if matches!(self.layer.pooling, Pooling::Mean { .. }) {
                    let divisor = self.layer.divisor(row, column + p);
                    result = result.mul(L::splat(1.0 / divisor as f32));
                }
                self.layer.finish.apply(result).store(self.output.add(first + p * BLOCK));
            }
            self.layer.finish.bend::<L>(self.output.add(first), P);
        }
        P
    }
}

/// Rows of a task.
const ROWS: usize = 8;
