//! What a planner sees of a machine, and what it comes to.

use crate::{
    cost::Provider,
    id::NodeId,
    model::{ModelProfile, PieceProfile},
    plan::{LayerRange, Plan},
};

/// What a session wants of its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// One inference as soon as possible.
    Latency,
    /// Many inferences per second: the busiest machine or link counts.
    Throughput,
}

impl Goal {
    /// Which of a plan's two times counts, in seconds: smaller is better.
    pub(crate) fn of(self, latency: f64, bottleneck: f64) -> f64 {
        match self {
            Goal::Latency => latency,
            Goal::Throughput => bottleneck,
        }
    }
}

/// A provider as the partitioner sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worker {
    /// Who.
    pub node: NodeId,
    /// Its speed, link and memory.
    pub provider: Provider,
    /// How many pieces will share it, ours included, at least 1.
    pub sharers: u16,
    /// How many more pieces it takes.
    pub room: u16,
}

/// A plan and what it promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The cuts.
    pub plan: Plan,
    /// For whom each piece is sized. The auction may place them otherwise.
    pub order: Vec<NodeId>,
    /// Seconds of the busiest machine or link for one inference: the inverse of the session's rate.
    pub bottleneck: f64,
    /// Seconds of one inference.
    pub latency: f64,
}

impl Worker {
    /// Seconds for the whole model's work, to sort by: smaller is better.
    pub(super) fn whole(&self, profile: &ModelProfile) -> f64 {
        let everything = profile.range(LayerRange { first: 0, end: profile.layers() });
        self.computing(&everything)
    }

    /// Seconds of computing a piece, without any transfer.
    pub(super) fn computing(&self, piece: &PieceProfile) -> f64 {
        self.provider.speed.seconds(&piece.work) * self.load()
    }

    /// Seconds of one inference of a piece with nothing else in flight, its transfers included.
    pub(super) fn alone(&self, piece: &PieceProfile) -> f64 {
        let bytes = piece.bytes_in.saturating_add(piece.bytes_out);
        self.computing(piece) + transfer(bytes, self.rate())
    }

    /// Seconds that the busiest of its processor and its link's two directions has to do for each
    /// inference of a stream; infinite if the weights don't fit. Transfers overlap with computing,
    /// unlike in `T_ij`, but for what the processor has to do with every byte.
    #[must_use]
    pub fn stage(&self, piece: &PieceProfile) -> f64 {
        if !self.holds(piece) {
            return f64::INFINITY;
        }
        let link = piece.bytes_in.max(piece.bytes_out);
        self.working(piece).max(transfer(link, self.rate()))
    }

    /// Seconds of its processor for each inference of a stream: to compute the piece, and to handle
    /// what comes and goes.
    pub(super) fn working(&self, piece: &PieceProfile) -> f64 {
        self.computing(piece) + self.handling(piece.bytes_in.saturating_add(piece.bytes_out), 2)
    }

    /// Seconds of its processor to take these bytes in or to send them, in so many frames: to encrypt
    /// and to copy, and to wake up for each frame and answer it.
    pub(super) fn handling(&self, bytes: u64, frames: usize) -> f64 {
        (bytes as f64 + frames as f64 * FRAME_BYTES) * self.provider.byte_seconds * self.load()
    }

    /// Bytes per second of our share of its link.
    pub(super) fn rate(&self) -> f64 {
        self.provider.bandwidth / self.load()
    }

    pub(super) fn holds(&self, piece: &PieceProfile) -> bool {
        piece.weight_bytes <= self.provider.memory_free
    }

    fn load(&self) -> f64 {
        f64::from(self.sharers.max(1))
    }
}

/// A frame of a few bytes costs a processor as much as a large one's bytes do, this many: 17 us
/// where a byte costs 1 ns, and half of that for its part of the credits that go back.
pub(super) const FRAME_BYTES: f64 = 25e3;

/// Seconds of some bytes at a rate; no bytes take no time at any.
pub(super) fn transfer(bytes: u64, rate: f64) -> f64 {
    match bytes {
        0 => 0.0,
        _ if rate > 0.0 => bytes as f64 / rate,
        _ => f64::INFINITY,
    }
}
