//! From the picture of the flock to a plan, and from an auction's outcome to better cuts.

use super::{Agreement, PlacedPiece, Planning, Session, View};
use crate::{
    cost,
    id::NodeId,
    partition::{self, Worker},
    plan::Plan,
    time::Timestamp,
};

impl Session {
    /// A plan, and for whom each piece is meant; for nobody where the auction decides.
    pub(super) fn make_plan(&self, view: &View<'_>) -> Option<(Plan, Vec<NodeId>)> {
        let workers: Vec<Worker> = view
            .offers()
            .filter(|offer| offer.ask.level.is_some() && !self.excluded.contains(&offer.node))
            .map(|offer| Worker {
                node: offer.node,
                provider: offer.provider,
                sharers: offer.ask.holders.saturating_add(1),
            })
            .collect();
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
            Planning::Pf(goal) => {
                // A session that keeps failing asks for less: one provider at a time.
                let pieces_max = if self.strikes > view.config.strikes_max / 2 {
                    1
                } else {
                    view.config.pieces_max
                };
                let best = partition::propose(
                    &self.profile,
                    &workers,
                    *goal,
                    pieces_max,
                    view.config.gain_min,
                )?;
                Some((best.plan, Vec::new()))
            }
        }
    }

    /// The auction says who; with providers and shares known, the cuts are fitted to them. Any
    /// order of unequal providers is as fair as any other, so fitting costs no fairness.
    pub(super) fn move_cuts(&mut self, placement: &[NodeId], view: &View<'_>) {
        let (Planning::Pf(_), Some(plan)) = (&self.planning, &self.plan) else {
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
        let times = plan.pieces().iter().zip(&workers).map(|(piece, worker)| {
            let piece = self.profile.piece(piece);
            cost::seconds(&piece, &worker.provider) * f64::from(worker.sharers)
        });
        let bottleneck = times.fold(0.0, f64::max);
        let gain_min =
            if self.was_running { view.config.gain_min_running } else { view.config.gain_min };
        if best.bottleneck < bottleneck * (1.0 - gain_min) {
            self.plan = Some(best.plan);
        }
    }

    pub(super) fn worker(&self, node: &NodeId, view: &View<'_>) -> Option<Worker> {
        let offer = view.offer(node)?;
        let sharers = offer.ask.holders.max(1);
        Some(Worker { node: *node, provider: offer.provider, sharers })
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
                layers: planned.layers,
                rows: planned.rows.first().copied(),
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
