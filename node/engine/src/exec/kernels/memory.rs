//! Memory that vectors like: whole cache lines, and room that each thread keeps.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::BLOCK;

/// Values at an address that is a multiple of 64 bytes, a multiple of sixteen of them.
#[derive(Default)]
pub(crate) struct Lines(Vec<Line>);

/// One cache line: one pixel of one block.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; BLOCK]);

// SAFETY: it is nothing but `f32`, and zero bytes are zeros.
unsafe impl bytemuck::Zeroable for Line {}

impl Lines {
    /// Zeros; at least so many.
    pub(crate) fn zeros(values: usize) -> Self {
        Self(bytemuck::zeroed_vec(values.div_ceil(BLOCK)))
    }

    /// Room for at least so many values; what is in it, and what comes in, does not matter.
    fn reserve(&mut self, values: usize) -> &mut [f32] {
        let lines = values.div_ceil(BLOCK);
        if self.0.len() < lines {
            // A new one, so that the old values are not copied.
            self.0 = bytemuck::zeroed_vec(lines);
        }
        &mut self[..values]
    }
}

impl Deref for Lines {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: lines are nothing but `f32`, without padding between them.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * BLOCK) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and any `f32` may be written there.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * BLOCK) }
    }
}

/// Lends room for `values` values of whatever content, which the calling thread keeps for the
/// next time. Not to be nested.
pub(crate) fn with_scratch<R>(values: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Lines> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|scratch| work(scratch.reserve(values)))
}

/// A pointer that the tasks of a crew share.
///
/// Each task writes its own part of what is behind it; who makes the tasks sees to that.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(T);

// SAFETY: see above: a promise of who makes one.
unsafe impl<T: Copy> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Copy> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// # Safety
    /// Tasks that write through the pointer write different parts, and none reads such a part.
    pub(crate) unsafe fn new(pointer: T) -> Self {
        Self(pointer)
    }

    pub(crate) fn get(self) -> T {
        self.0
    }
}
