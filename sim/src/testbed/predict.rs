//! The same run in the simulator: the same boards, links, model and places, and virtual time.
//!
//! The nodes of the simulated world are the protocol's own, as everywhere in it, but each takes
//! only the pieces that it had on the testbed. So what differs is what the simulator models: links
//! as pipes, processors as queues, and compute times as work over speed.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use starling_protocol::{
    NodeId,
    model::{ModelProfile, Speed},
    node::{Config, Offering},
    plan::{LayerRange, Piece, Plan},
    session::Planning,
};

use super::{
    cgroup::quota,
    log::{Placed, SessionLog},
    measure::{Measured, percentile},
    profile::model_profile,
    scenario::{Scenario, Session},
};
use crate::{
    lanes::Lane,
    network,
    world::{Settings, Stuck, World},
};

/// What the simulator says of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Where the boards' speeds are from: what each did alone, or what each says of itself.
    pub speeds: Speeds,
    /// Outputs a second of all sessions together.
    pub per_s: f64,
    /// By session.
    pub sessions: Vec<PredictedSession>,
}

/// Where speeds are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speeds {
    /// The calibration of each node.
    Calibrated,
    /// The same, corrected by what each board took for the whole model alone.
    Measured,
}

/// What the simulator says of a session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PredictedSession {
    /// Its name.
    pub name: String,
    /// What comes of it.
    #[serde(flatten)]
    pub rates: Rates,
    /// The same on processors that are slow evenly, as real boards' are: an emulated one that
    /// waited computes at full speed until its quota is used up.
    pub evenly: Rates,
}

/// What comes of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Outputs a second.
    pub per_s: f64,
    /// The median latency.
    pub latency_p50_ms: f64,
}

/// How a processor is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slowness {
    /// It stands still for a part of each period.
    Rationed,
    Even,
}

/// Runs the scenario once more, in virtual time. The error says why that makes no sense.
pub(super) fn predict(scenario: &Scenario, measured: &Measured) -> Result<Prediction, String> {
    if !scenario.events.is_empty() {
        return Err("things happened to the machines".to_owned());
    }
    if scenario.sessions.iter().any(|session| session.at_s > 0.0) {
        return Err("sessions opened at different times".to_owned());
    }
    let profile = model_profile(&measured.profile).ok_or("the model's profile makes no sense")?;
    let corrected = (0..scenario.boards.len()).all(|board| measured.alone_per_s(board).is_some());
    let speeds = if corrected { Speeds::Measured } else { Speeds::Calibrated };
    let rates = |slowness| {
        let mut play = Play::new(scenario, measured, &profile, (speeds, slowness))?;
        play.run().map_err(|stuck| format!("the simulated sessions did not get ready: {stuck}"))?;
        if play.world.ledger().has_failures() {
            return Err("a simulated session found no places".to_owned());
        }
        Ok(play.rates())
    };
    let (rationed, even) = (rates(Slowness::Rationed)?, rates(Slowness::Even)?);
    let per_s = rationed.iter().map(|rates| rates.per_s).sum();
    let sessions = scenario.sessions.iter().zip(rationed.into_iter().zip(even));
    let session = |(session, (rates, evenly)): (&Session, (Rates, Rates))| PredictedSession {
        name: session.name.clone(),
        rates,
        evenly,
    };
    Ok(Prediction { speeds, per_s, sessions: sessions.map(session).collect() })
}

/// A simulated world under way.
struct Play<'a> {
    scenario: &'a Scenario,
    world: World,
    plans: Vec<Vec<LanePlan>>,
    /// The streams' numbers in the world, by session.
    streams: Vec<usize>,
    profile: &'a ModelProfile,
    span: Duration,
}

