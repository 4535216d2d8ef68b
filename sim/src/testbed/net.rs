//! A LAN in this machine: one network namespace for each machine, and one for the switch between
//! them, which has no way out. Nothing of it touches the interfaces of the machine itself.
//!
//! The switch is a bridge. Machines that are cut off hang on another bridge.

use serde_json::Value;

use super::{
    Failure,
    command::{run, run_line},
};

/// The namespaces of one testbed. They are gone when it is dropped.
pub(super) struct Lan {
    prefix: String,
    machines: usize,
    /// Bridges made so far. The first is the LAN.
    bridges: usize,
}

/// What has gone over a machine's cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Traffic {
    /// What of it has gone since.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
        }
    }
}

impl Lan {
    /// A switch with no cables.
    pub(super) fn new(prefix: &str) -> Result<Self, Failure> {
        // Made first, so that whatever comes of the rest is taken away again.
        let mut lan = Self { prefix: prefix.to_owned(), machines: 0, bridges: 0 };
        run_line(&format!("ip netns add {}", lan.switch()))?;
        lan.add_bridge()?;
        Ok(lan)
    }

    /// One machine more: a cable to the switch that carries so much each way, an address, and no
    /// way to anywhere else. Returns its number, from 0.
    pub(super) fn plug(&mut self, link_mbit: f64) -> Result<usize, Failure> {
        let number = self.machines;
        let (namespace, switch, port) = (self.namespace(number), self.switch(), port(number));
        run_line(&format!("ip netns add {namespace}"))?;
        self.machines += 1;
        run_line(&format!("ip -n {namespace} link set lo up"))?;
        let pair = format!("type veth peer name {port} netns {switch}");
        run_line(&format!("ip -n {namespace} link add {CABLE} {pair}"))?;
        run_line(&format!("ip -n {switch} link set {port} master {} up", bridge(0)))?;
        let address = format!("10.77.0.{}", number + 1);
        run_line(&format!("ip -n {namespace} address add {address}/24 dev {CABLE}"))?;
        run_line(&format!("ip -n {namespace} link set {CABLE} up"))?;
        // Boards run their system as it comes. This machine's may have another default.
        let source = format!("src {address} congctl cubic");
        run_line(&format!("ip -n {namespace} route replace 10.77.0.0/24 dev {CABLE} {source}"))?;
        self.set_rate(number, link_mbit)?;
        Ok(number)
    }

    /// A machine's link carries so much from now on, each way: what it sends waits at its own end,
    /// what is sent to it at the switch.
    pub(super) fn set_rate(&self, machine: usize, link_mbit: f64) -> Result<(), Failure> {
        let bits_per_s = link_mbit * 1e6;
        let burst = (bits_per_s / 8.0 * BURST_S).clamp(BURST_MIN, BURST_MAX);
        let shape =
            format!("root tbf rate {bits_per_s:.0}bit burst {burst:.0} latency {QUEUE_MS}ms");
        for (namespace, device) in
            [(self.namespace(machine), CABLE.to_owned()), (self.switch(), port(machine))]
        {
            run_line(&format!("tc -n {namespace} qdisc replace dev {device} {shape}"))?;
        }
        Ok(())
    }

    /// Cuts these machines off from all others.
    pub(super) fn partition(&mut self, machines: &[usize]) -> Result<(), Failure> {
        let island = self.add_bridge()?;
        machines.iter().try_for_each(|machine| self.connect(*machine, &island))
    }

    /// Connects all machines again.
    pub(super) fn heal(&self) -> Result<(), Failure> {
        (0..self.machines).try_for_each(|machine| self.connect(machine, &bridge(0)))
    }

    /// What has gone over each machine's cable so far, as the switch counts it.
    pub(super) fn traffic(&self) -> Result<Vec<Traffic>, Failure> {
        let text = run_line(&format!("ip -n {} -s -j link", self.switch()))?;
        let links: Value = serde_json::from_str(&text)
            .map_err(|error| Failure::System(format!("ip -s -j link: {error}")))?;
        let links = links.as_array().cloned().unwrap_or_default();
        let of = |machine| {
            let link = links.iter().find(|link| link["ifname"] == port(machine).as_str());
            let bytes = |way: &str| link.and_then(|link| link["stats64"][way]["bytes"].as_u64());
            // What a machine sends is what its port receives.
            Traffic { sent: bytes("rx").unwrap_or(0), received: bytes("tx").unwrap_or(0) }
        };
        Ok((0..self.machines).map(of).collect())
    }

    /// The namespace of a machine.
    pub(super) fn namespace(&self, machine: usize) -> String {
        format!("{}-{machine}", self.prefix)
    }

    fn switch(&self) -> String {
        format!("{}-lan", self.prefix)
    }

    fn add_bridge(&mut self) -> Result<String, Failure> {
        let (switch, name) = (self.switch(), bridge(self.bridges));
        run_line(&format!("ip -n {switch} link add {name} type bridge"))?;
        // A bridge that snoops would wait for a multicast router that is not there.
        run_line(&format!("ip -n {switch} link set {name} type bridge mcast_snooping 0"))?;
        run_line(&format!("ip -n {switch} link set {name} up"))?;
        self.bridges += 1;
        Ok(name)
    }

    fn connect(&self, machine: usize, bridge: &str) -> Result<(), Failure> {
        let (switch, port) = (self.switch(), port(machine));
        run_line(&format!("ip -n {switch} link set {port} master {bridge}")).map(drop)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let machines = (0..self.machines).map(|machine| self.namespace(machine));
        // A namespace takes its ends of all cables with it, and so the other ends too.
        for namespace in machines.chain([self.switch()]) {
            if let Err(error) = run("ip", &["netns", "delete", &namespace]) {
                super::warn(&error);
            }
        }
    }
}

fn port(machine: usize) -> String {
    format!("port{machine}")
}

fn bridge(number: usize) -> String {
    format!("lan{number}")
}

/// A machine's end of its cable.
const CABLE: &str = "eth0";
/// What may pass at once, as a time and in bytes: what the system hands to a link in one piece, if it
/// lets cards cut it into packets. Less, and this machine would be busy with a timer for every
/// packet, which no board is, at the expense of whichever board computes just then.
const BURST_S: f64 = 0.0026;
const BURST_MIN: f64 = 15_140.0;
const BURST_MAX: f64 = 131_072.0;
/// What the queue before a link holds, as a time; more is dropped, as any switch does.
const QUEUE_MS: u32 = 50;
