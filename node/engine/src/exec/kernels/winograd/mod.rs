//! 3x3 convolutions with stride 1 by minimal filtering (Winograd 1980; Lavin and Gray 2016).
//!
//! The image is cut into tiles of `m x m` outputs, which read `(m + 2) x (m + 2)` inputs each.
//! Input tiles, filters and output tiles are taken to another domain and back by small constant
//! matrices; in between, each of the `(m + 2)^2` components is a matrix product of tiles by
//! channels. F(2x2) needs 16 products for 4 outputs where the definition needs 36, F(3x3) 25 for 9
//! where it needs 81, and F(4x4) 36 for 16 where it needs 144.
//!
//! | file | is |
//! |---|---|
//! | `job` | what a task does |
//! | `product` | the products of components |
//! | `transform` | the matrices |
//! | `weights` | the filters, transformed or not yet |
//!
//! A task transforms a block of tiles, multiplies, and transforms back. Where filters are transformed
//! already, it multiplies component after component, so that a component's weights stay in the
//! cache for all tiles of the block. Where they wait as taps, it transforms those of some channels
//! for one group of outputs to room that stays in the cache, multiplies all their components, and
//! goes on to the next.

mod job;
mod product;
mod transform;
mod weights;

use job::{Job, TileJob};
use transform::{F2, F3, F4};
pub(crate) use weights::Form;
use weights::Weights;

use super::crew::Crew;
use super::lanes::PIXELS_MAX;
use super::memory::{Shared, with_scratch};
use super::panels::Filters;
use super::pool::Keep;
use super::tile::{Finish, Parts};
use super::{BLOCK, Isa, Plane, blocks};

/// How large the tiles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Tiles {
    /// 2x2 outputs.
    F2,
    /// 3x3 outputs.
    F3,
    /// 4x4 outputs.
    F4,
}

impl Tiles {
    /// Outputs along a side.
    pub(crate) fn outputs(self) -> usize {
        match self {
            Self::F2 => 2,
            Self::F3 => 3,
            Self::F4 => 4,
        }
    }

    /// Inputs along a side.
    fn inputs(self) -> usize {
        self.outputs() + 2
    }

    /// Components of a transformed tile.
    pub(crate) fn components(self) -> usize {
        self.inputs() * self.inputs()
    }
}

/// A 3x3 convolution with its filters.
pub(crate) struct Winograd {
    isa: Isa,
    tiles: Tiles,
    channels: usize,
    plane: Plane,
    /// Zeros above and to the left of the image.
    padding: [usize; 2],
    finish: Finish,
    keep: Keep,
    weights: Weights,
}

impl Winograd {
    /// Packs filters of `[outputs][channels][3][3]`.
    pub(crate) fn new(
        isa: Isa,
        (tiles, form): (Tiles, Form),
        channels: usize,
        plane: Plane,
        padding: [usize; 2],
        filters: &Filters<'_>,
        finish: Finish,
    ) -> Self {
        let weights = Weights::new(isa, tiles, form, channels, filters);
        Self { isa, tiles, channels, plane, padding, finish, keep: Keep::All, weights }
    }

    /// The same, with the pooling after it: of every two by two outputs, the greatest is kept.
    ///
    /// Tiles have an even number of outputs along a side.
    pub(crate) fn pooled(self) -> Self {
        assert!(self.tiles.outputs().is_multiple_of(2));
        Self { keep: Keep::Maxima, ..self }
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
        let kept = Plane { size, out_size: self.keep.size(out_size) };
        kept.check(self.channels, input, self.weights.any().blocks(), residual, output);
        assert!(residual.is_none() || self.keep == Keep::All);
        let grid = out_size.map(|outputs| outputs.div_ceil(self.tiles.outputs()));
        let count = grid[0] * grid[1];
        let (parts, shares) = self.split(count, crew.threads());
        let parts = Parts::new(count, parts);
        let shares = Parts::new(self.weights.any().groups(), shares);
        // SAFETY: every task writes its own tiles of its own groups.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(parts.count() * shares.count(), |task| {
            let tiles = parts.bounds(task / shares.count());
            let mut job = Job {
                layer: self,
                input: input.as_ptr(),
                size,
                out_size,
                grid,
                tiles,
                sets: Parts::of_most(tiles.1 - tiles.0, self.isa.tile_pixels()),
                groups: shares.bounds(task % shares.count()),
                residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
                output: output.get(),
                inputs: std::ptr::null_mut(),
                products: std::ptr::null_mut(),
                filters: std::ptr::null_mut(),
            };
            let (inputs, products) = (job.inputs_values(), job.products_values());
            with_scratch(inputs + products + job.filters_values(), |scratch| {
                let (inputs, rest) = scratch.split_at_mut(inputs);
                let (products, filters) = rest.split_at_mut(products);
                (job.inputs, job.products) = (inputs.as_mut_ptr(), products.as_mut_ptr());
                job.filters = filters.as_mut_ptr();
                // SAFETY: the lengths have been checked above.
                unsafe {
                    match self.tiles {
                        Tiles::F2 => self.isa.run(TileJob(job, F2)),
                        Tiles::F3 => self.isa.run(TileJob(job, F3)),
                        Tiles::F4 => self.isa.run(TileJob(job, F4)),
                    }
                }
            });
        });
    }

    /// Into how many parts the tiles are divided, and how many shares the groups.
    fn split(&self, tiles: usize, threads: usize) -> (usize, usize) {
        let panels = self.weights.any();
        let channels = blocks(self.channels) + panels.blocks();
        let tile = self.tiles.components() * channels * BLOCK;
        let weights = self.tiles.components() * self.channels * panels.blocks() * BLOCK;
        // Every part reads all weights once: where they don't fit the cache, few parts are better.
        let room = PART_VALUES.max(weights / 2);
        let part = (room / tile).max(2 * PIXELS_MAX);
        let parts = tiles.div_ceil(part);
        if threads == 1 {
            return (parts, 1);
        }
        if parts >= 2 * threads {
            return (parts.next_multiple_of(threads).min(tiles), 1);
        }
        if weights > PART_VALUES {
            return (parts, threads.min(panels.groups()));
        }
        ((2 * threads).min(tiles), 1)
    }
}

/// Values of a part's transformed inputs and products: 2 MiB.
const PART_VALUES: usize = 512 * 1024;
