//! What must hold at any time, and once an auction has ended, judged from outside the nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use starling_protocol::{
    Nats, NodeId, PieceId, SessionId, Timestamp,
    market::Terms,
    testing::{self, Instance},
    wire::Stage,
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
    /// A table of a node has more entries than its limit allows.
    #[error("node {node} knows more {table} than its limit allows")]
    OverLimit {
        /// Whose.
        node: NodeId,
        /// Which.
        table: &'static str,
    },
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

/// Whether every piece of the workload has a place, and only one: it has two while it moves, or
/// until a lost release is said again.
#[must_use]
pub fn all_held_once(world: &World, workload: &Workload) -> bool {
    let places: usize = world.nodes().map(|(_, node)| usize::from(node.book().holders())).sum();
    let wanted = workload.requests.iter().map(|request| request.plan.pieces().len()).sum();
    // Counting is cheap, and most often it is enough to say no.
    if places < wanted {
        return false;
    }
    let holders = holders(world);
    workload.pieces().all(|(piece, _)| holders.get(&piece).is_some_and(|at| at.len() == 1))
}

/// Whether no session seeks places, and every piece of those that have agreed is where its session
/// believes.
#[must_use]
pub fn all_settled(world: &World) -> bool {
    let settled = |(id, standing): (&SessionId, &Standing)| match standing {
        Standing::Bidding => false,
        Standing::Failed(_) => true,
        Standing::Agreed(agreement) => {
            is_settled(world, id)
                && (0..).zip(&agreement.pieces).all(|(index, piece)| {
                    holds(world, &piece.provider, &PieceId { session: *id, index })
                })
        }
    };
    world.ledger().is_quiet() && world.ledger().sessions().all(settled)
}

fn is_settled(world: &World, session: &SessionId) -> bool {
    let place = world.place(&session.requester);
    let node = place.and_then(|place| world.node(place));
    let session = node.and_then(|node| node.session(session.number));
    session.is_some_and(|session| session.stage() == Stage::Settled)
}

fn holds(world: &World, provider: &NodeId, piece: &PieceId) -> bool {
    let place = world.place(provider);
    let node = place.and_then(|place| world.node(place));
    node.is_some_and(|node| node.book().attempt_of(piece).is_some())
}

/// The provider of each piece in the workload's order, as the books have it.
///
/// # Errors
/// If a piece has no place or two, a stray has one, a lease is over, or a session thinks otherwise.
pub fn assignment(world: &World, workload: &Workload) -> Result<Vec<usize>, Violation> {
    assignment_of(world, workload.pieces().map(|(piece, _)| piece))
}

