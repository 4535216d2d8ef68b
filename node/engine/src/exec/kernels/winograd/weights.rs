//! The filters of a layer, as its tiles will meet them.

use std::ops::Range;

use rayon::prelude::*;

use super::super::lanes::Lanes;
use super::super::panels::{Filters, Panels};
use super::super::{BLOCK, Isa, Kernel};
use super::Tiles;
use super::transform::{F2, F3, F4, SIDE_MAX, Transform, square_filter};

/// In which form filters wait. The products are the same, bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Transformed, once and for all.
    Components,
    /// As nine taps, which every run transforms again, a part at a time: a quarter of the memory
    /// with F(4x4), and of the time that reading it takes.
    Taps,
}

/// The filters in one of these forms.
pub(super) enum Weights {
    /// For each component `[input channel]`.
    Components(Vec<Panels>),
    /// `[input channel][tap]`.
    Taps(Panels),
}

impl Weights {
    /// Packs filters of `[outputs][channels][3][3]`.
    pub(super) fn new(
        isa: Isa,
        tiles: Tiles,
        form: Form,
        channels: usize,
        filters: &Filters<'_>,
    ) -> Self {
        match form {
            Form::Components => Self::Components(components(isa, tiles, channels, filters)),
            Form::Taps => {
                let depth = channels * TAPS;
                Self::Taps(Panels::pack(isa, filters, depth, |output, k| output * depth + k))
            }
        }
    }

    /// Panels like all others in their groups and their bias.
    pub(super) fn any(&self) -> &Panels {
        match self {
            Self::Components(panels) => &panels[0],
            Self::Taps(panels) => panels,
        }
    }
}

/// The transformed filters, one component after the other.
fn components(isa: Isa, tiles: Tiles, channels: usize, filters: &Filters<'_>) -> Vec<Panels> {
    let component = |_| Panels::zeros(isa, filters.outputs, channels, filters.bias);
    let mut panels: Vec<_> = (0..tiles.components()).map(component).collect();
    let mut groups: Vec<Vec<&mut [f32]>> = Vec::new();
    groups.resize_with(panels[0].groups(), Vec::new);
    for component in &mut panels {
        groups.iter_mut().zip(component.parts()).for_each(|(group, part)| group.push(part));
    }
    let group_channels = isa.tile_blocks() * BLOCK;
    groups.into_par_iter().enumerate().for_each(|(group, mut parts)| {
        let first = group * group_channels;
        let outputs = first..filters.outputs.min(first + group_channels);
        let job = Transformation { channels, filters, outputs: outputs.clone(), parts: &mut parts };
        // SAFETY: the parts are as long as channels and outputs ask for.
        unsafe {
            match tiles {
                Tiles::F2 => isa.run(By(job, F2)),
                Tiles::F3 => isa.run(By(job, F3)),
                Tiles::F4 => isa.run(By(job, F4)),
            }
        }
        filters.packed(outputs);
    });
    filters.packed(0..filters.outputs);
    panels
}

/// The transformation of a group of filters to one part of each component's panels.
struct Transformation<'a, 'b> {
    channels: usize,
    filters: &'a Filters<'a>,
    outputs: Range<usize>,
    parts: &'a mut [&'b mut [f32]],
}

/// A transformation to tiles of one size.
struct By<'a, 'b, T>(Transformation<'a, 'b>, T);

impl<T: Transform> Kernel for By<'_, '_, T> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Transformation { channels, filters, outputs, parts } = self.0;
        let wide = parts[0].len() / channels;
        let mut taps = [0.0f32; TAPS * WIDE_MAX];
        let mut components = [0.0f32; SIDE_MAX * SIDE_MAX * WIDE_MAX];
        for channel in 0..channels {
            for output in outputs.clone() {
                let start = (output * channels + channel) * TAPS;
                for tap in 0..TAPS {
                    taps[tap * wide + output - outputs.start] = filters.value(output, start + tap);
                }
            }
            for block in (0..wide).step_by(BLOCK) {
                // SAFETY: a part is at most `WIDE_MAX` wide.
                unsafe {
                    let to = components.as_mut_ptr().add(block);
                    square_filter::<L, T>(taps.as_ptr().add(block), wide, to, wide);
                }
            }
            for (part, component) in parts.iter_mut().zip(components.chunks_exact(wide)) {
                part[channel * wide..(channel + 1) * wide].copy_from_slice(component);
            }
        }
    }
}

/// Taps of a filter.
pub(super) const TAPS: usize = 9;
/// Most outputs of a group: two blocks.
const WIDE_MAX: usize = 2 * BLOCK;
