//! What became of all cases, as a table, as JSON and against the baseline.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::run::Outcome;

/// One case.
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Whether it is one of a convolutional network, on the engine's types.
    pub(crate) counts: bool,
    /// Whether it is on the engine's types.
    pub(crate) typed: bool,
    pub(crate) outcome: Outcome,
}

/// All cases, on one path.
pub(crate) struct Report {
    path: &'static str,
    entries: Vec<Entry>,
}

/// How many cases became what.
#[derive(Default)]
struct Counts {
    passed: usize,
    fixed: usize,
    refused: usize,
    failed: usize,
}

impl Counts {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut counts = Self::default();
        for entry in entries {
            match &entry.outcome {
                Outcome::Passed { fixed } => {
                    counts.passed += 1;
                    counts.fixed += usize::from(*fixed > 0);
                }
                Outcome::Refused { .. } => counts.refused += 1,
                Outcome::Failed { .. } => counts.failed += 1,
            }
        }
        counts
    }

    fn all(&self) -> usize {
        self.passed + self.refused + self.failed
    }
}

impl Report {
    pub(crate) fn new(path: &'static str, entries: Vec<Entry>) -> Self {
        Self { path, entries }
    }

    /// The sets of cases that are counted, by their names in the report.
    fn sets(&self) -> [(&'static str, Counts); 3] {
        [
            ("of convolutional networks", Counts::of(self.entries.iter().filter(|e| e.counts))),
            ("on the engine's types", Counts::of(self.entries.iter().filter(|e| e.typed))),
            ("all", Counts::of(self.entries.iter())),
        ]
    }

    /// The table for people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "ONNX node cases, path {}\n{:<27}{:>7}{:>8}{:>9}{:>9}{:>8}\n",
            self.path, "", "cases", "passed", "(fixed)", "refused", "failed"
        );
        for (name, counts) in self.sets() {
            let Counts { passed, fixed, refused, failed } = counts;
            let all = counts.all();
            writeln!(text, "{name:<27}{all:>7}{passed:>8}{fixed:>9}{refused:>9}{failed:>8}")
                .unwrap();
        }
        text +=
            "(fixed): some inputs, such as shapes and axes, were fixed when the model was read\n";
        self.list(&mut text, "failed", |entry| match &entry.outcome {
            Outcome::Failed { reason } => Some(reason.clone()),
            _ => None,
        });
        self.list(&mut text, "refused, of convolutional networks", |entry| match &entry.outcome {
            Outcome::Refused { reason, .. } if entry.counts => Some(reason.clone()),
            _ => None,
        });
        let others: Vec<String> = self
            .refused_by_operator()
            .into_iter()
            .map(|(operator, count)| format!("{operator} {count}"))
            .collect();
        writeln!(text, "\nrefused, of others, by operator: {}", others.join(", ")).unwrap();
        text
    }

    fn list(&self, text: &mut String, title: &str, reason: impl Fn(&Entry) -> Option<String>) {
        let lines: Vec<String> = self
            .entries
            .iter()
            .filter_map(|entry| Some(format!("  {}: {}", entry.name, reason(entry)?)))
            .collect();
        if !lines.is_empty() {
            writeln!(text, "\n{title}:\n{}", lines.join("\n")).unwrap();
        }
    }

    fn refused_by_operator(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.typed && !entry.counts) {
            if let Outcome::Refused { operator, .. } = &entry.outcome {
                *counts.entry(operator.as_str()).or_default() += 1;
            }
        }
        counts
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.escape_default());
        let sets = self.sets().map(|(name, counts)| {
            format!(
                "{}: {{\"cases\": {}, \"passed\": {}, \"fixed\": {}, \"refused\": {}, \"failed\": {}}}",
                quoted(name),
                counts.all(),
                counts.passed,
                counts.fixed,
                counts.refused,
                counts.failed
            )
        });
        let cases: Vec<String> = self
            .entries
            .iter()
            .map(|entry| {
                let (result, reason) = match &entry.outcome {
                    Outcome::Passed { .. } => ("passed", ""),
                    Outcome::Refused { reason, .. } => ("refused", reason.as_str()),
                    Outcome::Failed { reason } => ("failed", reason.as_str()),
                };
                format!(
                    "{}: {{\"counts\": {}, \"result\": \"{result}\", \"reason\": {}}}",
                    quoted(&entry.name),
                    entry.counts,
                    quoted(reason)
                )
            })
            .collect();
        format!(
            "{{\"path\": {}, \"sets\": {{{}}}, \"cases\": {{{}}}}}",
            quoted(self.path),
            sets.join(", "),
            cases.join(", ")
        )
    }

    /// What is not as the baseline says.
    pub(crate) fn differences(&self) -> Result<Vec<String>, String> {
        let path = baseline_path();
        let baseline =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let expected: BTreeSet<&str> =
            baseline.lines().filter_map(|line| line.strip_prefix("pass ")).collect();
        let mut differences = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in &self.entries {
            let name = entry.name.as_str();
            seen.insert(name);
            match (&entry.outcome, expected.contains(name)) {
                (Outcome::Passed { .. }, true) | (Outcome::Refused { .. }, false) => {}
                (Outcome::Passed { .. }, false) => {
                    differences.push(format!("{name} passes; add it with --write-baseline"));
                }
                (Outcome::Refused { reason, .. }, true) => {
                    differences.push(format!("{name} must pass, and is refused: {reason}"));
                }
                (Outcome::Failed { reason }, _) => {
                    differences.push(format!("{name} fails: {reason}"));
                }
            }
        }
        let gone = expected.iter().filter(|name| !seen.contains(*name));
        differences.extend(gone.map(|name| format!("{name} must pass, and is not there")));
        Ok(differences)
    }

    /// Writes what is the case now.
    pub(crate) fn write_baseline(&self) -> Result<(), String> {
        let mut text = BASELINE_HEAD.to_owned();
        for entry in &self.entries {
            match &entry.outcome {
                Outcome::Passed { .. } => writeln!(text, "pass {}", entry.name).unwrap(),
                Outcome::Refused { reason, .. } if entry.counts => {
                    writeln!(text, "refused {}: {reason}", entry.name).unwrap();
                }
                Outcome::Refused { .. } | Outcome::Failed { .. } => {}
            }
        }
        let path = baseline_path();
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/baseline.txt")
}

const BASELINE_HEAD: &str = "\
# The node cases of onnx 1.20.1 that the engine passes, and those of convolutional networks that
# it refuses. Written by: cargo test -p starling-engine --test conformance -- --write-baseline
";
