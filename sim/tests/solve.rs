//! `starling-sim solve`, as a person or a script meets it: good files, bad files, no files.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("a folder for tests");
    path
}

fn solve(path: &PathBuf, flags: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling-sim"))
        .args(["solve", "--instance"])
        .arg(path)
        .args(flags.split_whitespace())
        .output()
        .expect("the binary was built")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Nothing on stdout, and on stderr the file's name, where it is wrong and what to do.
fn check_refused(name: &str, content: &str, complaints: &[&str]) {
    let output = solve(&file(name, content), "");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty() && stderr.starts_with("error: "), "{stderr}");
    for complaint in complaints.iter().chain([&name]) {
        assert!(stderr.contains(complaint), "{stderr}");
    }
}

const THREE: &str = r#"{"rates": [[8, 3], [8, 7], [8, 5]], "capacity": [2, null]}"#;

#[test]
fn the_answer_is_one_object_with_everything_in_it() {
    let path = file("three.json", THREE);
    for algorithm in ["auction", "textbook", "dina-swap-move", "cbba", "dual-tuned"] {
        let output = solve(&path, &format!("--algorithm {algorithm} --eps 0.01 --seed 3"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(answer["algorithm"], algorithm);
        assert_eq!(answer["assignment"], serde_json::json!([0, 1, 0]), "{algorithm}");
        let best = (8.0_f64 * 8.0 * 7.0 / 4.0).ln();
        for figure in ["utility", "optimum"] {
            let found = answer[figure].as_f64().expect("a number");
            assert!((found - best).abs() < 1e-6, "{algorithm}: {figure} is {found}");
        }
        assert_eq!(answer["gap_per_piece"], 0.0);
        let counted = ["rounds", "bids", "messages"].map(|figure| answer[figure].as_u64());
        assert!(counted.iter().all(|count| *count > Some(0)), "{answer}");
    }
}

#[test]
fn the_auction_is_the_default_and_seeds_repeat() {
    let path = file("default.json", THREE);
    let plain = solve(&path, "");
    assert!(plain.status.success());
    assert_eq!(plain.stdout, solve(&path, "--algorithm auction --eps 0.05 --seed 0").stdout);
}

#[test]
fn files_that_are_no_instance_are_refused() {
    check_refused("empty.json", "", &["line 1", "the file must be {\"rates\""]);
    check_refused("words.json", "rates and capacity", &["line 1 column 1"]);
    check_refused(
        "ragged.json",
        r#"{"rates": [[1, 2], [3]], "capacity": [1, 1]}"#,
        &["rates[1] has 1 entries, but capacity has 2", "null for each provider"],
    );
    check_refused(
        "zero.json",
        r#"{"rates": [[0]], "capacity": [1]}"#,
        &["rates[0][0] is 0", "must be a positive number, or null"],
    );
    check_refused(
        "negative.json",
        r#"{"rates": [[2, -1]], "capacity": [1, 1]}"#,
        &["rates[0][1] is -1"],
    );
    check_refused("infinite.json", r#"{"rates": [[1e400]], "capacity": [1]}"#, &["out of range"]);
    check_refused("capacity.json", r#"{"rates": [[1]], "capacity": [-3]}"#, &["`-3`", "line 1"]);
    check_refused("typing.json", r#"{"rates": [[1]], "capacities": [3]}"#, &["`capacities`"]);
    let long = format!(r#"{{"rates": [{}[1]], "capacity": [1]}}"#, "[1],".repeat(20_000));
    check_refused("long.json", &long, &["20001 pieces; the limit is 20000"]);
}

#[test]
fn a_missing_file_is_named() {
    let output = solve(&PathBuf::from("/nowhere/at-all.json"), "");
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: /nowhere/at-all.json: cannot be read: "), "{stderr}");
    assert!(stderr.contains("--instance takes the path of a JSON file"), "{stderr}");
}

#[test]
fn pieces_without_any_place_are_named() {
    let check = |name: &str, content: &str, complaint: &str| {
        let output = solve(&file(name, content), "");
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).contains(complaint), "{}", text(&output.stderr));
    };
    check(
        "nowhere.json",
        r#"{"rates": [[1, 1], [null, null]], "capacity": [2, 2]}"#,
        "no feasible assignment: piece 1 can go nowhere",
    );
    check(
        "crowded.json",
        r#"{"rates": [[1, null], [1, 1], [2, null]], "capacity": [1, null]}"#,
        "pieces 0, 2 can only go to provider 0, with fewer than 2 places in all",
    );
}

#[test]
fn an_algorithm_that_gets_stuck_says_for_which_pieces() {
    let path = file("stuck.json", r#"{"rates": [[9, 1], [9, null]], "capacity": [1, 1]}"#);
    let outputs = (0..20).map(|seed| solve(&path, &format!("--algorithm greedy --seed {seed}")));
    let stuck = outputs.into_iter().find(|output| !output.status.success());
    let stuck = stuck.expect("in one of two orders, piece 0 comes first");
    assert_eq!(stuck.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&stuck.stdout).expect("JSON");
    assert_eq!(answer["assignment"], serde_json::json!([0, null]));
    assert_eq!(answer["utility"], Value::Null);
    assert!(text(&stuck.stderr).contains("greedy found no place for piece 1"));
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let path = file("flags.json", THREE);
    for (flags, complaint) in [
        ("--eps 0", "--eps 0: it must be from"),
        ("--eps nan", "--eps NaN: it must be from"),
        ("--eps inf", "--eps inf: it must be from"),
        ("--eps=-1", "--eps -1: it must be from"),
        ("--algorithm simplex", "possible values: auction, forecast, random"),
        ("--seed x", "--seed"),
    ] {
        let output = solve(&path, flags);
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(text(&output.stderr).contains(complaint), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_shows_a_file_and_examples() {
    let output = solve(&PathBuf::from("-"), "--help");
    let help = text(&output.stdout);
    assert!(help.contains("starling-sim solve --instance three.json"), "{help}");
    assert!(help.contains(r#"{"rates": [[8.0, 3.0]"#), "{help}");
}