impl<'a> Play<'a> {
    fn new(
        scenario: &'a Scenario,
        measured: &Measured,
        profile: &'a ModelProfile,
        (speeds, slowness): (Speeds, Slowness),
    ) -> Result<Self, String> {
        let links = network::Config {
            latency_min: LATENCY,
            latency_max: LATENCY,
            ..network::Config::default()
        };
        let mut world = World::new(0, Settings { network: links, ..Settings::default() });
        let plans = placement(scenario, measured, profile.layers())?;
        let core_s = measured.served.map(|served| served.core_s_per_byte);
        for (board, node) in measured.nodes.iter().enumerate() {
            let speed = speed(&node.speed).ok_or("a board has no speed")?;
            let speed = match measured.alone_per_s(board).filter(|_| speeds == Speeds::Measured) {
                Some(per_s) => fitted(&speed, profile, per_s),
                None => speed,
            };
            let mut config = Config::new(board_id(board), speed, 1);
            config.bandwidth = bytes_per_s(scenario, board);
            config.book.memory = MEMORY;
            config.book.slots = SLOTS;
            let place = world.add(config);
            let Some(cores) = scenario.boards[board].cores() else { continue };
            if let Some(core_s) = core_s {
                world.charge_for_bytes(place, core_s / cores);
            }
            if cores < 1.0 && slowness == Slowness::Rationed {
                let (_, period_us) = quota(cores);
                world.ration(place, cores, Duration::from_micros(period_us));
            }
        }
        for (number, session) in scenario.sessions.iter().enumerate() {
            let mut config = Config::new(requester_id(number), Speed::default(), 1);
            config.offering = Offering::Nobody;
            config.bandwidth = bytes_per_s(scenario, scenario.machine_of(session));
            world.add(config);
        }
        Ok(Self { scenario, world, plans, streams: Vec::new(), profile, span: Duration::ZERO })
    }

    fn run(&mut self) -> Result<(), Stuck> {
        let boards = self.scenario.boards.len();
        let introduced = |world: &World| {
            let mut requesters = world.nodes().filter(|(place, _)| *place >= boards);
            let knows = |node: &starling_protocol::node::Node| {
                (0..boards).all(|board| node.flock().node(&board_id(board)).is_some())
            };
            requesters.all(|(_, node)| knows(node))
        };
        self.world.run_until(PATIENCE, introduced)?;
        for (number, lanes) in self.plans.iter().enumerate() {
            for (lane, one) in (0..).zip(lanes) {
                let planning = Planning::Placed(one.plan.clone(), one.providers.clone());
                self.world.open(boards + number, lane, self.profile.clone(), planning);
            }
        }
        self.world.run_until(PATIENCE, World::all_ready)?;
        for (number, session) in self.scenario.sessions.iter().enumerate() {
            let lanes = (0..).zip(&self.plans[number]).map(|(session, one)| Lane {
                session,
                pieces: one.plan.pieces().len(),
                seconds: one.seconds,
            });
            let (lanes, wanted) =
                (lanes.collect::<Vec<_>>(), session.in_flight.map_or(0, usize::from));
            self.streams.push(self.world.stream_lanes(boards + number, &lanes, wanted));
        }
        self.let_run(WARM_UP)?;
        self.world.observe_afresh();
        self.span = OBSERVED;
        self.let_run(OBSERVED)
    }

    /// Time goes by, in which requests come at the rates of the scenario.
    fn let_run(&mut self, span: Duration) -> Result<(), Stuck> {
        let mut arrivals: Vec<(f64, usize)> = Vec::new();
        for (number, session) in self.scenario.sessions.iter().enumerate() {
            let Some(rate) = session.rate_per_s else { continue };
            let count = (span.as_secs_f64() * rate) as u32;
            arrivals.extend((0..count).map(|n| (f64::from(n) / rate, self.streams[number])));
        }
        arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
        let began = self.world.now();
        for (at_s, stream) in arrivals {
            let due = Duration::from_secs_f64(at_s);
            self.world.run_for(due.saturating_sub(self.world.now().since(began)))?;
            self.world.ask_lanes(stream);
        }
        self.world.run_for(span.saturating_sub(self.world.now().since(began)))
    }

    /// What came of each session.
    fn rates(&self) -> Vec<Rates> {
        let rates = |number: usize| {
            let observed = self.world.observed().sessions.iter();
            let own = observed.filter(|(id, _)| id.requester == requester_id(number));
            let responses: Vec<f64> =
                own.flat_map(|(_, served)| &served.responses).copied().collect();
            Rates {
                per_s: responses.len() as f64 / self.span.as_secs_f64(),
                latency_p50_ms: percentile(&responses, 0.5).unwrap_or(0.0) * 1e3,
            }
        };
        (0..self.scenario.sessions.len()).map(rates).collect()
    }
}

/// One plan of those that served a session side by side.
struct LanePlan {
    plan: Plan,
    /// By piece.
    providers: Vec<NodeId>,
    /// Seconds between two outputs, as its agreement predicted.
    seconds: f64,
}

