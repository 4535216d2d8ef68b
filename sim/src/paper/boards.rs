//! A paper's planners measured: real nodes on emulated boards, one planner after the other.
//!
//! The boards are equal, as in the papers' clusters, and together take less than half of this
//! machine, so that the rest of it serves those who ask. Figures are this machine's; only their
//! ratios can be held against the simulated ones.

use std::path::PathBuf;

use super::{
    files::{Files, csv},
    table::{Cell, Table},
};
use crate::testbed::{
    Board, Failure, Goal, Model, Report, Run, Scenario, Session, Stop, find_starling, run,
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which paper's planners.
    pub paper: Paper,
    /// ONNX files.
    pub models: Vec<PathBuf>,
    /// A picture for them.
    pub image: PathBuf,
    /// How many boards.
    pub boards: usize,
    /// The rates of their links, in Mbit/s.
    pub links: Vec<f64>,
    /// For how long each planner's inferences run.
    pub seconds: f64,
    /// The program that runs on the boards, if it is not beside this one.
    pub starling: Option<PathBuf>,
}

/// A paper whose planners are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paper {
    /// Mohammed et al. 2020: a camera with a board of its own, which asks and computes.
    Dina2020,
    /// Chen et al. 2024: devices, and somebody who asks and computes nothing.
    EdgeCi2024,
}

impl Paper {
    /// The paper's planner first, then what it is compared with.
    fn planners(self) -> &'static [&'static str] {
        match self {
            Self::Dina2020 => &["dina", "neurosurgeon", "greedy", "random", "single"],
            Self::EdgeCi2024 => &["edgeci", "layer-wise", "early-fused", "optimal-fused", "single"],
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Dina2020 => {
                "Mohammed, Joe-Wong, Babbar, Di Francesco (INFOCOM, 2020: DINA) on emulated boards"
            }
            Self::EdgeCi2024 => {
                "Chen, Luo, Fang, Xiong (ACM TOIT, 2024: EdgeCI) on emulated boards"
            }
        }
    }
}

/// One planner on one network over one kind of link.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    model: &'a PathBuf,
    link: f64,
    planner: &'static str,
    goal: Goal,
}

impl Setup {
    /// Measures everything, and tells `say` of what happens. Minutes: each planner gets boards of
    /// its own, which have to find each other and to load.
    ///
    /// # Errors
    /// If a run can't be brought to its end.
    pub fn run(&self, stop: &Stop, say: &mut dyn FnMut(&str)) -> Result<Table, Failure> {
        let starling = find_starling(self.starling.as_deref())?;
        let mut table = Table::new("testbed", &COLUMNS);
        let cases: Vec<Case<'_>> = self.cases().collect();
        // What the paper's planner took for the same.
        let mut paper_s = None;
        for (number, case) in (1..).zip(&cases) {
            let name = case.model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let what = if case.goal == Goal::Latency { "one inference" } else { "a stream" };
            let (planner, link) = (case.planner, case.link);
            say(&format!("{number}/{}: {name}, {link} Mbit/s, {planner}, {what}", cases.len()));
            let report = run(&self.scenario(*case)?, &starling, stop, &mut |_: &str| ())?;
            let seconds = seconds(&report, case.goal);
            if case.planner == self.paper.planners()[0] {
                paper_s = seconds;
            }
            let ratio = seconds.zip(paper_s).map(|(seconds, paper)| seconds / paper);
            table.rows.push(row(&name, *case, what, &report, ratio));
        }
        Ok(table)
    }

    /// One inference by every planner, then a stream by the paper's, by ours and by one board.
    fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        let planners = self.paper.planners();
        let one = planners.iter().chain(&["pf"]).map(|planner| (*planner, Goal::Latency));
        let stream = [planners[0], "pf", "single"].map(|planner| (planner, Goal::Throughput));
        let kinds: Vec<(&'static str, Goal)> = one.chain(stream).collect();
        let sites = self.models.iter();
        let sites = sites.flat_map(|model| self.links.iter().map(move |link| (model, *link)));
        sites.flat_map(move |(model, link)| {
            let case = move |(planner, goal)| Case { model, link, planner, goal };
            kinds.clone().into_iter().map(case)
        })
    }

