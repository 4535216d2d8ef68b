//! Whole nodes after the auction: nothing moves without a reason, and what moves is served all the
//! while.

use std::time::Duration;

use quickcheck::{Arbitrary, Gen, QuickCheck};
use starling_protocol::{
    ModelId, NodeId, SessionId,
    market::Terms,
    model::{LayerProfile, ModelProfile, Speed, Work},
    node::{Command, Config, Event, Input, Offering},
    partition::{Goal, Planner},
    plan::Plan,
    session::Planning,
    testing::{Entry, Table, node_id},
    wire::Message,
};

/// Speeds of a few providers, in MFLOP/s, and how many requesters open at once.
#[derive(Clone, Debug)]
struct Flock {
    speeds: Vec<u64>,
    requesters: usize,
}

impl Arbitrary for Flock {
    fn arbitrary(g: &mut Gen) -> Self {
        let providers = 1 + usize::arbitrary(g) % 5;
        let speeds = (0..providers).map(|_| 2 + u64::arbitrary(g) % 60).collect();
        Self { speeds, requesters: 1 + usize::arbitrary(g) % 3 }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let requesters = self.requesters;
        let fewer = self.speeds.shrink().filter(|speeds| !speeds.is_empty());
        Box::new(fewer.map(move |speeds| Self { speeds, requesters }))
    }
}

impl Flock {
    /// Requesters come first.
    fn seated(&self) -> Table {
        let mut table = Table::new(LOAD_TIME);
        for number in 0..self.requesters {
            table.join(config(number, 0, Offering::Nobody), Speed::default());
        }
        for (number, speed) in self.speeds.iter().enumerate() {
            let speed = speed * 1_000_000;
            let config = config(self.requesters + number, speed, Offering::Everyone);
            table.join(config, Speed([speed; 5]));
        }
        table.pass(Duration::from_millis(300));
        table
    }
}

/// A requester, and providers of these speeds.
fn seated(speeds: &[u64]) -> Table {
    let flock = Flock { speeds: speeds.to_vec(), requesters: 1 };
    flock.seated()
}

fn session(requester: usize) -> SessionId {
    SessionId { requester: node_id(requester), number: 1 }
}

fn config(number: usize, speed: u64, offering: Offering) -> Config {
    let mut config = Config::new(node_id(number), Speed([speed; 5]), 1_000_000);
    config.offering = offering;
    config.bandwidth = 1_000_000_000;
    config
}

fn open(table: &mut Table, by: usize, planning: Planning) {
    let layer = LayerProfile { work: Work([1_000_000, 0, 0, 0, 0]), weight_bytes: WEIGHTS / 12 };
    let profile =
        ModelProfile::new(ModelId([7; 32]), &[layer; 12], vec![100; 13]).expect("a good profile");
    table.feed(node_id(by), Input::Command(Command::Open { session: 1, profile, planning }));
}

/// A provider finds that its pieces take so many times as long as before, and says so.
fn slow_down(table: &mut Table, node: NodeId, speed: u64) {
    let work = Work([1_000_000; 5]);
    let seconds = Speed([speed; 5]).seconds(&work);
    for _ in 0..100 {
        table.feed(node, Input::Ran { work, seconds });
    }
}

/// Pieces that moved, and bids, in what was said.
fn moves_and_bids(table: &mut Table) -> (usize, usize) {
    let log = table.take_log();
    let moved = log.iter().map(|(_, entry)| match entry {
        Entry::Event { event: Event::Moved { pieces, .. }, .. } => *pieces,
        Entry::Event { .. } | Entry::Message { .. } => 0,
    });
    let is_bid =
        |entry: &Entry| matches!(entry, Entry::Message { message: Message::Bid { .. }, .. });
    (moved.sum(), log.iter().filter(|(_, entry)| is_bid(entry)).count())
}

fn holders(table: &Table, number: usize) -> u16 {
    table.node(&node_id(number)).map_or(0, |node| node.book().holders())
}

fn check<A: Arbitrary + std::fmt::Debug>(property: fn(A) -> Result<(), String>) {
    QuickCheck::new().tests(CASES).quickcheck(property);
}

#[test]
fn nothing_moves_once_all_is_quiet() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck passes by value")]
    fn property(flock: Flock) -> Result<(), String> {
        let mut table = flock.seated();
        (0..flock.requesters).for_each(|number| open(&mut table, number, THROUGHPUT));
        table.pass(Duration::from_secs(90));
        table.take_log();
        (0..flock.requesters).for_each(|number| table.watch(session(number)));
        table.pass(Duration::from_secs(300));
        table.check_served()?;
        match moves_and_bids(&mut table) {
            (0, 0) => Ok(()),
            (moves, bids) => Err(format!("{moves} moves and {bids} bids for no reason")),
        }
    }
    check(property as fn(Flock) -> Result<(), String>);
}

