//! Everything that is fixed for the life of a node.

use std::time::Duration;

use crate::{
    budget::BudgetConfig,
    flock,
    id::NodeId,
    market::{BookConfig, Terms},
    model::Speed,
    session,
};

/// For whom a node computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offering {
    /// Anyone.
    Everyone,
    /// Its own sessions alone: it is a candidate like any other, but only for itself.
    Own,
    /// Nobody: it only asks.
    Nobody,
}

/// Everything that is fixed for the life of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub id: NodeId,
    /// The auction's rules, the same throughout the swarm.
    pub terms: Terms,
    /// Limits of the picture.
    pub flock: flock::Config,
    /// What it offers.
    pub book: BookConfig,
    /// How many market messages it takes from one peer.
    pub messages: BudgetConfig,
    /// How many adverts it takes from one author.
    pub adverts: BudgetConfig,
    /// How patient its sessions are.
    pub session: session::Config,
    /// For whom it computes.
    pub offering: Offering,
    /// Its calibrated speed.
    pub speed: Speed,
    /// Bytes per second of its link.
    pub bandwidth: u64,
    /// Picoseconds of its processor for each byte that comes or goes.
    pub byte_ps: u32,
    /// How often it advertises itself without a reason, in a small flock.
    pub advert_every: Duration,
    /// And how much longer for each node that it knows: what all adverts take of everyone's link
    /// stays the same however many nodes there are.
    pub advert_every_each: Duration,
    /// The least time between two adverts.
    pub advert_gap: Duration,
    /// How many of its adverts in a row may be lost before it is forgotten.
    pub adverts_lost_max: u32,
    /// A piece with a place that its requester has not asked to be loaded by then loses it.
    pub install_grace: Duration,
    /// The most sessions of its own.
    pub sessions_max: usize,
    /// Above every sequence number and version of its earlier lives: the clock's microseconds.
    pub first_sequence: u64,
}

impl Config {
    /// The defaults for a node of this id and calibrated speed.
    #[must_use]
    pub fn new(id: NodeId, speed: Speed, first_sequence: u64) -> Self {
        Self {
            id,
            terms: Terms::default(),
            flock: flock::Config::default(),
            book: BookConfig::default(),
            messages: BudgetConfig { burst: 2048, per_second: 512, peers_max: 4096 },
            adverts: BudgetConfig { burst: 256, per_second: 64, peers_max: 4096 },
            session: session::Config::default(),
            offering: Offering::Everyone,
            speed,
            // 100 Mbit/s Ethernet.
            bandwidth: 12_500_000,
            byte_ps: 0,
            advert_every: Duration::from_secs(4),
            advert_gap: Duration::from_millis(100),
            advert_every_each: Duration::from_millis(900),
            adverts_lost_max: 2,
            install_grace: Duration::from_secs(30),
            sessions_max: 256,
            first_sequence,
        }
    }
}
