//! What a requester takes the providers to ask.
//!
//! When many sessions open at once, the prices that are heard first are those of the first bids:
//! by the time that they are heard, the others are in. And of a provider whose adverts do not come,
//! no price is heard at all. A piece that took such prices for the truth would bid at one provider
//! after the other, only to be told what its forecast had known. So where the news is late, what
//! the forecast ends at counts, moved by as much as the forecast was wrong about the others.

use crate::{id::NodeId, market::Forecast, nats::Nats, wire::Ask};

/// How much a price that was heard is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It was heard after the rush of an opening: it counts.
    Fresh,
    /// It is of the time before, or of the rush: it is too low, as prices of an auction only rise.
    Late,
}

/// The ask of each provider, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    // In the order of their ids.
    asks: Vec<(NodeId, Ask)>,
}

impl Prices {
    /// As they were heard.
    #[must_use]
    pub fn heard(asks: impl Iterator<Item = (NodeId, Ask)>) -> Self {
        let mut asks: Vec<(NodeId, Ask)> = asks.collect();
        asks.sort_by_key(|(node, _)| *node);
        Self { asks }
    }

    /// As they were heard where the news is fresh, and otherwise no lower than the forecast says.
    #[must_use]
    pub fn expected(forecast: &Forecast, heard: impl Iterator<Item = (NodeId, Ask, News)>) -> Self {
        let heard: Vec<(NodeId, Ask, News)> = heard.collect();
        let (error, most) = (error(forecast, &heard), forecast.price_max());
        Self::heard(heard.into_iter().map(|(node, ask, news)| {
            let price = forecast.price(&node).filter(|_| news == News::Late);
            let level =
                ask.level.map(|level| price.map_or(level, |p| level.max(most.min(p + error))));
            (node, Ask { level, ..ask })
        }))
    }

    /// One provider's; nothing if it is not known.
    #[must_use]
    pub fn ask(&self, node: &NodeId) -> Option<Ask> {
        let at = self.asks.binary_search_by_key(node, |(node, _)| *node).ok()?;
        Some(self.asks[at].1)
    }
}

/// By how much the prices that are known to be higher, or known for sure, are above the forecast.
/// Those who miss adverts miss sessions, and take all prices for too low.
fn error(forecast: &Forecast, heard: &[(NodeId, Ask, News)]) -> Nats {
    let errors = heard.iter().filter_map(|(node, ask, news)| {
        let error = ask.level? - forecast.price(node)?;
        (*news == News::Fresh || error > Nats::ZERO).then_some(error)
    });
    let (sum, count) = errors.fold((Nats::ZERO, 0), |(sum, n), error| (sum + error, n + 1));
    Nats(sum.0 / i64::from(count.max(1))).max(Nats::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cost::Provider,
        market::{Stall, Terms},
        model::Speed,
    };

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn ask(level: f64) -> Ask {
        Ask { version: 1, level: Some(Nats::from_f64(level)), holders: 0 }
    }

    /// Providers whose forecast price is 1, heard at these levels; and what they are taken to ask.
    fn check(heard: &[(f64, News)], expected: &[f64]) {
        let mut forecast = Forecast::new(Terms::default(), node(99));
        let provider = Provider {
            speed: Speed([1; 5]),
            bandwidth: 1.0,
            byte_seconds: 0.0,
            memory_free: u64::MAX,
        };
        let heard = (0..).zip(heard).map(|(n, (level, news))| {
            forecast.set_provider(node(n), &Stall { provider, slots: 9, ask: ask(1.0) });
            (node(n), ask(*level), *news)
        });
        let heard: Vec<(NodeId, Ask, News)> = heard.collect();
        let prices = Prices::expected(&forecast, heard.into_iter());
        for (n, expected) in (0..).zip(expected) {
            let level = prices.ask(&node(n)).and_then(|ask| ask.level).expect("it is known");
            assert!((level.to_f64() - expected).abs() < 1e-6, "{n}: {level}");
        }
    }

    #[test]
    fn late_news_counts_for_no_less_than_the_forecast() {
        check(&[(0.2, News::Late), (1.5, News::Late)], &[1.5, 1.5]);
        check(&[(0.2, News::Late), (0.4, News::Late)], &[1.0, 1.0]);
    }

    #[test]
    fn fresh_news_counts_as_it_is() {
        check(&[(0.2, News::Fresh), (1.5, News::Fresh)], &[0.2, 1.5]);
    }

    #[test]
    fn what_the_forecast_was_wrong_by_counts_for_those_not_heard_of() {
        check(&[(1.2, News::Fresh), (1.4, News::Fresh), (0.0, News::Late)], &[1.2, 1.4, 1.3]);
        check(&[(0.2, News::Fresh), (0.0, News::Late)], &[0.2, 1.0]);
    }

    #[test]
    fn nobody_has_a_price_who_is_not_known() {
        assert_eq!(Prices::default().ask(&node(1)), None);
        let closed = Ask { version: 1, level: None, holders: 0 };
        let prices = Prices::heard([(node(2), closed), (node(1), ask(1.0))].into_iter());
        assert_eq!(prices.ask(&node(2)), Some(closed));
    }
}
