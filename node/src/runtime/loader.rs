//! Getting a piece ready: fetch its slice and its weights from whoever has them, verify, cache,
//! load. On the other side: cut a model into slices and keep them for others to fetch.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use futures::{StreamExt, TryStreamExt, stream};
use libp2p_stream::Control;
use starling_engine::{Bytes, Hash, LoadError, LoadOptions, Model, Piece, WeightSource};
use starling_protocol::{
    BlobId, NodeId, host::LoadOrder, model::Work, plan::Plan, rows::RowRange, wire::FailureReason,
};
use tokio::sync::mpsc;

use super::{Inner, edges::Frontier};
use crate::{
    convert,
    net::blobs::{self, BlobSource},
    store::{Library, ProviderId},
};

/// A piece that is ready to run.
pub(super) struct Loaded {
    pub(super) order: LoadOrder,
    pub(super) piece: Arc<Piece>,
    pub(super) work: Work,
    /// The rows that it takes.
    pub(super) inputs: Frontier,
    /// The rows that it makes.
    pub(super) outputs: Frontier,
}

/// What the same piece is for every epoch and every neighbour.
#[derive(Clone)]
struct Known {
    piece: Weak<Piece>,
    work: Work,
    inputs: Frontier,
    outputs: Frontier,
}

/// A piece by what it computes.
type Computed = (BlobId, Vec<RowRange>);

impl Loaded {
    /// A piece with the neighbours that an order names.
    ///
    /// # Errors
    /// If they would get other rows than it makes, or send other rows than it takes.
    fn new(order: LoadOrder, piece: Arc<Piece>, known: &Known) -> Result<Self, FailureReason> {
        let Known { work, inputs, outputs, .. } = known.clone();
        let fits = inputs.is_covered_by(&order.sources)
            && order.targets.iter().all(|target| outputs.has(target));
        if !fits {
            tracing::warn!(piece = %order.piece, "an install whose neighbours' rows don't fit");
            return Err(FailureReason::BadSlice);
        }
        Ok(Self { order, piece, work, inputs, outputs })
    }

    fn known(&self) -> Known {
        let (inputs, outputs) = (self.inputs.clone(), self.outputs.clone());
        Known { piece: Arc::downgrade(&self.piece), work: self.work, inputs, outputs }
    }
}

/// A slice of an own model, ready to be served.
#[derive(Clone)]
pub(super) struct CutSlice {
    onnx: Bytes,
}

/// Loads pieces for others and serves the slices of own sessions.
pub(super) struct Loader {
    library: Arc<Library>,
    control: Control,
    swarm: String,
    memory: u64,
    options: LoadOptions,
    sessions: HashMap<u64, (ProviderId, Vec<BlobId>)>,
    // A change of epoch or of neighbours needs no new load. Weak: a piece goes with its last host.
    loaded: HashMap<Computed, Known>,
    ready: mpsc::UnboundedSender<(Computed, Known)>,
    became_ready: mpsc::UnboundedReceiver<(Computed, Known)>,
}

impl Loader {
    pub(super) fn new(
        library: Arc<Library>,
        control: Control,
        swarm: String,
        memory: u64,
        options: LoadOptions,
    ) -> Self {
        let (ready, became_ready) = mpsc::unbounded_channel();
        let (sessions, loaded) = (HashMap::new(), HashMap::new());
        Self { library, control, swarm, memory, options, sessions, loaded, ready, became_ready }
    }

    /// What `--memory` leaves beside the pieces that are loaded, in bytes: above it, a piece is
    /// loaded with kernels that take less.
    fn memory_left(&self) -> u64 {
        let held = self.loaded.values().filter_map(|known| Some(known.piece.upgrade()?.memory()));
        held.fold(self.memory, |left, memory| {
            left.saturating_sub(memory.weights + memory.activations)
        })
    }

