//! Real processes on real sockets: inference through them, and what happens when they die.

#[allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of it")]
mod common;

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use common::{
    Flock, NodeProcess, asset, difference, finish, interrupt, json, npy, signal, starling, wait,
};
use serde_json::Value;

/// Providers of a report's pieces, each once.
fn providers(report: &Value) -> Vec<String> {
    let pieces = report["pieces"].as_array().expect("pieces");
    let mut providers: Vec<String> =
        pieces.iter().map(|piece| piece["provider"].as_str().expect("an id").to_owned()).collect();
    providers.sort();
    providers.dedup();
    providers
}

#[test]
fn three_processes_compute_what_onnx_runtime_computes() {
    let flock = Flock::start(3);
    for name in ["chelsea", "coffee", "camera"] {
        let output = flock.dir.path().join("y.npy");
        let mut command = flock.infer();
        command
            .args(["--cuts", "20,40", "--output"])
            .arg(&output)
            .arg("--input")
            .arg(asset(&format!("{name}.input.npy")));
        let report = json(&finish(command));
        assert!(providers(&report).len() >= 2, "{report}");
        let reference = npy(&asset(&format!("{name}.logits.npy")));
        let worst = difference(&npy(&output), &reference);
        assert!(worst <= 1e-4, "{name}: {worst}");
        assert!(report["auction"]["bids"].as_u64() >= Some(2), "{report}");
        assert_eq!(
            report["timings"].as_array().map(Vec::len),
            report["pieces"].as_array().map(Vec::len)
        );
    }
}

#[test]
fn strips_side_by_side_compute_what_onnx_runtime_computes() {
    let flock = Flock::start(3);
    // Strips to strips, strips to a whole piece and back, strips home, of features at last.
    let plans = [
        ("10,31,58", "2,3,2,1", 8),
        ("9,32,58", "2,1,3,1", 7),
        ("20,58", "1,4,1", 6),
        ("31,59", "2,1,3", 6),
        ("59", "1,4", 5),
    ];
    let pictures = ["chelsea", "coffee", "camera"].into_iter().cycle();
    for ((cuts, strips, pieces), name) in plans.into_iter().zip(pictures) {
        let output = flock.dir.path().join("y.npy");
        let mut command = flock.infer();
        command
            .args(["--cuts", cuts, "--strips", strips, "--repeat", "8", "--output"])
            .arg(&output)
            .arg("--input")
            .arg(asset(&format!("{name}.input.npy")));
        let report = json(&finish(command));
        let placed = report["pieces"].as_array().expect("pieces");
        assert_eq!(placed.len(), pieces, "{report}");
        assert!(placed.iter().any(|piece| piece["rows"].is_array()), "{report}");
        assert!(providers(&report).len() >= 2, "{report}");
        let worst = difference(&npy(&output), &npy(&asset(&format!("{name}.logits.npy"))));
        assert!(worst <= 1e-4, "{name}: {worst}");
        assert_eq!(report["timings"].as_array().map(Vec::len), Some(pieces));
    }
}

#[test]
fn every_planner_computes_what_onnx_runtime_computes() {
    let flock = Flock::start(3);
    let reference = npy(&asset("chelsea.logits.npy"));
    for planner in ["pf", "dina", "edgeci", "layer-wise", "early-fused", "random"] {
        let output = flock.dir.path().join("y.npy");
        let mut command = flock.infer();
        command
            .args(["--planner", planner, "--goal", "latency", "--repeat", "3", "--output"])
            .arg(&output)
            .arg("--input")
            .arg(asset("chelsea.input.npy"));
        let report = json(&finish(command));
        let worst = difference(&npy(&output), &reference);
        assert!(worst <= 1e-4, "{planner}: {worst}");
        assert!(report["pieces"].as_array().is_some_and(|p| !p.is_empty()), "{report}");
    }
}

#[test]
fn sessions_of_every_kind_share_a_flock() {
    let flock = Flock::start(3);
    let plans: [(&str, &[&str]); 4] = [
        ("chelsea", &["--cuts", "20,58", "--strips", "2,3,1"]),
        ("coffee", &["--cuts", "31"]),
        ("camera", &["--planner", "dina", "--goal", "latency"]),
        ("coffee", &["--goal", "throughput"]),
    ];
    let asked: Vec<_> = plans
        .into_iter()
        .enumerate()
        .map(|(number, (name, plan))| {
            let output = flock.dir.path().join(format!("{number}.npy"));
            let mut command = flock.infer();
            command.args(plan).args(["--repeat", "12", "--output"]).arg(&output);
            command.arg("--input").arg(asset(&format!("{name}.input.npy")));
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            (child.expect("it starts"), output, name)
        })
        .collect();
    for (child, output, name) in asked {
        json(&child.wait_with_output().expect("it ends"));
        let worst = difference(&npy(&output), &npy(&asset(&format!("{name}.logits.npy"))));
        assert!(worst <= 1e-4, "{name}: {worst}");
    }
}

