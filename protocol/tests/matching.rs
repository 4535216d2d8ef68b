//! DINA-O between whole nodes: it ends, everyone has a place, strips side by side are apart, and no
//! two pieces that could exchange their places still want to.

use std::time::Duration;

use quickcheck::{Arbitrary, Gen, QuickCheck};
use starling_protocol::{
    ModelId, NodeId, cost,
    market::Pair,
    model::{LayerProfile, ModelProfile, PieceProfile, Speed, Work},
    node::{Command, Config, Event, Input, Offering},
    plan::Plan,
    session::Planning,
    testing::{Entry, Table, node_id},
    wire::{ExchangeStage, Message},
};

/// Speeds of the providers by op class, in MFLOP/s, and the work of each session's pieces.
#[derive(Clone, Debug)]
struct Game {
    speeds: Vec<[u64; 2]>,
    sessions: Vec<Vec<[u64; 2]>>,
    slots: u16,
}

impl Arbitrary for Game {
    fn arbitrary(g: &mut Gen) -> Self {
        let pair = |g: &mut Gen| [(); 2].map(|()| 2 + u64::arbitrary(g) % 60);
        let pieces = |g: &mut Gen| (0..1 + u8::arbitrary(g) % 3).map(|_| pair(g)).collect();
        let sessions: Vec<Vec<_>> = (0..1 + u8::arbitrary(g) % 4).map(|_| pieces(g)).collect();
        let all: usize = sessions.iter().map(Vec::len).sum();
        let speeds: Vec<_> = (0..1 + u8::arbitrary(g) % 5).map(|_| pair(g)).collect();
        // Room for all, and as often as not for no more.
        let least = all.div_ceil(speeds.len()) as u16;
        Self { speeds, sessions, slots: least + u16::from(u8::arbitrary(g) % 2) }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let game = self.clone();
        let most = if self.sessions.len() > 1 { self.sessions.len() } else { 0 };
        Box::new((0..most).map(move |at| {
            let mut sessions = game.sessions.clone();
            sessions.remove(at);
            Self { sessions, ..game.clone() }
        }))
    }
}

impl Game {
    fn speed(&self, provider: usize) -> Speed {
        let [dense, pointwise] = self.speeds[provider].map(|speed| speed * 1_000_000);
        Speed([dense, pointwise, 1, 1, 1])
    }

    fn model(&self, session: usize) -> ModelProfile {
        let layer = |[dense, pointwise]: &[u64; 2]| LayerProfile {
            work: Work([dense * 100_000, pointwise * 100_000, 0, 0, 0]),
            weight_bytes: 1000,
        };
        let layers: Vec<LayerProfile> = self.sessions[session].iter().map(layer).collect();
        let model = ModelId([session as u8; 32]);
        ModelProfile::new(model, &layers, vec![100; layers.len() + 1]).expect("a good profile")
    }

    /// Providers come first. All sessions open at once, each piece a layer.
    fn played(&self) -> Table {
        let mut table = Table::new(Duration::from_millis(50));
        for provider in 0..self.speeds.len() {
            let mut config = Config::new(node_id(provider), self.speed(provider), 1_000_000);
            config.bandwidth = BANDWIDTH;
            config.book.slots = self.slots;
            table.join(config, self.speed(provider));
        }
        for session in 0..self.sessions.len() {
            let id = self.requester(session);
            let mut config = Config::new(id, Speed::default(), 1_000_000);
            config.offering = Offering::Nobody;
            table.join(config, Speed::default());
        }
        table.pass(Duration::from_millis(300));
        for session in 0..self.sessions.len() {
            let profile = self.model(session);
            let cuts: Vec<u16> = (1..profile.layers()).collect();
            let plan = Plan::from_cuts(profile.layers(), &cuts).expect("a layer each");
            let open = Command::Open { session: 1, profile, planning: Planning::Matched(plan) };
            table.feed(self.requester(session), Input::Command(open));
        }
        table.pass(Duration::from_secs(20));
        table
    }

    fn requester(&self, session: usize) -> NodeId {
        node_id(self.speeds.len() + session)
    }

