//! The requests of a session: waiting, in flight, replayed in order after a change of plan.

use std::collections::BTreeSet;

use crate::time::Timestamp;

/// Requests by number. A request leaves only when its output has arrived, so every change of plan
/// can replay what is not done.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    waiting: BTreeSet<u64>,
    in_flight: BTreeSet<u64>,
    // The last output, or the first request after a time without any.
    progress: Timestamp,
}

impl Requests {
    /// Takes a request in, unless there are `max` already or it is one of them.
    pub(super) fn push(&mut self, request: u64, max: usize) -> bool {
        let full = self.waiting.len() + self.in_flight.len() >= max;
        let known = self.in_flight.contains(&request);
        !full && !known && self.waiting.insert(request)
    }

    /// Puts waiting requests in flight until `window` are, and returns them, oldest first.
    pub(super) fn start(&mut self, now: Timestamp, window: usize) -> Vec<u64> {
        let mut started = Vec::new();
        while self.in_flight.len() < window {
            let Some(request) = self.waiting.pop_first() else {
                break;
            };
            if self.in_flight.is_empty() {
                self.progress = now;
            }
            self.in_flight.insert(request);
            started.push(request);
        }
        started
    }

    /// Takes a request out. Says whether it was in flight; a second copy of its output is not.
    pub(super) fn complete(&mut self, now: Timestamp, request: u64) -> bool {
        let done = self.in_flight.remove(&request) || self.waiting.remove(&request);
        if done {
            self.progress = now;
        }
        done
    }

    /// Everything in flight waits again: it will be replayed.
    pub(super) fn hold_back(&mut self, now: Timestamp) {
        self.waiting.append(&mut self.in_flight);
        self.progress = now;
    }

    /// Whether none is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Since when requests are in flight without an output.
    pub(super) fn waiting_since(&self) -> Option<Timestamp> {
        (!self.in_flight.is_empty()).then_some(self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_replayed_in_order() {
        let mut requests = Requests::default();
        for request in 0..5 {
            assert!(requests.push(request, 5));
        }
        assert!(!requests.push(5, 5), "at the limit");
        assert_eq!(requests.start(Timestamp(1), 3), [0, 1, 2]);
        assert!(requests.complete(Timestamp(2), 1));
        assert!(!requests.complete(Timestamp(2), 1), "a second copy of its output");
        requests.hold_back(Timestamp(3));
        assert_eq!(requests.waiting_since(), None);
        assert_eq!(requests.start(Timestamp(4), 9), [0, 2, 3, 4]);
    }

    #[test]
    fn an_output_that_arrives_while_held_back_counts() {
        let mut requests = Requests::default();
        requests.push(7, 9);
        requests.start(Timestamp(0), 1);
        requests.hold_back(Timestamp(1));
        assert!(requests.complete(Timestamp(2), 7));
        assert!(requests.start(Timestamp(3), 1).is_empty());
    }
}