#[test]
fn a_plan_is_previewed_for_the_flock_that_is_here() {
    let flock = Flock::start(2);
    let mut command = flock.plan();
    command.args(["--planner", "edgeci"]);
    let preview = json(&finish(command));
    let pieces = preview["pieces"].as_array().expect("pieces");
    let here = |piece: &Value| flock.nodes.iter().any(|node| piece["provider"] == node.id.as_str());
    assert!(!pieces.is_empty() && pieces.iter().all(here), "{preview}");
    let compared = preview["planners"].as_array().expect("planners");
    assert!(compared.iter().any(|row| row["planner"] == "dina"), "{preview}");
    assert!(preview["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{preview}");
}

#[test]
fn a_planner_of_no_known_name_is_refused_with_those_there_are() {
    let mut command = starling();
    command.args(["infer", "model.onnx", "--image", "x.jpg", "--planner", "best"]);
    let output = finish(command);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no planner is called \"best\"") && said.contains("edgeci"), "{said}");
}

#[test]
fn a_model_that_can_not_be_divided_there_is_refused_with_the_reason() {
    let mut command = starling();
    command.arg("infer").arg(asset("efficientnet-lite0.onnx"));
    command.args(["--no-mdns", "--strips", "3", "--input"]).arg(asset("chelsea.input.npy"));
    let output = finish(command);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("layers 0..61 can't be divided by rows"), "{said}");
}

#[test]
fn a_picture_gives_the_same_labels_near_and_far() {
    let flock = Flock::start(2);
    let mut far = flock.infer();
    far.args(["--cuts", "20", "--image"]).arg(asset("coffee.jpg"));
    let far = json(&finish(far));
    let mut near = starling();
    near.args(["--json", "infer", "--local"]).arg(asset("efficientnet-lite0.onnx"));
    near.arg("--image").arg(asset("coffee.jpg"));
    let near = json(&finish(near));
    assert_eq!(far["results"][0]["top"], near["results"][0]["top"]);
    assert_eq!(far["results"][0]["top"][0]["label"], "espresso");
}

#[test]
fn a_provider_killed_under_load_costs_time_but_no_answer() {
    check_killed(&["--cuts", "10,30"]);
}

#[test]
fn a_provider_of_strips_killed_under_load_costs_time_but_no_answer() {
    check_killed(&["--cuts", "31,58", "--strips", "2,3,1"]);
}

/// Mbit/s: a picture takes such a link longer than the whole model takes any of the nodes, on a slow
/// machine too, so that each node is a lane.
const SLOW_LINK: u32 = 4;

#[test]
fn a_lane_killed_under_load_leaves_its_inferences_to_the_others() {
    let mut flock = Flock::start_behind(3, SLOW_LINK);
    let child = checked_stream(&flock, &["--duration", "4"]);
    let victim = flock.first_hosting();
    std::thread::sleep(Duration::from_millis(1500));
    flock.nodes[victim].kill();
    let report = json(&child.wait_with_output().expect("it ends"));
    let lanes = report["pieces"].as_array().expect("pieces").iter().map(|piece| &piece["lane"]);
    assert_eq!(lanes.collect::<Vec<_>>(), [0, 1, 2], "{report}");
    assert_eq!(report["providers_lost"], serde_json::json!([flock.nodes[victim].id]), "{report}");
    assert!(report["error_max"].as_f64() <= Some(1e-4), "{report}");
    let timings = report["timings"].as_array().expect("timings");
    assert!(timings.iter().all(|timing| timing["compute_ms"].as_f64() > Some(0.0)), "{report}");
}

