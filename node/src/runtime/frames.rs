//! Frames: those of other nodes' sessions through the pieces hosted here, and those of own
//! sessions on their way out and home.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use starling_engine::{Model, Tensor};
use starling_protocol::{
    NodeId, PieceId, SessionId, node::PieceRun, session::Agreement, wire::Hop,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{Inner, loader::Loaded};
use crate::{
    convert,
    net::{
        Frame, RESULT, Timing,
        tensors::{Arrival, TensorLinks},
    },
    work::{Done, Job, Worker},
};

/// What happens to a session of one's own.
#[derive(Clone, Debug)]
pub(crate) enum SessionNews {
    /// The auction has settled.
    Agreed(Agreement),
    /// Requests flow.
    Ready(Agreement),
    /// A provider is gone.
    ProviderLost(NodeId),
    /// It is over.
    Failed(String),
}

/// The outcome of one inference.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The model's outputs.
    pub(crate) outputs: Vec<Tensor>,
    /// Where the time went, piece by piece.
    pub(crate) trace: Vec<Timing>,
    /// From the sending of the input to the arrival of the output, replays included.
    pub(crate) total: Duration,
}

/// Passes the frames of one epoch on, in order, off the loop. A frame that can't be passed on
/// breaks its edge. What is still queued when the last handle goes is for nobody: a node that
/// hangs must not hold up the frames of the next epoch behind those that it does not take.
#[derive(Clone)]
struct Outbox {
    frames: mpsc::Sender<(NodeId, PieceId, Frame)>,
    _task: Arc<AbortOnDrop>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Outbox {
    fn start(links: TensorLinks, inner: mpsc::UnboundedSender<Inner>) -> Self {
        let (frames, mut queue) = mpsc::channel::<(NodeId, PieceId, Frame)>(OUTBOX_MAX);
        let task = tokio::spawn(async move {
            while let Some((to, piece, frame)) = queue.recv().await {
                let epoch = frame.epoch;
                if let Err(error) = links.send(to, frame).await {
                    tracing::debug!(%to, %piece, %error, "frame not passed on");
                    inner.send(Inner::EdgeFailed { piece, epoch }).ok();
                }
            }
        });
        Self { frames, _task: Arc::new(AbortOnDrop(task)) }
    }

    /// Never blocks. A full queue drops the frame: the requester's stall timer replays it.
    fn push(&self, to: NodeId, piece: PieceId, frame: Frame) {
        if self.frames.try_send((to, piece, frame)).is_err() {
            tracing::warn!(%piece, "outbox full, frame dropped");
        }
    }
}

/// The pieces hosted here.
pub(super) struct Guests {
    local: NodeId,
    hosted: HashMap<PieceId, Hosted>,
    links: TensorLinks,
    worker: Worker,
    inner: mpsc::UnboundedSender<Inner>,
}

struct Hosted {
    loaded: Loaded,
    outbox: Outbox,
}

impl Guests {
    pub(super) fn new(
        local: NodeId,
        links: TensorLinks,
        worker: Worker,
        inner: mpsc::UnboundedSender<Inner>,
    ) -> Self {
        Self { local, hosted: HashMap::new(), links, worker, inner }
    }

    /// Takes a loaded piece in, in place of its earlier epoch.
    pub(super) fn insert(&mut self, loaded: Loaded) {
        let outbox = Outbox::start(self.links.clone(), self.inner.clone());
        self.hosted.insert(loaded.order.piece, Hosted { loaded, outbox });
    }

    /// Drops a piece; what it has in the queue still runs, and goes nowhere.
    pub(super) fn remove(&mut self, piece: &PieceId) {
        self.hosted.remove(piece);
    }

