"""The statistics of models as JSON (Triton, statistics extension; perf_analyzer reads it).

There is no response cache: `cache_hit` and `cache_miss` stay 0.
Leaves out: what is counted, and when (`statistics`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindai.server.calls import json_reply
from blindai.server.model_lookup import find_model, versions_of

if TYPE_CHECKING:
    from blindai.server.calls import Call, Reply
    from blindai.server.catalogue import StoredModel
    from blindai.server.dispatch import Service
    from blindai.server.routes import Target
    from blindai.server.statistics import BatchStatistics, Duration, ModelStatistics

_NEVER = {"count": 0, "ns": 0}


async def model_statistics(service: Service, call: Call, target: Target) -> Reply:
    """Of one version, or of all versions of a name."""
    await call.read_no_body()
    model = find_model(service, call.principal, target)
    models = (model,) if target.version else versions_of(service, call.principal, model)
    return _reply(service, models)


async def all_statistics(service: Service, call: Call, _target: Target) -> Reply:
    """Of every model."""
    await call.read_no_body()
    return _reply(service, service.models_of(call.principal).models())


def _reply(service: Service, models: tuple[StoredModel, ...]) -> Reply:
    served = [model for model in models if service.states.is_served(model)]
    return json_reply({"model_stats": [_written(model, service.pool.statistics(model)) for model in served]})


def _written(model: StoredModel, statistics: ModelStatistics) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": statistics.last_inference_ms,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": _duration(statistics.success),
            "fail": _duration(statistics.fail),
            "queue": _duration(statistics.queue),
            "compute_input": _duration(statistics.compute.compute_input),
            "compute_infer": _duration(statistics.compute.compute_infer),
            "compute_output": _duration(statistics.compute.compute_output),
            "cache_hit": _NEVER,
            "cache_miss": _NEVER,
        },
        "batch_stats": [_batch(rows, batch) for rows, batch in sorted(statistics.batches.items())],
        "memory_usage": [],
    }


def _batch(rows: int, batch: BatchStatistics) -> dict[str, Any]:
    return {
        "batch_size": rows,
        "compute_input": _duration(batch.compute_input),
        "compute_infer": _duration(batch.compute_infer),
        "compute_output": _duration(batch.compute_output),
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
