//! The machines of the experiments (`sim/data/machines.json`, whose README says where the figures
//! are from).

use serde::Deserialize;
use starling_protocol::model::{OP_CLASSES, Speed};

/// What a kind of machine can do.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// FLOP/s of a dense or pointwise convolution.
    pub compute: f64,
    /// Bytes per second of its memory.
    pub bandwidth: f64,
    /// Bytes that it has for weights.
    pub memory: u64,
}

impl Machine {
    /// All kinds, the slowest first.
    #[must_use]
    pub fn presets() -> Vec<Self> {
        serde_json::from_str(include_str!("../../data/machines.json")).expect("checked by a test")
    }

    /// FLOP/s by class of operators.
    #[must_use]
    pub fn speed(&self) -> Speed {
        Speed(self.classes().map(|flops| flops as u64))
    }

    /// The speed of a machine of this kind that is so many times as fast in each class.
    #[must_use]
    pub fn speed_times(&self, factors: [f64; OP_CLASSES]) -> Speed {
        let classes = self.classes();
        Speed(std::array::from_fn(|class| (classes[class] * factors[class]) as u64))
    }

    /// Dense, pointwise, depthwise, matrix product, and what memory bounds.
    fn classes(&self) -> [f64; OP_CLASSES] {
        let depthwise = self.compute * DEPTHWISE_OF_DENSE;
        // A matrix product for one image reads every weight once, for two FLOP.
        let linear = self.bandwidth / BYTES_PER_VALUE * 2.0;
        [self.compute, self.compute, depthwise, linear, self.bandwidth / BYTES_PER_VALUE]
    }
}

/// A depthwise convolution reuses little of what it reads.
const DEPTHWISE_OF_DENSE: f64 = 0.25;
const BYTES_PER_VALUE: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_four_kinds_and_the_slowest_comes_first() {
        let presets = Machine::presets();
        let names: Vec<&str> = presets.iter().map(|machine| machine.name.as_str()).collect();
        assert_eq!(names, ["pi3", "pi4", "jetson-nano", "laptop"]);
        assert!(presets.is_sorted_by(|a, b| a.compute < b.compute && a.bandwidth < b.bandwidth));
        assert_eq!(
            presets[0].speed().0,
            [8e9 as u64, 8e9 as u64, 2e9 as u64, 9e8 as u64, 45e7 as u64]
        );
    }
}
