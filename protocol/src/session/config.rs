//! What a session may look at, how patient it is, and how it can fail.

use std::time::Duration;

use thiserror::Error;

use crate::{
    beliefs::Beliefs,
    cost,
    flock::{Flock, Known},
    id::NodeId,
    market::Terms,
    partition::{self, Goal, Planner, Proposal, Worker},
    plan::Plan,
    time::Timestamp,
    wire::{Ask, FailureReason},
};

/// With what a session's pieces open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bidding {
    /// With what a forecast of the whole auction ends at.
    Forecast,
    /// With the best bid at the prices known.
    Plain,
}

/// How patient a session is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// With what its pieces open.
    pub bidding: Bidding,
    /// How long to wait, before the first bid, for the adverts of sessions that open at the same
    /// time. Only forecasts need them.
    pub gather: Duration,
    /// For how long after the first bids prices are heard that are those of bids still under way:
    /// where the forecast says more, it counts.
    pub rush: Duration,
    /// How long news of such prices is awaited, before those who ask them are asked.
    pub doubt: Duration,
    /// How long their answers are awaited.
    pub inquiry: Duration,
    /// As long as others still find places, none is held against the prices: until all are known to
    /// have one, or for so long none has.
    pub fill: Duration,
    /// So many bids of a piece follow a forecast; after that it bids at the prices known.
    pub forecasts_max: u32,
    /// A bid unanswered for this long is sent again.
    pub bid_patience: Duration,
    /// A provider that leaves this many copies of a bid unanswered is taken for lost.
    pub bid_sends_max: u32,
    /// An agreement must stand this long without an eviction before anything is loaded.
    pub settle: Duration,
    /// How often the places of a running session are held against the prices of the day.
    pub review_every: Duration,
    /// How often better cuts are looked for, twice as seldom after each time that some were found.
    pub replan_every: Duration,
    /// So often the places of one agreement are held against the prices, which each time may make
    /// others look again.
    pub reviews_max: u32,
    /// A new place must be ready within this time, or the piece stays where it is. With
    /// `drain_max` it should be less than a lease: for so long two providers hold the piece.
    pub move_max: Duration,
    /// Requests on their way are waited for no longer than this before a move; then they are
    /// replayed after it.
    pub drain_max: Duration,
    /// A provider that refuses a piece for another reason than its level is not asked again for
    /// this long.
    pub exclusion: Duration,
    /// A provider that could not load its piece gets none for this long, and for twice as long
    /// after each further time.
    pub exclusion_failed: Duration,
    /// How often leases are renewed.
    pub renew_every: Duration,
    /// A provider silent for this long while leases are renewed is taken for lost.
    pub silence_max: Duration,
    /// How often an install is sent again until it is answered.
    pub install_every: Duration,
    /// Providers have at least this long to fetch their weights, and longer where these are many
    /// for the links.
    pub install_max: Duration,
    /// How long to look for providers before giving up, at first and when none is left; and for how
    /// long at least those that are there may leave bids without an answer.
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
            bidding: Bidding::Forecast,
            gather: Duration::from_millis(200),
            rush: Duration::from_millis(200),
            doubt: Duration::from_millis(200),
            inquiry: Duration::from_millis(90),
            fill: Duration::from_millis(100),
            forecasts_max: 2,
            bid_patience: Duration::from_millis(500),
            bid_sends_max: 5,
            settle: Duration::from_millis(30),
            review_every: Duration::from_secs(1),
            reviews_max: 8,
            replan_every: Duration::from_secs(4),
            move_max: Duration::from_secs(4),
            drain_max: Duration::from_secs(1),
            exclusion: Duration::from_secs(30),
            exclusion_failed: Duration::from_secs(4),
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
    /// The caller's own plan, which stays as it is. The auction says who computes which piece.
    Fixed(Plan),
    /// The caller's own plan, with the node that is to compute each piece.
    Placed(Plan, Vec<NodeId>),
    /// The caller's own plan. The matching game of DINA-O says who computes which piece.
    Matched(Plan),
    /// One of the planners, for this goal.
    By(Planner, Goal),
}

impl Planning {
    /// A plan as a planner found it, at the nodes that it is sized for.
    #[must_use]
    pub fn as_proposed(proposal: Proposal) -> Self {
        Planning::Placed(proposal.plan, proposal.order)
    }

