//! A report as files: JSON, tables (CSV) and pictures (SVG).

use serde::Serialize;
use thiserror::Error;

use super::{Report, report::Row};
use crate::plot::{Course, PlotError, Ranges, Spread};

/// Why a report can't be made into files.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct FilesError(#[from] PlotError);

/// The files' names and contents.
///
/// # Errors
/// If a picture can't be drawn.
pub fn files(report: &Report) -> Result<Vec<(&'static str, String)>, FilesError> {
    Ok(vec![
        ("report.json", json(report)),
        ("report.txt", super::text(report)),
        ("inferences.csv", inferences(report)),
        ("boards.csv", boards(report)),
        ("busy.csv", busy(report)),
        ("latency.svg", latency(report).svg()?),
        ("boards.svg", busy_boards(report).svg()?),
        ("throughput-over-time.svg", throughput_over_time(report).svg()?),
        ("latency-over-time.svg", latency_over_time(report).svg()?),
        ("busy-over-time.svg", busy_over_time(report).svg()?),
    ])
}

fn json(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report).expect("names and numbers are JSON") + "\n"
}

fn inferences(report: &Report) -> String {
    let mut csv = "session,at_s,latency_ms,error\n".to_owned();
    for (session, rows) in report.sessions.iter().zip(&report.inferences) {
        for row in rows {
            let error = row.error.map(|error| format!("{error:e}")).unwrap_or_default();
            csv += &format!("{},{:.4},{:.3},{error}\n", session.name, row.at_s, row.latency_ms);
        }
    }
    csv
}

fn boards(report: &Report) -> String {
    let head = "board,cores,memory_mib,link_mbit,claimed_per_s,alone_per_s,pieces,busy,sent_bytes,\
                received_bytes,memory_peak_bytes,own_peak_bytes,held_peak_bytes\n";
    let or_nothing = |figure: Option<f64>| figure.map(|x| x.to_string()).unwrap_or_default();
    let row = |board: &super::BoardReport| {
        let limits = board.limits;
        let fields = [
            board.name.clone(),
            or_nothing(limits.cores),
            or_nothing(limits.memory_mib.map(|mib| mib as f64)),
            limits.link_mbit.to_string(),
            or_nothing(board.claimed_per_s),
            or_nothing(board.alone_per_s),
            board.pieces.to_string(),
            format!("{:.4}", board.busy),
            board.sent_bytes.to_string(),
            board.received_bytes.to_string(),
            or_nothing(board.memory_peak_bytes.map(|bytes| bytes as f64)),
            or_nothing(board.own_peak_bytes.map(|bytes| bytes as f64)),
            board.held_peak_bytes.to_string(),
        ];
        fields.join(",") + "\n"
    };
    head.to_owned() + &report.boards.iter().map(row).collect::<String>()
}

fn busy(report: &Report) -> String {
    let names: Vec<&str> = report.boards.iter().map(|board| board.name.as_str()).collect();
    let mut csv = format!("at_s,{}\n", names.join(","));
    for (at_s, shares) in &report.busy {
        let shares: Vec<String> = shares.iter().map(|share| format!("{share:.4}")).collect();
        csv += &format!("{at_s:.3},{}\n", shares.join(","));
    }
    csv
}

/// From the median to 99 %, with 95 % marked.
fn latency(report: &Report) -> Ranges {
    let spread = |session: &super::SessionReport| {
        let latency = session.latency_ms;
        Some(Spread { low: latency.p50, middle: latency.p95, high: latency.p99 })
    };
    Ranges {
        title: "Latency of each session".to_owned(),
        x: "milliseconds".to_owned(),
        series: vec!["median - 95 % - 99 %".to_owned()],
        rows: report.sessions.iter().map(|s| (s.name.clone(), vec![spread(s)])).collect(),
        ..Ranges::default()
    }
}

fn busy_boards(report: &Report) -> Ranges {
    let bar = |share: f64| Some(Spread { low: 0.0, middle: share, high: share });
    let row = |board: &super::BoardReport| (board.name.clone(), vec![bar(board.busy * 100.0)]);
    Ranges {
        title: "How busy the boards were".to_owned(),
        x: "per cent of each board's quota".to_owned(),
        series: vec!["busy".to_owned()],
        rows: report.boards.iter().map(row).collect(),
        ..Ranges::default()
    }
}

fn throughput_over_time(report: &Report) -> Course {
    let per_second = |rows: &Vec<Row>| {
        let end = report.seconds.floor() as u32;
        let count =
            |from: f64| rows.iter().filter(move |row| (from..from + 1.0).contains(&row.at_s));
        // What ended in a second stands in its middle.
        (0..end).map(|n| (f64::from(n) + 0.5, count(f64::from(n)).count() as f64)).collect()
    };
    course(report, "Outputs in each second", "outputs", per_second)
}

fn latency_over_time(report: &Report) -> Course {
    let points = |rows: &Vec<Row>| {
        let after_zero = rows.iter().filter(|row| row.at_s >= 0.0);
        after_zero.map(|row| (row.at_s, row.latency_ms)).collect()
    };
    course(report, "Latency of each inference, when it ended", "milliseconds", points)
}

fn course(
    report: &Report,
    title: &str,
    y: &str,
    points: impl Fn(&Vec<Row>) -> Vec<(f64, f64)>,
) -> Course {
    let series = report.sessions.iter().zip(&report.inferences);
    Course {
        title: title.to_owned(),
        x: SECONDS.to_owned(),
        y: y.to_owned(),
        series: series.map(|(session, rows)| (session.name.clone(), points(rows))).collect(),
        marks: report.happened.clone(),
    }
}

fn busy_over_time(report: &Report) -> Course {
    let series = report.boards.iter().enumerate().map(|(n, board)| {
        let points = report.busy.iter().map(|(at_s, shares)| (*at_s, shares[n] * 100.0));
        (board.name.clone(), points.collect())
    });
    Course {
        title: "How busy the boards were".to_owned(),
        x: SECONDS.to_owned(),
        y: "per cent of the quota that each began with".to_owned(),
        series: series.collect(),
        marks: report.happened.clone(),
    }
}

const SECONDS: &str = "seconds since the sessions streamed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::report::tests::report;

    #[test]
    fn every_file_says_what_the_report_says() {
        let files = files(&report()).expect("drawn");
        for (name, part) in [
            ("report.json", "\"of_bound\": 0.5"),
            ("report.txt", "50 % of the bound"),
            ("inferences.csv", "s,3.0000,103.000,1e-6\n"),
            ("boards.csv", "a,0.5,100,80,2,4,1,0.8000,1,2,1048576,524288,0\n"),
            ("busy.csv", "at_s,a,b\n10.000,0.8000,0.8000\n"),
            ("throughput-over-time.svg", "b freezes"),
            ("latency-over-time.svg", "milliseconds"),
            ("busy-over-time.svg", "per cent of the quota"),
            ("latency.svg", "median - 95 % - 99 %"),
            ("boards.svg", "quota"),
        ] {
            let file = files.iter().find(|(file, _)| *file == name);
            let text = &file.unwrap_or_else(|| panic!("no {name}")).1;
            assert!(text.contains(part), "{name}: {text}");
        }
        assert_eq!(files.len(), 10);
    }
}
