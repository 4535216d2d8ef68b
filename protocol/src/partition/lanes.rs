//! Lanes: plans that serve one stream side by side, each on machines of its own, each inference
//! through one of them.
//!
//! A pipeline passes every tensor between two pieces over the network, and its slowest stage holds
//! up all others. Where machines have the memory for it, a whole model on each passes nothing but
//! inputs and outputs, and no machine waits for another. Between the two are several shorter
//! pipelines. What is best depends on links, on what a byte costs a processor, and on memory, so
//! all of these are laid out and predicted:
//!
//! - one plan, by [`pf`](super::pf);
//! - the machines dealt into 2, 3, ... lanes of about the same capability;
//! - the fastest machines that can hold the whole model by itself alone, and the others dealt into
//!   no lane, one, two, or half as many as they are.
//!
//! The rate of the lanes is the sum of theirs, or what the requester's own link carries; lanes that
//! have capacity to spare for that link are better than a plan that has none.

use super::{
    Planner, Proposal, Settings, plan,
    worker::{Goal, Worker},
};
use std::collections::BTreeSet;

use crate::{
    id::NodeId,
    model::{ModelProfile, PieceProfile},
    plan::{LayerRange, PIECES_MAX},
};

/// The plans for a stream, the fastest first: one where more would gain little, none where nobody
/// can do it. No two have a worker in common. `uplink` is what the requester's own link carries, in
/// bytes per second.
#[must_use]
pub fn lanes(
    profile: &ModelProfile,
    workers: &[Worker],
    requester: NodeId,
    uplink: f64,
    settings: &Settings,
) -> Vec<Proposal> {
    let flock =
        Flock { profile, requester, uplink, settings, team: team(profile, workers, settings) };
    let one: Vec<Proposal> = flock.plan(workers).into_iter().collect();
    let (bar, others) = (flock.rate(&one) * (1.0 + GAIN_MIN), flock.deals());
    let best = others.into_iter().map(|lanes| (flock.rate(&lanes), lanes));
    let best = best.filter(|(rate, _)| *rate > bar).fold(None, |best, next| match best {
        // A few per cent are not worth more weights on more machines.
        Some((rate, _)) if next.0 <= rate * (1.0 + settings.gain_min) => best,
        Some(_) | None => Some(next),
    });
    best.map_or(one, |(_, lanes)| lanes)
}

struct Flock<'a> {
    profile: &'a ModelProfile,
    requester: NodeId,
    uplink: f64,
    settings: &'a Settings,
    /// The workers that matter, the fastest first.
    team: Vec<Worker>,
}

/// The fastest workers that can compute everything, as many as one plan may have.
fn team(profile: &ModelProfile, workers: &[Worker], settings: &Settings) -> Vec<Worker> {
    let able = |worker: &&Worker| worker.room > 0 && worker.whole(profile).is_finite();
    let mut team: Vec<Worker> = workers.iter().filter(able).copied().collect();
    team.sort_by(|a, b| {
        a.whole(profile).total_cmp(&b.whole(profile)).then_with(|| a.node.cmp(&b.node))
    });
    team.truncate(settings.pieces_max.clamp(1, PIECES_MAX));
    team
}

