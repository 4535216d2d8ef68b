//! What layers cost and what crosses cuts: all that an assignment needs to know of a model.

use crate::cost::{self, Work};
use crate::error::ImportError;
use crate::graph::{Conv, ConvNd, Layer, Op, Operand, TensorId};
use crate::model::Model;
use crate::onnx::import::Graph;
use crate::tensor::TensorInfo;

/// The costs of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// One for each layer.
    pub layers: Vec<LayerCost>,
    /// One for each cut: `layers.len() + 1`, from the inputs to the outputs.
    pub cuts: Vec<CutCost>,
}

/// What it takes to run a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCost {
    /// The layer's name.
    pub name: String,
    /// Its operator's ONNX name.
    pub op: &'static str,
    /// Which speed of a device applies to it.
    pub class: OpClass,
    /// Floating-point operations, two for a multiply-add; see [`OpClass::Memory`] for the rest.
    /// Never 0, so that no layer has an infinite rate.
    pub flops: u64,
    /// What it asks of a device, class by class; see [`Work`].
    pub work: Work,
    /// Bytes of its weights, as they are in the file.
    pub weight_bytes: u64,
    /// Bytes of its outputs.
    pub output_bytes: u64,
    /// The shape of its first output.
    pub output_shape: Vec<usize>,
}

/// What it takes to move from one machine to another at a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutCost {
    /// The tensors that must move.
    pub tensors: Vec<TensorInfo>,
    /// Their bytes, in all.
    pub bytes: u64,
}

/// A class of operators that a device has one speed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpClass {
    /// Convolutions with more than one tap, in one group.
    Dense,
    /// 1x1 convolutions.
    Pointwise,
    /// Convolutions in groups, most of all depthwise ones.
    Depthwise,
    /// Matrix products: `Gemm` and `MatMul`; as work, the weights that are read.
    Linear,
    /// All that only moves and compares: its FLOPs are values read and written.
    Memory,
}

impl OpClass {
    /// All classes, in the order of their indices.
    pub const ALL: [Self; 5] =
        [Self::Dense, Self::Pointwise, Self::Depthwise, Self::Linear, Self::Memory];

    /// The class in one word, for people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Pointwise => "pointwise",
            Self::Depthwise => "depthwise",
            Self::Linear => "linear",
            Self::Memory => "memory",
        }
    }

    /// The class's place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        match self {
            Self::Dense => 0,
            Self::Pointwise => 1,
            Self::Depthwise => 2,
            Self::Linear => 3,
            Self::Memory => 4,
        }
    }

    pub(crate) fn of(op: &Op) -> Self {
        match op {
            Op::Conv(conv) if conv.groups > 1 => Self::Depthwise,
            Op::Conv(Conv { window, .. }) if window.kernel == [1, 1] => Self::Pointwise,
            Op::Conv(_) => Self::Dense,
            Op::Gemm(_) | Op::MatMul(_) | Op::Product(_) => Self::Linear,
            Op::ConvNd(conv) if conv.groups > 1 => Self::Depthwise,
            Op::ConvNd(_) => Self::Dense,
            _ => Self::Memory,
        }
    }
}

/// The cost profile of a model.
pub(crate) fn profile(model: &Model) -> Profile {
    let cuts = (0..=model.layers().len()).map(|cut| {
        let tensors = model.frontier(cut).to_vec();
        let bytes = tensors.iter().map(TensorInfo::bytes).sum();
        CutCost { tensors, bytes }
    });
    Profile {
        layers: model.layers().iter().map(|layer| layer_cost(model, layer)).collect(),
        cuts: cuts.collect(),
    }
}

/// The cost of a layer of the model.
pub(crate) fn layer_cost(model: &Model, layer: &Layer) -> LayerCost {
    let tensors = &model.graph().tensors;
    let flops = flops(tensors, layer).max(1);
    let output = layer.outputs.first().map(|&id| model.tensor(id));
    LayerCost {
        name: layer.name.clone(),
        op: layer.op.name(),
        class: OpClass::of(&layer.op),
        flops,
        work: cost::work(tensors, layer, flops),
        weight_bytes: layer.weights().iter().map(|weight| weight.bytes().len() as u64).sum(),
        output_bytes: layer.outputs.iter().map(|&id| model.tensor(id).bytes()).sum(),
        output_shape: output.map(|info| info.shape.clone()).unwrap_or_default(),
    }
}

