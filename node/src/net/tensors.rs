//! Activations, from provider to provider, over streams that live as long as the session does.
//!
//! One stream carries frames in one direction and credits in the other. The receiver opens the
//! conversation: its first byte is the window, the number of frames that may be on their way or in
//! its queue, and every further byte gives that many credits back, half a window of them. So a slow
//! piece slows down the one before it, up to the requester, and no queue grows.
//!
//! The first byte is also the proof that somebody took the stream: libp2p drops an inbound stream
//! silently when its accept loop is busy, which the opener would learn only from a lost frame.

mod inbound;
mod outbound;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p::StreamProtocol;
use starling_protocol::NodeId;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

use super::{
    frame::{Frame, FrameError},
    gate::Gate,
    names::Names,
    swarm::NetError,
};
pub(crate) use inbound::{Arrival, Credit};
use outbound::Link;

/// Limits and patience.
#[derive(Clone, Debug)]
pub(crate) struct TensorConfig {
    /// Frames under way or queued per stream.
    pub(crate) window: u8,
    /// To connect and open a stream.
    pub(crate) open_timeout: Duration,
    /// For the receiver to give a credit.
    pub(crate) credit_timeout: Duration,
    /// For the next bytes, once a frame has begun.
    pub(crate) progress_timeout: Duration,
    /// Streams that one peer may open to this node. More than one, as a peer that lost a stream
    /// may open the next before this node has noticed.
    pub(crate) streams_per_peer_max: usize,
    /// Streams that all peers may open to this node.
    pub(crate) streams_max: usize,
    /// Bytes of all frames that arrive or wait here. Further streams wait.
    pub(crate) bytes_max: u64,
}

impl Default for TensorConfig {
    fn default() -> Self {
        Self {
            window: 4,
            open_timeout: Duration::from_secs(5),
            credit_timeout: Duration::from_secs(60),
            progress_timeout: Duration::from_secs(10),
            streams_per_peer_max: 4,
            streams_max: 64,
            bytes_max: 1 << 30,
        }
    }
}

/// Why a frame was not sent. The link is then closed; the next frame opens it again.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// The frame breaks a limit: a mistake of this node's.
    #[error("a frame that may not be sent: {0}")]
    BadFrame(#[from] FrameError),
    /// The stream broke, or the receiver broke the rules.
    #[error("the stream broke: {0}")]
    Broken(io::Error),
    /// Nobody takes arrivals here any longer: this node is shutting down.
    #[error("this node takes no more frames")]
    Closed,
    /// The receiver gave no credit in time: it is stuck, or far too slow.
    #[error("no credit in {} s", .0.as_secs_f32())]
    NoCredit(Duration),
    /// No stream could be opened.
    #[error("can't open a stream: {0}")]
    Open(String),
}

/// The sending side; a cheap handle.
#[derive(Clone)]
pub(crate) struct TensorLinks {
    shared: Arc<Shared>,
}

struct Shared {
    control: libp2p_stream::Control,
    protocol: StreamProtocol,
    local: NodeId,
    config: TensorConfig,
    links: Mutex<HashMap<NodeId, Slot>>,
    arrivals: mpsc::Sender<Arrival>,
    local_credits: Arc<Semaphore>,
}

/// Holds the link between two frames. Who sends takes it out, and puts it back only if the frame
/// went out whole: an error or a dropped future thus leaves no link in the middle of a frame.
type Slot = Arc<tokio::sync::Mutex<Option<Link>>>;

/// Starts to accept streams of activations, and gives the two ends: where to send, and where
/// everything that arrives comes out. Must be called inside a tokio runtime.
///
/// # Errors
/// If it has been called before on the same swarm.
pub(crate) fn tensor_links(
    mut control: libp2p_stream::Control,
    local: NodeId,
    swarm: &str,
    config: TensorConfig,
) -> Result<(TensorLinks, mpsc::Receiver<Arrival>), NetError> {
    let protocol = Names::new(swarm).tensor();
    let incoming = control.accept(protocol.clone()).map_err(|_| NetError::Twice)?;
    // Every frame in the queue holds a credit, so this never fills up.
    let capacity = (config.streams_max + 1) * usize::from(config.window);
    let (arrivals, received) = mpsc::channel(capacity);
    let gate = Gate::new(config.streams_per_peer_max, config.streams_max);
    let acceptor = inbound::Acceptor::new(config.clone(), gate, arrivals.clone());
    tokio::spawn(acceptor.run(incoming));
    let local_credits = Arc::new(Semaphore::new(usize::from(config.window)));
    let links = Mutex::default();
    let shared = Shared { control, protocol, local, config, links, arrivals, local_credits };
    Ok((TensorLinks { shared: Arc::new(shared) }, received))
}

impl TensorLinks {
    /// Sends a frame: opens the stream if there is none, waits for a credit, and returns when the
    /// frame is written. Frames to one node go out in the order of the calls. Always returns in
    /// bounded time, as long as bytes move.
    ///
    /// # Errors
    /// If the frame may not have arrived. Sending it again is safe, since requests are idempotent.
    pub(crate) async fn send(&self, to: NodeId, frame: Frame) -> Result<(), SendError> {
        if to == self.shared.local {
            frame.check()?;
            return self.send_home(frame).await;
        }
        let frame = frame.encode()?;
        let slot = self.slot(to);
        let mut slot = slot.lock().await;
        let mut link = match slot.take() {
            Some(link) if link.is_open() => link,
            Some(_) | None => Link::open(&self.shared, to).await?,
        };
        link.send(&frame, &self.shared.config).await?;
        *slot = Some(link);
        Ok(())
    }

    /// Closes the link to a node that is gone, unless a frame is on its way just now.
    pub(crate) fn close(&self, node: &NodeId) {
        self.shared.links.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// Two neighbouring pieces on one node: no socket, but the same bound.
    async fn send_home(&self, frame: Frame) -> Result<(), SendError> {
        let limit = self.shared.config.credit_timeout;
        let credit = self.shared.local_credits.clone().acquire_owned();
        let credit = tokio::time::timeout(limit, credit).await;
        let credit = credit.map_err(|_| SendError::NoCredit(limit))?;
        let credit = Credit::local(credit.map_err(|_| SendError::Closed)?);
        let arrival = Arrival::local(self.shared.local, frame, credit);
        self.shared.arrivals.send(arrival).await.map_err(|_| SendError::Closed)
    }

    fn slot(&self, to: NodeId) -> Slot {
        let mut links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() >= LINKS_MAX && !links.contains_key(&to) {
            // Closes those that nobody uses at this moment; they open again on demand.
            links.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        links.entry(to).or_default().clone()
    }
}

/// Links kept open at a time.
const LINKS_MAX: usize = 256;
