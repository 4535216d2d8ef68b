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
    /// Takes all rows and makes features, each from weights of its own.
    Full,
    /// The same bytes under another shape: as many features as there were rows.
    View,
}

/// A chain of layers over an image, with 10 units of work for each row that a layer makes (1 for a
/// pooling) and 4 bytes for each row of any tensor. A byte of weights for each layer that is no
/// pooling, or for each feature.
pub(super) fn chain(height: u32, kinds: &[Kind]) -> ModelProfile {
    let mut heights = vec![height.max(1)];
    let mut layers = Vec::new();
    let (mut costs, mut row_weights) = (Vec::new(), Vec::new());
    for (at, kind) in (0..).zip(kinds) {
        let input = heights[heights.len() - 1];
        let (rule, splits, output) = kind.rows(input);
        layers.push(LayerRows { inputs: vec![(at, rule)], outputs: vec![at + 1], splits });
        heights.push(output);
        let rows = u64::from(output.max(input / 2));
        let (work, weight_bytes, row_weight) = match kind {
            Kind::Conv | Kind::Dense => (10 * rows, 1, 0),
            Kind::Full => (10 * rows, u64::from(output), 1),
            Kind::Pool => (rows, 0, 0),
            Kind::View => (0, 0, 0),
        };
        costs.push(LayerProfile { work: Work([work, 0, 0, 0, 0]), weight_bytes });
        row_weights.push(row_weight);
    }
    let tensor = |height: &u32| TensorRows { height: *height, row_bytes: 4 };
    let frontiers = (0..heights.len() as u32).map(|tensor| vec![tensor]).collect();
    let map = RowMap::new(heights.iter().map(tensor).collect(), layers, frontiers);
    let bytes = heights.iter().map(|height| u64::from(*height) * 4).collect();
    let profile = ModelProfile::new(ModelId([1; 32]), &costs, bytes).expect("a right profile");
    profile.with_rows(map.expect("a right map").with_row_weights(&row_weights))
}

/// VGG-16 for pictures of 224 x 224: 59 MB of weights in its convolutions, 411, 67 and 16 MB in the
/// three fully connected layers.
pub(super) fn vgg16() -> ModelProfile {
    let mut vgg = Vgg { side: 224, channels: 3, ..Vgg::default() };
    vgg.tensors.push(TensorRows { height: 224, row_bytes: 3 * 224 * 4 });
    for (convolutions, channels) in [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)] {
        (0..convolutions).for_each(|_| vgg.conv(channels));
        vgg.pool();
    }
    let features = vgg.channels * 49;
    let flat = TensorRows { height: features as u32, row_bytes: 4 };
    vgg.layer(RowRule::All, Splits::View, flat, (0, 1), (0, 0));
    [(features, 4096), (4096, 4096), (4096, 1000)]
        .into_iter()
        .for_each(|(from, to)| vgg.full(from, to));
    let answer = TensorRows { height: 1000, row_bytes: 4 };
    vgg.layer(RowRule::All, Splits::No, answer, (4, 7000), (0, 0));
    let bytes = vgg.tensors.iter().map(|t| u64::from(t.height) * t.row_bytes).collect();
    let frontiers = (0..vgg.tensors.len() as u32).map(|tensor| vec![tensor]).collect();
    let map = RowMap::new(vgg.tensors, vgg.layers, frontiers).expect("a right map");
    let profile = ModelProfile::new(ModelId([2; 32]), &vgg.costs, bytes).expect("a right profile");
    profile.with_rows(map.with_row_weights(&vgg.row_weights))
}

/// VGG-16 in the making.
#[derive(Default)]
struct Vgg {
    side: u64,
    channels: u64,
    tensors: Vec<TensorRows>,
    layers: Vec<LayerRows>,
    costs: Vec<LayerProfile>,
    row_weights: Vec<u64>,
}

impl Vgg {
    fn conv(&mut self, channels: u64) {
        let window = RowWindow { kernel: 3, stride: 1, dilation: 1, before: 1 };
        let weights = 9 * self.channels * channels;
        let work = 2 * weights * self.side * self.side;
        self.channels = channels;
        self.image(window, (0, work), 4 * (weights + channels));
    }

    fn pool(&mut self) {
        self.side /= 2;
        let window = RowWindow { kernel: 2, stride: 2, dilation: 1, before: 0 };
        self.image(window, (4, 5 * self.side * self.side * self.channels), 0);
    }

    fn image(&mut self, window: RowWindow, work: (usize, u64), weights: u64) {
        let row_bytes = self.side * self.channels * 4;
        let made = TensorRows { height: self.side as u32, row_bytes };
        self.layer(RowRule::Window(window), Splits::ByRows, made, work, (weights, 0));
    }

    fn full(&mut self, from: u64, to: u64) {
        let made = TensorRows { height: to as u32, row_bytes: 4 };
        let each = 4 * (from + 1);
        self.layer(RowRule::All, Splits::ByRows, made, (3, 2 * from * to), (each * to, each));
    }

    fn layer(
        &mut self,
        rule: RowRule,
        splits: Splits,
        made: TensorRows,
        (class, units): (usize, u64),
        (weight_bytes, row_weights): (u64, u64),
    ) {
        let at = self.layers.len() as u32;
        self.layers.push(LayerRows { inputs: vec![(at, rule)], outputs: vec![at + 1], splits });
        self.tensors.push(made);
        let mut work = Work::default();
        work.0[class] = units;
        self.costs.push(LayerProfile { work, weight_bytes });
        self.row_weights.push(row_weights);
    }
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
            Self::Full => (RowRule::All, Splits::ByRows, FEATURES),
            Self::View => (RowRule::All, Splits::View, height),
        }
    }
}

const FEATURES: u32 = 7;

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
        let kinds =
            [Kind::Conv, Kind::Conv, Kind::Conv, Kind::Pool, Kind::Dense, Kind::Full, Kind::View];
        let layers = 1 + below(g, 5);
        let mut kinds: Vec<Kind> = (0..layers).filter_map(|_| g.choose(&kinds).copied()).collect();
        // What follows features makes features as well.
        let image = |kind: &Kind| matches!(kind, Kind::Conv | Kind::Pool);
        if let Some(first) = kinds.iter().position(|kind| !image(kind)) {
            let (full, rest) = (Kind::Full, &mut kinds[first..]);
            rest.iter_mut().filter(|kind| image(kind)).for_each(|kind| *kind = full);
        }
        let profile = chain(1 + below(g, 20) as u32, &kinds);
        let count = 1 + below(g, 4) as u8;
        let own = u8::from(bool::arbitrary(g));
        let workers = (1 - own..=count - own).map(|n| {
            let bandwidth = if n == 0 { f64::INFINITY } else { (1 + below(g, 300)) as f64 };
            let mut worker = worker(n, 1 + below(g, 50), bandwidth);
            worker.sharers = 1 + below(g, 2) as u16;
            if below(g, 6) == 0 {
                worker.provider.memory_free = below(g, 12);
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
    let kinds =
        [Kind::Conv, Kind::Pool, Kind::Conv, Kind::View, Kind::Full, Kind::Full, Kind::Dense];
    let profile = chain(21, &kinds);
    for end in 1..=7 {
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
