//! The protocol's time on a live node: microseconds since 1970 at the start, then the monotonic
//! clock, so that it never runs backwards and still rises across restarts.
//!
//! It stands still while the process does, even if the system's clock goes on: nothing that came
//! meanwhile has been heard, renewals of leases among it, so none runs out.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use starling_protocol::Timestamp;

use crate::standstill;

#[derive(Clone, Copy)]
pub(super) struct Clock {
    base: Timestamp,
    began: Instant,
    /// How long the process has stood still since.
    still: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            base: Timestamp::default() + since_1970,
            began: Instant::now(),
            still: Duration::ZERO,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.base + self.passed(Instant::now())
    }

    /// Whoever was to wake up at `due` has woken up now.
    pub(super) fn woken(&mut self, now: Instant, due: Instant) {
        if let Some(still) = standstill::before(now, due) {
            tracing::warn!(?still, "this node stood still; leases count from here");
            self.still += still;
        }
    }

    fn passed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began).saturating_sub(self.still)
    }

    /// When the protocol's time will be `at`; a far future becomes an hour.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        let far = self.passed(Instant::now()) + Duration::from_secs(3600);
        self.began + self.still + at.since(self.base).min(far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_with_the_process() {
        let mut clock = Clock::start();
        let after = |seconds| clock.began + Duration::from_secs(seconds);
        let [one, three, ten, fifteen] = [1, 3, 10, 15].map(after);
        // It should have woken up after one second, and did so after ten.
        clock.woken(ten, one);
        assert_eq!(clock.passed(ten), Duration::from_secs(1));
        assert_eq!(clock.instant(clock.base + Duration::from_secs(6)), fifteen);
        // A little late is late.
        clock.woken(three, one);
        assert_eq!(clock.still, Duration::from_secs(9));
    }
}
