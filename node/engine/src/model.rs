//! A model: what was imported from a file or a slice, and the questions one can ask it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::Hash;
use crate::error::{ImportError, RowsError};
use crate::graph::{Layer, TensorId};
use crate::mapped::Mapped;
use crate::onnx::import::{self, Graph};
use crate::onnx::proto::ModelProto;
use crate::onnx::reader;
use crate::options::ImportOptions;
use crate::profile::{self, Profile};
use crate::rows::RowRange;
use crate::rows::plan::RowTable;
use crate::slice::{self, Slice};
use crate::tensor::TensorInfo;
use crate::weights::{Part, WeightRef, WeightSource};

/// An imported ONNX model, or a slice of one. Cheap to clone.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    name: String,
    bytes: Bytes,
    /// The files that its bytes and weights are in, if any.
    mapped: Vec<Mapped>,
    /// What tells the model from others of the same bytes with other fixed inputs.
    fixed: Vec<u8>,
    id: OnceLock<Hash>,
    graph: Graph,
    /// The tensors alive across each cut.
    frontiers: Vec<Frontier>,
    /// The bytes of every weight that slices name by hash; hashed when first asked for.
    weights: OnceLock<HashMap<Hash, Bytes>>,
    /// The parts of weights that slices of strips name.
    parts: Mutex<HashMap<Hash, Part>>,
    /// What strips need to know of the layers; made when first asked for.
    rows: OnceLock<RowTable>,
}

/// The tensors alive across a cut.
struct Frontier {
    ids: Vec<TensorId>,
    tensors: Vec<TensorInfo>,
}

