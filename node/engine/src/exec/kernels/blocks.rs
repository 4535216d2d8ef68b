//! Between planar and blocked, and what is done to blocked images value by value.

use super::crew::Crew;
use super::lanes::Lanes;
use super::memory::Shared;
use super::tile::{Finish, Parts};
use super::{BLOCK, Isa, Kernel, blocks};

/// Brings a planar image of `channels` planes into blocks, filled up with zeros.
pub(crate) fn pack(crew: &Crew<'_>, channels: usize, planar: &[f32], blocked: &mut [f32]) {
    let area = planar.len() / channels;
    assert_eq!(planar.len(), channels * area);
    assert_eq!(blocked.len(), blocks(channels) * area * BLOCK);
    // SAFETY: every task writes its own pixels of its own block.
    let shared = unsafe { Shared::new(blocked.as_mut_ptr()) };
    let chunks = area.div_ceil(PIXELS);
    crew.for_each(blocks(channels) * chunks, |task| {
        let (block, chunk) = (task / chunks, task % chunks);
        let (first, last) = (chunk * PIXELS, area.min((chunk + 1) * PIXELS));
        // SAFETY: these pixels are inside the slice, and this task's alone.
        let to = unsafe {
            let at = shared.get().add((block * area + first) * BLOCK);
            std::slice::from_raw_parts_mut(at, (last - first) * BLOCK)
        };
        let lanes = BLOCK.min(channels - block * BLOCK);
        if lanes < BLOCK {
            to.fill(0.0);
        }
        for lane in 0..lanes {
            let from = &planar[(block * BLOCK + lane) * area + first..][..last - first];
            for (to, &value) in to.iter_mut().skip(lane).step_by(BLOCK).zip(from) {
                *to = value;
            }
        }
    });
}

/// Brings a blocked image back into `channels` planes.
pub(crate) fn unpack(crew: &Crew<'_>, channels: usize, blocked: &[f32], planar: &mut [f32]) {
    let area = planar.len() / channels;
    assert_eq!(planar.len(), channels * area);
    assert_eq!(blocked.len(), blocks(channels) * area * BLOCK);
    // SAFETY: every task writes its own pixels of its own planes.
    let shared = unsafe { Shared::new(planar.as_mut_ptr()) };
    let chunks = area.div_ceil(PIXELS);
    crew.for_each(blocks(channels) * chunks, |task| {
        let (block, chunk) = (task / chunks, task % chunks);
        let (first, last) = (chunk * PIXELS, area.min((chunk + 1) * PIXELS));
        let from = &blocked[(block * area + first) * BLOCK..(block * area + last) * BLOCK];
        for lane in 0..BLOCK.min(channels - block * BLOCK) {
            // SAFETY: these pixels are inside the slice, and this task's alone.
            let to = unsafe {
                let at = shared.get().add((block * BLOCK + lane) * area + first);
                std::slice::from_raw_parts_mut(at, last - first)
            };
            for (to, &value) in to.iter_mut().zip(from.iter().skip(lane).step_by(BLOCK)) {
                *to = value;
            }
        }
    });
}

/// What becomes of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// Their sum.
    Add,
    /// Their product.
    Multiply,
}

/// Joins two tensors of the same layout, or passes one on, and finishes the result.
pub(crate) fn join(
    isa: Isa,
    crew: &Crew<'_>,
    join: Join,
    left: &[f32],
    right: Option<&[f32]>,
    finish: Finish,
    output: &mut [f32],
) {
    assert_eq!(left.len(), output.len());
    assert!(right.is_none_or(|right| right.len() == output.len()));
    let tasks = if crew.threads() == 1 { 1 } else { output.len().div_ceil(VALUES) };
    // SAFETY: every task writes its own values.
    let shared = unsafe { Shared::new(output.as_mut_ptr()) };
    let parts = Parts::new(left.len(), tasks.max(1));
    crew.for_each(parts.count(), |task| {
        let (first, last) = parts.bounds(task);
        let right = right.map_or(std::ptr::null(), |right| right[first..last].as_ptr());
        // SAFETY: these values are inside the slice.
        let output = unsafe { shared.get().add(first) };
        let job = Pairs { join, left: &left[first..last], right, finish, output };
        // SAFETY: all three are as long as the left one.
        unsafe { isa.run(job) }
    });
}

