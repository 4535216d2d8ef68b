//! Rows of a tensor: a half-open range of its height, or of its features.

use std::fmt;
use std::ops::Range;

/// Rows `start..end` of a tensor's height, which is dimension 2 of NCHW.
///
/// The rows of a tensor `[1, features]` are its features. Any other tensor has no height: it counts
/// as one row, so that `0..1` is all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowRange {
    /// The first row.
    pub start: usize,
    /// One past the last row.
    pub end: usize,
}

impl RowRange {
    /// No rows.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// Rows `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// All rows of a tensor of this shape.
    pub fn all(shape: &[usize]) -> Self {
        Self::new(0, height(shape))
    }

    /// How many rows these are.
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Whether these are no rows at all.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// The rows that are in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let both = Self::new(self.start.max(other.start), self.end.min(other.end));
        if both.is_empty() { Self::EMPTY } else { both }
    }

    /// The smallest range that has the rows of both; rows between the two come with it.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, true) => Self::EMPTY,
            (true, false) => other,
            (false, true) => self,
            (false, false) => Self::new(self.start.min(other.start), self.end.max(other.end)),
        }
    }

    /// Whether these are rows of a tensor of this height.
    pub(crate) fn is_within(self, height: usize) -> bool {
        self.start <= self.end && self.end <= height
    }
}

impl From<Range<usize>> for RowRange {
    fn from(range: Range<usize>) -> Self {
        Self::new(range.start, range.end)
    }
}

impl fmt::Display for RowRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// How many rows a tensor of this shape has.
pub(crate) fn height(shape: &[usize]) -> usize {
    axis(shape).map_or(1, |axis| shape[axis])
}

/// Along which dimension a tensor of this shape has rows, if it has more than the one that is all
/// of it.
pub(crate) fn axis(shape: &[usize]) -> Option<usize> {
    match shape {
        [_, _, _, _] => Some(2),
        [1, _] => Some(1),
        _ => None,
    }
}

/// The same shape with another height.
pub(crate) fn with_height(shape: &[usize], height: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(axis) = axis(&shape) {
        shape[axis] = height;
    }
    shape
}

/// Divides rows in proportion to weights: every row goes to exactly one of the ranges, which
/// follow each other. Each gets at least one row if there are enough.
///
/// Weights that are not positive and finite count as nothing; if all do, the shares are equal.
pub(crate) fn divide(height: usize, weights: &[f64]) -> Vec<RowRange> {
    let weight = |weight: f64| if weight.is_finite() { weight.max(0.0) } else { 0.0 };
    // Against an overflow of the sum.
    let largest = weights.iter().copied().map(weight).fold(0.0, f64::max);
    let share = |share: f64| if largest > 0.0 { weight(share) / largest } else { 1.0 };
    let total: f64 = weights.iter().copied().map(share).sum();
    let (mut sum, mut start) = (0.0, 0);
    let mut ranges = Vec::with_capacity(weights.len());
    for (i, &weight) in weights.iter().enumerate() {
        sum += share(weight);
        let after = weights.len() - 1 - i;
        let mut end = ((sum / total * height as f64).round() as usize).min(height);
        if height >= weights.len() {
            end = end.max(start + 1).min(height - after);
        }
        if after == 0 {
            end = height;
        }
        ranges.push(RowRange::new(start, end));
        start = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[track_caller]
    fn check_divide(height: usize, weights: &[f64], ends: &[usize]) {
        let ranges = divide(height, weights);
        assert_eq!(ranges.iter().map(|range| range.end).collect::<Vec<_>>(), ends);
    }

    #[test]
    fn rows_are_divided_in_proportion() {
        check_divide(12, &[1.0, 2.0, 3.0], &[2, 6, 12]);
        check_divide(7, &[1.0, 1.0], &[4, 7]);
        check_divide(5, &[], &[]);
        check_divide(3, &[1.0, 1000.0, 1.0], &[1, 2, 3]);
        check_divide(9, &[f64::NAN, -1.0, 0.0], &[3, 6, 9]);
        check_divide(9, &[f64::MAX, f64::MAX, f64::INFINITY], &[5, 8, 9]);
        check_divide(1, &[1.0, 1.0, 1.0], &[0, 1, 1]);
    }

    quickcheck! {
        fn every_row_is_in_one_range(height: u8, weights: Vec<f64>) -> bool {
            let height = usize::from(height);
            let ranges = divide(height, &weights);
            let follow = ranges.windows(2).all(|pair| pair[0].end == pair[1].start);
            let ordered = ranges.iter().all(|range| range.is_within(height));
            let ends = ranges.first().is_none_or(|range| range.start == 0)
                && ranges.last().is_none_or(|range| range.end == height);
            let none_empty =
                height < weights.len() || ranges.iter().all(|range| !range.is_empty());
            ranges.len() == weights.len() && follow && ordered && ends && none_empty
        }

        fn hull_and_intersection_are_those_of_sets(a: (u8, u8), b: (u8, u8)) -> bool {
            let range = |(start, end): (u8, u8)| RowRange::new(start.into(), end.into());
            let (a, b) = (range(a), range(b));
            let within = |range: RowRange, row| (range.start..range.end).contains(&row);
            let (hull, both) = (a.hull(b), a.intersection(b));
            let rows: Vec<usize> = (0..256).filter(|&row| within(a, row) || within(b, row)).collect();
            let least = rows.first().map_or(RowRange::EMPTY, |&first| {
                RowRange::new(first, rows[rows.len() - 1] + 1)
            });
            hull == least && (0..256).all(|row| within(both, row) == (within(a, row) && within(b, row)))
        }
    }

    #[test]
    fn images_and_features_have_rows() {
        assert_eq!(RowRange::all(&[1, 3, 224, 100]), RowRange::new(0, 224));
        assert_eq!(RowRange::all(&[1, 1000]), RowRange::new(0, 1000));
        assert_eq!(RowRange::all(&[2, 1000]), RowRange::new(0, 1));
        assert_eq!(with_height(&[1, 3, 224, 100], 7), [1, 3, 7, 100]);
        assert_eq!(with_height(&[1, 1000], 7), [1, 7]);
        assert_eq!(with_height(&[2, 1000], 7), [2, 1000]);
        assert_eq!(with_height(&[2, 5, 6], 1), [2, 5, 6]);
    }
}
