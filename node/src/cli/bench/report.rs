//! What `starling bench` says: as tables for people and as JSON for machines.

use std::{path::Path, time::Duration};

use serde::Serialize;
use starling_engine::{LayerCost, Model, OpClass, Piece, calibrate};

use super::Measured;
use crate::cli::report::{human, millis, round3};

/// All that one command measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    threads: usize,
    runs: u32,
    networks: Vec<NetworkReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<PredictionReport>,
}

/// One model.
#[derive(Debug, Serialize)]
pub(super) struct NetworkReport {
    model: String,
    file: String,
    /// Reading the file, and folding and packing its weights.
    import_ms: f64,
    load_ms: f64,
    median_ms: f64,
    p95_ms: f64,
    min_ms: f64,
    flops: u64,
    gflops_per_s: f64,
    memory: MemoryReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<NetworkPrediction>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LayerReport>,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    /// In the file.
    weight_bytes: u64,
    /// In the form that the kernels take them.
    packed_bytes: u64,
    activation_bytes: u64,
    /// Nothing where the system doesn't say.
    peak_rss_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct LayerReport {
    layer: usize,
    name: String,
    op: &'static str,
    class: String,
    output_shape: Vec<usize>,
    flops: u64,
    ms: f64,
    share: f64,
    gflops_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_ms: Option<f64>,
}

/// What the network knows of a node, and what that says of this model.
pub(super) struct Prediction {
    pub(super) speed: calibrate::Speed,
    /// How long the calibration took.
    pub(super) took: Duration,
}

#[derive(Debug, Serialize)]
struct NetworkPrediction {
    /// What would be advertised: per class of operators, units of its work per second.
    speed: [f64; OpClass::ALL.len()],
    ms: f64,
    /// Predicted over measured, less 1.
    error: f64,
    /// The median of the layers' errors, without their signs.
    median_layer_error: f64,
    calibration_ms: f64,
    #[serde(skip)]
    layer_errors: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct PredictionReport {
    /// The medians of what would be advertised.
    speed: [f64; OpClass::ALL.len()],
    median_network_error: f64,
    median_layer_error: f64,
    layers: usize,
}

impl Report {
    pub(super) fn new(threads: usize, runs: u32, networks: Vec<NetworkReport>) -> Self {
        let predictions = networks.iter().filter_map(|network| network.prediction.as_ref());
        let prediction = PredictionReport::new(&predictions.collect::<Vec<_>>());
        Self { threads, runs, networks, prediction }
    }

    pub(super) fn text(&self) -> String {
        let networks: Vec<String> =
            self.networks.iter().map(|network| network.text(self.threads, self.runs)).collect();
        let prediction = self.prediction.iter().map(PredictionReport::text);
        networks.into_iter().chain(prediction).collect::<Vec<String>>().join("\n")
    }
}

impl NetworkReport {
    pub(super) fn new(
        path: &Path,
        model: &Model,
        piece: &Piece,
        measured: &Measured,
        prediction: Option<Prediction>,
        with_layers: bool,
    ) -> Self {
        let costs = model.profile().layers;
        let predicted = prediction.as_ref().map(|prediction| prediction.layers(&costs));
        let flops = costs.iter().map(|cost| cost.flops).sum();
        let median = super::median(measured.runs.clone());
        let p95 = measured.runs[(measured.runs.len() * 95).div_ceil(100) - 1];
        let layers = with_layers.then(|| layers(&costs, measured, predicted.as_deref()));
        Self {
            model: model.name().to_owned(),
            file: path.display().to_string(),
            import_ms: ms(measured.import),
            load_ms: ms(measured.load),
            median_ms: ms(median),
            p95_ms: ms(p95),
            min_ms: ms(measured.runs[0]),
            flops,
            gflops_per_s: giga(flops, median),
            memory: MemoryReport {
                weight_bytes: piece.weight_bytes(),
                packed_bytes: piece.memory().weights,
                activation_bytes: piece.memory().activations,
                peak_rss_bytes: measured.peak_rss_bytes,
            },
            prediction: prediction.map(|prediction| {
                let predicted = predicted.unwrap_or_default();
                NetworkPrediction::new(&prediction, &predicted, measured, median)
            }),
            layers: layers.unwrap_or_default(),
        }
    }

    fn text(&self, threads: usize, runs: u32) -> String {
        let resident = self.memory.peak_rss_bytes.map_or_else(
            || "unknown on this system".to_owned(),
            |bytes| format!("{}B", human(bytes as f64)),
        );
        let mut text = format!(
            "model    {} ({}FLOP)\n\
             load     {:.1} ms import, {:.1} ms weights\n\
             time     median {:.2} ms, p95 {:.2} ms, min {:.2} ms ({} runs, {} threads); {:.1} GFLOP/s\n\
             memory   {}B weights ({}B in the file), {}B activations, peak of the process {resident}\n",
            self.model,
            human(self.flops as f64),
            self.import_ms,
            self.load_ms,
            self.median_ms,
            self.p95_ms,
            self.min_ms,
            runs,
            threads,
            self.gflops_per_s,
            human(self.memory.packed_bytes as f64),
            human(self.memory.weight_bytes as f64),
            human(self.memory.activation_bytes as f64),
        );
        if let Some(prediction) = &self.prediction {
            text += &prediction.text();
        }
        if !self.layers.is_empty() {
            text += &layers_table(&self.layers);
        }
        text
    }
}

impl Prediction {
    /// Seconds for each layer.
    fn layers(&self, costs: &[LayerCost]) -> Vec<f64> {
        costs.iter().map(|cost| self.speed.seconds(cost)).collect()
    }
}

impl NetworkPrediction {
    fn new(
        prediction: &Prediction,
        predicted: &[f64],
        measured: &Measured,
        median: Duration,
    ) -> Self {
        let seconds: f64 = predicted.iter().sum();
        let layer_errors = layer_errors(predicted, &measured.layers, &measured.groups);
        Self {
            ms: millis(seconds),
            error: round3(seconds / median.as_secs_f64() - 1.0),
            median_layer_error: round3(middle(layer_errors.clone())),
            speed: prediction.speed.units_per_s,
            calibration_ms: ms(prediction.took),
            layer_errors,
        }
    }

