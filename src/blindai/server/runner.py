"""What a scheduler needs of whatever runs a model: a process (`worker_process`) or a thread (`engine_thread`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.oip.metadata import Precision
    from blindai.oip.tensors import TensorSpec
    from blindai.server.request_queue import Batch, Outcome

    Finished = Callable[["Runner", Batch, Outcome], None]
    Ended = Callable[["Runner"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFace:
    """What users are told of a model that is loaded.

    Attributes:
        inputs: what it expects.
        outputs: what it answers.
        precision: of its numbers.
        providers: execution providers that compute it, or some of it.
        optional: inputs with a default, which a request may leave out.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Precision
    providers: tuple[str, ...]
    optional: tuple[TensorSpec, ...] = ()


NO_FACE = ModelFace(inputs=(), outputs=(), precision="mixed", providers=())


class Runner(Protocol):
    """One loaded model that runs one batch at a time; belongs to one event loop.

    Attributes:
        face: the model's own word of itself.
        rows_independent: whether the graph keeps rows apart.
        process_id: the system's number of its process; `None` for a thread.
        max_batch_bytes: of all raw inputs of one batch.
        batch: what it runs now.
        on_finished: is called once for every batch.
        on_ended: is called when it ends by itself, before `on_finished` for what it was running.
    """

    face: ModelFace
    rows_independent: bool
    process_id: int | None
    max_batch_bytes: int
    batch: Batch | None
    on_finished: Finished
    on_ended: Ended

    def run(self, batch: Batch) -> None:
        """Start a batch; nothing may be running."""

    def break_off(self) -> None:
        """Ask for the end of what runs; its failure comes as any other's."""

    def kill(self) -> None:
        """End at once, without a word: what runs fails, and `on_ended` follows."""

    async def end(self) -> None:
        """End and wait until it is gone; what runs fails, `on_ended` is not called."""
