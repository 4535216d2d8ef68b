//! Better cuts for a session that runs. What providers were seen to take corrects what they
//! claim, and others come and go: the plan that was best when the session opened need not be for
//! long.
//!
//! New cuts cost a pause, in which weights travel and all is loaded anew. So they must gain more
//! than that, and are looked for ever more seldom the more often they have changed.

use std::time::Duration;

use super::{Config, Offer, Phase, Planning, Session, View};
use crate::{
    id::NodeId,
    model::Speed,
    node::Output,
    partition::{self, Goal, Planner, Proposal, Worker},
    plan::Plan,
    time::Timestamp,
};

impl Session {
    /// Changes the cuts if that gains enough: at the same providers where they form a pipeline,
    /// else wherever the planner puts its strips. A pipeline for one inference at a time is left
    /// to its pieces, each of which goes where it is better off.
    pub(super) fn replan(&mut self, now: Timestamp, view: &View<'_>, out: &mut Vec<Output>) {
        let at_rest = self.migration.is_none() && !self.bidder.is_reviewing();
        let done = self.replans >= REPLANS_MAX;
        let Planning::By(Planner::Pf, goal) = self.planning else { return };
        if !at_rest || done || now < self.replan_at {
            return;
        }
        self.replan_at = now + self.replan_every(view.config);
        let pairs = self.speeds_now(view).into_iter().zip(&self.speeds);
        if pairs.map(|(now, then)| now.drift(then)).fold(1.0, f64::max) < DRIFT_MIN {
            return;
        }
        let Some(plan) = self.plan.clone() else { return };
        if plan.is_pipeline() && goal == Goal::Latency {
            return;
        }
        let workers = self.workers_without_own(&plan, view);
        let requester = self.id.requester;
        let settings = partition::Settings { seed: self.id.number, ..view.config.plans() };
        let (profile, places) = (&self.profile, &self.installed);
        let present = partition::predict(profile, &plan, places, &workers, requester, &settings);
        let Some(present) = present else { return };
        let present = goal.of(present.latency, present.bottleneck);
        let next = if plan.is_pipeline() {
            let find = |node: &NodeId| workers.iter().find(|worker| worker.node == *node).copied();
            let order: Option<Vec<Worker>> = places.iter().map(find).collect();
            order.and_then(|order| partition::balance(profile, &order))
        } else {
            partition::plan(Planner::Pf, profile, &workers, requester, goal, &settings)
        };
        let pays =
            |next: &Proposal| self.pays(present, goal.of(next.latency, next.bottleneck), view);
        let Some(next) = next.filter(pays) else { return };
        if plan.is_pipeline() {
            self.recut(now, next.plan, out);
        } else if next.plan != plan && has_room(&next.order, &view.workers()) {
            self.replans += 1;
            self.plan_again(now, view, out);
        }
    }

    /// What its providers are believed to be capable of.
    pub(super) fn speeds_now(&self, view: &View<'_>) -> Vec<Speed> {
        let offers = self.installed.iter().map(|node| view.offer(node));
        offers.map(|offer| offer.map_or(Speed::default(), |offer| offer.provider.speed)).collect()
    }

    /// The places stay, and all is loaded anew.
    fn recut(&mut self, now: Timestamp, plan: Plan, out: &mut Vec<Output>) {
        self.replans += 1;
        self.requests.hold_back(now);
        self.plan = Some(plan.clone());
        self.phase = Phase::Slicing;
        out.push(Output::SessionChanged { session: self.id.number });
        out.push(Output::Slice { session: self.id.number, plan });
    }

    /// Whether it is worth a pause to have this latency or bottleneck instead of the present one.
    fn pays(&self, present: f64, next: f64, view: &View<'_>) -> bool {
        let gain = 1.0 - next / present;
        gain > view.config.gain_min_running && gain * HORIZON_SECONDS > self.loading_seconds(view)
    }

    pub(super) fn replan_every(&self, config: &Config) -> Duration {
        config.replan_every * (1 << self.replans.min(REPLANS_MAX))
    }

    /// The providers as they would be without this session.
    fn workers_without_own(&self, plan: &Plan, view: &View<'_>) -> Vec<Worker> {
        let without = |offer: Offer| {
            let own = plan.pieces().iter().zip(&self.installed);
            let own = own.filter(|(_, node)| **node == offer.node);
            let weights: u64 =
                own.clone().map(|(piece, _)| self.profile.piece(piece).weight_bytes).sum();
            let own = u16::try_from(own.count()).unwrap_or(u16::MAX);
            let others = offer.ask.holders.saturating_sub(own);
            let mut provider = offer.provider;
            provider.memory_free = provider.memory_free.saturating_add(weights);
            let room = offer.slots.saturating_sub(others);
            Worker { node: offer.node, provider, sharers: others.saturating_add(1), room }
        };
        view.offers().map(without).collect()
    }
}

/// Whether all of an order find a place beside what is there now: nothing is given back for a place
/// that is not to be had.
fn has_room(order: &[NodeId], workers: &[Worker]) -> bool {
    order.iter().all(|node| {
        let wanted = order.iter().filter(|other| *other == node).count();
        workers.iter().any(|worker| worker.node == *node && wanted <= usize::from(worker.room))
    })
}

/// While no provider's speed has changed by this factor, the auction's outcome stands.
const DRIFT_MIN: f64 = 1.1;
/// For so long a stream is taken to go on.
const HORIZON_SECONDS: f64 = 60.0;
/// So often a stream's cuts change and no more, whatever is promised: it comes to rest.
const REPLANS_MAX: u32 = 4;
