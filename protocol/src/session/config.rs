//! What a session may look at, how patient it is, and how it can fail.

use std::time::Duration;

use thiserror::Error;

use crate::{
    cost,
    id::NodeId,
    market::Terms,
    partition::Goal,
    plan::Plan,
    wire::{Ask, FailureReason},
};

/// How patient a session is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A bid unanswered for this long is sent again.
    pub bid_patience: Duration,
    /// A provider that leaves this many copies of a bid unanswered is taken for lost.
    pub bid_sends_max: u32,
    /// An agreement must stand this long without an eviction before anything is loaded.
    pub settle: Duration,
    /// How often leases are renewed.
    pub renew_every: Duration,
    /// A provider silent for this long while leases are renewed is taken for lost.
    pub silence_max: Duration,
    /// How often an install is sent again until it is answered.
    pub install_every: Duration,
    /// Providers have this long to fetch their weights.
    pub install_max: Duration,
    /// How long to look for providers before giving up.
    pub search_max: Duration,
    /// How long to wait between two tries to plan.
    pub retry_every: Duration,
    /// A split must gain more than this share of time before it is preferred.
    pub gain_min: f64,
    /// Cuts move on a running session only for more than this share.
    pub gain_min_running: f64,
    /// Without an output for this long, and eight predicted latencies, the plan is installed anew.
    pub stall: Duration,
    /// After this many failures without an output in between, the session fails.
    pub strikes_max: u32,
    /// The most requests waiting or in flight.
    pub requests_max: usize,
    /// The most pieces in a plan.
    pub pieces_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bid_patience: Duration::from_millis(500),
            bid_sends_max: 5,
            settle: Duration::from_millis(30),
            renew_every: Duration::from_secs(1),
            silence_max: Duration::from_secs(4),
            install_every: Duration::from_secs(1),
            install_max: Duration::from_secs(120),
            search_max: Duration::from_secs(8),
            retry_every: Duration::from_millis(200),
            gain_min: 0.02,
            gain_min_running: 0.25,
            stall: Duration::from_secs(4),
            strikes_max: 6,
            requests_max: 1024,
            pieces_max: 16,
        }
    }
}

/// How a session's plan is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planning {
    /// The caller's own cuts, which are never moved.
    Fixed(Plan),
    /// The `pf` partitioner.
    Pf(Goal),
}

/// A provider as its requester sees it at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Who.
    pub node: NodeId,
    /// Its speed, link and memory.
    pub provider: cost::Provider,
    /// Its price, as last heard.
    pub ask: Ask,
    /// Pieces there now.
    pub holders: u16,
}

/// What a session may look at while it decides.
pub struct View<'a> {
    /// Everyone who takes pieces, oneself included if so.
    pub offers: &'a [Offer],
    /// The auction's rules.
    pub terms: Terms,
    /// The limits.
    pub config: &'a Config,
}

/// Why a session ended without being closed by its caller.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Nobody offers compute, or nobody whose memory is enough.
    #[error(
        "no node can compute this model: none is known that offers compute and has the memory for \
         its pieces; start one with `starling node`, or run with --local"
    )]
    NoProvider,
    /// There are providers, but their places are all taken by pieces that bid more.
    #[error("all places are taken: every provider's slots are held by others; try again later")]
    NoPlace,
    /// Providers did not load their pieces.
    #[error("a provider could not load its piece: {0:?}")]
    NotInstalled(FailureReason),
    /// The pieces are loaded, but outputs don't come.
    #[error("no output arrives although every piece is loaded: check the links between the nodes")]
    Stalled,
}
