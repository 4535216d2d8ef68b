//! A depthwise convolution with the 1x1 convolutions around it, a band of rows at a time.
//!
//! Networks for phones alternate the two: a 1x1 convolution widens an image to several times its
//! channels, a depthwise one follows, and another 1x1 convolution narrows it again. What is wide is
//! read once, right after it is written, and is most of what moves between the caches. So a task
//! makes some rows of it at a time, in room of its own that stays in the second-level cache:
//!
//! 1. The first convolution, if it is part of this, makes the rows that the depthwise one reads, a
//!    group of channels at a time. Rows that two bands read are kept for the second.
//! 2. The depthwise one makes the band: all channels of some rows.
//! 3. The last one multiplies the band from where it is. Only that goes to memory.
//!
//! Every value is the same as by the three kernels one after the other.

use super::crew::Crew;
use super::depthwise::{self, Depthwise};
use super::lanes::Lanes;
use super::memory::{Shared, with_scratch};
use super::pointwise::{Pointwise, Product};
use super::tile::Parts;
use super::{BLOCK, Isa, Kernel, blocks};

/// Two or three convolutions with their weights.
pub(crate) struct Separable {
    isa: Isa,
    widen: Option<Pointwise>,
    depthwise: Depthwise,
    narrow: Pointwise,
}

impl Separable {
    /// Each reads what the one before it writes; those of 1x1 have no stride.
    pub(crate) fn new(
        isa: Isa,
        widen: Option<Pointwise>,
        depthwise: Depthwise,
        narrow: Pointwise,
    ) -> Self {
        let (channels, plane) = (depthwise.channels(), depthwise.plane());
        assert_eq!(narrow.plane().size, plane.out_size);
        assert_eq!(narrow.plane().out_size, plane.out_size);
        assert_eq!(narrow.channels(), channels);
        if let Some(widen) = &widen {
            assert_eq!(widen.plane().size, plane.size);
            assert_eq!(widen.plane().out_size, plane.size);
            assert_eq!(widen.blocks(), blocks(channels));
        }
        Self { isa, widen, depthwise, narrow }
    }

    /// Convolves one blocked image; `residual` has the output's layout.
    pub(crate) fn run(
        &self,
        crew: &Crew<'_>,
        input: &[f32],
        residual: Option<&[f32]>,
        output: &mut [f32],
    ) {
        let plane = self.depthwise.plane();
        let channels = self.widen.as_ref().map_or(self.depthwise.channels(), Pointwise::channels);
        plane.check(channels, input, self.narrow.blocks(), residual, output);
        let (height, most) = (plane.out_size[0], self.rows_most());
        let chunks = Parts::new(height, self.chunks(most, crew.threads()));
        // SAFETY: every task writes its own rows.
        let output = unsafe { Shared::new(output.as_mut_ptr()) };
        crew.for_each(chunks.count(), |task| {
            let rows = chunks.bounds(task);
            let bands = Parts::of_most(rows.1 - rows.0, most);
            let sizes = self.room(bands.bounds(0).1);
            with_scratch(sizes.iter().sum(), |room| {
                let (band, room) = room.split_at_mut(sizes[0]);
                let (wide, room) = room.split_at_mut(sizes[1]);
                let (kept, padded) = room.split_at_mut(sizes[2]);
                let job = Job {
                    layer: self,
                    first: rows.0,
                    bands,
                    input: input.as_ptr(),
                    residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
                    output: output.get(),
                    band: band.as_mut_ptr(),
                    wide: wide.as_mut_ptr(),
                    kept: kept.as_mut_ptr(),
                    padded: padded.as_mut_ptr(),
                };
                // SAFETY: the lengths have been checked above.
                unsafe { self.isa.run(job) }
            });
        });
    }

    /// Most rows of a band.
    fn rows_most(&self) -> usize {
        let plane = self.depthwise.plane();
        let band = plane.out_size[1] * blocks(self.depthwise.channels()) * BLOCK;
        let wide = self.wide_block(self.depthwise.input_rows_most(1)) * self.group_blocks();
        (BAND_VALUES / (band + wide)).clamp(1, plane.out_size[0])
    }

