//! What `starling inspect --json` prints of a model, as planners see it.

use serde_json::Value;
use starling_protocol::{
    ModelId,
    model::{LayerProfile, ModelProfile, OP_CLASSES, Work},
    rows::{LayerRows, RowMap, RowRule, RowWindow, Splits, TensorRows},
};

/// The model's costs, with tensors as they are packed on the wire; nothing if something is missing.
/// Without the part about rows, no strips can be told of.
pub(super) fn model_profile(inspected: &Value) -> Option<ModelProfile> {
    let layers: Option<Vec<LayerProfile>> = list(&inspected["layers"])?.iter().map(layer).collect();
    let cuts: Option<Vec<u64>> =
        list(&inspected["cut_bytes_sent"])?.iter().map(Value::as_u64).collect();
    let profile = ModelProfile::new(ModelId([0; 32]), &layers?, cuts?)?;
    if inspected["rows"].is_null() {
        return Some(profile);
    }
    Some(profile.with_rows(row_map(&inspected["rows"])?))
}

/// Units of work by class.
fn by_class(values: &Value) -> Option<[u64; OP_CLASSES]> {
    let values: Option<Vec<u64>> = list(values)?.iter().map(Value::as_u64).collect();
    values?.try_into().ok()
}

fn layer(layer: &Value) -> Option<LayerProfile> {
    let (work, weight_bytes) = (by_class(&layer["work"])?, layer["weight_bytes"].as_u64()?);
    Some(LayerProfile { work: Work(work), weight_bytes })
}

/// How rows flow, as they go over links.
fn row_map(rows: &Value) -> Option<RowMap> {
    let frontiers: Option<Vec<Vec<u32>>> = list(&rows["frontiers"])?.iter().map(numbers).collect();
    let tensor = |tensor: &Value| {
        let row_bytes = tensor["row_bytes_sent"].as_u64()?;
        Some(TensorRows { height: number(&tensor["height"])?, row_bytes })
    };
    let tensors: Option<Vec<TensorRows>> = list(&rows["tensors"])?.iter().map(tensor).collect();
    let layers = list(&rows["layers"])?;
    let flow: Option<Vec<LayerRows>> = layers.iter().map(layer_rows).collect();
    let weights: Option<Vec<u64>> =
        layers.iter().map(|layer| layer["row_weight_bytes"].as_u64()).collect();
    Some(RowMap::new(tensors?, flow?, frontiers?)?.with_row_weights(&weights?))
}

fn layer_rows(layer: &Value) -> Option<LayerRows> {
    let inputs = numbers(&layer["inputs"])?;
    let (rules, splits) = match layer["rules"].as_array() {
        Some(rules) => (rules.iter().map(rule).collect::<Option<Vec<_>>>()?, Splits::ByRows),
        None if layer["view"] == true => (vec![RowRule::All; inputs.len()], Splits::View),
        None => (vec![RowRule::All; inputs.len()], Splits::No),
    };
    let inputs = inputs.into_iter().zip(rules).collect();
    Some(LayerRows { inputs, outputs: numbers(&layer["outputs"])?, splits })
}

fn rule(rule: &Value) -> Option<RowRule> {
    match rule.as_str() {
        Some("all") => Some(RowRule::All),
        Some("same") => Some(RowRule::Same),
        Some(_) => None,
        None => Some(RowRule::Window(RowWindow {
            kernel: number(&rule["kernel"])?,
            stride: number(&rule["stride"])?,
            dilation: number(&rule["dilation"])?,
            before: number(&rule["before"])?,
        })),
    }
}

fn list(value: &Value) -> Option<&Vec<Value>> {
    value.as_array()
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn numbers(values: &Value) -> Option<Vec<u32>> {
    list(values)?.iter().map(number).collect()
}
