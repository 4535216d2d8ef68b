//! From a seed to requesters and providers in a building, and to the assignment problem that they
//! pose.
//!
//! Each requester has one DNN in [`PIECES_EACH`] pieces of equal time. A piece's stand-alone time
//! is `T_ij = D_in / R_ij + C / F_j + D_out / R_ij`, by the protocol's own cost model, where `R_ij` is
//! the link between its requester and the provider. All of it is our model: the paper's own
//! parameters were not available.

use std::fmt;

use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use starling_protocol::{
    Nats,
    cost::{self, Provider},
    market::Terms,
    model::{OP_CLASSES, PieceProfile, Speed},
    testing::Instance,
};

use super::{
    machines::Machine,
    models::Dnn,
    radio::{self, Point},
};
use crate::random::{Purpose, generator};

/// Where providers stand. Requesters stand anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layout {
    /// In clusters of up to [`CLUSTER`], each around a place of its own: many requesters have no
    /// provider near.
    Clustered,
    /// Anywhere.
    Uniform,
}

/// How fast providers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fleet {
    /// Each is one of the presets, 0.8 to 1.2 times as fast in each class of operators.
    Boards,
    /// Each is 1 to 8 times a Pi 3, and 0.3 to 1.5 times that in each class of operators: the
    /// machines of `starling-sim converge`.
    Spread,
}

/// What requesters want computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// One DNN for all.
    All(Dnn),
    /// Each has drawn its own.
    Mixed,
}

/// Everything but the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scenario {
    /// What is computed.
    pub demand: Demand,
    /// Where.
    pub layout: Layout,
    /// On what.
    pub fleet: Fleet,
    /// `N`, a multiple of [`PIECES_EACH`].
    pub pieces: usize,
    /// `M`.
    pub providers: usize,
    /// How many even shares of the pieces each provider has slots for; usually
    /// [`SLOTS_OF_SHARE`].
    pub slots_of_share: usize,
    /// The auction's eps, and the gap per piece at which the dual methods stop; usually [`EPS`].
    pub eps: Nats,
}

/// One seed of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The assignment problem.
    pub instance: Instance,
    /// `T_ij` by piece, then provider; infinite where the pair is infeasible.
    pub seconds: Vec<Vec<f64>>,
}

impl Layout {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Clustered];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clustered => "clustered",
            Self::Uniform => "uniform",
        }
    }

    fn draw(self, rng: &mut ChaCha12Rng, providers: usize) -> Vec<Point> {
        match self {
            Self::Clustered => {
                let centres: Vec<Point> =
                    (0..providers.div_ceil(CLUSTER)).map(|_| Point::anywhere(rng)).collect();
                (0..providers)
                    .map(|n| centres[n / CLUSTER].near(rng, CLUSTER_DEVIATION_M))
                    .collect()
            }
            Self::Uniform => (0..providers).map(|_| Point::anywhere(rng)).collect(),
        }
    }
}

impl Fleet {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Spread, Self::Boards];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Boards => "boards",
            Self::Spread => "spread",
        }
    }

    /// A machine's speed and the memory that it has for weights.
    fn draw(self, rng: &mut ChaCha12Rng, presets: &[Machine]) -> (Speed, u64) {
        match self {
            Self::Boards => {
                let machine = &presets[rng.random_range(0..presets.len())];
                let factors: [f64; OP_CLASSES] =
                    std::array::from_fn(|_| rng.random_range(0.8..1.2));
                (machine.speed_times(factors), machine.memory)
            }
            Self::Spread => {
                let factor = rng.random_range(1.0..8.0);
                let factors = std::array::from_fn(|_| factor * rng.random_range(0.3..1.5));
                (presets[0].speed_times(factors), presets[0].memory)
            }
        }
    }
}

