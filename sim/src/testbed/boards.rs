//! Boards that people have, as shares of this machine.
//!
//! What a preset says of cores, clock, memory and Ethernet is public; the quota is our model. It is
//! the board's peak of floating-point arithmetic in parts of the laptop's, and a laptop is one core
//! of this machine. `docs/TESTBED.md` has the sources and the arithmetic.

use serde::{Deserialize, Serialize};

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// NVIDIA Jetson Nano, its processor alone.
    JetsonNano,
    /// A laptop of four cores.
    Laptop,
    /// Raspberry Pi 3 Model B.
    Pi3,
    /// Raspberry Pi 4 Model B with 4 GB.
    Pi4,
}

/// What a machine may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Of this machine's processor, in cores; nothing for all of it.
    pub cores: Option<f64>,
    /// Of its memory; nothing for all of it.
    pub memory_mib: Option<u64>,
    /// Of its link, each way.
    pub link_mbit: f64,
}

/// What is public of a board.
struct Facts {
    cores: f64,
    ghz: f64,
    /// Of 32 bits, by one core in one cycle: two for each lane of its fused multiply-add.
    flops_per_cycle: f64,
    memory_mib: u64,
    link_mbit: f64,
}

impl Preset {
    /// Its limits on this machine.
    #[must_use]
    pub fn limits(self) -> Limits {
        let facts = self.facts();
        let share = facts.peak_gflops() / Self::Laptop.facts().peak_gflops();
        Limits {
            cores: Some((share * 1e3).round() / 1e3),
            memory_mib: Some(facts.memory_mib),
            link_mbit: facts.link_mbit,
        }
    }

    fn facts(self) -> Facts {
        let facts = |cores, ghz, flops_per_cycle, memory_mib, link_mbit| Facts {
            cores,
            ghz,
            flops_per_cycle,
            memory_mib,
            link_mbit,
        };
        match self {
            Self::JetsonNano => facts(4.0, 1.43, 8.0, 4096, 1000.0),
            Self::Laptop => facts(4.0, 2.5, 32.0, 16_384, 1000.0),
            Self::Pi3 => facts(4.0, 1.2, 4.0, 1024, 100.0),
            Self::Pi4 => facts(4.0, 1.5, 8.0, 4096, 1000.0),
        }
    }
}

impl Facts {
    fn peak_gflops(&self) -> f64 {
        self.cores * self.ghz * self.flops_per_cycle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(preset: Preset, cores: f64, memory_mib: u64, link_mbit: f64) {
        let expected = Limits { cores: Some(cores), memory_mib: Some(memory_mib), link_mbit };
        assert_eq!(preset.limits(), expected);
    }

    #[test]
    fn the_quotas_are_peaks_in_parts_of_the_laptops() {
        check(Preset::Laptop, 1.0, 16_384, 1000.0);
        check(Preset::Pi3, 0.06, 1024, 100.0);
        check(Preset::Pi4, 0.15, 4096, 1000.0);
        check(Preset::JetsonNano, 0.143, 4096, 1000.0);
    }
}
