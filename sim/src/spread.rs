//! How a world's nodes gossip: what becomes of a copy, and of what is told and asked.

use std::sync::Arc;

use starling_protocol::{
    node::Input,
    wire::{self, Advert},
};

use crate::{
    delivery::{Delivery, flip},
    gossip,
    journal::Detail,
    ledger::Sighting,
    world::{World, short},
};

impl World {
    pub(crate) fn on_copy(&mut self, place: usize, number: u64, from: u32) {
        if !self.gossip.receive(self.now, place, number) {
            return;
        }
        self.pass_on(place, number, Some(from as usize));
        let rumour = self.gossip.rumour(number).expect("it was received just now");
        self.trace.advert(self.now, place, &rumour.from, &rumour.digest);
        let from = rumour.from;
        if self.hidden.contains(&(place, from)) {
            return;
        }
        let advert = Advert::clone(&rumour.advert);
        self.feed(place, Input::Advert { from, advert });
    }

    pub(crate) fn on_heartbeat(&mut self, place: usize) {
        self.graft(place);
        let (ids, others) = self.gossip.heartbeat(self.now, place, &self.alive);
        for other in others {
            self.tell(place, other, ids.len(), |from| Delivery::Tell { from, ids: ids.clone() });
        }
        let life = self.peers[place].life;
        self.push(gossip::HEARTBEAT, place, Delivery::Heartbeat { life });
    }

    pub(crate) fn on_told(&mut self, place: usize, from: u32, ids: &[u64]) {
        self.gossip.on_received(place, ids.len() * gossip::ID_BYTES);
        let missing: Arc<[u64]> = self.gossip.missing(self.now, place, ids).into();
        if !missing.is_empty() {
            self.tell(place, from as usize, missing.len(), |from| Delivery::Ask {
                from,
                ids: missing.clone(),
            });
        }
    }

    pub(crate) fn on_asked(&mut self, place: usize, from: u32, ids: &[u64]) {
        self.gossip.on_received(place, ids.len() * gossip::ID_BYTES);
        self.ledger.see(Sighting::GossipRepaired);
        for number in ids {
            self.send_copy(place, from as usize, *number);
        }
    }

    fn tell(&mut self, place: usize, to: usize, ids: usize, what: impl Fn(u32) -> Delivery) {
        self.gossip.on_sent(place, ids * gossip::ID_BYTES);
        for delay in self.network.transmit(place, to) {
            self.push(delay, to, what(short(place)));
        }
    }

    pub(crate) fn publish(&mut self, place: usize, advert: &Advert) {
        let bytes: Arc<[u8]> =
            wire::encode(advert).expect("nodes publish what fits the wire").into();
        self.ledger.on_advert(bytes.len());
        let id = self.peers[place].id;
        self.note(Detail::Messages, || format!("{id} publishes {advert:?}"));
        let heard = wire::decode(&bytes).expect("what was encoded can be decoded");
        let number = self.gossip.publish(self.now, place, id, heard, bytes);
        self.pass_on(place, number, None);
    }

    fn pass_on(&mut self, place: usize, number: u64, except: Option<usize>) {
        for other in self.gossip.targets(place, except) {
            self.send_copy(place, other, number);
        }
    }

    fn send_copy(&mut self, place: usize, to: usize, number: u64) {
        let Some(rumour) = self.gossip.rumour(number) else { return };
        let bytes = rumour.bytes.len();
        if let Some(bit) = self.network.flipped_bit(bytes) {
            // Its signature is wrong now, so it goes nowhere whatever it says; but reading it
            // must do no harm.
            drop(wire::decode::<Advert>(&flip(&rumour.bytes, bit)));
            self.ledger.see(Sighting::CorruptAdvert);
            return self.gossip.on_sent(place, bytes);
        }
        self.gossip.on_sent(place, bytes);
        for delay in self.network.transmit(place, to) {
            self.push(delay, to, Delivery::Copy { number, from: short(place) });
        }
    }

    pub(crate) fn graft(&mut self, place: usize) {
        for other in self.gossip.graft(place, &self.alive) {
            if self.network.is_cut(place, other) || self.network.is_cut(other, place) {
                continue;
            }
            let delay = self.network.latency(place, other);
            self.push_local(delay, place, Input::Joined(self.peers[other].id));
            self.push_local(delay, other, Input::Joined(self.peers[place].id));
        }
    }
}
