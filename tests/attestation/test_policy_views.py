"""Policies as people see them: every rule shown once, and every difference between two found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from blindai.attestation.evidence import Level
from blindai.attestation.policy import Policy
from blindai.attestation.policy_diff import wider
from blindai.attestation.policy_file import Skip, TeePolicy
from blindai.attestation.policy_release import parse_release
from blindai.attestation.policy_runtime import RuntimeRequirement
from blindai.attestation.policy_view import Force, rules

SKIP = Skip(reason="why not")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    svn: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUp(TeePolicy):
    """A TEE's table with a field of each kind that there is."""

    tee: str = "made_up"
    values: tuple[bytes, ...] | Skip = (b"\xaa", b"\xbb")
    names: frozenset[str] | Skip = frozenset({"x", "y"})
    debug: bool | Skip = False
    minimum: int | Skip = 5
    level: int | Skip = 0
    max_restarts: int | Skip = 2
    numbers: tuple[int, ...] = (1,)
    flags: Any = field(default_factory=lambda: {"smt": True})
    revocation_grace_s: int | Skip = 60
    inner: Inner | Skip = Inner()
    table: Any = field(default_factory=lambda: {4: (b"\xcc",)})
    rows: Any = (Inner(svn=1),)
    version: Any = None


def policy(*tees: TeePolicy, **changes: Any) -> Policy:
    base = Policy(
        source="p",
        insecure_simulation=False,
        minimum_level=Level.CACHED,
        operator=(b"\1" * 32,),
        runtime=(RuntimeRequirement(path=("limits", "max_models"), accepted=(8,)),),
        any_of=((tees or (MadeUp(),)),),
        release=parse_release("1.2.0"),
    )
    return replace(base, **changes)


def shown(one: Policy) -> list[tuple[str, str, str]]:
    return [(rule.force.value, rule.place, rule.accepts) for rule in rules(one)]


def test_every_rule_is_shown() -> None:
    tee = MadeUp(track=frozenset({"made_up.debug"}), debug=SKIP)
    assert shown(policy(tee)) == [
        ("enforced", "insecure_simulation", "false"),
        ("enforced", "level.minimum", "cached"),
        ("enforced", "release.minimum", "1.2.0"),
        ("enforced", "operator.public_keys", "01" * 32),
        ("enforced", "runtime.require.limits.max_models", "8"),
        ("enforced", "tee.made_up.values", "aa, bb"),
        ("enforced", "tee.made_up.names", "x, y"),
        ("skipped", "tee.made_up.debug", "why not"),
        ("enforced", "tee.made_up.minimum", "5"),
        ("enforced", "tee.made_up.level", "0"),
        ("enforced", "tee.made_up.max_restarts", "2"),
        ("enforced", "tee.made_up.numbers", "1"),
        ("enforced", "tee.made_up.smt", "true"),
        ("enforced", "tee.made_up.revocation_grace_s", "60"),
        ("enforced", "tee.made_up.inner.svn", "3"),
        ("enforced", "tee.made_up.table", "4 = cc"),
        ("enforced", "tee.made_up.rows", "svn=1"),
        ("enforced", "tee.made_up.version", "None"),
        ("tracked", "made_up.debug", "shown when it fails, and refuses nothing"),
    ]


def test_alternatives_are_numbered_and_skips_keep_their_reason() -> None:
    two = policy(any_of=((MadeUp(),), (MadeUp(inner=SKIP, values=(), names=frozenset(), table={}),)), runtime=SKIP)
    places = {place: (force, text) for force, place, text in shown(two)}
    assert places["runtime.require"] == (Force.SKIPPED, "why not")
    assert places["any_of 1: tee.made_up.values"] == (Force.ENFORCED, "aa, bb")
    assert places["any_of 2: tee.made_up.values"] == (Force.ENFORCED, "none")
    assert places["any_of 2: tee.made_up.names"] == (Force.ENFORCED, "none")
    assert places["any_of 2: tee.made_up.table"] == (Force.ENFORCED, "none")
    assert places["any_of 2: tee.made_up.inner"] == (Force.SKIPPED, "why not")


MANY = [f"made_up.{letter}" for letter in "abcdefghijklmnop"]  # so many that no set has them in order by chance


def test_sets_are_shown_in_order() -> None:
    texts = shown(policy(MadeUp(names=frozenset(MANY), track=frozenset(MANY))))
    assert [place for force, place, _ in texts if force == "tracked"] == MANY
    assert ("enforced", "tee.made_up.names", ", ".join(MANY)) in texts
    tracked = wider(policy(MadeUp(track=frozenset(MANY))), policy(MadeUp(track=frozenset(MANY[:1]))))
    assert [one.place for one in tracked] == MANY[1:]


