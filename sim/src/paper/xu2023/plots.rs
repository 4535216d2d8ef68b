//! The plots of the report.

use super::claims::{self, Claims, PAPER_JAIN, PAPER_SPEED, Speed, Unit};
use crate::{
    paper::measure::Share,
    plot::{Lines, Ranges},
};

/// (a): a range for each algorithm.
#[must_use]
pub fn speed(claims: &Claims) -> Ranges {
    let mut rows: Vec<&Speed> = claims.speed.iter().collect();
    rows.sort_by(|a, b| b.ratio.middle.total_cmp(&a.ratio.middle));
    Ranges {
        title: "Mean inference time of each algorithm, relative to the auction's".to_owned(),
        x: "inference time / the auction's (1 = equal); range over scenarios".to_owned(),
        x_from: 0.0,
        series: vec!["median scenario".to_owned()],
        rows: rows
            .into_iter()
            .map(|row| (row.algorithm.name().to_owned(), vec![Some(row.ratio)]))
            .collect(),
        band: Some((PAPER_SPEED, "the paper: 1.14 to 2.62".to_owned())),
    }
}

/// (b): a range for each algorithm and unit.
#[must_use]
pub fn fairness(claims: &Claims) -> Ranges {
    let row = |row: &claims::Fairness| {
        (row.name().to_owned(), row.jain.iter().copied().map(Some).collect())
    };
    Ranges {
        title: "Fairness in three units".to_owned(),
        x: "Jain's index (1 = all equal); median and range over scenarios".to_owned(),
        x_from: 0.0,
        series: Share::ALL.map(|share| share.name().to_owned()).to_vec(),
        rows: claims.fairness.iter().map(row).collect(),
        band: Some((PAPER_JAIN..1.0, "the paper: 0.9".to_owned())),
    }
}

/// (c): a line for each algorithm. Examined pairs are drawn among bids.
#[must_use]
pub fn iterations(claims: &Claims, unit: Unit) -> Lines {
    let mut series = Vec::new();
    for row in &claims.iterations {
        let cut_off = if row.cut_off > 0 { " (cut off)" } else { "" };
        let name = format!("{}{cut_off}", row.algorithm.name());
        let points = row.count.iter().filter(|(_, count)| **count > 0.0);
        let points = points.map(|(pieces, count)| (*pieces as f64, *count)).collect();
        match row.unit {
            Unit::Examined if unit == Unit::Bids => series.push((format!("{name}: pairs"), points)),
            own if own == unit => series.push((name, points)),
            Unit::Bids | Unit::Examined | Unit::Messages | Unit::Rounds | Unit::Transmissions => {}
        }
    }
    let (title, y) = match unit {
        Unit::Bids => ("Bids and examined pairs until the end", "bids or pairs"),
        Unit::Examined => ("Examined pairs until the end", "pairs"),
        Unit::Messages => ("Messages until the end", "messages"),
        Unit::Rounds => ("Rounds until the end", "rounds"),
        Unit::Transmissions => ("Messages and adverts until the end", "messages and adverts"),
    };
    Lines { title: title.to_owned(), x: "pieces N".to_owned(), y: y.to_owned(), series }
}
