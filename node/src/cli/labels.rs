//! From logits to names.

use std::{fs, path::Path};

use serde::Serialize;

use crate::cli::Failure;

/// One guess of a classifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Guess {
    /// The class.
    pub(super) class: usize,
    /// Its name.
    pub(super) label: String,
    /// How sure.
    pub(super) probability: f32,
}

/// The names of a classifier's classes.
pub(super) struct Labels(Vec<String>);

impl Labels {
    /// Those of a file, one a line; of ImageNet for a model of 1000 classes otherwise.
    pub(super) fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let text = match file {
            None => IMAGENET.to_owned(),
            Some(file) => fs::read_to_string(file)
                .map_err(|error| Failure(format!("--labels {}: {error}", file.display())))?,
        };
        Ok(Self(text.lines().map(str::to_owned).collect()))
    }

    /// The likeliest classes, best first.
    pub(super) fn top(&self, scores: &[f32], count: usize) -> Vec<Guess> {
        let probabilities = probabilities(scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
        let named = self.0.len() == scores.len();
        let guess = |class: usize| Guess {
            class,
            label: if named { self.0[class].clone() } else { format!("class {class}") },
            probability: probabilities[class],
        };
        order.into_iter().take(count).map(guess).collect()
    }
}

/// Softmax, unless the scores are probabilities already.
fn probabilities(scores: &[f32]) -> Vec<f32> {
    let sum: f32 = scores.iter().sum();
    if scores.iter().all(|score| *score >= 0.0) && (sum - 1.0).abs() < 1e-3 {
        return scores.to_vec();
    }
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
    let total: f32 = powers.iter().sum();
    powers.iter().map(|power| power / total).collect()
}

const IMAGENET: &str = include_str!("../../assets/imagenet1k-labels.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_and_probabilities_give_the_same_order() {
        let labels = Labels(vec!["a".into(), "b".into(), "c".into()]);
        let logits = labels.top(&[1.0, 3.0, 2.0], 2);
        assert_eq!(logits.iter().map(|g| g.label.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert!((logits[0].probability - 0.665).abs() < 1e-3);
        let probabilities = labels.top(&[0.1, 0.7, 0.2], 1);
        assert!((probabilities[0].probability - 0.7).abs() < 1e-6);
    }

    #[test]
    fn a_model_of_other_classes_gets_numbers() {
        let labels = Labels::load(None).expect("embedded");
        assert_eq!(labels.top(&[0.0, 5.0], 1)[0].label, "class 1");
        assert_eq!(labels.0.len(), 1000);
    }
}
