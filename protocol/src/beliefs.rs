//! What a requester believes of providers' speeds: their word, corrected by what their pieces were
//! seen to take.
//!
//! A claim is never raised by what was seen: a machine that is faster than it says corrects its
//! own adverts. What was seen of a slow one is forgotten after a while without news, so that a
//! machine that has recovered gets another chance; all at once, because a belief that fades would
//! make pieces move when nothing has happened.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    id::NodeId,
    model::{Speed, Work},
    time::Timestamp,
};

/// Corrections of other nodes' claims, bounded.
#[derive(Clone, Debug, Default)]
pub struct Beliefs {
    seen: BTreeMap<NodeId, Seen>,
}

/// What a node's last inferences made of its speed: the sum over all op classes, so that a change
/// of its claim changes nothing here.
#[derive(Clone, Copy, Debug)]
struct Seen {
    totals: [f64; INFERENCES],
    count: usize,
    at: Timestamp,
}

impl Beliefs {
    /// A piece of this work took its provider so many seconds, without waiting. One slow inference
    /// says little; of the last four, the fastest is believed. So a claim is corrected after four.
    pub fn observe(
        &mut self,
        now: Timestamp,
        node: NodeId,
        claimed: &Speed,
        work: &Work,
        seconds: f64,
    ) {
        let predicted = claimed.seconds(work);
        let usable = |seconds: f64| seconds.is_finite() && seconds > 0.0;
        if !usable(seconds) || !usable(predicted) {
            return;
        }
        let fresh = Seen { totals: [0.0; INFERENCES], count: 0, at: now };
        let mut seen = self.seen.get(&node).copied().unwrap_or(fresh);
        seen.totals[seen.count % INFERENCES] = total(claimed) * predicted / seconds;
        (seen.count, seen.at) = (seen.count + 1, now);
        self.keep(node, seen);
    }

    /// The node is one of those that may have kept a request from being answered.
    pub fn suspect(&mut self, now: Timestamp, node: NodeId, claimed: &Speed) {
        let believed = total(&self.effective(now, &node, claimed)) * SUSPICION;
        self.keep(node, Seen { totals: [believed; INFERENCES], count: INFERENCES, at: now });
    }

    /// The speed to plan with.
    #[must_use]
    pub fn effective(&self, now: Timestamp, node: &NodeId, claimed: &Speed) -> Speed {
        let Some(seen) = self.seen.get(node).filter(|seen| seen.count >= INFERENCES) else {
            return *claimed;
        };
        let fastest = seen.totals.iter().copied().fold(0.0, f64::max);
        let factor = fastest / total(claimed);
        // Times always differ a little; a belief that trembled would make pieces restless.
        if now.since(seen.at) >= FORGOTTEN || factor.is_nan() || factor > FACTOR_NOTED {
            return *claimed;
        }
        Speed(claimed.0.map(|speed| {
            let slowed = (speed as f64 * factor).round() as u64;
            if speed == 0 { 0 } else { slowed.max(1) }
        }))
    }

    /// Nodes about which there is a belief.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether everybody is taken at their word.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn keep(&mut self, node: NodeId, seen: Seen) {
        self.seen.insert(node, seen);
        if self.seen.len() > NODES_MAX
            && let Some(oldest) =
                self.seen.iter().min_by_key(|(_, seen)| seen.at).map(|(id, _)| *id)
        {
            self.seen.remove(&oldest);
        }
    }
}

fn total(speed: &Speed) -> f64 {
    speed.0.iter().map(|speed| *speed as f64).sum()
}

/// So many inferences correct a claim.
const INFERENCES: usize = 4;
/// A claim that is nearer to the truth than this is believed.
const FACTOR_NOTED: f64 = 0.9;
/// What a stalled session makes of the speed of each of its providers.
const SUSPICION: f64 = 0.25;
const FORGOTTEN: Duration = Duration::from_secs(300);
const NODES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work([600, 300, 0, 0, 100]);

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn after(inferences: u32, claimed: u64, truth: u64) -> f64 {
        let mut beliefs = Beliefs::default();
        let (claimed, truth) = (Speed([claimed; 5]), Speed([truth; 5]));
        let now = Timestamp(0);
        for _ in 0..inferences {
            beliefs.observe(now, node(1), &claimed, &WORK, truth.seconds(&WORK));
        }
        truth.seconds(&WORK) / beliefs.effective(now, &node(1), &claimed).seconds(&WORK)
    }

    #[test]
    fn a_liar_is_known_after_four_inferences() {
        assert!((after(0, 1000, 100) - 10.0).abs() < 1e-9);
        assert!((after(3, 1000, 100) - 10.0).abs() < 1e-9);
        assert!((after(4, 1000, 100) - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_few_slow_inferences_prove_nothing() {
        let mut beliefs = Beliefs::default();
        let (claimed, now) = (Speed([1000; 5]), Timestamp(0));
        for seconds in [1.0, 10.0, 10.0, 10.0, 1.0, 10.0, 10.0, 10.0] {
            beliefs.observe(now, node(1), &claimed, &WORK, seconds);
            assert_eq!(beliefs.effective(now, &node(1), &claimed), claimed);
        }
        beliefs.observe(now, node(1), &claimed, &WORK, 10.0);
        assert_eq!(beliefs.effective(now, &node(1), &claimed), Speed([100; 5]));
    }

    #[test]
    fn a_modest_claim_is_not_raised() {
        assert!((after(9, 100, 1000) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn beliefs_are_forgotten() {
        let mut beliefs = Beliefs::default();
        let claimed = Speed([1000; 5]);
        beliefs.suspect(Timestamp(0), node(1), &claimed);
        let at = |seconds| {
            let now = Timestamp(0) + Duration::from_secs(seconds);
            beliefs.effective(now, &node(1), &claimed).0[0]
        };
        assert_eq!(at(0), 250);
        assert_eq!(at(299), 250);
        assert_eq!(at(300), 1000);
    }

    #[test]
    fn a_new_claim_does_not_wash_off_what_was_seen() {
        let mut beliefs = Beliefs::default();
        let now = Timestamp(0);
        for _ in 0..20 {
            beliefs.observe(now, node(1), &Speed([1000; 5]), &WORK, 10.0);
        }
        let believed = |claim| beliefs.effective(now, &node(1), &Speed([claim; 5])).seconds(&WORK);
        assert!((believed(1000) - 10.0).abs() < 0.5);
        assert!((believed(50_000) - 10.0).abs() < 0.5);
        assert!(believed(10) > 90.0, "an honest correction is not corrected again");
    }

    #[test]
    fn the_table_is_bounded_and_junk_is_ignored() {
        let mut beliefs = Beliefs::default();
        for n in 0..NODES_MAX + 5 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            beliefs.suspect(Timestamp(n as u64), NodeId(id), &Speed([9; 5]));
        }
        assert_eq!(beliefs.len(), NODES_MAX);
        let mut beliefs = Beliefs::default();
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            beliefs.observe(Timestamp(0), node(1), &Speed([9; 5]), &WORK, seconds);
        }
        assert!(beliefs.is_empty());
    }
}
