//! Who is where, while an algorithm works on it: what all baselines have in common.

use rand::seq::SliceRandom;
use starling_protocol::{Nats, nats::slot_cost, testing::Instance};

use crate::random::{Purpose, generator};

/// A partial assignment that never breaks the instance's rules.
pub(super) struct Places<'a> {
    instance: &'a Instance,
    at: Vec<Option<usize>>,
    holders: Vec<usize>,
    // `s_k` and `ln k` for every k that can occur, since each is asked for many times.
    slot_costs: Vec<Nats>,
    log_counts: Vec<Nats>,
}

impl<'a> Places<'a> {
    pub(super) fn new(instance: &'a Instance) -> Self {
        let counts = 0..=instance.pieces() + 1;
        let slot = |k: usize| slot_cost(u32::try_from(k).unwrap_or(u32::MAX));
        let log = |k: usize| Nats::ln(k as f64).unwrap_or(Nats::ZERO);
        Self {
            instance,
            at: vec![None; instance.pieces()],
            holders: vec![0; instance.providers()],
            slot_costs: counts.clone().map(slot).collect(),
            log_counts: counts.map(log).collect(),
        }
    }

    pub(super) fn instance(&self) -> &'a Instance {
        self.instance
    }

    /// `ln r_ij`.
    pub(super) fn log_rate(&self, piece: usize, provider: usize) -> Option<Nats> {
        self.instance.log_rates[piece][provider]
    }

    /// `s_k`.
    pub(super) fn slot_cost(&self, k: usize) -> Nats {
        self.slot_costs[k]
    }

    /// `ln(r_ij / n)`: what the piece has there as one of `n`.
    pub(super) fn log_share(&self, piece: usize, provider: usize, n: usize) -> Option<Nats> {
        Some(self.log_rate(piece, provider)? - self.log_counts[n])
    }

    pub(super) fn at(&self, piece: usize) -> Option<usize> {
        self.at[piece]
    }

    pub(super) fn holders(&self, provider: usize) -> usize {
        self.holders[provider]
    }

    /// Whether one more piece fits.
    pub(super) fn has_room(&self, provider: usize) -> bool {
        self.holders[provider] < usize::from(self.instance.capacity[provider])
    }

    /// Providers that would take the piece now.
    pub(super) fn open_to(&self, piece: usize) -> impl Iterator<Item = usize> {
        let rates = self.instance.log_rates[piece].iter().enumerate();
        rates.filter(|(j, rate)| rate.is_some() && self.has_room(*j)).map(|(j, _)| j)
    }

    /// Takes the piece from where it is, if anywhere, and puts it there.
    pub(super) fn put(&mut self, piece: usize, provider: usize) {
        self.take(piece);
        assert!(self.has_room(provider), "provider {provider} is full");
        assert!(self.log_rate(piece, provider).is_some(), "{piece} at {provider} is forbidden");
        self.holders[provider] += 1;
        self.at[piece] = Some(provider);
    }

    /// Says where it was.
    pub(super) fn take(&mut self, piece: usize) -> Option<usize> {
        let from = self.at[piece].take()?;
        self.holders[from] -= 1;
        Some(from)
    }

    pub(super) fn into_assignment(self) -> Vec<Option<usize>> {
        self.at
    }
}

/// The pieces in the order in which they arrive.
pub(super) fn arrivals(instance: &Instance, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..instance.pieces()).collect();
    order.shuffle(&mut generator(seed, Purpose::Solvers));
    order
}