    /// How many tasks there are: with rows to keep, no more than there are threads.
    fn chunks(&self, most: usize, threads: usize) -> usize {
        let height = self.depthwise.plane().out_size[0];
        match self.widen {
            Some(_) => threads.min(height),
            None => height.div_ceil(most).next_multiple_of(threads).min(height),
        }
    }

    /// Blocks of a group of the first convolution, if there is one.
    fn group_blocks(&self) -> usize {
        self.widen.as_ref().map_or(0, |_| self.isa.tile_blocks())
    }

    /// Values of the band, of the rows that it is made of, of those that are kept, and of padded
    /// copies, for bands of so many rows.
    fn room(&self, rows: usize) -> [usize; 4] {
        let count = blocks(self.depthwise.channels());
        let input_rows = self.depthwise.input_rows_most(rows);
        let kept = if self.widen.is_some() { count * self.kept_block() } else { 0 };
        [
            count * self.band_block(rows),
            self.group_blocks() * self.wide_block(input_rows),
            kept,
            self.depthwise.room((0, rows)),
        ]
    }

    /// Values from a block of a band to the next: an odd number of cache lines. A distance of a
    /// power of two would put all channels of a pixel into the same few of them.
    fn band_block(&self, rows: usize) -> usize {
        let pixels = rows * self.depthwise.plane().out_size[1];
        (pixels | 1) * BLOCK
    }

    /// Values from a block of the rows that a band is made of to the next.
    fn wide_block(&self, rows: usize) -> usize {
        rows * self.depthwise.plane().size[1] * BLOCK
    }

    /// Values from a block of the rows that are kept to the next.
    fn kept_block(&self) -> usize {
        self.wide_block(self.depthwise.input_rows_most(1))
    }
}

/// Some bands of rows, one below the other.
struct Job<'a> {
    layer: &'a Separable,
    /// The first row.
    first: usize,
    bands: Parts,
    input: *const f32,
    residual: *const f32,
    output: *mut f32,
    /// What the depthwise convolution writes: `[block][row][column][16]`, as all of these.
    band: *mut f32,
    /// What the first convolution writes of one group.
    wide: *mut f32,
    /// The last rows of that, of all groups.
    kept: *mut f32,
    /// Room for the depthwise convolution's padded input.
    padded: *mut f32,
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Separable { widen, depthwise, narrow, .. } = self.layer;
        let count = blocks(depthwise.channels());
        let groups = widen.as_ref().map_or(1, Pointwise::groups);
        for band in 0..self.bands.count() {
            for group in 0..groups {
                let (first, end) = widen.as_ref().map_or((0, count), |one| one.group_blocks(group));
                // SAFETY: as the caller says; each convolution reads what the one before wrote.
                unsafe {
                    let wide = match widen {
                        Some(widen) => self.widen::<L>(widen, group, band),
                        None => self.image(),
                    };
                    for block in first..end {
                        let rows = wide.first_row.wrapping_add((block - first) * wide.block);
                        self.filter::<L>(block, self.rows(band), rows);
                        if widen.is_some() && band + 1 < self.bands.count() {
                            self.keep(block, band, rows);
                        }
                    }
                }
            }
            // SAFETY: as above.
            unsafe { self.narrow::<L>(narrow, self.rows(band)) }
        }
    }
}

/// What the depthwise convolution reads.
struct Wide {
    /// Where the first row of the first block of a group would be.
    first_row: *const f32,
    /// From a block to the next.
    block: usize,
}