/// Multiplies a blocked image by one factor for each channel, which are an image of one pixel.
pub(crate) fn scale(
    isa: Isa,
    crew: &Crew<'_>,
    image: &[f32],
    factors: &[f32],
    finish: Finish,
    output: &mut [f32],
) {
    assert_eq!(image.len(), output.len());
    let count = factors.len() / BLOCK;
    let area = image.len() / factors.len();
    assert_eq!(image.len(), count * area * BLOCK);
    // SAFETY: every task writes its own pixels of its own block.
    let shared = unsafe { Shared::new(output.as_mut_ptr()) };
    let chunks = Parts::of_most(area, PIXELS);
    crew.for_each(count * chunks.count(), |task| {
        let block = task / chunks.count();
        let (first, last) = chunks.bounds(task % chunks.count());
        let pixels = &image[(block * area + first) * BLOCK..(block * area + last) * BLOCK];
        let factors = &factors[block * BLOCK..(block + 1) * BLOCK];
        // SAFETY: these pixels are inside the slice.
        let output = unsafe { shared.get().add((block * area + first) * BLOCK) };
        // SAFETY: the output is as long as the pixels.
        unsafe { isa.run(Scale { pixels, factors, finish, output }) }
    });
}

struct Scale<'a> {
    pixels: &'a [f32],
    factors: &'a [f32],
    finish: Finish,
    output: *mut f32,
}

impl Kernel for Scale<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller says; there are sixteen factors.
        unsafe {
            let factor = L::load(self.factors.as_ptr());
            for at in (0..self.pixels.len()).step_by(BLOCK) {
                let value = L::load(self.pixels.as_ptr().add(at)).mul(factor);
                self.finish.apply(value).store(self.output.add(at));
            }
            self.finish.bend::<L>(self.output, self.pixels.len() / BLOCK);
        }
    }
}

struct Pairs<'a> {
    join: Join,
    left: &'a [f32],
    right: *const f32,
    finish: Finish,
    output: *mut f32,
}

impl Kernel for Pairs<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let whole = self.left.len() / BLOCK * BLOCK;
        for at in (0..whole).step_by(BLOCK) {
            // SAFETY: as the caller says.
            unsafe {
                let mut value = L::load(self.left.as_ptr().add(at));
                if !self.right.is_null() {
                    value = self.joined(value, L::load(self.right.add(at)));
                }
                self.finish.apply(value).store(self.output.add(at));
            }
        }
        // SAFETY: as the caller says: so many values have been stored.
        unsafe { self.finish.bend::<L>(self.output, whole / BLOCK) }
        if whole == self.left.len() {
            return;
        }
        let rest = self.left.len() - whole;
        let mut values = [[0.0f32; BLOCK]; 2];
        values[0][..rest].copy_from_slice(&self.left[whole..]);
        // SAFETY: as the caller says; only the rest is read and written.
        unsafe {
            if !self.right.is_null() {
                let right = std::slice::from_raw_parts(self.right.add(whole), rest);
                values[1][..rest].copy_from_slice(right);
            }
            let mut value = L::load(values[0].as_ptr());
            if !self.right.is_null() {
                value = self.joined(value, L::load(values[1].as_ptr()));
            }
            self.finish.apply(value).store(values[0].as_mut_ptr());
            self.finish.bend::<L>(values[0].as_mut_ptr(), 1);
            std::ptr::copy_nonoverlapping(values[0].as_ptr(), self.output.add(whole), rest);
        }
    }
}

impl Pairs<'_> {
    #[inline(always)]
    unsafe fn joined<L: Lanes>(&self, left: L, right: L) -> L {
        // SAFETY: as the caller says.
        unsafe {
            match self.join {
                Join::Add => left.add(right),
                Join::Multiply => left.mul(right),
            }
        }
    }
}

/// Pixels of a task: sixteen planes of them fit a first-level cache.
const PIXELS: usize = 256;
/// Values of a task.
const VALUES: usize = 16 * 1024;
