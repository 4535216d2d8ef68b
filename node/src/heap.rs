//! Memory that is free goes back to the system.
//!
//! glibc keeps what a program has freed, for its next allocations: tens of megabytes after pieces
//! were loaded and dropped, and more with each session, as what is free lies in between what is not.
//! A board of a few hundred has better use for them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// One heap for all threads, to be called before there are others. By itself glibc gives each one of
/// its own, where what is free can't be used by others, nor its end given back.
pub(crate) fn one_for_all() {
    allocator::one_heap();
}

/// Gives free memory back a while from now, in the background: what is large is often freed piece by
/// piece. Must be called inside a tokio runtime.
pub(crate) fn give_back_soon() {
    if SOON.swap(true, Ordering::SeqCst) {
        return;
    }
    tokio::spawn(async {
        tokio::time::sleep(WHILE).await;
        SOON.store(false, Ordering::SeqCst);
        tokio::task::spawn_blocking(allocator::give_back);
    });
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod allocator {
    #![expect(unsafe_code, reason = "no safe crate offers it")]

    pub(super) fn one_heap() {
        // SAFETY: it only sets a number, and no other thread runs yet that could read it.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }

    pub(super) fn give_back() {
        // SAFETY: it takes the allocator's own locks, and may be called at any time.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Other allocators have ways of their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod allocator {
    pub(super) fn one_heap() {}

    pub(super) fn give_back() {}
}

static SOON: AtomicBool = AtomicBool::new(false);
const WHILE: Duration = Duration::from_secs(1);
