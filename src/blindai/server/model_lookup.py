"""Which model a path means, among those that whoever asks may see and that are served.

The words are Triton's, since its clients match on them; a name of any length is cut.
Leaves out: what names and versions there are (`catalogue`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.errors import ModelNotFoundError
from blindai.server.catalogue import LAST
from blindai.server.routes import Target

if TYPE_CHECKING:
    from blindai.server.access import Principal
    from blindai.server.catalogue import StoredModel
    from blindai.server.dispatch import Service

_SHOWN = 128
_HINT = "Upload it, or list the models that are there."


def find_model(service: Service, principal: Principal, target: Target) -> StoredModel:
    """The model that a path means; without a version, the one uploaded last of those that are served.

    Raises:
        ModelNotFoundError: no such model or version, or it is unloaded.
        ForbiddenError: its owner shows it, and does not let this tenant run it.
    """
    model = resolve(service, principal, target)
    if service.states.is_served(model):
        return model
    if not target.version:
        for version in reversed(service.models_of(principal).versions(model)):
            other = resolve(service, principal, Target(model=model.name, version=version))
            if service.states.is_served(other):
                return other
    raise ModelNotFoundError(
        f"Request for unknown model: '{model.name}' has no available versions", hint="It was unloaded; load it."
    )


def resolve(service: Service, principal: Principal, target: Target) -> StoredModel:
    """As `find_model`, unloaded models included."""
    try:
        return service.models_of(principal).resolve(target.model, target.version or None)
    except ModelNotFoundError:
        if target.model == LAST:
            raise
    version = f" version {target.version[:_SHOWN]}" if target.version else ""
    raise ModelNotFoundError(f"Request for unknown model: '{target.model[:_SHOWN]}'{version} is not found", hint=_HINT)


def versions_of(service: Service, principal: Principal, model: StoredModel) -> tuple[StoredModel, ...]:
    """Every version of a model's name that is served, in the order of their upload."""
    found = (
        resolve(service, principal, Target(model=model.name, version=version))
        for version in service.models_of(principal).versions(model)
    )
    return tuple(other for other in found if service.states.is_served(other))
