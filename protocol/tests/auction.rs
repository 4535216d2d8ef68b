//! The bound of the class auction, on random instances and under any order of messages.

use std::time::Duration;

use quickcheck::{QuickCheck, quickcheck};
use starling_protocol::{
    Nats, NodeId, SessionId, Timestamp,
    market::{Bidder, Candidate, Moving, Terms},
    nats::slot_cost,
    testing::{
        Instance, Mischief, Openings, Outcome, check_outcome, node_id, run_auction,
        run_auction_from,
    },
    wire::{Ask, Message},
};

const CALM: Mischief =
    Mischief { seed: 1, duplicated_percent: 0, stale_percent: 0, pieces_each: 1 };

fn check(rates: &[&[Option<f64>]], capacity: &[u16], expected: &[Option<usize>]) {
    let log = |rate: &Option<f64>| rate.and_then(Nats::ln);
    let log_rates = rates.iter().map(|rates| rates.iter().map(log).collect()).collect();
    let instance = Instance { log_rates, capacity: capacity.to_vec() };
    let outcome = run_auction(&instance, Terms::default(), CALM);
    assert_eq!(outcome.assignment, expected);
    check_outcome(&instance, Terms::default(), &outcome).expect("within the bound");
}

#[test]
fn the_faster_provider_takes_the_second_piece_only_if_twice_shared_it_is_still_fairer() {
    // ln 10 - 1.386 > ln 1: sharing the fast one is fairer than using the slow one.
    check(&[&[Some(10.0), Some(1.0)], &[Some(10.0), Some(1.0)]], &[2, 2], &[Some(0), Some(0)]);
    // ln 3 - 1.386 < ln 1: it is not.
    check(&[&[Some(3.0), Some(1.0)], &[Some(9.0), Some(1.0)]], &[2, 2], &[Some(1), Some(0)]);
}

#[test]
fn forbidden_pairs_and_capacities_are_kept() {
    check(&[&[Some(9.0), None], &[Some(9.0), Some(1.0)]], &[1, 1], &[Some(0), Some(1)]);
    check(&[&[Some(9.0), None]], &[0, 4], &[None]);
}

/// Each piece but the first would rather have the place of the one before it. Every step of the
/// chain may raise a price by a whole spread, so a cap made for one step calls pieces infeasible
/// that have a place.
#[test]
fn a_long_chain_of_displacements_passes_no_cap() {
    let far = Some(1e-4 * 1.2);
    check(
        &[
            &[Some(1.0), None, None, None],
            &[Some(1.0), far, None, None],
            &[None, Some(1.0), far, None],
            &[None, None, Some(1.0), far],
        ],
        &[1, 1, 1, 1],
        &[Some(0), Some(1), Some(2), Some(3)],
    );
}

#[test]
fn a_piece_without_a_place_is_proved_infeasible() {
    let instance = Instance { log_rates: vec![vec![Some(Nats::ZERO); 2]; 3], capacity: vec![1, 1] };
    let outcome = run_auction(&instance, Terms::default(), CALM);
    assert!(outcome.quiescent);
    assert_eq!(outcome.assignment.iter().flatten().count(), 2);
}

/// Two providers that are alike for one piece; what they ask, and its bidder.
fn one_of_two() -> (NodeId, NodeId, Bidder) {
    let (here, elsewhere) = (node_id(1), node_id(2));
    let candidate = |provider| Candidate { provider, log_rate: Nats::from_f64(1.0) };
    let session = SessionId { requester: node_id(9), number: 1 };
    let pieces = vec![(0, vec![candidate(here), candidate(elsewhere)])];
    (here, elsewhere, Bidder::new(session, Terms::default(), 2, 0, pieces))
}

fn asks(here: NodeId, mine: f64, other: f64, holders: u16) -> impl Fn(&NodeId) -> Option<Ask> {
    move |node: &NodeId| {
        let level = if *node == here { mine } else { other };
        Some(Ask { version: 1, level: Some(Nats::from_f64(level)), holders })
    }
}

