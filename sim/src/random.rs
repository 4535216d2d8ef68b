//! Randomness: one seed, one named generator, one stream per purpose.
//!
//! `ChaCha12Rng` is named rather than taken as "the standard generator", because that one may
//! change between versions of `rand` and old seeds must keep their meaning. Each purpose has its
//! own stream, so that a new draw in one (another fault, say) leaves the others as they were: the
//! same seed still means the same machines.

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

/// What the numbers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Machines, models and sessions.
    Workload,
    /// The latency of each link.
    Links,
    /// Which messages are lost, doubled or held back.
    Faults,
    /// What a swarm's seed makes of everything else.
    Swarm,
    /// Who is linked to whom.
    Gossip,
    /// Which provider crashes.
    Crash,
    /// Which adverts a requester misses.
    Missing,
    /// When nodes start and how long their loads take.
    Machines,
    /// The choices of algorithms that have no nodes, links or clock: orders and groups.
    Solvers,
}

/// The generator of a seed for one purpose.
#[must_use]
pub fn generator(seed: u64, purpose: Purpose) -> ChaCha12Rng {
    numbered(seed, purpose, 0)
}

/// The generator of the `n`-th thing of a kind, where what one is must not depend on how many
/// there are before it. Numbers count from 1; 0 is the kind's own.
#[must_use]
pub fn numbered(seed: u64, purpose: Purpose, n: u64) -> ChaCha12Rng {
    let mut generator = ChaCha12Rng::seed_from_u64(seed);
    let purpose = match purpose {
        Purpose::Workload => 1,
        Purpose::Links => 2,
        Purpose::Faults => 3,
        Purpose::Machines => 4,
        Purpose::Gossip => 5,
        Purpose::Swarm => 6,
        Purpose::Missing => 7,
        Purpose::Crash => 8,
        Purpose::Solvers => 16,
    };
    generator.set_stream(n << 8 | purpose);
    generator
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn seeds_and_purposes_have_numbers_of_their_own() {
        let first = |seed, purpose| generator(seed, purpose).next_u64();
        assert_eq!(first(1, Purpose::Links), first(1, Purpose::Links));
        assert_ne!(first(1, Purpose::Links), first(2, Purpose::Links));
        assert_ne!(first(1, Purpose::Links), first(1, Purpose::Faults));
    }

    #[test]
    fn old_seeds_keep_their_meaning() {
        // If this fails, every seed that anyone has written down now means another world.
        assert_eq!(generator(0, Purpose::Workload).next_u64(), 12_155_537_990_441_591_003);
    }
}