def differences(changed: Policy, base: Policy | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """What the changed policy alone accepts, and what the other one alone does."""
    base = base or policy()
    return tuple({one.place: one.accepts for one in wider(*pair)} for pair in ((changed, base), (base, changed)))  # type: ignore[return-value]  # two of them


ANY = "anything (why not)"


@pytest.mark.parametrize(
    ("change", "gained", "lost"),
    [
        ({}, {}, {}),
        ({"values": (b"\xbb", b"\xaa")}, {}, {}),
        ({"values": (b"\xbb", b"\xdd")}, {"values": "dd"}, {"values": "aa"}),
        ({"values": SKIP}, {"values": ANY}, {}),
        ({"values": ()}, {}, {"values": "aa, bb"}),
        ({"names": frozenset({"x"})}, {}, {"names": "y"}),
        ({"debug": True}, {"debug": "true"}, {"debug": "false"}),
        ({"minimum": 4}, {"minimum": "4 and up"}, {}),
        ({"minimum": 6}, {}, {"minimum": "5 and up"}),
        ({"numbers": (1, 2)}, {"numbers": "1, 2"}, {"numbers": "1"}),
        ({"max_restarts": 3}, {"max_restarts": "3 and less"}, {}),
        ({"level": 1}, {"level": "1"}, {"level": "0"}),
        ({"flags": {"smt": SKIP}}, {"smt": ANY}, {}),
        ({"flags": SKIP}, {"flags": ANY}, {}),
        ({"revocation_grace_s": 61}, {"revocation_grace_s": "61 and less"}, {}),
        ({"revocation_grace_s": 0}, {}, {"revocation_grace_s": "60 and less"}),
        ({"inner": Inner(svn=2)}, {"inner.svn": "2 and up"}, {}),
        ({"table": {4: (b"\xdd",)}}, {"table": "4 = dd"}, {"table": "4 = cc"}),
        ({"rows": (Inner(svn=2),)}, {"rows": "svn=2"}, {"rows": "svn=1"}),
        ({"version": 1}, {"version": "1"}, {"version": "None"}),
        # Of kinds that cannot be compared, each counts as accepting what the other does not.
        ({"minimum": None}, {"minimum": "None"}, {"minimum": "5"}),
        ({"minimum": True}, {"minimum": "true"}, {"minimum": "5"}),
        ({"values": None}, {"values": "None"}, {"values": "aa, bb"}),
        ({"numbers": (1, "a")}, {"numbers": "1, a"}, {"numbers": "1"}),
    ],
)
def test_a_field_that_differs_is_found(change: dict[str, Any], gained: dict[str, str], lost: dict[str, str]) -> None:
    found = differences(policy(MadeUp(**change)))
    assert found == tuple({f"tee.made_up.{name}": text for name, text in one.items()} for one in (gained, lost))


def test_a_table_that_one_skips_whole_is_found() -> None:
    """Its fields stand in one of both alone."""
    gained, lost = differences(policy(MadeUp(inner=SKIP)))
    assert (gained, lost) == ({"tee.made_up.inner": ANY}, {})


@pytest.mark.parametrize(
    ("change", "gained", "lost"),
    [
        ({"minimum_level": Level.FRESH}, {}, {"level.minimum": "cached and up"}),
        ({"release": parse_release("1.1.0")}, {"release.minimum": "1.1.0 and up"}, {}),
        ({"release": SKIP}, {"release.minimum": ANY}, {}),
        ({"operator": SKIP}, {"operator.public_keys": ANY}, {}),
        ({"runtime": SKIP}, {"runtime.require.limits.max_models": "anything"}, {}),
        (
            {"runtime": (RuntimeRequirement(path=("telemetry",), accepted=(False,)),)},
            {"runtime.require.limits.max_models": "anything"},
            {"runtime.require.telemetry": "anything"},
        ),
        (
            {"runtime": (RuntimeRequirement(path=("limits", "max_models"), accepted=()),)},
            {"runtime.require.limits.max_models": "an empty list"},
            {"runtime.require.limits.max_models": "8"},
        ),
        (
            {"runtime": (RuntimeRequirement(path=("limits", "max_models"), accepted=("8", 8)),)},
            {"runtime.require.limits.max_models": "8"},
            {},
        ),
        (
            {"any_of": ((MadeUp(track=frozenset({"made_up.debug"})),),)},
            {"made_up.debug": "what fails this check"},
            {},
        ),
        (
            {"any_of": ((MadeUp(), MadeUp(tee="other")),)},
            {"tee": "evidence of exactly made_up, other"},
            {"tee": "evidence of exactly made_up"},
        ),
        ({"any_of": ()}, {}, {"tee": "evidence of exactly made_up"}),
        ({"runtime": (RuntimeRequirement(path=("limits", "max_models"), accepted=(8, 8)),)}, {}, {}),
        ({"any_of": ((MadeUp(minimum=9),), (MadeUp(),))}, {}, {}),
        (
            {"any_of": ((MadeUp(),), (MadeUp(minimum=9, values=(b"\xee",)),))},
            {"any_of 2: tee.made_up.values": "ee"},
            {},
        ),
    ],
)
def test_a_rule_that_differs_is_found(change: dict[str, Any], gained: dict[str, str], lost: dict[str, str]) -> None:
    assert differences(policy(**change)) == (gained, lost)


def test_the_order_of_tees_is_no_difference() -> None:
    one, other = MadeUp(), MadeUp(tee="other", minimum=6)
    assert differences(policy(one, other), policy(other, one)) == ({}, {})


def test_kinds_that_are_equal_to_python_alone_differ() -> None:
    gained, lost = differences(policy(MadeUp(version=True)), policy(MadeUp(version=1)))
    assert (gained, lost) == ({"tee.made_up.version": "true"}, {"tee.made_up.version": "1"})


def test_two_demands_for_an_empty_list_are_one() -> None:
    models = policy(runtime=(RuntimeRequirement(path=("models",), accepted=()),))
    assert differences(models, models) == ({}, {})
    one = policy(runtime=(RuntimeRequirement(path=("models",), accepted=("a",)),))
    assert differences(models, one) == ({"runtime.require.models": "an empty list"}, {"runtime.require.models": "a"})


def test_accepting_a_simulation_is_a_difference() -> None:
    from blindai.attestation.policy import insecure_simulation_policy, strict_policy

    gained, lost = differences(insecure_simulation_policy(), strict_policy())
    assert gained == {"insecure_simulation": "evidence that anybody can make", "tee": "evidence of exactly simulation"}
    assert lost == {}
    assert differences(insecure_simulation_policy(), insecure_simulation_policy()) == ({}, {})
