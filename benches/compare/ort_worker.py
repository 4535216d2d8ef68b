"""ONNX Runtime as a contestant: keeps one session, and times itself when asked.

    python ort_worker.py MODEL.onnx THREADS

Reads a line of JSON at a time from stdin, and answers with one. Tensors follow their line as raw
little-endian f32 values.

    {"input": [1, 3, 224, 224]} + values     {"ok": true}
    {"run": 3}                               {"seconds": [0.011, 0.010, 0.010]}
    {"output": true}                         {"shape": [1, 1000]} + values

Between two orders it waits for its pipe. The session's threads spin for a moment after a run, as
they do by default, and then sleep: whoever asks leaves them that moment before others run.
"""

import json
import sys
import time

import numpy as np
import onnxruntime


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(line, values=b""):
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\n" + values)
    sys.stdout.buffer.flush()


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    runner = session(path, threads)
    name, feed = runner.get_inputs()[0].name, None
    answer({"version": onnxruntime.__version__})
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if "input" in order:
            shape = order["input"]
            values = sys.stdin.buffer.read(4 * int(np.prod(shape)))
            feed = {name: np.frombuffer(values, "<f4").reshape(shape)}
            answer({"ok": True})
        elif "run" in order:
            seconds = []
            for _ in range(order["run"]):
                began = time.perf_counter()
                runner.run(None, feed)
                seconds.append(time.perf_counter() - began)
            answer({"seconds": seconds})
        else:
            output = np.ascontiguousarray(runner.run(None, feed)[0], "<f4")
            answer({"shape": list(output.shape)}, output.tobytes())


if __name__ == "__main__":
    main()
