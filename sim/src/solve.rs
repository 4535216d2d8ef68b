//! One instance from a file, solved by one algorithm and held against the exact optimum.
//!
//! ```
//! use starling_sim::{baseline::{Algorithm, Settings}, solve};
//!
//! let file = br#"{"rates": [[8, 3], [8, null]], "capacity": [1, null]}"#;
//! let instance = solve::parse(file)?;
//! let answer = solve::solve(&instance, Algorithm::Auction, &Settings::default())?;
//! assert_eq!(answer.assignment, [Some(1), Some(0)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{collections::BTreeMap, fs::File, io, io::Read, path::Path};

use serde::{Deserialize, Serialize};
use starling_protocol::{
    Nats,
    market::Terms,
    testing::{self, Blocked, Instance},
};
use thiserror::Error;

use crate::baseline::{self, Algorithm, Settings, SolveError};

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// By its name on the command line.
    pub algorithm: &'static str,
    /// Provider by piece; nothing where the algorithm found no place.
    pub assignment: Vec<Option<usize>>,
    /// `sum ln(r_ij / n_j)` in nats; nothing if a piece has no place.
    pub utility: Option<f64>,
    /// The largest utility that there is.
    pub optimum: f64,
    /// Their difference per piece; nothing if a piece has no place.
    pub gap_per_piece: Option<f64>,
    /// Rounds; see [`baseline`] for these.
    pub rounds: u64,
    /// Bids.
    pub bids: u64,
    /// Messages.
    pub messages: u64,
    /// What only this algorithm counts.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Why a file is no instance. Always the file's fault, or its environment's.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InputError {
    /// It can't be read.
    #[error("cannot be read: {0}; --instance takes the path of a JSON file")]
    Read(#[from] io::Error),
    /// More bytes than we take.
    #[error("more than {} MiB, which is the limit", FILE_BYTES_MAX >> 20)]
    TooLong,
    /// It is no JSON, or none of this form.
    #[error("{0}; the file must be {FORM}")]
    Json(#[from] serde_json::Error),
    /// Nothing to place, or nowhere to place it.
    #[error("{0} is empty; there must be at least one piece and one provider")]
    Empty(&'static str),
    /// A row of another length than there are providers.
    #[error(
        "rates[{piece}] has {found} entries, but capacity has {expected}; give every piece a rate \
         or null for each provider"
    )]
    Ragged {
        /// Which row.
        piece: usize,
        /// Its length.
        found: usize,
        /// The number of providers.
        expected: usize,
    },
    /// A rate that has no logarithm.
    #[error(
        "rates[{piece}][{provider}] is {rate}; a rate must be a positive number, or null where the \
         provider can't take the piece"
    )]
    Rate {
        /// Row.
        piece: usize,
        /// Column.
        provider: usize,
        /// What is there.
        rate: f64,
    },
    /// More than the algorithms take on.
    #[error("{count} {what}; the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// Why an instance has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// Not every piece can be placed, by whatever algorithm.
    #[error("no feasible assignment: {}", describe(.0))]
    Infeasible(Blocked),
    /// The algorithm can't be run like this.
    #[error(transparent)]
    Settings(#[from] SolveError),
}

/// Reads an instance.
///
/// # Errors
/// What is wrong with the file, and where.
pub fn read(path: &Path) -> Result<Instance, InputError> {
    let mut text = Vec::new();
    let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(InputError::TooLong);
    }
    parse(&text)
}

/// Makes an instance of a file's text.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(text: &[u8]) -> Result<Instance, InputError> {
    let InstanceFile { rates, capacity } = serde_json::from_slice(text)?;
    check_size(&rates, &capacity)?;
    let pieces = u16::try_from(rates.len()).expect("within the limit");
    let slots = |slots: &Option<u64>| {
        let slots = slots.and_then(|slots| u16::try_from(slots).ok());
        slots.map_or(pieces, |slots| slots.min(pieces))
    };
    let capacity: Vec<u16> = capacity.iter().map(slots).collect();
    let mut log_rates = Vec::with_capacity(rates.len());
    for (piece, row) in rates.iter().enumerate() {
        if row.len() != capacity.len() {
            let (found, expected) = (row.len(), capacity.len());
            return Err(InputError::Ragged { piece, found, expected });
        }
        log_rates.push(logarithms(piece, row)?);
    }
    Ok(Instance { log_rates, capacity })
}

