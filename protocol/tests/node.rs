//! Whole nodes, wired to each other without a network: sessions from their opening to their end.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    time::Duration,
};

use starling_protocol::{
    BlobId, ModelId, NodeId, Timestamp,
    model::{LayerProfile, ModelProfile, Speed, Work},
    node::{Command, Config, Event, Input, Node, Offering, Output},
    partition::{Goal, Planner},
    plan::Plan,
    rows::{LayerRows, RowMap, RowRule, RowWindow, Splits, TensorRows},
    session::{Planning, SessionError},
    testing::node_id,
    wire::{FailureReason, Message},
    wiring::Link,
};

/// Nodes whose messages arrive at once and in order; a cut-off node's don't.
struct Table {
    now: Timestamp,
    bandwidth: u64,
    nodes: BTreeMap<NodeId, Node>,
    cut_off: BTreeSet<NodeId>,
    // Whose adverts no requester hears.
    unheard: BTreeSet<NodeId>,
    // How often a price was asked for.
    inquiries: usize,
    events: Vec<(NodeId, Event)>,
    inputs_sent: Vec<(u64, NodeId)>,
    wired: BTreeMap<(NodeId, u64), Vec<Link>>,
    // Requests whose output is due when `answer` is called.
    in_flight: VecDeque<(NodeId, u64, u64)>,
    loads: Loads,
}

fn node(number: usize, offering: Offering, speed: u64, bandwidth: u64, now: Timestamp) -> Node {
    let mut config = Config::new(node_id(number), Speed([speed; 5]), now.0);
    config.offering = offering;
    config.bandwidth = bandwidth;
    Node::new(config)
}

/// When weights come.
#[derive(Clone, Copy, PartialEq)]
enum Loads {
    AtOnce,
    Never,
    /// Their fetching fails.
    Fail,
}

impl Table {
    fn new(offerings: &[(Offering, u64)]) -> Self {
        Self::with_links(offerings, 1_000_000_000)
    }

    /// With links of so many bytes a second.
    fn with_links(offerings: &[(Offering, u64)], bandwidth: u64) -> Self {
        let now = Timestamp(1_000_000);
        let seated = |(number, (offering, speed)): (usize, &(Offering, u64))| {
            (node_id(number), node(number, *offering, *speed, bandwidth, now))
        };
        let mut table = Self {
            now,
            bandwidth,
            nodes: offerings.iter().enumerate().map(seated).collect(),
            cut_off: BTreeSet::new(),
            unheard: BTreeSet::new(),
            inquiries: 0,
            events: Vec::new(),
            inputs_sent: Vec::new(),
            wired: BTreeMap::new(),
            in_flight: VecDeque::new(),
            loads: Loads::AtOnce,
        };
        table.pass(Duration::from_millis(300));
        table
    }

    fn join(&mut self, number: usize, (offering, speed): (Offering, u64)) {
        let node = node(number, offering, speed, self.bandwidth, self.now);
        self.nodes.insert(node_id(number), node);
        self.pass(Duration::from_millis(300));
    }

    fn feed(&mut self, to: NodeId, input: Input) {
        let mut queue = VecDeque::from([(to, input)]);
        while let Some((to, input)) = queue.pop_front() {
            let Some(node) = self.nodes.get_mut(&to) else { continue };
            for output in node.handle(self.now, input) {
                self.carry_out(to, output, &mut queue);
            }
        }
    }

