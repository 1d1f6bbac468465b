"""What a client does, without I/O: upload, infer, list, describe, delete.

Each flow is a generator over HTTP exchanges (exchange_flow.py); `sync_client` and `async_client` drive the same ones.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.bundle import (
    MODEL_NAME,
    MODEL_VERSION,
    BundleFile,
    UploadHeader,
    UploadResult,
    encode_upload_header,
    parse_manifest,
)
from blindai.client.exchange_flow import Flow, SealedRequest, SealedResult, exchange
from blindai.client.results import InferResult, ModelInfo, UploadedModel
from blindai.errors import InternalError, InvalidInputError, ModelChangedError, ModelDigestMismatchError
from blindai.oip.rest import (
    HEADER_LENGTH,
    InferRequest,
    ModelMetadata,
    decode_infer_response,
    decode_metadata,
    encode_infer_request,
)
from blindai.oip.tensors import tensor_for
from blindai.wire import printable, require_members, strict_json, whole_number

if TYPE_CHECKING:
    from pathlib import Path

    from blindai.client.connection import Connection
    from blindai.oip.tensors import Tensor, TensorSpec

LAST_UPLOADED = "@last"
MAX_INDEX_BYTES = 16 * 1024 * 1024
_READ_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """What is to be uploaded.

    Attributes:
        name: the model's name on the server.
        version: None lets the server count.
        paths: the `.onnx` file first, then its external data files.
        default_shape: the shape that flat lists take, or None to read it from the model.
        load: whether the server shall load the model at once, and so refuse one that cannot run.
    """

    name: str
    version: str | None
    paths: tuple[Path, ...]
    default_shape: tuple[int, ...] | None
    load: bool


def model_path(model: str | None, version: str | None = None) -> str:
    """The OIP path of a model: a name, `name@sha256:…`, or the one uploaded last.

    Raises:
        InvalidInputError: no model can have this name or version.
    """
    reference = LAST_UPLOADED if model is None else model  # an empty name is a mistake, and not the last model
    name, at, digest = reference.partition("@")
    if reference != LAST_UPLOADED and not (MODEL_NAME.match(name) and (not at or _DIGEST.match(digest))):
        raise InvalidInputError(
            f"{reference!r} cannot be a model's name",
            hint="a name has at most 128 letters, digits, '.', '_' or '-'; name@sha256:… ends with 64 hex digits",
        )
    if version is None:
        return f"/v2/models/{reference}"
    if not MODEL_VERSION.match(str(version)):  # 2 is as good as "2"
        raise InvalidInputError(f"{version!r} cannot be a model's version")
    return f"/v2/models/{reference}/versions/{version}"


def upload_model(connection: Connection, files: ModelFiles, progress: Progress | None) -> Flow[UploadedModel]:
    """Stream a bundle to the enclave and check that exactly these bytes arrived.

    Raises:
        ModelDigestMismatchError: the server names other files than were sent.
        ModelStoreError: the server does not take the model.
    """
    header = UploadHeader(
        version=files.version,
        files=tuple((path.name, path.stat().st_size) for path in files.paths),
        default_shape=files.default_shape,
        load=files.load,
    )
    sent: list[BundleFile] = []
    result = yield from exchange(
        connection,
        SealedRequest(
            method="POST",
            path=f"/v2/repository/models/{files.name}/upload",
            content_type="application/octet-stream",
            body=lambda: _bundle_body(files, header, sent, progress),
            repeatable=False,
        ),
    )
    uploaded = UploadResult.decode(result.answer.body)
    manifest = parse_manifest(uploaded.manifest)
    if manifest.files != tuple(sorted(sent, key=lambda file: file.path)):
        raise ModelDigestMismatchError("the server names other files than those that were sent")
    return UploadedModel(name=uploaded.name, version=uploaded.version, digest=uploaded.digest, receipt=result.receipt)


def _bundle_body(
    files: ModelFiles, header: UploadHeader, sent: list[BundleFile], progress: Progress | None
) -> Iterator[bytes]:
    sent.clear()
    total, done = header.total_size, 0
    yield encode_upload_header(header)
    for path, (name, size) in zip(files.paths, header.files, strict=True):
        digest, read = hashlib.sha256(), 0
        with path.open("rb") as stream:
            while piece := stream.read(_READ_BYTES):
                digest.update(piece)
                read += len(piece)
                done += len(piece)
                yield piece
                if progress:
                    progress(done, total)
        if read != size:
            raise InvalidInputError(f"{name} changed while it was uploaded")
        sent.append(BundleFile(path=name, size=size, sha256=digest.digest()))


def list_models(connection: Connection) -> Flow[tuple[ModelInfo, ...]]:
    """Every model on the server, the one uploaded last at the end."""
    result = yield from exchange(connection, SealedRequest(method="POST", path="/v2/repository/index"))
    try:
        listed = require_members(strict_json(result.answer.body, max_bytes=MAX_INDEX_BYTES), frozenset({"models"}))[
            "models"
        ]
        members = frozenset({"name", "version", "digest", "bytes"})
        return tuple(
            ModelInfo(
                name=printable(model["name"]),
                version=printable(model["version"]),
                digest=printable(model["digest"]),
                size_bytes=whole_number(model["bytes"]),
            )
            for model in (require_members(entry, members) for entry in listed)
        )
    except (ValueError, TypeError):
        raise InternalError("the server's list of models cannot be read") from None


def read_metadata(connection: Connection, model: str | None, version: str | None) -> Flow[ModelMetadata]:
    """Inputs and outputs of a model, asked anew.

    Raises:
        ModelNotFoundError: the server has no such model.
    """
    path = model_path(model, version)
    result = yield from exchange(connection, SealedRequest(method="GET", path=path))
    metadata = decode_metadata(result.answer.body)
    connection.models[path] = metadata
    return metadata


def delete_model(connection: Connection, model: str, version: str | None) -> Flow[int]:
    """Delete a version, or every version of a name; returns how many were deleted.

    Raises:
        ModelNotFoundError: the server has no such model.
    """
    path = model_path(model, version).replace("/v2/models/", "/v2/repository/models/")
    result = yield from exchange(connection, SealedRequest(method="DELETE", path=path, repeatable=False))
    connection.models.clear()
    try:
        members = require_members(strict_json(result.answer.body, max_bytes=MAX_INDEX_BYTES), frozenset({"deleted"}))
        return whole_number(members["deleted"])
    except ValueError:
        raise InternalError("the server's answer cannot be read") from None


def infer(
    connection: Connection, model: str | None, inputs: Any, *, version: str | None, outputs: tuple[str, ...]
) -> Flow[InferResult]:
    """Run a model on arrays, lists or a dict by input name.

    Raises:
        InvalidInputError: the inputs do not fit the model; says what was expected and what was found.
        InferenceError: what the server answered.
    """
    path = model_path(model, version)
    known = connection.models.get(path) if model else None  # its digest travels along: it cannot go stale unseen
    if known:
        try:
            return (yield from _infer_known(connection, path, known, inputs=inputs, outputs=outputs))
        except (ModelChangedError, InvalidInputError):
            connection.models.pop(path, None)
    metadata = yield from read_metadata(connection, model, version)
    return (yield from _infer_known(connection, path, metadata, inputs=inputs, outputs=outputs))


def _infer_known(
    connection: Connection, path: str, metadata: ModelMetadata, *, inputs: Any, outputs: tuple[str, ...]
) -> Flow[InferResult]:
    tensors = tensors_for(inputs, metadata)
    buffers, header_length = encode_infer_request(InferRequest(id="", inputs=tensors, outputs=outputs))
    body = b"".join(buffers)
    result = yield from exchange(
        connection,
        SealedRequest(
            method="POST",
            path=_pinned(path, metadata) + "/infer",
            headers=((HEADER_LENGTH, str(header_length)), ("if-match", metadata.digest)),
            content_type="application/octet-stream",
            body=lambda: (body,),
        ),
    )
    return _infer_result(result, body)


def _pinned(path: str, metadata: ModelMetadata) -> str:
    """`@last` may mean another model by now: ask for the one whose metadata was read."""
    if LAST_UPLOADED not in path:
        return path
    return model_path(metadata.name, metadata.version)


def _infer_result(result: SealedResult, body: bytes) -> InferResult:
    length = result.answer.head.header(HEADER_LENGTH)
    try:
        response = decode_infer_response(result.answer.body, int(length) if length and length.isdigit() else None)
    except InvalidInputError as error:  # here it is the server's output, so asking again would not help
        raise InternalError(f"the server's answer cannot be read: {error}") from None
    model = result.receipt.model
    if model is None or (model.name, model.version) != (response.model_name, response.model_version):
        raise InternalError("the receipt names another model than the answer")
    return InferResult(
        model_name=response.model_name,
        model_version=response.model_version,
        outputs=response.outputs,
        request_body=body,
        exchange=result,
    )


def tensors_for(inputs: Any, metadata: ModelMetadata) -> tuple[Tensor, ...]:
    """Fit what the user gave to the model's inputs.

    A dict is taken by input name. A model with one input takes the value itself, or its array alone in a list; one with
    more takes a list or tuple with one value for each, in the model's order.

    Raises:
        InvalidInputError: names, number, type, shape or count do not fit.
    """
    specs = metadata.inputs
    if isinstance(inputs, Mapping):
        names = {spec.name for spec in specs}
        if set(inputs) != names:
            raise InvalidInputError(f"the model takes the inputs {sorted(names)}, found {sorted(map(str, inputs))}")
        values = [inputs[spec.name] for spec in specs]
    elif len(specs) == 1:
        values = [inputs[0] if _is_the_only_array(inputs, specs[0]) else inputs]
    else:
        values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if len(values) != len(specs):
            expected = [spec.name for spec in specs]
            raise InvalidInputError(f"the model takes {len(specs)} inputs, {expected}; found {len(values)}")
    shapes = (metadata.default_shape, *(None for _ in specs[1:])) if specs else ()
    return tuple(
        tensor_for(value, spec, default_shape=shape) for value, spec, shape in zip(values, specs, shapes, strict=True)
    )


def _is_the_only_array(inputs: Any, spec: TensorSpec) -> bool:
    """Whether this is a list of one value for one input, and not a list of rows: an array that has the input's rank."""
    if not isinstance(inputs, list | tuple) or len(inputs) != 1:
        return False
    shape = getattr(inputs[0], "shape", None)  # numpy's, torch's, and a `Tensor`'s
    return shape is not None and len(shape) == len(spec.shape)
