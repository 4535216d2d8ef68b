//! The exact optimum, by successive cheapest paths.
//!
//! Pieces are added one at a time. A new piece may turn out another, which may turn out a third,
//! and so on to an open slot; the cheapest such chain keeps the assignment optimal (the residual
//! graph of a min-cost flow with rising slot costs, contracted to one vertex per provider).
//! Exact, because all arithmetic is in integers.

use super::Instance;
use crate::nats::{Nats, slot_cost};

/// The largest utility, and one assignment that has it; nothing if not every piece can be placed.
/// Takes `O(N * M * (N + M))` time at worst: 1000 x 100 in about a second.
#[must_use]
pub fn optimum(instance: &Instance) -> Option<(Nats, Vec<usize>)> {
    let mut search = Search::new(instance);
    for piece in 0..instance.pieces() {
        search.place(piece)?;
    }
    let utility = instance.utility(&search.at)?;
    Some((utility, search.at))
}

struct Search<'a> {
    instance: &'a Instance,
    at: Vec<usize>,
    on: Vec<Vec<usize>>,
    // steps[j][k]: the least loss of moving a piece from provider j to k, and which piece.
    steps: Vec<Vec<Option<(i64, usize)>>>,
}

impl<'a> Search<'a> {
    fn new(instance: &'a Instance) -> Self {
        let providers = instance.providers();
        Self {
            instance,
            at: Vec::with_capacity(instance.pieces()),
            on: vec![Vec::new(); providers],
            steps: vec![vec![None; providers]; providers],
        }
    }

    fn place(&mut self, piece: usize) -> Option<()> {
        let (end, came_from) = self.cheapest_chain(piece)?;
        // Walk the chain backwards, moving each turned-out piece one provider on.
        let mut to = end;
        let mut touched = vec![end];
        while let Some((from, moved)) = came_from[to] {
            self.on[from].retain(|other| *other != moved);
            self.on[to].push(moved);
            self.at[moved] = to;
            touched.push(from);
            to = from;
        }
        self.on[to].push(piece);
        self.at.push(to);
        for provider in touched {
            self.refresh_steps(provider);
        }
        Some(())
    }

    /// Bellman-Ford over providers: where the chain ends, and how each provider was reached.
    #[expect(clippy::type_complexity, reason = "one private caller, two lines away")]
    fn cheapest_chain(&self, piece: usize) -> Option<(usize, Vec<Option<(usize, usize)>>)> {
        let providers = self.instance.providers();
        let mut cost: Vec<Option<i64>> =
            self.instance.log_rates[piece].iter().map(|rate| rate.map(|rate| -rate.0)).collect();
        let mut came_from = vec![None; providers];
        for _ in 0..providers {
            let mut changed = false;
            for from in 0..providers {
                let Some(so_far) = cost[from] else { continue };
                for to in 0..providers {
                    let Some((loss, moved)) = self.steps[from][to] else {
                        continue;
                    };
                    if cost[to].is_none_or(|known| so_far + loss < known) {
                        cost[to] = Some(so_far + loss);
                        came_from[to] = Some((from, moved));
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        let ends = (0..providers).filter_map(|provider| {
            let held = u16::try_from(self.on[provider].len()).ok()?;
            let open = held < self.instance.capacity[provider];
            let total = cost[provider]? + slot_cost(u32::from(held) + 1).0;
            open.then_some((total, provider))
        });
        let (_, end) = ends.min()?;
        Some((end, came_from))
    }

    fn refresh_steps(&mut self, from: usize) {
        for to in 0..self.instance.providers() {
            let moves = self.on[from].iter().filter_map(|piece| {
                let rates = &self.instance.log_rates[*piece];
                Some((rates[from]?.0 - rates[to]?.0, *piece))
            });
            self.steps[from][to] = if from == to { None } else { moves.min() };
        }
    }
}

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

    quickcheck! {
        fn no_assignment_is_better_than_the_optimum(instance: Instance) -> TestResult {
            if instance.providers().pow(instance.pieces() as u32) > 20_000 {
                return TestResult::discard();
            }
            let best = brute(&instance, &mut Vec::new());
            TestResult::from_bool(optimum(&instance).map(|(utility, _)| utility) == best)
        }
    }
}
