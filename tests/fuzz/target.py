"""What a fuzz target is: a parser, what it may raise, and inputs to begin with (docs/audits/, `make test-fuzz`).

One input may have several parts (evidence and its endorsements); they are separated by a mark that does not depend on
lengths, so that a fuzzer may insert and remove bytes in one part without moving the next.
Leaves out: the parsers (targets.py), and who draws the inputs (__main__.py with atheris, mutations.py without).
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindai.errors import BlindAIError
from blindai.wire import base64url_decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

VECTORS = Path(__file__).parents[2] / "vectors"
MARK = b"\0=part=\0"
REFUSALS: tuple[type[Exception], ...] = (BlindAIError,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser under hostile input.

    Attributes:
        run: takes any bytes, returns or raises one of `refuses`; anything else is a finding.
        seeds: inputs that the parser accepts, or that reach far into it; made when asked for.
        refuses: what the parser is documented to raise.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    refuses: tuple[type[Exception], ...] = REFUSALS


def accepts(target: Target, data: bytes) -> bool:
    """Run the target once: true if the parser took the bytes, false if it refused them as it says it does."""
    try:
        target.run(data)
    except target.refuses:
        return False
    return True


def join_parts(*parts: bytes) -> bytes:
    """One input of several parts."""
    return MARK.join(parts)


def split_parts(data: bytes, count: int) -> list[bytes]:
    """Exactly `count` parts: what is missing is empty, and what is too much stays in the last one."""
    parts = data.split(MARK, count - 1)
    return parts + [b""] * (count - len(parts))


@functools.cache
def vector_inputs(topic: str, operation: str, name: str) -> tuple[Any, ...]:
    """An input of each of the project's vectors for an operation, decoded."""
    return tuple(_vector_inputs(topic, operation, name))


def _vector_inputs(topic: str, operation: str, name: str) -> Iterator[Any]:
    for path in sorted((VECTORS / topic).glob("*/case.toml")):
        case = tomllib.loads(path.read_text("utf-8"))
        if case["operation"] == operation and name in case["inputs"]:
            yield _decoded(case["inputs"][name])


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, str):
        return value
    form, colon, text = value.partition(":")
    decode: dict[str, Callable[[str], bytes]] = {
        "hex": bytes.fromhex,
        "utf8": str.encode,
        "base64url": base64url_decode,
    }
    return decode[form](text) if colon and form in decode else value
