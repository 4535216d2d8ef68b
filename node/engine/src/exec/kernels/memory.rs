//! Memory that vectors like: whole cache lines, and room that each thread keeps.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

#[cfg(all(target_os = "linux", not(miri)))]
use memmap2::Advice;
use memmap2::MmapMut;

use super::BLOCK;

/// Values at an address that is a multiple of 64 bytes, a multiple of sixteen of them.
pub(crate) struct Lines(Owner);

/// Where the memory comes from.
enum Owner {
    Heap(Vec<Line>),
    /// From the system, in large pages if it has some: a kernel that reads through megabytes
    /// would otherwise look up an address every few hundred values.
    Map {
        map: MmapMut,
        start: usize,
        lines: usize,
    },
}

/// One cache line: one pixel of one block.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; BLOCK]);

// SAFETY: it is nothing but `f32`, and zero bytes are zeros.
unsafe impl bytemuck::Zeroable for Line {}

impl Lines {
    /// Zeros; at least so many.
    pub(crate) fn zeros(values: usize) -> Self {
        let lines = values.div_ceil(BLOCK);
        let map = if lines >= LARGE_LINES { large(lines) } else { None };
        Self(map.unwrap_or_else(|| Owner::Heap(bytemuck::zeroed_vec(lines))))
    }

    /// Room for at least so many values; what is in it, and what comes in, does not matter.
    fn reserve(&mut self, values: usize) -> &mut [f32] {
        if self.len() < values {
            // A new one, so that the old values are not copied.
            *self = Self::zeros(values);
        }
        &mut self[..values]
    }
}

impl Deref for Lines {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            // SAFETY: lines are nothing but `f32`, without padding between them.
            Owner::Heap(lines) => unsafe {
                std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * BLOCK)
            },
            // SAFETY: so many bytes of the map follow, aligned, and any bytes are an `f32`.
            Owner::Map { map, start, lines } => unsafe {
                std::slice::from_raw_parts(map.as_ptr().add(*start).cast(), lines * BLOCK)
            },
        }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            // SAFETY: as above, and any `f32` may be written there.
            Owner::Heap(lines) => unsafe {
                std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * BLOCK)
            },
            // SAFETY: as above.
            Owner::Map { map, start, lines } => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().add(*start).cast(), *lines * BLOCK)
            },
        }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::zeros(0)
    }
}

/// So many lines in large pages, which begin where such a page does; none if the system refuses.
fn large(lines: usize) -> Option<Owner> {
    let bytes = lines * size_of::<Line>();
    let map = MmapMut::map_anon(bytes.checked_add(LARGE_PAGE)?).ok()?;
    let address = map.as_ptr() as usize;
    let start = address.next_multiple_of(LARGE_PAGE) - address;
    // What is left over at the end is in small pages: nothing is taken that is not used.
    #[cfg(all(target_os = "linux", not(miri)))]
    map.advise_range(Advice::HugePage, start, bytes / LARGE_PAGE * LARGE_PAGE).unwrap_or_default();
    Some(Owner::Map { map, start, lines })
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

/// The large pages of most systems; small for an interpreter, to which every byte takes its time.
const LARGE_PAGE: usize = if cfg!(miri) { 64 * 1024 } else { 2 * 1024 * 1024 };
/// Memory of two such pages or more comes from the system.
const LARGE_LINES: usize = 2 * LARGE_PAGE / size_of::<Line>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_zeros() {
        let large = LARGE_LINES * BLOCK;
        for values in [0, 1, BLOCK, 1000, large - 1, large, large + 12_345] {
            let mut lines = Lines::zeros(values);
            assert_eq!(lines.len(), values.next_multiple_of(BLOCK));
            assert!((lines.as_ptr() as usize).is_multiple_of(64));
            assert!(lines.iter().all(|&value| value == 0.0));
            lines.fill(1.0);
            assert!(lines.iter().all(|&value| value == 1.0));
        }
    }

    #[test]
    fn scratch_grows_and_stays() {
        let room = LARGE_LINES * BLOCK + 5;
        for values in [3, 100, room, 7] {
            with_scratch(values, |scratch| {
                assert_eq!(scratch.len(), values);
                scratch.fill(2.0);
            });
        }
        with_scratch(room, |scratch| assert!(scratch.iter().all(|&value| value == 2.0)));
    }
}
