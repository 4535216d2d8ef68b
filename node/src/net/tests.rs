//! Whole networks in one process: real sockets, on loopback only. Every wait is bounded, none is
//! measured.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod blobs;
mod junk;
mod swarm;
mod tensors;

use std::{future::Future, time::Duration};

use libp2p::{Multiaddr, identity::Keypair, multiaddr::Protocol};
use starling_protocol::NodeId;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Net, NetConfig, NetEvent, contacts::Over};

/// Where a test's node listens.
fn listen(over: Over) -> Multiaddr {
    let address = match over {
        Over::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        Over::Tcp => "/ip4/127.0.0.1/tcp/0",
    };
    address.parse().unwrap()
}

fn config(over: Over, swarm: &str, peers: Vec<Multiaddr>) -> NetConfig {
    NetConfig {
        keypair: Keypair::generate_ed25519(),
        listen: vec![listen(over)],
        peers,
        mdns: false,
        swarm: swarm.to_owned(),
    }
}

/// What a test waits for; too long a wait fails it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it should come soon")
}

/// The next event that `pick` takes; others are passed over.
async fn until<T>(net: &mut Net, mut pick: impl FnMut(NetEvent) -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(picked) = pick(net.next().await) {
                return picked;
            }
        }
    })
    .await
}

async fn listening(net: &mut Net) -> Multiaddr {
    until(net, |event| match event {
        NetEvent::Listening(address) => Some(address),
        _ => None,
    })
    .await
}

async fn joined(net: &mut Net) -> NodeId {
    until(net, |event| match event {
        NetEvent::Joined(node) => Some(node),
        _ => None,
    })
    .await
}

/// Two nodes of one swarm that know each other.
async fn pair(over: Over) -> (Net, Net) {
    let mut a = Net::new(config(over, "test", Vec::new())).unwrap();
    let address = listening(&mut a).await;
    let mut b = Net::new(config(over, "test", vec![address])).unwrap();
    let (at_a, at_b) = tokio::join!(joined(&mut a), joined(&mut b));
    assert_eq!((at_a, at_b), (b.local(), a.local()));
    (a, b)
}

/// A node whose loop runs on its own, for tests of what happens on streams.
struct Running {
    node: NodeId,
    address: Multiaddr,
    control: libp2p_stream::Control,
    events: mpsc::UnboundedReceiver<NetEvent>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    async fn start(over: Over, peers: Vec<Multiaddr>) -> Self {
        Self::start_in("test", over, peers).await
    }

    async fn start_in(swarm: &str, over: Over, peers: Vec<Multiaddr>) -> Self {
        let mut net = Net::new(config(over, swarm, peers)).unwrap();
        let address = listening(&mut net).await;
        let (node, control) = (net.local(), net.streams());
        let (sender, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let event = net.next().await;
                let _ = sender.send(event);
            }
        });
        let peer = crate::identity::peer_id(&node).unwrap();
        let address = address.with(Protocol::P2p(peer));
        Self { node, address, control, events, task }
    }

    async fn pair(over: Over) -> (Self, Self) {
        let a = Self::start(over, Vec::new()).await;
        let mut b = Self::start(over, vec![a.address.clone()]).await;
        b.join().await;
        (a, b)
    }

    async fn join(&mut self) {
        soon(async { while !matches!(self.events.recv().await.unwrap(), NetEvent::Joined(_)) {} })
            .await;
    }
}
