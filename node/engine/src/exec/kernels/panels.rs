//! Weights in the order in which tiles read them.

use rayon::prelude::*;

use super::memory::Lines;
use super::{BLOCK, Isa, blocks};

/// The filters of a layer as files have them, row-major, output channels first.
pub(crate) struct Filters<'a> {
    /// How many output channels there are.
    pub(crate) outputs: usize,
    pub(crate) weight: &'a [f32],
    /// One value for each output channel.
    pub(crate) bias: Option<&'a [f32]>,
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
    /// Packs `weight(output channel, depth)`.
    pub(crate) fn pack(
        isa: Isa,
        channels: usize,
        depth: usize,
        weight: impl Fn(usize, usize) -> f32 + Sync,
        bias: Option<&[f32]>,
    ) -> Self {
        let mut panels = Self {
            weights: Lines::zeros(blocks(channels) * depth * BLOCK),
            bias: Lines::zeros(blocks(channels) * BLOCK),
            depth,
            blocks: blocks(channels),
            group: isa.tile_blocks(),
        };
        let group_channels = panels.group * BLOCK;
        let groups = panels.weights.par_chunks_mut((group_channels * depth).max(1));
        groups.enumerate().for_each(|(group, panel)| {
            let wide = panel.len() / depth;
            let first = group * group_channels;
            let present = first..channels.min(first + wide);
            // A stretch of the depth at a time: its part of the panel stays in the cache while
            // all channels are put into it.
            for start in (0..depth).step_by(STRETCH) {
                for channel in present.clone() {
                    for k in start..depth.min(start + STRETCH) {
                        panel[k * wide + channel - first] = weight(channel, k);
                    }
                }
            }
        });
        if let Some(bias) = bias {
            panels.bias[..channels].copy_from_slice(bias);
        }
        panels
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
