"""Keeps uploaded models: sealed on disk, named in memory (docs/spec/bundle.md).

Every file of a bundle becomes one sealed file (`sealed_file`) with a random name, under a key of its model's own.
Keys, names, versions and digests live in memory (`catalogue`), and so the models end with the process, unless it is
given a folder to keep them in (`kept_store`).
Leaves out: who may do what (`tenant_models`, which handlers use instead).
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.bundle import MODEL_NAME, BundleFile, SessionOptions, UploadHeader
from blindai.errors import InvalidInputError, UnsealError
from blindai.server.access import OPEN_TENANT
from blindai.server.catalogue import LAST, Catalogue, Record, StoredModel, StoreLimits, not_found
from blindai.server.model_config import ServingConfig
from blindai.server.model_upload import Upload
from blindai.server.quotas import NO_QUOTA
from blindai.server.sealed_file import KEY_BYTES, disk_error, read_sealed_file, sync_file
from blindai.server.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blindai.server.catalogue import Place
    from blindai.server.kept_store import KeptStore
    from blindai.server.quotas import Quota
    from blindai.server.sharing import Share

__all__ = ["LAST", "ModelStore", "StoreLimits", "StoredModel"]

_FILE_ID_BYTES = 32
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_NO_LIMITS = StoreLimits()
_AS_IT_IS = ServingConfig()
_DEFAULT_SESSION = SessionOptions()


@dataclass(slots=True, kw_only=True)
class _Draft:
    """What a change makes of the store."""

    catalogue: Catalogue
    sharing: Sharing


class ModelStore:
    """The models of this process; safe to call from several threads.

    What changes them (`add_ensemble`, `delete`, `reconfigure`, `share`, and an upload's `register`) waits for the disk
    where they are kept, and for other changes; what reads never waits for either.

    Args:
        directory: made with mode 0700 if it is not there; of no use where models are kept.
        random: source of the files' names and keys.
        kept: where models outlive the process; what is there already is here from the start.
        limits: how much it takes in; none by default.
        quota_of: how much of it one tenant may use; all by default.

    """

    def __init__(
        self,
        directory: Path,
        random: Callable[[int], bytes] = os.urandom,
        *,
        kept: KeptStore | None = None,
        limits: StoreLimits = _NO_LIMITS,
        quota_of: Callable[[str], Quota] = lambda _tenant: NO_QUOTA,
    ) -> None:
        self._directory = directory = kept.files if kept else directory
        self._random = random
        self._changing = threading.Lock()  # held through a whole change; taken before `_lock`
        self._lock = threading.Lock()  # held for moments
        self._catalogue = Catalogue(limits, quota_of)
        self._files: set[bytes] = set()
        self._kept = kept
        self._sharing = Sharing(kept.index.shares if kept else ())
        if kept:
            self._catalogue.restore(kept.index.records)
        try:
            directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            directory.chmod(_DIRECTORY_MODE)
        except OSError as problem:
            raise disk_error(problem) from problem

    @property
    def sharing(self) -> Sharing:
        """The owners' decisions of now, kept as long as the models."""
        return self._sharing

    def begin_upload(
        self,
        name: str,
        header: UploadHeader,
        *,
        config: ServingConfig = _AS_IT_IS,
        session: SessionOptions = _DEFAULT_SESSION,
        tenant: str = OPEN_TENANT,
        comes_with_server: bool = False,
    ) -> Upload:
        """Start to take in a model: the sizes that the header claims count from now on, but take no disk yet.

        Args:
            name: of the model.
            header: its files.
            config: how it will be served.
            session: how the engine runs it; part of its digest.
            tenant: whose it will be.
            comes_with_server: whether it is of the operator's repository.

        Raises:
            InvalidInputError: the name is not one.
            OverloadedError: too many uploads are under way.
            TooLargeError: more models or bytes than the store's limits or the tenant's quota.
        """
        if not MODEL_NAME.match(name):
            raise InvalidInputError("a model's name has 1 to 128 letters, digits, '.', '_' or '-'")
        with self._lock:
            place = self._catalogue.begin(name, header, tenant)
        return Upload(self, name, header, place, config=config, session=session, comes_with_server=comes_with_server)

    def add_ensemble(self, model: StoredModel) -> StoredModel:
        """Register a model that has no files of its own.

        Raises:
            ModelDigestMismatchError: its version is another model.
            TooLargeError: there are as many models as there may be.
        """
        with self._change() as draft:
            return draft.catalogue.add(Record(model=model, file_ids=()))

    def models(self, *, tenant: str = OPEN_TENANT) -> tuple[StoredModel, ...]:
        """A tenant's models, the one uploaded last at the end."""
        with self._lock:
            return self._catalogue.models(tenant)

    def named(self, name: str, *, tenant: str = OPEN_TENANT) -> StoredModel | None:
        """A tenant's model of this name, the one uploaded last; `None` if it has none."""
        with self._lock:
            return self._catalogue.named(name, tenant)

    def resolve(self, reference: str, version: str | None = None, *, tenant: str = OPEN_TENANT) -> StoredModel:
        """Find a model of a tenant.

        Args:
            reference: `name`, `name@sha256:<hex>`, or `@last` for the model uploaded last.
            version: `None` takes the version uploaded last.
            tenant: whose.

        Raises:
            ModelNotFoundError: no such model or version.
        """
        with self._lock:
            return self._catalogue.matching(reference, version, tenant)[-1]

    def delete(
        self, reference: str, version: str | None = None, *, tenant: str = OPEN_TENANT
    ) -> tuple[StoredModel, ...]:
        """Forget models and remove their files; a name without a version means all its versions.

        Raises:
            ModelNotFoundError: no such model or version.
            ModelStoreError: that cannot be kept, and nothing was forgotten.
        """
        with self._change() as draft:
            models = draft.catalogue.matching(reference, version, tenant)
            records = draft.catalogue.remove(models)
            # In the same moment as a name's last version: a kill between would share another model of that name.
            gone = {model.name for model in models if draft.catalogue.named(model.name, tenant) is None}
            draft.sharing = draft.sharing.without(tenant, gone)
        for record in records:
            self._remove_files(record.file_ids)
        return models

    def having(self, digest: str) -> tuple[StoredModel, ...]:
        """Every model with this digest, of any tenant: they share what one process serves; never told to a user."""
        with self._lock:
            return self._catalogue.having(digest)

    def reconfigure(self, model: StoredModel, config: ServingConfig) -> StoredModel:
        """Serve a model otherwise from now on.

        Raises:
            ModelNotFoundError: it is gone.
        """
        with self._change() as draft:
            return draft.catalogue.reconfigure(model, config)

    def share(self, owner: str, name: str, share: Share) -> None:
        """Decide with whom a name is shared; effective for the next request.

        Raises:
            ModelNotFoundError: the owner has no model of that name.
            ModelStoreError: it cannot be kept, and does not count.
        """
        with self._change() as draft:
            if draft.catalogue.named(name, owner) is None:
                raise not_found()
            draft.sharing = draft.sharing.with_decision(owner, name, share)

    def holds(self, digest: str) -> bool:
        """Whether a model with this digest is here, under any name, or on its way in."""
        with self._lock:
            return self._catalogue.holder(digest) is not None

    def open_bundle(self, model: StoredModel) -> Iterator[tuple[BundleFile, Iterator[bytes]]]:
        """The files of a model and their clear content, one chunk at a time.

        Equal models are one: if one of them goes in the meantime, the next file is another's.

        Raises:
            ModelNotFoundError: it was deleted, perhaps just now.
            UnsealError: what lies on disk is not what was stored.
        """
        for index, file in enumerate(model.manifest.files):
            yield file, self._chunks(model, index, file.size)

    def close(self) -> None:
        """Forget every model, and remove every file but what is kept."""
        with self._changing, self._lock:
            kept = (
                {file_id for record in _to_keep(self._catalogue) for file_id in record.file_ids} if self._kept else ()
            )
            file_ids = tuple(self._files.difference(kept))
            self._catalogue.clear()
        self._remove_files(file_ids)
        if self._kept:
            self._kept.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[_Draft]:
        """Around one change, which is made to a draft: all of it is kept before anybody sees it, or none."""
        with self._changing:
            with self._lock:
                draft = _Draft(catalogue=self._catalogue.next(), sharing=self._sharing)
            yield draft
            records, shares = _to_keep(draft.catalogue), draft.sharing.decisions()
            if self._kept and (records, shares) != (_to_keep(self._catalogue), self._sharing.decisions()):
                self._kept.save(records, shares)
            with self._lock:
                self._catalogue, self._sharing = draft.catalogue, draft.sharing

    def _path(self, file_id: bytes) -> Path:
        return self._directory / file_id.hex()

    def create_file(self) -> tuple[bytes, int]:
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

    def _chunks(self, model: StoredModel, index: int, size: int) -> Iterator[bytes]:
        with self._lock:
            record = self._catalogue.holder(model.digest)
        if record is None:
            raise not_found()
        file_id = record.file_ids[index]
        try:
            yield from read_sealed_file(self._path(file_id), record.key, file_id, size)
        except FileNotFoundError:
            raise not_found() from None
        except UnsealError as error:
            raise UnsealError(f"{model.name!r} version {model.version!r}: {error}", hint="Upload it again.") from None

    def new_key(self) -> bytes:
        """A model's."""
        return self._random(KEY_BYTES)

    def complete(self, place: Place, record: Record) -> None:
        """The upload in this place is whole: it can be loaded, and nobody else sees it yet.

        Raises:
            ModelStoreError: the disk is full or broken.
        """
        if self._kept:
            for file_id in record.file_ids:
                sync_file(self._path(file_id))
        with self._lock:
            place.candidate = record

    def register(self, place: Place, *, replaces: bool) -> tuple[StoredModel, tuple[StoredModel, ...]]:
        """Make the upload in this place visible, and what it replaces gone, in one moment; see `Upload.register`."""
        with self._change() as draft:
            replaced = draft.catalogue.others_at(place) if replaces else ()
            gone = [file_id for record in draft.catalogue.remove(replaced) for file_id in record.file_ids]
            model, unneeded = draft.catalogue.register(place)
        with self._lock:
            self._catalogue.end(place)
        self._remove_files((*gone, *unneeded))
        return model, replaced

    def end_upload(self, place: Place, file_ids: tuple[bytes, ...]) -> None:
        """Give the place back, and remove what was written for it."""
        with self._lock:
            self._catalogue.end(place)
        self._remove_files(file_ids)


def _is_kept(record: Record) -> bool:
    """What came with the server comes with it again."""
    return bool(record.file_ids) and not record.model.came_with_server


def _to_keep(catalogue: Catalogue) -> tuple[Record, ...]:
    return tuple(filter(_is_kept, catalogue.records()))
