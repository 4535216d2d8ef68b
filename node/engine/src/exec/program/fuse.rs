//! What an own kernel does beside its own work: activations, and the sum that a convolution is part
//! of.

use std::collections::HashMap;

use super::Source;
use super::choose::Method;
use crate::exec::kernels::curve::Curve;
use crate::exec::kernels::tile::Finish;
use crate::graph::{Activation, Layer, Op, Operand, Reduce, Reduction, TensorId};

/// The convolutions that a sum can take over: those whose output it alone reads. To each, the
/// sum that takes it.
///
/// The later one of two: it is computed where the sum is, and what it reads must be kept for it.
pub(super) fn residuals(
    source: Source<'_>,
    methods: &HashMap<usize, Method>,
) -> HashMap<usize, usize> {
    let mut uses: HashMap<TensorId, usize> = HashMap::new();
    let read = source.layers.iter().flat_map(|layer| &layer.inputs);
    for &id in read.chain(source.outputs) {
        *uses.entry(id).or_default() += 1;
    }
    let made: HashMap<TensorId, usize> = source
        .layers
        .iter()
        .enumerate()
        .filter(|(i, layer)| methods.contains_key(i) && layer.activation.is_none())
        .map(|(i, layer)| (layer.outputs[0], i))
        .collect();
    let taken = |(i, layer): (usize, &Layer)| {
        let sum = matches!(layer.op, Op::Add(Operand::Activation));
        let &[left, right] = &layer.inputs[..] else { return None };
        let same = source.tensors[left.0].shape == source.tensors[right.0].shape;
        if !sum || !same || left == right || finish(layer.activation).is_none() {
            return None;
        }
        let conv = [left, right]
            .into_iter()
            .filter(|id| uses[id] == 1)
            .filter_map(|id| made.get(&id).copied())
            .max()?;
        Some((conv, i))
    };
    source.layers.iter().enumerate().filter_map(taken).collect()
}

/// Whether these are the means of images.
pub(super) fn is_image_mean(reduce: &Reduce) -> bool {
    reduce.by == Reduction::Mean && reduce.axes == [2, 3]
}

/// An activation as own kernels do it, if they do.
pub(super) fn finish(activation: Option<Activation>) -> Option<Finish> {
    Some(match activation {
        None => Finish::NONE,
        Some(Activation::Relu) => Finish { low: 0.0, ..Finish::NONE },
        Some(Activation::Clip { min, max }) => Finish { low: min, high: max, ..Finish::NONE },
        Some(Activation::LeakyRelu { alpha }) if alpha <= 1.0 => {
            Finish { slope: alpha, ..Finish::NONE }
        }
        Some(activation) => Finish { curve: curve(activation)?, ..Finish::NONE },
    })
}

/// An activation as a curve, if it is one.
fn curve(activation: Activation) -> Option<Curve> {
    Some(match activation {
        Activation::Celu { alpha } if alpha > 0.0 => {
            Curve::Exponential { alpha, gamma: 1.0, steep: 1.0 / alpha }
        }
        Activation::Elu { alpha } => Curve::Exponential { alpha, gamma: 1.0, steep: 1.0 },
        Activation::Gelu => Curve::Gelu,
        Activation::GeluTanh => Curve::GeluTanh,
        Activation::HardSigmoid { alpha, beta } => Curve::HardSigmoid { alpha, beta },
        Activation::HardSwish => Curve::HardSwish,
        Activation::Mish => Curve::Mish,
        Activation::Selu { alpha, gamma } => Curve::Exponential { alpha, gamma, steep: 1.0 },
        Activation::Sigmoid => Curve::Sigmoid,
        Activation::Softsign => Curve::Softsign,
        Activation::Swish { alpha } => Curve::Swish { alpha },
        Activation::Tanh => Curve::Tanh,
        Activation::Celu { .. }
        | Activation::Clip { .. }
        | Activation::LeakyRelu { .. }
        | Activation::Relu
        | Activation::Softplus
        | Activation::ThresholdedRelu { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::plan::{self, Recipe};
    use super::*;
    use crate::{LoadOptions, Model};

    /// What is Burn's, and what is copied, in a network of the fixtures.
    fn not_computed(name: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let model = Model::open(&folder.join(format!("{name}.onnx"))).unwrap();
        let last = model.layers().len();
        let source = Source {
            tensors: &model.graph().tensors,
            layers: model.layers(),
            inputs: model.frontier_ids(0),
            outputs: model.frontier_ids(last),
            mapped: &[],
        };
        let plan = plan::plan(source, &LoadOptions::default());
        let burn = |recipe: &Recipe| match recipe {
            Recipe::Burn(layer) => Some(layer.op.name().to_owned()),
            Recipe::Concat { .. } => Some("a copy".to_owned()),
            _ => None,
        };
        plan.recipes.iter().filter_map(burn).collect()
    }

    #[test]
    fn networks_run_by_own_kernels_alone() {
        for name in
            ["alexnet", "efficientnet", "mobilenetv2", "nin", "resnet18", "resnext", "vgg11"]
        {
            assert_eq!(not_computed(name), [""; 0], "{name}");
        }
        // A mean without its dimensions.
        assert_eq!(not_computed("mobilenetv3"), ["ReduceMean"]);
        // A tensor that is joined with itself; other parts are computed where they belong.
        assert_eq!(not_computed("densenet"), ["a copy"]);
    }
}
