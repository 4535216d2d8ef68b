//! What may go wrong on purpose, as verbs on a [`World`].

use std::{collections::VecDeque, time::Duration};

use starling_protocol::{PieceId, model::Speed, node::Input};

use crate::{
    delivery::Delivery, journal::Detail, ledger::Sighting, network::Flipped, world::World,
};

impl World {
    /// A process dies. The others notice when their connections to it close, one link latency
    /// later; what it had sent before still arrives.
    pub fn crash(&mut self, place: usize) {
        if self.peers[place].node.is_none() {
            return;
        }
        let id = self.peers[place].id;
        self.note(Detail::Events, || format!("{id} crashes"));
        self.sight_crash(place);
        self.end_life(place);
        for other in 0..self.peers.len() {
            if other != place && !self.network.is_cut(place, other) {
                let delay = self.network.latency(place, other);
                self.push_local(delay, other, Input::Left(id));
            }
        }
    }

    /// A process starts that remembers nothing but its identity, in place of the one before,
    /// which dies now if it has not yet.
    pub fn restart(&mut self, place: usize) {
        self.crash(place);
        let peer = &mut self.peers[place];
        let id = peer.id;
        // As a live node takes it from its clock: above all numbers of its earlier lives.
        peer.config.first_sequence += self.now.0 + 1;
        self.note(Detail::Events, || format!("{id} starts again"));
        self.ledger.see(Sighting::Restart);
        self.begin_life(place, Duration::ZERO);
    }

    /// A process freezes: it does nothing, and what happens to it waits.
    pub fn pause(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        if peer.node.is_none() || peer.frozen.is_some() {
            return;
        }
        peer.frozen = Some(VecDeque::new());
        let id = peer.id;
        self.note(Detail::Events, || format!("{id} freezes"));
        self.ledger.see(Sighting::Pause);
    }

    /// A frozen process goes on, with all that waited for it first.
    pub fn resume(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        let Some(waiting) = peer.frozen.take() else { return };
        peer.wake = None;
        let id = peer.id;
        let deadline = peer.node.as_ref().map(starling_protocol::node::Node::deadline);
        self.note(Detail::Events, || format!("{id} goes on, with {} inputs", waiting.len()));
        for what in waiting {
            self.push(Duration::ZERO, place, what);
        }
        if let Some(deadline) = deadline {
            self.arm(place, deadline);
        }
    }

    /// Whether the process at a place is frozen.
    #[must_use]
    pub fn is_paused(&self, place: usize) -> bool {
        self.peers[place].frozen.is_some()
    }

    /// Nothing gets from any of the ones to any of the others, nor back.
    pub fn partition(&mut self, ones: &[usize], others: &[usize]) {
        self.partition_one_way(ones, others);
        self.partition_one_way(others, ones);
    }

    /// Nothing gets from any of the ones to any of the others. Nobody is told: connections don't
    /// close.
    pub fn partition_one_way(&mut self, from: &[usize], to: &[usize]) {
        self.note(Detail::Events, || format!("nothing gets from {from:?} to {to:?}"));
        self.ledger.see(Sighting::Partition);
        for one in from {
            for other in to {
                self.network.cut(*one, *other);
            }
        }
    }

    /// All links carry again, and carry what they are given.
    pub fn heal(&mut self) {
        self.note(Detail::Events, || "all links heal".to_owned());
        self.ledger.see(Sighting::Heal);
        self.network.heal();
    }

    /// Links become as faulty as this, except for their latencies.
    pub fn change_links(&mut self, loss: f64, duplication: f64, reordering: f64) {
        self.note(Detail::Events, || {
            format!("links: loss {loss}, duplication {duplication}, reordering {reordering}")
        });
        let links = self.network.config_mut();
        (links.loss, links.duplication, links.reordering) = (loss, duplication, reordering);
    }

    /// A machine takes this many times as long for everything from now on; 1 is its own pace.
    pub fn slow_down(&mut self, place: usize, factor: f64) {
        let peer = &mut self.peers[place];
        peer.slowness = factor.max(SLOWNESS_MIN);
        let id = peer.id;
        self.note(Detail::Events, || format!("{id} takes {factor} times as long"));
        self.ledger.see(Sighting::SlowDown);
    }

    /// A bit of each message, advert and tensor is flipped with this probability, on every link.
    /// Connections are secured and adverts signed, so it is noticed and what it befell is dropped.
    pub fn corrupt(&mut self, probability: f64) {
        self.note(Detail::Events, || format!("bits flip with probability {probability}"));
        self.network.flip_bits(probability, Flipped::Dropped);
    }

    /// As [`corrupt`](Self::corrupt), but nothing secures the connections: a message that decodes
    /// all the same is heard.
    pub fn garble(&mut self, probability: f64) {
        self.note(Detail::Events, || format!("messages are garbled: {probability}"));
        self.network.flip_bits(probability, Flipped::Heard);
    }

    /// A provider starts again that advertises this many times its real speed, and reports its
    /// runs to itself as though it had it.
    pub fn lie(&mut self, place: usize, factor: f64) {
        let peer = &mut self.peers[place];
        let claimed = peer.speed.0.map(|real| ((real as f64 * factor) as u64).max(1));
        peer.config.speed = Speed(claimed);
        let id = peer.id;
        self.note(Detail::Events, || format!("{id} claims {factor} times its speed"));
        self.ledger.see(Sighting::Lie);
        if self.now == starling_protocol::Timestamp(0) {
            // Nobody has heard the truth yet.
            self.peers[place].node = None;
            self.begin_life(place, Duration::ZERO);
        } else {
            self.restart(place);
        }
    }

    /// What was on its way to a process that is dead. Only whoever sends a tensor learns of it.
    pub(crate) fn bounce(&mut self, place: usize, what: Delivery) {
        if let Delivery::Frame(frame) = what {
            let from = frame.from as usize;
            let piece = PieceId { session: frame.session, index: frame.sent_by };
            let input = Input::EdgeFailed { piece, epoch: frame.epoch };
            let delay = self.network.latency(place, from);
            self.push_local(delay, from, input);
        }
    }

    fn end_life(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        peer.node = None;
        let waiting = peer.frozen.take().unwrap_or_default();
        for what in &waiting {
            self.lose(what);
        }
        self.count_the_living();
        self.gossip.forget(place);
        self.inference.forget(place, self.peers[place].id);
        self.ledger.on_crash(self.peers[place].id);
    }

    fn sight_crash(&mut self, place: usize) {
        self.ledger.see(Sighting::Crash);
        if self.inference.is_busy(self.now, place) {
            self.ledger.see(Sighting::CrashWhileComputing);
        }
    }
}

/// Nothing is infinitely fast.
const SLOWNESS_MIN: f64 = 1e-6;
