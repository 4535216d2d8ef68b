//! Weights in the order in which tiles read them.

use std::ops::Range;

use rayon::prelude::*;

use super::memory::Lines;
use super::{BLOCK, Isa, blocks};

/// The filters of a layer as files have them, row-major, output channels first.
///
/// They are read where they lie, often in a mapped file, so that no second copy of them exists
/// while they are packed.
#[derive(Clone, Copy)]
pub(crate) struct Filters<'a> {
    /// How many output channels there are.
    pub(crate) outputs: usize,
    /// Little-endian `f32` at any address.
    pub(crate) weight: &'a [[u8; 4]],
    /// What each output channel's values are multiplied by.
    pub(crate) scale: Option<&'a [f64]>,
    /// One value for each output channel.
    pub(crate) bias: Option<&'a [f32]>,
    /// Told of bytes of the filters that have been packed.
    pub(crate) release: Release<'a>,
}

/// Takes note of bytes that will not be read again.
pub(crate) type Release<'a> = &'a (dyn Fn(&[u8]) + Sync);

impl Filters<'_> {
    /// Value `i` of all, which belongs to this output channel.
    #[inline(always)]
    pub(crate) fn value(&self, output: usize, i: usize) -> f32 {
        let value = f32::from_le_bytes(self.weight[i]);
        match self.scale {
            Some(scale) => (f64::from(value) * scale[output]) as f32,
            None => value,
        }
    }

    /// The filters of these output channels are packed.
    pub(crate) fn packed(&self, outputs: Range<usize>) {
        let filter = self.weight.len() / self.outputs.max(1);
        self.packed_values(outputs.start * filter..outputs.end * filter);
    }

    /// These values are packed.
    pub(crate) fn packed_values(&self, values: Range<usize>) {
        (self.release)(bytemuck::cast_slice(&self.weight[values]));
    }
}

/// The weights and the bias of a dense layer.
///
/// Output blocks come in groups of as many as a tile sums at once; the last may be smaller. A
/// group is `[depth][blocks][16]`, where the depth counts input channels and taps in the order of
/// the kernel that reads them.
pub(crate) struct Panels {
    weights: Lines,
    bias: Lines,
    depth: usize,
    blocks: usize,
    /// Blocks of a group.
    group: usize,
}

/// The weights of one group.
pub(crate) struct Panel<'a> {
    /// `[depth][blocks][16]`.
    pub(crate) weights: &'a [f32],
    /// `[blocks][16]`.
    pub(crate) bias: &'a [f32],
    /// The group's first output block.
    pub(crate) first: usize,
    /// How many it has.
    pub(crate) blocks: usize,
}

impl Panels {
    /// Packs filters: `place` tells where the values of an output channel's depth are.
    pub(crate) fn pack(
        isa: Isa,
        filters: &Filters<'_>,
        depth: usize,
        place: impl Fn(usize, usize) -> usize + Sync,
    ) -> Self {
        let mut panels = Self::zeros(isa, filters.outputs, depth, filters.bias);
        panels.fill(filters, 0..depth, place);
        filters.packed(0..filters.outputs);
        panels
    }

    /// Packs a part of the depth.
    pub(crate) fn fill(
        &mut self,
        filters: &Filters<'_>,
        part: Range<usize>,
        place: impl Fn(usize, usize) -> usize + Sync,
    ) {
        let (channels, depth, group_channels) = (filters.outputs, self.depth, self.group * BLOCK);
        self.parts().into_par_iter().enumerate().for_each(|(group, panel)| {
            let wide = panel.len() / depth;
            let first = group * group_channels;
            let present = first..channels.min(first + wide);
            // A stretch of the depth at a time: its part of the panel stays in the cache while
            // all channels are put into it.
            for start in part.clone().step_by(STRETCH) {
                for channel in present.clone() {
                    for k in start..part.end.min(start + STRETCH) {
                        let value = filters.value(channel, place(channel, k));
                        panel[k * wide + channel - first] = value;
                    }
                }
            }
            filters.packed(present);
        });
    }

    /// Room for weights, with the bias in place.
    pub(crate) fn zeros(isa: Isa, channels: usize, depth: usize, bias: Option<&[f32]>) -> Self {
        let mut panels = Self {
            weights: Lines::zeros(blocks(channels) * depth * BLOCK),
            bias: Lines::zeros(blocks(channels) * BLOCK),
            depth,
            blocks: blocks(channels),
            group: isa.tile_blocks(),
        };
        if let Some(bias) = bias {
            panels.bias[..channels].copy_from_slice(bias);
        }
        panels
    }

    /// The weights of each group, to write them.
    pub(crate) fn parts(&mut self) -> Vec<&mut [f32]> {
        let len = (self.group * BLOCK * self.depth).max(1);
        let weights = &mut self.weights[..self.blocks * self.depth * BLOCK];
        weights.chunks_mut(len).collect()
    }

    /// How many bytes packing takes.
    pub(crate) fn bytes(channels: usize, depth: usize) -> u64 {
        (blocks(channels) as u64 * BLOCK as u64).saturating_mul(depth as u64 + 1).saturating_mul(4)
    }

    /// The first block of the group that a block is in, and how many the group has.
    fn group_of(&self, block: usize) -> (usize, usize) {
        let start = block - block % self.group;
        (start, self.group.min(self.blocks - start))
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.blocks.div_ceil(self.group)
    }

    /// How many values one output channel sums.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Output blocks in all.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// One group's weights.
    pub(crate) fn panel(&self, group: usize) -> Panel<'_> {
        let (first, blocks) = self.group_of(group * self.group);
        let start = first * self.depth * BLOCK;
        Panel {
            weights: &self.weights[start..start + blocks * self.depth * BLOCK],
            bias: &self.bias[first * BLOCK..(first + blocks) * BLOCK],
            first,
            blocks,
        }
    }
}

/// Values of the depth that are packed together.
const STRETCH: usize = 64;
