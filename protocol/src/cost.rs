//! Stand-alone times `T_ij` and rates `r_ij` (design: Xu et al. 2023, the utility's terms).

use crate::{
    model::{PieceProfile, Speed},
    nats::Nats,
};

/// What a provider is to the cost model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Provider {
    /// FLOP/s per op class, with the machine to itself.
    pub speed: Speed,
    /// Bytes per second in and out; infinite for a requester's own machine.
    pub bandwidth: f64,
    /// Seconds of its processor for each byte that comes or goes, zero where none does so over a
    /// network. Not in `T_ij`, whose bytes wait for the slowest of their way; it counts where a
    /// stream keeps the processor busy.
    pub byte_seconds: f64,
    /// Bytes of weights that it can still take.
    pub memory_free: u64,
}

/// `T_ij = bytes_in/B + work/speed + bytes_out/B` in seconds: one inference of the piece with the
/// provider to itself. Infinite where the provider can't compute it at all.
#[must_use]
pub fn seconds(piece: &PieceProfile, provider: &Provider) -> f64 {
    let bytes = piece.bytes_in.saturating_add(piece.bytes_out) as f64;
    bytes / provider.bandwidth + provider.speed.seconds(&piece.work)
}

/// `ln r_ij`, or nothing for an infeasible pair.
#[must_use]
pub fn log_rate(piece: &PieceProfile, provider: &Provider) -> Option<Nats> {
    if piece.weight_bytes > provider.memory_free {
        return None;
    }
    // A piece with no work and no bytes is as good as instantaneous everywhere.
    let seconds = seconds(piece, provider).max(SECONDS_MIN);
    Nats::ln(1.0 / seconds)
}

/// Jain's index of some shares: 1 when all are equal, `1/n` when one has everything.
#[must_use]
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

const SECONDS_MIN: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Work;

    #[test]
    fn time_is_transfer_in_plus_work_plus_transfer_out() {
        let piece = PieceProfile {
            work: Work([100, 0, 0, 50, 0]),
            weight_bytes: 10,
            bytes_in: 30,
            bytes_out: 10,
        };
        let mut provider = Provider {
            speed: Speed([50, 0, 0, 25, 0]),
            bandwidth: 20.0,
            byte_seconds: 0.0,
            memory_free: 10,
        };
        assert!((seconds(&piece, &provider) - 6.0).abs() < 1e-12);
        assert_eq!(log_rate(&piece, &provider), Nats::ln(1.0 / 6.0));
        provider.memory_free = 9;
        assert_eq!(log_rate(&piece, &provider), None, "does not fit");
        provider = Provider { speed: Speed([50, 0, 0, 0, 0]), memory_free: 10, ..provider };
        assert_eq!(log_rate(&piece, &provider), None, "no speed for one of its classes");
    }

    #[test]
    fn jain_spans_one_over_n_to_one() {
        assert!((jain(&[2.0, 2.0, 2.0]) - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-12);
    }
}
