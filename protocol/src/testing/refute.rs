//! A counterexample as a value, for those who want to look at it and not only fail.

use quickcheck::{Arbitrary, Gen};

/// Draws up to `cases` values, and returns one that breaks the property and has no smaller one
/// that does, with what the property said of it; nothing if none of them breaks it.
pub fn refute<A: Arbitrary>(
    cases: usize,
    property: impl Fn(&A) -> Result<(), String>,
) -> Option<(A, String)> {
    let mut drawn = Gen::new(SIZE);
    let breaks = |case: A| property(&case).err().map(|broken| (case, broken));
    let mut smallest = (0..cases).find_map(|_| breaks(A::arbitrary(&mut drawn)))?;
    for _ in 0..SHRINKS_MAX {
        let Some(smaller) = smallest.0.shrink().find_map(breaks) else { break };
        smallest = smaller;
    }
    Some(smallest)
}

const SIZE: usize = 100;
const SHRINKS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counterexample_is_shrunk() {
        let small = |n: &u32| if *n < 17 { Ok(()) } else { Err(format!("{n} is large")) };
        assert_eq!(refute(1000, small), Some((17, "17 is large".to_owned())));
        assert_eq!(refute(100, |_: &u32| Ok(())), None);
    }
}
