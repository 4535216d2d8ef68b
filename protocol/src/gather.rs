//! The parts of an input that several pieces make: kept until the last of them has come.

use std::collections::BTreeMap;

use crate::{id::NodeId, wiring::Link};

/// The requests of which not all parts have come yet.
#[derive(Clone, Debug)]
pub struct Gather<T> {
    sources: Vec<(u16, NodeId)>,
    // By request, and by the source's place among the sources.
    waiting: BTreeMap<u64, Vec<Option<T>>>,
    requests_max: usize,
}

/// What has come of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gathered<T> {
    /// All parts are here, in the order of the sources.
    Complete(Vec<T>),
    /// Others are awaited.
    Waiting,
    /// It comes from nobody who is a source.
    Stranger,
}

impl<T> Gather<T> {
    /// Parts come from these sources. Of more than `requests_max` requests that wait, the lowest
    /// number goes: whoever made it asks again in time.
    #[must_use]
    pub fn new(sources: &[Link], requests_max: usize) -> Self {
        let sources = sources.iter().map(|link| (link.piece, link.node)).collect();
        Self { sources, waiting: BTreeMap::new(), requests_max: requests_max.max(1) }
    }

    /// Whether anything from this piece at this node is awaited.
    #[must_use]
    pub fn expects(&self, piece: u16, node: NodeId) -> bool {
        self.sources.contains(&(piece, node))
    }

    /// A part has come. One that comes again replaces the earlier one.
    pub fn add(&mut self, request: u64, piece: u16, node: NodeId, part: T) -> Gathered<T> {
        let Some(place) = self.sources.iter().position(|source| *source == (piece, node)) else {
            return Gathered::Stranger;
        };
        if self.sources.len() == 1 {
            return Gathered::Complete(vec![part]);
        }
        let none = || self.sources.iter().map(|_| None).collect();
        let parts: &mut Vec<Option<T>> = self.waiting.entry(request).or_insert_with(none);
        parts[place] = Some(part);
        if parts.iter().all(Option::is_some) {
            let parts = self.waiting.remove(&request).unwrap_or_default();
            return Gathered::Complete(parts.into_iter().flatten().collect());
        }
        while self.waiting.len() > self.requests_max {
            self.waiting.pop_first();
        }
        Gathered::Waiting
    }

    /// How many requests wait for parts.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(pieces: u16, requests_max: usize) -> Gather<&'static str> {
        let link = |piece| Link { piece, node: NodeId([piece as u8; 32]), rows: Vec::new() };
        Gather::new(&(0..pieces).map(link).collect::<Vec<_>>(), requests_max)
    }

    fn add(
        gather: &mut Gather<&'static str>,
        request: u64,
        piece: u16,
        part: &'static str,
    ) -> Gathered<&'static str> {
        gather.add(request, piece, NodeId([piece as u8; 32]), part)
    }

    #[test]
    fn parts_come_together_in_the_order_of_their_sources() {
        let mut two = gather(2, 8);
        assert_eq!(add(&mut two, 1, 1, "b"), Gathered::Waiting);
        assert_eq!(add(&mut two, 2, 0, "c"), Gathered::Waiting);
        assert_eq!(add(&mut two, 1, 1, "again"), Gathered::Waiting);
        assert_eq!(add(&mut two, 1, 0, "a"), Gathered::Complete(vec!["a", "again"]));
        assert_eq!(two.waiting(), 1);
        assert_eq!(add(&mut gather(1, 8), 1, 0, "all"), Gathered::Complete(vec!["all"]));
    }

    #[test]
    fn strangers_are_not_heard() {
        let mut two = gather(2, 8);
        assert_eq!(add(&mut two, 1, 2, "x"), Gathered::Stranger);
        assert_eq!(two.add(1, 0, NodeId([7; 32]), "x"), Gathered::Stranger);
        assert_eq!(two.waiting(), 0);
    }

    #[test]
    fn of_too_many_requests_the_oldest_goes() {
        let mut two = gather(2, 3);
        for request in 0..10 {
            assert_eq!(add(&mut two, request, 0, "a"), Gathered::Waiting);
            assert!(two.waiting() <= 3);
        }
        assert_eq!(add(&mut two, 2, 1, "b"), Gathered::Waiting, "its other part is gone");
        assert_eq!(add(&mut two, 9, 1, "b"), Gathered::Complete(vec!["a", "b"]));
    }
}
