//! What an own kernel does beside its own work: activations, the sum that a convolution is part
//! of, the depthwise convolution before it, and the pooling after it.

use std::collections::HashMap;

use super::Source;
use super::choose::{Method, SMALL_MAP};
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
    let uses = uses(source);
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

/// Layers that are computed together: a depthwise convolution with the 1x1 convolutions around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Together {
    /// The 1x1 convolution before it, where that pays.
    pub(super) widen: Option<usize>,
    pub(super) depthwise: usize,
}

/// What is computed together with each 1x1 convolution that alone reads a depthwise one.
///
/// Not where images are small: then threads share the channels, not the rows, and the caches hold
/// everything anyway.
pub(super) fn separables(
    source: Source<'_>,
    methods: &HashMap<usize, Method>,
) -> HashMap<usize, Together> {
    let uses = uses(source);
    let made: HashMap<TensorId, usize> =
        methods.keys().map(|&i| (source.layers[i].outputs[0], i)).collect();
    // The layer that makes the only input of one, and has only this reader.
    let before = |layer: usize, method: Method| {
        let input = source.layers[layer].inputs[0];
        let by = *made.get(&input).filter(|_| uses[&input] == 1)?;
        let finished = finish(source.layers[by].activation).is_some();
        (finished && methods[&by] == method).then_some(by)
    };
    let plain = |layer: usize| match &source.layers[layer].op {
        Op::Conv(conv) => conv.groups == 1 && conv.window.stride == [1, 1],
        _ => false,
    };
    let rows = |layer: usize| source.tensors[source.layers[layer].outputs[0].0].shape[2];
    let depthwise = |layer: usize| {
        let fits = methods[&layer] == Method::Pointwise && plain(layer) && rows(layer) > SMALL_MAP;
        before(layer, Method::Depthwise).filter(|_| fits)
    };
    let widen = |layer: usize| {
        let widen = before(depthwise(layer)?, Method::Pointwise)?;
        // Where the two kinds alternate, each 1x1 convolution goes with what is before it.
        let free = plain(widen) && depthwise(widen).is_none();
        (free && rows(layer) >= WIDEN_ROWS).then_some(widen)
    };
    let taken = |&layer: &usize| {
        let together = Together { widen: widen(layer), depthwise: depthwise(layer)? };
        Some((layer, together))
    };
    methods.keys().filter_map(taken).collect()
}

/// The poolings that a convolution before them does on what it has at hand. To each, the
/// convolution: the first layer, or one by minimal filtering, where each square of outputs is in one
/// tile.
pub(super) fn pooled(
    source: Source<'_>,
    methods: &HashMap<usize, Method>,
) -> HashMap<usize, usize> {
    let uses = uses(source);
    let able = |&(&i, method): &(&usize, &Method)| {
        let layer = &source.layers[i];
        let plain = matches!(&layer.op, Op::Conv(conv) if conv.groups == 1);
        let Some(finish) = finish(layer.activation).filter(|_| plain) else { return false };
        match method {
            Method::Planar => true,
            // Curves are for values that are stored already.
            Method::Winograd(tiles, _) => {
                tiles.outputs().is_multiple_of(2) && finish.curve == Curve::None
            }
            _ => false,
        }
    };
    let made: HashMap<TensorId, usize> =
        methods.iter().filter(able).map(|(&i, _)| (source.layers[i].outputs[0], i)).collect();
    let taken = |(i, layer): (usize, &Layer)| {
        let Op::MaxPool(pool) = &layer.op else { return None };
        let window = &pool.window;
        let squares = window.kernel == [2, 2]
            && window.stride == [2, 2]
            && window.dilation == [1, 1]
            && window.padding == [(0, 0); 2];
        let input = layer.inputs[0];
        let sizes = |id: TensorId| &source.tensors[id.0].shape[2..];
        let conv = *made.get(&input).filter(|_| uses[&input] == 1)?;
        let halved = sizes(input).iter().zip(sizes(layer.outputs[0])).all(|(&a, &b)| a / 2 == b);
        (squares && halved && layer.activation.is_none()).then_some((i, conv))
    };
    source.layers.iter().enumerate().filter_map(taken).collect()
}

/// How many layers read each tensor; to be an output of the piece counts as well.
fn uses(source: Source<'_>) -> HashMap<TensorId, usize> {
    let mut uses = HashMap::new();
    let read = source.layers.iter().flat_map(|layer| &layer.inputs);
    for &id in read.chain(source.outputs) {
        *uses.entry(id).or_default() += 1;
    }
    uses
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

/// Rows from which on a 1x1 convolution before a depthwise one is computed with it: threads repeat
/// the rows where their parts meet, and fewer rows fit the caches.
const WIDEN_ROWS: usize = 28;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::plan::{self, Recipe};
    use super::*;
    use crate::{LoadOptions, Model};

    /// The recipes of a network of the fixtures.
    fn recipes(name: &str) -> Vec<Recipe> {
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
        plan::plan(source, &LoadOptions::default()).recipes
    }

    /// What is Burn's, and what is copied.
    fn not_computed(name: &str) -> Vec<String> {
        let burn = |recipe: &Recipe| match recipe {
            Recipe::Burn(layer) => Some(layer.op.name().to_owned()),
            Recipe::Concat { .. } => Some("a copy".to_owned()),
            _ => None,
        };
        recipes(name).iter().filter_map(burn).collect()
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

    #[test]
    fn convolutions_pool_their_own_outputs() {
        let recipes = recipes("vgg11");
        let count = |of: fn(&Recipe) -> bool| recipes.iter().filter(|&recipe| of(recipe)).count();
        let pooled = count(|recipe| matches!(recipe, Recipe::Pooled(_)));
        assert_eq!((pooled, count(|recipe| matches!(recipe, Recipe::Pool { .. }))), (5, 0));
    }
}
