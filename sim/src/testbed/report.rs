//! What a run came to, as figures.

use std::collections::BTreeMap;

use serde::Serialize;
use starling_protocol::{cost, plan::LayerRange};

use super::{
    Prediction,
    boards::Limits,
    log::{Inference, SessionLog},
    measure::{Measured, percentile},
    predict, profile,
    scenario::Scenario,
};
use crate::{converge::Fairness, stats};

/// The figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the scenario is about.
    pub about: String,
    /// The model's file.
    pub model: String,
    /// From the first sessions' readiness to the last one's end.
    pub seconds: f64,
    /// Until every board knew every other.
    pub discovery_s: f64,
    /// All sessions together.
    pub flock: FlockReport,
    /// How equally things were shared: the pieces' runs, the boards' busy shares, and the pieces'
    /// times from a frame's arrival to its end.
    pub jain: Fairness,
    /// By session.
    pub sessions: Vec<SessionReport>,
    /// By board.
    pub boards: Vec<BoardReport>,
    /// What the simulator says.
    pub prediction: Option<Prediction>,
    /// What happened on the way: when, in seconds, and what.
    pub happened: Vec<(f64, String)>,
    /// What makes the figures mean less.
    pub warnings: Vec<String>,
    /// For the files: the inferences of each session.
    #[serde(skip)]
    pub(super) inferences: Vec<Vec<Row>>,
    /// For the files: when, and each board's busy share since the moment before.
    #[serde(skip)]
    pub(super) busy: Vec<(f64, Vec<f64>)>,
}

/// An inference, as the files have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) at_s: f64,
    pub(super) latency_ms: f64,
    pub(super) error: Option<f64>,
}

/// All sessions together, beside what could have been.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FlockReport {
    /// Outputs a second, from the first to the last.
    pub per_s: f64,
    /// Of the boards alone, if that was measured.
    pub alone: Option<Alone>,
    /// Inputs and outputs a second that the requesters' links carry; nothing where a requester
    /// sits on a board that computes, so that they need not go over any.
    pub links_per_s: Option<f64>,
    /// What no plan beats: all boards' own rates together, or the links if they carry less.
    pub bound_per_s: Option<f64>,
    /// The sessions' throughput in parts of that.
    pub of_bound: Option<f64>,
    /// Outputs a second after the last change of any plan; nothing where none changed.
    pub steady_per_s: Option<f64>,
}

/// The boards alone, each with the whole model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Alone {
    /// The fastest one's outputs a second.
    pub best_per_s: f64,
    /// Those of all together.
    pub sum_per_s: f64,
    /// The sessions' throughput over the best board's.
    pub speedup: f64,
    /// What one board gave a second that had the whole model over its link.
    pub served_per_s: Option<f64>,
    /// The core seconds that a byte cost it which came or went over its link.
    pub core_s_per_byte: Option<f64>,
    /// What all together did after the sessions over what they did before; the figures above are
    /// the means of both.
    pub drift: Option<f64>,
}

/// One session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionReport {
    /// Its name.
    pub name: String,
    /// How it plans; nothing where that was left to `starling`.
    pub planner: Option<String>,
    /// Outputs that came.
    pub inferences: usize,
    /// Outputs a second, from the first to the last.
    pub per_s: f64,
    /// From an inference's start to its output.
    pub latency_ms: Latency,
    /// Under its last plan, where it had others before.
    pub steady: Option<Steady>,
    /// The largest error of any output relative to the peak; nothing if none came.
    pub error_max: Option<f64>,
    /// Outputs that are further off than they may be.
    pub wrong: usize,
    /// Inferences that were dropped because too many waited.
    pub dropped: u64,
    /// Why it ended before its end.
    pub failed: Option<String>,
    /// Providers that it lost on the way, by board.
    pub lost: Vec<String>,
    /// How often its plan changed.
    pub plan_changes: usize,
    /// When it did so for the last time, in seconds from zero.
    pub planned_s: Option<f64>,
    /// Its pieces, in the places where they were last.
    pub pieces: Vec<PieceReport>,
    /// From its market messages to their answers while it streamed: 99 % took no longer, in
    /// milliseconds.
    pub market_p99_ms: Option<f64>,
    /// Bids, rounds and messages of its first auction.
    pub auction: Option<serde_json::Value>,
}

/// Half, 95 % and 99 % of all inferences took no longer, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them.
    pub p50: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
}

/// What a session came to after its plan had changed for the last time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Steady {
    /// Outputs a second, from the first to the last.
    pub per_s: f64,
    /// Half of its inferences took no longer, in milliseconds.
    pub latency_p50_ms: f64,
}

