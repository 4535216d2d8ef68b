//! Whole networks against ONNX Runtime, and cut in two at every place against themselves.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use common::{FIXTURES, assert_close, asset, fixture, open, peak, random, read, run_whole, travel};
use starling_engine::{Model, OpClass, picture};

const PHOTOS: [&str; 3] = ["chelsea", "coffee", "camera"];

fn efficientnet() -> Model {
    Model::open(&asset("efficientnet-lite0.onnx")).unwrap()
}

fn top_class(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

#[test]
fn efficientnet_gives_the_logits_of_onnx_runtime() {
    let model = efficientnet();
    for photo in PHOTOS {
        let input = read(&asset(&format!("{photo}.input.npy")));
        let expected = read(&asset(&format!("{photo}.logits.npy")));
        let outputs = run_whole(&model, &[input]);
        assert_eq!(outputs.len(), 1);
        assert_close(&outputs[0], &expected, 1e-4);
    }
}

#[test]
fn small_networks_give_the_outputs_of_onnx_runtime() {
    for name in FIXTURES {
        let model = open(name);
        let input = read(&fixture(&format!("{name}.input.npy")));
        let expected = read(&fixture(&format!("{name}.output.npy")));
        let outputs = run_whole(&model, &[input]);
        assert_close(&outputs[0], &expected, 1e-4 * peak(&expected));
    }
}

/// Cuts a model in two at every cut, sends both halves over, and compares bytes.
fn check_every_cut(model: &Model) {
    let layers = model.layers().len();
    let input = random(&model.inputs()[0].shape, 7);
    let whole = run_whole(model, std::slice::from_ref(&input));
    for cut in 1..layers {
        let (first, second) = (travel(model, 0..cut), travel(model, cut..layers));
        assert_same_layers(model, 0, &first);
        assert_same_layers(model, cut, &second);
        assert_eq!(first.outputs(), model.frontier(cut));
        assert_eq!(second.inputs(), model.frontier(cut));
        let between = run_whole(&first, std::slice::from_ref(&input));
        assert_eq!(run_whole(&second, &between), whole, "cut {cut} of {}", model.name());
    }
}

fn assert_same_layers(whole: &Model, from: usize, slice: &Model) {
    let profile = whole.profile();
    let part = slice.profile();
    assert_eq!(part.layers, profile.layers[from..from + part.layers.len()]);
    assert_eq!(part.cuts, profile.cuts[from..=from + part.layers.len()]);
}

#[test]
fn efficientnet_cut_anywhere_gives_the_same_bytes() {
    check_every_cut(&efficientnet());
}

#[test]
fn small_networks_cut_anywhere_give_the_same_bytes() {
    for name in FIXTURES {
        check_every_cut(&open(name));
    }
}

#[test]
fn layers_alone_and_slices_of_slices_give_the_same_bytes() {
    let model = open("resnet18");
    let input = random(&model.inputs()[0].shape, 3);
    let whole = run_whole(&model, std::slice::from_ref(&input));
    let single = (0..model.layers().len()).fold(vec![input.clone()], |activations, layer| {
        run_whole(&travel(&model, layer..layer + 1), &activations)
    });
    assert_eq!(single, whole);

    let middle = travel(&model, 3..17);
    let inner = travel(&middle, 2..9);
    let direct = travel(&model, 5..12);
    let inputs: Vec<_> = direct.inputs().iter().map(|info| random(&info.shape, 5)).collect();
    assert_eq!(run_whole(&inner, &inputs), run_whole(&direct, &inputs));
}

#[test]
fn a_slice_is_small_and_its_bytes_are_always_the_same() {
    let model = efficientnet();
    let layers = model.layers().len();
    let slice = model.slice(0..layers);
    assert!(slice.onnx.len() < 64 * 1024, "{} bytes", slice.onnx.len());
    assert_eq!(slice.onnx, efficientnet().slice(0..layers).onnx);
    let listed: u64 = slice.weights.iter().map(|weight| weight.bytes).sum();
    assert!(listed > 18_000_000 && listed < model.bytes().len() as u64);
    assert_eq!(travel(&model, 0..layers).id(), blake3::hash(&slice.onnx));
}

#[test]
fn threads_do_not_change_a_byte() {
    let model = efficientnet();
    let input = read(&asset("coffee.input.npy"));
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run_whole(&model, std::slice::from_ref(&input)))
    };
    let one = with_threads(1);
    assert_eq!(one, with_threads(2));
    assert_eq!(one, with_threads(3));
}

#[test]
fn efficientnet_costs_what_its_architecture_says() {
    let profile = efficientnet().profile();
    assert_eq!(profile.layers.len() + 1, profile.cuts.len());
    // The paper counts 407 million multiply-adds, and 4.7 million parameters.
    let flops: u64 = profile.layers.iter().map(|layer| layer.flops).sum();
    assert!((750_000_000..850_000_000).contains(&flops), "{flops}");
    let weights: u64 = profile.layers.iter().map(|layer| layer.weight_bytes).sum();
    assert!((18_000_000..19_000_000).contains(&weights), "{weights}");
    let first = &profile.layers[0];
    assert_eq!(
        (first.op, first.class, &first.output_shape[..]),
        ("Conv", OpClass::Dense, &[1, 32, 112, 112][..])
    );
    assert_eq!(first.flops, 2 * 27 * 32 * 112 * 112);
    assert_eq!(profile.layers[1].class, OpClass::Depthwise);
    assert_eq!(profile.layers[2].class, OpClass::Pointwise);
    assert_eq!(profile.layers.last().unwrap().class, OpClass::Linear);
    assert_eq!(profile.cuts[0].bytes, 4 * 3 * 224 * 224);
    assert_eq!(profile.cuts.last().unwrap().bytes, 4000);
    assert!(profile.cuts.iter().any(|cut| cut.tensors.len() == 2), "a residual crosses some cut");
}

#[test]
fn photos_become_the_inputs_of_the_reference() {
    let model = efficientnet();
    for photo in PHOTOS {
        let jpeg = std::fs::read(asset(&format!("{photo}.jpg"))).unwrap();
        let input = picture::preprocess(&jpeg, 224).unwrap();
        let expected = read(&asset(&format!("{photo}.input.npy")));
        assert_eq!(input.shape(), expected.shape());
        let sum: f32 =
            input.as_f32().iter().zip(expected.as_f32()).map(|(a, e)| (a - e).abs()).sum();
        let mean = sum / input.as_f32().len() as f32;
        // Decoders of JPEG differ by a rounding here and there: less than half a grey level.
        assert!(mean < 0.5 / 128.0, "{photo}: inputs differ by {mean} in the mean");
        let logits = run_whole(&model, &[input]);
        let reference = read(&asset(&format!("{photo}.logits.npy")));
        assert_eq!(top_class(logits[0].as_f32()), top_class(reference.as_f32()), "{photo}");
    }
}
