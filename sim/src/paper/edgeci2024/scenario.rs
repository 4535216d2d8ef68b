//! Devices, links and DNNs.

use std::fmt;

use starling_protocol::{
    model::Speed,
    partition::{LinkModel, Route, Settings},
};

use super::Scale;
use crate::paper::{
    models::Dnn,
    site::{Site, worker},
};

/// One cluster, one DNN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// What is inferred.
    pub dnn: Dnn,
    /// The devices' speeds, relative to the slowest kind.
    pub devices: &'static [f64],
    /// Of each device's link, or of the radio channel.
    pub mbit: f64,
    /// How transfers get into each other's way.
    pub links: LinkModel,
    /// Which way activations go.
    pub route: Route,
}

impl Scenario {
    /// All of them.
    #[must_use]
    pub fn all(scale: Scale) -> Vec<Self> {
        let (fleets, rates) = match scale {
            Scale::Full => (&FLEETS[..], &MBIT[..]),
            Scale::Quick => (&FLEETS[1..2], &MBIT[..2]),
        };
        let mut all = Vec::new();
        for (route, links) in WAYS {
            for (dnn, devices) in
                DNNS.into_iter().flat_map(|dnn| fleets.iter().map(move |devices| (dnn, *devices)))
            {
                let at = |mbit: &f64| Self { dnn, devices, mbit: *mbit, links, route };
                all.extend(rates.iter().map(at));
            }
        }
        all
    }

    /// Whether its streams are run in virtual time as well: one fleet, and only as Starling works.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        let usual = self.devices == FLEETS[1];
        usual && self.route == Route::Direct && self.links == LinkModel::Parallel
    }

    /// The scenario as planners see it. The requester only asks.
    #[must_use]
    pub fn site(&self) -> Site {
        let devices = (1..).zip(self.devices);
        let workers = devices
            .map(|(number, relative)| worker(number, speed(*relative), self.mbit, u64::MAX, 1));
        let settings = Settings {
            links: self.links,
            route: self.route,
            layer: SECONDS_PER_CONVOLUTION,
            ..Settings::default()
        };
        Site { profile: self.dnn.profile(), workers: workers.collect(), settings }
    }

    /// The devices, in words.
    #[must_use]
    pub fn fleet(&self) -> String {
        self.devices.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (links, route) = (self.links.name(), self.route.name());
        write!(f, "{}, {}, {} Mbit/s, {links}, {route}", self.dnn.name(), self.fleet(), self.mbit)
    }
}

fn speed(relative: f64) -> Speed {
    Speed([(relative / SECONDS_PER_FLOP) as u64; 5])
}

/// As EdgeLD's measured times are met, by the same group (HPCC 2020): 23.4 to 24.6 s for VGG-16 on
/// one device. The slope that it prints gives a tenth of that.
pub const SECONDS_PER_FLOP: f64 = 7.5e-10;
/// Its constant, as printed.
pub const SECONDS_PER_CONVOLUTION: f64 = 1.97e-2;
/// Relative speeds of 4 to 6 devices, as of Raspberry Pis of 600 MHz to 1.2 GHz.
pub const FLEETS: [&[f64]; 5] = [
    &[1.0, 1.0, 1.0, 1.0],
    &[1.5, 1.5, 1.0, 1.0],
    &[2.0, 1.5, 1.0, 1.0, 1.0],
    &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    &[2.0, 1.33, 1.0, 1.0, 1.0, 1.0],
];
/// Of links.
pub const MBIT: [f64; 5] = [50.0, 100.0, 200.0, 500.0, 1000.0];
/// Those of the paper.
pub const DNNS: [Dnn; 2] = [Dnn::Vgg16, Dnn::ResNet34];
/// Routes and links.
pub const WAYS: [(Route, LinkModel); 4] = [
    (Route::Relayed, LinkModel::Parallel),
    (Route::Relayed, LinkModel::Shared),
    (Route::Direct, LinkModel::Parallel),
    (Route::Direct, LinkModel::Shared),
];
