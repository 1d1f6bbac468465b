"""What is uploaded: a model is a bundle of flat-named files, announced by a header and named by a digest.

Both ends use this file: the client announces a bundle and checks the digest, the server parses and answers.
Model digest = SHA-256(L("model") ‖ LP(manifest)) (docs/spec/receipt.md), so it covers the path, size and SHA-256 of
every file and the session options.
Leaves out: which files on a disk make one (`bundle_files`), whether the model may run (`model_guard`), and how it is
kept (`server.model_store`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.errors import InternalError, InvalidInputError, InvalidModelError, ModelDigestMismatchError
from blindai.wire import (
    JSON_INTEGER_LIMIT,
    Json,
    base64url_decode,
    base64url_encode,
    compact_json,
    label,
    length_prefixed,
    require_members,
    strict_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
MODEL_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
FILE_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}\Z")
MAX_FILES = 128
MAX_RANK = 16
MAX_UPLOAD_HEADER_BYTES = 64 * 1024
MAX_RESULT_BYTES = 256 * 1024
PIPELINE_SUFFIX = ".pipeline.json"  # behind the model's own name: what makes tensors of raw data (blindai.pipeline)
DIGEST_PREFIX = "sha256:"
DIGEST_BYTES = 32
OWNER_KEY_BYTES = 32  # Ed25519
GRAPH_OPTIMIZATIONS = ("all", "extended", "basic", "disabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How the engine runs the model; part of its digest.

    Attributes:
        graph_optimization: one of `GRAPH_OPTIMIZATIONS`.
        provider: always ONNX Runtime's for the CPU, so that a model's digest is the same on every server; what
            computes is the operator's choice, and a receipt names it.
    """

    graph_optimization: str = "all"
    provider: str = "CPUExecutionProvider"

    def __post_init__(self) -> None:
        if self.graph_optimization not in GRAPH_OPTIMIZATIONS:
            raise InvalidModelError(f"graph_optimization is none of {', '.join(GRAPH_OPTIMIZATIONS)}")
        if self.provider != "CPUExecutionProvider":
            raise InvalidModelError("the provider is not CPUExecutionProvider, the only one in a manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file of a bundle.

    Attributes:
        path: a flat name, without folders.
        size: in bytes.
        sha256: of its content.
    """

    path: str
    size: int
    sha256: bytes

    def __post_init__(self) -> None:
        check_file(self.path, self.size)
        if len(self.sha256) != DIGEST_BYTES:
            raise InvalidModelError(f"a SHA-256 has {DIGEST_BYTES} bytes, this one {len(self.sha256)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelManifest:
    """Everything that the model's digest covers.

    Attributes:
        files: sorted by path; exactly one ends in `.onnx`, and that is the model.
        session: how the engine runs it.
    """

    files: tuple[BundleFile, ...]
    session: SessionOptions = field(default_factory=SessionOptions)

    def __post_init__(self) -> None:
        paths = [file.path for file in self.files]
        check_paths(paths)
        if paths != sorted(paths):
            raise InvalidModelError("the files of a manifest are not sorted by path")

    @property
    def digest(self) -> bytes:
        """SHA-256(L("model") ‖ LP(manifest))."""
        return manifest_digest(self.encode())

    @property
    def model_path(self) -> str:
        """The path of the one `.onnx` file."""
        return next(file.path for file in self.files if file.path.endswith(".onnx"))

    @property
    def has_pipeline(self) -> bool:
        """Whether raw data goes in, which the pipeline makes tensors of."""
        paths = {file.path for file in self.files}
        return any(path.endswith(".onnx") and path + PIPELINE_SUFFIX in paths for path in paths)

    def encode(self) -> bytes:
        """The exact bytes that are hashed."""
        files: list[Json] = [{"path": file.path, "sha256": file.sha256.hex(), "size": file.size} for file in self.files]
        session = {"graph_optimization": self.session.graph_optimization, "provider": self.session.provider}
        return compact_json({"files": files, "session": session})


def parse_manifest(data: bytes) -> ModelManifest:
    """Read a manifest; only the bytes that `encode` writes are accepted.

    Raises:
        InvalidModelError: anything else.
    """
    try:
        members = require_members(strict_json(data, max_bytes=MAX_RESULT_BYTES), frozenset({"files", "session"}))
        session = require_members(members["session"], frozenset({"graph_optimization", "provider"}))
        files = [
            require_members(entry, frozenset({"path", "sha256", "size"}))
            for entry in _list_of(members["files"], MAX_FILES)
        ]
        manifest = ModelManifest(
            files=tuple(
                BundleFile(
                    path=_text(entry["path"]), size=_size(entry["size"]), sha256=bytes.fromhex(_text(entry["sha256"]))
                )
                for entry in files
            ),
            session=SessionOptions(
                graph_optimization=_text(session["graph_optimization"]), provider=_text(session["provider"])
            ),
        )
    except ValueError as problem:
        raise InvalidModelError(f"the model's manifest cannot be read: {problem}") from None
    if manifest.encode() != data:
        raise InvalidModelError("the model's manifest is not written in its one form (compact, sorted)")
    return manifest


def manifest_digest(manifest: bytes) -> bytes:
    """The model digest of an encoded manifest."""
    return hashlib.sha256(label("model") + length_prefixed(manifest)).digest()


def digest_text(digest: bytes) -> str:
    """`sha256:<hex>`, the form in which a digest is shown and asked for."""
    return DIGEST_PREFIX + digest.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadHeader:
    """What a client announces before the files' bytes; the model's name is in the request's path.

    Attributes:
        version: the wished version, or `None` to let the server count.
        files: (path, size in bytes), in the order in which their bytes follow.
        default_shape: shape that a flat list for the first input is given, or `None`.
        load: whether the model is loaded before the upload is answered.
        owner_key: Ed25519 public key (32 bytes) of who decides which later releases may have a model that is kept, or
            `None` if it ends with this one (docs/spec/store.md).
    """

    version: str | None
    files: tuple[tuple[str, int], ...]
    default_shape: tuple[int, ...] | None
    load: bool
    owner_key: bytes | None = None

    def __post_init__(self) -> None:
        if self.version is not None and not MODEL_VERSION.match(self.version):
            raise InvalidInputError("a version has 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first")
        for path, size in self.files:
            check_file(path, size)
        check_paths([path for path, _ in self.files])
        shape = self.default_shape or ()
        if len(shape) > MAX_RANK or any(not -1 <= axis <= JSON_INTEGER_LIMIT for axis in shape):
            raise InvalidInputError(f"a default shape has at most {MAX_RANK} axes, each a size or -1")
        if self.owner_key is not None and len(self.owner_key) != OWNER_KEY_BYTES:
            raise InvalidInputError(f"an owner's key has {OWNER_KEY_BYTES} bytes")

    @property
    def total_size(self) -> int:
        """How many bytes follow the header."""
        return sum(size for _, size in self.files)


def encode_upload_header(header: UploadHeader) -> bytes:
    """u32 length ‖ compact JSON; the files' bytes follow it.

    Raises:
        InvalidInputError: the header passes 64 KiB.
    """
    data = compact_json(
        {
            "default_shape": None if header.default_shape is None else list(header.default_shape),
            "files": [{"path": path, "size": size} for path, size in header.files],
            "load": header.load,
            "owner_key": None if header.owner_key is None else base64url_encode(header.owner_key),
            "version": header.version,
        }
    )
    if len(data) > MAX_UPLOAD_HEADER_BYTES:
        raise InvalidInputError(f"an upload header has at most {MAX_UPLOAD_HEADER_BYTES} bytes, this one {len(data)}")
    return length_prefixed(data)


def parse_upload_header(data: bytes) -> UploadHeader:
    """Read a header's JSON; `data` is what `encode_upload_header` made, without its four bytes of length.

    Raises:
        InvalidInputError: malformed.
        InvalidModelError: well formed, but no bundle: not exactly one `.onnx` file, a path with folders, a path twice.
    """
    try:
        members = require_members(
            strict_json(data, max_bytes=MAX_UPLOAD_HEADER_BYTES),
            frozenset({"default_shape", "files", "load", "owner_key", "version"}),
        )
        files = [require_members(e, frozenset({"path", "size"})) for e in _list_of(members["files"], MAX_FILES)]
        shape = members["default_shape"]
        return UploadHeader(
            version=None if members["version"] is None else _text(members["version"]),
            files=tuple((_text(entry["path"]), _size(entry["size"])) for entry in files),
            default_shape=None if shape is None else tuple(_integer(axis) for axis in _list_of(shape, MAX_RANK)),
            load=_fact(members["load"]),
            owner_key=None if members["owner_key"] is None else base64url_decode(members["owner_key"]),
        )
    except ValueError as problem:
        raise InvalidInputError(f"the upload header cannot be read: {problem}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadResult:
    """What the server answers to an upload.

    Attributes:
        name: of the model.
        version: given or counted.
        digest: `sha256:<hex>`.
        manifest: the bytes that the digest covers.
    """

    name: str
    version: str
    digest: str
    manifest: bytes

    def encode(self) -> bytes:
        """As compact JSON."""
        return compact_json(
            {
                "digest": self.digest,
                "manifest": base64url_encode(self.manifest),
                "name": self.name,
                "version": self.version,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> UploadResult:
        """The inverse of `encode`.

        Raises:
            InternalError: the server's answer cannot be read.
            ModelDigestMismatchError: the digest is not that of the manifest.
        """
        names = frozenset({"digest", "manifest", "name", "version"})
        try:
            members = require_members(strict_json(data, max_bytes=MAX_RESULT_BYTES), names)
            result = cls(
                name=_text(members["name"]),
                version=_text(members["version"]),
                digest=_text(members["digest"]),
                manifest=base64url_decode(members["manifest"]),
            )
        except ValueError as problem:
            raise InternalError(f"the server's answer to the upload cannot be read: {problem}") from None
        if result.digest != digest_text(manifest_digest(result.manifest)):
            raise ModelDigestMismatchError("the server's digest is not that of its manifest")
        return result


def check_file(path: str, size: int) -> None:
    """Whether a bundle may have this file.

    Raises:
        InvalidModelError: its name is not flat, or its size no number of bytes.
    """
    if not FILE_PATH.match(path):
        raise InvalidModelError(
            "a file of a model has a flat name of 1 to 255 letters, digits, '.', '_' or '-', the first no '.' or '-'",
            hint="Rename the file; external data keeps the name that the model gives it.",
        )
    if not 0 <= size <= JSON_INTEGER_LIMIT:
        raise InvalidModelError("a file's size is not a number of bytes")


def check_paths(paths: Sequence[str]) -> None:
    """Whether these files are a bundle.

    Raises:
        InvalidModelError: too many, none, two of one name, or not exactly one model.
    """
    if not 0 < len(paths) <= MAX_FILES:
        raise InvalidModelError(f"a model has 1 to {MAX_FILES} files, this one {len(paths)}")
    if len(set(paths)) != len(paths):
        raise InvalidModelError("two files of the model have the same name")
    models = sum(path.endswith(".onnx") for path in paths)
    if models != 1:
        raise InvalidModelError(
            f"exactly one file of a model ends in .onnx, here {models} do",
            hint="Export to ONNX first; external data ends otherwise, for example in .onnx.data.",
        )


def _list_of(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"expected a list of at most {most}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")  # noqa: TRY004  # callers wrap one exception type
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("expected an integer")  # a bool is none here
    return value


def _size(value: Any) -> int:
    if _integer(value) < 0:
        raise ValueError("expected a number of bytes")
    return int(value)


def _fact(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004  # as above
    return value
