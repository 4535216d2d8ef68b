//! How a mechanism ended, and how good that is.

use super::{Instance, optimum};
use crate::market::Terms;

/// How an auction ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Provider by piece; nothing where the piece was declared infeasible.
    pub assignment: Vec<Option<usize>>,
    /// The most bids of any piece.
    pub rounds: u32,
    /// Bids of all pieces.
    pub bids: u32,
    /// Messages delivered, copies included.
    pub messages: u64,
    /// False if the step limit ended it.
    pub quiescent: bool,
}

impl Outcome {
    /// Of any mechanism that assigns pieces to providers.
    #[must_use]
    pub fn of(assignment: Vec<Option<usize>>) -> Self {
        Self { assignment, rounds: 0, bids: 0, messages: 0, quiescent: true }
    }
}

/// Holds an outcome against the exact optimum: places are given along feasible pairs, nobody is
/// overfilled, `U* - N*eps <= U <= U*`, and a piece without a place is one too many.
///
/// # Errors
/// The first property that does not hold, in words.
pub fn check_outcome(instance: &Instance, terms: Terms, outcome: &Outcome) -> Result<(), String> {
    if !outcome.quiescent {
        return Err("the auction did not end".to_owned());
    }
    let placed: Option<Vec<usize>> = outcome.assignment.iter().copied().collect();
    let best = optimum(instance);
    let (placed, (best, _)) = match (placed, best) {
        (None, None) => return Ok(()),
        (Some(_), None) => return Err("pieces placed that have no place".to_owned()),
        (None, Some(_)) => return Err("a piece called infeasible that has a place".to_owned()),
        (Some(placed), Some(best)) => (placed, best),
    };
    let utility = instance.utility(&placed).ok_or("an infeasible assignment")?;
    let bound = best - terms.eps.times(instance.pieces() as u64);
    if utility > best {
        return Err(format!("U = {utility} above the optimum {best}"));
    }
    if utility < bound {
        return Err(format!("U = {utility} below the bound {bound} (optimum {best})"));
    }
    Ok(())
}
