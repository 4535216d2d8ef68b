//! From a seed to machines, models and sessions, and to the assignment problem that they pose.
//!
//! Machines are unequal twice over: each is 1 to 8 times a base speed, and each is 0.3 to 1.5
//! times that at each kind of operator. Pieces differ in their mix of operators, so that which
//! machine is best depends on the piece: rates are not a product of a machine's and a piece's part.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use starling_protocol::{
    ModelId, Nats, NodeId, PieceId, SessionId,
    cost::{self, Provider},
    market::Terms,
    model::{LayerProfile, ModelProfile, OP_CLASSES, PieceProfile, Speed, Work},
    plan::Plan,
    testing::Instance,
};
use thiserror::Error;

use crate::random::{self, Purpose, generator};

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// `N`: pieces of all sessions.
    pub pieces: usize,
    /// `M`: nodes that compute.
    pub providers: usize,
    /// Places at each provider (`Q_j`). Without it, each has 1.5 to 3 times an even share.
    pub slots: Option<u16>,
}

/// Why there is no workload of a size. Always the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SizeError {
    /// Nothing to place.
    #[error("there must be at least 1 piece")]
    NoPieces,
    /// Nowhere to place it.
    #[error("there must be at least 1 provider")]
    NoProviders,
    /// More than the simulator takes on.
    #[error("{what}: {count} is over the limit of {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The pieces don't fit.
    #[error(
        "{pieces} pieces don't fit in {places} places ({providers} providers of {slots} slots each)"
    )]
    TooFewPlaces {
        /// Pieces asked for.
        pieces: usize,
        /// Places that there would be.
        places: usize,
        /// Providers asked for.
        providers: usize,
        /// Slots asked for.
        slots: u16,
    },
}

impl Size {
    /// Says what is wrong with it, if anything.
    ///
    /// # Errors
    /// The first number that makes no sense.
    pub fn validate(&self) -> Result<(), SizeError> {
        let Self { pieces, providers, slots } = *self;
        if pieces == 0 {
            return Err(SizeError::NoPieces);
        }
        if providers == 0 {
            return Err(SizeError::NoProviders);
        }
        let limits = [("pieces", pieces, PIECES_MAX), ("providers", providers, PROVIDERS_MAX)];
        for (what, count, limit) in limits {
            if count > limit {
                return Err(SizeError::TooMany { what, count, limit });
            }
        }
        match slots {
            Some(slots) if providers * usize::from(slots) < pieces => {
                let places = providers * usize::from(slots);
                Err(SizeError::TooFewPlaces { pieces, places, providers, slots })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A node that computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// FLOP/s per op class.
    pub speed: Speed,
    /// Bytes per second of its link.
    pub bandwidth: u64,
    /// The most pieces at once.
    pub slots: u16,
}

/// A node that only asks, and the one session that it opens.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its model's costs.
    pub profile: ModelProfile,
    /// Where it is cut.
    pub plan: Plan,
}

impl Request {
    /// The session of this number. What it is depends on the seed, the number and its pieces
    /// alone, and not on how many others there are.
    #[must_use]
    pub fn numbered(seed: u64, number: u32, pieces: usize) -> Self {
        let mut rng = random::numbered(seed, Purpose::Workload, 2 * u64::from(number) + 1);
        draw_request(&mut rng, number as usize, pieces)
    }

    /// The id of the session of this number.
    #[must_use]
    pub fn session_id(number: u32) -> SessionId {
        SessionId { requester: numbered(REQUESTER, number as usize), number: u64::from(number) }
    }
}

/// All machines and sessions of one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Those who compute.
    pub machines: Vec<Machine>,
    /// Those who ask.
    pub requests: Vec<Request>,
}

impl Workload {
    /// Draws a workload.
    ///
    /// # Errors
    /// If there is none of this size.
    pub fn draw(seed: u64, size: &Size) -> Result<Self, SizeError> {
        size.validate()?;
        let mut rng = generator(seed, Purpose::Workload);
        let machines = (0..size.providers).map(|_| draw_machine(&mut rng, size)).collect();
        let mut requests = Vec::new();
        let mut left = size.pieces;
        while left > 0 {
            let pieces = rng.random_range(PIECES_EACH).min(left);
            requests.push(draw_request(&mut rng, requests.len(), pieces));
            left -= pieces;
        }
        Ok(Self { machines, requests })
    }

