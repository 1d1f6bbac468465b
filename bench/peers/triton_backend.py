"""The model.py of Triton's Python backend: one ONNX Runtime session, requests run as Triton batches them.

It runs inside Triton's stub process, in an environment of its own; nothing of blindai is in it.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """What the backend loads."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session; threads come from the environment, as the benchmark sets them."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("BENCH_THREADS", "1"))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(Path(args["model_repository"]) / args["model_version"] / "model.onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def execute(self, requests: list[object]) -> list[object]:
        """Join what Triton hands over, run once, split again."""
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        rows = [next(iter(feed.values())).shape[0] for feed in feeds]
        joined = (
            {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
            if len(feeds) > 1
            else feeds[0]
        )
        results = self.session.run(self.outputs, joined)
        ends = np.cumsum(rows)
        answers = []
        for end, count in zip(ends, rows, strict=True):
            parts = [result[end - count : end] for result in results]
            tensors = [pb_utils.Tensor(name, part) for name, part in zip(self.outputs, parts, strict=True)]
            answers.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return answers
