//! Whole nodes around a table: wired to each other without a network, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::watch::holds;
use crate::{
    id::{BlobId, NodeId, PieceId, SessionId},
    model::Speed,
    node::{Config, Event, Input, Node, Output, PieceRun},
    time::Timestamp,
    wire::Message,
};

/// Nodes whose messages arrive at once and in order. What a node loads takes a while, unless it
/// has it already. Everything that was said is written down.
#[derive(Debug)]
pub struct Table {
    now: Timestamp,
    nodes: BTreeMap<NodeId, Node>,
    // How fast they really are: what their pieces' runs are seen to take.
    truth: BTreeMap<NodeId, Speed>,
    load_time: Duration,
    loading: Vec<(Timestamp, NodeId, PieceId, u32)>,
    loaded: BTreeSet<(PieceId, NodeId)>,
    watched: BTreeSet<SessionId>,
    in_flight: VecDeque<(NodeId, u64, u64)>,
    log: Vec<(Timestamp, Entry)>,
    broken: Option<String>,
}

/// Something that was said at a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A message between two nodes.
    Message {
        /// Its sender.
        from: NodeId,
        /// Its receiver.
        to: NodeId,
        /// What it says.
        message: Message,
    },
    /// A node told its application.
    Event {
        /// Which node.
        by: NodeId,
        /// What.
        event: Event,
    },
}

impl Table {
    /// An empty table. Loading a piece takes so long.
    #[must_use]
    pub fn new(load_time: Duration) -> Self {
        Self {
            now: Timestamp(1_000_000),
            nodes: BTreeMap::new(),
            truth: BTreeMap::new(),
            load_time,
            loading: Vec::new(),
            loaded: BTreeSet::new(),
            watched: BTreeSet::new(),
            in_flight: VecDeque::new(),
            log: Vec::new(),
            broken: None,
        }
    }

    /// A node sits down. It is as fast as `truth`, whatever it says of itself.
    pub fn join(&mut self, config: Config, truth: Speed) {
        let id = config.id;
        self.truth.insert(id, truth);
        self.nodes.insert(id, Node::new(config));
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        for other in all.into_iter().filter(|other| *other != id) {
            self.feed(other, Input::Joined(id));
            self.feed(id, Input::Joined(other));
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// What was said, and when, since it was last taken.
    pub fn take_log(&mut self) -> Vec<(Timestamp, Entry)> {
        std::mem::take(&mut self.log)
    }

    /// From now on, every piece of this session is to be served without a break.
    pub fn watch(&mut self, session: SessionId) {
        self.watched.insert(session);
    }

    /// Whether, at every moment since a session was first watched, the provider in charge of each
    /// of its pieces had it loaded.
    ///
    /// # Errors
    /// The first moment at which one had not.
    pub fn check_served(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Something happens to a node, and everything that follows at once from it.
    pub fn feed(&mut self, to: NodeId, input: Input) {
        let mut queue = VecDeque::from([(to, input)]);
        while let Some((to, input)) = queue.pop_front() {
            let Some(node) = self.nodes.get_mut(&to) else { continue };
            for output in node.handle(self.now, input) {
                self.carry_out(to, output, &mut queue);
            }
            if let Err(broken) = self.look() {
                self.broken.get_or_insert(broken);
            }
        }
    }

    /// Time goes by, and every node is called when it has asked for it.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let asked = self.nodes.values().map(Node::deadline);
            let loads = self.loading.iter().map(|(due, ..)| *due);
            let Some(due) = asked.chain(loads).min().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due) + INSTANT;
            self.finish_loads();
            let late = self.nodes.values().filter(|node| node.deadline() <= self.now);
            for id in late.map(Node::id).collect::<Vec<_>>() {
                self.feed(id, Input::Tick);
            }
        }
        self.now = self.now.max(end);
    }

    /// The oldest request under way gets its output, with a true report of what it took.
    pub fn answer_one(&mut self) {
        let Some((to, session, request)) = self.in_flight.pop_front() else { return };
        let asked = self.nodes.get(&to).and_then(|node| node.session(session));
        let run = |index: u16| {
            let (provider, work) = asked?.assigned(index)?;
            let seconds = self.truth.get(&provider)?.seconds(&work);
            Some(PieceRun { index, provider, seconds })
        };
        let runs = (0..).map_while(run).collect();
        self.feed(to, Input::OutputArrived { session, request, runs });
    }

    fn finish_loads(&mut self) {
        let now = self.now;
        let (done, loading) = self.loading.drain(..).partition(|(due, ..)| *due <= now);
        self.loading = loading;
        for (_, node, piece, epoch) in done {
            self.loaded.insert((piece, node));
            self.feed(node, Input::Loaded { piece, epoch, result: Ok(()) });
        }
    }

    fn carry_out(&mut self, by: NodeId, output: Output, queue: &mut VecDeque<(NodeId, Input)>) {
        match output {
            Output::Publish(advert) => {
                let others = self.nodes.keys().filter(|to| **to != by);
                let heard =
                    others.map(|to| (*to, Input::Advert { from: by, advert: advert.clone() }));
                queue.extend(heard);
            }
            Output::Send { to, message } => {
                let entry = Entry::Message { from: by, to, message: message.clone() };
                self.log.push((self.now, entry));
                queue.push_back((to, Input::Message { from: by, message }));
            }
            Output::Slice { session, plan } => {
                let slice = |first: u16| (BlobId([first.to_le_bytes()[0]; 32]), 100);
                let slices = plan.pieces().iter().map(|piece| slice(piece.layers.first)).collect();
                queue.push_back((by, Input::Sliced { session, plan, slices }));
            }
            Output::Load(order) => {
                // With the weights here, a new epoch is only a matter of new neighbours.
                let here = self.loaded.contains(&(order.piece, by));
                let wait = if here { Duration::ZERO } else { self.load_time };
                self.loading.push((self.now + wait, by, order.piece, order.epoch));
            }
            Output::Unload(piece) => {
                self.loaded.remove(&(piece, by));
            }
            Output::SendInput { session, request, .. } => {
                self.in_flight.push_back((by, session, request));
            }
            Output::Event(event) => self.log.push((self.now, Entry::Event { by, event })),
            Output::SessionChanged { .. } | Output::Suspect { .. } | Output::Wire { .. } => {}
        }
    }

    fn look(&self) -> Result<(), String> {
        for id in &self.watched {
            let session = self.nodes.get(&id.requester).and_then(|node| node.session(id.number));
            let Some(session) = session else { continue };
            for index in 0..PIECES_MAX {
                let Some((provider, _)) = session.assigned(index) else { break };
                let piece = PieceId { session: *id, index };
                let served = self.loaded.contains(&(piece, provider));
                let what = format!("{:?}: piece {index} is not loaded at {provider}", self.now);
                holds(served, &what)?;
            }
        }
        Ok(())
    }
}

const INSTANT: Duration = Duration::from_micros(1);
const PIECES_MAX: u16 = 64;
