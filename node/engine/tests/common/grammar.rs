//! Small graphs of any operators, made of bytes: for the property test, and for the fuzzer.
//!
//! The bytes choose operators, inputs and attributes, with no regard to what fits together. What
//! they choose is small, so that much of it does fit, and a model that is accepted can be run.

use starling_engine::supported_operators;

/// The ONNX file that these bytes stand for.
pub(crate) fn model(bytes: &[u8]) -> Vec<u8> {
    let mut choices = Choices(bytes);
    let opset = choices.of(&[13u64, 18, 22, 7, 9, 10, 11, 12, 17, 20, 21]);
    let mut graph = Message::default();
    let mut names = Vec::new();
    for i in 0..1 + choices.below(3) {
        let name = format!("x{i}");
        graph.message(11, &value_info(&name, &mut choices));
        names.push(name);
    }
    for i in 0..2 + choices.below(5) {
        let name = format!("c{i}");
        graph.message(5, &constant(&name, &mut choices));
        names.push(name);
    }
    let operators = supported_operators();
    let mut last = Vec::new();
    for i in 0..1 + choices.below(4) {
        let operator = operators[choices.below(operators.len())].name;
        let mut node = Message::default();
        for _ in 0..1 + choices.below(4) {
            // Mostly what was made last, and what the inputs are.
            let name = match choices.below(4) {
                0 => names.last(),
                1 => names.first(),
                _ => names.get(choices.below(names.len())),
            };
            node.text(1, name.map_or("", String::as_str));
        }
        last = (0..1 + choices.below(2)).map(|o| format!("y{i}_{o}")).collect();
        last.iter().for_each(|name| node.text(2, name));
        node.text(4, operator);
        for _ in 0..choices.below(6) {
            node.message(5, &attribute(&mut choices));
        }
        graph.message(1, &node);
        names.extend(last.iter().cloned());
    }
    for name in &last {
        let mut output = Message::default();
        output.text(1, name);
        graph.message(12, &output);
    }
    let mut version = Message::default();
    version.text(1, "");
    version.number(2, opset);
    let mut model = Message::default();
    model.number(1, 8);
    model.message(7, &graph);
    model.message(8, &version);
    model.0
}

/// What the bytes decide, one after the other; when they are used up, everything is the first.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit.max(1)
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A small number, mostly positive.
    fn number(&mut self) -> i64 {
        self.of(&[1, 0, 2, 3, -1, 4, 1, 2, -2, 5, 7, -9])
    }

    fn shape(&mut self) -> Vec<u64> {
        let rank = self.of(&[4, 3, 2, 1, 5, 0, 4]);
        (0..rank).map(|_| self.of(&[1, 2, 3, 4, 6, 5])).collect()
    }
}

/// `TensorProto.DataType`: float, mostly; `i64`, bool, `i32`.
const TYPES: [u64; 7] = [1, 1, 7, 1, 9, 6, 1];

fn value_info(name: &str, choices: &mut Choices<'_>) -> Message {
    let mut shape = Message::default();
    let kind = choices.of(&TYPES);
    for dim in choices.shape() {
        let mut dimension = Message::default();
        dimension.number(1, dim);
        shape.message(1, &dimension);
    }
    let mut tensor = Message::default();
    tensor.number(1, kind);
    tensor.message(2, &shape);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut info = Message::default();
    info.text(1, name);
    info.message(2, &kind);
    info
}

/// A list of numbers, such as axes or bounds, or a filter.
fn constant(name: &str, choices: &mut Choices<'_>) -> Message {
    let kind = choices.of(&TYPES);
    let dims = match choices.below(3) {
        0 => choices.shape(),
        1 => vec![choices.below(5) as u64],
        _ => Vec::new(),
    };
    let count: u64 = dims.iter().product();
    let mut raw = Vec::new();
    for _ in 0..count {
        let value = choices.number();
        match kind {
            1 => raw.extend((value as f32 / 2.0).to_le_bytes()),
            6 => raw.extend((value as i32).to_le_bytes()),
            7 => raw.extend(value.to_le_bytes()),
            _ => raw.push(u8::from(value > 0)),
        }
    }
    let mut tensor = Message::default();
    dims.iter().for_each(|&dim| tensor.number(1, dim));
    tensor.number(2, kind);
    tensor.text(8, name);
    tensor.bytes(9, &raw);
    tensor
}

fn attribute(choices: &mut Choices<'_>) -> Message {
    let mut attribute = Message::default();
    match choices.below(4) {
        0 => {
            attribute.text(1, choices.of(&LISTS));
            let count = choices.of(&[2, 4, 1, 3, 6, 0]);
            (0..count).for_each(|_| attribute.number(8, choices.number() as u64));
        }
        1 => {
            let (name, value) = choices.of(&STRINGS);
            attribute.text(1, name);
            attribute.text(4, value);
        }
        2 => {
            attribute.text(1, choices.of(&FLOATS));
            attribute.float(2, choices.number() as f32 / 2.0);
        }
        _ => {
            attribute.text(1, choices.of(&NUMBERS));
            attribute.number(3, choices.number() as u64);
        }
    }
    attribute
}

const LISTS: [&str; 12] = [
    "kernel_shape",
    "strides",
    "pads",
    "dilations",
    "axes",
    "perm",
    "split",
    "starts",
    "ends",
    "output_padding",
    "output_shape",
    "shape",
];

const NUMBERS: [&str; 34] = [
    "axis",
    "keepdims",
    "group",
    "ceil_mode",
    "count_include_pad",
    "storage_order",
    "p",
    "to",
    "blocksize",
    "k",
    "largest",
    "select_last_index",
    "exclusive",
    "reverse",
    "upper",
    "num_groups",
    "num_outputs",
    "noop_with_empty_axes",
    "batch_dims",
    "size",
    "transA",
    "transB",
    "fmod",
    "detect_negative",
    "start",
    "end",
    "dtype",
    "allowzero",
    "exclude_outside",
    "antialias",
    "center_point_box",
    "sorted",
    "spatial",
    "training_mode",
];

const FLOATS: [&str; 11] = [
    "alpha",
    "beta",
    "epsilon",
    "gamma",
    "bias",
    "lambd",
    "min",
    "max",
    "value",
    "extrapolation_value",
    "cubic_coeff_a",
];

const STRINGS: [(&str, &str); 19] = [
    ("auto_pad", "SAME_UPPER"),
    ("auto_pad", "SAME_LOWER"),
    ("auto_pad", "VALID"),
    ("mode", "linear"),
    ("mode", "cubic"),
    ("mode", "nearest"),
    ("mode", "reflect"),
    ("mode", "edge"),
    ("mode", "wrap"),
    ("mode", "CRD"),
    ("reduction", "add"),
    ("reduction", "mul"),
    ("reduction", "max"),
    ("approximate", "tanh"),
    ("nearest_mode", "ceil"),
    ("coordinate_transformation_mode", "align_corners"),
    ("coordinate_transformation_mode", "tf_crop_and_resize"),
    ("coordinate_transformation_mode", "half_pixel_symmetric"),
    ("keep_aspect_ratio_policy", "not_larger"),
];

/// A protobuf message, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }
}