    /// The pieces of all sessions and the provider of each, by number.
    fn matching(&self, table: &Table) -> Vec<(PieceProfile, usize)> {
        let place = |id: NodeId| (0..self.speeds.len()).find(|at| node_id(*at) == id);
        let mut matching = Vec::new();
        for (number, pieces) in self.sessions.iter().enumerate() {
            let node = table.node(&self.requester(number)).expect("a node");
            let session = node.session(1).expect("it is open");
            let profiles = session.pieces().expect("it has a plan");
            assert_eq!(profiles.len(), pieces.len());
            for (index, profile) in (0..).zip(profiles) {
                let (provider, _) = session.assigned(index).expect("it has a place");
                matching.push((profile, place(provider).expect("a provider")));
            }
        }
        matching
    }

    fn blocks(&self, matching: &[(PieceProfile, usize)], one: usize, other: usize) -> bool {
        let rate = |piece: usize, at: usize| {
            let speed = self.speed(at);
            let bandwidth = BANDWIDTH as f64;
            let provider =
                cost::Provider { speed, bandwidth, byte_seconds: 0.0, memory_free: u64::MAX };
            cost::log_rate(&matching[piece].0, &provider).expect("feasible")
        };
        let (here, there) = (matching[one].1, matching[other].1);
        let held = |at: usize| matching.iter().filter(|(_, place)| *place == at).count();
        let pair = Pair {
            one: [rate(one, here), rate(one, there)],
            other: [rate(other, there), rate(other, here)],
            holders: [held(here), held(there)],
        };
        here != there && pair.blocks()
    }
}

fn exchanges(table: &mut Table) -> usize {
    let agreed = |entry: &Entry| {
        matches!(
            entry,
            Entry::Message { message: Message::Exchange(exchange), .. }
                if exchange.stage == ExchangeStage::Agreed
        )
    };
    table.take_log().iter().filter(|(_, entry)| agreed(entry)).count()
}

#[test]
fn what_two_requesters_prefer_they_exchange() {
    // Each piece is best where the other is put first: by the provider that likes it better.
    let game = Game {
        speeds: vec![[40, 20], [20, 40]],
        sessions: vec![vec![[30, 3]], vec![[3, 30]]],
        slots: 1,
    };
    let table = game.played();
    let places: Vec<usize> = game.matching(&table).iter().map(|(_, at)| *at).collect();
    assert_eq!(places, [0, 1]);
}

#[test]
fn no_two_pieces_want_to_exchange_in_the_end() {
    #[expect(clippy::needless_pass_by_value, reason = "what quickcheck calls takes values")]
    fn stable(game: Game) -> Result<bool, String> {
        let table = game.played();
        for session in 0..game.sessions.len() {
            let node = table.node(&game.requester(session)).expect("a node");
            if node.session(1).is_none_or(|session| session.assigned(0).is_none()) {
                return Err(format!("session {session} has no places"));
            }
        }
        let matching = game.matching(&table);
        let pairs = (0..matching.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
        match pairs.into_iter().find(|(a, b)| game.blocks(&matching, *a, *b)) {
            Some(pair) => Err(format!("pieces {pair:?} want to exchange: {matching:?}")),
            None => Ok(true),
        }
    }
    QuickCheck::new().tests(300).quickcheck(stable as fn(Game) -> Result<bool, String>);
}

#[test]
fn exchanges_between_requesters_happen() {
    let mut gen_ = Gen::from_size_and_seed(20, 7);
    let games = (0..200).map(|_| Game::arbitrary(&mut gen_));
    let agreed: usize = games.map(|game| exchanges(&mut game.played())).sum();
    assert!(agreed > 0, "no game needed any: the property above tests less than it says");
}

#[test]
fn a_matched_session_is_ready_and_stays_where_it_is() {
    let game = Game {
        speeds: vec![[40, 20], [20, 40], [10, 10]],
        sessions: vec![vec![[30, 3], [3, 30], [9, 9]]],
        slots: 2,
    };
    let mut table = game.played();
    let ready = table.take_log();
    let ready = ready
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Event { event: Event::Ready { .. }, .. }));
    assert_eq!(ready.count(), 1);
    let before = game.matching(&table);
    table.pass(Duration::from_secs(60));
    assert_eq!(game.matching(&table), before);
}

const BANDWIDTH: u64 = 1_000_000_000;
