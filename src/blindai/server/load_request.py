"""The body of a load request: a configuration, and the files of versions that come along (Triton, model load).

    {"parameters": {"config": "{…}", "file:1/model.onnx": "<base64>", "file:labels.txt": "<base64>"}}

A file of a model stands in the folder of its version: `file:VERSION/NAME`, VERSION a number from 1, NAME flat.
Beside the versions, as `file:NAME`, stand label files that the configuration names, and nothing else.
Leaves out: what becomes of them (`model_control`).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from blindai.bundle import FILE_PATH, SessionOptions
from blindai.errors import InvalidInputError, TooLargeError
from blindai.oip.json_data import check_depth, decode_json
from blindai.server.model_config_json import read_config
from blindai.server.triton_config import read_labels

if TYPE_CHECKING:
    from blindai.server.model_config import ServingConfig
    from blindai.server.triton_config import ModelPlan

_FILE = "file:"
_BESIDE = ""
_SHOWN = 64
MAX_LABEL_BYTES = 1024 * 1024  # they stay in memory, several times as large there
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
        TooLargeError: more labels than are kept.
    """
    check_depth(memoryview(body))
    parameters = decode_json(_decoder, body, "the request").parameters if body.strip() else {}
    plan: ModelPlan | None = None
    files: dict[str, dict[str, bytes]] = {}
    for parameter, value in parameters.items():
        if parameter == "config":
            plan = read_config(_text(value, "config").encode(), name=name)
        elif parameter.startswith(_FILE):
            version, path = _place(parameter.removeprefix(_FILE))
            files.setdefault(version, {})[path] = _decoded(_text(value, "file:…"))
        else:
            raise InvalidInputError("a load has no other parameters than `config` and `file:[VERSION/]NAME`")
    if files and plan is None:
        raise InvalidInputError("a load with `file:` parameters has `config` too; {} takes the model's own word")
    labels = _labels(plan.label_files if plan else (), files.pop(_BESIDE, {}))
    ordered = sorted(files.items(), key=lambda item: int(item[0]))
    return LoadRequest(
        config=replace(plan.serving, labels=labels) if plan else None,
        session=plan.session if plan else SessionOptions(),
        versions=tuple((version, tuple(found.items())) for version, found in ordered),
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
    """The version, or `_BESIDE` for a label file, and the name."""
    version, slash, name = path.rpartition("/")
    if (slash and not _VERSION.match(version)) or not FILE_PATH.match(name):
        raise InvalidInputError(
            "a file of a load is `file:VERSION/NAME`: a version from 1 on, and a name of at most 255 letters, digits, "
            "'.', '_' or '-' without folders; a label file is `file:NAME`"
        )
    return version, name


def _labels(wished: tuple[tuple[str, str], ...], files: dict[str, bytes]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The labels of each output whose `label_filename` names a file that came along; all must, and no others."""
    if sum(map(len, files.values())) > MAX_LABEL_BYTES:
        raise TooLargeError(f"the label files of a load have at most {MAX_LABEL_BYTES} bytes together")
    named = dict.fromkeys(name for _, name in wished)
    missing = [name for name in named if name not in files]
    if missing:
        raise InvalidInputError(f"label_filename: {missing[0][:_SHOWN]!r} did not come along as `file:NAME`")
    if files.keys() > named.keys():
        raise InvalidInputError("a file outside a version's folder is a label file, and no label_filename names it")
    labels = {name: read_labels(files[name]) for name in named}
    return tuple((output, labels[name]) for output, name in wished)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError("a file of the load is not base64") from None


def _text(value: bool | int | str, name: str) -> str:  # noqa: FBT001  # as JSON has it
    if not isinstance(value, str):
        raise InvalidInputError(f"the parameter `{name}` is text")
    return value
