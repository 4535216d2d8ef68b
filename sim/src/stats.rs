//! Statistics of runs. Small, and tested: a simulator whose averages are wrong is worse than none.

/// The middle value, or the mean of the two in the middle. Nothing of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    if sorted.is_empty() {
        None
    } else if sorted.len() % 2 == 1 {
        Some(sorted[upper])
    } else {
        Some(f64::midpoint(sorted[upper - 1], sorted[upper]))
    }
}

/// The arithmetic mean. Nothing of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn the_mean_is_the_sum_over_the_count() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
    }

    quickcheck! {
        fn as_many_values_are_above_the_median_as_below(values: Vec<i32>) -> bool {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let Some(middle) = median(&values) else { return values.is_empty() };
            let above = values.iter().filter(|value| **value > middle).count();
            let below = values.iter().filter(|value| **value < middle).count();
            above <= values.len() / 2 && below <= values.len() / 2
        }

        fn the_mean_lies_between_the_least_and_the_most(values: Vec<i32>) -> bool {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let Some(mean) = mean(&values) else { return values.is_empty() };
            values.iter().any(|value| *value <= mean) && values.iter().any(|value| *value >= mean)
        }
    }
}
