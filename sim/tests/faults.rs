//! Each verb by which something goes wrong, on its own.

use std::time::Duration;

use starling_protocol::{PieceId, node::Node, session::Planning};
use starling_sim::{
    check::{self, Watch},
    converge::{Run, Setup},
    ledger::{Sighting, Standing},
    workload::Request,
    world::World,
};

const SECOND: Duration = Duration::from_secs(1);

fn settled(seed: u64) -> Run {
    let mut run = Run::gather(seed, &Setup::new(12, 4)).expect("all are introduced");
    run.open();
    run.settle().expect("everyone agrees");
    run.world_mut().run_until(SECOND * 10, World::all_ready).expect("all is loaded");
    run
}

/// The provider that holds the most.
fn busiest(run: &Run) -> usize {
    let providers = run.world().nodes().take(run.workload().machines.len());
    providers.max_by_key(|(_, node)| node.book().holders()).expect("there is a provider").0
}

fn pieces_at(world: &World, place: usize) -> Vec<PieceId> {
    let holdings = world.node(place).into_iter().flat_map(|node| node.book().holdings());
    holdings.map(|(piece, _)| *piece).collect()
}

fn watch(world: &mut World, span: Duration) {
    let mut watch = Watch::default();
    let end = world.now() + span;
    while world.now() < end {
        world.run_for(Duration::from_millis(50)).expect("no flood of events");
        watch.look(world).expect("what must always hold");
    }
}

#[test]
fn a_frozen_process_says_nothing_and_goes_on_with_what_waited() {
    let mut run = settled(1);
    let victim = busiest(&run);
    let world = run.world_mut();
    let before = world.node(victim).map(Node::deadline);
    world.pause(victim);
    watch(world, SECOND);
    assert!(world.is_paused(victim));
    assert_eq!(world.node(victim).map(Node::deadline), before, "nothing happened to it");
    let held = pieces_at(world, victim);
    world.resume(victim);
    watch(world, SECOND * 30);
    assert_ne!(world.node(victim).map(Node::deadline), before);
    assert_eq!(pieces_at(world, victim), held, "one second is nothing");
}

#[test]
fn leases_of_a_frozen_provider_are_over_when_it_goes_on() {
    let mut run = settled(2);
    let victim = busiest(&run);
    let world = run.world_mut();
    let held = pieces_at(world, victim);
    world.pause(victim);
    // In these experiments requesters are patient.
    watch(world, SECOND * 60);
    assert_eq!(pieces_at(world, victim), held, "it knows of nothing");
    world.resume(victim);
    watch(world, SECOND * 10);
    assert!(check::all_settled(world));
    assert!(world.ledger().sightings().contains(&Sighting::ProviderLost));
}

#[test]
fn a_process_that_starts_again_remembers_nothing_but_is_believed() {
    let mut run = settled(3);
    let victim = busiest(&run);
    let sequence = run.world().config(victim).first_sequence;
    run.world_mut().restart(victim);
    assert!(pieces_at(run.world(), victim).is_empty());
    assert!(run.world().config(victim).first_sequence > sequence);
    let id = run.world().id(victim);
    watch(run.world_mut(), SECOND * 5);
    let requesters = run.world().nodes().skip(run.workload().machines.len());
    for (_, node) in requesters {
        let known = node.flock().node(&id).expect("it is known again");
        assert!(known.advert.ask.version > sequence);
    }
    assert!(check::all_settled(run.world()));
}

#[test]
fn a_cut_one_way_is_no_cut_the_other_way() {
    let mut run = settled(4);
    let (world, providers) = (run.world_mut(), [0, 1, 2, 3]);
    let requester = providers.len();
    let (heard, hears) = (world.id(requester), world.id(0));
    let others: Vec<usize> = (1..world.nodes().count()).collect();
    world.partition_one_way(&[0], &others);
    // In these experiments twenty adverts in a row may be lost.
    world.run_for(SECOND * 400).expect("no flood of events");
    let knows = |place: usize, id| world.node(place).expect("alive").flock().node(id).is_some();
    assert!(!knows(requester, &hears), "its adverts have run out");
    assert!(knows(0, &heard), "it still hears the others");
    world.heal();
    watch(world, SECOND * 30);
    let knows = |place: usize, id| world.node(place).expect("alive").flock().node(id).is_some();
    assert!(knows(requester, &hears));
}

