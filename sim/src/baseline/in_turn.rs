//! Baselines that look at each piece once: random, round robin and greedy. What a user without any
//! scheduler would do; Mohammed et al. 2020 (DINA) compare with the first and the last.
//!
//! Pieces arrive in a seeded order. Each bids at one provider after the other, in the algorithm's
//! order of preference, until one has room: every bid has an answer. No piece ever moves.

use rand::seq::SliceRandom;
use starling_protocol::testing::Instance;

use super::{
    Settings, Solution,
    places::{Places, arrivals},
};
use crate::random::{Purpose, generator};

/// Every feasible provider is as likely as any other to be asked first.
pub(super) fn random(instance: &Instance, settings: &Settings) -> Solution {
    // Not the numbers that the order of arrival was drawn from.
    let mut rng = generator(settings.seed ^ u64::MAX, Purpose::Solvers);
    in_turn(instance, settings, |_, providers| providers.shuffle(&mut rng))
}

/// The first asked is the one after the first that the piece before asked.
pub(super) fn round_robin(instance: &Instance, settings: &Settings) -> Solution {
    let mut next = 0;
    in_turn(instance, settings, |_, providers| {
        let start = providers.iter().position(|j| *j >= next).unwrap_or(0);
        providers.rotate_left(start);
        next = providers.first().map_or(next, |j| j + 1);
    })
}

/// The first asked is the one with the best rate `r_ij`, however many pieces it has already.
pub(super) fn greedy(instance: &Instance, settings: &Settings) -> Solution {
    in_turn(instance, settings, |piece, providers| {
        providers.sort_by_key(|j| std::cmp::Reverse(instance.log_rates[piece][*j]));
    })
}

fn in_turn(
    instance: &Instance,
    settings: &Settings,
    mut prefer: impl FnMut(usize, &mut [usize]),
) -> Solution {
    let mut places = Places::new(instance);
    let (mut bids, mut rounds) = (0, 0);
    for piece in arrivals(instance, settings.seed) {
        let mut providers: Vec<usize> = feasible(instance, piece).collect();
        prefer(piece, &mut providers);
        let taken = providers.iter().position(|j| places.has_room(*j));
        let asked = taken.map_or(providers.len(), |refused| refused + 1) as u64;
        bids += asked;
        rounds = rounds.max(asked);
        if let Some(taken) = taken {
            places.put(piece, providers[taken]);
        }
    }
    let assignment = places.into_assignment();
    Solution { assignment, rounds, bids, messages: 2 * bids, counts: Vec::new() }
}

fn feasible(instance: &Instance, piece: usize) -> impl Iterator<Item = usize> {
    let rates = instance.log_rates[piece].iter().enumerate();
    rates.filter(|(_, rate)| rate.is_some()).map(|(j, _)| j)
}
