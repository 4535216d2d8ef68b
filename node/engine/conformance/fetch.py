#!/usr/bin/env python3
"""Fetches the node cases of ONNX's own backend tests, for `tests/conformance`.

    node/engine/conformance/fetch.py [FOLDER]

Downloads the wheel of onnx with pip, checks its hash, and unpacks its node cases to FOLDER/node;
without FOLDER, to `conformance` in the cargo target directory. Does nothing if they are there.
Needs python3 with pip, and nothing of what the wheel depends on.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "1.20.1"
# Any wheel has the same cases; this one is asked for on every machine, whatever runs there.
PLATFORM = ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.12", "--only-binary", ":all:"]
SHA256 = "9336b6b8e6efcf5c490a845f6afd7e041c89a56199aeda384ed7d58fb953b080"
INSIDE = "onnx/backend/test/data/node/"


def target_directory():
    default = Path(__file__).resolve().parents[3] / "target"
    return Path(os.environ.get("CARGO_TARGET_DIR", default)) / "conformance"


def download(folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*command, *PLATFORM, f"onnx=={VERSION}"], check=True)
    (wheel,) = Path(folder).glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{wheel.name} has the hash {digest}, not {SHA256}")
    return wheel


def unpack(wheel, folder):
    """Unpacks beside the folder first, so that what is there is whole."""
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith(INSIDE)]
            archive.extractall(partial, members)
        (Path(partial) / INSIDE).rename(folder / "node")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else target_directory()
    stamp = folder / "node" / f".onnx-{VERSION}"
    if stamp.exists():
        print(f"the cases are in {folder / 'node'}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        unpack(download(downloads), folder)
    stamp.touch()
    count = sum(1 for _ in (folder / "node").glob("*/model.onnx"))
    print(f"{count} cases of onnx {VERSION} are in {folder / 'node'}")


if __name__ == "__main__":
    main()
