//! Many seeds on all cores. Seeds share nothing, so their results are those of one core.

use std::{
    any::Any,
    collections::BTreeMap,
    num::NonZeroUsize,
    ops::{ControlFlow, Range},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

/// Works on each seed, and hands the results over in the order of the seeds, each as soon as all
/// before it are there. A seed whose work panics gives the panic's text. No new seed is begun once
/// `each` has said [`ControlFlow::Break`].
pub fn over_seeds<T: Send>(
    seeds: Range<u64>,
    work: impl Fn(u64) -> T + Sync,
    mut each: impl FnMut(u64, Result<T, String>) -> ControlFlow<()>,
) {
    let next = AtomicU64::new(seeds.start);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..workers(&seeds) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sender.send((seed, caught(|| work(seed)))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        // The receiver goes out of scope on a break, which is how the workers learn of it.
        in_order(seeds.start, results, &mut each);
    });
}

fn in_order<T>(
    first: u64,
    results: mpsc::Receiver<(u64, Result<T, String>)>,
    each: &mut impl FnMut(u64, Result<T, String>) -> ControlFlow<()>,
) {
    let mut due = first;
    let mut early = BTreeMap::new();
    for (seed, result) in results {
        early.insert(seed, result);
        while let Some(result) = early.remove(&due) {
            if each(due, result).is_break() {
                return;
            }
            due += 1;
        }
    }
}

/// A panic in one seed says something about that seed, and nothing about the others.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| text_of(panic.as_ref()))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a text").to_owned()
}

fn workers(seeds: &Range<u64>) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.min(usize::try_from(seeds.end.saturating_sub(seeds.start)).unwrap_or(cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_panics_as_text() {
        let mut seen = Vec::new();
        let work = |seed: u64| {
            assert!(seed != 13, "bad luck with {seed}");
            seed * 2
        };
        over_seeds(10..15, work, |seed, result| {
            seen.push((seed, result));
            ControlFlow::Continue(())
        });
        let bad_luck = Err("bad luck with 13".to_owned());
        assert_eq!(seen, [(10, Ok(20)), (11, Ok(22)), (12, Ok(24)), (13, bad_luck), (14, Ok(28))]);
    }

    #[test]
    fn a_break_ends_it_early() {
        let mut seen = 0;
        over_seeds(
            0..1_000_000,
            |seed| seed,
            |_, _| {
                seen += 1;
                if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        assert_eq!(seen, 3);
    }
}
