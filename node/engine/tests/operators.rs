//! Each operator, in the corners of its definition, against ONNX Runtime.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::fs;

use common::{assert_close, fixture, read, run_whole, travel};
use starling_engine::{Model, SupportedOperator, Tensor, supported_operators};

/// The same values as `pattern` in `operators.py`.
fn pattern(shape: &[usize], seed: i64) -> Tensor {
    let count = shape.iter().product::<usize>() as i64;
    let value = |i: i64| ((i * 7 + seed * 5) % 19 - 9) as f32 / 8.0;
    Tensor::from_f32(shape.to_vec(), (0..count).map(value).collect()).unwrap()
}

/// Runs a case as it is and as a slice that has travelled.
fn check(name: &str) {
    let model = Model::open(&fixture(&format!("operators/{name}.onnx")))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected = read(&fixture(&format!("operators/{name}.npy")));
    let inputs: Vec<_> =
        model.inputs().iter().zip(0..).map(|(info, seed)| pattern(&info.shape, seed)).collect();
    assert_eq!(model.outputs()[0].shape, expected.shape(), "{name}");
    let outputs = run_whole(&model, &inputs);
    // Kernels compute in place where they can; what the caller still holds is not such a place.
    let untouched =
        inputs.iter().zip(0..).all(|(input, seed)| *input == pattern(input.shape(), seed));
    assert!(untouched, "{name} writes into its input");
    println!("{name}");
    assert_close(&outputs[0], &expected, 1e-5);
    assert_eq!(run_whole(&travel(&model, 0..1), &inputs), outputs, "{name} as a slice");
}

fn check_all(prefixes: &[&str]) {
    let names: Vec<String> =
        case_names().into_iter().filter(|name| prefixes.contains(&family(name))).collect();
    assert!(!names.is_empty());
    names.iter().for_each(|name| check(name));
}

fn family(name: &str) -> &str {
    name.split_once('_').map_or(name, |(family, _)| family)
}

fn case_names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(fixture("operators"))
        .unwrap()
        .filter_map(|entry| {
            Some(entry.unwrap().file_name().to_str()?.strip_suffix(".onnx")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

const FAMILIES: [(&str, &[&str]); 9] = [
    ("convolution", &["conv"]),
    ("pooling", &["max", "average", "global"]),
    (
        "value by value",
        &["relu", "leaky", "clip", "add", "batch", "function", "binary", "nary", "where"],
    ),
    ("shapes", &["concat", "flatten", "reshape", "squeeze", "unsqueeze", "expand", "tile"]),
    ("matrices", &["gemm", "matmul", "softmax", "norm"]),
    ("other windows", &["line", "volume", "transposed", "computed"]),
    ("reductions", &["reduce", "top", "cum"]),
    (
        "moves",
        &["transpose", "slice", "split", "pad", "gather", "scatter", "depth", "space", "trilu"],
    ),
    ("resizes", &["resize", "upsample"]),
];

#[test]
fn every_family_gives_the_results_of_onnx_runtime() {
    for (name, prefixes) in FAMILIES {
        println!("{name}");
        check_all(prefixes);
    }
}

#[test]
fn every_case_is_in_a_family() {
    let prefixes: Vec<&str> =
        FAMILIES.iter().flat_map(|(_, prefixes)| *prefixes).copied().collect();
    let names = case_names();
    assert_eq!(names.iter().find(|name| !prefixes.contains(&family(name))), None);
    assert!(names.len() > 250, "{}", names.len());
}

#[test]
fn the_documentation_lists_every_operator() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/OPERATORS.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, listed) = text.split_once(TABLE_HEAD).unwrap();
    let row = |operator: SupportedOperator| {
        let SupportedOperator { name, since, until, limits } = operator;
        let until = until.map_or("on".to_owned(), |until| format!("to {until}"));
        format!("| `{name}` | {since} {until} | {limits} |\n")
    };
    let table: String = supported_operators().into_iter().map(row).collect();
    if std::env::var_os("STARLING_WRITE_DOCS").is_some() {
        return fs::write(&path, format!("{before}{TABLE_HEAD}{table}")).unwrap();
    }
    assert_eq!(listed, table, "write it anew with STARLING_WRITE_DOCS=1");
}

const TABLE_HEAD: &str = "| operator | opsets | not supported, or only |\n|---|---|---|\n";
