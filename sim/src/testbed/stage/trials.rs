//! What the boards can do, before they have to do it together.

use std::time::{Duration, Instant};

use super::{Failure, Role, Say, Served, Stage};

impl Stage<'_> {
    /// Lets every board run the whole model by itself, all at once: what they take from each other
    /// on this machine, they take from each other in the sessions too.
    pub(in crate::testbed) fn run_alone(&mut self, say: Say<'_>) -> Result<(), Failure> {
        if self.scenario.run.alone_s == 0.0 {
            return Ok(());
        }
        say(&format!("each board alone with the whole model, {} s", self.scenario.run.alone_s));
        for board in 0..self.scenario.boards.len() {
            let arguments = self.arguments.alone(board);
            self.start(board, Role::Alone(board), &arguments)?;
        }
        let over = |stage: &Self| {
            let mut alone =
                stage.running.iter().filter(|running| matches!(running.role, Role::Alone(_)));
            alone.all(|running| running.over)
        };
        self.wait_for("the boards alone", over)?;
        let slow = (0..self.alone.len()).find(|board| self.alone[*board].is_none());
        // A board without the memory for the whole model is no mistake: others will have pieces.
        if let Some(board) = slow {
            let name = &self.arguments.machines[board].name;
            say(&format!("{name} alone: {}", self.reason_of(Role::Alone(board))));
        }
        Ok(())
    }

    /// Lets one board run the whole model for a requester: what its other threads take than those
    /// that compute is what its link costs its processor.
    pub(in crate::testbed) fn run_served(&mut self, say: Say<'_>) -> Result<(), Failure> {
        if self.scenario.run.alone_s == 0.0 {
            return Ok(());
        }
        say("the best board with the whole model, over its link");
        let boards = self.scenario.boards.len();
        let machine = self.scenario.machine_of(&self.scenario.sessions[0]);
        self.start(machine, Role::Trial, &self.arguments.served(boards))?;
        let over = |stage: &Self| {
            stage.running.iter().any(|running| running.role == Role::Trial && running.over)
        };
        self.wait_for("a board over its link", |stage| stage.trial.is_ready() || over(stage))?;
        let (began, before) = (Instant::now(), self.handling());
        self.wait_for("a board over its link", over)?;
        let (ended, after) = (Instant::now(), self.handling());
        // Adverts and timers cost the same without any inference, once the piece is dropped.
        self.listen(ended + IDLE)?;
        let (idle_began, idle_before) = (Instant::now(), self.handling());
        self.listen(idle_began + IDLE)?;
        let idle_after = self.handling();
        // A piece that has moved has cost two boards, and its weights' way from one to the other.
        let provider = match self.trial.plans.as_slice() {
            [plan] => plan.first().map(|piece| &piece.provider),
            _ => None,
        };
        let board =
            provider.and_then(|provider| self.nodes.iter().position(|node| node.id == *provider));
        let per_s = self.trial.report.as_ref().and_then(|report| report["per_s"].as_f64());
        let inferences = self.trial.inferences.len().max(1) as f64;
        self.served = board.zip(per_s).map(|(board, per_s)| {
            let idle = idle_after[board] - idle_before[board];
            let idle = idle / idle_began.elapsed().as_secs_f64()
                * ended.duration_since(began).as_secs_f64();
            let handling_s = (after[board] - before[board] - idle).max(0.0) / inferences;
            Served { board, per_s, handling_s }
        });
        if self.served.is_none() {
            say("no board kept it: what a byte costs is not known");
        }
        Ok(())
    }

    /// The core seconds of each board's node so far that were not for computing.
    fn handling(&self) -> Vec<f64> {
        let node = |board| self.running.iter().find(|running| running.role == Role::Node(board));
        let boards = 0..self.nodes.len();
        boards
            .map(|board| node(board).map_or(0.0, |node| node.process.cpu_but(COMPUTING)))
            .collect()
    }
}

const IDLE: Duration = Duration::from_secs(2);
/// How the names of the threads begin that compute.
const COMPUTING: &str = "compute";
