//! When steps are known: how long each buffer and each value is in use, and where it is.

use std::ops::Range;

use super::plan::{Ending, Place, Plan, Planner, Work};
use crate::exec::kernels::arena::{self, Lifetime};
use crate::options::Memory;

/// A buffer that is a part of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The other, which was planned later.
    pub(super) whole: usize,
    /// Where in it, in values.
    pub(super) offset: usize,
}

impl Planner<'_> {
    pub(super) fn finish(mut self, endings: Vec<Ending>) -> Plan {
        self.release_values(&endings);
        let roots = self.roots();
        let lifetimes = self.lifetimes(&endings, &roots);
        let (places, arena) = arena::place(&lifetimes);
        let range = |(buffer, root): (usize, &Part)| -> Range<usize> {
            let start = places[root.whole].start + root.offset;
            start..start + self.buffers[buffer]
        };
        let ranges = roots.iter().enumerate().map(range).collect();
        let activations = arena as u64 * 4 + self.most_value_bytes();
        Plan {
            steps: self.steps,
            recipes: self.recipes,
            ranges,
            arena,
            values: self.values.len(),
            endings,
            layers: self.source.layers.len(),
            memory: Memory { weights: self.weights, activations },
        }
    }

    /// Has every Burn value given up by its last reader.
    fn release_values(&mut self, endings: &[Ending]) {
        let mut needed: std::collections::HashSet<usize> = endings
            .iter()
            .filter_map(|ending| match ending {
                Ending::Value(value, _) => Some(*value),
                _ => None,
            })
            .collect();
        for step in self.steps.iter_mut().rev() {
            match &mut step.work {
                Work::Burn { inputs, release, .. } => {
                    release.extend(inputs.iter().copied().filter(|&value| needed.insert(value)));
                }
                Work::Download { value, release, .. } => *release = needed.insert(*value),
                Work::Compute { .. } | Work::Upload { .. } => {}
            }
        }
    }

    /// The most bytes of Burn values alive at once.
    fn most_value_bytes(&self) -> u64 {
        let (mut alive, mut most) = (0, 0);
        let bytes = |values: &[usize]| values.iter().map(|&value| self.values[value]).sum::<u64>();
        for step in &self.steps {
            let (made, released) = match &step.work {
                Work::Burn { outputs, release, .. } => (bytes(outputs), bytes(release)),
                Work::Upload { value, .. } => (self.values[*value], 0),
                Work::Download { value, release: true, .. } => (0, self.values[*value]),
                Work::Compute { .. } | Work::Download { .. } => (0, 0),
            };
            alive += made;
            most = most.max(alive);
            alive -= released;
        }
        most
    }

    /// A part is in use as long as the whole.
    fn lifetimes(&self, endings: &[Ending], roots: &[Part]) -> Vec<Lifetime> {
        let life = |(buffer, &len): (usize, &usize)| {
            let len = if roots[buffer].whole == buffer { len } else { 0 };
            Lifetime { len, first: usize::MAX, last: 0 }
        };
        let mut lifetimes: Vec<Lifetime> = self.buffers.iter().enumerate().map(life).collect();
        for (i, step) in self.steps.iter().enumerate() {
            let mut used = |buffer: usize| {
                let life = &mut lifetimes[roots[buffer].whole];
                (life.first, life.last) = (life.first.min(i), life.last.max(i));
            };
            let mut read = |place: &Place| {
                if let Place::Buffer(buffer) = place {
                    used(*buffer);
                }
            };
            match &step.work {
                Work::Compute { inputs, output } => {
                    inputs.iter().for_each(&mut read);
                    used(*output);
                }
                Work::Upload { input, .. } => read(input),
                Work::Download { output, .. } => used(*output),
                Work::Burn { .. } => {}
            }
        }
        for ending in endings {
            if let Ending::Planar(buffer, _) | Ending::Blocked(buffer, _) = ending {
                lifetimes[roots[*buffer].whole].last = self.steps.len();
            }
        }
        lifetimes
    }

    /// Of each buffer, which one it is a part of in the end, and where in that: itself, mostly.
    fn roots(&self) -> Vec<Part> {
        let itself = |whole: usize| Part { whole, offset: 0 };
        let mut roots: Vec<_> = (0..self.buffers.len()).map(itself).collect();
        // A whole is planned after its parts: its own root is known when theirs are asked for.
        for buffer in (0..roots.len()).rev() {
            if let Some(part) = self.parts.get(&buffer) {
                let Part { whole, offset } = roots[part.whole];
                roots[buffer] = Part { whole, offset: offset + part.offset };
            }
        }
        roots
    }
}
