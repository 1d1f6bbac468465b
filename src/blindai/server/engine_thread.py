"""A model in a thread of the server itself (`isolation = "thread"`): for an enclave of one tenant, without processes.

Nothing keeps the model from the server's memory: whoever chooses this trusts the model's author with everything.
The guard reads the model first, as always. A run that cannot be broken off keeps its thread; the server goes on.
Leaves out: which batch, when, and for how long (`scheduler`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from blindai.errors import BlindAIError, InternalError, ModelNotReadyError, TooLargeError
from blindai.oip.tensors import Tensor
from blindai.server.engine import RunSwitch
from blindai.server.piped_engine import PipedEngine
from blindai.server.request_queue import Outcome
from blindai.server.runner import NO_FACE, ModelFace
from blindai.server.statistics import RunTimes

if TYPE_CHECKING:
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.request_queue import Batch
    from blindai.server.runner import Ended, Finished
    from blindai.server.worker_launch import WorkerLimits

_clock = time.perf_counter_ns


class EngineThread:
    """One loaded model and its thread (`runner.Runner`).

    Args:
        limits: what it may use; the address space is the server's own.
        on_finished: called with each batch's outcome.
        on_ended: called when it was given up.
    """

    def __init__(self, limits: WorkerLimits, *, on_finished: Finished, on_ended: Ended) -> None:
        self.face = NO_FACE
        self.rows_independent = False
        self.process_id: int | None = None
        self.max_batch_bytes = limits.max_request_bytes
        self.batch: Batch | None = None
        self.on_finished = on_finished
        self.on_ended = on_ended
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._engine: PipedEngine | None = None
        self._switch = RunSwitch()
        self._work: queue.SimpleQueue[tuple[Batch, RunSwitch] | None] = queue.SimpleQueue()
        self._alive = True

    async def load(self, store: ModelStore, model: StoredModel) -> None:
        """Load the model.

        Raises:
            InvalidModelError: the model cannot be run.
        """
        self._engine = engine = await asyncio.to_thread(self._load, store, model)
        self.face = ModelFace(
            inputs=engine.inputs,
            outputs=engine.outputs,
            precision=engine.precision,
            providers=engine.providers,
            optional=engine.optional,
        )
        self.rows_independent = engine.rows_independent
        threading.Thread(target=self._serve, args=(engine,), daemon=True).start()

    def run(self, batch: Batch) -> None:
        """Start a batch; nothing may be running."""
        self.batch = batch
        self._switch = RunSwitch()
        self._work.put((batch, self._switch))

    def break_off(self) -> None:
        """Ask ONNX Runtime to stop."""
        self._switch.break_off()

    def kill(self) -> None:
        """A thread cannot be killed: it is forgotten, and ends with its run."""
        self.on_ended(self)
        self._give_up()

    async def end(self) -> None:
        """Break off what runs, and forget the model."""
        self._switch.break_off()
        self._give_up()

    def _load(self, store: ModelStore, model: StoredModel) -> PipedEngine:
        engine = PipedEngine(model.manifest.session, threads=self._limits.threads, providers=self._limits.providers)
        files = {file.path: b"".join(chunks) for file, chunks in store.open_bundle(model)}
        engine.load(dict(files), rows_wanted=self._limits.rows_wanted)
        return engine

    def _serve(self, engine: PipedEngine) -> None:
        while (work := self._work.get()) is not None:
            batch, switch = work
            outcome = self._run(engine, batch, switch)
            try:
                self._loop.call_soon_threadsafe(self._finish, batch, outcome)
            except RuntimeError:  # the loop was closed while the model ran
                return
            del work, batch, outcome  # nobody's data stays here until the next run

    def _run(self, engine: PipedEngine, batch: Batch, switch: RunSwitch) -> Outcome:
        started = _clock()
        try:
            inputs = _joined(batch)
            ready = _clock()
            outputs = engine.run(inputs, batch.requests[0].outputs, switch)
            if sum(output.data.nbytes for output in outputs) > self._limits.max_answer_bytes:
                raise TooLargeError(  # noqa: TRY301
                    f"the model's outputs take more than the {self._limits.max_answer_bytes} bytes of one answer"
                )
        except BlindAIError as error:
            return Outcome(error=error)
        except Exception as error:  # noqa: BLE001  # one batch's failure is not the next one's
            return Outcome(error=InternalError(f"the model failed on this request ({type(error).__name__})"))
        return Outcome(outputs=outputs, times=RunTimes(input_ns=ready - started, infer_ns=_clock() - ready))

    def _finish(self, batch: Batch, outcome: Outcome) -> None:
        if self.batch is batch:
            self.batch = None
            self.on_finished(self, batch, outcome)

    def _give_up(self) -> None:
        if not self._alive:
            return
        self._alive = False
        self._work.put(None)
        batch, self.batch = self.batch, None
        if batch is not None:
            gone = ModelNotReadyError("the model was stopped", hint="Try again.", retry_after_s=1)
            self.on_finished(self, batch, Outcome(error=batch.broken_off or gone))


def _joined(batch: Batch) -> tuple[Tensor, ...]:
    if len(batch.requests) == 1:
        return batch.requests[0].inputs
    return tuple(
        Tensor(name=first.name, datatype=first.datatype, shape=data.shape, data=data)
        for index, first in enumerate(batch.requests[0].inputs)
        for data in (np.concatenate([request.inputs[index].data for request in batch.requests]),)
    )
