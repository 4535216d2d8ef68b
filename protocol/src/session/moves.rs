//! Departures and churn (design: Xu et al. 2023 has none; this is ours): a place that becomes free,
//! a newcomer, a provider that slows down. The pieces that gain more than a move costs move, and
//! nothing else does.
//!
//! A move is make-before-break. The piece bids at its new provider while it keeps its old place;
//! the new provider loads it while the old one computes; then requests wait until those on their
//! way are answered, all hops are told of the new epoch, and the old place is given back.

use std::collections::BTreeSet;

use super::{Config, Phase, Session, View};
use crate::{
    id::NodeId,
    market::Moving,
    node::{Event, Output},
    time::Timestamp,
    wire::Lease,
};

/// Pieces that load at their second places.
#[derive(Clone, Debug)]
pub(super) struct Migration {
    epoch: u32,
    since: Timestamp,
    sent: Timestamp,
    // Where every piece will be.
    placement: Vec<NodeId>,
    moving: BTreeSet<u16>,
    ready: BTreeSet<u16>,
    // Since when all of them are.
    ready_at: Option<Timestamp>,
}

impl Session {
    /// Holds all places against the prices and rates of today. Says whether any piece bids.
    pub(super) fn review(
        &mut self,
        now: Timestamp,
        view: &View<'_>,
        moving: Moving,
        out: &mut Vec<Output>,
    ) -> bool {
        if !self.bidder.is_placed() {
            return false;
        }
        self.refresh_candidates(view);
        let prices = self.prices(view);
        let quote = |node: &NodeId| prices.ask(node);
        let bids = self.bidder.review(now, &quote, moving);
        let any = !bids.is_empty();
        for (to, message) in bids {
            self.send(to, message, out);
        }
        any
    }

    /// The second places of all pieces become their only ones. Returns what to give back.
    pub(super) fn take_seconds(&mut self) -> Vec<(NodeId, Lease)> {
        let moving: Vec<u16> = self.bidder.seconds().map(|(index, _)| index).collect();
        moving.into_iter().filter_map(|index| self.bidder.take_second(index)).collect()
    }

    /// A session that streams looks every now and then whether a piece should move, and carries
    /// moves through.
    pub(super) fn review_running(
        &mut self,
        now: Timestamp,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        if self.phase != Phase::Streaming {
            return;
        }
        if self.matching.is_some() {
            // Stable already, in the game's own sense.
            self.reviewed = now;
            return;
        }
        if self.bidder.is_reviewing() {
            self.send_bids(now, view, out);
        }
        if self.migration.is_some() {
            self.carry_on_moving(now, view, out);
        } else if now >= self.reviewed + view.config.review_every {
            self.reviewed = now;
            self.forecast = None;
            self.review(now, view, Moving::Running, out);
            self.replan(now, view, out);
        }
    }

    pub(super) fn streaming_deadline(&self, config: &Config) -> Timestamp {
        let review = match &self.migration {
            Some(Migration { ready_at: Some(ready), .. }) => *ready + config.drain_max,
            Some(migration) => migration.sent + config.install_every,
            None => self.reviewed + config.review_every,
        };
        let stall = self.requests.waiting_since().map(|since| since + self.stall_after(config));
        let repeat = self.bidder.deadline(config.bid_patience);
        stall.into_iter().chain(repeat).fold(review, Ord::min)
    }

    /// The places of a running session have changed: a piece has been turned out and goes to its
    /// second place, or a second place has been won and can be made ready.
    pub(super) fn follow_places(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Some(placement) = self.bidder.placement() else { return };
        if placement != self.installed {
            self.was_running = true;
            self.migration = None;
            self.requests.hold_back(now);
            self.phase = Phase::Settling { until: now + view.config.settle };
            return;
        }
        if self.phase != Phase::Streaming || self.bidder.is_reviewing() {
            return;
        }
        if self.migration.is_none() {
            self.begin_migration(now, placement, out);
        }
        self.switch_if_ready(now, view, out);
    }

    /// Whether requests wait for a switch to new places.
    pub(super) fn is_switching(&self) -> bool {
        self.migration.as_ref().is_some_and(Migration::is_ready)
    }

    /// Whether a migration is under way to this epoch.
    pub(super) fn moves_to(&self, epoch: u32) -> bool {
        self.migration.as_ref().is_some_and(|migration| migration.epoch == epoch)
    }

