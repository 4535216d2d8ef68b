//! All planners by name.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{
    baseline,
    case::Case,
    dina, edgeci,
    layout::Layout,
    pf,
    predict::{LinkModel, Route},
    worker::{Goal, Proposal, Worker},
};
use crate::{id::NodeId, model::ModelProfile};

/// A way to come to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planner {
    /// DINA-P and DINA-O (Mohammed et al., INFOCOM 2020): strips of layer groups in proportion to
    /// capability and congestion, and a matching game for who computes which.
    Dina,
    /// The first layers fused, in equal strips, and the rest on one machine (DeepThings, Zhao et
    /// al. 2018).
    EarlyFused,
    /// DPFL and AWAS (Chen et al., TOIT 2024): fused segments by dynamic programming, and strips
    /// auctioned to machines and re-sized.
    EdgeCi,
    /// Each layer to the machine where it would be done first.
    Greedy,
    /// Every layer by itself, in strips in proportion to capability (MoDNN, Mao et al. 2017).
    LayerWise,
    /// Everything on the requester's own machine.
    Local,
    /// The first layers on the requester's own machine and the rest on one other (Neurosurgeon,
    /// Kang et al. 2017).
    Neurosurgeon,
    /// Fused segments by dynamic programming, in strips in proportion to capability (AOFL, Zhou et
    /// al. 2019).
    OptimalFused,
    /// Starling's own: a layer pipeline for throughput, and strips where they are faster.
    Pf,
    /// Cuts and machines drawn by chance.
    Random,
    /// Everything on the one machine that is the best for it.
    Single,
}

/// What planners are told besides the case itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How transfers get into each other's way.
    pub links: LinkModel,
    /// Which way activations go.
    pub route: Route,
    /// Seconds that transfers between two segments take beyond their bytes'.
    pub hop: f64,
    /// Seconds that each convolution takes on every machine that computes some of it, however few
    /// rows that are: the constant of EdgeLD's cost model.
    pub layer: f64,
    /// The most machines in one plan, and so the most pieces of a pipeline.
    pub pieces_max: usize,
    /// More than one machine is used by `pf` only for a gain of more than this; 0.02 is 2 %.
    pub gain_min: f64,
    /// What [`Planner::Random`] draws with.
    pub seed: u64,
}

/// There is no planner of this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no planner is called {name:?}; there are {}", names())]
pub struct UnknownPlanner {
    name: String,
}

/// Plans for a requester. Its own machine may be among the workers, with an infinite bandwidth.
/// Nothing if no worker can do it, or the planner's kind of plan is impossible.
#[must_use]
pub fn plan(
    planner: Planner,
    profile: &ModelProfile,
    workers: &[Worker],
    requester: NodeId,
    goal: Goal,
    settings: &Settings,
) -> Option<Proposal> {
    let mut case =
        Case { profile, workers: workers.to_vec(), requester, goal, settings: *settings };
    // Fewer machines, where a plan has no room for a piece on each in every segment.
    let most = settings.pieces_max.clamp(1, workers.len().max(1));
    (1..=most).rev().find_map(|pieces_max| {
        case.settings.pieces_max = pieces_max;
        case.proposal(&case.lay_out(planner)?)
    })
}

/// The same, however many pieces it takes: more than [`PIECES_MAX`](crate::plan::PIECES_MAX) is
/// for comparisons only.
#[must_use]
pub fn lay_out(
    planner: Planner,
    profile: &ModelProfile,
    workers: &[Worker],
    requester: NodeId,
    goal: Goal,
    settings: &Settings,
) -> Option<Layout> {
    let case = Case { profile, workers: workers.to_vec(), requester, goal, settings: *settings };
    case.lay_out(planner)
}

impl Case<'_> {
    fn lay_out(&self, planner: Planner) -> Option<Layout> {
        let layout = match planner {
            Planner::Dina => dina::lay_out(self),
            Planner::EarlyFused => baseline::early_fused(self),
            Planner::EdgeCi => edgeci::lay_out(self),
            Planner::Greedy => baseline::greedy(self),
            Planner::LayerWise => baseline::layer_wise(self),
            Planner::Local => baseline::local(self),
            Planner::Neurosurgeon => baseline::neurosurgeon(self),
            Planner::OptimalFused => edgeci::fused(self),
            Planner::Pf => pf::lay_out(self),
            Planner::Random => baseline::random(self),
            Planner::Single => baseline::single(self),
        }?;
        let possible = self.has_room(&layout) && self.predict(&layout).latency.is_finite();
        possible.then_some(layout)
    }
}

