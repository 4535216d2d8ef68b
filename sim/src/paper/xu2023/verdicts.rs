//! Which claim holds, against whom, and in which unit.

use std::collections::BTreeMap;

use super::claims::{
    self, Claims, Iterations, PAPER_JAIN, PAPER_SPEED, Speed, TENFOLD, Unit, names,
};
use crate::paper::{
    measure::Share,
    table::{Cell, Table},
};

/// The three claims: what the paper says, what came out here, and the verdict.
#[must_use]
pub fn table(claims: &Claims) -> Table {
    let mut table = Table::new("headline", &["claim", "the paper", "here", "verdict"]);
    let row = |claim: &str, paper: String, (here, verdict): (String, String)| {
        [claim, &paper, &here, &verdict].map(Cell::text).to_vec()
    };
    let faster = format!("{} to {} times", PAPER_SPEED.start, PAPER_SPEED.end);
    table.rows = vec![
        row("(a) inference time is shorter", faster, of_speed(claims)),
        row("(b) Jain's index", PAPER_JAIN.to_string(), of_fairness(claims)),
        row("(c) fewer iterations", format!("{TENFOLD} times"), of_iterations(claims)),
    ];
    table
}

fn of_speed(claims: &Claims) -> (String, String) {
    let rivals = || claims.speed.iter().filter(|speed| claims::is_rival(speed.algorithm));
    let is_beaten = |speed: &&Speed| speed.ratio.middle >= PAPER_SPEED.start;
    let beaten: Vec<&Speed> = rivals().filter(is_beaten).collect();
    let others: Vec<&Speed> = rivals().filter(|speed| !is_beaten(speed)).collect();
    let list = |speeds: &[&Speed]| names(speeds.iter().map(|speed| speed.algorithm));
    let groups = [&beaten, &others].into_iter().filter(|group| !group.is_empty());
    let here = groups.map(|group| {
        let ratios = group.iter().map(|speed| speed.ratio.middle);
        format!("{} times against {}", range(ratios), list(group))
    });
    let verdict = match (beaten.is_empty(), others.is_empty()) {
        (true, _) => "does not hold".to_owned(),
        (false, true) => "holds against every rival".to_owned(),
        (false, false) => format!("holds only against {}", list(&beaten)),
    };
    (here.collect::<Vec<_>>().join("; "), verdict)
}

fn of_fairness(claims: &Claims) -> (String, String) {
    let Some(auction) = claims.of_auction() else {
        return ("nothing".to_owned(), "unknown".to_owned());
    };
    // An optimum that is not known lacks nothing.
    let (alike, mixed) =
        claims.of_optimum().map_or(([1.0; 3], [1.0; 3]), |best| (best.alike, best.mixed));
    let cases = [("one DNN for all", auction.alike, alike), ("mixed DNNs", auction.mixed, mixed)];
    let said = cases.map(|(case, jain, best)| {
        let units = || Share::ALL.into_iter().zip(jain);
        let all = units().map(|(share, index)| format!("{index:.2} {}", share.short()));
        let holds: Vec<&str> = units()
            .filter(|(_, index)| *index >= PAPER_JAIN)
            .map(|(share, _)| share.short())
            .collect();
        let verdict = match holds.len() {
            0 => "holds in no unit".to_owned(),
            n if n == Share::ALL.len() => "holds in all three units".to_owned(),
            _ => format!("holds only for {}", holds.join(" and ")),
        };
        // What the optimum itself lacks is no algorithm's doing that reaches it.
        let lacking: Vec<&str> = Share::ALL
            .into_iter()
            .zip(jain.into_iter().zip(best))
            .filter(|(_, (index, best))| index.max(*best) < PAPER_JAIN)
            .map(|(share, _)| share.short())
            .collect();
        let verdict = match &lacking[..] {
            [] => verdict,
            lacking => {
                let units = lacking.join(" and ");
                format!("{verdict}, and neither does the exact optimum reach it for {units}")
            }
        };
        let here = format!("{case}: {}", all.collect::<Vec<_>>().join(", "));
        (here, format!("{case}: {verdict}"))
    });
    let [(alike, alike_holds), (mixed, mixed_holds)] = said;
    (format!("{alike}; {mixed}"), format!("{alike_holds}; {mixed_holds}"))
}

