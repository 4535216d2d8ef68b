//! What the processes of a testbed say, kept as it comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::Value;
use starling_protocol::rows::RowRange;

/// What a node has said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeLog {
    /// Its name in the flock.
    pub(super) id: String,
    /// What it takes itself for: units of work a second, by class.
    pub(super) speed: Vec<u64>,
    /// Whom it is connected to.
    pub(super) knows: BTreeSet<String>,
    /// Bytes of its pieces as they are loaded, weights and activations.
    pub(super) holds: BTreeMap<String, u64>,
    /// The most that these came to.
    pub(super) held_bytes: u64,
}

/// What a session has said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionLog {
    /// Its plans, the first one first.
    pub(super) plans: Vec<Vec<Placed>>,
    /// When the last of them began to serve.
    pub(super) planned: Option<Instant>,
    /// Bids, rounds and messages of its first auction, and how long it took.
    pub(super) auction: Option<Value>,
    /// Providers that it lost on the way.
    pub(super) lost: Vec<String>,
    /// Its inferences, in the order of their ends.
    pub(super) inferences: Vec<Inference>,
    /// What it reports at its end.
    pub(super) report: Option<Value>,
    /// Why it ended without one.
    pub(super) failed: Option<String>,
}

/// A piece and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    /// Which of the plans that serve side by side it belongs to.
    pub(super) lane: u64,
    /// Its first layer.
    pub(super) first: u16,
    /// The one behind its last.
    pub(super) end: u16,
    /// For a strip, its rows of each tensor alive after its layers; empty for all.
    pub(super) rows: Vec<RowRange>,
    /// Where it is.
    pub(super) provider: String,
    /// Its part of the provider's time.
    pub(super) share: f64,
    /// What the planner expects it to take with that, in milliseconds.
    pub(super) predicted_ms: f64,
}

/// One inference.
#[derive(Clone, Debug)]
pub(super) struct Inference {
    /// When its output was there.
    pub(super) at: Instant,
    /// From its start.
    pub(super) latency_ms: f64,
    /// Of its output, relative to the peak.
    pub(super) error: Option<f64>,
    /// Where its time went.
    pub(super) pieces: Vec<PieceTime>,
}

/// What one piece took of an inference, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PieceTime {
    pub(super) piece: u64,
    pub(super) provider: String,
    pub(super) network_ms: f64,
    pub(super) queue_ms: f64,
    pub(super) compute_ms: f64,
}

impl NodeLog {
    /// What pieces held before counts no longer.
    pub(super) fn forget_peak(&mut self) {
        self.held_bytes = self.holds.values().sum();
    }

    pub(super) fn hear(&mut self, line: &Value) {
        match line["event"].as_str() {
            Some("started") => self.id = text(&line["node"]),
            Some("calibrated") => {
                let speeds = list(&line["flops_per_s"]).iter();
                self.speed = speeds.filter_map(Value::as_u64).collect();
            }
            Some("joined") => {
                self.knows.insert(text(&line["node"]));
            }
            Some("left") => {
                self.knows.remove(&text(&line["node"]));
            }
            Some("hosting") => {
                let bytes = |field: &str| line[field].as_u64().unwrap_or(0);
                let all = bytes("weight_bytes") + bytes("activation_bytes");
                self.holds.insert(text(&line["piece"]), all);
                self.held_bytes = self.held_bytes.max(self.holds.values().sum());
            }
            Some("dropped") => {
                self.holds.remove(&text(&line["piece"]));
            }
            // What else it says is for people.
            _ => {}
        }
    }
}

impl SessionLog {
    pub(super) fn hear(&mut self, at: Instant, line: &Value) {
        match line["event"].as_str() {
            Some("agreed") if self.auction.is_none() => {
                self.auction = Some(line["auction"].clone());
            }
            Some("ready") => {
                let pieces = list(&line["pieces"]).iter();
                self.plans.push(pieces.filter_map(placed).collect());
                self.planned = Some(at);
            }
            Some("lost") => self.lost.push(text(&line["node"])),
            Some("inference") => self.inferences.push(inference(at, line)),
            Some("finished") => {
                self.lost.extend(list(&line["report"]["providers_lost"]).iter().map(text));
                self.lost.sort();
                self.lost.dedup();
                self.report = Some(line["report"].clone());
            }
            // What else it says is for people.
            _ => {}
        }
    }

    /// The inferences that ended under its last plan, one latency after that began to serve, so
    /// that none had waited for it; nothing where there was one plan only, or it served for too
    /// short a part of the stream to tell.
    pub(super) fn steady(&self) -> Option<&[Inference]> {
        let planned = self.planned.filter(|_| self.plans.len() > 1)?;
        let is_later = |inference: &Inference| {
            let began =
                inference.at.checked_sub(Duration::from_secs_f64(inference.latency_ms / 1e3));
            began.is_some_and(|began| began >= planned)
        };
        let steady = &self.inferences[self.inferences.iter().position(is_later)?..];
        let span = |of: &[Inference]| Some(of.last()?.at.duration_since(of.first()?.at));
        let part = span(steady)?.as_secs_f64() / span(&self.inferences)?.as_secs_f64();
        (steady.len() >= STEADY_MIN && part >= STEADY_PART).then_some(steady)
    }

    /// Whether its first inferences may run.
    pub(super) fn is_ready(&self) -> bool {
        !self.plans.is_empty()
    }
}

