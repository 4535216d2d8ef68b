//! 3x3 convolutions with stride 1 by minimal filtering (Winograd 1980; Lavin and Gray 2016).
//!
//! The image is cut into tiles of `m x m` outputs, which read `(m + 2) x (m + 2)` inputs each.
//! Input tiles, filters and output tiles are taken to another domain and back by small constant
//! matrices; in between, each of the `(m + 2)^2` components is a matrix product of tiles by
//! channels. F(2x2) needs 16 products for 4 outputs where the definition needs 36, and F(4x4)
//! 36 for 16 where it needs 144.
//!
//! The matrices come from polynomial interpolation at chosen points and at infinity (Toom and
//! Cook). F(4x4) here takes 0, ±√½ and ±√2: with the customary 0, ±1 and ±2 the error is several
//! times greater, and the work is the same. For points 0, ±a, ±b the rows of the input transform
//! are the coefficients of `M(x) / (x - p)` with `M(x) = x (x² - a²) (x² - b²)`, and of `M`
//! itself for infinity; those of the filter transform are `(1, p, p²) / M'(p)`.
//!
//! A task transforms a block of tiles, multiplies component after component, so that a
//! component's weights stay in the cache for all tiles of the block, and transforms back.

use rayon::prelude::*;

use super::crew::Crew;
use super::lanes::{Lanes, PIXELS_MAX};
use super::memory::{Shared, with_scratch};
use super::panels::{Filters, Panel, Panels};
use super::tile::{Finish, Parts, accumulate_blocks, tiled};
use super::{BLOCK, Isa, Kernel, Plane, blocks};

/// How large the tiles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Tiles {
    /// 2x2 outputs.
    F2,
    /// 4x4 outputs.
    F4,
}

impl Tiles {
    /// Outputs along a side.
    pub(crate) fn outputs(self) -> usize {
        match self {
            Self::F2 => 2,
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

    /// The filter transform: for each point, what its row multiplies the three taps with.
    fn filter_rows(self) -> Vec<[f64; 3]> {
        // M'(p) is the product of the distances to all other points.
        let row = |p: f64, distances: f64| [1.0, p, p * p].map(|power| power / distances);
        match self {
            Self::F2 => vec![row(0.0, -1.0), row(1.0, 2.0), row(-1.0, 2.0), [0.0, 0.0, 1.0]],
            Self::F4 => {
                let [a2, b2] = [A * A, B * B].map(f64::from);
                let (near, far) = (2.0 * a2 * (a2 - b2), 2.0 * b2 * (b2 - a2));
                let [a, b] = [A, B].map(f64::from);
                vec![
                    row(0.0, a2 * b2),
                    row(a, near),
                    row(-a, near),
                    row(b, far),
                    row(-b, far),
                    [0.0, 0.0, 1.0],
                ]
            }
        }
    }
}

impl Tiles {
    /// Transforms the filters of a group of outputs, from `first` on, to one part of each
    /// component's panels.
    fn transform_filters(
        self,
        channels: usize,
        filters: &Filters<'_>,
        first: usize,
        parts: &mut [&mut [f32]],
    ) {
        let (rows, side) = (self.filter_rows(), self.inputs());
        let wide = parts[0].len() / channels;
        let outputs = first..filters.outputs.min(first + wide);
        for channel in 0..channels {
            for output in outputs.clone() {
                let start = (output * channels + channel) * 9;
                let taps: [f64; 9] =
                    std::array::from_fn(|i| f64::from(filters.value(output, start + i)));
                let to = channel * wide + output - first;
                for (i, down) in rows.iter().enumerate() {
                    let line: [f64; 3] = std::array::from_fn(|column| {
                        (0..3).map(|row| down[row] * taps[row * 3 + column]).sum()
                    });
                    for (j, right) in rows.iter().enumerate() {
                        let sum: f64 = line.iter().zip(right).map(|(value, by)| value * by).sum();
                        parts[i * side + j][to] = sum as f32;
                    }
                }
            }
        }
        filters.packed(outputs);
    }
}

/// A 3x3 convolution with its transformed filters.
pub(crate) struct Winograd {
    isa: Isa,
    tiles: Tiles,
    channels: usize,
    plane: Plane,
    /// Zeros above and to the left of the image.
    padding: [usize; 2],
    finish: Finish,
    /// One for each component.
    panels: Vec<Panels>,
}

impl Winograd {
    /// Transforms filters of `[outputs][channels][3][3]`.
    pub(crate) fn new(
        isa: Isa,
        tiles: Tiles,
        channels: usize,
        plane: Plane,
        padding: [usize; 2],
        filters: &Filters,
        finish: Finish,
    ) -> Self {
        let component = |_| Panels::zeros(isa, filters.outputs, channels, filters.bias);
        let mut panels: Vec<_> = (0..tiles.components()).map(component).collect();
        let mut groups: Vec<Vec<&mut [f32]>> = Vec::new();
        groups.resize_with(panels[0].groups(), Vec::new);
        for component in &mut panels {
            groups.iter_mut().zip(component.parts()).for_each(|(group, part)| group.push(part));
        }
        let group_channels = isa.tile_blocks() * BLOCK;
        groups.into_par_iter().enumerate().for_each(|(group, mut parts)| {
            tiles.transform_filters(channels, filters, group * group_channels, &mut parts);
        });
        filters.packed(0..filters.outputs);
        Self { isa, tiles, channels, plane, padding, finish, panels }
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
        self.plane.check(self.channels, input, self.panels[0].blocks(), residual, output);
        let grid = out_size.map(|outputs| outputs.div_ceil(self.tiles.outputs()));
        let count = grid[0] * grid[1];
        let (parts, shares) = self.split(count, crew.threads());
        let parts = Parts::new(count, parts);
        let shares = Parts::new(self.panels[0].groups(), shares);
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
            };
            let inputs = job.inputs_values();
            with_scratch(inputs + job.products_values(), |scratch| {
                let (inputs, products) = scratch.split_at_mut(inputs);
                (job.inputs, job.products) = (inputs.as_mut_ptr(), products.as_mut_ptr());
                // SAFETY: the lengths have been checked above.
                unsafe {
                    match self.tiles {
                        Tiles::F2 => self.isa.run(TileJob(job, F2)),
                        Tiles::F4 => self.isa.run(TileJob(job, F4)),
                    }
                }
            });
        });
    }

    /// Into how many parts the tiles are divided, and how many shares the groups.
    fn split(&self, tiles: usize, threads: usize) -> (usize, usize) {
        let channels = blocks(self.channels) + self.panels[0].blocks();
        let tile = self.tiles.components() * channels * BLOCK;
        let weights = self.tiles.components() * self.channels * self.panels[0].blocks() * BLOCK;
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
            return (parts, threads.min(self.panels[0].groups()));
        }
        ((2 * threads).min(tiles), 1)
    }
}

