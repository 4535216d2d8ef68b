//! A report for people.

use super::{BoardReport, Report, SessionReport, predict::Rates, report::PieceReport};

/// As tables.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for session in &report.sessions {
        text += &session_text(session);
    }
    text += &boards(report);
    text += &flock(report);
    text += &prediction(report);
    for warning in &report.warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}

fn session_text(session: &SessionReport) -> String {
    let planner = session.planner.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let latency = session.latency_ms;
    let mut text = format!(
        "\nsession {}{planner}: {} outputs, {:.2} /s, latency {:.0} ms (median), {:.0} ms (95 %), \
         {:.0} ms (99 %)\n",
        session.name, session.inferences, session.per_s, latency.p50, latency.p95, latency.p99
    );
    text += &match session.error_max {
        Some(error) if session.wrong == 0 => {
            format!("  every output is right: within {error:.1e} of a local run's peak\n")
        }
        Some(error) => format!("  WRONG: {} outputs, off by up to {error:.1e}\n", session.wrong),
        None => "  no output\n".to_owned(),
    };
    if let Some(p99) = session.market_p99_ms {
        text += &format!("  market messages are answered within {p99:.0} ms (99 %)\n");
    }
    if let Some(reason) = &session.failed {
        text += &format!("  FAILED: {reason}\n");
    }
    if session.dropped > 0 {
        text += &format!("  {} inferences found too many waiting\n", session.dropped);
    }
    if !session.lost.is_empty() {
        text += &format!("  lost on the way: {}\n", session.lost.join(", "));
    }
    if session.plan_changes > 0 {
        text += &format!("  the plan changed {} times", session.plan_changes);
        text += &session.planned_s.map_or_else(String::new, |at| format!(", last at {at:.1} s"));
        text += "; under the last one";
        text += &match session.steady {
            Some(steady) => format!(
                " {:.2} /s, latency {:.0} ms (median):\n",
                steady.per_s, steady.latency_p50_ms
            ),
            None => " too little came to tell:\n".to_owned(),
        };
    }
    text + &pieces(&session.pieces)
}

fn pieces(pieces: &[PieceReport]) -> String {
    let head = format!("  lane{:>9}  {:<14}{:>12}", "layers", "board", "predicted ms")
        + &format!("{:>12}{:>10}{:>12}\n", "network ms", "queue ms", "compute ms");
    let row = |piece: &PieceReport| {
        let layers = format!("{}-{}", piece.layers[0], piece.layers[1]);
        format!(
            "  {:>4}{layers:>9}  {:<14}{:>12.1}{:>12.1}{:>10.1}{:>12.1}\n",
            piece.lane,
            piece.board,
            piece.predicted_ms * piece.share,
            piece.network_ms,
            piece.queue_ms,
            piece.compute_ms
        )
    };
    head + &pieces.iter().map(row).collect::<String>()
}

fn boards(report: &Report) -> String {
    let head = format!(
        "\n  {:<14}{:>7}{:>9}{:>10}{:>9}",
        "board", "cores", "Mbit/s", "claims/s", "alone/s"
    ) + &format!(
        "{:>8}{:>8}{:>10}{:>10}{:>8}{:>6}{:>7}\n",
        "pieces", "busy", "sent MB", "recv MB", "MiB", "own", "held"
    );
    let row = |board: &BoardReport| {
        let limits = board.limits;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        format!(
            "  {:<14}{:>7}{:>9}{:>10}{:>9}{:>8}{:>6.0} %{:>10.1}{:>10.1}{:>8}{:>6}{:>7}\n",
            board.name,
            or_dash(limits.cores, |cores| format!("{cores:.3}")),
            limits.link_mbit,
            or_dash(board.claimed_per_s, |rate| format!("{rate:.2}")),
            or_dash(board.alone_per_s, |rate| format!("{rate:.2}")),
            board.pieces,
            board.busy * 100.0,
            megabytes(board.sent_bytes),
            megabytes(board.received_bytes),
            or_dash(board.memory_peak_bytes, |bytes| (bytes >> 20).to_string()),
            or_dash(board.own_peak_bytes, |bytes| (bytes >> 20).to_string()),
            board.held_peak_bytes >> 20,
        )
    };
    head + &report.boards.iter().map(row).collect::<String>()
}

