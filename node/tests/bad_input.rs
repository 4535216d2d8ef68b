//! Bad input on the command line: one clear line that says what, where and what to do; exit code
//! 1; no panic, no hang.

#[allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of it")]
mod common;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use common::{asset, finish, starling};

/// `infer MODEL --input INPUT` must fail, in one line with all of these in it.
fn check(args: &[&str], expected: &[&str]) {
    let mut command = starling();
    command.args(args);
    let output = finish(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    for part in expected {
        assert!(stderr.contains(part), "{args:?}: `{part}` is not in: {stderr}");
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn with(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.to_str().expect("a path").to_owned()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

fn model() -> PathBuf {
    asset("efficientnet-lite0.onnx")
}

#[test]
fn models() {
    let files = Files::new();
    let whole = std::fs::read(model()).expect("bundled");
    check(&["inspect", "nowhere.onnx"], &["nowhere.onnx", "No such file"]);
    let junk = files.with("junk.onnx", b"this is no model at all, just text");
    check(&["inspect", &junk], &["junk.onnx", "ONNX"]);
    let cut = files.with("cut.onnx", &whole[..whole.len() / 2]);
    check(&["inspect", &cut], &["cut.onnx"]);
    check(&["bench", &cut], &["cut.onnx"]);
    check(&["bench", path(&model()), &cut, "--runs", "1"], &["cut.onnx"]);
    let empty = files.with("empty.onnx", b"");
    check(&["inspect", &empty], &["empty.onnx"]);
    // The same length, so that the protobuf stays whole: only an operator's name changes.
    let at = whole.windows(4).position(|w| w == b"Gemm").expect("it has one");
    let mut odd = whole.clone();
    odd[at..at + 4].copy_from_slice(b"Wimp");
    let odd = files.with("odd.onnx", &odd);
    check(&["inspect", &odd], &["odd.onnx", "Wimp"]);
}

#[test]
fn inputs() {
    let files = Files::new();
    let model = model();
    let infer = |flag: &str, file: &str, expected: &[&str]| {
        check(&["infer", "--local", path(&model), flag, file], expected);
    };
    infer("--input", "nowhere.npy", &["nowhere.npy"]);
    infer("--input", &files.with("junk.npy", b"not an array"), &["junk.npy"]);
    let whole = std::fs::read(asset("chelsea.input.npy")).expect("bundled");
    infer("--input", &files.with("short.npy", &whole[..1000]), &["short.npy"]);
    infer("--input", path(&asset("chelsea.logits.npy")), &["[1, 3, 224, 224]", "[1, 1000]"]);
    infer("--image", "nowhere.jpg", &["nowhere.jpg", "No such file"]);
    infer("--image", &files.with("junk.jpg", b"not a picture"), &["junk.jpg"]);
    let bench = |file: &str, expected: &[&str]| {
        check(&["bench", path(&model), "--input", file], expected);
    };
    bench("nowhere.npy", &["nowhere.npy"]);
    bench("nowhere.jpg", &["nowhere.jpg", "No such file"]);
    bench(path(&asset("chelsea.logits.npy")), &["[1, 3, 224, 224]", "[1, 1000]"]);
}

#[test]
fn outputs() {
    let (model, image, nowhere) = (model(), asset("chelsea.jpg"), "/no/where/y.npy");
    let local = ["infer", "--local", path(&model), "--image", path(&image)];
    check(&[&local[..], &["--output", nowhere]].concat(), &["--output", nowhere, "no such folder"]);
}

#[test]
fn nobody_there() {
    let dir = Files::new();
    let data = dir.0.path().join("data");
    let model = model();
    let common = [
        "infer",
        path(&model),
        "--no-mdns",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--no-compute",
        "--wait",
        "0.5",
        "--data",
        path(&data),
        "--image",
    ];
    let image = asset("coffee.jpg");
    let args = [&common[..], &[path(&image)]].concat();
    check(&args, &["no node that offers compute", "starling node"]);
}

#[test]
fn an_unreachable_peer_is_named_and_the_rest_goes_on() {
    let dir = Files::new();
    let mut command = starling();
    // Nothing listens on port 1 of loopback.
    command
        .arg("infer")
        .arg(model())
        .args(["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--wait", "1"])
        .args(["--peer", "/ip4/127.0.0.1/tcp/1", "--image"])
        .arg(asset("coffee.jpg"))
        .arg("--data")
        .arg(dir.0.path());
    let output = finish(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it computes by itself: {stderr}");
    assert!(stderr.contains("/ip4/127.0.0.1/tcp/1 does not answer"), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("espresso"));
}

#[test]
fn one_identity_runs_once() {
    let flock = common::Flock::start(1);
    let data = flock.dir.path().join("0");
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--data"];
    let args = [&["node"][..], &listen, &[path(&data)]].concat();
    check(&args, &["another node is running with the data folder", "--data"]);
}

#[test]
fn flags_are_checked() {
    for args in [
        &["node", "--throttle", "0"][..],
        &["node", "--throttle", "1.5"],
        &["node", "--listen", "here"],
        &["infer", "x.onnx"],
        &["demo", "--nodes", "1"],
        &["bench"],
        &["bench", "x.onnx", "--runs", "0"],
    ] {
        let mut command = starling();
        command.args(args);
        assert_eq!(finish(command).status.code(), Some(2), "{args:?}");
    }
}

/// Exit code and complaints of a command that prints to this.
fn printing_to(stdout: impl Into<Stdio>, args: &[&str]) -> (Option<i32>, String) {
    let mut command = starling();
    command.args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let output = command.spawn().and_then(std::process::Child::wait_with_output);
    let output = output.expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// As `| head` does; it was a panic.
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (model, image) = (model(), asset("chelsea.jpg"));
    let (model, image) = (path(&model), path(&image));
    let local = ["infer", model, "--image", image, "--local"];
    let commands: [&[&str]; 5] = [
        &["inspect", model],
        &["inspect", model, "--json"],
        &["bench", model, "--runs", "1"],
        &local,
        &[&local[..], &["--repeat", "3", "--events"]].concat(),
    ];
    for args in commands {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(printing_to(writer, args), (Some(0), String::new()), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_no_disk_takes_are_a_failure() {
    let full = std::fs::File::create("/dev/full").expect("Linux has it");
    let (code, stderr) = printing_to(full, &["inspect", path(&model())]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.starts_with("error: cannot write the results: "), "{stderr}");
}
