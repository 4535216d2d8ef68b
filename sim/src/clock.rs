//! Each node's own clock. Nodes never compare clocks, and this is how that is put to the test.

use std::time::Duration;

use starling_protocol::Timestamp;

/// A clock that is ahead of the world's by some time, and runs a little fast or slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// What it shows when the world begins.
    pub ahead: Duration,
    /// Millionths by which it runs fast; below zero, slow.
    pub drift_ppm: i32,
}

impl Clock {
    /// What it shows at a time of the world.
    #[must_use]
    pub fn read(&self, world: Timestamp) -> Timestamp {
        let shown = u128::from(world.0) * self.pace() / MILLION;
        Timestamp(u64::try_from(shown).unwrap_or(u64::MAX)) + self.ahead
    }

    /// The first time of the world at which it shows this or more.
    #[must_use]
    pub fn when(&self, shown: Timestamp) -> Timestamp {
        let since_start = shown.since(Timestamp(0) + self.ahead).as_micros();
        let world = (since_start * MILLION).div_ceil(self.pace());
        Timestamp(u64::try_from(world).unwrap_or(u64::MAX))
    }

    /// Its microseconds in a million of the world's.
    fn pace(&self) -> u128 {
        let drift = self.drift_ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX);
        u128::try_from(i64::from(drift) + 1_000_000).expect("the drift is small")
    }
}

const MILLION: u128 = 1_000_000;
/// Worse than any quartz.
const DRIFT_PPM_MAX: i32 = 1000;

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn a_clock_is_ahead_and_drifts() {
        let check = |drift_ppm, world, shown| {
            let clock = Clock { ahead: Duration::from_micros(7), drift_ppm };
            assert_eq!(clock.read(Timestamp(world)), Timestamp(shown));
        };
        check(0, 1_000_000, 1_000_007);
        check(100, 1_000_000, 1_000_107);
        check(-100, 1_000_000, 999_907);
    }

    quickcheck! {
        fn it_shows_a_time_first_at_the_moment_that_it_says(ahead: u32, drift: i8, shown: u32) -> bool {
            let ahead = Duration::from_micros(u64::from(ahead));
            let clock = Clock { ahead, drift_ppm: i32::from(drift) };
            let shown = Timestamp(u64::from(shown));
            let when = clock.when(shown);
            let before = Timestamp(when.0.saturating_sub(1));
            clock.read(when) >= shown && (when.0 == 0 || clock.read(before) < shown)
        }
    }
}
