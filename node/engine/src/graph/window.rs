//! How a window slides over an image. It names nothing else of the crate, so that the kernels can be
//! built without the rest (`fuzz/kernels`).

/// How a window slides over the two spatial dimensions; `[height, width]` everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The window's size, at least 1.
    pub kernel: [usize; 2],
    /// The step, at least 1.
    pub stride: [usize; 2],
    /// The distance between neighbouring elements of the window, at least 1.
    pub dilation: [usize; 2],
    /// Padding `(before, after)`.
    pub padding: [(usize, usize); 2],
}

impl Window {
    /// How many padded inputs some neighbouring outputs, at least one, read along a side: 0 is the
    /// height, 1 the width.
    #[inline]
    pub(crate) fn reach(&self, side: usize, outputs: usize) -> usize {
        (outputs - 1) * self.stride[side] + (self.kernel[side] - 1) * self.dilation[side] + 1
    }
}
