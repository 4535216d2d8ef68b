//! Whom to dial, and when again. Pure: the time and who is connected are arguments, so the whole
//! schedule is tested without a socket.
//!
//! There are two kinds of contacts. *Asked* ones are addresses that the user gave: they are dialled
//! for ever, and the first failure is worth telling the user. *Found* ones come from mDNS and
//! adverts: they are forgotten when nobody has spoken of them for a while.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    multiaddr::Protocol,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use starling_protocol::wire::ADDRESSES_MAX;

/// The schedule.
#[derive(Debug)]
pub(crate) struct Contacts {
    me: PeerId,
    over: Over,
    contacts: Vec<Contact>,
}

#[derive(Debug)]
struct Contact {
    origin: Origin,
    /// Known from the start for a found one; for an asked one from its `/p2p` part, or from the
    /// last connection.
    peer: Option<PeerId>,
    next: Instant,
    failures: u32,
    dialing: Option<ConnectionId>,
}

#[derive(Debug)]
enum Origin {
    Asked {
        address: Multiaddr,
        told: Told,
    },
    /// `first` are those of its addresses that are dialled first.
    Found {
        heard: Instant,
        first: Vec<Multiaddr>,
    },
}

/// What a connection can go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Takes a fifth less of the processor for the same bytes.
    Tcp,
    /// A market message waits for a packet or two of a tensor's. On TCP it waits for all that is
    /// encrypted, buffered and resent before it, which is a quarter of a second of a slow link.
    Quic,
}

impl Over {
    /// What a node prefers that listens at these addresses.
    pub(crate) fn preferred(listen: &[Multiaddr]) -> Self {
        if listen.iter().any(|address| Self::Tcp.reaches(address)) { Self::Tcp } else { Self::Quic }
    }

    fn reaches(self, address: &Multiaddr) -> bool {
        address.iter().any(|part| match self {
            Self::Tcp => matches!(part, Protocol::Tcp(_)),
            Self::Quic => matches!(part, Protocol::QuicV1),
        })
    }
}

/// Whether the user has been told that this contact can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    No,
    Yes,
}

/// A failure that the user should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// The address that the user gave.
    pub(crate) address: Multiaddr,
}

impl Contacts {
    /// An empty schedule of node `me`, which prefers connections `over` this.
    pub(crate) fn new(me: PeerId, over: Over) -> Self {
        Self { me, over, contacts: Vec::new() }
    }

