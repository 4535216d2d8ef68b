//! Chance that a seed decides.

/// A sequence of numbers that looks random, by blake3 of a seed and a count.
pub(super) struct Draw {
    seed: u64,
    drawn: u64,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// A number below a limit, or 0 if the limit is.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&self.drawn.to_le_bytes());
        self.drawn += 1;
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        // The bias towards small numbers is far below what anybody sees.
        (u64::from_le_bytes(first) % limit.max(1) as u64) as usize
    }
}
