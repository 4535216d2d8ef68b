//! Inference in virtual time: requests through the pieces that providers have loaded.
//!
//! A request's input goes over the link to its first piece, waits there for the one processor that
//! all pieces at a provider share, is computed in the machine's real time, and its output goes on
//! to the next pieces, and home from the last. As on a live node, what several pieces make waits
//! until all of it is there, a frame of another plan (epoch, sender) is dropped, a result counts
//! only from the last pieces' providers, and a node feeds what a run took to its own state machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use starling_protocol::{
    NodeId, PieceId, SessionId, Timestamp,
    gather::{Gather, Gathered},
    host::LoadOrder,
    model::{ModelProfile, Work},
    node::{Command, Event, Input, PieceRun},
    plan::PIECES_MAX,
    wiring::{Link, REQUESTER},
};

use crate::{
    delivery::Delivery,
    ledger::Sighting,
    quota::Quota,
    world::{World, short},
};

/// A tensor on its way, by what it is; nobody looks at its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) session: SessionId,
    pub(crate) epoch: u32,
    pub(crate) request: u64,
    /// The piece that it is for; nothing for a result.
    pub(crate) index: Option<u16>,
    /// The place of its sender.
    pub(crate) from: u32,
    /// The piece that it is from, or [`REQUESTER`].
    pub(crate) sent_by: u16,
    /// What the pieces before took, as their providers say.
    pub(crate) runs: Vec<PieceRun>,
}

/// What was observed of one session's inferences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Served {
    /// From sending the input to the arrival of the output, in seconds, replays included.
    pub latencies: Vec<f64>,
    /// The same from when the application asked, the wait for a place in flight included.
    pub responses: Vec<f64>,
}

/// What was observed of all inferences since a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// By session.
    pub sessions: BTreeMap<SessionId, Served>,
    /// Seconds of compute by place.
    pub busy: Vec<f64>,
    /// By piece: the runs, and the seconds from arrival to end of all of them together.
    pub pieces: BTreeMap<PieceId, (u64, f64)>,
}

/// All pieces, processors and requests of a world.
#[derive(Default)]
pub(crate) struct Inference {
    profiles: BTreeMap<SessionId, ModelProfile>,
    processors: Vec<Processor>,
    streams: BTreeMap<SessionId, Stream>,
    observed: Observed,
}

/// One machine's pieces and the processor that they share.
#[derive(Default)]
struct Processor {
    ordered: BTreeMap<PieceId, LoadOrder>,
    loaded: BTreeMap<PieceId, Loaded>,
    free_at: Timestamp,
    queued: usize,
    // What it takes to receive or to send a byte.
    seconds_per_byte: f64,
    quota: Option<Quota>,
}

/// A piece that takes inputs, and those of which not all parts have come.
struct Loaded {
    order: LoadOrder,
    parts: Gather<Vec<PieceRun>>,
}

/// What an application wants of a session, and what it waits for.
#[derive(Default)]
struct Stream {
    wanted: usize,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    inputs: Vec<Link>,
    outputs: Option<Gather<Vec<PieceRun>>>,
    ready: bool,
    replayed: BTreeSet<u64>,
}

/// A request without an output.
struct Pending {
    asked: Timestamp,
    // When its input first left.
    sent: Option<Timestamp>,
}

impl Inference {
    pub(crate) fn add(&mut self) {
        self.processors.push(Processor::default());
        self.observed.busy.push(0.0);
    }

    pub(crate) fn on_open(&mut self, session: SessionId, profile: ModelProfile) {
        self.profiles.insert(session, profile);
        self.streams.entry(session).or_default();
    }

    /// A new request of a session's; nothing if that is over.
    pub(crate) fn add_request(&mut self, session: &SessionId, asked: Timestamp) -> Option<u64> {
        Some(self.streams.get_mut(session)?.add(asked))
    }

    pub(crate) fn on_end(&mut self, session: SessionId) {
        self.streams.remove(&session);
    }

    /// A provider is to load a piece. Nothing if the model has no such layers.
    pub(crate) fn on_order(&mut self, place: usize, order: LoadOrder) -> Option<()> {
        let profile = self.profiles.get(&order.piece.session);
        let within = profile.is_none_or(|profile| order.layers.end <= profile.layers());
        within.then(|| {
            self.processors[place].ordered.insert(order.piece, order);
        })
    }

