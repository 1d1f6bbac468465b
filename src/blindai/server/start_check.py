"""Before the server listens: the models of its repository load, are what their configuration says, and are warm.

Leaves out: reading the repository (`triton_repository`), and making warm-up requests (`triton_warmup`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError
from blindai.server.access import OPEN_TENANT
from blindai.server.declared import check_model
from blindai.server.ensemble import model_specs
from blindai.server.ensemble_check import fit_problems
from blindai.server.triton_files import Findings

if TYPE_CHECKING:
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.triton_repository import StartModels
    from blindai.server.worker_pool import WorkerPool

AT_A_TIME = 2


async def check_start_models(start: StartModels, *, store: ModelStore, pool: WorkerPool) -> None:
    """Load every model, hold its configuration against it, then each ensemble's against its models.

    Raises:
        InvalidSettingsError: what is wrong, all at once.
    """
    findings, turn = Findings(), asyncio.Semaphore(AT_A_TIME)
    single = [model for model in start.models if not model.config.steps]
    await asyncio.gather(*(_check_single(model, pool, findings, turn) for model in single))
    if not findings.problems:
        for model in start.models:
            await _check_ensemble(model, store, pool, findings)
    findings.settle(start.directory)


async def _check_single(model: StoredModel, pool: WorkerPool, findings: Findings, turn: asyncio.Semaphore) -> None:
    async with turn:
        try:
            check_model(model.config, *await pool.metadata(model, OPEN_TENANT))
            await _warm(model, pool)
        except BlindAIError as error:
            findings.refuse(f"{model.name}/{model.version}", str(error), error.hint)


async def _warm(model: StoredModel, pool: WorkerPool) -> None:
    for request, count in model.config.warmup:
        for _ in range(count):
            await pool.infer(model, OPEN_TENANT, request)


async def _check_ensemble(model: StoredModel, store: ModelStore, pool: WorkerPool, findings: Findings) -> None:
    members = [store.resolve(f"{step.model}@{step.digest}", step.version) for step in model.config.steps]
    specs = [await model_specs(member, OPEN_TENANT, pool=pool) for member in members]
    for problem in fit_problems(model.config, specs):
        findings.refuse(f"{model.name}/config.pbtxt", problem)
