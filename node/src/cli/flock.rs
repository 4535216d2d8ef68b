//! The flags of every command that joins a flock.

use std::{path::PathBuf, time::Duration};

use libp2p::Multiaddr;
use starling_engine::{Kernels, LoadOptions};
use starling_protocol::{
    node::Offering,
    session::{self, Bidding},
};

use crate::{
    cli::{Failure, find::seconds},
    runtime::{self, Identity, News, Settings, Started},
    work::WorkConfig,
};

/// How to join the flock.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FlockArgs {
    /// Where the identity and the weight cache are kept [default: the user's data directory]
    #[arg(long, value_name = "DIR", help_heading = "Flock")]
    data: Option<PathBuf>,
    /// Address to listen on; may be repeated [default: all interfaces, any port; TCP and QUIC, or
    /// QUIC alone if the link has 50 Mbit/s or less]
    #[arg(long, value_name = "MULTIADDR", help_heading = "Flock")]
    listen: Vec<Multiaddr>,
    /// Address of a node to join, for flocks beyond the local network; may be repeated
    #[arg(long, value_name = "MULTIADDR", help_heading = "Flock")]
    peer: Vec<Multiaddr>,
    /// Don't look for nodes on the local network
    #[arg(long, help_heading = "Flock")]
    no_mdns: bool,
    /// Name of the flock: nodes of other names are left alone
    #[arg(long, value_name = "NAME", default_value = "starling", help_heading = "Flock")]
    swarm: String,
    /// Mbit/s of this machine's link, until transfers have shown it; on a slow one messages get
    /// through sooner if it is told
    #[arg(long, value_name = "MBIT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000), help_heading = "Flock")]
    link: u64,
    /// Threads for compute [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Compute")]
    threads: Option<u16>,
    /// Compute at this share of one core, like a weaker board: 0.3 is 30 %
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "Compute")]
    throttle: Option<f64>,
    /// Memory for other nodes' weights, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 24), help_heading = "Compute")]
    memory: u64,
    /// Disk for the weight cache, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=1 << 24), help_heading = "Compute")]
    disk: u64,
    /// Which kernels compute
    #[arg(long, value_enum, default_value_t = KernelsArg::Fast, help_heading = "Compute")]
    kernels: KernelsArg,
    /// The most pieces to compute at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Compute")]
    slots: u16,
    /// How the pieces of this node's own sessions open their bids
    #[arg(long, value_enum, default_value_t = BiddingArg::Forecast, help_heading = "Flock")]
    bidding: BiddingArg,
    /// How long this node's own sessions wait where no node that can compute is left, or none
    /// answers; on a network with gaps, longer than these
    #[arg(long, value_name = "SECONDS", default_value_t = patience().as_secs_f64(), value_parser = seconds, help_heading = "Flock")]
    patience: f64,
    /// Compute on the GPU (needs a build with `--features wgpu`)
    #[cfg(feature = "wgpu")]
    #[arg(long, help_heading = "Compute")]
    gpu: bool,
}

/// Which kernels compute.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum KernelsArg {
    /// The fastest for each layer
    Fast,
    /// The engine's own, without those that lose accuracy
    Exact,
    /// Burn's operators alone
    Portable,
}

impl From<KernelsArg> for Kernels {
    fn from(arg: KernelsArg) -> Self {
        match arg {
            KernelsArg::Fast => Self::Fast,
            KernelsArg::Exact => Self::Exact,
            KernelsArg::Portable => Self::Portable,
        }
    }
}

/// How pieces open their bids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BiddingArg {
    /// With what a forecast of the whole auction ends at: one round if pictures agree
    Forecast,
    /// With the best bid at the prices known
    Plain,
}

impl From<BiddingArg> for Bidding {
    fn from(arg: BiddingArg) -> Self {
        match arg {
            BiddingArg::Forecast => Bidding::Forecast,
            BiddingArg::Plain => Bidding::Plain,
        }
    }
}

