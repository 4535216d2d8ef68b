//! DPFL where memory is short: the same programme, with what each way leaves of the machines' memory.
//!
//! Strips of images each hold all weights of their layers, and a machine may hold several pieces. So
//! whether a segment has room depends on all before it. The best way to a cut keeps account of what
//! it has taken; strips that divide weights take what is left; and a way is given up that leaves
//! less than the weights to come. What is best then is no longer sure to be found, since a slower way
//! to a cut may leave more. So it is looked for several times, with ever higher prices on pieces:
//! fewer of them hold fewer weights twice.

use std::borrow::Cow;

use super::dpfl::{self, Mode};
use crate::{
    partition::{
        case::{Case, Segment},
        layout::Layout,
        predict::Task,
        room::Room,
    },
    plan::{LayerRange, PIECES_MAX, Piece},
};

/// A sequence of segments, each in one of these modes, that has room; the fastest that is found.
pub(super) fn fused(case: &Case<'_>, modes: &[Mode]) -> Option<Layout> {
    let mut search = Search::new(case, modes);
    let seconds = search.team.iter().map(|at| case.workers[*at].whole(case.profile));
    let seconds = seconds.fold(f64::INFINITY, f64::min);
    let found = PRICES.iter().filter_map(|price| search.layout(price * seconds));
    let timed = found.map(|layout| (case.predict(&layout).latency, layout));
    let possible = timed.filter(|(latency, _)| latency.is_finite());
    possible.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, layout)| layout)
}

struct Search<'a> {
    case: &'a Case<'a>,
    cuts: Vec<u16>,
    /// Whoever computes something in one of the modes.
    team: Vec<usize>,
    modes: &'a [Mode],
    /// By place of the cut where they end, from the second on, and by mode: where the segments
    /// begin, and what they are if they have all memory to themselves.
    segments: Vec<Vec<Begins>>,
    /// By place of the cut, and by mode of the segment before; the first has the start alone.
    best: Vec<Vec<Option<Way>>>,
}

/// Segments that end at one cut: the places of the cuts where they begin, and their pieces.
type Begins = Vec<(usize, Vec<Task>)>;

/// A way to a cut.
#[derive(Clone, Debug)]
struct Way {
    /// Seconds, and the price of its pieces.
    cost: f64,
    pieces: usize,
    room: Room,
    /// The places of the cut before and of the way to it.
    before: (usize, usize),
    /// The last segment.
    tasks: Vec<Task>,
}

/// A way that may be better than the best.
struct Next<'t> {
    cost: f64,
    pieces: usize,
    room: Room,
    tasks: Cow<'t, [Task]>,
}

impl Next<'_> {
    fn into_way(self) -> Way {
        let Self { cost, pieces, room, tasks } = self;
        Way { cost, pieces, room, before: (0, 0), tasks: tasks.into_owned() }
    }
}

impl<'a> Search<'a> {
    fn new(case: &'a Case<'a>, modes: &'a [Mode]) -> Self {
        let cuts = case.cuts();
        let mut team: Vec<usize> = modes.iter().flat_map(Mode::team).collect();
        team.sort_unstable();
        team.dedup();
        let ending =
            |end| modes.iter().map(|mode| dpfl::segments(case, &cuts, end, mode)).collect();
        let segments = (1..cuts.len()).map(ending).collect();
        Self { case, cuts, team, modes, segments, best: Vec::new() }
    }

    fn layout(&mut self, price: f64) -> Option<Layout> {
        let room = Room::new(&self.case.workers);
        let start = Way { cost: 0.0, pieces: 0, room, before: (0, 0), tasks: Vec::new() };
        self.best = vec![vec![Some(start)]];
        for end in 1..self.cuts.len() {
            let ways = (0..self.modes.len()).map(|mode| self.way(end, mode, price)).collect();
            self.best.push(ways);
        }
        let arrived = self.best.last()?.iter().enumerate().filter_map(|(at, way)| {
            let way = way.as_ref()?;
            Some((at, way.cost + self.case.home(&way.tasks)))
        });
        let (at, _) = arrived.min_by(|a, b| a.1.total_cmp(&b.1))?;
        self.traced(at)
    }

    /// The segments of a way to the last cut.
    fn traced(&self, at: usize) -> Option<Layout> {
        let (mut cut, mut at, mut segments) = (self.cuts.len() - 1, at, Vec::new());
        while cut > 0 {
            let way = self.best[cut][at].as_ref()?;
            segments.push(way.tasks.iter().map(placed).collect::<Segment>());
            (cut, at) = way.before;
        }
        segments.reverse();
        Some(Layout { segments }.merged())
    }

    /// The best way to a cut whose last segment is in this mode.
    fn way(&self, end: usize, mode: usize, price: f64) -> Option<Way> {
        let mut best: Option<Way> = None;
        for (first, tasks) in &self.segments[end - 1][mode] {
            let computing = tasks.iter().map(|task| task.seconds).fold(0.0, f64::max);
            for (at, before) in self.best[*first].iter().enumerate() {
                let Some(before) = before else { continue };
                let bar = best.as_ref().map_or(f64::INFINITY, |best| best.cost);
                if before.cost + computing + price * tasks.len() as f64 >= bar {
                    continue;
                }
                let room = before.room.with(tasks).map(|room| (Cow::Borrowed(&tasks[..]), room));
                let next = room.or_else(|| self.squeezed(before, *first, end, mode));
                let next = next.and_then(|(tasks, room)| self.with(before, tasks, room, price));
                if let Some(next) = next.filter(|next| next.cost < bar) {
                    best = Some(Way { before: (*first, at), ..next.into_way() });
                }
            }
        }
        best
    }

