"""Which models there are: tenants, names, versions, their order, and how much there may be (docs/spec/bundle.md).

Pure bookkeeping in memory: `model_store` holds a lock around it, and the files behind it.
A model on its way in has a place here before it has a name: it can be loaded, and nobody else sees it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blindai.errors import (
    ModelDigestMismatchError,
    ModelNotFoundError,
    ModelStoreError,
    OverloadedError,
    TooLargeError,
)
from blindai.server.access import OPEN_TENANT
from blindai.server.model_config import ServingConfig
from blindai.server.quotas import NO_QUOTA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai.bundle import ModelManifest, UploadHeader
    from blindai.server.quotas import Quota

LAST = "@last"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model that can be run.

    Attributes:
        name: chosen by its owner.
        version: given at upload, or counted; empty until the model is registered if it is to be counted.
        manifest: what its digest covers.
        digest: `sha256:<hex>`.
        default_shape: shape given at upload for a flat list, or `None`.
        sequence: grows with every upload; the highest is the model uploaded last. 0 until it is registered.
        config: how it is served.
        tenant: whose it is.
        came_with_server: it is of the operator's repository, and nobody may change it while the server runs.
    """

    name: str
    version: str
    manifest: ModelManifest
    digest: str
    default_shape: tuple[int, ...] | None
    sequence: int = 0
    config: ServingConfig = field(default_factory=ServingConfig)
    tenant: str = OPEN_TENANT
    came_with_server: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How much a store takes in.

    Attributes:
        max_models: registered at a time.
        max_bytes: of all files, those announced by uploads under way included.
        max_uploads: under way at a time.
    """

    max_models: int = sys.maxsize
    max_bytes: int = sys.maxsize
    max_uploads: int = sys.maxsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A model, the random names of its files in the manifest's order, and the key that they are sealed under."""

    model: StoredModel
    file_ids: tuple[bytes, ...]
    key: bytes = field(default=b"", repr=False)

    @property
    def size(self) -> int:
        """Clear bytes of all its files."""
        return sum(file.size for file in self.model.manifest.files)


@dataclass(slots=True, kw_only=True, eq=False)
class Place:
    """What an upload under way holds: whose it is, the size that it announced, and its files once they are whole."""

    size: int
    tenant: str
    candidate: Record | None = None


