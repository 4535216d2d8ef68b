//! What the swarm reports, turned into [`NetEvent`]s or lines in the log.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    gossipsub::{self, MessageAcceptance},
    identify, mdns,
    multiaddr::Protocol,
    request_response,
    swarm::{ConnectionId, DialError, SwarmEvent},
};
use starling_protocol::{
    NodeId,
    wire::{self, Advert, Message},
};

use super::{Asker, Net, NetEvent, ReplyTo, behaviour::BehaviourEvent};
use crate::{identity, net::contacts::News, standstill};

impl Net {
    pub(super) fn on_tick(&mut self, now: Instant) {
        if standstill::before(now, self.ticked + TICK).is_some() {
            // Whoever did not listen can't say that nobody answered.
            self.alive.values_mut().for_each(|at| *at = now);
        }
        self.ticked = now;
        let dead: Vec<ConnectionId> =
            self.alive.iter().filter(|(_, at)| **at + DEAD < now).map(|(id, _)| *id).collect();
        for connection in dead {
            tracing::debug!(%connection, "no ping answered, closing the connection");
            self.alive.remove(&connection);
            self.swarm.close_connection(connection);
        }
        if let Some(mdns) = self.swarm.behaviour().mdns.as_ref() {
            mdns.discovered_nodes().for_each(|peer| self.contacts.hear(now, *peer));
        }
        for dial in self.contacts.due(now, |peer| self.swarm.is_connected(peer)) {
            let id = dial.connection_id();
            if let Err(error) = self.swarm.dial(dial) {
                self.on_dial_failure(id, &error);
            }
        }
    }

