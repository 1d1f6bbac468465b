"""Keeps uploaded models: sealed on disk, named in memory (docs/spec/bundle.md).

Every file of a bundle becomes one sealed file (`sealed_file`) with a random name.
Names, versions and digests live in memory only: a store ends with its process.
Leaves out: who may upload (`access`), and a store that outlives the enclave.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blindai.bundle import (
    MODEL_NAME,
    BundleFile,
    ModelManifest,
    SessionOptions,
    UploadHeader,
    digest_text,
)
from blindai.errors import (
    InvalidInputError,
    ModelDigestMismatchError,
    ModelNotFoundError,
    ModelStoreError,
)
from blindai.server.sealed_file import KEY_BYTES, SealedFileWriter, disk_error, read_sealed_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LAST = "@last"
_FILE_ID_BYTES = 32
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model that can be run.

    Attributes:
        name: chosen by its owner.
        version: given at upload, or counted.
        manifest: what its digest covers.
        digest: `sha256:<hex>`.
        default_shape: shape given at upload for a flat list, or `None`.
        sequence: grows with every upload; the highest is the model uploaded last.
    """

    name: str
    version: str
    manifest: ModelManifest
    digest: str
    default_shape: tuple[int, ...] | None
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """A stored model and the random names of its files, in the manifest's order."""

    model: StoredModel
    file_ids: tuple[bytes, ...]