    fn carry_out(&mut self, by: NodeId, output: Output, queue: &mut VecDeque<(NodeId, Input)>) {
        let reaches = |from, to| !self.cut_off.contains(&from) && !self.cut_off.contains(&to);
        match output {
            Output::Publish(advert) => {
                let hears = |to| reaches(by, to) && !self.unheard.contains(&by);
                let others = self.nodes.keys().filter(|to| **to != by && hears(**to));
                let heard =
                    others.map(|to| (*to, Input::Advert { from: by, advert: advert.clone() }));
                queue.extend(heard);
            }
            Output::Send { to, message } => {
                assert_ne!(to, by, "a node delivers to itself by itself");
                if let Message::Renew { leases, .. } = &message {
                    self.inquiries += usize::from(leases.is_empty());
                }
                if reaches(by, to) {
                    queue.push_back((to, Input::Message { from: by, message }));
                }
            }
            Output::Slice { session, plan } => {
                let slices = plan
                    .pieces()
                    .iter()
                    .map(|p| (BlobId([p.layers.first as u8; 32]), 100))
                    .collect();
                queue.push_back((by, Input::Sliced { session, plan, slices }));
            }
            Output::Load(_) if self.loads == Loads::Never => {}
            Output::Load(order) => {
                let (piece, epoch) = (order.piece, order.epoch);
                let fails = self.loads == Loads::Fail;
                let result = if fails { Err(FailureReason::Weights) } else { Ok(()) };
                queue.push_back((by, Input::Loaded { piece, epoch, result }));
            }
            Output::Wire { session, inputs, .. } => {
                self.wired.insert((by, session), inputs);
            }
            Output::SendInput { session, request, .. } => {
                let to = self.wired.get(&(by, session)).map(|inputs| inputs[0].node);
                self.inputs_sent.push((request, to.expect("wired before anything is sent")));
                self.in_flight.push_back((by, session, request));
            }
            Output::Unload(_) | Output::SessionChanged { .. } | Output::Suspect { .. } => {}
            Output::Event(event) => self.events.push((by, event)),
        }
    }

    /// Lets time go by, ticking every node when it asks for it.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let due = self.nodes.values().map(Node::deadline).min().expect("there are nodes");
            if due > end {
                break;
            }
            self.now = self.now.max(due) + Duration::from_micros(1);
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                if self.nodes[&id].deadline() <= self.now {
                    self.feed(id, Input::Tick);
                }
            }
        }
        self.now = self.now.max(end);
    }

    fn open(&mut self, by: usize, planning: Planning) {
        self.open_model(by, model(), planning);
    }

    fn open_model(&mut self, by: usize, profile: ModelProfile, planning: Planning) {
        let command = Command::Open { session: 1, profile, planning };
        self.feed(node_id(by), Input::Command(command));
        self.pass(Duration::from_millis(500));
    }

    fn infer(&mut self, by: usize, requests: Range<u64>) {
        for request in requests {
            self.feed(node_id(by), Input::Command(Command::Infer { session: 1, request }));
        }
    }

    /// Outputs arrive for what is in flight.
    fn answer(&mut self, count: usize) {
        for _ in 0..count {
            let Some((to, session, request)) = self.in_flight.pop_front() else { break };
            self.feed(to, Input::OutputArrived { session, request, runs: Vec::new() });
        }
    }

    /// The providers of the last plan that became ready.
    fn ready(&self) -> Vec<NodeId> {
        let plans = self.events.iter().rev().filter_map(|(_, event)| match event {
            Event::Ready { agreement, .. } => {
                Some(agreement.pieces.iter().map(|piece| piece.provider).collect())
            }
            _ => None,
        });
        plans.into_iter().next().unwrap_or_default()
    }

    fn failure(&self) -> Option<&SessionError> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Failed { error, .. } => Some(error),
            _ => None,
        })
    }

    fn held(&self) -> Vec<u16> {
        self.nodes.values().map(|node| node.book().holders()).collect()
    }
}

/// Twelve equal layers with thin frontiers.
fn model() -> ModelProfile {
    let layer = LayerProfile { work: Work([1_000_000, 0, 0, 0, 0]), weight_bytes: 1000 };
    ModelProfile::new(ModelId([7; 32]), &[layer; 12], vec![100; 13]).expect("a good profile")
}

