"""What a server says of a model: metadata, readiness, configuration, and the list of names (OIP §3.2.4, KServe).

Inputs and outputs are the operator's declaration if there is one, else the model's own word; asking loads the model.
Leaves out: how a configuration is written (`model_config_json`), and the uploader's own list (`repository`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.oip.metadata import ModelMetadata, encode_metadata
from blindai.server.calls import JSON, Reply, json_reply
from blindai.server.ensemble import served_face
from blindai.server.model_config_json import platform_of, write_config
from blindai.server.model_lookup import find_model, versions_of

if TYPE_CHECKING:
    from blindai.server.access import Principal
    from blindai.server.calls import Call
    from blindai.server.catalogue import StoredModel
    from blindai.server.dispatch import Service
    from blindai.server.routes import Target
    from blindai.server.runner import ModelFace


async def model_face(service: Service, principal: Principal, model: StoredModel) -> ModelFace:
    """What a model is served as; loads it if need be."""
    return await served_face(model, principal.share, models=service.models_of(principal), pool=service.pool)


async def metadata(service: Service, call: Call, target: Target) -> Reply:
    """Names, datatypes and shapes; `version`, `digest`, `precision`, `default_shape` and `optional_inputs` are ours."""
    await call.read_no_body()
    model = find_model(service, call.principal, target)
    face = await model_face(service, call.principal, model)
    described = ModelMetadata(
        name=model.name,
        versions=tuple(other.version for other in versions_of(service, call.principal, model)),
        platform=platform_of(model),
        inputs=face.inputs,
        outputs=face.outputs,
        version=model.version,
        digest=model.digest,
        precision=face.precision,
        default_shape=model.default_shape,
        optional_inputs=face.optional,
    )
    return Reply(headers=JSON, body=(encode_metadata(described),))


async def ready(service: Service, call: Call, target: Target) -> Reply:
    """Whether requests may run it; its process starts on first need."""
    await call.read_no_body()
    model = find_model(service, call.principal, target)
    return json_reply({"name": model.name, "ready": True})


async def config(service: Service, call: Call, target: Target) -> Reply:
    """How it is served, as Triton's ModelConfig."""
    await call.read_no_body()
    model = find_model(service, call.principal, target)
    return json_reply(write_config(model, await model_face(service, call.principal, model)))


async def names(service: Service, call: Call, _target: Target) -> Reply:
    """The names of the models that are served (KServe)."""
    await call.read_no_body()
    served = (model.name for model in service.models_of(call.principal).models() if service.states.is_served(model))
    return json_reply({"models": list(dict.fromkeys(served))})
