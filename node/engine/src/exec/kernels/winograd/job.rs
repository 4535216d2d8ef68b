//! What a task does: some tiles by some groups of outputs.

use super::super::lanes::{Lanes, PIXELS_MAX};
use super::super::panels::Panels;
use super::super::pool::Keep;
use super::super::tile::Parts;
use super::super::{BLOCK, Kernel, blocks};
use super::Winograd;
use super::product::{FILTER_BLOCKS, Product, TapsPart, filter_stride};
use super::transform::{OUTPUTS_MAX, SIDE_MAX, Transform, square_in, square_out};
use super::weights::Weights;

/// Some tiles by some groups.
pub(super) struct Job<'a> {
    pub(super) layer: &'a Winograd,
    pub(super) input: *const f32,
    pub(super) size: [usize; 2],
    pub(super) out_size: [usize; 2],
    /// Tiles down and across.
    pub(super) grid: [usize; 2],
    pub(super) tiles: (usize, usize),
    /// Sets of as many tiles as are summed at once.
    pub(super) sets: Parts,
    pub(super) groups: (usize, usize),
    pub(super) residual: *const f32,
    pub(super) output: *mut f32,
    /// Transformed inputs: `[set][component][block][tile][16]`.
    pub(super) inputs: *mut f32,
    /// Products: `[set][group][component][tile][block][16]`.
    pub(super) products: *mut f32,
    /// Filters that a part of the taps was transformed to: `[component][channel][block][16]`.
    pub(super) filters: *mut f32,
}

/// A job for tiles of one size.
pub(super) struct TileJob<'a, T>(pub(super) Job<'a>, pub(super) T);

impl<T: Transform> Kernel for TileJob<'_, T> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let job = self.0;
        // SAFETY: as the caller says.
        unsafe {
            for set in 0..job.sets.count() {
                let (first, last) = job.set(set);
                let origins = job.origins::<T>(first, last);
                for block in 0..blocks(job.layer.channels) {
                    let to = job.input_at::<L, T>(set, 0, block);
                    for (tile, &origin) in origins.iter().enumerate().take(last - first) {
                        job.transform_input::<L, T>(origin, block, to.add(tile * BLOCK));
                    }
                }
            }
            match &job.layer.weights {
                Weights::Components(panels) => {
                    for component in 0..T::INPUTS * T::INPUTS {
                        job.multiply::<L, T>(component, panels);
                    }
                }
                Weights::Taps(panels) => job.transform_and_multiply::<L, T>(panels),
            }
            for set in 0..job.sets.count() {
                let (first, last) = job.set(set);
                let origins = job.origins::<T>(first, last);
                for group in job.groups.0..job.groups.1 {
                    for (tile, &origin) in origins.iter().enumerate().take(last - first) {
                        job.transform_output::<L, T>(set, group, tile, origin);
                    }
                }
            }
        }
    }
}

