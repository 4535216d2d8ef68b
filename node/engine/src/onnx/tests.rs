//! Files that are wrong, each in one way, and what the importer says about them.

use bytes::Bytes;
use prost::Message;

use super::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetId, StringStringEntry,
    TensorProto, TensorShape, TensorType, TypeProto, ValueInfoProto, data_type,
};
use crate::{DType, DeviceChoice, ImportError, ImportOptions, Model, Piece, Tensor};

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn value_info(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&dim| Dimension { dim_value: Some(dim), dim_param: None }).collect();
    let tensor_type =
        TensorType { elem_type: Some(data_type::FLOAT), shape: Some(TensorShape { dim }) };
    ValueInfoProto { name: text(name), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: text(&format!("the_{}", op.to_lowercase())),
        op_type: text(op),
        ..NodeProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: text(name), ints: values.to_vec(), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: text(name), i: Some(value), ..AttributeProto::default() }
}

fn weight(name: &str, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: text(name),
        dims: dims.to_vec(),
        data_type: Some(data_type::FLOAT),
        float_data: vec![0.5; dims.iter().product::<i64>() as usize],
        ..TensorProto::default()
    }
}

/// A good model, `y = conv(x, w)`, for the tests to spoil.
fn good() -> ModelProto {
    let mut conv = node("Conv", &["x", "w"], "y");
    conv.attribute = vec![ints("strides", &[1, 1]), ints("pads", &[1, 1, 1, 1]), int("group", 1)];
    ModelProto {
        ir_version: Some(8),
        graph: Some(GraphProto {
            node: vec![conv],
            initializer: vec![weight("w", &[4, 3, 3, 3])],
            input: vec![value_info("x", &[1, 3, 8, 8])],
            output: vec![value_info("y", &[1, 4, 8, 8])],
            ..GraphProto::default()
        }),
        opset_import: vec![OperatorSetId { domain: text(""), version: Some(13) }],
        ..ModelProto::default()
    }
}

fn parse(model: &ModelProto) -> Result<Model, String> {
    Model::parse(model.encode_to_vec().into(), "test").map_err(|error| error.to_string())
}

/// Spoils the good model and asserts what the importer says.
#[track_caller]
fn check(spoil: impl FnOnce(&mut GraphProto), message: &str) {
    let mut model = good();
    spoil(model.graph.as_mut().unwrap());
    assert_eq!(parse(&model).unwrap_err(), message);
}

#[test]
fn the_good_model_is_good() {
    let model = parse(&good()).unwrap();
    assert_eq!(model.outputs()[0].shape, [1, 4, 8, 8]);
    assert_eq!(model.profile().layers[0].flops, 2 * 27 * 4 * 64);
}

#[test]
fn unsupported_operators_are_named() {
    check(
        |g| g.node[0].op_type = text("Einsum"),
        "operator Einsum of opset 13 (node 'the_conv') is not supported",
    );
    check(
        |g| g.node[0].domain = text("com.example"),
        "operator com.example.Conv of opset 13 (node 'the_conv') is not supported",
    );
    check(
        |g| {
            g.node[0].op_type = text("Einsum");
            g.node[0].name = None;
        },
        "operator Einsum of opset 13 (node 'y') is not supported",
    );
}

#[test]
fn graphs_must_hang_together() {
    check(
        |g| g.node[0].input[0] = "z".to_owned(),
        "node 'the_conv' (Conv): input 'z' is made by no earlier node (it is missing, or the nodes go in a circle)",
    );
    check(
        |g| g.node[0].input[0] = "y".to_owned(),
        "node 'the_conv' (Conv): input 'y' is made by no earlier node (it is missing, or the nodes go in a circle)",
    );
    check(|g| g.node.push(node("Relu", &["x"], "y")), "tensor 'y': it is defined twice");
    check(|g| g.initializer.push(weight("w", &[1])), "tensor 'w': it is defined twice");
    check(|g| g.output.clear(), "the graph is not usable: it has no outputs");
    check(|g| g.output[0].name = text("q"), "tensor 'q': it is an output, but no node makes it");
    check(|g| g.output.push(value_info("y", &[])), "tensor 'y': another output is the same tensor");
    check(|g| g.output[0].name = text("x"), "the graph is not usable: it computes nothing");
    check(|g| g.node[0].output.clear(), "tensor 'y': it is an output, but no node makes it");
    check(
        |g| g.node[0].input[1] = "n".repeat(513),
        "the graph is not usable: a tensor's name is 513 bytes long, more than 512",
    );
}

