//! How fast this machine is, by class of operator: measured on real layers, by this executor.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use crate::device::DeviceChoice;
use crate::model::Model;
use crate::onnx::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto,
    TensorShape, TensorType, TypeProto, ValueInfoProto, data_type,
};
use crate::piece::Piece;
use crate::profile::{LayerCost, OpClass};
use crate::tensor::Tensor;

/// The speed of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// FLOP/s for each class, at its [`OpClass::index`]; what a FLOP is, [`Profile`] says.
    ///
    /// [`Profile`]: crate::Profile
    pub units_per_s: [f64; OpClass::ALL.len()],
}

impl Speed {
    /// FLOP/s for layers of this class; finite and positive.
    pub fn of(&self, class: OpClass) -> f64 {
        self.units_per_s[class.index()]
    }

    /// Seconds that a layer takes at this speed.
    pub fn seconds(&self, cost: &LayerCost) -> f64 {
        cost.flops as f64 / self.of(cost.class)
    }
}

/// Measures the speed of a device, in about the time given: 0.4 s is enough to be within some
/// 10 %. Shares the budget between the classes, and runs each at least five times.
///
/// `after_layer` is called after each layer, like that of [`Piece::run_observed`], and its time
/// counts: a node that throttles itself measures its throttled speed.
pub fn measure(
    budget: Duration,
    device: DeviceChoice,
    after_layer: &mut dyn FnMut(usize),
) -> Speed {
    let share = budget / OpClass::ALL.len() as u32;
    Speed {
        units_per_s: OpClass::ALL.map(|class| measure_class(class, share, device, after_layer)),
    }
}

fn measure_class(
    class: OpClass,
    budget: Duration,
    device: DeviceChoice,
    after_layer: &mut dyn FnMut(usize),
) -> f64 {
    let start = Instant::now();
    let models = probes(class);
    let loaded: Vec<_> = models.iter().map(|model| load(model, device)).collect();
    let mut run = || {
        let start = Instant::now();
        for (piece, input) in &loaded {
            piece
                .run_observed(std::slice::from_ref(input), after_layer)
                .expect("the input is the probe's own");
        }
        start.elapsed()
    };
    // The first run pays for cold caches and lazily started threads.
    run();
    let mut times = Vec::new();
    while times.len() < RUNS_MIN || (start.elapsed() < budget && times.len() < RUNS_MAX) {
        times.push(run());
    }
    // The fastest: whatever another run took beyond it, other programs took.
    let fastest = times.into_iter().min().unwrap_or_default().max(Duration::from_nanos(1));
    let flops: u64 =
        models.iter().flat_map(|model| model.profile().layers).map(|layer| layer.flops).sum();
    flops as f64 / fastest.as_secs_f64()
}

fn load(model: &Model, device: DeviceChoice) -> (Piece, Tensor) {
    let layers = 0..model.layers().len();
    let piece = Piece::load(model, layers, device).expect("the range is that of the whole probe");
    let info = &model.inputs()[0];
    let values = (0..info.elements()).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
    let input =
        Tensor::from_f32(info.shape.clone(), values).expect("as many values as the shape says");
    (piece, input)
}

/// Small networks of layers of one class, with the sizes and activations of real ones: large
/// images with few channels, which memory holds back, and small ones with many.
fn probes(class: OpClass) -> Vec<Model> {
    let probes = match class {
        OpClass::Dense => vec![
            Probe::new(&[1, 64, 56, 56]).conv(64, 64, 3, 1),
            Probe::new(&[1, 128, 14, 14]).conv(128, 128, 3, 1).conv(128, 128, 3, 1),
        ],
        OpClass::Pointwise => vec![
            Probe::new(&[1, 24, 56, 56]).conv(24, 144, 1, 1).conv(144, 24, 1, 1),
            Probe::new(&[1, 80, 14, 14]).conv(80, 480, 1, 1).conv(480, 80, 1, 1),
            Probe::new(&[1, 192, 7, 7]).conv(192, 1152, 1, 1).conv(1152, 192, 1, 1),
        ],
        OpClass::Depthwise => vec![
            Probe::new(&[1, 144, 56, 56]).conv(144, 144, 3, 144),
            Probe::new(&[1, 480, 14, 14]).conv(480, 480, 5, 480),
            Probe::new(&[1, 1152, 7, 7]).conv(1152, 1152, 5, 1152),
        ],
        OpClass::Linear => vec![Probe::new(&[1, 1280]).gemm(1280, 1000)],
        OpClass::Memory => vec![Probe::new(&[1, 64, 56, 56]).add().add()],
    };
    probes.into_iter().map(Probe::build).collect()
}