class Catalogue:
    """The models of one store; not safe to call from several threads at once."""

    def __init__(self, limits: StoreLimits, quota_of: Callable[[str], Quota] = lambda _tenant: NO_QUOTA) -> None:
        self._limits = limits
        self._quota_of = quota_of
        self._records: dict[tuple[str, str, str], Record] = {}  # by tenant, name and version
        self._listed: dict[str, tuple[StoredModel, ...]] = {}  # what `models` answered
        self._latest: dict[tuple[str, str], StoredModel] = {}  # by tenant and name; each request asks
        self._places: set[Place] = set()
        self._sequence = 0

    def models(self, tenant: str) -> tuple[StoredModel, ...]:
        """A tenant's registered models, the one uploaded last at the end."""
        listed = self._listed.get(tenant)
        if listed is None:
            own = (record.model for record in self._records.values() if record.model.tenant == tenant)
            listed = tuple(sorted(own, key=lambda model: model.sequence))
            if listed:  # else names that nobody has would fill it
                self._listed[tenant] = listed
        return listed

    def named(self, name: str, tenant: str) -> StoredModel | None:
        """A tenant's model of this name, the one uploaded last; `None` if it has none."""
        return self._latest.get((tenant, name))

    def matching(self, reference: str, version: str | None, tenant: str) -> tuple[StoredModel, ...]:
        """What `reference` means in a tenant, the model uploaded last at the end; never empty.

        Raises:
            ModelNotFoundError: no such model or version.
        """
        models = self.models(tenant)
        if reference == LAST:
            models = models[-1:]
        else:
            name, at, digest = reference.partition("@")
            models = tuple(m for m in models if m.name == name and (not at or m.digest == digest))
        if version is not None:
            models = tuple(model for model in models if model.version == version)
        if not models:
            raise not_found()
        return models

    def holder(self, digest: str) -> Record | None:
        """A model with this digest, registered or on its way in; registered ones first, since their files stay."""
        return next((record for record in self._held() if record.model.digest == digest), None)

    def having(self, digest: str) -> tuple[StoredModel, ...]:
        """Every registered model with this digest, of any tenant and under any name."""
        return tuple(record.model for record in self._records.values() if record.model.digest == digest)

    def begin(self, name: str, header: UploadHeader, tenant: str) -> Place:
        """Give an upload its place; it keeps it until `end`.

        Raises:
            OverloadedError: too many uploads are under way.
            TooLargeError: it passes what the store, or the tenant, may take in.
        """
        if len(self._places) >= self._limits.max_uploads:
            raise OverloadedError(
                f"at most {self._limits.max_uploads} uploads run at a time", hint="Try again when one has ended."
            )
        if not self._may_be_known(name, header, tenant):
            self._require_room(tenant)
        taken = sum(record.size for record in self._records.values()) + sum(place.size for place in self._places)
        if taken + header.total_size > self._limits.max_bytes:
            raise TooLargeError(
                f"this server keeps at most {self._limits.max_bytes} bytes of models",
                hint="Delete a model that is no longer used, or wait for the uploads of others.",
            )
        self._require_bytes(header.total_size, tenant)
        place = Place(size=header.total_size, tenant=tenant)
        self._places.add(place)
        return place

    def end(self, place: Place) -> None:
        """Give the place back, and with it the bytes that it reserved."""
        self._places.discard(place)

    def register(self, place: Place) -> tuple[StoredModel, tuple[bytes, ...]]:
        """Make a candidate visible, all at once; its place stays until `end`.

        Returns:
            The model, and the files that nobody needs: of two equal models those of the first stay.

        Raises:
            ModelDigestMismatchError: the wished version is another model.
            TooLargeError: there are as many models as there may be.
        """
        candidate = place.candidate
        if candidate is None:
            raise ModelStoreError("the upload is not complete")
        tenant, name, wished = candidate.model.tenant, candidate.model.name, candidate.model.version
        known = self._same_model(candidate.model)
        if known is None and (tenant, name, wished) in self._records:
            raise ModelDigestMismatchError(
                "this version of the model is another model",
                hint="Upload it without a version, or delete that version first.",
            )
        if known is None:
            self._require_room(tenant)
        self._sequence += 1
        version = known.model.version if known else wished or self._next_version(tenant, name)
        model = replace(candidate.model, version=version, sequence=self._sequence)
        self._put(replace(known or candidate, model=model))
        return model, candidate.file_ids if known else ()

    def others_at(self, place: Place) -> tuple[StoredModel, ...]:
        """Another model under the name and version of this place's candidate."""
        model = place.candidate.model if place.candidate else None
        known = self._records.get((model.tenant, model.name, model.version)) if model else None
        return (known.model,) if model and known and known.model.digest != model.digest else ()

    def add(self, record: Record) -> StoredModel:
        """Register a model that was never on its way in, since it has no files."""
        return self.register(Place(size=0, tenant=record.model.tenant, candidate=record))[0]

    def reconfigure(self, model: StoredModel, config: ServingConfig) -> StoredModel:
        """Serve a registered model otherwise; its files, version and place in the order stay.

        Raises:
            ModelNotFoundError: it is gone, or another model by now.
        """
        record = self._records.get((model.tenant, model.name, model.version))
        if record is None or record.model.digest != model.digest:
            raise not_found()
        changed = replace(record.model, config=config)
        self._put(replace(record, model=changed))
        return changed

    def remove(self, models: tuple[StoredModel, ...]) -> list[Record]:
        """Forget models; what is answered says which files were theirs."""
        removed = [self._records.pop((model.tenant, model.name, model.version)) for model in models]
        for model in models:
            self._changed(model.tenant, model.name)
        return removed

    def records(self) -> tuple[Record, ...]:
        """Every registered model."""
        return tuple(self._records.values())

    def next(self) -> Catalogue:
        """A copy to be changed, which may take this one's place; both know the same uploads under way."""
        copy = Catalogue(self._limits, self._quota_of)
        copy._places = self._places
        copy._sequence = self._sequence
        copy._records, copy._listed, copy._latest = dict(self._records), dict(self._listed), dict(self._latest)
        return copy

    def restore(self, records: tuple[Record, ...]) -> None:
        """Have exactly these models registered, as `records` once answered; uploads under way go on."""
        self._records.clear()
        self._listed.clear()
        self._latest.clear()
        for record in records:
            self._put(record)
        self._sequence = max((self._sequence, *(record.model.sequence for record in records)))

    def clear(self) -> None:
        """Forget every model, and every upload under way."""
        self.restore(())
        self._places.clear()

    def _put(self, record: Record) -> None:
        model = record.model
        self._records[model.tenant, model.name, model.version] = record
        self._changed(model.tenant, model.name)

    def _changed(self, tenant: str, name: str) -> None:
        """What is kept beside the records follows them."""
        self._listed.pop(tenant, None)
        same = (record.model for (t, n, _), record in self._records.items() if (t, n) == (tenant, name))
        latest = max(same, key=lambda model: model.sequence, default=None)
        if latest is None:
            self._latest.pop((tenant, name), None)
        else:
            self._latest[tenant, name] = latest

    def _held(self) -> Iterator[Record]:
        yield from self._records.values()
        yield from (place.candidate for place in self._places if place.candidate is not None)

    def _require_bytes(self, size: int, tenant: str) -> None:
        most = self._quota_of(tenant).max_bytes
        held = sum(record.size for record in self._records.values() if record.model.tenant == tenant)
        if held + sum(place.size for place in self._places if place.tenant == tenant) + size > most:
            raise TooLargeError(
                f"your tenant keeps at most {most} bytes of models here", hint="Delete a model that is no longer used."
            )

    def _require_room(self, tenant: str) -> None:
        if len(self._records) >= self._limits.max_models:
            raise TooLargeError(
                f"this server keeps at most {self._limits.max_models} models", hint="Delete one that is no longer used."
            )
        most = self._quota_of(tenant).max_models
        if len(self.models(tenant)) >= most:
            raise TooLargeError(
                f"your tenant keeps at most {most} models here", hint="Delete one that is no longer used."
            )

    def _may_be_known(self, name: str, header: UploadHeader, tenant: str) -> bool:
        """Whether the announced files could be a model's that is here: sent again, it needs no room of its own."""
        announced = sorted(header.files)
        return any(
            (record.model.tenant, record.model.name) == (tenant, name)
            and [(f.path, f.size) for f in record.model.manifest.files] == announced
            for record in self._records.values()
        )

    def _same_model(self, model: StoredModel) -> Record | None:
        same = [
            record
            for record in self._records.values()
            if (record.model.tenant, record.model.name, record.model.digest) == (model.tenant, model.name, model.digest)
            and model.version in ("", record.model.version)
        ]
        return max(same, key=lambda record: record.model.sequence, default=None)

    def _next_version(self, tenant: str, name: str) -> str:
        numbers = [int(v) for t, n, v in self._records if (t, n) == (tenant, name) and v.isdecimal()]
        return str(max(numbers, default=0) + 1)


def not_found() -> ModelNotFoundError:
    """The words in which users know it."""
    return ModelNotFoundError("Cannot find the model", hint="Upload it, or list the models that are there.")
