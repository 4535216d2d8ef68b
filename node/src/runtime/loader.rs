//! Getting a piece ready: fetch its slice and its weights from whoever has them, verify, cache,
//! load. On the other side: cut a model into slices and keep them for others to fetch.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{StreamExt, TryStreamExt, stream};
use libp2p_stream::Control;
use starling_engine::{
    Bytes, Hash, LoadError, LoadOptions, Mapped, Memory, Model, Piece, WeightSource,
};
use starling_protocol::{
    BlobId, NodeId, PieceId,
    host::LoadOrder,
    model::Work,
    plan::{self, Plan},
    rows::RowRange,
    wire::FailureReason,
};
use tempfile::NamedTempFile;
use tokio::{
    fs::File,
    sync::{Semaphore, mpsc},
};

use super::{Inner, edges::Frontier};
use crate::{
    convert,
    net::blobs::{self, FetchError},
    store::{BlobStore, Found, Library, ProviderId},
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
pub(super) struct Made {
    piece: Arc<Piece>,
    known: Known,
}

#[derive(Clone)]
struct Known {
    layers: usize,
    work: Work,
    inputs: Frontier,
    outputs: Frontier,
}

/// A piece by what it computes.
pub(super) type Computed = (BlobId, Vec<RowRange>);

/// An order that was carried out, or why it could not be.
pub(super) struct Outcome {
    pub(super) piece: PieceId,
    pub(super) epoch: u32,
    pub(super) result: Result<Loaded, FailureReason>,
}

impl Loaded {
    /// A piece with the neighbours that an order names.
    ///
    /// # Errors
    /// If it has other layers than the order says, or they would get other rows than it makes, or
    /// send other rows than it takes.
    fn new(order: LoadOrder, made: Made) -> Result<Self, FailureReason> {
        let Known { layers, work, inputs, outputs } = made.known;
        if layers != usize::from(order.layers.len()) {
            tracing::warn!(piece = %order.piece, "not as many layers as the install says");
            return Err(FailureReason::BadSlice);
        }
        let fits = inputs.is_covered_by(&order.sources)
            && order.targets.iter().all(|target| outputs.has(target));
        if !fits {
            tracing::warn!(piece = %order.piece, "an install whose neighbours' rows don't fit");
            return Err(FailureReason::BadSlice);
        }
        Ok(Self { order, piece: made.piece, work, inputs, outputs })
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
    shared: Arc<Shared>,
    sessions: HashMap<u64, (ProviderId, Vec<BlobId>)>,
    // A change of epoch or of neighbours needs no new load. Weak: a piece goes with its last host.
    loaded: HashMap<Computed, (Weak<Piece>, Known)>,
    // The orders that wait for the same load; the last of each piece.
    loading: HashMap<Computed, Vec<LoadOrder>>,
}

/// What all loads of a node share, however many pieces it is told to load at once: a small machine
/// has memory for the buffers of a few streams, and for one piece in the making.
struct Shared {
    fetches: Semaphore,
    /// Bytes of weights of all pieces that the node has agreed to compute, as they are in files.
    promised: AtomicU64,
    /// The pieces that there are. Who has the lock makes one more.
    packing: tokio::sync::Mutex<Vec<Weak<Piece>>>,
}

impl Loader {
    pub(super) fn new(
        library: Arc<Library>,
        control: Control,
        swarm: String,
        memory: u64,
        options: LoadOptions,
    ) -> Self {
        let (sessions, loaded, loading) = Default::default();
        let shared = Arc::new(Shared {
            fetches: Semaphore::new(FETCHES_AT_ONCE),
            promised: AtomicU64::new(0),
            packing: tokio::sync::Mutex::default(),
        });
        Self { library, control, swarm, memory, options, shared, sessions, loaded, loading }
    }

    /// Carries out an order in the background. What comes of it is for
    /// [`finish`](Self::finish). The node has promised to hold so many bytes of weights by now.
    pub(super) fn load(
        &mut self,
        order: LoadOrder,
        promised: u64,
        holders: Vec<NodeId>,
        inner: mpsc::UnboundedSender<Inner>,
    ) {
        self.shared.promised.store(promised, Ordering::Relaxed);
        self.loaded.retain(|_, (piece, _)| piece.strong_count() > 0);
        let computed: Computed = (order.slice, order.rows.clone());
        let waiting = self.loading.entry(computed.clone()).or_default();
        let is_loading = !waiting.is_empty();
        waiting.retain(|other| other.piece != order.piece);
        waiting.push(order.clone());
        if is_loading {
            // Weights can take minutes to come: they are not fetched again for a new epoch.
            return;
        }
        let known = self.loaded.get(&computed);
        let made = known.and_then(|(piece, known)| {
            Some(Made { piece: piece.upgrade()?, known: known.clone() })
        });
        if let Some(made) = made {
            inner.send(Inner::Loaded { computed, result: Ok(made) }).ok();
            return;
        }
        let task = Fetching {
            library: self.library.clone(),
            control: self.control.clone(),
            swarm: self.swarm.clone(),
            // The requester has everything; others may be nearer or less busy, but come second.
            sources: sources(order.piece.session.requester, holders),
            memory: self.memory,
            options: self.options,
            shared: self.shared.clone(),
        };
        tokio::spawn(async move {
            let piece = order.piece;
            let result = task.run(order).await;
            if let Err(reason) = &result {
                tracing::warn!(%piece, ?reason, "a piece could not be loaded");
            }
            inner.send(Inner::Loaded { computed, result }).ok();
        });
    }

    /// Answers the orders that waited for a load.
    pub(super) fn finish(
        &mut self,
        computed: Computed,
        result: &Result<Made, FailureReason>,
    ) -> Vec<Outcome> {
        let orders = self.loading.remove(&computed).unwrap_or_default();
        if let Ok(Made { piece, known }) = result {
            self.loaded.insert(computed, (Arc::downgrade(piece), known.clone()));
        }
        let outcome = |order: LoadOrder| {
            let (piece, epoch) = (order.piece, order.epoch);
            Outcome {
                piece,
                epoch,
                result: result.clone().and_then(|made| Loaded::new(order, made)),
            }
        };
        orders.into_iter().map(outcome).collect()
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
            let pieces = plan.segment(segment).map(|piece| &plan.pieces()[usize::from(piece)]);
            let mut before: Option<Bytes> = None;
            let slices: Vec<CutSlice> = pieces
                .map(|piece| {
                    let onnx = slice_of(&model, piece);
                    // Strips of images share a slice; those of features have their own weights.
                    let same = before.take().filter(|before| *before == onnx).unwrap_or(onnx);
                    before = Some(same.clone());
                    CutSlice { onnx: same }
                })
                .collect();
            slices
        };
        let slices = (0..plan.segments()).flat_map(cut).collect();
        inner.send(Inner::Sliced { session, plan, slices }).ok();
    });
}

