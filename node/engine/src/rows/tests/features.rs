//! Fully connected layers in strips of their features.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use prost::Message;
use quickcheck::{Arbitrary, Gen, TestResult, quickcheck};

use super::network::{int, random, values};
use super::{TOLERANCE, distance, in_strips, join, pick, random_inputs, run, send};
use crate::Hash;
use crate::onnx::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto,
    TensorShape, TensorType, TypeProto, ValueInfoProto, data_type,
};
use crate::{
    DeviceChoice, Kernels, LoadOptions, Model, Piece, RowRange, RowRule, Slice, Tensor,
    WeightSource,
};

/// A network that ends in fully connected layers, maybe after a convolution.
#[derive(Debug, Clone)]
struct Dense {
    /// Channels, height and width; none for features.
    image: Option<[usize; 3]>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Each feature by its own factor and summand.
    BatchNorm,
    Gemm {
        outputs: usize,
        transposed: bool,
        bias: Bias,
    },
    /// As other exporters write it: a product, and a sum with a constant.
    MatMul {
        outputs: usize,
    },
    PRelu,
    Relu,
    /// With what goes in.
    Residual,
    Softmax,
}

#[derive(Debug, Clone, Copy)]
enum Bias {
    Each,
    None,
    One,
}

impl Arbitrary for Dense {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut below = |limit: usize| usize::arbitrary(g) % limit;
        let image = [1 + below(3), 2 + below(6), 1 + below(5)];
        let image = (below(2) == 0).then_some(image);
        let steps = 1 + below(6);
        Self { image, steps: (0..steps).map(|_| Step::arbitrary(g)).collect() }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let whole = self.clone();
        let without = move |at| {
            let mut dense = whole.clone();
            dense.steps.remove(at);
            dense
        };
        Box::new((0..self.steps.len()).map(without))
    }
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let outputs = 1 + usize::arbitrary(g) % 40;
        let bias = *g.choose(&[Bias::Each, Bias::None, Bias::One]).unwrap();
        let gemm = Self::Gemm { outputs, transposed: bool::arbitrary(g), bias };
        let product = Self::MatMul { outputs };
        let steps = [
            Self::BatchNorm,
            gemm,
            gemm,
            gemm,
            product,
            product,
            Self::PRelu,
            Self::Relu,
            Self::Residual,
            Self::Softmax,
        ];
        *g.choose(&steps).unwrap()
    }
}

impl Dense {
    fn build(&self) -> Model {
        let shape = self.image.map_or(vec![1, 9], |[c, h, w]| vec![1, c, h, w]);
        let mut builder = Builder::new(&shape);
        if self.image.is_some() {
            builder.image(shape[1]);
            // Twice the channels of images that keep their size.
            builder.features = 2 * shape[1..].iter().product::<usize>();
        }
        self.steps.iter().for_each(|step| builder.add(step));
        // A residual needs a layer after it, and a network one at all.
        builder.add(&Step::Gemm { outputs: 11, transposed: true, bias: Bias::Each });
        builder.build()
    }
}

struct Builder {
    graph: GraphProto,
    last: String,
    features: usize,
}

impl Builder {
    fn new(shape: &[usize]) -> Self {
        let dimension = |&dim: &usize| Dimension { dim_value: Some(dim as i64), dim_param: None };
        let shape_proto = TensorShape { dim: shape.iter().map(dimension).collect() };
        let tensor_type =
            TensorType { elem_type: Some(data_type::FLOAT), shape: Some(shape_proto) };
        let input = ValueInfoProto {
            name: Some("x".to_owned()),
            r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
        };
        let graph = GraphProto { input: vec![input], ..GraphProto::default() };
        Self { graph, last: "x".to_owned(), features: shape[1..].iter().product() }
    }

    /// A convolution to twice the channels, and a new shape.
    fn image(&mut self, channels: usize) {
        let weight = self.weight(&[2 * channels, channels, 3, 3]);
        let pads = AttributeProto {
            name: Some("pads".to_owned()),
            ints: vec![1; 4],
            ..AttributeProto::default()
        };
        self.node("Conv", &[&weight], vec![pads]);
        self.node("Relu", &[], Vec::new());
        self.node("Flatten", &[], Vec::new());
    }

