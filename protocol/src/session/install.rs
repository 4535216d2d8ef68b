//! Getting the agreed pieces loaded, and what is done when one is not, or when the loaded plan
//! yields nothing.

use std::{collections::BTreeSet, time::Duration};

use super::{Config, Phase, Session, SessionError, View};
use crate::{
    id::NodeId,
    node::{Event, Output},
    plan::Plan,
    time::Timestamp,
    wire::{FailureReason, Lease, Message},
    wiring::Wiring,
};

impl Session {
    pub(super) fn send_installs(&mut self, out: &mut Vec<Output>) {
        let Some(placement) = self.bidder.placement() else {
            return;
        };
        let Phase::Installing { ready, .. } = &self.phase else {
            return;
        };
        let missing: Vec<u16> =
            (0..).take(placement.len()).filter(|i| !ready.contains(i)).collect();
        for index in missing {
            let attempt = self.bidder.attempt_of(index).unwrap_or(0);
            self.send_install(index, attempt, self.epoch, &placement, out);
        }
    }

    /// Tells a piece's provider, in this placement, what to load and who its neighbours are.
    pub(super) fn send_install(
        &mut self,
        index: u16,
        attempt: u32,
        epoch: u32,
        placement: &[NodeId],
        out: &mut Vec<Output>,
    ) {
        let at = usize::from(index);
        let piece = self.plan.as_ref().and_then(|plan| plan.pieces().get(at).cloned());
        let (Some(piece), Some(to), Some((slice, slice_bytes))) =
            (piece, placement.get(at), self.slices.get(at).copied())
        else {
            return;
        };
        let mut wiring = self.wiring(placement);
        let install = Message::Install {
            session: self.id.number,
            index,
            attempt,
            epoch,
            model: self.profile.model(),
            layers: piece.layers,
            rows: piece.rows,
            slice,
            slice_bytes,
            sources: std::mem::take(&mut wiring.sources[at]),
            targets: std::mem::take(&mut wiring.targets[at]),
        };
        self.send(*to, install, out);
    }

    /// The edges of the plan, with its pieces at these nodes.
    fn wiring(&self, placement: &[NodeId]) -> Wiring {
        self.plan.as_ref().map_or_else(Wiring::default, |plan| {
            Wiring::new(&self.profile, plan, placement, self.id.requester)
        })
    }

    /// All pieces but those that are `ready` are to be loaded, or told of the new epoch.
    pub(super) fn begin_install(
        &mut self,
        now: Timestamp,
        ready: BTreeSet<u16>,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        self.installed = self.bidder.placement().unwrap_or_default();
        self.phase = Phase::Installing { since: now, sent: now, ready };
        self.send_installs(out);
        self.stream_if_ready(now, view, out);
    }

    pub(super) fn on_ready(
        &mut self,
        now: Timestamp,
        from: NodeId,
        index: u16,
        epoch: u32,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        if self.on_second_ready(from, index, epoch) {
            return;
        }
        let Phase::Installing { ready, .. } = &mut self.phase else {
            return;
        };
        if epoch == self.epoch && self.installed.get(usize::from(index)) == Some(&from) {
            ready.insert(index);
            self.stream_if_ready(now, view, out);
        }
    }

    fn stream_if_ready(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Phase::Installing { ready, .. } = &self.phase else {
            return;
        };
        let (Some(plan), Some(placement)) = (self.plan.clone(), self.bidder.placement()) else {
            return;
        };
        if ready.len() < placement.len() || placement != self.installed {
            return;
        }
        let epoch = self.epoch;
        self.phase = Phase::Streaming;
        self.was_running = true;
        self.reviewed = now;
        self.speeds = self.speeds_now(view);
        self.replan_at = now + self.replan_every(view.config);
        let agreement = self.agreement(now, &placement, &plan, view);
        let Wiring { inputs, outputs, .. } = self.wiring(&placement);
        out.push(Output::Wire { session: self.id.number, epoch, inputs, outputs });
        out.push(Output::Event(Event::Ready { session: self.id.number, epoch, agreement }));
        self.pump(now, out);
    }

    pub(super) fn on_failed(
        &mut self,
        now: Timestamp,
        from: NodeId,
        lease: Lease,
        reason: FailureReason,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        let Lease { index, attempt } = lease;
        if self.bidder.attempt_of(index) != Some(attempt) {
            // It has moved on since: this was overtaken by an eviction and a new award.
            return;
        }
        match reason {
            FailureReason::NotHeld => {
                self.bidder.on_eviction(from, index, attempt);
            }
            FailureReason::BadSlice | FailureReason::Weights => {
                self.give_back(from, lease, out);
                let until = self.exclude(now, from, reason, view.config);
                self.bidder.on_excluded(from, index, attempt, until);
                self.strike(now, SessionError::NotInstalled(reason), view, out);
            }
            FailureReason::NextHop => self.reinstall(now, view, out),
        }
    }

