//! How much one peer may ask of a node: a token bucket for each.

use std::{collections::BTreeMap, time::Duration};

use crate::{id::NodeId, time::Timestamp};

/// How much, and how fast it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetConfig {
    /// What a peer may take at once.
    pub burst: u32,
    /// What comes back each second.
    pub per_second: u32,
    /// The most peers that are kept apart.
    pub peers_max: usize,
}

/// A bucket for each peer, bounded.
#[derive(Clone, Debug)]
pub struct Budgets {
    config: BudgetConfig,
    // Millionths of a token, and when they were counted. A full bucket needs no entry.
    buckets: BTreeMap<NodeId, (u64, Timestamp)>,
    refused: u64,
}

impl Budgets {
    /// Full buckets for everyone.
    #[must_use]
    pub fn new(config: BudgetConfig) -> Self {
        Self { config, buckets: BTreeMap::new(), refused: 0 }
    }

    /// Takes one token, if there is one.
    pub fn allows(&mut self, now: Timestamp, peer: NodeId) -> bool {
        let full = u64::from(self.config.burst) * TOKEN;
        let (tokens, at) = self.buckets.get(&peer).copied().unwrap_or((full, now));
        let tokens =
            tokens.saturating_add(regained(self.config.per_second, now.since(at))).min(full);
        if tokens < TOKEN {
            self.refused += 1;
            return false;
        }
        if !self.buckets.contains_key(&peer) && self.buckets.len() >= self.config.peers_max {
            self.forget_full(now);
        }
        if self.buckets.len() < self.config.peers_max || self.buckets.contains_key(&peer) {
            self.buckets.insert(peer, (tokens - TOKEN, now));
            return true;
        }
        // So many peers are short of tokens that this one can't be kept apart.
        self.refused += 1;
        false
    }

    /// How often somebody had none.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Peers that are kept apart now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether nobody has taken anything of late.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn forget_full(&mut self, now: Timestamp) {
        let full = u64::from(self.config.burst) * TOKEN;
        let per_second = self.config.per_second;
        self.buckets.retain(|_, (tokens, at)| {
            tokens.saturating_add(regained(per_second, now.since(*at))) < full
        });
    }
}

fn regained(per_second: u32, span: Duration) -> u64 {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    u64::from(per_second).saturating_mul(micros)
}

/// Millionths, so that a microsecond gives back a whole number of them.
const TOKEN: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BudgetConfig = BudgetConfig { burst: 3, per_second: 2, peers_max: 2 };

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn a_peer_has_a_burst_and_then_a_rate() {
        let mut budgets = Budgets::new(CONFIG);
        let at = |millis| Timestamp(0) + Duration::from_millis(millis);
        let taken = (0..10).filter(|_| budgets.allows(at(0), node(1))).count();
        assert_eq!(taken, 3);
        assert_eq!(budgets.refused(), 7);
        assert!(budgets.allows(at(0), node(2)), "another peer has its own");
        assert!(!budgets.allows(at(499), node(1)));
        assert!(budgets.allows(at(500), node(1)));
        assert_eq!((0..10).filter(|_| budgets.allows(at(60_000), node(1))).count(), 3);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut budgets = Budgets::new(CONFIG);
        let now = Timestamp(0);
        for peer in 1..=2 {
            while budgets.allows(now, node(peer)) {}
        }
        assert!(!budgets.allows(now, node(3)));
        assert_eq!(budgets.len(), 2);
        let later = now + Duration::from_secs(5);
        assert!(budgets.allows(later, node(3)), "those that have theirs back are forgotten");
    }
}
