//! How the commands speak to a running node.

use std::{collections::BTreeSet, time::Duration};

use libp2p::Multiaddr;
use starling_engine::{Memory, Model, Tensor};
use starling_protocol::{
    ModelId, NodeId, PieceId,
    model::{ModelProfile, Speed},
    node::Node,
    partition::{Goal, Planner, Proposal},
    plan::LayerRange,
    session::Planning,
};
use tokio::sync::{mpsc, oneshot};

use super::own::{Answer, SessionNews};

/// A wish of the application's.
pub(super) enum Request {
    Open {
        model: Model,
        profile: ModelProfile,
        planning: Planning,
        reply: oneshot::Sender<(u64, mpsc::UnboundedReceiver<SessionNews>)>,
    },
    Infer {
        session: u64,
        inputs: Vec<Tensor>,
        reply: oneshot::Sender<Result<Answer, String>>,
    },
    Close {
        session: u64,
    },
    Preview {
        profile: ModelProfile,
        planner: Planner,
        goal: Goal,
        reply: oneshot::Sender<Vec<Proposal>>,
    },
    Lanes {
        profile: ModelProfile,
        planning: Planning,
        reply: oneshot::Sender<Vec<Planning>>,
    },
    MoreLanes {
        profile: ModelProfile,
        taken: BTreeSet<NodeId>,
        per_s: f64,
        reply: oneshot::Sender<Vec<Planning>>,
    },
    Snapshot(oneshot::Sender<Snapshot>),
    RoundTrips(oneshot::Sender<Vec<Duration>>),
    Leave(oneshot::Sender<()>),
}

/// What a node tells whoever listens.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// It can be reached here.
    Listening(Multiaddr),
    /// It knows its speed now.
    Calibrated(Speed),
    /// A piece of a session has been loaded here.
    Hosting { piece: PieceId, layers: LayerRange, model: ModelId, memory: Memory },
    /// A piece has been dropped.
    Dropped { piece: PieceId },
    /// Another node is here.
    Joined(NodeId),
    /// Another node is gone.
    Left(NodeId),
    /// A peer given by the user does not answer.
    Unreachable { address: Option<Multiaddr>, reason: String },
}

/// What a node knows at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// All others whose adverts were heard.
    pub(crate) peers: Vec<PeerView>,
}

/// Another node, as its adverts describe it.
#[derive(Clone, Debug)]
pub(crate) struct PeerView {
    /// Who.
    pub(crate) node: NodeId,
    /// FLOP/s per op class.
    pub(crate) speed: Speed,
    /// Pieces that it takes, pieces that it has.
    pub(crate) slots: u16,
    /// Pieces that it has.
    pub(crate) holders: u16,
    /// Bytes of weights that it can still take.
    pub(crate) memory_free: u64,
    /// Bytes per second of its link.
    pub(crate) bandwidth: u64,
    /// What a byte costs its processor, in picoseconds.
    pub(crate) byte_ps: u32,
    /// Its price, in nats.
    pub(crate) ask: Option<f64>,
}

/// A handle on a running node. The node leaves when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Handle {
    local: NodeId,
    requests: mpsc::Sender<Request>,
}

impl Handle {
    pub(super) fn new(local: NodeId, requests: mpsc::Sender<Request>) -> Self {
        Self { local, requests }
    }

    /// Who the node is.
    pub(crate) fn local(&self) -> NodeId {
        self.local
    }

    /// Opens a session. Fails if the node has stopped.
    pub(super) async fn session(
        &self,
        model: &Model,
        profile: &ModelProfile,
        planning: Planning,
    ) -> Result<(SessionRequests, mpsc::UnboundedReceiver<SessionNews>), String> {
        let (reply, opened) = oneshot::channel();
        let (model, profile) = (model.clone(), profile.clone());
        let request = Request::Open { model, profile, planning, reply };
        self.requests.send(request).await.map_err(|_| STOPPED)?;
        let (number, news) = opened.await.map_err(|_| STOPPED)?;
        Ok((SessionRequests { number, requests: self.requests.clone() }, news))
    }