/// A piece of a plan, and where its time went: medians, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PieceReport {
    /// Which of the plans that serve side by side it belongs to.
    pub lane: u64,
    /// Its first layer and its last.
    pub layers: [u16; 2],
    /// Where it was.
    pub board: String,
    /// What the planner expected: transfers and compute, shared with the board's other pieces.
    pub predicted_ms: f64,
    /// Its part of the board's time among them.
    pub share: f64,
    /// From the first byte of its input to the last.
    pub network_ms: f64,
    /// Waiting for the processor.
    pub queue_ms: f64,
    /// On the processor.
    pub compute_ms: f64,
}

/// One board.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoardReport {
    /// Its name.
    pub name: String,
    /// What it may use.
    pub limits: Limits,
    /// Whole models a second, as its calibration says.
    pub claimed_per_s: Option<f64>,
    /// Whole models a second, alone.
    pub alone_per_s: Option<f64>,
    /// Pieces of all sessions that were there last.
    pub pieces: usize,
    /// The part of its quota that it used.
    pub busy: f64,
    /// Bytes over its link.
    pub sent_bytes: u64,
    /// Bytes over its link.
    pub received_bytes: u64,
    /// The most memory that it used, files that it had read included.
    pub memory_peak_bytes: Option<u64>,
    /// The most that its processes had for themselves, without files, since sessions opened.
    pub own_peak_bytes: Option<u64>,
    /// The most that its pieces held of that, weights and activations, as the engine counts.
    pub held_peak_bytes: u64,
}

impl Report {
    pub(super) fn new(scenario: &Scenario, measured: &Measured, warnings: Vec<String>) -> Self {
        let boards: Vec<BoardReport> =
            (0..scenario.boards.len()).map(|board| board_of(scenario, measured, board)).collect();
        let sessions = scenario.sessions.iter().zip(&measured.sessions);
        let sessions: Vec<SessionReport> = sessions
            .map(|(session, log)| {
                session_of(&session.name, session.planner.as_ref(), scenario, measured, log)
            })
            .collect();
        Self {
            about: scenario.about.clone(),
            model: scenario.model.file.display().to_string(),
            seconds: measured.seconds,
            discovery_s: measured.discovery_s,
            flock: flock(scenario, measured),
            jain: fairness(measured, &boards),
            sessions,
            boards,
            prediction: None,
            happened: measured.happened.clone(),
            warnings: warnings.into_iter().chain(crowded(measured)).collect(),
            inferences: measured.sessions.iter().map(|log| rows(measured, log)).collect(),
            busy: busy(scenario, measured),
        }
    }

    /// Whether every session came to its end, and every output was what it must be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let good = |session: &SessionReport| session.failed.is_none() && session.wrong == 0;
        self.sessions.iter().all(good)
    }
}

fn board_of(scenario: &Scenario, measured: &Measured, board: usize) -> BoardReport {
    let id = &measured.nodes[board].id;
    let last = measured.sessions.iter().filter_map(|log| log.plans.last());
    let traffic = measured.traffic[board];
    BoardReport {
        name: scenario.boards[board].name.clone(),
        limits: scenario.machines()[board].limits,
        claimed_per_s: predict::claimed_per_s(&measured.profile, &measured.nodes[board].speed),
        alone_per_s: measured.alone_per_s(board),
        pieces: last.flatten().filter(|piece| piece.provider == *id).count(),
        busy: measured.used(board) / measured.granted[board].max(f64::MIN_POSITIVE),
        sent_bytes: traffic.sent,
        received_bytes: traffic.received,
        memory_peak_bytes: measured.memory[board],
        own_peak_bytes: measured.own_memory[board],
        held_peak_bytes: measured.nodes[board].held_bytes,
    }
}