impl Demand {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All(dnn) => dnn.name(),
            Self::Mixed => "mixed",
        }
    }

    fn draw(self, rng: &mut ChaCha12Rng) -> Dnn {
        match self {
            Self::All(dnn) => dnn,
            Self::Mixed => Dnn::ALL[rng.random_range(0..Dnn::ALL.len())],
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { demand, layout, fleet, pieces, providers, slots_of_share, eps } = self;
        let (demand, layout, fleet) = (demand.name(), layout.name(), fleet.name());
        write!(
            f,
            "{demand}, {layout}, {fleet}, N={pieces}, M={providers}, \
             {slots_of_share} shares of slots, eps {eps}"
        )
    }
}

impl Scenario {
    /// A scenario with the usual slots and eps.
    #[must_use]
    pub fn new(
        demand: Demand,
        layout: Layout,
        fleet: Fleet,
        (pieces, providers): (usize, usize),
    ) -> Self {
        let (slots_of_share, eps) = (SLOTS_OF_SHARE, EPS);
        Self { demand, layout, fleet, pieces, providers, slots_of_share, eps }
    }

    /// Whether it has the usual slots and eps.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        (self.slots_of_share, self.eps) == (SLOTS_OF_SHARE, EPS)
    }

    /// The auction's rules.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { eps: self.eps, ..Terms::default() }
    }

    /// Draws one seed.
    #[must_use]
    pub fn draw(&self, seed: u64, cuts: &Cuts) -> Case {
        let terms = self.terms();
        let mut rng = generator(seed, Purpose::Workload);
        let places = self.layout.draw(&mut rng, self.providers);
        let machines: Vec<(Speed, u64)> =
            places.iter().map(|_| self.fleet.draw(&mut rng, &cuts.presets)).collect();
        let mut case = Case {
            instance: Instance { log_rates: Vec::new(), capacity: Vec::new() },
            seconds: Vec::new(),
        };
        case.instance.capacity = vec![self.slots(); self.providers];
        for _ in 0..self.pieces.div_ceil(PIECES_EACH) {
            let at = Point::anywhere(&mut rng);
            let dnn = self.demand.draw(&mut rng);
            let reach = |(place, (speed, memory)): (&Point, &(Speed, u64))| Provider {
                speed: *speed,
                bandwidth: radio::link(at.distance(*place), radio::shadow(&mut rng)),
                byte_seconds: 0.0,
                memory_free: *memory,
            };
            let providers: Vec<Provider> = places.iter().zip(&machines).map(reach).collect();
            cuts.of(dnn).iter().for_each(|piece| case.push(piece, &providers, terms));
        }
        case
    }

    /// `Q_j`, the same at every provider.
    #[must_use]
    pub fn slots(&self) -> u16 {
        let share = self.pieces.div_ceil(self.providers);
        u16::try_from(share * self.slots_of_share).unwrap_or(u16::MAX)
    }
}

impl Case {
    fn push(&mut self, piece: &PieceProfile, providers: &[Provider], terms: Terms) {
        let rates = providers.iter().map(|provider| cost::log_rate(piece, provider));
        let rates: Vec<_> = rates.collect();
        let best = rates.iter().flatten().max().copied();
        // Nodes take what is much slower than the best for infeasible, and so must an optimum.
        let near = |rate: &Nats| best.is_some_and(|best| best - *rate <= terms.spread);
        let rates: Vec<_> = rates.into_iter().map(|rate| rate.filter(near)).collect();
        let seconds = rates.iter().zip(providers).map(|(rate, provider)| match rate {
            Some(_) => cost::seconds(piece, provider),
            None => f64::INFINITY,
        });
        self.seconds.push(seconds.collect());
        self.instance.log_rates.push(rates);
    }
}

/// The pieces of every DNN, cut once: they do not depend on the seed.
#[derive(Clone, Debug)]
pub struct Cuts {
    presets: Vec<Machine>,
    pieces: Vec<(Dnn, Vec<PieceProfile>)>,
}

