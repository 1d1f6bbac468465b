"""Ensembles: several models run as one, their tensors handed on inside the server (Triton's ensemble_scheduling).

Steps whose inputs are there run at the same time, each in its own model's processes; a tensor that nobody needs any
more is dropped, and a step whose outputs nobody asked for does not run.
An ensemble's digest covers what it computes: its steps, the digests of their models, its inputs and outputs.
Leaves out: whether steps fit together, which is settled once at the start (`ensemble_check`).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from blindai.bundle import ModelManifest
from blindai.errors import BlindAIError, InvalidInputError
from blindai.server.model_config import RunWish
from blindai.server.model_fit import check_inputs, check_outputs
from blindai.server.reshapes import from_model, to_model
from blindai.server.runner import ModelFace
from blindai.server.statistics import RunTimes
from blindai.wire import compact_json, label, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.oip.tensors import Tensor, TensorSpec
    from blindai.server.catalogue import StoredModel
    from blindai.server.model_config import EnsembleStep
    from blindai.server.tenant_models import TenantModels
    from blindai.server.worker_pool import WorkerPool

_NO_WISH = RunWish()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleManifest(ModelManifest):
    """What an ensemble's digest covers; it has no files (docs/spec/bundle.md, Ensembles).

    Attributes:
        inputs: as declared, the batch's axis included.
        outputs: likewise.
        steps: in the order of its configuration.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[EnsembleStep, ...]

    def __post_init__(self) -> None:
        """An ensemble has steps instead of files."""
        if self.files or not self.steps:
            raise ValueError("an ensemble has steps, and no files")

    @property
    def digest(self) -> bytes:
        """SHA-256(L("ensemble") ‖ LP(manifest))."""
        return hashlib.sha256(label("ensemble") + length_prefixed(self.encode())).digest()

    def encode(self) -> bytes:
        """The exact bytes that are hashed."""
        return compact_json(
            {
                "inputs": [_members(spec) for spec in self.inputs],
                "outputs": [_members(spec) for spec in self.outputs],
                "steps": [
                    {"inputs": dict(step.inputs), "model": step.digest, "outputs": dict(step.outputs)}
                    for step in self.steps
                ],
            }
        )


def _members(spec: TensorSpec) -> dict[str, Any]:
    return {"datatype": spec.datatype.value, "name": spec.name, "shape": list(spec.shape)}


async def served_face(model: StoredModel, share: str, *, models: TenantModels, pool: WorkerPool) -> ModelFace:
    """What users are told of a model: as declared, or else its own word; loads it, or the models of an ensemble.

    Raises:
        InferenceError: as `WorkerPool.face`.
    """
    config = model.config
    if config.steps:
        members = [models.member(model, step) for step in config.steps]
        faces = await asyncio.gather(*(served_face(member, share, models=models, pool=pool) for member in members))
        found = {face.precision for face in faces}
        precision = found.pop() if len(found) == 1 else "mixed"
        providers = tuple(sorted({provider for face in faces for provider in face.providers}))
        return ModelFace(inputs=config.inputs, outputs=config.outputs, precision=precision, providers=providers)
    return await pool.face(model, share)


async def run_model(
    model: StoredModel,
    share: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[str, ...] = (),
    *,
    face: ModelFace,
    models: TenantModels,
    pool: WorkerPool,
    wish: RunWish = _NO_WISH,
) -> tuple[Tensor, ...]:
    """Run a model or an ensemble as its configuration says.

    Args:
        model: which.
        share: whose processes (`Principal.share`).
        inputs: one tensor for each input.
        outputs: names of the wished outputs; empty means all.
        face: by `served_face`.
        models: where an ensemble's models are.
        pool: runs them.
        wish: what the request asks of the scheduler, at each step.

    Raises:
        InvalidInputError: they do not fit the configuration or the model.
        InferenceError: as `WorkerPool.infer`.
    """
    begun_ns = time.monotonic_ns()
    try:
        check_inputs(model.name, model.config, inputs, face.inputs, optional=face.optional)
        check_outputs(model.name, outputs, face.outputs)
    except InvalidInputError:
        pool.statistics(model).fail.add(time.monotonic_ns() - begun_ns)
        raise
    wished = outputs or tuple([spec.name for spec in model.config.outputs])
    if model.config.steps:
        return await _Run(model, share, inputs, wished, models=models, pool=pool, wish=wish).outcome()
    if len(inputs) > len(face.inputs):  # what stands for a default is not one row of it for each row of the others
        wish = replace(wish, alone=True)
    answer = await pool.infer(model, share, to_model(model.config, inputs), wished, wish=wish)
    return from_model(model.config, answer)


