"""No core dumps, and no debugger of the same user: what is in this process's memory stays there.

Keys and users' data would stand in a core file in clear. Linux only; elsewhere it warns.
Leaves out: swap, which the host decides, and what else a model's process forbids itself (`sandbox`).
"""

from __future__ import annotations

import ctypes
import resource

from blindai.server.log import LOG

_PR_SET_DUMPABLE = 4  # prctl(2)


def forbid_dumps() -> None:
    """Do it for this process; what it starts must do it again."""
    if not (_forbid_core_files() and _forbid_attaching()):
        LOG.warning("core dumps could not be forbidden: a crash may write keys and users' data to disk")


def _forbid_core_files() -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return False
    return True


def _forbid_attaching() -> bool:
    """Also against a core handler that is a program (`core_pattern`), which asks for no size."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    except (OSError, AttributeError):  # not Linux
        return False
