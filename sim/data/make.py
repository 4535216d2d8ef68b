"""Writes the cost profiles of this folder: builds each network, and keeps what `starling` says of it.

    python make.py STARLING    # the program; needs numpy and onnx, see README.md for the versions

Only shapes decide what a layer costs, so all weights are zeros, and the ONNX files are thrown away.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SIZE, CLASSES = 224, 1000


class Network:
    """A chain of nodes; `last` is the tensor that the next one reads, of `channels` channels."""

    def __init__(self, name):
        self.name, self.last, self.channels = name, "input", 3
        self.nodes, self.initializers = [], []

    def zeros(self, *shape):
        name = f"weight_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
        return name

    def node(self, op, inputs=None, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs or [self.last], [name], name=name, **attributes))
        self.last = name
        return name

    def conv(self, filters, kernel, stride=1, pad=None, group=1, relu=True):
        pads = [kernel // 2 if pad is None else pad] * 4
        weights = [self.zeros(filters, self.channels // group, kernel, kernel), self.zeros(filters)]
        self.node("Conv", [self.last, *weights], strides=[stride] * 2, pads=pads, group=group)
        self.channels = filters
        if relu:
            self.node("Relu")
        return self.last

    def max_pool(self, kernel, stride, pad=0, ceil_mode=0):
        self.node("MaxPool", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=ceil_mode)

    def dense(self, inputs, *outputs):
        for at, width in enumerate(outputs):
            self.node("Gemm", [self.last, self.zeros(width, inputs), self.zeros(width)], transB=1)
            if at + 1 < len(outputs):
                self.node("Relu")
            inputs = width

    def head(self):
        self.node("GlobalAveragePool")
        self.node("Flatten")
        self.dense(self.channels, CLASSES)

    def model(self):
        self.nodes[-1].output[0] = "output"
        image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
        output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, self.name, [image], [output], self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def vgg16():
    n = Network("vgg16")
    for filters, repeats in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(repeats):
            n.conv(filters, 3)
        n.max_pool(2, 2)
    n.node("Flatten")
    n.dense(512 * 7 * 7, 4096, 4096, CLASSES)
    return n


def resnet34():
    n = Network("resnet34")
    n.conv(64, 7, 2)
    n.max_pool(3, 2, 1)
    for stage, (filters, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            skip, channels = n.last, n.channels
            n.conv(filters, 3, stride)
            main = n.conv(filters, 3, relu=False)
            if channels != filters:
                n.last, n.channels = skip, channels
                skip = n.conv(filters, 1, stride, relu=False)
            n.node("Add", [main, skip])
            n.node("Relu")
    n.head()
    return n


def alexnet():
    n = Network("alexnet")
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


def nin():
    n = Network("nin")
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


def mobilenetv2():
    n = Network("mobilenetv2")
    n.conv(32, 3, 2)
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, filters, repeats, stride in blocks:
        for repeat in range(repeats):
            skip, channels, step = n.last, n.channels, 1 if repeat else stride
            if expand > 1:
                n.conv(channels * expand, 1)
            n.conv(n.channels, 3, step, group=n.channels)
            main = n.conv(filters, 1, relu=False)
            if step == 1 and channels == filters:
                n.node("Add", [main, skip])
    n.conv(1280, 1)
    n.head()
    return n


def costs(starling, path):
    """What the cost model needs, out of all that `starling inspect` says."""
    said = subprocess.run([starling, "inspect", path, "--json"], check=True, capture_output=True, text=True)
    model = json.loads(said.stdout)
    return {
        "layers": [[layer["class"], layer["flops"], layer["weight_bytes"]] for layer in model["layers"]],
        "cut_bytes": model["cut_bytes"],
    }


def as_text(profile):
    """One layer a line, so that differences between two versions can be read."""
    layers = ",\n".join(f"    {json.dumps(layer)}" for layer in profile["layers"])
    return f'{{\n  "layers": [\n{layers}\n  ],\n  "cut_bytes": {json.dumps(profile["cut_bytes"])}\n}}\n'


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for build in (vgg16, resnet34, alexnet, nin, mobilenetv2):
            network = build()
            path = str(Path(folder) / f"{network.name}.onnx")
            onnx.save(network.model(), path)
            (HERE / f"{network.name}.json").write_text(as_text(costs(sys.argv[1], path)))
