//! The steps of a piece: own kernels where there is one and the device is the processor, Burn's
//! operators for the rest.
//!
//! [`plan`] turns the layers of a piece into steps once, when it is loaded: it picks a kernel for
//! each convolution ([`choose`]), adds residuals where the sum is made, keeps activations in
//! blocks between layers and in planes where a layer wants them so, and gives every activation a
//! place in one arena. [`kernel`] is what a step calls. [`Program`] runs the steps.

pub(crate) mod choose;
mod fuse;
mod kernel;
mod lives;
mod plan;

use std::ops::Range;
use std::sync::Mutex;

use burn::tensor::Device;
use rayon::prelude::*;

use self::kernel::Kernel;
use self::plan::{Ending, Place, Plan, Recipe, Work};
use super::kernels::Isa;
use super::kernels::arena::Arena;
use super::kernels::blocks;
use super::kernels::crew::Crew;
use super::portable;
use super::{Value, download, upload_values};
use crate::graph::{Layer, TensorId};
use crate::mapped::Mapped;
use crate::options::{LoadOptions, Memory};
use crate::tensor::{Tensor, TensorInfo};

/// Layers, and the tensors that they are about.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// All tensors that the layers name.
    pub(crate) tensors: &'a [TensorInfo],
    pub(crate) layers: &'a [Layer],
    pub(crate) inputs: &'a [TensorId],
    pub(crate) outputs: &'a [TensorId],
    /// The files, if that is where the weights are.
    pub(crate) mapped: &'a [Mapped],
}

/// What a piece would hold and need, before it is loaded.
pub(crate) fn memory(source: Source<'_>, options: &LoadOptions) -> Memory {
    plan::plan(source, options).memory
}

/// A piece, ready to run.
pub(crate) struct Program {
    plan: Plan,
    /// One for each step.
    kernels: Vec<Loaded>,
    /// One for each run so far at the same time, to be used again.
    arenas: Mutex<Vec<Arena>>,
    device: Device,
}

/// What a step calls.
enum Loaded {
    Own(Box<Kernel>),
    Burn(portable::Kernel),
    /// It only moves values.
    Nothing,
}

/// What a run has at hand.
struct State<'a> {
    inputs: &'a [Tensor],
    arena: Arena,
    values: Vec<Option<Value>>,
}

impl Program {
    /// Plans the layers and packs their weights.
    pub(crate) fn load(source: Source<'_>, options: &LoadOptions) -> Self {
        let device = options.device.open();
        let isa = Isa::detect();
        let plan = plan::plan(source, options);
        let load = |recipe: &Recipe| match recipe {
            Recipe::Burn(layer) => Loaded::Burn(portable::prepare(source.tensors, layer, &device)),
            Recipe::Move => Loaded::Nothing,
            own => Loaded::Own(Box::new(Kernel::load(own, source, isa))),
        };
        let kernels = plan.recipes.par_iter().map(load).collect();
        let arenas = Mutex::new(vec![Arena::new(plan.arena)]);
        Self { plan, kernels, arenas, device }
    }

    /// What the program holds and needs.
    pub(crate) fn memory(&self) -> Memory {
        self.plan.memory
    }

