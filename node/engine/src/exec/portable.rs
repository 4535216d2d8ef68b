//! Layers by Burn's own operators: the path that runs on every device.

use burn::tensor::activation::{leaky_relu, relu, softmax};
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};

use super::Value;
use crate::fold;
use crate::graph::{Activation, AveragePool, BatchNorm, Conv, Gemm, Layer, MaxPool, Op, Operand};
use crate::shape::{self, RANK_MAX};
use crate::tensor::TensorInfo;
use crate::weights::Weight;

/// A layer with its weights on a device.
pub(crate) struct Kernel {
    main: Main,
    activation: Option<Activation>,
}

/// The main operator, in the form that suits Burn: dimensions that it does not distinguish
/// are merged.
enum Main {
    /// Nothing but the activation, or another shape for the same values.
    Nothing,
    Add,
    AddBroadcast {
        shapes: [[usize; RANK_MAX]; 2],
    },
    AddConstant {
        shape: [usize; RANK_MAX],
        constant: Tensor<RANK_MAX>,
    },
    AveragePool {
        shape: [usize; 4],
        options: AvgPoolOptions<2>,
    },
    BatchNorm {
        shape: [usize; 3],
        scale: Tensor<3>,
        shift: Tensor<3>,
    },
    Concat {
        shapes: Vec<[usize; 2]>,
    },
    Conv {
        shape: [usize; 4],
        weight: Tensor<4>,
        bias: Option<Tensor<1>>,
        options: ConvOptions<2>,
    },
    Gemm {
        shape: [usize; 2],
        transpose: bool,
        weight: Tensor<2>,
        bias: Option<Tensor<2>>,
    },
    MatMul {
        left: [usize; 3],
        right: [usize; 3],
        constant: Constant,
    },
    MaxPool {
        shape: [usize; 4],
        options: MaxPoolOptions<2>,
    },
    MeanOfChannels {
        shape: [usize; 2],
    },
    Softmax {
        shape: [usize; 3],
    },
}

/// Which side of a matrix product is constant.
enum Constant {
    Left(Tensor<3>),
    Neither,
    Right(Tensor<3>),
}

/// Folds a layer and puts its weights on the device.
pub(crate) fn prepare(tensors: &[TensorInfo], layer: &Layer, device: &Device) -> Kernel {
    let input = |i: usize| &tensors[layer.inputs[i].0].shape[..];
    let output = &tensors[layer.outputs[0].0].shape;
    let main = match &layer.op {
        Op::Activation | Op::Flatten | Op::Reshape => Main::Nothing,
        Op::Add(operand) => prepare_add(layer, operand, &input, device),
        Op::AveragePool(pool) => prepare_average_pool(pool, input(0)),
        Op::BatchNorm(norm) => prepare_batch_norm(norm, input(0), device),
        Op::Concat { axis } => {
            let shapes = (0..layer.inputs.len()).map(|i| {
                let (outer, inner) = input(i).split_at(*axis);
                [shape::product(outer), shape::product(inner)]
            });
            Main::Concat { shapes: shapes.collect() }
        }
        Op::Conv(conv) => prepare_conv(conv, input(0), device),
        Op::Gemm(gemm) => prepare_gemm(gemm, input(0), output, device),
        Op::GlobalAveragePool => {
            let channels = shape::product(output);
            Main::MeanOfChannels { shape: [channels, shape::product(input(0)) / channels] }
        }
        Op::MatMul(operand) => prepare_matmul(layer, operand, &input, device),
        Op::MaxPool(pool) => prepare_max_pool(pool, input(0)),
        Op::Softmax { size, inner } => {
            Main::Softmax { shape: [shape::product(output) / size / inner, *size, *inner] }
        }
    };
    Kernel { main, activation: layer.activation }
}

