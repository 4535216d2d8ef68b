//! Layers by Burn's own operators: the path that runs on every device.
//!
//! Each family of operators has a file, with the name of the one that reads it. What Burn lacks is
//! composed of what it has, or computed on the host where only indices are at stake.

mod elementwise;
mod host;
mod layout;
mod linear;
mod normalize;
mod reduce;
mod resize;
mod select;
mod windows;
mod windows_nd;

use burn::tensor::kind::Basic;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::Value;
use crate::graph::{Activation, Layer, Op};
use crate::shape::{self, RANK_MAX};
use crate::tensor::{DType, TensorInfo};

/// A layer with its weights on a device.
pub(crate) struct Kernel {
    run: Run,
    /// The constant arguments, and their places among all.
    constants: Vec<(usize, Value)>,
    /// Which of the operator's results somebody reads.
    results: Vec<usize>,
    activation: Option<Activation>,
}

/// What an operator does: from its arguments to its results, in its order.
///
/// It knows the shapes, and holds what it needs on the device.
type Run = Box<dyn Fn(Vec<Value>) -> Vec<Value> + Send + Sync>;

/// A layer that is being prepared: the types and shapes around it.
struct Site<'a> {
    layer: &'a Layer,
    /// The arguments, constant ones included.
    arguments: Vec<(DType, &'a [usize])>,
    /// The first result that somebody reads.
    output: (DType, &'a [usize]),
    device: &'a Device,
}

impl<'a> Site<'a> {
    /// The shape of argument `i`.
    fn shape(&self, i: usize) -> &'a [usize] {
        self.arguments[i].1
    }

    /// The type of argument `i`.
    fn dtype(&self, i: usize) -> DType {
        self.arguments[i].0
    }
}

/// Folds a layer and puts its weights on the device.
pub(crate) fn prepare(tensors: &[TensorInfo], layer: &Layer, device: &Device) -> Kernel {
    let info = |id: &crate::graph::TensorId| {
        let info = &tensors[id.0];
        (info.dtype, &info.shape[..])
    };
    let mut inputs = layer.inputs.iter().map(info);
    let constants = layer.constants.iter();
    let count = layer.inputs.len() + layer.constants.len();
    let argument = |place: usize| match constants.clone().find(|(at, _)| *at == place) {
        Some((_, weight)) => (weight.dtype(), weight.shape()),
        None => inputs.next().expect("arguments are inputs or constants"),
    };
    let arguments = (0..count).map(argument).collect();
    let output = info(layer.outputs.first().expect("a layer without a result is not imported"));
    let site = Site { layer, arguments, output, device };
    let upload = |(place, weight): &(usize, _)| (*place, super::upload_weight(weight, device));
    Kernel {
        run: operator(&site),
        constants: layer.constants.iter().map(upload).collect(),
        results: layer.results.clone(),
        activation: layer.activation,
    }
}

fn operator(site: &Site<'_>) -> Run {
    match &site.layer.op {
        Op::Activation | Op::Flatten | Op::Identity | Op::Reshape => Box::new(|values| values),
        Op::Add(operand) => linear::add(site, operand),
        Op::Arg(arg) => reduce::arg(site, *arg),
        Op::AveragePool(pool) => windows::average_pool(site, pool),
        Op::BatchNorm(norm) => windows::batch_norm(site, norm),
        Op::Binary(binary) => elementwise::binary(site, *binary),
        Op::Cast => elementwise::cast(site),
        Op::Concat { axis } => layout::concat(site, *axis),
        Op::Conv(conv) => windows::conv(site, conv),
        Op::ConvNd(conv) => windows_nd::conv(site, conv),
        Op::CumSum(sum) => reduce::cum_sum(site, *sum),
        Op::DepthToSpace(blocks) => layout::depth_to_space(site, *blocks),
        Op::Expand => layout::expand(site),
        Op::Gather(gather) => select::gather(site, *gather),
        Op::Gemm(gemm) => linear::gemm(site, gemm),
        Op::GlobalAveragePool => windows::global_average_pool(site),
        Op::MatMul(operand) => linear::matmul(site, operand),
        Op::MaxPool(pool) => windows::max_pool(site, pool),
        Op::Nary(nary) => elementwise::nary(site, *nary),
        Op::Normalize(normalize) => normalize::normalize(site, normalize),
        Op::OneHot { axis } => select::one_hot(site, *axis),
        Op::Pad(pad) => layout::pad(site, pad),
        Op::PoolNd(pool) => windows_nd::pool(site, pool),
        Op::Product(product) => linear::product(site, *product),
        Op::Reduce(reduce) => reduce::reduce(site, reduce),
        Op::Resize(resize) => resize::resize(site, resize),
        Op::Scatter(scatter) => select::scatter(site, *scatter),
        Op::Slice(slice) => layout::slice(site, slice),
        Op::Softmax { size, inner } => normalize::softmax(site, *size, *inner),
        Op::SoftmaxLike(like) => normalize::softmax_like(site, *like),
        Op::SpaceToDepth { block } => layout::space_to_depth(site, *block),
        Op::Split { axis, sizes } => layout::split(site, *axis, sizes),
        Op::Tile => layout::tile(site),
        Op::TopK(top) => reduce::top_k(site, *top),
        Op::Transpose { order } => layout::transpose(site, order),
        Op::Triangle(triangle) => layout::triangle(site, *triangle),
        Op::Unary(unary) => elementwise::unary(site, *unary),
        Op::Where => elementwise::choose(site),
    }
}

