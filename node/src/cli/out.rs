//! What the commands print. Whoever reads may stop at any time (`| head`): a reader that has gone has
//! seen enough, and what goes on goes on.

use std::{
    fmt::{Arguments, Display},
    io::{self, ErrorKind, Write},
};

use serde::Serialize;

use super::Failure;

/// A line.
pub(super) fn line(line: impl Display) -> Result<(), Failure> {
    print(format_args!("{line}\n"))
}

/// Lines that have their ends.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    print(format_args!("{text}"))
}

/// An object for machines, laid out so that people can read it too.
pub(super) fn object(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value)?)
}

/// A line on stderr. Where that can't be written to, there is nobody to tell.
pub(super) fn complain(line: impl Display) {
    writeln!(io::stderr(), "{line}").ok();
}

fn print(text: Arguments<'_>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure(format!("cannot write the results: {error}")))
        }
        _ => Ok(()),
    }
}
