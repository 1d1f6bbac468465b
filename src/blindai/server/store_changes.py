"""Changes of the model store on threads of their own: the event loop waits for no disk, and no change stops half-way.

Leaves out: what they change (model_store.py), which needs no event loop.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import ParamSpec

    Arguments = ParamSpec("Arguments")

Result = TypeVar("Result")

# Not those of `asyncio.to_thread`: a slow disk must not keep attestations and starting processes waiting.
_THREADS = 4


class StoreChanges:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")

    async def run(
        self, change: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Make a change; see `to_the_end`. Raises what it raises."""
        loop = asyncio.get_running_loop()
        return await to_the_end(loop.run_in_executor(self._threads, lambda: change(*arguments, **named)))

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown()


async def to_the_end(work: Awaitable[Result]) -> Result:
    """Wait for work that must not stop half-way; whoever is cancelled meanwhile is so once it has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            await _quietly(task)
        if not task.cancelled():
            task.exception()  # nobody else looks at it
        raise


async def _quietly(task: asyncio.Future[Result]) -> None:
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        return  # once more, and no sooner
