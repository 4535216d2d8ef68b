//! Providers in a forecast: their costs side by side, for fast looks at all of them, and what each
//! holds.

use std::collections::{BTreeMap, BTreeSet};

use super::Stall;
use crate::{
    id::NodeId,
    model::OP_CLASSES,
    nats::{Nats, slot_cost},
    wire::Ask,
};

/// All providers. Columns, because a look at all of them reads every column once, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelves {
    seconds_per_flop: [Vec<f64>; OP_CLASSES],
    seconds_per_byte: Vec<f64>,
    memory: Vec<f64>,
    // e^price; infinite where no bid can succeed.
    factor: Vec<f64>,
    shelves: Vec<Shelf>,
    places: BTreeMap<NodeId, usize>,
}

/// What one provider holds.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    node: NodeId,
    slots: u16,
    // As told when the forecast began: pieces that don't bid.
    settled: u16,
    // As last told, with pieces that the forecast may not know.
    heard: u16,
    version: u64,
    floor: f64,
    price: f64,
    closed: Closed,
    // Levels are not negative, and then their bits sort as they do.
    held: BTreeSet<(u64, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    No,
    Yes,
}

impl Shelves {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn node(&self, at: usize) -> NodeId {
        self.shelves[at].node
    }

    pub(super) fn price(&self, at: usize) -> f64 {
        self.shelves[at].price
    }

    pub(super) fn find(&self, node: &NodeId) -> Option<usize> {
        self.places.get(node).copied()
    }

    pub(super) fn find_or_add(&mut self, node: NodeId) -> usize {
        if let Some(at) = self.find(&node) {
            return at;
        }
        let at = self.shelves.len();
        self.shelves.push(Shelf::empty(node));
        for column in &mut self.seconds_per_flop {
            column.push(0.0);
        }
        self.seconds_per_byte.push(0.0);
        self.memory.push(0.0);
        self.factor.push(f64::INFINITY);
        self.places.insert(node, at);
        at
    }

    /// What is known of an empty shelf.
    pub(super) fn set(&mut self, at: usize, stall: &Stall) {
        for (column, speed) in self.seconds_per_flop.iter_mut().zip(stall.provider.speed.0) {
            // A class without a speed makes work of that class infinitely long, other work not.
            column[at] = if speed == 0 { f64::MAX } else { 1.0 / speed as f64 };
        }
        self.seconds_per_byte[at] = 1.0 / stall.provider.bandwidth;
        self.memory[at] = stall.provider.memory_free as f64;
        let shelf = &mut self.shelves[at];
        shelf.slots = stall.slots;
        (shelf.settled, shelf.heard) = (stall.ask.holders, stall.ask.holders);
        shelf.version = stall.ask.version;
        shelf.floor = stall.ask.level.map_or(0.0, Nats::to_f64);
        shelf.closed = if stall.ask.level.is_none() { Closed::Yes } else { Closed::No };
        self.reprice(at);
    }

    pub(super) fn close(&mut self, at: usize) {
        self.shelves[at].closed = Closed::Yes;
        self.reprice(at);
    }

    /// Sets a floor under the price, and returns who can't be there then.
    pub(super) fn hear_ask(&mut self, at: usize, ask: &Ask) -> Vec<u32> {
        let shelf = &mut self.shelves[at];
        if ask.version <= shelf.version {
            return Vec::new();
        }
        shelf.version = ask.version;
        let floor = ask.level.map_or(f64::INFINITY, Nats::to_f64);
        if floor < shelf.floor {
            return Vec::new();
        }
        (shelf.floor, shelf.heard) = (floor, ask.holders.max(shelf.settled));
        let below = shelf.held.range(..(floor.to_bits(), 0)).map(|(_, piece)| *piece).collect();
        self.reprice(at);
        below
    }

    /// `T_ij * e^price_j` for each provider, infinite where the piece can't go.
    pub(super) fn costs(
        &self,
        work: &[f64; OP_CLASSES],
        bytes: f64,
        weights: f64,
        out: &mut Vec<f64>,
    ) {
        out.clear();
        out.extend(self.seconds_per_byte.iter().map(|per_byte| bytes * per_byte));
        for (flops, column) in work.iter().zip(&self.seconds_per_flop) {
            if *flops > 0.0 {
                for (cost, per_flop) in out.iter_mut().zip(column) {
                    *cost += flops * per_flop;
                }
            }
        }
        for ((cost, factor), memory) in out.iter_mut().zip(&self.factor).zip(&self.memory) {
            let fits = if weights > *memory { f64::INFINITY } else { *factor };
            *cost = cost.max(SECONDS_MIN) * fits;
        }
    }

