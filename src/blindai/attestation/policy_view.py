"""A policy as rules that a person reads: what is enforced, only tracked, or skipped, and with what reason.

It looks at values alone, so that a TEE's table needs nothing more than its dataclass to be shown.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.evidence import Level
from blindai.attestation.policy_file import Skip, TeePolicy
from blindai.attestation.policy_release import Release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.policy import Policy

_NO_RULES = frozenset({"tee", "track"})


class Force(enum.StrEnum):
    """What a rule does to evidence that does not meet it."""

    ENFORCED = "enforced"
    TRACKED = "tracked"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of what a policy says.

    Attributes:
        place: where it stands in the file, or the code of the check that is only tracked.
        accepts: what it accepts, or the reason for which it is skipped.
    """

    place: str
    force: Force
    accepts: str


def rules(policy: Policy) -> Iterator[Rule]:
    """Everything that a policy says, in the order of the file."""
    yield _rule("insecure_simulation", policy.insecure_simulation)
    for place, value in (*general_fields(policy).items(), *runtime_fields(policy).items()):
        yield _rule(place, value)
    for number, tees in enumerate(policy.any_of, start=1):
        prefix = alternative_name(policy, number)
        for tee in tees:
            for place, value in tee_fields(tee).items():
                yield _rule(prefix + place, value)
            for code in sorted(tee.track):
                yield Rule(place=prefix + code, force=Force.TRACKED, accepts="shown when it fails, and refuses nothing")


def alternative_name(policy: Policy, number: int) -> str:
    """What stands before the fields of an alternative, counted from 1; nothing if there is just one."""
    return f"any_of {number}: " if len(policy.any_of) > 1 else ""


def general_fields(policy: Policy) -> dict[str, Any]:
    """The fields that are about no TEE and no runtime, by their place in the file."""
    return {
        "level.minimum": policy.minimum_level,
        "release.minimum": policy.release,
        "operator.public_keys": policy.operator,
    }


def runtime_fields(policy: Policy) -> dict[str, Any]:
    """The demands on the runtime policy, by their place in the file."""
    if isinstance(policy.runtime, Skip):
        return {"runtime.require": policy.runtime}
    return {f"runtime.require.{'.'.join(one.path)}": one.accepted for one in policy.runtime}


def tee_fields(tee: TeePolicy) -> dict[str, Any]:
    """A TEE's fields, by their place in the file."""
    return dict(_fields(tee, f"tee.{tee.tee}"))


def _fields(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass and of those inside it; a mapping `flags` has fields of the table, one by one."""
    for field in dataclasses.fields(value):
        member = getattr(value, field.name)
        inside = f"{place}.{field.name}"
        if field.name in _NO_RULES:
            continue
        if field.name == "flags" and isinstance(member, Mapping):
            yield from ((f"{place}.{name}", one) for name, one in member.items())
            continue
        if dataclasses.is_dataclass(member) and not isinstance(member, Skip):
            yield from _fields(member, inside)
        else:
            yield inside, member


def _rule(place: str, value: Any) -> Rule:
    if isinstance(value, Skip):
        return Rule(place=place, force=Force.SKIPPED, accepts=value.reason)
    return Rule(place=place, force=Force.ENFORCED, accepts=text_of(value))


def text_of(value: Any) -> str:
    """A value as it would stand in the file, or close to that."""
    match value:
        case bool():
            text = "true" if value else "false"
        case Level() | Release():
            text = value.text
        case Skip():
            text = f"anything ({value.reason})"
        case bytes():
            text = value.hex()
        case _:
            text = _text_of_many(value)
    return text


def _text_of_many(value: Any) -> str:
    match value:
        case Mapping():
            text = ", ".join(f"{text_of(key)} = {text_of(member)}" for key, member in value.items()) or "none"
        case tuple() | list():
            text = ", ".join(map(text_of, value)) or "none"
        case AbstractSet():
            text = ", ".join(sorted(map(text_of, value))) or "none"
        case _ if dataclasses.is_dataclass(value):
            text = " ".join(f"{name.rpartition('.')[2]}={text_of(member)}" for name, member in _fields(value, ""))
        case _:
            text = str(value)
    return text
