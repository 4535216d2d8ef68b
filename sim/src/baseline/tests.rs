use quickcheck::{QuickCheck, Testable, quickcheck};
use rand::RngExt;
use starling_protocol::testing::{Outcome, check_outcome, optimum};

use super::*;
use crate::random::{Purpose, generator};

const WRITTEN: [Algorithm; 12] = [
    Algorithm::Auction,
    Algorithm::Random,
    Algorithm::RoundRobin,
    Algorithm::Greedy,
    Algorithm::Textbook,
    Algorithm::DualConstant,
    Algorithm::DualTuned,
    Algorithm::BestResponse,
    Algorithm::DinaSwap,
    Algorithm::DinaSwapMove,
    Algorithm::Cbba,
    Algorithm::SelfSelection,
];

/// Auctions of an instance with too few places go on for long before a price proves it.
fn patient() -> Settings {
    Settings { rounds_max: 1_000_000, ..Settings::default() }
}

/// The dual methods of such an instance go on for ever.
fn brief() -> Settings {
    Settings { rounds_max: 300, ..Settings::default() }
}

fn run(algorithm: Algorithm, instance: &Instance, settings: &Settings) -> Solution {
    solve(algorithm, instance, settings).expect("the settings make sense")
}

/// Unequal servers, and pairs that are worth more or less than the server's speed says.
fn drawn(seed: u64, pieces: usize, providers: usize) -> Instance {
    let mut rng = generator(seed, Purpose::Workload);
    let speeds: Vec<f64> = (0..providers).map(|_| rng.random_range(1.0..8.0)).collect();
    let mut row = || {
        let rates = speeds.iter().map(|speed| Nats::ln(speed * rng.random_range(0.3..1.5)));
        rates.collect()
    };
    let log_rates = (0..pieces).map(|_| row()).collect();
    let share = u16::try_from(pieces.div_ceil(providers)).expect("small");
    Instance { log_rates, capacity: vec![share * 2; providers] }
}

/// `sum ln r_ij - sum n_j ln n_j` of the pieces that have a place, from scratch.
fn utility(instance: &Instance, assignment: &[Option<usize>]) -> Option<Nats> {
    let placed = instance
        .log_rates
        .iter()
        .zip(assignment)
        .filter_map(|(rates, at)| at.map(|at| (rates.clone(), at)));
    let (log_rates, at): (Vec<_>, Vec<usize>) = placed.unzip();
    Instance { log_rates, capacity: instance.capacity.clone() }.utility(&at)
}

fn outcome(solution: &Solution) -> Outcome {
    Outcome {
        assignment: solution.assignment.clone(),
        rounds: u32::try_from(solution.rounds).expect("few"),
        bids: u32::try_from(solution.bids).expect("few"),
        messages: solution.messages,
        quiescent: true,
    }
}

fn check(algorithm: Algorithm, rates: &[&[f64]], capacity: &[u16], expected: &[Option<usize>]) {
    let log_rates = rates.iter().map(|row| row.iter().map(|rate| Nats::ln(*rate)).collect());
    let instance = Instance { log_rates: log_rates.collect(), capacity: capacity.to_vec() };
    let solution = run(algorithm, &instance, &brief());
    assert_eq!(solution.assignment, expected, "{algorithm:?}");
}

const NO: f64 = 0.0;

#[test]
fn a_single_way_is_found_by_all() {
    for algorithm in WRITTEN {
        check(algorithm, &[], &[], &[]);
        check(algorithm, &[], &[3], &[]);
        check(algorithm, &[&[2.0]], &[1], &[Some(0)]);
        check(algorithm, &[&[NO, 2.0], &[1.0, NO]], &[1, 1], &[Some(1), Some(0)]);
        check(algorithm, &[&[NO, 2.0]], &[1, 0], &[None]);
        check(algorithm, &[&[NO, NO]], &[1, 1], &[None]);
    }
}

#[test]
fn a_piece_for_which_no_place_is_left_has_none() {
    for algorithm in WRITTEN {
        let instance =
            Instance { log_rates: vec![vec![Nats::ln(2.0); 2]; 3], capacity: vec![1; 2] };
        let solution = run(algorithm, &instance, &patient_but_for_duals(algorithm));
        assert_eq!(solution.assignment.iter().flatten().count(), 2, "{algorithm:?}");
        assert_eq!(solution.complete(), None);
    }
}

fn patient_but_for_duals(algorithm: Algorithm) -> Settings {
    match algorithm {
        Algorithm::DualConstant | Algorithm::DualTuned => brief(),
        _ => patient(),
    }
}

