"""What one tenant may use: bytes and models in the store, and runs at a time.

Leaves out: what all tenants together may use (catalogue.py, budget.py).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable


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
        self._running: dict[str, int] = {}

    def run(self, tenant: str) -> _Slot:
        """Hold a slot for the length of a `with` block.

        Raises:
            OverloadedError: the tenant's are all taken.
        """
        most = self._quota_of(tenant).max_concurrent_runs
        if self._running.get(tenant, 0) >= most:
            raise OverloadedError(
                f"at most {most} inferences of a tenant run at a time", hint="Try again when one has ended."
            )
        return _Slot(self._running, tenant)


class _Slot:
    """One run of a tenant, from the beginning of a block to its end."""

    __slots__ = ("_running", "_tenant")

    def __init__(self, running: dict[str, int], tenant: str) -> None:
        self._running = running
        self._tenant = tenant

    def __enter__(self) -> None:
        self._running[self._tenant] = self._running.get(self._tenant, 0) + 1

    def __exit__(self, *_failure: object) -> None:
        self._running[self._tenant] -= 1
        if not self._running[self._tenant]:
            del self._running[self._tenant]
