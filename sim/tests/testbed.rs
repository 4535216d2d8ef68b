//! The testbed with real processes, as a person starts it: that it measures, and that it leaves
//! nothing behind, whatever ends it.
//!
//! Needs Linux, root, and the program `starling` beside the tests' own `starling-sim` (`cargo test
//! --workspace` builds both) or where the variable `STARLING` says. Elsewhere each test skips
//! itself, with a line that says why.

#![cfg(unix)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Two small boards and a session on each kind of machine.
const SMALL: &str = r#"
about = "Two boards."
model = { file = "MODEL", image = "IMAGE" }
run = { alone_s = 1, discovery_s = 300, limit_s = 900 }

[[board]]
name = "left"
cores = 0.3
memory_mib = 512
link_mbit = 200

[[board]]
name = "right"
cores = 0.2
memory_mib = 512
link_mbit = 200

[[session]]
name = "camera"
in_flight = 4
SESSION
"#;

static PROBES: AtomicU32 = AtomicU32::new(0);

struct Bench {
    starling: PathBuf,
    /// Of the test, and its temporary files.
    folder: tempfile::TempDir,
}

impl Bench {
    /// Nothing, and a line that says why, where there can be no testbed.
    fn new() -> Option<Self> {
        let skip = |reason: &str| {
            eprintln!("testbed: skipped: {reason}");
            None
        };
        let beside = Path::new(env!("CARGO_BIN_EXE_starling-sim")).with_file_name("starling");
        let starling = std::env::var_os("STARLING").map_or(beside, PathBuf::from);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if !status.lines().any(|line| line.starts_with("Uid:\t0\t0\t")) {
            return skip("needs Linux, and root");
        }
        // Tests run side by side in one process.
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let probe = format!("starling-{}-probe-{number}", std::process::id());
        let ip = |verb: &str| Command::new("ip").args(["netns", verb, &probe]).output();
        if !ip("add").is_ok_and(|output| output.status.success()) {
            return skip("can't make network namespaces");
        }
        ip("delete").expect("it was there a moment ago");
        if !starling.is_file() {
            return skip(&format!("there is no {}", starling.display()));
        }
        Some(Self { starling, folder: tempfile::tempdir().expect("a temporary directory") })
    }

    /// Starts the testbed on this scenario.
    fn start(&self, scenario: &str, flags: &[&str]) -> Child {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/assets");
        let asset = |name: &str| assets.join(name).display().to_string();
        let text = scenario
            .replace("MODEL", &asset("efficientnet-lite0.onnx"))
            .replace("IMAGE", &asset("chelsea.jpg"));
        let file = self.folder.path().join("scenario.toml");
        fs::write(&file, text).expect("written");
        let scratch = self.folder.path().join("scratch");
        fs::create_dir_all(&scratch).expect("made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling-sim"));
        command.arg("testbed").arg(&file).arg("--starling").arg(&self.starling).args(flags);
        command.env("TMPDIR", &scratch).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it was built")
    }

    /// Waits for its end, and looks at what it has left behind.
    fn finish(&self, child: Child) -> Output {
        let name = format!("starling-{}", child.id());
        let output = child.wait_with_output().expect("it is ours");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("warning: /sys") && !text.contains("warning: ip"), "{text}");
        let namespaces = Command::new("ip").args(["netns", "list"]).output().expect("there");
        let namespaces = String::from_utf8_lossy(&namespaces.stdout).into_owned();
        assert!(!namespaces.contains(&format!("{name}-")), "{namespaces}");
        assert_eq!(groups(Path::new("/sys/fs/cgroup"), &name, 4), Vec::<PathBuf>::new());
        let scratch = self.folder.path().join("scratch");
        let left = fs::read_dir(&scratch).expect("it is there").count();
        assert_eq!(left, 0, "files in {}", scratch.display());
        assert_eq!(processes(&scratch), Vec::<String>::new());
        output
    }
}

/// Control groups of this name.
fn groups(folder: &Path, name: &str, depth: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    let of = |path: PathBuf| {
        let mut found = if depth > 0 { groups(&path, name, depth - 1) } else { Vec::new() };
        found.extend(path.ends_with(name).then_some(path));
        found
    };
    folders.flat_map(of).collect()
}

/// Command lines that name this folder, those of processes that still run.
fn processes(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&folder.display().to_string())).collect()
}

