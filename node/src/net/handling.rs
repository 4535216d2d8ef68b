//! What a byte costs this machine's processor, whichever way it goes: to encrypt and to copy.
//!
//! On a weak board that is no trifle beside quick layers: a node that is to get large tensors and
//! little to compute may do nothing but decrypt. So nodes tell it, and planners count it.

use std::time::Duration;

use bytes::Bytes;
use libp2p::{Multiaddr, identity::Keypair, multiaddr::Protocol};
use rustix::time::ClockId;
use starling_protocol::{NodeId, SessionId};
use thiserror::Error;
use tokio::sync::mpsc::Receiver;

use super::{
    Frame, Net, NetConfig, NetError, NetEvent, TensorBytes,
    tensors::{Arrival, SendError, TensorConfig, TensorLinks, tensor_links},
};
use crate::quota::processor_time;

/// Why it could not be measured.
#[derive(Debug, Error)]
pub(crate) enum HandlingError {
    /// No address of this machine's own.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A frame did not arrive.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The two ends did not find each other.
    #[error("nothing came for {} s", PATIENCE.as_secs())]
    Timeout,
}

/// Seconds of a core for each byte in or out over a link: what frames over this machine's own
/// loopback cost it, and the packets of a link besides. Whatever else this process computes meanwhile
/// is counted as well, so nothing should.
///
/// # Errors
/// If loopback can't be used.
pub(crate) async fn core_seconds_per_byte() -> Result<f64, HandlingError> {
    let measured = tokio::time::timeout(PATIENCE, measure()).await;
    measured.unwrap_or(Err(HandlingError::Timeout))
}

async fn measure() -> Result<f64, HandlingError> {
    let mut receiver = net(Vec::new())?;
    let address = loop {
        if let NetEvent::Listening(address) = receiver.next().await {
            break address;
        }
    };
    let mut sender = net(vec![address])?;
    let to = receiver.local();
    let config = TensorConfig::default();
    let (_, mut arrivals) = tensor_links(receiver.streams(), to, SWARM, config.clone())?;
    let (links, _arrivals) = tensor_links(sender.streams(), sender.local(), SWARM, config)?;
    loop {
        let joined = tokio::select! {
            event = sender.next() => matches!(event, NetEvent::Joined(_)),
            _ = receiver.next() => false,
        };
        if joined {
            break;
        }
    }
    let frames = async {
        carry(&links, to, &mut arrivals, 1).await?;
        let before = processor_time(ClockId::ProcessCPUTime);
        carry(&links, to, &mut arrivals, FRAMES).await?;
        let spent = processor_time(ClockId::ProcessCPUTime).saturating_sub(before);
        // Each byte went out and came in.
        Ok(LINK * spent.as_secs_f64() / (2 * FRAMES * FRAME_BYTES) as f64)
    };
    tokio::pin!(frames);
    loop {
        tokio::select! {
            done = &mut frames => return done,
            _ = sender.next() => {}
            _ = receiver.next() => {}
        }
    }
}

async fn carry(
    links: &TensorLinks,
    to: NodeId,
    arrivals: &mut Receiver<Arrival>,
    frames: usize,
) -> Result<(), HandlingError> {
    // Of no few values, or it would be packed into hardly any bytes.
    let noise = (0..FRAME_BYTES as u32 / 4).flat_map(|at| at.wrapping_mul(NOISE).to_le_bytes());
    let data: Bytes = noise.collect();
    for request in 0..frames as u64 {
        let tensor = TensorBytes { shape: vec![FRAME_BYTES as u32 / 4], data: data.clone() };
        let frame = Frame {
            session: SessionId { requester: to, number: 0 },
            epoch: 0,
            request,
            sender: 0,
            index: 0,
            trace: Vec::new(),
            tensors: vec![tensor],
        };
        links.send(to, frame).await?;
        arrivals.recv().await.ok_or(HandlingError::Timeout)?;
    }
    Ok(())
}

fn net(peers: Vec<Multiaddr>) -> Result<Net, NetError> {
    let loopback = Multiaddr::empty().with(Protocol::Ip4([127, 0, 0, 1].into()));
    let keypair = Keypair::generate_ed25519();
    let listen = vec![loopback.with(Protocol::Tcp(0))];
    Net::new(NetConfig { keypair, listen, peers, mdns: false, swarm: SWARM.to_owned() })
}

/// Nobody else is in it: its two nodes exchange new keys, and know no others.
const SWARM: &str = "starling-handling";
/// As large as the tensors between a classifier's layers.
const FRAME_BYTES: usize = 512 * 1024;
const FRAMES: usize = 12;
/// Loopback passes 64 KB at a time, and who is to take them is awake. On a link each 1,500 bytes are
/// a packet, an interrupt, and often a thread that wakes up: where loopback's bytes cost 1 ns, those
/// of an emulated board behind 100 Mbit/s or 1 Gbit/s cost 4 to 8.
const LINK: f64 = 4.0;
/// Odd, so that each element is another.
const NOISE: u32 = 0x9e37_79b9;
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_byte_costs_something_and_not_much() {
        let cost = core_seconds_per_byte().await.expect("loopback");
        assert!(cost > 1e-11 && cost < 1e-5, "{cost}");
    }
}
