//! The threads that share one layer's work, and stay together from layer to layer.
//!
//! A layer of a small network takes some 20 µs, and waking a sleeping thread takes as long. So
//! the helpers of a run are called once, for all of its layers, and wait for the next one by
//! looking again and again. They come from the rayon pool of the calling thread, when they are
//! free: nobody waits for a helper to arrive, only for tasks that one has begun. So two runs may
//! share a pool without ever blocking each other, and a pool of one thread has no helpers at all.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A leader, which is the calling thread, and its helpers.
pub(crate) struct Crew<'a> {
    board: Option<&'a Board>,
    threads: usize,
}

/// Where the leader posts the tasks of a layer.
#[derive(Default)]
struct Board {
    /// In the upper half the number of the posting, in the lower one how many of its tasks
    /// nobody has begun.
    open: AtomicU64,
    /// How many tasks of the posting have ended.
    ended: AtomicUsize,
    closed: AtomicBool,
    posting: UnsafeCell<Option<Posting>>,
}

/// Tasks `0..tasks` of a closure, whose type and lifetime are erased.
#[derive(Clone, Copy)]
struct Posting {
    tasks: usize,
    task: *const (dyn Fn(usize) + Sync),
}

// SAFETY: `posting` is written only by the leader, while no task of the last posting is open or
// unended, and read only by threads that have claimed a task of the present one; `open` orders
// the two.
unsafe impl Sync for Board {}

impl Crew<'_> {
    /// Runs `work` with a crew from the rayon pool of the calling thread.
    pub(crate) fn gather<R>(work: impl FnOnce(&Crew<'_>) -> R) -> R {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return work(&Crew::alone());
        }
        let board = Board::default();
        rayon::in_place_scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| board.help());
            }
            // Also when `work` panics: the scope waits for the helpers.
            let _close = Close(&board);
            work(&Crew { board: Some(&board), threads })
        })
    }

    /// Runs `work` with a crew if it is worth the while, else alone.
    pub(crate) fn gather_if<R>(worth: bool, work: impl FnOnce(&Crew<'_>) -> R) -> R {
        if worth { Self::gather(work) } else { work(&Self::alone()) }
    }

    /// The calling thread by itself.
    pub(crate) fn alone() -> Self {
        Self { board: None, threads: 1 }
    }

    /// How many threads there are at most, the leader among them.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task` once for each of `0..tasks`, and returns when all calls have.
    pub(crate) fn for_each(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        match self.board {
            Some(board) if tasks > 1 => board.share(tasks, &task),
            _ => (0..tasks).for_each(task),
        }
    }
}

impl Board {
    fn share<'t>(&self, tasks: usize, task: &'t (dyn Fn(usize) + Sync + 't)) {
        assert!(u32::try_from(tasks).is_ok(), "{tasks} tasks are too many");
        // SAFETY: only the lifetime changes. The closure is called by those alone who claim a
        // task of this posting, and this function returns when all of these have ended.
        let task = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + 't), *const (dyn Fn(usize) + Sync)>(
                task,
            )
        };
        let number = (self.open.load(Ordering::Relaxed) >> 32).wrapping_add(1) << 32;
        self.ended.store(0, Ordering::Relaxed);
        // SAFETY: no task of the last posting is left, so nobody reads this.
        unsafe { *self.posting.get() = Some(Posting { tasks, task }) };
        self.open.store(number | tasks as u64, Ordering::Release);
        while self.work() {}
        let mut patience = Patience::default();
        while self.ended.load(Ordering::Acquire) < tasks {
            patience.wait();
        }
    }

    /// Does one task, if one is open.
    fn work(&self) -> bool {
        let mut open = self.open.load(Ordering::Acquire);
        loop {
            if open as u32 == 0 {
                return false;
            }
            match self.open.compare_exchange_weak(
                open,
                open - 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => break,
                Err(now) => open = now,
            }
        }
        // SAFETY: the task claimed is of the present posting, which stays until it has ended.
        let posting = unsafe { (*self.posting.get()).expect("tasks are opened after posting") };
        let _end = End(&self.ended);
        // SAFETY: the closure lives until all tasks have ended.
        unsafe { (*posting.task)(posting.tasks - open as u32 as usize) };
        true
    }

    /// Works until the leader closes the board.
    fn help(&self) {
        let mut patience = Patience::default();
        while !self.closed.load(Ordering::Acquire) {
            if self.work() {
                patience = Patience::default();
            } else {
                patience.wait();
            }
        }
    }
}

/// Closes the board at the end of the leader's work.
struct Close<'a>(&'a Board);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

/// Ends a task, whether it returns or panics: a leader must not wait for ever.
struct End<'a>(&'a AtomicUsize);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Waits in the way that suits how long it has lasted.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            ..SPINS => std::hint::spin_loop(),
            SPINS..YIELDS => std::thread::yield_now(),
            // A node that slows itself down pauses between layers.
            YIELDS.. => std::thread::sleep(NAP),
        }
    }
}

/// About 100 µs: most layers of a network have less than that between them.
const SPINS: u32 = 4_000;
/// Another millisecond or so.
const YIELDS: u32 = 8_000;
const NAP: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    #[test]
    fn every_task_is_done_once() {
        for threads in [1, 2, 3] {
            in_pool(threads, || {
                Crew::gather(|crew| {
                    for tasks in [0, 1, 2, 7, 100] {
                        let done: Vec<_> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                        for _ in 0..50 {
                            crew.for_each(tasks, |i| {
                                done[i].fetch_add(1, Ordering::Relaxed);
                            });
                        }
                        assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 50));
                    }
                });
            });
        }
    }

    #[test]
    fn crews_share_a_pool() {
        in_pool(2, || {
            let sum = AtomicU32::new(0);
            rayon::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|_| {
                        Crew::gather(|crew| {
                            for _ in 0..20 {
                                crew.for_each(5, |_| {
                                    sum.fetch_add(1, Ordering::Relaxed);
                                });
                            }
                        });
                    });
                }
            });
            assert_eq!(sum.into_inner(), 4 * 20 * 5);
        });
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller() {
        for threads in [1, 2] {
            let caught = std::panic::catch_unwind(|| {
                in_pool(threads, || {
                    Crew::gather(|crew| crew.for_each(8, |i| assert_ne!(i, 5, "the fifth")));
                });
            });
            assert!(caught.is_err());
        }
    }
}
