//! What the planners are compared with, each tuned as far as its own idea goes.

mod draw;

use super::{
    case::{Case, Segment},
    layout::Layout,
    room::Room,
};
use crate::plan::{LayerRange, Piece};
use draw::Draw;

/// Everything at the requester. Nothing if it is none of the workers.
pub(super) fn local(case: &Case<'_>) -> Option<Layout> {
    case.own().map(|own| case.single(own))
}

/// Everything at the one best worker.
pub(super) fn single(case: &Case<'_>) -> Option<Layout> {
    case.best(case.able().into_iter().map(|at| case.single(at)))
}

/// The first layers at the requester, the rest at one other: the best cut and the best other. All
/// at one is allowed, and all that is left where the requester does not compute.
pub(super) fn neurosurgeon(case: &Case<'_>) -> Option<Layout> {
    let (own, others, last) = (case.own(), case.able(), case.profile.layers());
    let inner = if case.settings.pieces_max > 1 { 1..last } else { 1..1 };
    let split = own.into_iter().flat_map(|own| {
        let pairs = inner.clone().flat_map(|cut| others.iter().map(move |at| (cut, *at)));
        pairs.filter(move |(_, at)| *at != own).map(move |(cut, at)| Layout {
            segments: vec![
                vec![(Piece::whole(LayerRange { first: 0, end: cut }), own)],
                vec![(Piece::whole(LayerRange { first: cut, end: last }), at)],
            ],
        })
    });
    case.best(others.iter().map(|at| case.single(*at)).chain(split))
}

/// Every layer in strips in proportion to capability, on all machines; what can't be split, or has
/// no room in strips, on the fastest that has.
pub(super) fn layer_wise(case: &Case<'_>) -> Option<Layout> {
    let team = case.team();
    let weighted: Vec<(usize, f64)> = team.iter().map(|at| (*at, case.capability(*at))).collect();
    let fastest = *team.first()?;
    let mut room = Room::of_memory(&case.workers);
    let segment = |layers: LayerRange| -> Segment {
        let weighted = case.weighted(layers, &weighted);
        let strips = case.strips_within(layers, &weighted, &room.memory());
        let whole = |at: &usize| vec![(Piece::whole(layers), *at)];
        let ways: Vec<Segment> = strips.into_iter().chain(team.iter().map(whole)).collect();
        room.first_of(case, &ways, &team).unwrap_or_else(|| whole(&fastest))
    };
    let segments = case.units().into_iter().map(segment).collect();
    Some(Layout { segments }.merged())
}

/// The first layers fused, in equal strips on all machines, the rest on one: the best number of
/// layers and the best one.
pub(super) fn early_fused(case: &Case<'_>) -> Option<Layout> {
    let (team, last) = (case.team(), case.profile.layers());
    let equal: Vec<(usize, f64)> = team.iter().map(|at| (*at, 1.0)).collect();
    let fused = case.cuts().into_iter().filter_map(|end| {
        let strips = case.strips(LayerRange { first: 0, end }, &equal)?;
        Some((LayerRange { first: end, end: last }, strips))
    });
    let layouts = fused.flat_map(|(rest, strips)| {
        let with = move |at: &usize| {
            let whole = (!rest.is_empty()).then(|| vec![(Piece::whole(rest), *at)]);
            Layout { segments: [Some(strips.clone()), whole].into_iter().flatten().collect() }
        };
        team.iter().map(with).collect::<Vec<_>>()
    });
    let layouts: Vec<Layout> = layouts.collect();
    case.best(layouts).or_else(|| single(case))
}

/// Each layer where it would be done first, given where the one before was.
pub(super) fn greedy(case: &Case<'_>) -> Option<Layout> {
    let (team, mut segments, mut before) = (case.team(), Vec::new(), Vec::new());
    let mut free: Vec<u64> =
        case.workers.iter().map(|worker| worker.provider.memory_free).collect();
    for pair in case.cuts().windows(2) {
        let piece = Piece::whole(LayerRange { first: pair[0], end: pair[1] });
        let offers = team.iter().map(|at| {
            let tasks = case.tasks(&[(piece.clone(), *at)]);
            let fits = tasks[0].cost.weight_bytes <= free[*at];
            let seconds = if fits { case.segment(&before, &tasks) } else { f64::INFINITY };
            (seconds, *at, tasks)
        });
        let (_, at, tasks) = offers.min_by(|a, b| a.0.total_cmp(&b.0))?;
        free[at] = free[at].saturating_sub(tasks[0].cost.weight_bytes);
        before = tasks;
        segments.push(vec![(piece, at)]);
    }
    Some(Layout { segments }.merged())
}

/// As many pieces as a die says, cut where it says, each at a machine that it says.
pub(super) fn random(case: &Case<'_>) -> Option<Layout> {
    let (team, mut draw) = (case.team(), Draw::new(case.settings.seed));
    if team.is_empty() {
        return None;
    }
    let last = case.profile.layers();
    let mut inner: Vec<u16> =
        case.cuts().into_iter().filter(|cut| (1..last).contains(cut)).collect();
    let pieces = 1 + draw.below(team.len().min(inner.len() + 1));
    let mut cuts: Vec<u16> =
        (1..pieces).map(|_| inner.swap_remove(draw.below(inner.len()))).collect();
    cuts.extend([0, last]);
    cuts.sort_unstable();
    let segment = |pair: &[u16]| {
        let layers = LayerRange { first: pair[0], end: pair[1] };
        vec![(Piece::whole(layers), team[draw.below(team.len())])]
    };
    Some(Layout { segments: cuts.windows(2).map(segment).collect() }.merged())
}
