//! The demo's node processes: started, watched and ended here.

use std::{collections::HashMap, path::PathBuf, process::Stdio, time::Duration};

use libp2p::Multiaddr;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::cli::{Failure, flock};

/// All node processes of one demo. Dropped, it kills them.
#[derive(Default)]
pub(super) struct Children {
    children: Vec<Child>,
    addresses: Vec<Multiaddr>,
    names: HashMap<String, String>,
    data: Option<TempDir>,
}

impl Children {
    /// Starts one node for each share of a core, each knowing those before it.
    pub(super) async fn start(&mut self, shares: &[f64]) -> Result<(), Failure> {
        let data = tempfile::Builder::new().prefix("starling-demo-").tempdir()?;
        let program = std::env::current_exe()?;
        let root = data.path().to_owned();
        self.data = Some(data);
        for (number, share) in shares.iter().enumerate() {
            let mut command = Command::new(&program);
            command
                .args(["--json", "node", "--no-mdns", "--until-stdin-closes"])
                .args(["--swarm", flock::DEMO_SWARM, "--listen", flock::LOOPBACK])
                .args(["--throttle", &share.to_string(), "--link", "1600"])
                .arg("--data")
                .arg(root.join(format!("node-{number}")));
            for address in &self.addresses {
                command.args(["--peer", &address.to_string()]);
            }
            // A pipe to stdin that closes with this process: even a killed demo leaves no node.
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut child = command.spawn()?;
            let stdout = child.stdout.take();
            self.children.push(child);
            let lines = BufReader::new(stdout.ok_or("a child without stdout")?).lines();
            let (node, address) =
                timeout(START_MAX, introduction(lines)).await.map_err(|_| {
                    format!("node {number} did not start within {} s", START_MAX.as_secs())
                })??;
            self.names.insert(node.clone(), format!("{node} ({:.0} % core)", share * 100.0));
            self.addresses.push(address);
        }
        Ok(())
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.clone()
    }

    /// A node's id and its share of a core.
    pub(super) fn describe(&self, node: &str) -> String {
        self.names.get(node).cloned().unwrap_or_else(|| node.to_owned())
    }

    /// A directory of this demo's own, gone with it.
    pub(super) fn directory(&self) -> Result<PathBuf, Failure> {
        let data = self.data.as_ref().ok_or("the nodes were not started")?;
        Ok(data.path().join("asker"))
    }

    /// Lets all leave the flock, and kills who takes too long.
    pub(super) async fn stop(&mut self) {
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for child in &mut self.children {
            if timeout(STOP_MAX, child.wait()).await.is_err() {
                child.kill().await.ok();
            }
        }
        self.children.clear();
    }
}

/// Who a child is and where it listens. Its later lines are read too, or its pipe would fill up.
async fn introduction(
    mut lines: Lines<BufReader<ChildStdout>>,
) -> Result<(String, Multiaddr), Failure> {
    let mut node = None;
    while let Some(line) = lines.next_line().await? {
        let event: Value = serde_json::from_str(&line)?;
        match event["event"].as_str() {
            Some("started") => node = event["node"].as_str().map(str::to_owned),
            Some("listening") => {
                let address =
                    event["address"].as_str().ok_or("an address that is none")?.parse()?;
                let node = node.ok_or("a node without a name")?;
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok((node, address));
            }
            _ => {}
        }
    }
    Err(Failure("a node process ended at its start; run `starling node` to see why".to_owned()))
}

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(5);