    fn add(&mut self, step: &Step) {
        let features = self.features;
        match *step {
            Step::BatchNorm => {
                let names = [0; 4].map(|_| self.weight(&[features]));
                let variance = self.graph.initializer.last_mut().unwrap();
                let positive: Vec<f32> = values(features, 3).iter().map(|v| 1.0 + v * v).collect();
                variance.raw_data = Some(bytemuck::cast_slice(&positive).to_vec().into());
                self.node("BatchNormalization", &names.each_ref().map(|n| &n[..]), Vec::new());
            }
            Step::Gemm { outputs, transposed, bias } => {
                let shape = if transposed { [outputs, features] } else { [features, outputs] };
                let mut inputs = vec![self.weight(&shape)];
                match bias {
                    Bias::Each => inputs.push(self.weight(&[outputs])),
                    Bias::None => {}
                    Bias::One => inputs.push(self.weight(&[1, 1])),
                }
                let inputs: Vec<&str> = inputs.iter().map(|name| &name[..]).collect();
                self.node("Gemm", &inputs, vec![int("transB", i64::from(transposed))]);
                self.features = outputs;
            }
            Step::MatMul { outputs } => {
                let (weight, bias) = (self.weight(&[features, outputs]), self.weight(&[outputs]));
                self.node("MatMul", &[&weight], Vec::new());
                self.node("Add", &[&bias], Vec::new());
                self.features = outputs;
            }
            Step::PRelu => {
                let slopes = self.weight(&[features]);
                self.node("PRelu", &[&slopes], Vec::new());
            }
            Step::Relu => self.node("Relu", &[], Vec::new()),
            Step::Residual => {
                let before = self.last.clone();
                let transposed = true;
                self.add(&Step::Gemm { outputs: features, transposed, bias: Bias::Each });
                self.node("Relu", &[], Vec::new());
                self.node("Add", &[&before], Vec::new());
            }
            Step::Softmax => self.node("Softmax", &[], Vec::new()),
        }
    }

    fn node(&mut self, op: &str, others: &[&str], attribute: Vec<AttributeProto>) {
        let output = format!("t{}", self.graph.node.len());
        let others = others.iter().map(|&name| name.to_owned());
        let input = std::iter::once(self.last.clone()).chain(others).collect();
        self.graph.node.push(NodeProto {
            input,
            output: vec![output.clone()],
            op_type: Some(op.to_owned()),
            attribute,
            ..NodeProto::default()
        });
        self.last = output;
    }

    fn weight(&mut self, dims: &[usize]) -> String {
        let name = format!("w{}", self.graph.initializer.len());
        let size = (self.features as f32).sqrt().recip();
        let seed = self.graph.initializer.len() as u64;
        let values: Vec<f32> =
            values(dims.iter().product(), seed).iter().map(|value| value * 1.7 * size).collect();
        self.graph.initializer.push(TensorProto::floats(&name, dims, &values));
        name
    }

