//! What it costs to move a piece that runs.

use std::time::Duration;

use crate::nats::Nats;

/// How long a piece stands still when it moves, and over which time that must pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationCost {
    /// Any move takes this long.
    pub base: Duration,
    /// And the time that its weights take to arrive, at so many bytes per second.
    pub bytes_per_second: u64,
    /// A piece is taken to stay this long where it goes.
    pub horizon: Duration,
    /// What must be gained on top: speeds are measured, and tremble, and nobody's stream should
    /// stop for a few percent.
    pub hysteresis: Nats,
}

impl Default for MigrationCost {
    /// 0.2 s, links of 100 Mbit/s, one minute, 10 %.
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            bytes_per_second: 12_500_000,
            horizon: Duration::from_secs(60),
            hysteresis: Nats::from_f64(0.095),
        }
    }
}

impl MigrationCost {
    /// `ln(1 + t/T)` and the hysteresis: a piece that stands still for `t` of the next `T` seconds
    /// must be faster by this for the rest of them, or it loses.
    #[must_use]
    pub fn of(&self, weight_bytes: u64) -> Nats {
        let transfer = weight_bytes as f64 / self.bytes_per_second.max(1) as f64;
        let still = self.base.as_secs_f64() + transfer;
        let cost = (still / self.horizon.as_secs_f64().max(1e-3)).ln_1p();
        Nats::from_f64(cost) + self.hysteresis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_pieces_move_for_more() {
        let cost = MigrationCost::default();
        let check = |bytes, expected: f64| {
            let nats = cost.of(bytes).to_f64();
            assert!((nats - expected).abs() < 1e-4, "{nats}");
        };
        check(0, 0.09833);
        check(10_000_000, 0.11153);
        check(500_000_000, 0.60782);
    }
}