fn of_iterations(claims: &Claims) -> (String, String) {
    let rivals = || claims.iterations.iter().filter(|row| is_iterative_rival(row));
    let Some(largest) = rivals().filter_map(|row| row.ratio.keys().last()).max() else {
        return ("nothing".to_owned(), "unknown".to_owned());
    };
    let mut here = Vec::new();
    // By whom it holds against, the units in which it does.
    let mut holds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for unit in Unit::ALL {
        let rows = || rivals().filter(|row| row.unit == unit);
        let ratios = rows().filter_map(|row| row.ratio.get(largest).copied());
        here.push(format!("{} {}", unit.name(), range(ratios)));
        let tenfold = rows().filter_map(|row| {
            let from = row.tenfold_from()?;
            Some(format!("{} (N >= {from})", row.algorithm.name()))
        });
        let tenfold = tenfold.collect::<Vec<_>>().join(", ");
        if !tenfold.is_empty() {
            holds.entry(tenfold).or_default().push(unit.name());
        }
    }
    let here = format!("rivals over the auction at N={largest}: {}", here.join("; "));
    let verdicts =
        holds.iter().map(|(whom, units)| format!("against {whom} in {}", units.join(", ")));
    let verdict = match verdicts.collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => "holds in no unit".to_owned(),
        some => format!("holds only {some}"),
    };
    (here, verdict)
}

fn is_iterative_rival(row: &Iterations) -> bool {
    claims::is_rival(row.algorithm) && claims::is_iterative(row.algorithm)
}

fn range(ratios: impl Iterator<Item = f64>) -> String {
    let (least, most) = ratios
        .fold((f64::INFINITY, 0.0_f64), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
    format!("{least:.2} to {most:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Algorithm;
    use crate::{paper::xu2023::claims::Fairness, plot::Spread};

    fn speed(algorithm: Algorithm, middle: f64) -> Speed {
        let ratio = Spread { low: 1.0, middle, high: 9.0 };
        Speed { algorithm, ratio, by_place: BTreeMap::new(), gap_max: 0.0, incomplete: 0 }
    }

    fn iterations(algorithm: Algorithm, unit: Unit, ratios: [f64; 3]) -> Iterations {
        let ratio: BTreeMap<usize, f64> = [20, 40, 80].into_iter().zip(ratios).collect();
        Iterations { algorithm, unit, count: ratio.clone(), ratio, cut_off: 0 }
    }

    fn check(claims: &Claims, claim: usize, here: &str, verdict: &str) {
        let cells = &table(claims).rows[claim];
        assert_eq!(cells[2..], [Cell::text(here), Cell::text(verdict)]);
    }

    fn claims() -> Claims {
        Claims {
            speed: Vec::new(),
            seconds: BTreeMap::new(),
            fairness: Vec::new(),
            iterations: Vec::new(),
            sensitivity: Vec::new(),
        }
    }

    #[test]
    fn speed_is_judged_rival_by_rival() {
        let mut claims = claims();
        claims.speed = vec![speed(Algorithm::Random, 2.0), speed(Algorithm::Forecast, 1.0)];
        check(&claims, 0, "2.00 to 2.00 times against random", "holds against every rival");
        claims.speed.push(speed(Algorithm::Greedy, 1.13));
        let here = "2.00 to 2.00 times against random; 1.13 to 1.13 times against greedy";
        check(&claims, 0, here, "holds only against random");
        claims.speed.remove(0);
        check(&claims, 0, "1.13 to 1.13 times against greedy", "does not hold");
    }

    #[test]
    fn fairness_is_judged_unit_by_unit() {
        let spread = Spread { low: 0.0, middle: 0.5, high: 1.0 };
        let mut claims = claims();
        claims.fairness = vec![Fairness {
            algorithm: Some(Algorithm::Auction),
            jain: [spread; 3],
            alike: [0.9, 0.91, 0.95],
            mixed: [0.95, 0.89, 0.3],
            by_place: BTreeMap::new(),
        }];
        let names = Share::ALL.map(Share::short);
        let here = format!(
            "one DNN for all: 0.90 {0}, 0.91 {1}, 0.95 {2}; mixed DNNs: 0.95 {0}, 0.89 {1}, 0.30 {2}",
            names[0], names[1], names[2]
        );
        let verdict = format!(
            "one DNN for all: holds in all three units; mixed DNNs: holds only for {}",
            names[0]
        );
        let mut optimum = Fairness { algorithm: None, ..claims.fairness[0].clone() };
        optimum.mixed[1] = 0.92;
        claims.fairness.push(optimum);
        let verdict =
            format!("{verdict}, and neither does the exact optimum reach it for {}", names[2]);
        check(&claims, 1, &here, &verdict);
    }

    #[test]
    fn iterations_are_judged_unit_by_unit_and_by_the_largest_sizes() {
        let mut claims = claims();
        claims.iterations = vec![
            iterations(Algorithm::Textbook, Unit::Rounds, [9.0, 11.0, 12.0]),
            iterations(Algorithm::Textbook, Unit::Bids, [30.0, 40.0, 9.0]),
            iterations(Algorithm::Random, Unit::Bids, [30.0, 40.0, 50.0]),
        ];
        let cells = &table(&claims).rows[2];
        assert_eq!(cells[3], Cell::text("holds only against textbook (N >= 40) in rounds"));
        claims.iterations.remove(0);
        assert_eq!(table(&claims).rows[2][3], Cell::text("holds in no unit"));
    }
}
