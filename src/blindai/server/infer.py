"""From request to prediction: the one place where a user's data meets a model.

    door → dispatch.py → infer() → worker pool → engine, and back

Leaves out: who asked, how it was sealed, and the receipt over the answer (sealed_door.py).
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError, ModelChangedError
from blindai.oip.rest import HEADER_LENGTH, InferResponse, decode_infer_request, encode_infer_response
from blindai.receipts import ModelIdentity
from blindai.server.calls import Call, Reply

if TYPE_CHECKING:
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.worker_pool import WorkerPool

ENGINE = f"onnxruntime {importlib.metadata.version('onnxruntime')}"


async def infer(
    call: Call, *, reference: str, version: str | None, store: ModelStore, pool: WorkerPool, max_body_bytes: int
) -> Reply:
    """Run one inference (OIP §3.2.5).

    Raises:
        InferenceError: what is wrong with the request, or what became of the model's process.
        UnsealError: the stored model does not open.
    """
    model = store.resolve(reference, version)
    _require_same_model(call, model)
    body = await call.read_body(max_body_bytes)
    request = decode_infer_request(body, _header_length(call))
    outputs = await pool.infer(model, request.inputs, request.outputs)
    response = InferResponse(model_name=model.name, model_version=model.version, id=request.id, outputs=outputs)
    buffers, header_length = encode_infer_response(response)
    return Reply(
        headers=(("content-type", "application/octet-stream"), (HEADER_LENGTH, str(header_length))),
        body=tuple(buffers),
        model=identity(model),
    )


def identity(model: StoredModel) -> ModelIdentity:
    """What a receipt says of a model."""
    return ModelIdentity(
        name=model.name, version=model.version, digest=model.digest, engine=ENGINE, precision="as-uploaded"
    )


def _require_same_model(call: Call, model: StoredModel) -> None:
    """RFC 9110 §13.1.1: a client that prepared its tensors from metadata names the digest that it read."""
    expected = call.header("if-match")
    if expected is not None and expected != model.digest:
        raise ModelChangedError("the model was replaced after its metadata was read", hint="read the metadata again")


def _header_length(call: Call) -> int | None:
    text = call.header(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 10:  # noqa: PLR2004  # digits of a u32
        raise InvalidInputError(f"{HEADER_LENGTH} is a whole number of bytes")
    return int(text)
