//! `pf`: the machines that the auction shares fairly, and what each should do.
//!
//! For the latency of one inference, only strips help: pieces one after the other never beat the
//! fastest machine, unless memory forces a split. So it is the best machine alone, or the plan of
//! [`edgeci`] or [`dina`] if that is faster by more than the least gain.
//!
//! For a stream it is a pipeline. With the machines in a fixed order, `best[k][c]` is the least
//! bottleneck of layers `0..c` on the first `k` of them:
//!
//! ```text
//! best[k][c] = min over b < c and g <= k of max(best[k-g][b], stage(layers b..c on machines k-g..k))
//! ```
//!
//! where a stage of several machines is cut into strips (as in PICO). Rows that two strips need
//! leave the machine before twice, which is not in this sum, but in the prediction that decides.
//!
//! Strips help where one layer takes longer than the others together, or the model has fewer layers
//! than there are machines.

use super::{
    case::{Case, Segment},
    dina, edgeci,
    layout::Layout,
    pipeline,
    worker::{Goal, Worker},
};
use crate::{
    model::PieceProfile,
    plan::{LayerRange, Piece},
};

/// The best plan for the goal; never predicted to be worse than the best machine alone.
pub(super) fn lay_out(case: &Case<'_>) -> Option<Layout> {
    let single = case.best(case.able().into_iter().map(|at| case.single(at)));
    let others = match case.goal {
        Goal::Latency => {
            [edgeci::lay_out(case), dina::lay_out(case)].into_iter().flatten().collect()
        }
        // A model that no machine holds may need several pieces on each.
        Goal::Throughput if single.is_none() => {
            pipelines(case).into_iter().chain(edgeci::lay_out(case)).collect()
        }
        Goal::Throughput => pipelines(case),
    };
    let taken = others.into_iter().chain(pipeline(case)).filter(|layout| case.has_room(layout));
    taken.fold(single, |best, next| {
        let bar = best.as_ref().map_or(f64::INFINITY, |best| case.score(best));
        let gained = case.score(&next) < bar * (1.0 - case.settings.gain_min);
        if gained { Some(next) } else { best }
    })
}

/// The pipeline of whole pieces, which finds a place for weights that no single machine can hold.
fn pipeline(case: &Case<'_>) -> Option<Layout> {
    let (most, gain_min) = (case.settings.pieces_max, case.settings.gain_min);
    let open: Vec<Worker> = case.workers.iter().copied().filter(|worker| worker.room > 0).collect();
    let found = pipeline::propose(case.profile, &open, case.goal, most, gain_min)?;
    Layout::of(&found.plan, &found.order, &case.workers)
}

/// For each number of machines the best pipeline whose stages may be strips, the fewest first.
fn pipelines(case: &Case<'_>) -> Vec<Layout> {
    let mut table = Stages { case, team: case.team(), cuts: case.cuts(), best: Vec::new() };
    table.fill();
    (2..=table.team.len()).filter_map(|machines| table.layout(machines)).collect()
}

struct Stages<'a> {
    case: &'a Case<'a>,
    team: Vec<usize>,
    cuts: Vec<u16>,
    // By number of machines, and by place of the cut.
    best: Vec<Vec<Entry>>,
}

/// The least bottleneck, and the last stage's machines and the place of its first cut.
#[derive(Clone, Copy, Debug)]
struct Entry {
    seconds: f64,
    machines: usize,
    first: usize,
}

