//! Positions, and what a link between two of them carries.
//!
//! `R = B log2(1 + P h / (N0 B))` without interference: each link has a channel of its own. The gain
//! `h` falls with the distance by a power law, and each link is shadowed by a log-normal factor.
//! The same rate holds in both directions.

use rand::{Rng, RngExt};

/// A place in the square, in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Eastwards.
    pub x: f64,
    /// Northwards.
    pub y: f64,
}

impl Point {
    /// Anywhere in the square.
    pub fn anywhere(rng: &mut impl Rng) -> Self {
        Self { x: rng.random_range(0.0..SIDE_M), y: rng.random_range(0.0..SIDE_M) }
    }

    /// Somewhere near, but within the square.
    #[must_use]
    pub fn near(self, rng: &mut impl Rng, deviation_m: f64) -> Self {
        let mut moved = |at: f64| (at + deviation_m * normal(rng)).clamp(0.0, SIDE_M);
        Self { x: moved(self.x), y: moved(self.y) }
    }

    /// Metres between two points.
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }
}

/// What a link carries, in bytes per second, with `shadow_db` more loss than its distance alone
/// would give.
#[must_use]
pub fn link(distance_m: f64, shadow_db: f64) -> f64 {
    let loss_db = LOSS_AT_1M_DB + 10.0 * EXPONENT * distance_m.max(1.0).log10() + shadow_db;
    let snr_db = POWER_DBM - loss_db - NOISE_DBM;
    let bits_per_symbol = (1.0 + 10_f64.powf(snr_db / 10.0)).log2().min(BITS_PER_SYMBOL_MAX);
    BANDWIDTH_HZ * bits_per_symbol / 8.0
}

/// How much a link is shadowed, in dB.
pub fn shadow(rng: &mut impl Rng) -> f64 {
    SHADOW_DEVIATION_DB * normal(rng)
}

/// A normally distributed number, by the method of Box and Muller.
fn normal(rng: &mut impl Rng) -> f64 {
    let (radius, angle): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// The side of the square: a building.
pub const SIDE_M: f64 = 100.0;
/// One Wi-Fi channel.
pub const BANDWIDTH_HZ: f64 = 20e6;
/// 100 mW, which is common for Wi-Fi.
pub const POWER_DBM: f64 = 20.0;
/// Thermal noise of -174 dBm/Hz over the channel (73 dB), and a receiver's 7 dB.
pub const NOISE_DBM: f64 = -94.0;
/// Free space at 1 m and 5.2 GHz.
pub const LOSS_AT_1M_DB: f64 = 46.8;
/// An office with hard partitions; so is the deviation.
pub const EXPONENT: f64 = 3.0;
/// See [`EXPONENT`].
pub const SHADOW_DEVIATION_DB: f64 = 7.0;
/// 1024-QAM: no better signal makes a link faster.
pub const BITS_PER_SYMBOL_MAX: f64 = 10.0;

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::{
        random::{Purpose, generator},
        stats,
    };

    fn check(distance_m: f64, shadow_db: f64, megabits: f64) {
        let got = link(distance_m, shadow_db) * 8e-6;
        assert!((got - megabits).abs() < 0.5, "{got} Mbit/s at {distance_m} m");
    }

    #[test]
    fn rates_are_those_of_the_formula() {
        // 20 - 46.8 + 94 = 67.2 dB at 1 m: the best modulation.
        check(0.1, 0.0, 200.0);
        check(1.0, 0.0, 200.0);
        // 7.2 dB at 100 m: log2(1 + 5.25) = 2.64 bits.
        check(100.0, 0.0, 52.9);
        // 0 dB: one bit.
        check(100.0, 7.2, 20.0);
    }

    #[test]
    fn shadows_have_the_deviation_that_they_say() {
        let mut rng = generator(1, Purpose::Workload);
        let draws: Vec<f64> = (0..20_000).map(|_| shadow(&mut rng)).collect();
        let squares: Vec<f64> = draws.iter().map(|draw| draw * draw).collect();
        assert!(stats::mean(&draws).expect("some").abs() < 0.2);
        let deviation = stats::mean(&squares).expect("some").sqrt();
        assert!((deviation - SHADOW_DEVIATION_DB).abs() < 0.2, "{deviation}");
    }

    quickcheck! {
        fn a_link_is_no_faster_further_away(near: u16, further: u16) -> bool {
            let (near, further) = (f64::from(near) / 100.0, f64::from(further) / 100.0);
            let rates = (link(near, 0.0), link(near + further, 0.0));
            rates.0 >= rates.1 && rates.1 > 0.0
        }
    }
}
