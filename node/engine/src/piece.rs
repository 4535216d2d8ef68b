//! Pieces: layers loaded on a device, ready to run.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use crate::device::DeviceChoice;
use crate::error::{LoadError, RunError};
use crate::exec::portable::{self, Kernel};
use crate::exec::{self, Value};
use crate::graph::{Layer, TensorId};
use crate::model::Model;
use crate::tensor::{Tensor, TensorInfo};

/// A range of a model's layers, folded, with its weights on a device.
///
/// Running it changes nothing in it: threads may share one, and each run has its own activations.
pub struct Piece {
    layers: Range<usize>,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    steps: Vec<Step>,
    /// Which slots the piece's outputs are in at the end.
    results: Vec<usize>,
    slots: usize,
    weight_bytes: u64,
    peak_activation_bytes: u64,
    device: burn::tensor::Device,
}

/// A layer in the order of execution, with the slots of its activations.
struct Step {
    kernel: Kernel,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    /// The slots that no later step reads.
    release: Vec<usize>,
}

impl Piece {
    /// Loads a range of layers; the whole model is `0..model.layers().len()`.
    ///
    /// # Errors
    /// When the range is empty or goes beyond the model.
    pub fn load(
        model: &Model,
        layers: Range<usize>,
        device: DeviceChoice,
    ) -> Result<Self, LoadError> {
        let count = model.layers().len();
        if layers.start >= layers.end || layers.end > count {
            return Err(LoadError::Range { range: layers, layers: count });
        }
        let device = device.open();
        let inputs = model.frontier(layers.start).to_vec();
        let outputs = model.frontier(layers.end).to_vec();
        let range = &model.layers()[layers.clone()];
        let mut slots = Slots::new(model);
        for info in &inputs {
            slots.slot(info);
        }
        let mut steps: Vec<Step> = range
            .iter()
            .map(|layer| Step {
                inputs: layer.inputs.iter().map(|&id| slots.by_id(id)).collect(),
                outputs: layer.outputs.iter().map(|&id| slots.by_id(id)).collect(),
                kernel: portable::prepare(&model.graph().tensors, layer, &device),
                release: Vec::new(),
            })
            .collect();
        let results: Vec<usize> = outputs.iter().map(|info| slots.slot(info)).collect();
        mark_releases(&mut steps, &results);
        let peak_activation_bytes = peak_bytes(&steps, &slots.bytes, inputs.len());
        Ok(Self {
            weight_bytes: weight_bytes(range),
            slots: slots.bytes.len(),
            layers,
            inputs,
            outputs,
            steps,
            results,
            peak_activation_bytes,
            device,
        })
    }

    /// The layers of the model that the piece runs.
    pub fn layers(&self) -> Range<usize> {
        self.layers.clone()
    }

    /// What [`run`](Self::run) takes, in order.
    pub fn input_info(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// What [`run`](Self::run) gives, in order.
    pub fn output_info(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Bytes of the weights, as they are in the file.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// The most bytes of activations alive at once in a run, without an operator's scratch space.
    pub fn peak_activation_bytes(&self) -> u64 {
        self.peak_activation_bytes
    }

    /// Runs the piece once.
    ///
    /// The same inputs give the same bytes; on the CPU, whatever the number of threads.
    ///
    /// # Errors
    /// When the number, the types or the shapes of the inputs are not those of [`input_info`](Self::input_info).
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        self.run_observed(inputs, &mut |_| ())
    }

    /// Runs the piece once, and tells after each layer which one of the model that was.
    ///
    /// The next layer starts when `after_layer` returns, so a node can pause there.
    ///
    /// # Errors
    /// Like [`run`](Self::run).
    pub fn run_observed(
        &self,
        inputs: &[Tensor],
        after_layer: &mut dyn FnMut(usize),
    ) -> Result<Vec<Tensor>, RunError> {
        self.check(inputs)?;
        let mut slots: Vec<Option<Value>> = vec![None; self.slots];
        for (slot, input) in slots.iter_mut().zip(inputs) {
            *slot = Some(exec::upload(input, &self.device));
        }
        for (step, layer) in self.steps.iter().zip(self.layers.clone()) {
            let outputs = step.kernel.run(step.take_inputs(&mut slots));
            for (&slot, output) in step.outputs.iter().zip(outputs) {
                slots[slot] = Some(output);
            }
            after_layer(layer);
        }
        let download = |(&slot, info): (&usize, &TensorInfo)| {
            let value =
                slots[slot].take().expect("every result is computed or an input, and listed once");
            exec::download(value, info)
        };
        Ok(self.results.iter().zip(&self.outputs).map(download).collect())
    }

    fn check(&self, inputs: &[Tensor]) -> Result<(), RunError> {
        if inputs.len() != self.inputs.len() {
            return Err(RunError::InputCount { expected: self.inputs.len(), actual: inputs.len() });
        }
        for (info, input) in self.inputs.iter().zip(inputs) {
            let name = info.name.clone();
            if info.dtype != input.dtype() {
                let (expected, actual) = (info.dtype, input.dtype());
                return Err(RunError::InputType { name, expected, actual });
            }
            if info.shape != input.shape() {
                let (expected, actual) = (info.shape.clone(), input.shape().to_vec());
                return Err(RunError::InputShape { name, expected, actual });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece")
            .field("layers", &self.layers)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Step {
    /// The step's inputs. The last reader of a value owns it, and may compute in its place.
    fn take_inputs(&self, slots: &mut [Option<Value>]) -> Vec<Value> {
        let inputs =
            self.inputs.iter().map(|&slot| slots[slot].clone()).collect::<Option<Vec<_>>>();
        for &slot in &self.release {
            slots[slot] = None;
        }
        inputs.expect("a layer's inputs are made before it and released after their last reader")
    }
}

/// Numbers the activations of a piece, its inputs first.
struct Slots<'a> {
    model: &'a Model,
    by_name: HashMap<String, usize>,
    bytes: Vec<u64>,
}

impl<'a> Slots<'a> {
    fn new(model: &'a Model) -> Self {
        Self { model, by_name: HashMap::new(), bytes: Vec::new() }
    }

    fn by_id(&mut self, id: TensorId) -> usize {
        self.slot(self.model.tensor(id))
    }

    fn slot(&mut self, info: &TensorInfo) -> usize {
        *self.by_name.entry(info.name.clone()).or_insert_with(|| {
            self.bytes.push(info.bytes());
            self.bytes.len() - 1
        })
    }
}

fn mark_releases(steps: &mut [Step], results: &[usize]) {
    let mut needed: std::collections::HashSet<usize> = results.iter().copied().collect();
    for step in steps.iter_mut().rev() {
        let Step { inputs, release, .. } = step;
        release.extend(inputs.iter().copied().filter(|&slot| needed.insert(slot)));
    }
}

fn peak_bytes(steps: &[Step], bytes: &[u64], inputs: usize) -> u64 {
    let mut alive: u64 = bytes[..inputs].iter().sum();
    let mut peak = alive;
    for step in steps {
        alive += step.outputs.iter().map(|&slot| bytes[slot]).sum::<u64>();
        peak = peak.max(alive);
        alive -= step.release.iter().map(|&slot| bytes[slot]).sum::<u64>();
    }
    peak
}

fn weight_bytes(layers: &[Layer]) -> u64 {
    layers.iter().flat_map(Layer::weights).map(|weight| weight.bytes().len() as u64).sum()
}
