"""The public names and signatures are what tests/public_api.txt says, so that none changes unnoticed.

After a wanted change: `python tests/test_public_api.py --write`, and a line in CHANGELOG.md.
Public is what `__all__` lists, or without it every name that has no underscore in front and is made in this package.
Enumerations are shown by their members, exceptions by their bases and, where they have their own, their constructor.
"""

from __future__ import annotations

import difflib
import enum
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

MODULES = ("blindai", "blindai.client", "blindai.errors", "blindai.pipeline")
SNAPSHOT = Path(__file__).with_name("public_api.txt")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class _Annotation(str):
    """An annotation as it stands in the source; every Python version prints it without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _unquoted(annotation: Any) -> Any:
    return _Annotation(annotation) if isinstance(annotation, str) else annotation


def signature(function: Any) -> str:
    found = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=_unquoted(parameter.annotation)) for parameter in found.parameters.values()
    ]
    shown = found.replace(parameters=parameters, return_annotation=_unquoted(found.return_annotation))
    return _ADDRESS.sub("", str(shown))


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] == "blindai"


def public_names(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    names = (name for name in dir(module) if not name.startswith("_"))
    return [name for name in names if _is_ours(getattr(module, name))]


def describe(name: str, value: Any) -> Iterator[str]:
    """One line for a function or constant, one more for each public member of a class."""
    if inspect.isclass(value):
        yield from _describe_class(name, value)
    elif callable(value) and _is_ours(value):
        yield f"{_prefix(value)}{name}{signature(value)}"
    else:
        yield _describe_value(name, value)


def _describe_class(name: str, cls: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__)
    yield f"class {name}({bases})"
    if issubclass(cls, enum.Enum):
        yield from (f"    {name}.{member} = {value.value!r}" for member, value in cls.__members__.items())
        return
    if "__init__" in vars(cls):
        yield f"    {name}.__init__{signature(cls.__init__)}"
    for member, value in sorted(_members(cls).items()):
        yield f"    {_describe_member(f'{name}.{member}', value)}"


def _members(cls: type) -> dict[str, Any]:
    """Public members, inherited ones included where the ancestor is ours, dunders only where they make a protocol."""
    protocols = {"__enter__", "__aenter__", "__iter__", "__aiter__", "__len__", "__getitem__"}
    ours = [ancestor for ancestor in reversed(cls.__mro__) if _is_ours(ancestor)]
    found = {member: value for ancestor in ours for member, value in vars(ancestor).items()}
    return {member: value for member, value in found.items() if member in protocols or not member.startswith("_")}


def _describe_member(name: str, value: Any) -> str:
    if isinstance(value, staticmethod | classmethod):
        return f"{type(value).__name__} {name}{signature(value.__func__)}"
    if inspect.isfunction(value):
        return f"{_prefix(value)}{name}{signature(value)}"
    if isinstance(value, property) and value.fget is not None:
        return f"property {name}{signature(value.fget)}"
    return _describe_value(name, value)


def _describe_value(name: str, value: Any) -> str:
    """Short constants with their value, since error codes and statuses are promised too."""
    if isinstance(value, str | int):
        return f"{name} = {value!r}"
    return f"{name}: {'attribute' if inspect.isdatadescriptor(value) else type(value).__name__}"


def _prefix(function: Any) -> str:
    return "async " if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) else ""


def snapshot() -> str:
    lines: list[str] = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines += [f"[{module_name}]"]
        lines += [line for name in public_names(module) for line in describe(name, getattr(module, name))]
        lines += [""]
    return "\n".join(lines)


def test_public_api_is_the_snapshot() -> None:
    recorded = SNAPSHOT.read_text("utf-8")
    difference = difflib.unified_diff(recorded.splitlines(), snapshot().splitlines(), "recorded", "found", lineterm="")
    assert "\n".join(difference) == "", "if this change is wanted: python tests/test_public_api.py --write"


def test_a_changed_signature_changes_the_description() -> None:
    def before(url: str, *, timeout_s: float = 3.0) -> None: ...
    def after(url: str, *, timeout_s: float | None = 3.0) -> None: ...

    assert signature(before) == "(url: str, *, timeout_s: float = 3.0) -> None"
    assert signature(after) != signature(before)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_public_api.py --write")
    SNAPSHOT.write_text(snapshot(), "utf-8")
    print(f"wrote {SNAPSHOT.name}: {len(SNAPSHOT.read_text('utf-8').splitlines())} lines")
