//! What the boards can do, before they have to do it together.

use std::time::{Duration, Instant};

use super::{Failure, Role, Say, Served, Stage, Traffic};

impl Stage<'_> {
    /// Lets every board run the whole model by itself, all at once: what they take from each other
    /// on this machine, they take from each other in the sessions too.
    pub(in crate::testbed) fn run_alone(&mut self, say: Say<'_>) -> Result<(), Failure> {
        if self.scenario.run.alone_s == 0.0 {
            return Ok(());
        }
        say(&format!("each board alone with the whole model, {} s", self.scenario.run.alone_s));
        self.alone = self.try_alone()?;
        let slow = (0..self.alone.len()).find(|board| self.alone[*board].is_none());
        // A board without the memory for the whole model is no mistake: others will have pieces.
        if let Some(board) = slow {
            let name = &self.arguments.machines[board].name;
            say(&format!("{name} alone: {}", self.reason_of(Role::Alone(board))));
        }
        Ok(())
    }

    /// The same once more after the sessions, for what became of the machine meanwhile. Not if
    /// events have changed the boards.
    pub(in crate::testbed) fn run_alone_again(&mut self, say: Say<'_>) -> Result<(), Failure> {
        if self.alone.iter().all(Option::is_none) || !self.scenario.events.is_empty() {
            return Ok(());
        }
        say("each board alone once more");
        self.alone_again = self.try_alone()?;
        Ok(())
    }

    /// Outputs a second of each board, where it made some.
    fn try_alone(&mut self) -> Result<Vec<Option<f64>>, Failure> {
        let boards = self.scenario.boards.len();
        self.rates = vec![None; boards];
        for board in 0..boards {
            let arguments = self.arguments.alone(board);
            self.start(board, Role::Alone(board), &arguments)?;
        }
        let over = |stage: &Self| {
            let mut alone =
                stage.running.iter().filter(|running| matches!(running.role, Role::Alone(_)));
            alone.all(|running| running.over)
        };
        self.wait_for("the boards alone", over)?;
        Ok(self.rates.clone())
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
        let began = self.handled()?;
        self.wait_for("a board over its link", over)?;
        let ended = self.handled()?;
        // Adverts and timers cost the same without any inference, once the piece is dropped.
        self.listen(ended.at + IDLE)?;
        let idle_began = self.handled()?;
        self.listen(idle_began.at + IDLE)?;
        let idle_ended = self.handled()?;
        // The bytes of a piece that has moved were handled by two boards.
        let provider = match self.trial.plans.as_slice() {
            [plan] => plan.first().map(|piece| &piece.provider),
            _ => None,
        };
        let board =
            provider.and_then(|provider| self.nodes.iter().position(|node| node.id == *provider));
        let per_s = self.trial.report.as_ref().and_then(|report| report["per_s"].as_f64());
        self.served = board.zip(per_s).and_then(|(board, per_s)| {
            let (busy, idle) = (ended.since(&began, board), idle_ended.since(&idle_began, board));
            Some(Served { board, per_s, core_s_per_byte: busy.core_s_per_byte(&idle)? })
        });
        if self.served.is_none() {
            say("no board kept it: what a byte costs is not known");
        }
        Ok(())
    }

    /// What it took the boards' nodes to handle bytes so far.
    fn handled(&self) -> Result<Handled, Failure> {
        let node = |board| self.running.iter().find(|running| running.role == Role::Node(board));
        let computing = |board| node(board).map_or(0.0, |node| node.process.cpu_of(COMPUTING));
        // Not the sum of the other threads: those that end would take what they used with them.
        let core_s = self.used()?.into_iter().enumerate();
        let core_s = core_s.map(|(board, used)| used - computing(board)).collect();
        Ok(Handled { at: Instant::now(), core_s, traffic: self.lan.traffic()? })
    }
}

/// What it took nodes to handle bytes until a moment, by board.
struct Handled {
    at: Instant,
    /// Core seconds of threads that don't compute.
    core_s: Vec<f64>,
    traffic: Vec<Traffic>,
}

/// The same of one node, in some time.
struct Handling {
    seconds: f64,
    core_s: f64,
    /// Both ways over its cable.
    bytes: f64,
}

impl Handled {
    fn since(&self, before: &Self, board: usize) -> Handling {
        let moved = self.traffic[board].since(before.traffic[board]);
        Handling {
            seconds: self.at.duration_since(before.at).as_secs_f64(),
            core_s: self.core_s[board] - before.core_s[board],
            bytes: (moved.sent + moved.received) as f64,
        }
    }
}

impl Handling {
    /// The core seconds of a byte, beside what goes on in an idle node. All that passed counts, and
    /// not only tensors: weights may still be on their way.
    fn core_s_per_byte(&self, idle: &Self) -> Option<f64> {
        let share = self.seconds / idle.seconds;
        let (core_s, bytes) = (self.core_s - idle.core_s * share, self.bytes - idle.bytes * share);
        (bytes > 0.0).then(|| (core_s / bytes).max(0.0))
    }
}

const IDLE: Duration = Duration::from_secs(2);
/// How the names of the threads begin that compute.
const COMPUTING: &str = "compute";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_costs_what_an_idle_node_does_not_use() {
        let used = |core_s, bytes, seconds| Handling { seconds, core_s, bytes };
        let check = |busy: &Handling, idle: &Handling, expected| {
            assert_eq!(busy.core_s_per_byte(idle), expected);
        };
        check(&used(0.5, 5e6, 4.0), &used(0.0, 0.0, 2.0), Some(1e-7));
        check(&used(0.5, 6e6, 4.0), &used(0.05, 5e5, 2.0), Some(8e-8));
        check(&used(0.1, 6e6, 4.0), &used(0.2, 5e5, 2.0), Some(0.0));
        check(&used(0.1, 1e5, 4.0), &used(0.0, 1e5, 2.0), None);
    }
}
