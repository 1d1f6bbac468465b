"""What a client does, without I/O: upload, load, infer, list, describe, delete.

Each flow is a generator over HTTP exchanges, sealed (exchange_flow.py) or in clear inside pinned TLS (pinned_flow.py);
`sync_client` and `async_client` drive the same ones.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.bundle import (
    BundleFile,
    UploadHeader,
    UploadResult,
    encode_upload_header,
    parse_manifest,
)
from blindai.client.exchange_flow import SealedRequest, SealedResult, exchange
from blindai.client.inputs import tensors_for
from blindai.client.model_reference import parse_reference, require_answer, require_model
from blindai.client.pinned_flow import PinnedResult, pinned_exchange
from blindai.client.results import InferResult, ModelInfo, UploadedModel
from blindai.errors import (
    InternalError,
    InvalidInputError,
    ModelChangedError,
    ModelDigestMismatchError,
)
from blindai.oip.rest import (
    HEADER_LENGTH,
    InferRequest,
    InferResponse,
    ModelMetadata,
    decode_infer_response,
    decode_metadata,
    encode_infer_request,
)
from blindai.wire import printable, require_members, strict_json, whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from blindai.client.attest_flow import Flow
    from blindai.client.connection import Connection
    from blindai.client.model_reference import ModelReference
    from blindai.oip.tensors import Tensor

MAX_INDEX_BYTES = 16 * 1024 * 1024
_READ_BYTES = 1 << 20

Progress = Callable[[int, int], None]
Answered = SealedResult | PinnedResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """What is to be uploaded.

    Attributes:
        name: the model's name on the server.
        version: None lets the server count.
        paths: the `.onnx` file first, then its external data files.
        default_shape: the shape that flat lists take, or None to read it from the model.
        load: whether the server shall load the model at once, and so refuse one that cannot run.
        owner_key: Ed25519 public key whose signature lets a later release have the model, or None.
    """

    name: str
    version: str | None
    paths: tuple[Path, ...]
    default_shape: tuple[int, ...] | None
    load: bool
    owner_key: bytes | None = None


def upload_model(connection: Connection, files: ModelFiles, progress: Progress | None) -> Flow[UploadedModel]:
    """Stream a bundle to the enclave and check that exactly these bytes arrived.

    Raises:
        ModelDigestMismatchError: the server names other files than were sent, or stored them under another name.
        ModelStoreError: the server does not take the model.
    """
    header = UploadHeader(
        version=files.version,
        files=tuple((path.name, path.stat().st_size) for path in files.paths),
        default_shape=files.default_shape,
        load=files.load,
        owner_key=files.owner_key,
    )
    sent: list[BundleFile] = []
    result = yield from _manage(
        connection,
        SealedRequest(
            method="POST",
            path=f"/v2/repository/models/{files.name}/upload",
            content_type="application/octet-stream",
            body=lambda: _bundle_body(files, header, sent, progress),
            repeatable=False,
        ),
    )
    uploaded = UploadResult.decode(result.body)
    if uploaded.name != files.name or files.version not in {None, uploaded.version}:
        raise ModelDigestMismatchError("the server names another model than the one that was uploaded")
    manifest = parse_manifest(uploaded.manifest)
    if manifest.files != tuple(sorted(sent, key=lambda file: file.path)):
        raise ModelDigestMismatchError("the server names other files than those that were sent")
    return UploadedModel(
        name=uploaded.name,
        version=uploaded.version,
        digest=uploaded.digest,
        simulated=result.keyset.result.simulated,
        signed=result.receipt if isinstance(result, SealedResult) else None,
        exchange=result,
    )


def _ask(connection: Connection, request: SealedRequest) -> Flow[Answered]:
    """The way that this connection was told to take."""
    if connection.settings.pins_tls:
        return (yield from pinned_exchange(connection, request))
    return (yield from exchange(connection, request))


def _manage(connection: Connection, request: SealedRequest) -> Flow[Answered]:
    """A request that runs no model, and whose receipt, if there is one, says so."""
    result = yield from _ask(connection, request)
    if isinstance(result, SealedResult):
        result.require_no_model()
    return result


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
    result = yield from _manage(connection, SealedRequest(method="GET", path="/v2/repository/models"))
    try:
        listed = require_members(strict_json(result.body, max_bytes=MAX_INDEX_BYTES), frozenset({"models"}))["models"]
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
        ModelDigestMismatchError: it describes another one than was asked for.
    """
    return (yield from _describe(connection, parse_reference(model, version)))


def _describe(connection: Connection, reference: ModelReference) -> Flow[ModelMetadata]:
    result = yield from _manage(connection, SealedRequest(method="GET", path=reference.path))
    metadata = decode_metadata(result.body)
    reference.require_meant(metadata)
    connection.models[reference.path] = metadata
    return metadata


