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
};
use crate::{
    nats::Nats,
    plan::{LayerRange, Piece},
};
use matching::{Holes, Market};

/// The best over the numbers of machines and the kinds of groups.
pub(super) fn lay_out(case: &Case<'_>) -> Option<Layout> {
    let team = case.team();
    let groups = [groups(case, Grain::Layer), groups(case, Grain::Resolution)];
    let alone = team.iter().map(|at| vec![*at]);
    let together = (2..=team.len()).map(|count| matched(case, &team, count));
    let machines: Vec<Vec<usize>> = alone.chain(together).collect();
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
            let same = case.splittable(*group) == case.splittable(unit);
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
    let log_rate = |at: &usize| Nats::ln(1.0 / case.workers[*at].whole(case.profile).max(1e-9));
    let rates: Vec<Option<Nats>> = team.iter().map(log_rate).collect();
    let market = Market { log_rates: vec![rates; count], quotas: vec![1; team.len()] };
    let mut machines: Vec<usize> =
        market.propose().into_iter().flatten().map(|at| team[at]).collect();
    machines.sort_by_key(|at| team.iter().position(|other| other == at));
    machines
}

/// Each group in strips at these machines, where it can be; at the fastest of them otherwise.
fn divided(case: &Case<'_>, groups: &[LayerRange], machines: &[usize]) -> Layout {
    let segment = |layers: &LayerRange| {
        let piece = case.profile.range(*layers);
        let weighted =
            machines.iter().map(|at| (*at, 1.0 / case.workers[*at].computing(&piece).max(1e-12)));
        let team: Vec<(usize, f64)> = weighted.collect();
        match case.strips(*layers, &team) {
            Some(strips) => exchanged(case, strips),
            None => machines.first().map(|at| (Piece::whole(*layers), *at)).into_iter().collect(),
        }
    };
    Layout { segments: groups.iter().map(segment).collect() }
}

/// Strips exchange machines until none of them, and no machine, wants to.
fn exchanged(case: &Case<'_>, strips: Segment) -> Segment {
    let machines: Vec<usize> = strips.iter().map(|(_, at)| *at).collect();
    let tasks = case.tasks(&strips);
    let log_rate = |task: &super::predict::Task, at: usize| {
        let rows = (task.takes.clone(), task.makes.clone());
        let task = case.task(at, task.layers, task.cost, rows);
        Nats::ln(1.0 / case.segment(&[], &[task]).max(1e-9))
    };
    let rates = tasks.iter().map(|task| machines.iter().map(|at| log_rate(task, *at)).collect());
    let market = Market { log_rates: rates.collect(), quotas: vec![1; machines.len()] };
    let mut matching: Vec<Option<usize>> = (0..machines.len()).map(Some).collect();
    market.exchange(&mut matching, Holes::Closed);
    let places = matching.into_iter().map(|at| at.map_or(0, |at| machines[at]));
    strips.into_iter().zip(places).map(|((piece, _), at)| (piece, at)).collect()
}