    /// An address that the user wants to be connected with.
    pub(crate) fn ask(&mut self, now: Instant, address: Multiaddr) {
        let peer = address.iter().find_map(|part| match part {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        let origin = Origin::Asked { address, told: Told::No };
        self.contacts.push(Contact { origin, peer, next: now, failures: 0, dialing: None });
    }

    /// Somebody that mDNS or an advert speaks of. Both sides hear of each other at once, so only
    /// the lower id dials at first; the other comes in late, in case the first can't get through.
    pub(crate) fn hear(&mut self, now: Instant, peer: PeerId) {
        if peer == self.me {
            return;
        }
        let mut mine = self.contacts.iter_mut().filter(|contact| contact.peer == Some(peer));
        if let Some(known) = mine.next() {
            if let Origin::Found { heard, .. } = &mut known.origin {
                *heard = now;
            }
            return;
        }
        if self.contacts.len() >= CONTACTS_MAX {
            return;
        }
        let next = if self.me < peer { now } else { now + GRACE };
        let origin = Origin::Found { heard: now, first: Vec::new() };
        let peer = Some(peer);
        self.contacts.push(Contact { origin, peer, next, failures: 0, dialing: None });
    }

    /// Where one that was heard of is said to be.
    pub(crate) fn note<'a>(
        &mut self,
        peer: &PeerId,
        addresses: impl IntoIterator<Item = &'a Multiaddr>,
    ) {
        let found = self.contacts.iter_mut().filter(|contact| contact.peer.as_ref() == Some(peer));
        for contact in found {
            if let Origin::Found { first, .. } = &mut contact.origin {
                let preferred = addresses.into_iter().filter(|address| self.over.reaches(address));
                first.extend(preferred.cloned());
                first.sort();
                first.dedup();
                first.truncate(ADDRESSES_MAX);
                return;
            }
        }
    }

    /// What is to be dialled now. Each must be tried, and what came of it told by
    /// [`on_connected`](Self::on_connected) or [`on_failed`](Self::on_failed).
    pub(crate) fn due(
        &mut self,
        now: Instant,
        connected: impl Fn(&PeerId) -> bool,
    ) -> Vec<DialOpts> {
        self.contacts.retain(|contact| match &contact.origin {
            Origin::Asked { .. } => true,
            Origin::Found { heard, .. } => *heard + FORGET > now || contact.is(&connected),
        });
        let mut dials = Vec::new();
        for contact in &mut self.contacts {
            if contact.waits(&connected) && contact.next <= now {
                let opts = contact.dial();
                contact.dialing = Some(opts.connection_id());
                dials.push(opts);
            }
        }
        dials
    }

    /// When something is to be dialled next, as things are.
    pub(crate) fn next_due(&self, connected: impl Fn(&PeerId) -> bool) -> Option<Instant> {
        let waiting = self.contacts.iter().filter(|contact| contact.waits(&connected));
        waiting.map(|contact| contact.next).min()
    }

    /// A connection stands. Whoever dialled it, the contact behind it is in order again.
    pub(crate) fn on_connected(&mut self, now: Instant, id: ConnectionId, peer: PeerId) {
        for contact in &mut self.contacts {
            let dialled = contact.dialing == Some(id);
            if !dialled && contact.peer != Some(peer) {
                continue;
            }
            contact.peer = Some(peer);
            contact.failures = 0;
            contact.next = now + BACKOFF_MIN;
            if dialled {
                contact.dialing = None;
            }
            if let Origin::Asked { told, .. } = &mut contact.origin {
                *told = Told::No;
            }
        }
    }

    /// A dial came to nothing.
    pub(crate) fn on_failed(&mut self, now: Instant, id: ConnectionId) -> Option<News> {
        let contact = self.contacts.iter_mut().find(|contact| contact.dialing == Some(id))?;
        contact.fail(now)
    }

    /// The peer turned out to be of another swarm. Asked again only after the longest pause: it
    /// may be restarted with another swarm's name.
    pub(crate) fn on_foreign(&mut self, now: Instant, peer: &PeerId) -> Option<News> {
        let mut mine = self.contacts.iter_mut().filter(|contact| contact.peer == Some(*peer));
        let contact = mine.next()?;
        contact.failures = BACKOFF_DOUBLINGS;
        contact.fail(now)
    }

    /// The address is this very node's: never to be dialled again.
    pub(crate) fn on_self(&mut self, id: ConnectionId) -> Option<News> {
        let index = self.contacts.iter().position(|contact| contact.dialing == Some(id))?;
        match self.contacts.swap_remove(index).origin {
            Origin::Asked { address, .. } => Some(News { address }),
            Origin::Found { .. } => None,
        }
    }
}

impl Contact {
    /// Whether `connected` holds for its peer, as far as that is known.
    fn is(&self, connected: impl Fn(&PeerId) -> bool) -> bool {
        self.peer.as_ref().is_some_and(connected)
    }

    /// Whether it is dialled when its time comes.
    fn waits(&self, connected: impl Fn(&PeerId) -> bool) -> bool {
        self.dialing.is_none() && !self.is(connected)
    }

    fn dial(&self) -> DialOpts {
        match (&self.origin, self.peer) {
            (Origin::Found { first, .. }, Some(peer)) => {
                let opts = DialOpts::peer_id(peer);
                let opts = opts.condition(PeerCondition::DisconnectedAndNotDialing);
                // Every other time wherever it may be: a firewall may let only one of them through.
                if first.is_empty() || self.failures % 2 == 1 {
                    opts.build()
                } else {
                    opts.addresses(first.clone()).build()
                }
            }
            (Origin::Asked { address, .. }, _) => {
                DialOpts::unknown_peer_id().address(address.clone()).build()
            }
            (Origin::Found { .. }, None) => unreachable!("a found contact has a peer"),
        }
    }

    fn fail(&mut self, now: Instant) -> Option<News> {
        self.dialing = None;
        let pause = BACKOFF_MIN * 2u32.pow(self.failures.min(BACKOFF_DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        self.next = now + pause.min(BACKOFF_MAX);
        match &mut self.origin {
            Origin::Asked { address, told } if *told == Told::No => {
                *told = Told::Yes;
                Some(News { address: address.clone() })
            }
            Origin::Asked { .. } | Origin::Found { .. } => None,
        }
    }
}

/// The most nodes that this one keeps itself connected with. Others are reached by gossip, and
/// dialled when there is something to say to them.
const CONTACTS_MAX: usize = 64;
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const BACKOFF_DOUBLINGS: u32 = 6;
/// How long the higher id waits for the lower one to dial.
const GRACE: Duration = Duration::from_secs(2);
/// Found contacts of which nobody speaks any longer are forgotten after this.
const FORGET: Duration = Duration::from_secs(120);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    /// Which of both addresses a node is dialled at that was heard of, the first time and the
    /// second.
    fn check_dials(listen: &[Multiaddr], expected: [(bool, bool); 2]) {
        let (low, high) = ordered_peers();
        let now = Instant::now();
        let mut contacts = Contacts::new(low, Over::preferred(listen));
        contacts.note(&high, [&address()]);
        contacts.hear(now, high);
        contacts.note(&high, [&quic(), &address(), &address(), &quic()]);
        let tried = |dial: &DialOpts| {
            let text = format!("{dial:?}");
            (text.contains("tcp"), text.contains("quic"))
        };
        let first = contacts.due(now, nobody).pop().unwrap();
        contacts.on_failed(now, first.connection_id());
        let second = contacts.due(now + BACKOFF_MAX, nobody).pop().unwrap();
        assert_eq!([tried(&first), tried(&second)], expected);
    }

    #[test]
    fn what_a_node_prefers_is_dialled_first() {
        // Then wherever the swarm knows: that is in no dial's text.
        let then = (false, false);
        check_dials(&[address(), quic()], [(true, false), then]);
        check_dials(&[address()], [(true, false), then]);
        check_dials(&[quic()], [(false, true), then]);
    }

    fn quic() -> Multiaddr {
        "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap()
    }

    fn nobody(_: &PeerId) -> bool {
        false
    }

    fn ordered_peers() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        if a < b { (a, b) } else { (b, a) }
    }

