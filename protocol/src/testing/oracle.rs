//! The exact optimum, by successive cheapest paths, and a proof that it is one.
//!
//! Pieces are added one at a time. A new piece may turn out another, which may turn out a third,
//! and so on to an open slot; the cheapest such chain keeps the assignment optimal (the residual
//! graph of a min-cost flow with rising slot costs, contracted to one vertex per provider). Prices
//! of the providers make every step of a chain cost nothing or more, so that Dijkstra's algorithm
//! finds it, and in the end they are the proof: see [`upper_bound`]. Exact, because all arithmetic
//! is in integers.

use super::Instance;
use crate::nats::{Nats, slot_cost};

/// A best assignment, with the prices that prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Optimum {
    /// The largest utility.
    pub utility: Nats,
    /// Provider by piece.
    pub assignment: Vec<usize>,
    /// A price for each provider, at which [`upper_bound`] is the utility.
    pub prices: Vec<Nats>,
}

/// Why there is no full assignment: all these pieces can only go to these providers, which have
/// fewer places than there are pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// In ascending order.
    pub pieces: Vec<usize>,
    /// In ascending order; none if there is one piece that can go nowhere.
    pub providers: Vec<usize>,
}

/// The largest utility, and one assignment that has it; nothing if not every piece can be placed.
#[must_use]
pub fn optimum(instance: &Instance) -> Option<(Nats, Vec<usize>)> {
    let Optimum { utility, assignment, .. } = solve_exactly(instance).ok()?;
    Some((utility, assignment))
}

/// The optimum with its proof. Takes `O(N * M * (N + M))` time at worst, and much less as a rule:
/// a search ends as soon as the cheapest chain is known.
///
/// # Errors
/// If not every piece can be placed.
pub fn solve_exactly(instance: &Instance) -> Result<Optimum, Blocked> {
    let mut search = Search::new(instance);
    for piece in 0..instance.pieces() {
        search.place(piece)?;
    }
    let utility = instance.utility(&search.at).expect("only feasible moves were made");
    let prices = search.prices.into_iter().map(Nats).collect();
    Ok(Optimum { utility, assignment: search.at, prices })
}

/// What no full assignment can exceed, whatever the prices are: each piece takes the provider that
/// is best for it less the price, and each provider sells as many slots as its price pays for.
/// Nothing if a piece has no feasible provider.
///
/// For an assignment with `m_j` pieces at `j`,
/// `U = sum (a_ij - p_j) + sum_j (m_j p_j - s_1 - ... - s_m_j)`, and neither sum can be larger than
/// here. This is the Lagrangian dual of the problem; that some prices make it equal to the optimum
/// is what makes a proof of them.
#[must_use]
pub fn upper_bound(instance: &Instance, prices: &[Nats]) -> Option<Nats> {
    let mut bound = Nats::ZERO;
    for rates in &instance.log_rates {
        let values = rates.iter().zip(prices).filter_map(|(rate, price)| Some((*rate)? - *price));
        bound = bound + values.max()?;
    }
    for (capacity, price) in instance.capacity.iter().zip(prices) {
        let profits = (1..=u32::from(*capacity)).map(|k| *price - slot_cost(k));
        bound = bound + profits.take_while(|profit| *profit > Nats::ZERO).sum();
    }
    Some(bound)
}

/// Checks an optimum without looking for one.
///
/// # Errors
/// What is wrong with it, in words.
pub fn certify(instance: &Instance, optimum: &Optimum) -> Result<(), String> {
    let Optimum { utility, assignment, prices } = optimum;
    if prices.len() != instance.providers() {
        return Err(format!("{} prices of {} providers", prices.len(), instance.providers()));
    }
    let primal = instance.utility(assignment).ok_or("an infeasible assignment")?;
    if primal != *utility {
        return Err(format!("the assignment's utility is {primal}, not {utility}"));
    }
    let dual = upper_bound(instance, prices).ok_or("a piece without a feasible provider")?;
    if dual != primal {
        return Err(format!("U = {} but the prices allow {}", primal.0, dual.0));
    }
    Ok(())
}

struct Search<'a> {
    instance: &'a Instance,
    at: Vec<usize>,
    on: Vec<Vec<usize>>,
    // For every piece with a place at j and every k: a_ij - p_j >= a_ik - p_k. And with n pieces
    // at j, s_n <= p_j, and p_j <= s_{n+1} if it has a place left.
    prices: Vec<i64>,
    // steps[j][k]: the cheapest way to move a piece from provider j to k.
    steps: Vec<Vec<Step>>,
}

/// The least loss of moving a piece from one provider to another, and which piece that is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    loss: i64,
    piece: usize,
}

