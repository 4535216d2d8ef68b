//! AWAS on a layout: strips are auctioned, and rows go from the slowest machine to the fastest, as
//! long as the prediction falls.

use super::awas;
use crate::{
    partition::{
        case::{Case, Segment},
        layout::Layout,
        predict::Task,
        room::Room,
    },
    plan::{LayerRange, Piece},
};

/// A layout with better strips in the same segments; never a slower one.
pub(super) fn resized(case: &Case<'_>, mut layout: Layout) -> Layout {
    for at in 0..layout.segments.len() {
        if layout.segments[at].len() > 1 {
            let segment = Surrounded::new(case, &layout, at).resized(layout.segments[at].clone());
            layout.segments[at] = segment;
        }
    }
    layout
}

/// A segment's surroundings, which stay as they are.
struct Surrounded<'a> {
    case: &'a Case<'a>,
    layers: LayerRange,
    /// None for the requester.
    before: Vec<Task>,
    /// None for the requester.
    after: Vec<Task>,
    /// What the other segments leave.
    room: Room,
}

impl<'a> Surrounded<'a> {
    fn new(case: &'a Case<'a>, layout: &Layout, at: usize) -> Self {
        let tasks = |at: Option<usize>| {
            let segment = at.and_then(|at| layout.segments.get(at));
            segment.map_or(Vec::new(), |segment| case.tasks(segment))
        };
        let (before, after) = (tasks(at.checked_sub(1)), tasks(Some(at + 1)));
        let others = layout.segments.iter().enumerate().filter(|(other, _)| *other != at);
        let others: Vec<Task> = others.flat_map(|(_, segment)| case.tasks(segment)).collect();
        // With too little for the others, nothing is left: then nothing changes.
        let all = Room::new(&case.workers);
        let room = all.with(&others).unwrap_or_else(|| Room::new(&[]));
        Self { case, layers: layout.segments[at][0].0.layers, before, after, room }
    }

    fn resized(&self, segment: Segment) -> Segment {
        let mut best = (self.seconds(&segment), segment);
        while let Some(better) = self.step(&best.1).filter(|next| next.0 < best.0) {
            best = better;
        }
        best.1
    }

    /// Of this segment, and of what depends on it; infinite if it has no room.
    fn seconds(&self, segment: &[(Piece, usize)]) -> f64 {
        let tasks = self.case.tasks(segment);
        if self.room.with(&tasks).is_none() {
            return f64::INFINITY;
        }
        let next = match self.after.as_slice() {
            [] => self.case.home(&tasks),
            after => self.case.segment(&tasks, after),
        };
        self.case.segment(&self.before, &tasks) + next
    }

