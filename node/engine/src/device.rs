//! Where a piece runs.

/// The kind of device that a piece is loaded on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The processor, on the rayon pool of the calling thread.
    #[default]
    Cpu,
    /// The first graphics processor.
    #[cfg(feature = "wgpu")]
    Gpu,
}

impl DeviceChoice {
    pub(crate) fn open(self) -> burn::tensor::Device {
        match self {
            Self::Cpu => burn::tensor::Device::flex(),
            #[cfg(feature = "wgpu")]
            Self::Gpu => burn::tensor::Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        }
    }
}