/// Convolutions by windows of three rows.
fn images(height: u32) -> ModelProfile {
    const LAYERS: u32 = 4;
    let window = RowWindow { kernel: 3, stride: 1, dilation: 1, before: 1 };
    let rows = |at: u32| LayerRows {
        inputs: vec![(at, RowRule::Window(window))],
        outputs: vec![at + 1],
        splits: Splits::ByRows,
    };
    let tensors = vec![TensorRows { height, row_bytes: 4 }; LAYERS as usize + 1];
    let frontiers = (0..=LAYERS).map(|tensor| vec![tensor]).collect();
    let map = RowMap::new(tensors, (0..LAYERS).map(rows).collect(), frontiers);
    let work = Work([100_000 * u64::from(height), 0, 0, 0, 0]);
    let costs = [LayerProfile { work, weight_bytes: 1000 }; LAYERS as usize];
    let bytes = vec![4 * u64::from(height); LAYERS as usize + 1];
    let profile = ModelProfile::new(ModelId([8; 32]), &costs, bytes);
    profile.expect("a good profile").with_rows(map.expect("a good map"))
}

const ASKER: (Offering, u64) = (Offering::Nobody, 0);

fn provider(speed: u64) -> (Offering, u64) {
    (Offering::Everyone, speed)
}

fn throughput() -> Planning {
    Planning::By(Planner::Pf, Goal::Throughput)
}

#[test]
fn unequal_providers_share_one_model_in_proportion() {
    let mut table = Table::new(&[ASKER, provider(20_000_000), provider(10_000_000)]);
    table.open(0, throughput());
    let sizes = table.events.iter().find_map(|(_, event)| match event {
        Event::Ready { agreement, .. } => Some(
            agreement
                .pieces
                .iter()
                .map(|p| (p.provider, p.layers.len()))
                .collect::<BTreeMap<_, _>>(),
        ),
        _ => None,
    });
    assert_eq!(sizes, Some(BTreeMap::from([(node_id(1), 8), (node_id(2), 4)])));
}

#[test]
fn a_node_alone_computes_for_itself_and_for_nobody_else() {
    let mut table = Table::new(&[(Offering::Own, 10_000_000), ASKER]);
    table.open(0, throughput());
    assert_eq!(table.ready(), [node_id(0)]);
    table.events.clear();
    table.open(1, throughput());
    table.pass(Duration::from_secs(10));
    assert_eq!(table.failure(), Some(&SessionError::NoProvider));
}

#[test]
fn requests_flow_within_a_window_and_each_is_done_once() {
    let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
    table.open(0, throughput());
    table.infer(0, 0..20);
    let window = 2 * 2 + 1;
    assert_eq!(table.in_flight.len(), window);
    for _ in 0..20 {
        table.answer(1);
        assert!(table.in_flight.len() <= window);
    }
    let sent: Vec<u64> = table.inputs_sent.iter().map(|(request, _)| *request).collect();
    assert_eq!(sent, (0..20).collect::<Vec<_>>());
}

/// Eight sessions open at once, at two providers. Returns how often a price was asked for.
fn open_eight(unheard: &[NodeId]) -> usize {
    let providers = [provider(10_000_000), provider(10_000_000)];
    let mut table = Table::new(&[providers.to_vec(), vec![ASKER; 8]].concat());
    table.unheard.extend(unheard);
    for by in 2..10 {
        let plan = Plan::from_cuts(12, &[]).expect("one piece");
        let (profile, planning) = (model(), Planning::Fixed(plan));
        let command = Command::Open { session: 1, profile, planning };
        table.feed(node_id(by), Input::Command(command));
    }
    table.pass(Duration::from_secs(1));
    assert_eq!(table.held().iter().sum::<u16>(), 8);
    table.inquiries
}

#[test]
fn a_price_that_does_not_come_is_asked_for_where_it_matters() {
    assert_eq!(open_eight(&[]), 0, "all have heard what they were waiting for");
    assert!(open_eight(&[node_id(1)]) > 0);
}