impl Planner {
    /// All of them: ours, those of the papers, and what they are compared with.
    pub const ALL: [Self; 11] = [
        Self::Pf,
        Self::Dina,
        Self::EdgeCi,
        Self::Neurosurgeon,
        Self::Local,
        Self::LayerWise,
        Self::EarlyFused,
        Self::OptimalFused,
        Self::Greedy,
        Self::Random,
        Self::Single,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dina => "dina",
            Self::EarlyFused => "early-fused",
            Self::EdgeCi => "edgeci",
            Self::Greedy => "greedy",
            Self::LayerWise => "layer-wise",
            Self::Local => "local",
            Self::Neurosurgeon => "neurosurgeon",
            Self::OptimalFused => "optimal-fused",
            Self::Pf => "pf",
            Self::Random => "random",
            Self::Single => "single",
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            links: LinkModel::Parallel,
            route: Route::Direct,
            hop: 0.0,
            layer: 0.0,
            pieces_max: 16,
            gain_min: 0.02,
            seed: 0,
        }
    }
}

impl fmt::Display for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Planner {
    type Err = UnknownPlanner;

    fn from_str(name: &str) -> Result<Self, UnknownPlanner> {
        let known = Self::ALL.into_iter().find(|planner| planner.name() == name);
        known.ok_or_else(|| UnknownPlanner { name: name.to_owned() })
    }
}