/// The cheapest chains from a new piece, as far as they had to be known.
struct Chains {
    // What a chain to each provider costs beyond the prices on its way.
    lengths: Vec<i64>,
    // The provider before it, and the piece that moves from there.
    came_from: Vec<Option<(usize, usize)>>,
    settled: Vec<bool>,
    // The cheapest way to an open slot, and what it costs beyond the prices.
    end: Option<(i64, usize)>,
}

impl<'a> Search<'a> {
    fn new(instance: &'a Instance) -> Self {
        let providers = instance.providers();
        Self {
            instance,
            at: Vec::with_capacity(instance.pieces()),
            on: vec![Vec::new(); providers],
            prices: vec![0; providers],
            steps: vec![vec![Step::NONE; providers]; providers],
        }
    }

    fn place(&mut self, piece: usize) -> Result<(), Blocked> {
        let chains = self.chains(piece);
        let Some((cost, end)) = chains.end else {
            return Err(self.blocked(piece, &chains.settled));
        };
        for (price, length) in self.prices.iter_mut().zip(&chains.lengths) {
            *price += (cost - length).max(0);
        }
        // Walk the chain backwards, moving each turned-out piece one provider on.
        let mut to = end;
        while let Some((from, moved)) = chains.came_from[to] {
            self.leave(moved, from);
            self.arrive(moved, to);
            self.at[moved] = to;
            to = from;
        }
        self.arrive(piece, to);
        self.at.push(to);
        Ok(())
    }

    /// Dijkstra over providers, up to the first open slot that no other chain can undercut.
    fn chains(&self, piece: usize) -> Chains {
        let mut chains = self.first_steps(piece);
        while let Some(from) = chains.settle() {
            if let Some(slot) = self.open_slot(from) {
                let cost = chains.lengths[from] + slot - self.prices[from];
                chains.end = chains.end.into_iter().chain([(cost, from)]).min();
            }
            for (to, step) in self.steps[from].iter().enumerate() {
                if chains.settled[to] || *step == Step::NONE {
                    continue;
                }
                let length = chains.lengths[from] + step.loss - self.prices[from] + self.prices[to];
                if length < chains.lengths[to] {
                    chains.lengths[to] = length;
                    chains.came_from[to] = Some((from, step.piece));
                }
            }
        }
        chains
    }

    fn first_steps(&self, piece: usize) -> Chains {
        let rates = self.instance.log_rates[piece].iter().zip(&self.prices);
        let values = rates.map(|(rate, price)| Some((*rate)?.0 - price));
        let best = values.clone().flatten().max().unwrap_or(0);
        let providers = self.instance.providers();
        Chains {
            lengths: values.map(|value| value.map_or(FAR, |value| best - value)).collect(),
            came_from: vec![None; providers],
            settled: vec![false; providers],
            end: None,
        }
    }

    /// `s_{n+1}`, unless the provider is full.
    fn open_slot(&self, provider: usize) -> Option<i64> {
        let held = self.on[provider].len();
        let open = held < usize::from(self.instance.capacity[provider]);
        open.then(|| slot_cost(u32::try_from(held + 1).unwrap_or(u32::MAX)).0)
    }

    fn leave(&mut self, piece: usize, from: usize) {
        self.on[from].retain(|other| *other != piece);
        for to in 0..self.instance.providers() {
            if self.steps[from][to].piece == piece {
                let steps = self.on[from].iter().map(|other| self.step(*other, from, to));
                self.steps[from][to] = steps.min().unwrap_or(Step::NONE);
            }
        }
    }

    fn arrive(&mut self, piece: usize, at: usize) {
        self.on[at].push(piece);
        for to in (0..self.instance.providers()).filter(|to| *to != at) {
            self.steps[at][to] = self.steps[at][to].min(self.step(piece, at, to));
        }
    }

    fn step(&self, piece: usize, from: usize, to: usize) -> Step {
        let rates = &self.instance.log_rates[piece];
        match (rates[from], rates[to]) {
            (Some(here), Some(there)) => Step { loss: here.0 - there.0, piece },
            (_, None) | (None, _) => Step::NONE,
        }
    }

    /// All providers that a chain from the piece can reach are full.
    fn blocked(&self, piece: usize, reached: &[bool]) -> Blocked {
        let providers = (0..reached.len()).filter(|provider| reached[*provider]);
        let providers: Vec<usize> = providers.collect();
        let mut pieces: Vec<usize> =
            providers.iter().flat_map(|provider| self.on[*provider].iter().copied()).collect();
        pieces.push(piece);
        pieces.sort_unstable();
        Blocked { pieces, providers }
    }
}

impl Step {
    const NONE: Self = Self { loss: i64::MAX, piece: usize::MAX };
}

