//! Programs of the system that do the work: `ip`, `tc` and `kill`.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use super::Failure;

/// Runs a program to its end and returns what it printed. In a process group of its own, so that
/// Ctrl-C, which is for the testbed, does not stop what takes the testbed away.
///
/// # Errors
/// If it can't be started, or fails; with the last line that it had to say.
pub(super) fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[S],
) -> Result<String, Failure> {
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    let complain = |why: &str| {
        let words = std::iter::once(program.as_ref()).chain(arguments.iter().map(AsRef::as_ref));
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        Failure::System(format!("{}: {why}", words.join(" ")))
    };
    let output = command.output().map_err(|error| complain(&error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(complain(stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("failed")))
}

/// Runs a line of words without spaces in them.
pub(super) fn run_line(line: &str) -> Result<String, Failure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, arguments) = words.split_first().expect("lines name a program");
    run(program, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_prints_comes_back_and_what_it_complains_too() {
        assert_eq!(run_line("echo a  b").expect("it is there"), "a b\n");
        let error = run("sh", &["-c", "echo first >&2; echo last >&2; exit 3"]);
        let error = error.expect_err("it fails").to_string();
        assert!(error.ends_with(": last"), "{error}");
        assert!(run_line("starling-no-such-program").is_err());
    }
}
