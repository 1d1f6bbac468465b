"""Which of ONNX Runtime's execution providers compute, in the operator's order (`settings.execution_providers`).

Each takes what it can of a model, and the rest goes to the next (`engine`); a receipt names those that computed.
Leaves out: whether they are there (`provider_check`), and what one needs of a closed process (`sandbox`, `warm_up`).
"""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import InvalidSettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

_RUNTIME = "onnxruntime"
# PyPI's builds of ONNX Runtime: they bring one module, so the last that was installed overwrites the others.
_DISTRIBUTIONS = (_RUNTIME, "onnxruntime-openvino", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionProvider:
    """One choice of the setting.

    Attributes:
        onnx_name: ONNX Runtime's word for it.
        hint: what brings it.
        closable: whether it computes in a closed process; one that needs a device does not.
    """

    onnx_name: str
    hint: str
    closable: bool = True


CPU, OPENVINO = "cpu", "openvino"
PROVIDERS = {
    CPU: ExecutionProvider(onnx_name="CPUExecutionProvider", hint="pip install 'blindai[server]'"),
    OPENVINO: ExecutionProvider(
        onnx_name="OpenVINOExecutionProvider",
        hint="in an environment without the package onnxruntime: pip install 'blindai[openvino]'",
    ),
    "cuda": ExecutionProvider(
        onnx_name="CUDAExecutionProvider",
        hint="NVIDIA's driver, and the package onnxruntime-gpu instead of onnxruntime",
        closable=False,
    ),
}


def check_choice(names: tuple[str, ...], *, isolation: str) -> None:
    """Refuse an order that could not be served.

    Raises:
        InvalidSettingsError: none, one twice, an unknown one, or one that needs a device that processes are closed to.
    """
    if not names or len(set(names)) != len(names) or not set(names) <= PROVIDERS.keys():
        raise InvalidSettingsError(
            f"execution_providers is a list of {', '.join(PROVIDERS)}, each at most once, not {list(names)}"
        )
    for name in names:
        if not PROVIDERS[name].closable and isolation != "thread":
            raise InvalidSettingsError(
                f"execution_providers: {name} needs a device, and a model's process is closed to all of them",
                hint='isolation = "thread" runs models in the server itself, without a sandbox',
            )


@functools.cache
def runtime_version() -> str:
    """Of the one ONNX Runtime that is installed.

    Raises:
        InvalidSettingsError: there is none, or several whose files overwrite each other.
    """
    return only_version(_versions())


def only_version(found: dict[str, str]) -> str:
    """The version, if there is exactly one distribution.

    Raises:
        InvalidSettingsError: as `runtime_version`.
    """
    if len(found) != 1:
        raise InvalidSettingsError(
            f"of {', '.join(_DISTRIBUTIONS)} exactly one may be installed, here {', '.join(found) or 'none'} is",
            hint="they overwrite each other's files: make a new environment with one of them",
        )
    return next(iter(found.values()))


def _versions() -> dict[str, str]:
    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name in _DISTRIBUTIONS:
            found[name] = distribution.version
    return found


def engines_of(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Name and version of each provider's engine, as a keyset lists them; ONNX Runtime's own is the CPU's."""
    return tuple((_RUNTIME if name == CPU else f"{_RUNTIME}-{name}", runtime_version()) for name in names)


@functools.cache  # every receipt asks
def engine_text(names: tuple[str, ...]) -> str:
    """What a receipt says of the providers that computed."""
    return ", ".join(f"{name} {version}" for name, version in engines_of(names))
