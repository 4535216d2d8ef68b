//! The picture that a node has of its flock: who is there, how fast, how loaded, at what price.
//! Built from adverts, which may be lost, late or lies; bounded; forgotten unless renewed.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    cost::Provider,
    id::{ModelId, NodeId, SessionId},
    time::Timestamp,
    wire::{Ask, NodeAdvert, SessionAdvert},
};

/// Limits of the picture.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The most nodes known at a time.
    pub nodes_max: usize,
    /// The most sessions of others known at a time.
    pub sessions_max: usize,
    /// No advert holds longer than this, whatever it says.
    pub ttl_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { nodes_max: 4096, sessions_max: 8192, ttl_max: Duration::from_secs(120) }
    }
}

/// One node as it last described itself.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its advert; `ask` may be fresher than the rest.
    pub advert: NodeAdvert,
    /// When it is forgotten.
    pub expires: Timestamp,
}

/// What became of an advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It told something new.
    Fresh,
    /// It is no newer than what is known.
    Stale,
    /// The table is full of nodes that are still alive.
    Full,
}

/// The picture.
#[derive(Clone, Debug, Default)]
pub struct Flock {
    config: Config,
    nodes: BTreeMap<NodeId, Known>,
    sessions: BTreeMap<SessionId, (SessionAdvert, Timestamp)>,
    // Sequence numbers outlive the entry, or a late advert would raise the dead.
    sequences: BTreeMap<NodeId, (u64, Timestamp)>,
}

impl Flock {
    /// An empty picture.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Everybody known, in order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &Known)> {
        self.nodes.iter()
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Known> {
        self.nodes.get(id)
    }

    /// Sessions that others advertise.
    pub fn sessions(&self) -> impl Iterator<Item = (&SessionId, &SessionAdvert)> {
        self.sessions.iter().map(|(id, (advert, _))| (id, advert))
    }

    /// Those who say that they hold weights of `model`.
    pub fn holders(&self, model: ModelId) -> impl Iterator<Item = NodeId> {
        let holds = move |known: &Known| known.advert.models.contains(&model);
        self.nodes.iter().filter(move |(_, known)| holds(known)).map(|(id, _)| *id)
    }

    /// Takes in what a node says of itself.
    pub fn hear_node(&mut self, now: Timestamp, from: NodeId, advert: NodeAdvert) -> Reception {
        let known = self.nodes.contains_key(&from);
        if !known && self.nodes.len() >= self.config.nodes_max {
            return Reception::Full;
        }
        match self.pass_sequence(now, from, advert.sequence) {
            Reception::Fresh => {}
            refused => return refused,
        }
        let expires = now + self.ttl(advert.ttl_ms);
        let ask = match self.nodes.get(&from) {
            Some(old) if old.advert.ask.version > advert.ask.version => old.advert.ask,
            _ => advert.ask,
        };
        self.nodes.insert(from, Known { advert: NodeAdvert { ask, ..advert }, expires });
        Reception::Fresh
    }

    /// Takes in what a session wants.
    pub fn hear_session(
        &mut self,
        now: Timestamp,
        from: NodeId,
        advert: SessionAdvert,
    ) -> Reception {
        let id = SessionId { requester: from, number: advert.session };
        if !self.sessions.contains_key(&id) && self.sessions.len() >= self.config.sessions_max {
            return Reception::Full;
        }
        // A session's adverts are ordered among themselves: one that gossip delivers after a later
        // node advert is news all the same.
        if self.sessions.get(&id).is_some_and(|(old, _)| old.sequence >= advert.sequence) {
            return Reception::Stale;
        }
        let expires = now + self.ttl(advert.ttl_ms);
        self.sessions.insert(id, (advert, expires));
        Reception::Fresh
    }

    /// Takes in a farewell. Says whether it was news.
    pub fn hear_leaving(&mut self, now: Timestamp, from: NodeId, sequence: u64) -> Reception {
        let reception = self.pass_sequence(now, from, sequence);
        if reception == Reception::Fresh {
            self.forget(&from);
        }
        reception
    }

    /// Takes in a price that came with a market message.
    pub fn hear_ask(&mut self, from: NodeId, ask: Ask) {
        if let Some(known) = self.nodes.get_mut(&from)
            && ask.version > known.advert.ask.version
        {
            known.advert.ask = ask;
        }
    }