fn slice_of(model: &Model, piece: &plan::Piece) -> Bytes {
    let layers = usize::from(piece.layers.first)..usize::from(piece.layers.end);
    let rows = convert::engine_rows(&piece.rows);
    let own = piece.is_strip().then(|| model.slice_rows(layers.clone(), &rows).ok()).flatten();
    own.unwrap_or_else(|| model.slice(layers)).onnx
}

struct Fetching {
    library: Arc<Library>,
    control: Control,
    swarm: String,
    sources: Vec<NodeId>,
    memory: u64,
    options: LoadOptions,
    shared: Arc<Shared>,
}

impl Fetching {
    async fn run(self, order: LoadOrder) -> Result<Made, FailureReason> {
        let slice_bytes = u64::from(order.slice_bytes);
        if slice_bytes > SLICE_BYTES_MAX {
            return Err(FailureReason::BadSlice);
        }
        let onnx = self.get(order.slice, slice_bytes).await?.bytes();
        let needed = Model::slice_weights(&onnx).map_err(|error| {
            tracing::warn!(piece = %order.piece, %error, "a slice that is none");
            FailureReason::BadSlice
        })?;
        let total = needed.iter().fold(0_u64, |sum, weight| sum.saturating_add(weight.bytes));
        if total > self.memory {
            tracing::warn!(piece = %order.piece, total, "more weights than --memory allows");
            return Err(FailureReason::Weights);
        }
        let fetched: HashMap<Hash, Found> = stream::iter(needed)
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
        let mut held = self.shared.packing.lock().await;
        held.retain(|piece| piece.strong_count() > 0);
        let promised = self.shared.promised.load(Ordering::Relaxed);
        let there = held.iter().filter_map(Weak::upgrade);
        let there: Vec<(u64, Memory)> =
            there.map(|piece| (piece.weight_bytes(), piece.memory())).collect();
        let memory = Some(memory_left(self.memory, promised, total, &there));
        let options = LoadOptions { memory, ..self.options };
        let made =
            tokio::task::spawn_blocking(move || prepare(&order, onnx, &Fetched(fetched), options));
        let made = made.await.map_err(|_| FailureReason::BadSlice)??;
        held.push(Arc::downgrade(&made.piece));
        Ok(made)
    }

    /// From memory or disk, else from the first source that has it.
    async fn get(&self, id: BlobId, length: u64) -> Result<Found, FailureReason> {
        let library = self.library.clone();
        let here = tokio::task::spawn_blocking(move || library.find(&id)).await.ok().flatten();
        if let Some(found) = here {
            return Ok(found);
        }
        let _turn = self.shared.fetches.acquire().await.map_err(|_| FailureReason::Weights)?;
        // A connection may close under a fetch, such as one of two that were dialled at once.
        for source in self.sources.iter().chain(&self.sources) {
            match self.fetch(*source, id, length).await {
                Ok(found) => return Ok(found),
                Err(error) => tracing::debug!(%source, %id, %error, "blob not fetched"),
            }
        }
        tracing::warn!(%id, "no node gave this blob with the right bytes");
        Err(FailureReason::Weights)
    }

