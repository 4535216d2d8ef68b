//! The contestants that run in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use starling_engine::{Kernels, LoadOptions, Model, Piece};
use tract_onnx::prelude::{
    Datum, Framework, InferenceFact, InferenceModelExt, IntoRunnable, IntoTValue,
    TypedRunnableModel, multithread, tvec,
};

use crate::contestant::{Contestant, Result};
use crate::setup::Input;

/// A contestant whose run is a call.
pub struct Local<F>(F);

impl<F: FnMut(Output) -> Result<Vec<f32>>> Contestant for Local<F> {
    fn run(&mut self, times: u32) -> Result<Vec<f64>> {
        let once = |_| {
            let began = Instant::now();
            (self.0)(Output::Dropped)?;
            Ok(began.elapsed().as_secs_f64())
        };
        (0..times).map(once).collect()
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        (self.0)(Output::Copied)
    }
}

/// What becomes of a run's output: copying it is not part of the run.
pub enum Output {
    Copied,
    Dropped,
}

/// Starling's engine: the whole model as one piece, by some of its kernels.
pub fn starling(
    path: &Path,
    threads: usize,
    input: &Input,
    kernels: Kernels,
) -> Result<Local<impl FnMut(Output) -> Result<Vec<f32>> + use<>>> {
    let model = Model::open(path)?;
    let options = LoadOptions { kernels, ..LoadOptions::default() };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let piece = pool.install(|| Piece::load(&model, 0..model.layers().len(), options))?;
    let input = starling_engine::Tensor::from_f32(input.shape.clone(), input.values.clone())?;
    Ok(Local(move |output| {
        let outputs = pool.install(|| piece.run(std::slice::from_ref(&input)))?;
        Ok(match output {
            Output::Copied => outputs[0].as_f32().to_vec(),
            Output::Dropped => Vec::new(),
        })
    }))
}

/// tract, with its optimisations for a known shape, and its threads if there are to be several.
pub fn tract(
    path: &Path,
    threads: usize,
    input: &Input,
) -> Result<Local<impl FnMut(Output) -> Result<Vec<f32>> + use<>>> {
    let fact = InferenceFact::dt_shape(f32::datum_type(), input.shape.as_slice());
    let plan: Arc<TypedRunnableModel> = tract_onnx::onnx()
        .model_for_path(path)?
        .with_input_fact(0, fact)?
        .into_optimized()?
        .into_runnable()?;
    let executor = match threads {
        1 => multithread::Executor::SingleThread,
        threads => multithread::Executor::multithread(threads),
    };
    let input = tract_onnx::prelude::Tensor::from_shape(&input.shape, &input.values)?.into_tvalue();
    Ok(Local(move |output| {
        let run = || plan.run(tvec!(input.clone()));
        let outputs = multithread::multithread_tract_scope(executor.clone(), run)?;
        Ok(match output {
            Output::Copied => outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect(),
            Output::Dropped => Vec::new(),
        })
    }))
}
