//! Whether this process stood still while its clock went on: somebody stopped it, or the machine
//! that emulates this one had other things to do. (In a system that is suspended, clocks may stop
//! too.) What it did not hear meanwhile says nothing of others.

use std::time::{Duration, Instant};

/// How long it stood still before `now`, if it was to wake up at `due`; nothing if it may only have
/// been busy.
pub(crate) fn before(now: Instant, due: Instant) -> Option<Duration> {
    let late = now.saturating_duration_since(due);
    (late > BUSY).then_some(late)
}

/// Whoever wakes up later than this has not been busy.
const BUSY: Duration = Duration::from_secs(2);
