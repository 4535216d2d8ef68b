//! `edgeci`: after Chen, Luo, Fang and Xiong (ACM TOIT 24(2), 2024), as far as its abstract tells.
//!
//! | module | is |
//! |---|---|
//! | `dpfl` | which layers are fused, by a dynamic programme without recursion |
//! | [`awas`] | which strip goes to which machine, and how high it is, by an auction |
//!
//! The cost model is that of the same group's EdgeLD (HPCC 2020), with exact halos. What the paper
//! says of machines that differ within a segment, and its auction's rules, were not available; this
//! is our model of it.

pub mod awas;
mod dpfl;
mod resize;

use super::{case::Case, layout::Layout, planner::Settings};
use dpfl::Mode;

/// Segments by dynamic programming, strips by auction. Plans for the latency of one inference.
pub(super) fn lay_out(case: &Case<'_>) -> Option<Layout> {
    Some(resize::resized(case, fused(case)?))
}

/// Segments by dynamic programming over all numbers of machines, strips in proportion to
/// capability.
pub(super) fn fused(case: &Case<'_>) -> Option<Layout> {
    let team = case.team();
    let roomy = |at: &usize| {
        let whole = case.single(*at);
        case.predict(&whole).latency.is_finite()
    };
    // A programme looks at one segment at a time, and may ask for more memory than there is in
    // all. Then only machines that hold the whole model can take part.
    let small = team.iter().copied().filter(roomy).collect();
    [team, small].into_iter().find_map(|team| {
        let found = with_room(case, &modes(case, &team))?;
        case.predict(&found).latency.is_finite().then_some(found)
    })
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
    let weighted: Vec<(usize, f64)> =
        team.iter().take(STRIPS_MAX).map(|at| (*at, case.capability(*at))).collect();
    let mut strips = weighted.clone();
    strips.sort_by(|a, b| b.1.total_cmp(&a.1));
    let whole = weighted.iter().map(|(at, _)| Mode::Whole(*at));
    let divided = (2..=strips.len()).map(|count| Mode::Strips(strips[..count].to_vec()));
    whole.chain(divided).collect()
}

/// Machines side by side: halos outgrow the strips long before.
const STRIPS_MAX: usize = 8;
/// How often what a segment costs is doubled, up to as much as one inference takes.
const HOPS: i32 = 16;