    /// Through the store if it is there for such a blob, so that no machine has to hold weights
    /// twice, as they come and packed.
    async fn fetch(&self, from: NodeId, id: BlobId, length: u64) -> Result<Found, FetchError> {
        let store = self.library.store();
        if let Some((store, file)) = store.and_then(|store| Some((store, store.receive(length)?))) {
            match self.fetch_to_store(from, id, length, store.clone(), file).await {
                Err(FetchError::Disk(error)) => {
                    tracing::warn!(%id, %error, "blob not cached: it takes memory instead");
                }
                done => return done,
            }
        }
        let mut control = self.control.clone();
        let bytes = blobs::fetch(&mut control, &self.swarm, from, id, length).await?;
        self.cache(id, bytes.clone());
        Ok(Found::Memory(bytes))
    }

    async fn fetch_to_store(
        &self,
        from: NodeId,
        id: BlobId,
        length: u64,
        store: Arc<BlobStore>,
        file: NamedTempFile,
    ) -> Result<Found, FetchError> {
        let mut control = self.control.clone();
        let mut writer = File::from_std(file.reopen().map_err(FetchError::Disk)?);
        blobs::fetch_to_file(&mut control, &self.swarm, from, id, length, &mut writer).await?;
        let kept = tokio::task::spawn_blocking(move || store.keep(&id, file));
        kept.await.map_err(io::Error::other).flatten().map_err(FetchError::Disk)
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

/// What a node's memory leaves a piece with so many bytes of weights, beside pieces that are there
/// and those that are promised and still to come. Above it, a piece is loaded with kernels that
/// take less. `there` has each piece's weights as they are in files, and what it holds; in bytes.
fn memory_left(memory: u64, promised: u64, weights: u64, there: &[(u64, Memory)]) -> u64 {
    let counted = there.iter().fold(weights, |sum, (weights, _)| sum.saturating_add(*weights));
    let to_come = promised.saturating_sub(counted);
    there.iter().fold(memory.saturating_sub(to_come), |left, (_, held)| {
        left.saturating_sub(held.weights).saturating_sub(held.activations)
    })
}

struct Fetched(HashMap<Hash, Found>);

impl WeightSource for Fetched {
    fn weight(&self, hash: &Hash) -> Option<Bytes> {
        self.0.get(hash).map(Found::bytes)
    }

    fn mapped(&self) -> Vec<Mapped> {
        let mapped = self.0.values().filter_map(|found| match found {
            Found::File(mapped) => Some(mapped.clone()),
            Found::Memory(_) => None,
        });
        mapped.collect()
    }
}

fn prepare(
    order: &LoadOrder,
    onnx: Bytes,
    weights: &Fetched,
    options: LoadOptions,
) -> Result<Made, FailureReason> {
    let refuse = |error: &dyn std::fmt::Display| {
        tracing::warn!(piece = %order.piece, %error, "the engine refuses a slice");
        FailureReason::BadSlice
    };
    let model = Model::parse_slice(onnx, weights).map_err(|error| refuse(&error))?;
    load(&model, &order.rows, options).map_err(|error| refuse(&error))
}

/// Loads a slice, for these rows of what it makes or for all.
fn load(model: &Model, rows: &[RowRange], options: LoadOptions) -> Result<Made, LoadError> {
    let layers = 0..model.layers().len();
    let (before, after) = (model.frontier(0), model.frontier(layers.end));
    let (piece, work, inputs, outputs) = if rows.is_empty() {
        let piece = Piece::load(model, layers, options)?;
        let work = convert::total_work(&model.profile());
        (piece, work, Frontier::whole(before), Frontier::whole(after))
    } else {
        let rows = convert::engine_rows(rows);
        // A slice may have just these features of a tensor, while others count all that there are.
        let here = model.rows_in_slice(&rows);
        let piece = Piece::load_rows(model, layers.clone(), &here, options)?;
        let cost = model.strip_cost(layers, &here)?;
        let inputs = Frontier::strip(before, &cost.input_rows);
        (piece, Work(cost.work), inputs, Frontier::strip(after, &rows))
    };
    let known = Known { layers: model.layers().len(), work, inputs, outputs };
    Ok(Made { piece: Arc::new(piece), known })
}

fn sources(requester: NodeId, mut holders: Vec<NodeId>) -> Vec<NodeId> {
    holders.retain(|holder| *holder != requester);
    holders.truncate(HOLDERS_MAX);
    holders.insert(0, requester);
    holders
}

/// A slice holds a graph and its smallest weights, no more.
const SLICE_BYTES_MAX: u64 = 16 << 20;
/// Of all pieces together: each stream has buffers of its own.
const FETCHES_AT_ONCE: usize = 4;
/// How many holders besides the requester are asked for a blob.
const HOLDERS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_kernels_take_no_memory_from_pieces_that_are_still_to_come() {
        let fast = (7, Memory { weights: 28, activations: 2 });
        let check = |promised: u64, there: &[(u64, Memory)], expected: u64| {
            assert_eq!(memory_left(100, promised, 10, there), expected, "{promised} {there:?}");
        };
        check(10, &[], 100);
        check(17, &[fast], 70);
        check(80, &[], 30);
        check(80, &[fast], 7);
        // What is promised no longer may still be there.
        check(10, &[fast], 70);
        check(u64::MAX, &[fast], 0);
    }
}
