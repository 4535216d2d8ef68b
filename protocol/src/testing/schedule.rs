//! What may happen to a market, as a list that quickcheck can draw and shrink, and that any bytes
//! can be read as, which is what a fuzzer wants.

use quickcheck::{Arbitrary, Gen};

use super::Instance;
use crate::nats::Nats;

/// One thing that happens. Numbers count among what there is, round and round, so that every
/// operation means something in every market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A message arrives: 0 is the oldest on its way. Any other is one that overtakes it.
    Deliver(u8),
    /// A message arrives, and a copy of it is still on its way.
    Duplicate(u8),
    /// A message is lost.
    Drop(u8),
    /// Time passes: so many times 20 ms. Leases run out, bids are sent again, places renewed.
    Pass(u8),
    /// A requester hears a provider's price of today.
    Hear {
        /// Which requester.
        requester: u8,
        /// Whose price.
        provider: u8,
    },
    /// A requester holds its places against the prices that it knows, before they are loaded.
    Review(u8),
    /// It does so while they run.
    ReviewRunning(u8),
    /// A piece has been loaded where it has its place.
    Load(u8),
    /// A requester forgets everything. It comes back with a session of another number.
    RestartRequester(u8),
    /// A provider forgets everything. It comes back with prices of higher versions.
    RestartProvider(u8),
    /// A provider is gone.
    Leave(u8),
    /// A provider that was gone is there again, with nothing.
    Join(u8),
    /// A piece's rate at a provider is another from now on.
    Rate {
        /// Which piece.
        piece: u8,
        /// Where.
        provider: u8,
        /// In quarters of a nat, from -8 to 7.
        quarters: i8,
    },
}

impl Op {
    /// Any three bytes are an operation.
    #[must_use]
    pub fn decode([kind, a, b]: [u8; 3]) -> Self {
        match kind % 32 {
            0..=11 => Self::Deliver(a % 4),
            12 | 13 => Self::Deliver(a),
            14 | 15 => Self::Duplicate(a),
            16 => Self::Drop(a),
            17..=20 => Self::Pass(a),
            21 | 22 => Self::Hear { requester: a, provider: b },
            23 | 24 => Self::Review(a),
            25 => Self::ReviewRunning(a),
            26 => Self::Load(a),
            27 => Self::RestartRequester(a),
            28 => Self::RestartProvider(a),
            29 => Self::Leave(a),
            30 => Self::Join(a),
            _ => Self::Rate { piece: a, provider: b, quarters: (b >> 4) as i8 - 8 },
        }
    }
}

/// What happens to a market, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(pub Vec<Op>);

impl Schedule {
    /// Any bytes are a schedule, an operation from every three of them.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let (ops, _) = bytes.as_chunks();
        Self(ops.iter().map(|op| Op::decode(*op)).collect())
    }
}

impl Arbitrary for Schedule {
    fn arbitrary(g: &mut Gen) -> Self {
        Self::decode(&Vec::arbitrary(g))
    }

    /// Fewer operations: halves first, then all but one.
    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let ops = self.0.clone();
        let spans = std::iter::successors(Some(ops.len()), |span| Some(span / 2));
        let spans = spans.take_while(|span| *span > 0);
        let gaps = spans.flat_map(move |span| {
            let ops = ops.clone();
            (0..ops.len()).step_by(span).map(move |from| {
                let to = (from + span).min(ops.len());
                Self([&ops[..from], &ops[to..]].concat())
            })
        });
        Box::new(gaps)
    }
}

/// A market to be, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Rates and slots.
    pub instance: Instance,
    /// Pieces per requester; at least one.
    pub pieces_each: u8,
    /// Weights of the pieces, each for one byte of weights, round and round; none if all are
    /// without.
    pub weights: Vec<u8>,
    /// Bytes of weights that fit on a provider, if pieces have any.
    pub memory: u64,
    /// What happens.
    pub schedule: Schedule,
}

impl Trial {
    /// Any bytes are a trial.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let mut bytes = bytes.iter().copied();
        let mut next = || bytes.next().unwrap_or(0);
        let (pieces, providers) = (1 + next() % 6, 1 + next() % 4);
        let (pieces_each, heavy) = (1 + next() % 3, next());
        // A fifth of all pairs are infeasible.
        let mut rate = || Some(next()).filter(|byte| byte % 5 > 0).map(quarters);
        let mut row = || (0..providers).map(|_| rate()).collect();
        let log_rates = (0..pieces).map(|_| row()).collect();
        let capacity = (0..providers).map(|_| u16::from(next() % 4)).collect();
        let weights =
            if heavy % 4 == 0 { (0..pieces).map(|_| next() % 5).collect() } else { vec![] };
        let memory = u64::from(heavy / 16);
        let schedule = Schedule::decode(&bytes.collect::<Vec<u8>>());
        Self { instance: Instance { log_rates, capacity }, pieces_each, weights, memory, schedule }
    }

    /// The bytes of weights of a piece.
    #[must_use]
    pub fn weight(&self, piece: usize) -> u64 {
        self.weights.get(piece % self.weights.len().max(1)).copied().map_or(0, u64::from)
    }
}

impl Arbitrary for Trial {
    fn arbitrary(g: &mut Gen) -> Self {
        let heavy = *g.choose(&[0_usize, 0, 0, 4]).expect("not empty");
        Self {
            instance: Instance::arbitrary(g),
            pieces_each: 1 + u8::arbitrary(g) % 4,
            weights: (0..heavy).map(|_| u8::arbitrary(g) % 5).collect(),
            memory: u64::arbitrary(g) % 16,
            schedule: Schedule::arbitrary(g),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let (whole, whole2) = (self.clone(), self.clone());
        let schedules =
            self.schedule.shrink().map(move |schedule| Self { schedule, ..whole.clone() });
        let instances =
            self.instance.shrink().map(move |instance| Self { instance, ..whole2.clone() });
        Box::new(schedules.chain(instances))
    }
}

fn quarters(byte: u8) -> Nats {
    Nats(i64::from(byte / 16) * 250_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_trial() {
        for length in 0..64 {
            let bytes: Vec<u8> = (0_u8..length).map(|n| n.wrapping_mul(37)).collect();
            let trial = Trial::decode(&bytes);
            assert!(trial.instance.pieces() > 0 && trial.instance.providers() > 0);
            let ops = bytes.len().saturating_sub(4) / 3;
            assert!(trial.schedule.0.len() <= ops);
        }
    }

    #[test]
    fn a_schedule_shrinks_to_nothing_and_never_grows() {
        let schedule = Schedule::decode(&[0; 30]);
        let shrunk: Vec<Schedule> = schedule.shrink().collect();
        assert_eq!(shrunk.first(), Some(&Schedule::default()));
        assert!(shrunk.iter().all(|less| less.0.len() < schedule.0.len()));
    }
}
