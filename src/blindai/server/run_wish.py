"""What a request asks of the scheduler: parameters `priority` and `timeout`, and the header with its deadline.

`priority` and `timeout` (µs) are the schedule policy extension's; `timeout` is the longest wait, not the longest run.
Other parameters are the model's own business, and ours has none: they are ignored.
Leaves out: what comes of it (`worker_pool`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError
from blindai.server.model_config import RunWish

if TYPE_CHECKING:
    from blindai.oip.answers import Parameter
    from blindai.server.calls import Call

DEADLINE_HEADER = "blindai-deadline-ms"
_MAX_DIGITS = 10
_MAX_UINT64 = 2**64 - 1
_NO_WISH = RunWish()


def run_wish(call: Call, parameters: tuple[tuple[str, Parameter], ...]) -> RunWish:
    """Read it.

    Raises:
        InvalidInputError: one of them is not a whole number.
    """
    deadline = call.headers.get(DEADLINE_HEADER)
    if not parameters and deadline is None:
        return _NO_WISH
    named = dict(parameters)
    return RunWish(
        priority=_whole(named, "priority"),
        queue_timeout_us=_whole(named, "timeout"),
        deadline_s=None if deadline is None else _deadline_s(deadline),
    )


def _whole(parameters: dict[str, Parameter], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value <= _MAX_UINT64:
        raise InvalidInputError(f"the parameter `{name}` is a whole number, 0 or more")
    return value


def _deadline_s(text: str) -> float:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise InvalidInputError(f"{DEADLINE_HEADER} is a whole number of milliseconds from now")
    return asyncio.get_running_loop().time() + int(text) / 1000
