//! What models are given: pictures and tensors from files.

use std::{fs, path::Path};

use starling_engine::{Model, Tensor, npy, picture};

use super::Failure;

/// Tensors from files, one for each input of the model.
pub(super) fn read_tensors<'a>(
    model: &Model,
    paths: impl IntoIterator<Item = &'a Path>,
) -> Result<Vec<Tensor>, Failure> {
    let mut tensors = Vec::new();
    for path in paths {
        tensors.push(npy::read(path)?);
    }
    check_shapes(model, &tensors)?;
    Ok(tensors)
}

/// A picture, as image classifiers take it.
pub(super) fn read_image(path: &Path, model: &Model) -> Result<Tensor, Failure> {
    let side = match model.inputs() {
        [input] => match input.shape.as_slice() {
            [1, 3, height, width] if height == width => *height,
            shape => {
                return Err(Failure(format!(
                    "a picture needs a model whose input is a square RGB picture [1, 3, S, S]; this \
                     one takes {shape:?}: give a tensor with --input"
                )));
            }
        },
        inputs => {
            return Err(Failure(format!(
                "a picture needs a model of one input; this one has {}: give tensors with --input",
                inputs.len()
            )));
        }
    };
    let bytes = fs::read(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    picture::preprocess(&bytes, side)
        .map_err(|error| Failure(format!("{}: {error}", path.display())))
}

fn check_shapes(model: &Model, tensors: &[Tensor]) -> Result<(), Failure> {
    let wanted: Vec<&[usize]> = model.inputs().iter().map(|info| info.shape.as_slice()).collect();
    let given: Vec<&[usize]> = tensors.iter().map(Tensor::shape).collect();
    if wanted != given {
        return Err(Failure(format!(
            "the model takes inputs of shapes {wanted:?}, but --input gives {given:?}"
        )));
    }
    match model.inputs().iter().zip(tensors).find(|(info, tensor)| info.dtype != tensor.dtype()) {
        Some((info, tensor)) => Err(Failure(format!(
            "the model's input {} is of type {}, but --input gives {}",
            info.name,
            info.dtype,
            tensor.dtype()
        ))),
        None => Ok(()),
    }
}
