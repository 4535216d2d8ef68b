//! What is yet to happen, in order of (time, insertion number): ties are first come, first served.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
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
    heap: BinaryHeap<Reverse<Event<T>>>,
    pushed: u64,
}

impl<T> Queue<T> {
    /// Nothing will happen.
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse(event)| event.at)
    }

    /// Takes the next thing out.
    pub(crate) fn pop(&mut self) -> Option<Event<T>> {
        self.heap.pop().map(|Reverse(event)| event)
    }

    /// Puts something in.
    pub(crate) fn push(&mut self, at: Timestamp, to: usize, what: T) {
        self.pushed += 1;
        self.heap.push(Reverse(Event { at, number: self.pushed, to, what }));
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

#[cfg(test)]
mod tests {
    use super::*;

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
