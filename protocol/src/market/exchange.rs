//! When two pieces want to exchange their places, and nobody concerned objects (DINA, Mohammed et
//! al. 2020: a swap-blocking pair; the utilities are our model's).
//!
//! A piece's utility is the logarithm of its rate, `ln (r_ij / n_j)` where `n_j` pieces share the
//! provider; a provider's is the sum over its pieces. An exchange leaves `n_j` as it is at both
//! providers, so what a provider gets of it depends only on which pieces it has.

use crate::nats::Nats;

/// Two pieces at different providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// `ln r` of one piece where it is, and where the other is.
    pub one: [Nats; 2],
    /// `ln r` of the other piece where it is, and where the first one is.
    pub other: [Nats; 2],
    /// How many pieces share the provider of each.
    pub holders: [usize; 2],
}

impl Pair {
    /// Whether they block a matching: neither of them nor of their providers would be worse off
    /// after an exchange, and one of these four better off.
    #[must_use]
    pub fn blocks(&self) -> bool {
        let gains = self.gains();
        gains.iter().all(|gain| *gain >= Nats::ZERO) && gains.iter().any(|gain| *gain > Nats::ZERO)
    }

    /// What an exchange gains each piece, and then the provider of each.
    fn gains(&self) -> [Nats; 4] {
        let crowd = |holders: usize| Nats::ln(holders.max(1) as f64).unwrap_or(Nats::ZERO);
        let (mine, theirs) = (crowd(self.holders[0]), crowd(self.holders[1]));
        let ([one_here, one_there], [other_there, other_here]) = (self.one, self.other);
        [
            (one_there - theirs) - (one_here - mine),
            (other_here - mine) - (other_there - theirs),
            other_here - one_here,
            one_there - other_there,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(one: [i64; 2], other: [i64; 2], holders: [usize; 2], blocks: bool) {
        let pair = Pair { one: one.map(Nats), other: other.map(Nats), holders };
        assert_eq!(pair.blocks(), blocks, "{pair:?}");
    }

    #[test]
    fn an_exchange_must_harm_nobody_and_help_someone() {
        check([1, 2], [1, 2], [1, 1], true);
        check([2, 2], [2, 2], [1, 1], false);
        check([1, 3], [2, 2], [1, 1], true);
        // The first piece's provider would lose.
        check([2, 3], [2, 1], [1, 1], false);
        // Each would be better off, were the other's place not shared by so many.
        check([1, 2], [1, 2], [1, 9], false);
    }
}
