//! The pipeline-bottleneck dynamic programme: pieces of layers, one for each machine.
//!
//! In a running pipeline the next input comes in and the last output goes out while a piece is
//! computed, and links carry both directions at once. So a piece keeps its machine and link busy
//! for the longest of these three, and not for their sum, which is `T_ij`, what one inference by
//! itself takes.
//!
//! With the providers in a fixed order, `best[k][c]` is the least bottleneck of putting layers
//! `0..c` on the first `k` of them. With the providers sorted by what they would give a newcomer,
//! the best `K` of them are a prefix, so one table answers for every `K` at once.

use super::worker::{Goal, Proposal, Worker};
use crate::{
    model::ModelProfile,
    plan::{LayerRange, PIECES_MAX, Piece, Plan},
};

/// Chooses how many pieces, and the cuts. More pieces are chosen only if they are predicted to be
/// faster by more than `gain_min` (0.02 is 2 %). Nothing if no worker can do anything.
#[must_use]
pub fn propose(
    profile: &ModelProfile,
    workers: &[Worker],
    goal: Goal,
    pieces_max: usize,
    gain_min: f64,
) -> Option<Proposal> {
    let mut singles: Vec<Proposal> =
        workers.iter().filter_map(|worker| balance(profile, &[*worker])).collect();
    singles.sort_by(|a, b| a.latency.total_cmp(&b.latency));
    let single = singles.into_iter().next();
    if goal == Goal::Latency {
        // One after the other, no split beats its own fastest machine; it only helps memory.
        if let Some(single) = single {
            return Some(single);
        }
    }
    let mut sorted = workers.to_vec();
    sorted.sort_by(|a, b| {
        a.whole(profile).total_cmp(&b.whole(profile)).then_with(|| a.node.cmp(&b.node))
    });
    sorted.retain(|worker| worker.whole(profile).is_finite());
    sorted.truncate(pieces_max.min(PIECES_MAX).min(usize::from(profile.layers())));
    let table = Table::fill(profile, &sorted);
    let split = (2..=sorted.len()).filter_map(|pieces| table.proposal(pieces));
    split.fold(single, |best, next| match best {
        Some(best) if next.bottleneck >= best.bottleneck * (1.0 - gain_min) => Some(best),
        Some(_) | None => Some(next),
    })
}

/// The best cuts for these workers in this order, each with one piece. Nothing if there is no
/// such plan: no worker, more workers than layers, or weights that fit nowhere.
#[must_use]
pub fn balance(profile: &ModelProfile, workers: &[Worker]) -> Option<Proposal> {
    Table::fill(profile, workers).proposal(workers.len())
}

struct Table<'a> {
    profile: &'a ModelProfile,
    workers: &'a [Worker],
    // best[k][c]: least bottleneck of layers 0..c on workers 0..k, and where the last piece begins.
    best: Vec<Vec<(f64, u16)>>,
}