#[test]
fn a_provider_that_slows_down_loses_its_piece_to_one_that_has_it_loaded() {
    fn property((pieces, idle, factor): (u8, u8, u8)) -> Result<(), String> {
        let (pieces, idle) = (1 + u16::from(pieces % 4), 1 + usize::from(idle % 3));
        let factor = 2 + u64::from(factor % 32);
        let mut table = seated(&vec![40; usize::from(pieces) + idle]);
        let cuts: Vec<u16> = (1..pieces).map(|piece| piece * 12 / pieces).collect();
        open(&mut table, 0, Planning::Fixed(Plan::from_cuts(12, &cuts).expect("good cuts")));
        table.pass(Duration::from_secs(10));
        table.watch(session(0));
        let busy = (1..).find(|number| holders(&table, *number) > 0).expect("pieces are placed");
        slow_down(&mut table, node_id(busy), 40_000_000 / factor);
        table.pass(Duration::from_secs(30));
        table.check_served()?;
        let (moves, _) = moves_and_bids(&mut table);
        match (moves, holders(&table, busy)) {
            (1, 0) => Ok(()),
            (moves, after) => Err(format!("{moves} moves, and {after} pieces stayed")),
        }
    }
    check(property as fn((u8, u8, u8)) -> Result<(), String>);
}

#[test]
fn a_newcomer_attracts_a_piece_only_if_it_gains_more_than_a_move_costs() {
    fn property((providers, percent): (u8, u16)) -> Result<(), String> {
        let providers = 1 + usize::from(providers % 4);
        // From half as fast to three times as fast.
        let ratio = f64::from(50 + percent % 250) / 100.0;
        let mut table = seated(&vec![40; providers]);
        open(&mut table, 0, THROUGHPUT);
        table.pass(Duration::from_secs(10));
        table.watch(session(0));
        let speed = (40e6 * ratio) as u64;
        let newcomer = 1 + providers;
        table.join(config(newcomer, speed, Offering::Everyone), Speed([speed; 5]));
        table.pass(Duration::from_secs(30));
        table.check_served()?;
        let terms = Terms::default();
        let weights = WEIGHTS / 12 * (12_u64.div_ceil(providers as u64));
        let cost = (terms.eps + terms.migration.of(weights)).to_f64();
        let least = cost.exp();
        let attracted = holders(&table, newcomer) > 0;
        // What comes and goes over the links makes the ratio of times a little less.
        let (worth, worthless) = (ratio > least * 1.001, ratio < least);
        match (attracted, worth, worthless) {
            (true, _, true) => Err(format!("{ratio} times as fast, and a piece came")),
            (false, true, _) => Err(format!("{ratio} times as fast, and no piece came")),
            _ => Ok(()),
        }
    }
    check(property as fn((u8, u16)) -> Result<(), String>);
}

#[test]
fn a_liar_is_known_within_six_inferences() {
    fn property(truth: u8) -> Result<(), String> {
        let truth = 1_000_000 * (1 + u64::from(truth % 100));
        let mut table = Table::new(LOAD_TIME);
        table.join(config(0, 0, Offering::Nobody), Speed::default());
        table.join(config(1, truth * 10, Offering::Everyone), Speed([truth; 5]));
        table.pass(Duration::from_millis(300));
        open(&mut table, 0, THROUGHPUT);
        table.pass(Duration::from_secs(2));
        for request in 0..6 {
            table.feed(node_id(0), Input::Command(Command::Infer { session: 1, request }));
            table.answer_one();
        }
        let work = Work([1_000_000, 0, 0, 0, 0]);
        let asker = table.node(&node_id(0)).ok_or("no requester")?;
        let claimed = Speed([truth * 10; 5]);
        let believed = asker.beliefs().effective(table.now(), &node_id(1), &claimed);
        let ratio = believed.seconds(&work) / Speed([truth; 5]).seconds(&work);
        if (0.95..1.05).contains(&ratio) { Ok(()) } else { Err(format!("believed {ratio}")) }
    }
    check(property as fn(u8) -> Result<(), String>);
}

const THROUGHPUT: Planning = Planning::By(Planner::Pf, Goal::Throughput);
const LOAD_TIME: Duration = Duration::from_millis(400);
/// Of the whole model.
const WEIGHTS: u64 = 240_000_000;
const CASES: u64 = 150;
