//! Layer-wise parallelism as EdgeLD describes it: each convolution in strips on all devices, and
//! everything between two of them, such as poolings, at the requester. So the outputs of every
//! convolution travel in full, where our own `layer-wise` pools them first on the devices.

use starling_protocol::{
    NodeId,
    model::Speed,
    partition::{Layout, Route},
    plan::{LayerRange, Piece},
};

use super::scenario::Scenario;
use crate::paper::site::{Site, worker};

/// Seconds of one inference. Nothing where activations are not relayed by the requester.
#[must_use]
pub fn layer_wise(scenario: &Scenario) -> Option<f64> {
    if scenario.route != Route::Relayed {
        return None;
    }
    let mut site = scenario.site();
    let devices = site.workers.len();
    // What the requester does between two convolutions is next to nothing.
    let requester = worker(0, Speed([u64::MAX; 5]), 0.0, u64::MAX, 1);
    site.workers.push(requester);
    let layout = layout(&site, scenario.devices, devices);
    let requester = NodeId([0; 32]);
    let found = layout.predict(&site.profile, &site.workers, requester, &site.settings);
    Some(found.latency)
}

/// A residual block is one unit, as everywhere.
fn layout(site: &Site, weights: &[f64], requester: usize) -> Layout {
    let profile = &site.profile;
    let map = profile.rows().expect("the profiles of `sim/data` have rows");
    let last = profile.layers();
    let mut cuts: Vec<u16> = (1..last).filter(|cut| map.all(*cut).len() == 1).collect();
    cuts.insert(0, 0);
    cuts.push(last);
    let fastest = (0..requester).max_by(|a, b| weights[*a].total_cmp(&weights[*b])).unwrap_or(0);
    let segment = |pair: &[u16]| {
        let layers = LayerRange { first: pair[0], end: pair[1] };
        let strips = map.divide(layers.end, weights).into_iter().zip(0..);
        match profile.range(layers).weight_bytes {
            0 => vec![(Piece::whole(layers), requester)],
            _ if map.splittable(layers) => {
                strips.map(|(rows, place)| (Piece { layers, rows }, place)).collect()
            }
            _ => vec![(Piece::whole(layers), fastest)],
        }
    };
    Layout { segments: cuts.windows(2).map(segment).collect() }
}

#[cfg(test)]
mod tests {
    use starling_protocol::partition::{LinkModel, Planner};

    use super::*;
    use crate::paper::models::Dnn;

    #[test]
    fn outputs_that_are_not_pooled_first_take_longer() {
        let scenario = Scenario {
            dnn: Dnn::Vgg16,
            devices: &[1.0, 1.0, 1.0, 1.0],
            mbit: 50.0,
            links: LinkModel::Parallel,
            route: Route::Relayed,
        };
        let published = layer_wise(&scenario).expect("it is relayed");
        let tuned = scenario.site().latency(Planner::LayerWise);
        // Three quarters of what leaves the five convolutions before a pooling, on four links.
        let bytes = 4.0
            * 224.0
            * 224.0
            * (64.0 + 128.0 / 4.0 + 256.0 / 16.0 + 512.0 / 64.0 + 512.0 / 256.0);
        let more = bytes * 0.75 / 4.0 / (50e6 / 8.0);
        // Pooled strips come out less even, which costs some of that.
        let ratio = (published - tuned) / more;
        assert!((0.75..1.0).contains(&ratio), "{published} {tuned} {more}");
        assert_eq!(layer_wise(&Scenario { route: Route::Direct, ..scenario }), None);
    }
}
