//! Gossip as it spreads: a mesh with a fan-out, hops, duplicates and a lazy repair.
//!
//! Each node is linked to about six others. It passes an advert on when it sees it for the
//! first time, to all its links but the one that it came from; later copies are dropped. Once a
//! second it tells a few random others which adverts it saw lately, and who misses one asks for
//! it: that repairs what links lose. Every copy and every list of ids is counted in bytes.
//!
//! An advert is decoded once for each publishing, not once for each copy: all nodes are handed
//! what the same bytes decode to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, seq::IteratorRandom};
use rand_chacha::ChaCha12Rng;
use starling_protocol::{NodeId, Timestamp, wire::Advert};

use crate::random::{Purpose, generator};

/// Bytes of adverts, and of ids told and asked for, at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sent, what was passed on for others included.
    pub sent: u64,
    /// Received, duplicates included.
    pub received: u64,
}

/// An advert on its way through the mesh.
pub(crate) struct Rumour {
    /// Its author.
    pub(crate) from: NodeId,
    /// What it says.
    pub(crate) advert: Arc<Advert>,
    /// Its bytes.
    pub(crate) bytes: Arc<[u8]>,
    /// A hash of them, so that a trace needn't hash them again at every node.
    pub(crate) digest: blake3::Hash,
    at: Timestamp,
    // One bit for each node.
    seen: Vec<u64>,
}

/// Who is linked to whom, and who has seen what.
pub(crate) struct Gossip {
    links: Vec<BTreeSet<usize>>,
    loads: Vec<Load>,
    // What each node saw lately, and when.
    recent: Vec<VecDeque<(Timestamp, u64)>>,
    // What each node has asked for lately.
    asked: Vec<BTreeMap<u64, Timestamp>>,
    rumours: VecDeque<Rumour>,
    // The number of the first rumour that is kept.
    first: u64,
    choices: ChaCha12Rng,
}