/// The operations of a layer.
pub(crate) fn flops(tensors: &[TensorInfo], layer: &Layer) -> u64 {
    let elements = |ids: &[TensorId]| -> u64 {
        ids.iter().fold(0, |sum, id| sum.saturating_add(tensors[id.0].elements()))
    };
    let (read, written) = (elements(&layer.inputs), elements(&layer.outputs));
    let windows = |kernel: &[usize]| written.saturating_mul(1 + elements_of(kernel));
    match &layer.op {
        Op::Conv(conv) => {
            written.saturating_mul(2).saturating_mul(elements_of(&conv.weight.shape()[1..]))
        }
        Op::ConvNd(conv) => conv_flops(tensors, layer, conv),
        // Every value of the result sums over the depth of the product.
        Op::Gemm(gemm) => {
            let depth = gemm.weight.shape()[usize::from(gemm.transpose_weight)];
            written.saturating_mul(2).saturating_mul(depth as u64)
        }
        Op::MatMul(operand) => {
            let left = match operand {
                Operand::ConstantLeft(weight) => weight.shape(),
                _ => argument(tensors, layer, 0),
            };
            written.saturating_mul(2).saturating_mul(left.last().copied().unwrap_or(1) as u64)
        }
        Op::Product(product) => {
            let depth = argument(tensors, layer, 0)[usize::from(!product.transpose_left)];
            written.saturating_mul(2).saturating_mul(depth as u64)
        }
        Op::MaxPool(pool) => windows(&pool.window.kernel),
        Op::AveragePool(pool) => windows(&pool.window.kernel),
        Op::PoolNd(pool) => windows(&pool.window.kernel),
        // The same bytes under another shape.
        Op::Flatten | Op::Identity | Op::Reshape => 1,
        _ => read.saturating_add(written),
    }
}

/// Each value of a convolution's output sums over the filters' taps; of a transposed one, each of
/// its input adds to as many.
fn conv_flops(tensors: &[TensorInfo], layer: &Layer, conv: &ConvNd) -> u64 {
    let filters = argument(tensors, layer, 1);
    let values = match conv.transposed {
        true => elements_of(argument(tensors, layer, 0)),
        false => layer.outputs.iter().map(|id| tensors[id.0].elements()).sum(),
    };
    values.saturating_mul(2).saturating_mul(elements_of(&filters[1..]))
}

/// The shape of a layer's argument.
fn argument<'a>(tensors: &'a [TensorInfo], layer: &'a Layer, place: usize) -> &'a [usize] {
    if let Some((_, weight)) = layer.constants.iter().find(|(at, _)| *at == place) {
        return weight.shape();
    }
    let before = layer.constants.iter().filter(|(at, _)| *at < place).count();
    layer.inputs.get(place - before).map_or(&[], |id| &tensors[id.0].shape)
}

fn elements_of(dims: &[usize]) -> u64 {
    dims.iter().fold(1, |product, &dim| product.saturating_mul(dim as u64))
}

/// The tensors alive across every cut.
///
/// A long graph in which much stays alive to the end would take quadratic memory: refused.
pub(crate) fn frontiers(graph: &Graph) -> Result<Vec<Vec<TensorId>>, ImportError> {
    let layers = graph.layers.len();
    let lives = lives(graph);
    let total: usize =
        lives.iter().filter_map(|&(born, last)| Some(last.checked_sub(born)? + 1)).sum();
    if total > FRONTIER_TENSORS_TOTAL_MAX {
        return Err(ImportError::graph(
            "too many of its tensors are needed far from where they are made",
        ));
    }
    let mut ids = vec![Vec::new(); layers + 1];
    for (id, &(born, last)) in lives.iter().enumerate() {
        for cut in &mut ids[born..=last] {
            cut.push(TensorId(id));
        }
    }
    // The ends are as the file has them: all inputs, used or not, and the outputs in their order.
    ids[0].clone_from(&graph.inputs);
    ids[layers].clone_from(&graph.outputs);
    Ok(ids)
}

/// For each tensor the first and the last cut that it is alive across; the last is never before
/// the first, for layers read only what earlier ones made.
fn lives(graph: &Graph) -> Vec<(usize, usize)> {
    let mut lives = vec![(0, 0); graph.tensors.len()];
    for (i, layer) in graph.layers.iter().enumerate() {
        for output in &layer.outputs {
            lives[output.0] = (i + 1, i + 1);
        }
        for input in &layer.inputs {
            lives[input.0].1 = i;
        }
    }
    for output in &graph.outputs {
        lives[output.0].1 = graph.layers.len();
    }
    lives
}

/// Most entries of all frontiers together.
const FRONTIER_TENSORS_TOTAL_MAX: usize = 1 << 17;
