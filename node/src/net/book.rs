//! The addresses of other nodes, offered to whatever part of the swarm wants to dial one of them.
//! A behaviour of its own because libp2p's own caches hold 100 peers, fewer than a flock may have.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};
use starling_protocol::wire::ADDRESSES_MAX;

/// What is known of others' whereabouts.
#[derive(Debug, Default)]
pub(crate) struct Book {
    known: BTreeMap<PeerId, (u64, Vec<Multiaddr>)>,
    /// Rises with every entry: the lowest is the one longest unheard of.
    clock: u64,
}

impl Book {
    /// Replaces what is known of a peer, as its latest advert is the truest.
    pub(crate) fn note(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return;
        }
        if self.known.len() >= PEERS_MAX && !self.known.contains_key(&peer) {
            let oldest = self.known.iter().min_by_key(|(_, (noted, _))| *noted);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.known.remove(&oldest);
            }
        }
        self.clock += 1;
        self.known.insert(peer, (self.clock, addresses));
    }

    /// Where `peer` may be.
    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.known.get(peer).map_or(&[], |(_, addresses)| addresses)
    }
}

impl NetworkBehaviour for Book {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map_or_else(Vec::new, |peer| self.addresses(&peer).to_vec()))
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// As many as the protocol's picture of the flock holds.
const PEERS_MAX: usize = 4096;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn one_over_the_limit_pushes_out_the_longest_unheard() {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let mut book = Book::default();
        let peers: Vec<PeerId> = (0..=PEERS_MAX).map(|_| PeerId::random()).collect();
        for peer in &peers[..PEERS_MAX] {
            book.note(*peer, vec![address.clone()]);
        }
        book.note(peers[0], vec![address.clone(); 2 * ADDRESSES_MAX]);
        assert_eq!(book.addresses(&peers[0]).len(), ADDRESSES_MAX);
        assert_eq!(book.addresses(&peers[1]).len(), 1);
        book.note(peers[PEERS_MAX], vec![address]);
        assert!(book.addresses(&peers[1]).is_empty());
        assert!(!book.addresses(&peers[0]).is_empty());
    }
}
