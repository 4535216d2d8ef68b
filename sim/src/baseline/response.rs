//! Baselines in which each piece looks after itself: best response, and self-selection with a
//! threshold.
//!
//! Pieces arrive in a seeded order, and each goes where its share `r_ij / (n_j + 1)` is largest at
//! that moment. Then, sweep after sweep in the same order, each piece that would gain moves to
//! where its share is largest now. That ends: the sum of `ln r_ij` less the sum of `ln(n_j!)` rises
//! with every move (it is a potential of this congestion game). It ends in an equilibrium, in
//! which nobody gains by moving alone, and not in the optimum: a piece does not count what its
//! arrival costs the others.
//!
//! Everybody knows all `n_j` at all times, which takes an advert for every arrival and departure.
//!
//! | count | is |
//! |---|---|
//! | `examined` | providers looked at, by all pieces |
//! | `moves` | from one provider to another |
//! | `adverts` | changes of an `n_j`, each told to all |

use starling_protocol::{Nats, testing::Instance};

use super::{
    Settings, Solution,
    places::{Places, arrivals},
};

/// Moves for any gain.
pub(super) fn best_response(instance: &Instance, settings: &Settings) -> Solution {
    Selection::new(instance, Nats::ZERO).run(settings)
}

/// Self-selection as in Petals (Borzunov et al. 2023), in which a server chooses by itself where
/// it helps most, looks again from time to time, and moves only if the gain passes a threshold of
/// 20 %, lest servers move to and fro. Petals' servers choose blocks of a model so as to raise the
/// lowest throughput; here pieces choose providers by the throughput that they get themselves.
pub(super) fn self_selection(instance: &Instance, settings: &Settings) -> Solution {
    let threshold = Nats::ln(1.0 + GAIN_MIN).expect("a positive number");
    Selection::new(instance, threshold).run(settings)
}

struct Selection<'a> {
    places: Places<'a>,
    threshold: Nats,
    arrivals: u64,
    moves: u64,
    examined: u64,
}

impl<'a> Selection<'a> {
    fn new(instance: &'a Instance, threshold: Nats) -> Self {
        let places = Places::new(instance);
        Self { places, threshold, arrivals: 0, moves: 0, examined: 0 }
    }

    fn run(mut self, settings: &Settings) -> Solution {
        let order = arrivals(self.places.instance(), settings.seed);
        let mut rounds = 0;
        while rounds < settings.rounds_max {
            let before = self.arrivals + self.moves;
            order.iter().for_each(|piece| self.choose(*piece));
            if self.arrivals + self.moves == before {
                break;
            }
            rounds += 1;
        }
        self.solution(rounds)
    }

    fn choose(&mut self, piece: usize) {
        let places = &self.places;
        let from = places.at(piece);
        let open = places.open_to(piece).filter(|j| from != Some(*j));
        let shares = open.filter_map(|j| {
            let share = places.log_share(piece, j, places.holders(j) + 1)?;
            Some((share, std::cmp::Reverse(j)))
        });
        let shares: Vec<_> = shares.collect();
        self.examined += shares.len() as u64;
        let Some((share, std::cmp::Reverse(to))) = shares.into_iter().max() else { return };
        let now = from.and_then(|j| places.log_share(piece, j, places.holders(j)));
        match now {
            Some(now) if share <= now + self.threshold => return,
            Some(_) => self.moves += 1,
            None => self.arrivals += 1,
        }
        self.places.put(piece, to);
    }

    fn solution(self, rounds: u64) -> Solution {
        let Self { places, arrivals, moves, examined, .. } = self;
        Solution {
            assignment: places.into_assignment(),
            rounds,
            bids: arrivals + moves,
            // A bid and its award, and who moves releases a place.
            messages: 2 * arrivals + 3 * moves,
            counts: vec![
                ("examined", examined),
                ("moves", moves),
                ("adverts", arrivals + 2 * moves),
            ],
        }
    }
}

/// How much faster it must be elsewhere.
const GAIN_MIN: f64 = 0.2;