    /// A second place is ready. Says whether this was about one.
    pub(super) fn on_second_ready(&mut self, from: NodeId, index: u16, epoch: u32) -> bool {
        let Some(migration) = self.migration.as_mut().filter(|m| m.epoch == epoch) else {
            return false;
        };
        let ours = migration.moving.contains(&index)
            && migration.placement.get(usize::from(index)) == Some(&from);
        if ours {
            migration.ready.insert(index);
        }
        ours
    }

    /// A second place can't be made ready: the piece stays where it is.
    pub(super) fn on_move_failed(
        &mut self,
        now: Timestamp,
        from: NodeId,
        lease: Lease,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        if self.bidder.second_attempt(lease.index) == Some(lease.attempt) {
            let until = now + view.config.exclusion;
            self.bidder.on_excluded(from, lease.index, lease.attempt, until);
            self.give_back(from, lease, out);
            self.abandon_migration(out);
        }
    }

    fn begin_migration(
        &mut self,
        now: Timestamp,
        mut placement: Vec<NodeId>,
        out: &mut Vec<Output>,
    ) {
        let seconds: Vec<(u16, NodeId)> = self.bidder.seconds().collect();
        if seconds.is_empty() {
            return;
        }
        for (index, node) in &seconds {
            if let Some(place) = placement.get_mut(usize::from(*index)) {
                *place = *node;
            }
        }
        let moving = seconds.into_iter().map(|(index, _)| index).collect();
        let ready = BTreeSet::new();
        self.epochs += 1;
        self.migration = Some(Migration {
            epoch: self.epochs,
            since: now,
            sent: now,
            placement,
            moving,
            ready,
            ready_at: None,
        });
        self.send_second_installs(out);
    }

    fn carry_on_moving(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Some(migration) = self.migration.as_mut() else { return };
        if migration.ready_at.is_some() {
            self.switch_if_ready(now, view, out);
        } else if now >= migration.since + view.config.move_max {
            // They may be slow, or gone: not again so soon.
            let slow: Vec<NodeId> = self.bidder.seconds().map(|(_, node)| node).collect();
            for node in slow {
                self.bidder.exclude(node, now + view.config.exclusion);
            }
            self.abandon_migration(out);
        } else if now >= migration.sent + view.config.install_every {
            migration.sent = now;
            self.send_second_installs(out);
        }
    }

    fn send_second_installs(&mut self, out: &mut Vec<Output>) {
        let Some(migration) = self.migration.clone() else { return };
        for index in migration.moving.difference(&migration.ready) {
            let attempt = self.bidder.second_attempt(*index).unwrap_or(0);
            self.send_install(*index, attempt, migration.epoch, &migration.placement, out);
        }
    }

    /// All second places are ready, and no request is under way, or none has been answered for so
    /// long that it is better replayed: everyone changes to the new epoch.
    pub(super) fn switch_if_ready(
        &mut self,
        now: Timestamp,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        let Some(migration) = self.migration.as_mut() else { return };
        if !migration.is_ready() {
            return;
        }
        let since = *migration.ready_at.get_or_insert(now);
        if !self.requests.is_idle() && now < since + view.config.drain_max {
            return;
        }
        self.requests.hold_back(now);
        let (epoch, ready) = (migration.epoch, migration.ready.clone());
        if ready.iter().any(|index| self.bidder.second_attempt(*index).is_none()) {
            return self.abandon_migration(out);
        }
        self.migration = None;
        let left = self.take_seconds();
        self.epoch = epoch;
        let pieces = ready.len();
        out.push(Output::Event(Event::Moved { session: self.id.number, pieces }));
        for (to, lease) in left {
            self.give_back(to, lease, out);
        }
        self.begin_install(now, ready, view, out);
    }

    /// Everything stays where it is.
    pub(super) fn abandon_migration(&mut self, out: &mut Vec<Output>) {
        self.migration = None;
        let seconds: Vec<u16> = self.bidder.seconds().map(|(index, _)| index).collect();
        for index in seconds {
            if let Some((to, lease)) = self.bidder.drop_second(index) {
                self.give_back(to, lease, out);
            }
        }
    }
}

impl Migration {
    fn is_ready(&self) -> bool {
        self.ready.len() == self.moving.len()
    }
}