impl Flock<'_> {
    /// The ways to lay out more than one lane that are looked at.
    fn deals(&self) -> Vec<Vec<Proposal>> {
        let whole = self.whole();
        let (able, unable): (Vec<Worker>, Vec<Worker>) =
            self.team.iter().partition(|worker| worker.holds(&whole));
        let equal = (2..=self.team.len()).map(|count| dealt(&self.team, count));
        let apart = (1..=able.len()).rev().flat_map(|alone| {
            let (alone, others) = able.split_at(alone);
            let rest: Vec<Worker> = others.iter().chain(&unable).copied().collect();
            let counts: BTreeSet<usize> = [0, 1, 2, rest.len() / 2]
                .into_iter()
                .filter(|count| *count <= rest.len())
                .collect();
            counts.into_iter().map(move |count| {
                let alone = alone.iter().map(|worker| vec![*worker]);
                alone.chain(dealt(&rest, count)).collect::<Vec<_>>()
            })
        });
        let laid_out = equal.chain(apart).map(|groups| self.lay_out(groups));
        laid_out.filter(|lanes| lanes.len() > 1).collect()
    }

    /// What one machine alone would have to do.
    fn whole(&self) -> PieceProfile {
        self.profile.range(LayerRange { first: 0, end: self.profile.layers() })
    }

    /// A plan for each group that can have one, the fastest first.
    fn lay_out(&self, groups: Vec<Vec<Worker>>) -> Vec<Proposal> {
        let mut lanes: Vec<Proposal> =
            groups.into_iter().filter_map(|group| self.plan(&group)).collect();
        lanes.sort_by(|a, b| a.bottleneck.total_cmp(&b.bottleneck));
        lanes
    }

    fn plan(&self, workers: &[Worker]) -> Option<Proposal> {
        let room = |sum: u64, worker: &Worker| sum.saturating_add(worker.provider.memory_free);
        if workers.iter().fold(0, room) < self.whole().weight_bytes {
            return None;
        }
        let (planner, goal) = (Planner::Pf, Goal::Throughput);
        plan(planner, self.profile, workers, self.requester, goal, self.settings)
    }

    /// Inferences per second, over the time for which a stream is taken to go on.
    fn rate(&self, lanes: &[Proposal]) -> f64 {
        let own = |lane: &&Proposal| lane.order.iter().all(|node| *node == self.requester);
        let rate = |lane: &Proposal| {
            let loaded = (1.0 - self.loading(lane) / HORIZON_SECONDS).max(0.0);
            let reached = if lane.plan.is_pipeline() { 1.0 } else { STRIPS_REACH };
            loaded * reached / lane.bottleneck.max(f64::MIN_POSITIVE)
        };
        let here: f64 = lanes.iter().filter(own).map(rate).sum();
        let all: f64 = lanes.iter().map(rate).sum();
        let input = self.profile.bytes_across(0, &[]) as f64;
        here + both(all - here, self.uplink / input.max(1.0))
    }

    /// Seconds until the last machine of a lane has fetched and packed its weights.
    fn loading(&self, lane: &Proposal) -> f64 {
        let each = lane.plan.pieces().iter().zip(&lane.order).map(|(piece, node)| {
            let worker = self.team.iter().find(|worker| worker.node == *node);
            let provider = worker.map(|worker| worker.provider);
            provider.map_or(0.0, |provider| {
                let weights = self.profile.piece(piece).weight_bytes as f64;
                weights * (provider.byte_seconds * LOADING + 1.0 / provider.bandwidth)
            })
        });
        each.fold(0.0, f64::max)
    }
}

/// What is left of two bounds: the lower one where they are far apart, and less where both are
/// about as tight, since a plan that can just give what a link carries now and then does not.
fn both(a: f64, b: f64) -> f64 {
    let (least, most) = (a.min(b), a.max(b));
    if most.is_infinite() || least <= 0.0 {
        return least;
    }
    least / (1.0 + (least / most).powi(4)).powf(0.25)
}

/// Workers in groups of about the same capability: there and back again, as cards are not dealt.
/// No groups where there is nobody, or nobody to be left over for one.
fn dealt(workers: &[Worker], groups: usize) -> Vec<Vec<Worker>> {
    let mut dealt: Vec<Vec<Worker>> = vec![Vec::new(); groups.min(workers.len())];
    let count = dealt.len();
    if count == 0 {
        return dealt;
    }
    for (turn, worker) in workers.iter().enumerate() {
        let place = turn % (2 * count);
        dealt[place.min(2 * count - 1 - place)].push(*worker);
    }
    dealt
}