fn session_of(
    name: &str,
    planner: Option<&String>,
    scenario: &Scenario,
    measured: &Measured,
    log: &SessionLog,
) -> SessionReport {
    let board = |provider: &str| match measured.board_of(provider) {
        Some(board) => scenario.boards[board].name.clone(),
        None => provider.to_owned(),
    };
    let latencies: Vec<f64> = log.inferences.iter().map(|inference| inference.latency_ms).collect();
    let at = |share| percentile(&latencies, share).unwrap_or(0.0);
    let errors = || log.inferences.iter().map(|inference| inference.error);
    // An output that nobody could look at is no right one.
    let wrong = errors().filter(|error| error.is_none_or(|error| error > ERROR_MAX)).count();
    let pieces = log.plans.last().map_or(&[][..], Vec::as_slice).iter().zip(0..);
    let pieces = pieces.map(|(piece, index)| {
        let median = |field: fn(&super::log::PieceTime) -> f64| {
            let same = log.inferences.iter().flat_map(|inference| &inference.pieces);
            let same = same.filter(|time| time.piece == index && time.provider == piece.provider);
            stats::median(&same.map(field).collect::<Vec<f64>>()).unwrap_or(0.0)
        };
        PieceReport {
            lane: piece.lane,
            layers: [piece.first, piece.end - 1],
            board: board(&piece.provider),
            predicted_ms: piece.predicted_ms,
            share: piece.share,
            network_ms: median(|time| time.network_ms),
            queue_ms: median(|time| time.queue_ms),
            compute_ms: median(|time| time.compute_ms),
        }
    });
    let report = log.report.as_ref();
    SessionReport {
        name: name.to_owned(),
        planner: planner.cloned(),
        inferences: log.inferences.len(),
        per_s: rate(log.inferences.iter()),
        latency_ms: Latency { p50: at(0.5), p95: at(0.95), p99: at(0.99) },
        steady: log.steady().map(|steady| {
            let latencies: Vec<f64> = steady.iter().map(|inference| inference.latency_ms).collect();
            let latency_p50_ms = percentile(&latencies, 0.5).unwrap_or(0.0);
            Steady { per_s: rate(steady.iter()), latency_p50_ms }
        }),
        error_max: errors()
            .flatten()
            .fold(None, |worst, error| Some(error.max(worst.unwrap_or(0.0)))),
        wrong,
        dropped: report.and_then(|report| report["dropped"].as_u64()).unwrap_or(0),
        failed: log.failed.clone(),
        lost: log.lost.iter().map(|provider| board(provider)).collect(),
        plan_changes: log.plans.len().saturating_sub(1),
        planned_s: log.planned.map(|at| measured.at_s(at)),
        pieces: pieces.collect(),
        market_p99_ms: report.and_then(|report| report["market_round_trip_ms"]["p99"].as_f64()),
        auction: log.auction.clone(),
    }
}

/// Outputs a second of all sessions from when the last of their plans had changed.
fn steady(measured: &Measured) -> Option<f64> {
    let began = measured.sessions.iter().filter_map(|log| Some(log.steady()?.first()?.at)).max()?;
    let all = measured.sessions.iter().flat_map(|log| &log.inferences);
    Some(rate(all.filter(|inference| inference.at >= began)))
}

fn flock(scenario: &Scenario, measured: &Measured) -> FlockReport {
    let per_s = rate(measured.sessions.iter().flat_map(|log| &log.inferences));
    let rates: Vec<f64> =
        (0..measured.alone.len()).filter_map(|board| measured.alone_per_s(board)).collect();
    let best = rates.iter().copied().fold(0.0, f64::max);
    let alone = (best > 0.0).then(|| Alone {
        best_per_s: best,
        sum_per_s: rates.iter().sum(),
        speedup: per_s / best,
        served_per_s: measured.served.map(|served| served.per_s),
        core_s_per_byte: measured.served.map(|served| served.core_s_per_byte),
        drift: measured.drift(),
    });
    let links_per_s = links(scenario, measured);
    let bound = alone.map(|alone| alone.sum_per_s.min(links_per_s.unwrap_or(f64::INFINITY)));
    FlockReport {
        per_s,
        alone,
        links_per_s,
        bound_per_s: bound,
        of_bound: bound.map(|bound| per_s / bound),
        steady_per_s: steady(measured),
    }
}

/// What the links of requesters that don't compute carry, in inferences a second.
fn links(scenario: &Scenario, measured: &Measured) -> Option<f64> {
    let profile = profile::model_profile(&measured.profile)?;
    let whole = profile.range(LayerRange { first: 0, end: profile.layers() });
    let bytes = whole.bytes_in.max(whole.bytes_out).max(1) as f64;
    let of = |session| {
        let machine = scenario.machine_of(session);
        let mbit = scenario.machines()[machine].limits.link_mbit;
        session.on.is_none().then_some(mbit * 1e6 / 8.0 / bytes)
    };
    scenario.sessions.iter().map(of).sum()
}

