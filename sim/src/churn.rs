//! What one departure costs an agreed flock: a provider crashes, and its pieces find new places.

use std::time::Duration;

use rand::RngExt;
use serde::Serialize;
use starling_protocol::PieceId;

use crate::{
    check,
    converge::{Failure, Run},
    ledger::Ledger,
    random::{Purpose, generator},
    world::World,
};

/// What came of the crash of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reagreement {
    /// Pieces that had their place there.
    pub lost: usize,
    /// Other pieces whose provider is another one now.
    pub moved: usize,
    /// Of these, pieces that were turned out by one that had lost its place.
    pub evicted: usize,
    /// The most bids that any one piece made since the crash.
    pub rounds: u64,
    /// Bids of all pieces since.
    pub bids: u64,
    /// Messages of the auction since.
    pub messages: u64,
    /// From the crash until every piece had a place again, and no message of the auction was on
    /// its way, in virtual time.
    pub virtual_ms: f64,
    /// The gap per piece to the optimum of those that are left, in nats.
    pub gap_per_piece: f64,
}

impl Run {
    /// Crashes one provider of a settled auction whose pieces are loaded, and waits until all
    /// pieces have places again, and then until nothing has moved for a while.
    ///
    /// # Errors
    /// If the pieces are not loaded in time, or don't find places again.
    pub fn crash_one(&mut self) -> Result<Reagreement, Failure> {
        let patience = self.setup().patience;
        self.world_mut().run_until(patience, World::all_ready).map_err(Failure::Load)?;
        let before = check::assignment(self.world(), self.workload())?;
        let crashed = self.victim();
        let counts = Counts::of(self.world().ledger());
        let began = self.world().now();
        self.world_mut().crash(crashed);
        // Nobody has noticed yet, and all looks settled.
        self.world_mut().run_for(NOTICED).map_err(Failure::Settle)?;
        self.wait_until_settled()?;
        let virtual_ms = self.world().now().since(began).as_secs_f64() * 1e3;
        // Those that gain by it move when they next look.
        self.world_mut().run_for(MOVED).map_err(Failure::Settle)?;
        self.wait_until_settled()?;
        self.reagreement(crashed, &before, &counts, virtual_ms)
    }

    fn victim(&self) -> usize {
        let providers = self.workload().machines.len();
        generator(self.seed(), Purpose::Crash).random_range(0..providers)
    }

    fn reagreement(
        &self,
        crashed: usize,
        before: &[usize],
        counts: &Counts,
        virtual_ms: f64,
    ) -> Result<Reagreement, Failure> {
        let after = check::assignment(self.world(), self.workload())?;
        let mut instance = self.workload().instance(self.setup().terms);
        instance.capacity[crashed] = 0;
        let (utility, optimum) = check::values(&instance, &after)?;
        let ledger = self.world().ledger();
        let pairs = before.iter().zip(&after);
        let moved = pairs.filter(|(from, to)| **from != crashed && from != to).count();
        let pieces = self.workload().pieces();
        let since = pieces.map(|(piece, _)| ledger.bids_of(&piece) - counts.bids_of(&piece));
        let bids: Vec<u64> = since.collect();
        Ok(Reagreement {
            lost: before.iter().filter(|provider| **provider == crashed).count(),
            moved,
            evicted: usize::try_from(ledger.evictions() - counts.evictions).unwrap_or(usize::MAX),
            rounds: bids.iter().copied().max().unwrap_or(0),
            bids: bids.iter().sum(),
            messages: ledger.auction().messages - counts.messages,
            virtual_ms,
            gap_per_piece: (optimum - utility).to_f64() / instance.pieces() as f64,
        })
    }
}

/// What had been counted by the time of the crash.
struct Counts {
    bids: std::collections::BTreeMap<PieceId, u64>,
    evictions: u64,
    messages: u64,
}

impl Counts {
    fn of(ledger: &Ledger) -> Self {
        Self {
            bids: ledger.bids_by_piece().collect(),
            evictions: ledger.evictions(),
            messages: ledger.auction().messages,
        }
    }

    fn bids_of(&self, piece: &PieceId) -> u64 {
        self.bids.get(piece).copied().unwrap_or(0)
    }
}

/// Longer than any link takes to say that it is closed.
const NOTICED: Duration = Duration::from_millis(100);
/// So often running sessions have looked at the prices by then that they would have moved.
const MOVED: Duration = Duration::from_secs(5);