class _Run:
    """One request's way through an ensemble."""

    def __init__(
        self,
        model: StoredModel,
        share: str,
        inputs: tuple[Tensor, ...],
        wished: tuple[str, ...],
        *,
        models: TenantModels,
        pool: WorkerPool,
        wish: RunWish,
    ) -> None:
        self._model = model
        self._share = share
        self._wished = wished
        self._models = models
        self._pool = pool
        self._wish = wish
        self._rows = inputs[0].shape[0] if model.config.max_batch_size and inputs else 1
        self._waiting = needed_steps(model.config.steps, wished)
        self._needed = Counter([*wished, *(tensor for step in self._waiting for _, tensor in step.inputs)])
        self._tensors = {tensor.name: tensor for tensor in inputs if self._needed[tensor.name]}

    async def outcome(self) -> tuple[Tensor, ...]:
        """The wished tensors; counted for the ensemble as a whole, and for each step's model as any request."""
        statistics, begun_ns = self._pool.statistics(self._model), time.monotonic_ns()
        try:
            await self._run_steps()
        except BlindAIError:
            statistics.fail.add(time.monotonic_ns() - begun_ns)
            raise
        elapsed_ns = time.monotonic_ns() - begun_ns
        times = RunTimes(infer_ns=elapsed_ns)
        statistics.add_requests(1, rows=self._rows, queue_ns=0, total_ns=elapsed_ns, times=times)
        statistics.add_run(self._rows, times)
        return tuple(self._tensors[name] for name in self._wished)

    async def _run_steps(self) -> None:
        """Run every step that is needed; the first failure is the request's, and stops the others."""
        running: set[asyncio.Task[tuple[Tensor, ...]]] = set()
        try:
            while running := running | self._started():
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for step in done:
                    self._tensors |= {tensor.name: tensor for tensor in step.result()}
        finally:
            for step in running:
                step.cancel()
            if running:
                await asyncio.wait(running)

    def _started(self) -> set[asyncio.Task[tuple[Tensor, ...]]]:
        ready = [step for step in self._waiting if all(tensor in self._tensors for _, tensor in step.inputs)]
        self._waiting = [step for step in self._waiting if step not in ready]
        return {asyncio.create_task(self._step(step, self._taken(step))) for step in ready}

    def _taken(self, step: EnsembleStep) -> tuple[Tensor, ...]:
        """A step's inputs under its model's names; the last one who takes a tensor takes it away."""
        taken = tuple(structs.replace(self._tensors[tensor], name=name) for name, tensor in step.inputs)
        for _, tensor in step.inputs:
            self._needed[tensor] -= 1
            if not self._needed[tensor]:
                self._tensors.pop(tensor, None)
        return taken

    async def _step(self, step: EnsembleStep, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        member = self._models.member(self._model, step)
        names = {name: tensor for name, tensor in step.outputs if self._needed[tensor]}
        face = await served_face(member, self._share, models=self._models, pool=self._pool)
        answer = await run_model(
            member,
            self._share,
            inputs,
            tuple(names),
            face=face,
            models=self._models,
            pool=self._pool,
            wish=self._wish,
        )
        return tuple(structs.replace(tensor, name=names[tensor.name]) for tensor in answer)


def needed_steps(steps: Sequence[EnsembleStep], wished: Sequence[str]) -> list[EnsembleStep]:
    """The steps without which the wished tensors cannot be had, in the order of the configuration."""
    wanted, needed = set(wished), set[int]()
    for _ in steps:  # each round follows the tensors one step back
        for index, step in enumerate(steps):
            if wanted.intersection(tensor for _, tensor in step.outputs):
                needed.add(index)
                wanted.update(tensor for _, tensor in step.inputs)
    return [step for index, step in enumerate(steps) if index in needed]
