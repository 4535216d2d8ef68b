//! The consensus-based bundle algorithm (Choi, Brunet and How, IEEE T-RO 25(4), 2009), in which
//! agents pick tasks: providers are the agents, and pieces the tasks.
//!
//! Each provider adds pieces to its *bundle*, always the one that is worth most to it, as long as
//! it would outbid whoever is known to have that piece. Then all compare lists; whoever is outbid
//! on a piece drops it and everything that it added after it, because those were valued on top of
//! it. This repeats until nobody is outbid.
//!
//! Our adaptation: the score of the `n`-th piece in a bundle is its marginal utility,
//! `ln r_ij - s_n`, which falls as the bundle grows, as the algorithm needs for its convergence.
//! To be placed at all is worth more than any score, so that negative scores count too. There are
//! no routes to plan, so a bundle has no path. Lists go from everyone to everyone in each round
//! (a complete graph). Ties go to the lower number. It ends in what sequential greedy choice of
//! the highest marginal utility gives, which is no optimum, but is at least half of it where
//! utilities are positive.
//!
//! | count | is |
//! |---|---|
//! | `bundled` | pieces added to bundles, over all rounds (these are the bids) |
//! | `dropped` | pieces dropped again |

use std::cmp::Reverse;

use starling_protocol::{Nats, testing::Instance};

use super::{Settings, Solution, places::Places};

pub(super) fn solve(instance: &Instance, settings: &Settings) -> Solution {
    let mut consensus = Consensus::new(instance);
    while consensus.rounds < settings.rounds_max && consensus.round() {}
    consensus.solution()
}

struct Consensus<'a> {
    places: Places<'a>,
    agents: Vec<Agent>,
    // The highest bid on each piece that everyone knows of, and whose it is.
    winners: Vec<Option<Bid>>,
    rounds: u64,
    bundled: u64,
    dropped: u64,
}

/// A score, and the provider; the lower number is the better bid of two with the same score.
type Bid = (Nats, Reverse<usize>);

struct Agent {
    provider: usize,
    /// The pieces that can go there, the most valuable first.
    wishes: Vec<usize>,
    /// Pieces with the scores that they had when they were added.
    bundle: Vec<(usize, Nats)>,
}

impl<'a> Consensus<'a> {
    fn new(instance: &'a Instance) -> Self {
        Self {
            places: Places::new(instance),
            agents: (0..instance.providers()).map(|j| Agent::new(instance, j)).collect(),
            winners: vec![None; instance.pieces()],
            rounds: 0,
            bundled: 0,
            dropped: 0,
        }
    }

    /// Says whether any bundle changed.
    fn round(&mut self) -> bool {
        let before = self.bundled + self.dropped;
        for agent in &mut self.agents {
            self.dropped += agent.drop_lost(&self.winners);
            self.bundled += agent.extend(&self.winners, &self.places);
        }
        self.winners = self.heard();
        if self.bundled + self.dropped == before {
            return false;
        }
        self.rounds += 1;
        true
    }

    /// The highest bid on each piece in anybody's list.
    fn heard(&self) -> Vec<Option<Bid>> {
        let mut winners = vec![None; self.winners.len()];
        for agent in &self.agents {
            for (piece, score) in &agent.bundle {
                winners[*piece] = winners[*piece].max(Some((*score, Reverse(agent.provider))));
            }
        }
        winners
    }

    fn solution(self) -> Solution {
        let providers = self.agents.len() as u64;
        let at = |winner: &Option<Bid>| winner.map(|(_, Reverse(provider))| provider);
        Solution {
            assignment: self.winners.iter().map(at).collect(),
            rounds: self.rounds,
            bids: self.bundled,
            messages: self.rounds * providers * providers.saturating_sub(1),
            counts: vec![("bundled", self.bundled), ("dropped", self.dropped)],
        }
    }
}

impl Agent {
    fn new(instance: &Instance, provider: usize) -> Self {
        let feasible = |piece: &usize| instance.log_rates[*piece][provider].is_some();
        let mut wishes: Vec<usize> = (0..instance.pieces()).filter(feasible).collect();
        wishes.sort_by_key(|piece| Reverse(instance.log_rates[*piece][provider]));
        Self { provider, wishes, bundle: Vec::new() }
    }

    /// Returns how many pieces it dropped.
    fn drop_lost(&mut self, winners: &[Option<Bid>]) -> u64 {
        let mine = |(piece, score): &(usize, Nats)| {
            winners[*piece] == Some((*score, Reverse(self.provider)))
        };
        let kept = self.bundle.iter().take_while(|entry| mine(entry)).count();
        self.bundle.drain(kept..).count() as u64
    }

    /// Returns how many pieces it added. One pass is enough: scores only fall as the bundle grows,
    /// so a piece that is passed over would be passed over again.
    fn extend(&mut self, winners: &[Option<Bid>], places: &Places<'_>) -> u64 {
        let before = self.bundle.len();
        let capacity = usize::from(places.instance().capacity[self.provider]);
        let held: std::collections::BTreeSet<usize> =
            self.bundle.iter().map(|(piece, _)| *piece).collect();
        for piece in &self.wishes {
            if self.bundle.len() >= capacity {
                break;
            }
            let rate = places.log_rate(*piece, self.provider).expect("a wish is feasible");
            let score = rate - places.slot_cost(self.bundle.len() + 1);
            // Of what it has just dropped, it alone knows that nobody has it.
            let rival = winners[*piece].filter(|(_, Reverse(winner))| *winner != self.provider);
            let outbids = Some((score, Reverse(self.provider))) > rival;
            if outbids && !held.contains(piece) {
                self.bundle.push((*piece, score));
            }
        }
        (self.bundle.len() - before) as u64
    }
}
