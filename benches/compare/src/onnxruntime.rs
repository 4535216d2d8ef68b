//! ONNX Runtime, in a process of its own that times itself: `ort_worker.py`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::contestant::{Contestant, Result};
use crate::setup::{self, Input};

/// A session in a child process, which ends with this value.
pub struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts the process, which loads the model and says so.
    pub fn start(python: &Path, model: &Path, threads: usize, input: &Input) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(setup::folder().join("ort_worker.py"))
            .arg(model)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut worker = Self { child, orders, answers };
        worker.answer()?;
        worker.ask(&json!({ "input": input.shape }), &input.bytes())?;
        Ok(worker)
    }

    fn ask(&mut self, order: &Value, values: &[u8]) -> Result<Value> {
        writeln!(self.orders, "{order}")?;
        self.orders.write_all(values)?;
        self.orders.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("its process has ended; what it said is above".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Contestant for Worker {
    fn run(&mut self, times: u32) -> Result<Vec<f64>> {
        let answer = self.ask(&json!({ "run": times }), &[])?;
        Ok(serde_json::from_value(answer["seconds"].clone())?)
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        let answer = self.ask(&json!({ "output": true }), &[])?;
        let shape: Vec<usize> = serde_json::from_value(answer["shape"].clone())?;
        let mut bytes = vec![0; 4 * shape.iter().product::<usize>()];
        self.answers.read_exact(&mut bytes)?;
        let value = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("chunks of four"));
        Ok(bytes.chunks_exact(4).map(value).collect())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be in a run, or gone already; either way nobody wants its answer.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
