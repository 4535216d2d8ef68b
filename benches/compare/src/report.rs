//! Medians, ratios and errors, as a table for people, for README.md, and as JSON.

use std::fs;

use serde::Serialize;

use crate::contestant::Kind;
use crate::rounds::Rounds;
use crate::stats::{geometric_mean, median, quantile};

/// All that one run of the program measured.
#[derive(Serialize)]
pub struct Report {
    processor: String,
    rounds: u32,
    runs: u32,
    seed: u64,
    /// Whom the others are compared with.
    reference: &'static str,
    pub networks: Vec<Network>,
}

/// One network at one number of threads.
#[derive(Serialize)]
pub struct Network {
    network: String,
    threads: usize,
    contestants: Vec<Standing>,
}

/// How one contestant did.
#[derive(Serialize)]
struct Standing {
    name: &'static str,
    median_ms: f64,
    min_ms: f64,
    /// A round's median over the reference's median in the same round: the median over the rounds.
    ratio: f64,
    /// The quartiles of the same over the rounds.
    ratio_quartiles: [f64; 2],
    /// The largest difference from the reference's output, over that output's peak.
    max_error: f64,
}

impl Report {
    pub fn new(rounds: u32, runs: u32, seed: u64, kinds: &[Kind]) -> Self {
        let reference = kinds[reference(kinds)].name();
        Self { processor: processor(), rounds, runs, seed, reference, networks: Vec::new() }
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}; {} rounds of {} runs\nratios of medians to {} in the same round: the median and \
             [quartiles] over the rounds; error relative to the output's peak\n\n",
            self.processor, self.rounds, self.runs, self.reference
        );
        for network in &self.networks {
            text += &format!("{}, {} threads\n", network.network, network.threads);
            for one in &network.contestants {
                let [low, high] = one.ratio_quartiles;
                text += &format!(
                    "  {:<12} {:>9.2} ms  {:>6.2} [{low:.2}-{high:.2}]  error {:.1e}\n",
                    one.name, one.median_ms, one.ratio, one.max_error
                );
            }
        }
        for (threads, name, mean) in self.means() {
            text += &format!("geometric mean of {name} at {threads} threads: {mean:.2}\n");
        }
        text
    }

    /// For README.md.
    pub fn markdown(&self) -> String {
        let others: Vec<&str> = self.others();
        let mut text = format!("| network | threads | {} |", self.reference);
        for name in &others {
            text += &format!(" {name} | max error |");
        }
        text += &format!("\n|---|---|---|{}\n", "---|---|".repeat(others.len()));
        for network in &self.networks {
            let of = |name: &str| network.contestants.iter().find(|one| one.name == name);
            let ms = of(self.reference).map_or(f64::NAN, |one| one.median_ms);
            text += &format!("| {} | {} | {ms:.1} ms |", network.network, network.threads);
            for one in others.iter().filter_map(|name| of(name)) {
                let [low, high] = one.ratio_quartiles;
                let ratio = one.ratio;
                text += &format!(" {ratio:.2} [{low:.2}-{high:.2}] | {:.0e} |", one.max_error);
            }
            text += "\n";
        }
        let means = self.means();
        let mut threads: Vec<usize> = means.iter().map(|(threads, ..)| *threads).collect();
        threads.dedup();
        for threads in threads {
            text += &format!("| geometric mean | {threads} | |");
            for (_, _, mean) in means.iter().filter(|(of, ..)| *of == threads) {
                text += &format!(" {mean:.2} | |");
            }
            text += "\n";
        }
        let caption = format!(
            "\nTime of one inference over that of {} in the same round: the median and [quartiles] \
             over {} rounds. Error: the largest difference, over the peak of the output. {}.\n",
            self.reference, self.rounds, self.processor
        );
        text + &caption
    }

    fn others(&self) -> Vec<&'static str> {
        let all = self.networks.first().map_or(&[][..], |network| &network.contestants);
        all.iter().map(|one| one.name).filter(|name| *name != self.reference).collect()
    }

    /// The geometric mean of each contestant's ratios: (threads, name, mean).
    fn means(&self) -> Vec<(usize, &'static str, f64)> {
        let mut threads: Vec<usize> = self.networks.iter().map(|one| one.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        let mean = |threads: usize, name: &'static str| {
            let networks = self.networks.iter().filter(|network| network.threads == threads);
            let standings = networks.flat_map(|network| &network.contestants);
            let ratios: Vec<f64> =
                standings.filter(|one| one.name == name).map(|one| one.ratio).collect();
            (threads, name, geometric_mean(&ratios))
        };
        let others = self.others();
        let of = |&threads: &usize| -> Vec<_> {
            others.iter().map(|name| mean(threads, name)).collect()
        };
        threads.iter().flat_map(of).collect()
    }
}

