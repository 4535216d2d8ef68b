//! Own kernels for the processor, on activations in blocks of sixteen channels.
//!
//! The layout, called *blocked* everywhere: `[batch][channels / 16][height][width][16]`, the last
//! block filled up with zeros. Sixteen neighbouring values belong to one pixel and sixteen output
//! channels, so a kernel loads weights as vectors, inputs as single values, and never shuffles.
//! *Planar* is the row-major `[batch][channels][height][width]` of files and wires.
//!
//! | file | computes |
//! |---|---|
//! | [`lanes`], `x86`, `neon` | sixteen values at a time, for each instruction set |
//! | [`crew`] | the threads that share a layer's work |
//! | [`tile`] | the inner product that all dense kernels end in |
//! | [`pointwise`] | 1x1 convolutions |
//! | [`direct`] | other dense convolutions, by the definition |
//! | [`planar`] | the first layer, straight from planar images |
//! | [`winograd`] | 3x3 convolutions with stride 1, by Winograd's minimal filtering |
//! | [`depthwise`] | convolutions with one filter a channel |
//! | [`separable`] | one of these and the 1x1 convolution after it, together |
//! | [`linear`] | matrix products with a constant matrix |
//! | [`pool`] | pooling |
//! | [`blocks`] | layouts, sums, products and activations |
//! | [`curve`] | activations that take an exponential |
//!
//! All unsafe code of the engine's arithmetic is in this folder. A public function of it takes
//! slices, checks their lengths against the shapes, and is safe; what it calls takes pointers.

#![expect(unsafe_code, reason = "vector instructions and raw pointers are what kernels are about")]

pub(crate) mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) mod arena;
pub(crate) mod blocks;
pub(crate) mod crew;
pub(crate) mod curve;
pub(crate) mod depthwise;
pub(crate) mod direct;
pub(crate) mod linear;
pub(crate) mod memory;
pub(crate) mod pad;
pub(crate) mod panels;
pub(crate) mod planar;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod separable;
pub(crate) mod taps;
pub(crate) mod tile;
pub(crate) mod winograd;

#[cfg(test)]
mod tests;

use lanes::{Lanes, Portable};

/// Channels of a block.
pub(crate) const BLOCK: usize = 16;

/// How many blocks hold so many channels.
pub(crate) fn blocks(channels: usize) -> usize {
    channels.div_ceil(BLOCK)
}

/// The height and the width of a layer's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plane {
    /// Of its input.
    pub(crate) size: [usize; 2],
    /// Of its output.
    pub(crate) out_size: [usize; 2],
}

impl Plane {
    /// Panics unless the slices are blocked images of these sizes: what the pointers of a kernel
    /// rely on.
    fn check(
        &self,
        channels: usize,
        input: &[f32],
        out_blocks: usize,
        residual: Option<&[f32]>,
        output: &[f32],
    ) {
        assert_eq!(input.len(), blocks(channels) * self.size[0] * self.size[1] * BLOCK);
        assert_eq!(output.len(), out_blocks * self.out_size[0] * self.out_size[1] * BLOCK);
        assert!(residual.is_none_or(|residual| residual.len() == output.len()));
    }
}

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Whatever the target has by itself.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// Code that is generic over the instruction set.
pub(crate) trait Kernel {
    /// Runs with these lanes; `#[inline(always)]`, like all that it calls.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`.
    unsafe fn run<L: Lanes>(self);
}

impl Isa {
    /// The best that this processor has; `STARLING_ISA` may name a lesser one, to compare.
    pub(crate) fn detect() -> Self {
        let wanted = std::env::var("STARLING_ISA").unwrap_or_default();
        let all = Self::all();
        let named = all.iter().find(|isa| isa.name() == wanted);
        *named.or(all.first()).expect("the portable one is always there")
    }

    /// All that this processor has, the best first.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Self::special();
        all.push(Self::Portable);
        all
    }

    #[cfg(target_arch = "x86_64")]
    fn special() -> Vec<Self> {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2 && is_x86_feature_detected!("avx512f");
        let present = [(Self::Avx512, avx512), (Self::Avx2, avx2)];
        present.into_iter().filter_map(|(isa, here)| here.then_some(isa)).collect()
    }

    #[cfg(target_arch = "aarch64")]
    fn special() -> Vec<Self> {
        vec![Self::Neon]
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn special() -> Vec<Self> {
        Vec::new()
    }

    /// The name, in lower case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }

    /// How many blocks of output channels its tiles sum at once; see [`Lanes::BLOCKS`].
    pub(crate) fn tile_blocks(self) -> usize {
        match self {
            Self::Portable => Portable::BLOCKS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::Avx2::BLOCKS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::Avx512::BLOCKS,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::Neon::BLOCKS,
        }
    }

    /// How many pixels its tiles sum at once; see [`Lanes::PIXELS`].
    pub(crate) fn tile_pixels(self) -> usize {
        match self {
            Self::Portable => Portable::PIXELS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::Avx2::PIXELS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::Avx512::PIXELS,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::Neon::PIXELS,
        }
    }

    /// Runs a kernel compiled for this instruction set.
    ///
    /// # Safety
    /// What the kernel asks for; that the processor has the instruction set, [`detect`] and
    /// [`all`] have seen to.
    ///
    /// [`detect`]: Self::detect
    /// [`all`]: Self::all
    pub(crate) unsafe fn run(self, kernel: impl Kernel) {
        // SAFETY: only instruction sets that the processor has are ever made.
        unsafe {
            match self {
                Self::Portable => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => avx512(kernel),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => kernel.run::<neon::Neon>(),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(kernel: impl Kernel) {
    // SAFETY: the features are enabled here.
    unsafe { kernel.run::<x86::Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512(kernel: impl Kernel) {
    // SAFETY: the features are enabled here.
    unsafe { kernel.run::<x86::Avx512>() }
}
