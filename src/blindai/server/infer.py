"""From request to prediction: the one place where a user's data meets a model.

    door → dispatch.py → infer() → worker pool → engine, and back

What may take long to decode or encode (JSON, text, much of anything) does so in a thread: the loop is everybody's.
Leaves out: who asked, how it was sealed, and the receipt over the answer (sealed_door.py).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError, ModelChangedError, TooLargeError
from blindai.oip.datatypes import Datatype
from blindai.oip.rest import (
    HEADER_LENGTH,
    InferRequest,
    InferResponse,
    decode_infer_request,
    encode_infer_response,
)
from blindai.receipts import ModelIdentity
from blindai.server.calls import Call, Reply
from blindai.server.ensemble import run_model

if TYPE_CHECKING:
    from blindai.oip.rest import Buffer
    from blindai.server.budget import Share
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.worker_pool import WorkerPool

_QUICK_BODY_BYTES = 1024 * 1024
_QUICK_HEADER_BYTES = 16 * 1024
_MAX_JSON_BYTES = 16 * 1024 * 1024  # parsing holds the interpreter's lock, and so everybody up
_JSON_COST = 16  # times its size: what Python's numbers and lists take in memory
# A header without a backslash spells its strings as they are: without these it has neither text nor JSON data.
_SLOW_WORDS = re.compile(rb'\\|BYTES|"data"')

ENGINE = f"onnxruntime {importlib.metadata.version('onnxruntime')}"


async def infer(
    call: Call,
    *,
    reference: str,
    version: str | None,
    store: ModelStore,
    pool: WorkerPool,
    max_body_bytes: int,
    share: Share,
) -> Reply:
    """Run one inference (OIP §3.2.5).

    Raises:
        InferenceError: what is wrong with the request, or what became of the model's process.
        UnsealError: the stored model does not open.
    """
    model = store.resolve(reference, version)
    _require_same_model(call, model)
    header_length = _header_length(call)
    body = await call.read_body(max_body_bytes, share)
    request = await _decode(body, header_length, share)
    outputs = await run_model(model, call.principal.share, request.inputs, request.outputs, store=store, pool=pool)
    response = InferResponse(model_name=model.name, model_version=model.version, id=request.id, outputs=outputs)
    buffers, answer_header_length = await _encode(response)
    return Reply(
        headers=(("content-type", "application/octet-stream"), (HEADER_LENGTH, str(answer_header_length))),
        body=tuple(buffers),
        model=identity(model),
    )


async def _decode(body: memoryview, header_length: int | None, share: Share) -> InferRequest:
    if _is_quick(body, header_length):
        return decode_infer_request(body, header_length)
    json_bytes = len(body) if header_length is None else min(header_length, len(body))
    if json_bytes > _MAX_JSON_BYTES:
        raise TooLargeError(
            f"tensors in JSON form have at most {_MAX_JSON_BYTES} bytes, these have {json_bytes}",
            hint="send them in the binary form, as the SDK does",
        )
    if json_bytes > _QUICK_HEADER_BYTES:
        share.take((_JSON_COST - 1) * json_bytes)
    return await asyncio.to_thread(decode_infer_request, body, header_length)


def _is_quick(body: memoryview, header_length: int | None) -> bool:
    """Whether decoding is a matter of microseconds: a short header, and numbers that are used where they lie."""
    if header_length is None or header_length > _QUICK_HEADER_BYTES or len(body) > _QUICK_BODY_BYTES:
        return False
    return not _SLOW_WORDS.search(body[:header_length])


async def _encode(response: InferResponse) -> tuple[list[Buffer], int]:
    if any(output.datatype is Datatype.BYTES for output in response.outputs):
        return await asyncio.to_thread(encode_infer_response, response)
    return encode_infer_response(response)


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
