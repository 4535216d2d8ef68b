//! Any bytes as a model: importing, profiling, slicing and dividing into strips never panic, and a
//! slice of an imported model can be imported itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use starling_engine::{Bytes, Model};

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = Model::parse(Bytes::copy_from_slice(bytes), "fuzz") else { return };
    let profile = model.profile();
    let layers = model.layers().len();
    assert_eq!(profile.cuts.len(), layers + 1);
    for rows in model.split_rows(layers, &[1.0, 2.0, 3.0]) {
        let cost = model.strip_cost(0..layers, &rows).expect("the rows are the model's");
        assert_eq!(cost.input_rows.len(), model.inputs().len());
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
});
