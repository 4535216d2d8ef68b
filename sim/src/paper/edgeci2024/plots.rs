//! The plots of the report.

use starling_protocol::partition::{LinkModel, Planner, Route};

use super::{
    PLANNERS, RIVALS, Run,
    scenario::WAYS,
    tables::{PAPER, of_way},
};
use crate::{
    paper::{models::Dnn, site::spread},
    plot::{Lines, Ranges},
};

/// What EdgeCI saves against each rival: a range for each route, kind of links and rival.
#[must_use]
pub fn saved(runs: &[Run]) -> Ranges {
    let rows = WAYS.map(|at| {
        let some = of_way(runs, at);
        let range = |rival| {
            let saved: Vec<f64> = some.iter().filter_map(|run| run.time_saved(rival)).collect();
            spread(&saved)
        };
        (format!("{}, {}", at.0.name(), at.1.name()), RIVALS.map(range).to_vec())
    });
    let least = rows.iter().flat_map(|(_, ranges)| ranges.iter().flatten());
    Ranges {
        title: "What EdgeCI saves of a rival's time for one inference".to_owned(),
        x: "time saved (%); median and range over scenarios".to_owned(),
        x_from: least.map(|range| range.low).fold(0.0, f64::min).floor(),
        series: RIVALS.map(|rival| format!("against {}", rival.name())).to_vec(),
        rows: rows.to_vec(),
        band: Some((*PAPER.start()..*PAPER.end(), "the paper: 34.72 to 43.52 %".to_owned())),
    }
}

/// Seconds over the links' rate, for VGG-16 on the second fleet with links of their own.
#[must_use]
pub fn seconds(runs: &[Run], route: Route) -> Lines {
    let some = of_way(runs, (route, LinkModel::Parallel));
    let fleet = some.iter().map(|run| run.scenario.devices).find(|devices| devices[0] == 1.5);
    let some: Vec<&Run> = some
        .into_iter()
        .filter(|run| run.scenario.dnn == Dnn::Vgg16 && Some(run.scenario.devices) == fleet)
        .collect();
    let line = |planner: Planner| {
        let points = some.iter().map(|run| (run.scenario.mbit, run.seconds(planner)));
        (planner.name().to_owned(), points.collect())
    };
    let route = route.name();
    Lines {
        title: format!("One inference of VGG-16 on devices of 1.5, 1.5, 1 and 1, {route}"),
        x: "Mbit/s of each link".to_owned(),
        y: "seconds".to_owned(),
        series: PLANNERS.map(line).to_vec(),
    }
}
