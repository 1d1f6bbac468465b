"""Whether and when waiting requests run as one batch: Triton's settings, and a rule of our own for short waits.

The refill rule: clients that wait for their answers send the next requests together, just after a batch has ended. So
a batch that could start waits at most 5 % of the last run (at most 5 ms) for as many rows as that run had and as were
left waiting beside it; otherwise two half batches would take turns for ever.
Leaves out: which requests fit together (`request_queue`), and starting them (`scheduler`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    from blindai.oip.tensors import Tensor
    from blindai.server.model_config import ServingConfig
    from blindai.server.request_queue import Batch, RequestQueue
    from blindai.server.runner import Runner

_REFILL_SHARE = 20  # of a run's time
_MAX_REFILL_NS = 5_000_000
_MIN_REFILL_NS = 500_000  # timers are not finer than that
_FIRST_AXIS_OPEN = -1


class BatchingRule:
    """How many rows the next batch may have, and how long it may wait for them.

    Args:
        config: the owner's settings.
        allowed: the operator's; `False` never joins.
    """

    def __init__(self, config: ServingConfig, *, allowed: bool) -> None:
        self._config = config
        self._most = config.max_batch_size or config.max_joined_rows
        self.may_join = allowed and config.batching != "off" and self._most > 1
        self._last_run_ns = 0
        self._last_end_ns = 0
        self._refill_rows = 0

    def decide(self, runner: Runner) -> None:
        """Once the model is known: whether its requests may be joined; never if an axis of theirs is fixed."""
        face = runner.face
        specs = (*face.inputs, *face.outputs)
        is_open = bool(face.inputs) and all(spec.shape[:1] == (_FIRST_AXIS_OPEN,) for spec in specs)
        self.may_join = self.may_join and is_open and (self._config.batching == "on" or runner.rows_independent)

    def forbid(self) -> None:
        """The model was seen to mix or drop rows, whatever its owner says."""
        self.may_join = False

    def ran(self, batch: Batch, *, ended_ns: int, waiting_rows: int) -> None:
        """Remember a run that ended well."""
        self._last_run_ns = ended_ns - batch.started_ns
        self._last_end_ns = ended_ns
        self._refill_rows = batch.rows + waiting_rows

    def max_rows(self, waiting_rows: int) -> int:
        """The most rows of the next batch: the largest preferred size that can be filled, if there is one."""
        if not self.may_join:
            return 1
        return max((size for size in self._config.preferred_batch_sizes if size <= waiting_rows), default=self._most)

    def wait_ns(self, queue: RequestQueue, now_ns: int) -> int:
        """How long the next batch should wait for more rows; 0 or less for not at all."""
        rows = queue.rows
        if not self.may_join or rows >= self._most:
            return 0
        wait_ns = 0
        if self._config.max_queue_delay_us and not any(size <= rows for size in self._config.preferred_batch_sizes):
            wait_ns = queue.oldest_ns + self._config.max_queue_delay_us * 1000 - now_ns
        refill_ns = min(self._last_run_ns // _REFILL_SHARE, _MAX_REFILL_NS)
        if refill_ns >= _MIN_REFILL_NS and rows < self._refill_rows:
            wait_ns = max(wait_ns, max(queue.oldest_ns, self._last_end_ns) + refill_ns - now_ns)
        return wait_ns


def check_batch(inputs: tuple[Tensor, ...], max_batch_size: int) -> None:
    """What Triton checks of a model with a batch axis.

    Raises:
        InvalidInputError: too many rows, or not equally many in every input.
    """
    sizes = {tensor.shape[0] if tensor.shape else 0 for tensor in inputs}
    if len(sizes) > 1:
        raise InvalidInputError("the batch sizes of the inputs do not agree", hint="The first axis is the batch.")
    if sizes and max(sizes) > max_batch_size:
        raise InvalidInputError(f"inference request batch-size must be <= {max_batch_size}")