#[test]
fn when_all_lanes_are_lost_another_plan_takes_their_place() {
    let mut flock = Flock::start_behind(2, SLOW_LINK);
    let child = checked_stream(&flock, &["--repeat", "300"]);
    flock.first_hosting();
    flock.add(SLOW_LINK);
    flock.nodes[2].wait_for("joined");
    std::thread::sleep(Duration::from_millis(1000));
    flock.nodes[0].kill();
    flock.nodes[1].kill();
    let report = json(&child.wait_with_output().expect("it ends"));
    assert_eq!(report["inferences"], 300, "{report}");
    assert!(report["error_max"].as_f64() <= Some(1e-4), "{report}");
    assert!(providers(&report).contains(&flock.nodes[2].id), "{report}");
    assert_eq!(report["providers_lost"].as_array().map(Vec::len), Some(2), "{report}");
}

#[test]
fn a_node_that_joins_a_stream_gets_a_lane_of_it() {
    let mut flock = Flock::start_behind(2, SLOW_LINK);
    let child = checked_stream(&flock, &["--repeat", "600"]);
    flock.first_hosting();
    flock.add(SLOW_LINK);
    flock.nodes[2].wait_for("hosting");
    let report = json(&child.wait_with_output().expect("it ends"));
    assert!(providers(&report).contains(&flock.nodes[2].id), "{report}");
    assert!(report["error_max"].as_f64() <= Some(1e-4), "{report}");
}

