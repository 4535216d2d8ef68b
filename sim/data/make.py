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
        for name in ("vgg16", "resnet34", "alexnet", "nin", "mobilenetv2"):
            network = networks.NETWORKS[name](weights="zeros")
            path = str(Path(folder) / f"{network.name}.onnx")
            onnx.save(network.model(), path)
            (HERE / f"{network.name}.json").write_text(as_text(costs(sys.argv[1], path)))
