"""Which model a path means, among those that whoever asks may see and that are served.

The words are Triton's, since its clients match on them; a name of any length is cut.
Leaves out: what names and versions there are (`catalogue`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.errors import ModelNotFoundError
from blindai.server.catalogue import LAST

if TYPE_CHECKING:
    from blindai.server.access import Principal
    from blindai.server.catalogue import StoredModel
    from blindai.server.dispatch import Service
    from blindai.server.routes import Target

_SHOWN = 128
_HINT = "Upload it, or list the models that are there."


def find_model(service: Service, principal: Principal, target: Target) -> StoredModel:
    """The model that a path means; without a version, the one uploaded last of those that are served.

    Raises:
        ModelNotFoundError: no such model or version, or it is unloaded.
    """
    model = resolve(service, principal, target)
    if service.states.is_served(model):
        return model
    others = () if target.version else versions_of(service, principal, model.name)
    for other in reversed(others):
        if service.states.is_served(other):
            return other
    raise ModelNotFoundError(
        f"Request for unknown model: '{model.name}' has no available versions", hint="it was unloaded; load it"
    )


def resolve(service: Service, principal: Principal, target: Target) -> StoredModel:
    """As `find_model`, unloaded models included."""
    del principal  # one tenant sees all models
    try:
        return service.store.resolve(target.model, target.version)
    except ModelNotFoundError:
        if target.model == LAST:
            raise
    version = f" version {target.version[:_SHOWN]}" if target.version else ""
    raise ModelNotFoundError(f"Request for unknown model: '{target.model[:_SHOWN]}'{version} is not found", hint=_HINT)


def visible_models(service: Service, principal: Principal) -> tuple[StoredModel, ...]:
    """Every model, the one uploaded last at the end."""
    del principal  # as above
    return service.store.models()


def versions_of(service: Service, principal: Principal, name: str) -> tuple[StoredModel, ...]:
    """Every version of a name, the one uploaded last at the end; perhaps none."""
    return tuple(model for model in visible_models(service, principal) if model.name == name)
