//! Utilities, levels and asks as fixed-point natural logarithms.
//!
//! Auction arithmetic is done in integers: levels are totally ordered, nothing on the wire can be
//! NaN or infinite, and the bound `U* - N*eps <= U` is checked exactly, without a rounding margin.

use std::{
    fmt,
    ops::{Add, Sub},
};

use bincode::{Decode, Encode};

/// A logarithm in units of 1e-9 nat. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Nats(pub i64);

impl Nats {
    /// No utility.
    pub const ZERO: Nats = Nats(0);

    /// The natural logarithm of a positive finite number, or nothing for any other.
    #[must_use]
    pub fn ln(x: f64) -> Option<Nats> {
        (x.is_finite() && x > 0.0).then(|| Nats::from_f64(x.ln()))
    }

    /// Rounds to the nearest unit; out-of-range values saturate and NaN is zero.
    #[must_use]
    pub fn from_f64(nats: f64) -> Nats {
        Nats((nats * UNITS_PER_NAT).round() as i64)
    }

    /// As a floating-point number of nats.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / UNITS_PER_NAT
    }

    /// `count` times this.
    #[must_use]
    pub fn times(self, count: u64) -> Nats {
        Nats(self.0.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX)))
    }
}

/// `s_k = k ln k - (k-1) ln(k-1)`, what the `k`-th piece on a provider costs all of them together
/// (0, 1.386, 1.910, ...). `n ln n` is the sum of the first `n`, which makes proportional fairness
/// an assignment of pieces to slots. `k` counts from 1; 0 is taken as 1.
#[must_use]
pub fn slot_cost(k: u32) -> Nats {
    if k <= 1 {
        return Nats::ZERO;
    }
    let k = f64::from(k);
    Nats::from_f64(k * k.ln() - (k - 1.0) * (k - 1.0).ln())
}

impl Add for Nats {
    type Output = Nats;

    fn add(self, other: Nats) -> Nats {
        Nats(self.0.saturating_add(other.0))
    }
}

impl Sub for Nats {
    type Output = Nats;

    fn sub(self, other: Nats) -> Nats {
        Nats(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Nats {
    fn sum<I: Iterator<Item = Nats>>(values: I) -> Nats {
        values.fold(Nats::ZERO, Add::add)
    }
}

impl fmt::Display for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.to_f64())
    }
}

const UNITS_PER_NAT: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_costs_are_those_of_the_paper() {
        let expected = [0.0, 1.3863, 1.9095, 2.2493, 2.5020, 2.7034, 2.8708];
        for (k, cost) in (1..).zip(expected) {
            assert!((slot_cost(k).to_f64() - cost).abs() < 1e-4, "s_{k}");
        }
    }

    #[test]
    fn slot_costs_add_up_to_n_ln_n() {
        for n in 1..200_u32 {
            let sum: Nats = (1..=n).map(slot_cost).sum();
            assert!((sum.to_f64() - f64::from(n) * f64::from(n).ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn only_positive_finite_numbers_have_a_logarithm() {
        for x in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Nats::ln(x), None);
        }
        assert_eq!(Nats::ln(1.0), Some(Nats::ZERO));
    }
}
