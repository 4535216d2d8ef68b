//! Real node processes for the tests: started on loopback, watched, and ended with the test.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A node process. Killed when dropped.
pub struct NodeProcess {
    child: Child,
    events: Receiver<Value>,
    pub id: String,
    pub address: String,
}

/// Some nodes of one swarm, and a directory of their own.
pub struct Flock {
    pub nodes: Vec<NodeProcess>,
    pub dir: tempfile::TempDir,
    pub swarm: String,
    /// Where they and who asks them listen.
    listen: &'static str,
}

impl Flock {
    /// Starts that many nodes, all of the same speed, one after the other: each measures itself
    /// before it says where it listens.
    pub fn start(count: usize) -> Self {
        Self::start_behind(count, 1000)
    }

    /// The same, with nodes that take their links to carry so many Mbit/s.
    pub fn start_behind(count: usize, link: u32) -> Self {
        Self::start_at("/ip4/127.0.0.1/tcp/0", count, link)
    }

    /// The same, with nodes that speak QUIC alone.
    pub fn start_over_quic(count: usize) -> Self {
        Self::start_at("/ip4/127.0.0.1/udp/0/quic-v1", count, 1000)
    }

    fn start_at(listen: &'static str, count: usize, link: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let swarm = format!("test-{}", dir.path().display());
        let mut flock = Self { nodes: Vec::new(), dir, swarm, listen };
        (0..count).for_each(|_| flock.add(link));
        flock
    }

    /// Starts one more node, which takes its link to carry so many Mbit/s.
    pub fn add(&mut self, link: u32) {
        let node = self.start_node(self.nodes.len(), link);
        self.nodes.push(node);
    }

    fn start_node(&self, number: usize, link: u32) -> NodeProcess {
        let mut command = starling();
        command
            .args(["--json", "node", "--no-mdns", "--until-stdin-closes"])
            .args(["--listen", self.listen, "--swarm", &self.swarm])
            .args(["--throttle", "0.3", "--link", &link.to_string()])
            .arg("--data")
            .arg(self.dir.path().join(number.to_string()))
            .args(self.peer_flags());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let events = read_events(child.stdout.take().expect("piped"));
        let mut node = NodeProcess { child, events, id: String::new(), address: String::new() };
        node.id = text(&node.wait_for("started"), "node");
        node.address = text(&node.wait_for("listening"), "address");
        node
    }

    /// Which node is the first to load a piece.
    pub fn first_hosting(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for (number, node) in self.nodes.iter().enumerate() {
                if node.events.try_iter().any(|event| event["event"] == "hosting") {
                    return number;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no node was given a piece");
    }

    /// `--peer ADDRESS` for each node.
    pub fn peer_flags(&self) -> Vec<String> {
        let flags = self.nodes.iter().map(|node| ["--peer".to_owned(), node.address.clone()]);
        flags.flatten().collect()
    }

    /// `starling --json infer EfficientNet-Lite0` through this flock, to be completed.
    pub fn infer(&self) -> Command {
        self.ask("infer")
    }

    /// `starling --json plan EfficientNet-Lite0` for this flock, to be completed.
    pub fn plan(&self) -> Command {
        self.ask("plan")
    }

    fn ask(&self, name: &str) -> Command {
        let mut command = starling();
        command
            .args(["--json", name])
            .arg(asset("efficientnet-lite0.onnx"))
            .args(["--no-mdns", "--listen", self.listen, "--swarm", &self.swarm])
            .args(["--no-compute", "--wait", "20"])
            .arg("--data")
            .arg(self.dir.path().join("asker"))
            .args(self.peer_flags());
        command
    }
}

impl NodeProcess {
    /// The next event of this kind; those before it are dropped.
    pub fn wait_for(&self, kind: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left);
            let event = event.unwrap_or_else(|_| panic!("no `{kind}` event of node {}", self.id));
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// MiB of memory that are no files'.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("Linux says it") / 1024
    }

    /// As with `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is ours");
    }

    /// Stops it where it stands, its connections open.
    pub fn pause(&self) {
        signal(&self.child, "-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(&self.child, "-CONT");
    }

    /// As with Ctrl-C; the exit code.
    pub fn interrupt(&mut self) -> Option<i32> {
        interrupt(&self.child);
        wait(&mut self.child)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The binary under test.
pub fn starling() -> Command {
    Command::new(env!("CARGO_BIN_EXE_starling"))
}

/// A bundled file.
pub fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

/// Sends what Ctrl-C sends.
pub fn interrupt(child: &Child) {
    signal(child, "-INT");
}

/// Sends a signal, `-STOP` for example.
pub fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

/// Waits for an exit, and fails rather than hang.
pub fn wait(child: &mut Child) -> Option<i32> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().ok();
    panic!("a process did not end");
}

/// Runs a command to its end, and fails rather than hang.
pub fn finish(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary starts");
    let (tell, told) = mpsc::channel();
    let id = child.id();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    let output = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("process {id} hangs"));
    output.expect("its output is read")
}

/// What a successful command printed, as JSON.
pub fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The `f32`s of an npy file of version 1.
pub fn npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).expect("it is there");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let floats = bytes[10 + header..].chunks_exact(4);
    floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The largest absolute difference; infinite for unequal lengths.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn read_events(stdout: std::process::ChildStdout) -> Receiver<Value> {
    let (tell, events) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).expect("each line is an event");
            if tell.send(event).is_err() {
                break;
            }
        }
    });
    events
}

fn text(event: &Value, key: &str) -> String {
    event[key].as_str().expect("a string").to_owned()
}

/// What takes longer hangs, even on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(240);