impl Gossip {
    /// No node yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            links: Vec::new(),
            loads: Vec::new(),
            recent: Vec::new(),
            asked: Vec::new(),
            rumours: VecDeque::new(),
            first: 0,
            choices: generator(seed, Purpose::Gossip),
        }
    }

    /// A node without links, at the next place.
    pub(crate) fn add(&mut self) {
        self.links.push(BTreeSet::new());
        self.loads.push(Load::default());
        self.recent.push(VecDeque::new());
        self.asked.push(BTreeMap::new());
    }

    /// What a node has sent and received.
    pub(crate) fn load(&self, place: usize) -> Load {
        self.loads[place]
    }

    /// Makes up for missing links, and returns the new ones.
    pub(crate) fn graft(&mut self, place: usize, alive: &[usize]) -> Vec<usize> {
        let links = &self.links;
        let wanted = LINKS_MIN.saturating_sub(links[place].len());
        if wanted == 0 {
            return Vec::new();
        }
        let open = |other: &usize| {
            let room = links[*other].len() < LINKS_MAX;
            *other != place && !links[place].contains(other) && room
        };
        let open = alive.iter().copied().filter(open);
        let grafted = open.sample(&mut self.choices, wanted);
        for other in &grafted {
            self.links[place].insert(*other);
            self.links[*other].insert(place);
        }
        grafted
    }

    /// A node remembers nothing any more.
    pub(crate) fn forget(&mut self, place: usize) {
        for other in std::mem::take(&mut self.links[place]) {
            self.links[other].remove(&place);
        }
        self.recent[place].clear();
        self.asked[place].clear();
        for rumour in &mut self.rumours {
            if let Some(word) = rumour.seen.get_mut(place / 64) {
                *word &= !(1 << (place % 64));
            }
        }
    }

    /// An advert is new in the world. Returns its number.
    pub(crate) fn publish(
        &mut self,
        now: Timestamp,
        place: usize,
        from: NodeId,
        advert: Advert,
        bytes: Arc<[u8]>,
    ) -> u64 {
        let old = self.rumours.iter().take_while(|rumour| now.since(rumour.at) > HISTORY).count();
        self.rumours.drain(..old);
        self.first += old as u64;
        let digest = blake3::hash(&bytes);
        let seen = vec![0; self.links.len().div_ceil(64)];
        let advert = Arc::new(advert);
        self.rumours.push_back(Rumour { from, advert, bytes, digest, at: now, seen });
        let number = self.first + self.rumours.len() as u64 - 1;
        self.see(now, place, number);
        number
    }

    /// A rumour, if it is not too old.
    pub(crate) fn rumour(&self, number: u64) -> Option<&Rumour> {
        self.rumours.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// A copy has arrived. Says whether it is the first at this node.
    pub(crate) fn receive(&mut self, now: Timestamp, place: usize, number: u64) -> bool {
        let Some(rumour) = self.rumour(number) else { return false };
        self.loads[place].received += rumour.bytes.len() as u64;
        self.see(now, place, number)
    }

    /// To whom a node passes on what it had from one of them; the links of an author are all.
    pub(crate) fn targets(&self, place: usize, except: Option<usize>) -> Vec<usize> {
        self.links[place].iter().copied().filter(|other| Some(*other) != except).collect()
    }

    /// A node sends so many bytes of gossip.
    pub(crate) fn on_sent(&mut self, place: usize, bytes: usize) {
        self.loads[place].sent += bytes as u64;
    }

    /// A node receives so many bytes that are no advert.
    pub(crate) fn on_received(&mut self, place: usize, bytes: usize) {
        self.loads[place].received += bytes as u64;
    }

    /// What a node tells once a second, and to whom.
    pub(crate) fn heartbeat(
        &mut self,
        now: Timestamp,
        place: usize,
        alive: &[usize],
    ) -> (Arc<[u64]>, Vec<usize>) {
        let recent = &mut self.recent[place];
        while recent.front().is_some_and(|(at, _)| now.since(*at) > TOLD) {
            recent.pop_front();
        }
        self.asked[place].retain(|_, at| now.since(*at) < ASK_AGAIN);
        let ids: Arc<[u64]> = recent.iter().map(|(_, number)| *number).collect();
        let others = alive.iter().copied().filter(|other| *other != place);
        let told = if ids.is_empty() { 0 } else { LAZY };
        (ids, others.sample(&mut self.choices, told))
    }

    /// Those of the rumours that a node has not seen, nor asked anyone for lately.
    pub(crate) fn missing(&mut self, now: Timestamp, place: usize, ids: &[u64]) -> Vec<u64> {
        let unseen = ids
            .iter()
            .copied()
            .filter(|number| self.rumour(*number).is_some_and(|rumour| !rumour.is_seen(place)));
        let unseen: Vec<u64> = unseen.collect();
        let asked = &mut self.asked[place];
        unseen.into_iter().filter(|number| asked.insert(*number, now).is_none()).collect()
    }

    /// How soon after its start a node first tells what it saw.
    pub(crate) fn first_heartbeat(&mut self) -> Duration {
        self.choices.random_range(Duration::ZERO..HEARTBEAT)
    }

    fn see(&mut self, now: Timestamp, place: usize, number: u64) -> bool {
        let Some(index) = number.checked_sub(self.first) else { return false };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(rumour) = self.rumours.get_mut(index) else { return false };
        if rumour.is_seen(place) {
            return false;
        }
        if rumour.seen.len() <= place / 64 {
            rumour.seen.resize(place / 64 + 1, 0);
        }
        rumour.seen[place / 64] |= 1 << (place % 64);
        self.recent[place].push_back((now, number));
        true
    }
}

impl Rumour {
    fn is_seen(&self, place: usize) -> bool {
        self.seen.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }
}

