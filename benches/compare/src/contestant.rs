//! What is compared.

/// All goes wrong in words: there is nobody who could do anything but read them.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A network loaded by somebody, with its input, ready to run.
///
/// Between calls a contestant computes nothing and keeps no processor busy for longer than
/// [`rounds::GAP`](crate::rounds::GAP).
pub trait Contestant {
    /// Runs `times` times and says how many seconds each run took.
    fn run(&mut self, times: u32) -> Result<Vec<f64>>;

    /// The first output, row by row.
    fn output(&mut self) -> Result<Vec<f32>>;
}

/// Who can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Starling's engine with Burn's own operators alone
    Burn,
    /// Starling's engine, as nodes use it
    Starling,
    /// ONNX Runtime, as it comes from PyPI
    Onnxruntime,
    /// tract, another engine in Rust
    Tract,
}

impl Kind {
    /// Everyone, in the order of the report's columns.
    pub const ALL: [Self; 4] = [Self::Onnxruntime, Self::Starling, Self::Burn, Self::Tract];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Burn => "burn",
            Self::Starling => "starling",
            Self::Onnxruntime => "onnxruntime",
            Self::Tract => "tract",
        }
    }
}
