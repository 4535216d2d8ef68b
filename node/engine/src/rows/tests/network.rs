//! Random small networks: chains and blocks of all that has a rule for rows.

use prost::Message;
use quickcheck::{Arbitrary, Gen};

use crate::Model;
use crate::onnx::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto,
    TensorShape, TensorType, TypeProto, ValueInfoProto, data_type,
};
use crate::tensor::Tensor;

/// A network, as what to add to the last tensor one after the other. What does not fit, such as a
/// window larger than the image, is left out.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    AddChannels,
    AveragePool { window: Window, ceil: bool, include: bool },
    BatchNorm,
    Branches { kernel: usize, stride: usize, dilation: usize },
    Concat { kernel: usize },
    Conv { window: Window, groups: Groups, filters: usize },
    Gate,
    LeakyRelu,
    MaxPool { window: Window, ceil: bool },
    Relu,
    Residual { kernel: usize },
    Shifted,
    Shuffle,
    Softmax { axis: i64 },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Top, left, bottom, right.
    pub(crate) padding: [usize; 4],
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Groups {
    Depthwise,
    One,
    Two,
}

impl Step {
    /// Whether the result is a sum of the inputs with fixed factors.
    fn is_linear(&self) -> bool {
        match self {
            Self::AddChannels
            | Self::AveragePool { .. }
            | Self::BatchNorm
            | Self::Branches { .. }
            | Self::Concat { .. }
            | Self::Conv { .. }
            | Self::Shifted => true,
            Self::Gate
            | Self::LeakyRelu
            | Self::MaxPool { .. }
            | Self::Relu
            | Self::Residual { .. }
            | Self::Shuffle
            | Self::Softmax { .. } => false,
        }
    }
}

impl Network {
    /// The same without what is not linear, and so that every row that a layer reads has an
    /// effect on what it makes.
    ///
    /// Only the last step may be dilated. Strips have no holes, so a step makes rows that the next
    /// one steps over; only with a dilation do such rows reach further than those next to them.
    pub(crate) fn linear(mut self) -> Self {
        self.steps.retain(Step::is_linear);
        let last = self.steps.len().saturating_sub(1);
        for (i, step) in self.steps.iter_mut().enumerate() {
            match step {
                Step::AveragePool { window, .. } | Step::Conv { window, .. } => {
                    *window = window.narrow();
                    window.dilation[0] = if i == last { window.dilation[0] } else { 1 };
                }
                Step::Branches { dilation, .. } if i < last => *dilation = 1,
                _ => {}
            }
        }
        self
    }

    /// The model, unless nothing fits.
    pub(crate) fn build(&self) -> Option<Model> {
        let shape = [self.channels, self.height, self.width];
        let mut builder = Builder::new(shape);
        for step in &self.steps {
            builder.add(step);
        }
        builder.build()
    }
}

impl Arbitrary for Network {
    fn arbitrary(g: &mut Gen) -> Self {
        let steps = 1 + usize::arbitrary(g) % 7;
        Self {
            channels: 1 + usize::arbitrary(g) % 4,
            height: 1 + usize::arbitrary(g) % 24,
            width: 1 + usize::arbitrary(g) % 8,
            steps: (0..steps).map(|_| Step::arbitrary(g)).collect(),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let whole = self.clone();
        let without = move |i| {
            let mut network = whole.clone();
            network.steps.remove(i);
            network
        };
        Box::new((0..self.steps.len()).map(without))
    }
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let conv = Self::Conv {
            window: Window::arbitrary(g),
            groups: *g.choose(&[Groups::Depthwise, Groups::One, Groups::Two]).unwrap(),
            filters: 1 + usize::arbitrary(g) % 4,
        };
        let average = Self::AveragePool {
            window: Window::arbitrary(g),
            ceil: bool::arbitrary(g),
            include: bool::arbitrary(g),
        };
        let max = Self::MaxPool { window: Window::arbitrary(g), ceil: bool::arbitrary(g) };
        let kernel = 1 + usize::arbitrary(g) % 5;
        let branches = Self::Branches {
            kernel,
            stride: 1 + usize::arbitrary(g) % 3,
            dilation: 1 + usize::arbitrary(g) % 2,
        };
        let softmax = Self::Softmax { axis: *g.choose(&[1, 2, 3]).unwrap() };
        let steps = [
            Self::AddChannels,
            average,
            Self::BatchNorm,
            branches,
            Self::Concat { kernel },
            conv.clone(),
            conv.clone(),
            conv,
            Self::Gate,
            Self::LeakyRelu,
            max,
            Self::Relu,
            Self::Residual { kernel },
            Self::Shifted,
            Self::Shuffle,
            softmax,
        ];
        g.choose(&steps).unwrap().clone()
    }
}

