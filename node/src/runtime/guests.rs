//! The pieces hosted here, for any session: frames in, through the engine, and on to whoever needs
//! what came of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use starling_protocol::{
    NodeId, PieceId,
    gather::{Gather, Gathered},
    plan::PIECES_MAX,
    wiring::Link,
};
use tokio::sync::mpsc;

use super::{
    Inner,
    edges::{self, Frontier, Part},
    loader::Loaded,
    outbox::Outbox,
};
use crate::{
    net::{
        Frame, Timing,
        tensors::{Arrival, TensorLinks},
    },
    work::{Done, Job, Worker},
};

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
    // Requests of which not all parts are here, each part with the transfer that brought it.
    parts: Gather<(Part, Duration)>,
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
        let fit = PARKED_BYTES_MAX / loaded.inputs.bytes().max(1);
        let requests_max = usize::try_from(fit).unwrap_or(usize::MAX).min(PARKED_MAX);
        let parts = Gather::new(&loaded.order.sources, requests_max);
        self.hosted.insert(loaded.order.piece, Hosted { loaded, parts, outbox });
    }

    /// Drops a piece; what it has in the queue still runs, and goes nowhere.
    pub(super) fn remove(&mut self, piece: &PieceId) {
        self.hosted.remove(piece);
    }

    /// Takes a frame for the piece that it is for, and runs the piece once all parts are here.
    pub(super) fn on_frame(&mut self, arrival: Arrival) {
        let Arrival { from, frame, transfer, credit, .. } = arrival;
        let id = PieceId { session: frame.session, index: frame.index };
        let Some(hosted) = self.hosted.get_mut(&id) else {
            return tracing::debug!(%from, piece = %id, "frame for a piece that is not here");
        };
        let (epoch, request) = (frame.epoch, frame.request);
        let Some(link) = hosted.source(&frame, from) else {
            return tracing::debug!(%from, piece = %id, "frame of another plan");
        };
        let tensors = match hosted.loaded.inputs.part(frame.tensors, &link) {
            Ok(tensors) => tensors,
            Err(error) => return tracing::warn!(%from, piece = %id, error, "malformed frame"),
        };
        let part = (Part { tensors, trace: frame.trace }, transfer);
        let Gathered::Complete(parts) = hosted.parts.add(request, link.piece, from, part) else {
            // Its credit goes back at once: a sender of several parts must not wait for itself.
            return;
        };
        let transfer = parts.iter().map(|(_, transfer)| *transfer).max().unwrap_or_default();
        let (tensors, traces): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|(part, _)| (part.tensors, part.trace)).unzip();
        let loaded = &hosted.loaded;
        let inputs = match loaded.inputs.join(tensors, &loaded.order.sources) {
            Ok(inputs) => inputs,
            Err(error) => return tracing::warn!(piece = %id, error, "parts that don't fit"),
        };
        let next = Next {
            targets: loaded.order.targets.clone(),
            outputs: loaded.outputs.clone(),
            piece: id,
            epoch,
            request,
            trace: edges::merged(traces),
            transfer,
            node: self.local,
        };
        let (outbox, inner) = (hosted.outbox.clone(), self.inner.clone());
        let work = loaded.work;
        let done = Box::new(move |done: Done| {
            // The sender may send its next frame now that this one is off the queue.
            drop(credit);
            let seconds = done.lasting.as_secs_f64();
            inner.send(Inner::Ran { work, seconds }).ok();
            next.pass_on(done, &outbox);
        });
        let piece = loaded.piece.clone();
        if !self.worker.run(Job { piece, inputs, queued: Instant::now(), done }) {
            tracing::warn!(piece = %id, "compute queue full, frame dropped");
        }
    }
}

impl Hosted {
    /// The source that a frame is from; nothing if it is of another plan.
    fn source(&self, frame: &Frame, from: NodeId) -> Option<Link> {
        let order = &self.loaded.order;
        let sent = |link: &&Link| link.piece == frame.sender && link.node == from;
        let source = order.sources.iter().find(sent);
        source.filter(|_| frame.epoch == order.epoch).cloned()
    }
}

/// Where the outputs go after a piece has run.
struct Next {
    targets: Vec<Link>,
    outputs: Frontier,
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
        for target in &self.targets {
            let tensors = match self.outputs.cut(&outputs, target) {
                Ok(tensors) => tensors,
                Err(error) => {
                    return tracing::warn!(piece = %self.piece, error, "rows that are not here");
                }
            };
            let frame = Frame {
                session: self.piece.session,
                epoch: self.epoch,
                request: self.request,
                sender: self.piece.index,
                // A result is for the requester, which is no piece.
                index: target.piece,
                trace: trace.clone(),
                tensors,
            };
            outbox.push(target.node, self.piece, frame);
        }
    }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

/// Requests of one piece that wait for their other parts: more than any session has in flight.
const PARKED_MAX: usize = 2 * PIECES_MAX + 1;
/// The most bytes of them.
const PARKED_BYTES_MAX: u64 = 256 << 20;
