//! Junk in: a clear error out, never a panic.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;
#[path = "common/grammar.rs"]
mod grammar;
#[path = "common/running.rs"]
mod running;

use std::fs;
use std::path::Path;

use common::{FIXTURES, fixture, open, random};
use quickcheck::{Arbitrary, Gen};
use starling_engine::{Bytes, DeviceChoice, ImportError, Model, Piece, Tensor};

fn parse(bytes: &[u8]) -> Result<Model, String> {
    Model::parse(Bytes::copy_from_slice(bytes), "test").map_err(|error| error.to_string())
}

#[test]
fn missing_files_say_so() {
    let missing = Model::open(Path::new("/nowhere/model.onnx")).unwrap_err().to_string();
    assert_eq!(missing, "cannot read /nowhere/model.onnx: No such file or directory (os error 2)");
    let folder = Model::open(&fixture("")).unwrap_err().to_string();
    assert!(folder.ends_with("it is not a file"), "{folder}");
}

#[test]
fn what_is_not_onnx_says_so() {
    assert_eq!(parse(b"").unwrap_err(), "test is not an ONNX model: it is empty");
    for junk in [
        &b"hello, world\n"[..],
        b"\x89PNG\r\n\x1a\n",
        b"PK\x03\x04 a zip file",
        &[0; 100],
        &[0xff; 100],
    ] {
        let error = parse(junk).unwrap_err();
        assert!(error.starts_with("test is not an ONNX model: "), "{error}");
    }
}

#[test]
fn files_cut_short_say_so() {
    let whole = fs::read(fixture("exporter.onnx")).unwrap();
    for length in 1..whole.len() {
        let error = parse(&whole[..length]).unwrap_err();
        let known = error.starts_with("test is cut short: ")
            || error.contains("the file may be cut short")
            || error.contains("it has no graph");
        assert!(known, "{length} of {} bytes: {error}", whole.len());
    }
    let error = parse(&whole[..whole.len() / 2]).unwrap_err();
    let present = format!("but has {} bytes; download or export it again", whole.len() / 2);
    assert!(error.starts_with("test is cut short: ") && error.ends_with(&present), "{error}");
}

#[test]
fn slices_without_their_weights_say_which_one_is_missing() {
    let model = open("vgg11");
    let slice = model.slice(0..3);
    let other = open("nin");
    let error = Model::parse_slice(slice.onnx, &other).unwrap_err().to_string();
    let expected = format!(
        "the weights of tensor 'weight_0' (blake3 {}) are not at hand; fetch them first",
        slice.weights[0].hash
    );
    assert_eq!(error, expected);
}

#[test]
fn pieces_check_what_they_are_given() {
    let model = open("resnet18");
    let layers = model.layers().len();
    let piece = Piece::load(&model, 0..layers, DeviceChoice::Cpu).unwrap();
    let run = |inputs: &[Tensor]| piece.run(inputs).unwrap_err().to_string();
    assert_eq!(run(&[]), "the piece takes 1 inputs, not 0");
    assert_eq!(
        run(&[random(&[1, 3, 8, 8], 0)]),
        "input 'input' has shape [1, 3, 40, 40], not [1, 3, 8, 8]"
    );
    for range in [0..0, 0..layers + 1, layers..layers] {
        let error = Piece::load(&model, range, DeviceChoice::Cpu).unwrap_err();
        assert!(error.to_string().contains("are not a piece of a model of"), "{error}");
    }
}

/// Damage to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Cut { at: usize, length: usize },
    Repeat { at: usize, length: usize },
    Truncate { at: usize },
}