impl Arbitrary for Window {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut below = |limit: usize| usize::arbitrary(g) % limit;
        let kernel = [1 + below(5), 1 + below(3)];
        Self {
            kernel,
            stride: [1 + below(3), 1 + below(2)],
            dilation: [1 + below(2), 1 + below(2)],
            padding: [below(kernel[0]), below(kernel[1]), below(kernel[0]), below(kernel[1])],
        }
    }
}

impl Window {
    /// A window that keeps the image's size, but for the stride, whatever its kernel.
    fn same(kernel: usize, stride: usize, dilation: usize) -> Self {
        let split = |reach: usize| (reach / 2, reach.div_ceil(2));
        let columns = kernel.min(3);
        let ((top, bottom), (left, right)) = (split((kernel - 1) * dilation), split(columns - 1));
        Self {
            kernel: [kernel, columns],
            stride: [stride, 1],
            dilation: [dilation, 1],
            padding: [top, left, bottom, right],
        }
    }

    /// The same for rows, but for one column: no value of a row is seen by no window.
    fn narrow(&self) -> Self {
        let [top, _, bottom, _] = self.padding;
        let rows = |sizes: [usize; 2]| [sizes[0], 1];
        Self {
            kernel: rows(self.kernel),
            stride: rows(self.stride),
            dilation: rows(self.dilation),
            padding: [top, 0, bottom, 0],
        }
    }

    fn attributes(&self) -> Vec<AttributeProto> {
        vec![
            ints("kernel_shape", &self.kernel),
            ints("strides", &self.stride),
            ints("dilations", &self.dilation),
            ints("pads", &self.padding),
        ]
    }
}

/// A model under construction; only its first shape and those of convolutions are known here,
/// the others are asked of the importer.
struct Builder {
    graph: GraphProto,
    last: String,
}

impl Builder {
    fn new([channels, height, width]: [usize; 3]) -> Self {
        let dim = [1, channels, height, width];
        let dim = dim.map(|dim| Dimension { dim_value: Some(dim as i64), dim_param: None });
        let shape = Some(TensorShape { dim: dim.to_vec() });
        let tensor_type = TensorType { elem_type: Some(data_type::FLOAT), shape };
        let input = ValueInfoProto {
            name: Some("x".to_owned()),
            r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
        };
        let graph = GraphProto { input: vec![input], ..GraphProto::default() };
        Self { graph, last: "x".to_owned() }
    }

    /// Channels, height and width of the last tensor.
    fn shape(&self) -> [usize; 3] {
        match self.build() {
            Some(model) => model.outputs()[0].shape[1..].try_into().unwrap(),
            None => {
                let shape = self.graph.input[0].r#type.as_ref().unwrap().tensor_type.as_ref();
                let dims = &shape.unwrap().shape.as_ref().unwrap().dim;
                [1, 2, 3].map(|i| dims[i].dim_value.unwrap() as usize)
            }
        }
    }