/// What the others ask has risen: the piece offers so much more itself, before it is turned out,
/// but the same no second time, and no more than the slot after the next one costs. Where it does
/// not expect prices to rise, no less than the next slot costs either.
#[test]
fn a_piece_defends_its_place_when_the_others_become_dearer() {
    let defended = |pieces: usize, other: f64| {
        let (here, _, mut bidder) = one_of_two();
        bidder.expect(pieces);
        let now = Timestamp(0);
        assert_eq!(bidder.poll(now, Duration::MAX, &asks(here, 0.0, 0.2, 1), &|_| None).len(), 1);
        bidder.on_award(here, 0, 1);
        let quote = asks(here, 0.25, other, 1);
        let bids = bidder.defend(now, &quote);
        bidder.on_outbid(here, 0, 2);
        assert!(bidder.defend(now, &quote).is_empty(), "it has offered that");
        assert_eq!(bidder.placement(), Some(vec![here]), "a refusal takes nothing from it");
        bids.first().map(|(_, bid)| match bid {
            Message::Bid { level, keeps: Some(1), .. } => level.to_f64(),
            other => panic!("{other:?}"),
        })
    };
    let close =
        |got: Option<f64>, expected: f64| got.is_some_and(|got| (got - expected).abs() < 1e-3);
    for pieces in [0, 1] {
        assert_eq!(defended(pieces, 0.2), None, "nothing has changed");
        assert_eq!(defended(pieces, 0.22), None, "hardly anything has");
        assert!(close(defended(pieces, 1.5), 1.55));
        assert!(close(defended(pieces, 9.0), 1.910));
    }
    assert!(close(defended(1, 0.5), 0.55));
    assert_eq!(defended(0, 0.5), None, "no slot opens for so little");
}

/// On the way down a piece offers what its place is worth, and leaves it if that is less than what
/// its slot costs.
#[test]
fn a_piece_lowers_its_level_or_leaves() {
    let fallen = |other: f64, holders: u16| {
        let (here, _, mut bidder) = one_of_two();
        let now = Timestamp(0);
        bidder.poll(now, Duration::MAX, &asks(here, 0.0, 3.0, 0), &|_| None);
        bidder.on_award(here, 0, 1);
        let quote = asks(here, 3.0, other, holders);
        let content = bidder.is_content(&quote);
        let messages = bidder.fall(now, &quote);
        assert!(bidder.fall(now, &quote).is_empty(), "one thing at a time");
        let done = messages.into_iter().next().map(|(to, message)| {
            assert_eq!(to, here);
            match message {
                Message::Bid { level, keeps: Some(1), .. } => Some(level.to_f64()),
                Message::Release { .. } => None,
                other => panic!("{other:?}"),
            }
        });
        (content, done)
    };
    assert_eq!(fallen(3.0, 1), (true, None), "it is worth what it offers");
    assert_eq!(fallen(2.98, 1), (true, Some(Some(3.03))), "the price is less than that");
    assert_eq!(fallen(2.0, 1), (false, Some(Some(2.0))));
    assert_eq!(fallen(1.9, 3), (false, Some(Some(1.909_542_505))), "its slot costs as much");
    assert_eq!(fallen(1.0, 3), (false, Some(None)), "its slot costs more");
}

/// Pieces that lose their places together see the same best slot.
#[test]
fn pieces_without_places_spread_over_slots_that_are_nearly_as_good() {
    let session = SessionId { requester: node_id(9), number: 1 };
    let rate = |node: usize| Nats::from_f64(1.0 - 0.004 * node as f64);
    let candidate = |node| Candidate { provider: node_id(node), log_rate: rate(node) };
    let pieces = vec![(0, (0..20).map(candidate).collect()); 30];
    let mut bidder = Bidder::new(session, Terms::default(), 20, 0, pieces);
    let empty = Ask { version: 1, level: Some(Nats::ZERO), holders: 0 };
    let bids = bidder.poll(Timestamp(0), Duration::MAX, &|_| Some(empty), &|_| None);
    let mut bid_at = std::collections::BTreeSet::new();
    for (to, bid) in bids {
        let Message::Bid { level, .. } = bid else { panic!("{bid:?}") };
        assert!(level >= Nats::ZERO, "an open slot takes it");
        bid_at.insert(to);
    }
    assert!(bid_at.len() > 5, "{} providers", bid_at.len());
    assert!(bid_at.iter().all(|node| (0..13).any(|n| node_id(n) == *node)), "within eps alone");
}

