//! One stretch of memory for all activations of a run.

use std::ops::Range;

use super::BLOCK;
use super::memory::Lines;

/// A buffer of an arena: how long it is, and between which steps it is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// In values.
    pub(crate) len: usize,
    /// The step that writes it.
    pub(crate) first: usize,
    /// The last step that reads it.
    pub(crate) last: usize,
}

/// Places buffers so that no two that are in use at the same time overlap: where each one is, and
/// how many values they take in all.
///
/// The largest goes first, each to the lowest place that is free as long as it lives: not always
/// the least memory, which is hard to find, but near it for networks.
pub(crate) fn place(buffers: &[Lifetime]) -> (Vec<Range<usize>>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(buffers[i].len));
    let mut placed: Vec<Option<usize>> = vec![None; buffers.len()];
    for &i in &order {
        let meets =
            |other: &Lifetime| other.first <= buffers[i].last && buffers[i].first <= other.last;
        let mut taken: Vec<(usize, usize)> = (0..buffers.len())
            .filter(|&j| meets(&buffers[j]))
            .filter_map(|j| placed[j].map(|at| (at, at + whole_lines(buffers[j].len))))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if at + buffers[i].len <= start {
                break;
            }
            at = at.max(end);
        }
        placed[i] = Some(at);
    }
    let range = |(i, at): (usize, &Option<usize>)| {
        let at = at.expect("every buffer is in the order");
        at..at + buffers[i].len
    };
    let ranges: Vec<_> = placed.iter().enumerate().map(range).collect();
    let total = ranges.iter().map(|range| whole_lines(range.end)).max().unwrap_or(0);
    (ranges, total)
}

fn whole_lines(values: usize) -> usize {
    values.next_multiple_of(BLOCK)
}

/// The memory of one run.
pub(crate) struct Arena(Lines);

impl Arena {
    /// Room for so many values.
    pub(crate) fn new(values: usize) -> Self {
        Self(Lines::zeros(values))
    }

    /// A buffer, to read it.
    pub(crate) fn read(&self, range: &Range<usize>) -> &[f32] {
        &self.0[range.clone()]
    }

    /// A buffer to write, and others to read at the same time.
    ///
    /// # Panics
    /// When one of the others overlaps the first.
    pub(crate) fn split(
        &mut self,
        output: &Range<usize>,
        inputs: &[Range<usize>],
    ) -> (&mut [f32], Vec<&[f32]>) {
        let apart = |input: &Range<usize>| input.end <= output.start || output.end <= input.start;
        assert!(inputs.iter().all(apart), "{inputs:?} overlap {output:?}");
        let len = self.0.len();
        assert!(output.end <= len && inputs.iter().all(|input| input.end <= len));
        let base = self.0.as_mut_ptr();
        // SAFETY: all ranges are inside, the one written is apart from those read, and `self` is
        // borrowed as long as any of them.
        unsafe {
            let read = |range: &Range<usize>| {
                std::slice::from_raw_parts(base.add(range.start).cast_const(), range.len())
            };
            let inputs = inputs.iter().map(read).collect();
            (std::slice::from_raw_parts_mut(base.add(output.start), output.len()), inputs)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn buffers_in_use_together_are_apart(lives: Vec<(u8, u8, u8)>) -> bool {
            let buffers: Vec<_> = lives
                .iter()
                .map(|&(len, first, length)| Lifetime {
                    len: usize::from(len) + 1,
                    first: usize::from(first),
                    last: usize::from(first) + usize::from(length % 8),
                })
                .collect();
            let (ranges, total) = place(&buffers);
            let apart = |i: usize, j: usize| {
                let together = buffers[i].first <= buffers[j].last && buffers[j].first <= buffers[i].last;
                !together || ranges[i].end <= ranges[j].start || ranges[j].end <= ranges[i].start
            };
            let all = 0..buffers.len();
            all.clone().all(|i| ranges[i].len() == buffers[i].len && ranges[i].end <= total)
                && all.clone().all(|i| (0..i).all(|j| apart(i, j)))
        }
    }

    #[test]
    fn a_chain_takes_its_two_largest_neighbours() {
        let chain = |lens: &[usize]| {
            let life = |(i, &len): (usize, &usize)| Lifetime { len, first: i, last: i + 1 };
            place(&lens.iter().enumerate().map(life).collect::<Vec<_>>()).1
        };
        assert_eq!(chain(&[64, 128, 32, 16]), 192);
        assert_eq!(chain(&[16, 16, 16, 16]), 32);
        assert_eq!(chain(&[]), 0);
    }
}
