"""The store as one tenant sees it: its own models, the operator's, and what other owners share with it.

Handlers get this and never the store itself, so none can forget to ask whose model it is.
A name means the caller's own model, then one of the tenant `public` (models that the operator serves from start);
`TENANT:NAME` means another tenant's. What the caller may not see is not found, in the words of what is not there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from blindai.bundle import SessionOptions
from blindai.errors import ForbiddenError, NotAuthorizedError
from blindai.server.access import OPEN_TENANT
from blindai.server.catalogue import LAST, not_found
from blindai.server.model_config import ServingConfig

if TYPE_CHECKING:
    from blindai.bundle import UploadHeader
    from blindai.server.model_config import EnsembleStep
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.model_upload import Upload
    from blindai.server.sharing import Share

_AS_IT_IS = ServingConfig()
_DEFAULT_SESSION = SessionOptions()


class TenantModels(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What one tenant can do with models; a model that it gets is named as it was addressed."""

    store: ModelStore
    tenant: str

    def models(self) -> tuple[StoredModel, ...]:
        """Every model that the tenant may see; its own at the end, the one uploaded last as the very last."""
        own = self.store.models(tenant=self.tenant)
        if self.tenant == OPEN_TENANT:
            return own
        names = {model.name for model in own}
        operators = (
            replace(model, name=f"{OPEN_TENANT}:{model.name}") if model.name in names else model
            for model in self.store.models(tenant=OPEN_TENANT)
        )
        shared = (
            replace(model, name=f"{owner}:{name}")
            for owner, name in self.store.sharing.visible_to(self.tenant)
            for model in self.store.models(tenant=owner)
            if model.name == name
        )
        return (*operators, *shared, *own)

    def versions(self, model: StoredModel) -> tuple[str, ...]:
        """The versions of the name of a model that the tenant may run."""
        _, _, name = model.name.rpartition(":")
        return tuple(other.version for other in self.store.models(tenant=model.tenant) if other.name == name)

    def resolve(self, reference: str, version: str | None = None) -> StoredModel:
        """The model that the tenant means, if it may run it.

        Args:
            reference: `NAME`, `TENANT:NAME`, either with `@sha256:<hex>`, or `@last` for the tenant's own last one.
            version: `None` takes the version uploaded last.

        Raises:
            ModelNotFoundError: no such model or version, or none for this tenant's eyes.
            ForbiddenError: its owner shows it, and does not let this tenant run it.
        """
        if version is None and (own := self.store.named(reference, tenant=self.tenant)) is not None:
            return own
        owner, plain = self._owner(reference)
        if owner not in (self.tenant, OPEN_TENANT):
            self._require_shared(owner, plain.partition("@")[0])
        model = self.store.resolve(plain, version, tenant=owner)
        return model if plain == reference else replace(model, name=f"{owner}:{model.name}")

    def resolve_own(self, reference: str, version: str | None = None) -> StoredModel:
        """As `resolve`, for what only an owner may do.

        Raises:
            NotAuthorizedError: another tenant's, which this one may run.
        """
        model = self.resolve(reference, version)
        if model.tenant != self.tenant:
            raise NotAuthorizedError("this model belongs to another tenant")
        return model

    def delete(self, reference: str, version: str | None = None) -> tuple[StoredModel, ...]:
        """Forget models of this tenant; a name without a version means all its versions.

        Raises:
            ModelNotFoundError: no such model or version.
            NotAuthorizedError: another tenant's, which this one may run.
            ForbiddenError: it came with the server.
        """
        own = self.resolve_own(reference, version)
        self.require_changeable(own.name.rpartition(":")[2])
        return self.store.delete(self._owner(reference)[1], version, tenant=self.tenant)

    def shared_with(self, name: str) -> Share:
        """The decision about a name of this tenant."""
        return self.store.sharing.of(self.tenant, name)

    def share(self, name: str, share: Share) -> None:
        """Decide anew with whom a name of this tenant is shared; see `ModelStore.share`."""
        self.store.share(self.tenant, name, share)

    def begin_upload(
        self,
        name: str,
        header: UploadHeader,
        *,
        config: ServingConfig = _AS_IT_IS,
        session: SessionOptions = _DEFAULT_SESSION,
    ) -> Upload:
        """Start to take in a model of this tenant; see `ModelStore.begin_upload`.

        Raises:
            ForbiddenError: the name is that of a model that came with the server.
        """
        self.require_changeable(name)
        return self.store.begin_upload(name, header, config=config, session=session, tenant=self.tenant)

    def require_changeable(self, name: str) -> None:
        """Whether the tenant may change what one of its own names means: evidence names what came with the server.

        Raises:
            ForbiddenError: a model of this name came with the server.
        """
        if any(model.name == name and model.came_with_server for model in self.store.models(tenant=self.tenant)):
            raise ForbiddenError(
                "this model came with the server, and nobody may change it", hint="choose another name for yours"
            )

    def member(self, ensemble: StoredModel, step: EnsembleStep) -> StoredModel:
        """The model that an ensemble runs as one of its steps; whoever may run the ensemble may run it there.

        Raises:
            ModelNotFoundError: it is gone.
        """
        return self.store.resolve(f"{step.model}@{step.digest}", step.version, tenant=ensemble.tenant)

    def holds(self, digest: str) -> bool:
        """Whether anybody's model has this digest, so that processes may still be needed; never told to a user."""
        return self.store.holds(digest)

    def _owner(self, reference: str) -> tuple[str, str]:
        """Whose model is meant, and the reference without the owner."""
        name, at, digest = reference.partition("@")
        owner, colon, own_name = name.rpartition(":")
        if colon:
            return owner, f"{own_name}{at}{digest}" if own_name else ":"  # a name that no model has
        if reference == LAST or self.store.named(name, tenant=self.tenant) is not None:
            return self.tenant, reference
        return OPEN_TENANT, reference

    def _require_shared(self, owner: str, name: str) -> None:
        share = self.store.sharing.of(owner, name)
        if share.lets_run(self.tenant):
            return
        if share.shows(self.tenant):
            raise ForbiddenError("the model's owner does not let you run it", hint="ask its owner")
        raise not_found()
