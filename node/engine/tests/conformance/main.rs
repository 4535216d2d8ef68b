//! Runs the node cases of ONNX's own backend tests, and holds the engine to what it can do.
//!
//! `node/engine/conformance/fetch.py` fetches the cases, into a folder that this program finds by
//! itself; without them it says so and ends well.
//!
//! A case *counts* if all its operators are those of convolutional networks ([`cnn::OPERATORS`])
//! and all its inputs and outputs are tensors of the engine's types. All others run too: that a
//! case is refused is no failure, that it panics or computes something else is one.
//! `conformance/baseline.txt` lists the cases that must pass, and those that count and don't pass,
//! with the reason; the program fails if anything differs from it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod case;
mod cnn;
mod report;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use case::Case;
use report::{Entry, Report};
use run::{Outcome, PATHS};

fn main() -> ExitCode {
    match arguments().and_then(|arguments| conformance(&arguments)) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("conformance: {problem}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    cases: PathBuf,
    path: String,
    format: Format,
    baseline: Baseline,
    filter: String,
}

#[derive(PartialEq)]
enum Format {
    Json,
    Text,
}

#[derive(PartialEq)]
enum Baseline {
    Check,
    Write,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        cases: cache(),
        path: "both".to_owned(),
        format: Format::Text,
        baseline: Baseline::Check,
        filter: String::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--cases" => arguments.cases = PathBuf::from(value()?),
            "--path" => arguments.path = value()?,
            "--filter" => arguments.filter = value()?,
            "--json" => arguments.format = Format::Json,
            "--write-baseline" => arguments.baseline = Baseline::Write,
            "--help" => return Err(USAGE.to_owned()),
            // What `cargo test` hands to every test binary.
            "--nocapture" | "--quiet" | "-q" => {}
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    Ok(arguments)
}

/// Where `fetch.py` puts the cases.
fn cache() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target =
        target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"));
    target.join("conformance/node")
}

fn conformance(arguments: &Arguments) -> Result<ExitCode, String> {
    if !arguments.cases.is_dir() {
        println!(
            "conformance: skipped, there are no cases in {}; node/engine/conformance/fetch.py \
             fetches them",
            arguments.cases.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    let cases = Case::all(&arguments.cases)?;
    let cases: Vec<&Case> =
        cases.iter().filter(|case| case.name.contains(&arguments.filter)).collect();
    let known = |path: &&run::Path| arguments.path == "both" || arguments.path == path.name;
    let paths: Vec<&run::Path> = PATHS.iter().filter(known).collect();
    if paths.is_empty() {
        return Err(format!("there is no path '{}'", arguments.path));
    }
    // A panic is an outcome, and counted as one; who looks at a few cases wants to see it.
    if arguments.filter.is_empty() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let mut good = true;
    for path in paths {
        let report = Report::new(path.name, cases.iter().map(|case| entry(case, path)).collect());
        match arguments.format {
            Format::Json => println!("{}", report.json()),
            Format::Text => print!("{}", report.text()),
        }
        if arguments.baseline == Baseline::Write {
            report.write_baseline()?;
        }
        if arguments.filter.is_empty() {
            let differences = report.differences()?;
            differences.iter().for_each(|difference| eprintln!("{}: {difference}", path.name));
            good &= differences.is_empty();
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn entry(case: &Case, path: &run::Path) -> Entry {
    Entry {
        name: case.name.clone(),
        counts: case.has_known_types() && case.operators().iter().all(|op| cnn::is_cnn(op)),
        typed: case.has_known_types(),
        outcome: if case.has_known_types() {
            run::run(case, path)
        } else {
            let operator = "other types".to_owned();
            Outcome::Refused {
                operator,
                reason: "values of types that are not supported".to_owned(),
            }
        },
    }
}

const USAGE: &str = "\
usage: conformance [--cases FOLDER] [--path portable|both] [--filter TEXT] [--json]
                   [--write-baseline]";
