"""How long a model whose process dies waits for its next one: 0, 0.5, 1, 2 … 30 s.

Leaves out: what its requests are told meanwhile (`scheduler`).
"""

from __future__ import annotations

_FIRST_S = 0.5
_LONGEST_S = 30.0
_FORGIVEN_AFTER_S = 60.0


class Backoff:
    """Counts failures in a row; times are the event loop's."""

    def __init__(self) -> None:
        self._failures = 0
        self._until_s = 0.0

    def fail(self, now_s: float) -> None:
        """Count a failure; those that lie a minute or more before the last one's delay are forgiven."""
        if now_s - self._until_s > _FORGIVEN_AFTER_S:
            self._failures = 0
        delay_s = min(_FIRST_S * 2 ** (self._failures - 1), _LONGEST_S) if self._failures else 0.0
        self._failures = min(self._failures + 1, 16)
        self._until_s = now_s + delay_s

    def wait_s(self, now_s: float) -> float:
        """How long it is until the next try."""
        return max(0.0, self._until_s - now_s)
