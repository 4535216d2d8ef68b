//! Small networks made in code: to measure a machine, and to time a kernel by itself.

use bytes::Bytes;
use prost::Message;

use crate::model::Model;
use crate::onnx::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto,
    TensorShape, TensorType, TypeProto, ValueInfoProto, data_type,
};

/// A chain of layers in the making.
#[derive(Debug)]
pub struct Probe {
    graph: GraphProto,
    last: String,
    /// Of the last tensor; the dimension that is named second.
    channels: usize,
}

impl Probe {
    /// Starts with an input of this shape, `[batch, channels, ..]`.
    ///
    /// # Panics
    /// When there are fewer than two dimensions.
    pub fn new(shape: &[usize]) -> Self {
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
            channels: shape[1],
        }
    }

    /// A convolution with bias and rectifier; odd square kernels keep the image's size, but for the
    /// stride.
    pub fn conv(mut self, filters: usize, kernel: usize, stride: usize, groups: usize) -> Self {
        let weight = self.weight(&[filters, self.channels / groups, kernel, kernel]);
        let bias = self.weight(&[filters]);
        let mut attributes = windows(kernel, stride);
        attributes.push(int("group", groups as i64));
        self.channels = filters;
        self.node("Conv", [weight, bias], attributes).node("Relu", [], Vec::new())
    }

    /// A matrix product with bias.
    pub fn gemm(mut self, outputs: usize) -> Self {
        let weight = self.weight(&[outputs, self.channels]);
        let bias = self.weight(&[outputs]);
        self.channels = outputs;
        self.node("Gemm", [weight, bias], vec![int("transB", 1)])
    }

    /// Max pooling with a square window.
    pub fn max_pool(self, kernel: usize, stride: usize) -> Self {
        let mut attributes = windows(kernel, stride);
        attributes.push(ints("kernel_shape", &[kernel as i64; 2]));
        self.node("MaxPool", [], attributes)
    }

    /// The mean of each channel.
    pub fn global_average_pool(self) -> Self {
        self.node("GlobalAveragePool", [], Vec::new())
    }

    /// The sum of the last tensor with itself.
    pub fn add(self) -> Self {
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
        let values: Vec<f32> = (0..dims.iter().product::<usize>())
            .map(|i| ((i % 13) as f32 - 6.0) / 6.0 / fan_in.sqrt())
            .collect();
        self.graph.initializer.push(TensorProto::floats(&name, dims, &values));
        name
    }

    /// The model.
    ///
    /// # Panics
    /// When the layers do not fit each other.
    pub fn build(mut self) -> Model {
        self.graph.output.push(ValueInfoProto { name: Some(self.last), r#type: None });
        let proto = ModelProto {
            graph: Some(self.graph),
            opset_import: vec![OperatorSetId { domain: None, version: Some(13) }],
            ..ModelProto::default()
        };
        Model::parse(Bytes::from(proto.encode_to_vec()), "probe").expect("probes are valid models")
    }
}

/// Windows that keep the size of an image, but for the stride; even ones have no padding.
fn windows(kernel: usize, stride: usize) -> Vec<AttributeProto> {
    let padding = if kernel % 2 == 1 { (kernel / 2) as i64 } else { 0 };
    vec![ints("pads", &[padding; 4]), ints("strides", &[stride as i64; 2])]
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), i: Some(value), ..AttributeProto::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}