    /// Whether the plan is the caller's own: then there is no other.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        match self {
            Planning::Fixed(_) | Planning::Placed(..) | Planning::Matched(_) => true,
            Planning::By(..) => false,
        }
    }
}

/// A provider as its requester sees it at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Who.
    pub node: NodeId,
    /// Its speed as far as it is believed, link and memory.
    pub provider: cost::Provider,
    /// The most pieces that it takes.
    pub slots: u16,
    /// Its price, as last heard, and how many pieces are there.
    pub ask: Ask,
}

/// What a session may look at while it decides.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The time.
    pub now: Timestamp,
    /// The others, as their adverts describe them.
    pub flock: &'a Flock,
    /// What experience says of these adverts.
    pub beliefs: &'a Beliefs,
    /// The node itself, if it computes.
    pub own: Option<Offer>,
    /// The auction's rules.
    pub terms: Terms,
    /// The limits.
    pub config: &'a Config,
}

impl Config {
    /// What planners are told.
    #[must_use]
    pub fn plans(&self) -> partition::Settings {
        partition::Settings {
            pieces_max: self.pieces_max,
            gain_min: self.gain_min,
            hop: HOP_SECONDS,
            ..partition::Settings::default()
        }
    }
}

impl View<'_> {
    /// Everyone who has room for a piece, as planners see them.
    #[must_use]
    pub fn workers(&self) -> Vec<Worker> {
        let open = self.offers().filter(|offer| offer.ask.level.is_some());
        let worker = |offer: Offer| Worker {
            node: offer.node,
            provider: offer.provider,
            sharers: offer.ask.holders.saturating_add(1),
            room: offer.slots.saturating_sub(offer.ask.holders),
        };
        open.map(worker).collect()
    }

    /// Everyone who takes pieces, the node itself included if so.
    pub fn offers(&self) -> impl Iterator<Item = Offer> {
        let others = self.flock.nodes().filter(|(_, known)| known.advert.slots > 0);
        others.map(|(node, known)| self.offer_of(*node, known)).chain(self.own)
    }

    /// One of them.
    #[must_use]
    pub fn offer(&self, node: &NodeId) -> Option<Offer> {
        if let Some(own) = self.own.filter(|own| own.node == *node) {
            return Some(own);
        }
        let known = self.flock.node(node).filter(|known| known.advert.slots > 0)?;
        Some(self.offer_of(*node, known))
    }

    /// One's price.
    #[must_use]
    pub fn ask(&self, node: &NodeId) -> Option<Ask> {
        if let Some(own) = self.own.filter(|own| own.node == *node) {
            return Some(own.ask);
        }
        let known = self.flock.node(node).filter(|known| known.advert.slots > 0)?;
        Some(known.advert.ask)
    }

    /// All prices, and when each was heard.
    pub fn asks(&self) -> impl Iterator<Item = (NodeId, Ask, Timestamp)> {
        let others = self.flock.nodes().filter(|(_, known)| known.advert.slots > 0);
        let others = others.map(|(node, known)| (*node, known.advert.ask, known.priced));
        others.chain(self.own.map(|own| (own.node, own.ask, self.now)))
    }

    fn offer_of(&self, node: NodeId, known: &Known) -> Offer {
        let provider = known.provider();
        let speed = self.beliefs.effective(self.now, &node, &provider.speed);
        Offer {
            node,
            provider: cost::Provider { speed, ..provider },
            slots: known.advert.slots,
            ask: known.advert.ask,
        }
    }
}

/// What passing from one segment to the next takes besides the bytes, on a local network.
const HOP_SECONDS: f64 = 0.001;

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
    /// There are providers, and those that might have places don't answer.
    #[error(
        "the nodes that could compute this model don't answer: see with `starling peers` whether \
         they are there, and try again"
    )]
    NoAnswer,
    /// The planner decided who computes what, and they don't take it.
    #[error(
        "the nodes that the plan is made for don't take its pieces: they are gone, full, or can't \
         hold the weights; try again, with another --planner, or with more --memory there"
    )]
    NotTaken,
    /// Providers did not load their pieces.
    #[error("a provider could not load its piece: {0:?}")]
    NotInstalled(FailureReason),
    /// The pieces are loaded, but outputs don't come.
    #[error("no output arrives although every piece is loaded: check the links between the nodes")]
    Stalled,
}
