//! The same networks on Burn's GPU device. Needs the feature `wgpu` and a GPU with Vulkan:
//!
//! ```sh
//! cargo test -p starling-engine --features wgpu --test gpu
//! ```

#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(dead_code, reason = "shares its helpers with the tests on the processor")]

mod common;

use common::{FIXTURES, assert_close, asset, fixture, open, peak, read};
use starling_engine::{DeviceChoice, Model, Piece, Tensor};

fn run_on_gpu(model: &Model, input: &Tensor) -> Tensor {
    let piece = Piece::load(model, 0..model.layers().len(), DeviceChoice::Gpu).unwrap();
    piece.run(std::slice::from_ref(input)).unwrap().remove(0)
}

#[test]
fn efficientnet_gives_the_logits_of_onnx_runtime() {
    let model = Model::open(&asset("efficientnet-lite0.onnx")).unwrap();
    for photo in ["chelsea", "coffee", "camera"] {
        let input = read(&asset(&format!("{photo}.input.npy")));
        let expected = read(&asset(&format!("{photo}.logits.npy")));
        // A GPU adds in another order; the processor's bound is 1e-4.
        assert_close(&run_on_gpu(&model, &input), &expected, 1e-3);
    }
}

#[test]
fn small_networks_give_the_outputs_of_onnx_runtime() {
    for name in FIXTURES {
        let input = read(&fixture(&format!("{name}.input.npy")));
        let expected = read(&fixture(&format!("{name}.output.npy")));
        assert_close(&run_on_gpu(&open(name), &input), &expected, 1e-3 * peak(&expected));
    }
}

#[test]
fn a_pipeline_of_both_kinds_of_device_gives_the_same_class() {
    let model = Model::open(&asset("efficientnet-lite0.onnx")).unwrap();
    let input = read(&asset("coffee.input.npy"));
    let (cut, layers) = (30, model.layers().len());
    let first = Piece::load(&model, 0..cut, DeviceChoice::Gpu).unwrap();
    let second = Piece::load(&model, cut..layers, DeviceChoice::Cpu).unwrap();
    let logits = second.run(&first.run(&[input]).unwrap()).unwrap().remove(0);
    assert_close(&logits, &read(&asset("coffee.logits.npy")), 1e-3);
}