impl Stages<'_> {
    fn fill(&mut self) {
        let none = Entry { seconds: f64::INFINITY, machines: 0, first: 0 };
        let mut start = vec![none; self.cuts.len()];
        start[0].seconds = 0.0;
        self.best.push(start);
        for used in 1..=self.team.len() {
            let mut row = vec![none; self.cuts.len()];
            for (end, best) in row.iter_mut().enumerate().skip(1) {
                for machines in 1..=used.min(STRIPS_MAX) {
                    self.improve(best, used, machines, end);
                }
            }
            self.best.push(row);
        }
    }

    /// Looks at all last stages of so many machines.
    fn improve(&self, best: &mut Entry, used: usize, machines: usize, end: usize) {
        let team = &self.team[used - machines..used];
        for (first, seconds) in self.stages(team, end) {
            let before = self.best[used - machines][first].seconds;
            if before.max(seconds) < best.seconds {
                *best = Entry { seconds: before.max(seconds), machines, first };
            }
        }
    }

    /// The busiest machine or link of each stage that ends at a cut, and where it begins.
    fn stages(&self, team: &[usize], end: usize) -> Vec<(usize, f64)> {
        let last = self.cuts[end];
        let one = LayerRange { first: self.cuts[end - 1], end: last };
        let Some(segment) = self.segment(team, one) else { return Vec::new() };
        let costs = segment.iter().map(|(piece, worker)| {
            (self.case.profile.pieces_ending(last, &piece.rows), &self.case.workers[*worker])
        });
        let costs: Vec<_> = costs.collect();
        let layers = |begin: &usize| LayerRange { first: self.cuts[*begin], end: last };
        let begins = (0..end).rev();
        let whole = team.len() == 1;
        let begins = begins.take_while(|begin| whole || self.case.splittable(layers(begin)));
        let busiest = |begin: usize| {
            let layers = layers(&begin);
            let place = usize::from(layers.len()) - 1;
            let each =
                costs.iter().map(|(costs, worker)| self.busy(layers, &costs[place].0, worker));
            let seconds = each.fold(0.0, f64::max);
            // Strips that divide weights differ with where they begin.
            if whole || !self.case.divides_weights(layers) {
                return Some((begin, seconds));
            }
            let segment = self.segment(team, layers)?;
            let each = segment.iter().map(|(piece, worker)| {
                self.busy(layers, &self.case.profile.piece(piece), &self.case.workers[*worker])
            });
            Some((begin, each.fold(0.0, f64::max)))
        };
        begins.filter_map(busiest).collect()
    }

    /// How long a stage's piece keeps its machine or link busy.
    fn busy(&self, layers: LayerRange, cost: &PieceProfile, worker: &Worker) -> f64 {
        worker.stage(cost).max(worker.working(cost) + self.case.constant(layers))
    }

    fn segment(&self, team: &[usize], layers: LayerRange) -> Option<Segment> {
        if let [worker] = team {
            return Some(vec![(Piece::whole(layers), *worker)]);
        }
        let weighted = team.iter().map(|at| (*at, self.case.capability(*at)));
        let weighted = self.case.weighted(layers, &weighted.collect::<Vec<_>>());
        let strips = self.case.strips(layers, &weighted)?;
        // A machine without rows would be one of fewer.
        (strips.len() == team.len()).then_some(strips)
    }

    fn layout(&self, machines: usize) -> Option<Layout> {
        let (mut used, mut end, mut segments) = (machines, self.cuts.len() - 1, Vec::new());
        while end > 0 {
            let entry = self.best[used][end];
            if !entry.seconds.is_finite() {
                return None;
            }
            let team = &self.team[used - entry.machines..used];
            let layers = LayerRange { first: self.cuts[entry.first], end: self.cuts[end] };
            segments.push(self.segment(team, layers)?);
            (used, end) = (used - entry.machines, entry.first);
        }
        segments.reverse();
        (used == 0).then_some(Layout { segments })
    }
}

