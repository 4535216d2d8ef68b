//! `dina`: after Mohammed, Joe-Wong, Babbar and Di Francesco (INFOCOM 2020), as far as its abstract
//! and those who quote it tell.
//!
//! *DINA-P* cuts layer groups into strips along the height, each in proportion to its machine's
//! capability over its congestion, with halos; how many machines is found by trying all numbers.
//! *DINA-O* is a matching game ([`matching`]): equal parts propose to machines, which decides who
//! takes part; and when the strips have been cut for them, they are exchanged until no two want
//! to.
//!
//! The paper's layer groups and utilities were not available. Ours: groups are single layers, or
//! all layers up to the next that makes the image smaller, whichever is better; a utility is the
//! logarithm of a piece's rate.

pub mod matching;

use super::{
    case::{Case, Segment},
    layout::Layout,
    room::Room,
};
use crate::{
    nats::Nats,
    plan::{LayerRange, Piece},
};
use matching::{Holes, Market};

/// The best over the numbers of machines, with the requester's own and without, and over the kinds
/// of groups.
pub(super) fn lay_out(case: &Case<'_>) -> Option<Layout> {
    let team = case.team();
    let groups = [groups(case, Grain::Layer), groups(case, Grain::Resolution)];
    let own = case.own().filter(|own| team.contains(own));
    let others: Vec<usize> = team.iter().copied().filter(|at| Some(*at) != own).collect();
    let alone = team.iter().map(|at| vec![*at]);
    let beside = own.into_iter().flat_map(|own| {
        let with = move |machines: Vec<usize>| [own].into_iter().chain(machines).collect();
        (1..=others.len()).map(|count| matched(case, &others, count)).map(with)
    });
    let away = (2..=others.len()).map(|count| matched(case, &others, count));
    let machines: Vec<Vec<usize>> = alone.chain(beside).chain(away).collect();
    let pairs = groups.iter().flat_map(|groups| machines.iter().map(move |some| (groups, some)));
    let layouts: Vec<Layout> =
        pairs.map(|(groups, some)| divided(case, groups, some).merged()).collect();
    case.best(layouts)
}

/// Which layers make up a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grain {
    /// Each its own, with the poolings after it; a residual block is one.
    Layer,
    /// All up to the next that makes the image smaller.
    Resolution,
}

fn groups(case: &Case<'_>, grain: Grain) -> Vec<LayerRange> {
    let height = |cut: u16| -> u32 {
        let rows = case.profile.rows().map(|map| map.all(cut)).unwrap_or_default();
        rows.iter().map(|rows| rows.len()).max().unwrap_or(1)
    };
    let mut groups: Vec<LayerRange> = Vec::new();
    for unit in case.units() {
        let grows = |group: &LayerRange| {
            let with = LayerRange { first: group.first, end: unit.end };
            let splits = [*group, unit, with].map(|layers| case.splittable(layers));
            let same = splits == [splits[0]; 3];
            same && grain == Grain::Resolution && height(group.first) == height(group.end)
        };
        match groups.last_mut().filter(|group| grows(group)) {
            Some(group) => group.end = unit.end,
            None => groups.push(unit),
        }
    }
    groups
}

/// Who takes part: so many equal parts of the model propose to machines with one place each.
fn matched(case: &Case<'_>, team: &[usize], count: usize) -> Vec<usize> {
    let whole = case.profile.range(LayerRange { first: 0, end: case.profile.layers() });
    let log_rate =
        |at: &usize| Nats::ln(count as f64 / case.workers[*at].alone(&whole).max(SECONDS_MIN));
    let rates: Vec<Option<Nats>> = team.iter().map(log_rate).collect();
    let market = Market { log_rates: vec![rates; count], quotas: vec![1; team.len()] };
    let mut machines: Vec<usize> =
        market.propose().into_iter().flatten().map(|at| team[at]).collect();
    machines.sort_by_key(|at| team.iter().position(|other| other == at));
    machines
}

/// Each group in strips at these machines, where it can be, and they leave memory for the groups to
/// come; at the fastest for it that has room otherwise.
fn divided(case: &Case<'_>, groups: &[LayerRange], machines: &[usize]) -> Layout {
    let mut room = Room::of_memory(&case.workers);
    let mut segment = |layers: &LayerRange| {
        let piece = case.profile.range(*layers);
        let seconds = |at: usize| case.workers[at].computing(&piece).max(SECONDS_MIN);
        let team: Vec<(usize, f64)> = machines.iter().map(|at| (*at, 1.0 / seconds(*at))).collect();
        let strips = case.strips_within(*layers, &team, &room.memory());
        let strips =
            strips.into_iter().flat_map(|strips| [exchanged(case, strips.clone()), strips]);
        let mut fastest = machines.to_vec();
        fastest.sort_by(|a, b| seconds(*a).total_cmp(&seconds(*b)));
        let whole = |at: &usize| vec![(Piece::whole(*layers), *at)];
        let ways: Vec<Segment> = strips.chain(fastest.iter().map(whole)).collect();
        room.first_of(case, &ways, machines).or(fastest.first().map(whole)).unwrap_or_default()
    };
    Layout { segments: groups.iter().map(&mut segment).collect() }
}

/// Strips exchange machines until none of them, and no machine, wants to.
fn exchanged(case: &Case<'_>, strips: Segment) -> Segment {
    let machines: Vec<usize> = strips.iter().map(|(_, at)| *at).collect();
    let tasks = case.tasks(&strips);
    let log_rate = |task: &super::predict::Task, at: usize| {
        let rows = (task.takes.clone(), task.makes.clone());
        let task = case.task(at, task.layers, task.cost, rows);
        Nats::ln(1.0 / case.segment(&[], &[task]).max(SECONDS_MIN))
    };
    let rates = tasks.iter().map(|task| machines.iter().map(|at| log_rate(task, *at)).collect());
    let market = Market { log_rates: rates.collect(), quotas: vec![1; machines.len()] };
    let mut matching: Vec<Option<usize>> = (0..machines.len()).map(Some).collect();
    market.exchange(&mut matching, Holes::Closed);
    let places = matching.into_iter().map(|at| at.map_or(0, |at| machines[at]));
    strips.into_iter().zip(places).map(|((piece, _), at)| (piece, at)).collect()
}

/// Nothing is faster.
const SECONDS_MIN: f64 = 1e-9;
