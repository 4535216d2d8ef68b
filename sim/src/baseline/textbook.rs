//! The textbook auction: Bertsekas' auction algorithm (1988; tutorial 1990) on pieces and slots,
//! where every slot `(j, k)` is an object of its own with the benefit `ln r_ij - s_k` and a price
//! of its own.
//!
//! In each round all pieces without a slot bid at once (the Jacobi form) on the slot that is best
//! for them, and raise its price to where the second best slot becomes as good, plus eps. The
//! highest bid on a slot wins. The slots of one provider are nearly alike, so the second best slot
//! is mostly next to the best, and pieces overbid each other in steps of little more than eps: the
//! price war that the class auction avoids.
//!
//! At its end `U* - N*eps <= U`, as for the class auction: prices start at zero, and slots that
//! nobody ever bid on keep that price.

use std::collections::BTreeSet;

use starling_protocol::{Nats, market::Terms, nats::slot_cost, testing::Instance};

use super::{Settings, Solution, spread};

/// | count | is |
/// |---|---|
/// | `accepted`, `refused` | answers to bids |
/// | `evicted` | slots lost to a higher bid |
/// | `adverts` | prices that changed, each told to all once |
pub(super) fn solve(instance: &Instance, settings: &Settings) -> Solution {
    let mut auction = Auction::new(instance, settings.terms.eps);
    while auction.rounds < settings.rounds_max && auction.round() {}
    auction.solution()
}

struct Auction<'a> {
    instance: &'a Instance,
    eps: Nats,
    // No price passes this while there is a place for everyone.
    cap: Nats,
    shops: Vec<Shop>,
    // Where each piece is; those that gave up are in neither.
    at: Vec<Option<usize>>,
    waiting: BTreeSet<usize>,
    rounds: u64,
    bids: u64,
    accepted: u64,
    evicted: u64,
}

/// The slots of one provider. What a slot costs a piece is `s_k` and its price together.
struct Shop {
    costs: BTreeSet<(Nats, usize)>,
    holders: Vec<Option<usize>>,
}

/// Ordered so that the best bid on a slot comes last of all bids on that slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bid {
    provider: usize,
    slot: usize,
    cost: Nats,
    piece: usize,
}

impl<'a> Auction<'a> {
    fn new(instance: &'a Instance, eps: Nats) -> Self {
        let spread = spread(instance);
        let shop = |capacity: &u16| Shop::new(usize::from(*capacity).min(instance.pieces()));
        Self {
            instance,
            eps,
            cap: Terms { eps, spread, ..Terms::default() }.cap(instance.providers()),
            shops: instance.capacity.iter().map(shop).collect(),
            at: vec![None; instance.pieces()],
            waiting: (0..instance.pieces()).collect(),
            rounds: 0,
            bids: 0,
            accepted: 0,
            evicted: 0,
        }
    }

    /// Says whether anybody bid.
    fn round(&mut self) -> bool {
        let pieces = std::mem::take(&mut self.waiting);
        let mut bids: Vec<Bid> = pieces.iter().filter_map(|piece| self.bid(*piece)).collect();
        if bids.is_empty() {
            return false;
        }
        self.rounds += 1;
        self.bids += bids.len() as u64;
        bids.sort_unstable();
        for of_one_slot in bids.chunk_by(|a, b| (a.provider, a.slot) == (b.provider, b.slot)) {
            let (winner, losers) = of_one_slot.split_last().expect("no chunk is empty");
            self.award(winner);
            self.waiting.extend(losers.iter().map(|bid| bid.piece));
        }
        true
    }

    /// Nothing if the best slot is so dear that there is no place for the piece.
    fn bid(&self, piece: usize) -> Option<Bid> {
        let rates = self.instance.log_rates[piece].iter().zip(&self.shops).enumerate();
        let offers = rates.filter_map(|(j, (rate, shop))| Some((j, (*rate)?, shop)));
        let values = offers.flat_map(|(provider, rate, shop)| {
            let two = shop.costs.iter().take(2);
            two.map(move |(cost, slot)| (rate - *cost, provider, *slot))
        });
        let (best, second) = two_best(values);
        let (value, provider, slot) = best?;
        let rate = self.instance.log_rates[piece][provider]?;
        if rate - value + self.eps > self.cap {
            return None;
        }
        let cost = second.map_or(self.cap, |(second, ..)| rate - second + self.eps);
        Some(Bid { provider, slot, cost: cost.min(self.cap), piece })
    }

    fn award(&mut self, bid: &Bid) {
        let evicted = self.shops[bid.provider].sell(bid);
        self.at[bid.piece] = Some(bid.provider);
        self.accepted += 1;
        if let Some(evicted) = evicted {
            self.evicted += 1;
            self.at[evicted] = None;
            self.waiting.insert(evicted);
        }
    }

    fn solution(self) -> Solution {
        let Self { at, rounds, bids, accepted, evicted, .. } = self;
        Solution {
            assignment: at,
            rounds,
            bids,
            messages: 2 * bids + evicted,
            counts: vec![
                ("accepted", accepted),
                ("refused", bids - accepted),
                ("evicted", evicted),
                ("adverts", accepted),
            ],
        }
    }
}

impl Shop {
    fn new(slots: usize) -> Self {
        let cost = |slot| slot_cost(u32::try_from(slot + 1).unwrap_or(u32::MAX));
        Self {
            costs: (0..slots).map(|slot| (cost(slot), slot)).collect(),
            holders: vec![None; slots],
        }
    }

    /// Returns whom it was taken from.
    fn sell(&mut self, bid: &Bid) -> Option<usize> {
        self.costs.retain(|(_, slot)| *slot != bid.slot);
        self.costs.insert((bid.cost, bid.slot));
        self.holders[bid.slot].replace(bid.piece)
    }
}

type Value = (Nats, usize, usize);

/// The first of the best, and the best of the others.
fn two_best(values: impl Iterator<Item = Value>) -> (Option<Value>, Option<Value>) {
    values.fold((None, None), |(best, second): (Option<Value>, Option<Value>), value| {
        if best.is_none_or(|best| value.0 > best.0) {
            (Some(value), best)
        } else if second.is_none_or(|second| value.0 > second.0) {
            (best, Some(value))
        } else {
            (best, second)
        }
    })
}
