//! DINA-O, the matching game of Mohammed et al. (INFOCOM 2020), on whole pieces. The paper's
//! utilities are not available to us; this is our model of it.
//!
//! 1. *Deferred acceptance.* Each provider has a quota. A piece prefers the provider with the
//!    largest share when its quota is full, `r_ij / q_j`, and proposes in that order; a provider
//!    keeps those with the highest rates. What no quota has room for then goes wherever there is
//!    a place, in turn, to the largest share.
//! 2. *Exchanges.* Two pieces are a blocking pair if they, and those that they share providers
//!    with, have a larger sum of log rates after they have exchanged places. All pairs are looked
//!    at, sweep after sweep, until none blocks: two-sided exchange stability.
//!
//! The definition as others quote it asks that neither of the two pieces nor of their providers
//! loses by an exchange. Whatever blocks in that sense blocks in ours, so our end is stable in that
//! sense too; and ours allows more exchanges, which brings the baseline closer to the optimum.
//!
//! Exchanges leave the number of pieces on each provider as it is, so the quotas decide much. We
//! take those that would be fairest if all pieces were average, with which exchanges alone come
//! within 1.01 of the optimum's mean inference time on random instances. Equal quotas leave them
//! at 1.2 to 1.4 times the optimum, and a provider's whole capacity as its quota at 1.3 to 1.5; the
//! paper's own quotas are not known to us. Nor is whether a piece may also take an open place
//! ("hole"): with such moves the quotas hardly matter. So there are two baselines.
//!
//! | count | is |
//! |---|---|
//! | `proposals` | of the first phase |
//! | `examined` | pairs of pieces, and of pieces and open places, looked at |
//! | `swaps`, `moves` | those carried out |
//! | `sweeps` | over all pairs, the last and idle one included |
//!
//! Bids are proposals and what was carried out. Looking at a pair takes messages in a real network
//! (a question and an answer, say), which are not among `messages`.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use starling_protocol::{Nats, testing::Instance};

use super::{Settings, Solution, places::Places};

/// Exchanges of two places only.
pub(super) fn swap(instance: &Instance, settings: &Settings) -> Solution {
    let mut game = Game::new(instance);
    game.propose(settings.rounds_max);
    game.until_stable(settings.rounds_max, &[Game::sweep_swaps]);
    game.solution()
}

/// Exchanges, and moves to open places.
pub(super) fn swap_and_move(instance: &Instance, settings: &Settings) -> Solution {
    let mut game = Game::new(instance);
    game.propose(settings.rounds_max);
    game.until_stable(settings.rounds_max, &[Game::sweep_moves, Game::sweep_swaps]);
    game.solution()
}

struct Game<'a> {
    places: Places<'a>,
    rounds: u64,
    proposals: u64,
    examined: u64,
    swaps: u64,
    moves: u64,
    sweeps: u64,
}

impl<'a> Game<'a> {
    fn new(instance: &'a Instance) -> Self {
        let places = Places::new(instance);
        Self { places, rounds: 0, proposals: 0, examined: 0, swaps: 0, moves: 0, sweeps: 0 }
    }

    /// Deferred acceptance, all pieces without a place at once in each round.
    fn propose(&mut self, rounds_max: u64) {
        let quotas = quotas(&self.places);
        let pieces = self.places.instance().pieces();
        let mut preferences: Vec<Vec<usize>> =
            (0..pieces).map(|piece| self.preferences(piece, &quotas)).collect();
        let mut kept = vec![BTreeSet::new(); quotas.len()];
        let mut waiting: Vec<usize> = (0..pieces).collect();
        while self.rounds < rounds_max {
            let mut rejected = Vec::new();
            let mut proposed = 0;
            for piece in waiting {
                let Some(to) = preferences[piece].pop() else { continue };
                proposed += 1;
                let rate = self.places.log_rate(piece, to);
                kept[to].insert((rate, Reverse(piece)));
                if kept[to].len() > quotas[to] {
                    rejected.extend(kept[to].pop_first().map(|(_, Reverse(piece))| piece));
                }
            }
            if proposed == 0 {
                break;
            }
            self.proposals += proposed;
            self.rounds += 1;
            waiting = rejected;
        }
        for (provider, pieces) in kept.iter().enumerate() {
            pieces.iter().for_each(|(_, Reverse(piece))| self.places.put(*piece, provider));
        }
        (0..pieces).for_each(|piece| self.fill_hole(piece));
    }

    /// The most preferred comes last.
    fn preferences(&self, piece: usize, quotas: &[usize]) -> Vec<usize> {
        let shares = quotas.iter().enumerate().filter(|(_, quota)| **quota > 0);
        let shares = shares
            .filter_map(|(j, quota)| Some((self.places.log_share(piece, j, *quota)?, Reverse(j))));
        let mut shares: Vec<_> = shares.collect();
        shares.sort_unstable();
        shares.into_iter().map(|(_, Reverse(j))| j).collect()
    }

