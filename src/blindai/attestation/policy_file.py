"""Reads a policy file table by table, so that every complaint names the line (docs/spec/policy.md §1).

Leaves out: which tables and fields there are (policy.py, and tee/ for each TEE's own table).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from blindai.errors import InvalidPolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Value = TypeVar("_Value")
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?\Z")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_SYNTAX_LINE = re.compile(r"at line (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A check that the policy leaves out on purpose, with the reason that every result repeats."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TeePolicy:
    """What a policy accepts of one TEE; one subclass per TEE.

    Attributes:
        track: codes of checks that are made and shown, and refuse nothing when they fail.
    """

    tee: str
    track: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table of a policy file.

    Attributes:
        source: the file's name, for messages.
        path: the table's keys from the top.
        members: what stands in it.
    """

    source: str
    text: str = field(repr=False)
    path: tuple[str, ...]
    members: Mapping[str, Any] = field(repr=False)

    def error(self, problem: str, *keys: str) -> InvalidPolicyError:
        """A complaint about this table, or about the field that `keys` lead to."""
        path = (*self.path, *keys)
        what = f"`{'.'.join(path)}`" if path else "the policy"
        return InvalidPolicyError(f"{self.source}, line {line_of(self.text, path)}: {what} {problem}")

    def require_keys(self, *required: str) -> None:
        """Exactly these fields; a field that is not set and one that nobody knows are both errors.

        Raises:
            InvalidPolicyError: so it is not.
        """
        for key in self.members:
            if key not in required:
                raise self.error(f"is not known here; known are {', '.join(required)}", key)
        for key in required:
            if key not in self.members:
                raise self.error(f"does not set `{key}`, and a policy leaves nothing open")

    def with_defaults(self, defaults: Mapping[str, Any]) -> Section:
        """This table, with what it does not set taken from a preset's."""
        return replace(self, members={**defaults, **self.members})

    def section(self, key: str) -> Section:
        """The table under `key`.

        Raises:
            InvalidPolicyError: it is not a table.
        """
        if not isinstance(self.members[key], dict):
            raise self.error("must be a table", key)
        return Section(source=self.source, text=self.text, path=(*self.path, key), members=self.members[key])

    def skip_instead_of(self, key: str) -> Skip | None:
        """The reason if the table says `skip`, or None if it sets `key`; it does exactly one of both.

        Raises:
            InvalidPolicyError: so it is not, or the reason is empty.
        """
        if "skip" not in self.members and key not in self.members:
            raise self.error(f'sets neither `{key}` nor `skip = "reason"`, and a policy leaves nothing open')
        if "skip" in self.members:
            return self.skip()
        self.require_keys(key)
        return None

    def skip(self) -> Skip:
        """The reason in a table that says `skip` and nothing else.

        Raises:
            InvalidPolicyError: so it is not, or the reason is empty.
        """
        self.require_keys("skip")
        reason = self.members["skip"]
        if not isinstance(reason, str) or not reason.strip() or not reason.isprintable():
            raise self.error("must be the reason, on one line", "skip")
        return Skip(reason=reason)

    def boolean(self, key: str) -> bool:
        """True or false under `key`.

        Raises:
            InvalidPolicyError: it is neither.
        """
        value = self.members[key]
        if not isinstance(value, bool):
            raise self.error("must be true or false", key)
        return value

    def choice(self, key: str, choices: Mapping[str, _Value]) -> _Value:
        """What the text under `key` stands for.

        Raises:
            InvalidPolicyError: it is none of the choices.
        """
        value = self.members[key]
        if not isinstance(value, str) or value not in choices:
            raise self.error(f"must be one of {', '.join(choices)}", key)
        return choices[value]

    def byte_strings(self, key: str, decode: Callable[[object], bytes], form: str) -> tuple[bytes, ...]:
        """The texts under `key`, decoded.

        Raises:
            InvalidPolicyError: it is not a list, has no member, or `decode` refuses one with ValueError.
        """
        values = self.members[key]
        if not isinstance(values, list) or not values:
            raise self.error(f"must be a list of at least one {form}", key)
        try:
            return tuple(decode(value) for value in values)
        except ValueError:
            raise self.error(f"must be a list of {form}", key) from None


def open_policy(text: str, *, source: str) -> Section:
    """The whole file as its outermost table.

    Raises:
        InvalidPolicyError: not TOML; the message names the line.
    """
    try:
        members = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = _SYNTAX_LINE.search(str(error))
        line = int(found[1]) if found else len(text.splitlines())
        raise InvalidPolicyError(f"{source}, line {line}: not TOML: {error}") from None
    return Section(source=source, text=text, path=(), members=members)


def hex_digest(value: object) -> bytes:
    """32 bytes in 64 lower-case hexadecimal digits.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("expected 64 lower-case hexadecimal digits")
    return bytes.fromhex(value)


def line_of(text: str, path: tuple[str, ...]) -> int:
    """The line that names `path`, or as much of it as any line does; 1 if none does."""
    table: tuple[str, ...] = ()
    best, best_line = 0, 1
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            named = table = _keys(header[1])
        elif key := _KEY.match(line):
            named = (*table, *_keys(key[1]))
        else:
            continue
        common = len(_common(named, path))
        if common > best and common in {len(named), len(path)}:
            best, best_line = common, number
    return best_line


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(key.strip().strip("\"'") for key in dotted.split("."))


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return one[:index]
    return one[: len(other)]
