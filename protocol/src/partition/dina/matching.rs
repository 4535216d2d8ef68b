//! Many-to-one matching of pieces to providers with quotas, as DINA-O plays it.
//!
//! A piece's utility is the logarithm of its rate, `ln (r_ij / n_j)` where `n_j` pieces share a
//! provider; a provider's is the sum over its pieces. Two pieces *block* a matching if exchanging
//! their places makes neither of them nor either provider worse off, and one of these four better
//! off. Without such a pair a matching is two-sided exchange-stable. An exchange leaves the numbers
//! at both providers as they are, so the sum of the pieces' utilities rises with each, and
//! exchanges end.
//!
//! Whether a piece may also take an open place, a *hole*, is not known of the paper; there it
//! changes what others get. Ours may move if the sum over all who are concerned rises.

use std::cmp::Reverse;

use crate::{
    market::Pair,
    nats::{Nats, slot_cost},
};

/// Pieces, providers, and what each pair is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Market {
    /// `ln r_ij` by piece, then provider, one for each; nothing where the pair is infeasible.
    pub log_rates: Vec<Vec<Option<Nats>>>,
    /// The most pieces at each provider.
    pub quotas: Vec<usize>,
}

/// Whether pieces may move to open places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// Exchanges only.
    Closed,
    /// Exchanges and moves.
    Open,
}

/// The provider of each piece, if it has one.
pub type Matching = Vec<Option<usize>>;

impl Market {
    /// Deferred acceptance: pieces propose to providers from their best share at a full quota
    /// downwards, and each provider keeps those with the highest rates, the first of equals.
    #[must_use]
    pub fn propose(&self) -> Matching {
        let mut lists: Vec<Vec<usize>> =
            (0..self.log_rates.len()).map(|piece| self.preferences(piece)).collect();
        let mut kept: Vec<Vec<(Nats, Reverse<usize>)>> = vec![Vec::new(); self.quotas.len()];
        let mut waiting: Vec<usize> = (0..self.log_rates.len()).rev().collect();
        while let Some(piece) = waiting.pop() {
            let Some(to) = lists[piece].pop() else { continue };
            let Some(rate) = self.rate(piece, to) else { continue };
            kept[to].push((rate, Reverse(piece)));
            kept[to].sort_unstable_by_key(|offer| Reverse(*offer));
            if kept[to].len() > self.quotas[to] {
                waiting.extend(kept[to].pop().map(|(_, Reverse(piece))| piece));
            }
        }
        let mut matching = vec![None; self.log_rates.len()];
        for (provider, pieces) in kept.iter().enumerate() {
            pieces.iter().for_each(|(_, Reverse(piece))| matching[*piece] = Some(provider));
        }
        matching
    }

    /// Exchanges places, and with open holes moves, until nothing blocks. Returns how many of
    /// these there were.
    pub fn exchange(&self, matching: &mut Matching, holes: Holes) -> usize {
        let mut done = 0;
        loop {
            let before = done;
            for one in 0..matching.len() {
                if holes == Holes::Open {
                    while let Some(to) = self.better_hole(matching, one) {
                        matching[one] = Some(to);
                        done += 1;
                    }
                }
                for other in one + 1..matching.len() {
                    if self.blocks(matching, one, other) {
                        matching.swap(one, other);
                        done += 1;
                    }
                }
            }
            if done == before {
                return done;
            }
        }
    }

    /// Whether two pieces want to exchange their places, and neither of their providers objects.
    #[must_use]
    pub fn blocks(&self, matching: &Matching, one: usize, other: usize) -> bool {
        let (Some(here), Some(there)) = (matching[one], matching[other]) else { return false };
        let rates = |piece, places: [usize; 2]| {
            let [here, there] = places.map(|at| self.rate(piece, at));
            Some([here?, there?])
        };
        let (Some(one), Some(other)) = (rates(one, [here, there]), rates(other, [there, here]))
        else {
            return false;
        };
        let holders = [here, there].map(|at| held(matching, at));
        here != there && Pair { one, other, holders }.blocks()
    }

    /// An open place that a piece had better be at, for the sum of all utilities.
    #[must_use]
    pub fn better_hole(&self, matching: &Matching, piece: usize) -> Option<usize> {
        let worth = |rate: Nats, holders: usize| {
            rate - slot_cost(u32::try_from(holders).unwrap_or(u32::MAX))
        };
        let from = matching[piece];
        let now = from.and_then(|from| Some(worth(self.rate(piece, from)?, held(matching, from))));
        let gain = |to: usize| {
            let holders = held(matching, to) + 1;
            let open = Some(to) != from && holders <= self.quotas[to];
            let then = worth(self.rate(piece, to)?, holders);
            (open && now.is_none_or(|now| then > now)).then_some((then, Reverse(to)))
        };
        (0..self.quotas.len()).filter_map(gain).max().map(|(_, Reverse(to))| to)
    }

    /// The sum of `ln (r_ij / n_j)` over all pieces that have a provider.
    #[must_use]
    pub fn utility(&self, matching: &Matching) -> Nats {
        let placed = matching.iter().enumerate();
        let placed = placed.filter_map(|(piece, at)| self.rate(piece, (*at)?));
        let rates = placed.fold(Nats::ZERO, |sum, rate| sum + rate);
        let crowds = (0..self.quotas.len()).map(|at| {
            let holders = u32::try_from(held(matching, at)).unwrap_or(u32::MAX);
            (1..=holders).fold(Nats::ZERO, |sum, k| sum + slot_cost(k))
        });
        crowds.fold(rates, |sum, crowd| sum - crowd)
    }

