"""What a relying party accepts: policy files, presets, and the demands on the runtime policy (docs/spec/policy.md).

Nothing is left open: a field that is not set is an error, and leaving a check out is spelled `skip = "reason"`.
Leaves out: each TEE's own table (tee/), the decision (appraise.py), and the admission by an operator (channel).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.evidence import Level
from blindai.attestation.policy_file import Skip, TeePolicy, open_policy
from blindai.attestation.tee import TEES
from blindai.attestation.tee.simulation import SimulationPolicy
from blindai.errors import InvalidPolicyError
from blindai.wire import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section

MAX_POLICY_BYTES = 1 << 20
_MINIMUM_LEVELS = {level.text: level for level in (Level.PINNED_TLS, Level.CACHED, Level.FRESH)}
_MEMBER = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")

Scalar = bool | int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRequirement:
    """Values that the policy accepts for one member of the attested runtime policy.

    Attributes:
        path: the member's name; two names if it stands in an object of its own, such as `limits`.
        accepted: any of these; if there is none, an empty list and nothing else.
    """

    path: tuple[str, ...]
    accepted: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a relying party accepts.

    Attributes:
        source: where it comes from, for messages.
        insecure_simulation: whether simulated evidence, which protects nothing, is accepted.
        minimum_level: the lowest level; simulation waives it.
        operator: Ed25519 public keys, one of which must have admitted the instance.
        runtime: demands on the attested runtime policy.
        any_of: alternatives, one of which must be met: each names exactly the TEEs that must show evidence, and what
            is accepted of each.
    """

    source: str
    insecure_simulation: bool
    minimum_level: Level
    operator: tuple[bytes, ...] | Skip
    runtime: tuple[RuntimeRequirement, ...] | Skip
    any_of: tuple[tuple[TeePolicy, ...], ...]

    def __post_init__(self) -> None:
        simulation = any(tee.tee == "simulation" for tees in self.any_of for tee in tees)
        if simulation and not self.insecure_simulation:
            raise InvalidPolicyError("`tee.simulation` is accepted only beside `insecure_simulation = true`")
        if self.insecure_simulation and not simulation:
            raise InvalidPolicyError("`insecure_simulation = true` needs the table `tee.simulation`")

    @property
    def operator_keys(self) -> tuple[bytes, ...] | None:
        """The operators' keys, or None if the policy skips that check."""
        return None if isinstance(self.operator, Skip) else self.operator


def strict_policy() -> Policy:
    """The preset `strict`: it names no TEE, so it accepts nothing; the refusal says what to do."""
    reason = "strict has no reference values, so it accepts nobody anyway"
    return Policy(
        source="strict",
        insecure_simulation=False,
        minimum_level=Level.FRESH,
        operator=Skip(reason=reason),
        runtime=Skip(reason=reason),
        any_of=(),
    )


def insecure_simulation_policy() -> Policy:
    """The preset `insecure-simulation`: accepts any simulated server, and so protects nothing."""
    return Policy(
        source="insecure-simulation",
        insecure_simulation=True,
        minimum_level=Level.FRESH,
        operator=Skip(reason="insecure_simulation: nobody operates a simulation"),
        runtime=Skip(reason="insecure_simulation: a simulated server can break every promise"),
        any_of=((SimulationPolicy(measurement=Skip(reason="insecure_simulation: anybody can sign any measurement")),),),
    )


PRESETS: dict[str, Callable[[], Policy]] = {
    "strict": strict_policy,
    "insecure-simulation": insecure_simulation_policy,
}


def load_policy(path_or_preset: str | Path) -> Policy:
    """The preset of that name, or the policy in that file; a `Path` is always a file.

    Raises:
        InvalidPolicyError: no such preset or file, or the file is not a policy.
    """
    if isinstance(path_or_preset, str) and path_or_preset in PRESETS:
        return PRESETS[path_or_preset]()
    path = Path(path_or_preset)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8"
        hint = f"a policy is a TOML file, or one of the presets {', '.join(PRESETS)}"
        raise InvalidPolicyError(f"{path}: cannot be read as a policy: {problem}", hint=hint) from None
    if len(data) > MAX_POLICY_BYTES:
        raise InvalidPolicyError(f"{path}: a policy has at most {MAX_POLICY_BYTES} bytes")
    return parse_policy(text, source=str(path))


