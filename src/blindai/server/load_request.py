"""The body of a load request: a configuration, and the files of versions that come along (Triton, model load).

    {"parameters": {"config": "{…}", "file:1/model.onnx": "<base64>", "file:1/model.onnx.data": "<base64>"}}

A file stands in the folder of its version and nowhere else: `file:VERSION/NAME`, VERSION a number from 1, NAME flat.
Leaves out: what becomes of them (`model_control`).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from blindai.bundle import FILE_PATH, SessionOptions
from blindai.errors import InvalidInputError
from blindai.oip.json_data import check_depth, decode_json
from blindai.server.model_config_json import read_config

if TYPE_CHECKING:
    from blindai.server.model_config import ServingConfig
    from blindai.server.triton_config import ModelPlan

_FILE = "file:"
_VERSION = re.compile(r"[1-9][0-9]{0,17}\Z")


class _Load(msgspec.Struct):
    parameters: dict[str, bool | int | str] = {}


_decoder = msgspec.json.Decoder(_Load)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What a load asks for.

    Attributes:
        config: how the model is served, or `None` for as it is.
        session: how the engine runs it; part of its digest.
        versions: (version, its files by name) in rising order; empty for a model that is stored already.
    """

    config: ServingConfig | None
    session: SessionOptions
    versions: tuple[tuple[str, tuple[tuple[str, bytes], ...]], ...]


def read_load(body: bytes, *, name: str) -> LoadRequest:
    """Read it; an empty body asks for nothing special.

    Raises:
        InvalidInputError: malformed, an unknown parameter, files without a configuration, or a path that is none.
    """
    check_depth(memoryview(body))
    parameters = decode_json(_decoder, body, "the request").parameters if body.strip() else {}
    plan: ModelPlan | None = None
    versions: dict[str, dict[str, bytes]] = {}
    for parameter, value in parameters.items():
        if parameter == "config":
            plan = read_config(_text(value, "config").encode(), name=name)
        elif parameter.startswith(_FILE):
            version, path = _place(parameter.removeprefix(_FILE))
            versions.setdefault(version, {})[path] = _decoded(_text(value, "file:…"))
        else:
            raise InvalidInputError("a load has no other parameters than `config` and `file:VERSION/NAME`")
    if versions and plan is None:
        raise InvalidInputError("a load with `file:` parameters has `config` too; {} takes the model's own word")
    ordered = sorted(versions.items(), key=lambda item: int(item[0]))
    return LoadRequest(
        config=plan.serving if plan else None,
        session=plan.session if plan else SessionOptions(),
        versions=tuple((version, tuple(files.items())) for version, files in ordered),
    )


def selected_versions(policy: str, versions: list[str]) -> frozenset[str]:
    """Those that a version policy serves: `all`, `latest N` (the highest numbers), or `specific N N …`.

    Versions that are no numbers are their owner's own, which no policy of numbers is about: they stay.
    """
    kind, *numbers = policy.split()
    if kind == "all":
        return frozenset(versions)
    named = {version for version in versions if not _VERSION.match(version)}
    counted = sorted((version for version in versions if version not in named), key=int)
    chosen = counted[-int(numbers[0]) :] if kind == "latest" else [v for v in counted if v in numbers]
    return frozenset(named.union(chosen))


def _place(path: str) -> tuple[str, str]:
    version, slash, name = path.partition("/")
    if not slash or not _VERSION.match(version) or not FILE_PATH.match(name):
        raise InvalidInputError(
            "a file of a load is `file:VERSION/NAME`: a version from 1 on, and a name of at most 255 letters, digits, "
            "'.', '_' or '-' without folders"
        )
    return version, name


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError("a file of the load is not base64") from None


def _text(value: bool | int | str, name: str) -> str:  # noqa: FBT001  # as JSON has it
    if not isinstance(value, str):
        raise InvalidInputError(f"the parameter `{name}` is text")
    return value