    /// The same, from a row of stand-alone seconds.
    pub(super) fn costs_of_row(&self, seconds: &[f64], out: &mut Vec<f64>) {
        out.clear();
        let pairs = seconds.iter().zip(&self.factor);
        out.extend(pairs.map(|(seconds, factor)| seconds.max(SECONDS_MIN) * factor));
    }

    /// `e^price`.
    pub(super) fn factor(&self, at: usize) -> f64 {
        self.factor[at]
    }

    /// One provider's entry of [`costs`](Self::costs).
    pub(super) fn cost(
        &self,
        at: usize,
        work: &[f64; OP_CLASSES],
        bytes: f64,
        weights: f64,
    ) -> f64 {
        if weights > self.memory[at] {
            return f64::INFINITY;
        }
        let mut seconds = bytes * self.seconds_per_byte[at];
        for (flops, column) in work.iter().zip(&self.seconds_per_flop) {
            if *flops > 0.0 {
                seconds += flops * column[at];
            }
        }
        seconds.max(SECONDS_MIN) * self.factor[at]
    }

    /// Takes a bid that is worth its place. Returns who has to go for it, if anyone.
    pub(super) fn accept(&mut self, at: usize, level: f64, piece: u32) -> Option<u32> {
        let shelf = &mut self.shelves[at];
        let evicted = shelf.evicted_by_next();
        if let Some(lowest) = evicted {
            shelf.held.remove(&lowest);
        }
        shelf.held.insert((level.to_bits(), piece));
        self.reprice(at);
        evicted.map(|(_, piece)| piece)
    }

    /// Puts a piece here that really is here.
    pub(super) fn push(&mut self, at: usize, level: f64, piece: u32) {
        self.shelves[at].held.insert((level.to_bits(), piece));
        self.reprice(at);
    }

    /// Takes a piece away. Says whether that lowered the price.
    pub(super) fn remove(&mut self, at: usize, level: f64, piece: u32) -> bool {
        let before = self.shelves[at].price;
        self.shelves[at].held.remove(&(level.to_bits(), piece));
        self.reprice(at);
        self.shelves[at].price < before
    }

    /// Takes all pieces away, and returns them.
    pub(super) fn clear(&mut self, at: usize) -> Vec<u32> {
        let held = std::mem::take(&mut self.shelves[at].held);
        self.reprice(at);
        held.into_iter().map(|(_, piece)| piece).collect()
    }

    fn reprice(&mut self, at: usize) {
        let shelf = &mut self.shelves[at];
        shelf.price = shelf.natural_price();
        self.factor[at] = shelf.price.exp();
    }
}

impl Shelf {
    fn empty(node: NodeId) -> Self {
        Self {
            node,
            slots: 0,
            settled: 0,
            heard: 0,
            version: 0,
            floor: 0.0,
            price: f64::INFINITY,
            closed: Closed::Yes,
            held: BTreeSet::new(),
        }
    }

    /// `max(floor, min(lowest level, s_{n+1}))`.
    fn natural_price(&self) -> f64 {
        if self.closed == Closed::Yes || self.slots == 0 {
            return f64::INFINITY;
        }
        let lowest = self.held.first().map_or(f64::INFINITY, |(bits, _)| f64::from_bits(*bits));
        let price = lowest.min(self.open_slot()).max(self.floor);
        // Full of settled pieces, whose levels are known by the ask alone.
        if price.is_finite() { price } else { self.floor }
    }

    fn open_slot(&self) -> f64 {
        let holders = self.holders();
        if holders < self.slots {
            slot_cost(u32::from(holders) + 1).to_f64()
        } else {
            f64::INFINITY
        }
    }

    /// Those known here and those only heard of.
    fn holders(&self) -> u16 {
        let held = u16::try_from(self.held.len()).unwrap_or(u16::MAX);
        self.settled.saturating_add(held).max(self.heard)
    }

    /// Whom the next bid displaces: nobody if a slot is the cheapest, or a piece that the forecast
    /// does not know; else the lowest that it knows.
    fn evicted_by_next(&self) -> Option<(u64, u32)> {
        let lowest = *self.held.first()?;
        let level = f64::from_bits(lowest.0);
        let held = u16::try_from(self.held.len()).unwrap_or(u16::MAX);
        let strangers = self.holders() > held;
        let slot_is_cheapest = self.open_slot() <= level.max(self.floor);
        let stranger_is_cheapest = strangers && self.floor < level;
        (!slot_is_cheapest && !stranger_is_cheapest).then_some(lowest)
    }
}

/// A piece with no work and no bytes is as good as instantaneous everywhere.
const SECONDS_MIN: f64 = 1e-9;