    /// Until when a provider that could not load its piece gets none. Its link may have failed it,
    /// which passes; a model that is too large for it does not.
    fn exclude(
        &mut self,
        now: Timestamp,
        node: NodeId,
        reason: FailureReason,
        config: &Config,
    ) -> Timestamp {
        let times = self.excluded.get(&node).map_or(0, |before| before.times);
        let until =
            now + config.exclusion_failed.saturating_mul(1 << times.min(EXCLUSION_DOUBLINGS));
        self.excluded.insert(node, Exclusion { until, times: times.saturating_add(1), reason });
        until
    }

    /// Whether a node gets no piece for now.
    pub(super) fn excludes(&self, node: NodeId, view: &View<'_>) -> bool {
        self.exclusion(node, view).is_some()
    }

    fn exclusion(&self, node: NodeId, view: &View<'_>) -> Option<&Exclusion> {
        self.excluded.get(&node).filter(|exclusion| view.now < exclusion.until)
    }

    /// What somebody who is here failed at, and therefore gets no piece for now.
    pub(super) fn failed_of_late(&self, view: &View<'_>) -> Option<SessionError> {
        let exclusion = view.offers().find_map(|offer| self.exclusion(offer.node, view))?;
        Some(SessionError::NotInstalled(exclusion.reason))
    }

    pub(super) fn strike(
        &mut self,
        now: Timestamp,
        error: SessionError,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        self.strikes += 1;
        if self.strikes >= view.config.strikes_max {
            self.release_all(out);
            self.fail(error, out);
        } else if self.strikes == view.config.strikes_max / 2 + 1 {
            // The same plan has failed often enough.
            self.plan_again(now, view, out);
        }
    }

    /// Something between the providers is broken: the same plan, a new epoch, all requests again.
    pub(super) fn reinstall(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        // A broken link is reported once a frame: only the first report of an epoch counts.
        let running = |phase: &Phase| matches!(phase, Phase::Streaming | Phase::Installing { .. });
        if !running(&self.phase) {
            return;
        }
        self.abandon_migration(out);
        self.strike(now, SessionError::Stalled, view, out);
        if !running(&self.phase) {
            return;
        }
        self.requests.hold_back(now);
        self.phase = Phase::Slicing;
        if let Some(plan) = self.plan.clone() {
            out.push(Output::Slice { session: self.id.number, plan });
        }
    }

    pub(super) fn retry_installs(
        &mut self,
        now: Timestamp,
        view: &View<'_>,
        out: &mut Vec<Output>,
    ) {
        let install_max = self.install_max(view);
        let Phase::Installing { since, sent, .. } = &mut self.phase else {
            return;
        };
        if now >= *since + install_max {
            let error = SessionError::NotInstalled(FailureReason::Weights);
            self.start_over(now, error, view, out);
        } else if now >= *sent + view.config.install_every {
            *sent = now;
            self.send_installs(out);
        }
    }

    /// How long the providers have: several times what all weights take over the slowest of their
    /// links, since they may all come over one, the requester's.
    fn install_max(&self, view: &View<'_>) -> Duration {
        let transfer = Duration::try_from_secs_f64(self.loading_seconds(view) * TRANSFERS_MAX);
        let transfer = transfer.unwrap_or(INSTALL_LIMIT).min(INSTALL_LIMIT);
        view.config.install_max.max(transfer)
    }

    /// What all weights take over the slowest link of the providers, in seconds.
    pub(super) fn loading_seconds(&self, view: &View<'_>) -> f64 {
        let plan = self.plan.as_ref();
        let pieces = plan.into_iter().flat_map(Plan::pieces).map(|piece| self.profile.piece(piece));
        let bytes: f64 = pieces.map(|piece| piece.weight_bytes as f64).sum();
        let offers = self.installed.iter().filter_map(|node| view.offer(node));
        let slowest = offers.map(|offer| offer.provider.bandwidth).fold(f64::INFINITY, f64::min);
        bytes / slowest
    }

    pub(super) fn check_stall(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let Some(since) = self.requests.waiting_since() else {
            return;
        };
        if self.phase == Phase::Streaming && now >= since + self.stall_after(view.config) {
            // One of them does not deliver; which one, the next plans will tell.
            for node in self.installed.clone() {
                out.push(Output::Suspect { node });
            }
            self.reinstall(now, view, out);
        }
    }

    pub(super) fn stall_after(&self, config: &Config) -> Duration {
        let latency = Duration::try_from_secs_f64(self.latency * 8.0).unwrap_or(config.install_max);
        // Twice as patient after each failure: a provider may just be slower than it claims.
        config.stall.max(latency) * (1 << self.strikes.min(6))
    }
}

/// A provider that could not load its piece, and gets none for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exclusion {
    until: Timestamp,
    times: u32,
    reason: FailureReason,
}

/// An exclusion gets no longer than so many times twice the first.
const EXCLUSION_DOUBLINGS: u32 = 6;
/// So many times as long as they should take, weights are waited for.
const TRANSFERS_MAX: f64 = 4.0;
/// But never longer than this.
const INSTALL_LIMIT: Duration = Duration::from_secs(3600);
