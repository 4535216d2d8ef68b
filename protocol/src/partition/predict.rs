//! What a plan will take: the yardstick that all planners share.
//!
//! *Latency* is counted segment by segment, each beginning when the one before is done everywhere.
//! A segment takes as long as its slowest worker does to receive what it needs and to compute it
//! ([`LinkModel::Parallel`]), or as the slowest computation and all transfers one after the other
//! ([`LinkModel::Shared`]). What a worker has already costs no transfer. A link carries what passes
//! it at its own rate and the other end's, whichever is less, and all that one sends at one cut
//! before anybody has the whole of it. Besides, transfers take as long as the slowest processor at
//! their ends does to handle all that it sends and receives at the cut.
//!
//! *The bottleneck* of a stream is the busiest of: each worker's processor, which computes and
//! handles what comes and goes, and each link's bytes in and out, apart, because links are
//! full-duplex; or all transfers together where the medium is shared. Transfers overlap with
//! computing, and one request's with the next one's.
//!
//! The requester's own link is taken to carry whatever those of its workers do.

use super::{
    case::Case,
    layout::Layout,
    planner::Settings,
    worker::{Goal, Worker, transfer},
};
use crate::{
    id::NodeId,
    model::{ModelProfile, PieceProfile},
    plan::{LayerRange, Piece, Plan},
    rows::RowRange,
};

/// How transfers get into each other's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkModel {
    /// Each worker has a link of its own, as behind a switch.
    #[default]
    Parallel,
    /// One transfer at a time, as on one radio channel.
    Shared,
}

impl LinkModel {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Shared => "shared",
        }
    }
}

/// Which way activations go from segment to segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// From worker to worker, as Starling's do.
    #[default]
    Direct,
    /// Back to the requester, which gathers and divides them again, as in MoDNN and EdgeLD.
    Relayed,
}

impl Route {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// What a plan will take, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// One inference, with nothing else in flight; infinite if the plan can't be carried out.
    pub latency: f64,
    /// The inverse of the rate of a stream of inferences.
    pub bottleneck: f64,
}

/// What a plan will take whose pieces are at these nodes, one for each. Nothing if one of them is
/// none of the workers.
#[must_use]
pub fn predict(
    profile: &ModelProfile,
    plan: &Plan,
    placement: &[NodeId],
    workers: &[Worker],
    requester: NodeId,
    settings: &Settings,
) -> Option<Prediction> {
    let layout = Layout::of(plan, placement, workers)?;
    Some(layout.predict(profile, workers, requester, settings))
}

impl Layout {
    /// What it will take. Places that stand for no worker make it impossible.
    #[must_use]
    pub fn predict(
        &self,
        profile: &ModelProfile,
        workers: &[Worker],
        requester: NodeId,
        settings: &Settings,
    ) -> Prediction {
        let (workers, settings) = (workers.to_vec(), *settings);
        Case { profile, workers, requester, goal: Goal::Latency, settings }.predict(self)
    }
}

/// One piece at one worker, as the predictions see it.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// By place.
    pub(super) worker: usize,
    /// Which layers.
    pub(super) layers: LayerRange,
    /// Of computing it; infinite if it does not fit there.
    pub(super) seconds: f64,
    /// The rows of each tensor before it that it takes; none for all.
    pub(super) takes: Vec<RowRange>,
    /// The rows of each tensor after it that it makes; none for all.
    pub(super) makes: Vec<RowRange>,
    /// What else it costs.
    pub(super) cost: PieceProfile,
}

