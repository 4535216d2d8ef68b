//! Runs whatever the import accepts, within bounds: for the tests with bad input, and the fuzzer.

use starling_engine::{DType, DeviceChoice, Model, Piece, RowRange, Tensor, TensorInfo};

/// Runs a model if that takes little, and checks the types and shapes of what comes out; the same
/// bytes must come from its layers as slices, one after the other. Says whether it ran.
///
/// # Panics
/// When something is wrong with the engine.
pub(crate) fn run_if_small(model: &Model) -> bool {
    let profile = model.profile();
    let flops = profile.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.flops));
    let bytes = profile.cuts.iter().fold(0u64, |sum, cut| sum.saturating_add(cut.bytes));
    if flops > FLOPS_MAX || bytes > BYTES_MAX {
        return false;
    }
    let layers = model.layers().len();
    let inputs: Vec<Tensor> = model.inputs().iter().map(any_values).collect();
    let run = |model: &Model, inputs: &[Tensor]| {
        let whole = 0..model.layers().len();
        let piece = Piece::load(model, whole, DeviceChoice::Cpu).expect("a model has layers");
        piece.run(inputs).expect("the inputs are as the model says")
    };
    let outputs = run(model, &inputs);
    for (output, info) in outputs.iter().zip(model.outputs()) {
        assert_eq!((output.dtype(), output.shape()), (info.dtype, &info.shape[..]));
    }
    let in_pieces = (0..layers).fold(inputs, |inputs, layer| {
        run_in_strips(model, layer, &inputs);
        let slice = model.slice(layer..layer + 1);
        let slice = Model::parse_slice(slice.onnx, model).expect("a slice is a model");
        assert_eq!(slice.layers().len(), 1, "a slice folds as the whole does");
        run(&slice, &inputs)
    });
    let bytes = |tensors: &[Tensor]| -> Vec<Vec<u8>> {
        tensors.iter().map(|tensor| tensor.as_bytes().to_vec()).collect()
    };
    assert_eq!(bytes(&in_pieces), bytes(&outputs), "pieces give the bytes of the whole");
    true
}

/// Runs a layer in two strips, each from its own slice. What goes value by value gives the features
/// that the whole layer gives.
fn run_in_strips(model: &Model, layer: usize, inputs: &[Tensor]) {
    let piece = |model: &Model, rows: &[RowRange], inputs: &[Tensor]| {
        let piece = Piece::load_rows(model, 0..1, rows, DeviceChoice::Cpu).expect("right rows");
        piece.run(inputs).expect("the inputs are as the strip says")
    };
    let cropped = |tensors: &[Tensor], rows: &[RowRange]| -> Vec<Tensor> {
        let some = tensors.iter().zip(rows).filter(|(_, rows)| !rows.is_empty());
        some.map(|(tensor, rows)| tensor.rows(*rows).expect("it has them")).collect()
    };
    let whole = Model::parse_slice(model.slice(layer..layer + 1).onnx, model).expect("a slice");
    let made = Piece::load(&whole, 0..1, DeviceChoice::Cpu).expect("one layer").run(inputs);
    let made = made.expect("the inputs are as the model says");
    for rows in model.split_rows(layer + 1, &[1.0, 2.0]) {
        if rows.iter().all(|rows| rows.is_empty()) {
            continue;
        }
        let slice = model.slice_rows(layer..layer + 1, &rows).expect("the rows are the model's");
        let slice = Model::parse_slice(slice.onnx, model).expect("a slice is a model");
        let needed = model.needed_rows(layer..layer + 1, &rows).expect("the rows are the model's");
        let strip = piece(&slice, &slice.rows_in_slice(&rows), &cropped(inputs, &needed));
        for (strip, part) in strip.iter().zip(cropped(&made, &rows)) {
            assert_eq!((strip.dtype(), strip.shape()), (part.dtype(), part.shape()));
            let sums = ["Gemm", "MatMul"].contains(&model.layers()[layer].op.name());
            if strip.shape().len() == 2 && !sums {
                assert_eq!(strip.as_bytes(), part.as_bytes(), "{:?}", model.layers()[layer]);
            }
        }
    }
}

/// A tensor as the model wants it; whole numbers are large and small, and of both signs.
fn any_values(info: &TensorInfo) -> Tensor {
    let (shape, count) = (info.shape.clone(), info.elements() as usize);
    let whole = |i: usize| [0, 1, -1, 2, i64::MIN, i64::MAX, 7, -40][i % 8];
    let tensor = match info.dtype {
        DType::Bool => {
            let flags: Vec<bool> = (0..count).map(|i| i % 3 == 0).collect();
            Tensor::from_bool(shape, &flags)
        }
        DType::F32 => Tensor::from_f32(shape, (0..count).map(|i| i as f32 % 7.0 - 3.0).collect()),
        DType::I32 => Tensor::from_i32(shape, (0..count).map(|i| whole(i) as i32).collect()),
        DType::I64 => Tensor::from_i64(shape, (0..count).map(whole).collect()),
    };
    tensor.expect("as many values as the shape says")
}

/// Most operations of a model that is run.
const FLOPS_MAX: u64 = 1 << 22;

/// Most bytes across its cuts.
const BYTES_MAX: u64 = 1 << 20;