    fn build(mut self) -> Model {
        self.graph.output.push(ValueInfoProto { name: Some(self.last), r#type: None });
        let proto = ModelProto {
            graph: Some(self.graph),
            opset_import: vec![OperatorSetId { domain: None, version: Some(17) }],
            ..ModelProto::default()
        };
        Model::parse(proto.encode_to_vec().into(), "dense").unwrap()
    }
}

/// Only the weights that a slice lists: what a provider has fetched.
struct Fetched(HashMap<Hash, Bytes>);

impl WeightSource for Fetched {
    fn weight(&self, hash: &Hash) -> Option<Bytes> {
        self.0.get(hash).cloned()
    }
}

/// A slice as another machine reads it.
fn travel(model: &Model, slice: &Slice) -> Model {
    let listed = Model::slice_weights(&slice.onnx).unwrap();
    assert_eq!(listed, slice.weights);
    let fetch = |weight: &crate::WeightRef| {
        let bytes = model.weight(&weight.hash).unwrap();
        assert_eq!((blake3::hash(&bytes), bytes.len() as u64), (weight.hash, weight.bytes));
        (weight.hash, Bytes::copy_from_slice(&bytes))
    };
    let fetched = Fetched(listed.iter().map(fetch).collect());
    Model::parse_slice(Bytes::copy_from_slice(&slice.onnx), &fetched).unwrap()
}

fn options(kernels: u8) -> LoadOptions {
    let kernels = [Kernels::Fast, Kernels::Exact, Kernels::Portable][usize::from(kernels % 3)];
    LoadOptions { kernels, ..LoadOptions::default() }
}

/// The layers in segments that split, as long as they can be, and single layers between them.
fn segments(model: &Model) -> Vec<Range<usize>> {
    let (mut segments, mut first) = (Vec::new(), 0);
    while first < model.layers().len() {
        let ends = (first + 1..=model.layers().len()).rev();
        let end = ends.into_iter().find(|end| model.splittable(first..*end));
        let end = end.unwrap_or(first + 1);
        segments.push(first..end);
        first = end;
    }
    segments
}

quickcheck! {
    fn strips_of_features_join_to_the_whole(dense: Dense, range: (usize, usize), weights: Vec<u8>, kernels: u8) -> bool {
        let model = dense.build();
        let layers = pick(&model, range);
        let inputs = random_inputs(&model, layers.start);
        let options = options(kernels);
        let whole = run(&Piece::load(&model, layers.clone(), options).unwrap(), &inputs);
        let weights: Vec<f64> = weights.iter().chain(&[1]).take(5).map(|&w| w.into()).collect();
        let joined = join(&whole, &in_strips(&model, &layers, &weights, &inputs, options));
        distance(&joined, &whole) < TOLERANCE
    }

    fn segments_of_strips_follow_each_other(dense: Dense, strips: u8) -> bool {
        let model = dense.build();
        let input = random_inputs(&model, 0);
        let whole = run(&Piece::load(&model, 0..model.layers().len(), DeviceChoice::Cpu).unwrap(), &input);
        let made = segments(&model).into_iter().fold(input, |made, layers| {
            let count = if model.splittable(layers.clone()) { 1 + usize::from(strips % 5) } else { 1 };
            let strips = in_strips(&model, &layers, &vec![1.0; count], &made, LoadOptions::default());
            let shapes: Vec<Tensor> = model.frontier(layers.end).iter().map(|info| random(&info.shape, 0)).collect();
            join(&shapes, &strips)
        });
        distance(&made, &whole) < TOLERANCE
    }

    fn the_slice_of_a_strip_makes_the_same_from_its_share(dense: Dense, range: (usize, usize), weights: (u8, u8)) -> TestResult {
        let model = dense.build();
        let layers = pick(&model, range);
        let inputs = random_inputs(&model, layers.start);
        let strips = model.split_rows(layers.end, &[weights.0.into(), weights.1.into()]);
        for rows in strips.iter().filter(|rows| rows.iter().any(|rows| !rows.is_empty())) {
            let here = Piece::load_rows(&model, layers.clone(), rows, DeviceChoice::Cpu).unwrap();
            let slice = travel(&model, &model.slice_rows(layers.clone(), rows).unwrap());
            let all = 0..layers.len();
            let local = slice.rows_in_slice(rows);
            let there = Piece::load_rows(&slice, all.clone(), &local, DeviceChoice::Cpu).unwrap();
            let needed = model.needed_rows(layers.clone(), rows).unwrap();
            let inputs = send(&inputs, &needed);
            assert_eq!(run(&here, &inputs), run(&there, &inputs));
            assert_eq!(slice.needed_rows(all, &local).unwrap(), needed);
            let bytes = model.strip_cost(layers.clone(), rows).unwrap().weight_bytes;
            assert_eq!((here.weight_bytes(), there.weight_bytes()), (bytes, bytes));
        }
        TestResult::passed()
    }

    fn a_segments_strips_hold_its_weights_once(dense: Dense, range: (usize, usize), count: u8) -> TestResult {
        let model = dense.build();
        let layers = pick(&model, range);
        let graph = model.row_graph();
        let divided = layers.clone().all(|layer| {
            let cost = &model.profile().layers[layer];
            let own = graph.layers[layer].row_weight_bytes * cost.output_shape.last().map_or(1, |&features| features as u64);
            // What has one feature is made by every strip.
            own == cost.weight_bytes && cost.output_shape.last() != Some(&1)
        });
        if !divided || !model.splittable(layers.clone()) || model.frontier(layers.end).len() > 1 {
            return TestResult::discard();
        }
        let strips = model.split_rows(layers.end, &vec![1.0; 1 + usize::from(count % 7)]);
        let bytes = |rows: &Vec<RowRange>| model.strip_cost(layers.clone(), rows).unwrap().weight_bytes;
        let whole = Piece::load(&model, layers.clone(), DeviceChoice::Cpu).unwrap().weight_bytes();
        TestResult::from_bool(strips.iter().map(bytes).sum::<u64>() == whole)
    }
}

/// Two fully connected layers of 1000 features after 500.
fn two_layers(transposed: bool) -> Model {
    let mut builder = Builder::new(&[1, 500]);
    let gemm = Step::Gemm { outputs: 1000, transposed, bias: Bias::Each };
    [gemm, Step::Relu, gemm].iter().for_each(|step| builder.add(step));
    builder.build()
}

#[test]
fn a_tenth_of_a_layer_holds_a_tenth_of_its_weights() {
    for transposed in [false, true] {
        let model = two_layers(transposed);
        let whole = Piece::load(&model, 0..1, DeviceChoice::Cpu).unwrap();
        assert_eq!(whole.weight_bytes(), 4 * 501 * 1000);
        for rows in model.split_rows(1, &[1.0; 10]) {
            let piece = Piece::load_rows(&model, 0..1, &rows, DeviceChoice::Cpu).unwrap();
            assert_eq!(piece.weight_bytes(), 4 * 501 * 100);
            // Packed in blocks of sixteen features.
            let held = piece.memory().weights as f64 / whole.memory().weights as f64;
            assert!(held < 0.12, "{held}");
            let planned = Piece::plan_rows_memory(&model, 0..1, &rows, DeviceChoice::Cpu).unwrap();
            assert_eq!(planned, piece.memory());
            let slice = model.slice_rows(0..1, &rows).unwrap();
            assert_eq!(slice.weights.iter().map(|w| w.bytes).sum::<u64>(), 4 * 501 * 100);
        }
    }
}

#[test]
fn parts_of_rows_are_stretches_of_the_file() {
    let model = two_layers(true);
    let slice = model.slice_rows(0..1, &[RowRange::new(300, 700)]).unwrap();
    let file = model.bytes().as_ptr_range();
    for weight in &slice.weights {
        let bytes = model.weight(&weight.hash).unwrap();
        assert!(file.contains(&bytes.as_ptr()), "{weight:?} was copied");
    }
}

#[test]
fn a_product_ends_what_a_strip_can_be_of() {
    let model = Dense { image: Some([2, 6, 5]), steps: vec![Step::Softmax] }.build();
    let names: Vec<_> = model.layers().iter().map(|layer| layer.op.name()).collect();
    assert_eq!(names, ["Conv", "Flatten", "Softmax", "Gemm"]);
    let splits = |layers: Range<usize>| model.splittable(layers);
    assert!(splits(0..1) && splits(3..4));
    assert!(!splits(1..2) && !splits(0..2) && !splits(2..4));
    let model = Dense { image: Some([2, 6, 5]), steps: Vec::new() }.build();
    assert!(model.splittable(1..3) && !model.splittable(0..3));
    let model = two_layers(true);
    assert!(model.splittable(0..1) && model.splittable(1..2) && !model.splittable(0..2));
    let graph = model.row_graph();
    assert_eq!(graph.tensors[1], (1000, 4));
    assert_eq!(graph.layers[1].row_weight_bytes, 4 * 1001);
    assert_eq!(*model.layer_rows(0), crate::LayerRows::Split(vec![RowRule::All]));
}

#[test]
fn rows_of_a_slice_are_counted_from_its_first() {
    let model = two_layers(true);
    let rows = [RowRange::new(300, 700)];
    let part = travel(&model, &model.slice_rows(0..1, &rows).unwrap());
    assert_eq!(part.outputs()[0].shape, [1, 400]);
    assert_eq!(part.rows_in_slice(&rows), [RowRange::new(0, 400)]);
    let whole = travel(&model, &model.slice(0..1));
    assert_eq!(whole.rows_in_slice(&rows), rows);
    let error = model.slice_rows(0..1, &[]).unwrap_err();
    assert!(error.to_string().contains("1 tensors"), "{error}");
}
