//! DPFL: the best way to fuse layers into segments, from the first cut to the last.
//!
//! `best[c][m]` is the least time after which layers `0..c` are done, the last segment of them in
//! mode `m`. A segment's time depends on who has its inputs, so on the mode before it and no more:
//!
//! ```text
//! best[c][m] = min over b < c and n of best[b][n] + T(layers b..c in mode m after mode n)
//! ```
//!
//! Where activations are relayed by the requester, `n` does not matter, and this is the paper's
//! one-dimensional programme.

use crate::{
    partition::{
        case::{Case, Segment},
        layout::Layout,
        predict::Task,
    },
    plan::{LayerRange, Piece},
    rows::RowRange,
};

/// A way to compute a segment.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mode {
    /// In strips, each for a worker with its weight.
    Strips(Vec<(usize, f64)>),
    /// In one piece.
    Whole(usize),
}

impl Mode {
    /// Whoever may get a piece.
    pub(super) fn team(&self) -> Vec<usize> {
        match self {
            Self::Strips(team) => team.iter().map(|(at, _)| *at).collect(),
            Self::Whole(at) => vec![*at],
        }
    }

    /// The pieces of some layers; nothing if they can't be computed this way.
    pub(super) fn segment(&self, case: &Case<'_>, layers: LayerRange) -> Option<Segment> {
        match self {
            Self::Strips(team) => case.strips(layers, &case.weighted(layers, team)),
            Self::Whole(worker) => Some(vec![(Piece::whole(layers), *worker)]),
        }
    }

    /// The same where each worker has so much memory left. Whole pieces don't change for that.
    pub(super) fn segment_within(
        &self,
        case: &Case<'_>,
        layers: LayerRange,
        memory: &[u64],
    ) -> Option<Segment> {
        match self {
            Self::Strips(team) => case.strips_within(layers, &case.weighted(layers, team), memory),
            Self::Whole(_) => None,
        }
    }
}

/// The fastest sequence of segments, each in one of these modes. Nothing if none is possible.
pub(super) fn fused(case: &Case<'_>, modes: &[Mode]) -> Option<Layout> {
    let mut table = Table { case, modes, cuts: case.cuts(), rows: Vec::new() };
    table.fill();
    table.layout()
}

struct Table<'a> {
    case: &'a Case<'a>,
    modes: &'a [Mode],
    cuts: Vec<u16>,
    // By place of the cut, from the second on, and by mode.
    rows: Vec<Vec<Entry>>,
}

/// The best way to a cut that ends in some mode.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Infinite if there is none.
    seconds: f64,
    /// The places of the cut and the mode before; the first cut has only the requester.
    before: Option<(usize, usize)>,
    /// The places of the cut where the segment begins.
    first: usize,
    /// What it makes.
    makes: Vec<Task>,
}

impl Table<'_> {
    fn fill(&mut self) {
        for end in 1..self.cuts.len() {
            let row = self.modes.iter().map(|mode| self.entry(end, mode)).collect();
            self.rows.push(row);
        }
    }

    /// The best way to a cut whose last segment is in this mode, for all places where that begins.
    fn entry(&self, end: usize, mode: &Mode) -> Entry {
        let mut best = Entry { seconds: f64::INFINITY, ..Entry::default() };
        for (first, tasks) in segments(self.case, &self.cuts, end, mode) {
            let computing = tasks.iter().map(|task| task.seconds).fold(0.0, f64::max);
            for (seconds, before) in self.ways(first) {
                // The transfers take more: no need to look.
                if seconds + computing >= best.seconds {
                    continue;
                }
                let made = before.map_or(&[][..], |(cut, mode)| &self.rows[cut - 1][mode].makes);
                let seconds = seconds + self.case.segment(made, &tasks);
                if seconds < best.seconds {
                    best = Entry { seconds, before, first, makes: tasks.clone() };
                }
            }
        }
        best
    }

    /// The ways to a cut: when it is reached, and how.
    fn ways(&self, cut: usize) -> impl Iterator<Item = (f64, Option<(usize, usize)>)> {
        let start = (cut == 0).then_some((0.0, None));
        let row = cut.checked_sub(1).map_or(&[][..], |row| &self.rows[row]);
        let modes = row.iter().enumerate();
        start.into_iter().chain(modes.map(move |(mode, e)| (e.seconds, Some((cut, mode)))))
    }

    fn layout(&self) -> Option<Layout> {
        let last = self.rows.last()?;
        let arrived = last.iter().map(|entry| entry.seconds + self.case.home(&entry.makes));
        let (mut at, seconds) = arrived
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, s)| s.is_finite())?;
        debug_assert!(seconds >= 0.0);
        let (mut cut, mut segments) = (self.cuts.len() - 1, Vec::new());
        loop {
            let entry = &self.rows[cut - 1][at];
            let layers = LayerRange { first: self.cuts[entry.first], end: self.cuts[cut] };
            segments.push(self.modes[at].segment(self.case, layers)?);
            match entry.before {
                Some((before, mode)) => (cut, at) = (before, mode),
                None => break,
            }
        }
        segments.reverse();
        Some(Layout { segments })
    }
}

