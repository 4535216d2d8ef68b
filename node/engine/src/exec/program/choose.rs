//! Which kernel computes a convolution.

use crate::exec::kernels::BLOCK;
use crate::exec::kernels::depthwise::Depthwise;
use crate::exec::kernels::panels::Panels;
use crate::exec::kernels::winograd::{Form, Tiles};
use crate::graph::{Conv, Window};
use crate::options::{Kernels, LoadOptions};

/// A kernel for a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Depthwise,
    Direct,
    Planar,
    Pointwise,
    Winograd(Tiles, Form),
}

/// The best kernel for a convolution of `channels` to images of `out_size`; none if only Burn has
/// one.
///
/// It depends on the layer alone, not on its neighbours or the number of threads, so that a model
/// gives the same values however it is cut between layers. A strip is a layer of its own, with fewer
/// rows.
pub(crate) fn method(
    conv: &Conv,
    channels: usize,
    out_size: [usize; 2],
    options: &LoadOptions,
) -> Option<Method> {
    let window = &conv.window;
    let outputs = conv.weight.shape()[0];
    if conv.groups == channels && outputs == channels && channels > 1 {
        return Some(Method::Depthwise);
    }
    parts(conv)?;
    if conv.groups == 1 && channels <= PLANAR_CHANNELS_MAX {
        return Some(Method::Planar);
    }
    if window.kernel == [1, 1] && window.padding == [(0, 0); 2] {
        return Some(Method::Pointwise);
    }
    let minimal =
        is_filtered(window) && window.padding.iter().all(|&(before, after)| before.max(after) <= 2);
    Some(match minimal && options.kernels != Kernels::Exact {
        false => Method::Direct,
        true => Method::Winograd(tiles(conv, out_size), Form::Components),
    })
}

/// The tiles by which a convolution to images of some size takes the least time. Large ones need the
/// fewest products. Smaller ones waste less at the ends of small images and of strips, and have fewer
/// components: where there are few tiles, and no cache keeps the filters from one run to the next,
/// reading them takes longer than multiplying.
pub(crate) fn tiles(conv: &Conv, out_size: [usize; 2]) -> Tiles {
    let filters = conv.weight.shape()[0].saturating_mul(conv.weight.shape()[1]);
    if filters < UNCACHED_FILTERS {
        let small = out_size[0].max(out_size[1]) <= SMALL_MAP;
        return if small { Tiles::F2 } else { Tiles::F4 };
    }
    let time = |tiles: &Tiles| {
        let [rows, columns] = out_size.map(|outputs| outputs.div_ceil(tiles.outputs()));
        let count = rows.saturating_mul(columns).saturating_add(TILES_PER_READ);
        count.saturating_mul(tiles.components())
    };
    let all = [Tiles::F4, Tiles::F3, Tiles::F2];
    all.into_iter().min_by_key(time).expect("there are three")
}

/// Into how many dense convolutions a grouped one is divided: each of as many neighbouring groups
/// as fill whole blocks, with zeros where an output and an input are of different groups. None if
/// that is too many groups, or the channels are taken one by one.
pub(crate) fn parts(conv: &Conv) -> Option<usize> {
    let channels = conv.weight.shape()[1];
    let outputs = conv.weight.shape()[0] / conv.groups;
    let fills =
        |merged: usize| [channels, outputs].iter().all(|n| (n * merged).is_multiple_of(BLOCK));
    let merged = (1..=MERGED_MAX.min(conv.groups)).find(|&merged| {
        conv.groups == merged || conv.groups.is_multiple_of(merged) && fills(merged)
    })?;
    Some(conv.groups / merged)
}

/// Whether minimal filtering applies.
pub(crate) fn is_filtered(window: &Window) -> bool {
    window.kernel == [3, 3] && window.stride == [1, 1] && window.dilation == [1, 1]
}

impl Method {
    /// Bytes that the packed weights take.
    pub(crate) fn weight_bytes(self, conv: &Conv) -> u64 {
        let outputs = conv.weight.shape()[0];
        let parts = parts(conv).unwrap_or(1);
        let depth = conv.weight.shape()[1..].iter().product::<usize>() * (conv.groups / parts);
        let panels = |depth| Panels::bytes(outputs / parts, depth) * parts as u64;
        match self {
            Self::Depthwise => Depthwise::weight_bytes(outputs, &conv.window),
            Self::Direct | Self::Planar | Self::Pointwise => panels(depth),
            Self::Winograd(_, Form::Taps) => panels(depth),
            Self::Winograd(tiles, Form::Components) => {
                panels(depth / 9) * tiles.components() as u64
            }
        }
    }

    /// The next kernel that takes less memory, if there is one.
    pub(crate) fn smaller(self) -> Option<Self> {
        match self {
            Self::Winograd(tiles, Form::Components) => Some(Self::Winograd(tiles, Form::Taps)),
            _ => None,
        }
    }
}

/// Up to so many input channels are better read from planes than from a block of sixteen.
pub(crate) const PLANAR_CHANNELS_MAX: usize = 6;
/// Most groups of a convolution that are computed as one: of this many products, one counts.
const MERGED_MAX: usize = BLOCK;
/// Images up to this size are smaller than the borders that large tiles add to them.
pub(crate) const SMALL_MAP: usize = 8;
/// Filters whose components take some megabytes.
const UNCACHED_FILTERS: usize = 32 * 1024;
/// While a component of a filter is read from memory, so many tiles could be multiplied by it.
const TILES_PER_READ: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Op;
    use crate::probe::Probe;

    fn check(channels: usize, out_size: [usize; 2], expected: Tiles) {
        let model = Probe::new(&[1, channels, 4, 4]).conv(channels, 3, 1, 1).build();
        let Op::Conv(conv) = &model.layers()[0].op else { unreachable!("it is a convolution") };
        assert_eq!(tiles(conv, out_size), expected, "{channels} channels, {out_size:?}");
    }

    #[test]
    fn few_tiles_of_many_filters_are_small() {
        // Whole layers of ResNets and VGG.
        check(512, [7, 7], Tiles::F2);
        check(512, [14, 14], Tiles::F3);
        check(512, [28, 28], Tiles::F4);
        check(64, [7, 7], Tiles::F2);
        check(64, [14, 14], Tiles::F4);
        // Strips of them.
        check(512, [4, 14], Tiles::F2);
        check(512, [7, 28], Tiles::F4);
        check(64, [4, 56], Tiles::F4);
        // No shape is too large to be counted.
        check(512, [usize::MAX; 2], Tiles::F4);
    }
}
