//! Swarm mode: the seed picks the whole scenario.
//!
//! A run has a safety phase, in which anything may go wrong, then everything heals, and then the
//! sessions must agree within a bounded time ([`play`](crate::play)). What never happens in any run
//! of a large swarm was not tested, so that is a failure too ([`never_seen`]).

use std::collections::BTreeSet;

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha12Rng;

use crate::{
    ledger::Sighting,
    random::{Purpose, generator},
    scenario::{Bidding, Expect, Fault, Links, Name, Provider, Scenario, Session, Verb},
};

/// What a swarm's runs are held to, other than what every run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// After the last fault and opening, everyone agrees within this time.
    pub agreed_within_s: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { agreed_within_s: 30.0 }
    }
}

/// The scenario of a seed.
#[must_use]
pub fn draw(seed: u64, limits: Limits) -> Scenario {
    let mut rng = generator(seed, Purpose::Swarm);
    let rng = &mut rng;
    let links = draw_links(rng);
    let sessions = draw_sessions(rng);
    let pieces = sessions.iter().map(|session| session.pieces).sum();
    let providers = draw_providers(rng, pieces);
    let bidding = if rng.random_bool(0.25) { Bidding::Plain } else { Bidding::Forecast };
    let mut scenario = Scenario {
        bidding,
        about: format!("Seed {seed} of a swarm."),
        seed,
        links,
        expect: Expect { agreed_within_s: limits.agreed_within_s, ..Expect::default() },
        providers,
        sessions,
        faults: Vec::new(),
    };
    if rng.random_bool(0.75) {
        add_faults(rng, &mut scenario);
    } else if rng.random_bool(0.6) {
        calm_down(&mut scenario);
    }
    if !scenario.faults.is_empty() || links.loss > 0.0 {
        // What goes wrong, or a provider that is silent by mere chance, may cost any session.
        scenario.expect.failed_max = scenario.sessions.len();
    }
    scenario
}

/// What a swarm of this many runs should have seen and has not.
#[must_use]
pub fn never_seen(runs: u64, seen: &BTreeSet<Sighting>) -> Vec<Sighting> {
    if runs < RUNS_TELLING {
        return Vec::new();
    }
    Sighting::ALL.into_iter().filter(|sighting| !seen.contains(sighting)).collect()
}

fn draw_links(rng: &mut ChaCha12Rng) -> Links {
    let latency_min_ms = rng.random_range(0..5);
    let mut probability = |most: f64| {
        if rng.random_bool(0.5) { 0.0 } else { thousandths(rng.random_range(0.0..most)) }
    };
    let (loss, duplication, reordering) = (probability(0.1), probability(0.2), probability(0.3));
    let latency_max_ms = latency_min_ms + rng.random_range(1..80);
    Links { latency_min_ms, latency_max_ms, loss, duplication, reordering }
}

fn draw_sessions(rng: &mut ChaCha12Rng) -> Vec<Session> {
    let most = *[6_usize, 20, 60].choose(rng).expect("not empty");
    let pieces = rng.random_range(1..=most);
    let streams = rng.random_bool(0.5);
    let crowd = rng.random_bool(0.5);
    let mut sessions = Vec::new();
    let mut left = pieces;
    while left > 0 {
        let pieces = rng.random_range(1..=6).min(left);
        left -= pieces;
        let at_s = if crowd { FIRST_OPENING_S } else { moment(rng, FIRST_OPENING_S, 20.0) };
        let closes = rng.random_bool(0.1);
        sessions.push(Session {
            number: u32::try_from(sessions.len()).expect("few sessions"),
            at_s,
            pieces,
            stream: if streams { rng.random_range(0..=pieces) } else { 0 },
            close_at_s: closes.then(|| moment(rng, at_s, at_s + 10.0)),
        });
    }
    sessions
}

fn draw_providers(rng: &mut ChaCha12Rng, pieces: usize) -> Vec<Provider> {
    let count = rng.random_range(1..=12_u32);
    let share = pieces.div_ceil(count as usize);
    let skewed = rng.random_bool(0.5);
    let liar = rng.random_bool(0.1).then(|| rng.random_range(0..count));
    let draw = |number| Provider {
        number,
        slots: u16::try_from(rng.random_range(share..=share * 3)).unwrap_or(u16::MAX),
        clock_ahead_s: if skewed { moment(rng, 0.0, 1000.0) } else { 0.0 },
        clock_drift_ppm: if skewed { rng.random_range(-100..=100) } else { 0 },
        lies: (liar == Some(number)).then(|| thousandths(rng.random_range(2.0..10.0))),
    };
    (0..count).map(draw).collect()
}

/// Without these, the auction's bound must hold.
fn calm_down(scenario: &mut Scenario) {
    for session in &mut scenario.sessions {
        (session.stream, session.close_at_s) = (0, None);
    }
    for provider in &mut scenario.providers {
        provider.lies = None;
    }
}

