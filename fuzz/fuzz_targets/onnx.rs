//! Any bytes as a model, and any bytes as the choices of a small graph of any operators: importing,
//! profiling, slicing, dividing into strips and running never panic, a slice of an imported model
//! can be imported itself, and pieces give the bytes of the whole.

#![no_main]

#[path = "../../node/engine/tests/common/grammar.rs"]
mod grammar;
#[path = "../../node/engine/tests/common/running.rs"]
mod running;

use libfuzzer_sys::fuzz_target;
use starling_engine::{Bytes, Model};

fuzz_target!(|bytes: &[u8]| {
    // No model begins with this letter, so one corpus has both kinds of input.
    let file = match bytes.strip_prefix(b"g") {
        Some(choices) => grammar::model(choices).into(),
        None => Bytes::copy_from_slice(bytes),
    };
    let Ok(model) = Model::parse(file, "fuzz") else { return };
    let profile = model.profile();
    let layers = model.layers().len();
    assert_eq!(profile.cuts.len(), layers + 1);
    for rows in model.split_rows(layers, &[1.0, 2.0, 3.0]) {
        let cost = model.strip_cost(0..layers, &rows).expect("the rows are the model's");
        assert_eq!(cost.input_rows.len(), model.inputs().len());
        let slice = model.slice_rows(0..layers, &rows).expect("the rows are the model's");
        let slice = Model::parse_slice(slice.onnx, &model).expect("a slice is a model");
        assert_eq!(slice.layers().len(), layers);
    }
    if layers > 1 {
        // The input decides the cut, so that the fuzzer can look for a bad one.
        let cut = 1 + bytes.len() % (layers - 1);
        for range in [0..cut, cut..layers] {
            let count = range.len();
            let slice =
                Model::parse_slice(model.slice(range).onnx, &model).expect("a slice is a model");
            assert_eq!(slice.layers().len(), count);
        }
    }
    running::run_if_small(&model);
});