impl FlockArgs {
    /// Starts a node with these flags.
    pub(super) async fn start(
        &self,
        offering: Offering,
        identity: Identity,
    ) -> Result<Started, Failure> {
        Ok(runtime::start(self.settings(offering, identity)?).await?)
    }

    fn settings(&self, offering: Offering, identity: Identity) -> Result<Settings, Failure> {
        let listen =
            if self.listen.is_empty() { default_listen(self.link)? } else { self.listen.clone() };
        Ok(Settings {
            data: self.data.clone().unwrap_or_else(super::default_data_dir),
            listen,
            peers: self.peer.clone(),
            mdns: !self.no_mdns,
            swarm: self.swarm.clone(),
            offering,
            slots: self.slots,
            memory: self.memory << 20,
            disk: self.disk << 20,
            bidding: self.bidding.into(),
            patience: Duration::from_secs_f64(self.patience),
            bandwidth: self.link * 1_000_000 / 8,
            work: WorkConfig {
                threads: self.threads(),
                throttle: self.throttle,
                options: self.options(),
            },
            identity,
        })
    }

    /// Threads for compute.
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }

    /// The throttle, if any.
    pub(super) fn throttle(&self) -> Option<f64> {
        self.throttle
    }

    /// Where and how to compute.
    pub(super) fn options(&self) -> LoadOptions {
        let options = LoadOptions { kernels: self.kernels.into(), ..LoadOptions::default() };
        #[cfg(feature = "wgpu")]
        if self.gpu {
            return LoadOptions { device: starling_engine::DeviceChoice::Gpu, ..options };
        }
        options
    }

    /// How many peers the user has named.
    pub(super) fn peers(&self) -> usize {
        self.peer.len()
    }
}

/// Flags for a node of this program's own making, on loopback alone.
pub(super) fn loopback(data: PathBuf, peers: Vec<Multiaddr>) -> Result<Settings, Failure> {
    Ok(Settings {
        data,
        listen: vec![LOOPBACK.parse()?],
        peers,
        mdns: false,
        swarm: DEMO_SWARM.to_owned(),
        offering: Offering::Nobody,
        slots: 0,
        memory: 0,
        disk: 1 << 30,
        bidding: Bidding::Forecast,
        patience: patience(),
        bandwidth: LOOPBACK_BYTES_PER_S,
        work: WorkConfig { threads: 1, throttle: None, options: LoadOptions::default() },
        identity: Identity::Passing,
    })
}

/// How long sessions wait unless they are told.
fn patience() -> Duration {
    session::Config::default().search_max
}

/// Prints, as a warning, which of the user's peers do not answer.
pub(super) fn warn_of_unreachable(news: &News) -> Option<String> {
    let News::Unreachable { address, reason } = news else { return None };
    let address = address.as_ref().map_or_else(|| "a peer".to_owned(), ToString::to_string);
    Some(format!("{address} does not answer: {reason}; still trying"))
}

/// On a slow link over QUIC alone, so that nobody comes over TCP: there market messages would wait
/// for tensors.
fn default_listen(link_mbit: u64) -> Result<Vec<Multiaddr>, Failure> {
    let (quic, tcp) = ("/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0");
    let all: &[_] = if link_mbit > SLOW_LINK_MBIT { &[tcp, quic] } else { &[quic] };
    all.iter().map(|address| Ok(address.parse()?)).collect()
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a share of one core: above 0, at most 1".to_owned()),
    }
}

/// A tensor of a megabyte takes longer than 0.15 s.
const SLOW_LINK_MBIT: u64 = 50;
/// Where the demo listens: nothing leaves the machine.
pub(super) const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";
/// The demo's flock never mixes with one that is really there.
pub(super) const DEMO_SWARM: &str = "starling-demo";
const LOOPBACK_BYTES_PER_S: u64 = 200_000_000;
