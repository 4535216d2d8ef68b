//! From layers to steps: which kernel, which layout, which place in memory.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::Source;
use super::choose::{self, Method};
use super::fuse::{Together, finish, is_image_mean, pooled, residuals, separables};
use super::lives::Part;
use crate::exec::kernels::blocks::Join;
use crate::exec::kernels::panels::Panels;
use crate::exec::kernels::pool::Pooling;
use crate::exec::kernels::tile::Finish;
use crate::exec::kernels::{BLOCK, Plane, blocks};
use crate::graph::{Binary, Gemm, Layer, Op, Operand, TensorId, Window};
use crate::options::{Kernels, LoadOptions, Memory};
use crate::shape;
use crate::tensor::{DType, TensorInfo};

/// The steps of a piece.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// One for each step.
    pub(crate) recipes: Vec<Recipe>,
    /// Where each buffer is in the arena.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Values of the arena.
    pub(crate) arena: usize,
    /// How many Burn values there are.
    pub(crate) values: usize,
    pub(crate) endings: Vec<Ending>,
    pub(crate) layers: usize,
    pub(crate) memory: Memory,
}

/// One kernel's work.
pub(crate) struct Step {
    pub(crate) work: Work,
    /// How many layers are done after it.
    pub(crate) done: usize,
}

/// What goes where.
pub(crate) enum Work {
    /// By an own kernel.
    Compute { inputs: Vec<Place>, output: usize },
    /// By one of Burn's, which takes some values over.
    Burn { inputs: Vec<usize>, outputs: Vec<usize>, release: Vec<usize> },
    /// From planes to a Burn value.
    Upload { input: Place, value: usize },
    /// From a Burn value to planes.
    Download { value: usize, output: usize, release: bool },
}

/// Where planes or blocks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// An input of the piece: planes.
    Input(usize),
    /// A buffer of the arena.
    Buffer(usize),
}

/// How the kernel of a step is made.
pub(crate) enum Recipe {
    Burn(Box<Layer>),
    Concat {
        images: usize,
    },
    Conv {
        layer: usize,
        method: Method,
        channels: usize,
        plane: Plane,
        finish: Finish,
        images: usize,
    },
    Gemm {
        layer: usize,
        finish: Finish,
    },
    Join {
        join: Join,
        finish: Finish,
    },
    /// Values move, and nothing is computed.
    Move,
    Norm {
        layer: usize,
        plane: Plane,
        finish: Finish,
        images: usize,
    },
    Pack {
        channels: usize,
        images: usize,
    },
    Pool {
        plane: Plane,
        window: Window,
        pooling: Pooling,
        finish: Finish,
    },
    Scale {
        finish: Finish,
        images: usize,
    },
    /// A convolution of which only the maximum of every two by two outputs is kept.
    Pooled(Box<Recipe>),
    /// A depthwise convolution with the 1x1 convolutions around it: a recipe for each.
    Separable(Vec<Recipe>),
    Unpack {
        channels: usize,
        images: usize,
    },
}

/// Where an output of the piece is when the steps are done.
pub(crate) enum Ending {
    Blocked(usize, TensorInfo),
    /// It is an input, under its own shape.
    Given(usize, TensorInfo),
    Planar(usize, TensorInfo),
    Value(usize, TensorInfo),
}

/// Plans a piece.
pub(crate) fn plan(source: Source<'_>, options: &LoadOptions) -> Plan {
    let mut methods = methods(source, options);
    loop {
        let plan = Planner::new(source, &methods, options.kernels).plan();
        let total = plan.memory.weights + plan.memory.activations;
        if options.memory.is_none_or(|limit| total <= limit) || !shrink(source, &mut methods) {
            return plan;
        }
    }
}