/// Solves an instance. The auction's spread is widened to that of the instance, so that no pair of
/// the file counts as infeasible.
///
/// # Errors
/// If not every piece can be placed at all, or the settings make no sense.
pub fn solve(
    instance: &Instance,
    algorithm: Algorithm,
    settings: &Settings,
) -> Result<Answer, Failure> {
    let best = testing::solve_exactly(instance).map_err(Failure::Infeasible)?;
    let spread = settings.terms.spread.max(baseline::spread(instance));
    let terms = Terms { spread, ..settings.terms };
    let solution = baseline::solve(algorithm, instance, &Settings { terms, ..*settings })?;
    let utility = solution.complete().and_then(|complete| instance.utility(&complete));
    let gap = utility.map(|utility| (best.utility - utility).to_f64() / instance.pieces() as f64);
    Ok(Answer {
        algorithm: algorithm.name(),
        assignment: solution.assignment,
        utility: utility.map(Nats::to_f64),
        optimum: best.utility.to_f64(),
        gap_per_piece: gap,
        rounds: solution.rounds,
        bids: solution.bids,
        messages: solution.messages,
        counts: solution.counts.into_iter().collect(),
    })
}

impl Answer {
    /// The pieces for which the algorithm found no place.
    #[must_use]
    pub fn unplaced(&self) -> Vec<usize> {
        let places = self.assignment.iter().enumerate();
        places.filter(|(_, place)| place.is_none()).map(|(piece, _)| piece).collect()
    }
}