impl Case<'_> {
    /// What a layout will take.
    pub(super) fn predict(&self, layout: &Layout) -> Prediction {
        let placed = layout.segments.iter().flatten();
        let unknown = placed.clone().any(|(_, at)| *at >= self.workers.len());
        let segments: Vec<Vec<Task>> = match unknown {
            true => Vec::new(),
            false => layout.segments.iter().map(|segment| self.tasks(segment)).collect(),
        };
        if segments.is_empty() || !self.fits(&segments) {
            return Prediction { latency: f64::INFINITY, bottleneck: f64::INFINITY };
        }
        let befores = [&[][..]].into_iter().chain(segments.iter().map(Vec::as_slice));
        let one_by_one = befores.zip(&segments).map(|(before, tasks)| self.segment(before, tasks));
        let latency = one_by_one.sum::<f64>() + segments.last().map_or(0.0, |last| self.home(last));
        Prediction { latency, bottleneck: self.bottleneck(&segments) }
    }

    /// What the pieces of a segment come to.
    pub(super) fn tasks(&self, segment: &[(Piece, usize)]) -> Vec<Task> {
        let task = |(piece, worker): &(Piece, usize)| {
            let (cost, takes) = (self.profile.piece(piece), self.profile.needed(piece));
            let makes = if self.profile.rows().is_some() { piece.rows.clone() } else { Vec::new() };
            self.task(*worker, piece.layers, cost, (takes, makes))
        };
        segment.iter().map(task).collect()
    }

    pub(super) fn task(
        &self,
        worker: usize,
        layers: LayerRange,
        cost: PieceProfile,
        (takes, makes): (Vec<RowRange>, Vec<RowRange>),
    ) -> Task {
        let at = &self.workers[worker];
        let seconds = if at.holds(&cost) {
            at.computing(&cost) + self.constant(layers)
        } else {
            f64::INFINITY
        };
        Task { worker, layers, seconds, takes, makes, cost }
    }

    /// Seconds of a segment whose inputs those before it have, the requester if there are none.
    pub(super) fn segment(&self, before: &[Task], tasks: &[Task]) -> f64 {
        let computing = |task: &Task| -> f64 {
            let same = tasks.iter().filter(|other| other.worker == task.worker);
            same.map(|task| task.seconds).sum()
        };
        let slowest = tasks.iter().map(computing).fold(0.0, f64::max);
        if !slowest.is_finite() {
            return f64::INFINITY;
        }
        let (into, back) = (self.arrivals(before, tasks), self.returns(tasks));
        match self.settings.links {
            LinkModel::Shared => self.one_by_one(&into) + slowest + self.one_by_one(&back),
            LinkModel::Parallel => {
                let whole = |task: &Task| {
                    let node = self.workers[task.worker].node;
                    self.receiving(node, &into) + computing(task) + self.sending(node, &back)
                };
                tasks.iter().map(whole).fold(0.0, f64::max)
            }
        }
    }

    /// Seconds until the requester has the outputs, where they have not been relayed already.
    pub(super) fn home(&self, last: &[Task]) -> f64 {
        let home = self.homeward(last);
        match self.settings.links {
            LinkModel::Parallel => self.receiving(self.requester, &home),
            LinkModel::Shared => self.one_by_one(&home),
        }
    }

    /// The transfers before a segment.
    fn arrivals(&self, before: &[Task], tasks: &[Task]) -> Vec<Transfer> {
        let cut = tasks.first().map_or(0, |task| task.layers.first);
        let takers: Vec<End<'_>> = tasks.iter().map(|task| self.end(task, &task.takes)).collect();
        if before.is_empty() || self.settings.route == Route::Relayed {
            return self.transfers(cut, &[self.requester_end()], &takers);
        }
        let makers: Vec<End<'_>> = before.iter().map(|task| self.end(task, &task.makes)).collect();
        self.transfers(cut, &makers, &takers)
    }

    /// The transfers after a segment, which only those that are relayed have.
    fn returns(&self, tasks: &[Task]) -> Vec<Transfer> {
        if self.settings.route == Route::Direct {
            return Vec::new();
        }
        let cut = tasks.first().map_or(0, |task| task.layers.end);
        let makers: Vec<End<'_>> = tasks.iter().map(|task| self.end(task, &task.makes)).collect();
        self.transfers(cut, &makers, &[self.requester_end()])
    }

    fn homeward(&self, last: &[Task]) -> Vec<Transfer> {
        if self.settings.route == Route::Relayed {
            return Vec::new();
        }
        let makers: Vec<End<'_>> = last.iter().map(|task| self.end(task, &task.makes)).collect();
        self.transfers(self.profile.layers(), &makers, &[self.requester_end()])
    }

    fn end<'t>(&self, task: &Task, rows: &'t [RowRange]) -> End<'t> {
        let worker = &self.workers[task.worker];
        End { node: worker.node, rate: worker.rate(), rows }
    }

    fn requester_end(&self) -> End<'static> {
        End { node: self.requester, rate: f64::INFINITY, rows: &[] }
    }

    /// Who sends how much to whom at a cut.
    fn transfers(&self, cut: u16, from: &[End<'_>], to: &[End<'_>]) -> Vec<Transfer> {
        let pairs = from.iter().flat_map(|maker| to.iter().map(move |taker| (maker, taker)));
        let apart = pairs.filter(|(maker, taker)| maker.node != taker.node);
        let transfer = |(maker, taker): (&End<'_>, &End<'_>)| {
            let bytes = self.common(cut, maker.rows, taker.rows);
            let (from, to, rates) = (maker.node, taker.node, (maker.rate, taker.rate));
            (bytes > 0).then_some(Transfer { from, to, rates, bytes, handling: 0.0 })
        };
        let mut transfers: Vec<Transfer> = apart.filter_map(transfer).collect();
        // Most plans are predicted for workers whose bytes cost nothing, and by the thousand.
        for worker in self.workers.iter().filter(|worker| worker.provider.byte_seconds > 0.0) {
            let seconds = handling(worker, &transfers);
            let own = transfers.iter_mut().filter(|transfer| transfer.is_of(worker.node));
            own.for_each(|transfer| transfer.handling = transfer.handling.max(seconds));
        }
        transfers
    }

    /// Bytes of the rows that one end makes and the other takes; no rows stand for all.
    fn common(&self, cut: u16, makes: &[RowRange], takes: &[RowRange]) -> u64 {
        if makes.is_empty() || takes.is_empty() {
            let some = if makes.is_empty() { takes } else { makes };
            return self.profile.bytes_across(cut, some);
        }
        let both = makes.iter().zip(takes).map(|(makes, takes)| makes.intersection(*takes));
        self.profile.bytes_across(cut, &both.collect::<Vec<_>>())
    }

    /// Seconds until a node has received what is for it: its own link's, or those that the busiest
    /// of its senders needs for all that it sends; and those of the processors.
    fn receiving(&self, node: NodeId, transfers: &[Transfer]) -> f64 {
        let sent = |from: NodeId| -> f64 {
            transfers.iter().filter(|all| all.from == from).map(Transfer::sending).sum()
        };
        let own = transfers.iter().filter(|transfer| transfer.to == node);
        let received: f64 = own.clone().map(Transfer::receiving).sum();
        let hop = if own.clone().next().is_some() { self.settings.hop } else { 0.0 };
        let links = own.clone().map(|transfer| sent(transfer.from)).fold(received, f64::max);
        links + longest_handling(own) + hop
    }

    fn sending(&self, node: NodeId, transfers: &[Transfer]) -> f64 {
        let own = transfers.iter().filter(|transfer| transfer.from == node);
        let hop = if own.clone().next().is_some() { self.settings.hop } else { 0.0 };
        own.clone().map(Transfer::sending).sum::<f64>() + longest_handling(own) + hop
    }

    fn one_by_one(&self, transfers: &[Transfer]) -> f64 {
        let hop = if transfers.is_empty() { 0.0 } else { self.settings.hop };
        transfers.iter().map(Transfer::seconds).sum::<f64>()
            + longest_handling(transfers.iter())
            + hop
    }

    /// Whether every worker has room for all of its pieces together.
    fn fits(&self, segments: &[Vec<Task>]) -> bool {
        let mut free: Vec<u64> =
            self.workers.iter().map(|worker| worker.provider.memory_free).collect();
        segments.iter().flatten().all(|task| {
            let left = free[task.worker].checked_sub(task.cost.weight_bytes);
            left.map(|left| free[task.worker] = left).is_some()
        })
    }

    fn bottleneck(&self, segments: &[Vec<Task>]) -> f64 {
        let transfers = self.all_transfers(segments);
        let busy = self.workers.iter().enumerate().map(|(at, worker)| {
            let tasks = segments.iter().flatten().filter(|task| task.worker == at);
            tasks.map(|task| task.seconds).sum::<f64>() + handling(worker, &transfers)
        });
        busy.fold(self.busiest_link(&transfers), f64::max)
    }

    fn all_transfers(&self, segments: &[Vec<Task>]) -> Vec<Transfer> {
        let mut all = segments.last().map_or(Vec::new(), |last| self.homeward(last));
        let befores = [&[][..]].into_iter().chain(segments.iter().map(Vec::as_slice));
        for (before, tasks) in befores.zip(segments) {
            all.extend(self.arrivals(before, tasks));
            all.extend(self.returns(tasks));
        }
        all
    }

    fn busiest_link(&self, all: &[Transfer]) -> f64 {
        let sum = |of: &dyn Fn(&Transfer) -> Option<f64>| all.iter().filter_map(of).sum::<f64>();
        match self.settings.links {
            LinkModel::Shared => sum(&|all| Some(all.seconds())),
            LinkModel::Parallel => {
                let link = |worker: &Worker| {
                    let received = sum(&|all| (all.to == worker.node).then(|| all.receiving()));
                    received.max(sum(&|all| (all.from == worker.node).then(|| all.sending())))
                };
                self.workers.iter().map(link).fold(0.0, f64::max)
            }
        }
    }
}