fn prepare_add<'a>(
    layer: &Layer,
    operand: &Operand,
    input: &impl Fn(usize) -> &'a [usize],
    device: &Device,
) -> Main {
    match operand {
        Operand::Activation if input(0) == input(1) => Main::Add,
        Operand::Activation => {
            debug_assert_eq!(layer.inputs.len(), 2, "a sum of activations has two");
            Main::AddBroadcast { shapes: [full_rank(input(0)), full_rank(input(1))] }
        }
        Operand::ConstantLeft(weight) | Operand::ConstantRight(weight) => Main::AddConstant {
            shape: full_rank(input(0)),
            constant: upload(weight.values(), full_rank(weight.shape()), device),
        },
    }
}

fn prepare_average_pool(pool: &AveragePool, input: &[usize]) -> Main {
    let options = AvgPoolOptions::new(pool.window.kernel)
        .with_stride(pool.window.stride)
        .with_dilation(pool.window.dilation)
        .with_padding_pairs(pool.window.padding)
        .with_ceil_mode(pool.ceil_mode)
        .with_count_include_pad(pool.count_include_pad);
    Main::AveragePool { shape: image(input), options }
}

fn prepare_max_pool(pool: &MaxPool, input: &[usize]) -> Main {
    let options = MaxPoolOptions::new(pool.window.kernel)
        .with_stride(pool.window.stride)
        .with_dilation(pool.window.dilation)
        .with_padding_pairs(pool.window.padding)
        .with_ceil_mode(pool.ceil_mode);
    Main::MaxPool { shape: image(input), options }
}

fn prepare_batch_norm(norm: &BatchNorm, input: &[usize], device: &Device) -> Main {
    let (scale, shift) = fold::scale_and_shift(norm);
    let channels = scale.len();
    let row = |values: Vec<f64>| {
        upload(values.into_iter().map(|value| value as f32).collect(), [1, channels, 1], device)
    };
    let shape = [input[0], channels, shape::product(&input[2..])];
    Main::BatchNorm { shape, scale: row(scale), shift: row(shift) }
}

fn prepare_conv(conv: &Conv, input: &[usize], device: &Device) -> Main {
    let (weight, bias) = fold::filters(conv);
    let window = &conv.window;
    Main::Conv {
        shape: image(input),
        weight: upload(weight, image(conv.weight.shape()), device),
        bias: bias.map(|bias| {
            let channels = bias.len();
            upload(bias, [channels], device)
        }),
        options: ConvOptions::new_with_padding(
            window.stride,
            window.padding,
            window.dilation,
            conv.groups,
        ),
    }
}

fn prepare_gemm(gemm: &Gemm, input: &[usize], output: &[usize], device: &Device) -> Main {
    let scaled = |weight: &Weight, factor: f32| {
        let mut values = weight.values();
        if factor != 1.0 {
            values.iter_mut().for_each(|value| *value *= factor);
        }
        values
    };
    let weight: Tensor<2> =
        upload(scaled(&gemm.weight, gemm.alpha), matrix(gemm.weight.shape()), device);
    Main::Gemm {
        shape: matrix(input),
        transpose: gemm.transpose_input,
        // A view: Burn's matrix product reads either order.
        weight: if gemm.transpose_weight { weight.transpose() } else { weight },
        bias: gemm.bias.as_ref().map(|bias| {
            let shape = shape::lead_with_ones(bias.shape(), output.len());
            upload(scaled(bias, gemm.beta), matrix(&shape), device)
        }),
    }
}

fn prepare_matmul<'a>(
    layer: &Layer,
    operand: &Operand,
    input: &impl Fn(usize) -> &'a [usize],
    device: &Device,
) -> Main {
    let (left, right) = match operand {
        Operand::Activation => (input(0), input(layer.inputs.len() - 1)),
        Operand::ConstantLeft(weight) => (weight.shape(), input(0)),
        Operand::ConstantRight(weight) => (input(0), weight.shape()),
    };
    let plan = shape::matmul(left, right).expect("the import has planned this product");
    let constant = match operand {
        Operand::Activation => Constant::Neither,
        Operand::ConstantLeft(weight) => Constant::Left(upload(weight.values(), plan.left, device)),
        Operand::ConstantRight(weight) => {
            Constant::Right(upload(weight.values(), plan.right, device))
        }
    };
    Main::MatMul { left: plan.left, right: plan.right, constant }
}

