//! The class auction (design: Xu et al. 2023, in the form of one price per provider).
//!
//! Pieces bid for places at providers; `n` pieces on one provider share it equally. Because
//! `n ln n` is the sum of rising slot costs `s_1 < s_2 < ...`, maximising `sum ln(r_ij / n_j)` is an
//! assignment of pieces to slots, and because the slots of one provider are alike, one price per
//! provider is enough: `ask_j = min(lowest accepted level, s_{n_j + 1})`.
//!
//! [`Book`] is the provider's side and has the last word. [`Bidder`] is the requester's side for
//! the pieces of one session, and [`Forecast`] is what it may open with. At quiescence `U* - N*eps <= U <= U*`; `docs/PROTOCOL.md` proves it.

mod bidder;
mod book;
mod exchange;
mod expected;
mod falling;
mod forecast;
mod migration;
mod offer;
mod prices;
mod seat;

pub use bidder::{Awarded, Bidder, Tally};
pub use book::{Bid, Book, BookConfig, Holding, Runs, Verdict};
pub use exchange::Pair;
pub use forecast::{Forecast, Opening, Stall};
pub use migration::MigrationCost;
pub use offer::{Moving, Offered};
pub use prices::{News, Prices};
pub use seat::{Candidate, SeatState};

use crate::nats::{Nats, slot_cost};

/// What all nodes of a swarm must agree on for the bound to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The least rise of a price. The geometric mean of all rates is within `e^-eps` of the best.
    pub eps: Nats,
    /// A provider whose rate for a piece is below the piece's best by more than this counts as
    /// infeasible for it. This makes the spread of one piece's benefits known to everyone, which
    /// [`cap`](Self::cap) rests on.
    pub spread: Nats,
    /// What it costs to move a piece that runs: it stays unless it gains more, and whoever wants
    /// its place must offer so much more.
    pub migration: MigrationCost,
}

impl Default for Terms {
    fn default() -> Self {
        // 0.05 nats: at most 5 % of the geometric mean rate. 9.21 nats: a factor of 10,000.
        Self {
            eps: Nats::from_f64(0.05),
            spread: Nats::from_f64(9.21),
            migration: MigrationCost::default(),
        }
    }
}

impl Terms {
    /// A level that no bid needs to pass while its piece has a place to go.
    ///
    /// Follow the chain from a piece without a place: its provider's cheapest holder, where that
    /// one would go next, and so on to an open slot. Every step of the chain raises the price by
    /// at most one piece's spread plus eps, and no provider is met twice. So a price above
    /// `providers * (spread + eps) + s_max` has no open slot at the end of any chain.
    #[must_use]
    pub fn cap(&self, providers: usize) -> Nats {
        (self.spread + self.eps).times(providers as u64) + slot_cost(PIECES_EVER)
    }

    /// What a level is above the least that would do, so that a piece need not bid again for less.
    pub(crate) fn spare(&self) -> Nats {
        Nats(self.eps.0 / 2)
    }
}

/// No flock places more pieces than this at once; used only inside a logarithm.
const PIECES_EVER: u32 = 1 << 20;