    /// With what the sessions of one stream are to be opened, one for each lane.
    pub(super) async fn lanes(
        &self,
        profile: &ModelProfile,
        planning: &Planning,
    ) -> Result<Vec<Planning>, String> {
        let (reply, lanes) = oneshot::channel();
        let (profile, planning) = (profile.clone(), planning.clone());
        let request = Request::Lanes { profile, planning, reply };
        self.requests.send(request).await.map_err(|_| STOPPED)?;
        lanes.await.map_err(|_| STOPPED.to_owned())
    }

    /// With what sessions a stream may grow that has these nodes in its lanes already and is
    /// predicted to give so many outputs a second.
    pub(super) async fn more_lanes(
        &self,
        profile: &ModelProfile,
        taken: BTreeSet<NodeId>,
        per_s: f64,
    ) -> Result<Vec<Planning>, String> {
        let (reply, lanes) = oneshot::channel();
        let request = Request::MoreLanes { profile: profile.clone(), taken, per_s, reply };
        self.requests.send(request).await.map_err(|_| STOPPED)?;
        lanes.await.map_err(|_| STOPPED.to_owned())
    }

    /// What a planner would come to now for this model: a plan for each lane, none if it can't.
    pub(crate) async fn preview(
        &self,
        profile: &ModelProfile,
        planner: Planner,
        goal: Goal,
    ) -> Result<Vec<Proposal>, String> {
        let (reply, preview) = oneshot::channel();
        let request = Request::Preview { profile: profile.clone(), planner, goal, reply };
        self.requests.send(request).await.map_err(|_| STOPPED)?;
        preview.await.map_err(|_| STOPPED.to_owned())
    }

    /// What it knows now.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, String> {
        let (reply, snapshot) = oneshot::channel();
        self.requests.send(Request::Snapshot(reply)).await.map_err(|_| STOPPED)?;
        snapshot.await.map_err(|_| STOPPED.to_owned())
    }

    /// From its market messages to their answers, since the last call.
    pub(crate) async fn round_trips(&self) -> Result<Vec<Duration>, String> {
        let (reply, round_trips) = oneshot::channel();
        self.requests.send(Request::RoundTrips(reply)).await.map_err(|_| STOPPED)?;
        round_trips.await.map_err(|_| STOPPED.to_owned())
    }

    /// Waits until `enough` says so of the others that offer compute, or `patience` is over.
    pub(crate) async fn wait_for_providers(
        &self,
        patience: Duration,
        enough: impl Fn(&[PeerView]) -> bool,
    ) -> Result<Vec<PeerView>, String> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let mut providers = self.snapshot().await?.peers;
            providers.retain(|peer| peer.slots > 0);
            if enough(&providers) || tokio::time::Instant::now() >= until {
                return Ok(providers);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Leaves the flock: gives back, says farewell, ends the loop.
    pub(crate) async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.requests.send(Request::Leave(done)).await.is_ok() {
            left.await.ok();
        }
    }
}

/// What one asks of a session.
pub(super) struct SessionRequests {
    number: u64,
    requests: mpsc::Sender<Request>,
}

impl SessionRequests {
    /// One inference.
    pub(super) fn infer(
        &self,
        inputs: Vec<Tensor>,
    ) -> impl Future<Output = Result<Answer, String>> + Send + 'static + use<> {
        let (reply, answer) = oneshot::channel();
        let (requests, session) = (self.requests.clone(), self.number);
        async move {
            let request = Request::Infer { session, inputs, reply };
            requests.send(request).await.map_err(|_| STOPPED)?;
            answer.await.map_err(|_| STOPPED)?
        }
    }

    /// Ends the session and gives its places back.
    pub(super) async fn close(self) {
        self.requests.send(Request::Close { session: self.number }).await.ok();
    }
}

pub(super) fn snapshot(node: &Node) -> Snapshot {
    let peers = node.flock().nodes().map(|(id, known)| PeerView {
        node: *id,
        speed: known.advert.speed,
        slots: known.advert.slots,
        holders: known.advert.ask.holders,
        memory_free: known.advert.memory_free,
        bandwidth: known.advert.bandwidth,
        byte_ps: known.advert.byte_ps,
        ask: known.advert.ask.level.map(starling_protocol::Nats::to_f64),
    });
    Snapshot { peers: peers.collect() }
}

const STOPPED: &str = "the node has stopped";
const POLL: Duration = Duration::from_millis(20);