impl Job<'_> {
    /// The output rows of a band.
    #[inline(always)]
    fn rows(&self, band: usize) -> (usize, usize) {
        let (first, end) = self.bands.bounds(band);
        (self.first + first, self.first + end)
    }

    #[inline(always)]
    fn band_block(&self, rows: (usize, usize)) -> usize {
        self.layer.band_block(rows.1 - rows.0)
    }

    /// The whole image, where there is no first convolution.
    #[inline(always)]
    fn image(&self) -> Wide {
        let [height, width] = self.layer.depthwise.plane().size;
        Wide { first_row: self.input, block: height * width * BLOCK }
    }

    /// Makes the rows of one group that a band reads: those that were kept, and new ones.
    #[inline(always)]
    unsafe fn widen<L: Lanes>(&self, widen: &Pointwise, group: usize, band: usize) -> Wide {
        let depthwise = &self.layer.depthwise;
        let [height, width] = depthwise.plane().size;
        let line = width * BLOCK;
        let (first, end) = depthwise.input_rows(self.rows(band));
        let made = if band == 0 { 0 } else { depthwise.input_rows(self.rows(band - 1)).1 };
        let fresh = made.clamp(first, end);
        let block = self.layer.wide_block(end - first);
        let (start, after) = widen.group_blocks(group);
        let product = Product {
            layer: widen,
            pixels: (fresh * width, end * width),
            groups: (group, group + 1),
            residual: std::ptr::null(),
            output: self.wide.wrapping_sub(start * block + first * line),
            out_block: block,
        };
        // SAFETY: the room is for all of these rows, and for those that are kept.
        unsafe {
            for i in 0..after - start {
                let kept = self.kept.add((start + i) * self.layer.kept_block());
                kept.copy_to_nonoverlapping(self.wide.add(i * block), (fresh - first) * line);
            }
            if fresh < end {
                let input = self.input.add(fresh * line);
                product.sum::<L>(|(first, _)| (input.add(first * BLOCK), height * line));
            }
        }
        Wide { first_row: self.wide.cast_const().wrapping_sub(first * line), block }
    }

    /// Keeps the rows of a block that the next band reads, too.
    #[inline(always)]
    unsafe fn keep(&self, block: usize, band: usize, first_row: *const f32) {
        let depthwise = &self.layer.depthwise;
        let line = depthwise.plane().size[1] * BLOCK;
        let end = depthwise.input_rows(self.rows(band)).1;
        let next = depthwise.input_rows(self.rows(band + 1)).0.min(end);
        // SAFETY: these rows have been made, and there is room for as many as a band of one reads.
        unsafe {
            let kept = self.kept.add(block * self.layer.kept_block());
            first_row.wrapping_add(next * line).copy_to_nonoverlapping(kept, (end - next) * line);
        }
    }

    /// The depthwise convolution of one block to the band; `input` is where its first row would be.
    #[inline(always)]
    unsafe fn filter<L: Lanes>(&self, block: usize, rows: (usize, usize), input: *const f32) {
        let layer = &self.layer.depthwise;
        let above = rows.0 * layer.plane().out_size[1] * BLOCK;
        // SAFETY: as the caller says; the band has room for these rows.
        unsafe {
            let band = self.band.add(block * self.band_block(rows));
            let job = depthwise::Job {
                layer,
                block,
                rows,
                input,
                residual: std::ptr::null(),
                output: band.wrapping_sub(above),
                band: self.padded,
            };
            job.run::<L>();
        }
    }

    /// Multiplies a band to the output.
    #[inline(always)]
    unsafe fn narrow<L: Lanes>(&self, narrow: &Pointwise, rows: (usize, usize)) {
        let [height, width] = narrow.plane().out_size;
        let product = Product {
            layer: narrow,
            pixels: (rows.0 * width, rows.1 * width),
            groups: (0, narrow.groups()),
            residual: self.residual,
            output: self.output,
            out_block: height * width * BLOCK,
        };
        let (band, block) = (self.band.cast_const(), self.band_block(rows));
        // SAFETY: as the caller says; the band is full.
        unsafe { product.sum::<L>(|(first, _)| (band.add(first * BLOCK), block)) }
    }
}

/// Values of a band and what it is made of: half of a second-level cache of 512 KiB.
const BAND_VALUES: usize = 64 * 1024;