impl Chains {
    /// The nearest provider whose chain is not final yet, unless a chain has ended before it.
    fn settle(&mut self) -> Option<usize> {
        let open = (0..self.lengths.len()).filter(|provider| !self.settled[*provider]);
        let nearest = open.min_by_key(|provider| self.lengths[*provider])?;
        let limit = self.end.map_or(FAR, |(cost, _)| cost);
        if self.lengths[nearest] >= limit {
            return None;
        }
        self.settled[nearest] = true;
        Some(nearest)
    }
}

/// No chain is as long as this.
const FAR: i64 = i64::MAX;

#[cfg(test)]
mod tests {
    use quickcheck::{TestResult, quickcheck};

    use super::*;

    fn brute(instance: &Instance, assignment: &mut Vec<usize>) -> Option<Nats> {
        if assignment.len() == instance.pieces() {
            return instance.utility(assignment);
        }
        let mut best = None;
        for provider in 0..instance.providers() {
            assignment.push(provider);
            best = best.max(brute(instance, assignment));
            assignment.pop();
        }
        best
    }

    /// Whether these pieces can only go to these providers, and there are too few places.
    fn is_blocked(instance: &Instance, blocked: &Blocked) -> bool {
        let Blocked { pieces, providers } = blocked;
        let places: usize = providers.iter().map(|j| usize::from(instance.capacity[*j])).sum();
        let only_there = |piece: &usize| {
            let rates = instance.log_rates[*piece].iter().enumerate();
            rates.filter(|(_, rate)| rate.is_some()).all(|(j, _)| providers.contains(&j))
        };
        let mut distinct = pieces.clone();
        distinct.dedup();
        distinct.len() == pieces.len() && places < pieces.len() && pieces.iter().all(only_there)
    }

    #[test]
    fn pieces_without_a_place_are_named_with_what_they_compete_for() {
        let check = |rates: &[&[bool]], capacity: &[u16], pieces: &[usize], providers: &[usize]| {
            let rate = |feasible: &bool| feasible.then_some(Nats::ZERO);
            let log_rates = rates.iter().map(|row| row.iter().map(rate).collect()).collect();
            let instance = Instance { log_rates, capacity: capacity.to_vec() };
            let blocked = Blocked { pieces: pieces.to_vec(), providers: providers.to_vec() };
            assert_eq!(solve_exactly(&instance), Err(blocked));
        };
        check(&[&[true, true], &[false, false]], &[1, 1], &[1], &[]);
        check(&[&[true, false], &[true, true], &[true, false]], &[1, 9], &[0, 2], &[0]);
        check(&[&[true, true], &[true, true], &[true, true]], &[1, 1], &[0, 1, 2], &[0, 1]);
        check(&[&[true, false]], &[0, 1], &[0], &[0]);
    }

    #[test]
    fn a_wrong_proof_is_noticed() {
        let row = |a: f64, b: f64| vec![Nats::ln(a), Nats::ln(b)];
        let instance =
            Instance { log_rates: vec![row(9.0, 1.0), row(9.0, 8.0)], capacity: vec![1, 2] };
        let right = solve_exactly(&instance).expect("there is room");
        assert_eq!(certify(&instance, &right), Ok(()));
        let check = |wrong: Optimum| assert!(certify(&instance, &wrong).is_err(), "{wrong:?}");
        let utility = instance.utility(&[1, 0]).expect("feasible");
        check(Optimum { assignment: vec![1, 0], utility, ..right.clone() });
        check(Optimum { assignment: vec![0, 0], ..right.clone() });
        check(Optimum { utility: right.utility + Nats(1), ..right.clone() });
        check(Optimum { prices: vec![Nats::ZERO; 2], ..right.clone() });
        check(Optimum { prices: vec![], ..right });
    }

    quickcheck! {
        fn no_assignment_is_better_than_the_optimum(instance: Instance) -> TestResult {
            if instance.providers().pow(instance.pieces() as u32) > 20_000 {
                return TestResult::discard();
            }
            let best = brute(&instance, &mut Vec::new());
            TestResult::from_bool(optimum(&instance).map(|(utility, _)| utility) == best)
        }

        fn every_answer_comes_with_its_proof(instance: Instance) -> Result<(), String> {
            match solve_exactly(&instance) {
                Ok(optimum) => certify(&instance, &optimum),
                Err(blocked) if is_blocked(&instance, &blocked) => Ok(()),
                Err(blocked) => Err(format!("{blocked:?} does not follow")),
            }
        }

        fn no_prices_bring_the_bound_below_the_optimum(
            instance: Instance,
            thousandths: Vec<i16>
        ) -> bool {
            let Some((utility, _)) = optimum(&instance) else { return true };
            let drawn = thousandths.iter().map(|price| Nats(i64::from(*price) * 1_000_000));
            let prices: Vec<Nats> =
                drawn.chain(std::iter::repeat(Nats::ZERO)).take(instance.providers()).collect();
            upper_bound(&instance, &prices).is_some_and(|bound| bound >= utility)
        }
    }
}