/// The best kernel of each convolution.
fn methods(source: Source<'_>, options: &LoadOptions) -> HashMap<usize, Method> {
    if options.kernels == Kernels::Portable {
        return HashMap::new();
    }
    let method = |(i, layer): (usize, &Layer)| {
        let Op::Conv(conv) = &layer.op else { return None };
        let input = &source.tensors[layer.inputs.first()?.0];
        let output = &source.tensors[layer.outputs.first()?.0];
        let whole = layer.inputs.len() == 1 && input.dtype == DType::F32 && input.shape.len() == 4;
        let out_size = whole.then(|| [output.shape[2], output.shape[3]])?;
        Some((i, choose::method(conv, input.shape[1], out_size, options)?))
    };
    source.layers.iter().enumerate().filter_map(method).collect()
}

/// Takes a smaller kernel where that saves most; false if there is none.
fn shrink(source: Source<'_>, methods: &mut HashMap<usize, Method>) -> bool {
    let saved = |layer: usize, method: Method| {
        let Op::Conv(conv) = &source.layers[layer].op else { return None };
        let smaller = method.smaller()?;
        let bytes = method.weight_bytes(conv).saturating_sub(smaller.weight_bytes(conv));
        Some((bytes, layer, smaller))
    };
    let best = methods
        .iter()
        .filter_map(|(&layer, &method)| saved(layer, method))
        .max_by_key(|&(bytes, layer, _)| (bytes, layer));
    let Some((_, layer, smaller)) = best else { return false };
    methods.insert(layer, smaller);
    true
}

/// In which forms a tensor exists so far.
#[derive(Debug, Clone, Copy, Default)]
struct Forms {
    input: Option<usize>,
    planar: Option<usize>,
    blocked: Option<usize>,
    value: Option<usize>,
}

pub(super) struct Planner<'a> {
    pub(super) source: Source<'a>,
    methods: &'a HashMap<usize, Method>,
    kernels: Kernels,
    forms: HashMap<TensorId, Forms>,
    /// Convolutions that wait for the sum that they become a part of, by their output.
    postponed: HashMap<TensorId, usize>,
    /// To some 1x1 convolutions, what is computed with them.
    separables: HashMap<usize, Together>,
    /// To some poolings, the convolution that does them.
    pooled: HashMap<usize, usize>,
    pub(super) steps: Vec<Step>,
    pub(super) recipes: Vec<Recipe>,
    pub(super) buffers: Vec<usize>,
    /// How many steps there were when each buffer was planned.
    planned: Vec<usize>,
    pub(super) parts: HashMap<usize, Part>,
    /// Bytes of each Burn value.
    pub(super) values: Vec<u64>,
    pub(super) weights: u64,
}

impl<'a> Planner<'a> {
    fn new(source: Source<'a>, methods: &'a HashMap<usize, Method>, kernels: Kernels) -> Self {
        let forms = source.inputs.iter().enumerate();
        Self {
            source,
            methods,
            kernels,
            forms: forms
                .map(|(i, &id)| (id, Forms { input: Some(i), ..Forms::default() }))
                .collect(),
            postponed: HashMap::new(),
            separables: separables(source, methods),
            pooled: pooled(source, methods),
            steps: Vec::new(),
            recipes: Vec::new(),
            buffers: Vec::new(),
            planned: Vec::new(),
            parts: HashMap::new(),
            values: Vec::new(),
            weights: 0,
        }
    }

    fn plan(mut self) -> Plan {
        let residuals = residuals(self.source, self.methods);
        let with_others: HashSet<usize> = self
            .separables
            .values()
            .flat_map(|one| one.widen.into_iter().chain([one.depthwise]))
            .chain(self.pooled.values().copied())
            .collect();
        for index in 0..self.source.layers.len() {
            let layer = &self.source.layers[index];
            if residuals.contains_key(&index) {
                self.postponed.insert(layer.outputs[0], index);
                continue;
            }
            if !with_others.contains(&index) && !self.own(index, layer) {
                self.burn(index, layer);
            }
        }
        let endings = self.source.outputs.iter().map(|&id| self.ending(id)).collect();
        self.finish(endings)
    }