    /// Carries out an order in the background.
    pub(super) fn load(
        &mut self,
        order: LoadOrder,
        holders: Vec<NodeId>,
        inner: mpsc::UnboundedSender<Inner>,
    ) {
        while let Ok((computed, known)) = self.became_ready.try_recv() {
            self.loaded.insert(computed, known);
        }
        self.loaded.retain(|_, known| known.piece.strong_count() > 0);
        let (piece, epoch) = (order.piece, order.epoch);
        let computed: Computed = (order.slice, order.rows.clone());
        let known = self.loaded.get(&computed);
        if let Some((known, loaded)) = known.and_then(|known| Some((known, known.piece.upgrade()?)))
        {
            let result = Loaded::new(order, loaded, known).map(Box::new);
            inner.send(Inner::Loaded { piece, epoch, result }).ok();
            return;
        }
        let task = Fetching {
            library: self.library.clone(),
            control: self.control.clone(),
            swarm: self.swarm.clone(),
            // The requester has everything; others may be nearer or less busy, but come second.
            sources: sources(order.piece.session.requester, holders),
            memory: self.memory,
            options: LoadOptions { memory: Some(self.memory_left()), ..self.options },
        };
        let ready = self.ready.clone();
        tokio::spawn(async move {
            let result = task.run(order).await;
            match &result {
                Ok(loaded) => {
                    ready.send((computed, loaded.known())).ok();
                }
                Err(reason) => tracing::warn!(%piece, ?reason, "a piece could not be loaded"),
            }
            let result = result.map(Box::new);
            inner.send(Inner::Loaded { piece, epoch, result }).ok();
        });
    }

    /// Serves the weights of a session's model.
    pub(super) fn provide(&mut self, session: u64, model: Model) {
        let source = move |id: &BlobId| model.weight(&Hash::from_bytes(id.0));
        let provider = self.library.provide(Arc::new(source));
        self.sessions.insert(session, (provider, Vec::new()));
    }

    /// Keeps a session's slices to be fetched; earlier ones stay for providers that still load.
    pub(super) fn keep(&mut self, session: u64, slices: Vec<CutSlice>) -> Vec<(BlobId, u32)> {
        let Some((_, kept)) = self.sessions.get_mut(&session) else { return Vec::new() };
        let mut ids = Vec::new();
        for slice in slices {
            let length = u32::try_from(slice.onnx.len()).unwrap_or(u32::MAX);
            if let Some(id) = self.library.insert(slice.onnx) {
                kept.push(id);
                ids.push((id, length));
            }
        }
        ids
    }

    /// Serves a session's model and slices no longer.
    pub(super) fn withdraw(&mut self, session: u64) {
        if let Some((provider, slices)) = self.sessions.remove(&session) {
            self.library.withdraw(provider);
            let shared: Vec<BlobId> =
                self.sessions.values().flat_map(|(_, slices)| slices.iter().copied()).collect();
            for slice in slices.iter().filter(|slice| !shared.contains(slice)) {
                self.library.remove(slice);
            }
        }
    }
}

/// Cuts a model, off the loop: a big graph takes a while.
pub(super) fn slice(session: u64, plan: Plan, model: Model, inner: mpsc::UnboundedSender<Inner>) {
    tokio::task::spawn_blocking(move || {
        let cut = |segment: usize| {
            let pieces = plan.segment(segment);
            let layers = plan.pieces()[usize::from(pieces.start)].layers;
            let range = usize::from(layers.first)..usize::from(layers.end);
            // Strips of the same layers share a slice.
            let slice = CutSlice { onnx: model.slice(range).onnx };
            pieces.map(move |_| slice.clone())
        };
        let slices = (0..plan.segments()).flat_map(cut).collect();
        inner.send(Inner::Sliced { session, plan, slices }).ok();
    });
}

struct Fetching {
    library: Arc<Library>,
    control: Control,
    swarm: String,
    sources: Vec<NodeId>,
    memory: u64,
    options: LoadOptions,
}

impl Fetching {
    async fn run(self, order: LoadOrder) -> Result<Loaded, FailureReason> {
        let slice_bytes = u64::from(order.slice_bytes);
        if slice_bytes > SLICE_BYTES_MAX {
            return Err(FailureReason::BadSlice);
        }
        let onnx = self.get(order.slice, slice_bytes).await?;
        let needed = Model::slice_weights(&onnx).map_err(|error| {
            tracing::warn!(piece = %order.piece, %error, "a slice that is none");
            FailureReason::BadSlice
        })?;
        let total = needed.iter().fold(0_u64, |sum, weight| sum.saturating_add(weight.bytes));
        if total > self.memory {
            tracing::warn!(piece = %order.piece, total, "more weights than --memory allows");
            return Err(FailureReason::Weights);
        }
        let fetched: HashMap<Hash, Bytes> = stream::iter(needed)
            .map(|weight| {
                let fetching = &self;
                async move {
                    let id = BlobId(*weight.hash.as_bytes());
                    Ok((weight.hash, fetching.get(id, weight.bytes).await?))
                }
            })
            .buffer_unordered(FETCHES_AT_ONCE)
            .try_collect()
            .await?;
        let options = self.options;
        tokio::task::spawn_blocking(move || prepare(order, onnx, &Fetched(fetched), options))
            .await
            .map_err(|_| FailureReason::BadSlice)?
    }