    fn address() -> Multiaddr {
        "/ip4/127.0.0.1/tcp/1".parse().unwrap()
    }

    #[test]
    fn the_lower_id_dials_and_the_higher_waits_a_while() {
        let (low, high) = ordered_peers();
        let now = Instant::now();
        let mut lower = Contacts::new(low, Over::Tcp);
        lower.hear(now, high);
        assert_eq!(lower.next_due(nobody), Some(now));
        assert_eq!(lower.due(now, nobody).len(), 1);
        assert_eq!(lower.next_due(nobody), None, "it is being dialled");
        let mut higher = Contacts::new(high, Over::Tcp);
        higher.hear(now, low);
        assert!(higher.due(now, nobody).is_empty());
        assert_eq!(higher.next_due(nobody), Some(now + GRACE));
        assert_eq!(higher.next_due(|peer| *peer == low), None);
        assert!(higher.due(now + GRACE, |peer| *peer == low).is_empty(), "connected by then");
        assert_eq!(higher.due(now + GRACE, nobody).len(), 1);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_the_user_hears_once() {
        let mut now = Instant::now();
        let mut contacts = Contacts::new(PeerId::random(), Over::Tcp);
        contacts.ask(now, address());
        let mut pauses = Vec::new();
        for attempt in 0..12 {
            let dial = contacts.due(now, nobody).pop().unwrap();
            assert!(contacts.due(now, nobody).is_empty(), "one dial at a time");
            let news = contacts.on_failed(now, dial.connection_id());
            assert_eq!(news.is_some(), attempt == 0);
            let before = now;
            now = contacts.next_due(nobody).unwrap();
            pauses.push(now - before);
        }
        assert_eq!(pauses[..3], [500, 1000, 2000].map(Duration::from_millis));
        assert_eq!(pauses.last(), Some(&BACKOFF_MAX));
    }

    #[test]
    fn after_a_connection_failures_count_anew() {
        let now = Instant::now();
        let mut contacts = Contacts::new(PeerId::random(), Over::Tcp);
        contacts.ask(now, address());
        let dial = contacts.due(now, nobody).pop().unwrap();
        contacts.on_failed(now, dial.connection_id());
        let later = now + BACKOFF_MAX;
        let dial = contacts.due(later, nobody).pop().unwrap();
        let peer = PeerId::random();
        contacts.on_connected(later, dial.connection_id(), peer);
        assert!(contacts.due(later + BACKOFF_MAX, |other| *other == peer).is_empty());
        let dial = contacts.due(later + BACKOFF_MAX, nobody).pop().unwrap();
        assert!(contacts.on_failed(later, dial.connection_id()).is_some(), "news again");
    }

    #[test]
    fn this_node_and_strangers_are_left_alone() {
        let now = Instant::now();
        let (me, stranger) = ordered_peers();
        let mut contacts = Contacts::new(me, Over::Tcp);
        contacts.hear(now, me);
        contacts.ask(now, address());
        let dial = contacts.due(now, nobody).pop().unwrap();
        assert_eq!(contacts.on_self(dial.connection_id()).unwrap().address, address());
        assert!(contacts.due(now + BACKOFF_MAX, nobody).is_empty());
        contacts.hear(now, stranger);
        assert_eq!(contacts.due(now, nobody).len(), 1);
        contacts.on_foreign(now, &stranger);
        assert!(contacts.due(now + BACKOFF_MAX / 2, nobody).is_empty());
    }

    #[test]
    fn the_found_are_bounded_and_forgotten() {
        let now = Instant::now();
        let mut contacts = Contacts::new(PeerId::random(), Over::Tcp);
        for _ in 0..=CONTACTS_MAX {
            contacts.hear(now, PeerId::random());
        }
        assert_eq!(contacts.contacts.len(), CONTACTS_MAX);
        contacts.due(now + FORGET, nobody);
        assert!(contacts.contacts.is_empty());
    }
}
