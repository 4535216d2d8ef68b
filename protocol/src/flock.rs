//! The picture that a node has of its flock: who is there, how fast, how loaded, at what price.
//! Built from adverts, which may be lost, late or lies; bounded; forgotten unless renewed.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    cost::Provider,
    id::{ModelId, NodeId, SessionId},
    time::Timestamp,
    wire::{Ask, NodeAdvert, PriceAdvert, SessionAdvert},
};

/// Limits of the picture.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The most nodes known at a time.
    pub nodes_max: usize,
    /// The most sessions of others known at a time.
    pub sessions_max: usize,
    /// The most of these that one requester may take up.
    pub sessions_each_max: usize,
    /// No advert holds longer than this, whatever it says.
    pub ttl_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nodes_max: 4096,
            sessions_max: 8192,
            sessions_each_max: 256,
            ttl_max: Duration::from_secs(1800),
        }
    }
}

/// One node as it last described itself.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its advert; `ask` may be fresher than the rest.
    pub advert: NodeAdvert,
    /// When it is forgotten.
    pub expires: Timestamp,
    /// When its price was last heard.
    pub priced: Timestamp,
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
    // Nothing runs out before these, so there is nothing to look for.
    nodes_run_until: Option<Timestamp>,
    sweep_at: Timestamp,
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

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Known> {
        self.nodes.get(id)
    }

    /// Sessions that others advertise, with those that have run out a moment ago.
    pub fn sessions(&self) -> impl Iterator<Item = (&SessionId, &SessionAdvert)> {
        self.sessions.iter().map(|(id, (advert, _))| (id, advert))
    }

    /// What one session wants.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> Option<&SessionAdvert> {
        self.sessions.get(id).map(|(advert, _)| advert)
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
            Some(old) if !is_news(&advert.ask, &old.advert.ask) => old.advert.ask,
            _ => advert.ask,
        };
        let advert = NodeAdvert { ask, ..advert };
        self.nodes.insert(from, Known { advert, expires, priced: now });
        self.nodes_run_until = Some(self.nodes_run_until.map_or(expires, |t| t.min(expires)));
        Reception::Fresh
    }

    /// Takes in a new price. A node that has not introduced itself has none.
    pub fn hear_price(&mut self, now: Timestamp, from: NodeId, price: &PriceAdvert) -> Reception {
        let Some(known) = self.nodes.get_mut(&from) else {
            return Reception::Stale;
        };
        if !is_news(&price.ask, &known.advert.ask) {
            return Reception::Stale;
        }
        known.advert.ask = price.ask;
        known.advert.memory_free = price.memory_free;
        known.priced = now;
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
        if !self.sessions.contains_key(&id) && self.is_full_for(from) {
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
    pub fn hear_ask(&mut self, now: Timestamp, from: NodeId, ask: Ask) {
        let Some(known) = self.nodes.get_mut(&from) else { return };
        if is_news(&ask, &known.advert.ask) {
            known.advert.ask = ask;
        }
        if ask.version >= known.advert.ask.version {
            known.priced = now;
        }
    }

    /// Forgets a node that is known to be gone. Its next advert brings it back.
    pub fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
        self.sessions.retain(|id, _| id.requester != *node);
    }

    /// Forgets all whose adverts have run out, and returns the nodes among them.
    pub fn expire(&mut self, now: Timestamp) -> Vec<NodeId> {
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP_EVERY;
            self.sessions.retain(|_, (_, expires)| *expires > now);
            self.sequences.retain(|_, (_, expires)| *expires > now);
        }
        if self.nodes_run_until.is_none_or(|until| until > now) {
            return Vec::new();
        }
        let ended = |entry: &(&NodeId, &Known)| entry.1.expires <= now;
        let gone: Vec<NodeId> = self.nodes.iter().filter(ended).map(|(id, _)| *id).collect();
        for node in &gone {
            self.nodes.remove(node);
        }
        self.nodes_run_until = self.nodes.values().map(|known| known.expires).min();
        gone
    }

    /// When [`expire`](Self::expire) should look next: never after a node's time is up.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.nodes_run_until
    }

    fn is_full_for(&self, requester: NodeId) -> bool {
        let id = |number| SessionId { requester, number };
        self.sessions.len() >= self.config.sessions_max
            || self.sessions.range(id(0)..=id(u64::MAX)).count() >= self.config.sessions_each_max
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
            byte_seconds: f64::from(self.advert.byte_ps) * 1e-12,
            memory_free: self.advert.memory_free,
        }
    }
}

/// Versions rise. One that is lower by far is of another life, begun by a clock that went back:
/// whoever ignored it would bid at the old price for ever.
fn is_news(ask: &Ask, known: &Ask) -> bool {
    ask.version > known.version || known.version - ask.version > VERSIONS_APART
}

