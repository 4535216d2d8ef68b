//! The binary, as a person or a script meets it.

use std::process::{Command, Output};

use serde_json::Value;

fn starling_sim(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling-sim"))
        .args(arguments.split_whitespace())
        .output()
        .expect("the binary was built")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn check_refused(arguments: &str, complaint: &str) {
    let output = starling_sim(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains(complaint), "{arguments}: {stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn json_is_one_object_for_each_seed_and_one_with_medians() {
    let output = starling_sim("converge --pieces 20 --providers 4 --seeds 3 --first-seed 5 --json");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 4);
    for (line, seed) in lines.iter().zip([5, 6, 7]) {
        assert_eq!(line["seed"], seed);
        assert_eq!(line["trace_hash"].as_str().map(str::len), Some(64));
    }
    for line in &lines {
        assert_eq!((&line["algorithm"], &line["bidding"]), (&"auction".into(), &"forecast".into()));
        let figures = ["rounds", "bids", "messages", "bytes", "virtual_ms", "mean_inference_time"];
        assert!(figures.iter().all(|figure| line[figure].as_f64() > Some(0.0)), "{line}");
        let gap = line["gap_per_piece"].as_f64().expect("a number");
        assert!((0.0..=0.05).contains(&gap));
        let jain = ["pieces", "busy", "inference_time"].map(|kind| line["jain"][kind].as_f64());
        assert!(jain.iter().all(|index| (0.0..=1.0).contains(&index.expect("a number"))));
    }
    assert_eq!((&lines[3]["median_of_seeds"], &lines[3]["failed_seeds"]), (&3.into(), &0.into()));
}

#[test]
fn the_table_names_every_seed_and_the_verdict() {
    let output = starling_sim("converge --pieces 12 --providers 3 --seeds 2");
    assert!(output.status.success());
    let table = text(&output.stdout);
    assert!(table.starts_with("auction, forecast bidding: 12 pieces, 3 providers, eps 0.05"));
    let rows: Vec<&str> = table.lines().map(str::trim_start).collect();
    assert!(rows[2].starts_with("seed") && rows[3].starts_with("0 ") && rows[4].starts_with("1 "));
    assert!(table.trim_end().ends_with("2 of 2 seeds within U* - N*eps <= U <= U*"));
    assert!(output.stderr.is_empty(), "a progress bar without a terminal");
}

#[test]
fn a_failing_seed_is_printed_with_the_command_that_runs_it_again() {
    // Links so slow that nobody is introduced in time.
    let slow = "--latency-min-ms 130000 --latency-max-ms 130000";
    let output = starling_sim(&format!("converge --pieces 2 --providers 1 --seeds 2 {slow}"));
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("seed 1 failed: gathering: it did not come true within 120s"),
        "{stderr}"
    );
    let again = stderr.lines().last().expect("the last seed's command").trim();
    let command = again.strip_prefix("again: starling-sim ").expect(again);
    assert!(command.ends_with("--first-seed 1 --seeds 1"));
    let replayed = starling_sim(command);
    assert_eq!(replayed.status.code(), Some(1));
    assert!(stderr.ends_with(text(&replayed.stderr)));
}

#[test]
fn flags_that_make_no_sense_are_refused_with_a_reason() {
    check_refused("converge --providers 0", "at least 1 provider");
    check_refused("converge --pieces 0", "at least 1 piece");
    check_refused("converge --seeds 0", "--seeds");
    check_refused("converge --eps 0", "eps must be a positive number");
    check_refused("converge --eps=-0.1", "eps must be a positive number");
    check_refused("converge --eps nan", "eps must be a positive number");
    check_refused("converge --loss 0.9", "the loss must be between 0 and 0.5");
    check_refused("converge --latency-min-ms 30", "the shortest latency");
    check_refused(
        "converge --pieces 50 --providers 4 --slots 12",
        "50 pieces don't fit in 48 places (4 providers of 12 slots each)",
    );
}

#[test]
fn help_has_examples() {
    let output = starling_sim("converge --help");
    assert!(
        text(&output.stdout)
            .contains("starling-sim converge --pieces 100 --providers 10 --seeds 20")
    );
}

#[test]
fn a_scenario_is_played_and_its_log_printed() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/crash-one-of-many.toml");
    let output = starling_sim(&format!("scenario --log {file}"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let log = text(&output.stdout);
    assert!(log.contains("a0000001 crashes") && log.contains("says Ready"), "{log}");
    let json = starling_sim(&format!("scenario --json {file}"));
    let line: Value = serde_json::from_str(text(&json.stdout)).expect("JSON");
    assert!(line["passed"]["inferences"].as_u64() > Some(0), "{line}");
}

#[test]
fn a_file_that_is_no_scenario_is_refused_with_the_line() {
    let file = std::env::temp_dir().join(format!("starling-no-scenario-{}", std::process::id()));
    std::fs::write(&file, "about = \"\"\nseed = 1\nsessions = 3\n").expect("a folder for it");
    let arguments = format!("scenario {}", file.display());
    check_refused(&arguments, "line 3");
    check_refused(&arguments, "unknown field `sessions`");
    std::fs::remove_file(&file).expect("it is there");
    check_refused("scenario /no/such/file.toml", "cannot read /no/such/file.toml");
}

#[test]
fn a_swarm_says_what_it_saw_and_replay_shows_a_seed() {
    let output = starling_sim("swarm --seeds 0..4 --json");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let last = text(&output.stdout).lines().last().expect("a summary");
    let summary: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((&summary["passed_seeds"], &summary["failed_seeds"]), (&4.into(), &0.into()));
    let replay = starling_sim("replay --seed 2");
    assert!(text(&replay.stdout).starts_with("about = \"Seed 2 of a swarm.\""));
    assert!(text(&replay.stdout).contains("opens"));
    check_refused("swarm --seeds 4..4", "two numbers like 0..200");
}

/// The canary, from outside: a limit that nobody can keep.
#[test]
fn a_failing_swarm_prints_how_to_see_it_again() {
    let output = starling_sim("swarm --seeds 1..3 --agreed-within 0");
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let command = |prefix: &str| {
        let line = stderr.lines().find_map(|line| line.trim().strip_prefix(prefix));
        line.unwrap_or_else(|| panic!("no {prefix} in {stderr}")).to_owned()
    };
    for again in [command("again: starling-sim "), command("shrunk: starling-sim ")] {
        let replayed = starling_sim(&again);
        assert_eq!(replayed.status.code(), Some(1), "{again}");
        assert!(text(&replayed.stderr).contains("not everyone agreed within 0 s"), "{again}");
    }
}

#[test]
fn inferences_are_observed_on_demand() {
    let output = starling_sim("converge --pieces 8 --providers 2 --seeds 1 --observe 5 --json");
    assert!(output.status.success(), "{}", text(&output.stderr));
    for line in text(&output.stdout).lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let observed = &line["observed"];
        for figure in ["throughput", "mean_latency", "mean_inference_time"] {
            assert!(observed[figure].as_f64() > Some(0.0), "{figure}: {line}");
        }
        assert!((0.0..=1.0).contains(&observed["jain"]["busy"].as_f64().expect("a number")));
    }
}
