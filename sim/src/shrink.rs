//! From a scenario that fails to a smaller one that fails alike.
//!
//! Greedy: whatever can be left out without the failure going away is left out, until nothing more
//! can. Machines and sessions are drawn by their numbers, so those that stay are what they were.

use crate::{
    play::Failure,
    scenario::{Links, Name, Scenario, Verb},
};

/// Shrinks a scenario. `play` must be deterministic; it is called at most `runs_max` times.
#[must_use]
pub fn shrink(
    scenario: &Scenario,
    failure: &Failure,
    runs_max: usize,
    play: impl Fn(&Scenario) -> Option<Failure>,
) -> Scenario {
    let mut best = scenario.clone();
    let mut runs = 0;
    loop {
        let before = best.clone();
        for candidates in [without_faults, without_sessions, without_providers, simpler] {
            let mut index = 0;
            // What follows a part that was left out has moved to its index.
            while let Some(smaller) = candidates(&best).into_iter().nth(index) {
                if runs >= runs_max {
                    return best;
                }
                runs += 1;
                let fails = smaller.validate().is_ok()
                    && play(&smaller).is_some_and(|other| other.is_like(failure));
                if fails { best = smaller } else { index += 1 }
            }
        }
        if best == before {
            return best;
        }
    }
}

fn without_faults(scenario: &Scenario) -> Vec<Scenario> {
    let gone = |index| {
        let mut less = scenario.clone();
        less.faults.remove(index);
        less
    };
    // Without what mends them, other faults would last: that is another failure.
    (0..scenario.faults.len()).filter(|index| !mends(scenario, *index)).map(gone).collect()
}

/// Whether a fault is the end of others that are still there.
fn mends(scenario: &Scenario, index: usize) -> bool {
    let others = || (0..).zip(&scenario.faults).filter(|(n, _)| *n != index).map(|(_, f)| &f.verb);
    match &scenario.faults[index].verb {
        Verb::Heal => others().any(|verb| {
            matches!(
                verb,
                Verb::Corrupt { .. }
                    | Verb::Garble { .. }
                    | Verb::Partition { .. }
                    | Verb::PartitionOneWay { .. }
            )
        }),
        Verb::Links { loss, .. } => {
            let lossy = scenario.links.loss > 0.0
                || others().any(|verb| matches!(verb, Verb::Links { loss, .. } if *loss > 0.0));
            *loss == 0.0 && lossy
        }
        Verb::Resume { node } => {
            others().any(|verb| matches!(verb, Verb::Pause { node: frozen } if frozen == node))
        }
        Verb::Corrupt { .. }
        | Verb::Crash { .. }
        | Verb::Garble { .. }
        | Verb::Partition { .. }
        | Verb::PartitionOneWay { .. }
        | Verb::Pause { .. }
        | Verb::Restart { .. }
        | Verb::SlowDown { .. } => false,
    }
}

fn without_sessions(scenario: &Scenario) -> Vec<Scenario> {
    let gone = |index| {
        let mut less = scenario.clone();
        let session = less.sessions.remove(index);
        forget(&mut less, Name::Requester(session.number));
        less
    };
    (0..scenario.sessions.len()).map(gone).collect()
}

fn without_providers(scenario: &Scenario) -> Vec<Scenario> {
    let gone = |index| {
        let mut less = scenario.clone();
        let provider = less.providers.remove(index);
        forget(&mut less, Name::Provider(provider.number));
        less
    };
    (0..scenario.providers.len()).map(gone).collect()
}

/// The same parts, each with less to it. Only what differs is worth a run.
fn simpler(scenario: &Scenario) -> Vec<Scenario> {
    let mut all: Vec<Scenario> = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut less = scenario.clone();
        change(&mut less);
        if less != *scenario {
            all.push(less);
        }
    };
    add(&|less| less.links.loss = 0.0);
    add(&|less| less.links.duplication = 0.0);
    add(&|less| less.links.reordering = 0.0);
    add(&|less| less.links = Links { ..Links::default() });
    for index in 0..scenario.sessions.len() {
        add(&|less| less.sessions[index].stream = 0);
        add(&|less| less.sessions[index].close_at_s = None);
        add(&|less| less.sessions[index].pieces = 1);
        add(&|less| less.sessions[index].pieces = less.sessions[index].pieces.div_ceil(2));
    }
    for index in 0..scenario.providers.len() {
        add(&|less| less.providers[index].lies = None);
        add(&|less| {
            less.providers[index].clock_ahead_s = 0.0;
            less.providers[index].clock_drift_ppm = 0;
        });
    }
    all
}

