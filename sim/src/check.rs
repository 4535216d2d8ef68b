//! What must hold once an auction has ended, judged from outside the nodes.

use std::collections::BTreeMap;

use starling_protocol::{
    Nats, NodeId, PieceId,
    market::Terms,
    testing::{self, Instance},
};
use thiserror::Error;

use crate::{
    ledger::{Ledger, Standing},
    workload::Workload,
    world::World,
};

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// Two providers compute the same piece, each with a lease.
    #[error("piece {piece} has a place at {first} and another at {second}")]
    HeldTwice {
        /// Which piece.
        piece: PieceId,
        /// One provider.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
    /// A piece that was opened has no place.
    #[error("piece {0} has no place")]
    NotHeld(PieceId),
    /// A place is held by what nobody opened.
    #[error("piece {0} has a place, but nobody opened it")]
    Stray(PieceId),
    /// Requester and provider disagree on where a piece is.
    #[error("piece {piece} has a place at {provider}, but its session says otherwise")]
    Disagreement {
        /// Which piece.
        piece: PieceId,
        /// Who holds it.
        provider: NodeId,
    },
    /// A place is held without a lease.
    #[error("the lease of piece {0} is over, but it still has its place")]
    LeaseOver(PieceId),
    /// More pieces than slots, or an infeasible pair.
    #[error("the assignment is infeasible")]
    Infeasible,
    /// There is no feasible assignment at all, so the workload is broken.
    #[error("no assignment is feasible")]
    NoOptimum,
    /// Better than the best: the oracle or the cost model is wrong.
    #[error("U = {utility} is above the optimum {optimum}")]
    AboveOptimum {
        /// What was reached.
        utility: Nats,
        /// What is possible.
        optimum: Nats,
    },
    /// The guarantee `U* - N*eps <= U` is broken.
    #[error("U = {utility} is below the bound {bound} (the optimum is {optimum})")]
    BelowBound {
        /// What was reached.
        utility: Nats,
        /// What is guaranteed.
        bound: Nats,
        /// What is possible.
        optimum: Nats,
    },
}

/// Whether every piece of the workload has a place somewhere.
#[must_use]
pub fn all_held(world: &World, workload: &Workload) -> bool {
    let held: usize = world.nodes().map(|(_, node)| usize::from(node.book().holders())).sum();
    let wanted = workload.requests.iter().map(|request| request.plan.pieces().len()).sum();
    // Counting is cheap, and most often it is enough to say no.
    if held < wanted {
        return false;
    }
    let holders = holders(world);
    workload.pieces().all(|(piece, _)| holders.contains_key(&piece))
}

/// The provider of each piece in the workload's order, as the books have it.
///
/// # Errors
/// If a piece has no place or two, a stray has one, a lease is over, or a session thinks otherwise.
pub fn assignment(world: &World, workload: &Workload) -> Result<Vec<usize>, Violation> {
    let mut holders = holders(world);
    let mut assignment = Vec::new();
    for (piece, _) in workload.pieces() {
        let places = holders.remove(&piece).ok_or(Violation::NotHeld(piece))?;
        if let [first, second, ..] = places[..] {
            let id = |place: usize| workload.machine_id(place);
            return Err(Violation::HeldTwice { piece, first: id(first), second: id(second) });
        }
        let place = places[0];
        let provider = workload.machine_id(place);
        if agreed_provider(world.ledger(), &piece) != Some(provider) {
            return Err(Violation::Disagreement { piece, provider });
        }
        assignment.push(place);
    }
    match holders.into_keys().next() {
        Some(stray) => Err(Violation::Stray(stray)),
        None => leases_run(world).map(|()| assignment),
    }
}

/// The utility of an assignment and the optimum.
///
/// # Errors
/// If the utility is not within `U* - N*eps <= U <= U*`, exactly.
pub fn bound(
    instance: &Instance,
    terms: Terms,
    assignment: &[usize],
) -> Result<(Nats, Nats), Violation> {
    let utility = instance.utility(assignment).ok_or(Violation::Infeasible)?;
    let (optimum, _) = testing::optimum(instance).ok_or(Violation::NoOptimum)?;
    let bound = optimum - terms.eps.times(instance.pieces() as u64);
    if utility > optimum {
        return Err(Violation::AboveOptimum { utility, optimum });
    }
    if utility < bound {
        return Err(Violation::BelowBound { utility, bound, optimum });
    }
    Ok((utility, optimum))
}

fn holders(world: &World) -> BTreeMap<PieceId, Vec<usize>> {
    let mut holders: BTreeMap<PieceId, Vec<usize>> = BTreeMap::new();
    for (place, node) in world.nodes() {
        for (piece, _) in node.book().holdings() {
            holders.entry(*piece).or_default().push(place);
        }
    }
    holders
}

fn agreed_provider(ledger: &Ledger, piece: &PieceId) -> Option<NodeId> {
    match ledger.session(&piece.session)? {
        Standing::Agreed(agreement) => {
            agreement.pieces.get(usize::from(piece.index)).map(|placed| placed.provider)
        }
        Standing::Bidding | Standing::Failed(_) => None,
    }
}

fn leases_run(world: &World) -> Result<(), Violation> {
    let holdings = world.nodes().flat_map(|(_, node)| node.book().holdings());
    // A book is swept when its node is next called, and its deadline makes that soon.
    let over = |lease_until| world.now().since(lease_until) > SWEEP_MAX;
    match holdings.into_iter().find(|(_, holding)| over(holding.lease_until)) {
        Some((piece, _)) => Err(Violation::LeaseOver(*piece)),
        None => Ok(()),
    }
}

/// How late a node may notice that a lease is over: one grain of its timer.
const SWEEP_MAX: std::time::Duration = std::time::Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// The canary: the checker itself must be able to fail.
    #[test]
    fn the_bound_is_checked_on_both_sides() {
        let rates = |a: f64, b: f64| vec![Nats::ln(a), Nats::ln(b)];
        let instance =
            Instance { log_rates: vec![rates(9.0, 1.0), rates(9.0, 8.0)], capacity: vec![1, 2] };
        let terms = Terms::default();
        let (utility, optimum) = bound(&instance, terms, &[0, 1]).expect("the optimum itself");
        assert_eq!(utility, optimum);
        assert!(matches!(bound(&instance, terms, &[1, 0]), Err(Violation::BelowBound { .. })));
        assert_eq!(bound(&instance, terms, &[0, 0]), Err(Violation::Infeasible));
    }
}
