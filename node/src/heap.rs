//! Memory that is free goes back to the system.
//!
//! glibc keeps what a program has freed, for its next allocations: tens of megabytes after pieces
//! were loaded and dropped, and more with each session, as what is free lies in between what is not.
//! A board of a few hundred has better use for them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Gives free memory back a while from now, in the background: what is large is often freed piece by
/// piece. Must be called inside a tokio runtime.
pub(crate) fn give_back_soon() {
    if SOON.swap(true, Ordering::SeqCst) {
        return;
    }
    tokio::spawn(async {
        tokio::time::sleep(WHILE).await;
        SOON.store(false, Ordering::SeqCst);
        tokio::task::spawn_blocking(give_back);
    });
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    #[expect(unsafe_code, reason = "no safe crate offers it")]
    // SAFETY: it only takes the allocator's own locks, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators have ways of their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

static SOON: AtomicBool = AtomicBool::new(false);
const WHILE: Duration = Duration::from_secs(1);
