"""The convolutional networks that are compared, built from their papers with seeded random weights.

    python networks.py FOLDER [NAME...]                 # needs numpy and onnx
    python networks.py FOLDER --batch-norm nodes        # batch normalization as nodes of its own

Speed depends on shapes alone, so nothing has to be downloaded and nothing was trained. Weights are
drawn so that activations keep their size (He et al. 2015): values that vanish or explode would run
at another speed, and would say nothing about accuracy.

`sim/data/make.py` takes the same networks with all weights zero, for what they cost.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 13, 8
CLASSES = 1000


class Network:
    """A chain of nodes; `last` is the tensor that the next one reads, of `channels` channels."""

    def __init__(self, name, size=224, batch_norm="folded", weights="random"):
        self.name, self.size = name, size
        self.batch_norm_nodes = batch_norm == "nodes"
        # Zeros cost nothing to make; for questions that only shapes answer.
        self.random = np.random.default_rng(list(name.encode())) if weights == "random" else None
        self.nodes, self.initializers = [], []
        self.last, self.channels = "input", 3

    def constant(self, values, name):
        name = f"{name}_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def normal(self, *shape, mean=0.0, scale=1.0):
        if self.random is None:
            return np.zeros(shape, np.float32)
        return mean + scale * self.random.standard_normal(shape, dtype=np.float32)

    def node(self, op, inputs=None, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs or [self.last], [name], name=name, **attributes))
        self.last = name
        return name

    def conv(self, filters, kernel, stride=1, pad=None, group=1, activation="Relu", norm=False):
        pads = [kernel // 2 if pad is None else pad] * 4
        fan_in = self.channels // group * kernel * kernel
        gain = 2 if activation else 1
        weight = self.normal(filters, self.channels // group, kernel, kernel, scale=(gain / fan_in) ** 0.5)
        inputs = [self.last, self.constant(weight, "weight")]
        apart = norm and self.batch_norm_nodes
        if not apart:
            inputs.append(self.constant(self.normal(filters, scale=0.05), "bias"))
        self.node("Conv", inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=group)
        self.channels = filters
        if apart:
            self.batch_norm()
        return self.activate(activation)

    def batch_norm(self):
        c = self.channels
        scale, shift, mean = self.normal(c, mean=1, scale=0.1), self.normal(c, scale=0.05), self.normal(c, scale=0.1)
        variance = 1 + 0.2 * np.abs(self.normal(c))
        statistics = [self.constant(values, "norm") for values in (scale, shift, mean, variance)]
        self.node("BatchNormalization", [self.last, *statistics], epsilon=1e-5)

    def activate(self, activation):
        if activation == "Relu":
            self.node("Relu")
        elif activation == "Relu6":
            self.node("Clip", [self.last, self.constant(0.0, "low"), self.constant(6.0, "high")])
        elif activation == "LeakyRelu":
            self.node("LeakyRelu", alpha=0.1)
        return self.last

    def max_pool(self, kernel, stride, pads=(0, 0, 0, 0), ceil_mode=0):
        self.node("MaxPool", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=list(pads), ceil_mode=ceil_mode)

    def dense(self, inputs, *outputs):
        for at, width in enumerate(outputs):
            weight = self.normal(width, inputs, scale=(2 / inputs) ** 0.5)
            bias = self.normal(width, scale=0.05)
            self.node("Gemm", [self.last, self.constant(weight, "weight"), self.constant(bias, "bias")], transB=1)
            if at + 1 < len(outputs):
                self.node("Relu")
            inputs = width

    def head(self):
        self.node("GlobalAveragePool")
        self.node("Flatten")
        self.dense(self.channels, CLASSES)

    def model(self):
        self.nodes[-1].output[0] = "output"
        image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, self.size, self.size])
        output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, self.name, [image], [output], self.initializers)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="networks.py")
        # The output's shape, for readers that need one declared.
        model = onnx.shape_inference.infer_shapes(model)
        del model.graph.value_info[:]
        return model


def vgg16(**options):
    """Simonyan and Zisserman 2014, configuration D."""
    n = Network("vgg16", **options)
    for filters, repeats in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(repeats):
            n.conv(filters, 3)
        n.max_pool(2, 2)
    n.node("Flatten")
    n.dense(512 * 7 * 7, 4096, 4096, CLASSES)
    return n


def alexnet(**options):
    """Krizhevsky 2014: the one-column version."""
    n = Network("alexnet", **options)
    n.conv(64, 11, 4, 2)
    n.max_pool(3, 2)
    n.conv(192, 5)
    n.max_pool(3, 2)
    for filters in (384, 256, 256):
        n.conv(filters, 3)
    n.max_pool(3, 2)
    n.node("Flatten")
    n.dense(256 * 6 * 6, 4096, 4096, CLASSES)
    return n


def nin(**options):
    """Lin et al. 2013, for ImageNet."""
    n = Network("nin", **options)
    for filters, kernel, stride, pad in [(96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1)]:
        n.conv(filters, kernel, stride, pad)
        n.conv(filters, 1)
        n.conv(filters, 1)
        n.max_pool(3, 2, ceil_mode=1)
    n.conv(1024, 3)
    n.conv(1024, 1)
    n.conv(CLASSES, 1)
    n.node("GlobalAveragePool")
    n.node("Flatten")
    return n


def resnet(name, blocks, bottleneck, **options):
    """He et al. 2015; the 1x1 before a 3x3 keeps the stride at 1, as later versions do."""
    n = Network(name, **options)
    n.conv(64, 7, 2, norm=True)
    n.max_pool(3, 2, (1, 1, 1, 1))
    for stage, count in enumerate(blocks):
        for block in range(count):
            residual_block(n, 64 << stage, 2 if stage and not block else 1, bottleneck)
    n.head()
    return n


def residual_block(n, width, stride, bottleneck):
    skip, channels = n.last, n.channels
    filters = 4 * width if bottleneck else width
    if bottleneck:
        n.conv(width, 1, norm=True)
    n.conv(width, 3, stride, norm=True)
    main = n.conv(filters, 1 if bottleneck else 3, activation=None, norm=True)
    if channels != filters:
        n.last, n.channels = skip, channels
        skip = n.conv(filters, 1, stride, activation=None, norm=True)
    n.node("Add", [main, skip])
    n.node("Relu")


def resnet18(**options):
    return resnet("resnet18", (2, 2, 2, 2), bottleneck=False, **options)


def resnet34(**options):
    return resnet("resnet34", (3, 4, 6, 3), bottleneck=False, **options)


def resnet50(**options):
    return resnet("resnet50", (3, 4, 6, 3), bottleneck=True, **options)


def mobilenetv1(**options):
    """Howard et al. 2017, width 1."""
    n = Network("mobilenetv1", **options)
    n.conv(32, 3, 2, activation="Relu6", norm=True)
    widths = [64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    for at, filters in enumerate(widths):
        stride = 2 if at in (1, 3, 5, 11) else 1
        n.conv(n.channels, 3, stride, group=n.channels, activation="Relu6", norm=True)
        n.conv(filters, 1, activation="Relu6", norm=True)
    n.head()
    return n


def mobilenetv2(**options):
    """Sandler et al. 2018, width 1."""
    n = Network("mobilenetv2", **options)
    n.conv(32, 3, 2, activation="Relu6", norm=True)
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, filters, repeats, stride in blocks:
        for repeat in range(repeats):
            skip, channels, step = n.last, n.channels, 1 if repeat else stride
            if expand > 1:
                n.conv(channels * expand, 1, activation="Relu6", norm=True)
            n.conv(n.channels, 3, step, group=n.channels, activation="Relu6", norm=True)
            main = n.conv(filters, 1, activation=None, norm=True)
            if step == 1 and channels == filters:
                n.node("Add", [main, skip])
    n.conv(1280, 1, activation="Relu6", norm=True)
    n.head()
    return n


def squeezenet11(**options):
    """Iandola et al. 2016, version 1.1."""
    n = Network("squeezenet11", **options)
    n.conv(64, 3, 2, 0)
    n.max_pool(3, 2, ceil_mode=1)
    for fire in [(16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256)]:
        if fire is None:
            n.max_pool(3, 2, ceil_mode=1)
            continue
        squeeze, expand = fire
        squeezed = n.conv(squeeze, 1)
        left = n.conv(expand, 1)
        n.last, n.channels = squeezed, squeeze
        right = n.conv(expand, 3)
        n.node("Concat", [left, right], axis=1)
        n.channels = 2 * expand
    n.conv(CLASSES, 1)
    n.node("GlobalAveragePool")
    n.node("Flatten")
    return n


def tinyyolov2(**options):
    """Redmon and Farhadi 2016, the small one, for 20 classes; 416x416."""
    n = Network("tinyyolov2", size=416, **options)
    for filters in (16, 32, 64, 128, 256):
        n.conv(filters, 3, activation="LeakyRelu", norm=True)
        n.max_pool(2, 2)
    n.conv(512, 3, activation="LeakyRelu", norm=True)
    n.max_pool(2, 1, (0, 0, 1, 1))
    n.conv(1024, 3, activation="LeakyRelu", norm=True)
    n.conv(1024, 3, activation="LeakyRelu", norm=True)
    n.conv(125, 1, activation=None)
    return n


NETWORKS = {
    build.__name__: build
    for build in (
        alexnet,
        mobilenetv1,
        mobilenetv2,
        nin,
        resnet18,
        resnet34,
        resnet50,
        squeezenet11,
        tinyyolov2,
        vgg16,
    )
}


def write(folder, name, **options):
    """Writes a network if it isn't there; a file is never seen half written."""
    path = folder / f"{name}.onnx"
    if path.exists():
        return
    part = folder / f"{name}.part"
    onnx.save(NETWORKS[name](**options).model(), part)
    part.rename(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--batch-norm", choices=("folded", "nodes"), default="folded")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in NETWORKS]:
        parser.error(f"no network is called {unknown[0]}: there are {', '.join(NETWORKS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or NETWORKS:
        write(arguments.folder, name, batch_norm=arguments.batch_norm)