impl Job<'_> {
    pub(super) fn inputs_values(&self) -> usize {
        let sets = self.sets.count();
        let pixels = self.layer.isa.tile_pixels();
        sets * self.layer.tiles.components()
            * (blocks(self.layer.channels) * pixels * BLOCK + BLOCK)
    }

    pub(super) fn products_values(&self) -> usize {
        let sets = self.sets.count();
        let channels = (self.groups.1 - self.groups.0) * self.layer.isa.tile_blocks() * BLOCK;
        sets * self.layer.tiles.components() * channels * self.layer.isa.tile_pixels()
    }

    pub(super) fn filters_values(&self) -> usize {
        match self.layer.weights {
            Weights::Components(_) => 0,
            Weights::Taps(_) => {
                self.layer.tiles.components() * filter_stride(self.layer.isa.tile_blocks())
            }
        }
    }

    /// The tiles of a set.
    #[inline(always)]
    fn set(&self, set: usize) -> (usize, usize) {
        let (first, last) = self.sets.bounds(set);
        (self.tiles.0 + first, self.tiles.0 + last)
    }

    /// The first output of each of some tiles.
    #[inline(always)]
    fn origins<T: Transform>(&self, first: usize, last: usize) -> [[usize; 2]; PIXELS_MAX] {
        let mut origins = [[0; 2]; PIXELS_MAX];
        for (origin, tile) in origins.iter_mut().zip(first..last) {
            *origin = [tile / self.grid[1], tile % self.grid[1]].map(|i| i * T::OUTPUTS);
        }
        origins
    }

    /// Where the transformed inputs of a set are. A line is left free after each component: a
    /// distance of a power of two would put all components into the same few cache lines.
    #[inline(always)]
    unsafe fn input_at<L: Lanes, T: Transform>(
        &self,
        set: usize,
        component: usize,
        block: usize,
    ) -> *mut f32 {
        let (first, last) = self.set(set);
        let stride = input_stride::<L>(blocks(self.layer.channels));
        let at =
            (set * T::INPUTS * T::INPUTS + component) * stride + block * (last - first) * BLOCK;
        // SAFETY: `inputs_values` counts these.
        unsafe { self.inputs.add(at) }
    }

    /// Where the products of a set and a group are.
    #[inline(always)]
    unsafe fn product_at<L: Lanes, T: Transform>(
        &self,
        set: usize,
        group: usize,
        component: usize,
    ) -> *mut f32 {
        let groups = self.groups.1 - self.groups.0;
        let of_group = (set * groups + group - self.groups.0) * T::INPUTS * T::INPUTS + component;
        // SAFETY: `products_values` counts these.
        unsafe { self.products.add(of_group * L::PIXELS * L::BLOCKS * BLOCK) }
    }

    /// Transforms one block of the tile at `origin` to `to`, where its first component goes.
    #[inline(always)]
    unsafe fn transform_input<L: Lanes, T: Transform>(
        &self,
        origin: [usize; 2],
        block: usize,
        to: *mut f32,
    ) {
        let [top, left] = self.layer.padding;
        let inside = origin[0] >= top
            && origin[1] >= left
            && origin[0] - top + T::INPUTS <= self.size[0]
            && origin[1] - left + T::INPUTS <= self.size[1];
        // SAFETY: a tile inside the image is read where it is, any other through a copy.
        unsafe {
            let image = self.input.add(block * self.size[0] * self.size[1] * BLOCK);
            let stride = input_stride::<L>(blocks(self.layer.channels));
            if inside {
                let at = (origin[0] - top) * self.size[1] + origin[1] - left;
                let row = self.size[1] * BLOCK;
                square_in::<L, T>(image.add(at * BLOCK), row, to, stride);
            } else {
                let mut copy = [0.0f32; SIDE_MAX * SIDE_MAX * BLOCK];
                self.copy_border::<L, T>(image, origin, &mut copy);
                square_in::<L, T>(copy.as_ptr(), T::INPUTS * BLOCK, to, stride);
            }
        }
    }

    /// Copies what is inside the image of a tile at its border; the rest stays zero.
    #[inline(always)]
    unsafe fn copy_border<L: Lanes, T: Transform>(
        &self,
        image: *const f32,
        origin: [usize; 2],
        copy: &mut [f32; SIDE_MAX * SIDE_MAX * BLOCK],
    ) {
        let range = |i: usize| {
            let first = self.layer.padding[i].saturating_sub(origin[i]).min(T::INPUTS);
            let end = self.size[i] + self.layer.padding[i];
            first..end.saturating_sub(origin[i]).clamp(first, T::INPUTS)
        };
        for row in range(0) {
            for column in range(1) {
                let y = origin[0] + row - self.layer.padding[0];
                let x = origin[1] + column - self.layer.padding[1];
                // SAFETY: the ranges leave only pixels of the image.
                unsafe {
                    let value = L::load(image.add((y * self.size[1] + x) * BLOCK));
                    value.store(copy.as_mut_ptr().add((row * T::INPUTS + column) * BLOCK));
                }
            }
        }
    }

    /// Multiplies one component of all tiles by all groups.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, T: Transform>(&self, component: usize, panels: &[Panels]) {
        let sets = self.sets.count();
        for group in self.groups.0..self.groups.1 {
            let panel = panels[component].panel(group);
            let last_group = group + 1 == self.groups.1;
            let next = if last_group {
                panels.get(component + 1).map(|panels| panels.panel(self.groups.0))
            } else {
                Some(panels[component].panel(group + 1))
            };
            let next = next.map_or(&[][..], |next| next.weights);
            let lines = Parts::new(next.len() / BLOCK, sets);
            for set in 0..sets {
                let (from, to) = lines.bounds(set);
                let ahead = &next[from * BLOCK..to * BLOCK];
                let (first, last) = self.set(set);
                // SAFETY: both places are counted in the room that the job was given.
                unsafe {
                    self.layer.isa.run(Product {
                        tiles: last - first,
                        blocks: panel.blocks,
                        channels: self.layer.channels,
                        input: self.input_at::<L, T>(set, component, 0),
                        weights: panel.weights.as_ptr(),
                        before: std::ptr::null(),
                        to: self.product_at::<L, T>(set, group, component),
                        ahead,
                    });
                }
            }
        }
    }

    /// Multiplies all tiles by all groups, whose filters are transformed a part at a time: those of
    /// some input channels for one group.
    #[inline(always)]
    unsafe fn transform_and_multiply<L: Lanes, T: Transform>(&self, taps: &Panels) {
        let channels = Parts::of_most(blocks(self.layer.channels), FILTER_BLOCKS);
        let rounds = Parts::of_most(self.groups.1 - self.groups.0, GROUPS_AT_ONCE);
        let part = |(part, group): (usize, usize)| {
            let (first, end) = channels.bounds(part);
            let end = (end * BLOCK).min(self.layer.channels);
            TapsPart::new(&taps.panel(self.groups.0 + group), first, end)
        };
        let of_round = |round: usize| {
            let (first, end) = rounds.bounds(round);
            (0..channels.count()).flat_map(move |part| (first..end).map(move |group| (part, group)))
        };
        let mut parts = (0..rounds.count()).flat_map(of_round).peekable();
        let products = T::INPUTS * T::INPUTS * self.sets.count();
        while let Some(at) = parts.next() {
            let (this, group) = (part(at), self.groups.0 + at.1);
            let next = parts.peek().map_or(&[][..], |&next| part(next).taps);
            let lines = Parts::new(next.len() / BLOCK, products);
            // SAFETY: all places are counted in the room that the job was given.
            unsafe {
                this.transform::<L, T>(self.filters);
                for product in 0..products {
                    let (component, set) =
                        (product / self.sets.count(), product % self.sets.count());
                    let (first, last) = self.set(set);
                    let (from, to) = lines.bounds(product);
                    let to_products = self.product_at::<L, T>(set, group, component);
                    self.layer.isa.run(Product {
                        tiles: last - first,
                        blocks: this.blocks,
                        channels: this.channels,
                        input: self.input_at::<L, T>(set, component, this.first),
                        weights: self.filters.add(component * filter_stride(L::BLOCKS)),
                        before: if this.first == 0 { std::ptr::null() } else { to_products },
                        to: to_products,
                        ahead: &next[from * BLOCK..to * BLOCK],
                    });
                }
            }
        }
    }

    /// Transforms tile number `tile` of a set back, adds the bias, and stores what is kept of it.
    #[inline(always)]
    unsafe fn transform_output<L: Lanes, T: Transform>(
        &self,
        set: usize,
        group: usize,
        tile: usize,
        origin: [usize; 2],
    ) {
        let panel = self.layer.weights.any().panel(group);
        for b in 0..panel.blocks {
            // SAFETY: these are products of this job.
            unsafe {
                let product = self.product_at::<L, T>(set, group, 0);
                let product = product.add((tile * panel.blocks + b) * BLOCK).cast_const();
                let bias = L::load(panel.bias.as_ptr().add(b * BLOCK));
                let square = square_out::<L, T>(product, L::PIXELS * L::BLOCKS * BLOCK, bias);
                match self.layer.keep {
                    Keep::All => self.store::<L, T>(&square, panel.first + b, origin),
                    Keep::Maxima => self.store_maxima::<L, T>(&square, panel.first + b, origin),
                }
            }
        }
    }

    /// Adds the residual, and stores what is inside.
    #[inline(always)]
    unsafe fn store<L: Lanes, T: Transform>(
        &self,
        square: &[[L; OUTPUTS_MAX]; OUTPUTS_MAX],
        block: usize,
        origin: [usize; 2],
    ) {
        let rows = T::OUTPUTS.min(self.out_size[0] - origin[0]);
        let columns = T::OUTPUTS.min(self.out_size[1] - origin[1]);
        let corner = (block * self.out_size[0] + origin[0]) * self.out_size[1] + origin[1];
        for (row, values) in square.iter().enumerate().take(rows) {
            // SAFETY: rows and columns end with the image.
            unsafe {
                for (column, &value) in values.iter().enumerate().take(columns) {
                    let at = (corner + row * self.out_size[1] + column) * BLOCK;
                    let mut value = value;
                    if !self.residual.is_null() {
                        value = value.add(L::load(self.residual.add(at)));
                    }
                    self.layer.finish.apply(value).store(self.output.add(at));
                }
                let line = self.output.add((corner + row * self.out_size[1]) * BLOCK);
                self.layer.finish.bend::<L>(line, columns);
            }
        }
    }

    /// Stores the greatest of every two by two that are inside, in the order of pooling, which
    /// matters where something is not a number.
    #[inline(always)]
    unsafe fn store_maxima<L: Lanes, T: Transform>(
        &self,
        square: &[[L; OUTPUTS_MAX]; OUTPUTS_MAX],
        block: usize,
        origin: [usize; 2],
    ) {
        let size = self.layer.keep.size(self.out_size);
        let first = origin.map(|outputs| outputs / 2);
        let [rows, columns] =
            [0, 1].map(|i| (T::OUTPUTS / 2).min(size[i].saturating_sub(first[i])));
        for row in (0..T::OUTPUTS / 2).take(rows) {
            for column in (0..T::OUTPUTS / 2).take(columns) {
                // SAFETY: rows and columns end with the image.
                unsafe {
                    let mut most = L::splat(f32::NEG_INFINITY);
                    for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let value = square[2 * row + i][2 * column + j];
                        most = self.layer.finish.apply(value).max(most);
                    }
                    let line = (block * size[0] + first[0] + row) * size[1];
                    most.store(self.output.add((line + first[1] + column) * BLOCK));
                }
            }
        }
    }
}

/// From a component of the transformed inputs to the next.
#[inline(always)]
fn input_stride<L: Lanes>(blocks: usize) -> usize {
    blocks * L::PIXELS * BLOCK + BLOCK
}

/// Groups of outputs that are multiplied side by side: their products stay in the second-level cache
/// from one part of the input channels to the next.
const GROUPS_AT_ONCE: usize = 4;
