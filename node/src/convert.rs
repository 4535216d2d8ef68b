//! Between the engine's words and the protocol's: profiles, speeds, tensors.

use starling_engine::{
    LayerRows, LoadOptions, Model, Piece, Profile, RowGraph, RowLayer, RowRule, Tensor, TensorInfo,
    calibrate,
};
use starling_protocol::{
    ModelId,
    model::{LayerProfile, ModelProfile, Speed, Work},
    rows::{self, RowMap, RowRange, Splits, TensorRows},
};

use crate::net::{TensorBytes, pack};

/// In which shares of their bytes tensors go over links, as they are [packed](pack).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shares {
    /// All tensors alive across each cut together.
    cuts: Vec<f64>,
    /// By tensor of the row graph.
    tensors: Vec<f64>,
}

impl Shares {
    /// Inputs like those given, which few bytes of a picture need; all other tensors go as they are.
    pub(crate) fn of_inputs(model: &Model, like: &[Tensor]) -> Self {
        let graph = model.row_graph();
        let mut shares = Self {
            cuts: vec![1.0; graph.frontiers.len()],
            tensors: vec![1.0; graph.tensors.len()],
        };
        let share = pack::share(like.iter().map(Tensor::as_bytes));
        shares.cuts[0] = share;
        for tensor in &graph.frontiers[0] {
            shares.tensors[*tensor] = share;
        }
        shares
    }

    /// What all tensors come to when the model computes these inputs, which it does here, layer by
    /// layer.
    pub(crate) fn measure(model: &Model, inputs: Vec<Tensor>) -> Result<Self, String> {
        let graph = model.row_graph();
        let mut shares = Self::of_inputs(model, &inputs);
        let mut alive = inputs;
        for layer in 0..model.layers().len() {
            let piece = Piece::load(model, layer..layer + 1, LoadOptions::default());
            let outputs = piece.map_err(|error| error.to_string())?.run(&alive);
            alive = outputs.map_err(|error| error.to_string())?;
            shares.cuts[layer + 1] = pack::share(alive.iter().map(Tensor::as_bytes));
            for (tensor, value) in graph.frontiers[layer + 1].iter().zip(&alive) {
                shares.tensors[*tensor] = pack::share(std::iter::once(value.as_bytes()));
            }
        }
        Ok(shares)
    }

    /// What of all tensors alive across a cut goes over a link.
    pub(crate) fn of_cut(&self, cut: usize, bytes: u64) -> u64 {
        packed(bytes, self.cuts[cut])
    }

    /// What of a row of a tensor of the row graph does.
    pub(crate) fn of_row(&self, tensor: usize, row_bytes: u64) -> u64 {
        packed(row_bytes, self.tensors[tensor])
    }
}

/// Some bytes in this share of them, and never none of some.
fn packed(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share).ceil() as u64
}

/// A model's costs as the protocol plans with them; nothing if it has no layer or over 65,535.
/// Inputs like those given go over links [packed](pack), which few bytes of a picture need.
pub(crate) fn model_profile(model: &Model, like: &[Tensor]) -> Option<ModelProfile> {
    let shares = Shares::of_inputs(model, like);
    let profile = model.profile();
    let layers: Vec<LayerProfile> = profile
        .layers
        .iter()
        .map(|layer| LayerProfile { work: Work(layer.work), weight_bytes: layer.weight_bytes })
        .collect();
    let cuts = profile.cuts.iter().enumerate().map(|(at, cut)| shares.of_cut(at, cut.bytes));
    let costs = ModelProfile::new(ModelId(*model.id().as_bytes()), &layers, cuts.collect())?;
    Some(match row_map(&model.row_graph(), &shares) {
        Some(rows) => costs.with_rows(rows),
        None => costs,
    })
}

/// How rows flow through a model whose tensors go over links in these shares of their bytes;
/// nothing if a tensor has more rows than anyone cuts.
fn row_map(graph: &RowGraph, shares: &Shares) -> Option<RowMap> {
    let tensor = |(at, (height, row_bytes)): (usize, &(usize, u64))| {
        let row_bytes = shares.of_row(at, *row_bytes);
        Some(TensorRows { height: u32::try_from(*height).ok()?, row_bytes })
    };
    let tensors: Option<Vec<_>> = graph.tensors.iter().enumerate().map(tensor).collect();
    let layers: Option<Vec<_>> = graph.layers.iter().map(layer_rows).collect();
    let frontiers: Option<Vec<_>> = graph.frontiers.iter().map(|ids| numbers(ids)).collect();
    let row_weights: Vec<u64> = graph.layers.iter().map(|layer| layer.row_weight_bytes).collect();
    Some(RowMap::new(tensors?, layers?, frontiers?)?.with_row_weights(&row_weights))
}

fn layer_rows(layer: &RowLayer) -> Option<rows::LayerRows> {
    let inputs = numbers(&layer.inputs)?;
    let (rules, splits) = match &layer.rows {
        LayerRows::Split(rules) => {
            let rules: Option<Vec<_>> = rules.iter().map(row_rule).collect();
            (rules?, Splits::ByRows)
        }
        LayerRows::View => (vec![rows::RowRule::All; inputs.len()], Splits::View),
        LayerRows::Whole => (vec![rows::RowRule::All; inputs.len()], Splits::No),
    };
    let inputs = inputs.into_iter().zip(rules).collect();
    Some(rows::LayerRows { inputs, outputs: numbers(&layer.outputs)?, splits })
}

