"""Writes the cost profiles of this folder: builds each network, and keeps what `starling` says of it.

    python make.py STARLING    # the program; needs numpy and onnx, see README.md for the versions

Only shapes decide what a layer costs, so all weights are zeros, and the ONNX files are thrown away.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

HERE = Path(__file__).parent
# The networks are those that `benches/compare` runs.
sys.path.insert(0, str(HERE.parent.parent / "benches" / "compare"))
import networks  # noqa: E402


# Half of a driving camera's 1280 x 720, in multiples of 64.
CAMERA_HEIGHT, CAMERA_WIDTH = 384, 640
# What averages the last features to the size that the matrix products were made for.
CAMERA_POOLS = {"vgg16": ([6, 8], [1, 2]), "alexnet": ([6, 4], [1, 3])}


def for_camera(network):
    """The same network for a camera's images."""
    if pool := CAMERA_POOLS.get(network.name):
        kernel, strides = pool
        at = next(at for at, node in enumerate(network.nodes) if node.op_type == "Flatten")
        features = network.nodes[at].input[0]
        attributes = {"kernel_shape": kernel, "strides": strides}
        network.nodes.insert(at, onnx.helper.make_node("AveragePool", [features], ["averaged"], **attributes))
        network.nodes[at + 1].input[0] = "averaged"
    model = network.model()
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[2].dim_value, shape.dim[3].dim_value = CAMERA_HEIGHT, CAMERA_WIDTH
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None))
    return onnx.shape_inference.infer_shapes(model)


def costs(starling, model):
    """What the cost model needs, out of all that `starling inspect` says."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        onnx.save(model, path)
        said = subprocess.run([starling, "inspect", path, "--json"], check=True, capture_output=True, text=True)
    model = json.loads(said.stdout)
    rows = model["rows"]
    layers = [
        [layer["class"], layer["flops"], layer["weight_bytes"], flow["inputs"], flow["outputs"], rules(flow["rules"])]
        for layer, flow in zip(model["layers"], rows["layers"], strict=True)
    ]
    tensors = [[tensor["height"], tensor["row_bytes"]] for tensor in rows["tensors"]]
    return {
        "layers": layers,
        "cut_bytes": model["cut_bytes"],
        "tensors": tensors,
        "frontiers": rows["frontiers"],
    }


def rules(flow):
    """Which rows of each input are needed; nothing if the layer makes all rows at once."""
    window = ("kernel", "stride", "dilation", "before")
    return flow and [rule if isinstance(rule, str) else [rule[name] for name in window] for rule in flow]


def as_text(profile):
    """One layer a line, so that differences between two versions can be read."""
    layers = ",\n".join(f"    {json.dumps(layer)}" for layer in profile["layers"])
    others = (f'  "{name}": {json.dumps(profile[name])}' for name in ("cut_bytes", "tensors", "frontiers"))
    return f'{{\n  "layers": [\n{layers}\n  ],\n' + ",\n".join(others) + "\n}\n"


if __name__ == "__main__":
    starling = sys.argv[1]
    for name in ("vgg16", "resnet34", "alexnet", "nin", "mobilenetv2"):
        model = networks.NETWORKS[name](weights="zeros").model()
        (HERE / f"{name}.json").write_text(as_text(costs(starling, model)))
    for name in ("vgg16", "resnet34", "alexnet", "nin"):
        model = for_camera(networks.NETWORKS[name](weights="zeros"))
        (HERE / f"{name}-camera.json").write_text(as_text(costs(starling, model)))