fn placed(piece: &Value) -> Option<Placed> {
    let layer = |at: usize| u16::try_from(piece["layers"][at].as_u64()?).ok();
    Some(Placed {
        lane: piece["lane"].as_u64().unwrap_or(0),
        first: layer(0)?,
        end: layer(1)?.checked_add(1)?,
        rows: list(&piece["tensor_rows"]).iter().map(rows).collect::<Option<_>>()?,
        provider: text(&piece["provider"]),
        share: number(&piece["share"]),
        predicted_ms: number(&piece["predicted_ms"]),
    })
}

/// The first row and the last, both included; nothing stands for none.
fn rows(range: &Value) -> Option<RowRange> {
    if range.is_null() {
        return Some(RowRange::EMPTY);
    }
    let row = |at: usize| u32::try_from(range[at].as_u64()?).ok();
    Some(RowRange::new(row(0)?, row(1)?.checked_add(1)?))
}

fn inference(at: Instant, line: &Value) -> Inference {
    let pieces = list(&line["pieces"]).iter().map(|piece| PieceTime {
        piece: piece["piece"].as_u64().unwrap_or(0),
        provider: text(&piece["provider"]),
        network_ms: number(&piece["network_ms"]),
        queue_ms: number(&piece["queue_ms"]),
        compute_ms: number(&piece["compute_ms"]),
    });
    Inference {
        at,
        latency_ms: number(&line["latency_ms"]),
        error: line["error"].as_f64(),
        pieces: pieces.collect(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// Fewer outputs say little of a plan.
const STEADY_MIN: usize = 10;
/// What comes at the end of a stream is what is left over: its last inferences are all on the way.
const STEADY_PART: f64 = 0.2;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_known_by_what_it_says() {
        let mut log = NodeLog::default();
        for line in [
            json!({"event": "started", "node": "n1"}),
            json!({"event": "listening", "address": "/ip4/10.77.0.1/tcp/1"}),
            json!({"event": "calibrated", "flops_per_s": [1, 2, 3, 4, 5]}),
            json!({"event": "joined", "node": "n2"}),
            json!({"event": "joined", "node": "n3"}),
            json!({"event": "left", "node": "n2"}),
        ] {
            log.hear(&line);
        }
        assert_eq!((log.id.as_str(), log.speed.len()), ("n1", 5));
        assert_eq!(log.knows.into_iter().collect::<Vec<_>>(), ["n3"]);
    }

    #[test]
    fn a_session_is_known_by_what_it_says() {
        let mut log = SessionLog::default();
        let now = Instant::now();
        log.hear(now, &json!({"event": "agreed", "auction": {"bids": 2}}));
        assert!(!log.is_ready());
        let piece = json!({"layers": [0, 4], "provider": "n1", "share": 1.0, "predicted_ms": 2.5});
        log.hear(now, &json!({"event": "ready", "pieces": [piece]}));
        assert!(log.is_ready());
        let expected = Placed {
            lane: 0,
            first: 0,
            end: 5,
            rows: Vec::new(),
            provider: "n1".to_owned(),
            share: 1.0,
            predicted_ms: 2.5,
        };
        assert_eq!(log.plans[0], [expected]);
        let time = json!({"piece": 0, "provider": "n1", "network_ms": 1.0, "queue_ms": 2.0,
            "compute_ms": 3.0});
        log.hear(
            now,
            &json!({"event": "inference", "latency_ms": 9.5, "error": 1e-7,
            "pieces": [time]}),
        );
        assert_eq!(log.inferences[0].pieces[0].compute_ms, 3.0);
        assert_eq!(log.inferences[0].error, Some(1e-7));
        log.hear(now, &json!({"event": "finished", "report": {"providers_lost": ["n2", "n2"]}}));
        assert_eq!(log.lost, ["n2"]);
        assert!(log.report.is_some());
    }

    #[test]
    fn what_ends_under_the_last_plan_is_steady() {
        let began = Instant::now();
        let at = |millis: u64| began + Duration::from_millis(millis);
        let mut log = SessionLog::default();
        let piece = |lane| json!({"lane": lane, "layers": [0, 4], "provider": "n1"});
        let ready = |pieces: &[Value]| json!({"event": "ready", "pieces": pieces});
        log.hear(at(0), &ready(&[piece(0)]));
        let run = |log: &mut SessionLog, until: u64| {
            for millis in (log.inferences.len() as u64 * 10..until).step_by(10) {
                log.hear(at(millis), &json!({"event": "inference", "latency_ms": 25.0}));
            }
        };
        run(&mut log, 200);
        assert!(log.steady().is_none(), "one plan only");
        log.hear(at(200), &ready(&[piece(0), piece(1)]));
        run(&mut log, 300);
        assert!(log.steady().is_none(), "too few outputs");
        run(&mut log, 500);
        // The first that began after 200 ms ended after 230.
        let first = log.steady().and_then(<[Inference]>::first).map(|first| first.at);
        assert_eq!(first, Some(at(230)));
        assert_eq!(log.plans[1].iter().map(|piece| piece.lane).collect::<Vec<_>>(), [0, 1]);
        log.hear(at(500), &ready(&[piece(0)]));
        run(&mut log, 640);
        assert!(log.steady().is_none(), "too short a part of the stream");
    }
}