def parse_policy(text: str, *, source: str) -> Policy:
    """Read a policy file.

    Args:
        text: TOML.
        source: its name, for messages.

    Raises:
        InvalidPolicyError: anything but exactly a version 1 policy; the message names the line.
    """
    root = open_policy(text, source=source)
    if not _is_version_1(root.members.get("version")):
        raise root.error("must be 1: this release reads policies of version 1", "version")
    root.require_keys("version", "insecure_simulation", "operator", "level", "runtime", "tee")
    level = root.section("level")
    level.require_keys("minimum")
    accepts_simulation = root.boolean("insecure_simulation")
    minimum_level = level.choice("minimum", _MINIMUM_LEVELS)
    operator = _parse_operator(root.section("operator"))
    runtime = _parse_runtime(root.section("runtime"))
    tees = _parse_tees(root.section("tee"))
    try:
        return Policy(
            source=source,
            insecure_simulation=accepts_simulation,
            minimum_level=minimum_level,
            operator=operator,
            runtime=runtime,
            any_of=(tees,),
        )
    except InvalidPolicyError as error:
        raise root.error(f"does not fit the rest: {error}", "insecure_simulation") from None


def _is_version_1(value: object) -> bool:
    return type(value) is int and value == 1  # `true` is not a version


def _parse_operator(section: Section) -> tuple[bytes, ...] | Skip:
    skip = section.skip_instead_of("public_keys")
    return skip or section.byte_strings("public_keys", _operator_key, "Ed25519 public keys in base64url")


def _operator_key(value: object) -> bytes:
    return exact_bytes(value, 32)


def _parse_tees(section: Section) -> tuple[TeePolicy, ...]:
    for name in section.members:
        if name not in TEES:
            raise section.error(f"is no TEE that this release can verify; it can verify {', '.join(TEES)}", name)
    if not section.members:
        raise section.error(f"names no TEE, so nothing could be accepted; known are {', '.join(TEES)}")
    return tuple(TEES[name].parse_policy(section.section(name)) for name in section.members)


def _parse_runtime(section: Section) -> tuple[RuntimeRequirement, ...] | Skip:
    skip = section.skip_instead_of("require")
    if skip:
        return skip
    require = section.section("require")
    if not require.members:
        raise section.error('demands nothing; say so with `skip = "reason"`', "require")
    return tuple(_parse_requirements(require, ()))


def _parse_requirements(section: Section, parents: tuple[str, ...]) -> Iterator[RuntimeRequirement]:
    for name, value in section.members.items():
        if not _MEMBER.match(name):
            raise section.error("is not the name of a runtime member", name)
        if isinstance(value, dict) and not parents and value:
            yield from _parse_requirements(section.section(name), (name,))
        else:
            yield RuntimeRequirement(path=(*parents, name), accepted=_parse_accepted(section, name, value))


def _parse_accepted(section: Section, name: str, value: object) -> tuple[Scalar, ...]:
    values = value if isinstance(value, list) else [value]
    for accepted in values:
        if not isinstance(accepted, bool | int | str):
            raise section.error("must be true, false, a whole number, a text, or a list of these", name)
    return tuple(values)


def check_runtime(policy: Policy, runtime: Mapping[str, object]) -> Iterator[Finding]:
    """Compare the keyset's runtime object with what the policy demands: one finding per demand, none if skipped.

    A member that is a list passes if it has values and each is accepted, or if it is empty and `[]` was demanded; one
    that is not there fails.
    """
    if isinstance(policy.runtime, Skip):
        return
    for requirement in policy.runtime:
        found = _member(runtime, requirement.path)
        yield judge(
            holds=_is_accepted(found, requirement.accepted),
            code=f"runtime.{'.'.join(requirement.path)}",
            expected=f"one of {_texts(requirement.accepted)}" if requirement.accepted else "an empty list",
            found="no such member" if found is None else _texts(found if isinstance(found, list) else [found]),
            why="An operator can set this, and the attested software keeps to it.",
            hint="ask the operator for another configuration, or change `runtime.require` in the policy",
        )


def _member(runtime: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = runtime
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _is_accepted(found: object, accepted: tuple[Scalar, ...]) -> bool:
    values = found if isinstance(found, list) else [found]
    if not values or not accepted:
        return not values and not accepted
    return all(any(type(value) is type(other) and value == other for other in accepted) for value in values)


def _texts(values: Any) -> str:
    return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values) or "nothing"


def skipped_checks(policy: Policy) -> Iterator[Finding]:
    """The checks outside the evidence that the policy leaves out, so that every result names them."""
    if isinstance(policy.operator, Skip):
        yield leave_out(
            code="operator.admission",
            reason=policy.operator.reason,
            found="",
            why="Otherwise anybody may boot the same software under the same name.",
        )
    if isinstance(policy.runtime, Skip):
        yield leave_out(
            code="runtime.require",
            reason=policy.runtime.reason,
            found="",
            why="An operator can set logging, isolation and more, and evidence vouches for what was set.",
        )
    if policy.insecure_simulation:
        yield leave_out(
            code="level.minimum",
            reason="insecure_simulation waives it",
            found=Level.SIMULATED.text,
            why="A level says how fresh the proof of the keys is, and a simulation proves none.",
        )