/// Seconds of a worker's processor for what it sends and receives of some transfers.
fn handling(worker: &Worker, all: &[Transfer]) -> f64 {
    let own = all.iter().filter(|transfer| transfer.is_of(worker.node));
    let (bytes, frames) = own.fold((0, 0), |(bytes, frames), own| (bytes + own.bytes, frames + 1));
    worker.handling(bytes, frames)
}

/// Seconds that the slowest processor at the ends of some transfers needs.
fn longest_handling<'t>(transfers: impl Iterator<Item = &'t Transfer>) -> f64 {
    transfers.map(|transfer| transfer.handling).fold(0.0, f64::max)
}

/// Somebody who has rows at a cut, or needs them.
#[derive(Clone, Copy, Debug)]
struct End<'a> {
    node: NodeId,
    /// Bytes per second.
    rate: f64,
    /// None for all.
    rows: &'a [RowRange],
}

/// Bytes from one node to another.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    from: NodeId,
    to: NodeId,
    rates: (f64, f64),
    bytes: u64,
    /// Seconds that the slower processor at its ends needs for all that it sends and receives at
    /// the same cut.
    handling: f64,
}

impl Transfer {
    fn is_of(&self, node: NodeId) -> bool {
        self.from == node || self.to == node
    }

    fn sending(&self) -> f64 {
        transfer(self.bytes, self.rates.0)
    }

