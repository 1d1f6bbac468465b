"""BentoML as a peer; started by `python_peers.py` in an environment of its own, as `bentoml serve bentoml_peer:Peer`."""

from __future__ import annotations

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1, traffic={"timeout": 30})
class Peer:
    """JSON: {"rows": [[numbers of the model's first input]]}; joined to batches by BentoML."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def infer(self, rows: np.ndarray) -> np.ndarray:
        """A batch of rows."""
        return self.session.run(None, {self.name: np.asarray(rows, np.float32)})[0]