/// Machines side by side in one stage.
const STRIPS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::partition::{
        fixtures::{Kind, REQUESTER, Small, chain, worker},
        planner::Settings,
    };

    fn check(kinds: &[Kind], speeds: &[u64], pieces: &[usize], bottleneck: f64) {
        let profile = chain(40, kinds);
        let workers = (1..).zip(speeds).map(|(n, speed)| worker(n, *speed, 1e6)).collect();
        let (goal, settings) = (Goal::Throughput, Settings::default());
        let case = Case { profile: &profile, workers, requester: REQUESTER, goal, settings };
        let found = lay_out(&case).expect("a plan");
        let got: Vec<usize> = found.segments.iter().map(Vec::len).collect();
        assert_eq!(got, pieces);
        assert!((case.predict(&found).bottleneck - bottleneck).abs() < 1e-9);
    }

    #[test]
    fn stages_become_strips_where_whole_layers_cannot_be_balanced() {
        use Kind::{Conv, Pool};
        // 400 units of work a convolution, 20 a pooling.
        check(&[Conv; 4], &[10, 10], &[1, 1], 80.0);
        check(&[Conv, Pool], &[10, 10], &[2], 21.0);
        check(&[Conv; 3], &[10, 10], &[2], 63.0);
        check(&[Conv; 3], &[20, 10], &[1, 1], 40.0);
        check(&[Conv, Conv, Pool], &[20, 10, 10], &[1, 2], 21.0);
        check(&[Conv, Pool], &[1000, 1], &[1], 0.42);
    }

    #[test]
    fn machines_that_handle_frames_slowly_get_less_to_compute() {
        let layers = |byte_seconds: f64| {
            let profile = chain(40, &[Kind::Conv; 8]);
            let mut workers: Vec<Worker> = (1..3).map(|n| worker(n, 10, 1e6)).collect();
            workers[0].provider.byte_seconds = byte_seconds;
            let (goal, settings) = (Goal::Throughput, Settings::default());
            let case = Case { profile: &profile, workers, requester: REQUESTER, goal, settings };
            let found = lay_out(&case).expect("a plan");
            let busy = case.predict(&found).bottleneck;
            let first = found.segments.iter().flatten().filter(|(_, at)| *at == 0);
            (first.map(|(piece, _)| piece.layers.len()).sum::<u16>(), busy)
        };
        let (free, dear) = (layers(0.0), layers(1e-3));
        assert_eq!(free.0, 4);
        assert!(dear.0 < 4 && dear.1 > free.1, "{dear:?}");
    }

    /// The least bottleneck of all pipelines of whole pieces and strips, tried one by one.
    fn brute(case: &Case<'_>, cuts: &[u16], team: &[usize]) -> f64 {
        let Some((first, ends)) = cuts.split_first().filter(|(_, ends)| !ends.is_empty()) else {
            return if team.is_empty() { 0.0 } else { f64::INFINITY };
        };
        let mut least = f64::INFINITY;
        for (at, machines) in
            (0..ends.len()).flat_map(|at| (1..=team.len()).map(move |machines| (at, machines)))
        {
            let layers = LayerRange { first: *first, end: ends[at] };
            let (now, later) = team.split_at(machines);
            let weighted: Vec<(usize, f64)> =
                now.iter().map(|at| (*at, case.capability(*at))).collect();
            let segment = match now {
                [worker] => Some(vec![(Piece::whole(layers), *worker)]),
                _ => {
                    let strips = case.strips(layers, &case.weighted(layers, &weighted));
                    strips.filter(|strips| strips.len() == machines)
                }
            };
            let Some(segment) = segment else { continue };
            let stage =
                |(piece, at): &(Piece, usize)| case.workers[*at].stage(&case.profile.piece(piece));
            let slowest = segment.iter().map(stage).fold(0.0, f64::max);
            least = least.min(slowest.max(brute(case, &ends[at..], later)));
        }
        least
    }

    quickcheck! {
        fn stages_are_as_good_as_trying_everything(small: Small) -> bool {
            let case = small.case();
            let (team, cuts) = (case.team(), case.cuts());
            let last = cuts.len() - 1;
            let best: Vec<f64> =
                (1..=team.len()).map(|used| brute(&case, &cuts, &team[..used])).collect();
            let mut table = Stages { case: &case, team, cuts, best: Vec::new() };
            table.fill();
            let close = |(used, best): (usize, f64)| {
                let found = table.best[used][last].seconds;
                found == best && (found.is_infinite() || table.layout(used).is_some())
            };
            (1..).zip(best).all(close)
        }
    }
}