fn flock(report: &Report) -> String {
    let flock = report.flock;
    let mut text = format!("\nthe flock                {:>8.2} /s", flock.per_s);
    if let Some(share) = flock.of_bound {
        text += &format!(", {:.0} % of the bound", share * 100.0);
    }
    text += "\n";
    if let Some(steady) = flock.steady_per_s {
        text += &format!("under the last plans     {steady:>8.2} /s");
        let share = flock.bound_per_s.map(|bound| steady / bound * 100.0);
        text += &share.map_or_else(String::new, |share| format!(", {share:.0} % of the bound"));
        text += "\n";
    }
    if let Some(alone) = flock.alone {
        text += &format!(
            "the best board alone     {:>8.2} /s: a speed-up of {:.2}\n",
            alone.best_per_s, alone.speedup
        );
        if let Some(served) = alone.served_per_s {
            text += &format!("the same over its link   {served:>8.2} /s");
            let per_byte = alone.core_s_per_byte.unwrap_or(0.0) * 1e9;
            text += &format!(", where a byte costs {per_byte:.1} ns of a core\n");
        }
        text += &format!("all boards, each alone   {:>8.2} /s", alone.sum_per_s);
        text += &alone
            .drift
            .map_or_else(String::new, |drift| format!("; after the sessions {drift:.2} of before"));
        text += "\n";
    }
    if let Some(links) = flock.links_per_s {
        text += &format!("the requesters' links    {links:>8.2} /s\n");
    }
    let jain = report.jain;
    text + &format!(
        "Jain's index: pieces {:.3}, boards' busy shares {:.3}, inference times {:.3}\n",
        jain.pieces, jain.busy, jain.inference_time
    )
}

fn prediction(report: &Report) -> String {
    let Some(prediction) = &report.prediction else { return String::new() };
    let ratio = |seen: f64, said: f64| if said > 0.0 { seen / said } else { 0.0 };
    let mut text =
        "\nthe simulator, same boards and places    predicted  measured  ratio  slow evenly\n"
            .to_owned();
    for (session, seen) in prediction.sessions.iter().zip(&report.sessions) {
        // The plan that was predicted is the last one.
        let seen = match seen.steady {
            Some(steady) => Rates { per_s: steady.per_s, latency_p50_ms: steady.latency_p50_ms },
            None => Rates { per_s: seen.per_s, latency_p50_ms: seen.latency_ms.p50 },
        };
        let per_s: fn(&Rates) -> f64 = |rates| rates.per_s;
        for (what, of) in
            [("outputs a second", per_s), ("median latency, ms", |rates| rates.latency_p50_ms)]
        {
            let [said, seen, evenly] = [&session.rates, &seen, &session.evenly].map(of);
            let name = format!("{}: {what}", session.name);
            let ratio = ratio(seen, said);
            text += &format!("  {name:<36}  {said:>11.2}{seen:>10.2}{ratio:>7.2}{evenly:>13.2}\n");
        }
    }
    text
}

fn or_dash<T>(figure: Option<T>, text: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{
        predict::{PredictedSession, Prediction, Speeds},
        report::tests::report,
    };

    fn check(report: &Report, lines: &[&str]) {
        let text = text(report);
        for line in lines {
            assert!(text.contains(line), "no {line:?} in:\n{text}");
        }
    }

    #[test]
    fn a_report_says_what_was_measured() {
        check(
            &report(),
            &[
                "session s: 11 outputs, 1.00 /s, latency 105 ms (median), 110 ms (95 %)",
                "every output is right: within 1.0e-6",
                "lost on the way: b",
                "0.500       80      2.00     4.00       1    80 %",
                "1.00 /s, 50 % of the bound",
                "4.00 /s: a speed-up of 0.25",
            ],
        );
    }

    #[test]
    fn a_report_says_what_went_wrong() {
        let mut report = report();
        report.sessions[0].wrong = 2;
        report.sessions[0].failed = Some("oh".to_owned());
        report.warnings.push("too many boards".to_owned());
        check(&report, &["WRONG: 2 outputs", "FAILED: oh", "warning: too many boards"]);
    }

    #[test]
    fn predictions_stand_beside_what_came() {
        let mut report = report();
        let evenly = Rates { per_s: 1.5, latency_p50_ms: 130.0 };
        let name = "s".to_owned();
        let rates = Rates { per_s: 2.0, latency_p50_ms: 100.0 };
        let session = PredictedSession { name, rates, evenly };
        report.prediction =
            Some(Prediction { speeds: Speeds::Measured, per_s: 2.0, sessions: vec![session] });
        check(
            &report,
            &["2.00      1.00   0.50         1.50", "100.00    105.00   1.05       130.00"],
        );
    }
}
