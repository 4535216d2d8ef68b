//! The protocol's time on a live node: microseconds since 1970 at the start, then the monotonic
//! clock, so that it never runs backwards and still rises across restarts.
//!
//! It stands still while the process does: a lid is closed, or whoever emulates the machine has other
//! things to do. Nobody could have renewed a lease meanwhile, so none runs out.

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
        self.base + self.passed()
    }

    /// Whoever was to wake up at `due` has woken up now.
    pub(super) fn woken(&mut self, due: Instant) {
        if let Some(still) = standstill::before(Instant::now(), due) {
            tracing::warn!(?still, "this node stood still; leases count from here");
            self.still += still;
        }
    }

    fn passed(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.still)
    }

    /// When the protocol's time will be `at`; a far future becomes an hour.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        let far = self.passed() + Duration::from_secs(3600);
        self.began + self.still + at.since(self.base).min(far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_with_the_process() {
        let mut clock = Clock::start();
        let before = clock.now();
        let ago = |seconds| {
            let then = Instant::now().checked_sub(Duration::from_secs(seconds));
            then.expect("this machine started before")
        };
        // Began ten seconds ago, should have woken up after one, and did so now.
        clock.began = ago(10);
        clock.woken(ago(9));
        let passed = clock.now().since(before);
        assert!((0.9..1.5).contains(&passed.as_secs_f64()), "{passed:?}");
        let in_five = clock.instant(clock.now() + Duration::from_secs(5));
        let wait = in_five.duration_since(Instant::now());
        assert!((4.5..5.1).contains(&wait.as_secs_f64()), "{wait:?}");
        // A little late is late.
        clock.woken(ago(1));
        assert!(clock.now().since(before) >= passed);
        assert_eq!(clock.still.as_secs(), 9);
    }
}