    fn text(&self) -> String {
        format!(
            "predicted  {:.2} ms, {:+.1} % off; the median layer {:.1} % (calibrated in {:.0} ms)\n",
            self.ms,
            self.error * 100.0,
            self.median_layer_error * 100.0,
            self.calibration_ms
        )
    }
}

impl PredictionReport {
    /// Nothing if nothing was predicted.
    fn new(predictions: &[&NetworkPrediction]) -> Option<Self> {
        let of = |class: usize| middle(predictions.iter().map(|one| one.speed[class]).collect());
        let layers: Vec<f64> =
            predictions.iter().flat_map(|one| one.layer_errors.clone()).collect();
        (!predictions.is_empty()).then(|| Self {
            speed: OpClass::ALL.map(|class| of(class.index())),
            median_network_error: middle(predictions.iter().map(|one| one.error.abs()).collect()),
            layers: layers.len(),
            median_layer_error: round3(middle(layers)),
        })
    }

    fn text(&self) -> String {
        let speeds = OpClass::ALL.iter().zip(self.speed);
        let speeds: Vec<String> =
            speeds.map(|(class, speed)| format!("{} {}/s", class.name(), human(speed))).collect();
        format!(
            "speed      {}\nprediction median error {:.1} % of a network's time, {:.1} % of a layer's ({} layers)\n",
            speeds.join(", "),
            self.median_network_error * 100.0,
            self.median_layer_error * 100.0,
            self.layers
        )
    }
}

fn layers(costs: &[LayerCost], measured: &Measured, predicted: Option<&[f64]>) -> Vec<LayerReport> {
    let total: f64 = measured.layers.iter().map(Duration::as_secs_f64).sum();
    let report = |(layer, (cost, time)): (usize, (&LayerCost, &Duration))| LayerReport {
        layer,
        name: cost.name.clone(),
        op: cost.op,
        class: cost.class.name().to_owned(),
        output_shape: cost.output_shape.clone(),
        flops: cost.flops,
        ms: ms(*time),
        share: round3(time.as_secs_f64() / total),
        gflops_per_s: giga(cost.flops, *time),
        predicted_ms: predicted.map(|predicted| millis(predicted[layer])),
    };
    costs.iter().zip(&measured.layers).enumerate().map(report).collect()
}

fn layers_table(layers: &[LayerReport]) -> String {
    let predicted = |layer: &LayerReport| match layer.predicted_ms {
        Some(ms) => format!("  {ms:>10.3} ms"),
        None => String::new(),
    };
    let head = if layers.iter().any(|layer| layer.predicted_ms.is_some()) {
        "      predicted"
    } else {
        ""
    };
    let mut text = format!(
        "\nlayer  op                 class      output shape               time  share  GFLOP/s{head}\n"
    );
    for layer in layers {
        text += &format!(
            "{:>5}  {:<17}  {:<9}  {:<19}  {:>7.3} ms  {:>3.0} %  {:>7.1}{}\n",
            layer.layer,
            layer.op,
            layer.class,
            format!("{:?}", layer.output_shape),
            layer.ms,
            layer.share * 100.0,
            layer.gflops_per_s,
            predicted(layer)
        );
    }
    text
}

/// How far off each layer is, without the sign; layers that are computed in one go are one. Those
/// that take no time that a clock can tell, such as another shape for the same values, have no
/// error.
fn layer_errors(predicted: &[f64], measured: &[Duration], groups: &[Vec<usize>]) -> Vec<f64> {
    let error = |group: &Vec<usize>| {
        let time: Duration = group.iter().map(|&layer| measured[layer]).sum();
        let seconds: f64 = group.iter().map(|&layer| predicted[layer]).sum();
        (time >= TIME_MIN).then(|| (seconds / time.as_secs_f64() - 1.0).abs())
    };
    groups.iter().filter_map(error).collect()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    millis(time.as_secs_f64())
}

/// GFLOP/s; 0 for what took no time.
fn giga(flops: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { round3(flops as f64 / time.as_secs_f64() / 1e9) }
}

/// What a clock can tell from nothing.
const TIME_MIN: Duration = Duration::from_micros(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_and_skip_what_takes_no_time() {
        let measured = [10, 0, 20, 0].map(Duration::from_millis);
        let groups = [vec![0], vec![1], vec![2, 3]];
        let errors = layer_errors(&[0.012, 1.0, 0.010, 0.005], &measured, &groups);
        assert_eq!(errors.len(), 2);
        assert!((errors[0] - 0.2).abs() < 1e-9 && (errors[1] - 0.25).abs() < 1e-9, "{errors:?}");
        assert_eq!(middle(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(Vec::new()), 0.0);
    }
}
