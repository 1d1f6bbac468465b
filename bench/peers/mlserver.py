"""MLServer as a peer: a custom runtime, loaded by `mlserver start` in an environment of its own (`python_peers.py`)."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """The Open Inference Protocol in JSON; joined to batches by MLServer."""

    async def load(self) -> bool:
        """Open the session."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        self.output_names = [value.name for value in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A batch of rows."""
        feeds = {one.name: np.ascontiguousarray(NumpyCodec.decode_input(one)) for one in payload.inputs}
        results = self.session.run(None, feeds)
        outputs = [
            NumpyCodec.encode_output(name, found) for name, found in zip(self.output_names, results, strict=True)
        ]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)
