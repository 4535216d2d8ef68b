//! Property tests of a mechanism of one's own, with this crate's generators and checkers.
//!
//! Two toys match pieces to providers, one after the other, and never look back:
//!
//! - *first come, first served*: a piece takes the provider where it is fastest alone;
//! - *greedy*: a piece takes the provider where it adds the most to the sum of `ln (r_ij / n_j)`.
//!
//! Both keep to the rules. Neither is as fair as the auction's bound asks for, and the checkers
//! find a small instance that shows it.

use starling_protocol::{
    Nats,
    market::Terms,
    nats::slot_cost,
    testing::{Instance, Outcome, check_outcome, optimum, refute},
};

type Mechanism = fn(&Instance) -> Vec<Option<usize>>;

fn main() {
    let toys: [(&str, Mechanism); 2] =
        [("first come, first served", first_come), ("greedy", greedy)];
    for (name, toy) in toys {
        println!("{name}:");
        match refute(CASES, |instance| keeps_the_rules(instance, &toy(instance))) {
            None => println!("  keeps the rules in all of {CASES} instances"),
            Some((instance, broken)) => show(&instance, &toy(&instance), &broken),
        }
        match refute(CASES, |instance| is_fair(instance, toy(instance))) {
            None => println!("  is within the auction's bound in all of {CASES} instances"),
            Some((instance, broken)) => show(&instance, &toy(&instance), &broken),
        }
    }
}

fn first_come(instance: &Instance) -> Vec<Option<usize>> {
    one_by_one(instance, |rate, _| rate)
}

fn greedy(instance: &Instance) -> Vec<Option<usize>> {
    one_by_one(instance, |rate, holders| rate - slot_cost(holders + 1))
}

/// Each piece in turn takes the open provider that is worth the most to it.
fn one_by_one(instance: &Instance, worth: fn(Nats, u32) -> Nats) -> Vec<Option<usize>> {
    let mut holders = vec![0; instance.providers()];
    let place = |rates: &Vec<Option<Nats>>| {
        let open = (0..instance.providers()).filter(|j| holders[*j] < instance.capacity[*j]);
        let worth = |j: usize| Some((worth(rates[j]?, holders[j].into()), j));
        let (_, best) = open.filter_map(worth).max()?;
        holders[best] += 1;
        Some(best)
    };
    instance.log_rates.iter().map(place).collect()
}

/// No provider has more pieces than slots, and none that it can't compute.
fn keeps_the_rules(instance: &Instance, assignment: &[Option<usize>]) -> Result<(), String> {
    let pieces = instance.log_rates.iter().zip(assignment);
    let placed: Vec<_> = pieces.filter_map(|(rates, place)| Some((rates, (*place)?))).collect();
    let log_rates = placed.iter().map(|(rates, _)| (*rates).clone()).collect();
    let part = Instance { log_rates, capacity: instance.capacity.clone() };
    let places: Vec<usize> = placed.iter().map(|(_, place)| *place).collect();
    part.utility(&places).map(|_| ()).ok_or_else(|| "breaks a rule".to_owned())
}

/// Where all pieces have places, it is as fair as the auction must be.
fn is_fair(instance: &Instance, assignment: Vec<Option<usize>>) -> Result<(), String> {
    if assignment.contains(&None) {
        return Ok(());
    }
    check_outcome(instance, Terms::default(), &Outcome::of(assignment))
}

fn show(instance: &Instance, assignment: &[Option<usize>], broken: &str) {
    println!("  {broken}, in the smallest instance found:");
    let best = optimum(instance).map(|(_, best)| best).unwrap_or_default();
    for (i, rates) in instance.log_rates.iter().enumerate() {
        let rate = |rate: &Option<Nats>| rate.map_or("-".to_owned(), |rate| rate.to_string());
        let rates: Vec<String> = rates.iter().map(rate).collect();
        let place = assignment[i].map_or("nobody".to_owned(), |j| format!("provider {j}"));
        let better = best.get(i).map_or("nobody".to_owned(), |j| format!("provider {j}"));
        println!("    piece {i}: ln rates {}; gets {place}, best {better}", rates.join(", "));
    }
    println!("    slots: {:?}", instance.capacity);
}

const CASES: usize = 2000;
