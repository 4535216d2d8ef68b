//! Which part of a window is inside the image, for every output along a side.

use std::ops::Range;

use crate::graph::Window;

/// The taps of each output along one side, worked out once: that takes divisions.
pub(crate) struct Taps {
    /// First and end, for each output.
    taps: Vec<(usize, usize)>,
    /// The outputs whose window is inside the image.
    whole: Range<usize>,
    stride: usize,
    dilation: usize,
    before: usize,
}

impl Taps {
    /// Side 0 is the height, 1 the width.
    pub(crate) fn new(window: &Window, side: usize, size: usize, out_size: usize) -> Self {
        let (stride, dilation) = (window.stride[side], window.dilation[side]);
        let (before, _) = window.padding[side];
        let taps = |output: usize| {
            let origin = output * stride;
            let first = before.saturating_sub(origin).div_ceil(dilation);
            let end = (size + before).saturating_sub(origin).div_ceil(dilation);
            let end = end.min(window.kernel[side]);
            (first.min(end), end)
        };
        let taps: Vec<_> = (0..out_size).map(taps).collect();
        let all = (0, window.kernel[side]);
        let first = taps.iter().position(|&taps| taps == all).unwrap_or(out_size);
        let inside = taps[first..].iter().take_while(|&&taps| taps == all).count();
        Self { taps, whole: first..first + inside, stride, dilation, before }
    }

    /// First and end of the taps that are inside the image for this output.
    #[inline(always)]
    pub(crate) fn of(&self, output: usize) -> (usize, usize) {
        self.taps[output]
    }

    /// Where in the image a tap of an output is; it must be inside.
    #[inline(always)]
    pub(crate) fn at(&self, output: usize, tap: usize) -> usize {
        output * self.stride + tap * self.dilation - self.before
    }

    /// The outputs whose whole window is inside the image.
    #[inline(always)]
    pub(crate) fn whole(&self) -> Range<usize> {
        self.whole.clone()
    }

    /// How many outputs there are.
    #[inline(always)]
    pub(crate) fn outputs(&self) -> usize {
        self.taps.len()
    }
}
