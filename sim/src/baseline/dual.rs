//! Lagrangian dual decomposition, as Ye et al. (IEEE T-WC 12(6), 2013) use it for the association
//! of users with base stations, which is the same problem with rates of radio links.
//!
//! Each provider has a price `mu_j`. In each round every piece chooses the provider with the
//! largest `ln r_ij - mu_j`; every provider works out how many pieces its price pays for,
//! `min(Q_j, e^(mu_j - 1))`, and moves the price by a step times what was asked for beyond that.
//! Prices are projected to zero or more, where the first slot starts.
//!
//! The choices of one round need not fit, and do not settle. So a feasible assignment is recovered
//! from each round: a provider keeps those that lose most by going elsewhere, and the others go
//! where the utility suffers least. The best one so far is held against the lowest dual bound so
//! far ([`upper_bound`], exact in integers), and the method stops once they are within `N * eps`:
//! this is its certificate. Somebody has to add all this up, which no other algorithm here needs.
//!
//! | count | is |
//! |---|---|
//! | `certified` | 1 if the gap was closed, 0 if the rounds ran out before |
//! | `adverts` | prices, each told to all once a round |
//! | `rounds_of_all_steps` | what finding the best step took, where there is a choice |
//! | `step_ppm` | the step size `c` that was best, in millionths |

use starling_protocol::{
    Nats,
    testing::{Instance, upper_bound},
};

use super::{Settings, Solution, places::Places};

/// The same small step in every round, for someone who knows nothing about the instance. Too long
/// a step never settles, and too short a one takes for ever; which it is depends on the size.
pub(super) fn constant(instance: &Instance, settings: &Settings) -> Solution {
    let gap = settings.terms.eps.times(instance.pieces() as u64);
    let mut run = Descent::new(instance);
    while run.rounds < settings.rounds_max && !run.is_certified(gap) {
        run.round(instance, STEP_CONSTANT);
    }
    run.solution(instance, gap)
}

/// Steps `c / sqrt(t)` in round `t`, for the best of several `c` in proportion to `M / N`: how many
/// pieces a provider has too many grows with its share. Which `c` is best is known only afterwards.
/// All are tried side by side until the first is content: `rounds` are its own, as if somebody had
/// known, and `rounds_of_all_steps` what it took to find out.
pub(super) fn tuned(instance: &Instance, settings: &Settings) -> Solution {
    let share = instance.pieces() as f64 / instance.providers().max(1) as f64;
    let gap = settings.terms.eps.times(instance.pieces() as u64);
    let mut runs = STEPS.map(|step| (Descent::new(instance), step / share.max(1.0)));
    for round in 1..=settings.rounds_max {
        for (run, step) in &mut runs {
            run.round(instance, *step / (round as f64).sqrt());
        }
        if runs.iter().any(|(run, _)| run.is_certified(gap)) {
            break;
        }
    }
    let rounds_of_all = runs.iter().map(|(run, _)| run.rounds).sum();
    let best = runs.into_iter().max_by_key(|(run, _)| run.quality(gap));
    let (run, step) = best.expect("there are several steps");
    let mut solution = run.solution(instance, gap);
    solution.counts.push(("rounds_of_all_steps", rounds_of_all));
    solution.counts.push(("step_ppm", (step * 1e6).round() as u64));
    solution
}

/// One run with one kind of step.
struct Descent {
    prices: Vec<f64>,
    rounds: u64,
    // The lowest of all rounds.
    bound: Option<Nats>,
    // The best of all rounds.
    utility: Option<Nats>,
    assignment: Vec<Option<usize>>,
}

impl Descent {
    /// All prices begin where equal shares would have them.
    fn new(instance: &Instance) -> Self {
        let share = instance.pieces() as f64 / instance.providers().max(1) as f64;
        Self {
            prices: vec![1.0 + share.max(1.0).ln(); instance.providers()],
            rounds: 0,
            bound: None,
            utility: None,
            assignment: vec![None; instance.pieces()],
        }
    }

    fn is_certified(&self, gap: Nats) -> bool {
        self.bound.zip(self.utility).is_some_and(|(bound, utility)| bound - utility <= gap)
    }

    /// A run is better if it is certified, or else if it placed more, or else if it did so better.
    fn quality(&self, gap: Nats) -> impl Ord + use<> {
        (self.is_certified(gap), self.assignment.iter().flatten().count(), self.utility)
    }