/// How often a node tells what it saw.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// What an id takes in a list of them: an author's id and a sequence number, and their lengths.
pub(crate) const ID_BYTES: usize = 46;
/// A node takes links until it has so many. Others take links to it too, which makes twice as many
/// on average.
const LINKS_MIN: usize = 3;
/// A node with so many links takes no more.
const LINKS_MAX: usize = 12;
/// How many random others a node tells what it saw.
const LAZY: usize = 6;
/// What was seen longer ago is not told any more.
const TOLD: Duration = Duration::from_secs(3);
/// What was asked for in vain is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A copy that arrives later than this after its publishing is taken for a duplicate. Nobody tells
/// of it any more by then.
const HISTORY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(nodes: usize) -> Gossip {
        let mut gossip = Gossip::new(1);
        for place in 0..nodes {
            gossip.add();
            let alive: Vec<usize> = (0..=place).collect();
            gossip.graft(place, &alive);
        }
        gossip
    }

    fn reached(gossip: &Gossip) -> usize {
        let mut reached = BTreeSet::from([0]);
        let mut edge = vec![0];
        while let Some(place) = edge.pop() {
            edge.extend(gossip.targets(place, None).into_iter().filter(|n| reached.insert(*n)));
        }
        reached.len()
    }

    fn publish(gossip: &mut Gossip, now: Timestamp) -> u64 {
        let from = NodeId([1; 32]);
        gossip.publish(now, 0, from, Advert::Leaving { sequence: 1 }, Arc::from([7_u8; 10]))
    }

    #[test]
    fn a_mesh_is_connected_and_nobody_has_many_links() {
        for nodes in [1, 2, 3, 7, 40, 400] {
            let gossip = mesh(nodes);
            assert_eq!(reached(&gossip), nodes);
            let degrees = gossip.links.iter().map(BTreeSet::len);
            assert!(degrees.clone().max() <= Some(LINKS_MAX));
            let mean = degrees.clone().sum::<usize>() as f64 / nodes as f64;
            assert!(mean <= 6.0, "{mean} links");
            assert!(degrees.min() >= Some(LINKS_MIN.min(nodes - 1)));
        }
    }

    #[test]
    fn links_are_made_up_for() {
        let mut gossip = mesh(40);
        let alive: Vec<usize> = (0..40).filter(|place| *place != 3).collect();
        gossip.forget(3);
        assert!(gossip.links[3].is_empty());
        for place in alive.clone() {
            gossip.graft(place, &alive);
            assert!(gossip.links[place].len() >= LINKS_MIN && !gossip.links[place].contains(&3));
        }
    }

    #[test]
    fn only_the_first_copy_is_news_and_all_are_counted() {
        let mut gossip = mesh(4);
        let number = publish(&mut gossip, Timestamp(0));
        let copies = [1, 1, 0, 1].map(|place| gossip.receive(Timestamp(0), place, number));
        assert_eq!(copies, [true, false, false, false]);
        assert_eq!((gossip.load(1).received, gossip.load(0).received), (30, 10));
    }

    #[test]
    fn what_is_missing_is_asked_for_once_at_a_time() {
        let mut gossip = mesh(2);
        let number = publish(&mut gossip, Timestamp(0));
        let (ids, told) = gossip.heartbeat(Timestamp(0), 0, &[0, 1]);
        assert_eq!((&ids[..], told), (&[number][..], vec![1]));
        assert_eq!(gossip.missing(Timestamp(0), 1, &ids), [number]);
        assert!(gossip.missing(Timestamp(0), 1, &ids).is_empty());
        gossip.heartbeat(Timestamp(0) + ASK_AGAIN, 1, &[0, 1]);
        assert_eq!(gossip.missing(Timestamp(0) + ASK_AGAIN, 1, &ids), [number]);
        assert!(gossip.missing(Timestamp(0), 0, &ids).is_empty(), "it is its own");
    }

    #[test]
    fn a_copy_from_long_ago_is_no_news() {
        let mut gossip = mesh(2);
        let number = publish(&mut gossip, Timestamp(0));
        let later = Timestamp(0) + HISTORY + Duration::from_secs(1);
        publish(&mut gossip, later);
        assert!(!gossip.receive(later, 1, number));
        assert_eq!(gossip.rumours.len(), 1);
    }

    #[test]
    fn who_starts_again_hears_all_anew() {
        let mut gossip = mesh(3);
        let number = publish(&mut gossip, Timestamp(0));
        assert!(gossip.receive(Timestamp(0), 1, number));
        gossip.forget(1);
        assert!(gossip.receive(Timestamp(0), 1, number));
    }
}