    fn info(&self, id: TensorId) -> &'a TensorInfo {
        &self.source.tensors[id.0]
    }

    /// Plans a layer with own kernels, if there are some for it.
    fn own(&mut self, index: usize, layer: &'a Layer) -> bool {
        if self.kernels == Kernels::Portable {
            return false;
        }
        let f32s = layer.inputs.iter().chain(&layer.outputs);
        if layer.outputs.len() != 1 || f32s.clone().any(|&id| self.info(id).dtype != DType::F32) {
            return false;
        }
        let finish = finish(layer.activation);
        match (&layer.op, finish) {
            (Op::Flatten | Op::Reshape, _) if layer.activation.is_none() => {
                self.rename(index, layer);
                true
            }
            (Op::Conv(_), _) if self.methods.contains_key(&index) => {
                self.conv(index, index, layer, None, finish.unwrap_or(Finish::NONE));
                if finish.is_none() {
                    self.activate(index, layer);
                }
                true
            }
            (Op::Add(Operand::Activation), Some(finish)) => self.add(index, layer, finish),
            (Op::Activation, Some(finish)) => self.element_wise(index, layer, Join::Add, finish),
            (Op::Binary(Binary::Mul), Some(finish)) => self.multiply(index, layer, finish),
            (Op::MaxPool(_), _) if self.pooled.contains_key(&index) => {
                self.conv_and_pool(index, self.pooled[&index], layer.outputs[0]);
                true
            }
            (Op::MaxPool(pool), Some(finish)) => {
                self.pool(index, layer, pool.window, Pooling::Max, finish)
            }
            (Op::AveragePool(pool), Some(finish)) => {
                let pooling = Pooling::Mean { count_padding: pool.count_include_pad };
                self.pool(index, layer, pool.window, pooling, finish)
            }
            (Op::GlobalAveragePool, Some(finish)) => self.mean(index, layer, finish),
            (Op::Reduce(reduce), Some(finish)) if is_image_mean(reduce) => {
                self.mean(index, layer, finish)
            }
            (Op::Concat { axis: 1 }, Some(finish)) if finish == Finish::NONE => {
                self.concat(index, layer)
            }
            (Op::BatchNorm(_), Some(finish)) => self.norm(index, layer, finish),
            (Op::Gemm(gemm), Some(finish)) => self.gemm(index, layer, gemm, finish),
            _ => false,
        }
    }

    fn push(&mut self, index: usize, work: Work, recipe: Recipe) {
        self.steps.push(Step { work, done: index + 1 });
        self.recipes.push(recipe);
    }

    fn buffer(&mut self, len: usize) -> usize {
        self.buffers.push(len);
        self.planned.push(self.steps.len());
        self.buffers.len() - 1
    }

    fn compute(&mut self, index: usize, recipe: Recipe, inputs: Vec<Place>, len: usize) -> usize {
        let output = self.buffer(len);
        self.push(index, Work::Compute { inputs, output }, recipe);
        output
    }

    fn forms(&self, id: TensorId) -> Forms {
        self.forms.get(&id).copied().unwrap_or_default()
    }

    fn set(&mut self, id: TensorId, set: impl FnOnce(&mut Forms)) {
        set(self.forms.entry(id).or_default());
    }

    /// The tensor in planes, brought there if need be.
    fn planar(&mut self, index: usize, id: TensorId) -> Place {
        let forms = self.forms(id);
        if let Some(input) = forms.input {
            return Place::Input(input);
        }
        if let Some(buffer) = forms.planar {
            return Place::Buffer(buffer);
        }
        let info = self.info(id);
        let len = info.elements() as usize;
        let buffer = if let Some(blocked) = forms.blocked {
            if same_in_blocks(info) {
                blocked
            } else {
                let recipe = Recipe::Unpack { channels: info.shape[1], images: info.shape[0] };
                self.compute(index, recipe, vec![Place::Buffer(blocked)], len)
            }
        } else {
            let value = forms.value.expect("a tensor is made before it is read");
            let output = self.buffer(len);
            self.push(index, Work::Download { value, output, release: false }, Recipe::Move);
            output
        };
        self.set(id, |forms| forms.planar = Some(buffer));
        Place::Buffer(buffer)
    }

    /// The image in blocks, brought there if need be.
    fn blocked(&mut self, index: usize, id: TensorId) -> Place {
        if let Some(buffer) = self.forms(id).blocked {
            return Place::Buffer(buffer);
        }
        let info = self.info(id);
        let planar = self.planar(index, id);
        if let Place::Buffer(buffer) = planar
            && same_in_blocks(info)
        {
            self.set(id, |forms| forms.blocked = Some(buffer));
            return planar;
        }
        let recipe = Recipe::Pack { channels: info.shape[1], images: info.shape[0] };
        let buffer = self.compute(index, recipe, vec![planar], blocked_len(info));
        self.set(id, |forms| forms.blocked = Some(buffer));
        Place::Buffer(buffer)
    }

    /// The tensor as a Burn value, made one if need be.
    fn value(&mut self, index: usize, id: TensorId) -> usize {
        let forms = self.forms(id);
        if let Some(value) = forms.value {
            return value;
        }
        let input = match forms.input {
            Some(input) => Place::Input(input),
            None => self.planar(index, id),
        };
        let value = self.new_value(id);
        self.push(index, Work::Upload { input, value }, Recipe::Move);
        self.set(id, |forms| forms.value = Some(value));
        value
    }

    fn new_value(&mut self, id: TensorId) -> usize {
        self.values.push(self.info(id).bytes());
        self.values.len() - 1
    }

    /// A layer by Burn's operators.
    fn burn(&mut self, index: usize, layer: &Layer) {
        let inputs = layer.inputs.iter().map(|&id| self.value(index, id)).collect();
        let outputs: Vec<usize> = layer.outputs.iter().map(|&id| self.new_value(id)).collect();
        for (&id, &value) in layer.outputs.iter().zip(&outputs) {
            self.forms.insert(id, Forms { value: Some(value), ..Forms::default() });
        }
        self.weights +=
            layer.weights().iter().map(|weight| weight.bytes().len() as u64).sum::<u64>();
        let work = Work::Burn { inputs, outputs, release: Vec::new() };
        self.push(index, work, Recipe::Burn(Box::new(layer.clone())));
    }

    /// An activation that no own kernel has, by Burn, on the layer's own output.
    fn activate(&mut self, index: usize, layer: &Layer) {
        let mut alone = layer.clone();
        alone.op = Op::Activation;
        alone.inputs.clone_from(&layer.outputs);
        alone.constants.clear();
        self.burn(index, &alone);
    }

    /// The same values under another shape.
    fn rename(&mut self, index: usize, layer: &Layer) {
        let (input, output) = (layer.inputs[0], layer.outputs[0]);
        let forms = self.forms(input);
        let forms = match (forms.input, forms.value) {
            (None, None) => match self.planar(index, input) {
                Place::Buffer(buffer) => Forms { planar: Some(buffer), ..Forms::default() },
                Place::Input(i) => Forms { input: Some(i), ..Forms::default() },
            },
            // An input as another tensor must be its own Burn value: only planes are shared.
            (Some(i), _) => Forms { input: Some(i), ..Forms::default() },
            (None, value) => Forms { value, planar: forms.planar, ..Forms::default() },
        };
        self.forms.insert(output, forms);
    }

    /// A convolution, made at layer `index`; with a residual, `layer` is the sum.
    fn conv(
        &mut self,
        index: usize,
        conv_index: usize,
        layer: &Layer,
        residual: Option<TensorId>,
        finish: Finish,
    ) {
        let output = layer.outputs[0];
        let last = self.conv_recipe(conv_index, output, finish);
        let (first, recipe) = match self.separables.get(&conv_index).copied() {
            Some(Together { widen, depthwise }) => {
                let widened = widen.map(|layer| self.part_recipe(layer));
                let recipes = widened.into_iter().chain([self.part_recipe(depthwise), last]);
                (widen.unwrap_or(depthwise), Recipe::Separable(recipes.collect()))
            }
            None => (conv_index, last),
        };
        let mut inputs = vec![self.conv_input(index, first)];
        inputs.extend(residual.map(|id| self.blocked(index, id)));
        let len = blocked_len(self.info(output));
        let buffer = self.compute(index, recipe, inputs, len);
        self.set(output, |forms| forms.blocked = Some(buffer));
    }

    /// The input of a convolution, as its kernel reads it.
    fn conv_input(&mut self, index: usize, conv_index: usize) -> Place {
        let input = self.source.layers[conv_index].inputs[0];
        match self.methods[&conv_index] {
            Method::Planar => self.planar(index, input),
            _ => self.blocked(index, input),
        }
    }

    /// A convolution with the pooling after it, made at layer `index`.
    fn conv_and_pool(&mut self, index: usize, conv_index: usize, output: TensorId) {
        let recipe = Recipe::Pooled(Box::new(self.part_recipe(conv_index)));
        let input = self.conv_input(index, conv_index);
        let buffer = self.compute(index, recipe, vec![input], blocked_len(self.info(output)));
        self.set(output, |forms| forms.blocked = Some(buffer));
    }

    /// How a convolution is made that is computed with the layer after it.
    fn part_recipe(&mut self, index: usize) -> Recipe {
        let layer = &self.source.layers[index];
        let finish = finish(layer.activation).expect("only those that have one are chosen");
        self.conv_recipe(index, layer.outputs[0], finish)
    }

    /// How one convolution is made, whose weights are counted here.
    fn conv_recipe(&mut self, index: usize, output: TensorId, finish: Finish) -> Recipe {
        let (layer, method) = (&self.source.layers[index], self.methods[&index]);
        if let Op::Conv(conv) = &layer.op {
            self.weights += method.weight_bytes(conv);
        }
        let (images, channels, plane) = self.geometry(layer.inputs[0], output);
        Recipe::Conv { layer: index, method, channels, plane, finish, images }
    }

    /// Images, input channels and sizes of a layer from images to images.
    fn geometry(&self, input: TensorId, output: TensorId) -> (usize, usize, Plane) {
        let (input, output) = (&self.info(input).shape, &self.info(output).shape);
        let plane = Plane { size: [input[2], input[3]], out_size: [output[2], output[3]] };
        (input[0], input[1], plane)
    }

    fn add(&mut self, index: usize, layer: &Layer, finish: Finish) -> bool {
        let &[left, right] = &layer.inputs[..] else { return false };
        if self.info(left).shape != self.info(right).shape {
            return false;
        }
        for (conv, other) in [(right, left), (left, right)] {
            if let Some(conv_index) = self.postponed.remove(&conv) {
                self.conv(index, conv_index, layer, Some(other), finish);
                return true;
            }
        }
        self.element_wise(index, layer, Join::Add, finish)
    }

    /// A product of two tensors, or of an image and a factor for each of its channels.
    fn multiply(&mut self, index: usize, layer: &Layer, finish: Finish) -> bool {
        let &[left, right] = &layer.inputs[..] else { return false };
        let shapes = [left, right].map(|id| &self.info(id).shape[..]);
        if shapes[0] == shapes[1] {
            return self.element_wise(index, layer, Join::Multiply, finish);
        }
        let of = |image: &[usize], factors: &[usize]| match (image, factors) {
            ([n, c, _, _], [factor_n, factor_c, 1, 1]) => (n, c) == (factor_n, factor_c),
            _ => false,
        };
        let (image, factors) = match (of(shapes[0], shapes[1]), of(shapes[1], shapes[0])) {
            (true, _) => (left, right),
            (_, true) => (right, left),
            _ => return false,
        };
        let inputs = vec![self.blocked(index, image), self.blocked(index, factors)];
        let info = self.info(layer.outputs[0]);
        let recipe = Recipe::Scale { finish, images: info.shape[0] };
        let buffer = self.compute(index, recipe, inputs, blocked_len(info));
        self.set(layer.outputs[0], |forms| forms.blocked = Some(buffer));
        true
    }

    /// A sum, a product or an activation, in blocks if everything is there already.
    fn element_wise(&mut self, index: usize, layer: &Layer, join: Join, finish: Finish) -> bool {
        let output = layer.outputs[0];
        let in_blocks = layer.inputs.iter().any(|&id| self.forms(id).blocked.is_some());
        if in_blocks {
            let inputs = layer.inputs.iter().map(|&id| self.blocked(index, id)).collect();
            let len = blocked_len(self.info(output));
            let buffer = self.compute(index, Recipe::Join { join, finish }, inputs, len);
            self.set(output, |forms| forms.blocked = Some(buffer));
        } else {
            let inputs = layer.inputs.iter().map(|&id| self.planar(index, id)).collect();
            let len = self.info(output).elements() as usize;
            let buffer = self.compute(index, Recipe::Join { join, finish }, inputs, len);
            self.set(output, |forms| forms.planar = Some(buffer));
        }
        true
    }

    /// The mean of each channel, if it stays an image.
    fn mean(&mut self, index: usize, layer: &Layer, finish: Finish) -> bool {
        let shapes = [layer.inputs[0], layer.outputs[0]].map(|id| &self.info(id).shape[..]);
        let &[&[_, _, height, width], &[_, _, 1, 1]] = &shapes else { return false };
        let window = Window {
            kernel: [height, width],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [(0, 0); 2],
        };
        self.pool(index, layer, window, Pooling::Mean { count_padding: false }, finish)
    }

    fn pool(
        &mut self,
        index: usize,
        layer: &Layer,
        window: Window,
        pooling: Pooling,
        finish: Finish,
    ) -> bool {
        let (input, output) = (layer.inputs[0], layer.outputs[0]);
        if self.info(input).shape.len() != 4 {
            return false;
        }
        let places = vec![self.blocked(index, input)];
        let (_, _, plane) = self.geometry(input, output);
        let recipe = Recipe::Pool { plane, window, pooling, finish };
        let buffer = self.compute(index, recipe, places, blocked_len(self.info(output)));
        self.set(output, |forms| forms.blocked = Some(buffer));
        true
    }

    /// Joins channels, if all but the last input fill their blocks.
    fn concat(&mut self, index: usize, layer: &Layer) -> bool {
        let output = layer.outputs[0];
        let (_, but_last) = layer.inputs.split_last().expect("a concatenation has inputs");
        let whole = |&id: &TensorId| self.info(id).shape[1].is_multiple_of(BLOCK);
        if self.info(output).shape.len() != 4 || !but_last.iter().all(whole) {
            return false;
        }
        let inputs: Vec<_> = layer.inputs.iter().map(|&id| self.blocked(index, id)).collect();
        let info = self.info(output);
        let images = info.shape[0];
        let buffer = match self.separate(&inputs).filter(|_| images == 1) {
            Some(buffers) => self.join_buffers(&buffers),
            None => self.compute(index, Recipe::Concat { images }, inputs, blocked_len(info)),
        };
        self.set(output, |forms| forms.blocked = Some(buffer));
        true
    }

    /// The buffers of these places, if each may become a part of one: it is no part yet, and was
    /// planned a few steps ago. The whole is there as long as any of its parts, so an old part
    /// would take the memory of all for a long time.
    fn separate(&self, places: &[Place]) -> Option<Vec<usize>> {
        let mut seen = HashSet::new();
        let mut buffer = |place: &Place| match *place {
            Place::Buffer(buffer)
                if !self.parts.contains_key(&buffer)
                    && self.planned[buffer] + PARTS_STEPS_MAX >= self.steps.len()
                    && seen.insert(buffer) =>
            {
                Some(buffer)
            }
            _ => None,
        };
        places.iter().map(&mut buffer).collect()
    }

    /// One buffer of which these are the parts, one after the other: what writes them writes there,
    /// and nothing is copied.
    fn join_buffers(&mut self, buffers: &[usize]) -> usize {
        let whole = self.buffer(buffers.iter().map(|&buffer| self.buffers[buffer]).sum());
        let mut offset = 0;
        for &buffer in buffers {
            self.parts.insert(buffer, Part { whole, offset });
            offset += self.buffers[buffer];
        }
        whole
    }

    fn norm(&mut self, index: usize, layer: &Layer, finish: Finish) -> bool {
        let (input, output) = (layer.inputs[0], layer.outputs[0]);
        if self.info(input).shape.len() != 4 {
            return false;
        }
        let (images, channels, plane) = self.geometry(input, output);
        let places = vec![self.blocked(index, input)];
        self.weights += (blocks(channels) * BLOCK * 8) as u64;
        let recipe = Recipe::Norm { layer: index, plane, finish, images };
        let buffer = self.compute(index, recipe, places, blocked_len(self.info(output)));
        self.set(output, |forms| forms.blocked = Some(buffer));
        true
    }

    fn gemm(&mut self, index: usize, layer: &Layer, gemm: &Gemm, finish: Finish) -> bool {
        let output = layer.outputs[0];
        let outputs = self.info(output).shape[1];
        // The same bias for every row, and rows as they are stored.
        let by_column = |shape: &[usize]| {
            shape::product(shape) == 1
                || (shape.last() == Some(&outputs) && shape::product(shape) == outputs)
        };
        let fits = gemm.bias.as_ref().is_none_or(|bias| by_column(bias.shape()));
        if gemm.transpose_input || !fits || layer.inputs.len() != 1 {
            return false;
        }
        let inputs = vec![self.planar(index, layer.inputs[0])];
        let depth = self.info(layer.inputs[0]).shape[1];
        self.weights += Panels::bytes(outputs, depth);
        let recipe = Recipe::Gemm { layer: index, finish };
        let len = self.info(output).elements() as usize;
        let buffer = self.compute(index, recipe, inputs, len);
        self.set(output, |forms| forms.planar = Some(buffer));
        true
    }

    fn ending(&self, id: TensorId) -> Ending {
        let (forms, info) = (self.forms(id), self.info(id).clone());
        match forms {
            Forms { planar: Some(buffer), .. } => Ending::Planar(buffer, info),
            Forms { blocked: Some(buffer), .. } => Ending::Blocked(buffer, info),
            Forms { value: Some(value), .. } => Ending::Value(value, info),
            Forms { input: Some(input), .. } => Ending::Given(input, info),
            _ => unreachable!("an output is an input or made by a layer"),
        }
    }
}

/// Values of an image in blocks.
fn blocked_len(info: &TensorInfo) -> usize {
    let &[images, channels, height, width] = &info.shape[..] else {
        unreachable!("only images are kept in blocks")
    };
    images * blocks(channels) * BLOCK * height * width
}

/// Whether planes and blocks are the same values in the same order.
fn same_in_blocks(info: &TensorInfo) -> bool {
    matches!(&info.shape[..], [_, channels, 1, 1] if channels.is_multiple_of(BLOCK))
}

/// Steps that may lie between a part of a buffer and the whole.
const PARTS_STEPS_MAX: usize = 16;