    /// From memory or disk, else from the first source that has it.
    async fn get(&self, id: BlobId, length: u64) -> Result<Bytes, FailureReason> {
        let library = self.library.clone();
        let here = tokio::task::spawn_blocking(move || library.blob(&id)).await.ok().flatten();
        if let Some(bytes) = here {
            return Ok(bytes);
        }
        // A connection may close under a fetch, such as one of two that were dialled at once.
        for source in self.sources.iter().chain(&self.sources) {
            let mut control = self.control.clone();
            match blobs::fetch(&mut control, &self.swarm, *source, id, length).await {
                Ok(bytes) => {
                    self.cache(id, bytes.clone());
                    return Ok(bytes);
                }
                Err(error) => tracing::debug!(%source, %id, %error, "blob not fetched"),
            }
        }
        tracing::warn!(%id, "no node gave this blob with the right bytes");
        Err(FailureReason::Weights)
    }

    fn cache(&self, id: BlobId, bytes: Bytes) {
        if let Some(store) = self.library.store().cloned() {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = store.put(&id, &bytes) {
                    tracing::warn!(%id, %error, "blob not cached");
                }
            });
        }
    }
}

struct Fetched(HashMap<Hash, Bytes>);

impl WeightSource for Fetched {
    fn weight(&self, hash: &Hash) -> Option<Bytes> {
        self.0.get(hash).cloned()
    }
}

fn prepare(
    order: LoadOrder,
    onnx: Bytes,
    weights: &Fetched,
    options: LoadOptions,
) -> Result<Loaded, FailureReason> {
    let refuse = |error: &dyn std::fmt::Display| {
        tracing::warn!(piece = %order.piece, %error, "the engine refuses a slice");
        FailureReason::BadSlice
    };
    let model = Model::parse_slice(onnx, weights).map_err(|error| refuse(&error))?;
    if model.layers().len() != usize::from(order.layers.len()) {
        return Err(refuse(&"not as many layers as the install says"));
    }
    let (piece, known) = load(&model, &order.rows, options).map_err(|error| refuse(&error))?;
    Loaded::new(order, piece, &known)
}

/// Loads a slice, for these rows of what it makes or for all.
fn load(
    model: &Model,
    rows: &[RowRange],
    options: LoadOptions,
) -> Result<(Arc<Piece>, Known), LoadError> {
    let layers = 0..model.layers().len();
    let (before, after) = (model.frontier(0), model.frontier(layers.end));
    let (piece, work, inputs, outputs) = if rows.is_empty() {
        let piece = Piece::load(model, layers, options)?;
        let work = convert::total_work(&model.profile());
        (piece, work, Frontier::whole(before), Frontier::whole(after))
    } else {
        let rows = convert::engine_rows(rows);
        let piece = Piece::load_rows(model, layers.clone(), &rows, options)?;
        let cost = model.strip_cost(layers, &rows)?;
        let inputs = Frontier::strip(before, &cost.input_rows);
        (piece, Work(cost.work), inputs, Frontier::strip(after, &rows))
    };
    let piece = Arc::new(piece);
    let known = Known { piece: Arc::downgrade(&piece), work, inputs, outputs };
    Ok((piece, known))
}

fn sources(requester: NodeId, mut holders: Vec<NodeId>) -> Vec<NodeId> {
    holders.retain(|holder| *holder != requester);
    holders.truncate(HOLDERS_MAX);
    holders.insert(0, requester);
    holders
}

/// A slice holds a graph and its smallest weights, no more.
const SLICE_BYTES_MAX: u64 = 16 << 20;
const FETCHES_AT_ONCE: usize = 4;
/// How many holders besides the requester are asked for a blob.
const HOLDERS_MAX: usize = 4;