/// The place of each of these pieces, as the books have it, if there are no others.
///
/// # Errors
/// If a piece has no place or two, a stray has one, a lease is over, or a session thinks otherwise.
pub fn assignment_of(
    world: &World,
    pieces: impl IntoIterator<Item = PieceId>,
) -> Result<Vec<usize>, Violation> {
    let mut holders = holders(world);
    let mut assignment = Vec::new();
    for piece in pieces {
        let places = holders.remove(&piece).ok_or(Violation::NotHeld(piece))?;
        if let [first, second, ..] = places[..] {
            let (first, second) = (world.id(first), world.id(second));
            return Err(Violation::HeldTwice { piece, first, second });
        }
        let place = places[0];
        let provider = world.id(place);
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
/// If it is none, or better than the best.
pub fn values(instance: &Instance, assignment: &[usize]) -> Result<(Nats, Nats), Violation> {
    let utility = instance.utility(assignment).ok_or(Violation::Infeasible)?;
    let (optimum, _) = testing::optimum(instance).ok_or(Violation::NoOptimum)?;
    if utility > optimum {
        return Err(Violation::AboveOptimum { utility, optimum });
    }
    Ok((utility, optimum))
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
    bound_with(instance, terms, assignment, Nats::ZERO)
}

/// The same, where some pieces ran before others came: what it costs them to move, together, is
/// what the bound is lower by.
///
/// # Errors
/// If the utility is not within `U* - N*eps - migration <= U <= U*`, exactly.
pub fn bound_with(
    instance: &Instance,
    terms: Terms,
    assignment: &[usize],
    migration: Nats,
) -> Result<(Nats, Nats), Violation> {
    let (utility, optimum) = values(instance, assignment)?;
    let bound = optimum - terms.eps.times(instance.pieces() as u64) - migration;
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

/// Checks what must hold at any time, whatever goes wrong: call it every now and then.
#[derive(Default)]
pub struct Watch {
    // Since when a piece is held at these two places at once, by running leases of processes that
    // run. By pairs, because a requester that hears nobody may leave one behind after the other.
    doubles: BTreeMap<(PieceId, usize, usize), Timestamp>,
    frozen: BTreeSet<usize>,
}

impl Watch {
    /// Looks at a world.
    ///
    /// # Errors
    /// If a lease is over and its place still held, a piece was held twice for longer than a
    /// move and a lease, or a table is over its limit.
    pub fn look(&mut self, world: &World) -> Result<(), Violation> {
        leases_run(world)?;
        tables_are_bounded(world)?;
        self.forgive_the_thawed(world);
        self.doubles_end(world)
    }

    /// A process that was frozen takes up what waited for it, renewals of leases included, as
    /// though no time had gone by. Doubles count anew from then.
    fn forgive_the_thawed(&mut self, world: &World) {
        let frozen: BTreeSet<usize> =
            world.nodes().map(|(place, _)| place).filter(|place| world.is_paused(*place)).collect();
        if !self.frozen.is_subset(&frozen) {
            self.doubles.clear();
        }
        self.frozen = frozen;
    }

    fn doubles_end(&mut self, world: &World) -> Result<(), Violation> {
        let before = std::mem::take(&mut self.doubles);
        for (piece, holders) in running_leases(world) {
            for (one, other) in pairs(&holders) {
                let key = (piece, one.0, other.0);
                let since = before.get(&key).copied().unwrap_or(world.now());
                self.doubles.insert(key, since);
                let lease = one.1.max(other.1);
                // A piece that moves has both places on purpose until the new one is ready.
                let moving = world
                    .place(&piece.session.requester)
                    .map_or(Duration::ZERO, |place| world.config(place).session.move_max);
                if world.now().since(since) > lease + moving + ON_ITS_WAY_MAX {
                    let (first, second) = (world.id(one.0), world.id(other.0));
                    return Err(Violation::HeldTwice { piece, first, second });
                }
            }
        }
        Ok(())
    }
}

/// Each two of them, in order.
fn pairs<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    (0..all.len()).flat_map(move |n| all[n + 1..].iter().map(move |other| (&all[n], other)))
}

/// Who holds each piece by a lease that runs, in a process that does.
fn running_leases(world: &World) -> BTreeMap<PieceId, Vec<(usize, Duration)>> {
    let mut holders: BTreeMap<PieceId, Vec<(usize, Duration)>> = BTreeMap::new();
    for (place, node) in world.nodes().filter(|(place, _)| !world.is_paused(*place)) {
        let now = world.now_at(place);
        for (piece, _) in node.book().holdings().filter(|(_, held)| held.lease_until > now) {
            holders.entry(*piece).or_default().push((place, node.book().lease()));
        }
    }
    holders
}

fn leases_run(world: &World) -> Result<(), Violation> {
    for (place, node) in world.nodes().filter(|(place, _)| !world.is_paused(*place)) {
        let now = world.now_at(place);
        // A book is swept when its node is next called, and its deadline makes that soon.
        let over = |lease_until| now.since(lease_until) > SWEEP_MAX;
        if let Some((piece, _)) = node.book().holdings().find(|(_, held)| over(held.lease_until)) {
            return Err(Violation::LeaseOver(*piece));
        }
    }
    Ok(())
}

fn tables_are_bounded(world: &World) -> Result<(), Violation> {
    for (place, node) in world.nodes() {
        let config = world.config(place);
        let slots = usize::from(config.book.slots);
        let tables = [
            ("nodes", node.flock().nodes().count(), config.flock.nodes_max),
            ("sessions", node.flock().sessions().count(), config.flock.sessions_max),
            ("pieces", usize::from(node.book().holders()), slots),
        ];
        if let Some((table, _, _)) = tables.into_iter().find(|(_, count, limit)| count > limit) {
            return Err(Violation::OverLimit { node: world.id(place), table });
        }
    }
    Ok(())
}

/// How late a node may notice that a lease is over: one grain of its timer.
const SWEEP_MAX: Duration = Duration::from_millis(1);
/// How late the last renewal of a lease may arrive that its requester no longer wants, and what else
/// of a move is not counted as loading.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(1);

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