class ModelStore:
    """The models of this process; safe to call from several threads.

    Args:
        directory: made with mode 0700 if it is not there.
        key: 32 bytes that never leave the enclave.
        random: source of the files' names.
    """

    def __init__(self, directory: Path, key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a store's key has {KEY_BYTES} bytes, this one {len(key)}")
        self._directory = directory
        self._key = key
        self._random = random
        self._lock = threading.Lock()
        self._records: dict[tuple[str, str], _Record] = {}
        self._files: set[bytes] = set()
        self._sequence = 0
        try:
            directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            directory.chmod(_DIRECTORY_MODE)
        except OSError as problem:
            raise disk_error(problem) from problem

    def begin_upload(self, name: str, header: UploadHeader) -> Upload:
        """Start to take in a model; nothing is reserved for the sizes that the header claims.

        Raises:
            InvalidInputError: the name is not one.
        """
        if not MODEL_NAME.match(name):
            raise InvalidInputError("a model's name has 1 to 128 letters, digits, '.', '_' or '-'")
        return Upload(self, name, header)

    def models(self) -> tuple[StoredModel, ...]:
        """All models, the one uploaded last at the end."""
        with self._lock:
            return self._sorted_models()

    def resolve(self, reference: str, version: str | None = None) -> StoredModel:
        """Find a model.

        Args:
            reference: `name`, `name@sha256:<hex>`, or `@last` for the model uploaded last.
            version: `None` takes the version uploaded last.

        Raises:
            ModelNotFoundError: no such model or version.
        """
        with self._lock:
            return self._matching(reference, version)[-1]

    def delete(self, reference: str, version: str | None = None) -> tuple[StoredModel, ...]:
        """Forget models and remove their files; a name without a version means all its versions.

        Raises:
            ModelNotFoundError: no such model or version.
        """
        with self._lock:
            models = self._matching(reference, version)
            records = [self._records.pop((model.name, model.version)) for model in models]
        for record in records:
            self._remove_files(record.file_ids)
        return models

    def restore(self, model: StoredModel) -> None:
        """Undo a repeated upload of a model: its default shape and its place in the order are as before."""
        with self._lock:
            record = self._records.get((model.name, model.version))
            if record is not None and record.model.digest == model.digest:
                self._records[model.name, model.version] = replace(record, model=model)

    def open_bundle(self, model: StoredModel) -> Iterator[tuple[BundleFile, Iterator[bytes]]]:
        """The files of a model and their clear content, one chunk at a time.

        Raises:
            ModelNotFoundError: it was deleted, perhaps just now.
            UnsealError: what lies on disk is not what was stored.
        """
        with self._lock:
            record = self._records.get((model.name, model.version))
        if record is None or record.model.digest != model.digest:
            raise _not_found()
        for file, file_id in zip(record.model.manifest.files, record.file_ids, strict=True):
            yield file, self._chunks(file_id, file.size)

    def close(self) -> None:
        """Remove every file that this store has written."""
        with self._lock:
            self._records.clear()
            file_ids = tuple(self._files)
        self._remove_files(file_ids)

    def _sorted_models(self) -> tuple[StoredModel, ...]:
        return tuple(sorted((r.model for r in self._records.values()), key=lambda model: model.sequence))

    def _matching(self, reference: str, version: str | None) -> tuple[StoredModel, ...]:
        """What `reference` means, the model uploaded last at the end; never empty."""
        models = self._sorted_models()
        if reference == LAST:
            models = models[-1:]
        else:
            name, at, digest = reference.partition("@")
            models = tuple(m for m in models if m.name == name and (not at or m.digest == digest))
        if version is not None:
            models = tuple(model for model in models if model.version == version)
        if not models:
            raise _not_found()
        return models

    def _register(
        self, name: str, header: UploadHeader, manifest: ModelManifest, file_ids: tuple[bytes, ...]
    ) -> StoredModel:
        """Make an upload visible, all at once; of two equal ones the files of the first stay."""
        digest = digest_text(manifest.digest)
        with self._lock:
            known = self._same_model(name, header.version, digest)
            version = known.model.version if known else header.version or self._next_version(name)
            if known is None and (name, version) in self._records:
                raise ModelDigestMismatchError(
                    "this version of the model is another model",
                    hint="Upload it without a version, or delete that version first.",
                )
            self._sequence += 1
            model = StoredModel(
                name=name,
                version=version,
                manifest=manifest,
                digest=digest,
                default_shape=header.default_shape,
                sequence=self._sequence,
            )
            self._records[name, version] = _Record(model=model, file_ids=known.file_ids if known else file_ids)
        if known is not None:
            self._remove_files(file_ids)
        return model

    def _same_model(self, name: str, version: str | None, digest: str) -> _Record | None:
        same = [
            record
            for record in self._records.values()
            if record.model.name == name and record.model.digest == digest and version in (None, record.model.version)
        ]
        return max(same, key=lambda record: record.model.sequence, default=None)

    def _next_version(self, name: str) -> str:
        numbers = [int(v) for n, v in self._records if n == name and v.isdecimal()]
        return str(max(numbers, default=0) + 1)

    def _path(self, file_id: bytes) -> Path:
        return self._directory / file_id.hex()

    def _create_file(self) -> tuple[bytes, int]:
        """A new empty file: its random name, and a descriptor to write it."""
        file_id = self._random(_FILE_ID_BYTES)
        try:
            descriptor = os.open(
                self._path(file_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode=_FILE_MODE
            )
        except OSError as problem:
            raise disk_error(problem) from problem
        with self._lock:
            self._files.add(file_id)
        return file_id, descriptor

    def _remove_files(self, file_ids: tuple[bytes, ...]) -> None:
        for file_id in file_ids:
            with contextlib.suppress(FileNotFoundError):
                self._path(file_id).unlink()
        with self._lock:
            self._files.difference_update(file_ids)

    def _chunks(self, file_id: bytes, size: int) -> Iterator[bytes]:
        try:
            yield from read_sealed_file(self._path(file_id), self._key, file_id, size)
        except FileNotFoundError:
            raise _not_found() from None


class Upload:
    """A model on its way in; holds at most one chunk. Made by `ModelStore.begin_upload`."""

    def __init__(self, store: ModelStore, name: str, header: UploadHeader) -> None:
        self._store = store
        self._name = name
        self._header = header
        self._waiting = list(reversed(header.files))
        self._written: list[tuple[BundleFile, bytes]] = []
        self._current: SealedFileWriter | None = None
        self._done = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the files, cut anywhere.

        Raises:
            ModelDigestMismatchError: more bytes than were announced.
            ModelStoreError: the disk is full or broken; the upload is over.
        """
        self._check_open()
        rest = memoryview(data).cast("B")
        try:
            while len(rest) and self._next_file():
                rest = self._write_some(rest)
        except BaseException:
            self.abort()
            raise
        if len(rest):
            self.abort()
            raise ModelDigestMismatchError("the upload has more bytes than were announced")

    def finish(self) -> StoredModel:
        """Register the model.

        Raises:
            ModelDigestMismatchError: fewer bytes than were announced, or a version that is another model.
        """
        self._check_open()
        try:
            while self._next_file():
                self._close_current()
            files = sorted(self._written, key=lambda written: written[0].path)
            manifest = ModelManifest(files=tuple(file for file, _ in files), session=SessionOptions())
            model = self._store._register(  # noqa: SLF001  # one room of two classes: only uploads register
                self._name, self._header, manifest, tuple(file_id for _, file_id in files)
            )
        except BaseException:
            self.abort()
            raise
        self._done = True
        return model

    def abort(self) -> None:
        """Remove what was written; does nothing after `finish`."""
        if self._done:
            return
        self._done = True
        file_ids = [file_id for _, file_id in self._written]
        if self._current is not None:
            self._current.close()
            file_ids.append(self._current.file_id)
        self._store._remove_files(tuple(file_ids))  # noqa: SLF001  # as above

    def _check_open(self) -> None:
        if self._done:
            raise ModelStoreError("the upload is over", hint="Start a new one.")

    def _next_file(self) -> bool:
        """Whether a file is still open or waiting; opens the next one."""
        if self._current is None and self._waiting:
            path, size = self._waiting.pop()
            file_id, descriptor = self._store._create_file()  # noqa: SLF001  # as above
            self._current = SealedFileWriter(
                key=self._store._key,  # noqa: SLF001  # as above
                file_id=file_id,
                descriptor=descriptor,
                path=path,
                size=size,
            )
        return self._current is not None

    def _write_some(self, data: memoryview) -> memoryview:
        if self._current is None:
            return data
        rest = self._current.write(data)
        if not self._current.remaining:
            self._close_current()
        return rest

    def _close_current(self) -> None:
        if self._current is not None:
            if self._current.remaining:
                raise ModelDigestMismatchError("the upload has fewer bytes than were announced")
            file = self._current.finish()
            self._written.append((file, self._current.file_id))
            self._current = None


def _not_found() -> ModelNotFoundError:
    return ModelNotFoundError("Cannot find the model", hint="Upload it, or list the models that are there.")