    pub(crate) fn on_loaded(&mut self, place: usize, piece: &PieceId, epoch: u32) {
        let processor = &mut self.processors[place];
        if let Some(order) = processor.ordered.get(piece).filter(|order| order.epoch == epoch) {
            let parts = Gather::new(&order.sources, REQUESTS_MAX);
            processor.loaded.insert(*piece, Loaded { order: order.clone(), parts });
        }
    }

    pub(crate) fn unload(&mut self, place: usize, piece: &PieceId) {
        self.processors[place].ordered.remove(piece);
        self.processors[place].loaded.remove(piece);
    }

    /// A process is dead, with all that it had loaded and queued.
    pub(crate) fn forget(&mut self, place: usize, id: NodeId) {
        let Processor { seconds_per_byte, quota, .. } = mem::take(&mut self.processors[place]);
        self.processors[place] = Processor { seconds_per_byte, quota, ..Processor::default() };
        self.streams.retain(|session, _| session.requester != id);
    }

    pub(crate) fn is_busy(&self, now: Timestamp, place: usize) -> bool {
        self.processors[place].free_at > now
    }

    fn work(&self, order: &LoadOrder) -> Option<Work> {
        Some(self.profiles.get(&order.piece.session)?.piece(&order.computes()).work)
    }

    /// The piece that a frame is for, if it is loaded here and the frame is of its plan.
    fn accepts(&mut self, place: usize, frame: &Frame) -> Option<&mut Loaded> {
        let piece = PieceId { session: frame.session, index: frame.index? };
        let loaded = self.processors[place].loaded.get_mut(&piece)?;
        (frame.epoch == loaded.order.epoch).then_some(loaded)
    }

    /// What a machine's processor has to do with the tensors of a piece, beside computing it: what
    /// stays on the machine costs nothing.
    fn handling(&self, place: usize, own: NodeId, order: &LoadOrder) -> Duration {
        let session = &order.piece.session;
        let over_links = |cut: u16, links: &[Link]| -> u64 {
            let others = links.iter().filter(|link| link.node != own);
            others.map(|link| self.bytes(session, cut, link)).sum()
        };
        let bytes = over_links(order.layers.first, &order.sources)
            .saturating_add(over_links(order.layers.end, &order.targets));
        let seconds = bytes as f64 * self.processors[place].seconds_per_byte;
        Duration::try_from_secs_f64(seconds).unwrap_or(RUN_MAX).min(RUN_MAX)
    }

    fn bytes(&self, session: &SessionId, cut: u16, link: &Link) -> u64 {
        self.profiles.get(session).map_or(0, |profile| profile.bytes_across(cut, &link.rows))
    }
}

impl Stream {
    /// A new request.
    fn add(&mut self, asked: Timestamp) -> u64 {
        let request = self.next;
        self.pending.insert(request, Pending { asked, sent: None });
        self.next += 1;
        request
    }
}

impl World {
    /// From now on, the application of a session keeps this many requests waiting or in flight: a
    /// new one goes in as soon as an output has come. None ends the stream.
    pub fn stream(&mut self, place: usize, number: u64, wanted: usize) {
        let session = SessionId { requester: self.peers[place].id, number };
        if let Some(stream) = self.inference.streams.get_mut(&session) {
            stream.wanted = wanted;
            self.top_up(place, session);
        }
    }

    /// From now on a machine's processor is busy for so many seconds with each byte of a tensor that
    /// it receives or sends: encryption, checksums and the system's work cost time too.
    pub fn charge_for_bytes(&mut self, place: usize, seconds_per_byte: f64) {
        self.inference.processors[place].seconds_per_byte = seconds_per_byte.max(0.0);
    }

    /// From now on a machine's processor stands still for a part of each period, as one whose quota
    /// of it is this share of a core. Its speed stays what it is in the long run.
    pub fn ration(&mut self, place: usize, share: f64, period: Duration) {
        // As on machines that began at different times, no two have the same.
        let phase = (place as f64 * GOLDEN_RATIO).fract();
        let began = self.now + period.mul_f64(phase);
        self.inference.processors[place].quota = Some(Quota::new(share, period, began));
    }