/// Takes a node out of all faults, and out goes a fault that befalls nobody any more.
fn forget(scenario: &mut Scenario, gone: Name) {
    scenario.faults.retain_mut(|fault| match &mut fault.verb {
        Verb::Crash { node }
        | Verb::Pause { node }
        | Verb::Restart { node }
        | Verb::Resume { node }
        | Verb::SlowDown { node, .. } => *node != gone,
        Verb::Partition { ones: a, others: b } | Verb::PartitionOneWay { from: a, to: b } => {
            a.retain(|name| *name != gone);
            b.retain(|name| *name != gone);
            !a.is_empty() && !b.is_empty()
        }
        Verb::Corrupt { .. } | Verb::Garble { .. } | Verb::Heal | Verb::Links { .. } => true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::{self, Limits};

    fn crowded() -> Scenario {
        (0..)
            .map(|seed| swarm::draw(seed, Limits::default()))
            .find(|drawn| {
                let crash = |verb: &Verb| matches!(verb, Verb::Crash { .. });
                let crashes = drawn.faults.iter().filter(|fault| crash(&fault.verb)).count();
                crashes > 0 && drawn.faults.len() > 4 && drawn.sessions.len() > 2
            })
            .expect("some seed is like this")
    }

    #[test]
    fn what_has_nothing_to_do_with_the_failure_is_left_out() {
        // "Fails" whenever some provider crashes.
        let failure = Failure::Panic("a crash".to_owned());
        let play = |scenario: &Scenario| {
            let crash = |verb: &Verb| matches!(verb, Verb::Crash { .. });
            scenario.faults.iter().any(|fault| crash(&fault.verb)).then(|| failure.clone())
        };
        let small = shrink(&crowded(), &failure, 1000, play);
        assert_eq!((small.faults.len(), small.sessions.len(), small.providers.len()), (1, 1, 1));
        assert_eq!((small.links, small.sessions[0].pieces), (Links::default(), 1));
    }

    #[test]
    fn another_failure_is_not_what_it_looks_for() {
        let failure = Failure::Panic(String::new());
        let play = |_: &Scenario| Some(Failure::Unexpected(String::new()));
        assert_eq!(shrink(&crowded(), &failure, 1000, play), crowded());
    }

    #[test]
    fn what_mends_a_fault_stays_as_long_as_the_fault() {
        let seeds = (0..200).map(|seed| swarm::draw(seed, Limits::default()));
        for scenario in seeds {
            let failure = Failure::Panic(String::new());
            // "Fails" as long as something is cut or frozen.
            let wrong = |verb: &Verb| matches!(verb, Verb::Partition { .. } | Verb::Pause { .. });
            let play = |scenario: &Scenario| {
                scenario.faults.iter().any(|f| wrong(&f.verb)).then(|| failure.clone())
            };
            if play(&scenario).is_none() {
                continue;
            }
            let small = shrink(&scenario, &failure, 1000, play);
            let verbs: Vec<&Verb> = small.faults.iter().map(|fault| &fault.verb).collect();
            assert_eq!(verbs.iter().filter(|verb| wrong(verb)).count(), 1, "{verbs:?}");
            let mended = |verb: &&Verb| matches!(verb, Verb::Heal | Verb::Resume { .. });
            assert!(verbs.last().is_some_and(mended), "{verbs:?}");
        }
    }

    #[test]
    fn it_gives_up_after_so_many_runs() {
        let failure = Failure::Panic(String::new());
        let runs = std::cell::Cell::new(0);
        let play = |_: &Scenario| {
            runs.set(runs.get() + 1);
            Some(failure.clone())
        };
        let small = shrink(&crowded(), &failure, 3, play);
        assert_eq!(runs.get(), 3);
        assert_ne!(small, crowded());
    }
}
