//! Rows shared out: in proportion to weights, and within limits.

use super::RowRange;

/// Divides rows in proportion to weights: every row goes to exactly one of the ranges, which
/// follow each other. Each gets at least one row if there are enough.
#[must_use]
pub fn divide(height: u32, weights: &[f64]) -> Vec<RowRange> {
    let usable = |weight: &f64| if weight.is_finite() { weight.max(0.0) } else { 0.0 };
    // Against an overflow of the sum.
    let largest = weights.iter().map(usable).fold(0.0, f64::max);
    let share = |weight: &f64| if largest > 0.0 { usable(weight) / largest } else { 1.0 };
    let total: f64 = weights.iter().map(share).sum();
    let count = u32::try_from(weights.len()).unwrap_or(u32::MAX);
    let (mut sum, mut first) = (0.0, 0);
    (1..=count)
        .zip(weights)
        .map(|(ranges, weight)| {
            sum += share(weight);
            let after = count - ranges;
            let mut end = ((sum / total * f64::from(height)).round() as u32).min(height);
            if height >= count {
                end = end.max(first + 1).min(height - after);
            }
            if after == 0 {
                end = height;
            }
            let rows = RowRange::new(first, end);
            first = end;
            rows
        })
        .collect()
}

/// The same, but no range has more rows than it may: those of others grow for that. Nothing if
/// there are more rows than all may have together.
#[must_use]
pub fn divide_within(height: u32, weights: &[f64], most: &[u32]) -> Option<Vec<RowRange>> {
    let room: u64 = most.iter().map(|most| u64::from(*most)).sum();
    if weights.len() != most.len() || room < u64::from(height) {
        return None;
    }
    let mut full = vec![false; most.len()];
    loop {
        let open: Vec<usize> = (0..most.len()).filter(|at| !full[*at]).collect();
        let mut rows: Vec<u32> = most.to_vec();
        let taken: u32 = (0..most.len()).filter(|at| full[*at]).map(|at| most[at]).sum();
        let shares: Vec<f64> = open.iter().map(|at| weights[*at]).collect();
        for (at, range) in open.iter().zip(divide(height - taken, &shares)) {
            rows[*at] = range.len();
        }
        let over: Vec<usize> = open.into_iter().filter(|at| rows[*at] > most[*at]).collect();
        if over.is_empty() {
            return Some(in_order(&rows));
        }
        over.into_iter().for_each(|at| full[at] = true);
    }
}

/// Ranges of so many rows each that follow each other.
fn in_order(rows: &[u32]) -> Vec<RowRange> {
    let mut first = 0;
    let range = |rows: &u32| {
        let range = RowRange::new(first, first + rows);
        first = range.end;
        range
    };
    rows.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[track_caller]
    fn check_divide(height: u32, weights: &[f64], ends: &[u32]) {
        let ranges = divide(height, weights);
        assert_eq!(ranges.iter().map(|range| range.end).collect::<Vec<_>>(), ends);
    }

    #[test]
    fn rows_are_divided_in_proportion() {
        check_divide(12, &[1.0, 2.0, 3.0], &[2, 6, 12]);
        check_divide(5, &[], &[]);
        check_divide(3, &[1.0, 1000.0, 1.0], &[1, 2, 3]);
        check_divide(9, &[f64::NAN, -1.0, 0.0], &[3, 6, 9]);
        check_divide(1, &[1.0, 1.0, 1.0], &[0, 1, 1]);
    }

    #[test]
    fn what_one_may_not_have_goes_to_others() {
        let check = |height, weights: &[f64], most: &[u32], rows: Option<&[u32]>| {
            let ranges = divide_within(height, weights, most);
            let got: Option<Vec<u32>> =
                ranges.map(|ranges| ranges.iter().map(|range| range.len()).collect());
            assert_eq!(got.as_deref(), rows);
        };
        check(12, &[1.0, 1.0, 1.0], &[9, 9, 9], Some(&[4, 4, 4]));
        check(12, &[1.0, 1.0, 1.0], &[2, 9, 9], Some(&[2, 5, 5]));
        check(12, &[1.0, 2.0, 1.0], &[2, 9, 3], Some(&[2, 7, 3]));
        check(12, &[5.0, 1.0, 1.0], &[5, 4, 3], Some(&[5, 4, 3]));
        check(12, &[1.0, 0.0], &[0, 12], Some(&[0, 12]));
        check(12, &[1.0, 1.0], &[5, 6], None);
    }

    quickcheck! {
        fn every_row_is_in_one_range(height: u8, weights: Vec<f64>) -> bool {
            let height = u32::from(height);
            let ranges = divide(height, &weights);
            let follow = ranges.windows(2).all(|pair| pair[0].end == pair[1].first);
            let ends = ranges.first().is_none_or(|range| range.first == 0)
                && ranges.last().is_none_or(|range| range.end == height);
            let none_empty = (height as usize) < weights.len()
                || ranges.iter().all(|range| !range.is_empty());
            ranges.len() == weights.len() && follow && ends && none_empty
        }

        fn nobody_gets_more_rows_than_it_may(height: u8, shares: Vec<(u8, u8)>) -> bool {
            let height = u32::from(height);
            let weights: Vec<f64> = shares.iter().map(|(weight, _)| f64::from(*weight)).collect();
            let most: Vec<u32> = shares.iter().map(|(_, most)| u32::from(*most)).collect();
            let free = divide(height, &weights);
            match divide_within(height, &weights, &most) {
                None => most.iter().sum::<u32>() < height,
                Some(ranges) => {
                    let follow = ranges.windows(2).all(|pair| pair[0].end == pair[1].first);
                    let ends = ranges.first().is_none_or(|range| range.first == 0)
                        && ranges.last().map_or(0, |range| range.end) == height;
                    let within = |(range, most): (&RowRange, &u32)| range.len() <= *most;
                    let enough = free.iter().zip(&most).all(within);
                    follow && ends && ranges.iter().zip(&most).all(within)
                        && (!enough || ranges == free)
                }
            }
        }
    }
}
