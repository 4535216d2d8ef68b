//! Links between nodes: how long a message takes, and what may become of it on the way.
//!
//! Messages are datagrams: each may be lost, doubled, held back or have a bit flipped. Tensors go
//! over streams: they take their bytes' time on the link one after another, and what is lost on
//! the way is sent again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use starling_protocol::Timestamp;
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

/// What becomes of a message with a bit flipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flipped {
    /// Connections are secured, as a live node's are: it is noticed and dropped.
    #[default]
    Dropped,
    /// Nothing secures them: whatever it now says is heard, if it still says anything.
    Heard,
}

/// All links of a world. Nodes are numbers here.
#[derive(Clone, Debug)]
pub struct Network {
    config: Config,
    latencies: BTreeMap<(usize, usize), Duration>,
    cuts: BTreeSet<(usize, usize)>,
    flips: f64,
    flipped: Flipped,
    // Until when tensors take each node's own link, out and in: whoever they are for or from.
    taken: [BTreeMap<usize, Timestamp>; 2],
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
            cuts: BTreeSet::new(),
            flips: 0.0,
            flipped: Flipped::Dropped,
            taken: Default::default(),
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

    /// Nothing gets from one node to the other any more.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Whether nothing gets from one node to the other.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&(from, to))
    }

    /// Nothing is cut off or corrupted any more.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.flips = 0.0;
    }

    /// From now on, a bit of a message is flipped with this probability, and this becomes of it.
    pub fn flip_bits(&mut self, probability: f64, flipped: Flipped) {
        self.flips = probability.clamp(0.0, 1.0);
        self.flipped = flipped;
    }

    /// What becomes of messages with a bit flipped.
    #[must_use]
    pub fn flipped(&self) -> Flipped {
        self.flipped
    }

    /// The links' faults, which may change at any time.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// A message from one node to another: the time that each copy of it takes. No copy if it is
    /// lost, two if it is doubled.
    pub fn transmit(&mut self, from: usize, to: usize) -> impl Iterator<Item = Duration> + use<> {
        let latency = self.latency(from, to);
        let mut copies = [None; 2];
        if !self.is_cut(from, to) && !self.happens(self.config.loss) {
            copies[0] = Some(latency + self.held_back());
            if self.happens(self.config.duplication) {
                copies[1] = Some(latency + self.held_back());
            }
        }
        copies.into_iter().flatten()
    }

    /// Which bit of a message of so many bytes is flipped on the way, if one is.
    pub fn flipped_bit(&mut self, bytes: usize) -> Option<usize> {
        let flips = bytes > 0 && self.happens(self.flips);
        flips.then(|| self.faults.random_range(0..bytes * 8))
    }

    /// When a tensor handed over now has arrived, behind those that its sender sent before it and
    /// those that its receiver gets before it, or nothing if there is no way. The sender's and the
    /// receiver's links carry so many bytes a second. Each copy that gets lost costs a round trip.
    pub fn transfer(
        &mut self,
        now: Timestamp,
        (from, to): (usize, usize),
        bytes: u64,
        bandwidths: (u64, u64),
    ) -> Option<Timestamp> {
        if from == to {
            return Some(now);
        }
        if self.is_cut(from, to) {
            return None;
        }
        let latency = self.latency(from, to);
        let mut resent = Duration::ZERO;
        for _ in 0..RESENDS_MAX {
            if !self.happens(self.config.loss) {
                break;
            }
            resent += latency * 2;
        }
        let span = |bandwidth: u64| {
            Duration::from_secs_f64(bytes as f64 / bandwidth.max(1) as f64) + resent
        };
        let [sent, received] = &mut self.taken;
        let (sent, received) = (sent.entry(from).or_default(), received.entry(to).or_default());
        let began = now.max(*sent);
        *sent = began + span(bandwidths.0);
        *received = began.max(*received) + span(bandwidths.1);
        Some((*sent).max(*received) + latency)
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

/// A stream that loses more in a row than this is luckier than its losses.
const RESENDS_MAX: u32 = 10;
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
    fn a_cut_goes_one_way_and_heals() {
        let mut network = Network::new(1, Config::default());
        network.cut(3, 4);
        assert_eq!(network.transmit(3, 4).count(), 0);
        assert_eq!(network.transmit(4, 3).count(), 1);
        assert_eq!(network.transfer(Timestamp(0), (3, 4), 1, (1, 1)), None);
        network.heal();
        assert_eq!(network.transmit(3, 4).count(), 1);
    }

    #[test]
    fn tensors_wait_for_each_other_on_each_nodes_link_and_one_way() {
        let links = Config { latency_min: LATENCY, latency_max: LATENCY, ..Config::default() };
        let mut network = Network::new(1, links);
        // 500 bytes: a second on all links but the third node's, which takes two.
        let mut check = |from: usize, to: usize, seconds: u64| {
            let bandwidth = |node: usize| if node == 3 { 250 } else { 500 };
            let ends = (bandwidth(from), bandwidth(to));
            let got = network.transfer(Timestamp(0), (from, to), 500, ends);
            assert_eq!(got, Some(Timestamp(seconds * 1_000_000) + LATENCY), "{from} to {to}");
        };
        check(0, 1, 1);
        check(0, 1, 2);
        check(1, 0, 1);
        // Behind what its sender has sent to another, or its receiver got from another.
        check(0, 2, 3);
        check(4, 1, 3);
        // The slower end counts, and the faster one is free before.
        check(5, 3, 2);
        check(5, 6, 2);
        assert_eq!(network.transfer(Timestamp(0), (2, 2), 1, (1, 1)), Some(Timestamp(0)));
    }

    const LATENCY: Duration = Duration::from_millis(3);

    #[test]
    fn bits_flip_as_often_as_asked_for() {
        let mut network = Network::new(1, Config::default());
        assert!((0..100).all(|_| network.flipped_bit(9).is_none()));
        network.flip_bits(0.25, Flipped::Dropped);
        let flipped: Vec<usize> = (0..2000).filter_map(|_| network.flipped_bit(9)).collect();
        assert!((flipped.len() as f64 / 2000.0 - 0.25).abs() < 0.03);
        assert!(flipped.iter().all(|bit| *bit < 72) && flipped.contains(&71));
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