#[test]
fn inputs_must_have_a_usable_shape() {
    check(
        |g| g.input[0] = value_info("x", &[1, 3, 0, 8]),
        "tensor 'x': dimension 2 has no fixed size; export the model with a fixed input size",
    );
    check(
        |g| g.input[0] = value_info("x", &[1, 3, 1 << 20, 1 << 20]),
        "tensor 'x': shape [1, 3, 1048576, 1048576] has more than 2147483648 elements",
    );
    check(
        |g| g.input[0] = value_info("x", &[1; 9]),
        "tensor 'x': 9 dimensions are more than the 8 supported",
    );
    check(
        |g| g.input[0] = value_info("x", &[3, 8, 8]),
        "node 'the_conv' (Conv): filters of shape [4, 3, 3, 3] are not for 1 dimensions",
    );
    check(|g| g.input[0].r#type = None, "tensor 'x': it is an input, but not a tensor");
    check(
        |g| g.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = Some(11),
        "tensor 'x': its type is DOUBLE; supported are FLOAT, FLOAT16, INT64, INT32 and BOOL",
    );
    let mut open_batch = good();
    open_batch.graph.as_mut().unwrap().input[0] = value_info("x", &[-1, 3, 8, 8]);
    assert_eq!(parse(&open_batch).unwrap().inputs()[0].shape, [1, 3, 8, 8]);
}

#[test]
fn attributes_must_be_in_range() {
    let cases: [(AttributeProto, &str); 9] = [
        (ints("strides", &[0, 1]), "strides [0, 1] must be 2 numbers from 1 to 16777216"),
        (ints("strides", &[1]), "strides [1] must be 2 numbers from 1 to 16777216"),
        (ints("dilations", &[1, -1]), "dilations [1, -1] must be 2 numbers from 1 to 16777216"),
        (ints("kernel_shape", &[3, 4]), "kernel_shape [3, 4] differs from the filters' [3, 3]"),
        (ints("pads", &[1, 1, 1]), "pads [1, 1, 1] must be 4 numbers from 0 to 16777216"),
        (
            ints("pads", &[0, 0, 0, i64::MAX]),
            "pads [0, 0, 0, 9223372036854775807] must be 4 numbers from 0 to 16777216",
        ),
        (int("group", 0), "3 channels do not fit filters of shape [4, 3, 3, 3] in 0 groups"),
        (int("group", 2), "3 channels do not fit filters of shape [4, 3, 3, 3] in 2 groups"),
        (ints("dilations", &[9, 9]), "a window of 19 does not fit into 10 with its padding"),
    ];
    for (attribute, problem) in cases {
        let spoil = |g: &mut GraphProto| {
            g.node[0].attribute.retain(|other| other.name != attribute.name);
            g.node[0].attribute.push(attribute);
        };
        check(spoil, &format!("node 'the_conv' (Conv): {problem}"));
    }
}

#[test]
fn padding_that_would_fill_the_memory_is_refused() {
    check(
        |g| g.node[0].attribute[1].ints = vec![1 << 20; 4],
        "node 'the_conv' (Conv): shape [1, 3, 2097160, 2097160] has more than 2147483648 elements",
    );
}

#[test]
fn weights_must_be_whole_and_of_type_float() {
    check(
        |g| g.initializer[0].float_data.truncate(100),
        "tensor 'w': shape [4, 3, 3, 3] needs 432 bytes, but there are 400",
    );
    check(
        |g| g.initializer[0].raw_data = Some(Bytes::from_static(&[0; 12])),
        "tensor 'w': shape [4, 3, 3, 3] needs 432 bytes, but there are 12",
    );
    check(
        |g| {
            g.initializer[0].data_type = Some(6);
            g.initializer[0].int32_data = vec![1; 108];
        },
        "node 'the_conv' (Conv): input 'w' has values of type i32, not f32",
    );
    check(|g| g.initializer[0].dims[0] = -4, "tensor 'w': dimension -4 is negative");
    check(
        |g| {
            g.node[0].input.push("b".to_owned());
            g.initializer.push(weight("b", &[5]));
        },
        "node 'the_conv' (Conv): input 'b' has shape [5], not [4]",
    );
    check(
        |g| g.node[0].input.truncate(1),
        "node 'the_conv' (Conv): it has 1 inputs; the operator takes 2 to 3",
    );
    check(
        |g| g.node[0].input.swap(0, 1),
        "node 'the_conv' (Conv): a window of 8 does not fit into 5 with its padding",
    );
}

#[test]
fn external_weights_need_a_source_that_has_them() {
    let at = |location: String| {
        move |g: &mut GraphProto| {
            let entry =
                |key: &str, value: String| StringStringEntry { key: text(key), value: Some(value) };
            g.initializer[0].float_data.clear();
            g.initializer[0].data_location = Some(super::proto::EXTERNAL);
            g.initializer[0].external_data =
                vec![entry("location", location), entry("length", "432".to_owned())];
        }
    };
    check(
        at("weights.bin".to_owned()),
        "the weights of tensor 'w' are in an external file, 'weights.bin'; save the model as one file \
         (onnx.save_model(model, path, save_as_external_data=False))",
    );
    check(at("blake3:12".to_owned()), "tensor 'w': 'blake3:12' is not a blake3 hash");
    let hash = blake3::hash(b"");
    check(
        at(format!("blake3:{hash}")),
        &format!("the weights of tensor 'w' (blake3 {hash}) are not at hand; fetch them first"),
    );
}

#[test]
fn old_operators_are_refused() {
    let mut model = good();
    model.opset_import[0].version = Some(6);
    let message =
        "the graph is not usable: operators of version 6 are too old; export with opset 7 or newer";
    assert_eq!(parse(&model).unwrap_err(), message);
    model.opset_import.clear();
    assert!(parse(&model).unwrap_err().contains("names no version"));
}

#[test]
fn a_graph_whose_frontiers_grow_without_end_is_refused() {
    let mut model = good();
    let graph = model.graph.as_mut().unwrap();
    // Every result is read again by the last node, thousands of layers later.
    let names: Vec<String> = (0..3000).map(|i| format!("r{i}")).collect();
    graph.node = names.iter().map(|name| node("Relu", &["x"], name)).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    graph.node.push(node("Concat", &all, "y"));
    let message =
        "the graph is not usable: too many of its tensors are needed far from where they are made";
    assert_eq!(parse(&model).unwrap_err(), message);
}

/// A model of these nodes, with inputs of type `f32` and initializers; of what the nodes make, the
/// last is the output.
fn model_of(
    opset: i64,
    inputs: &[(&str, &[i64])],
    initializer: Vec<TensorProto>,
    node: Vec<NodeProto>,
) -> ModelProto {
    let last = node.last().and_then(|node| node.output.last()).cloned();
    ModelProto {
        ir_version: Some(8),
        graph: Some(GraphProto {
            node,
            initializer,
            input: inputs.iter().map(|(name, dims)| value_info(name, dims)).collect(),
            output: vec![value_info(&last.unwrap(), &[])],
            ..GraphProto::default()
        }),
        opset_import: vec![OperatorSetId { domain: text(""), version: Some(opset) }],
        ..ModelProto::default()
    }
}

fn longs(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: text(name),
        dims: vec![values.len() as i64],
        data_type: Some(data_type::INT64),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn run(model: &Model, inputs: &[Tensor]) -> Vec<Tensor> {
    let piece = Piece::load(model, 0..model.layers().len(), DeviceChoice::Cpu).unwrap();
    piece.run(inputs).unwrap()
}

fn row(values: &[f32]) -> Tensor {
    Tensor::from_f32(vec![values.len()], values.to_vec()).unwrap()
}

#[test]
fn a_mask_that_nobody_reads_is_no_obstacle() {
    let mut dropout = node("Dropout", &["x"], "d");
    dropout.output.push("mask".to_owned());
    let nodes = vec![dropout.clone(), node("Relu", &["d"], "y")];
    let model = parse(&model_of(7, &[("x", &[3])], vec![], nodes)).unwrap();
    assert_eq!(run(&model, &[row(&[-1.0, 0.5, 2.0])])[0].as_f32(), [0.0, 0.5, 2.0]);

    let nodes = vec![dropout, node("Relu", &["d"], "r"), node("Not", &["mask"], "y")];
    let read = model_of(13, &[("x", &[3])], vec![], nodes.clone());
    let model = parse(&read).unwrap();
    assert_eq!(run(&model, &[row(&[0.0; 3])])[0].as_bool(), [0, 0, 0]);
    let old = parse(&model_of(9, &[("x", &[3])], vec![], nodes)).unwrap_err();
    assert_eq!(old, "node 'the_dropout' (Dropout): its mask is supported since opset 10");
}

#[test]
fn half_precision_is_computed_in_single() {
    let half = TensorProto {
        name: text("w"),
        dims: vec![2],
        data_type: Some(data_type::FLOAT16),
        // 1.5 and -2.
        int32_data: vec![0x3e00, 0xc000],
        ..TensorProto::default()
    };
    let mut proto = model_of(13, &[("x", &[2])], vec![half], vec![node("Add", &["x", "w"], "y")]);
    let input = &mut proto.graph.as_mut().unwrap().input[0];
    let kind = input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
    kind.elem_type = Some(data_type::FLOAT16);
    let model = parse(&proto).unwrap();
    assert_eq!(model.inputs()[0].dtype, DType::F32);
    assert_eq!(run(&model, &[row(&[1.0, 1.0])])[0].as_f32(), [2.5, -1.0]);
}

#[test]
fn shapes_of_shapes_are_computed_when_a_model_is_read() {
    let nodes = vec![
        node("Shape", &["x"], "shape"),
        node("Gather", &["shape", "first"], "rows"),
        node("Mul", &["rows", "two"], "more"),
        node("Concat", &["more", "rest"], "target"),
        node("Relu", &["x"], "r"),
        node("Reshape", &["r", "target"], "y"),
    ];
    let mut concat = nodes.clone();
    concat[3].attribute = vec![int("axis", 0)];
    let lists = vec![longs("first", &[0]), longs("two", &[2]), longs("rest", &[-1])];
    let model = parse(&model_of(13, &[("x", &[3, 4])], lists, concat)).unwrap();
    assert_eq!(model.outputs()[0].shape, [6, 2]);
    assert_eq!(model.layers().len(), 2);
}

#[test]
fn inputs_that_shapes_depend_on_can_be_fixed() {
    let nodes = vec![node("Relu", &["x"], "r"), node("Reshape", &["r", "target"], "y")];
    let mut proto = model_of(13, &[("x", &[6]), ("target", &[2])], vec![], nodes);
    let input = &mut proto.graph.as_mut().unwrap().input[1];
    input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = Some(7);
    let bytes = Bytes::from(proto.encode_to_vec());
    let error = Model::parse(bytes.clone(), "test").unwrap_err();
    assert!(
        matches!(&error, ImportError::Computed { tensor, .. } if tensor == "target"),
        "{error}"
    );

    let fixed = |shape: [i64; 2]| {
        let mut options = ImportOptions::default();
        let values: Vec<u8> = shape.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        options.fix("target", DType::I64, &[2], values).unwrap();
        Model::parse_with(bytes.clone(), "test", &options).unwrap()
    };
    let (wide, tall) = (fixed([2, 3]), fixed([3, 2]));
    assert_eq!(wide.outputs()[0].shape, [2, 3]);
    assert_eq!(wide.inputs().len(), 1);
    assert_ne!(wide.id(), tall.id());

    let mut options = ImportOptions::default();
    assert!(options.fix("target", DType::I64, &[2], vec![0; 15]).is_err());
    options.fix("other", DType::I64, &[0], vec![]).unwrap();
    assert!(Model::parse_with(bytes, "test", &options).is_err());
}

#[test]
fn outputs_may_be_constants_inputs_or_the_same() {
    let nodes = vec![
        node("Shape", &["x"], "shape"),
        node("Relu", &["x"], "r"),
        node("Identity", &["r"], "again"),
        node("Identity", &["x"], "y"),
    ];
    let mut proto = model_of(13, &[("x", &[2])], vec![], nodes);
    let outputs = &mut proto.graph.as_mut().unwrap().output;
    outputs.extend(["shape", "r", "again"].map(|name| value_info(name, &[])));
    let model = parse(&proto).unwrap();
    let outputs = run(&model, &[row(&[-1.0, 2.0])]);
    assert_eq!(outputs[0].as_f32(), [-1.0, 2.0]);
    assert_eq!(outputs[1].as_i64(), [2]);
    assert_eq!([outputs[2].as_f32(), outputs[3].as_f32()], [[0.0, 2.0]; 2]);
}

#[test]
fn what_constants_make_is_bounded() {
    let huge = |dims: &[i64]| {
        let nodes = vec![
            node("ConstantOfShape", &["dims"], "zeros"),
            node("ReduceSum", &["zeros"], "sum"),
            node("Add", &["x", "sum"], "y"),
        ];
        parse(&model_of(13, &[("x", &[1])], vec![longs("dims", dims)], nodes))
    };
    assert!(huge(&[1 << 10]).is_ok());
    assert_eq!(
        huge(&[1 << 26]).unwrap_err(),
        "node 'the_constantofshape' (ConstantOfShape): a constant of shape [67108864] has more \
         than 33554432 values"
    );
    // Each of them is small enough, and all of them are not.
    let many = (0..100).map(|i| node("ConstantOfShape", &["dims"], &format!("z{i}")));
    let names: Vec<String> = (0..100).map(|i| format!("z{i}")).collect();
    let all: Vec<&str> = ["x"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let nodes = many.chain([node("Sum", &all, "y")]).collect();
    let lists = vec![longs("dims", &[1 << 20])];
    let error = parse(&model_of(13, &[("x", &[1])], lists, nodes)).unwrap_err();
    assert!(error.contains("what is computed from constants alone here is too much"), "{error}");
}

#[test]
fn what_is_cropped_must_leave_something() {
    let pad = |pads: &[i64]| {
        let nodes = vec![node("Pad", &["x", "pads"], "y")];
        parse(&model_of(13, &[("x", &[2])], vec![longs("pads", pads)], nodes)).map(drop)
    };
    assert_eq!(pad(&[-1, 5]), Ok(()));
    let message = "node 'the_pad' (Pad): pads [(-3, 5)] do not fit [2]";
    assert_eq!(pad(&[-3, 5]).unwrap_err(), message);
}

#[test]
fn operators_belong_to_their_opsets() {
    let parse = |op: &str, opset: i64| {
        parse(&model_of(opset, &[("x", &[2])], vec![], vec![node(op, &["x"], "y")]))
    };
    for (op, opset) in [("Mish", 18), ("Relu", 7), ("Relu", 30)] {
        assert!(parse(op, opset).is_ok(), "{op} of opset {opset}");
    }
    for (op, opset) in [("Mish", 17), ("HardSwish", 13), ("Scatter", 11)] {
        let message = format!("opset {opset} has no such operator");
        assert!(parse(op, opset).unwrap_err().ends_with(&message), "{op} of opset {opset}");
    }
}

#[test]
fn products_with_a_sigmoid_fold() {
    let [neg, sigmoid] = [node("Neg", &["x"], "n"), node("Sigmoid", &["n"], "s")];
    let product = |left: &str, right: &str| node("Mul", &[left, right], "y");
    // Nodes, how many layers they are, and the factor of -x.
    let swish = |x: f32| -x / (1.0 + x.exp());
    let cases: [(Vec<NodeProto>, usize, fn(f32) -> f32); 6] = [
        (vec![neg.clone(), sigmoid.clone(), product("n", "s")], 1, |_| 1.0),
        (vec![neg.clone(), sigmoid.clone(), product("s", "n")], 1, |_| 1.0),
        // A layer between them, which reads neither.
        (
            vec![
                neg.clone(),
                sigmoid.clone(),
                node("Abs", &["x"], "a"),
                node("Mul", &["n", "s"], "m"),
                product("m", "a"),
            ],
            3,
            f32::abs,
        ),
        // The sigmoid is read twice, or the tensor once more.
        (
            vec![neg.clone(), sigmoid.clone(), node("Mul", &["n", "s"], "m"), product("m", "s")],
            4,
            |x| 1.0 / (1.0 + x.exp()),
        ),
        (
            vec![neg.clone(), sigmoid.clone(), node("Mul", &["n", "s"], "m"), product("m", "n")],
            3,
            |x| -x,
        ),
        // What is multiplied has an activation already.
        (
            vec![
                node("Neg", &["x"], "b"),
                node("Relu", &["b"], "n"),
                sigmoid.clone(),
                product("n", "s"),
            ],
            2,
            |x| if x < 0.0 { 1.0 } else { 0.0 },
        ),
    ];
    for (nodes, layers, factor) in cases {
        let model = parse(&model_of(13, &[("x", &[4])], vec![], nodes)).unwrap();
        assert_eq!(model.layers().len(), layers, "{:?}", model.layers());
        let x = [-2.0, -0.5, 0.25, 3.0];
        let whole = run(&model, &[row(&x)]);
        for (value, x) in whole[0].as_f32().iter().zip(x) {
            assert!((value - swish(x) * factor(x)).abs() < 1e-6, "{value} of {x}");
        }
        let in_pieces = (0..layers).fold(vec![row(&x)], |inputs, layer| {
            let slice = Model::parse_slice(model.slice(layer..layer + 1).onnx, &model).unwrap();
            assert_eq!(slice.layers().len(), 1);
            run(&slice, &inputs)
        });
        assert_eq!(in_pieces, whole);
    }
}
