//! The DNNs of the experiments, as cost profiles (`sim/data`).

use serde::Deserialize;
use starling_protocol::{
    ModelId,
    cost::Provider,
    id::NodeId,
    model::{LayerProfile, ModelProfile, PieceProfile, Work},
    partition::{self, Worker},
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

    /// What its layers cost.
    #[must_use]
    pub fn profile(self) -> ModelProfile {
        let stored: Stored = serde_json::from_str(self.json()).expect("a profile of `sim/data`");
        let id = ModelId(*blake3::hash(self.json().as_bytes()).as_bytes());
        let layers: Vec<LayerProfile> = stored.layers.iter().map(StoredLayer::profile).collect();
        ModelProfile::new(id, &layers, stored.cut_bytes).expect("one cut more than layers")
    }

    /// Its pieces where it is cut into so many of equal time, by the protocol's own partitioner
    /// for equal machines. All requesters cut a DNN the same way: the auction decides where its
    /// pieces go, not what they are. Nothing if it has fewer layers than that.
    #[must_use]
    pub fn pieces(
        self,
        pieces: usize,
        machine: &Machine,
        bandwidth: f64,
    ) -> Option<Vec<PieceProfile>> {
        let profile = self.profile();
        let provider = Provider { speed: machine.speed(), bandwidth, memory_free: u64::MAX };
        let worker = Worker { node: NodeId([0; 32]), provider, sharers: 1 };
        let best = partition::balance(&profile, &vec![worker; pieces])?;
        Some(best.plan.pieces().iter().map(|layers| profile.piece(layers)).collect())
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

#[derive(Deserialize)]
struct Stored {
    layers: Vec<StoredLayer>,
    cut_bytes: Vec<u64>,
}

/// Class, FLOP, bytes of weights.
#[derive(Deserialize)]
struct StoredLayer(Class, u64, u64);

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

impl StoredLayer {
    fn profile(&self) -> LayerProfile {
        let mut work = Work::default();
        work.0[self.0 as usize] = self.1;
        LayerProfile { work, weight_bytes: self.2 }
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::plan::LayerRange;

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