#[test]
fn a_lost_provider_is_replaced_and_unfinished_requests_are_replayed() {
    let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
    table.open(0, throughput());
    table.infer(0, 0..3);
    table.answer(1);
    table.inputs_sent.clear();
    table.cut_off.insert(node_id(2));
    table.feed(node_id(0), Input::Left(node_id(2)));
    table.pass(Duration::from_millis(200));
    assert!(table.ready().iter().all(|node| *node == node_id(1)), "{:?}", table.ready());
    let replayed: Vec<u64> = table.inputs_sent.iter().map(|(request, _)| *request).collect();
    assert_eq!(replayed, [1, 2]);
}

#[test]
fn a_piece_that_waits_for_one_that_is_silent_goes_to_a_newcomer() {
    let one = provider(10_000_000);
    let mut table = Table::new(&[ASKER, one, one]);
    let plan = Plan::from_cuts(12, &[]).expect("one piece");
    table.open(0, Planning::Fixed(plan));
    let lost = table.ready()[0];
    table.cut_off.extend([node_id(1), node_id(2)]);
    table.feed(node_id(0), Input::Left(lost));
    table.join(3, one);
    table.pass(Duration::from_secs(6));
    assert_eq!((table.failure(), table.ready()), (None, vec![node_id(3)]));
}

/// Its price would rise for half a minute, as nobody would bid at the others.
#[test]
fn a_provider_that_answers_again_is_bid_at_again() {
    let speeds = [10_000_000, 9_000_000, 8_000_000];
    let mut table = Table::new(&[&[ASKER][..], &speeds.map(provider)].concat());
    let plan = Plan::from_cuts(12, &[]).expect("one piece");
    table.open(0, Planning::Fixed(plan));
    assert_eq!(table.ready(), [node_id(1)]);
    table.cut_off.extend((1..4).map(node_id));
    table.feed(node_id(0), Input::Left(node_id(1)));
    // The second has been given up by now, and the third is waited for.
    table.pass(Duration::from_secs(4));
    let given_up = table.nodes[&node_id(0)].session(1).and_then(|session| session.attempt_of(0));
    assert_eq!(given_up, Some(3), "a bid that won, one in vain, and one under way");
    table.cut_off.remove(&node_id(2));
    table.pass(Duration::from_secs(5));
    assert_eq!((table.failure(), table.ready()), (None, vec![node_id(2)]));
}

/// Nodes on a busy machine may say nothing for longer than a bid is repeated.
#[test]
fn a_plan_of_the_callers_waits_for_providers_that_answer_late() {
    let plan = Plan::from_cuts(12, &[6]).expect("two pieces");
    let order = vec![node_id(1), node_id(2)];
    let check = |planning: &Planning, silent_for: u64, failure: Option<SessionError>| {
        let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
        table.cut_off.extend([node_id(1), node_id(2)]);
        table.open(0, planning.clone());
        table.pass(Duration::from_secs(silent_for));
        assert_eq!(table.failure(), failure.as_ref(), "{planning:?}");
        table.cut_off.clear();
        table.pass(Duration::from_secs(5));
        assert_eq!(table.ready().is_empty(), failure.is_some(), "{planning:?}");
    };
    let (fixed, matched) = (Planning::Fixed(plan.clone()), Planning::Matched(plan.clone()));
    let placed = Planning::Placed(plan, order);
    for planning in [&fixed, &matched, &placed] {
        check(planning, 5, None);
    }
    check(&fixed, 60, Some(SessionError::NoAnswer));
    check(&placed, 60, Some(SessionError::NoAnswer));
    // Its pieces ask one after the other; by then nobody has been heard of for long enough.
    check(&matched, 60, Some(SessionError::NoProvider));
}

