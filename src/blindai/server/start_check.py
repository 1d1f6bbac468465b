"""Before the server listens: the models of its repository load, are what their configuration says, and are warm.

Leaves out: reading the repository (`triton_repository`), and running warm-up requests, which is part of each load.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError
from blindai.server.access import OPEN_TENANT, open_principal
from blindai.server.ensemble import served_face
from blindai.server.ensemble_check import fit_problems
from blindai.server.model_fit import check_declaration
from blindai.server.triton_files import Findings

if TYPE_CHECKING:
    from blindai.server.dispatch import Service
    from blindai.server.model_store import StoredModel
    from blindai.server.triton_repository import StartModels

AT_A_TIME = 2


async def check_start_models(start: StartModels, service: Service) -> None:
    """Load every model, hold its configuration against it, then each ensemble's against its models.

    Raises:
        InvalidSettingsError: what is wrong, all at once.
    """
    findings, turn = Findings(), asyncio.Semaphore(AT_A_TIME)
    single = [model for model in start.models if not model.config.steps]
    await asyncio.gather(*(_check_single(model, service, findings, turn) for model in single))
    if not findings.problems:
        for model in start.models:
            await _check_ensemble(model, service, findings)
    findings.settle(start.directory)


async def _check_single(model: StoredModel, service: Service, findings: Findings, turn: asyncio.Semaphore) -> None:
    async with turn:
        try:
            check_declaration(model.config, await service.pool.metadata(model, OPEN_TENANT))
        except BlindAIError as error:
            findings.refuse(f"{model.name}/{model.version}", str(error), error.hint)


async def _check_ensemble(model: StoredModel, service: Service, findings: Findings) -> None:
    models = service.models_of(open_principal(""))
    members = [models.member(model, step) for step in model.config.steps]
    faces = [await served_face(member, OPEN_TENANT, models=models, pool=service.pool) for member in members]
    for problem in fit_problems(model.config, faces):
        findings.refuse(f"{model.name}/config.pbtxt", problem)