    fn rate(&self, piece: usize, provider: usize) -> Option<Nats> {
        *self.log_rates.get(piece)?.get(provider)?
    }

    /// The most preferred comes last.
    fn preferences(&self, piece: usize) -> Vec<usize> {
        let full = self.quotas.iter().enumerate().filter(|(_, quota)| **quota > 0);
        let shares = full.filter_map(|(at, quota)| {
            let crowd = Nats::ln(*quota as f64)?;
            Some((self.rate(piece, at)? - crowd, Reverse(at)))
        });
        let mut shares: Vec<(Nats, Reverse<usize>)> = shares.collect();
        shares.sort_unstable();
        shares.into_iter().map(|(_, Reverse(at))| at).collect()
    }
}

fn held(matching: &Matching, provider: usize) -> usize {
    matching.iter().filter(|at| **at == Some(provider)).count()
}

#[cfg(test)]
mod tests {
    use quickcheck::{Arbitrary, Gen, quickcheck};

    use super::*;

    impl Arbitrary for Market {
        fn arbitrary(g: &mut Gen) -> Self {
            let below = |g: &mut Gen, limit: u8| usize::from(u8::arbitrary(g) % limit);
            let (pieces, providers) = (below(g, 12), 1 + below(g, 5));
            let rate = |g: &mut Gen| match below(g, 6) {
                0 => None,
                1 => Some(Nats(below(g, 3) as i64 * 1_000_000_000)),
                _ => Some(Nats(i64::from(u32::arbitrary(g) % 4_000_000_000))),
            };
            let row = |g: &mut Gen| (0..providers).map(|_| rate(g)).collect();
            let log_rates = (0..pieces).map(|_| row(g)).collect();
            Self { log_rates, quotas: (0..providers).map(|_| below(g, 4)).collect() }
        }
    }

    fn market(rates: &[&[f64]], quotas: &[usize]) -> Market {
        let log_rates = rates.iter().map(|row| row.iter().map(|rate| Nats::ln(*rate)).collect());
        Market { log_rates: log_rates.collect(), quotas: quotas.to_vec() }
    }

    #[test]
    fn providers_keep_the_fastest_and_the_others_go_on() {
        let market = market(&[&[4.0, 1.0], &[5.0, 1.0], &[3.0, 2.0]], &[1, 1]);
        assert_eq!(market.propose(), [None, Some(0), Some(1)]);
    }

    #[test]
    fn only_exchanges_that_hurt_nobody_are_made() {
        let both = market(&[&[2.0, 3.0], &[3.0, 2.0]], &[1, 1]);
        let mut matching = vec![Some(0), Some(1)];
        assert_eq!(both.exchange(&mut matching, Holes::Closed), 1);
        assert_eq!(matching, [Some(1), Some(0)]);
        // The sum would rise, and the second piece would lose.
        let one = market(&[&[1.0, 9.0], &[1.0, 2.0]], &[1, 1]);
        let mut matching = vec![Some(0), Some(1)];
        assert_eq!(one.exchange(&mut matching, Holes::Closed), 0);
    }

    #[test]
    fn open_places_are_taken_if_all_gain() {
        let market = market(&[&[4.0, 3.0], &[4.0, 3.0]], &[2, 2]);
        let mut matching = vec![Some(0), Some(0)];
        assert_eq!(market.exchange(&mut matching, Holes::Closed), 0);
        assert_eq!(market.exchange(&mut matching, Holes::Open), 1);
        assert_eq!(matching, [Some(1), Some(0)]);
    }

    fn is_matching(market: &Market, matching: &Matching) -> bool {
        let feasible = matching
            .iter()
            .enumerate()
            .all(|(piece, at)| at.is_none_or(|at| market.rate(piece, at).is_some()));
        let fits = (0..market.quotas.len()).all(|at| held(matching, at) <= market.quotas[at]);
        feasible && fits && matching.len() == market.log_rates.len()
    }

    quickcheck! {
        fn proposals_end_in_a_stable_matching(market: Market) -> bool {
            let matching = market.propose();
            // Nobody who prefers another provider is preferred by it.
            let stable = (0..matching.len()).all(|piece| {
                let mut preferred = market.preferences(piece);
                let place = matching[piece];
                let worse = preferred.iter().position(|at| Some(*at) == place);
                preferred.drain(..worse.map_or(0, |worse| worse + 1));
                preferred.iter().all(|at| {
                    let rate = market.rate(piece, *at);
                    let holders = (0..matching.len()).filter(|other| matching[*other] == Some(*at));
                    held(&matching, *at) == market.quotas[*at]
                        && holders.clone().all(|other| market.rate(other, *at) >= rate)
                })
            });
            is_matching(&market, &matching) && stable
        }

        fn no_pair_blocks_at_the_end(market: Market, open: bool) -> bool {
            let holes = if open { Holes::Open } else { Holes::Closed };
            let mut matching = market.propose();
            market.exchange(&mut matching, holes);
            let pieces = matching.len();
            let pair = (0..pieces).any(|one| (0..pieces).any(|other| market.blocks(&matching, one, other)));
            let hole = open && (0..pieces).any(|one| market.better_hole(&matching, one).is_some());
            is_matching(&market, &matching) && !pair && !hole
        }

        fn utility_never_falls(market: Market, open: bool) -> bool {
            let holes = if open { Holes::Open } else { Holes::Closed };
            let mut matching = market.propose();
            let (before, placed) = (market.utility(&matching), matching.iter().flatten().count());
            let exchanges = market.exchange(&mut matching, holes);
            let after = market.utility(&matching);
            let more = matching.iter().flatten().count() > placed;
            more || (if exchanges == 0 { after == before } else { after > before })
        }
    }
}
