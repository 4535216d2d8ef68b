//! A bid under way, and the rules by which pieces bid.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    id::NodeId,
    market::Terms,
    nats::{Nats, slot_cost},
    time::Timestamp,
    wire::{Ask, Claim},
};

/// A bid that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// To whom.
    pub provider: NodeId,
    /// Rises with every bid of the piece.
    pub attempt: u32,
    /// At which level.
    pub level: Nats,
    /// When it was last sent.
    pub sent: Timestamp,
    /// How often it was sent.
    pub sends: u32,
    /// What it may take.
    pub claim: Claim,
}

/// How free a piece is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    /// It has not been loaded: a move costs nothing, and the auction is still on.
    Free,
    /// It runs: it moves for more than a move costs, and turns nobody out for it.
    Running,
}

/// Whose turn it is to move. Two pieces that leave one provider together would each reckon with
/// the other's staying, find it wrong, and come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Another,
    Ours,
}

/// A second place beside the one that is held: make before break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aside {
    pub(super) bid: Offered,
    pub(super) won: Won,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Doubtful,
    Sure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Won {
    NotYet,
    Yes,
}

/// What holds for all pieces of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) terms: Terms,
    pub(super) cap: Nats,
    pub(super) haste: Haste,
    /// Pieces that have or seek places, where prices are expected to rise to what so many make of
    /// them.
    pub(super) demand: u32,
    /// Providers known.
    pub(super) providers: usize,
}

impl Rules {
    /// Whether bids reckon with higher prices than are asked.
    pub(super) fn expects_rise(&self) -> bool {
        self.demand > 0
    }
}

/// What a piece adds to its bids when its prices turn out to be late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    None,
    /// More with every refusal in a row.
    Rising,
}

impl Offered {
    /// Whether it has gone unanswered for so long that it is sent again, which it then counts.
    pub(super) fn is_due(&mut self, now: Timestamp, patience: Duration) -> bool {
        if self.sent + patience > now {
            return false;
        }
        (self.sent, self.sends) = (now, self.sends + 1);
        true
    }
}

impl Moving {
    /// What a provider asks of a piece that may come. One that runs comes only where a slot is the
    /// cheapest, which it is if the price is that of the next slot.
    pub(super) fn quote(
        self,
        node: NodeId,
        own: NodeId,
        quote: &dyn Fn(&NodeId) -> Option<Ask>,
    ) -> Option<Ask> {
        let ask = quote(&node)?;
        let slot = slot_cost(u32::from(ask.holders) + 1);
        let welcome = self == Moving::Free || node == own || ask.level == Some(slot);
        welcome.then_some(ask)
    }

    pub(super) fn claim(self) -> Claim {
        match self {
            Moving::Free => Claim::Any,
            Moving::Running => Claim::OpenSlot,
        }
    }
}

/// The providers of a set of seats' unanswered bids that were sent too often.
pub(super) fn silent<'a>(bids: impl Iterator<Item = &'a Offered>, sends_max: u32) -> Vec<NodeId> {
    let silent = bids.filter(|bid| bid.sends > sends_max).map(|bid| bid.provider);
    silent.collect::<BTreeSet<_>>().into_iter().collect()
}