/// A stream of one picture, each output of which is held against the reference.
fn checked_stream(flock: &Flock, load: &[&str]) -> Child {
    let mut command = flock.infer();
    command.args(load).args(["--in-flight", "12", "--check"]).arg(asset("chelsea.logits.npy"));
    command.arg("--input").arg(asset("chelsea.input.npy"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn check_killed(plan: &[&str]) {
    let mut flock = Flock::start(3);
    let output = flock.dir.path().join("y.npy");
    let mut command = flock.infer();
    command
        .args(plan)
        .args(["--repeat", "60", "--output"])
        .arg(&output)
        .arg("--input")
        .arg(asset("chelsea.input.npy"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let victim = flock.first_hosting();
    std::thread::sleep(Duration::from_millis(700));
    flock.nodes[victim].kill();
    let result = child.wait_with_output().expect("it ends");
    let report = json(&result);
    assert!(!providers(&report).contains(&flock.nodes[victim].id), "{report}");
    assert_eq!(report["providers_lost"], serde_json::json!([flock.nodes[victim].id]), "{report}");
    let reference = npy(&asset("chelsea.logits.npy"));
    assert!(difference(&npy(&output), &reference) <= 1e-4);
}

#[test]
fn a_provider_that_hangs_is_replaced() {
    let flock = Flock::start(3);
    let mut command = flock.infer();
    command.args(["--cuts", "10,30", "--repeat", "60", "--input"]).arg(asset("chelsea.input.npy"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let victim = flock.first_hosting();
    flock.nodes[victim].pause();
    let report = json(&child.wait_with_output().expect("it ends"));
    assert!(!providers(&report).contains(&flock.nodes[victim].id), "{report}");
}

/// As on a machine that was suspended, or an emulated one whose host had other things to do.
#[test]
fn a_flock_that_stood_still_loses_nobody() {
    loses_nobody_who_stands_still(&Flock::start(2));
}

/// QUIC has a timer of its own for connections on which nothing comes.
#[test]
fn a_flock_over_quic_that_stood_still_loses_nobody() {
    loses_nobody_who_stands_still(&Flock::start_over_quic(2));
}

fn loses_nobody_who_stands_still(flock: &Flock) {
    let child = checked_stream(flock, &["--repeat", "800"]);
    flock.first_hosting();
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, "-STOP");
    flock.nodes.iter().for_each(NodeProcess::pause);
    // Longer than leases, than anybody waits for an answer to a ping, and than connections are idle.
    std::thread::sleep(Duration::from_secs(12));
    flock.nodes.iter().for_each(NodeProcess::resume);
    signal(&child, "-CONT");
    let report = json(&child.wait_with_output().expect("it ends"));
    assert_eq!(report["providers_lost"], serde_json::json!([]), "{report}");
    assert!(report["error_max"].as_f64() <= Some(1e-4), "{report}");
}

/// A network with a gap, as its only provider sees it.
#[test]
fn a_stream_waits_for_as_long_as_it_is_told_to() {
    let flock = Flock::start(1);
    let child = checked_stream(&flock, &["--repeat", "400", "--patience", "120"]);
    flock.first_hosting();
    flock.nodes[0].pause();
    // Longer than it takes to notice that, and to give up without being told to wait.
    std::thread::sleep(Duration::from_secs(20));
    flock.nodes[0].resume();
    let report = json(&child.wait_with_output().expect("it ends"));
    assert_ne!(report["providers_lost"], serde_json::json!([]), "{report}");
    assert!(report["error_max"].as_f64() <= Some(1e-4), "{report}");
}

#[test]
fn with_the_last_provider_gone_the_request_fails_with_a_clear_line() {
    let mut flock = Flock::start(1);
    let mut command = flock.infer();
    command.args(["--repeat", "1000", "--input"]).arg(asset("chelsea.input.npy"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    flock.nodes[0].wait_for("hosting");
    flock.nodes[0].kill();
    let result = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&result.stderr);
    assert_eq!(result.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no node can compute this model"), "{stderr}");
}

#[test]
fn a_requester_killed_in_the_middle_frees_its_providers() {
    let flock = Flock::start(1);
    let mut command = flock.infer();
    command.args(["--repeat", "1000", "--input"]).arg(asset("chelsea.input.npy"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    flock.nodes[0].wait_for("hosting");
    child.kill().expect("it runs");
    child.wait().expect("it is ours");
    // No renewal comes, so the lease ends.
    flock.nodes[0].wait_for("dropped");
}

#[cfg(target_os = "linux")]
#[test]
fn memory_of_dropped_pieces_goes_back_to_the_system() {
    let flock = Flock::start(1);
    let node = &flock.nodes[0];
    // glibc kept 45 MB after the first, and more after each.
    for _ in 0..4 {
        let mut command = flock.infer();
        command.args(["--repeat", "20", "--image"]).arg(asset("chelsea.jpg"));
        json(&finish(command));
        node.wait_for("dropped");
    }
    let until = Instant::now() + Duration::from_secs(20);
    while node.memory() > 25 {
        assert!(Instant::now() < until, "{} MiB", node.memory());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn ctrl_c_leaves_the_flock_and_ends_with_success() {
    let mut flock = Flock::start(2);
    assert_eq!(flock.nodes[0].interrupt(), Some(0));
    let left = flock.nodes[1].wait_for("left");
    assert_eq!(left["node"], flock.nodes[0].id.as_str());
}

#[test]
fn flocks_of_other_names_are_left_alone() {
    let flock = Flock::start(1);
    let mut command = starling();
    command
        .args(["--json", "peers", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--wait", "2"])
        .arg("--data")
        .arg(flock.dir.path().join("stranger"))
        .args(flock.peer_flags());
    let strangers = |swarm: &str, mut command: std::process::Command| {
        command.args(["--swarm", swarm]);
        json(&finish(command))["peers"].as_array().map(Vec::len)
    };
    assert_eq!(strangers("another", command), Some(0));
    let mut command = starling();
    command
        .args(["--json", "peers", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--wait", "4"])
        .arg("--data")
        .arg(flock.dir.path().join("friend"))
        .args(flock.peer_flags());
    assert_eq!(strangers(&flock.swarm, command), Some(1));
}

#[test]
fn the_demo_reports_and_cleans_up() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = starling();
    command.args(["--json", "demo", "--nodes", "2", "--inferences", "8"]).env("TMPDIR", dir.path());
    let report = json(&finish(command));
    assert_eq!(report["nodes"], 2);
    assert!(report["discovery_ms"].as_f64() > Some(0.0));
    assert_eq!(report["images"].as_array().map(Vec::len), Some(3));
    let class = |n: usize| report["images"][n]["top"][0]["class"].as_u64().expect("a class");
    assert!([281, 282, 285].contains(&class(0)), "a cat");
    assert_eq!([class(1), class(2)], [967, 872], "espresso, tripod");
    for image in report["images"].as_array().expect("three") {
        assert!(image["max_abs_diff"].as_f64() < Some(1e-5), "{image}");
    }
    assert!(report["throughput"]["speedup"].as_f64() > Some(0.0));
    assert_eq!(processes_with(dir.path().to_str().expect("a path")), Vec::<u32>::new());
}

#[test]
fn the_demo_interrupted_leaves_no_process_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mark = dir.path().to_str().expect("a path").to_owned();
    let mut command = starling();
    command.args(["demo", "--nodes", "3", "--inferences", "100000"]).env("TMPDIR", dir.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    while processes_with(&mark).len() < 3 {
        assert!(child.try_wait().expect("it is ours").is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    interrupt(&child);
    assert_eq!(wait(&mut child), Some(1));
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
}

/// Processes with this text on their command line.
fn processes_with(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let with = |id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    ids.filter(with).collect()
}