impl Network {
    pub fn new(
        network: String,
        threads: usize,
        kinds: &[Kind],
        rounds: &Rounds,
        outputs: &[Vec<f32>],
    ) -> Self {
        let reference = reference(kinds);
        let all = |at: usize| rounds[at].concat();
        let standing = |(at, kind): (usize, &Kind)| {
            let pairs = rounds[at].iter().zip(&rounds[reference]);
            let ratios: Vec<f64> = pairs.map(|(own, base)| median(own) / median(base)).collect();
            Standing {
                name: kind.name(),
                median_ms: median(&all(at)) * 1e3,
                min_ms: quantile(&all(at), 0.0) * 1e3,
                ratio: median(&ratios),
                ratio_quartiles: [quantile(&ratios, 0.25), quantile(&ratios, 0.75)],
                max_error: max_error(&outputs[at], &outputs[reference]),
            }
        };
        Self { network, threads, contestants: kinds.iter().enumerate().map(standing).collect() }
    }
}

/// Whom the others are compared with: ONNX Runtime, or the first if it isn't there.
fn reference(kinds: &[Kind]) -> usize {
    kinds.iter().position(|kind| *kind == Kind::Onnxruntime).unwrap_or(0)
}

/// The largest difference over the peak. Outputs of different lengths are as wrong as can be.
fn max_error(own: &[f32], reference: &[f32]) -> f64 {
    if own.len() != reference.len() {
        return f64::INFINITY;
    }
    let peak = reference.iter().fold(0.0, |peak, value| value.abs().max(peak));
    let differences = own.iter().zip(reference).map(|(a, b)| f64::from((a - b).abs()));
    let worst = differences.fold(0.0, greater);
    worst / f64::from(peak)
}

/// The greater of two; what is not a number counts as the greatest, unlike with `f64::max`.
fn greater(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let name =
        model.map_or("an unknown processor", |name| name.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {cores} cores")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_peak_and_junk_is_seen() {
        assert_eq!(max_error(&[1.0, -3.5], &[1.0, -4.0]), 0.125);
        assert_eq!(max_error(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        assert!(max_error(&[f32::NAN, 1.0], &[1.0, 1.0]).is_nan());
    }

    #[test]
    fn figures_are_those_of_rounds_and_not_of_drift() {
        // The machine slows down by half, and both with it; at last in the middle of a round.
        let rounds = vec![
            vec![vec![1.0, 1.0], vec![2.0, 2.0], vec![1.0, 2.0], vec![1.0, 1.0, 1.0]],
            vec![vec![0.5, 0.5], vec![1.0, 1.0], vec![0.5, 1.0], vec![0.5, 1.0, 1.0]],
        ];
        let kinds = [Kind::Onnxruntime, Kind::Starling];
        let network = Network::new("x".to_owned(), 1, &kinds, &rounds, &[vec![1.0], vec![1.0]]);
        assert_eq!(network.contestants[1].ratio, 0.5);
        assert_eq!(network.contestants[1].ratio_quartiles, [0.5, 0.625]);
    }
}
