//! Links between nodes: how long a message takes, and what may become of it on the way.

use std::{collections::BTreeMap, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use thiserror::Error;

use crate::random::{Purpose, generator};

/// How good the links are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// The shortest latency that a link may have, one way.
    pub latency_min: Duration,
    /// The longest.
    pub latency_max: Duration,
    /// The probability that a message never arrives.
    pub loss: f64,
    /// The probability that a message arrives twice.
    pub duplication: f64,
    /// The probability that a message is held back, so that later ones overtake it.
    pub reordering: f64,
    /// How long a message is held back at most.
    pub held_back_max: Duration,
}

impl Default for Config {
    /// A LAN with some Wi-Fi in it: 1 to 20 ms, and nothing is lost.
    fn default() -> Self {
        Self {
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(20),
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            held_back_max: Duration::from_millis(50),
        }
    }
}

/// Why no network can be made like this. Always the caller's fault.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number that should be a probability is none.
    #[error("{what} must be between 0 and {limit}, not {value}")]
    Probability {
        /// Which.
        what: &'static str,
        /// The most that makes sense.
        limit: f64,
        /// What it was.
        value: f64,
    },
    /// The shortest latency is above the longest.
    #[error("the shortest latency is above the longest")]
    Latency,
}

impl Config {
    /// Says what is wrong with it, if anything.
    ///
    /// # Errors
    /// The first number that makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.latency_min > self.latency_max {
            return Err(ConfigError::Latency);
        }
        let probabilities = [
            ("the loss", LOSS_MAX, self.loss),
            ("the duplication", 1.0, self.duplication),
            ("the reordering", 1.0, self.reordering),
        ];
        for (what, limit, value) in probabilities {
            if !(0.0..=limit).contains(&value) {
                return Err(ConfigError::Probability { what, limit, value });
            }
        }
        Ok(())
    }
}

/// All links of a world. Nodes are numbers here.
#[derive(Clone, Debug)]
pub struct Network {
    config: Config,
    latencies: BTreeMap<(usize, usize), Duration>,
    links: ChaCha12Rng,
    faults: ChaCha12Rng,
}

impl Network {
    /// The links of a seed.
    #[must_use]
    pub fn new(seed: u64, config: Config) -> Self {
        Self {
            config,
            latencies: BTreeMap::new(),
            links: generator(seed, Purpose::Links),
            faults: generator(seed, Purpose::Faults),
        }
    }

    /// One way between two nodes, the same in both directions. Drawn when the pair first talks,
    /// and kept.
    pub fn latency(&mut self, a: usize, b: usize) -> Duration {
        let range = self.config.latency_min..=self.config.latency_max;
        let links = &mut self.links;
        *self.latencies.entry((a.min(b), a.max(b))).or_insert_with(|| links.random_range(range))
    }

    /// A message from one node to another: the time that each copy of it takes. No copy if it is
    /// lost, two if it is doubled.
    pub fn transmit(&mut self, from: usize, to: usize) -> impl Iterator<Item = Duration> + use<> {
        let latency = self.latency(from, to);
        let mut copies = [None; 2];
        if !self.happens(self.config.loss) {
            copies[0] = Some(latency + self.held_back());
            if self.happens(self.config.duplication) {
                copies[1] = Some(latency + self.held_back());
            }
        }
        copies.into_iter().flatten()
    }

    fn held_back(&mut self) -> Duration {
        if self.happens(self.config.reordering) {
            self.faults.random_range(Duration::ZERO..=self.config.held_back_max)
        } else {
            Duration::ZERO
        }
    }

    /// Draws nothing for what never happens, so that a network without faults is fast.
    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.faults.random_bool(probability)
    }
}

/// With more than half of all messages lost, timeouts decide everything and an experiment says
/// little about the protocol.
const LOSS_MAX: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn deliveries(config: Config) -> Vec<Vec<Duration>> {
        let mut network = Network::new(1, config);
        (0..2000).map(|_| network.transmit(3, 4).collect()).collect()
    }

    #[test]
    fn a_link_keeps_its_latency_both_ways() {
        let mut network = Network::new(5, Config::default());
        let there = network.latency(0, 1);
        let other = network.latency(0, 2);
        assert_eq!(network.latency(1, 0), there);
        assert_ne!(there, other);
        let range = Duration::from_millis(1)..=Duration::from_millis(20);
        assert!((0..100).all(|n| range.contains(&network.latency(n, n + 1))));
    }

    #[test]
    fn without_faults_every_message_arrives_once_and_in_order() {
        let seen = deliveries(Config::default());
        assert!(seen.iter().all(|copies| copies.len() == 1 && copies == &seen[0]));
    }

    #[test]
    fn faults_come_as_often_as_asked_for() {
        let config = Config { loss: 0.2, duplication: 0.1, reordering: 0.5, ..Config::default() };
        let seen = deliveries(config);
        let share = |count: usize| {
            seen.iter().filter(|copies| copies.len() == count).count() as f64 / 2000.0
        };
        assert!((share(0) - 0.2).abs() < 0.03);
        assert!((share(2) - 0.08).abs() < 0.03);
        let base = Network::new(1, config).latency(3, 4);
        let late = seen.iter().flatten().filter(|delay| **delay > base).count();
        let all = seen.iter().flatten().count();
        assert!((late as f64 / all as f64 - 0.5).abs() < 0.05);
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |config: Config| assert!(config.validate().is_err(), "{config:?}");
        check(Config { loss: 0.6, ..Config::default() });
        check(Config { loss: f64::NAN, ..Config::default() });
        check(Config { duplication: -0.1, ..Config::default() });
        check(Config { latency_min: Duration::from_secs(1), ..Config::default() });
        assert_eq!(Config::default().validate(), Ok(()));
    }
}