/// A session whose other piece seeks in vain may never come to rest, and kept both for as long.
#[test]
fn a_piece_on_the_move_keeps_one_place_while_another_seeks_one() {
    let mut table = Table::new(&[&[ASKER][..], &[provider(10_000_000); 4]].concat());
    let plan = Plan::from_cuts(12, &[6]).expect("two pieces");
    table.open(0, Planning::Fixed(plan));
    let ready = table.ready();
    let [moves, stays] = ready[..] else { panic!("two pieces, not {ready:?}") };
    table.loads = Loads::Never;
    let work = Work([6_000_000, 0, 0, 0, 0]);
    for _ in 0..100 {
        table.feed(moves, Input::Ran { work, seconds: 6.0 });
    }
    table.pass(Duration::from_secs(6));
    let idle: Vec<usize> = (1..5).filter(|number| table.held()[*number] == 0).collect();
    assert_eq!(idle.len(), 1, "the slow one's piece has its next place already");

    // The best that is left for the other one never answers.
    table.cut_off.extend(idle.into_iter().map(node_id).chain([stays]));
    table.feed(node_id(0), Input::Left(stays));
    table.pass(Duration::from_secs(1));
    let held = table.nodes.values().filter(|node| !table.cut_off.contains(&node.id()));
    assert_eq!(held.map(|node| node.book().holders()).sum::<u16>(), 1, "{:?}", table.held());
}

#[test]
fn a_provider_that_falls_silent_is_taken_for_lost() {
    let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
    table.open(0, throughput());
    table.cut_off.insert(node_id(2));
    table.pass(Duration::from_secs(6));
    assert!(table.ready().iter().all(|node| *node == node_id(1)), "{:?}", table.ready());
}

#[test]
fn with_nobody_left_the_session_fails_within_ten_seconds() {
    let mut table = Table::new(&[ASKER, provider(10_000_000)]);
    table.open(0, throughput());
    table.infer(0, 0..1);
    table.cut_off.insert(node_id(1));
    table.feed(node_id(0), Input::Left(node_id(1)));
    table.pass(Duration::from_secs(10));
    assert_eq!(table.failure(), Some(&SessionError::NoProvider));
}

#[test]
fn a_session_waits_for_as_long_as_it_is_told_to() {
    // For a provider that is gone, or one that is there and does not answer.
    for gone in [true, false] {
        let mut table = Table::new(&[(Offering::Nobody, 0), provider(10_000_000)]);
        let mut config = Config::new(node_id(0), Speed([0; 5]), table.now.0);
        (config.offering, config.session.search_max) = (Offering::Nobody, Duration::from_secs(60));
        table.nodes.insert(node_id(0), Node::new(config));
        table.feed(node_id(1), Input::Joined(node_id(0)));
        table.open(0, throughput());
        table.infer(0, 0..1);
        assert_eq!(table.ready(), [node_id(1)]);
        table.events.clear();
        table.cut_off.insert(node_id(1));
        if gone {
            table.feed(node_id(0), Input::Left(node_id(1)));
        }
        // Less than until an advert that nobody renews runs out.
        table.pass(Duration::from_secs(if gone { 50 } else { 25 }));
        assert!(table.failure().is_none() && table.ready().is_empty(), "{:?}", table.failure());
        table.cut_off.clear();
        table.feed(node_id(1), Input::Joined(node_id(0)));
        table.pass(Duration::from_secs(5));
        assert_eq!(table.ready(), [node_id(1)]);
    }
}

/// A broken link failed it once, and it was never asked again.
#[test]
fn a_provider_that_could_not_fetch_its_weights_is_asked_again() {
    let check = |planning: Planning, fails_for: u64, failure: Option<SessionError>| {
        let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
        table.loads = Loads::Fail;
        table.open(0, planning);
        table.pass(Duration::from_secs(fails_for));
        table.loads = Loads::AtOnce;
        table.pass(Duration::from_secs(10));
        assert_eq!(table.failure(), failure.as_ref());
        assert_eq!(table.ready().is_empty(), failure.is_some());
    };
    let plan = Plan::from_cuts(12, &[6]).expect("two pieces");
    let placed = Planning::Placed(plan.clone(), vec![node_id(1), node_id(2)]);
    for planning in [throughput(), Planning::Fixed(plan.clone()), Planning::Matched(plan), placed] {
        check(planning.clone(), 2, None);
        check(planning, 60, Some(SessionError::NotInstalled(FailureReason::Weights)));
    }
}

