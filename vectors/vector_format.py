"""How a vector is written and read: `case.toml` says what is shown and from what, `expected.json` what must come out.

A string that begins with `hex:`, `base64url:` or `utf8:` stands for bytes; any other is text.
Leaves out: what the operations compute (vector_operations.py) and which cases there are (vector_cases.py).
"""

from __future__ import annotations

import base64
import hashlib
import json
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_HEX_BYTES = 128


def fixed(name: str, size: int) -> bytes:
    """Bytes that look random and are the same for everybody: SHAKE-256 of their name."""
    return hashlib.shake_256(b"blindai vectors: " + name.encode()).digest(size)


KSID = fixed("keyset id", 32)
ROOT = fixed("root", 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One vector, without its expected values.

    Attributes:
        title: what it shows.
        spec: the section that rules it.
        operation: what to compute; a name in `vector_operations.OPERATIONS`.
        covers: the labels of every formula that is evaluated on the way, sorted.
        inputs: bytes, text, numbers, and lists and objects of those.
        failure: the kind of error that must come (a `code` of blindai.errors); None if it must succeed.
    """

    topic: str
    slug: str
    title: str
    spec: str
    operation: str
    covers: tuple[str, ...]
    inputs: Mapping[str, Any]
    failure: str | None = None


def base64url(data: bytes) -> str:
    """RFC 4648 §5 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def compact(value: Any) -> bytes:
    """JSON, compact and sorted."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def encode(value: Any) -> Any:
    """Bytes become text with a prefix, at every depth."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _encode_bytes(bytes(value))
    if isinstance(value, dict):
        return {name: encode(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(member) for member in value]
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if isinstance(value, str):
        return _decode_text(value)
    if isinstance(value, dict):
        return {name: decode(member) for name, member in value.items()}
    if isinstance(value, list):
        return [decode(member) for member in value]
    return value


def case_toml(case: Case) -> str:
    """The text of `case.toml`."""
    outcome = f'outcome = "failure"\nfailure = "{case.failure}"' if case.failure else 'outcome = "ok"'
    lines = [
        f"title = {_toml(case.title)}",
        f"spec = {_toml(case.spec)}",
        f"operation = {_toml(case.operation)}",
        f"covers = {_toml(list(case.covers))}",
        outcome,
        "",
        "[inputs]",
        *(f"{name} = {_toml(value)}" for name, value in encode(dict(case.inputs)).items()),
    ]
    return "\n".join(lines) + "\n"


def expected_json(expected: Mapping[str, Any]) -> str:
    """The text of `expected.json`."""
    return json.dumps(encode(dict(expected)), indent=2, ensure_ascii=False) + "\n"


def read_vectors(root: Path) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Every vector under `root`, with its decoded expected values, in the order of their names."""
    for path in sorted(root.glob("*/*/case.toml")):
        text = tomllib.loads(path.read_text(encoding="utf-8"))
        case = Case(
            topic=path.parts[-3],
            slug=path.parts[-2],
            title=text["title"],
            spec=text["spec"],
            operation=text["operation"],
            covers=tuple(text["covers"]),
            inputs=decode(text["inputs"]),
            failure=text.get("failure"),
        )
        yield case, decode(json.loads((path.parent / "expected.json").read_text(encoding="utf-8")))


def _encode_bytes(data: bytes) -> str:
    if data[:1] == b"{" and data.isascii() and data.decode("ascii").isprintable():
        return "utf8:" + data.decode("ascii")
    if len(data) <= MAX_HEX_BYTES:
        return "hex:" + data.hex()
    return "base64url:" + base64url(data)


def _decode_text(text: str) -> str | bytes:
    prefix, found, rest = text.partition(":")
    if found and prefix == "hex":
        return bytes.fromhex(rest)
    if found and prefix == "base64url":
        return base64.urlsafe_b64decode(rest + "=" * (-len(rest) % 4))
    if found and prefix == "utf8":
        return rest.encode()
    return text


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        plain = value.isprintable() and "'" not in value
        return f"'{value}'" if plain and '"' in value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(member) for member in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(member)}" for name, member in value.items()) + " }"
    raise TypeError(f"{type(value).__name__} has no place in a case")
