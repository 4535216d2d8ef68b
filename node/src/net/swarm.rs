//! The libp2p swarm behind one small interface: who is there, adverts, and market messages.
//!
//! [`Net`] is driven by the runtime's one loop through [`Net::next`]. Peers can't make it fail:
//! what they send is either an event or a line in the log.

mod behaviour;
mod events;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    gossipsub::{IdentTopic, PublishError},
    identity::Keypair,
    multiaddr::Protocol,
    request_response::{OutboundRequestId, ResponseChannel},
    swarm::ConnectionId,
};
use starling_protocol::{
    NodeId,
    wire::{self, ADDRESS_BYTES_MAX, ADDRESSES_MAX, Advert, Message},
};
use thiserror::Error;

use super::{
    contacts::{Contacts, Over},
    market::REPLIES_MAX,
    names::Names,
};
use crate::identity;
use behaviour::Behaviour;

/// How to join.
#[derive(Clone)]
pub(crate) struct NetConfig {
    /// The node's identity.
    pub(crate) keypair: Keypair,
    /// Where to listen: TCP and QUIC addresses. With none of TCP, others are dialled over QUIC.
    pub(crate) listen: Vec<Multiaddr>,
    /// Whom to stay connected with.
    pub(crate) peers: Vec<Multiaddr>,
    /// Whether to look for others on the local network.
    pub(crate) mdns: bool,
    /// The swarm's name. Nodes of other swarms are left alone.
    pub(crate) swarm: String,
}

/// What happens on the network.
#[derive(Debug)]
pub(crate) enum NetEvent {
    /// This node can be reached here.
    Listening(Multiaddr),
    /// Connected, and gossip reaches it.
    Joined(NodeId),
    /// The last connection with it is closed.
    Left(NodeId),
    /// Gossip, with its author's signature.
    Advert {
        /// The author, whoever passed it on.
        from: NodeId,
        /// What it says.
        advert: Advert,
    },
    /// A market message. To be answered once, with [`Net::reply`].
    Request {
        /// The peer of the connection.
        from: NodeId,
        /// What it says.
        message: Message,
        /// Where the answer goes.
        reply: ReplyTo,
    },
    /// The answer to a message of ours.
    Reply {
        /// Who answers.
        from: NodeId,
        /// Maybe none, at most 64.
        messages: Vec<Message>,
    },
    /// A message of ours got no answer. It may have arrived all the same.
    Undelivered {
        /// Whom it was for.
        to: NodeId,
        /// Why.
        reason: String,
    },
    /// One of [`NetConfig::peers`] can't be reached. Told once per outage; the node keeps trying.
    Unreachable {
        /// As the user gave it.
        address: Option<Multiaddr>,
        /// Why.
        reason: String,
    },
}

/// Where the answer to a request goes. Dropped, it closes the request's stream.
#[derive(Debug)]
pub(crate) struct ReplyTo(Asker);

#[derive(Debug)]
enum Asker {
    Local,
    Remote { node: NodeId, channel: ResponseChannel<Vec<Message>> },
}

/// Why the network can't be used. Always something of this machine or its user, never of a peer.
#[derive(Debug, Error)]
pub(crate) enum NetError {
    /// The key is no Ed25519 key.
    #[error("the identity is not an Ed25519 key")]
    Identity,
    /// An address can't be listened on.
    #[error("can't listen on {address}: {reason}")]
    Listen {
        /// As the user gave it.
        address: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// The transports can't be set up.
    #[error("can't set up the network: {0}")]
    Setup(String),
    /// A stream protocol was started a second time on one swarm.
    #[error("this part of the network is already running")]
    Twice,
}

/// The node's place in the network.
pub(crate) struct Net {
    swarm: Swarm<Behaviour>,
    local: NodeId,
    names: Names,
    topic: IdentTopic,
    contacts: Contacts,
    events: VecDeque<NetEvent>,
    joined: HashSet<PeerId>,
    /// When each connection last answered a ping.
    alive: HashMap<ConnectionId, Instant>,
    requests: HashMap<OutboundRequestId, (NodeId, Instant)>,
    /// What the last of them took until they were answered.
    round_trips: VecDeque<Duration>,
    /// Which peers have seen us at which address.
    observed: HashMap<Multiaddr, HashSet<PeerId>>,
    /// When it last saw to its contacts and connections.
    ticked: Instant,
}

impl Net {
    /// Starts to listen, and to look for others. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If an address can't be listened on or the system refuses what the transports need.
    pub(crate) fn new(config: NetConfig) -> Result<Self, NetError> {
        let me = config.keypair.public().to_peer_id();
        let local = identity::node_id(&me).ok_or(NetError::Identity)?;
        let names = Names::new(&config.swarm);
        let topic = IdentTopic::new(names.topic());
        let mut swarm = behaviour::swarm(config.keypair, &names, config.mdns)?;
        let subscribed = swarm.behaviour_mut().gossip.subscribe(&topic);
        subscribed.map_err(|error| NetError::Setup(error.to_string()))?;
        let over = Over::preferred(&config.listen);
        for address in config.listen {
            swarm
                .listen_on(address.clone())
                .map_err(|error| NetError::Listen { address, reason: error.to_string() })?;
        }
        let mut contacts = Contacts::new(me, over);
        let now = Instant::now();
        config.peers.into_iter().for_each(|address| contacts.ask(now, address));
        Ok(Self {
            swarm,
            local,
            names,
            topic,
            contacts,
            events: VecDeque::new(),
            joined: HashSet::new(),
            alive: HashMap::new(),
            requests: HashMap::new(),
            round_trips: VecDeque::new(),
            observed: HashMap::new(),
            ticked: now,
        })
    }