    /// The id of the `n`-th machine.
    #[must_use]
    pub fn machine_id(&self, n: usize) -> NodeId {
        numbered(MACHINE, n)
    }

    /// The id of the `n`-th requester's session.
    #[must_use]
    pub fn session_id(&self, n: usize) -> SessionId {
        SessionId { requester: numbered(REQUESTER, n), number: n as u64 }
    }

    /// Every piece of every session, in the order in which the instance numbers them.
    pub fn pieces(&self) -> impl Iterator<Item = (PieceId, PieceProfile)> {
        self.requests.iter().enumerate().flat_map(|(n, request)| {
            let session = self.session_id(n);
            (0..).zip(request.plan.pieces()).map(move |(index, layers)| {
                (PieceId { session, index }, request.profile.piece(layers))
            })
        })
    }

    /// The assignment problem, from the same costs by which the nodes bid.
    #[must_use]
    pub fn instance(&self, terms: Terms) -> Instance {
        let providers: Vec<Provider> = self.machines.iter().map(Machine::provider).collect();
        let log_rates = self.pieces().map(|(_, piece)| {
            let rates: Vec<Option<Nats>> =
                providers.iter().map(|provider| cost::log_rate(&piece, provider)).collect();
            within_spread(terms, rates)
        });
        Instance {
            log_rates: log_rates.collect(),
            capacity: self.machines.iter().map(|machine| machine.slots).collect(),
        }
    }
}

impl Machine {
    /// The machine of this number. What it is depends on the seed and the number alone, and not on
    /// how many others there are.
    #[must_use]
    pub fn numbered(seed: u64, number: u32, slots: u16) -> Self {
        let mut rng = random::numbered(seed, Purpose::Workload, 2 * u64::from(number) + 2);
        draw_machine(&mut rng, &Size { pieces: 1, providers: 1, slots: Some(slots) })
    }

    /// The id of the machine of this number.
    #[must_use]
    pub fn id(number: u32) -> NodeId {
        numbered(MACHINE, number as usize)
    }

    /// This machine in the eyes of the cost model.
    #[must_use]
    pub fn provider(&self) -> Provider {
        Provider {
            speed: self.speed,
            bandwidth: self.bandwidth as f64,
            byte_seconds: 0.0,
            memory_free: MEMORY,
        }
    }
}

fn draw_machine(rng: &mut ChaCha12Rng, size: &Size) -> Machine {
    let factor = rng.random_range(1.0..8.0);
    let speed = SPEED_BASE.map(|base| (base * factor * rng.random_range(0.3..1.5)) as u64);
    let bandwidth = rng.random_range(25_000_000..125_000_000);
    let share = size.pieces.div_ceil(size.providers);
    let drawn = rng.random_range((share * 3).div_ceil(2)..=share * 3);
    let slots = size.slots.unwrap_or(u16::try_from(drawn).unwrap_or(u16::MAX));
    Machine { speed: Speed(speed), bandwidth, slots }
}

fn draw_request(rng: &mut ChaCha12Rng, number: usize, pieces: usize) -> Request {
    let mut cuts: Vec<u16> = Vec::with_capacity(pieces);
    for _ in 0..pieces {
        let before = cuts.last().copied().unwrap_or(0);
        cuts.push(before + rng.random_range(LAYERS_EACH));
    }
    let layers = cuts.pop().expect("a request has a piece");
    let costs: Vec<LayerProfile> = (0..layers).map(|_| draw_layer(rng)).collect();
    let cut_bytes = (0..=layers).map(|_| rng.random_range(10_000..150_000)).collect();
    let model = ModelId(*blake3::hash(&(number as u64).to_le_bytes()).as_bytes());
    Request {
        profile: ModelProfile::new(model, &costs, cut_bytes).expect("one cut more than layers"),
        plan: Plan::from_cuts(layers, &cuts).expect("the cuts ascend"),
    }
}

/// A layer of one class, as most are, that takes the base machine 0.5 to 4 ms.
fn draw_layer(rng: &mut ChaCha12Rng) -> LayerProfile {
    let class = rng.random_range(0..OP_CLASSES);
    let span = rng.random_range(Duration::from_micros(500)..Duration::from_millis(4));
    let mut work = Work::default();
    work.0[class] = (SPEED_BASE[class] * span.as_secs_f64()) as u64;
    LayerProfile { work, weight_bytes: rng.random_range(50_000..2_000_000) }
}

/// An id whose first digits, the ones that people get to see, say what it is and its number.
fn numbered(kind: u8, n: usize) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&u32::try_from(n).expect("few nodes").to_be_bytes());
    id[0] |= kind;
    NodeId(id)
}

