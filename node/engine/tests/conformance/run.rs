//! Runs a case, and compares what comes out.

use std::panic::{self, AssertUnwindSafe};

use starling_engine::{
    DType, ImportError, ImportOptions, Kernels, LoadError, LoadOptions, Model, Piece, Tensor,
};

use crate::case::{Case, Value};

/// A way to execute a model, by its name on the command line.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    load: fn(&Model) -> Result<Piece, LoadError>,
}

/// All of them.
pub(crate) static PATHS: &[Path] =
    &[Path { name: "fast", load: fast }, Path { name: "portable", load: portable }];

fn fast(model: &Model) -> Result<Piece, LoadError> {
    load(model, Kernels::Fast)
}

fn portable(model: &Model) -> Result<Piece, LoadError> {
    load(model, Kernels::Portable)
}

fn load(model: &Model, kernels: Kernels) -> Result<Piece, LoadError> {
    let options = LoadOptions { kernels, ..LoadOptions::default() };
    Piece::load(model, 0..model.layers().len(), options)
}

/// What became of a case.
pub(crate) enum Outcome {
    /// The engine gave what it must; so many inputs were fixed when the model was read.
    Passed { fixed: usize },
    /// The engine refused the model, because of this operator.
    Refused { operator: String, reason: String },
    /// The engine ran the model, and something is wrong.
    Failed { reason: String },
}

/// Runs a case on one path.
pub(crate) fn run(case: &Case, path: &Path) -> Outcome {
    let caught = panic::catch_unwind(AssertUnwindSafe(|| attempt(case, path)));
    caught.unwrap_or_else(|_| Outcome::Failed { reason: "it panics".to_owned() })
}

fn attempt(case: &Case, path: &Path) -> Outcome {
    let failed = |reason: String| Outcome::Failed { reason };
    let (inputs, outputs) = match (case.inputs(), case.outputs()) {
        (Ok(inputs), Ok(outputs)) => (inputs, outputs),
        (Err(error), _) | (_, Err(error)) => return failed(error),
    };
    let (model, fixed) = match import(case, &inputs) {
        Ok(imported) => imported,
        Err(error) => return refused(case, &error),
    };
    let given: Result<Vec<Tensor>, String> = model
        .inputs()
        .iter()
        .map(|info| match inputs.iter().find(|input| input.name == info.name) {
            Some(input) => input.tensor(),
            None => Err(format!("the case has no input '{}'", info.name)),
        })
        .collect();
    let given = match given {
        Ok(given) => given,
        // The engine has no empty tensors; the graph does not always say that an input is one.
        Err(reason) => {
            let operator = case.operators().join("+");
            return Outcome::Refused { operator, reason };
        }
    };
    let results = (path.load)(&model)
        .map_err(|error| error.to_string())
        .and_then(|piece| piece.run(&given).map_err(|error| error.to_string()));
    let checked = results.and_then(|results| {
        compare(&results, &outputs)?;
        in_pieces(&model, path, given).and_then(|pieces| same_bytes(&pieces, &results))
    });
    match checked {
        Ok(()) => Outcome::Passed { fixed },
        Err(reason) => failed(reason),
    }
}

/// Runs every layer as a slice of its own, one after the other.
fn in_pieces(model: &Model, path: &Path, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
    (0..model.layers().len()).try_fold(inputs, |inputs, layer| {
        let slice = model.slice(layer..layer + 1);
        let slice = Model::parse_slice(slice.onnx, model).map_err(|error| error.to_string())?;
        let piece = (path.load)(&slice).map_err(|error| error.to_string())?;
        piece.run(&inputs).map_err(|error| error.to_string())
    })
}

/// Wherever a model is cut, its pieces give the bytes of the whole.
fn same_bytes(pieces: &[Tensor], whole: &[Tensor]) -> Result<(), String> {
    let bytes = |tensors: &[Tensor]| -> Vec<Vec<u8>> {
        tensors.iter().map(|tensor| tensor.as_bytes().to_vec()).collect()
    };
    if bytes(pieces) == bytes(whole) {
        return Ok(());
    }
    Err("pieces give other bytes than the whole".to_owned())
}

/// Imports the model. Cases hand over axes, shapes and bounds as inputs, where networks have
/// constants: what the engine must know to give the graph its shapes is fixed, and nothing else.
/// Gives the number of inputs that were.
fn import(case: &Case, inputs: &[Value]) -> Result<(Model, usize), ImportError> {
    let mut options = ImportOptions::default();
    let mut fixed: Vec<&str> = Vec::new();
    loop {
        let error = match Model::parse_with(case.model.clone(), &case.name, &options) {
            Ok(model) => return Ok((model, fixed.len())),
            Err(error) => error,
        };
        let ImportError::Computed { tensor, .. } = &error else { return Err(error) };
        let Some(input) = next_to_fix(case, inputs, tensor, &fixed) else { return Err(error) };
        let Value { name, dtype, shape, bytes } = input;
        if options.fix(name, *dtype, shape, bytes.clone()).is_err() {
            return Err(error);
        }
        fixed.push(name);
    }
}

/// The input that the engine must know: the one that it names, or one of whole numbers that what
/// it names is computed of.
fn next_to_fix<'a>(
    case: &Case,
    inputs: &'a [Value],
    tensor: &str,
    fixed: &[&str],
) -> Option<&'a Value> {
    if let Some(input) = inputs.iter().find(|input| input.name == tensor) {
        return Some(input);
    }
    let sources = case.sources(tensor);
    let open = |input: &&Value| {
        let whole = matches!(input.dtype, DType::I32 | DType::I64);
        whole && sources.contains(&input.name) && !fixed.contains(&input.name.as_str())
    };
    inputs.iter().find(open)
}

fn refused(case: &Case, error: &ImportError) -> Outcome {
    let operator = match error {
        ImportError::UnsupportedOperator { op, .. }
        | ImportError::Node { op, .. }
        | ImportError::Computed { op, .. } => op.clone(),
        _ => case.operators().join("+"),
    };
    Outcome::Refused { operator, reason: error.to_string() }
}

fn compare(results: &[Tensor], expected: &[Value]) -> Result<(), String> {
    if results.len() != expected.len() {
        return Err(format!("{} outputs instead of {}", results.len(), expected.len()));
    }
    for (result, expected) in results.iter().zip(expected) {
        let name = &expected.name;
        if (result.dtype(), result.shape()) != (expected.dtype, &expected.shape[..]) {
            return Err(format!(
                "{name} is {}{:?} instead of {}{:?}",
                result.dtype(),
                result.shape(),
                expected.dtype,
                expected.shape
            ));
        }
        let wanted = expected.tensor()?;
        if result.dtype() == DType::F32 {
            let pairs = result.as_f32().iter().zip(wanted.as_f32());
            if let Some((at, (a, e))) = pairs.enumerate().find(|(_, (a, e))| !close(**a, **e)) {
                return Err(format!("{name}: value {at} is {a} instead of {e}"));
            }
        } else if result.as_bytes() != wanted.as_bytes() {
            return Err(format!("{name}: other values"));
        }
    }
    Ok(())
}

fn close(actual: f32, expected: f32) -> bool {
    let same = actual == expected || actual.is_nan() && expected.is_nan();
    same || (actual - expected).abs() <= ATOL + RTOL * expected.abs()
}

/// What ONNX's own runner allows a backend, relative to the expected value ...
const RTOL: f32 = 1e-3;

/// ... and absolute.
const ATOL: f32 = 1e-7;