/// What it measured, of sessions that all ended well.
fn report(output: &Output) -> Value {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert_eq!(output.status.code(), Some(0), "{stderr}\n{stdout}");
    serde_json::from_str(&stdout).expect("JSON")
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

/// Waits until there are processes on the boards.
fn until_boards_run(bench: &Bench) {
    let until = Instant::now() + Duration::from_secs(60);
    while processes(&bench.folder.path().join("scratch")).len() < 2 {
        assert!(Instant::now() < until, "no board was started");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn two_boards_compute_and_everything_is_measured() {
    let Some(bench) = Bench::new() else { return };
    let out = bench.folder.path().join("out");
    let scenario = SMALL.replace("SESSION", "count = 30");
    let flags = ["--json", "--out", out.to_str().expect("text")];
    let output = bench.finish(bench.start(&scenario, &flags));
    let report = report(&output);
    let session = &report["sessions"][0];
    assert_eq!((&session["inferences"], &session["wrong"]), (&30.into(), &0.into()), "{report}");
    assert!(session["error_max"].as_f64().is_some_and(|error| error <= 1e-4), "{session}");
    assert!(session["latency_ms"]["p50"].as_f64() > Some(0.0), "{session}");
    for board in report["boards"].as_array().expect("boards") {
        assert!(board["alone_per_s"].as_f64() > Some(0.0), "{board}");
        assert!(board["memory_peak_bytes"].as_u64() > Some(1 << 20), "{board}");
        // Adverts at least.
        assert!(board["sent_bytes"].as_u64() > Some(0), "{board}");
    }
    // More would mean that the quota is none.
    let busy = report["boards"][0]["busy"].as_f64().expect("a number");
    assert!(busy < 1.3, "{report}");
    assert!(report["prediction"]["per_s"].as_f64() > Some(0.0), "{report}");
    assert!(report["flock"]["bound_per_s"].as_f64() > Some(0.0), "{report}");
    assert!(report["flock"]["alone"]["drift"].as_f64() > Some(0.0), "{report}");
    for file in ["report.json", "inferences.csv", "throughput-over-time.svg"] {
        assert!(out.join(file).is_file(), "{file}");
    }
}

#[test]
fn a_board_without_power_costs_time_but_no_output() {
    let Some(bench) = Bench::new() else { return };
    let events = r#"count = 150
patience_s = 300
[[event]]
at_s = 0.2
do = { throttle = { node = "left", cores = 0.25, link_mbit = 150 } }
[[event]]
at_s = 0.4
do = { pause = { node = "left" } }
[[event]]
at_s = 0.6
do = { resume = { node = "left" } }
[[event]]
at_s = 0.8
do = { partition = { nodes = ["right"] } }
[[event]]
at_s = 1.1
do = "heal"
[[event]]
at_s = 1.3
do = { kill = { node = "right" } }
"#;
    let scenario = SMALL.replace("SESSION", events).replace("alone_s = 1", "alone_s = 0");
    let output = bench.finish(bench.start(&scenario, &["--json"]));
    let report = report(&output);
    assert_eq!(report["sessions"][0]["inferences"], 150, "{report}");
    assert_eq!(report["sessions"][0]["wrong"], 0, "{report}");
    assert_eq!(report["happened"].as_array().map(Vec::len), Some(6), "{report}");
}

#[test]
fn a_session_that_fails_is_reported_and_taken_away() {
    let Some(bench) = Bench::new() else { return };
    let scenario = SMALL.replace("SESSION", "count = 9\ncuts = [60000]");
    let output = bench.finish(bench.start(&scenario.replace("alone_s = 1", "alone_s = 0"), &[]));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("FAILED: --cuts"), "{stdout}");
}

#[test]
fn whoever_interrupts_finds_nothing_left() {
    for sign in ["-INT", "-TERM"] {
        let Some(bench) = Bench::new() else { return };
        let child = bench.start(&SMALL.replace("SESSION", "duration_s = 60"), &[]);
        until_boards_run(&bench);
        signal(&child, sign);
        let output = bench.finish(child);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("interrupted"), "{stderr}");
    }
}

#[test]
fn what_can_not_be_run_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let nonsense = bench.finish(bench.start("about = 1", &[]));
    assert_eq!(nonsense.status.code(), Some(2));
    let missing = SMALL.replace("SESSION", "count = 9").replace("MODEL", "/no/such.onnx");
    let missing = bench.finish(bench.start(&missing, &[]));
    assert_eq!(missing.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&missing.stderr);
    assert!(stderr.contains("/no/such.onnx"), "{stderr}");
}
