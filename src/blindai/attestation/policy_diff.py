"""What one policy accepts and another does not (docs/reference/cli.md, `blindai policy diff`).

Fields are compared by what their values mean: of lists, what the other has not; of minimums, the lower. A value whose
kind is not known counts as accepting more on both sides, so that nothing that differs is passed over.
An alternative is compared with the one of the other policy that comes closest, so a difference may be shown that two
alternatives together do not make; none is ever left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.evidence import Level
from blindai.attestation.policy_file import Skip
from blindai.attestation.policy_release import Release
from blindai.attestation.policy_view import alternative_name, general_fields, runtime_fields, tee_fields, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.policy import Policy
    from blindai.attestation.policy_file import TeePolicy

# Numbers of which more accepts more, and of which less does, as their names say.
_AT_MOST = re.compile(r"max_\w+|\w+_(grace|age)_s")
_AT_LEAST = re.compile(r"minimum\w*|\w*svn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wider:
    """One place at which a policy accepts more than another, and what."""

    place: str
    accepts: str


def wider(policy: Policy, other: Policy) -> tuple[Wider, ...]:
    """What `policy` accepts and `other` does not."""
    return (
        *_wider_simulation(policy, other),
        *_wider_fields(general_fields(policy), general_fields(other)),
        *_wider_runtime(policy, other),
        *_wider_tees(policy, other),
    )


def _wider_simulation(policy: Policy, other: Policy) -> Iterator[Wider]:
    if policy.insecure_simulation and not other.insecure_simulation:
        yield Wider(place="insecure_simulation", accepts="evidence that anybody can make")


def _wider_fields(mine: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> Iterator[Wider]:
    for place, value in mine.items():
        more = _more(place, value, theirs[place]) if place in theirs else _more_than_nothing(value)
        if more:
            yield Wider(place=prefix + place, accepts=more)


def _wider_runtime(policy: Policy, other: Policy) -> Iterator[Wider]:
    """A demand that only the other makes leaves this one open to anything."""
    if isinstance(other.runtime, Skip):
        return
    mine = {} if isinstance(policy.runtime, Skip) else runtime_fields(policy)
    for place, accepted in runtime_fields(other).items():
        more = "anything" if place not in mine else _more_demanded(mine[place], accepted)
        if more:
            yield Wider(place=place, accepts=more)


def _wider_tees(policy: Policy, other: Policy) -> Iterator[Wider]:
    for number, tees in enumerate(policy.any_of, start=1):
        prefix = alternative_name(policy, number)
        alike = [theirs for theirs in other.any_of if _names(theirs) == _names(tees)]
        if not alike:
            yield Wider(place=f"{prefix}tee", accepts=f"evidence of exactly {', '.join(_names(tees))}")
            continue
        yield from min((tuple(_wider_alternative(tees, theirs, prefix)) for theirs in alike), key=len)


def _names(tees: tuple[TeePolicy, ...]) -> list[str]:
    return sorted(tee.tee for tee in tees)


def _wider_alternative(mine: tuple[TeePolicy, ...], theirs: tuple[TeePolicy, ...], prefix: str) -> Iterator[Wider]:
    by_name = {tee.tee: tee for tee in theirs}
    for tee in mine:
        yield from _wider_fields(tee_fields(tee), tee_fields(by_name[tee.tee]), prefix)
        for code in sorted(tee.track - by_name[tee.tee].track):
            yield Wider(place=prefix + code, accepts="what fails this check")


def _more(place: str, mine: Any, theirs: Any) -> str:
    """What `mine` accepts and `theirs` does not, in words; nothing if there is no such thing."""
    if isinstance(theirs, Skip):
        return ""
    if _are(Level, mine, theirs) or _are(Release, mine, theirs):
        return f"{text_of(mine)} and up" if mine < theirs else ""
    if type(mine) is int and type(theirs) is int:
        return _more_number(place.rpartition(".")[2], mine, theirs)
    if _are_lists(mine, theirs):
        return _more_values(mine, theirs)
    is_same = mine == theirs and type(mine) is type(theirs)
    return "" if is_same else text_of(mine)


def _more_than_nothing(mine: Any) -> str:
    """A table that is skipped as a whole stands where the other one's fields stand one by one."""
    return text_of(mine) if isinstance(mine, Skip) else ""


def _more_number(name: str, mine: int, theirs: int) -> str:
    if _AT_MOST.fullmatch(name):
        return f"{mine} and less" if mine > theirs else ""
    if _AT_LEAST.fullmatch(name):
        return f"{mine} and up" if mine < theirs else ""
    return str(mine) if mine != theirs else ""


def _are(kind: type, *values: Any) -> bool:
    return all(isinstance(value, kind) for value in values)


def _are_lists(*values: Any) -> bool:
    """Whether these list what is accepted, one text or digest each; numbers may be positions that must all be there."""
    lists = all(isinstance(value, tuple | frozenset) for value in values)
    return lists and all(isinstance(one, bytes | str) for value in values for one in value)


def _more_values(mine: Any, theirs: Any) -> str:
    """Of two lists of what is accepted, what the first alone has."""
    known = {(type(value), value) for value in theirs}
    more = tuple(value for value in mine if (type(value), value) not in known)
    return text_of(more) if more else ""


def _more_demanded(mine: Any, theirs: Any) -> str:
    """The same of a demand on the runtime policy, where an empty list accepts an empty list."""
    return "an empty list" if theirs and not mine else _more_values(mine, theirs)
