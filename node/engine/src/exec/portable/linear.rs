//! Matrix products, and the sum.

use burn::tensor::Tensor;

use super::super::Value;
use super::{Run, Site, broadcast, flat, full_rank, map, matrix, sized, take, upload};
use crate::graph::{Gemm, Operand, Product};
use crate::shape;
use crate::weights::Weight;

/// The sum of two activations, or of one and a constant.
pub(super) fn add(site: &Site<'_>, operand: &Operand) -> Run {
    match operand {
        Operand::Activation if site.shape(0) == site.shape(1) => Box::new(|values| {
            let [left, right] = take(values);
            vec![Value::Float(left.into_float().add(right.into_float()))]
        }),
        Operand::Activation => {
            let shapes = [full_rank(site.shape(0)), full_rank(site.shape(1))];
            Box::new(move |values| {
                let [left, right] = take(values);
                let left = left.into_float().reshape(shapes[0]);
                vec![Value::Float(flat(left.add(right.into_float().reshape(shapes[1]))))]
            })
        }
        Operand::ConstantLeft(weight) | Operand::ConstantRight(weight) => {
            let shape = full_rank(site.shape(0));
            let constant = upload(weight.values(), full_rank(weight.shape()), site.device);
            map(move |values| flat(values.reshape(shape).add(constant.clone())))
        }
    }
}

/// Matrix product with a constant, scaled, plus a constant.
pub(super) fn gemm(site: &Site<'_>, gemm: &Gemm) -> Run {
    let scaled = |weight: &Weight, factor: f32| {
        let mut values = weight.values();
        if factor != 1.0 {
            values.iter_mut().for_each(|value| *value *= factor);
        }
        values
    };
    let shape = matrix(site.shape(0));
    let weight: Tensor<2> =
        upload(scaled(&gemm.weight, gemm.alpha), matrix(gemm.weight.shape()), site.device);
    // A view: Burn's matrix product reads either order.
    let weight = if gemm.transpose_weight { weight.transpose() } else { weight };
    let bias = gemm.bias.as_ref().map(|bias| {
        let shape = shape::lead_with_ones(bias.shape(), site.output.1.len());
        upload(scaled(bias, gemm.beta), matrix(&shape), site.device)
    });
    let transpose = gemm.transpose_input;
    map(move |values| {
        let input: Tensor<2> = values.reshape(shape);
        let input = if transpose { input.transpose() } else { input };
        let product = input.matmul(weight.clone());
        flat(match &bias {
            Some(bias) => product.add(bias.clone()),
            None => product,
        })
    })
}

/// `alpha * A * B + beta * C` of computed matrices.
pub(super) fn product(site: &Site<'_>, product: Product) -> Run {
    let shapes = [matrix(site.shape(0)), matrix(site.shape(1))];
    let bias = site.arguments.get(2).map(|(_, shape)| sized::<2>(&shape::lead_with_ones(shape, 2)));
    Box::new(move |values| {
        let mut values = values.into_iter().map(Value::into_float);
        let mut next = || values.next().expect("the import has checked the number of arguments");
        let turned = |matrix: Tensor<2>, turn: bool| if turn { matrix.transpose() } else { matrix };
        let left = turned(next().reshape(shapes[0]), product.transpose_left);
        let right = turned(next().reshape(shapes[1]), product.transpose_right);
        let result = left.matmul(right).mul_scalar(product.alpha);
        let result = match bias {
            Some(shape) => result.add(next().reshape(shape).mul_scalar(product.beta)),
            None => result,
        };
        vec![Value::Float(flat(result))]
    })
}

/// Matrix product by the rules of `numpy.matmul`.
pub(super) fn matmul(site: &Site<'_>, operand: &Operand) -> Run {
    let (left, right) = match operand {
        Operand::Activation => (site.shape(0), site.shape(site.arguments.len() - 1)),
        Operand::ConstantLeft(weight) => (weight.shape(), site.shape(0)),
        Operand::ConstantRight(weight) => (site.shape(0), weight.shape()),
    };
    let plan = shape::matmul(left, right).expect("the import has planned this product");
    if let Some(spread) = &plan.spread {
        return spread_matmul(site, operand, [left, right], spread, &plan);
    }
    let (left, right) = (plan.left, plan.right);
    match operand {
        Operand::Activation => Box::new(move |values| {
            let [a, b] = take(values);
            let (a, b) = (a.into_float().reshape(left), b.into_float().reshape(right));
            vec![Value::Float(flat(a.matmul(b)))]
        }),
        Operand::ConstantLeft(weight) => {
            let constant: Tensor<3> = upload(weight.values(), left, site.device);
            map(move |values| flat(constant.clone().matmul(values.reshape(right))))
        }
        Operand::ConstantRight(weight) => {
            let constant: Tensor<3> = upload(weight.values(), right, site.device);
            map(move |values| flat(values.reshape(left).matmul(constant.clone())))
        }
    }
}

/// The product of two sides that are both repeated before.
fn spread_matmul(
    site: &Site<'_>,
    operand: &Operand,
    from: [&[usize]; 2],
    to: &[Vec<usize>; 2],
    plan: &shape::MatMulPlan,
) -> Run {
    // A vector is a matrix by then, but only matrices have batches that broadcast.
    let from = from.map(full_rank);
    let to = [full_rank(&to[0]), full_rank(&to[1])];
    let (left, right) = (plan.left, plan.right);
    let constant = operand.weight().map(|weight| {
        let values = weight.values();
        let count = values.len();
        upload::<1>(values, [count], site.device)
    });
    let constant_left = matches!(operand, Operand::ConstantLeft(_));
    Box::new(move |values| {
        let mut values: Vec<Tensor<1>> = values.into_iter().map(Value::into_float).collect();
        if let Some(constant) = &constant {
            values.insert(usize::from(!constant_left), constant.clone());
        }
        let [a, b] = <[Tensor<1>; 2]>::try_from(values).expect("a product has two sides");
        let a: Tensor<3> = broadcast(a, from[0], to[0]).reshape(left);
        vec![Value::Float(flat(a.matmul(broadcast(b, from[1], to[1]).reshape(right))))]
    })
}
