"""What became of every request of a soak: right, wrong, cancelled, or failed for a cause of the committed table."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from soak.causes import UnknownCauseError, cause_of, cause_of_rpc

from blindai.errors import BlindAIError, InferenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Far below what another request's answer would differ by, far above what another order of adding does.
_TOLERANCE = 1e-4
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class RawError(Exception):
    """A failure that a client without the SDK reads: its code and words."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclass(slots=True)
class Tally:
    """Counts of all actors; any thread may add.

    Attributes:
        right: answers that were right, by actor.
        bit_equal: how many of them bit for bit.
        wrong: what was wrong with the others.
        failures: errors by actor and cause.
        unknown: errors that the table does not know.
        events: other things that were done, such as kills.
    """

    right: Counter[str] = field(default_factory=Counter)
    bit_equal: int = 0
    wrong: list[str] = field(default_factory=list)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def judge(self, actor: str, found: Any, expected: np.ndarray[Any, Any], *, exact: bool = False) -> None:
        """Compare an answer with the right one."""
        array = np.asarray(found)
        same = array.shape == expected.shape and array.dtype == expected.dtype
        equal = same and array.tobytes() == expected.tobytes()
        near = same and not exact and np.allclose(array, expected, rtol=_TOLERANCE, atol=_TOLERANCE)
        with self._lock:
            self.bit_equal += equal
            if equal or near:
                self.right[actor] += 1
            else:
                self.wrong.append(f"{actor}: {array.shape} {array.dtype} for {expected.shape} {expected.dtype}")

    def event(self, name: str) -> None:
        """Count something that was done."""
        with self._lock:
            self.events[name] += 1

    @contextlib.contextmanager
    def failures_of(self, actor: str) -> Iterator[list[float]]:
        """Swallow an error that the table knows; the list then holds how many seconds to wait before the next try."""
        pause: list[float] = []
        try:
            yield pause
        except (BlindAIError, RawError, grpc.RpcError, OSError) as error:
            self._fail(actor, error)
            advice = error.retry_after_s if isinstance(error, InferenceError) else None
            pause.append(min(advice or _PAUSE_S, _LONGEST_PAUSE_S))

    @contextlib.contextmanager
    def attempt(self, actor: str) -> Iterator[None]:
        """Like `failures_of`, and waits; for actors with a thread of their own."""
        with self.failures_of(actor) as pause:
            yield
        if pause:
            time.sleep(pause[0])

    def _fail(self, actor: str, error: Exception) -> None:
        try:
            cause = _cause(error)
        except UnknownCauseError as unknown:
            with self._lock:
                self.unknown.append(f"{actor}: {unknown}")
            return
        with self._lock:
            self.failures[actor, cause] += 1

    def by_cause(self) -> Counter[str]:
        """Errors by cause alone."""
        total: Counter[str] = Counter()
        for (_, cause), count in self.failures.items():
            total[cause] += count
        return total


def _cause(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return cause_of_rpc(error.code().name, error.details() or "")
    if isinstance(error, BlindAIError | RawError):
        return cause_of(error.code, str(error))
    return cause_of("connection_lost", str(error))