/// The plans in which each session ended.
fn placement(
    scenario: &Scenario,
    measured: &Measured,
    layers: u16,
) -> Result<Vec<Vec<LanePlan>>, String> {
    let session = |(number, log): (usize, &SessionLog)| {
        let name = &scenario.sessions[number].name;
        let pieces = log.plans.last().ok_or_else(|| format!("{name} had no plan"))?;
        let lane = |pieces: &[Placed]| {
            let plan = plan_of(pieces, layers);
            let plan = plan.ok_or_else(|| format!("the plan of {name} makes no sense"))?;
            let board = |piece: &Placed| measured.board_of(&piece.provider).map(board_id);
            let providers: Option<Vec<NodeId>> = pieces.iter().map(board).collect();
            let providers = providers.ok_or_else(|| format!("a piece of {name} is on no board"))?;
            let seconds = pieces.iter().map(|piece| piece.predicted_ms / 1e3).fold(0.0, f64::max);
            Ok(LanePlan { plan, providers, seconds })
        };
        pieces.chunk_by(|a, b| a.lane == b.lane).map(lane).collect()
    };
    measured.sessions.iter().enumerate().map(session).collect()
}

/// The plan that these pieces are: segments one after the other, each of one piece or of strips.
fn plan_of(pieces: &[Placed], layers: u16) -> Option<Plan> {
    let range = |piece: &Placed| LayerRange { first: piece.first, end: piece.end };
    let segment = |pieces: &[Placed]| -> Vec<Piece> {
        let pieces = pieces.iter();
        pieces.map(|piece| Piece { layers: range(piece), rows: piece.rows.clone() }).collect()
    };
    let segments = pieces.chunk_by(|a, b| range(a) == range(b) && !a.rows.is_empty());
    let plan = Plan::from_segments(segments.map(segment).collect())?;
    plan.pieces().last().is_some_and(|last| last.layers.end == layers).then_some(plan)
}

/// Whole models a second at a speed that a board claims.
pub(super) fn claimed_per_s(inspected: &Value, classes: &[u64]) -> Option<f64> {
    let (profile, speed) = (model_profile(inspected)?, speed(classes)?);
    let whole = profile.range(LayerRange { first: 0, end: profile.layers() });
    Some(1.0 / speed.seconds(&whole.work))
}

fn speed(classes: &[u64]) -> Option<Speed> {
    Some(Speed(classes.try_into().ok()?))
}

/// The speed at which the whole model takes as long as it did.
fn fitted(speed: &Speed, profile: &ModelProfile, per_s: f64) -> Speed {
    let whole = profile.range(LayerRange { first: 0, end: profile.layers() });
    let factor = speed.seconds(&whole.work) * per_s;
    Speed(speed.0.map(|units| ((units as f64 * factor) as u64).max(1)))
}

fn bytes_per_s(scenario: &Scenario, machine: usize) -> u64 {
    (scenario.machines()[machine].limits.link_mbit * 1e6 / 8.0) as u64
}

fn board_id(board: usize) -> NodeId {
    node_id(1, board)
}

fn requester_id(session: usize) -> NodeId {
    node_id(2, session)
}

