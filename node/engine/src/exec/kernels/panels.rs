//! Weights in the order in which tiles read them.

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
        weight: impl Fn(usize, usize) -> f32,
        bias: Option<&[f32]>,
    ) -> Self {
        let mut panels = Self {
            weights: Lines::zeros(blocks(channels) * depth * BLOCK),
            bias: Lines::zeros(blocks(channels) * BLOCK),
            depth,
            blocks: blocks(channels),
            group: isa.tile_blocks(),
        };
        for channel in 0..channels {
            let (block, lane) = (channel / BLOCK, channel % BLOCK);
            let (start, wide) = panels.group_of(block);
            for k in 0..depth {
                let at = (start * depth + k * wide + (block - start)) * BLOCK + lane;
                panels.weights[at] = weight(channel, k);
            }
        }
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