/// Numbered things in words: the first few, and how many more there are.
#[must_use]
pub fn list(noun: &str, numbers: &[usize]) -> String {
    let named: Vec<String> = numbers.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let (named, plural) = (named.join(", "), if numbers.len() == 1 { "" } else { "s" });
    match numbers.len().saturating_sub(NAMED_MAX) {
        0 => format!("{noun}{plural} {named}"),
        more => format!("{noun}{plural} {named} and {more} more"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstanceFile {
    rates: Vec<Vec<Option<f64>>>,
    capacity: Vec<Option<u64>>,
}

fn check_size(rates: &[Vec<Option<f64>>], capacity: &[Option<u64>]) -> Result<(), InputError> {
    let (pieces, providers) = (rates.len(), capacity.len());
    for (what, count) in [("rates", pieces), ("capacity", providers)] {
        if count == 0 {
            return Err(InputError::Empty(what));
        }
    }
    let pairs = pieces.saturating_mul(providers);
    let limits = [
        ("pieces", pieces, PIECES_MAX),
        ("providers", providers, PROVIDERS_MAX),
        ("pairs of a piece and a provider", pairs, PAIRS_MAX),
    ];
    for (what, count, limit) in limits {
        if count > limit {
            return Err(InputError::TooMany { what, count, limit });
        }
    }
    Ok(())
}

fn logarithms(piece: usize, row: &[Option<f64>]) -> Result<Vec<Option<Nats>>, InputError> {
    let entries = row.iter().enumerate();
    let logarithm = |(provider, rate): (usize, &Option<f64>)| match rate {
        None => Ok(None),
        Some(rate) => {
            let log = Nats::ln(*rate);
            log.map(Some).ok_or(InputError::Rate { piece, provider, rate: *rate })
        }
    };
    entries.map(logarithm).collect()
}

fn describe(Blocked { pieces, providers }: &Blocked) -> String {
    let (named, count) = (list("piece", pieces), pieces.len());
    if providers.is_empty() {
        return format!("{named} can go nowhere; give it a rate at some provider");
    }
    let at = list("provider", providers);
    format!(
        "{named} can only go to {at}, with fewer than {count} places in all; raise a capacity or \
         allow more pairs"
    )
}

/// What a file looks like.
pub const FORM: &str = r#"{"rates": [[a rate or null for each provider] for each piece], "capacity": [places or null for each provider]}"#;

const FILE_BYTES_MAX: u64 = 256 << 20;
/// Above these, the optimum takes longer than anyone waits.
const PIECES_MAX: usize = 20_000;
const PROVIDERS_MAX: usize = 2_000;
const PAIRS_MAX: usize = 4_000_000;
/// So many numbers are written out in an error.
const NAMED_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, complaint: &str) {
        let error = parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }

    #[test]
    fn files_that_are_no_instance_are_refused_with_the_place() {
        check("", "EOF while parsing a value at line 1 column 0; the file must be {\"rates\"");
        check("[1, 2", "line 1");
        check(r#"{"rates": [[1]]}"#, "missing field `capacity`");
        check(r#"{"rates": [[1]], "capacity": [1], "prices": []}"#, "unknown field `prices`");
        check(r#"{"rates": [["fast"]], "capacity": [1]}"#, "invalid type: string \"fast\"");
        check(r#"{"rates": [[1]], "capacity": [-1]}"#, "line 1 column 32");
        check(r#"{"rates": [[1]], "capacity": [1.5]}"#, "floating point `1.5`");
        check(r#"{"rates": [[NaN]], "capacity": [1]}"#, "expected value at line 1 column 13");
        check(r#"{"rates": [[1e999]], "capacity": [1]}"#, "number out of range");
        check(r#"{"rates": [], "capacity": [1]}"#, "rates is empty");
        check(r#"{"rates": [[]], "capacity": []}"#, "capacity is empty");
        check(
            r#"{"rates": [[1, 2], [3]], "capacity": [1, 1]}"#,
            "rates[1] has 1 entries, but capacity has 2",
        );
        check(r#"{"rates": [[1, 2], [3, 0]], "capacity": [1, 1]}"#, "rates[1][1] is 0; a rate");
        check(r#"{"rates": [[1, -2.5]], "capacity": [1, 1]}"#, "rates[0][1] is -2.5");
    }

    #[test]
    fn the_limits_hold_and_what_is_at_them_passes() {
        let file = |pieces: usize, providers: usize| {
            let row = format!("[{}]", vec!["1"; providers].join(","));
            let rows = vec![row.as_str(); pieces].join(",");
            let capacity = vec!["null"; providers].join(",");
            format!(r#"{{"rates": [{rows}], "capacity": [{capacity}]}}"#)
        };
        assert!(parse(file(PIECES_MAX, 1).as_bytes()).is_ok());
        check(&file(PIECES_MAX + 1, 1), "20001 pieces; the limit is 20000");
        assert!(parse(file(1, PROVIDERS_MAX).as_bytes()).is_ok());
        check(&file(1, PROVIDERS_MAX + 1), "2001 providers; the limit is 2000");
        check(&file(2_001, PROVIDERS_MAX), "4002000 pairs");
    }

    #[test]
    fn no_capacity_is_room_for_all() {
        let file = br#"{"rates": [[4, null], [2, 1e-300]], "capacity": [null, 99999999999]}"#;
        let instance = parse(file).expect("sound");
        assert_eq!(instance.capacity, [2, 2]);
        let logarithms = vec![vec![Nats::ln(4.0), None], vec![Nats::ln(2.0), Nats::ln(1e-300)]];
        assert_eq!(instance.log_rates, logarithms);
    }

    #[test]
    fn far_apart_rates_are_still_feasible_for_the_auction() {
        // Beyond the protocol's own spread, a factor of 10,000.
        let file = br#"{"rates": [[1e9, 1], [1e9, 1]], "capacity": [1, 1]}"#;
        let instance = parse(file).expect("sound");
        let answer = solve(&instance, Algorithm::Auction, &Settings::default()).expect("feasible");
        assert_eq!(answer.unplaced(), [0; 0]);
        assert!((answer.optimum - 1e9_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_stuck_algorithm_says_so() {
        // Whoever comes first takes the only place that the other can go to, unless told not to.
        let file = br#"{"rates": [[9, 1], [9, null]], "capacity": [1, 1]}"#;
        let instance = parse(file).expect("sound");
        let greedy = |seed| {
            let settings = Settings { seed, ..Settings::default() };
            solve(&instance, Algorithm::Greedy, &settings).expect("feasible")
        };
        let stuck = (0..20).map(greedy).find(|answer| !answer.unplaced().is_empty());
        let stuck = stuck.expect("one order of two, or the other");
        assert_eq!((stuck.unplaced(), stuck.utility, stuck.gap_per_piece), (vec![1], None, None));
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(list("piece", &[3]), "piece 3");
        assert_eq!(list("piece", &[3, 5]), "pieces 3, 5");
        let many: Vec<usize> = (0..25).collect();
        assert!(list("piece", &many).ends_with("18, 19 and 5 more"));
    }
}
