//! The DNNs of the experiments, as cost profiles (`sim/data`).

use serde::Deserialize;
use starling_protocol::{
    ModelId,
    cost::{self, Provider},
    model::{LayerProfile, ModelProfile, PieceProfile, Work},
    plan::LayerRange,
    rows::{LayerRows, RowMap, RowRule, RowWindow, Splits, TensorRows},
};

use super::machines::Machine;

/// A DNN whose costs are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dnn {
    /// AlexNet in its form with one column: most weights are in matrix products.
    AlexNet,
    /// MobileNetV2: little work, much of it pointwise and depthwise.
    MobileNetV2,
    /// Network in Network: convolutions only.
    Nin,
    /// ResNet-34: a long chain with skip connections.
    ResNet34,
    /// VGG-16: much work, large tensors between its first layers.
    Vgg16,
}

/// What a DNN looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Half of a driving camera's image, 640 x 384.
    Camera,
    /// The 224 x 224 of ImageNet.
    Square,
}

impl Dnn {
    /// Every DNN.
    pub const ALL: [Self; 5] =
        [Self::AlexNet, Self::MobileNetV2, Self::Nin, Self::ResNet34, Self::Vgg16];

    /// Its name, as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AlexNet => "AlexNet",
            Self::MobileNetV2 => "MobileNetV2",
            Self::Nin => "NiN",
            Self::ResNet34 => "ResNet-34",
            Self::Vgg16 => "VGG-16",
        }
    }

    /// What its layers cost for an image of 224 x 224.
    #[must_use]
    pub fn profile(self) -> ModelProfile {
        profile(self.json())
    }

    /// The same for other images. Nothing where there is no such profile.
    #[must_use]
    pub fn profile_for(self, input: Input) -> Option<ModelProfile> {
        match input {
            Input::Camera => self.camera_json().map(profile),
            Input::Square => Some(self.profile()),
        }
    }

    /// Its pieces where it is cut into so many that the slowest takes the least `T_ij`, each on such
    /// a machine. All requesters cut a DNN the same way: the auction decides where its pieces go,
    /// not what they are. Nothing if it has fewer layers than that.
    #[must_use]
    pub fn pieces(
        self,
        pieces: usize,
        machine: &Machine,
        bandwidth: f64,
    ) -> Option<Vec<PieceProfile>> {
        let profile = self.profile();
        let provider = Provider {
            speed: machine.speed(),
            bandwidth,
            byte_seconds: 0.0,
            memory_free: u64::MAX,
        };
        let cuts = equal_cuts(&profile, pieces, &provider)?;
        let ranges = cuts.windows(2).map(|pair| LayerRange { first: pair[0], end: pair[1] });
        Some(ranges.map(|layers| profile.range(layers)).collect())
    }

    fn camera_json(self) -> Option<&'static str> {
        match self {
            Self::AlexNet => Some(include_str!("../../data/alexnet-camera.json")),
            Self::MobileNetV2 => None,
            Self::Nin => Some(include_str!("../../data/nin-camera.json")),
            Self::ResNet34 => Some(include_str!("../../data/resnet34-camera.json")),
            Self::Vgg16 => Some(include_str!("../../data/vgg16-camera.json")),
        }
    }

    fn json(self) -> &'static str {
        match self {
            Self::AlexNet => include_str!("../../data/alexnet.json"),
            Self::MobileNetV2 => include_str!("../../data/mobilenetv2.json"),
            Self::Nin => include_str!("../../data/nin.json"),
            Self::ResNet34 => include_str!("../../data/resnet34.json"),
            Self::Vgg16 => include_str!("../../data/vgg16.json"),
        }
    }
}

/// The cuts, the model's ends among them, with which the slowest of so many pieces takes the least
/// time alone.
fn equal_cuts(profile: &ModelProfile, pieces: usize, provider: &Provider) -> Option<Vec<u16>> {
    let seconds = |first, end| cost::seconds(&profile.range(LayerRange { first, end }), provider);
    let last = profile.layers();
    // By number of pieces and cut: the least time of the slowest, and where the last piece begins.
    let mut table = vec![vec![(f64::INFINITY, 0); usize::from(last) + 1]];
    table[0][0].0 = 0.0;
    for _ in 0..pieces {
        let before = &table[table.len() - 1];
        let best = |end: u16| {
            let ways = (0..end)
                .map(|first| (before[usize::from(first)].0.max(seconds(first, end)), first));
            ways.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, 0))
        };
        let row = (0..=last).map(best).collect();
        table.push(row);
    }
    let mut cuts = vec![last];
    for row in table.iter().skip(1).rev() {
        let (slowest, first) = row[usize::from(*cuts.last()?)];
        cuts.push(first);
        if slowest.is_infinite() {
            return None;
        }
    }
    cuts.reverse();
    Some(cuts)
}

fn profile(json: &str) -> ModelProfile {
    let stored: Stored = serde_json::from_str(json).expect("a profile of `sim/data`");
    let id = ModelId(*blake3::hash(json.as_bytes()).as_bytes());
    let layers: Vec<LayerProfile> = stored.layers.iter().map(StoredLayer::profile).collect();
    let tensors = stored.tensors.into_iter();
    let tensors = tensors.map(|(height, row_bytes)| TensorRows { height, row_bytes }).collect();
    let flow = stored.layers.into_iter().map(StoredLayer::rows).collect();
    let rows = RowMap::new(tensors, flow, stored.frontiers).expect("of the same tensors");
    let profile = ModelProfile::new(id, &layers, stored.cut_bytes);
    profile.expect("one cut more than layers").with_rows(rows)
}

