//! The plots of the report.

use starling_protocol::partition::{LinkModel, Planner};

use super::{
    PLANNERS, RIVALS, Run,
    scenario::{DNNS, Fog, Load, NODES},
    tables::{PAPER, ratios},
};
use crate::{
    paper::{models::Dnn, site::spread},
    plot::{Lines, Ranges, Spread},
};

/// Each rival over DINA: a range for each DNN and fog.
#[must_use]
pub fn ratio(runs: &[Run]) -> Ranges {
    let pairs = DNNS.into_iter().flat_map(|dnn| Fog::ALL.map(|fog| (dnn, fog)));
    let rows = pairs.map(|(dnn, fog)| {
        let here = |run: &&Run| run.scenario.dnn == dnn && run.scenario.fog == fog;
        let some: Vec<&Run> = runs.iter().filter(here).collect();
        let range = |rival| -> Option<Spread> { spread(&ratios(&some, rival)) };
        // Random has no upper end worth showing.
        (
            format!("{}, {} fog", dnn.name(), fog.name()),
            RIVALS[..2].iter().map(|r| range(*r)).collect(),
        )
    });
    Ranges {
        title: "Latency of one inference, relative to DINA's".to_owned(),
        x: "latency / DINA's (1 = equal); median and range over scenarios".to_owned(),
        x_from: 0.0,
        series: RIVALS[..2].iter().map(|rival| rival.name().to_owned()).collect(),
        rows: rows.collect(),
        band: Some((*PAPER.start()..*PAPER.end(), "the paper: 2.6 to 4.2".to_owned())),
    }
}

/// Seconds over the links' rate, for VGG-16 with four idle nodes like the camera's own machine.
#[must_use]
pub fn seconds(runs: &[Run]) -> Lines {
    let usual = |run: &&Run| {
        let at = run.scenario;
        let kind = (at.dnn, at.fog, at.load, at.links);
        kind == (Dnn::Vgg16, Fog::Alike, Load::Idle, LinkModel::Parallel)
    };
    let nodes = runs.iter().map(|run| run.scenario.nodes).filter(|nodes| *nodes <= NODES[1]).max();
    let some: Vec<&Run> =
        runs.iter().filter(usual).filter(|run| Some(run.scenario.nodes) == nodes).collect();
    let line = |planner: Planner| {
        let points = some.iter().map(|run| (run.scenario.mbit, run.seconds(planner)));
        (planner.name().to_owned(), points.collect())
    };
    Lines {
        title: "One inference of VGG-16 with Raspberry Pi 4s as fog, each with a link".to_owned(),
        x: "Mbit/s of each link".to_owned(),
        y: "seconds".to_owned(),
        series: PLANNERS.map(line).to_vec(),
    }
}