impl Kernel {
    /// Computes the layer; takes its inputs over, so that it may compute in place.
    pub(crate) fn run(&self, inputs: Vec<Value>) -> Vec<Value> {
        let inputs = inputs.into_iter().map(Value::into_float).collect();
        vec![Value::Float(activate(self.main.run(inputs), self.activation))]
    }
}

impl Main {
    fn run(&self, inputs: Vec<Tensor<1>>) -> Tensor<1> {
        if let Self::Concat { shapes } = self {
            return concat(inputs, shapes);
        }
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("a layer has as many inputs as its operator takes");
        let first = next();
        match self {
            Self::Nothing => first,
            Self::Add => first.add(next()),
            Self::AddBroadcast { shapes: [left, right] } => {
                flat(first.reshape(*left).add(next().reshape(*right)))
            }
            Self::AddConstant { shape, constant } => {
                flat(first.reshape(*shape).add(constant.clone()))
            }
            Self::AveragePool { shape, options } => {
                flat(avg_pool2d(first.reshape(*shape), options.clone()))
            }
            Self::BatchNorm { shape, scale, shift } => {
                flat(first.reshape(*shape).mul(scale.clone()).add(shift.clone()))
            }
            Self::Conv { shape, weight, bias, options } => {
                flat(conv2d(first.reshape(*shape), weight.clone(), bias.clone(), options.clone()))
            }
            Self::Gemm { shape, transpose, weight, bias } => {
                let input: Tensor<2> = first.reshape(*shape);
                let input = if *transpose { input.transpose() } else { input };
                let product = input.matmul(weight.clone());
                flat(match bias {
                    Some(bias) => product.add(bias.clone()),
                    None => product,
                })
            }
            Self::MatMul { left, right, constant } => {
                let (left, right) = match constant {
                    Constant::Left(constant) => (constant.clone(), first.reshape(*right)),
                    Constant::Neither => (first.reshape(*left), next().reshape(*right)),
                    Constant::Right(constant) => (first.reshape(*left), constant.clone()),
                };
                flat(left.matmul(right))
            }
            Self::MaxPool { shape, options } => {
                flat(max_pool2d(first.reshape(*shape), options.clone()))
            }
            Self::MeanOfChannels { shape } => flat(first.reshape::<2, _>(*shape).mean_dim(1)),
            Self::Softmax { shape } => flat(softmax(first.reshape::<3, _>(*shape), 1)),
            Self::Concat { .. } => unreachable!("handled above, for it takes any number of inputs"),
        }
    }
}

fn concat(inputs: Vec<Tensor<1>>, shapes: &[[usize; 2]]) -> Tensor<1> {
    // With one outer row, such as a batch of one along the channels, values just follow each other.
    if shapes.iter().all(|shape| shape[0] == 1) {
        return Tensor::cat(inputs, 0);
    }
    let rows = inputs.into_iter().zip(shapes).map(|(input, &shape)| input.reshape::<2, _>(shape));
    flat(Tensor::cat(rows.collect(), 1))
}

fn activate(value: Tensor<1>, activation: Option<Activation>) -> Tensor<1> {
    match activation {
        None => value,
        Some(Activation::Relu) => relu(value),
        Some(Activation::LeakyRelu { alpha }) => leaky_relu(value, f64::from(alpha)),
        Some(Activation::Clip { min, max }) => match (min > f32::NEG_INFINITY, max < f32::INFINITY)
        {
            (true, true) => value.clamp(min, max),
            (true, false) => value.clamp_min(min),
            (false, true) => value.clamp_max(max),
            (false, false) => value,
        },
    }
}

/// Values with their shape taken off.
fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let elements = tensor.dims().iter().product::<usize>();
    tensor.reshape([elements])
}

fn upload<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
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