impl Arbitrary for Damage {
    fn arbitrary(g: &mut Gen) -> Self {
        let at = usize::arbitrary(g);
        let length = usize::from(u8::arbitrary(g));
        match u8::arbitrary(g) % 16 {
            0..=12 => Self::Flip { at, bit: u8::arbitrary(g) % 8 },
            13 => Self::Cut { at, length },
            14 => Self::Repeat { at, length },
            _ => Self::Truncate { at },
        }
    }
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len().max(1);
        match *self {
            Self::Flip { at, bit } => {
                bytes.iter_mut().skip(at % len).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Self::Cut { at, length } => {
                drop(bytes.drain(at % len..(at % len + length).min(bytes.len())));
            }
            Self::Repeat { at, length } => {
                let again = bytes[at % len..(at % len + length).min(bytes.len())].to_vec();
                bytes.splice(at % len..at % len, again);
            }
            Self::Truncate { at } => bytes.truncate(at % len),
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let sources = FIXTURES.map(open);
    // Most bytes of a file are weights; slices have none, so there the damage goes where it hurts.
    let graphs = sources.each_ref().map(|model| model.slice(0..model.layers().len()).onnx);
    let (mut unharmed, mut refused) = (0, 0);
    let mut g = Gen::new(100);
    for i in 0..20_000 {
        let which = i % FIXTURES.len();
        let undamaged = if i % 3 == 0 { sources[which].bytes() } else { &graphs[which] };
        let mut bytes = undamaged.to_vec();
        let damages: Vec<Damage> = (0..=i % 4).map(|_| Damage::arbitrary(&mut g)).collect();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        let bytes = Bytes::from(bytes);
        let outcome = std::panic::catch_unwind(|| import_and_profile(bytes, &sources[which]));
        match outcome {
            Ok(Ok(())) => unharmed += 1,
            Ok(Err(error)) => {
                refused += usize::from(!matches!(
                    error,
                    ImportError::NotOnnx { .. } | ImportError::Truncated { .. }
                ));
            }
            Err(_) => panic!("{} panics after {damages:?}", FIXTURES[which]),
        }
    }
    // Not vacuous: much of the damage is found late, or not at all.
    assert!(
        unharmed > 200 && refused > 200,
        "{unharmed} unharmed, {refused} refused by the import"
    );
}

fn import_and_profile(onnx: Bytes, source: &Model) -> Result<(), ImportError> {
    let _ = Model::slice_weights(&onnx);
    let model = Model::parse_slice(onnx, source)?;
    let profile = model.profile();
    assert_eq!(profile.cuts.len(), model.layers().len() + 1);
    // What the import accepts, a slice of it must carry.
    let again = model.slice(0..model.layers().len());
    assert_eq!(Model::parse_slice(again.onnx, &model)?.profile(), profile);
    Ok(())
}

#[test]
fn damaged_operators_never_panic_even_when_they_run() {
    let files = fs::read_dir(fixture("operators")).unwrap();
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    paths.sort();
    let sources: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let (mut ran, mut refused) = (0, 0);
    let mut g = Gen::new(100);
    for i in 0..DAMAGED_RUNS {
        let which = i % sources.len();
        let mut bytes = sources[which].clone();
        let damages: Vec<Damage> = (0..=i % 3).map(|_| Damage::arbitrary(&mut g)).collect();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        let outcome = std::panic::catch_unwind(|| import_and_run(&bytes));
        match outcome {
            Ok(Outcome::Ran) => ran += 1,
            Ok(Outcome::Refused) => refused += 1,
            Ok(Outcome::TooLarge) => {}
            Err(_) => panic!("{} panics after {damages:?}", paths[which].display()),
        }
    }
    assert!(ran > 1_000 && refused > 1_000, "{ran} ran, {refused} refused");
}

#[test]
fn an_exponent_that_burn_takes_for_a_huge_integer_is_refused() {
    let mut bytes = fs::read(fixture("operators/norm_lrn.onnx")).unwrap();
    Damage::Flip { at: 967_197_581_877_900_202, bit: 6 }.apply(&mut bytes);
    assert!(matches!(import_and_run(&bytes), Outcome::Refused));
}

enum Outcome {
    Ran,
    Refused,
    TooLarge,
}

fn import_and_run(bytes: &[u8]) -> Outcome {
    match Model::parse(Bytes::copy_from_slice(bytes), "test") {
        Err(_) => Outcome::Refused,
        Ok(model) if running::run_if_small(&model) => Outcome::Ran,
        Ok(_) => Outcome::TooLarge,
    }
}

#[test]
fn graphs_of_any_operators_never_panic_even_when_they_run() {
    let (mut ran, mut refused) = (0, 0);
    let mut g = Gen::new(160);
    for _ in 0..ANY_GRAPHS {
        let bytes = Vec::<u8>::arbitrary(&mut g);
        let outcome = std::panic::catch_unwind(|| import_and_run(&grammar::model(&bytes)));
        match outcome {
            Ok(Outcome::Ran) => ran += 1,
            Ok(Outcome::Refused) => refused += 1,
            Ok(Outcome::TooLarge) => {}
            Err(_) => panic!("the graph of {bytes:?} panics"),
        }
    }
    assert!(ran > ANY_GRAPHS / 10 && refused > 1_000, "{ran} ran, {refused} refused");
}

/// As many files as take some seconds.
const DAMAGED_RUNS: usize = 20_000;

/// As many graphs as take some seconds.
const ANY_GRAPHS: usize = 50_000;