fn row_rule(rule: &RowRule) -> Option<rows::RowRule> {
    let small = |number: usize| u32::try_from(number).ok();
    Some(match rule {
        RowRule::All => rows::RowRule::All,
        RowRule::Same => rows::RowRule::Same,
        RowRule::Window(window) => rows::RowRule::Window(rows::RowWindow {
            kernel: small(window.kernel)?,
            stride: small(window.stride)?,
            dilation: small(window.dilation)?,
            before: small(window.before)?,
        }),
    })
}

fn numbers(ids: &[usize]) -> Option<Vec<u32>> {
    ids.iter().map(|id| u32::try_from(*id).ok()).collect()
}

/// Rows as the engine names them.
pub(crate) fn engine_rows(rows: &[RowRange]) -> Vec<starling_engine::RowRange> {
    let range =
        |rows: &RowRange| starling_engine::RowRange::new(rows.first as usize, rows.end as usize);
    rows.iter().map(range).collect()
}

/// Rows as the protocol names them.
pub(crate) fn protocol_rows(rows: &[starling_engine::RowRange]) -> Vec<RowRange> {
    // No model that is planned for has more rows than 32 bits count.
    let small = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
    rows.iter().map(|rows| RowRange::new(small(rows.start), small(rows.end))).collect()
}

/// All work of a profile, per op class.
pub(crate) fn total_work(profile: &Profile) -> Work {
    let mut work = Work::default();
    for layer in &profile.layers {
        for (sum, units) in work.0.iter_mut().zip(layer.work) {
            *sum = sum.saturating_add(units);
        }
    }
    work
}

/// A measured speed.
pub(crate) fn speed(measured: &calibrate::Speed) -> Speed {
    Speed(measured.units_per_s.map(|units| units as u64))
}

/// A tensor for the wire; no byte is copied.
pub(crate) fn to_wire(tensor: Tensor) -> TensorBytes {
    // The engine bounds every dimension far below this.
    let shape = tensor.shape().iter().map(|dim| u32::try_from(*dim).unwrap_or(u32::MAX)).collect();
    TensorBytes { shape, data: tensor.into_bytes() }
}

/// Tensors from the wire, of the types that the receiver expects; frames don't name them.
///
/// Their shapes are as they came; the error says what is wrong, to be logged.
pub(crate) fn from_wire<'a>(
    tensors: Vec<TensorBytes>,
    expected: impl ExactSizeIterator<Item = &'a TensorInfo>,
) -> Result<Vec<Tensor>, String> {
    if tensors.len() != expected.len() {
        return Err(format!("{} tensors instead of {}", tensors.len(), expected.len()));
    }
    let one = |(tensor, info): (TensorBytes, &TensorInfo)| {
        let shape = tensor.shape.iter().map(|dim| *dim as usize).collect();
        Tensor::from_bytes(info.dtype, shape, tensor.data).map_err(|error| error.to_string())
    };
    tensors.into_iter().zip(expected).map(one).collect()
}

#[cfg(test)]
mod tests {
    use starling_engine::probe::Probe;
    use starling_protocol::plan::{self, LayerRange};

    use super::*;

    /// The engine and the protocol must agree on what a strip takes, holds and gives.
    fn check(model: &Model) {
        let costs = model_profile(model, &[]).expect("it has layers");
        let map = costs.rows().expect("few rows");
        for (first, end) in (0..costs.layers())
            .flat_map(|first| (first + 1..=costs.layers()).map(move |e| (first, e)))
        {
            let (layers, range) = (LayerRange { first, end }, usize::from(first)..usize::from(end));
            assert_eq!(map.splittable(layers), model.splittable(range.clone()), "{layers}");
            if !map.splittable(layers) || map.all(end).len() > 1 {
                continue;
            }
            for rows in map.divide(end, &[1.0, 3.0, 2.0]).into_iter().filter(|r| !r[0].is_empty()) {
                let here = engine_rows(&rows);
                let engine = model.strip_cost(range.clone(), &here).expect("the model's own rows");
                let piece = plan::Piece { layers, rows };
                let cost = costs.piece(&piece);
                assert_eq!(cost.work, Work(engine.work), "{piece}");
                assert_eq!(cost.weight_bytes, engine.weight_bytes, "{piece}");
                assert_eq!(cost.bytes_out, engine.output_bytes, "{piece}");
                assert_eq!(cost.bytes_in, engine.input_bytes, "{piece}");
                assert_eq!(costs.needed(&piece), protocol_rows(&engine.input_rows), "{piece}");
            }
        }
    }

    #[test]
    fn strips_cost_what_the_engine_says() {
        let image = Probe::new(&[1, 3, 20, 18]).conv(8, 3, 1, 1).max_pool(2, 2).conv(16, 3, 2, 8);
        check(&image.global_average_pool().build());
        check(&Probe::new(&[1, 30]).gemm(50).gemm(40).gemm(7).build());
    }

    #[test]
    fn tensors_are_measured_as_they_go_over_links() {
        let model = Probe::new(&[1, 16, 16, 16]).max_pool(2, 2).build();
        // No two values are the same, but the largest of each window is.
        let value = |i: u16| if i % 2 == 1 && i / 16 % 2 == 1 { 5.0 } else { -f32::from(i) };
        let input = Tensor::from_f32(vec![1, 16, 16, 16], (0..4096).map(value).collect());
        let shares = Shares::measure(&model, vec![input.expect("so many values")]);
        let shares = shares.expect("it runs");
        let cuts = [0, 1].map(|cut| shares.of_cut(cut, 100_000));
        assert_eq!(cuts[0], 100_000);
        // A byte for each value, and the only one.
        assert!((25_000..26_000).contains(&cuts[1]), "{cuts:?}");
        assert_eq!([0, 1].map(|tensor| shares.of_row(tensor, 100_000)), cuts);
    }
}