#[derive(Deserialize)]
struct Stored {
    layers: Vec<StoredLayer>,
    cut_bytes: Vec<u64>,
    tensors: Vec<(u32, u64)>,
    frontiers: Vec<Vec<u32>>,
}

/// Class, FLOP, bytes of weights, tensors read and made, and which rows of those read are needed;
/// nothing if all are, for all rows at once.
#[derive(Deserialize)]
struct StoredLayer(Class, u64, u64, Vec<u32>, Vec<u32>, Option<Vec<Rule>>);

/// The op classes of [`Work`], in its order.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Class {
    Dense,
    Pointwise,
    Depthwise,
    Linear,
    Memory,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Rule {
    Named(Name),
    /// Kernel, stride, dilation, rows of padding before.
    Window(u32, u32, u32, u32),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    All,
    Same,
}

impl StoredLayer {
    fn profile(&self) -> LayerProfile {
        let mut work = Work::default();
        work.0[self.0 as usize] = self.1;
        LayerProfile { work, weight_bytes: self.2 }
    }

    fn rows(self) -> LayerRows {
        let Self(.., inputs, outputs, rules) = self;
        let splits = if rules.is_some() { Splits::ByRows } else { Splits::No };
        let rules = rules.unwrap_or_else(|| vec![Rule::Named(Name::All); inputs.len()]);
        let inputs = inputs.into_iter().zip(rules.into_iter().map(Rule::rule)).collect();
        LayerRows { inputs, outputs, splits }
    }
}

impl Rule {
    fn rule(self) -> RowRule {
        match self {
            Self::Named(Name::All) => RowRule::All,
            Self::Named(Name::Same) => RowRule::Same,
            Self::Window(kernel, stride, dilation, before) => {
                RowRule::Window(RowWindow { kernel, stride, dilation, before })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::plan::Piece;

    use super::*;

    /// Against what is published of these networks: multiply-adds and parameters, in millions.
    fn check(dnn: Dnn, layers: u16, multiply_adds: f64, parameters: f64) {
        let profile = dnn.profile();
        assert_eq!(profile.layers(), layers, "{dnn:?}");
        let whole = profile.range(LayerRange { first: 0, end: layers });
        let close = |got: f64, expected: f64| (got / expected - 1.0).abs() < 0.02;
        assert!(close(whole.work.total() as f64 / 2e6, multiply_adds), "{dnn:?}: {whole:?}");
        assert!(close(whole.weight_bytes as f64 / 4e6, parameters), "{dnn:?}: {whole:?}");
        assert_eq!((whole.bytes_in, whole.bytes_out), (3 * 224 * 224 * 4, 4000));
    }

    #[test]
    fn the_profiles_are_those_of_the_networks() {
        check(Dnn::AlexNet, 12, 714.0, 61.1);
        check(Dnn::MobileNetV2, 65, 300.0, 3.5);
        check(Dnn::Nin, 17, 1100.0, 7.6);
        check(Dnn::ResNet34, 56, 3660.0, 21.8);
        check(Dnn::Vgg16, 22, 15_470.0, 138.4);
    }

    #[test]
    fn halves_of_an_image_are_as_much_as_the_whole_and_a_halo() {
        for (dnn, input) in
            Dnn::ALL.into_iter().flat_map(|d| [(d, Input::Square), (d, Input::Camera)])
        {
            let Some(profile) = dnn.profile_for(input) else { continue };
            let map = profile.rows().expect("all have rows");
            // Up to the last cut before which everything splits.
            let end = (1..=profile.layers())
                .take_while(|end| map.splittable(LayerRange { first: 0, end: *end }));
            let layers = LayerRange { first: 0, end: end.last().expect("the first layer splits") };
            let whole = profile.range(layers);
            let strips = map.divide(layers.end, &[1.0, 1.0]).into_iter();
            let strips: Vec<PieceProfile> =
                strips.map(|rows| profile.piece(&Piece { layers, rows })).collect();
            let work: u64 = strips.iter().map(|strip| strip.work.total()).sum();
            let out: u64 = strips.iter().map(|strip| strip.bytes_out).sum();
            assert!(work >= whole.work.total(), "{dnn:?}");
            assert_eq!(out, whole.bytes_out, "{dnn:?}");
            assert!(strips.iter().all(|strip| strip.work.total() < whole.work.total()), "{dnn:?}");
        }
    }

    #[test]
    fn pieces_make_up_the_whole() {
        let machine = &Machine::presets()[0];
        for dnn in Dnn::ALL {
            let pieces = dnn.pieces(4, machine, 1e7).expect("each has more than four layers");
            let whole = dnn.profile().range(LayerRange { first: 0, end: dnn.profile().layers() });
            let work: u64 = pieces.iter().map(|piece| piece.work.total()).sum();
            assert_eq!((pieces.len(), work), (4, whole.work.total()));
            assert!(pieces.windows(2).all(|pair| pair[0].bytes_out == pair[1].bytes_in));
        }
        assert_eq!(Dnn::AlexNet.pieces(13, machine, 1e7), None);
    }
}