/// The segments in a mode that end at the cut at a place, the shortest first, and the places where
/// they begin.
pub(super) fn segments(
    case: &Case<'_>,
    cuts: &[u16],
    end: usize,
    mode: &Mode,
) -> Vec<(usize, Vec<Task>)> {
    let last = cuts[end];
    let layers = |begin: usize| LayerRange { first: cuts[begin], end: last };
    let Some(segment) = mode.segment(case, layers(end - 1)) else { return Vec::new() };
    let pieces = segment.into_iter().map(|(piece, worker)| {
        let costs = case.profile.pieces_ending(last, &piece.rows);
        (piece.rows, worker, costs)
    });
    let pieces: Vec<(Vec<RowRange>, usize, Vec<_>)> = pieces.collect();
    let begins = (0..end).rev().take_while(|begin| match mode {
        Mode::Whole(_) => true,
        Mode::Strips(_) => case.splittable(layers(*begin)),
    });
    let tasks = |begin: usize| {
        let layers = layers(begin);
        let task = |(rows, worker, costs): &(Vec<RowRange>, usize, Vec<_>)| {
            let (cost, takes): &(_, Vec<RowRange>) = &costs[usize::from(layers.len()) - 1];
            case.task(*worker, layers, *cost, (takes.clone(), rows.clone()))
        };
        let tasks: Vec<Task> = pieces.iter().map(task).collect();
        // Strips that divide weights, or more than some machine holds, differ with where they begin.
        let fit = tasks.iter().all(|task| task.seconds.is_finite());
        if fit && !case.divides_weights(layers) {
            return Some((begin, tasks));
        }
        Some((begin, case.tasks(&mode.segment(case, layers)?)))
    };
    begins.filter_map(tasks).collect()
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::partition::fixtures::Small;

    /// All ways to go on from a cut, tried one by one.
    fn brute(case: &Case<'_>, modes: &[Mode], cuts: &[u16], done: &mut Layout) -> f64 {
        let Some((first, rest)) = cuts.split_first().filter(|(_, rest)| !rest.is_empty()) else {
            return seconds(case, done);
        };
        let mut least = f64::INFINITY;
        for (skipped, end) in rest.iter().enumerate() {
            for mode in modes {
                let layers = LayerRange { first: *first, end: *end };
                let Some(segment) = mode.segment(case, layers) else { continue };
                done.segments.push(segment);
                least = least.min(brute(case, modes, &rest[skipped..], done));
                done.segments.pop();
            }
        }
        least
    }

    /// Without a look at whether all pieces together have room.
    fn seconds(case: &Case<'_>, layout: &Layout) -> f64 {
        let segments: Vec<Vec<Task>> = layout.segments.iter().map(|s| case.tasks(s)).collect();
        let befores = [&[][..]].into_iter().chain(segments.iter().map(Vec::as_slice));
        let each = befores.zip(&segments).map(|(before, tasks)| case.segment(before, tasks));
        each.sum::<f64>() + segments.last().map_or(0.0, |last| case.home(last))
    }

    quickcheck! {
        fn the_programme_finds_what_trying_everything_finds(small: Small) -> bool {
            let case = small.case();
            let team: Vec<(usize, f64)> =
                case.team().into_iter().take(3).map(|at| (at, case.capability(at))).collect();
            let whole = team.iter().map(|(at, _)| Mode::Whole(*at));
            let strips = (2..=team.len()).map(|count| Mode::Strips(team[..count].to_vec()));
            let modes: Vec<Mode> = whole.chain(strips).collect();
            let cuts: Vec<u16> = case.cuts();
            if cuts.len() > 5 {
                return true;
            }
            let best = brute(&case, &modes, &cuts, &mut Layout::default());
            match fused(&case, &modes) {
                Some(found) => (seconds(&case, &found) - best).abs() <= 1e-9 * best,
                None => best.is_infinite(),
            }
        }
    }
}
