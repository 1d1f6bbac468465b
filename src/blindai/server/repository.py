"""The model owner's requests: upload, list, delete.

An upload streams: each piece is hashed, encrypted and written as it arrives.
Nothing is registered before its end, nor before it has loaded: a model that cannot run is never to be seen.
Leaves out: Triton's own way to list, load and unload (`model_control`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.bundle import MAX_UPLOAD_HEADER_BYTES, MODEL_NAME, UploadResult, parse_upload_header
from blindai.errors import ForbiddenError, InvalidInputError, TooLargeError
from blindai.server.calls import JSON, Call, Reply, json_reply
from blindai.server.model_fit import check_declaration
from blindai.server.store_changes import to_the_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blindai.bundle import UploadHeader
    from blindai.oip.tensors import TensorSpec
    from blindai.server.dispatch import Service
    from blindai.server.model_store import StoredModel
    from blindai.server.model_upload import Upload
    from blindai.server.routes import Target
    from blindai.server.settings import Settings
    from blindai.wire import Json


async def upload(service: Service, call: Call, target: Target) -> Reply:
    """Take a model bundle: u32 length, header (JSON), then each file's bytes (docs/spec/bundle.md).

    Raises:
        ForbiddenError: the runtime policy allows no uploads.
        TooLargeError: more or larger models than the runtime policy or the store allows.
        OverloadedError: too many uploads are under way.
        ModelStoreError: the bundle is not one, does not fit its header, or is no model that can run here.
    """
    require_uploads(service.settings)
    check_name(target.model)
    pieces = call.pieces()
    header, rest = await _upload_header(pieces)
    check_size(header, service.settings)
    incoming = service.models_of(call.principal).begin_upload(target.model, header)
    try:
        incoming.write(rest)
        async for piece in pieces:
            incoming.write(piece)
        model = await registered(service, incoming, share=call.principal.share, load=header.load)
    except BaseException:
        incoming.abort()
        raise
    result = UploadResult(name=model.name, version=model.version, digest=model.digest, manifest=model.manifest.encode())
    return Reply(headers=JSON, body=(result.encode(),))


async def models(service: Service, call: Call, _target: Target) -> Reply:
    """Every model and version that the caller may see; of its own, the one uploaded last at the end."""
    await call.read_no_body()
    listed: list[Json] = [
        {
            "name": model.name,
            "version": model.version,
            "digest": model.digest,
            "bytes": sum(file.size for file in model.manifest.files),
        }
        for model in service.models_of(call.principal).models()
    ]
    return json_reply({"models": listed})


async def delete(service: Service, call: Call, target: Target) -> Reply:
    """Forget a version, or all versions of a name; their processes end."""
    await call.read_no_body()
    models = service.models_of(call.principal)

    async def deletion() -> int:
        deleted = await service.changes.run(models.delete, target.model, target.version or None)
        await _forget(service, deleted)
        return len(deleted)

    return json_reply({"deleted": await to_the_end(deletion())})


def require_uploads(settings: Settings) -> None:
    """Whether models may come in.

    Raises:
        ForbiddenError: the runtime policy allows no uploads.
    """
    if not settings.upload_allowed:
        raise ForbiddenError("this server takes no uploads", hint="its runtime policy says `upload_allowed = false`")


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


def check_name(name: str) -> None:
    """Whether a model can have this name.

    Raises:
        InvalidInputError: it cannot.
    """
    if not MODEL_NAME.match(name):
        raise InvalidInputError(
            "model name must not contain path traversal characters; it has 1 to 128 letters, digits, '.', '_' or '-'"
        )


def check_size(header: UploadHeader, settings: Settings) -> None:
    """Whether one model may be so large.

    Raises:
        TooLargeError: it may not.
    """
    size = header.total_size
    if size > settings.max_model_bytes:
        raise TooLargeError(f"a model has at most {settings.max_model_bytes} bytes here, this one has {size}")


async def registered(
    service: Service, incoming: Upload, *, share: str, load: bool = True, replaces: bool = False
) -> StoredModel:
    """The uploaded model, once it has loaded; one that cannot run is refused now, and disturbs no equal one.

    Args:
        service: that takes it in.
        incoming: whole.
        share: whose process it loads in.
        load: whether it must.
        replaces: whether it takes the place of another model with its name and version; else that is refused.

    Raises:
        InvalidModelError: it cannot run, or not as its configuration says.
    """
    candidate = await service.changes.run(incoming.complete)
    if not load:
        return await service.changes.run(incoming.register)

    async def registration() -> StoredModel:
        model = await service.changes.run(incoming.register, replaces=replaces)
        await _forget(service, incoming.replaced)
        return model

    try:
        await service.pool.load(candidate, share)  # also one that was unloaded
        face = await service.pool.metadata(candidate, share)
        check_declaration(candidate.config, face)
        _check_default_shape(candidate.default_shape, face.inputs)
        return await to_the_end(registration())
    except BaseException:
        incoming.abort()
        await _stop_unused(service, candidate)
        raise


async def _forget(service: Service, models: tuple[StoredModel, ...]) -> None:
    for model in models:
        service.states.forget(model)
        service.pool.forget(model)
        await _stop_unused(service, model)


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


async def _stop_unused(service: Service, model: StoredModel) -> None:
    """End a model's process, unless an equal model is here or on its way in."""
    if not service.store.holds(model.digest):
        await service.pool.stop(model)
