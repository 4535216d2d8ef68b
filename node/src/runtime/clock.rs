//! The protocol's time on a live node: microseconds since 1970 at the start, then the monotonic
//! clock, so that it never runs backwards and still rises across restarts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use starling_protocol::Timestamp;

#[derive(Clone, Copy)]
pub(super) struct Clock {
    base: Timestamp,
    began: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base: Timestamp::default() + since_1970, began: Instant::now() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.base + self.began.elapsed()
    }

    /// When the protocol's time will be `at`; a far future becomes an hour.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        self.began + at.since(self.base).min(self.began.elapsed() + Duration::from_secs(3600))
    }
}