#[test]
fn closing_and_leaving_give_every_place_back() {
    let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
    table.open(0, throughput());
    assert_eq!(table.held(), [0, 1, 1]);
    table.feed(node_id(0), Input::Command(Command::Close { session: 1 }));
    assert_eq!(table.held(), [0, 0, 0]);
    table.open(0, throughput());
    table.feed(node_id(0), Input::Command(Command::Leave));
    assert_eq!(table.held(), [0, 0, 0]);
    assert!(table.nodes[&node_id(1)].flock().node(&node_id(0)).is_none(), "it said farewell");
}

#[test]
fn a_silent_requester_loses_its_leases() {
    let mut table = Table::new(&[ASKER, provider(10_000_000)]);
    table.open(0, throughput());
    assert_eq!(table.held(), [0, 1]);
    table.cut_off.insert(node_id(0));
    table.pass(Duration::from_secs(7));
    assert_eq!(table.held(), [0, 0]);
}

#[test]
fn renewals_keep_a_session_for_as_long_as_it_is_wanted() {
    let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
    table.open(0, throughput());
    table.pass(Duration::from_secs(120));
    assert_eq!(table.held(), [0, 1, 1]);
    let plans = table.events.iter().filter(|(_, event)| matches!(event, Event::Ready { .. }));
    assert_eq!(plans.count(), 1, "nothing moves without a reason");
}

#[test]
fn weights_are_waited_for_as_long_as_the_links_call_for() {
    fn check(bandwidth: u64, waits: Range<u64>) {
        let mut table = Table::with_links(&[ASKER, provider(10_000_000)], bandwidth);
        table.loads = Loads::Never;
        table.open(0, Planning::Fixed(Plan::from_cuts(12, &[]).expect("one piece")));
        table.pass(Duration::from_secs(waits.start));
        assert_eq!(table.failure(), None, "{bandwidth} B/s");
        table.pass(Duration::from_secs(waits.end - waits.start));
        let failure = Some(&SessionError::NotInstalled(FailureReason::Weights));
        assert_eq!(table.failure(), failure, "{bandwidth} B/s");
    }
    check(1_000_000_000, 118..122);
    // 12 kB take two minutes, and four times as much is granted.
    check(100, 478..482);
    check(1, 3598..3602);
}

#[test]
fn a_provider_that_turns_out_slower_gets_fewer_layers() {
    let sizes = |table: &Table| {
        let plans = table.events.iter().rev().filter_map(|(_, event)| match event {
            Event::Ready { agreement, .. } => {
                Some(agreement.pieces.iter().map(|p| (p.provider, p.layers.len())).collect())
            }
            _ => None,
        });
        plans.into_iter().next().unwrap_or_else(BTreeMap::new)
    };
    let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
    table.open(0, throughput());
    table.infer(0, 0..3);
    assert_eq!(sizes(&table), BTreeMap::from([(node_id(1), 6), (node_id(2), 6)]));
    // Three times as long as it claims.
    for _ in 0..50 {
        let (work, seconds) = (Work([6_000_000, 0, 0, 0, 0]), 1.8);
        table.feed(node_id(2), Input::Ran { work, seconds });
        table.pass(Duration::from_millis(400));
    }
    assert!(sizes(&table)[&node_id(2)] <= 4, "{:?}", sizes(&table));
    table.inputs_sent.clear();
    table.answer(20);
    table.infer(0, 3..9);
    assert!(!table.inputs_sent.is_empty(), "it goes on");
    table.answer(20);
    let changes = table.events.len();
    table.pass(Duration::from_secs(300));
    assert_eq!(table.events.len(), changes, "and stays");
}

