//! Frames on their way out, one queue for each epoch of a piece or a session.

use std::sync::Arc;

use starling_protocol::{NodeId, PieceId};
use tokio::{sync::mpsc, task::JoinHandle};

use super::Inner;
use crate::net::{Frame, tensors::TensorLinks};

/// Passes the frames of one epoch on, in order, off the loop. A frame that can't be passed on
/// breaks its edge. What is still queued when the last handle goes is for nobody: a node that
/// hangs must not hold up the frames of the next epoch behind those that it does not take.
#[derive(Clone)]
pub(super) struct Outbox {
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
    pub(super) fn start(links: TensorLinks, inner: mpsc::UnboundedSender<Inner>) -> Self {
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
    pub(super) fn push(&self, to: NodeId, piece: PieceId, frame: Frame) {
        if self.frames.try_send((to, piece, frame)).is_err() {
            tracing::warn!(%piece, "outbox full, frame dropped");
        }
    }
}

/// Frames that wait for a link. The credits and the requests' window keep this far below.
const OUTBOX_MAX: usize = 256;