/// One plan is preferred to several that gain no more than this share: they take more memory, and
/// longer to load.
const GAIN_MIN: f64 = 0.1;
/// Of what is predicted, a stream through strips reaches so much: at each segment an inference waits
/// for the slowest of several machines, which is another one each time. Eight boards behind
/// 100 Mbit/s gave 0.6 of it.
const STRIPS_REACH: f64 = 0.6;
/// For so long a stream is taken to go on. Slow machines would take much of that to load a whole
/// model, and get less of it.
const HORIZON_SECONDS: f64 = 180.0;
/// What a byte of weights costs a processor on its way from the network into a loaded piece, in
/// terms of one that only comes: to decrypt, hash, write, read and pack it. ResNet-34's 87 MB took
/// boards of a tenth of a core some ten seconds.
const LOADING: f64 = 2.0;

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::partition::fixtures::{Kind, REQUESTER, Small, chain, node, worker};
    use crate::{
        id::ModelId,
        model::{LayerProfile, Work},
    };

    /// Four convolutions over 40 rows: 400 units of work and 160 bytes each, weights of 1.
    fn check(workers: &[Worker], uplink: f64, expected: &[&[u8]], per_s: f64) {
        let profile = chain(40, &[Kind::Conv; 4]);
        let settings = Settings::default();
        let found = lanes(&profile, workers, REQUESTER, uplink, &settings);
        let got: Vec<Vec<NodeId>> = found.iter().map(|lane| lane.order.clone()).collect();
        let expected: Vec<Vec<NodeId>> =
            expected.iter().map(|lane| lane.iter().map(|n| node(*n)).collect()).collect();
        assert_eq!(got, expected);
        let rate: f64 = found.iter().map(|lane| 1.0 / lane.bottleneck).sum();
        assert!((rate - per_s).abs() < 1e-9, "{rate}");
    }

    fn with_memory(memory: u64, worker: Worker) -> Worker {
        let provider = crate::cost::Provider { memory_free: memory, ..worker.provider };
        Worker { provider, ..worker }
    }

    #[test]
    fn machines_with_the_memory_have_a_lane_each() {
        // 1600 units of work: 0.0625 and 0.03125 inferences a second.
        let unequal = [worker(1, 100, 1e6), worker(2, 50, 1e6), worker(3, 25, 1e6)];
        check(&unequal, 1e6, &[&[1], &[2], &[3]], 0.109_375);
        check(&unequal[..1], 1e6, &[&[1]], 0.0625);
        check(&[], 1e6, &[], 0.0);
    }

    #[test]
    fn one_plan_stays_where_lanes_gain_little() {
        // Two equal machines share four equal layers as well as two lanes would.
        let equal = [worker(1, 100, 1e6), worker(2, 100, 1e6)];
        check(&equal, 1e6, &[&[1, 2]], 0.125);
        // Slow links to the others: what each can take in is what it gives.
        let far = [worker(0, 100, f64::INFINITY), worker(1, 100, 0.16)];
        check(&far, 1e6, &[&[0]], 0.0625);
    }

    #[test]
    fn the_requesters_link_bounds_what_all_lanes_get() {
        let unequal = [worker(1, 100, 1e6), worker(2, 50, 1e6), worker(3, 25, 1e6)];
        // 160 bytes an input: 0.005 a second, which one plan gives as well.
        check(&unequal, 0.8, &[&[1, 2, 3]], 1.0 / 11.0);
    }

    #[test]
    fn a_plan_that_just_gives_what_the_link_carries_is_not_enough() {
        // 200 units of work in one layer: half an inference a second on each of two machines.
        let profile = chain(40, &[Kind::Dense]);
        let workers = [1, 2].map(|n| worker(n, 100, 1e6));
        let lanes = |per_s: f64| {
            let (uplink, settings) = (160.0 * per_s, Settings::default());
            lanes(&profile, &workers, REQUESTER, uplink, &settings).len()
        };
        assert_eq!([0.05, 0.5, 5.0].map(lanes), [1, 2, 2]);
    }

    #[test]
    fn machines_without_the_memory_share_lanes() {
        let small = |n: u8| with_memory(2, worker(n, 100, 1e6));
        let flock = [worker(1, 100, 1e6), small(2), small(3), small(4), small(5)];
        check(&flock, 1e6, &[&[2, 5], &[3, 4], &[1]], 0.125 + 0.125 + 0.0625);
    }

    #[test]
    fn machines_that_would_take_long_to_load_everything_share_a_lane() {
        let layer = LayerProfile { work: Work([100, 0, 0, 0, 0]), weight_bytes: 1_000_000 };
        let profile = ModelProfile::new(ModelId([0; 32]), &[layer; 3], vec![4; 4]).expect("good");
        let check = |byte_seconds: f64, expected: &[usize]| {
            let slow = |n: u8| {
                let worker = worker(n, 50, 1e9);
                let provider = crate::cost::Provider { byte_seconds, ..worker.provider };
                Worker { provider, ..worker }
            };
            let workers = [worker(1, 200, 1e9), slow(2), slow(3)];
            let found = lanes(&profile, &workers, REQUESTER, 1e9, &Settings::default());
            let lanes: Vec<usize> = found.iter().map(|lane| lane.order.len()).collect();
            assert_eq!(lanes, expected);
        };
        check(1e-9, &[1, 1, 1]);
        // 144 seconds for all weights, and 96 for two thirds of them.
        check(24e-6, &[1, 2]);
    }

    quickcheck! {
        fn lanes_have_no_worker_in_common_and_gain_over_one_plan(small: Small) -> bool {
            let Small { profile, workers, settings, .. } = &small;
            let found = lanes(profile, workers, REQUESTER, f64::INFINITY, settings);
            let one = plan(Planner::Pf, profile, workers, REQUESTER, Goal::Throughput, settings);
            let Some(one) = one else { return found.is_empty() };
            let nodes: Vec<BTreeSet<NodeId>> =
                found.iter().map(|lane| lane.order.iter().copied().collect()).collect();
            let all: BTreeSet<NodeId> = nodes.iter().flatten().copied().collect();
            let apart = nodes.iter().map(BTreeSet::len).sum::<usize>() == all.len();
            let team = team(profile, workers, settings);
            let (requester, uplink) = (REQUESTER, f64::INFINITY);
            let flock = Flock { profile, requester, uplink, settings, team };
            let bar = flock.rate(std::slice::from_ref(&one)) * (1.0 + GAIN_MIN);
            apart && if found.len() == 1 { found == [one] } else { flock.rate(&found) > bar }
        }
    }
}