    fn round(&mut self, instance: &Instance, step: f64) {
        self.rounds += 1;
        let prices: Vec<Nats> = self.prices.iter().map(|price| Nats::from_f64(*price)).collect();
        let choices = choices(instance, &prices);
        self.judge(instance, &prices, &choices);
        let mut wanted = vec![0_u64; instance.providers()];
        choices.iter().flatten().for_each(|choice| wanted[choice.provider] += 1);
        for ((price, capacity), wanted) in
            self.prices.iter_mut().zip(&instance.capacity).zip(wanted)
        {
            let paid_for = (*price - 1.0).exp().min(f64::from(*capacity));
            *price = (*price + step * (wanted as f64 - paid_for)).max(0.0);
        }
    }

    /// Keeps the bound and the assignment of this round if they are the best so far.
    fn judge(&mut self, instance: &Instance, prices: &[Nats], choices: &[Option<Choice>]) {
        let bound = upper_bound(instance, prices);
        self.bound = self.bound.into_iter().chain(bound).min();
        let assignment = recover(instance, choices);
        let complete: Option<Vec<usize>> = assignment.iter().copied().collect();
        let utility = complete.and_then(|complete| instance.utility(&complete));
        let placed = |assignment: &[Option<usize>]| assignment.iter().flatten().count();
        let (now, before) = (placed(&assignment), placed(&self.assignment));
        if (now, utility) > (before, self.utility) {
            (self.assignment, self.utility) = (assignment, utility);
        }
    }

    fn solution(self, instance: &Instance, gap: Nats) -> Solution {
        let pieces = instance.pieces() as u64;
        let certified = u64::from(self.is_certified(gap));
        Solution {
            assignment: self.assignment,
            rounds: self.rounds,
            bids: self.rounds * pieces,
            // Each choice, and in the end a place for each.
            messages: (self.rounds + 1) * pieces,
            counts: vec![
                ("certified", certified),
                ("adverts", self.rounds * instance.providers() as u64),
            ],
        }
    }
}

/// What a piece wants at the present prices, and how much worse the next best is.
struct Choice {
    provider: usize,
    regret: Nats,
}

fn choices(instance: &Instance, prices: &[Nats]) -> Vec<Option<Choice>> {
    let choice = |rates: &Vec<Option<Nats>>| {
        let mut best: Option<(Nats, usize)> = None;
        let mut second: Option<Nats> = None;
        for (provider, (rate, price)) in rates.iter().zip(prices).enumerate() {
            let Some(rate) = rate else { continue };
            let value = *rate - *price;
            if best.is_none_or(|(best, _)| value > best) {
                second = best.map(|(best, _)| best);
                best = Some((value, provider));
            } else {
                second = second.max(Some(value));
            }
        }
        let (value, provider) = best?;
        Some(Choice { provider, regret: second.map_or(Nats(i64::MAX), |second| value - second) })
    };
    instance.log_rates.iter().map(choice).collect()
}

/// A feasible assignment near the choices.
fn recover(instance: &Instance, choices: &[Option<Choice>]) -> Vec<Option<usize>> {
    let mut places = Places::new(instance);
    let mut order: Vec<(usize, &Choice)> = choices
        .iter()
        .enumerate()
        .filter_map(|(piece, choice)| Some((piece, choice.as_ref()?)))
        .collect();
    order.sort_by_key(|(_, choice)| std::cmp::Reverse(choice.regret));
    let mut left_over = Vec::new();
    for (piece, choice) in order {
        if places.has_room(choice.provider) {
            places.put(piece, choice.provider);
        } else {
            left_over.push(piece);
        }
    }
    for piece in left_over {
        let value = |j: &usize| {
            let next = places.holders(*j) + 1;
            (places.log_rate(piece, *j).map(|rate| rate - places.slot_cost(next)), usize::MAX - j)
        };
        if let Some(best) = places.open_to(piece).max_by_key(value) {
            places.put(piece, best);
        }
    }
    places.into_assignment()
}

/// In nats per piece too many.
const STEP_CONSTANT: f64 = 0.02;
/// For a share of one piece per provider, in nats per piece too many.
const STEPS: [f64; 8] = [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2];
