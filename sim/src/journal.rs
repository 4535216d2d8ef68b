//! What happened, in words, for a person who replays a run.

use starling_protocol::Timestamp;

/// How much of a run is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    #[default]
    Nothing,
    /// Faults, and what nodes tell their applications.
    Events,
    /// Every message too.
    Messages,
}

/// A run in words.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    detail: Detail,
    lines: Vec<String>,
}

impl Journal {
    /// Sets how much is written down from now on.
    pub fn keep(&mut self, detail: Detail) {
        self.detail = detail;
    }

    /// What was written down so far.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Writes a line, if as much as this is wanted. The text is made only then.
    pub(crate) fn note(&mut self, detail: Detail, now: Timestamp, text: impl FnOnce() -> String) {
        if detail <= self.detail && self.lines.len() < LINES_MAX {
            self.lines.push(format!("{:12.6} s  {}", now.0 as f64 / 1e6, text()));
        }
    }
}

/// More than anyone reads, and little enough to keep in memory.
const LINES_MAX: usize = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_written_down() {
        let mut journal = Journal::default();
        journal.note(Detail::Events, Timestamp(0), || unreachable!("nobody wants it"));
        journal.keep(Detail::Events);
        journal.note(Detail::Messages, Timestamp(0), || unreachable!("nobody wants it"));
        journal.note(Detail::Events, Timestamp(1_500_000), || "a crash".to_owned());
        assert_eq!(journal.lines(), ["    1.500000 s  a crash"]);
    }
}
