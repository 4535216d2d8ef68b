//! Turns in a random order, round by round.

use std::thread;
use std::time::{Duration, Instant};

use crate::contestant::{Contestant, Result};
use crate::stats::Random;

/// The seconds of each run: by contestant, by round.
pub type Rounds = Vec<Vec<Vec<f64>>>;

/// Lets everyone have a turn of `runs` runs in each of `rounds` rounds.
pub fn play(
    contestants: &mut [Box<dyn Contestant>],
    rounds: u32,
    runs: u32,
    mut random: Random,
) -> Result<Rounds> {
    let mut times: Rounds = vec![Vec::new(); contestants.len()];
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for &at in &order {
            thread::sleep(GAP);
            // The others have had the caches, and threads sleep, and until the system has put all
            // of them on processors of their own, some share one: that is not what is compared.
            let began = Instant::now();
            while began.elapsed() < WARM_UP {
                contestants[at].run(1)?;
            }
            times[at].push(contestants[at].run(runs)?);
        }
    }
    Ok(times)
}

/// How long the machine rests before a turn, so that no thread of the one before still spins.
pub const GAP: Duration = Duration::from_millis(20);
/// How long a contestant runs before its runs count.
const WARM_UP: Duration = Duration::from_millis(80);