    /// A way and one more segment, which leaves so much room; nothing if that is not enough.
    fn with<'t>(
        &self,
        way: &Way,
        tasks: Cow<'t, [Task]>,
        room: Room,
        price: f64,
    ) -> Option<Next<'t>> {
        let pieces = way.pieces + tasks.len();
        let rest = self.case.weights_from(tasks.first()?.layers.end);
        if pieces > PIECES_MAX || !room.could_take(rest, self.team.iter().copied()) {
            return None;
        }
        let seconds = self.case.segment(&way.tasks, &tasks);
        let cost = way.cost + seconds + price * tasks.len() as f64;
        cost.is_finite().then_some(Next { cost, pieces, room, tasks })
    }

    /// A segment that divides weights, in strips of what is left.
    fn squeezed(
        &self,
        way: &Way,
        first: usize,
        end: usize,
        mode: usize,
    ) -> Option<(Cow<'static, [Task]>, Room)> {
        let layers = LayerRange { first: self.cuts[first], end: self.cuts[end] };
        if !self.case.divides_weights(layers) {
            return None;
        }
        let memory = way.room.memory();
        let segment = self.modes[mode].segment_within(self.case, layers, &memory)?;
        let tasks = self.case.tasks(&segment);
        let room = way.room.with(&tasks)?;
        Some((tasks.into(), room))
    }
}

fn placed(task: &Task) -> (Piece, usize) {
    (Piece { layers: task.layers, rows: task.makes.clone() }, task.worker)
}

/// What a piece costs, as parts of what all layers take on the fastest machine.
const PRICES: [f64; 6] = [0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0];

#[cfg(test)]
mod tests {
    use quickcheck::{Arbitrary, Gen, quickcheck};

    use super::*;
    use crate::partition::{edgeci::modes, fixtures::Small};

    /// The same with little memory: what some machine needs for everything, or less.
    fn short(mut small: Small, left: u8) -> Small {
        let all = small.profile.range(LayerRange { first: 0, end: small.profile.layers() });
        for (worker, shift) in small.workers.iter_mut().zip((0..).step_by(2)) {
            let part = 1 + u64::from(left >> shift & 3);
            worker.provider.memory_free = (all.weight_bytes * part).div_ceil(4);
        }
        small
    }

    /// The least time of all that goes on from a cut and has room, each way tried.
    fn brute(case: &Case<'_>, modes: &[Mode], first: usize, room: &Room, done: &mut Layout) -> f64 {
        let cuts = case.cuts();
        if first + 1 == cuts.len() {
            return case.predict(done).latency;
        }
        let mut least = f64::INFINITY;
        for (end, mode) in
            (first + 1..cuts.len()).flat_map(|end| modes.iter().map(move |mode| (end, mode)))
        {
            let layers = LayerRange { first: cuts[first], end: cuts[end] };
            let squeezed = mode.segment_within(case, layers, &room.memory());
            for segment in mode.segment(case, layers).into_iter().chain(squeezed) {
                let Some(left) = room.with(&case.tasks(&segment)) else { continue };
                done.segments.push(segment);
                least = least.min(brute(case, modes, end, &left, done));
                done.segments.pop();
            }
        }
        least
    }

    /// What is found, and the best there is.
    fn compared(small: &Small) -> Option<(f64, f64)> {
        let case = small.case();
        let modes = modes(&case, &case.team());
        if case.cuts().len() > 5 || modes.len() > 5 {
            return None;
        }
        let best = brute(&case, &modes, 0, &Room::new(&case.workers), &mut Layout::default());
        let found = fused(&case, &modes);
        Some((found.map_or(f64::INFINITY, |found| case.predict(&found).latency), best))
    }

    quickcheck! {
        fn what_is_found_has_room_and_is_no_better_than_the_best(small: Small, left: u8) -> bool {
            let small = short(small, left);
            compared(&small).is_none_or(|(found, best)| found >= best * (1.0 - 1e-9))
        }
    }

    #[test]
    fn most_of_what_there_is_is_found() {
        let mut g = Gen::new(50);
        let (mut cases, mut found, mut best) = (0, 0, 0);
        while cases < 200 {
            let small = short(Small::arbitrary(&mut g), u8::arbitrary(&mut g));
            let Some((seconds, least)) = compared(&small).filter(|pair| pair.1.is_finite()) else {
                continue;
            };
            cases += 1;
            found += usize::from(seconds.is_finite());
            best += usize::from(seconds <= least * (1.0 + 1e-9));
        }
        println!("of {cases}, {found} were found and {best} at their best");
        assert!(found >= 190 && best >= 150, "{found} {best}");
    }
}