/// One inference at a time waits for the slowest strip, however long the session lasts.
#[test]
fn a_provider_that_turns_out_slower_gets_fewer_rows() {
    let rows = |table: &Table| {
        let mut rows = BTreeMap::<NodeId, u32>::new();
        let ready = table.events.iter().rev().find_map(|(_, event)| match event {
            Event::Ready { agreement, .. } => Some(agreement.pieces.clone()),
            _ => None,
        });
        for piece in ready.expect("a plan") {
            *rows.entry(piece.provider).or_default() +=
                piece.rows.first().map_or(0, |rows| rows.len());
        }
        rows
    };
    let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
    table.open_model(0, images(32), Planning::By(Planner::Pf, Goal::Latency));
    let before = rows(&table);
    assert_eq!(before[&node_id(1)], before[&node_id(2)], "{before:?}");
    for _ in 0..50 {
        let (work, seconds) = (Work([6_000_000, 0, 0, 0, 0]), 1.8);
        table.feed(node_id(2), Input::Ran { work, seconds });
        table.pass(Duration::from_millis(400));
    }
    let after = rows(&table);
    let share = |rows: &BTreeMap<NodeId, u32>| rows.get(&node_id(2)).copied().unwrap_or(0);
    assert!(2 * share(&after) <= share(&before), "{before:?} {after:?}");
    let changes = table.events.len();
    table.pass(Duration::from_secs(300));
    assert_eq!((table.events.len(), table.failure()), (changes, None), "and stays");
}

#[test]
fn a_fixed_plan_is_never_recut() {
    let mut table = Table::new(&[ASKER, provider(30_000_000), provider(10_000_000)]);
    let plan = Plan::from_cuts(12, &[6]).expect("good cuts");
    table.open(0, Planning::Fixed(plan));
    let cuts = table.events.iter().find_map(|(_, event)| match event {
        Event::Agreed { agreement, .. } => Some(agreement.pieces[0].layers.end),
        _ => None,
    });
    assert_eq!(cuts, Some(6));
}

#[test]
fn pieces_go_where_they_are_meant_to_and_stay_there() {
    let speeds = [provider(30_000_000), provider(10_000_000), provider(20_000_000)];
    let mut table = Table::new(&[vec![ASKER], speeds.to_vec()].concat());
    let plan = Plan::from_cuts(12, &[6]).expect("good cuts");
    // Where no auction would put them.
    let meant = vec![node_id(2), node_id(2)];
    table.open(0, Planning::Placed(plan, meant.clone()));
    assert_eq!(table.ready(), meant);
    let bids = table.events.iter().find_map(|(_, event)| match event {
        Event::Agreed { agreement, .. } => Some(agreement.bids),
        _ => None,
    });
    assert_eq!(bids, Some(2), "two pieces at one provider don't turn each other out");
    table.pass(Duration::from_secs(90));
    assert_eq!(table.held(), [0, 0, 2, 0]);
}

#[test]
fn a_plan_whose_provider_is_gone_fails_with_that_reason() {
    let mut table = Table::new(&[ASKER, provider(10_000_000), provider(10_000_000)]);
    let plan = Plan::from_cuts(12, &[]).expect("one piece");
    table.open(0, Planning::Placed(plan, vec![node_id(2)]));
    assert_eq!(table.ready(), [node_id(2)]);
    table.cut_off.insert(node_id(2));
    table.feed(node_id(0), Input::Left(node_id(2)));
    table.pass(Duration::from_secs(10));
    assert_eq!(table.failure(), Some(&SessionError::NotTaken));
}

#[test]
fn a_piece_meant_for_nobody_who_is_here_is_refused() {
    let mut table = Table::new(&[ASKER, provider(10_000_000)]);
    let plan = Plan::from_cuts(12, &[]).expect("one piece");
    table.open(0, Planning::Placed(plan, vec![node_id(7)]));
    table.pass(Duration::from_secs(10));
    assert_eq!(table.failure(), Some(&SessionError::NoProvider));
    assert_eq!(table.held(), [0, 0]);
}

#[test]
fn providers_that_come_late_are_found() {
    let mut table = Table::new(&[ASKER, provider(10_000_000)]);
    table.cut_off.insert(node_id(1));
    table.feed(node_id(0), Input::Left(node_id(1)));
    table.open(0, throughput());
    assert!(table.ready().is_empty());
    table.cut_off.clear();
    // The next periodic advert.
    table.pass(Duration::from_secs(6));
    assert_eq!(table.ready(), [node_id(1)]);
}