#[test]
fn greedy_crowds_where_others_share() {
    let rates: &[&[f64]] = &[&[8.0, 3.0], &[8.0, 7.0], &[8.0, 5.0]];
    check(Algorithm::Greedy, rates, &[3, 3], &[Some(0); 3]);
    for fair in [Algorithm::Auction, Algorithm::Textbook, Algorithm::DinaSwapMove, Algorithm::Cbba]
    {
        check(fair, rates, &[3, 3], &[Some(0), Some(1), Some(0)]);
    }
}

#[test]
fn round_robin_is_even_and_random_nearly_so() {
    let instance = drawn(4, 200, 4);
    let counts = |algorithm, seed| {
        let settings = Settings { seed, ..brief() };
        let mut counts = [0; 4];
        let assignment = run(algorithm, &instance, &settings).assignment;
        assignment.iter().flatten().for_each(|j| counts[*j] += 1);
        (counts, assignment)
    };
    let (even, _) = counts(Algorithm::RoundRobin, 1);
    assert_eq!(even, [50; 4]);
    let (random, once) = counts(Algorithm::Random, 1);
    assert!(random.iter().all(|count| (30..70).contains(count)), "{random:?}");
    assert_ne!(once, counts(Algorithm::Random, 2).1);
}

#[test]
fn self_selection_stays_for_less_than_its_threshold() {
    let instance = drawn(5, 60, 6);
    let gain = |algorithm| best_gain(&instance, &run(algorithm, &instance, &patient()).assignment);
    assert!(gain(Algorithm::BestResponse) <= 1.0 + 1e-6);
    let kept = gain(Algorithm::SelfSelection);
    assert!(kept > 1.0 && kept <= 1.2 + 1e-6, "{kept}");
}

/// The largest factor that any piece alone could gain by moving.
fn best_gain(instance: &Instance, assignment: &[Option<usize>]) -> f64 {
    let mut holders = vec![0_u16; instance.providers()];
    assignment.iter().flatten().for_each(|j| holders[*j] += 1);
    let mut gain: f64 = 0.0;
    for (rates, at) in instance.log_rates.iter().zip(assignment) {
        let share =
            |j: usize, n: u16| rates[j].map_or(0.0, |rate| rate.to_f64().exp() / f64::from(n));
        let at = at.expect("there is room for all");
        for to in (0..instance.providers()).filter(|to| *to != at) {
            if holders[to] < instance.capacity[to] {
                gain = gain.max(share(to, holders[to] + 1) / share(at, holders[at]));
            }
        }
    }
    gain
}

#[test]
fn the_price_war_is_real() {
    let instance = drawn(1, 80, 8);
    let rounds = |algorithm| run(algorithm, &instance, &patient()).rounds;
    assert!(rounds(Algorithm::Textbook) > 3 * rounds(Algorithm::Auction));
}

#[test]
fn the_dual_methods_close_the_gap_on_a_plain_instance() {
    let instance = drawn(2, 80, 8);
    for algorithm in [Algorithm::DualConstant, Algorithm::DualTuned] {
        let mut settings = patient();
        settings.terms.eps = Nats::from_f64(0.2);
        let solution = run(algorithm, &instance, &settings);
        assert_eq!(solution.count("certified"), 1, "{algorithm:?}");
        assert!(solution.rounds > 1);
    }
}

#[test]
fn no_algorithm_goes_on_after_its_last_round() {
    let instance = drawn(3, 40, 5);
    for algorithm in WRITTEN {
        let settings = Settings { rounds_max: 2, ..Settings::default() };
        let rounds = run(algorithm, &instance, &settings).rounds;
        let in_one_go = [Algorithm::Random, Algorithm::RoundRobin, Algorithm::Greedy];
        assert!(rounds <= 2 || in_one_go.contains(&algorithm), "{algorithm:?}: {rounds}");
    }
}

#[test]
fn names_are_those_of_the_command_line() {
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.name().parse(), Ok(algorithm));
        let value = algorithm.to_possible_value().expect("none is hidden");
        assert_eq!(value.get_name(), algorithm.name());
        assert!(algorithm.label().ends_with('.'));
    }
    let error = "simplex".parse::<Algorithm>().expect_err("there is none").to_string();
    assert!(error.contains("\"simplex\"") && error.contains("dina-swap-move, cbba"), "{error}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let check = |settings: Settings, error: SolveError| {
        assert_eq!(solve(Algorithm::Auction, &drawn(0, 2, 2), &settings), Err(error));
    };
    let mut still = Settings::default();
    still.terms.eps = Nats::ZERO;
    check(still, SolveError::Eps);
    for missing in [-0.1, 1.1, f64::NAN] {
        check(Settings { missing, ..Settings::default() }, SolveError::Missing);
    }
}