    /// Queues a frame for the piece that it is for.
    pub(super) fn on_frame(&mut self, arrival: Arrival) {
        let Arrival { from, frame, transfer, credit, .. } = arrival;
        let id = PieceId { session: frame.session, index: frame.index };
        let Some(hosted) = self.hosted.get(&id) else {
            return tracing::debug!(%from, piece = %id, "frame for a piece that is not here");
        };
        let order = &hosted.loaded.order;
        let previous = match order.previous {
            Hop::Piece(node) => node,
            Hop::Requester => order.piece.session.requester,
        };
        if frame.epoch != order.epoch || from != previous {
            return tracing::debug!(%from, piece = %id, "frame of another plan");
        }
        let Ok(inputs) = convert::from_wire(frame.tensors, hosted.loaded.piece.input_info()) else {
            return tracing::warn!(%from, piece = %id, "frame with a malformed tensor");
        };
        let next = Next {
            to: match order.next {
                Hop::Piece(node) => node,
                Hop::Requester => order.piece.session.requester,
            },
            index: if order.next == Hop::Requester { RESULT } else { id.index + 1 },
            piece: id,
            epoch: frame.epoch,
            request: frame.request,
            trace: frame.trace,
            transfer,
            node: self.local,
        };
        let (outbox, inner) = (hosted.outbox.clone(), self.inner.clone());
        let work = hosted.loaded.work;
        let done = Box::new(move |done: Done| {
            // The sender may send its next frame now that this one is off the queue.
            drop(credit);
            let seconds = done.compute.as_secs_f64();
            inner.send(Inner::Ran { work, seconds }).ok();
            next.pass_on(done, &outbox);
        });
        let piece = hosted.loaded.piece.clone();
        if !self.worker.run(Job { piece, inputs, queued: Instant::now(), done }) {
            tracing::warn!(piece = %id, "compute queue full, frame dropped");
        }
    }
}

/// Where a frame goes after its piece has run.
struct Next {
    to: NodeId,
    index: u16,
    piece: PieceId,
    epoch: u32,
    request: u64,
    trace: Vec<Timing>,
    transfer: Duration,
    node: NodeId,
}

impl Next {
    fn pass_on(self, done: Done, outbox: &Outbox) {
        let outputs = match done.outputs {
            Ok(outputs) => outputs,
            Err(error) => {
                return tracing::warn!(piece = %self.piece, %error, "frame that the piece refuses");
            }
        };
        let mut trace = self.trace;
        trace.push(Timing {
            index: self.piece.index,
            node: self.node,
            transfer_us: micros(self.transfer),
            queue_us: micros(done.queue),
            compute_us: micros(done.compute),
        });
        let frame = Frame {
            session: self.piece.session,
            epoch: self.epoch,
            request: self.request,
            index: self.index,
            trace,
            tensors: outputs.into_iter().map(convert::to_wire).collect(),
        };
        outbox.push(self.to, self.piece, frame);
    }
}

/// The sessions of this node's own application.
pub(super) struct OwnSessions {
    local: NodeId,
    sessions: BTreeMap<u64, Own>,
    links: TensorLinks,
    inner: mpsc::UnboundedSender<Inner>,
    next_number: u64,
}

struct Own {
    model: Model,
    news: mpsc::UnboundedSender<SessionNews>,
    // One for each session and epoch: a stuck provider holds up no other.
    outbox: Outbox,
    pending: BTreeMap<u64, Pending>,
    next_request: u64,
    // Who computes the last piece: only its results count.
    last: Option<NodeId>,
}

struct Pending {
    inputs: Vec<Tensor>,
    // When it was first sent: before, it only waited behind others of its own session.
    sent: Option<Instant>,
    reply: oneshot::Sender<Result<Answer, String>>,
}

impl OwnSessions {
    /// `first_number` must be above those of the node's earlier lives.
    pub(super) fn new(
        local: NodeId,
        links: TensorLinks,
        inner: mpsc::UnboundedSender<Inner>,
        first_number: u64,
    ) -> Self {
        Self { local, sessions: BTreeMap::new(), links, inner, next_number: first_number }
    }

    pub(super) fn open(&mut self, model: Model) -> (u64, mpsc::UnboundedReceiver<SessionNews>) {
        let (news, told) = mpsc::unbounded_channel();
        let number = self.next_number;
        self.next_number += 1;
        let outbox = Outbox::start(self.links.clone(), self.inner.clone());
        let pending = BTreeMap::new();
        let own = Own { model, news, outbox, pending, next_request: 0, last: None };
        self.sessions.insert(number, own);
        (number, told)
    }

    pub(super) fn model(&self, session: u64) -> Option<Model> {
        self.sessions.get(&session).map(|own| own.model.clone())
    }

