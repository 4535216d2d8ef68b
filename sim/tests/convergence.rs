//! The auction in virtual time: its bound, its determinism, and what a crash does to it.

use std::time::Duration;

use starling_protocol::{NodeId, PieceId, session::Bidding};
use starling_sim::{
    check,
    converge::{Run, Setup, converge},
    network, runner,
    workload::Workload,
};

/// Every kind of trouble at once. The market speaks over reliable connections on a live network,
/// so this is worse than what it will meet.
const TROUBLE: network::Config = network::Config {
    latency_min: Duration::from_millis(1),
    latency_max: Duration::from_millis(20),
    loss: 0.03,
    duplication: 0.2,
    reordering: 0.0,
    held_back_max: Duration::from_millis(50),
};

fn small(network: network::Config) -> Setup {
    let mut setup = Setup::new(30, 5);
    setup.world.network = network;
    setup
}

/// However pieces bid. By forecasts they seldom compete at all, so that is asked of the others.
fn check_bound(seeds: u64, setup: &Setup) {
    check_bound_of(seeds, &Setup { bidding: Bidding::Forecast, ..*setup });
    let rounds = check_bound_of(seeds, &Setup { bidding: Bidding::Plain, ..*setup });
    assert!(rounds.iter().any(|rounds| *rounds > 1), "no piece ever competed: nothing was tested");
}

fn check_bound_of(seeds: u64, setup: &Setup) -> Vec<u64> {
    let mut rounds = Vec::new();
    runner::over_seeds(
        0..seeds,
        |seed| converge(seed, setup),
        |seed, result| {
            let report = result
                .unwrap_or_else(|panic| panic!("seed {seed}: {panic}"))
                .unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
            assert!(report.gap_per_piece <= setup.terms.eps.to_f64());
            rounds.push(report.rounds);
            std::ops::ControlFlow::Continue(())
        },
    );
    assert_eq!(rounds.len() as u64, seeds);
    rounds
}

#[test]
fn the_bound_holds_on_good_links() {
    check_bound(40, &small(network::Config::default()));
}

#[test]
fn the_bound_holds_with_loss_and_duplication() {
    check_bound(40, &small(TROUBLE));
}

#[test]
fn the_bound_holds_with_reordering_too() {
    check_bound(40, &small(network::Config { reordering: 0.3, ..TROUBLE }));
}

/// An answer to an install that an eviction and a new award had overtaken made its requester give
/// the new place up, while the provider went on holding it.
#[test]
fn a_late_refusal_of_an_install_costs_no_place_won_since() {
    let mut setup = Setup::new(60, 8);
    setup.world.network.reordering = 0.3;
    converge(0, &setup).expect("no piece is held twice");
}

#[test]
fn the_bound_holds_when_every_place_is_taken() {
    let mut setup = small(network::Config::default());
    setup.size.slots = Some(6);
    check_bound(20, &setup);
}

#[test]
fn a_seed_repeats_to_the_last_byte_and_no_two_are_alike() {
    for network in [network::Config::default(), network::Config { reordering: 0.3, ..TROUBLE }] {
        let setup = small(network);
        let report = |seed| converge(seed, &setup).expect("it passes");
        assert_eq!(report(1), report(1));
        assert_ne!(report(1).trace_hash, report(2).trace_hash);
    }
}

#[test]
fn a_fault_that_never_happens_changes_nothing() {
    let calm = converge(3, &small(network::Config::default())).expect("it passes");
    let held =
        network::Config { held_back_max: Duration::from_secs(9), ..network::Config::default() };
    assert_eq!(converge(3, &small(held)).expect("it passes"), calm);
}

fn pieces_at(run: &Run, provider: NodeId) -> Vec<PieceId> {
    let assignment = check::assignment(run.world(), run.workload()).expect("settled");
    let pieces = run.workload().pieces().zip(assignment);
    let there = pieces.filter(|(_, place)| run.workload().machine_id(*place) == provider);
    there.map(|((piece, _), _)| piece).collect()
}

#[test]
fn the_pieces_of_a_crashed_provider_are_placed_elsewhere() {
    for seed in 0..10 {
        let setup = small(network::Config::default());
        let mut run = Run::gather(seed, &setup).expect("all are introduced");
        run.open();
        run.settle().expect("everyone agrees");
        let victim = busiest(&run);
        let lost = pieces_at(&run, run.workload().machine_id(victim));
        assert!(!lost.is_empty());

        run.world_mut().crash(victim);
        let crashed = run.world().now();
        assert!(!check::all_held_once(run.world(), run.workload()));
        run.settle().expect("everyone agrees again");

        let took = run.world().now().since(crashed);
        assert!(took < Duration::from_secs(5), "seed {seed}: {took:?}");
        let assignment =
            check::assignment(run.world(), run.workload()).expect("one place for each piece");
        assert!(assignment.iter().all(|place| *place != victim));
    }
}

fn busiest(run: &Run) -> usize {
    let providers = run.world().nodes().take(run.workload().machines.len());
    let busiest = providers.max_by_key(|(_, node)| node.book().holders());
    busiest.expect("there is a provider").0
}

#[test]
fn leases_outlive_the_auction() {
    let mut run = Run::gather(4, &small(network::Config::default())).expect("all are introduced");
    run.open();
    run.settle().expect("everyone agrees");
    let before = check::assignment(run.world(), run.workload()).expect("settled");
    // Ten leases' worth of time.
    run.world_mut().run_for(Duration::from_secs(60)).expect("no flood of events");
    let after = check::assignment(run.world(), run.workload()).expect("still so");
    assert_eq!(before, after, "a running session moved without a reason");
    assert!(run.world().ledger().upkeep().messages > 0);
}

#[test]
fn the_workload_does_not_depend_on_the_links() {
    let setup = small(network::Config::default());
    let run = Run::gather(5, &setup).expect("all are introduced");
    assert_eq!(*run.workload(), Workload::draw(5, &setup.size).expect("sound"));
}
