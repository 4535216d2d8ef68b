//! How many inbound streams may be open at a time, per peer and in all. libp2p bounds connections,
//! not streams.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use starling_protocol::NodeId;

/// Counts who is inside.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    inside: Arc<Mutex<HashMap<NodeId, usize>>>,
    per_peer_max: usize,
    all_max: usize,
}

/// One place inside, given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Gate,
    peer: NodeId,
}

impl Gate {
    /// An empty house with so many places.
    pub(crate) fn new(per_peer_max: usize, all_max: usize) -> Self {
        Self { inside: Arc::default(), per_peer_max, all_max }
    }

    /// A place for `peer`, unless it or everybody together has too many.
    pub(crate) fn enter(&self, peer: NodeId) -> Option<Pass> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.values().sum::<usize>() >= self.all_max {
            return None;
        }
        let mine = inside.entry(peer).or_default();
        if *mine >= self.per_peer_max {
            return None;
        }
        *mine += 1;
        Some(Pass { gate: self.clone(), peer })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.gate.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = inside.get_mut(&self.peer) {
            *mine -= 1;
            if *mine == 0 {
                inside.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let gate = Gate::new(2, 3);
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let first = gate.enter(a);
        let _second = gate.enter(a);
        assert!(gate.enter(a).is_none(), "one over the limit of the peer");
        let _third = gate.enter(b);
        assert!(gate.enter(b).is_none(), "one over the limit of all");
        drop(first);
        assert!(gate.enter(b).is_some());
    }
}