fn names() -> String {
    Planner::ALL.map(Planner::name).join(", ")
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::{
        model::Speed,
        partition::{
            fixtures::{Kind, REQUESTER, Small, chain, node, vgg16, worker},
            predict::predict,
        },
        plan::{LayerRange, PIECES_MAX},
    };

    fn planned(small: &Small, planner: Planner) -> Option<Proposal> {
        let Small { profile, workers, goal, settings } = small;
        plan(planner, profile, workers, REQUESTER, *goal, settings)
    }

    #[test]
    fn names_are_understood() {
        for planner in Planner::ALL {
            assert_eq!(planner.to_string().parse(), Ok(planner));
        }
        let error = "edge-ci".parse::<Planner>().expect_err("no such name");
        assert!(error.to_string().ends_with("greedy, random, single"), "{error}");
    }

    /// Eight boards, with these MiB of memory and this bandwidth.
    fn boards(memory: [u64; 8], bandwidth: f64) -> Vec<Worker> {
        let board = |(n, mib): (u8, u64)| {
            let mut worker = worker(n, 0, bandwidth);
            worker.provider.speed = Speed([8, 4, 2, 2, 1].map(|giga| giga * 1_000_000_000));
            worker.provider.memory_free = mib << 20;
            worker
        };
        (1..).zip(memory).map(board).collect()
    }

    /// Whether each worker has room for all of its pieces together.
    fn has_room(found: &Proposal, profile: &ModelProfile, workers: &[Worker]) -> bool {
        workers.iter().all(|worker| {
            let pieces = found.plan.pieces().iter().zip(&found.order);
            let own = pieces.filter(|(_, node)| **node == worker.node);
            let bytes: Vec<u64> = own.map(|(piece, _)| profile.piece(piece).weight_bytes).collect();
            bytes.iter().sum::<u64>() <= worker.provider.memory_free
                && bytes.len() <= usize::from(worker.room)
        })
    }

    #[test]
    fn boards_that_hold_no_layer_alone_compute_it_together() {
        let profile = vgg16();
        assert_eq!(profile.range(LayerRange { first: 19, end: 20 }).weight_bytes, 411_058_176);
        let memories =
            [[80; 8], [200, 40, 100, 60, 60, 80, 50, 50], [300, 100, 100, 20, 20, 20, 20, 20]];
        for (memory, bandwidth) in memories.iter().flat_map(|m| [1e6, 1e7, 1e8].map(|b| (*m, b))) {
            let workers = boards(memory, bandwidth);
            // On one of them, if it had the memory.
            let alone = workers[0].whole(&profile);
            let settings = Settings { hop: 1e-3, ..Settings::default() };
            let found =
                |planner, goal| plan(planner, &profile, &workers, REQUESTER, goal, &settings);
            for (planner, goal) in [
                (Planner::Pf, Goal::Latency),
                (Planner::Pf, Goal::Throughput),
                (Planner::EdgeCi, Goal::Latency),
                (Planner::OptimalFused, Goal::Latency),
            ] {
                let found = found(planner, goal).expect("there is room");
                assert!(has_room(&found, &profile, &workers), "{planner} {memory:?}");
                assert!(found.latency < alone && found.bottleneck < alone / 2.0, "{found:?}");
            }
            for planner in [Planner::Single, Planner::Greedy, Planner::EarlyFused] {
                assert_eq!(found(planner, Goal::Latency), None, "{planner}");
            }
        }
        let workers = boards([60; 8], 1e7);
        let settings = Settings::default();
        let found = plan(Planner::Pf, &profile, &workers, REQUESTER, Goal::Latency, &settings);
        assert_eq!(found, None, "too little in all");
    }

    #[test]
    fn many_small_boards_hold_what_few_can_not() {
        let profile = vgg16();
        let workers: Vec<Worker> = [40; 16]
            .into_iter()
            .zip(1..)
            .map(|(mib, n): (u64, u8)| {
                let mut worker = worker(n, 1_000_000_000, 1e7);
                worker.provider.memory_free = mib << 20;
                worker
            })
            .collect();
        let settings = Settings::default();
        let found = plan(Planner::Pf, &profile, &workers, REQUESTER, Goal::Latency, &settings);
        assert!(has_room(&found.expect("there is room"), &profile, &workers));
    }

    /// One inference of a chain of twelve convolutions over 40 rows.
    fn check(planner: Planner, workers: &[Worker], pieces: &[usize], latency: f64) {
        let profile = chain(40, &[Kind::Conv; 12]);
        let settings = Settings::default();
        let found = plan(planner, &profile, workers, REQUESTER, Goal::Latency, &settings);
        let found = found.expect("a plan");
        let segments = 0..found.plan.segments();
        let got: Vec<usize> = segments.map(|segment| found.plan.segment(segment).len()).collect();
        assert_eq!(got, pieces, "{planner}");
        assert!((found.latency - latency).abs() < 1e-9, "{planner}: {}", found.latency);
    }

    #[test]
    fn each_planner_does_what_it_is_for() {
        // 400 units of work a layer, 160 bytes across each cut.
        let two = [worker(0, 100, f64::INFINITY), worker(1, 100, 1e9)];
        let transfer = |bytes: f64| bytes / 1e9;
        check(Planner::Local, &two, &[1], 48.0);
        check(Planner::Single, &two, &[1], 48.0);
        check(Planner::Neurosurgeon, &two, &[1], 48.0);
        // Half of the rows each, and one row of halo from the other.
        let first = transfer(21.0 * 4.0);
        let last = transfer(20.0 * 4.0);
        check(Planner::LayerWise, &two, &[2; 12], 24.0 + first + 11.0 * transfer(4.0) + last);
        check(Planner::EdgeCi, &two, &[2; 12], 24.0 + first + 11.0 * transfer(4.0) + last);
        let faster = [worker(0, 100, f64::INFINITY), worker(1, 1000, 1e9)];
        check(Planner::Neurosurgeon, &faster, &[1], 4.8 + 2.0 * transfer(160.0));
        check(Planner::Local, &faster, &[1], 48.0);
        check(Planner::Single, &faster, &[1], 4.8 + 2.0 * transfer(160.0));
    }

    #[test]
    fn hops_make_fused_layers_worth_their_halo() {
        let segments = |hop: f64| {
            let (profile, workers) =
                (chain(200, &[Kind::Conv; 6]), [1, 2].map(|n| worker(n, 100, 1e6)));
            let settings = Settings { hop, ..Settings::default() };
            let found =
                plan(Planner::EdgeCi, &profile, &workers, REQUESTER, Goal::Latency, &settings);
            found.expect("a plan").plan.segments()
        };
        // A row of halo in one more layer takes a tenth of a second.
        assert_eq!([0.0, 0.25, 3.0].map(segments), [6, 3, 1]);
    }

    #[test]
    fn no_worker_gets_more_pieces_than_it_takes() {
        let profile = chain(64, &[Kind::Conv; 6]);
        let most = |room: u16| {
            let workers = [1, 2].map(|n| Worker { room, ..worker(n, 100, 1e9) });
            let settings = Settings::default();
            let found =
                plan(Planner::LayerWise, &profile, &workers, REQUESTER, Goal::Latency, &settings);
            found.map(|found| found.plan.pieces().len())
        };
        assert_eq!([6, 5, 1, 0].map(most), [Some(12), Some(1), Some(1), None]);
    }

    #[test]
    fn layers_are_fused_where_workers_take_few_pieces() {
        let profile = chain(64, &[Kind::Conv; 6]);
        let segments = |planner: Planner, room: u16| {
            let workers = [1, 2].map(|n| Worker { room, ..worker(n, 100, 1e9) });
            let settings = Settings::default();
            let found = plan(planner, &profile, &workers, REQUESTER, Goal::Latency, &settings);
            found.map(|found| found.plan.segments())
        };
        for planner in [Planner::EdgeCi, Planner::Pf] {
            let fused = [9, 6, 3, 1, 0].map(|room| segments(planner, room));
            assert_eq!(fused, [Some(6), Some(6), Some(3), Some(1), None], "{planner}");
        }
    }

    #[test]
    fn a_plan_has_no_more_pieces_than_there_is_room_for() {
        let profile = chain(64, &[Kind::Conv; 30]);
        let workers: Vec<Worker> = (1..=6).map(|n| worker(n, 100, 1e6)).collect();
        let settings = Settings::default();
        let layout =
            lay_out(Planner::LayerWise, &profile, &workers, REQUESTER, Goal::Latency, &settings);
        assert_eq!(layout.expect("a layout").segments.iter().flatten().count(), 180);
        let plan =
            plan(Planner::LayerWise, &profile, &workers, REQUESTER, Goal::Latency, &settings);
        let pieces = plan.expect("a plan").plan.pieces().len();
        assert_eq!(pieces, 60);
        assert!(pieces <= PIECES_MAX);
    }

    #[test]
    fn nobody_and_nothing_are_no_reason_to_panic() {
        let strange = [
            vec![],
            vec![worker(1, 0, 10.0)],
            vec![worker(1, 10, 0.0), worker(2, 10, f64::NAN)],
            vec![worker(1, 10, -1.0), worker(1, 10, -1.0)],
            vec![worker(0, 0, f64::INFINITY), worker(1, 5, 1.0)],
            vec![Worker { sharers: 0, ..worker(1, 10, 10.0) }; 70],
        ];
        let profiles =
            [chain(1, &[Kind::Dense]), chain(3, &[Kind::Conv; 2]), chain(2, &[Kind::Pool; 4])];
        for (workers, profile) in
            strange.iter().flat_map(|all| profiles.iter().map(move |p| (all, p)))
        {
            for (planner, pieces_max) in Planner::ALL.into_iter().flat_map(|p| [(p, 0), (p, 100)]) {
                let settings = Settings { pieces_max, ..Settings::default() };
                for goal in [Goal::Latency, Goal::Throughput] {
                    let found = plan(planner, profile, workers, REQUESTER, goal, &settings);
                    assert!(found.is_none_or(|found| found.latency.is_finite()), "{planner}");
                }
            }
        }
    }

    quickcheck! {
        fn every_plan_is_one_and_does_what_it_promises(small: Small) -> bool {
            let Small { profile, workers, settings, .. } = &small;
            Planner::ALL.into_iter().all(|planner| {
                let Some(found) = planned(&small, planner) else { return true };
                let again = predict(profile, &found.plan, &found.order, workers, REQUESTER, settings);
                let again = again.expect("all are workers");
                let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs();
                found.plan.pieces().last().map(|piece| piece.layers.end) == Some(profile.layers())
                    && found.order.len() == found.plan.pieces().len()
                    && has_room(&found, profile, workers)
                    && close(again.latency, found.latency)
                    && close(again.bottleneck, found.bottleneck)
                    && planned(&small, planner) == Some(found)
            })
        }

        fn ours_is_never_worse_than_the_best_machine_alone(small: Small) -> bool {
            let Some(single) = planned(&small, Planner::Single) else { return true };
            let score = |found: &Proposal| small.goal.of(found.latency, found.bottleneck);
            let latency = |planner| planned(&small, planner).map_or(f64::INFINITY, |p| p.latency);
            planned(&small, Planner::Pf).is_some_and(|pf| score(&pf) <= score(&single))
                && planned(&small, Planner::Dina).is_some_and(|dina| score(&dina) <= score(&single))
                && latency(Planner::EdgeCi) <= latency(Planner::OptimalFused) + 1e-9
                && latency(Planner::OptimalFused) <= latency(Planner::Single) + 1e-9
        }

        fn some_plan_is_found_where_one_machine_can_do_everything(small: Small) -> bool {
            let alone = planned(&small, Planner::Single).is_some();
            let own = small.workers.iter().any(|worker| worker.node == node(0));
            Planner::ALL.into_iter().all(|planner| match planner {
                Planner::Local => own || planned(&small, planner).is_none(),
                // These may ask for memory that there is not.
                Planner::LayerWise | Planner::Random | Planner::Greedy => true,
                Planner::Dina
                | Planner::EarlyFused
                | Planner::EdgeCi
                | Planner::Neurosurgeon
                | Planner::OptimalFused
                | Planner::Pf
                | Planner::Single => !alone || planned(&small, planner).is_some(),
            })
        }
    }
}