    pub(super) fn tell(&self, session: u64, news: SessionNews) {
        if let Some(own) = self.sessions.get(&session) {
            own.news.send(news).ok();
        }
    }

    pub(super) fn on_ready(&mut self, session: u64, agreement: Agreement) {
        if let Some(own) = self.sessions.get_mut(&session) {
            own.last = agreement.pieces.last().map(|piece| piece.provider);
            own.outbox = Outbox::start(self.links.clone(), self.inner.clone());
            own.news.send(SessionNews::Ready(agreement)).ok();
        }
    }

    /// Keeps the inputs until the output has come, and gives the request's number; nothing, and an
    /// answer that says so, where there is no such session.
    pub(super) fn infer(
        &mut self,
        session: u64,
        inputs: Vec<Tensor>,
        reply: oneshot::Sender<Result<Answer, String>>,
    ) -> Option<u64> {
        let Some(own) = self.sessions.get_mut(&session) else {
            reply.send(Err("the session is over".to_owned())).ok();
            return None;
        };
        let request = own.next_request;
        own.next_request += 1;
        own.pending.insert(request, Pending { inputs, sent: None, reply });
        Some(request)
    }

    /// Sends a request's inputs to its first piece.
    pub(super) fn send_input(&mut self, number: u64, epoch: u32, request: u64, to: NodeId) {
        let Some(own) = self.sessions.get_mut(&number) else { return };
        let Some(pending) = own.pending.get_mut(&request) else { return };
        pending.sent.get_or_insert_with(Instant::now);
        let session = SessionId { requester: self.local, number };
        let tensors = pending.inputs.iter().cloned().map(convert::to_wire).collect();
        let frame = Frame { session, epoch, request, index: 0, trace: Vec::new(), tensors };
        own.outbox.push(to, PieceId { session, index: 0 }, frame);
    }

    /// A result has come home: whose, if it is one that is waited for, and what its pieces took.
    pub(super) fn on_result(&mut self, arrival: Arrival) -> Option<(u64, u64, Vec<PieceRun>)> {
        let Arrival { from, frame, .. } = arrival;
        let (number, request) = (frame.session.number, frame.request);
        let own = self.sessions.get_mut(&number)?;
        if frame.session.requester != self.local || own.last != Some(from) {
            tracing::debug!(%from, session = %frame.session, "result from a stranger");
            return None;
        }
        let outputs = results(&own.model, frame.tensors);
        let pending = own.pending.remove(&request)?;
        let runs = frame.trace.iter().map(|timing| PieceRun {
            index: timing.index,
            provider: timing.node,
            seconds: f64::from(timing.compute_us) / 1e6,
        });
        let runs = runs.collect();
        let answer = outputs.map(|outputs| Answer {
            outputs,
            trace: frame.trace,
            total: pending.sent.map_or(Duration::ZERO, |sent| sent.elapsed()),
        });
        pending.reply.send(answer).ok();
        Some((number, request, runs))
    }

    pub(super) fn on_refused(&mut self, session: u64, request: u64) {
        let own = self.sessions.get_mut(&session);
        if let Some(pending) = own.and_then(|own| own.pending.remove(&request)) {
            pending.reply.send(Err("too many requests are waiting".to_owned())).ok();
        }
    }

    pub(super) fn end(&mut self, session: u64, reason: &str) {
        let Some(own) = self.sessions.remove(&session) else { return };
        for pending in own.pending.into_values() {
            pending.reply.send(Err(reason.to_owned())).ok();
        }
        own.news.send(SessionNews::Failed(reason.to_owned())).ok();
    }
}

fn results(model: &Model, tensors: Vec<crate::net::TensorBytes>) -> Result<Vec<Tensor>, String> {
    let outputs = convert::from_wire(tensors, model.outputs());
    let outputs = outputs.map_err(|error| format!("a result that is no tensor: {error}"))?;
    let shapes = outputs.iter().map(Tensor::shape);
    let expected = model.outputs().iter().map(|info| info.shape.as_slice());
    if shapes.eq(expected) {
        Ok(outputs)
    } else {
        Err("the last piece's provider returned tensors of the wrong shape".to_owned())
    }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

/// Frames that wait for a link. The credits and the requests' window keep this far below.
const OUTBOX_MAX: usize = 256;