/// Some tiles by some groups.
struct Job<'a> {
    layer: &'a Winograd,
    input: *const f32,
    size: [usize; 2],
    out_size: [usize; 2],
    /// Tiles down and across.
    grid: [usize; 2],
    tiles: (usize, usize),
    /// Sets of as many tiles as are summed at once.
    sets: Parts,
    groups: (usize, usize),
    residual: *const f32,
    output: *mut f32,
    /// Transformed inputs: `[set][component][block][tile][16]`.
    inputs: *mut f32,
    /// Products: `[set][group][component][tile][block][16]`.
    products: *mut f32,
}

/// A job for tiles of one size.
struct TileJob<'a, T>(Job<'a>, T);

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
            for component in 0..T::INPUTS * T::INPUTS {
                job.multiply::<L, T>(component);
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
    fn inputs_values(&self) -> usize {
        let sets = self.sets.count();
        let pixels = self.layer.isa.tile_pixels();
        sets * self.layer.tiles.components()
            * (blocks(self.layer.channels) * pixels * BLOCK + BLOCK)
    }

    fn products_values(&self) -> usize {
        let sets = self.sets.count();
        let channels = (self.groups.1 - self.groups.0) * self.layer.isa.tile_blocks() * BLOCK;
        sets * self.layer.tiles.components() * channels * self.layer.isa.tile_pixels()
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
    unsafe fn multiply<L: Lanes, T: Transform>(&self, component: usize) {
        let panels = &self.layer.panels[component];
        let sets = self.sets.count();
        for group in self.groups.0..self.groups.1 {
            let panel = panels.panel(group);
            let last_group = group + 1 == self.groups.1;
            let next = if last_group {
                self.layer.panels.get(component + 1).map(|panels| panels.panel(self.groups.0))
            } else {
                Some(panels.panel(group + 1))
            };
            let next = next.map_or(&[][..], |next| next.weights);
            let lines = Parts::new(next.len() / BLOCK, sets);
            for set in 0..sets {
                let (first, last) = self.set(set);
                let (from, to) = lines.bounds(set);
                let ahead = &next[from * BLOCK..to * BLOCK];
                // SAFETY: both places are counted in the room that the job was given.
                unsafe {
                    let input = self.input_at::<L, T>(set, component, 0).cast_const();
                    let product = self.product_at::<L, T>(set, group, component);
                    let channels = self.layer.channels;
                    tiled!(
                        L,
                        panel.blocks,
                        last - first,
                        multiply_set(&panel, channels, input, product, ahead)
                    );
                }
            }
        }
    }

    /// Transforms tile number `tile` of a set back, adds bias and residual, and stores what is inside.
    #[inline(always)]
    unsafe fn transform_output<L: Lanes, T: Transform>(
        &self,
        set: usize,
        group: usize,
        tile: usize,
        origin: [usize; 2],
    ) {
        let panel = self.layer.panels[0].panel(group);
        let rows = T::OUTPUTS.min(self.out_size[0] - origin[0]);
        let columns = T::OUTPUTS.min(self.out_size[1] - origin[1]);
        for b in 0..panel.blocks {
            // SAFETY: rows and columns end with the image.
            unsafe {
                let product = self.product_at::<L, T>(set, group, 0);
                let product = product.add((tile * panel.blocks + b) * BLOCK).cast_const();
                let bias = L::load(panel.bias.as_ptr().add(b * BLOCK));
                let values = square_out::<L, T>(product, L::PIXELS * L::BLOCKS * BLOCK, bias);
                let corner = ((panel.first + b) * self.out_size[0] + origin[0]) * self.out_size[1]
                    + origin[1];
                for (row, values) in values.iter().enumerate().take(rows) {
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
    }
}

/// Multiplies one component of a set of tiles by a group, and fetches what comes next.
///
/// # Safety
/// See [`accumulate_blocks`]; there is room for the products.
#[inline(always)]
unsafe fn multiply_set<L: Lanes, const B: usize, const P: usize>(
    panel: &Panel<'_>,
    channels: usize,
    input: *const f32,
    product: *mut f32,
    ahead: &[f32],
) {
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [[L::splat(0.0); P]; B];
        let weights = panel.weights.as_ptr();
        accumulate_blocks(&mut sums, input, P * BLOCK, channels, weights, ahead);
        for (b, row) in sums.into_iter().enumerate() {
            for (p, sum) in row.into_iter().enumerate() {
                sum.store(product.add((p * B + b) * BLOCK));
            }
        }
    }
}

/// From a component of the transformed inputs to the next.
#[inline(always)]
fn input_stride<L: Lanes>(blocks: usize) -> usize {
    blocks * L::PIXELS * BLOCK + BLOCK
}

/// Transforms a square of inputs, rows `row` apart, to components `stride` apart.
///
/// # Safety
/// The inputs are there, and room for the components.
#[inline(always)]
unsafe fn square_in<L: Lanes, T: Transform>(
    from: *const f32,
    row: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller says.
    unsafe {
        let zero = L::splat(0.0);
        let mut half = [[zero; SIDE_MAX]; SIDE_MAX];
        for column in 0..T::INPUTS {
            let mut values = [zero; SIDE_MAX];
            for (i, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                *value = L::load(from.add(i * row + column * BLOCK));
            }
            for (row, value) in half.iter_mut().zip(T::input(values)) {
                row[column] = value;
            }
        }
        for (i, values) in half.into_iter().enumerate().take(T::INPUTS) {
            for (j, value) in T::input(values).into_iter().enumerate().take(T::INPUTS) {
                value.store(to.add((i * T::INPUTS + j) * stride));
            }
        }
    }
}

/// Transforms components `stride` apart to a square of outputs, and adds the bias.
///
/// # Safety
/// The components are there.
#[inline(always)]
unsafe fn square_out<L: Lanes, T: Transform>(
    from: *const f32,
    stride: usize,
    bias: L,
) -> [[L; OUTPUTS_MAX]; OUTPUTS_MAX] {
    // SAFETY: as the caller says.
    unsafe {
        let zero = L::splat(0.0);
        let mut half = [[zero; SIDE_MAX]; OUTPUTS_MAX];
        for column in 0..T::INPUTS {
            let mut values = [zero; SIDE_MAX];
            for (i, value) in values.iter_mut().enumerate().take(T::INPUTS) {
                *value = L::load(from.add((i * T::INPUTS + column) * stride));
            }
            for (row, value) in half.iter_mut().zip(T::output(values)) {
                row[column] = value;
            }
        }
        let mut square = [[zero; OUTPUTS_MAX]; OUTPUTS_MAX];
        for i in 0..T::OUTPUTS {
            square[i] = T::output(half[i]).map(|value| value.add(bias));
        }
        square
    }
}

/// The one-dimensional transforms. Arrays are as long as the largest; what is beyond does not
/// matter.
trait Transform {
    const OUTPUTS: usize;
    const INPUTS: usize;

    /// # Safety
    /// The processor has the instruction set of `L`, here and below.
    unsafe fn input<L: Lanes>(values: [L; SIDE_MAX]) -> [L; SIDE_MAX];
    /// # Safety
    /// As above.
    unsafe fn output<L: Lanes>(values: [L; SIDE_MAX]) -> [L; OUTPUTS_MAX];
}

/// Points 0, 1, -1 and infinity.
struct F2;

impl Transform for F2 {
    const OUTPUTS: usize = 2;
    const INPUTS: usize = 4;

    #[inline(always)]
    unsafe fn input<L: Lanes>([d0, d1, d2, d3, d4, d5]: [L; SIDE_MAX]) -> [L; SIDE_MAX] {
        // SAFETY: as the caller says.
        unsafe { [d2.sub(d0), d1.add(d2), d2.sub(d1), d3.sub(d1), d4, d5] }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([m0, m1, m2, m3, ..]: [L; SIDE_MAX]) -> [L; OUTPUTS_MAX] {
        // SAFETY: as the caller says.
        unsafe { [m0.add(m1).add(m2), m1.sub(m2).add(m3), m0, m0] }
    }
}

/// Points 0, a, -a, b, -b and infinity, with `a² b² = 1`.
struct F4;

impl Transform for F4 {
    const OUTPUTS: usize = 4;
    const INPUTS: usize = 6;

    #[inline(always)]
    unsafe fn input<L: Lanes>([d0, d1, d2, d3, d4, d5]: [L; SIDE_MAX]) -> [L; SIDE_MAX] {
        // SAFETY: as the caller says.
        unsafe {
            let (minus_a2, minus_b2) = (L::splat(-A * A), L::splat(-B * B));
            let minus_sum = L::splat(-(A * A + B * B));
            let even_a = d2.mul_add(minus_b2, d4);
            let odd_a = L::splat(A).mul(d1.mul_add(minus_b2, d3));
            let even_b = d2.mul_add(minus_a2, d4);
            let odd_b = L::splat(B).mul(d1.mul_add(minus_a2, d3));
            [
                d2.mul_add(minus_sum, d0.add(d4)),
                even_a.add(odd_a),
                even_a.sub(odd_a),
                even_b.add(odd_b),
                even_b.sub(odd_b),
                d3.mul_add(minus_sum, d1.add(d5)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([m0, m1, m2, m3, m4, m5]: [L; SIDE_MAX]) -> [L; OUTPUTS_MAX] {
        // SAFETY: as the caller says.
        unsafe {
            let (sum_a, difference_a) = (m1.add(m2), m1.sub(m2));
            let (sum_b, difference_b) = (m3.add(m4), m3.sub(m4));
            let scaled = |a: f32, x: L, b: f32, y: L| L::splat(a).mul_add(x, L::splat(b).mul(y));
            [
                m0.add(sum_a).add(sum_b),
                scaled(A, difference_a, B, difference_b),
                scaled(A * A, sum_a, B * B, sum_b),
                scaled(A * A * A, difference_a, B * B * B, difference_b).add(m5),
            ]
        }
    }
}

/// The nearer points, ±√½ ...
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// ... and the farther ones, ±√2.
const B: f32 = std::f32::consts::SQRT_2;

/// Inputs along a side of the largest tile.
const SIDE_MAX: usize = 6;
/// Outputs along its side.
const OUTPUTS_MAX: usize = 4;

/// Values of a part's transformed inputs and products: 2 MiB.
const PART_VALUES: usize = 512 * 1024;
