//! Matrix products with a constant matrix: fully connected layers.
//!
//! With one row, every weight is used once, so this is about reading memory in order: a group of
//! output channels reads one stretch of the packed weights from its start to its end.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::Shared;
use super::panels::{Filters, Panel, Panels};
use super::tile::{Finish, accumulate, biased, tiled};
use super::{BLOCK, Isa, Kernel};

/// A product with a constant matrix, which is packed.
pub(crate) struct Linear {
    isa: Isa,
    outputs: usize,
    finish: Finish,
    panels: Panels,
}

impl Linear {
    /// Packs a matrix of `[outputs][depth]`, or `[depth][outputs]` if `transposed`.
    pub(crate) fn new(
        isa: Isa,
        depth: usize,
        transposed: Transposed,
        filters: &Filters<'_>,
        finish: Finish,
    ) -> Self {
        let outputs = filters.outputs;
        let panels = match transposed {
            Transposed::No => Panels::pack(isa, filters, depth, |output, k| output * depth + k),
            Transposed::Yes => {
                let mut panels = Panels::zeros(isa, outputs, depth, filters.bias);
                // Every group reads all rows, so they are released a stretch at a time.
                let by_rows = Filters { release: &|_| (), ..*filters };
                let stretch = (STRETCH_VALUES / outputs).max(1);
                for start in (0..depth).step_by(stretch) {
                    let rows = start..depth.min(start + stretch);
                    panels.fill(&by_rows, rows.clone(), |output, k| k * outputs + output);
                    filters.packed_values(rows.start * outputs..rows.end * outputs);
                }
                filters.packed(0..outputs);
                panels
            }
        };
        Self { isa, outputs, finish, panels }
    }

    /// Multiplies rows of `[rows][depth]` to rows of `[rows][outputs]`.
    pub(crate) fn run(&self, crew: &Crew<'_>, input: &[f32], output: &mut [f32]) {
        let rows = input.len() / self.panels.depth();
        assert_eq!(input.len(), rows * self.panels.depth());
        assert_eq!(output.len(), rows * self.outputs);
        // SAFETY: every task writes the outputs of its own group.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(self.panels.groups(), |group| {
            let panel = self.panels.panel(group);
            let job = Job { layer: self, panel, rows, input: input.as_ptr(), output: output.get() };
            // SAFETY: the lengths have been checked above.
            unsafe { self.isa.run(job) }
        });
    }
}

/// Which order a matrix is stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transposed {
    /// Output channels first.
    No,
    /// The depth first.
    Yes,
}

/// One group for all rows.
struct Job<'a> {
    layer: &'a Linear,
    panel: Panel<'a>,
    rows: usize,
    input: *const f32,
    output: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let depth = self.layer.panels.depth();
        let mut row = 0;
        while row < self.rows {
            let rows = L::PIXELS.min(self.rows - row);
            // SAFETY: these rows are inside both matrices.
            unsafe {
                let input = self.input.add(row * depth);
                let output = self.output.add(row * self.layer.outputs);
                tiled!(
                    L,
                    self.panel.blocks,
                    rows,
                    sum_tile(self.layer, &self.panel, input, output)
                );
            }
            row += rows;
        }
    }
}

/// # Safety
/// See [`accumulate`]; there is room for the outputs.
#[inline(always)]
unsafe fn sum_tile<L: Lanes, const B: usize, const P: usize>(
    layer: &Linear,
    panel: &Panel<'_>,
    input: *const f32,
    output: *mut f32,
) {
    let depth = layer.panels.depth();
    // SAFETY: as the caller says; the last block's values go where there is room for some.
    unsafe {
        let mut sums = biased::<L, B, P>(panel.bias.as_ptr());
        let all = std::iter::once(0);
        accumulate(&mut sums, input, depth, all, depth, panel.weights.as_ptr());
        for (b, row) in sums.into_iter().enumerate() {
            let first = (panel.first + b) * BLOCK;
            let room = BLOCK.min(layer.outputs - first);
            for (p, sum) in row.into_iter().enumerate() {
                let sum = layer.finish.apply(sum);
                let to = output.add(p * layer.outputs + first);
                if room == BLOCK {
                    sum.store(to);
                    layer.finish.bend::<L>(to, 1);
                } else {
                    let mut values = [0.0; BLOCK];
                    sum.store(values.as_mut_ptr());
                    layer.finish.bend::<L>(values.as_mut_ptr(), 1);
                    std::ptr::copy_nonoverlapping(values.as_ptr(), to, room);
                }
            }
        }
    }
}

/// Values of a matrix that are packed at a time: 4 MiB.
const STRETCH_VALUES: usize = 1024 * 1024;