#[test]
fn a_partition_that_heals_leaves_nothing_behind() {
    let mut run = settled(5);
    let all: Vec<usize> = run.world().nodes().map(|(place, _)| place).collect();
    let (ones, others) = all.split_at(1);
    run.world_mut().partition(ones, others);
    watch(run.world_mut(), SECOND * 20);
    run.world_mut().heal();
    watch(run.world_mut(), SECOND * 60);
    assert!(check::all_settled(run.world()));
    check::assignment(run.world(), run.workload()).expect("one place for each piece");
}

#[test]
fn a_slow_machine_takes_as_much_longer_as_it_is_slower() {
    let busy_share = |factor: f64| {
        let mut run = settled(6);
        let world = run.world_mut();
        for place in 0..4 {
            world.slow_down(place, factor);
        }
        for n in 0..run.workload().requests.len() {
            let session = run.workload().session_id(n);
            let place = run.world().place(&session.requester).expect("it was added");
            run.world_mut().stream(place, session.number, 1);
        }
        run.world_mut().run_for(SECOND * 5).expect("no flood of events");
        let observed = run.world().observed();
        let runs: u64 = observed.pieces.values().map(|(runs, _)| runs).sum();
        observed.busy.iter().sum::<f64>() / runs as f64
    };
    let ratio = busy_share(10.0) / busy_share(1.0);
    assert!((5.0..20.0).contains(&ratio), "{ratio}");
}

#[test]
fn a_liar_advertises_what_it_claims() {
    let mut run = Run::gather(7, &Setup::new(4, 2)).expect("all are introduced");
    let (honest, id) = (run.workload().machines[0].speed, run.world().id(0));
    run.world_mut().lie(0, 10.0);
    watch(run.world_mut(), SECOND * 10);
    for (_, node) in run.world().nodes().skip(2) {
        let claimed = node.flock().node(&id).expect("it is known").advert.speed;
        let ratio = claimed.0[0] as f64 / honest.0[0] as f64;
        assert!((ratio - 10.0).abs() < 0.01, "{ratio}");
    }
}

#[test]
fn bits_that_flip_do_no_harm_on_secured_links() {
    let mut run = settled(8);
    run.world_mut().corrupt(0.05);
    watch(run.world_mut(), SECOND * 20);
    let seen = run.world().ledger().sightings().clone();
    assert!(seen.contains(&Sighting::CorruptAdvert) && seen.contains(&Sighting::CorruptMessage));
    assert!(!seen.contains(&Sighting::GarbledMessage));
    run.world_mut().heal();
    watch(run.world_mut(), SECOND * 60);
    assert!(check::all_settled(run.world()));
}

#[test]
fn garbled_messages_are_heard_and_nobody_panics() {
    for seed in 0..5 {
        let mut run = settled(seed);
        run.world_mut().garble(0.2);
        watch(run.world_mut(), SECOND * 20);
        assert!(run.world().ledger().sightings().contains(&Sighting::GarbledMessage));
    }
}

#[test]
fn gossip_is_counted_and_its_copies_are_more_than_one_for_each_node() {
    let run = settled(9);
    let nodes = run.world().nodes().count();
    let loads: Vec<_> = (0..nodes).map(|place| run.world().gossip_load(place)).collect();
    assert!(loads.iter().all(|load| load.sent > 0 && load.received > 0));
    let received: u64 = loads.iter().map(|load| load.received).sum();
    let once = run.world().ledger().adverts().bytes * (nodes as u64 - 1);
    assert!(received > once, "{received} of {once}: no duplicate was ever sent");
    assert!(received < once * 6, "{received} of {once}: nothing like a mesh of six links");
}

#[test]
fn a_session_streams_while_it_lasts_and_not_after() {
    let mut run = Run::gather(10, &Setup::new(4, 2)).expect("all are introduced");
    let request = Request::numbered(10, 99, 3);
    let (place, planning) = (2, Planning::Fixed(request.plan.clone()));
    run.world_mut().open(place, 7, request.profile, planning);
    run.world_mut().stream(place, 7, 3);
    watch(run.world_mut(), SECOND * 5);
    let served = |run: &Run| {
        let sessions = run.world().observed().sessions.values();
        sessions.map(|served| served.latencies.len()).sum::<usize>()
    };
    let before = served(&run);
    assert!(before > 50, "{before} outputs in five seconds");
    run.world_mut().close(place, 7);
    watch(run.world_mut(), SECOND);
    let after = served(&run);
    watch(run.world_mut(), SECOND * 5);
    assert_eq!(served(&run), after);
    let standing = run.world().ledger().sessions().next();
    assert!(!matches!(standing, Some((_, Standing::Failed(_)))));
}