def load_model(
    connection: Connection, name: str, config: Mapping[str, Any] | None, files: Mapping[str, bytes]
) -> Flow[None]:
    """Serve a model (again), perhaps otherwise (Triton's load request).

    Raises:
        ModelNotFoundError: the server has no such model, and no files came along.
        InvalidInputError: the configuration or a file is not one.
    """
    parameters = {f"file:{path}": base64.b64encode(data).decode() for path, data in files.items()}
    if config is not None:
        parameters["config"] = json.dumps(config)
    body = json.dumps({"parameters": parameters}).encode()
    path = parse_reference(name, None).path.replace("/v2/models/", "/v2/repository/models/")
    request = SealedRequest(
        method="POST",
        path=f"{path}/load",
        content_type="application/json",
        body=lambda: (body,),
        repeatable=False,
    )
    yield from _manage(connection, request)
    connection.models.clear()


def delete_model(connection: Connection, model: str, version: str | None) -> Flow[int]:
    """Delete a version, or every version of a name; returns how many were deleted.

    Raises:
        ModelNotFoundError: the server has no such model.
    """
    path = parse_reference(model, version).path.replace("/v2/models/", "/v2/repository/models/")
    result = yield from _manage(connection, SealedRequest(method="DELETE", path=path, repeatable=False))
    connection.models.clear()
    try:
        members = require_members(strict_json(result.body, max_bytes=MAX_INDEX_BYTES), frozenset({"deleted"}))
        return whole_number(members["deleted"])
    except ValueError:
        raise InternalError("the server's answer cannot be read") from None


def infer(
    connection: Connection, model: str | None, inputs: Any, *, version: str | None, outputs: tuple[str, ...]
) -> Flow[InferResult]:
    """Run a model on arrays, lists or a dict by input name.

    The data leave again only if the server says that the model was replaced: then it has not read them.

    Raises:
        InvalidInputError: the inputs do not fit the model; says what was expected and what was found.
        InvalidReceiptError: another model answered than the one that was asked, as the receipt says.
        InferenceError: what the server answered.
    """
    reference = parse_reference(model, version)
    known = connection.models.get(reference.path) if reference.name else None  # its digest travels along
    if known:
        tensors = None
        with contextlib.suppress(InvalidInputError):  # nothing was sent: they may fit the model that is there now
            tensors = tensors_for(inputs, known)
        if tensors is not None:
            with contextlib.suppress(ModelChangedError):
                return (yield from _infer(connection, reference, known, tensors=tensors, outputs=outputs))
    metadata = yield from _describe(connection, reference)
    tensors = tensors_for(inputs, metadata)
    return (yield from _infer(connection, reference, metadata, tensors=tensors, outputs=outputs))


def _infer(
    connection: Connection,
    reference: ModelReference,
    metadata: ModelMetadata,
    *,
    tensors: tuple[Tensor, ...],
    outputs: tuple[str, ...],
) -> Flow[InferResult]:
    buffers, header_length = encode_infer_request(InferRequest(id="", inputs=tensors, outputs=outputs))
    body = b"".join(buffers)
    if reference.name is None:  # another may be the last by now: ask for the one whose metadata was read
        reference = parse_reference(metadata.name, metadata.version)
    result = yield from _ask(
        connection,
        SealedRequest(
            method="POST",
            path=reference.path + "/infer",
            headers=((HEADER_LENGTH, str(header_length)), ("if-match", metadata.digest)),
            content_type="application/octet-stream",
            body=lambda: (body,),
        ),
    )
    response = _decode(result)
    if reference.version is None and response.model_version != metadata.version:
        metadata = yield from _describe_again(connection, reference, metadata, response.model_version)
    require_answer(metadata, response)
    if isinstance(result, SealedResult) and result.receipt:
        require_model(metadata, result.receipt, result.keyset.keyset)
    return InferResult(
        model_name=response.model_name,
        model_version=response.model_version,
        outputs=response.outputs,
        request_body=body,
        exchange=result,
    )


def _describe_again(
    connection: Connection, reference: ModelReference, metadata: ModelMetadata, version: str
) -> Flow[ModelMetadata]:
    """The same files got another version since their metadata was kept: it must be theirs indeed."""
    described = yield from _describe(connection, parse_reference(f"{metadata.name}@{metadata.digest}", version))
    connection.models[reference.path] = described
    return described


def _decode(result: Answered) -> InferResponse:
    length = result.header(HEADER_LENGTH)
    try:
        return decode_infer_response(result.body, int(length) if length and length.isdigit() else None)
    except InvalidInputError as error:  # here it is the server's output, so asking again would not help
        raise InternalError(f"the server's answer cannot be read: {error}") from None
