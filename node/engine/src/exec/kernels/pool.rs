//! Pooling of blocked images: each output from the part of its window that is inside the image.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::Shared;
use super::tile::Finish;
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

/// A pooling layer.
pub(crate) struct Pool {
    pub(crate) isa: Isa,
    pub(crate) plane: Plane,
    pub(crate) window: Window,
    pub(crate) pooling: Pooling,
    pub(crate) finish: Finish,
}

impl Pool {
    /// Pools blocks of images, as many as there are.
    pub(crate) fn run(&self, crew: &Crew<'_>, input: &[f32], output: &mut [f32]) {
        let [area, out_area] =
            [self.plane.size, self.plane.out_size].map(|size| size[0] * size[1] * BLOCK);
        let count = input.len() / area;
        assert_eq!(input.len(), count * area);
        assert_eq!(output.len(), count * out_area);
        let rows = self.plane.out_size[0];
        let row = self.plane.out_size[1] * BLOCK;
        let bands = if crew.threads() == 1 { 1 } else { rows.div_ceil(ROWS) };
        // SAFETY: every task writes its own rows of its own block.
        let shared = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(count * bands, |task| {
            let (block, band) = (task / bands, task % bands);
            let (first, last) = super::tile::bounds(rows, bands, band);
            for y in first..last {
                // SAFETY: the row is inside the output, and this task's alone.
                let to = unsafe {
                    let at = shared.get().add(block * out_area + y * row);
                    std::slice::from_raw_parts_mut(at, row)
                };
                let job = Job { layer: self, input: &input[block * area..][..area], y, to };
                // SAFETY: the lengths have been checked above.
                unsafe { self.isa.run(job) }
            }
        });
    }

    /// The rows (0) or columns (1) of the input that are in an output's window.
    #[inline(always)]
    fn inside(&self, i: usize, output: usize) -> impl Iterator<Item = usize> + Clone {
        let Window { kernel, stride, dilation, padding } = self.window;
        let (before, size) = (padding[i].0, self.plane.size[i]);
        let origin = output * stride[i];
        let first = before.saturating_sub(origin).div_ceil(dilation[i]);
        let end = (size + before).saturating_sub(origin).div_ceil(dilation[i]).min(kernel[i]);
        (first..end).map(move |tap| origin + tap * dilation[i] - before)
    }

    /// What the sum of a window is divided by.
    #[inline(always)]
    fn divisor(&self, y: usize, x: usize) -> usize {
        let counted = |i: usize, output: usize| match self.pooling {
            // A last window of ceil mode may reach beyond the padding: that never counts.
            Pooling::Mean { count_padding: true } => {
                let Window { kernel, stride, dilation, padding } = self.window;
                let end = self.plane.size[i] + padding[i].0 + padding[i].1;
                (end - output * stride[i]).div_ceil(dilation[i]).min(kernel[i])
            }
            _ => self.inside(i, output).count(),
        };
        counted(0, y) * counted(1, x)
    }
}

/// One row of the output.
struct Job<'a> {
    layer: &'a Pool,
    input: &'a [f32],
    y: usize,
    to: &'a mut [f32],
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let layer = self.layer;
        let width = layer.plane.size[1];
        for x in 0..layer.plane.out_size[1] {
            // SAFETY: the window's part inside the image is inside the slice.
            unsafe {
                let mut result = match layer.pooling {
                    Pooling::Max => L::splat(f32::NEG_INFINITY),
                    Pooling::Mean { .. } => L::splat(0.0),
                };
                for row in layer.inside(0, self.y) {
                    for column in layer.inside(1, x) {
                        let at = (row * width + column) * BLOCK;
                        let value = L::load(self.input.as_ptr().add(at));
                        result = match layer.pooling {
                            Pooling::Max => value.max(result),
                            Pooling::Mean { .. } => result.add(value),
                        };
                    }
                }
                if matches!(layer.pooling, Pooling::Mean { .. }) {
                    result = result.mul(L::splat(1.0 / layer.divisor(self.y, x) as f32));
                }
                layer.finish.apply(result).store(self.to.as_mut_ptr().add(x * BLOCK));
            }
        }
    }
}

/// Rows of a task.
const ROWS: usize = 8;