    /// The best that an auction makes of the strips as they are, and with a row moved from the
    /// slowest to any other: several, where there are many.
    fn step(&self, segment: &Segment) -> Option<(f64, Segment)> {
        let (rows, times) = (heights(segment), self.alone(segment));
        let slowest = (0..times.len()).max_by(|a, b| times[*a].total_cmp(&times[*b]))?;
        let some = (rows.iter().sum::<u32>() / MOVES).max(1);
        let moved = (0..rows.len()).filter(|to| *to != slowest && rows[slowest] > some).map(|to| {
            let mut rows = rows.clone();
            rows[slowest] -= some;
            rows[to] += some;
            rows
        });
        let tried = [rows.clone()].into_iter().chain(moved);
        let variants = tried.flat_map(|rows| self.variants(segment, &rows));
        let timed = variants.map(|segment| (self.seconds(&segment), segment));
        timed.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Strips of these heights, at the machines where they are and as auctioned.
    fn variants(&self, segment: &Segment, rows: &[u32]) -> Vec<Segment> {
        let machines = segment.iter().zip(rows);
        let team: Vec<(usize, f64)> =
            machines.map(|((_, worker), rows)| (*worker, f64::from(*rows))).collect();
        let memory = self.room.memory();
        let Some(strips) = self.case.strips_within(self.layers, &team, &memory) else {
            return Vec::new();
        };
        let auctioned = self.auctioned(&strips);
        [Some(strips), auctioned].into_iter().flatten().collect()
    }

    /// The same strips, at whichever of the segment's machines an auction gives each.
    fn auctioned(&self, strips: &Segment) -> Option<Segment> {
        let machines: Vec<usize> = strips.iter().map(|(_, worker)| *worker).collect();
        let tasks = self.case.tasks(strips);
        let at = |task: &Task, worker: usize| {
            let rows = (task.takes.clone(), task.makes.clone());
            self.case.task(worker, task.layers, task.cost, rows)
        };
        let seconds: Vec<Vec<f64>> = tasks
            .iter()
            .map(|task| {
                machines
                    .iter()
                    .map(|worker| self.case.segment(&self.before, &[at(task, *worker)]))
                    .collect()
            })
            .collect();
        let pieces = strips.iter().zip(awas::assign(&seconds)?);
        Some(pieces.map(|((piece, _), machine)| (piece.clone(), machines[machine])).collect())
    }

    /// Seconds of each strip, without the others in its way.
    fn alone(&self, segment: &Segment) -> Vec<f64> {
        let tasks = self.case.tasks(segment);
        tasks.into_iter().map(|task| self.case.segment(&self.before, &[task])).collect()
    }
}

/// The rows of each strip in the tensor that has the most.
fn heights(segment: &[(Piece, usize)]) -> Vec<u32> {
    let tensors = segment.first().map_or(0, |(piece, _)| piece.rows.len());
    let height = |tensor: &usize| -> u32 {
        segment.iter().map(|(piece, _)| piece.rows[*tensor].len()).sum()
    };
    let tallest = (0..tensors).max_by_key(height).unwrap_or(0);
    segment.iter().map(|(piece, _)| piece.rows.get(tallest).map_or(0, |rows| rows.len())).collect()
}

/// Moves from one end of a segment to the other: as many as images of some hundred rows have.
const MOVES: u32 = 256;

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::partition::{
        edgeci,
        fixtures::{Kind, REQUESTER, Small, chain, worker},
        planner::Settings,
        predict::{LinkModel, Route},
        worker::Goal,
    };

    #[test]
    fn inner_strips_get_fewer_rows_for_their_halo() {
        let profile = chain(24, &[Kind::Conv; 4]);
        let workers: Vec<_> = (1..=3).map(|n| worker(n, 10, 1e9)).collect();
        let settings = Settings { route: Route::Relayed, ..Settings::default() };
        let case = Case {
            profile: &profile,
            workers,
            requester: REQUESTER,
            goal: Goal::Latency,
            settings,
        };
        let layers = LayerRange { first: 0, end: 4 };
        let equal = case.strips(layers, &[(0, 1.0), (1, 1.0), (2, 1.0)]).expect("strips");
        assert_eq!(heights(&equal), [8, 8, 8]);
        let better = resized(&case, Layout { segments: vec![equal] });
        // With halos, 8 + 10 + 12 + 14 rows inside become 7 + 9 + 11 + 13; now 9 + 10 + 11 + 12 at a
        // border are the most.
        assert_eq!(heights(&better.segments[0]), [9, 7, 8]);
    }

    quickcheck! {
        fn strips_never_get_slower(small: Small) -> bool {
            let case = small.case();
            let Some(proportional) = edgeci::fused(&case) else { return true };
            let before = case.predict(&proportional).latency;
            case.predict(&resized(&case, proportional)).latency <= before * (1.0 + 1e-12)
        }

        fn the_makespan_is_at_most_that_of_strips_in_proportion(small: Small) -> bool {
            let mut case = small.case();
            (case.settings.route, case.settings.links) = (Route::Relayed, LinkModel::Parallel);
            let team: Vec<(usize, f64)> =
                case.team().into_iter().map(|at| (at, case.capability(at))).collect();
            let layers = LayerRange { first: 0, end: case.profile.layers() };
            let Some(strips) = case.strips(layers, &team) else { return true };
            let makespan = |segment: &Segment| case.segment(&[], &case.tasks(segment));
            let before = makespan(&strips);
            let after = resized(&case, Layout { segments: vec![strips] });
            let kept: u32 = heights(&after.segments[0]).iter().sum();
            let whole = case.profile.rows().map(|map| map.all(layers.end)[0].len());
            makespan(&after.segments[0]) <= before && Some(kept) == whole
        }
    }
}
