//! Copies of some rows of a block, with the zeros around them.

use super::BLOCK;
use super::lanes::Lanes;
use crate::graph::Window;

/// Fills a band of `band_size` rows and columns with what the outputs from row `first` on read of
/// one block of an image of `size`: zeros where the window is outside.
///
/// # Safety
/// These rows of the image and the room for the band are there, and the processor has the instruction set of
/// `L`.
#[inline(always)]
pub(crate) unsafe fn pad<L: Lanes>(
    image: *const f32,
    size: [usize; 2],
    window: &Window,
    first: usize,
    band: *mut f32,
    band_size: [usize; 2],
) {
    let (top, left) = (window.padding[0].0, window.padding[1].0);
    let [height, width] = band_size;
    let origin = first * window.stride[0];
    for row in 0..height {
        // SAFETY: source rows and columns are checked to be inside the image.
        unsafe {
            let to = band.add(row * width * BLOCK);
            let source = (origin + row).checked_sub(top).filter(|&row| row < size[0]);
            let inside = match source {
                Some(_) => (left.min(width), (left + size[1]).min(width)),
                None => (width, width),
            };
            for column in (0..inside.0).chain(inside.1..width) {
                L::splat(0.0).store(to.add(column * BLOCK));
            }
            let Some(source) = source else { continue };
            // The first row of all may not be there, but those that are read.
            let from = image.wrapping_add(source * size[1] * BLOCK);
            for column in inside.0..inside.1 {
                L::load(from.add((column - left) * BLOCK)).store(to.add(column * BLOCK));
            }
        }
    }
}