    /// When somebody is to be dialled, and from time to time: every tick wakes an idle machine.
    pub(super) fn next_tick(&self) -> Instant {
        let from_time_to_time = self.ticked + TICK;
        let dial = self.contacts.next_due(|peer| self.swarm.is_connected(peer));
        dial.map_or(from_time_to_time, |dial| dial.min(from_time_to_time))
    }

    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                self.events.push_back(NetEvent::Listening(address));
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.on_connected(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed {
                peer_id, connection_id, num_established, cause, ..
            } => {
                tracing::debug!(peer = %peer_id, ?cause, num_established, "connection closed");
                self.alive.remove(&connection_id);
                if num_established == 0 {
                    self.on_left(&peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failure(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener has trouble");
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "a listener closed");
            }
            // The rest says nothing that the events above don't; and the enum is open-ended.
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Market(event) => self.on_market(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let now = Instant::now();
                for (peer, address) in &found {
                    self.contacts.hear(now, *peer);
                    self.contacts.note(peer, [address]);
                }
            }
            // Expired records mean little: pings and connections tell who is alive.
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
            BehaviourEvent::Ping(event) => match event.result {
                Ok(_) => {
                    if let Some(at) = self.alive.get_mut(&event.connection) {
                        *at = Instant::now();
                    }
                }
                Err(error) => tracing::debug!(peer = %event.peer, %error, "ping failed"),
            },
            BehaviourEvent::Limits(event) | BehaviourEvent::Book(event) => match event {},
            BehaviourEvent::Streams(()) => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId) {
        let now = Instant::now();
        self.alive.insert(connection, now);
        self.contacts.on_connected(now, connection, peer);
        if identity::node_id(&peer).is_none() {
            tracing::debug!(%peer, "its key is not Ed25519, closing the connection");
            self.swarm.close_connection(connection);
        }
    }

    fn on_left(&mut self, peer: &PeerId) {
        for witnesses in self.observed.values_mut() {
            witnesses.remove(peer);
        }
        self.observed.retain(|_, witnesses| !witnesses.is_empty());
        if self.joined.remove(peer)
            && let Some(node) = identity::node_id(peer)
        {
            self.events.push_back(NetEvent::Left(node));
        }
    }

    fn on_dial_failure(&mut self, id: ConnectionId, error: &DialError) {
        tracing::debug!(%error, "dial failed");
        let now = Instant::now();
        match error {
            DialError::LocalPeerId { .. } => {
                let news = self.contacts.on_self(id);
                self.report(news, "that is this node itself".to_owned());
            }
            // Somebody else's dial to the same peer stands, or is under way: not a failure.
            DialError::DialPeerConditionFalse(_) => {
                let _ = self.contacts.on_failed(now, id);
            }
            error => {
                let news = self.contacts.on_failed(now, id);
                self.report(news, explain(error));
            }
        }
    }

    fn report(&mut self, news: Option<News>, reason: String) {
        if let Some(News { address }) = news {
            self.events.push_back(NetEvent::Unreachable { address: Some(address), reason });
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        if info.protocol_version != self.names.identify() {
            tracing::debug!(peer = %peer_id, speaks = info.protocol_version, "of another swarm");
            let news = self.contacts.on_foreign(Instant::now(), &peer_id);
            self.report(news, "it belongs to another swarm".to_owned());
            let _ = self.swarm.disconnect_peer_id(peer_id);
            return;
        }
        // Only a port that we listen on can be dialled; others are of outbound connections.
        let port = port(&info.observed_addr);
        if port.is_none() || self.swarm.listeners().all(|own| self::port(own) != port) {
            return;
        }
        if self.observed.len() < OBSERVED_MAX || self.observed.contains_key(&info.observed_addr) {
            self.observed.entry(info.observed_addr).or_default().insert(peer_id);
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let verdict = match read_advert(&message) {
                    Ok((from, advert)) => {
                        self.events.push_back(NetEvent::Advert { from, advert });
                        MessageAcceptance::Accept
                    }
                    Err(reason) => {
                        tracing::debug!(from = ?message.source, %reason, "refused an advert");
                        MessageAcceptance::Reject
                    }
                };
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                // News of a peer that has left meanwhile would never be taken back.
                if topic == self.topic.hash()
                    && self.swarm.is_connected(&peer_id)
                    && let Some(node) = identity::node_id(&peer_id)
                    && self.joined.insert(peer_id)
                {
                    self.events.push_back(NetEvent::Joined(node));
                }
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if topic == self.topic.hash() {
                    self.on_left(&peer_id);
                }
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                tracing::debug!(peer = %peer_id, "does not gossip");
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "too slow for gossip, adverts to it were dropped");
            }
        }
    }

    fn on_market(&mut self, event: request_response::Event<Message, Vec<Message>>) {
        use request_response::Event;
        match event {
            Event::Message { peer, message, .. } => self.on_market_message(&peer, message),
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some((to, _)) = self.requests.remove(&request_id) {
                    self.events.push_back(NetEvent::Undelivered { to, reason: error.to_string() });
                }
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(from = %peer, %error, "refused a request");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn on_market_message(
        &mut self,
        peer: &PeerId,
        message: request_response::Message<Message, Vec<Message>>,
    ) {
        match message {
            request_response::Message::Request { request, channel, .. } => {
                let Some(from) = identity::node_id(peer) else { return };
                let reply = ReplyTo(Asker::Remote { node: from, channel });
                self.events.push_back(NetEvent::Request { from, message: request, reply });
            }
            request_response::Message::Response { request_id, response } => {
                if let Some((from, sent)) = self.requests.remove(&request_id) {
                    if self.round_trips.len() == ROUND_TRIPS_MAX {
                        self.round_trips.pop_front();
                    }
                    self.round_trips.push_back(sent.elapsed());
                    self.events.push_back(NetEvent::Reply { from, messages: response });
                }
            }
        }
    }
}

/// The author and the advert, or why it is none. The signature has been checked.
fn read_advert(message: &gossipsub::Message) -> Result<(NodeId, Advert), String> {
    let source = message.source.as_ref().ok_or("no author")?;
    let from = identity::node_id(source).ok_or("the author's key is not Ed25519")?;
    let advert = wire::decode(&message.data).map_err(|error| error.to_string())?;
    Ok((from, advert))
}

/// Why a dial failed, in one line: libp2p's own text spells every address with every layer.
fn explain(error: &DialError) -> String {
    match error {
        DialError::Transport(errors) => match errors.first() {
            Some((_, error)) => innermost(error),
            None => "no address to dial".to_owned(),
        },
        error => error.to_string(),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn port(address: &Multiaddr) -> Option<(&'static str, u16)> {
    address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(("tcp", port)),
        Protocol::Udp(port) => Some(("udp", port)),
        _ => None,
    })
}

/// A connection without an answered ping for so long is closed. libp2p's own verdict would take
/// up to 18 s, as it forgives the first failure and then waits for a new stream.
const DEAD: Duration = Duration::from_secs(8);
const TICK: Duration = Duration::from_secs(1);
const OBSERVED_MAX: usize = 16;

/// Round trips that are kept, until somebody asks for them.
const ROUND_TRIPS_MAX: usize = 4096;