    fn receiving(&self) -> f64 {
        transfer(self.bytes, self.rates.1)
    }

    fn seconds(&self) -> f64 {
        self.sending().max(self.receiving())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use quickcheck::quickcheck;

    use super::*;
    use crate::{
        partition::{
            fixtures::{Kind, REQUESTER, Small, chain, node, worker},
            planner::{Planner, lay_out},
            worker::FRAME_BYTES,
        },
        rows::divide,
        wiring::Wiring,
    };

    fn whole(first: u16, end: u16) -> Vec<Piece> {
        vec![Piece::whole(LayerRange { first, end })]
    }

    fn halves(first: u16, end: u16, height: u32) -> Vec<Piece> {
        let layers = LayerRange { first, end };
        let rows = divide(height, &[1.0, 1.0]);
        rows.into_iter().map(|rows| Piece { layers, rows: vec![rows] }).collect()
    }

    /// Three convolutions over 8 rows: 80 units of work each, 32 bytes across each cut. Two workers
    /// of 10 units and 4 bytes per second.
    fn check(segments: &[Vec<Piece>], placement: &[u8], settings: &Settings, expected: (f64, f64)) {
        let profile = chain(8, &[Kind::Conv; 3]);
        let workers = [worker(1, 10, 4.0), worker(2, 10, 4.0), worker(0, 5, f64::INFINITY)];
        let plan = Plan::from_segments(segments.to_vec()).expect("a plan");
        let placement: Vec<NodeId> = placement.iter().map(|n| node(*n)).collect();
        let got = predict(&profile, &plan, &placement, &workers, REQUESTER, settings);
        let got = got.expect("all are workers");
        assert_eq!((got.latency, got.bottleneck), expected);
    }

    #[test]
    fn the_parts_of_an_inference_add_up() {
        let parallel = Settings::default();
        let shared = Settings { links: LinkModel::Shared, ..parallel };
        // 8 s in, 24 s of work, 8 s out.
        check(&[whole(0, 3)], &[1], &parallel, (40.0, 24.0));
        check(&[whole(0, 3)], &[1], &shared, (40.0, 24.0));
        check(&[whole(0, 3)], &[0], &parallel, (48.0, 48.0));
        check(&[whole(0, 1), whole(1, 3)], &[0, 2], &parallel, (48.0, 16.0));
        check(&[whole(0, 1), whole(1, 3)], &[1, 2], &parallel, (48.0, 16.0));
        check(&[whole(0, 1), whole(1, 3)], &[1, 2], &shared, (48.0, 24.0));
    }

    #[test]
    fn strips_work_side_by_side() {
        let parallel = Settings::default();
        let shared = Settings { links: LinkModel::Shared, ..parallel };
        let relayed = Settings { route: Route::Relayed, ..parallel };
        let strips = [halves(0, 1, 8), halves(1, 3, 8)];
        // 5 rows in, 4 made; 2 from the other, 5 and 4 made; 4 out.
        check(&strips, &[1, 2, 1, 2], &parallel, (5.0 + 4.0 + 2.0 + 9.0 + 4.0, 13.0));
        // All transfers of a segment come one after the other.
        check(&strips, &[1, 2, 1, 2], &shared, (10.0 + 4.0 + 4.0 + 9.0 + 8.0, 22.0));
        // 4 rows back to the requester, and 6 there again.
        check(&strips, &[1, 2, 1, 2], &relayed, (5.0 + 4.0 + 4.0 + 6.0 + 9.0 + 4.0, 13.0));
        // The requester has its own rows, and is half as fast.
        check(&strips, &[0, 2, 0, 2], &parallel, (9.0 + 2.0 + 18.0 + 4.0, 26.0));
    }

    #[test]
    fn the_slower_processor_handles_all_that_comes_and_goes_at_a_cut() {
        let seconds = |bytes: f64, frames: f64| (bytes + frames * FRAME_BYTES) * 1e-6;
        let check = |segments: &[Vec<Piece>], placement: &[u8], expected: f64| {
            let profile = chain(8, &[Kind::Conv; 3]);
            let mut workers = [worker(1, 10, 4.0), worker(2, 10, 4.0)];
            workers[0].provider.byte_seconds = 1e-6;
            let plan = Plan::from_segments(segments.to_vec()).expect("a plan");
            let placement: Vec<NodeId> = placement.iter().map(|n| node(*n)).collect();
            let settings = Settings::default();
            let got = predict(&profile, &plan, &placement, &workers, REQUESTER, &settings);
            let latency = got.expect("all are workers").latency;
            assert!((latency - expected).abs() < 1e-9, "{latency} {expected}");
        };
        check(&[whole(0, 3)], &[2], 40.0);
        check(&[whole(0, 3)], &[1], 40.0 + 2.0 * seconds(32.0, 1.0));
        // 5 rows in, 2 to the other and 2 from it, 4 home; rows of 4 bytes.
        let handled = seconds(20.0, 1.0) + seconds(16.0, 2.0) + seconds(16.0, 1.0);
        check(&[halves(0, 1, 8), halves(1, 3, 8)], &[1, 2, 1, 2], 24.0 + handled);
    }

    #[test]
    fn each_change_of_machines_costs_a_hop() {
        let slow = Settings { hop: 100.0, ..Settings::default() };
        check(&[whole(0, 3)], &[1], &slow, (240.0, 24.0));
        check(&[whole(0, 3)], &[0], &slow, (48.0, 48.0));
        check(&[whole(0, 1), whole(1, 3)], &[1, 1], &slow, (240.0, 24.0));
    }

    #[test]
    fn what_one_sends_to_many_leaves_one_after_the_other() {
        let segments = [whole(0, 1), halves(1, 3, 8)];
        let settings = Settings::default();
        let profile = chain(8, &[Kind::Conv; 3]);
        let workers = [worker(1, 10, 4.0), worker(2, 10, 400.0), worker(3, 10, 400.0)];
        let plan = Plan::from_segments(segments.to_vec()).expect("a plan");
        let placement = [node(1), node(2), node(3)];
        let got = predict(&profile, &plan, &placement, &workers, REQUESTER, &settings);
        // 12 rows leave the first in 12 s.
        let latency = 8.0 + 8.0 + 12.0 + 9.0 + 0.04;
        assert!((got.expect("workers").latency - latency).abs() < 1e-9, "{got:?}");
    }

    /// What goes on at once: each goes through its resources, for so many seconds each.
    type Step = Vec<Vec<((NodeId, u8), f64)>>;

    /// What an inference does on its way, step by step: the next step begins when all of one are done.
    fn steps(case: &Case<'_>, layout: &Layout) -> Vec<Step> {
        let segments: Vec<Vec<Task>> = layout.segments.iter().map(|s| case.tasks(s)).collect();
        let transfer =
            |all: &Transfer| vec![((all.from, 0), all.sending()), ((all.to, 1), all.receiving())];
        let transfers = |all: Vec<Transfer>| all.iter().map(transfer).collect();
        let computing = |task: &Task| vec![((case.workers[task.worker].node, 2), task.seconds)];
        let befores = [&[][..]].into_iter().chain(segments.iter().map(Vec::as_slice));
        let mut steps = Vec::new();
        for (before, tasks) in befores.zip(&segments) {
            steps.push(transfers(case.arrivals(before, tasks)));
            steps.push(tasks.iter().map(computing).collect());
        }
        steps.push(transfers(case.homeward(&segments[segments.len() - 1])));
        steps
    }

    /// Seconds from one output to the next, with many requests in flight, where each processor and
    /// each direction of each link serves whoever comes first.
    fn observed(case: &Case<'_>, layout: &Layout) -> f64 {
        let mut steps: Vec<Step> = steps(case, layout);
        steps.retain(|step| !step.is_empty());
        let (mut queue, mut free) = (BTreeSet::new(), BTreeMap::new());
        let mut left: Vec<usize> = vec![0; STREAM];
        let (mut next, mut now, mut events) = (0, 0, 0_usize);
        let mut begin = |queue: &mut BTreeSet<_>,
                         left: &mut Vec<usize>,
                         now: u64,
                         request: usize,
                         step: usize| {
            left[request] = steps[step].len();
            for part in 0..steps[step].len() {
                events += 1;
                queue.insert((now, events, request, step, part, 0));
            }
        };
        while next < FLYING {
            begin(&mut queue, &mut left, 0, next, 0);
            next += 1;
        }
        while let Some((time, event, request, step, part, at)) = queue.pop_first() {
            now = time;
            if let Some((resource, seconds)) = steps[step][part].get(at) {
                let begun = now.max(free.get(resource).copied().unwrap_or(0));
                let done = begun + (seconds * 1e9) as u64;
                free.insert(*resource, done);
                queue.insert((done, event, request, step, part, at + 1));
                continue;
            }
            left[request] -= 1;
            match left[request] {
                0 if step + 1 < steps.len() => begin(&mut queue, &mut left, now, request, step + 1),
                0 if next < STREAM => {
                    begin(&mut queue, &mut left, now, next, 0);
                    next += 1;
                }
                _ => {}
            }
        }
        now as f64 / 1e9 / STREAM as f64
    }

    const FLYING: usize = 32;
    const STREAM: usize = 600;

    quickcheck! {
        fn a_streams_rate_is_that_of_its_bottleneck(small: Small) -> bool {
            let mut case = small.case();
            case.goal = Goal::Throughput;
            (case.settings.links, case.settings.route) = (LinkModel::Parallel, Route::Direct);
            Planner::ALL.into_iter().all(|planner| {
                let found = lay_out(planner, case.profile, &case.workers, REQUESTER, case.goal, &case.settings);
                found.is_none_or(|layout| {
                    let predicted = case.predict(&layout).bottleneck;
                    let ratio = observed(&case, &layout) / predicted;
                    // Machines that appear again later in a plan may have to wait for each other.
                    let slowest = if planner == Planner::Pf { 1.1 } else { f64::INFINITY };
                    predicted == 0.0 || (0.999..slowest).contains(&ratio)
                })
            })
        }

        fn bytes_are_those_that_the_wiring_sends(small: Small) -> bool {
            let mut case = small.case();
            (case.settings.links, case.settings.route) = (LinkModel::Shared, Route::Direct);
            Planner::ALL.into_iter().all(|planner| {
                let found = lay_out(planner, case.profile, &case.workers, REQUESTER, case.goal, &case.settings);
                let Some((layout, plan)) = found.and_then(|layout| Some((layout.clone(), layout.plan()?))) else {
                    return true;
                };
                let order = layout.order(&case.workers);
                let wiring = Wiring::new(case.profile, &plan, &order, REQUESTER);
                let sent = |at: usize, piece: &Piece| -> u64 {
                    let others = wiring.sources[at].iter().filter(|link| link.node != order[at]);
                    others.map(|link| case.profile.bytes_across(piece.layers.first, &link.rows)).sum()
                };
                let into: u64 = plan.pieces().iter().enumerate().map(|(at, piece)| sent(at, piece)).sum();
                let home = wiring.outputs.iter().filter(|link| link.node != REQUESTER);
                let home: u64 = home.map(|link| case.profile.bytes_across(case.profile.layers(), &link.rows)).sum();
                let segments: Vec<Vec<Task>> = layout.segments.iter().map(|s| case.tasks(s)).collect();
                let befores = [&[][..]].into_iter().chain(segments.iter().map(Vec::as_slice));
                let mut all = case.homeward(&segments[segments.len() - 1]);
                befores.zip(&segments).for_each(|(before, tasks)| all.extend(case.arrivals(before, tasks)));
                all.iter().map(|transfer| transfer.bytes).sum::<u64>() == into + home
            })
        }
    }
}
