"""Triton's model repository extension: index, load and unload, and a load that brings its files along.

    POST /v2/repository/index                {"ready": true}
    POST /v2/repository/models/NAME/load     {"parameters": {"config": JSON, "file:1/model.onnx": base64}}
    POST /v2/repository/models/NAME/unload

A load is done when it is answered: the model is ready. One that fails leaves what was served before.
Files come in one request, so they are bounded by its size; `repository.upload` streams.
Leaves out: who may do this (roles, `dispatch`), and directories and URLs, which no load ever reads.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import msgspec

from blindai.bundle import SessionOptions, UploadHeader
from blindai.errors import InvalidInputError, ModelNotFoundError
from blindai.oip.json_data import check_depth, decode_json
from blindai.server.calls import JSON, Reply, json_reply
from blindai.server.load_request import LoadRequest, read_load, selected_versions
from blindai.server.model_config import ServingConfig
from blindai.server.model_fit import check_declaration
from blindai.server.repository import check_name, check_size, registered, require_uploads

if TYPE_CHECKING:
    from blindai.server.access import Principal
    from blindai.server.budget import Share
    from blindai.server.calls import Call
    from blindai.server.catalogue import StoredModel
    from blindai.server.dispatch import Service
    from blindai.server.routes import Target

_MAX_INDEX_BYTES = 64 * 1024
_QUICK_BYTES = 16 * 1024
_COST = 2  # a body with files in base64, and its files
_DONE = Reply(headers=JSON, body=(b"{}",))


class _Index(msgspec.Struct):
    ready: bool = False


class _UnloadParameters(msgspec.Struct, forbid_unknown_fields=True):
    unload_dependents: bool = False  # nothing here depends on another model's being loaded


class _Unload(msgspec.Struct):
    parameters: _UnloadParameters = msgspec.field(default_factory=_UnloadParameters)


_Body = TypeVar("_Body")
_index_decoder = msgspec.json.Decoder(_Index)
_unload_decoder = msgspec.json.Decoder(_Unload)


async def index(service: Service, call: Call, _target: Target) -> Reply:
    """Every model and version that the caller may see, with its state; with `ready`, only those that are served."""
    with service.bodies.share() as share:
        wished = _decoded(_index_decoder, await call.read_body(_MAX_INDEX_BYTES, share), _Index())
    listed = []
    for model in service.models_of(call.principal).models():
        state, reason = service.states.of(model)
        if service.states.is_served(model) or not wished.ready:
            listed.append({"name": model.name, "version": model.version, "state": state, "reason": reason})
    return json_reply(listed)


async def load(service: Service, call: Call, target: Target) -> Reply:
    """Serve a stored model again, or otherwise; or take in the model whose files come along.

    Raises:
        ModelNotFoundError: there is no such model, and no files came.
        ForbiddenError: the model came with the server.
        InvalidInputError: the request is none, or the configuration is not.
        ModelStoreError: the files are no model that can run here.
    """
    check_name(target.model)
    service.models_of(call.principal).require_changeable(target.model)
    with service.bodies.share() as share:
        body = await call.read_body(service.settings.max_body_bytes, share)
        request = await _read_load(body, share, name=target.model)
        if request.versions:
            await _take_in(service, call.principal, target.model, request)
        else:
            await _serve_again(service, call.principal, target.model, request)
    return _DONE


async def unload(service: Service, call: Call, target: Target) -> Reply:
    """Serve no version of a name any more; its processes end. A model that is not there is unloaded already.

    Raises:
        ForbiddenError: the model came with the server.
    """
    check_name(target.model)
    service.models_of(call.principal).require_changeable(target.model)
    with service.bodies.share() as share:
        _decoded(_unload_decoder, await call.read_body(_MAX_INDEX_BYTES, share), _Unload())
    for model in _own_versions(service, call.principal, target.model):
        await _unload(service, model)
    return _DONE


async def _read_load(body: memoryview, share: Share, *, name: str) -> LoadRequest:
    if body.nbytes <= _QUICK_BYTES:
        return read_load(bytes(body), name=name)
    share.take(_COST * body.nbytes)
    return await asyncio.to_thread(read_load, bytes(body), name=name)


async def _take_in(service: Service, principal: Principal, name: str, request: LoadRequest) -> None:
    """Register the versions that came along, each once it has loaded; then the policy decides which are served."""
    require_uploads(service.settings)
    config = request.config or ServingConfig()
    for version, files in request.versions:
        header = UploadHeader(
            version=version,
            files=tuple((path, len(data)) for path, data in files),
            default_shape=None,
            load=True,
        )
        check_size(header, service.settings)
        incoming = service.models_of(principal).begin_upload(name, header, config=config, session=request.session)
        try:
            for _, data in files:
                incoming.write(data)
                await asyncio.sleep(0)
            await registered(service, incoming, share=principal.share, replaces=True)
        except BaseException:
            incoming.abort()
            raise
    await _follow_policy(service, principal, name, config)


async def _serve_again(service: Service, principal: Principal, name: str, request: LoadRequest) -> None:
    """Load stored versions of a name, with another configuration if one came along."""
    stored = _own_versions(service, principal, name)
    if not stored:
        raise ModelNotFoundError(
            f"failed to load '{name}': Request for unknown model: '{name}' is not found",
            hint="Upload it, or send its files along; nothing is read from a directory.",
        )
    for model in stored:
        _check_session(request.session, model)
        face = await service.pool.metadata(model, principal.share)
        if request.config is not None:
            check_declaration(request.config, face)
    for model in stored:
        changed = model
        if request.config is not None:
            changed = await service.changes.run(service.store.reconfigure, model, request.config)
        with service.states.load(changed):
            await service.pool.load(changed, principal.share)
    if request.config is not None:
        await _follow_policy(service, principal, name, request.config)


def _check_session(wished: SessionOptions, model: StoredModel) -> None:
    """Session options are part of a digest: to change them is to send another model."""
    if wished not in (SessionOptions(), model.manifest.session):
        raise InvalidInputError(
            "optimization is part of the model's digest, and this model has another", hint="Send its files along."
        )


async def _follow_policy(service: Service, principal: Principal, name: str, config: ServingConfig) -> None:
    """Serve the versions that the policy selects, and no others."""
    stored = _own_versions(service, principal, name)
    selected = selected_versions(config.version_policy, [model.version for model in stored])
    for model in stored:
        if model.version not in selected:
            await _unload(service, model)


async def _unload(service: Service, model: StoredModel) -> None:
    """Its processes end, unless an equal model is still served, perhaps another tenant's."""
    service.states.unload(model)
    if not any(service.states.is_served(other) for other in service.store.having(model.digest)):
        await service.pool.stop(model)


def _own_versions(service: Service, principal: Principal, name: str) -> tuple[StoredModel, ...]:
    """Every version of a name of the caller's own tenant, in the order of upload."""
    return tuple(model for model in service.store.models(tenant=principal.tenant) if model.name == name)


def _decoded(decoder: msgspec.json.Decoder[_Body], body: memoryview, default: _Body) -> _Body:
    """A small body of JSON; none at all is the default."""
    if not bytes(body).strip():
        return default
    check_depth(body)
    return decode_json(decoder, body, "the request")
