"""How a model is served: batching, instances, queues, warm-up (Triton's names, docs/guides/operator.md).

Not part of the model's digest: the same files, served otherwise, are the same model.
Leaves out: reading it from a Triton repository (`triton_repository`), and doing it (`worker_pool`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blindai.oip.tensors import Tensor, TensorSpec  # noqa: TC001  # msgspec reads the fields' types (store_index.py)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """How long and how many requests wait for a model (Triton's ModelQueuePolicy).

    Attributes:
        max_queue_size: requests that wait; one more is refused with 429.
        default_timeout_us: of a request that names none; 0 waits without end.
        allow_timeout_override: whether a request may name a shorter one.
        priority_levels: 0 for none; else priorities are 1 (first) to this.
        default_priority_level: of a request that names none; 0 takes the middle one.
    """

    max_queue_size: int = 1024
    default_timeout_us: int = 0
    allow_timeout_override: bool = True
    priority_levels: int = 0
    default_priority_level: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleStep:
    """One model that an ensemble runs.

    Attributes:
        model: its name.
        version: the very version; never "the latest", so that nobody can change what an ensemble computes.
        digest: of that version.
        inputs: the model's input ← the ensemble's tensor, pair by pair.
        outputs: the model's output → the ensemble's tensor, pair by pair.
    """

    model: str
    version: str
    digest: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """How one model is served.

    Attributes:
        max_batch_size: 0 serves the model's own shapes; else the first axis of every input and output is the batch, of
            at most so many rows, as in Triton.
        batching: `auto` joins waiting requests when the graph keeps rows apart (`row_independence`), `on` is the
            owner's word that it does, `off` never joins.
        max_joined_rows: most rows that are joined; `max_batch_size` if that is set.
        preferred_batch_sizes: as Triton's `preferred_batch_size`.
        max_queue_delay_us: how long a batch may wait for more rows; 0 waits for nobody.
        instances: processes of one tenant.
        intra_op_threads: of one process; 0 divides the CPUs among the instances.
        queue: its bounds.
        warmup: requests that run, each its count of times, before the model is ready.
        inputs: what its operator declares of its inputs, the batch's axis included; empty takes the model's own word.
        outputs: likewise; the model's other outputs are not served.
        optional: names of declared inputs that a request may leave out; the model has defaults for them.
        reshapes: of declared inputs and outputs that the model has in another shape: names, and the model's shapes
            without the batch's axis.
        labels: names of the classes, by output.
        steps: of an ensemble, which has no model of its own.
        version_policy: `latest N`, `all` or `specific N N …`, as its repository says.
    """

    max_batch_size: int = 0
    batching: str = "auto"
    max_joined_rows: int = 64
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    instances: int = 1
    intra_op_threads: int = 0
    queue: QueuePolicy = field(default_factory=QueuePolicy)
    warmup: tuple[tuple[tuple[Tensor, ...], int], ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    optional: tuple[str, ...] = ()
    reshapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    steps: tuple[EnsembleStep, ...] = ()
    version_policy: str = "latest 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWish:
    """What a request asks of the scheduler beside its tensors (OIP, schedule policy extension).

    Attributes:
        priority: 1 is first; 0 takes the model's default.
        queue_timeout_us: longest wait before it runs; 0 takes the model's default.
        alone: whether it must not be joined with others.
        deadline_s: on the event loop's clock, when whoever asks will have gone; `None` for never.
    """

    priority: int = 0
    queue_timeout_us: int = 0
    alone: bool = False
    deadline_s: float | None = None