    /// A place for a piece that has none, if there is one.
    fn fill_hole(&mut self, piece: usize) {
        let places = &self.places;
        if places.at(piece).is_some() {
            return;
        }
        let best = places
            .open_to(piece)
            .max_by_key(|j| (places.log_share(piece, *j, places.holders(*j) + 1), Reverse(*j)));
        if let Some(best) = best {
            self.proposals += 1;
            self.places.put(piece, best);
        }
    }

    fn until_stable(&mut self, rounds_max: u64, sweeps: &[fn(&mut Self)]) {
        while self.rounds < rounds_max {
            let before = self.swaps + self.moves;
            sweeps.iter().for_each(|sweep| sweep(self));
            self.sweeps += 1;
            if self.swaps + self.moves == before {
                return;
            }
            self.rounds += 1;
        }
    }

    fn sweep_swaps(&mut self) {
        let pieces = self.places.instance().pieces();
        for one in 0..pieces {
            for other in one + 1..pieces {
                self.examined += 1;
                if swap_gain(&self.places, one, other).is_some_and(|gain| gain > Nats::ZERO) {
                    self.exchange(one, other);
                }
            }
        }
    }

    fn exchange(&mut self, one: usize, other: usize) {
        let (here, there) = (self.places.take(one), self.places.take(other));
        let (here, there) = here.zip(there).expect("both have a place");
        self.places.put(one, there);
        self.places.put(other, here);
        self.swaps += 1;
    }

    fn sweep_moves(&mut self) {
        for piece in 0..self.places.instance().pieces() {
            self.fill_hole(piece);
            let places = &self.places;
            let gains: Vec<(Nats, usize)> = places
                .open_to(piece)
                .filter_map(|to| Some((move_gain(places, piece, to)?, to)))
                .collect();
            self.examined += gains.len() as u64;
            if let Some((gain, to)) = gains.into_iter().max()
                && gain > Nats::ZERO
            {
                self.places.put(piece, to);
                self.moves += 1;
            }
        }
    }

    fn solution(self) -> Solution {
        let Self { places, rounds, proposals, examined, swaps, moves, sweeps } = self;
        Solution {
            assignment: places.into_assignment(),
            rounds,
            bids: proposals + swaps + moves,
            // A proposal and its answer; two providers told of an exchange, and their answers; a
            // bid, its award and a release.
            messages: 2 * proposals + 4 * swaps + 3 * moves,
            counts: vec![
                ("proposals", proposals),
                ("examined", examined),
                ("swaps", swaps),
                ("moves", moves),
                ("sweeps", sweeps),
            ],
        }
    }
}

/// What the utility rises by if two pieces exchange their places; nothing where they can't.
fn swap_gain(places: &Places<'_>, one: usize, other: usize) -> Option<Nats> {
    let (here, there) = (places.at(one)?, places.at(other)?);
    if here == there {
        return None;
    }
    let after = places.log_rate(one, there)? + places.log_rate(other, here)?;
    Some(after - places.log_rate(one, here)? - places.log_rate(other, there)?)
}

/// What the utility rises by if a piece with a place moves to an open one elsewhere.
fn move_gain(places: &Places<'_>, piece: usize, to: usize) -> Option<Nats> {
    let from = places.at(piece)?;
    if from == to {
        return None;
    }
    let after = places.log_rate(piece, to)? - places.slot_cost(places.holders(to) + 1);
    let before = places.log_rate(piece, from)? - places.slot_cost(places.holders(from));
    Some(after - before)
}

/// As many pieces at each provider as if all pieces were average, within its capacity.
fn quotas(places: &Places<'_>) -> Vec<usize> {
    let instance = places.instance();
    let mut quotas = vec![0; instance.providers()];
    let mut open: BinaryHeap<(Nats, Reverse<usize>)> = (0..instance.providers())
        .filter(|j| instance.capacity[*j] > 0)
        .filter_map(|j| Some((average(instance, j)?, Reverse(j))))
        .collect();
    for _ in 0..instance.pieces() {
        let Some((value, Reverse(j))) = open.pop() else { break };
        quotas[j] += 1;
        if quotas[j] < usize::from(instance.capacity[j]) {
            let dearer = places.slot_cost(quotas[j] + 1) - places.slot_cost(quotas[j]);
            open.push((value - dearer, Reverse(j)));
        }
    }
    quotas
}

/// The mean log rate of those pieces that can go there.
fn average(instance: &Instance, provider: usize) -> Option<Nats> {
    let rates = instance.log_rates.iter().filter_map(|rates| rates[provider]);
    let (sum, count) =
        rates.fold((0_i128, 0_i128), |(sum, count), rate| (sum + i128::from(rate.0), count + 1));
    let mean = sum.checked_div(count)?;
    Some(Nats(i64::try_from(mean).expect("between the least and the most")))
}
