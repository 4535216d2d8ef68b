//! Small models and machines for the tests of this module.

use quickcheck::{Arbitrary, Gen};

use super::{
    case::Case,
    planner::Settings,
    predict::{LinkModel, Route},
    worker::{Goal, Worker},
};
use crate::{
    cost::Provider,
    id::{ModelId, NodeId},
    model::{LayerProfile, ModelProfile, Speed, Work},
    plan::{LayerRange, Piece},
    rows::{LayerRows, RowMap, RowRange, RowRule, RowWindow, Splits, TensorRows},
};

/// What a layer of a chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A window of three rows that keeps the height.
    Conv,
    /// A window of two rows that halves it.
    Pool,
    /// Takes all rows and makes one.
    Dense,
}

/// A chain of layers over an image, with 10 units of work for each row that a layer makes (1 for a
/// pooling) and 4 bytes for each row of any tensor.
pub(super) fn chain(height: u32, kinds: &[Kind]) -> ModelProfile {
    let mut heights = vec![height.max(1)];
    let mut layers = Vec::new();
    let mut costs = Vec::new();
    for (at, kind) in (0..).zip(kinds) {
        let input = heights[heights.len() - 1];
        let (rule, splits, output) = kind.rows(input);
        layers.push(LayerRows { inputs: vec![(at, rule)], outputs: vec![at + 1], splits });
        heights.push(output);
        let per_row = if *kind == Kind::Pool { 1 } else { 10 };
        let work = Work([per_row * u64::from(output.max(input / 2)), 0, 0, 0, 0]);
        costs.push(LayerProfile { work, weight_bytes: u64::from(*kind != Kind::Pool) });
    }
    let tensor = |height: &u32| TensorRows { height: *height, row_bytes: 4 };
    let frontiers = (0..heights.len() as u32).map(|tensor| vec![tensor]).collect();
    let map = RowMap::new(heights.iter().map(tensor).collect(), layers, frontiers);
    let bytes = heights.iter().map(|height| u64::from(*height) * 4).collect();
    let profile = ModelProfile::new(ModelId([1; 32]), &costs, bytes).expect("a right profile");
    profile.with_rows(map.expect("a right map"))
}

impl Kind {
    fn rows(self, height: u32) -> (RowRule, Splits, u32) {
        let window = |kernel, stride, before| {
            RowRule::Window(RowWindow { kernel, stride, dilation: 1, before })
        };
        match self {
            Self::Conv => (window(3, 1, 1), Splits::ByRows, height),
            Self::Pool if height > 1 => (window(2, 2, 0), Splits::ByRows, height / 2),
            Self::Pool => (RowRule::Same, Splits::ByRows, 1),
            Self::Dense => (RowRule::All, Splits::No, 1),
        }
    }
}

pub(super) fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// A machine of this speed in all classes, with room for everything.
pub(super) fn worker(n: u8, speed: u64, bandwidth: f64) -> Worker {
    let provider =
        Provider { speed: Speed([speed; 5]), bandwidth, byte_seconds: 0.0, memory_free: u64::MAX };
    Worker { node: node(n), provider, sharers: 1, room: u16::MAX }
}

/// Anything small that may be planned for. The requester may be one of the workers.
#[derive(Clone, Debug)]
pub(super) struct Small {
    pub(super) profile: ModelProfile,
    pub(super) workers: Vec<Worker>,
    pub(super) goal: Goal,
    pub(super) settings: Settings,
}

pub(super) const REQUESTER: NodeId = NodeId([0; 32]);

impl Small {
    pub(super) fn case(&self) -> Case<'_> {
        Case {
            profile: &self.profile,
            workers: self.workers.clone(),
            requester: REQUESTER,
            goal: self.goal,
            settings: self.settings,
        }
    }
}

impl Arbitrary for Small {
    fn arbitrary(g: &mut Gen) -> Self {
        let below = |g: &mut Gen, limit: u64| u64::arbitrary(g) % limit;
        let kinds = [Kind::Conv, Kind::Conv, Kind::Conv, Kind::Pool, Kind::Dense];
        let layers = 1 + below(g, 5);
        let mut kinds: Vec<Kind> = (0..layers).filter_map(|_| g.choose(&kinds).copied()).collect();
        // What follows a matrix product is one as well.
        if let Some(dense) = kinds.iter().position(|kind| *kind == Kind::Dense) {
            kinds[dense..].fill(Kind::Dense);
        }
        let profile = chain(1 + below(g, 20) as u32, &kinds);
        let count = 1 + below(g, 4) as u8;
        let own = u8::from(bool::arbitrary(g));
        let workers = (1 - own..=count - own).map(|n| {
            let bandwidth = if n == 0 { f64::INFINITY } else { (1 + below(g, 300)) as f64 };
            let mut worker = worker(n, 1 + below(g, 50), bandwidth);
            worker.sharers = 1 + below(g, 2) as u16;
            if below(g, 6) == 0 {
                worker.provider.memory_free = below(g, 5);
            }
            worker
        });
        let workers = workers.collect();
        let settings = Settings {
            links: *g.choose(&[LinkModel::Parallel, LinkModel::Shared]).expect("two"),
            route: *g.choose(&[Route::Direct, Route::Relayed]).expect("two"),
            hop: below(g, 3) as f64 * 0.1,
            ..Settings::default()
        };
        let goal = *g.choose(&[Goal::Latency, Goal::Throughput]).expect("two");
        Self { profile, workers, goal, settings }
    }
}

#[test]
fn pieces_are_the_same_one_by_one_and_together() {
    let kinds = [Kind::Conv, Kind::Pool, Kind::Conv, Kind::Conv, Kind::Dense];
    let profile = chain(21, &kinds);
    for end in 1..=5 {
        let height = profile.rows().expect("known").all(end)[0].len();
        for rows in [vec![], vec![RowRange::new(0, 1)], vec![RowRange::new(height / 2, height)]] {
            let together = profile.pieces_ending(end, &rows);
            assert_eq!(together.len(), usize::from(end));
            for (first, (cost, takes)) in (0..end).rev().zip(together) {
                let piece = Piece { layers: LayerRange { first, end }, rows: rows.clone() };
                assert_eq!((cost, takes), (profile.piece(&piece), profile.needed(&piece)));
            }
        }
    }
}