impl Model {
    /// Maps an ONNX file into memory and imports it. The model's name is that of the file,
    /// without `.onnx`.
    ///
    /// The file must not change as long as the model is used: replace it by renaming another
    /// over it, which leaves the mapped one alone.
    ///
    /// # Errors
    /// When the file cannot be read, is not an ONNX model, or not one that this engine runs.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let read_error = |source| ImportError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        if !file.metadata().map_err(read_error)?.is_file() {
            return Err(read_error(std::io::Error::other("it is not a file")));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mapped = Mapped::open(&file).map_err(read_error)?;
        let mut model = Self::import(mapped.bytes(), &name, None, &ImportOptions::default())?;
        let inner = Arc::get_mut(&mut model.0).expect("nobody else has the new model yet");
        inner.mapped = vec![mapped];
        Ok(model)
    }

    /// Imports a model from memory, such as one embedded in the program.
    ///
    /// # Errors
    /// When the bytes are not an ONNX model, or not one that this engine runs.
    pub fn parse(bytes: Bytes, name: &str) -> Result<Self, ImportError> {
        Self::parse_with(bytes, name, &ImportOptions::default())
    }

    /// Imports a model from memory, with options.
    ///
    /// # Errors
    /// When the bytes are not an ONNX model, not one that this engine runs, or lack an input that
    /// is to be fixed.
    pub fn parse_with(
        bytes: Bytes,
        name: &str,
        options: &ImportOptions,
    ) -> Result<Self, ImportError> {
        Self::import(bytes, name, None, options)
    }

    /// Imports a slice, made by [`slice`](Self::slice) on this or another machine, with the
    /// weights that it names. The model's name is the one that the slice carries.
    ///
    /// # Errors
    /// When the bytes are not a slice that this engine runs, or a weight is not at hand.
    pub fn parse_slice(onnx: Bytes, weights: &dyn WeightSource) -> Result<Self, ImportError> {
        Self::import(onnx, "", Some(weights), &ImportOptions::default())
    }

    /// The weights that a slice needs, each once, before any of them is at hand.
    ///
    /// # Errors
    /// When the bytes are not an ONNX model, or name their weights in another way.
    pub fn slice_weights(onnx: &Bytes) -> Result<Vec<WeightRef>, ImportError> {
        slice::weights(onnx)
    }

    fn import(
        bytes: Bytes,
        name: &str,
        source: Option<&dyn WeightSource>,
        options: &ImportOptions,
    ) -> Result<Self, ImportError> {
        let label = if name.is_empty() { "the slice" } else { name };
        let proto: ModelProto = reader::decode(&bytes, label)?;
        let own_name = proto.graph.as_ref().and_then(|graph| graph.name.clone());
        let name = if name.is_empty() { own_name.unwrap_or_default() } else { name.to_owned() };
        let graph = import::import(proto, source, options)?;
        let mapped = source.map(WeightSource::mapped).unwrap_or_default();
        Self::new(name, bytes, mapped, options.digest(), graph)
    }

    /// Layers made from this model's, of less height: what a strip runs. Nobody cuts slices out
    /// of it, so it may do without the nodes.
    pub(crate) fn derive(&self, graph: Graph) -> Result<Self, ImportError> {
        let Inner { name, bytes, fixed, mapped, .. } = &*self.0;
        Self::new(name.clone(), bytes.clone(), mapped.clone(), fixed.clone(), graph)
    }

    fn new(
        name: String,
        bytes: Bytes,
        mapped: Vec<Mapped>,
        fixed: Vec<u8>,
        graph: Graph,
    ) -> Result<Self, ImportError> {
        let info = |id: &TensorId| graph.tensors[id.0].clone();
        let frontier =
            |ids: Vec<TensorId>| Frontier { tensors: ids.iter().map(info).collect(), ids };
        let frontiers = profile::frontiers(&graph)?.into_iter().map(frontier).collect();
        Ok(Self(Arc::new(Inner {
            name,
            bytes,
            mapped,
            fixed,
            id: OnceLock::new(),
            graph,
            frontiers,
            weights: OnceLock::new(),
            parts: Mutex::default(),
            rows: OnceLock::new(),
        })))
    }

    /// What names the model everywhere: the blake3 hash of its bytes, and of the values of inputs
    /// that were fixed when it was read.
    pub fn id(&self) -> Hash {
        let hash = || {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.0.bytes).update(&self.0.fixed);
            hasher.finalize()
        };
        *self.0.id.get_or_init(hash)
    }

    /// The bytes that it was imported from; a whole file includes its weights.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The layers in the order they run; each takes only what earlier ones made.
    pub fn layers(&self) -> &[Layer] {
        &self.0.graph.layers
    }

    /// What goes in.
    pub fn inputs(&self) -> &[TensorInfo] {
        self.frontier(0)
    }

    /// What comes out.
    pub fn outputs(&self) -> &[TensorInfo] {
        self.frontier(self.layers().len())
    }

    /// The tensors alive across a cut, in the order that pieces take and give them.
    ///
    /// Cut `i` is before layer `i`: 0 is the inputs, `layers().len()` the outputs.
    ///
    /// # Panics
    /// When there is no such cut.
    pub fn frontier(&self, cut: usize) -> &[TensorInfo] {
        &self.0.frontiers[cut].tensors
    }

    /// A tensor that a layer takes or makes.
    ///
    /// # Panics
    /// When the id is of another model.
    pub fn tensor(&self, id: TensorId) -> &TensorInfo {
        &self.0.graph.tensors[id.0]
    }

    /// What each layer costs, and what crosses each cut.
    pub fn profile(&self) -> Profile {
        profile::profile(self)
    }

    /// Cuts out a range of layers, as ONNX.
    ///
    /// # Panics
    /// When the range is empty or goes beyond the layers.
    pub fn slice(&self, layers: Range<usize>) -> Slice {
        assert!(
            layers.start < layers.end && layers.end <= self.layers().len(),
            "layers {layers:?} are not a slice of {} layers",
            self.layers().len()
        );
        slice::cut(self, layers)
    }

    /// Cuts out a range of layers for some rows of what they make, one range for each tensor of
    /// [`frontier`](Self::frontier) after them.
    ///
    /// Where fully connected layers are divided by their features, the slice names the strip's
    /// share of their weights alone, and what they make in it has just the strip's features: rows
    /// of the model are rows of the slice by [`rows_in_slice`](Self::rows_in_slice). Otherwise it is
    /// the [slice](Self::slice) of all rows, which strips of images share.
    ///
    /// # Errors
    /// When the layers are not a range of the model, or the rows not one range for each tensor
    /// alive after them.
    pub fn slice_rows(&self, layers: Range<usize>, rows: &[RowRange]) -> Result<Slice, RowsError> {
        let (slice, parts) = slice::cut_rows(self, layers, rows)?;
        let mut known = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(parts.into_iter().map(|part| (part.hash, part)));
        Ok(slice)
    }

    /// Which rows of this slice are these of the model that it is of: all features of a tensor of
    /// which it has as many as there are.
    pub fn rows_in_slice(&self, rows: &[RowRange]) -> Vec<RowRange> {
        let made = self.outputs();
        let here = |(rows, info): (&RowRange, &TensorInfo)| match info.shape[..] {
            [1, features] if rows.len() == features => RowRange::new(0, features),
            _ => *rows,
        };
        let beyond = rows.iter().skip(made.len()).copied();
        rows.iter().zip(made).map(here).chain(beyond).collect()
    }

    /// The bytes of a weight of this model, shared and not copied, but for parts of those that are
    /// stored with the depth first.
    ///
    /// Finds the weights that slices name by hash; smaller ones travel inside the slice.
    pub fn weight(&self, hash: &Hash) -> Option<Bytes> {
        let part = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned();
        if let Some(part) = part {
            return Some(part.bytes());
        }
        let hashed = || {
            let constants =
                self.0.graph.constants.values().filter(|constant| !constant.is_inline());
            constants.map(|constant| (constant.hash(), constant.data.clone())).collect()
        };
        self.0.weights.get_or_init(hashed).get(hash).cloned()
    }

    /// The files that it is in.
    pub(crate) fn mapped(&self) -> &[Mapped] {
        &self.0.mapped
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// The ids of [`frontier`](Self::frontier), in the same order.
    pub(crate) fn frontier_ids(&self, cut: usize) -> &[TensorId] {
        &self.0.frontiers[cut].ids
    }

    pub(crate) fn row_table(&self) -> &RowTable {
        self.0.rows.get_or_init(|| RowTable::new(self))
    }
}

impl WeightSource for Model {
    fn weight(&self, hash: &Hash) -> Option<Bytes> {
        Self::weight(self, hash)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.0.name)
            .field("inputs", &self.inputs())
            .field("outputs", &self.outputs())
            .field("layers", &self.layers().len())
            .finish_non_exhaustive()
    }
}