/// Up to six faults, and at the end of them everything heals.
fn add_faults(rng: &mut ChaCha12Rng, scenario: &mut Scenario) {
    let names = Names {
        providers: scenario.providers.iter().map(|p| Name::Provider(p.number)).collect(),
        requesters: scenario.sessions.iter().map(|s| Name::Requester(s.number)).collect(),
    };
    for _ in 0..rng.random_range(1..=6) {
        let at_s = moment(rng, FIRST_OPENING_S, HEALED_S - 1.0);
        let verb = names.draw_verb(rng);
        if let Verb::Pause { node } = verb {
            let resume_s = moment(rng, at_s, HEALED_S);
            scenario.faults.push(Fault { at_s: resume_s, verb: Verb::Resume { node } });
        }
        scenario.faults.push(Fault { at_s, verb });
    }
    let better = Verb::Links { loss: 0.0, duplication: 0.0, reordering: 0.0 };
    for verb in [Verb::Heal, better] {
        scenario.faults.push(Fault { at_s: HEALED_S, verb });
    }
    scenario.faults.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
}

struct Names {
    providers: Vec<Name>,
    requesters: Vec<Name>,
}

impl Names {
    fn draw_verb(&self, rng: &mut ChaCha12Rng) -> Verb {
        let provider = *self.providers.choose(rng).expect("there is a provider");
        let node = if rng.random_bool(0.8) { provider } else { self.any(rng) };
        match rng.random_range(0..100) {
            0..20 => Verb::Crash { node },
            20..40 => Verb::Restart { node },
            40..55 => Verb::Pause { node },
            55..70 => {
                let (ones, others) = self.split(rng);
                Verb::Partition { ones, others }
            }
            70..80 => {
                let (from, to) = self.split(rng);
                Verb::PartitionOneWay { from, to }
            }
            80..90 => {
                let factor = thousandths(rng.random_range(1.0..20.0));
                Verb::SlowDown { node: provider, factor }
            }
            90..94 => Verb::Corrupt { probability: thousandths(rng.random_range(0.0..0.05)) },
            94..95 => Verb::Garble { probability: thousandths(rng.random_range(0.0..0.05)) },
            _ => Verb::Links {
                loss: thousandths(rng.random_range(0.0..0.1)),
                duplication: thousandths(rng.random_range(0.0..0.3)),
                reordering: thousandths(rng.random_range(0.0..0.5)),
            },
        }
    }

    fn any(&self, rng: &mut ChaCha12Rng) -> Name {
        let all: Vec<Name> = self.providers.iter().chain(&self.requesters).copied().collect();
        *all.choose(rng).expect("there is a node")
    }

    /// Every node on one of two sides, of which neither is empty.
    fn split(&self, rng: &mut ChaCha12Rng) -> (Vec<Name>, Vec<Name>) {
        let mut sides = (Vec::new(), Vec::new());
        for name in self.providers.iter().chain(&self.requesters) {
            if rng.random_bool(0.5) { sides.0.push(*name) } else { sides.1.push(*name) }
        }
        if sides.0.is_empty() {
            sides.0.extend(sides.1.pop());
        } else if sides.1.is_empty() {
            sides.1.extend(sides.0.pop());
        }
        sides
    }
}

/// A moment in milliseconds, so that it is written down as it is.
fn moment(rng: &mut ChaCha12Rng, first: f64, last: f64) -> f64 {
    thousandths(rng.random_range(first..=last))
}

fn thousandths(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// When the nodes have had time to get to know each other.
const FIRST_OPENING_S: f64 = 1.5;
/// When everything heals.
const HEALED_S: f64 = 25.0;
/// So many runs see everything that can be seen.
const RUNS_TELLING: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_a_scenario_that_can_be_written_down() {
        for seed in 0..300 {
            let scenario = draw(seed, Limits::default());
            assert_eq!(scenario.validate(), Ok(()), "seed {seed}");
            assert_eq!(Scenario::parse(&scenario.to_toml()), Ok(scenario), "seed {seed}");
        }
    }

    #[test]
    fn seeds_repeat_and_differ() {
        let draw = |seed| draw(seed, Limits::default());
        assert_eq!(draw(4), draw(4));
        assert_ne!(draw(4).providers, draw(5).providers);
    }

    #[test]
    fn a_large_swarm_that_misses_something_says_so() {
        let mut seen = BTreeSet::from(Sighting::ALL);
        assert!(never_seen(1000, &seen).is_empty());
        seen.remove(&Sighting::Eviction);
        assert_eq!(never_seen(1000, &seen), [Sighting::Eviction]);
        assert!(never_seen(10, &seen).is_empty(), "too few to tell");
    }
}
