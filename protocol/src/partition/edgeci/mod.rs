//! `edgeci`: after Chen, Luo, Fang and Xiong (ACM TOIT 24(2), 2024), as far as its abstract tells.
//!
//! | module | is |
//! |---|---|
//! | `dpfl` | which layers are fused, by a dynamic programme without recursion |
//! | `tight` | the same where machines hold few weights |
//! | [`awas`] | which strip goes to which machine, and how high it is, by an auction |
//!
//! The cost model is that of the same group's EdgeLD (HPCC 2020), with exact halos. What the paper
//! says of machines that differ within a segment, and its auction's rules, were not available; this
//! is our model of it.

pub mod awas;
mod dpfl;
mod resize;
mod tight;

use super::{case::Case, layout::Layout, planner::Settings, room::Room};
use dpfl::Mode;

/// Segments by dynamic programming, strips by auction. Plans for the latency of one inference.
pub(super) fn lay_out(case: &Case<'_>) -> Option<Layout> {
    Some(resize::resized(case, fused(case)?))
}

/// Segments by dynamic programming over all numbers of machines, strips in proportion to
/// capability.
pub(super) fn fused(case: &Case<'_>) -> Option<Layout> {
    let team = case.team();
    if !Room::of_memory(&case.workers).could_take(case.weights_from(0), team.iter().copied()) {
        return None;
    }
    let roomy = |at: &usize| {
        let whole = case.single(*at);
        case.predict(&whole).latency.is_finite()
    };
    let all = modes(case, &team);
    let possible = |found: &Layout| case.predict(found).latency.is_finite();
    if let Some(found) = with_room(case, &all).filter(possible) {
        return Some(found);
    }
    // The programme looks at one segment at a time, and may ask for more memory than there is in
    // all. Then only machines that hold the whole model take part in it, or all in one that keeps
    // account of memory.
    let roomy: Vec<usize> = team.iter().copied().filter(roomy).collect();
    let few = with_room(case, &modes(case, &roomy)).filter(possible);
    let found = few.into_iter().chain(tight::fused(case, &[all, others(case, &team)].concat()));
    let timed = found.map(|layout| (case.predict(&layout).latency, layout));
    timed.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, layout)| layout)
}

/// The fastest sequence of segments in which no machine gets more pieces than it takes. The
/// programme does not count pieces; it is told that segments cost ever more, until they are few
/// enough.
fn with_room(case: &Case<'_>, modes: &[Mode]) -> Option<Layout> {
    let fastest = dpfl::fused(case, modes)?.merged();
    if case.has_room(&fastest) {
        return Some(fastest);
    }
    let seconds = case.predict(&fastest).latency;
    (0..HOPS).rev().find_map(|halved| {
        let hop = case.settings.hop + seconds / f64::from(1 << halved);
        let settings = Settings { hop, ..case.settings };
        let dearer = Case { settings, workers: case.workers.clone(), ..*case };
        dpfl::fused(&dearer, modes).map(Layout::merged).filter(|layout| case.has_room(layout))
    })
}

/// Ways to compute a segment: whole at any of the machines, or in strips at the best 2, 3, ...
fn modes(case: &Case<'_>, team: &[usize]) -> Vec<Mode> {
    let strips = capable(case, team);
    let whole = team[..strips.len()].iter().map(|at| Mode::Whole(*at));
    let counts = (2..=strips.len()).filter(|count| *count <= STRIPS_MAX || *count == strips.len());
    let divided = counts.map(|count| Mode::Strips(strips[..count].to_vec()));
    whole.chain(divided).collect()
}

/// The machines that are looked at, with their capabilities, the most capable first.
fn capable(case: &Case<'_>, team: &[usize]) -> Vec<(usize, f64)> {
    let team = &team[..enough(case, team)];
    let mut weighted: Vec<(usize, f64)> =
        team.iter().map(|at| (*at, case.capability(*at))).collect();
    weighted.sort_by(|a, b| b.1.total_cmp(&a.1));
    weighted
}

/// Strips at the slowest 2, 3, ... machines: where memory is short, some layers are theirs.
fn others(case: &Case<'_>, team: &[usize]) -> Vec<Mode> {
    let strips = capable(case, team);
    let counts = (2..strips.len()).filter(|count| *count <= STRIPS_MAX);
    counts.map(|count| Mode::Strips(strips[strips.len() - count..].to_vec())).collect()
}

/// How many of the fastest machines are looked at: more than would help only if the model needs
/// their memory, and some more than it, since not all layers divide their weights.
fn enough(case: &Case<'_>, team: &[usize]) -> usize {
    let room = Room::of_memory(&case.workers);
    let weights = case.weights_from(0);
    let needed = weights.saturating_add(weights / 4);
    let holds = |count: &usize| room.could_take(needed, team[..*count].iter().copied());
    let least = STRIPS_MAX.min(team.len());
    (least..team.len()).find(holds).unwrap_or(if holds(&least) { least } else { team.len() })
}

/// Machines side by side: halos outgrow the strips long before.
const STRIPS_MAX: usize = 8;
/// How often what a segment costs is doubled, up to as much as one inference takes.
const HOPS: i32 = 16;