    /// What was observed since the world began, or since it was last
    /// [observed afresh](Self::observe_afresh).
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.inference.observed
    }

    /// Forgets what was observed so far.
    pub fn observe_afresh(&mut self) {
        let busy = vec![0.0; self.peers.len()];
        self.inference.observed = Observed { busy, ..Observed::default() };
    }

    /// Requests of a session that wait for their outputs.
    #[must_use]
    pub fn pending(&self, session: &SessionId) -> usize {
        self.inference.streams.get(session).map_or(0, |stream| stream.pending.len())
    }

    /// Whether every session that is not over has loaded its pieces.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.inference.streams.values().all(|stream| stream.ready)
    }

    pub(crate) fn on_event(&mut self, place: usize, event: &Event) {
        let requester = self.peers[place].id;
        let session = |number: &u64| SessionId { requester, number: *number };
        match event {
            Event::Ready { session: number, .. } => {
                if let Some(stream) = self.inference.streams.get_mut(&session(number)) {
                    stream.ready = true;
                }
            }
            Event::Failed { session: number, .. } => self.inference.on_end(session(number)),
            Event::Refused { session: number, request } => {
                if let Some(stream) = self.inference.streams.get_mut(&session(number)) {
                    stream.pending.remove(request);
                }
            }
            // Events that change nothing about who runs what.
            _ => {}
        }
    }

    pub(crate) fn wire(&mut self, place: usize, number: u64, inputs: Vec<Link>, outputs: &[Link]) {
        let session = SessionId { requester: self.peers[place].id, number };
        if let Some(stream) = self.inference.streams.get_mut(&session) {
            stream.inputs = inputs;
            stream.outputs = Some(Gather::new(outputs, REQUESTS_MAX));
        }
    }

    pub(crate) fn send_input(&mut self, place: usize, number: u64, epoch: u32, request: u64) {
        let session = SessionId { requester: self.peers[place].id, number };
        let now = self.now;
        let Some(stream) = self.inference.streams.get_mut(&session) else { return };
        let Some(pending) = stream.pending.get_mut(&request) else { return };
        if pending.sent.is_some() && stream.replayed.insert(request) {
            self.ledger.see(Sighting::Replay);
        }
        pending.sent.get_or_insert(now);
        let (from, sent_by, runs) = (short(place), REQUESTER, Vec::new());
        let frame = Frame { session, epoch, request, index: None, from, sent_by, runs };
        for link in stream.inputs.clone() {
            let bytes = self.inference.bytes(&session, 0, &link);
            let frame = Frame { index: Some(link.piece), ..frame.clone() };
            self.send_frame(place, link.node, frame, bytes);
        }
    }

    pub(crate) fn on_frame(&mut self, place: usize, frame: &Frame) {
        self.trace_frame(place, frame);
        let from = self.peers[frame.from as usize].id;
        if frame.index.is_none() {
            return self.on_result(place, frame, from);
        }
        let Some(loaded) = self.inference.accepts(place, frame) else {
            return self.ledger.see(Sighting::FrameOfAnotherPlan);
        };
        let part = loaded.parts.add(frame.request, frame.sent_by, from, frame.runs.clone());
        let order = loaded.order.clone();
        match part {
            Gathered::Complete(parts) => {
                self.queue(place, &order, Frame { runs: merged(parts), ..frame.clone() });
            }
            Gathered::Waiting => {}
            Gathered::Stranger => self.ledger.see(Sighting::FrameOfAnotherPlan),
        }
    }

    fn queue(&mut self, place: usize, order: &LoadOrder, frame: Frame) {
        let Some(work) = self.inference.work(order) else { return };
        let own = self.peers[place].id;
        let span = self.real_time(place, &work) + self.inference.handling(place, own, order);
        let processor = &mut self.inference.processors[place];
        if processor.queued >= QUEUE_MAX {
            return;
        }
        processor.queued += 1;
        let start = self.now.max(processor.free_at);
        processor.free_at = match &mut processor.quota {
            Some(quota) => quota.done(start, span),
            None => start + span,
        };
        let (wait, life) = (processor.free_at.since(self.now), self.peers[place].life);
        let piece = PieceId { session: frame.session, index: frame.index.unwrap_or(0) };
        let (runs, seconds) = self.inference.observed.pieces.entry(piece).or_default();
        *runs += 1;
        *seconds += wait.as_secs_f64();
        self.push(wait, place, Delivery::Done { life, frame: Box::new(frame) });
    }

    pub(crate) fn on_done(&mut self, place: usize, frame: &Frame) {
        self.inference.processors[place].queued -= 1;
        // What was unloaded while it waited still runs, and goes nowhere.
        let order = self.inference.accepts(place, frame).map(|loaded| loaded.order.clone());
        let Some(order) = order else { return };
        let Some(work) = self.inference.work(&order) else { return };
        let real = self.real_time(place, &work).as_secs_f64();
        self.inference.observed.busy[place] += real;
        let peer = &self.peers[place];
        let seconds = if peer.config.speed == peer.speed {
            real
        } else {
            // It lies to itself too, and to others of what its runs take.
            peer.config.speed.seconds(&work)
        };
        self.feed(place, Input::Ran { work, seconds });
        let index = frame.index.unwrap_or(0);
        let mut on = Frame { from: short(place), sent_by: index, ..frame.clone() };
        on.runs.push(PieceRun { index, provider: self.peers[place].id, seconds });
        for link in &order.targets {
            let index = Some(link.piece).filter(|piece| *piece != REQUESTER);
            let bytes = self.inference.bytes(&frame.session, order.layers.end, link);
            self.send_frame(place, link.node, Frame { index, ..on.clone() }, bytes);
        }
    }

    fn on_result(&mut self, place: usize, frame: &Frame, from: NodeId) {
        let Some(stream) = self.inference.streams.get_mut(&frame.session) else { return };
        let own = frame.session.requester == self.peers[place].id;
        let Some(outputs) = stream.outputs.as_mut().filter(|_| own) else { return };
        let part = outputs.add(frame.request, frame.sent_by, from, frame.runs.clone());
        let Gathered::Complete(parts) = part else { return };
        let Some(pending) = stream.pending.remove(&frame.request) else { return };
        let latency = pending.sent.map_or(Duration::ZERO, |sent| self.now.since(sent));
        let served = self.inference.observed.sessions.entry(frame.session).or_default();
        served.latencies.push(latency.as_secs_f64());
        served.responses.push(self.now.since(pending.asked).as_secs_f64());
        let (session, request, runs) = (frame.session.number, frame.request, merged(parts));
        self.feed(place, Input::OutputArrived { session, request, runs });
        self.top_up(place, frame.session);
        self.on_lane_output(frame.session, request);
    }

    fn top_up(&mut self, place: usize, session: SessionId) {
        let Some(stream) = self.inference.streams.get_mut(&session) else { return };
        let mut requests = Vec::new();
        while stream.pending.len() < stream.wanted {
            requests.push(stream.add(self.now));
        }
        for request in requests {
            self.command(place, Command::Infer { session: session.number, request });
        }
    }

    fn send_frame(&mut self, place: usize, to: NodeId, frame: Frame, bytes: u64) {
        let Some(other) = self.place(&to) else { return };
        let bandwidth = |place: usize| self.peers[place].config.bandwidth;
        let ends = (bandwidth(place), bandwidth(other));
        if self.network.flipped_bit(TENSOR_HEADER_BYTES).is_some() {
            // Its checksum is wrong, so it is dropped there.
            return self.ledger.see(Sighting::CorruptTensor);
        }
        match self.network.transfer(self.now, (place, other), bytes, ends) {
            Some(at) => self.push(at.since(self.now), other, Delivery::Frame(Box::new(frame))),
            None => {
                let piece = PieceId { session: frame.session, index: frame.sent_by };
                let input = Input::EdgeFailed { piece, epoch: frame.epoch };
                self.push_local(EDGE_PATIENCE, place, input);
            }
        }
    }

    fn real_time(&self, place: usize, work: &Work) -> Duration {
        let peer = &self.peers[place];
        let seconds = peer.speed.seconds(work) * peer.slowness;
        Duration::try_from_secs_f64(seconds).unwrap_or(RUN_MAX).min(RUN_MAX)
    }
}

/// The runs of all parts, each piece's once.
fn merged(parts: Vec<Vec<PieceRun>>) -> Vec<PieceRun> {
    let mut runs: BTreeMap<u16, PieceRun> = BTreeMap::new();
    for run in parts.into_iter().flatten() {
        runs.insert(run.index, run);
    }
    runs.into_values().collect()
}

/// Requests of one piece that wait for their other parts: more than any session has in flight.
const REQUESTS_MAX: usize = 2 * PIECES_MAX + 1;
/// Jobs that wait for one processor, as on a live node.
const QUEUE_MAX: usize = 512;
/// Its multiples are nowhere close to each other but for whole numbers.
const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;
/// How long a stream takes to notice that nothing gets through.
const EDGE_PATIENCE: Duration = Duration::from_secs(5);
/// No piece is worth waiting longer for.
const RUN_MAX: Duration = Duration::from_secs(3600);
/// What of a tensor a flipped bit is looked for in: as much as of a message, so that one
/// probability means the same for both.
const TENSOR_HEADER_BYTES: usize = 64;
