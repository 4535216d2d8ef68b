//! The sessions of this node's own application: their inputs on the way out, their outputs home.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use starling_engine::{Model, Tensor};
use starling_protocol::{
    NodeId, PieceId, SessionId,
    gather::{Gather, Gathered},
    node::PieceRun,
    plan::PIECES_MAX,
    session::Agreement,
    wiring::{Link, REQUESTER},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Inner,
    edges::{self, Frontier, Part},
    outbox::Outbox,
};
use crate::net::{
    Frame, Timing,
    tensors::{Arrival, TensorLinks},
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
    wired: Wired,
}

/// Where the inputs go and the outputs come from, under the plan in force.
struct Wired {
    epoch: u32,
    inputs: Vec<Link>,
    outputs: Vec<Link>,
    parts: Gather<Part>,
}

impl Wired {
    fn new(epoch: u32, inputs: Vec<Link>, outputs: Vec<Link>) -> Self {
        let parts = Gather::new(&outputs, PARKED_MAX);
        Self { epoch, inputs, outputs, parts }
    }
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
        let wired = Wired::new(0, Vec::new(), Vec::new());
        let own = Own { model, news, outbox, pending, next_request: 0, wired };
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
            own.news.send(SessionNews::Ready(agreement)).ok();
        }
    }

    /// From now on, inputs go to these pieces, and outputs come from those.
    pub(super) fn wire(&mut self, session: u64, epoch: u32, inputs: Vec<Link>, outputs: Vec<Link>) {
        if let Some(own) = self.sessions.get_mut(&session) {
            own.outbox = Outbox::start(self.links.clone(), self.inner.clone());
            own.wired = Wired::new(epoch, inputs, outputs);
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

    /// Sends a request's inputs to its first pieces.
    pub(super) fn send_input(&mut self, number: u64, epoch: u32, request: u64) {
        let Some(own) = self.sessions.get_mut(&number) else { return };
        let Some(pending) = own.pending.get_mut(&request) else { return };
        pending.sent.get_or_insert_with(Instant::now);
        let session = SessionId { requester: self.local, number };
        let inputs = Frontier::whole(own.model.inputs());
        for link in &own.wired.inputs {
            let tensors = match inputs.cut(&pending.inputs, link) {
                Ok(tensors) => tensors,
                Err(error) => return tracing::warn!(%session, error, "an input that can't be cut"),
            };
            let (sender, index, trace) = (REQUESTER, link.piece, Vec::new());
            let frame = Frame { session, epoch, request, sender, index, trace, tensors };
            own.outbox.push(link.node, PieceId { session, index }, frame);
        }
    }

    /// A result has come home: whose, if it is one that is waited for, and what its pieces took.
    pub(super) fn on_result(&mut self, arrival: Arrival) -> Option<(u64, u64, Vec<PieceRun>)> {
        let Arrival { from, frame, .. } = arrival;
        let (number, request) = (frame.session.number, frame.request);
        let own = self.sessions.get_mut(&number)?;
        let sent = |link: &&Link| link.piece == frame.sender && link.node == from;
        let link = own.wired.outputs.iter().find(sent).filter(|_| frame.epoch == own.wired.epoch);
        if frame.session.requester != self.local || link.is_none() {
            tracing::debug!(%from, session = %frame.session, "result from a stranger");
            return None;
        }
        // What comes twice, after a replay, is wanted once.
        own.pending.get(&request)?;
        let whole = Frontier::whole(own.model.outputs());
        let part = match whole.part(frame.tensors, link?) {
            Ok(tensors) => Part { tensors, trace: frame.trace },
            Err(error) => {
                let refused = format!("a result that is none: {error}");
                own.pending.remove(&request)?.reply.send(Err(refused)).ok();
                return Some((number, request, Vec::new()));
            }
        };
        let Gathered::Complete(parts) = own.wired.parts.add(request, frame.sender, from, part)
        else {
            return None;
        };
        let (tensors, traces): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|part| (part.tensors, part.trace)).unzip();
        let trace = edges::merged(traces);
        let outputs = whole.join(tensors, &own.wired.outputs);
        let pending = own.pending.remove(&request)?;
        let runs = trace.iter().map(|timing| PieceRun {
            index: timing.index,
            provider: timing.node,
            seconds: f64::from(timing.compute_us) / 1e6,
        });
        let runs = runs.collect();
        let answer = outputs.map(|outputs| Answer {
            outputs,
            trace,
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

/// Requests of one session that wait for parts of their outputs: more than it has in flight.
const PARKED_MAX: usize = 2 * PIECES_MAX + 1;
