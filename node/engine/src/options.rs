//! How a piece is loaded, and what that takes.

use crate::device::DeviceChoice;

/// Where and how a piece runs. A [`DeviceChoice`] alone is one, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The device.
    pub device: DeviceChoice,
    /// Which kernels it may use.
    pub kernels: Kernels,
    /// Most bytes of weights and activations. Above it, kernels that take less memory are chosen
    /// where there are some, the greatest saving first; it is a wish, not a promise, and
    /// [`Piece::memory`](crate::Piece::memory) says what came of it.
    pub memory: Option<u64>,
}

/// Which kernels compute a piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kernels {
    /// The fastest for each layer: on the processor the engine's own, among them those for 3x3
    /// convolutions that save multiplications and lose some accuracy (about 4e-6 of the peak).
    #[default]
    Fast,
    /// As above, without those that lose accuracy.
    Exact,
    /// Burn's own operators for everything, as on any other device.
    Portable,
}

/// What a piece holds and needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Weights, as they are packed for their kernels.
    pub weights: u64,
    /// Activations of one run, at their most.
    pub activations: u64,
}

impl From<DeviceChoice> for LoadOptions {
    fn from(device: DeviceChoice) -> Self {
        Self { device, ..Self::default() }
    }
}

impl LoadOptions {
    /// The same, with kernels that the device has.
    pub(crate) fn for_device(mut self) -> Self {
        if self.device != DeviceChoice::Cpu {
            self.kernels = Kernels::Portable;
        }
        self
    }
}
