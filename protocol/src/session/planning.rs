//! From the picture of the flock to a plan, and from an auction's outcome to better cuts.

use super::{Agreement, Config, PlacedPiece, Planning, Session, View};
use crate::{
    cost,
    id::NodeId,
    partition::{self, Goal, Planner, Worker},
    plan::Plan,
    time::Timestamp,
};

impl Session {
    /// A plan, and for whom each piece is meant; for nobody where the auction decides.
    pub(super) fn make_plan(&self, view: &View<'_>) -> Option<(Plan, Vec<NodeId>)> {
        let mut workers = view.workers();
        workers.retain(|worker| !self.excludes(worker.node, view));
        if workers.is_empty() {
            return None;
        }
        match &self.planning {
            Planning::Fixed(plan) | Planning::Matched(plan) => Some((plan.clone(), Vec::new())),
            Planning::Placed(plan, meant) => {
                let here = |node: &NodeId| workers.iter().any(|worker| worker.node == *node);
                let complete = meant.len() == plan.pieces().len() && meant.iter().all(here);
                complete.then(|| (plan.clone(), meant.clone()))
            }
            Planning::By(planner, goal) => self.propose(*planner, *goal, &workers, view.config),
        }
    }

    fn propose(
        &self,
        planner: Planner,
        goal: Goal,
        workers: &[Worker],
        config: &Config,
    ) -> Option<(Plan, Vec<NodeId>)> {
        // A session that keeps failing asks for less: one provider at a time.
        let fails = self.strikes > config.strikes_max / 2;
        let pieces_max = if fails { 1 } else { config.pieces_max };
        // Another session draws another plan.
        let settings = partition::Settings { pieces_max, seed: self.id.number, ..config.plans() };
        let requester = self.id.requester;
        let best = partition::plan(planner, &self.profile, workers, requester, goal, &settings)?;
        let meant = match planner {
            // Any order of stages is as good as any other, and the auction's is fair.
            Planner::Pf if best.plan.is_pipeline() => Vec::new(),
            // The matching game decides.
            Planner::Dina => Vec::new(),
            // Strips are sized for those who are to compute them.
            _ => best.order,
        };
        Some((best.plan, meant))
    }

    /// The auction says who; with providers and shares known, the cuts are fitted to them. Any
    /// order of unequal providers is as fair as any other, so fitting costs no fairness.
    pub(super) fn move_cuts(&mut self, placement: &[NodeId], view: &View<'_>) {
        let (Planning::By(Planner::Pf, _), Some(plan)) = (&self.planning, &self.plan) else {
            return;
        };
        if !plan.is_pipeline() {
            return;
        }
        let workers: Option<Vec<Worker>> =
            placement.iter().map(|node| self.worker(node, view)).collect();
        let Some(workers) = workers else { return };
        let Some(best) = partition::balance(&self.profile, &workers) else {
            return;
        };
        let stages = plan.pieces().iter().zip(&workers);
        let busy = stages.map(|(piece, worker)| worker.stage(&self.profile.piece(piece)));
        let bottleneck = busy.fold(0.0, f64::max);
        let gain_min =
            if self.was_running { view.config.gain_min_running } else { view.config.gain_min };
        if best.bottleneck < bottleneck * (1.0 - gain_min) {
            self.plan = Some(best.plan);
        }
    }

    pub(super) fn worker(&self, node: &NodeId, view: &View<'_>) -> Option<Worker> {
        let offer = view.offer(node)?;
        let sharers = offer.ask.holders.max(1);
        let room = offer.slots.saturating_sub(offer.ask.holders);
        Some(Worker { node: *node, provider: offer.provider, sharers, room })
    }

    pub(super) fn agreement(
        &self,
        now: Timestamp,
        placement: &[NodeId],
        plan: &Plan,
        view: &View<'_>,
    ) -> Agreement {
        let pieces = plan.pieces().iter().zip(placement).map(|(planned, node)| {
            let piece = self.profile.piece(planned);
            let worker = self.worker(node, view);
            PlacedPiece {
                lane: 0,
                layers: planned.layers,
                rows: planned.rows.clone(),
                provider: *node,
                sharers: worker.map_or(1, |worker| worker.sharers),
                seconds: worker.map_or(f64::INFINITY, |worker| {
                    cost::seconds(&piece, &worker.provider) * f64::from(worker.sharers)
                }),
            }
        });
        let tally = self.bidder.tally();
        Agreement {
            pieces: pieces.collect(),
            rounds: tally.rounds,
            bids: tally.bids,
            messages: self.messages,
            elapsed: now.since(self.auction_began),
        }
    }
}