    /// Forgets a node that is known to be gone. Its next advert brings it back.
    pub fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
        self.sessions.retain(|id, _| id.requester != *node);
    }

    /// Forgets all whose adverts have run out, and returns the nodes among them.
    pub fn expire(&mut self, now: Timestamp) -> Vec<NodeId> {
        let gone: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, known)| known.expires <= now)
            .map(|(id, _)| *id)
            .collect();
        for node in &gone {
            self.nodes.remove(node);
        }
        self.sessions.retain(|_, (_, expires)| *expires > now);
        self.sequences.retain(|_, (_, expires)| *expires > now);
        gone
    }

    /// When [`expire`](Self::expire) next has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.nodes.values().map(|known| known.expires).min()
    }

    /// Only an advert with a higher sequence number than all before it is news.
    fn pass_sequence(&mut self, now: Timestamp, from: NodeId, sequence: u64) -> Reception {
        let expires = now + self.config.ttl_max * 2;
        match self.sequences.get(&from) {
            Some((last, _)) if *last >= sequence => return Reception::Stale,
            Some(_) => {}
            None if self.sequences.len() >= self.config.nodes_max * 2 => return Reception::Full,
            None => {}
        }
        self.sequences.insert(from, (sequence, expires));
        Reception::Fresh
    }

    fn ttl(&self, ttl_ms: u32) -> Duration {
        Duration::from_millis(u64::from(ttl_ms)).min(self.config.ttl_max)
    }
}

impl Known {
    /// This node in the eyes of the cost model.
    #[must_use]
    pub fn provider(&self) -> Provider {
        Provider {
            speed: self.advert.speed,
            bandwidth: self.advert.bandwidth as f64,
            memory_free: self.advert.memory_free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Speed, nats::Nats};

    const NOW: Timestamp = Timestamp(0);

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn advert(sequence: u64, version: u64) -> NodeAdvert {
        NodeAdvert {
            sequence,
            ttl_ms: 1000,
            speed: Speed([1; 5]),
            bandwidth: 1,
            memory_free: 0,
            slots: 1,
            holders: 0,
            ask: Ask { version, level: Some(Nats(version as i64)) },
            models: Vec::new(),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn only_a_higher_sequence_is_news() {
        let mut flock = Flock::default();
        assert_eq!(flock.hear_node(NOW, node(1), advert(5, 1)), Reception::Fresh);
        assert_eq!(flock.hear_node(NOW, node(1), advert(5, 9)), Reception::Stale);
        assert_eq!(flock.hear_node(NOW, node(1), advert(4, 9)), Reception::Stale);
        assert_eq!(flock.hear_node(NOW, node(1), advert(6, 2)), Reception::Fresh);
    }

    #[test]
    fn late_gossip_does_not_raise_the_dead() {
        let mut flock = Flock::default();
        flock.hear_node(NOW, node(1), advert(5, 1));
        assert_eq!(flock.hear_leaving(NOW, node(1), 6), Reception::Fresh);
        assert_eq!(flock.hear_node(NOW, node(1), advert(5, 1)), Reception::Stale);
        assert!(flock.node(&node(1)).is_none());
    }

    #[test]
    fn adverts_run_out_and_none_holds_for_ever() {
        let mut flock = Flock::default();
        flock.hear_node(NOW, node(1), advert(1, 1));
        flock.hear_node(NOW, node(2), NodeAdvert { ttl_ms: u32::MAX, ..advert(1, 1) });
        assert_eq!(flock.expire(NOW + Duration::from_millis(999)), []);
        assert_eq!(flock.expire(NOW + Duration::from_millis(1000)), [node(1)]);
        assert_eq!(flock.expire(NOW + Duration::from_secs(120)), [node(2)]);
    }

    #[test]
    fn the_freshest_price_wins_wherever_it_comes_from() {
        let mut flock = Flock::default();
        flock.hear_node(NOW, node(1), advert(1, 5));
        flock.hear_ask(node(1), Ask { version: 7, level: None });
        flock.hear_node(NOW, node(1), advert(2, 6));
        flock.hear_ask(node(1), Ask { version: 6, level: Some(Nats(1)) });
        assert_eq!(flock.node(&node(1)).map(|known| known.advert.ask.version), Some(7));
    }

    #[test]
    fn the_tables_are_bounded() {
        let config = Config { nodes_max: 2, sessions_max: 1, ..Config::default() };
        let mut flock = Flock::new(config);
        assert_eq!(flock.hear_node(NOW, node(1), advert(1, 1)), Reception::Fresh);
        assert_eq!(flock.hear_node(NOW, node(2), advert(1, 1)), Reception::Fresh);
        assert_eq!(flock.hear_node(NOW, node(3), advert(1, 1)), Reception::Full);
        assert_eq!(flock.hear_node(NOW, node(2), advert(2, 1)), Reception::Fresh, "it is known");
        let session = |session| SessionAdvert {
            sequence: 1,
            ttl_ms: 1000,
            session,
            model: ModelId([0; 32]),
            pieces: Vec::new(),
        };
        assert_eq!(flock.hear_session(NOW, node(1), session(1)), Reception::Fresh);
        assert_eq!(flock.hear_session(NOW, node(1), session(2)), Reception::Full);
    }
}
