//! `starling bench`: what it says of the bundled model.

#[allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of it")]
mod common;

use common::{asset, finish, starling};
use serde_json::Value;

fn bench(args: &[&str]) -> String {
    let mut command = starling();
    command.arg("bench").arg(asset("efficientnet-lite0.onnx")).args(args);
    let output = finish(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn the_figures_agree_with_each_other() {
    let said = bench(&["--runs", "5", "--threads", "1", "--layers", "--predict", "--json"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    let network = &report["networks"][0];
    let [min, median, p95] = ["min_ms", "median_ms", "p95_ms"].map(|key| number(&network[key]));
    assert!(0.0 < min && min <= median && median <= p95, "{said}");
    let layers = network["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 61);
    let sum = |key: &str| layers.iter().map(|layer| number(&layer[key])).sum::<f64>();
    assert!((sum("share") - 1.0).abs() < 0.05, "{said}");
    // Medians of layers and the median of sums are not the same, but nor are they far apart.
    assert!((0.5..2.0).contains(&(sum("ms") / median)), "{said}");
    let predicted = number(&network["prediction"]["ms"]);
    assert!((predicted / sum("predicted_ms") - 1.0).abs() < 0.05, "{said}");
    assert!((predicted / median - 1.0 - number(&network["prediction"]["error"])).abs() < 0.01);
    assert!(number(&network["memory"]["weight_bytes"]) > 18e6);
}

#[test]
fn a_table_for_people_names_what_takes_time() {
    let picture = asset("coffee.jpg");
    let picture = picture.to_str().expect("a path");
    let said = bench(&["--runs", "1", "--layers", "--input", picture]);
    for part in ["median", "GFLOP/s", "depthwise", "[1, 32, 112, 112]", "activations"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    assert!(!said.contains("predicted"), "nobody asked:\n{said}");
}
