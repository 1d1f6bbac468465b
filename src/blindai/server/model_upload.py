"""A model on its way into the store: its files are sealed as they come, and it is visible only once it is registered.

Leaves out: what is in the store, and how it is kept (model_store.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.bundle import BundleFile, ModelManifest, SessionOptions, UploadHeader, digest_text
from blindai.errors import ModelDigestMismatchError, ModelStoreError
from blindai.server.catalogue import Record, StoredModel
from blindai.server.sealed_file import SealedFileWriter

if TYPE_CHECKING:
    from blindai.server.catalogue import Place
    from blindai.server.model_config import ServingConfig
    from blindai.server.model_store import ModelStore


class Upload:
    """`write` …, `complete`, `register`. Holds at most one chunk. Made by `ModelStore.begin_upload`.

    Attributes:
        replaced: models whose place the registered one took.
    """

    def __init__(
        self,
        store: ModelStore,
        name: str,
        header: UploadHeader,
        place: Place,
        *,
        config: ServingConfig,
        session: SessionOptions,
        comes_with_server: bool,
    ) -> None:
        self._store = store
        self._config = config
        self._session = session
        self._comes_with_server = comes_with_server
        self._name = name
        self._key = store.new_key()
        self._header = header
        self._place = place
        self._waiting = list(reversed(header.files))
        self._written: list[tuple[BundleFile, bytes]] = []
        self._current: SealedFileWriter | None = None
        self._done = False
        self.replaced: tuple[StoredModel, ...] = ()

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

    def complete(self) -> StoredModel:
        """The model as it will be registered, on the disk: it can be loaded, and nobody else sees it yet.

        Raises:
            ModelDigestMismatchError: fewer bytes than were announced.
        """
        self._check_open()
        try:
            while self._next_file():
                self._close_current()
        except BaseException:
            self.abort()
            raise
        files = sorted(self._written, key=lambda written: written[0].path)
        manifest = ModelManifest(files=tuple(file for file, _ in files), session=self._session)
        model = StoredModel(
            name=self._name,
            version=self._header.version or "",
            manifest=manifest,
            digest=digest_text(manifest.digest),
            default_shape=self._header.default_shape,
            config=self._config,
            tenant=self._place.tenant,
            came_with_server=self._comes_with_server,
        )
        record = Record(model=model, file_ids=tuple(file_id for _, file_id in files), key=self._key)
        self._store.complete(self._place, record)
        return model

    def register(self, *, replaces: bool = False) -> StoredModel:
        """Make a complete model visible, all at once; the same model again is the same version, and now the last.

        Args:
            replaces: another model under its name and version goes in the same moment; else that is refused.

        Raises:
            ModelDigestMismatchError: the wished version is another model.
            ModelStoreError: it cannot be kept.
            TooLargeError: others have filled the store in the meantime.
        """
        self._check_open()
        try:
            model, self.replaced = self._store.register(self._place, replaces=replaces)
        except BaseException:
            self.abort()
            raise
        self._done = True
        return model

    def abort(self) -> None:
        """Remove what was written; does nothing after `register`."""
        if self._done:
            return
        self._done = True
        file_ids = [file_id for _, file_id in self._written]
        if self._current is not None:
            self._current.close()
            file_ids.append(self._current.file_id)
        self._store.end_upload(self._place, tuple(file_ids))

    def _check_open(self) -> None:
        if self._done:
            raise ModelStoreError("the upload is over", hint="Start a new one.")

    def _next_file(self) -> bool:
        """Whether a file is still open or waiting; opens the next one."""
        if self._current is None and self._waiting:
            path, size = self._waiting.pop()
            file_id, descriptor = self._store.create_file()
            self._current = SealedFileWriter(
                key=self._key,
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