/// Builds a chain of layers as an ONNX model.
struct Probe {
    graph: GraphProto,
    last: String,
}

impl Probe {
    fn new(shape: &[usize]) -> Self {
        let dim = shape
            .iter()
            .map(|&dim| Dimension { dim_value: Some(dim as i64), dim_param: None })
            .collect();
        let tensor_type =
            TensorType { elem_type: Some(data_type::FLOAT), shape: Some(TensorShape { dim }) };
        let input = ValueInfoProto {
            name: Some("input".to_owned()),
            r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
        };
        Self {
            graph: GraphProto { input: vec![input], ..GraphProto::default() },
            last: "input".to_owned(),
        }
    }

    fn conv(mut self, channels: usize, filters: usize, kernel: usize, groups: usize) -> Self {
        let weight = self.weight(&[filters, channels / groups, kernel, kernel]);
        let bias = self.weight(&[filters]);
        let attributes = vec![ints("pads", [(kernel / 2) as i64; 4]), int("group", groups as i64)];
        self.node("Conv", [weight, bias], attributes).node("Relu", [], Vec::new())
    }

    fn gemm(mut self, inputs: usize, outputs: usize) -> Self {
        let weight = self.weight(&[outputs, inputs]);
        let bias = self.weight(&[outputs]);
        self.node("Gemm", [weight, bias], vec![int("transB", 1)])
    }

    fn add(self) -> Self {
        let same = self.last.clone();
        self.node("Add", [same], Vec::new())
    }

    fn node<const N: usize>(
        mut self,
        op: &str,
        inputs: [String; N],
        attribute: Vec<AttributeProto>,
    ) -> Self {
        let output = format!("{op}_{}", self.graph.node.len());
        let input = std::iter::once(self.last).chain(inputs).collect();
        let op_type = Some(op.to_owned());
        self.graph.node.push(NodeProto {
            input,
            output: vec![output.clone()],
            op_type,
            attribute,
            ..NodeProto::default()
        });
        self.last = output;
        self
    }

    /// Weights that keep activations at their size: values that vanish would run too slow or too fast.
    fn weight(&mut self, dims: &[usize]) -> String {
        let name = format!("weight_{}", self.graph.initializer.len());
        let fan_in = dims[1..].iter().product::<usize>().max(1) as f32;
        let values = (0..dims.iter().product::<usize>())
            .map(|i| ((i % 13) as f32 - 6.0) / 6.0 / fan_in.sqrt());
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(data_type::FLOAT),
            raw_data: Some(values.flat_map(f32::to_le_bytes).collect()),
            ..TensorProto::default()
        });
        name
    }

    fn build(mut self) -> Model {
        self.graph.output.push(ValueInfoProto { name: Some(self.last), r#type: None });
        let proto = ModelProto {
            graph: Some(self.graph),
            opset_import: vec![OperatorSetId { domain: None, version: Some(13) }],
            ..ModelProto::default()
        };
        Model::parse(Bytes::from(proto.encode_to_vec()), "probe").expect("probes are valid models")
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), i: Some(value), ..AttributeProto::default() }
}

fn ints<const N: usize>(name: &str, values: [i64; N]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

/// With fewer, every one may be interrupted on a machine that is busy with other things.
const RUNS_MIN: usize = 5;
/// Enough runs for a steady median on a fast machine.
const RUNS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_probed_by_its_own_layers() {
        for class in OpClass::ALL {
            let mut layers = probes(class).into_iter().flat_map(|model| model.profile().layers);
            assert!(layers.all(|layer| layer.class == class), "{class:?}");
        }
    }

    #[test]
    fn speeds_are_finite_and_layers_are_reported() {
        let mut layers = 0;
        let speed = measure(Duration::from_millis(20), DeviceChoice::Cpu, &mut |_| layers += 1);
        for class in OpClass::ALL {
            assert!(speed.of(class).is_finite() && speed.of(class) > 0.0, "{class:?}: {speed:?}");
        }
        assert!(layers >= 2 * OpClass::ALL.len());
    }
}