impl<'a> Table<'a> {
    fn fill(profile: &'a ModelProfile, workers: &'a [Worker]) -> Self {
        let cuts = usize::from(profile.layers()) + 1;
        let mut best = vec![vec![(f64::INFINITY, 0); cuts]];
        best[0][0] = (0.0, 0);
        for (k, worker) in workers.iter().enumerate() {
            let row: Vec<(f64, u16)> = (0..=profile.layers())
                .map(|end| {
                    let before = (0..end).map(|first| {
                        let last = worker.stage(&profile.range(LayerRange { first, end }));
                        (best[k][usize::from(first)].0.max(last), first)
                    });
                    before.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, 0))
                })
                .collect();
            best.push(row);
        }
        Self { profile, workers, best }
    }

    fn proposal(&self, pieces: usize) -> Option<Proposal> {
        let layers = self.profile.layers();
        let (bottleneck, _) = *self.best.get(pieces)?.get(usize::from(layers))?;
        if pieces == 0 || !bottleneck.is_finite() {
            return None;
        }
        let mut cuts = Vec::with_capacity(pieces);
        let mut end = layers;
        for row in self.best[1..=pieces].iter().rev() {
            end = row[usize::from(end)].1;
            cuts.push(end);
        }
        cuts.pop();
        cuts.reverse();
        let plan = Plan::from_cuts(layers, &cuts)?;
        let workers = &self.workers[..pieces];
        let times = plan.pieces().iter().zip(workers);
        let alone = |(piece, worker): (&Piece, &Worker)| worker.alone(&self.profile.piece(piece));
        let latency = times.map(alone).sum();
        let order = workers.iter().map(|worker| worker.node).collect();
        Some(Proposal { plan, order, bottleneck, latency })
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::{Arbitrary, Gen, quickcheck};

    use super::*;
    use crate::{
        cost::Provider,
        id::{ModelId, NodeId},
        model::{LayerProfile, Speed, Work},
    };

    fn profile(flops: &[u64], cut_bytes: u64) -> ModelProfile {
        let layers: Vec<LayerProfile> = flops
            .iter()
            .map(|flops| LayerProfile { work: Work([*flops, 0, 0, 0, 0]), weight_bytes: 1 })
            .collect();
        ModelProfile::new(ModelId([0; 32]), &layers, vec![cut_bytes; flops.len() + 1])
            .expect("good")
    }

    fn worker(node: u8, speed: u64) -> Worker {
        let provider = Provider {
            speed: Speed([speed; 5]),
            bandwidth: 10.0,
            byte_seconds: 0.0,
            memory_free: 100,
        };
        Worker { node: NodeId([node; 32]), provider, sharers: 1, room: u16::MAX }
    }

    fn check(flops: &[u64], cut_bytes: u64, speeds: &[u64], ends: &[u16], bottleneck: f64) {
        let workers: Vec<Worker> = (0..).zip(speeds).map(|(n, s)| worker(n, *s)).collect();
        let profile = profile(flops, cut_bytes);
        let best = propose(&profile, &workers, Goal::Throughput, 8, 0.02).expect("a plan");
        let got: Vec<u16> = best.plan.pieces().iter().map(|piece| piece.layers.end).collect();
        assert_eq!(got, ends);
        assert!((best.bottleneck - bottleneck).abs() < 1e-9, "{}", best.bottleneck);
    }

    #[test]
    fn pieces_are_sized_to_the_speeds() {
        check(&[10, 10, 10, 10], 0, &[30, 10], &[3, 4], 1.0);
        check(&[10, 10, 10, 10], 0, &[10, 10, 10, 10], &[1, 2, 3, 4], 1.0);
    }

    #[test]
    fn one_piece_when_the_network_costs_more_than_it_saves() {
        check(&[10, 10], 0, &[10, 1], &[2], 2.0);
        check(&[1, 1], 100, &[10, 10], &[2], 10.0);
    }

    #[test]
    fn memory_forces_a_split() {
        let mut small = [worker(0, 10), worker(1, 10)];
        for worker in &mut small {
            worker.provider.memory_free = 1;
        }
        let plan = propose(&profile(&[10, 10], 0), &small, Goal::Latency, 8, 0.02).expect("a plan");
        assert_eq!(plan.plan.pieces().len(), 2);
        small[0].provider.memory_free = 0;
        assert!(propose(&profile(&[10, 10], 0), &small, Goal::Latency, 8, 0.02).is_none());
    }

    #[derive(Clone, Debug)]
    struct Small {
        flops: Vec<u64>,
        speeds: Vec<u64>,
    }

    impl Arbitrary for Small {
        fn arbitrary(g: &mut Gen) -> Self {
            let count = |g: &mut Gen, max: usize| 1 + usize::arbitrary(g) % max;
            let layers = count(g, 7);
            let flops = (0..layers).map(|_| u64::arbitrary(g) % 100).collect();
            let workers = count(g, 4);
            let speeds = (0..workers).map(|_| 1 + u64::arbitrary(g) % 50).collect();
            Self { flops, speeds }
        }
    }

    /// Every way to cut, tried one by one.
    fn brute(profile: &ModelProfile, workers: &[Worker], first: u16) -> f64 {
        let Some((worker, rest)) = workers.split_first() else {
            return if first == profile.layers() { 0.0 } else { f64::INFINITY };
        };
        let ends = first + 1..=profile.layers();
        let each = ends.map(|end| {
            worker.stage(&profile.range(LayerRange { first, end })).max(brute(profile, rest, end))
        });
        each.fold(f64::INFINITY, f64::min)
    }

    quickcheck! {
        fn the_table_finds_what_trying_everything_finds(small: Small) -> bool {
            let workers: Vec<Worker> = (0..).zip(&small.speeds).map(|(n, s)| worker(n, *s)).collect();
            let profile = profile(&small.flops, 3);
            let best = brute(&profile, &workers, 0);
            match balance(&profile, &workers) {
                Some(found) => (found.bottleneck - best).abs() < 1e-9,
                None => best.is_infinite(),
            }
        }
    }
}