    /// This node.
    pub(crate) fn local(&self) -> NodeId {
        self.local
    }

    /// The next thing that happens. Cancel-safe: a dropped call loses nothing.
    pub(crate) async fn next(&mut self) -> NetEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let tick = self.next_tick();
            tokio::select! {
                // Swarm first: after this loop was held up, pings that were answered meanwhile
                // must count before the tick looks for dead connections.
                biased;
                event = self.swarm.select_next_some() => self.on_swarm(event),
                () = tokio::time::sleep_until(tick.into()) => self.on_tick(Instant::now()),
            }
        }
    }

    /// Gossips an advert to the flock. It may get lost, and nobody may be there: repeat it.
    pub(crate) fn publish(&mut self, advert: &Advert) {
        let bytes = match wire::encode(advert) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(%error, ?advert, "an advert that can't be sent"),
        };
        match self.swarm.behaviour_mut().gossip.publish(self.topic.clone(), bytes) {
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic) => {}
            Err(error) => tracing::debug!(%error, "advert not sent"),
        }
    }

    /// Sends a market message, connecting first if need be. Ends in one [`NetEvent::Reply`] or
    /// [`NetEvent::Undelivered`].
    pub(crate) fn send(&mut self, to: NodeId, message: &Message) {
        let undelivered = |reason: &str| NetEvent::Undelivered { to, reason: reason.to_owned() };
        if to == self.local {
            let (message, reply) = (message.clone(), ReplyTo(Asker::Local));
            return self.events.push_back(NetEvent::Request { from: to, message, reply });
        }
        let Some(peer) = identity::peer_id(&to) else {
            return self.events.push_back(undelivered("not a public key"));
        };
        if self.requests.len() >= REQUESTS_MAX {
            return self.events.push_back(undelivered("too many messages are under way"));
        }
        let id = self.swarm.behaviour_mut().market.send_request(&peer, message.clone());
        self.requests.insert(id, (to, Instant::now()));
    }

    /// From a market message to its answer, for the last of those that were answered since the last
    /// call.
    pub(crate) fn take_round_trips(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.round_trips).into()
    }

    /// Answers a request, with at most 64 messages.
    pub(crate) fn reply(&mut self, to: ReplyTo, messages: &[Message]) {
        if messages.len() > REPLIES_MAX {
            tracing::error!(count = messages.len(), "more messages than fit into a reply");
        }
        let messages = messages[..messages.len().min(REPLIES_MAX)].to_vec();
        match to.0 {
            Asker::Local => self.events.push_back(NetEvent::Reply { from: self.local, messages }),
            Asker::Remote { node, channel } => {
                let market = &mut self.swarm.behaviour_mut().market;
                if market.send_response(channel, messages).is_err() {
                    tracing::debug!(to = %node, "the asker no longer waits for a reply");
                }
            }
        }
    }

    /// Notes where a node says that it can be dialled.
    pub(crate) fn learn(&mut self, node: NodeId, addresses: &[Vec<u8>]) {
        let Some(peer) = identity::peer_id(&node).filter(|_| node != self.local) else { return };
        let parsed = addresses.iter().take(ADDRESSES_MAX).filter_map(|bytes| {
            let address = Multiaddr::try_from(bytes.clone()).ok()?;
            is_dialable(&address).then_some(address)
        });
        let parsed: Vec<Multiaddr> = parsed.collect();
        if parsed.is_empty() {
            return;
        }
        self.contacts.hear(Instant::now(), peer);
        self.contacts.note(&peer, &parsed);
        self.swarm.behaviour_mut().book.note(peer, parsed);
    }

    /// Where this node can be dialled, as bytes for its adverts: addresses of its interfaces, then
    /// those where several others have seen it. Loopback only if there is nothing else.
    pub(crate) fn addresses(&self) -> Vec<Vec<u8>> {
        let (loopback, own): (Vec<_>, Vec<_>) =
            self.swarm.listeners().partition(|address| is_loopback(address));
        let observed = self.observed.iter().filter(|(_, peers)| peers.len() >= WITNESSES_MIN);
        let mut all: Vec<&Multiaddr> = own;
        all.extend(observed.map(|(address, _)| address));
        if all.is_empty() {
            all = loopback;
        }
        let mut seen = HashSet::new();
        let bytes = all.into_iter().filter(|address| seen.insert(*address)).map(Multiaddr::to_vec);
        bytes.filter(|bytes| bytes.len() <= ADDRESS_BYTES_MAX).take(ADDRESSES_MAX).collect()
    }

    /// For [`super::tensors`] and [`super::blobs`].
    pub(crate) fn streams(&self) -> libp2p_stream::Control {
        self.swarm.behaviour().streams.new_control()
    }

    /// Leaves: lets what was sent last go out, then closes all connections.
    pub(crate) async fn shutdown(mut self) {
        let flush = async {
            loop {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(FLUSH, flush).await;
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let close = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(FLUSH, close).await;
    }
}

/// Whether an address from an advert may be dialled: a plain TCP or QUIC address of one machine.
fn is_dialable(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
        _ => false,
    };
    let transport = match parts.next() {
        Some(Protocol::Tcp(port)) => port != 0,
        Some(Protocol::Udp(port)) => port != 0 && parts.next() == Some(Protocol::QuicV1),
        _ => false,
    };
    host && transport && matches!(parts.next(), None | Some(Protocol::P2p(_)))
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

/// Messages without an answer so far, to all peers together.
const REQUESTS_MAX: usize = 4096;
/// So many peers must have seen us at an address before we repeat it: one alone could make a whole
/// flock dial a victim.
const WITNESSES_MIN: usize = 2;
const FLUSH: Duration = Duration::from_millis(300);
