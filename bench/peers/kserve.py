"""KServe's Python server as a peer; started by `python_peers.py` in an environment of its own: MODEL.onnx PORT."""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class OnnxModel(Model):
    """The Open Inference Protocol in JSON; KServe's Python server joins nothing."""

    def __init__(self, path: str) -> None:
        super().__init__("bench")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """One request."""
        feeds = {one.name: np.ascontiguousarray(one.as_numpy()) for one in payload.inputs}
        results = self.session.run(None, feeds)
        outputs = []
        for value, found in zip(self.session.get_outputs(), results, strict=True):
            output = InferOutput(name=value.name, shape=list(found.shape), datatype="FP32")
            output.set_data_from_numpy(found, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id or "", model_name="bench", infer_outputs=outputs)


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1, access_log_format=None).start(
        [OnnxModel(sys.argv[1])]
    )