    fn build(&self) -> Option<Model> {
        let mut graph = self.graph.clone();
        graph.output.push(ValueInfoProto { name: Some(self.last.clone()), r#type: None });
        let proto = ModelProto {
            graph: Some(graph),
            opset_import: vec![OperatorSetId { domain: None, version: Some(19) }],
            ..ModelProto::default()
        };
        Model::parse(proto.encode_to_vec().into(), "random").ok()
    }

    /// Adds what the step says, or nothing if that does not make a model.
    fn add(&mut self, step: &Step) {
        let (before, last) = (self.graph.clone(), self.last.clone());
        self.last = self.step(step, &last);
        if self.build().is_none() {
            (self.graph, self.last) = (before, last);
        }
    }

    fn step(&mut self, step: &Step, last: &str) -> String {
        let [channels, ..] = self.shape();
        match step {
            Step::AddChannels => {
                let constant = self.weight(&[1, channels, 1, 1]);
                self.node("Add", &[&constant, last], Vec::new())
            }
            Step::AveragePool { window, ceil, include } => {
                let mut attributes = window.attributes();
                attributes.push(int("ceil_mode", i64::from(*ceil)));
                attributes.push(int("count_include_pad", i64::from(*include)));
                self.node("AveragePool", &[last], attributes)
            }
            Step::BatchNorm => {
                let names = [0; 4].map(|_| self.weight(&[channels]));
                let variance = self.graph.initializer.last_mut().unwrap();
                variance.float_data.iter_mut().for_each(|value| *value = 1.0 + *value * *value);
                let inputs: Vec<&str> =
                    std::iter::once(last).chain(names.iter().map(|name| &name[..])).collect();
                self.node("BatchNormalization", &inputs, Vec::new())
            }
            Step::Branches { kernel, stride, dilation } => {
                let left = self.conv(last, &Window::same(*kernel, *stride, *dilation), 1, 2);
                let right = self.conv(last, &Window::same(1, *stride, 1), 1, 2);
                self.node("Add", &[&left, &right], Vec::new())
            }
            Step::Concat { kernel } => {
                let left = self.conv(last, &Window::same(*kernel, 1, 1), 1, 2);
                let right = self.conv(last, &Window::same(1, 1, 1), 1, 1);
                self.node("Concat", &[&left, last, &right], vec![int("axis", 1)])
            }
            Step::Conv { window, groups, filters } => match groups {
                Groups::Depthwise => self.conv(last, window, channels, channels),
                Groups::One => self.conv(last, window, 1, *filters),
                Groups::Two => self.conv(last, window, 2, 2 * filters),
            },
            Step::Gate => {
                let mean = self.node("GlobalAveragePool", &[last], Vec::new());
                let gate = self.node("Sigmoid", &[&mean], Vec::new());
                self.node("Mul", &[last, &gate], Vec::new())
            }
            Step::LeakyRelu => {
                let alpha = AttributeProto {
                    name: Some("alpha".to_owned()),
                    f: Some(0.25),
                    ..AttributeProto::default()
                };
                self.node("LeakyRelu", &[last], vec![alpha])
            }
            Step::MaxPool { window, ceil } => {
                let mut attributes = window.attributes();
                attributes.push(int("ceil_mode", i64::from(*ceil)));
                self.node("MaxPool", &[last], attributes)
            }
            Step::Relu => self.node("Relu", &[last], Vec::new()),
            Step::Residual { kernel } => {
                let body = self.conv(last, &Window::same(*kernel, 1, 1), 1, channels);
                let body = self.node("Relu", &[&body], Vec::new());
                let body = self.conv(&body, &Window::same(*kernel, 1, 1), 1, channels);
                self.node("Add", &[last, &body], Vec::new())
            }
            Step::Shifted => {
                let mean = self.node("GlobalAveragePool", &[last], Vec::new());
                self.node("Add", &[last, &mean], Vec::new())
            }
            Step::Shuffle => {
                let left = self.node("Split", &[last], vec![int("axis", 1), int("num_outputs", 2)]);
                let right = format!("{left}_right");
                let split = self.graph.node.last_mut().unwrap();
                split.output.push(right.clone());
                let left = self.node("Abs", &[&left], Vec::new());
                self.node("Concat", &[&right, &left], vec![int("axis", 1)])
            }
            Step::Softmax { axis } => self.node("Softmax", &[last], vec![int("axis", *axis)]),
        }
    }

    fn conv(&mut self, input: &str, window: &Window, groups: usize, filters: usize) -> String {
        let [channels, ..] = self.shape();
        let [height, width] = window.kernel;
        let weight = self.weight(&[filters, channels.div_ceil(groups), height, width]);
        let bias = self.weight(&[filters]);
        let mut attributes = window.attributes();
        attributes.push(int("group", groups as i64));
        self.node("Conv", &[input, &weight, &bias], attributes)
    }

    fn node(&mut self, op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = format!("t{}", self.graph.node.len());
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.clone()],
            op_type: Some(op.to_owned()),
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// Weights that keep activations at about their size.
    fn weight(&mut self, dims: &[usize]) -> String {
        let count = dims.iter().product();
        let size = (dims.iter().skip(1).product::<usize>() as f32).sqrt().recip();
        let name = format!("w{}", self.graph.initializer.len());
        let values = values(count, self.graph.initializer.len() as u64);
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(data_type::FLOAT),
            float_data: values.iter().map(|value| value * 1.7 * size).collect(),
            ..TensorProto::default()
        });
        name
    }
}

/// Values from -1 to 1 that look random and are the same everywhere.
pub(crate) fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A tensor of such values.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_f32(shape.to_vec(), values(shape.iter().product(), seed)).unwrap()
}

pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), i: Some(value), ..AttributeProto::default() }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.iter().map(|&value| value as i64).collect(),
        ..AttributeProto::default()
    }
}