/// A full provider's lowest level may be just what its next slot would cost. A piece that takes it
/// for an open slot is refused there, and hears of no other price.
#[test]
fn a_full_provider_that_seems_to_have_a_slot_is_asked_once() {
    let (here, elsewhere, mut bidder) = one_of_two();
    let next_slot = slot_cost(2).to_f64();
    let quote = asks(here, next_slot, 1.35, 1);
    let mut bid = || {
        let bids = bidder.poll(Timestamp(0), Duration::MAX, &quote, &|_| None);
        let (to, Message::Bid { level, attempt, .. }) = bids[0] else { panic!("{bids:?}") };
        bidder.on_outbid(to, 0, attempt);
        (to, level.to_f64())
    };
    let ((first, level), (second, enough)) = (bid(), bid());
    assert_eq!((first, second), (here, elsewhere));
    assert!(level >= next_slot && level < next_slot + 0.05, "enough for an open slot alone");
    assert!(enough >= 1.35 + 0.05, "enough to turn somebody out");
}

/// The award of a lower bid for a piece's own place may come after the news that this bid was
/// outbid in turn. The place by the old bid is gone as well.
#[test]
fn an_eviction_that_overtakes_the_award_of_a_lower_bid_is_noticed() {
    let (here, _, mut bidder) = one_of_two();
    bidder.poll(Timestamp(0), Duration::from_secs(1), &asks(here, 0.0, 5.0, 0), &|_| None);
    bidder.on_award(here, 0, 1);
    let bids = bidder.review(Timestamp(9), &asks(here, 5.0, 1.0, 1), Moving::Free);
    assert_eq!((bids.len(), bids[0].0), (1, here), "it lowers its level where it is");
    assert!(bidder.on_eviction(here, 0, 2));
    assert!(!bidder.is_placed());
}

#[test]
fn the_bound_holds_under_any_delivery() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
    fn property(instance: Instance, mischief: Mischief) -> Result<(), String> {
        let terms = Terms::default();
        check_outcome(&instance, terms, &run_auction(&instance, terms, mischief))
    }
    QuickCheck::new()
        .tests(3000)
        .quickcheck(property as fn(Instance, Mischief) -> Result<(), String>);
}

#[test]
fn the_bound_holds_whatever_the_forecasts_were() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
    fn property(instance: Instance, mischief: Mischief, openings: Openings) -> Result<(), String> {
        let terms = Terms::default();
        let outcome = run_auction_from(&instance, terms, mischief, openings);
        check_outcome(&instance, terms, &outcome)
    }
    QuickCheck::new()
        .tests(6000)
        .quickcheck(property as fn(Instance, Mischief, Openings) -> Result<(), String>);
}

quickcheck! {
    fn a_finer_eps_is_within_its_finer_bound(instance: Instance, mischief: Mischief) -> Result<(), String> {
        let terms = Terms { eps: Nats::from_f64(0.01), ..Terms::default() };
        check_outcome(&instance, terms, &run_auction(&instance, terms, mischief))
    }

    fn the_checker_notices_a_worse_assignment(instance: Instance) -> bool {
        // The canary: of all the ways to put every piece on one provider, the checker must reject
        // those that are worse than the bound.
        let terms = Terms::default();
        (0..instance.providers()).all(|provider| {
            let assignment = vec![provider; instance.pieces()];
            let Some(utility) = instance.utility(&assignment) else { return true };
            let (best, _) = starling_protocol::testing::optimum(&instance).expect("one is known");
            let worse = utility < best - terms.eps.times(instance.pieces() as u64);
            let outcome = Outcome {
                assignment: assignment.into_iter().map(Some).collect(),
                rounds: 1,
                bids: 1,
                messages: 1,
                quiescent: true,
            };
            check_outcome(&instance, terms, &outcome).is_err() == worse
        })
    }
}