/// Nodes take a provider that is much slower than a piece's best for infeasible, so the optimum
/// that they are held against must do so too.
pub(crate) fn within_spread(terms: Terms, rates: Vec<Option<Nats>>) -> Vec<Option<Nats>> {
    let best = rates.iter().flatten().max().copied();
    let near = |rate: &Nats| best.is_some_and(|best| best - *rate <= terms.spread);
    rates.into_iter().map(|rate| rate.filter(near)).collect()
}

/// Memory is never what decides: with it, which pairs are feasible would depend on who bid first,
/// and there would be no one optimum to hold the outcome against.
pub const MEMORY: u64 = 1 << 40;

/// What a slow board does per second of each class: dense, pointwise and depthwise convolution,
/// matrix product, and what memory bounds.
const SPEED_BASE: [f64; OP_CLASSES] = [8e9, 6e9, 2e9, 4e9, 1e9];

/// The first byte of ids: `a0000007` is the machine and `b0000007` the requester of number 7.
const MACHINE: u8 = 0xa0;
const REQUESTER: u8 = 0xb0;
const PIECES_EACH: std::ops::RangeInclusive<usize> = 2..=6;
const LAYERS_EACH: std::ops::RangeInclusive<u16> = 3..=8;
/// Above this, the exact optimum takes longer than anyone waits.
const PIECES_MAX: usize = 20_000;
const PROVIDERS_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn size(pieces: usize, providers: usize, slots: Option<u16>) -> Size {
        Size { pieces, providers, slots }
    }

    #[test]
    fn a_workload_has_the_size_that_was_asked_for() {
        for (pieces, providers) in [(1, 1), (7, 3), (100, 10), (101, 40)] {
            let workload = Workload::draw(3, &size(pieces, providers, None)).expect("sound");
            let instance = workload.instance(Terms::default());
            assert_eq!((instance.pieces(), instance.providers()), (pieces, providers));
            let places: usize = instance.capacity.iter().map(|slots| usize::from(*slots)).sum();
            assert!(places >= pieces, "{places} places for {pieces} pieces");
            assert!(instance.log_rates.iter().flatten().all(Option::is_some));
        }
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let draw = |seed| Workload::draw(seed, &size(20, 4, None)).expect("sound");
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn rates_are_not_a_product_of_a_machine_and_a_piece() {
        let workload = Workload::draw(0, &size(40, 5, None)).expect("sound");
        let instance = workload.instance(Terms::default());
        let best = instance.log_rates.iter().map(|rates| (0..5).max_by_key(|j| rates[*j]));
        let distinct: std::collections::BTreeSet<_> = best.collect();
        assert!(distinct.len() > 1, "one machine is the best for every piece");
    }

    #[test]
    fn what_is_numbered_does_not_depend_on_the_others() {
        assert_eq!(Machine::numbered(1, 7, 4), Machine::numbered(1, 7, 4));
        assert_ne!(Machine::numbered(1, 7, 4).speed, Machine::numbered(1, 8, 4).speed);
        assert_eq!(Request::numbered(1, 7, 4).plan.pieces().len(), 4);
        assert_ne!(Request::numbered(1, 7, 4), Request::numbered(2, 7, 4));
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        let check = |size: Size| Workload::draw(0, &size).expect_err("no such workload");
        assert_eq!(check(size(0, 1, None)), SizeError::NoPieces);
        assert_eq!(check(size(1, 0, None)), SizeError::NoProviders);
        assert_eq!(
            check(size(9, 2, Some(4))).to_string(),
            "9 pieces don't fit in 8 places (2 providers of 4 slots each)"
        );
        assert!(Workload::draw(0, &size(8, 2, Some(4))).is_ok());
        assert!(matches!(check(size(PIECES_MAX + 1, 1, None)), SizeError::TooMany { .. }));
    }
}