    fn scenario(&self, case: Case<'_>) -> Result<Scenario, Failure> {
        let machine = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let cores = (machine * BOARDS_SHARE / self.boards as f64).min(1.0);
        let board = |number: usize| Board {
            name: format!("board-{number}"),
            preset: None,
            cores: Some((cores * 1e3).floor() / 1e3),
            memory_mib: Some(MEMORY_MIB),
            link_mbit: Some(case.link),
        };
        let on = (self.paper == Paper::Dina2020).then(|| "board-1".to_owned());
        let stream = case.goal == Goal::Throughput;
        let session = Session {
            name: "camera".to_owned(),
            link_mbit: on.is_none().then_some(case.link),
            on,
            at_s: 0.0,
            planner: Some(case.planner.to_owned()),
            goal: case.goal,
            cuts: Vec::new(),
            strips: Vec::new(),
            patience_s: None,
            in_flight: Some(if stream { IN_FLIGHT } else { 1 }),
            rate_per_s: None,
            count: None,
            duration_s: Some(self.seconds),
        };
        let (image, file) = (Some(self.image.clone()), case.model.clone());
        let scenario = Scenario {
            about: "Equal boards, one planner.".to_owned(),
            model: Model { file, image, inputs: Vec::new() },
            run: Run { alone_s: 0.0, predict: false, ..Run::default() },
            boards: (1..=self.boards).map(board).collect(),
            sessions: vec![session],
            events: Vec::new(),
        };
        // As if it came from a file, so that the same rules hold.
        let text = toml::to_string(&scenario).map_err(|error| Failure::Unsuited(error.to_string()));
        Scenario::parse(&text?).map_err(|error| Failure::Unsuited(error.to_string()))
    }
}

/// What counts: the median of single inferences, or the time between two outputs of a stream.
fn seconds(report: &Report, goal: Goal) -> Option<f64> {
    let session = report.sessions.first().filter(|session| session.inferences > 1)?;
    Some(match goal {
        Goal::Latency => session.latency_ms.p50 / 1e3,
        Goal::Throughput => 1.0 / session.steady.map_or(session.per_s, |steady| steady.per_s),
    })
}

fn row(name: &str, case: Case<'_>, what: &str, report: &Report, ratio: Option<f64>) -> Vec<Cell> {
    let session = report.sessions.first();
    let seconds = seconds(report, case.goal);
    let verdict = session.map_or("no session", |session| match &session.failed {
        Some(_) => "failed",
        None if session.wrong > 0 => "wrong",
        None => "right",
    });
    vec![
        Cell::text(name),
        Cell::Number(case.link, 0),
        Cell::text(what),
        Cell::text(case.planner),
        Cell::Count(session.map_or(0, |session| session.pieces.len() as u64)),
        Cell::number(seconds.map(|seconds| seconds * 1e3), 1),
        Cell::number(seconds.map(|seconds| 1.0 / seconds), 2),
        Cell::number(ratio, 2),
        Cell::text(verdict),
    ]
}

/// The report: one table, and how to read it.
#[must_use]
pub fn files(setup: &Setup, table: &Table) -> Files {
    let text = format!(
        "# {}\n\n{} boards of equal shares of this machine's processor, real `starling` processes, \
         links of their own. **The boards are ours; the paper's own were not available.** For one \
         inference the time is the median from its start to its output, with one at a time; for a \
         stream it is the time between two outputs, with {IN_FLIGHT} at a time. Beside it the same \
         as a rate, the time in parts of what the paper's planner took, and whether every output \
         was what a local run gives. A plan of one piece is the best board alone.\n\n{}",
        setup.paper.title(),
        setup.boards,
        table.markdown()
    );
    vec![("report.md".to_owned(), text), csv(table)]
}

const COLUMNS: [&str; 9] = [
    "DNN",
    "Mbit/s",
    "what",
    "planner",
    "pieces",
    "time (ms)",
    "rate (1/s)",
    "time over the paper's planner",
    "outputs",
];
/// Of this machine's processors.
const BOARDS_SHARE: f64 = 0.4;
/// Enough for VGG-16 on any of them.
const MEMORY_MIB: u64 = 4096;
const IN_FLIGHT: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paper: Paper, on: Option<&str>, cases: usize) {
        let setup = Setup {
            paper,
            models: vec!["a.onnx".into(), "b.onnx".into()],
            image: "cat.jpg".into(),
            boards: 5,
            links: vec![50.0, 1000.0],
            seconds: 4.0,
            starling: None,
        };
        let all: Vec<Case<'_>> = setup.cases().collect();
        assert_eq!(all.len(), cases);
        for case in all {
            let scenario = setup.scenario(case).expect("the same rules hold");
            assert_eq!(scenario.boards.len(), 5);
            assert_eq!(scenario.sessions[0].on.as_deref(), on);
            assert_eq!(scenario.sessions[0].planner.as_deref(), Some(case.planner));
        }
    }

    #[test]
    fn every_planner_gets_boards_of_its_own() {
        // Two networks over two kinds of links: six planners for one inference, three for a stream.
        check(Paper::EdgeCi2024, None, 4 * 9);
        check(Paper::Dina2020, Some("board-1"), 4 * 9);
    }
}
