//! Random cases by the hundred thousand, each named by a number.

use std::process::ExitCode;

/// Runs as many cases as the first argument of the command line says, from the one on that the
/// second names; a few hundred thousand from 0 on if they say nothing. Prints how many were broken,
/// and fails if any was. `what` names the cases.
#[must_use]
pub fn stress(what: &str, is_broken: impl Fn(u64) -> bool) -> ExitCode {
    let mut numbers = std::env::args().skip(1).map_while(|number| number.parse().ok());
    let cases: u64 = numbers.next().unwrap_or(CASES);
    let first: u64 = numbers.next().unwrap_or(0);
    let broken = (first..first + cases).filter(|case| is_broken(*case)).count();
    println!("{broken} of {cases} {what} broke a rule");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const CASES: u64 = 300_000;
