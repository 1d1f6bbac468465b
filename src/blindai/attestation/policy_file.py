"""Reads a policy file table by table, so that every complaint names the line (docs/spec/policy.md §1).

Leaves out: which tables and fields there are (policy.py, and tee/ for each TEE's own table).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from blindai.attestation.policy_lines import line_of
from blindai.errors import InvalidPolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Value = TypeVar("_Value")
_SYNTAX_LINE = re.compile(r"at line (\d+)")
_WORD_BITS = 64


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
        path: the table's keys from the top; a number chooses one of an array of tables.
        members: what stands in it.
        inherited: for each field that comes from elsewhere (a preset, a manifest), from where.
    """

    source: str
    text: str = field(repr=False)
    path: tuple[str | int, ...]
    members: Mapping[str, Any] = field(repr=False)
    inherited: Mapping[str, str] = field(default_factory=dict, repr=False)

    def error(self, problem: str, key: str | None = None) -> InvalidPolicyError:
        """A complaint about this table, or about the field `key` of it."""
        path = self.path if key is None else (*self.path, key)
        names = ".".join(name for name in path if isinstance(name, str))
        what = f"`{names}`" if names else "the policy"
        source = None if key is None else self.inherited.get(key)
        origin = f" (from {source})" if source else ""
        return InvalidPolicyError(f"{self.source}, line {line_of(self.text, path)}: {what}{origin} {problem}")

    def require_keys(self, *required: str, optional: tuple[str, ...] = ()) -> None:
        """Exactly these fields; a field that is not set and one that nobody knows are both errors.

        Raises:
            InvalidPolicyError: so it is not.
        """
        for key in self.members:
            if key not in required + optional:
                raise self.error(f"is not known here; known are {', '.join(required + optional)}", key)
        for key in required:
            if key not in self.members:
                raise self.error(f"does not set `{key}`, and a policy leaves nothing open")

    def require_version_1(self, what: str) -> None:
        """The file says `version = 1`.

        Raises:
            InvalidPolicyError: it does not.
        """
        version = self.members.get("version")
        if type(version) is not int or version != 1:  # `true` is not a version
            raise self.error(f"must be 1: this release reads {what} of version 1", "version")

    def with_defaults(self, defaults: Mapping[str, Any], origin: str = "the preset") -> Section:
        """This table, with what it does not set taken from a preset's, or from what else `origin` names."""
        inherited = {**dict.fromkeys(defaults.keys() - self.members.keys(), origin), **self.inherited}
        return replace(self, members={**defaults, **self.members}, inherited=inherited)

    def without(self, *keys: str) -> Section:
        """This table without these fields."""
        return replace(self, members={key: value for key, value in self.members.items() if key not in keys})

    def section(self, key: str) -> Section:
        """The table under `key`.

        Raises:
            InvalidPolicyError: it is not a table.
        """
        if not isinstance(self.members[key], dict):
            raise self.error("must be a table", key)
        return self._inside(self.members[key], key)

    def sections(self, key: str) -> tuple[Section, ...]:
        """The tables of the array under `key`, at least one.

        Raises:
            InvalidPolicyError: it is not an array of tables, or has none.
        """
        tables = self.members[key]
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise self.error("must be at least one table", key)
        return tuple(self._inside(table, key, index) for index, table in enumerate(tables))

    def _inside(self, members: Mapping[str, Any], key: str, *index: int) -> Section:
        """A table inside this one; what is said of it names the place that it was inherited from, too."""
        origin = self.inherited.get(key)
        inherited = {} if origin is None else dict.fromkeys(members, origin)
        return replace(self, path=(*self.path, key, *index), members=members, inherited=inherited)

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
        return Skip(reason=self.line("skip", "the reason, on one line"))

    def line(self, key: str, form: str = "a text, on one line") -> str:
        """The text under `key`.

        Raises:
            InvalidPolicyError: it is no text, has nothing in it, or has what cannot be printed.
        """
        value = self.members[key]
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise self.error(f"must be {form}", key)
        return value

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
        InvalidPolicyError: not TOML, or a number of more than 64 bits; the message names the line where it can.
    """
    try:
        members = tomllib.loads(text)
        _require_words(members)
    except (ValueError, RecursionError) as error:
        found = _SYNTAX_LINE.search(str(error))
        line = int(found[1]) if found else len(text.splitlines())
        raise InvalidPolicyError(f"{source}, line {line}: not TOML: {error}") from None
    return Section(source=source, text=text, path=(), members=members)


def _require_words(value: object) -> None:
    """TOML 1.0, "Integer": 64 bits. `tomllib` takes more in hexadecimal digits, and Python prints no such number."""
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            _require_words(member)
    elif isinstance(value, int) and value.bit_length() > _WORD_BITS:
        raise ValueError(f"a number of {value.bit_length()} bits")


def hex_digest(value: object) -> bytes:
    """32 bytes in 64 lower-case hexadecimal digits.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("expected 64 lower-case hexadecimal digits")
    return bytes.fromhex(value)
