//! The scenarios of `sim/scenarios`, each played as its file says.

use std::path::Path;

use starling_sim::{
    play::{Outcome, play},
    scenario::Scenario,
};

fn check(name: &str) -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name);
    let text = std::fs::read_to_string(&path).expect("the file is there");
    let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(scenario.about.ends_with('.'), "{name} is described by a sentence");
    let outcome = play(&scenario).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    assert_eq!(play(&scenario).expect("again").trace_hash, outcome.trace_hash);
    outcome
}

#[test]
fn bad_weather() {
    check("bad-weather.toml");
}

#[test]
fn calm() {
    assert!(check("calm.toml").gap_per_piece <= Some(0.05));
}

#[test]
fn crash_one_of_many() {
    check("crash-one-of-many.toml");
}

#[test]
fn frozen_provider() {
    check("frozen-provider.toml");
}

#[test]
fn liar() {
    check("liar.toml");
}

#[test]
fn partition_and_heal() {
    check("partition-and-heal.toml");
}

#[test]
fn restart_storm() {
    check("restart-storm.toml");
}

#[test]
fn slow_provider() {
    check("slow-provider.toml");
}

#[test]
fn every_scenario_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let tests = include_str!("scenarios.rs");
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            // Those of the testbed run on real machines' processes.
            continue;
        }
        let name = entry.file_name().into_string().expect("a name");
        assert!(tests.contains(&format!("check(\"{name}\")")), "{name} is never played");
    }
}
