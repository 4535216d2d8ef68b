//! A case of the suite: a model of one operator, what goes in, and what must come out.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use starling_engine::{Bytes, DType, Tensor};

/// A folder of the suite.
pub(crate) struct Case {
    pub(crate) name: String,
    folder: PathBuf,
    pub(crate) model: Bytes,
    graph: Graph,
}

/// A value of a case: one of the graph's inputs or outputs.
pub(crate) struct Value {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Bytes,
}

impl Value {
    /// The value as the engine's tensor, which cannot be empty.
    pub(crate) fn tensor(&self) -> Result<Tensor, String> {
        Tensor::from_bytes(self.dtype, self.shape.clone(), self.bytes.clone())
            .map_err(|error| error.to_string())
    }
}

impl Case {
    /// Reads the cases of a folder, in the order of their names.
    pub(crate) fn all(folder: &Path) -> Result<Vec<Self>, String> {
        let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
        let mut folders: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.join("model.onnx").is_file())
            .collect();
        folders.sort();
        folders.iter().map(|folder| Self::read(folder)).collect()
    }

    fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("model.onnx");
        let model = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let model = Bytes::from(model);
        let graph = Model::decode(model.clone()).ok().and_then(|model| model.graph);
        let graph = graph.ok_or_else(|| format!("{} is no model", path.display()))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, folder: folder.to_owned(), model, graph })
    }

    /// The operators that the model is made of; those of other domains with the domain's name.
    pub(crate) fn operators(&self) -> Vec<String> {
        let name = |node: &Node| match node.domain.as_deref() {
            None | Some("" | "ai.onnx") => node.op_type.clone().unwrap_or_default(),
            Some(domain) => format!("{domain}.{}", node.op_type.as_deref().unwrap_or_default()),
        };
        let mut operators: Vec<String> = self.graph.node.iter().map(name).collect();
        operators.sort();
        operators.dedup();
        operators
    }

    /// Whether all inputs and outputs are tensors of the engine's types.
    pub(crate) fn has_known_types(&self) -> bool {
        let types = self.graph.input.iter().chain(&self.graph.output).map(|info| {
            let kind = info.r#type.as_ref()?.tensor_type.as_ref()?.elem_type?;
            dtype(kind)
        });
        types.into_iter().all(|dtype| dtype.is_some())
    }

    /// The names of all that a tensor is computed of.
    pub(crate) fn sources(&self, tensor: &str) -> HashSet<String> {
        let mut sources = HashSet::from([tensor.to_owned()]);
        // Nodes are in topological order.
        for node in self.graph.node.iter().rev() {
            if node.output.iter().any(|output| sources.contains(output)) {
                sources.extend(node.input.iter().cloned());
            }
        }
        sources
    }

    /// What goes in.
    pub(crate) fn inputs(&self) -> Result<Vec<Value>, String> {
        self.values("input", &self.graph.input)
    }

    /// What must come out.
    pub(crate) fn outputs(&self) -> Result<Vec<Value>, String> {
        self.values("output", &self.graph.output)
    }

    fn values(&self, kind: &str, infos: &[ValueInfo]) -> Result<Vec<Value>, String> {
        let named = infos.iter().enumerate();
        named
            .map(|(i, info)| {
                let path = self.folder.join(format!("test_data_set_0/{kind}_{i}.pb"));
                let bytes = fs::read(&path).map_err(|error| format!("{kind} {i}: {error}"))?;
                let proto = TensorProto::decode(&bytes[..]).map_err(|error| error.to_string())?;
                proto.value(info.name.clone().unwrap_or_default())
            })
            .collect()
    }
}

/// `TensorProto.DataType` as one of the engine's types.
fn dtype(code: i32) -> Option<DType> {
    match code {
        1 => Some(DType::F32),
        6 => Some(DType::I32),
        7 => Some(DType::I64),
        9 => Some(DType::Bool),
        _ => None,
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, optional, tag = "4")]
    op_type: Option<String>,
    #[prost(string, optional, tag = "7")]
    domain: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ValueInfo {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TensorType {
    #[prost(int32, optional, tag = "1")]
    elem_type: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    data_type: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    raw_data: Option<Bytes>,
}

impl TensorProto {
    fn value(self, name: String) -> Result<Value, String> {
        let code = self.data_type.unwrap_or_default();
        let dtype = dtype(code).ok_or_else(|| format!("{name} is of type {code}"))?;
        let bytes = match (self.raw_data, dtype) {
            (Some(raw), _) => raw,
            (None, DType::F32) => self.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            (None, DType::I64) => self.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            (None, DType::I32) => self.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            (None, DType::Bool) => self.int32_data.iter().map(|&v| u8::from(v != 0)).collect(),
        };
        let shape = self.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
        Ok(Value { name, dtype, shape, bytes })
    }
}