#[test]
fn textbook_and_lockstep_are_within_their_bound() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
    fn property(instance: Instance, seed: u64, missing: bool) -> Result<(), String> {
        let settings = Settings { seed, missing: f64::from(u8::from(missing)) / 3.0, ..patient() };
        for algorithm in [Algorithm::Auction, Algorithm::Textbook] {
            let solution = run(algorithm, &instance, &settings);
            check_outcome(&instance, settings.terms, &outcome(&solution))
                .map_err(|error| format!("{algorithm:?}: {error}"))?;
        }
        Ok(())
    }
    many(property as fn(Instance, u64, bool) -> Result<(), String>);
}

#[test]
fn every_solution_is_feasible_and_none_beats_the_optimum() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
    fn property(instance: Instance, seed: u64) -> Result<(), String> {
        let best = optimum(&instance).map(|(best, _)| best);
        for algorithm in WRITTEN {
            let solution = run(algorithm, &instance, &Settings { seed, ..brief() });
            if solution.assignment.len() != instance.pieces() {
                return Err(format!("{algorithm:?}: {} places", solution.assignment.len()));
            }
            let utility = utility(&instance, &solution.assignment)
                .ok_or(format!("{algorithm:?}: {:?} is infeasible", solution.assignment))?;
            if solution.complete().is_some() && best.is_none_or(|best| utility > best) {
                return Err(format!("{algorithm:?}: {utility} beats {best:?}"));
            }
        }
        Ok(())
    }
    many(property as fn(Instance, u64) -> Result<(), String>);
}

fn many(property: impl Testable) {
    QuickCheck::new().tests(400).quickcheck(property);
}

/// The best utility after one exchange of two places, or one move.
fn best_after(instance: &Instance, assignment: &[Option<usize>], moves: Moves) -> Option<Nats> {
    let mut best = None;
    for one in 0..instance.pieces() {
        for other in one + 1..instance.pieces() {
            let mut after = assignment.to_vec();
            after.swap(one, other);
            // An exchange with a piece that has no place is none.
            if assignment[one].is_some() && assignment[other].is_some() {
                best = best.max(utility(instance, &after));
            }
        }
        for to in (0..instance.providers()).filter(|_| moves == Moves::Allowed) {
            let mut after = assignment.to_vec();
            if after[one].replace(to).is_some() {
                best = best.max(utility(instance, &after));
            }
        }
    }
    best
}

#[derive(Clone, Copy, PartialEq)]
enum Moves {
    Allowed,
    Forbidden,
}

/// Always the best pair of a piece and a provider that there is, until none is left.
fn sequential_greedy(instance: &Instance) -> Vec<Option<usize>> {
    let mut assignment = vec![None; instance.pieces()];
    let mut holders = vec![0_u16; instance.providers()];
    loop {
        let mut pairs = Vec::new();
        for (piece, rates) in instance.log_rates.iter().enumerate() {
            for (j, rate) in rates.iter().enumerate() {
                if assignment[piece].is_none()
                    && holders[j] < instance.capacity[j]
                    && let Some(rate) = rate
                {
                    let cost = starling_protocol::nats::slot_cost(u32::from(holders[j]) + 1);
                    pairs.push((*rate - cost, std::cmp::Reverse((j, piece))));
                }
            }
        }
        let Some((_, std::cmp::Reverse((j, piece)))) = pairs.into_iter().max() else {
            return assignment;
        };
        assignment[piece] = Some(j);
        holders[j] += 1;
    }
}

quickcheck! {
    fn swap_stable_means_that_no_exchange_helps(instance: Instance) -> bool {
        let at = run(Algorithm::DinaSwap, &instance, &patient()).assignment;
        best_after(&instance, &at, Moves::Forbidden) <= utility(&instance, &at)
    }

    fn with_moves_no_move_helps_either(instance: Instance) -> bool {
        let at = run(Algorithm::DinaSwapMove, &instance, &patient()).assignment;
        best_after(&instance, &at, Moves::Allowed) <= utility(&instance, &at)
    }

    fn bundles_agree_on_the_sequential_greedy_choice(instance: Instance) -> bool {
        run(Algorithm::Cbba, &instance, &patient()).assignment == sequential_greedy(&instance)
    }

    fn what_the_dual_methods_certify_is_within_the_gap(instance: Instance) -> bool {
        let settings = brief();
        let gap = settings.terms.eps.times(instance.pieces() as u64);
        [Algorithm::DualConstant, Algorithm::DualTuned].into_iter().all(|algorithm| {
            let solution = run(algorithm, &instance, &settings);
            let reached = utility(&instance, &solution.assignment);
            let best = optimum(&instance).map(|(best, _)| best);
            solution.count("certified") == 0
                || best.zip(reached).is_some_and(|(best, reached)| best - reached <= gap)
        })
    }

    fn the_same_seed_gives_the_same_solution(instance: Instance, seed: u64) -> bool {
        let settings = Settings { seed, missing: 0.3, ..brief() };
        WRITTEN.iter().all(|algorithm| {
            run(*algorithm, &instance, &settings) == run(*algorithm, &instance, &settings)
        })
    }
}