fn fairness(measured: &Measured, boards: &[BoardReport]) -> Fairness {
    // By session and piece: how often it ran, and the milliseconds of all its runs together.
    let mut pieces: BTreeMap<(usize, u64), (f64, f64)> = BTreeMap::new();
    for (session, log) in measured.sessions.iter().enumerate() {
        for time in log.inferences.iter().flat_map(|inference| &inference.pieces) {
            let (runs, millis) = pieces.entry((session, time.piece)).or_default();
            *runs += 1.0;
            *millis += time.queue_ms + time.compute_ms;
        }
    }
    let runs: Vec<f64> = pieces.values().map(|(runs, _)| *runs).collect();
    let times: Vec<f64> = pieces.values().map(|(runs, millis)| millis / runs).collect();
    let busy: Vec<f64> = boards.iter().map(|board| board.busy).collect();
    Fairness {
        pieces: cost::jain(&runs),
        busy: cost::jain(&busy),
        inference_time: cost::jain(&times),
    }
}

fn rows(measured: &Measured, log: &SessionLog) -> Vec<Row> {
    let row = |inference: &Inference| Row {
        at_s: measured.at_s(inference.at),
        latency_ms: inference.latency_ms,
        error: inference.error,
    };
    log.inferences.iter().map(row).collect()
}

/// Says so if other programs wanted more of the processors than there was. Boards come before them,
/// but share caches, and a processor has to be taken away from somebody first.
fn crowded(measured: &Measured) -> Option<String> {
    let idle = measured.idle?;
    (idle < IDLE_MIN).then(|| {
        format!(
            "this machine's processors were idle for {:.0} % of the time only: other programs have \
             disturbed the boards",
            idle * 100.0
        )
    })
}

/// Each board's share of the quota that it began with.
fn busy(scenario: &Scenario, measured: &Measured) -> Vec<(f64, Vec<f64>)> {
    let machines = scenario.machines();
    let pairs = measured.samples.windows(2).map(|pair| {
        let seconds = (pair[1].at_s - pair[0].at_s).max(f64::MIN_POSITIVE);
        let used = pair[1].used.iter().zip(&pair[0].used).zip(&machines);
        let share = used.map(|((after, before), machine)| {
            (after - before) / seconds / machine.limits.cores.unwrap_or(1.0)
        });
        (pair[1].at_s, share.collect())
    });
    pairs.collect()
}

/// Outputs a second, from the first to the last of them: what comes before the first is the
/// filling of a pipeline, not its rate.
fn rate<'a>(inferences: impl Iterator<Item = &'a Inference>) -> f64 {
    let mut ends: Vec<_> = inferences.map(|inference| inference.at).collect();
    ends.sort();
    let (Some(first), Some(last)) = (ends.first(), ends.last()) else { return 0.0 };
    let span = last.duration_since(*first).as_secs_f64();
    if span > 0.0 { (ends.len() - 1) as f64 / span } else { 0.0 }
}

