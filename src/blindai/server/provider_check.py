"""Whether the execution providers that an operator asks for compute here: tried at start, in a process of its own.

The server's own process never loads ONNX Runtime, and what is merely installed may still lack its device.
Leaves out: the trial itself (`provider_trial`).
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from blindai.errors import InvalidSettingsError
from blindai.server.execution_providers import CPU, PROVIDERS
from blindai.server.forking import worker_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_TRIAL_S = 120


def try_providers(names: Iterable[str]) -> frozenset[str]:
    """Those that computed a small model in a process of their own; blocks for about a second."""
    command = [sys.executable, "-P", "-m", "blindai.server.provider_trial", *names]
    ended = subprocess.run(  # noqa: S603  # fixed arguments
        command, capture_output=True, check=False, timeout=_TRIAL_S, text=True, env=worker_environment()
    )
    return frozenset(ended.stdout.split())


def require_present(names: tuple[str, ...], attempt: Callable[[Iterable[str]], frozenset[str]] = try_providers) -> None:
    """Refuse to start without a provider that the operator asked for.

    Args:
        names: of `PROVIDERS`.
        attempt: answers which of them compute here.

    Raises:
        InvalidSettingsError: one does not, with what brings it.
    """
    if names == (CPU,):
        return  # which comes with ONNX Runtime itself
    present = attempt(names)
    for name in names:
        if name not in present:
            raise InvalidSettingsError(
                f"execution_providers: {name} does not compute here", hint=f"it needs {PROVIDERS[name].hint}"
            )