    /// The layers that are done at the same time, in order.
    pub(crate) fn groups(&self) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let ends = self.plan.steps.iter().map(|step| step.done).chain([self.plan.layers]);
        for end in ends {
            let first = groups.last().map_or(0, |last| last.end);
            if first < end {
                groups.push(first..end);
            }
        }
        groups
    }

    /// Runs once; `after_layer` is told the number of each layer that is done, from 0.
    pub(crate) fn run(&self, inputs: &[Tensor], after_layer: &mut dyn FnMut(usize)) -> Vec<Tensor> {
        let arena = self.arenas().pop().unwrap_or_else(|| Arena::new(self.plan.arena));
        let mut state = State { inputs, arena, values: vec![None; self.plan.values] };
        let mut told = 0;
        let mut tell = |done: usize| {
            while told < done {
                after_layer(told);
                told += 1;
            }
        };
        let mut at = 0;
        while at < self.plan.steps.len() {
            // Burn's operators call for threads of their own, so no crew must hold them then.
            let own = self.kernels[at..].iter().take_while(|loaded| loaded.is_own()).count();
            Crew::gather_if(own > 0, |crew| {
                for step in at..at + own {
                    self.compute(step, crew, &mut state);
                    tell(self.plan.steps[step].done);
                }
            });
            at += own;
            if at < self.plan.steps.len() {
                self.compute(at, &Crew::alone(), &mut state);
                tell(self.plan.steps[at].done);
                at += 1;
            }
        }
        tell(self.plan.layers);
        let outputs = self.plan.endings.iter().map(|ending| self.end(ending, &state)).collect();
        self.arenas().push(state.arena);
        outputs
    }

    fn arenas(&self) -> std::sync::MutexGuard<'_, Vec<Arena>> {
        // A run that panicked took its arena with it: those here are whole.
        self.arenas.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn compute(&self, step: usize, crew: &Crew<'_>, state: &mut State<'_>) {
        match (&self.plan.steps[step].work, &self.kernels[step]) {
            (Work::Compute { inputs, output }, Loaded::Own(kernel)) => {
                self.compute_own(kernel, inputs, *output, crew, state);
            }
            (Work::Burn { inputs, outputs, release }, Loaded::Burn(kernel)) => {
                let taken = inputs.iter().map(|&i| state.values[i].clone()).collect::<Option<_>>();
                for &i in release {
                    state.values[i] = None;
                }
                let results = kernel.run(taken.expect("values are made before they are read"));
                for (&i, result) in outputs.iter().zip(results) {
                    state.values[i] = Some(result);
                }
            }
            (Work::Upload { input, value }, _) => {
                state.values[*value] = Some(match input {
                    Place::Input(i) => super::upload(&state.inputs[*i], &self.device),
                    Place::Buffer(i) => {
                        upload_values(state.arena.read(&self.plan.ranges[*i]), &self.device)
                    }
                });
            }
            (Work::Download { value, output, release }, _) => {
                let taken = state.values[*value].clone();
                if *release {
                    state.values[*value] = None;
                }
                let data = taken.expect("values are made before they are read").into_float();
                let data = data.into_data();
                let values = data.as_slice::<f32>().expect("the value is of type f32");
                let (output, _) = state.arena.split(&self.plan.ranges[*output], &[]);
                output.copy_from_slice(values);
            }
            _ => unreachable!("kernels are loaded for the steps that they serve"),
        }
    }

    fn compute_own(
        &self,
        kernel: &Kernel,
        inputs: &[Place],
        output: usize,
        crew: &Crew<'_>,
        state: &mut State<'_>,
    ) {
        let buffers: Vec<_> = inputs
            .iter()
            .filter_map(|place| match place {
                Place::Buffer(i) => Some(self.plan.ranges[*i].clone()),
                Place::Input(_) => None,
            })
            .collect();
        let (output, buffers) = state.arena.split(&self.plan.ranges[output], &buffers);
        let mut buffers = buffers.into_iter();
        let inputs: Vec<&[f32]> = inputs
            .iter()
            .map(|place| match place {
                Place::Input(i) => state.inputs[*i].as_f32(),
                Place::Buffer(_) => buffers.next().expect("one for each such place"),
            })
            .collect();
        kernel.run(crew, &inputs, output);
    }

    fn end(&self, ending: &Ending, state: &State<'_>) -> Tensor {
        match ending {
            Ending::Given(i, info) => {
                let bytes = state.inputs[*i].clone().into_bytes();
                Tensor::from_bytes(info.dtype, info.shape.clone(), bytes)
                    .expect("another shape for as many values")
            }
            Ending::Value(i, info) => {
                let value = state.values[*i].clone();
                download(value.expect("outputs are made and kept"), info)
            }
            Ending::Planar(buffer, info) => {
                tensor(info, state.arena.read(&self.plan.ranges[*buffer]).to_vec())
            }
            Ending::Blocked(buffer, info) => {
                let blocked = state.arena.read(&self.plan.ranges[*buffer]);
                let mut planar = vec![0.0; info.elements() as usize];
                let (images, channels) = (info.shape[0], info.shape[1]);
                let pairs = blocked
                    .chunks_exact(blocked.len() / images)
                    .zip(planar.chunks_exact_mut(info.elements() as usize / images));
                for (blocked, planar) in pairs {
                    blocks::unpack(&Crew::alone(), channels, blocked, planar);
                }
                tensor(info, planar)
            }
        }
    }
}

impl Loaded {
    fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

fn tensor(info: &TensorInfo, values: Vec<f32>) -> Tensor {
    Tensor::from_f32(info.shape.clone(), values).expect("as many values as the shape says")
}