/// No node's price changes so often while a message is on its way. A second of the clock by which
/// versions begin.
const VERSIONS_APART: u64 = 1_000_000;
/// How late a session may be forgotten; nothing hangs on it.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Speed, nats::Nats, wire::Stage};

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
            byte_ps: 0,
            memory_free: 0,
            slots: 1,
            ask: Ask { version, level: Some(Nats(version as i64)), holders: 0 },
            models: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn session(session: u64) -> SessionAdvert {
        SessionAdvert {
            sequence: 1,
            ttl_ms: 1000,
            session,
            model: ModelId([0; 32]),
            stage: Stage::Seeking,
            pieces: Vec::new(),
            places: Vec::new(),
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
        assert_eq!(flock.expire(NOW + Config::default().ttl_max), [node(2)]);
    }

    #[test]
    fn the_freshest_price_wins_wherever_it_comes_from() {
        let mut flock = Flock::default();
        flock.hear_node(NOW, node(1), advert(1, 5));
        flock.hear_ask(NOW, node(1), Ask { version: 7, level: None, holders: 0 });
        flock.hear_node(NOW, node(1), advert(2, 6));
        flock.hear_ask(NOW, node(1), Ask { version: 6, level: Some(Nats(1)), holders: 0 });
        assert_eq!(flock.node(&node(1)).map(|known| known.advert.ask.version), Some(7));
    }

    #[test]
    fn it_is_known_when_a_price_was_last_heard() {
        let mut flock = Flock::default();
        let at = |seconds| NOW + Duration::from_secs(seconds);
        let ask = |version| Ask { version, level: None, holders: 0 };
        let priced = |flock: &Flock| flock.node(&node(1)).map(|known| known.priced);
        flock.hear_node(NOW, node(1), advert(1, 5));
        flock.hear_ask(at(1), node(1), ask(5));
        assert_eq!(priced(&flock), Some(at(1)), "the same price, but it still holds");
        flock.hear_ask(at(2), node(1), ask(4));
        assert_eq!(priced(&flock), Some(at(1)), "that is old");
        flock.hear_price(at(3), node(1), &PriceAdvert { ask: ask(6), memory_free: 0 });
        assert_eq!(priced(&flock), Some(at(3)));
    }

    #[test]
    fn a_clock_that_went_back_is_believed() {
        let mut flock = Flock::default();
        let version = 5_000_000;
        flock.hear_node(NOW, node(1), advert(1, version));
        let hear = |flock: &mut Flock, version| {
            flock.hear_ask(NOW, node(1), Ask { version, level: None, holders: 0 });
            flock.node(&node(1)).map(|known| known.advert.ask.version)
        };
        assert_eq!(hear(&mut flock, version - 1000), Some(version), "that is old");
        assert_eq!(hear(&mut flock, 1000), Some(1000), "that is another life");
    }

    #[test]
    fn the_tables_are_bounded() {
        let config = Config { nodes_max: 2, sessions_max: 1, ..Config::default() };
        let mut flock = Flock::new(config);
        assert_eq!(flock.hear_node(NOW, node(1), advert(1, 1)), Reception::Fresh);
        assert_eq!(flock.hear_node(NOW, node(2), advert(1, 1)), Reception::Fresh);
        assert_eq!(flock.hear_node(NOW, node(3), advert(1, 1)), Reception::Full);
        assert_eq!(flock.hear_node(NOW, node(2), advert(2, 1)), Reception::Fresh, "it is known");
        assert_eq!(flock.hear_session(NOW, node(1), session(1)), Reception::Fresh);
        assert_eq!(flock.hear_session(NOW, node(1), session(2)), Reception::Full);
    }

    #[test]
    fn one_requester_can_not_fill_the_table_of_sessions() {
        let mut flock = Flock::new(Config { sessions_each_max: 1, ..Config::default() });
        assert_eq!(flock.hear_session(NOW, node(1), session(1)), Reception::Fresh);
        assert_eq!(flock.hear_session(NOW, node(1), session(2)), Reception::Full);
        assert_eq!(flock.hear_session(NOW, node(2), session(1)), Reception::Fresh);
    }

    #[test]
    fn a_price_is_news_of_a_known_node_only() {
        let mut flock = Flock::default();
        let price = |version| PriceAdvert {
            ask: Ask { version, level: Some(Nats(1)), holders: 2 },
            memory_free: 7,
        };
        assert_eq!(flock.hear_price(NOW, node(1), &price(5)), Reception::Stale);
        flock.hear_node(NOW, node(1), advert(1, 4));
        assert_eq!(flock.hear_price(NOW, node(1), &price(5)), Reception::Fresh);
        assert_eq!(flock.hear_price(NOW, node(1), &price(5)), Reception::Stale);
        assert_eq!(flock.node(&node(1)).map(|known| known.advert.memory_free), Some(7));
    }
}
