"""From request to prediction: the one place where a user's data meets a model.

    door → dispatch.py → infer() → worker pool → engine, and back

What may take long to decode or encode (JSON, text, much of anything) does so in a thread: the loop is everybody's.
Leaves out: who asked, how it was sealed, and the receipt over the answer (sealed_answer.py).
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError, InvalidInputError, ModelChangedError, TooLargeError
from blindai.oip.answers import OutputForm, encode_infer_response
from blindai.oip.classification import classify
from blindai.oip.datatypes import Datatype
from blindai.oip.raw_request import raw_request
from blindai.oip.rest import HEADER_LENGTH, HeaderMemory, InferRequest, InferResponse, decode_infer_request
from blindai.receipts import ModelIdentity
from blindai.server.calls import JSON, Call, Reply
from blindai.server.ensemble import run_model
from blindai.server.execution_providers import engine_text
from blindai.server.model_lookup import find_model
from blindai.server.model_metadata import model_face
from blindai.server.run_wish import run_wish

if TYPE_CHECKING:
    from blindai.oip.tensors import Tensor
    from blindai.server.budget import Share
    from blindai.server.catalogue import StoredModel
    from blindai.server.dispatch import Service
    from blindai.server.model_config import ServingConfig
    from blindai.server.routes import Target
    from blindai.server.runner import ModelFace

_QUICK_BODY_BYTES = 1024 * 1024
_QUICK_HEADER_BYTES = 16 * 1024
_MAX_JSON_BYTES = 16 * 1024 * 1024  # parsing holds the interpreter's lock, and so everybody up
MAX_JSON_TENSOR_BYTES = 4 * _MAX_JSON_BYTES  # "1," may become eight bytes
_JSON_COST = 16  # times its size: what Python's numbers and lists take in memory
_JSON_ELEMENT_BYTES = 64  # of a number on its way into JSON
_QUICK_ELEMENTS = 1024
# A header without a backslash spells its strings as they are: without these it has neither text nor JSON data.
_SLOW_WORDS = re.compile(rb'\\|BYTES|"data"')


async def infer(service: Service, call: Call, target: Target) -> Reply:
    """Run one inference (OIP §3.2.5).

    Raises:
        InferenceError: what is wrong with the request, or what became of the model's process.
        UnsealError: the stored model does not open.
    """
    call.let_leave_cancel()
    model = find_model(service, call.principal, target)
    with service.runs.run(call.principal.tenant), service.bodies.share() as share:
        begun_ns = time.monotonic_ns()
        try:
            request, face = await _read(service, call, model, share)
        except BlindAIError:
            service.pool.statistics(model).fail.add(time.monotonic_ns() - begun_ns)
            raise
        outputs = await run_model(
            model,
            call.principal.share,
            request.inputs,
            request.outputs,
            face=face,
            models=service.models_of(call.principal),
            pool=service.pool,
            wish=run_wish(call, request.parameters),
        )
        return await _reply(identity(model, face), model.config, request, outputs, share=share)


async def _read(service: Service, call: Call, model: StoredModel, share: Share) -> tuple[InferRequest, ModelFace]:
    """The request, whole, and what it is held against."""
    _require_same_model(call, model)
    header_length = _header_length(call)
    body = await call.read_body(service.settings.max_body_bytes, share)
    request = await _decode(body, header_length, share, call.memory) if header_length != 0 else None
    face = await model_face(service, call.principal, model)
    if request is None:
        request = raw_request(body, face.inputs, model=model.name, batched=bool(model.config.max_batch_size))
    return request, face


async def _decode(
    body: memoryview, header_length: int | None, share: Share, memory: HeaderMemory | None = None
) -> InferRequest:
    if _is_quick(body, header_length, memory):
        return decode_infer_request(body, header_length, memory)
    json_bytes = len(body) if header_length is None else min(header_length, len(body))
    if json_bytes > _MAX_JSON_BYTES:
        raise TooLargeError(
            f"tensors in JSON form have at most {_MAX_JSON_BYTES} bytes, these have {json_bytes}",
            hint="send them in the binary form, as the SDK does",
        )
    if json_bytes > _QUICK_HEADER_BYTES:
        share.take((_JSON_COST - 1) * json_bytes)
    return await asyncio.to_thread(decode_infer_request, body, header_length)


def _is_quick(body: memoryview, header_length: int | None, memory: HeaderMemory | None = None) -> bool:
    """Whether decoding is a matter of microseconds: a short header, and numbers that are used where they lie."""
    if header_length is None or header_length > _QUICK_HEADER_BYTES or len(body) > _QUICK_BODY_BYTES:
        return False
    header = body[:header_length]
    return (memory is not None and memory.recall(header) is not None) or not _SLOW_WORDS.search(header)


async def _reply(
    model: ModelIdentity, config: ServingConfig, request: InferRequest, outputs: tuple[Tensor, ...], *, share: Share
) -> Reply:
    """The answer in the form that the request wished."""
    forms: tuple[OutputForm, ...] | None = None
    if request.forms or not request.binary:
        forms = request.forms or (OutputForm(binary=request.binary),) * len(outputs)
        outputs = tuple(_classified(config, tensor, form) for tensor, form in zip(outputs, forms, strict=True))
        forms = forms if any(not form.binary for form in forms) else None
    response = InferResponse(model_name=model.name, model_version=model.version, id=request.id, outputs=outputs)
    if forms is None and Datatype.BYTES not in [output.datatype for output in outputs]:
        buffers, header_length = encode_infer_response(response)
    else:
        elements = sum(output.data.size for output in outputs)
        if elements > _QUICK_ELEMENTS:
            share.take(_JSON_ELEMENT_BYTES * elements)
        buffers, header_length = await asyncio.to_thread(encode_infer_response, response, forms)
    if header_length is None:
        return Reply(headers=JSON, body=tuple(buffers), model=model)
    return Reply(
        headers=(("content-type", "application/octet-stream"), (HEADER_LENGTH, str(header_length))),
        body=tuple(buffers),
        model=model,
    )


def _classified(config: ServingConfig, tensor: Tensor, form: OutputForm) -> Tensor:
    if not form.classes:
        return tensor
    labels = next((found for name, found in config.labels if name == tensor.name), ())
    return classify(tensor, form.classes, batched=bool(config.max_batch_size), labels=labels)


def identity(model: StoredModel, face: ModelFace) -> ModelIdentity:
    """What a receipt says of a model."""
    return ModelIdentity(
        name=model.name,
        version=model.version,
        digest=model.digest,
        engine=engine_text(face.providers),
        precision=face.precision,
    )


def _require_same_model(call: Call, model: StoredModel) -> None:
    """RFC 9110 §13.1.1: a client that prepared its tensors from metadata names the digest that it read."""
    expected = call.headers.get("if-match")
    if expected is not None and expected != model.digest:
        raise ModelChangedError("the model was replaced after its metadata was read", hint="read the metadata again")


def _header_length(call: Call) -> int | None:
    text = call.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 10:  # noqa: PLR2004  # digits of a u32
        raise InvalidInputError(f"{HEADER_LENGTH} is a whole number of bytes")
    return int(text)