impl Kernel {
    /// Computes the layer; takes its inputs over, so that it may compute in place. Gives the
    /// results that somebody reads.
    pub(crate) fn run(&self, inputs: Vec<Value>) -> Vec<Value> {
        let arguments = if self.constants.is_empty() { inputs } else { self.merge(inputs) };
        let results = (self.run)(arguments);
        let read = |(i, value)| self.results.contains(&i).then_some(value);
        let results = results.into_iter().enumerate().filter_map(read);
        match self.activation {
            None => results.collect(),
            Some(activation) => results
                .map(|value| Value::Float(elementwise::activate(value.into_float(), activation)))
                .collect(),
        }
    }

    fn merge(&self, inputs: Vec<Value>) -> Vec<Value> {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("arguments are inputs or constants");
        let mut arguments = Vec::new();
        for (place, constant) in &self.constants {
            while arguments.len() < *place {
                arguments.push(next());
            }
            arguments.push(constant.clone());
        }
        arguments.extend(inputs);
        arguments
    }
}

/// An operator of one argument of type `f32` and one result.
fn map(run: impl Fn(Tensor<1>) -> Tensor<1> + Send + Sync + 'static) -> Run {
    Box::new(move |values| {
        let [value] = take(values);
        vec![Value::Float(run(value.into_float()))]
    })
}

/// Exactly as many arguments as the operator has.
fn take<const N: usize>(values: Vec<Value>) -> [Value; N] {
    <[Value; N]>::try_from(values).expect("the import has checked the number of arguments")
}

/// The same computation for whichever kind of values it is.
macro_rules! each_kind {
    ($value:expr, $tensor:ident => $result:expr) => {
        match $value {
            Value::Bool($tensor) => Value::Bool($result),
            Value::Float($tensor) => Value::Float($result),
            Value::Int($tensor) => Value::Int($result),
        }
    };
}
use each_kind;

/// Values with their shape taken off.
fn flat<const D: usize, K: Basic>(tensor: Tensor<D, K>) -> Tensor<1, K> {
    let elements = tensor.dims().iter().product::<usize>();
    tensor.reshape([elements])
}

fn upload<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Places of values, for Burn to look up.
fn places(places: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let places: Vec<i64> = places.into_iter().map(|place| place as i64).collect();
    let count = places.len();
    Tensor::from_data(TensorData::new(places, [count]), device)
}

/// A shape as `[before the axis, the axis, after it]`.
fn around(shape: &[usize], axis: usize) -> [usize; 3] {
    [shape::product(&shape[..axis]), shape[axis], shape::product(&shape[axis + 1..])]
}

/// Values repeated along dimensions of size 1, up to a shape.
fn broadcast<K: Basic>(
    values: Tensor<1, K>,
    from: [usize; RANK_MAX],
    to: [usize; RANK_MAX],
) -> Tensor<1, K> {
    if from == to {
        return values;
    }
    flat(values.reshape(from).expand(to))
}

/// Values with their dimensions in another order.
fn permute<K: Basic>(values: Tensor<1, K>, shape: &[usize], order: &[usize]) -> Tensor<1, K> {
    if order.is_sorted() {
        return values;
    }
    let extra = RANK_MAX - shape.len();
    let axes: [usize; RANK_MAX] =
        std::array::from_fn(|i| if i < extra { i } else { order[i - extra] + extra });
    flat(values.reshape(full_rank(shape)).permute(axes))
}

fn full_rank(shape: &[usize]) -> [usize; RANK_MAX] {
    sized(&shape::lead_with_ones(shape, RANK_MAX))
}

fn image(shape: &[usize]) -> [usize; 4] {
    sized(shape)
}

fn matrix(shape: &[usize]) -> [usize; 2] {
    sized(shape)
}

fn sized<const D: usize>(shape: &[usize]) -> [usize; D] {
    shape.try_into().expect("the import has checked the number of dimensions")
}
