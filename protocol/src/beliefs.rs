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

#[derive(Clone, Copy, Debug)]
struct Seen {
    speed: Speed,
    at: Timestamp,
}

impl Beliefs {
    /// A piece of this work took its provider so many seconds, without waiting. Each time, the
    /// believed time goes half of the way, by factors: a claim of ten times the truth is within
    /// 5 % of it after six inferences.
    pub fn observe(
        &mut self,
        now: Timestamp,
        node: NodeId,
        claimed: &Speed,
        work: &Work,
        seconds: f64,
    ) {
        let believed = self.effective(now, &node, claimed);
        let predicted = believed.seconds(work);
        let usable = |seconds: f64| seconds.is_finite() && seconds > 0.0;
        if usable(seconds) && usable(predicted) {
            let ratio = (predicted / seconds).clamp(RATIO_MIN, 1.0 / RATIO_MIN);
            // Times always differ a little; a belief that trembled would make pieces restless.
            let trembles = ratio.ln().abs() < RATIO_NOTED;
            let factor = if trembles { 1.0 } else { ratio.powf(WEIGHT) };
            self.scale(now, node, &believed, work, factor);
        }
    }

    /// The node is one of those that may have kept a request from being answered.
    pub fn suspect(&mut self, now: Timestamp, node: NodeId, claimed: &Speed) {
        let believed = self.effective(now, &node, claimed);
        self.scale(now, node, &believed, &Work([1; crate::model::OP_CLASSES]), SUSPICION);
    }

    /// The speed to plan with.
    #[must_use]
    pub fn effective(&self, now: Timestamp, node: &NodeId, claimed: &Speed) -> Speed {
        let Some(seen) = self.seen.get(node) else { return *claimed };
        if now.since(seen.at) >= FORGOTTEN {
            return *claimed;
        }
        Speed(std::array::from_fn(|class| claimed.0[class].min(seen.speed.0[class])))
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

    fn scale(&mut self, now: Timestamp, node: NodeId, from: &Speed, work: &Work, factor: f64) {
        let speed = Speed(std::array::from_fn(|class| {
            if work.0[class] == 0 {
                from.0[class]
            } else {
                ((from.0[class] as f64 * factor) as u64).max(1)
            }
        }));
        self.seen.insert(node, Seen { speed, at: now });
        if self.seen.len() > NODES_MAX
            && let Some(oldest) =
                self.seen.iter().min_by_key(|(_, seen)| seen.at).map(|(id, _)| *id)
        {
            self.seen.remove(&oldest);
        }
    }
}

/// How far, in logarithms, one inference moves a belief.
const WEIGHT: f64 = 0.5;
/// No single inference is believed to be off by more than this.
const RATIO_MIN: f64 = 1e-3;
/// In logarithms: what is nearer than this is as good as believed.
const RATIO_NOTED: f64 = 0.04;
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
    fn a_liar_is_known_within_six_inferences() {
        assert!((after(0, 1000, 100) - 10.0).abs() < 1e-9);
        assert!(after(6, 1000, 100) < 1.05);
        assert!(after(6, 1000, 100) > 0.95);
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
