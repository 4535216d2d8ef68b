//! A driving camera's own machine, fog nodes, links and DNNs.

use std::fmt;

use rand::RngExt;
use starling_protocol::partition::{LinkModel, Settings, Worker};

use super::Scale;
use crate::{
    paper::{
        machines::Machine,
        models::{Dnn, Input},
        site::{Site, worker},
    },
    random::{Purpose, generator},
};

/// One camera and its fog.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// What is inferred.
    pub dnn: Dnn,
    /// What the fog nodes are.
    pub fog: Fog,
    /// How many of them.
    pub nodes: u8,
    /// Of each link, or of the radio channel.
    pub mbit: f64,
    /// How transfers get into each other's way.
    pub links: LinkModel,
    /// Who else the fog computes for.
    pub load: Load,
    /// Of what is drawn.
    pub seed: u64,
}

/// What fog nodes are. The camera's own machine is a Raspberry Pi 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fog {
    /// The same as the camera's.
    Alike,
    /// Each a Pi 4, a Jetson Nano or a laptop.
    Mixed,
    /// Jetson Nanos.
    Strong,
}

/// Who else the fog computes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Each node has 0 to 2 pieces of others.
    Busy,
    /// Nobody.
    Idle,
}

impl Scenario {
    /// All of them.
    #[must_use]
    pub fn all(scale: Scale) -> Vec<Self> {
        let (sizes, rates, ways) = match scale {
            Scale::Full => (&NODES[..], &MBIT[..], &[LinkModel::Parallel, LinkModel::Shared][..]),
            Scale::Quick => (&NODES[1..2], &MBIT[1..2], &[LinkModel::Parallel][..]),
        };
        let mut all = Vec::new();
        for (dnn, fog) in DNNS.into_iter().flat_map(|dnn| Fog::ALL.map(|fog| (dnn, fog))) {
            for (nodes, mbit) in
                sizes.iter().flat_map(|nodes| rates.iter().map(move |mbit| (*nodes, *mbit)))
            {
                for (links, load) in
                    ways.iter().flat_map(|links| Load::ALL.map(|load| (*links, load)))
                {
                    let drawn = fog == Fog::Mixed || load == Load::Busy;
                    let seeds = if drawn && scale == Scale::Full { SEEDS } else { 1 };
                    let seeded = |seed| Self { dnn, fog, nodes, mbit, links, load, seed };
                    all.extend((0..seeds).map(seeded));
                }
            }
        }
        all
    }

    /// Whether its streams are run in virtual time as well.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        let usual = self.fog == Fog::Strong && self.nodes == NODES[1] && self.load == Load::Idle;
        usual && self.links == LinkModel::Parallel
    }

    /// The scenario as planners see it. The camera's own machine computes too.
    ///
    /// # Panics
    /// If there is no profile of the DNN for a camera.
    #[must_use]
    pub fn site(&self) -> Site {
        let settings = Settings { links: self.links, ..Settings::default() };
        let profile = self.dnn.profile_for(Input::Camera).expect("one of `DNNS`");
        Site { profile, workers: self.workers(), settings }
    }

    fn workers(&self) -> Vec<Worker> {
        let kinds = Machine::presets();
        let kind =
            |name: &str| kinds.iter().find(|kind| kind.name == name).expect("one of the presets");
        let mixed = [kind("pi4"), kind("jetson-nano"), kind("laptop")];
        let mut random = generator(self.seed, Purpose::Workload);
        let node = |number: u8| {
            // Drawn for every kind of fog, so that the same seed means the same load in each.
            let (any, others) = (random.random_range(0..mixed.len()), random.random_range(0..=2));
            let machine = match self.fog {
                Fog::Alike => mixed[0],
                Fog::Mixed => mixed[any],
                Fog::Strong => mixed[1],
            };
            let sharers = match self.load {
                Load::Busy => 1 + others,
                Load::Idle => 1,
            };
            worker(number, machine.speed(), self.mbit, machine.memory, sharers)
        };
        let own = worker(0, mixed[0].speed(), self.mbit, mixed[0].memory, 1);
        [own].into_iter().chain((1..=self.nodes).map(node)).collect()
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dnn, fog, nodes, mbit, load, seed, .. } = self;
        let (dnn, fog, load) = (dnn.name(), fog.name(), load.name());
        write!(f, "{dnn}, {nodes} {fog} nodes, {mbit} Mbit/s, {load}, seed {seed}")
    }
}

impl Fog {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Alike, Self::Mixed, Self::Strong];

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alike => "alike",
            Self::Mixed => "mixed",
            Self::Strong => "strong",
        }
    }
}

impl Load {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Idle, Self::Busy];

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Idle => "idle",
        }
    }
}

/// Those of the paper, as others report them.
pub const DNNS: [Dnn; 4] = [Dnn::AlexNet, Dnn::Nin, Dnn::ResNet34, Dnn::Vgg16];
/// Fog nodes.
pub const NODES: [u8; 3] = [2, 4, 6];
/// Of links.
pub const MBIT: [f64; 4] = [50.0, 100.0, 300.0, 1000.0];
/// Of each scenario in which something is drawn.
pub const SEEDS: u64 = 3;
