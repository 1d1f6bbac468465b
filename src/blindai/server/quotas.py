"""What one tenant may use: bytes and models in the store, and runs at a time.

Leaves out: what all tenants together may use (catalogue.py, budget.py).
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The bounds of one tenant; none by default.

    Attributes:
        max_bytes: of its models, those announced by uploads under way included.
        max_models: registered at a time.
        max_concurrent_runs: inferences that are read or run at a time.
    """

    max_bytes: int = sys.maxsize
    max_models: int = sys.maxsize
    max_concurrent_runs: int = sys.maxsize


NO_QUOTA = Quota()


class RunSlots:
    """How many inferences of each tenant are under way; used from the event loop only."""

    def __init__(self, quota_of: Callable[[str], Quota]) -> None:
        self._quota_of = quota_of
        self._running: Counter[str] = Counter()

    @contextlib.contextmanager
    def run(self, tenant: str) -> Iterator[None]:
        """Hold a slot for the length of the block.

        Raises:
            OverloadedError: the tenant's are all taken.
        """
        most = self._quota_of(tenant).max_concurrent_runs
        if self._running[tenant] >= most:
            raise OverloadedError(
                f"at most {most} inferences of a tenant run at a time", hint="Try again when one has ended."
            )
        self._running[tenant] += 1
        try:
            yield
        finally:
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]
