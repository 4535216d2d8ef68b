//! Processes on the machines of a testbed: started in their namespace and groups, listened to, and
//! ended with it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Failure, command};

/// Where a process is to live.
pub(super) struct Home {
    /// Its network namespace; nothing for that of the testbed itself.
    pub(super) namespace: Option<String>,
    /// Files to write its number to.
    pub(super) entrances: Vec<PathBuf>,
}

/// What a process has to say.
pub(super) struct Word {
    /// Which process, as its starter calls it.
    pub(super) from: usize,
    /// When.
    pub(super) at: Instant,
    /// A line of JSON; nothing for the end of all lines.
    pub(super) line: Option<Value>,
}

/// A running process. Killed when it is dropped.
pub(super) struct Process {
    child: Child,
    /// Closed, it tells a node to leave.
    stdin: Option<ChildStdin>,
    complaints: PathBuf,
}

impl Process {
    /// Starts a program, whose lines go to `words` under the number `from`.
    pub(super) fn start(
        program: &Path,
        arguments: &[OsString],
        home: &Home,
        complaints: PathBuf,
        (from, words): (usize, Sender<Word>),
    ) -> Result<Self, Failure> {
        let complain = |error: std::io::Error| {
            Failure::System(format!("cannot start {}: {error}", program.display()))
        };
        let mut command = Command::new("sh");
        command.arg("-c").arg(MOVE_IN).arg("starling-testbed");
        command.arg(home.entrances.len().to_string()).args(&home.entrances);
        if let Some(namespace) = &home.namespace {
            // Unlike `ip netns exec`, this leaves it the view of its own groups that any process
            // of a container has.
            command.arg("nsenter").arg(format!("--net=/run/netns/{namespace}"));
        }
        command.arg(program).args(arguments);
        // Ctrl-C is for the testbed, which then ends its processes in good order.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(&complaints).map_err(complain)?);
        let mut child = command.spawn().map_err(complain)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if let Some(stdout) = stdout {
            thread::spawn(move || listen(BufReader::new(stdout), from, &words));
        }
        Ok(Self { child, stdin, complaints })
    }

    /// Core seconds so far of its threads whose names begin like this.
    pub(super) fn cpu_of(&self, prefix: &str) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let seconds = |thread: fs::DirEntry| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let used = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let nanos: f64 = used.split(' ').next()?.parse().ok()?;
            name.starts_with(prefix).then_some(nanos / 1e9)
        };
        threads.into_iter().flatten().flatten().filter_map(seconds).sum()
    }

    /// How it ended; nothing while it runs.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it complained of, if anything: its error, or else its last line.
    pub(super) fn complaint(&self) -> Option<String> {
        let text = fs::read_to_string(&self.complaints).ok()?;
        let error = text.lines().find_map(|line| line.strip_prefix("error: "));
        let last = || text.lines().rfind(|line| !line.trim().is_empty());
        error.or_else(last).map(str::to_owned)
    }

    /// Stops it where it stands.
    pub(super) fn pause(&mut self) -> Result<(), Failure> {
        self.signal("-STOP")
    }

    /// Lets it go on.
    pub(super) fn resume(&mut self) -> Result<(), Failure> {
        self.signal("-CONT")
    }

    /// Asks it to leave, where it listens for that.
    pub(super) fn dismiss(&mut self) {
        self.stdin = None;
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Waits until it has ended, no longer than until then, and kills it if it has not.
    pub(super) fn end_by(&mut self, until: Instant) {
        while self.ended().is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    fn signal(&mut self, signal: &str) -> Result<(), Failure> {
        // As long as nobody has waited for it, its number is not another's.
        if self.ended().is_some() {
            return Ok(());
        }
        command::run("kill", &[signal, &self.child.id().to_string()]).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listen(lines: impl BufRead, from: usize, words: &Sender<Word>) {
    for line in lines.lines().map_while(Result::ok) {
        let at = Instant::now();
        let Ok(line) = serde_json::from_str(&line) else { continue };
        if words.send(Word { from, at, line: Some(line) }).is_err() {
            return;
        }
    }
    words.send(Word { from, at: Instant::now(), line: None }).ok();
}

/// Enters the groups, and becomes the program. In one process from the beginning to the end, so
/// that its number is that of the program.
const MOVE_IN: &str = r#"
n=$1; shift
while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 70; shift; n=$((n - 1)); done
exec "$@""#;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn start(script: &str, folder: &Path) -> (Process, mpsc::Receiver<Word>) {
        let (words, heard) = mpsc::channel();
        let entrance = folder.join("procs");
        let home = Home { namespace: None, entrances: vec![entrance] };
        let arguments = ["-c".into(), script.into()];
        let complaints = folder.join("stderr");
        let process = Process::start(Path::new("sh"), &arguments, &home, complaints, (7, words));
        (process.expect("sh is there"), heard)
    }

    #[test]
    fn a_process_moves_in_speaks_and_complains() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = r#"echo "{\"pid\": $$}"; echo no json; echo "error: oh" >&2; exit 3"#;
        let (mut process, heard) = start(script, folder.path());
        let words: Vec<Word> = heard.iter().collect();
        assert_eq!(words.len(), 2);
        assert!(words.iter().all(|word| word.from == 7));
        let line = words[0].line.as_ref().expect("a line");
        let entered = fs::read_to_string(folder.path().join("procs")).expect("written");
        assert_eq!(line["pid"], entered.trim().parse::<u32>().expect("a number"));
        assert!(words[1].line.is_none());
        process.end_by(Instant::now() + Duration::from_secs(10));
        assert_eq!(process.ended().and_then(|status| status.code()), Some(3));
        assert_eq!(process.complaint().as_deref(), Some("oh"));
        assert!(process.pause().is_ok(), "it is gone, and nobody else is stopped");
    }

    #[test]
    fn a_process_uses_the_processor_by_threads() {
        let folder = tempfile::tempdir().expect("a folder");
        let (process, heard) = start("echo 1; while :; do :; done", folder.path());
        assert!(heard.recv().expect("a line").line.is_some());
        let until = Instant::now() + Duration::from_secs(20);
        while process.cpu_of("s") == 0.0 {
            assert!(Instant::now() < until, "nothing is used");
        }
        assert_eq!(process.cpu_of("compute"), 0.0, "all of it by the shell's own thread");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (process, heard) = start("echo 1; exec sleep 100", folder.path());
        assert!(heard.recv().expect("a line").line.is_some());
        drop(process);
        assert!(heard.recv().expect("an end").line.is_none());
    }

    #[test]
    fn a_node_leaves_when_its_stdin_closes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut process, _heard) = start("cat; exit 5", folder.path());
        process.dismiss();
        process.end_by(Instant::now() + Duration::from_secs(10));
        assert_eq!(process.ended().and_then(|status| status.code()), Some(5));
    }
}
