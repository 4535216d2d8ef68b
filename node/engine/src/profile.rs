//! What layers cost and what crosses cuts: all that an assignment needs to know of a model.

use crate::cost::{self, Work};
use crate::error::ImportError;
use crate::graph::{Conv, Layer, Op, TensorId};
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
    /// Matrix products: `Gemm` and `MatMul`.
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
    pub fn index(self) -> usize {
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
            Op::Gemm(_) | Op::MatMul(_) => Self::Linear,
            Op::Activation
            | Op::Add(_)
            | Op::AveragePool(_)
            | Op::BatchNorm(_)
            | Op::Concat { .. }
            | Op::Flatten
            | Op::GlobalAveragePool
            | Op::MaxPool(_)
            | Op::Reshape
            | Op::Softmax { .. } => Self::Memory,
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

fn layer_cost(model: &Model, layer: &Layer) -> LayerCost {
    let flops = flops(model, layer).max(1);
    let output = layer.outputs.first().map(|&id| model.tensor(id));
    LayerCost {
        name: layer.name.clone(),
        op: layer.op.name(),
        class: OpClass::of(&layer.op),
        flops,
        work: cost::work(model, layer, flops),
        weight_bytes: layer.weights().iter().map(|weight| weight.bytes().len() as u64).sum(),
        output_bytes: layer.outputs.iter().map(|&id| model.tensor(id).bytes()).sum(),
        output_shape: output.map(|info| info.shape.clone()).unwrap_or_default(),
    }
}

fn flops(model: &Model, layer: &Layer) -> u64 {
    let written: u64 = layer.outputs.iter().map(|&id| model.tensor(id).elements()).sum();
    let read: u64 = layer.inputs.iter().map(|&id| model.tensor(id).elements()).sum();
    let windows =
        |kernel: [usize; 2]| written.saturating_mul(1 + kernel[0] as u64 * kernel[1] as u64);
    match &layer.op {
        Op::Conv(conv) => {
            let taps: u64 = conv.weight.shape()[1..].iter().map(|&dim| dim as u64).product();
            written.saturating_mul(2).saturating_mul(taps)
        }
        // Every value of the result sums over the depth of the product.
        Op::Gemm(gemm) => {
            let depth = gemm.weight.shape()[usize::from(gemm.transpose_weight)];
            written.saturating_mul(2).saturating_mul(depth as u64)
        }
        Op::MatMul(_) => written.saturating_mul(2).saturating_mul(matmul_depth(model, layer)),
        Op::MaxPool(pool) => windows(pool.window.kernel),
        Op::AveragePool(pool) => windows(pool.window.kernel),
        // The same bytes under another shape.
        Op::Flatten | Op::Reshape => 1,
        Op::Activation
        | Op::Add(_)
        | Op::BatchNorm(_)
        | Op::Concat { .. }
        | Op::GlobalAveragePool
        | Op::Softmax { .. } => read + written,
    }
}

fn matmul_depth(model: &Model, layer: &Layer) -> u64 {
    let left = match &layer.op {
        Op::MatMul(crate::graph::Operand::ConstantLeft(weight)) => weight.shape(),
        _ => &model.tensor(layer.inputs[0]).shape,
    };
    left.last().copied().unwrap_or(1) as u64
}

/// The tensors alive across every cut.
///
/// A long graph in which much stays alive to the end would take quadratic memory: refused.
pub(crate) fn frontiers(graph: &Graph) -> Result<Vec<Vec<TensorInfo>>, ImportError> {
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
    let info = |id: &TensorId| graph.tensors[id.0].clone();
    Ok(ids.iter().map(|cut| cut.iter().map(info).collect()).collect())
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
