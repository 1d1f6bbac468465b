"""The model owner's requests: upload, list, metadata, delete.

An upload streams: each piece is hashed, encrypted and written as it arrives.
Nothing is registered before its end, nor before it has loaded: a model that cannot run is never to be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.bundle import MAX_UPLOAD_HEADER_BYTES, UploadResult, parse_upload_header
from blindai.errors import ForbiddenError, InvalidInputError, TooLargeError
from blindai.oip.rest import ModelMetadata, encode_metadata
from blindai.server.calls import Call, Reply
from blindai.server.ensemble import model_specs
from blindai.wire import compact_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blindai.bundle import UploadHeader
    from blindai.oip.tensors import TensorSpec
    from blindai.server.access import Principal
    from blindai.server.model_store import ModelStore, StoredModel, Upload
    from blindai.server.settings import Settings
    from blindai.server.worker_pool import WorkerPool

PLATFORM = "onnxruntime_onnx"
_JSON = (("content-type", "application/json"),)


async def upload(call: Call, *, name: str, store: ModelStore, pool: WorkerPool, settings: Settings) -> Reply:
    """Take a model bundle: u32 length, header (JSON), then each file's bytes (docs/spec/bundle.md).

    Raises:
        ForbiddenError: the runtime policy allows no uploads.
        TooLargeError: more or larger models than the runtime policy or the store allows.
        OverloadedError: too many uploads are under way.
        ModelStoreError: the bundle is not one, does not fit its header, or is no model that can run here.
    """
    if not settings.upload_allowed:
        raise ForbiddenError("this server takes no uploads", hint="its runtime policy says `upload_allowed = false`")
    pieces = call.body
    header, rest = await _upload_header(pieces)
    _check_size(header, settings)
    incoming = store.begin_upload(name, header)
    try:
        incoming.write(rest)
        async for piece in pieces:
            incoming.write(piece)
        model = await _registered(incoming, store, pool, share=call.principal.share, load=header.load)
    except BaseException:
        incoming.abort()
        raise
    result = UploadResult(name=model.name, version=model.version, digest=model.digest, manifest=model.manifest.encode())
    return Reply(headers=_JSON, body=(result.encode(),))


async def metadata(
    principal: Principal, *, reference: str, version: str | None, store: ModelStore, pool: WorkerPool
) -> Reply:
    """A model's inputs and outputs (OIP §3.2.4), as declared or read from the model itself; loads it if need be."""
    model = store.resolve(reference, version)
    inputs, outputs = await model_specs(model, principal.share, pool=pool)
    described = ModelMetadata(
        name=model.name,
        versions=tuple(other.version for other in store.models() if other.name == model.name),
        platform="ensemble" if model.config.steps else PLATFORM,
        inputs=inputs,
        outputs=outputs,
        version=model.version,
        digest=model.digest,
        default_shape=model.default_shape,
    )
    return Reply(headers=_JSON, body=(encode_metadata(described),))


def index(store: ModelStore) -> Reply:
    """Every model and version, the one uploaded last at the end."""
    models = sorted(store.models(), key=lambda model: model.sequence)
    listed = [
        {
            "name": model.name,
            "version": model.version,
            "digest": model.digest,
            "bytes": sum(file.size for file in model.manifest.files),
        }
        for model in models
    ]
    return Reply(headers=_JSON, body=(compact_json({"models": listed}),))


async def delete(*, reference: str, version: str | None, store: ModelStore, pool: WorkerPool) -> Reply:
    """Forget a version, or all versions of a name; their processes end."""
    deleted = store.delete(reference, version)
    for model in deleted:
        await _stop_unused(model, store, pool)
    return Reply(headers=_JSON, body=(compact_json({"deleted": len(deleted)}),))


async def _upload_header(pieces: AsyncIterator[memoryview]) -> tuple[UploadHeader, bytes]:
    """The bundle's header, and the bytes after it that came along."""
    received = bytearray()
    async for piece in pieces:
        received += piece
        if len(received) < 4:  # noqa: PLR2004  # the u32 length
            continue
        size = int.from_bytes(received[:4], "big")
        if size > MAX_UPLOAD_HEADER_BYTES:
            raise TooLargeError(f"a bundle's header has at most {MAX_UPLOAD_HEADER_BYTES} bytes")
        if len(received) >= 4 + size:
            return parse_upload_header(bytes(received[4 : 4 + size])), bytes(received[4 + size :])
    raise InvalidInputError("the upload ended inside its header")


def _check_size(header: UploadHeader, settings: Settings) -> None:
    size = header.total_size
    if size > settings.max_model_bytes:
        raise TooLargeError(f"a model has at most {settings.max_model_bytes} bytes here, this one has {size}")


async def _registered(incoming: Upload, store: ModelStore, pool: WorkerPool, *, share: str, load: bool) -> StoredModel:
    """The uploaded model, once it has loaded; one that cannot run is refused now, and disturbs no equal one."""
    candidate = incoming.complete()
    if not load:
        return incoming.register()
    try:
        inputs, _ = await pool.metadata(candidate, share)
        _check_default_shape(candidate.default_shape, inputs)
        return incoming.register()
    except BaseException:
        incoming.abort()
        await _stop_unused(candidate, store, pool)
        raise


def _check_default_shape(shape: tuple[int, ...] | None, inputs: tuple[TensorSpec, ...]) -> None:
    """The shape given at upload is for flat lists for the first input: a wrong one would only fail later."""
    if shape is None:
        return
    if not inputs:
        raise InvalidInputError("a shape is given, and the model has no inputs")
    fits = len(shape) == len(inputs[0].shape) and all(
        -1 in (axis, given) or axis == given for axis, given in zip(inputs[0].shape, shape, strict=True)
    )
    if not fits:
        raise InvalidInputError(
            f"the model's first input has shape {list(inputs[0].shape)}, which the shape given at upload does not fit",
            hint="-1 is an axis of any size; without a shape, the model's own is taken",
        )


async def _stop_unused(model: StoredModel, store: ModelStore, pool: WorkerPool) -> None:
    """End a model's process, unless an equal model is here or on its way in."""
    if not store.holds(model.digest):
        await pool.stop(model)