impl Cuts {
    /// Cuts them for equal machines, the slowest preset behind links of [`CUT_BANDWIDTH`].
    #[must_use]
    pub fn new() -> Self {
        let presets = Machine::presets();
        let cut = |dnn: Dnn| {
            let pieces = dnn.pieces(PIECES_EACH, &presets[0], CUT_BANDWIDTH);
            (dnn, pieces.expect("every DNN has more layers than pieces"))
        };
        let pieces = Dnn::ALL.map(cut).to_vec();
        Self { presets, pieces }
    }

    /// The pieces of one.
    #[must_use]
    pub fn of(&self, dnn: Dnn) -> &[PieceProfile] {
        let found = self.pieces.iter().find(|(other, _)| *other == dnn);
        &found.expect("every DNN is cut").1
    }
}

impl Default for Cuts {
    fn default() -> Self {
        Self::new()
    }
}

/// Pieces of each requester's DNN.
pub const PIECES_EACH: usize = 4;
/// Providers in a cluster, but for the last one.
pub const CLUSTER: usize = 5;
/// How far from its cluster's centre a provider is, along each axis: the next room.
pub const CLUSTER_DEVIATION_M: f64 = 5.0;
/// The usual [`Scenario::slots_of_share`].
pub const SLOTS_OF_SHARE: usize = 2;
/// The usual [`Scenario::eps`]: that of the protocol.
pub const EPS: Nats = Nats(50_000_000);
/// 100 Mbit/s, about what a link of half the square's side carries.
pub const CUT_BANDWIDTH: f64 = 12.5e6;

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(layout: Layout, fleet: Fleet) -> Scenario {
        Scenario::new(Demand::Mixed, layout, fleet, (40, 10))
    }

    fn draw(scenario: &Scenario, seed: u64) -> Case {
        scenario.draw(seed, &Cuts::new())
    }

    #[test]
    fn a_case_has_the_size_that_was_asked_for_and_a_place_for_every_piece() {
        for (layout, fleet) in Layout::ALL.into_iter().flat_map(|a| Fleet::ALL.map(|b| (a, b))) {
            let case = draw(&scenario(layout, fleet), 3);
            assert_eq!((case.instance.pieces(), case.instance.providers()), (40, 10));
            assert_eq!(case.instance.capacity, [8; 10]);
            assert!(starling_protocol::testing::optimum(&case.instance).is_some());
        }
    }

    #[test]
    fn the_usual_eps_is_the_protocols() {
        let scenario = scenario(Layout::Uniform, Fleet::Spread);
        assert_eq!(scenario.terms(), Terms::default());
        assert!(scenario.is_usual() && !Scenario { slots_of_share: 1, ..scenario }.is_usual());
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let scenario = scenario(Layout::Uniform, Fleet::Boards);
        assert_eq!(draw(&scenario, 1), draw(&scenario, 1));
        assert_ne!(draw(&scenario, 1), draw(&scenario, 2));
    }

    #[test]
    fn rates_are_the_inverse_of_times() {
        let case = draw(&scenario(Layout::Clustered, Fleet::Spread), 0);
        let pairs = case.instance.log_rates.iter().flatten().zip(case.seconds.iter().flatten());
        for (rate, seconds) in pairs {
            match rate {
                Some(rate) => assert!((rate.to_f64() + seconds.ln()).abs() < 1e-6),
                None => assert_eq!(*seconds, f64::INFINITY),
            }
        }
    }

    #[test]
    fn clusters_are_closer_together_than_the_square_is_wide() {
        let mut rng = generator(0, Purpose::Workload);
        let places = Layout::Clustered.draw(&mut rng, 10);
        let spread = |places: &[Point]| {
            places.iter().map(|place| place.distance(places[0])).fold(0.0, f64::max)
        };
        assert!(spread(&places[..CLUSTER]) < 50.0 && spread(&places[CLUSTER..]) < 50.0);
    }
}
