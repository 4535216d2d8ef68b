//! What is yet to happen, in order of (time, insertion number): ties are first come, first served.
//!
//! A flock's gossip keeps hundreds of thousands of copies on their way. Only those of the next
//! fraction of a millisecond are kept in order, which a processor's cache has room for; the others
//! wait in one pile for each such span.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
};

use starling_protocol::Timestamp;

/// Something that will happen to a node.
pub(crate) struct Event<T> {
    /// When.
    pub(crate) at: Timestamp,
    number: u64,
    /// To which.
    pub(crate) to: usize,
    /// What.
    pub(crate) what: T,
}

/// The queue of a world.
pub(crate) struct Queue<T> {
    // Up to the end of the present span. Empty only if there is nothing at all.
    soon: BinaryHeap<Reverse<Event<T>>>,
    span: u64,
    later: BTreeMap<u64, Vec<Reverse<Event<T>>>>,
    pushed: u64,
}

impl<T> Queue<T> {
    /// Nothing will happen.
    pub(crate) fn new() -> Self {
        Self { soon: BinaryHeap::new(), span: 0, later: BTreeMap::new(), pushed: 0 }
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.soon.peek().map(|Reverse(event)| event.at)
    }

    /// Takes the next thing out.
    pub(crate) fn pop(&mut self) -> Option<Event<T>> {
        let Reverse(event) = self.soon.pop()?;
        if self.soon.is_empty()
            && let Some((span, events)) = self.later.pop_first()
        {
            self.span = span;
            self.soon = BinaryHeap::from(events);
        }
        Some(event)
    }

    /// Puts something in.
    pub(crate) fn push(&mut self, at: Timestamp, to: usize, what: T) {
        self.pushed += 1;
        let event = Reverse(Event { at, number: self.pushed, to, what });
        let span = at.0 >> SPAN_BITS;
        if self.soon.is_empty() {
            self.span = span;
        }
        if span <= self.span {
            self.soon.push(event);
        } else {
            self.later.entry(span).or_default().push(event);
        }
    }
}

impl<T> Ord for Event<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> PartialOrd for Event<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Event<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Event<T> {}

/// A span is so many bits of microseconds: a quarter of a millisecond.
const SPAN_BITS: u32 = 8;

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        /// Against a plain sort, with pushes between the pops.
        fn it_is_in_order_whenever_things_are_put_in(first: Vec<u16>, then: Vec<u16>) -> bool {
            let mut queue = Queue::new();
            let mut waiting = std::collections::BTreeSet::new();
            let mut later = then.into_iter();
            let all: Vec<u16> = first;
            for (number, at) in (0_u64..).zip(&all) {
                queue.push(Timestamp(u64::from(*at)), 0, number);
                waiting.insert((u64::from(*at), number));
            }
            let mut number = all.len() as u64;
            let mut ordered = true;
            while let Some(event) = queue.pop() {
                ordered &= waiting.pop_first() == Some((event.at.0, event.what));
                if let Some(delay) = later.next() {
                    let at = event.at.0 + u64::from(delay);
                    queue.push(Timestamp(at), 0, number);
                    waiting.insert((at, number));
                    number += 1;
                }
                ordered &= queue.next_at().map(|at| at.0) == waiting.first().map(|(at, _)| *at);
            }
            ordered && waiting.is_empty()
        }
    }

    #[test]
    fn what_is_due_at_once_happens_in_the_order_of_its_insertion() {
        let mut queue = Queue::new();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b'), (5, 'e')] {
            queue.push(Timestamp(at), 0, what);
        }
        assert_eq!(queue.next_at(), Some(Timestamp(1)));
        let order: String = std::iter::from_fn(|| queue.pop()).map(|event| event.what).collect();
        assert_eq!(order, "abcde");
    }
}
