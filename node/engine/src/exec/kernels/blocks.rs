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

/// Adds two tensors of the same layout, or passes one on, and finishes the result.
pub(crate) fn add(
    isa: Isa,
    crew: &Crew<'_>,
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
        let job = Sum { left: &left[first..last], right, finish, output };
        // SAFETY: all three are as long as the left one.
        unsafe { isa.run(job) }
    });
}

struct Sum<'a> {
    left: &'a [f32],
    right: *const f32,
    finish: Finish,
    output: *mut f32,
}

impl Kernel for Sum<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let whole = self.left.len() / BLOCK * BLOCK;
        for at in (0..whole).step_by(BLOCK) {
            // SAFETY: as the caller says.
            unsafe {
                let mut value = L::load(self.left.as_ptr().add(at));
                if !self.right.is_null() {
                    value = value.add(L::load(self.right.add(at)));
                }
                self.finish.apply(value).store(self.output.add(at));
            }
        }
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
                value = value.add(L::load(values[1].as_ptr()));
            }
            self.finish.apply(value).store(values[0].as_mut_ptr());
            std::ptr::copy_nonoverlapping(values[0].as_ptr(), self.output.add(whole), rest);
        }
    }
}

/// Pixels of a task: sixteen planes of them fit a first-level cache.
const PIXELS: usize = 256;
/// Values of a task.
const VALUES: usize = 16 * 1024;