/// With less of the processors idle, boards wait for other programs.
const IDLE_MIN: f64 = 0.1;
/// What an output may differ from that of a local run, in parts of its peak.
const ERROR_MAX: f64 = 1e-4;

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;
    use crate::testbed::{
        log::{NodeLog, PieceTime, Placed},
        measure::{Sample, Served},
        net::Traffic,
    };

    fn scenario() -> Scenario {
        let text = r#"
            about = "Two boards."
            model = { file = "m.onnx", image = "cat.jpg" }
            board = [
                { name = "a", cores = 0.5, memory_mib = 100, link_mbit = 80 },
                { name = "b", cores = 0.25, memory_mib = 100, link_mbit = 80 },
            ]
            session = [{ name = "s", in_flight = 2, count = 10, link_mbit = 8 }]
        "#;
        Scenario::parse(text).expect("it makes sense")
    }

    /// Ten outputs in ten seconds, over two boards that are as good as four and two a second.
    fn measured() -> Measured {
        let zero = Instant::now();
        let node =
            |id: &str| NodeLog { id: id.to_owned(), speed: vec![100; 5], ..NodeLog::default() };
        let piece = |first, end, provider: &str| Placed {
            lane: 0,
            first,
            end,
            rows: Vec::new(),
            provider: provider.to_owned(),
            predicted_ms: 5.0,
            share: 1.0,
        };
        let time = |piece, provider: &str, compute_ms| PieceTime {
            piece,
            provider: provider.to_owned(),
            network_ms: 1.0,
            queue_ms: 2.0,
            compute_ms,
        };
        let inference = |n: u64| Inference {
            at: zero + Duration::from_secs(n),
            latency_ms: 100.0 + n as f64,
            error: Some(1e-6),
            pieces: vec![time(0, "n1", 4.0), time(1, "n0", 8.0)],
        };
        let log = SessionLog {
            plans: vec![vec![piece(0, 3, "n1"), piece(3, 5, "n0")]],
            lost: vec!["n1".to_owned()],
            inferences: (0..=10).map(inference).collect(),
            report: Some(json!({"dropped": 3})),
            ..SessionLog::default()
        };
        let layer = json!({"work": [10, 0, 0, 0, 0], "weight_bytes": 5});
        Measured {
            zero,
            seconds: 10.0,
            discovery_s: 1.5,
            alone: vec![Some(5.0), Some(2.0)],
            alone_again: vec![Some(3.0), None],
            served: Some(Served { board: 0, per_s: 3.0, core_s_per_byte: 2e-7 }),
            nodes: vec![node("n0"), node("n1")],
            sessions: vec![log],
            traffic: vec![Traffic { sent: 1, received: 2 }; 3],
            granted: vec![5.0, 2.5],
            memory: vec![Some(1 << 20), None],
            own_memory: vec![Some(1 << 19), None],
            samples: vec![
                Sample { at_s: 0.0, used: vec![1.0, 1.0] },
                Sample { at_s: 10.0, used: vec![5.0, 3.0] },
            ],
            happened: vec![(4.0, "b freezes".to_owned())],
            idle: Some(0.5),
            profile: json!({"layers": vec![layer; 5], "cut_bytes_sent": [500_000, 9, 9, 9, 9, 100]}),
        }
    }

    pub(in crate::testbed) fn report() -> Report {
        Report::new(&scenario(), &measured(), Vec::new())
    }

    #[test]
    fn figures_are_what_was_measured() {
        let report = report();
        let session = &report.sessions[0];
        assert_eq!((session.inferences, session.per_s, session.dropped), (11, 1.0, 3));
        assert_eq!(session.latency_ms, Latency { p50: 105.0, p95: 110.0, p99: 110.0 });
        assert_eq!((session.error_max, session.wrong), (Some(1e-6), 0));
        assert_eq!(session.lost, ["b"]);
        let piece = &session.pieces[1];
        assert_eq!((piece.layers, piece.board.as_str(), piece.compute_ms), ([3, 4], "a", 8.0));
        let busy: Vec<f64> = report.boards.iter().map(|board| board.busy).collect();
        assert_eq!(busy, [0.8, 0.8]);
        assert_eq!(report.busy, [(10.0, vec![0.8, 0.8])]);
        assert_eq!((report.boards[1].pieces, report.boards[1].claimed_per_s), (1, Some(2.0)));
        assert!(report.is_good());
    }

    #[test]
    fn the_bound_is_the_least_of_boards_and_links() {
        let flock = report().flock;
        let alone = flock.alone.expect("it was measured");
        assert_eq!((alone.best_per_s, alone.sum_per_s, alone.speedup), (4.0, 6.0, 0.25));
        assert_eq!((alone.drift, alone.core_s_per_byte), (Some(0.6), Some(2e-7)));
        // A million bytes a second, half a million an input.
        assert_eq!((flock.links_per_s, flock.bound_per_s), (Some(2.0), Some(2.0)));
        assert_eq!(flock.of_bound, Some(0.5));
    }

    #[test]
    fn a_crowded_machine_is_a_warning() {
        for (idle, warnings) in [(None, 0), (Some(0.3), 0), (Some(0.05), 1)] {
            let report = Report::new(&scenario(), &Measured { idle, ..measured() }, Vec::new());
            assert_eq!(report.warnings.len(), warnings, "{idle:?}");
        }
    }

    #[test]
    fn fairness_is_that_of_runs_boards_and_times() {
        let jain = report().jain;
        assert!((jain.pieces - 1.0).abs() < 1e-12 && (jain.busy - 1.0).abs() < 1e-12);
        assert!((jain.inference_time - cost::jain(&[6.0, 10.0])).abs() < 1e-12);
    }

    #[test]
    fn a_wrong_output_is_no_good_and_neither_is_one_that_nobody_saw() {
        for error in [Some(2e-4), Some(f64::MAX), None] {
            let mut measured = measured();
            measured.sessions[0].inferences[3].error = error;
            let report = Report::new(&scenario(), &measured, Vec::new());
            assert_eq!(report.sessions[0].wrong, 1);
            assert!(!report.is_good());
        }
        let mut failed = measured();
        failed.sessions[0].failed = Some("no node".to_owned());
        assert!(!Report::new(&scenario(), &failed, Vec::new()).is_good());
    }
}
