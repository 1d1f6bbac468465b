"""LitServe as a peer; started by `python_peers.py` in an environment of its own: MODEL.onnx PORT."""

import sys

import litserve
import numpy as np
import onnxruntime as ort


class Api(litserve.LitAPI):
    """JSON: {"inputs": [numbers of the model's first input]}; joined to batches by LitServe."""

    def setup(self, device: str) -> None:
        """Open the session."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def decode_request(self, request: dict[str, list[float]]) -> np.ndarray:
        """One row."""
        return np.array(request["inputs"], np.float32)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """A batch of rows."""
        return self.session.run(None, {self.name: np.ascontiguousarray(rows)})[0]

    def encode_response(self, row: np.ndarray) -> dict[str, list[float]]:
        """One row."""
        return {"outputs": row.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=64, batch_timeout=0.0005), accelerator="cpu", timeout=30)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
