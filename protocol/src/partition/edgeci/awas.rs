//! AWAS: each strip to the machine that matches it best, by an auction.
//!
//! Strips differ: those at the borders of an image have a halo on one side only. Machines differ in
//! speed and link. So it matters which strip goes where. The makespan is what counts, and not the
//! sum of times, so an auction is held for each deadline that might be kept: at the least one
//! with which every strip finds a machine, an auction by time decides among the machines that keep
//! it.

/// Who computes which strip, each machine at most one, such that the slowest is as fast as
/// possible; `seconds[strip][machine]`, infinite or NaN where it can't be. Nothing if there is no such
/// way.
#[must_use]
pub fn assign(seconds: &[Vec<f64>]) -> Option<Vec<usize>> {
    let possible = |seconds: &f64| seconds.is_finite();
    let mut deadlines: Vec<f64> = seconds.iter().flatten().copied().filter(possible).collect();
    deadlines.sort_by(f64::total_cmp);
    let keeps = |deadline: f64| -> Vec<Vec<Option<f64>>> {
        let value = |seconds: &f64| (*seconds <= deadline).then_some(-seconds);
        seconds.iter().map(|row| row.iter().map(value).collect()).collect()
    };
    let indifferent = |deadline: f64| -> Vec<Vec<Option<f64>>> {
        let equal = |row: Vec<Option<f64>>| row.iter().map(|value| value.map(|_| 0.0)).collect();
        keeps(deadline).into_iter().map(equal).collect()
    };
    // Whoever keeps a deadline keeps all later ones.
    let missed = |deadline: &f64| auction(&indifferent(*deadline), 1.0).is_none();
    let least = deadlines.partition_point(missed);
    let deadline = *deadlines.get(least)?;
    let eps = (deadlines[deadlines.len() / 2] * EPS_OF_MEDIAN).max(f64::MIN_POSITIVE);
    auction(&keeps(deadline), eps).or_else(|| auction(&indifferent(deadline), 1.0))
}

/// The largest of an assignment's times.
#[must_use]
pub fn makespan(seconds: &[Vec<f64>], assignment: &[usize]) -> f64 {
    seconds.iter().zip(assignment).map(|(row, machine)| row[*machine]).fold(0.0, f64::max)
}

/// Bertsekas's auction: each strip without a machine bids for its best one what it would lose with
/// its second best, and eps. Nothing if some strip finds no machine.
fn auction(values: &[Vec<Option<f64>>], eps: f64) -> Option<Vec<usize>> {
    let machines = values.first().map_or(0, Vec::len);
    let all = || values.iter().flatten().flatten().copied();
    let (least, most) = all().fold((0.0, f64::NEG_INFINITY), |(least, most): (f64, f64), value| {
        (least.min(value), most.max(value))
    });
    let strips = values.len() as f64;
    // A price above this is proof that too many strips want too few machines.
    let proof = (strips + 1.0) * ((most - least).max(0.0) + eps);
    let mut holders: Vec<Option<usize>> = vec![None; machines];
    let mut prices = vec![0.0; machines];
    let mut waiting: Vec<usize> = (0..values.len()).rev().collect();
    // Rounding may keep prices from rising if eps is tiny beside them.
    for _ in 0..BIDS_MAX {
        let Some(strip) = waiting.pop() else {
            return Some(by_strip(&holders, values.len()));
        };
        let (machine, gain) = preferred(&values[strip], &prices)?;
        if prices[machine] > proof {
            return None;
        }
        prices[machine] += gain.min(proof) + eps;
        waiting.extend(holders[machine].replace(strip));
    }
    None
}

/// The best machine, and by how much it is better than the second best; infinitely if it is the
/// only one.
fn preferred(values: &[Option<f64>], prices: &[f64]) -> Option<(usize, f64)> {
    let offers = values.iter().zip(prices).enumerate();
    let nets = offers.filter_map(|(machine, (value, price))| Some((machine, (*value)? - price)));
    let mut best: Option<(usize, f64)> = None;
    let mut second = f64::NEG_INFINITY;
    for (machine, net) in nets {
        match best {
            Some((_, most)) if net <= most => second = second.max(net),
            _ => {
                second = best.map_or(second, |(_, most)| most);
                best = Some((machine, net));
            }
        }
    }
    best.map(|(machine, net)| (machine, net - second))
}

fn by_strip(holders: &[Option<usize>], strips: usize) -> Vec<usize> {
    let mut assignment = vec![0; strips];
    for (machine, strip) in holders.iter().enumerate() {
        if let Some(strip) = strip {
            assignment[*strip] = machine;
        }
    }
    assignment
}

/// An assignment's sum of times is within this of the least, for each strip: a hundredth of the
/// median time.
const EPS_OF_MEDIAN: f64 = 0.01;
const BIDS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use quickcheck::{Arbitrary, Gen, quickcheck};

    use super::*;

    /// Up to 6 strips and 7 machines, some pairs impossible, many equal.
    #[derive(Clone, Debug)]
    struct Times(Vec<Vec<f64>>);

    impl Arbitrary for Times {
        fn arbitrary(g: &mut Gen) -> Self {
            let below = |g: &mut Gen, limit: u8| u8::arbitrary(g) % limit;
            let (strips, machines) = (below(g, 7), 1 + below(g, 7));
            let time = |g: &mut Gen| match below(g, 5) {
                0 => f64::INFINITY,
                1 => f64::from(below(g, 4)),
                _ => f64::from(below(g, 100)) / 7.0,
            };
            let row = |g: &mut Gen| (0..machines).map(|_| time(g)).collect();
            Self((0..strips).map(|_| row(g)).collect())
        }
    }

    /// The least makespan, all ways tried.
    fn brute(seconds: &[Vec<f64>], taken: &mut Vec<usize>) -> f64 {
        let Some(row) = seconds.get(taken.len()) else { return makespan(seconds, taken) };
        let mut least = f64::INFINITY;
        for machine in 0..row.len() {
            if !taken.contains(&machine) {
                taken.push(machine);
                least = least.min(brute(seconds, taken));
                taken.pop();
            }
        }
        least
    }

    fn check(seconds: &[&[f64]], assignment: Option<&[usize]>) {
        let seconds: Vec<Vec<f64>> = seconds.iter().map(|row| row.to_vec()).collect();
        assert_eq!(assign(&seconds).as_deref(), assignment);
    }

    #[test]
    fn the_slowest_strip_counts_first_and_then_the_sum() {
        check(&[&[1.0, 2.0], &[2.0, 4.0]], Some(&[1, 0]));
        check(&[&[5.0, 5.0, 1.0], &[5.0, 2.0, 5.0]], Some(&[2, 1]));
        check(&[&[9.0, 9.0, 9.0], &[1.0, 3.0, 9.0], &[3.0, 1.0, 9.0]], Some(&[2, 0, 1]));
    }

    #[test]
    fn what_cannot_be_is_nothing() {
        check(&[&[1.0], &[1.0]], None);
        check(&[&[f64::INFINITY, f64::NAN]], None);
        check(&[&[1.0, f64::INFINITY], &[2.0, f64::INFINITY]], None);
        check(&[&[]], None);
        check(&[], None);
    }

    quickcheck! {
        fn an_auction_is_as_good_as_trying_everything(times: Times) -> bool {
            let best = brute(&times.0, &mut Vec::new());
            match assign(&times.0) {
                Some(found) => {
                    let mut machines = found.clone();
                    machines.sort_unstable();
                    machines.dedup();
                    machines.len() == found.len() && makespan(&times.0, &found) == best
                }
                None => times.0.is_empty() || best.is_infinite(),
            }
        }
    }
}