fn node_id(kind: u8, number: usize) -> NodeId {
    let mut id = [0; 32];
    id[0] = kind;
    id[1..9].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

/// Of one cable and a switch between two processes of one machine.
const LATENCY: Duration = Duration::from_micros(200);
/// Room for everything: on the testbed memory and slots had their say already.
const MEMORY: u64 = 1 << 50;
const SLOTS: u16 = 1024;
const PATIENCE: Duration = Duration::from_secs(120);
/// Virtual time costs little.
const WARM_UP: Duration = Duration::from_secs(60);
const OBSERVED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;
    use starling_protocol::{model::OP_CLASSES, rows::RowRange};

    use super::*;
    use crate::testbed::{log::NodeLog, measure::Served, net::Traffic};

    fn scenario(session: &str) -> Scenario {
        let text = format!(
            r#"
            about = "Two boards."
            model = {{ file = "m.onnx", image = "cat.jpg" }}
            board = [
                {{ name = "a", cores = 1, memory_mib = 100, link_mbit = 80 }},
                {{ name = "b", cores = 1, memory_mib = 100, link_mbit = 80 }},
            ]
            session = [{{ name = "s", count = 10, {session} }}]
            "#
        );
        Scenario::parse(&text).expect("it makes sense")
    }

    /// Two layers of 10 ms on two boards, over links on which a tensor takes 1 ms.
    fn measured(alone: Option<f64>) -> Measured {
        let node = |id: &str| NodeLog {
            id: id.to_owned(),
            speed: vec![1000; OP_CLASSES],
            ..NodeLog::default()
        };
        let piece = |first, end, provider: &str| Placed {
            lane: 0,
            first,
            end,
            rows: Vec::new(),
            provider: provider.to_owned(),
            predicted_ms: 0.0,
            share: 1.0,
        };
        let plans = vec![vec![piece(0, 1, "n1"), piece(1, 2, "n0")]];
        let layer = json!({"work": [10, 0, 0, 0, 0], "weight_bytes": 5});
        Measured {
            zero: Instant::now(),
            seconds: 1.0,
            discovery_s: 1.0,
            alone: vec![alone; 2],
            alone_again: vec![None; 2],
            served: None,
            nodes: vec![node("n0"), node("n1")],
            sessions: vec![SessionLog { plans, ..SessionLog::default() }],
            traffic: vec![Traffic::default(); 3],
            granted: vec![1.0; 2],
            memory: vec![None; 2],
            own_memory: vec![None; 2],
            samples: Vec::new(),
            happened: Vec::new(),
            idle: None,
            profile: json!({"layers": [layer, layer], "cut_bytes_sent": [10_000, 10_000, 10_000]}),
        }
    }

    fn check(session: &str, alone: Option<f64>, per_s: f64, latency_ms: f64) {
        let prediction = predict(&scenario(session), &measured(alone)).expect("it can be told");
        let got = (prediction.per_s, prediction.sessions[0].rates.latency_p50_ms);
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.02;
        assert!(near(got.0, per_s) && near(got.1, latency_ms), "{session}: {got:?}");
    }

    #[test]
    fn two_boards_in_a_row_are_a_pipeline() {
        // 20 ms of compute, three tensors of 1 ms, and three times the latency.
        check("in_flight = 1", None, 1000.0 / 23.6, 23.6);
        // The slower of all steps is what counts, and the rest is waiting.
        check("in_flight = 5", None, 100.0, 50.0);
        check("rate_per_s = 10", None, 10.0, 23.6);
        // Each board was seen to take 40 ms for both layers, and not 20.
        check("in_flight = 1", Some(25.0), 1000.0 / 43.6, 43.6);
    }

    #[test]
    fn lanes_serve_side_by_side() {
        let mut measured = measured(None);
        for (lane, piece) in (0..).zip(&mut measured.sessions[0].plans[0]) {
            *piece = Placed { lane, first: 0, end: 2, predicted_ms: 20.0, ..piece.clone() };
        }
        let per_s = |in_flight: u32| {
            let scenario = scenario(&format!("in_flight = {in_flight}"));
            predict(&scenario, &measured).expect("it can be told").per_s
        };
        // 20 ms of compute on each, and two tensors of 1 ms.
        assert!((per_s(1) - 1000.0 / 22.4).abs() < 1.0, "{}", per_s(1));
        assert!((per_s(6) - 100.0).abs() < 1.0, "{}", per_s(6));
        // One more waits for a place.
        assert!((per_s(7) - 100.0).abs() < 1.0, "{}", per_s(7));
    }

    /// In two strips, and layer by layer as well if so.
    fn in_strips(measured: &mut Measured, layer_by_layer: bool) {
        let layer = |from: u32| {
            json!({"inputs": [from], "outputs": [from + 1], "rules": ["same"], "view": false,
                "row_weight_bytes": 0})
        };
        let tensor = json!({"height": 10, "row_bytes_sent": 1000});
        measured.profile["rows"] = json!({"tensors": [tensor, tensor, tensor],
            "layers": [layer(0), layer(1)], "frontiers": [[0], [1], [2]]});
        let any = measured.sessions[0].plans[0][0].clone();
        let ranges: &[(u16, u16)] = if layer_by_layer { &[(0, 1), (1, 2)] } else { &[(0, 2)] };
        let strips = ranges.iter().flat_map(|(first, end)| {
            [0, 1].map(|at| Placed {
                first: *first,
                end: *end,
                rows: vec![RowRange::new(5 * at, 5 * at + 5)],
                provider: format!("n{at}"),
                ..any.clone()
            })
        });
        measured.sessions[0].plans[0] = strips.collect();
    }

    #[test]
    fn strips_work_at_the_same_time() {
        let mut measured = measured(None);
        in_strips(&mut measured, false);
        let prediction = predict(&scenario("in_flight = 1"), &measured).expect("it can be told");
        // 10 ms of compute, and two halves of two tensors of 1 ms, side by side but at the requester.
        let latency = prediction.sessions[0].rates.latency_p50_ms;
        assert!((latency - 12.0).abs() < 0.8, "{latency}");
    }

    #[test]
    fn what_stays_on_a_board_costs_it_no_time() {
        let check = |layer_by_layer, latency_ms: f64| {
            let mut measured = measured(Some(50.0));
            measured.served = Some(Served { board: 0, per_s: 45.0, core_s_per_byte: 2e-7 });
            in_strips(&mut measured, layer_by_layer);
            let prediction = predict(&scenario("in_flight = 1"), &measured);
            let latency = prediction.expect("it can be told").sessions[0].rates.latency_p50_ms;
            assert!((latency - latency_ms).abs() < 0.8, "{layer_by_layer}: {latency}");
        };
        // As above, and 2 ms for the bytes of half of the input and half of the output.
        check(false, 14.0);
        check(true, 14.0);
    }

    #[test]
    fn a_board_takes_as_many_pieces_as_it_had() {
        let mut measured = measured(None);
        let layer = json!({"work": [1, 0, 0, 0, 0], "weight_bytes": 5});
        measured.profile = json!({"layers": vec![layer; 40], "cut_bytes_sent": vec![10_000; 41]});
        let any = measured.sessions[0].plans[0][0].clone();
        let piece = |at: u16| Placed {
            first: at,
            end: at + 1,
            provider: format!("n{}", at % 2),
            ..any.clone()
        };
        measured.sessions[0].plans[0] = (0..40).map(piece).collect();
        let prediction = predict(&scenario("in_flight = 1"), &measured).expect("it can be told");
        // 40 ms of compute, and 41 tensors of 1 ms and their latency.
        let latency = prediction.sessions[0].rates.latency_p50_ms;
        assert!((latency - 89.2).abs() < 1.0, "{latency}");
    }

    #[test]
    fn a_board_that_waited_has_its_quota_at_once() {
        let mut scenario = scenario("rate_per_s = 10");
        for board in &mut scenario.boards {
            board.cores = Some(0.5);
        }
        let prediction = predict(&scenario, &measured(None)).expect("it can be told");
        // Of 10 ms on each board it takes 5, and what the period leaves of the rest.
        let latency = prediction.sessions[0].rates.latency_p50_ms;
        assert!((13.6..23.6).contains(&latency), "{latency}");
        let evenly = prediction.sessions[0].evenly;
        assert!((evenly.latency_p50_ms - 23.6).abs() < 0.5, "{evenly:?}");
    }

    #[test]
    fn bytes_cost_the_processors_time() {
        let scenario = scenario("in_flight = 5");
        let mut measured = measured(Some(50.0));
        // 20 ms of compute, and 2 ms for 20,000 bytes.
        measured.served = Some(Served { board: 0, per_s: 45.0, core_s_per_byte: 1e-7 });
        let prediction = predict(&scenario, &measured).expect("it can be told");
        assert!((prediction.per_s - 1000.0 / 12.0).abs() < 1.0, "{}", prediction.per_s);
    }

    #[test]
    fn what_can_not_be_foreseen_is_not() {
        let mut broken = scenario("in_flight = 1");
        broken.sessions[0].at_s = 1.0;
        assert!(predict(&broken, &measured(None)).is_err());
        let mut nowhere = measured(None);
        nowhere.sessions[0].plans[0][0].provider = "n7".to_owned();
        let error = predict(&scenario("in_flight = 1"), &nowhere).expect_err("it is nowhere");
        assert_eq!(error, "a piece of s is on no board");
        // More weights than the largest of machines has room for.
        let mut huge = measured(None);
        huge.profile["layers"][0]["weight_bytes"] = json!(MEMORY + 1);
        let error = predict(&scenario("in_flight = 1"), &huge).expect_err("it fits nowhere");
        assert!(error.starts_with("a simulated session found no places"), "{error}");
    }
}
