//! What loading a piece takes of the machine's memory, as the system counts it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;

use starling_engine::probe::Probe;
use starling_engine::{DeviceChoice, Memory, Model, Piece, Tensor};

/// One of the figures that the system keeps of this process, in bytes.
fn figure(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Loads and runs a network from a file: what the piece says that it takes, and by how much the
/// memory of the process grew at most meanwhile, mapped pages of the file among it.
fn load(network: Probe) -> (Memory, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.onnx");
    fs::write(&path, network.build().bytes()).unwrap();
    let model = Model::open(&path).unwrap();
    let info = &model.inputs()[0];
    let input = Tensor::from_f32(info.shape.clone(), vec![0.5; info.elements() as usize]).unwrap();
    // The peak starts again from what is held now.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = figure("VmRSS:");
    let piece = Piece::load(&model, 0..model.layers().len(), DeviceChoice::Cpu).unwrap();
    piece.run(&[input]).unwrap();
    (piece.memory(), figure("VmHWM:").saturating_sub(before))
}

#[test]
fn loading_takes_what_the_piece_holds() {
    let images = Probe::new(&[1, 512, 64, 64]).conv(1024, 1, 1, 1).conv(1024, 3, 1, 1024);
    let images = images.global_average_pool();
    let networks = [
        ("products", Probe::new(&[1, 4096]).gemm(4096).gemm(3072)),
        ("filters", Probe::new(&[1, 256, 16, 16]).conv(512, 3, 1, 1).conv(512, 3, 2, 1)),
        ("images", images),
    ];
    for (name, network) in networks {
        let (memory, peak) = load(network);
        let holds = memory.weights + memory.activations;
        assert!(holds > 16 << 20, "{name}: {memory:?} is too little to tell");
        // A tenth, and what threads and operators keep for themselves.
        let most = holds + holds / 10 + SMALL_CHANGE;
        assert!(peak <= most, "{name}: {memory:?}, but it grew by {peak}");
        // The peak would be nothing if it was not counted.
        assert!(peak >= holds / 2, "{name}: {memory:?}, but it grew by only {peak}");
    }
}

/// Scratch of two threads, stacks, and pages of the file that are being read.
const SMALL_CHANGE: u64 = 8 << 20;
