"""What a policy demands of the attested runtime policy, and whether it is met (docs/spec/policy.md §3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.checks import judge
from blindai.attestation.policy_file import Skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.evidence import Finding
    from blindai.attestation.manifest import Manifest
    from blindai.attestation.policy_file import Section

_MEMBER = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
MODELS = "models"
FROM_MANIFEST = "manifest"  # no model's digest is called so

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


def parse_runtime(section: Section, manifest: Manifest | None) -> tuple[RuntimeRequirement, ...] | Skip:
    """Read `[runtime]`: `require`, or `skip`.

    Raises:
        InvalidPolicyError: anything else.
    """
    skip = section.skip_instead_of("require")
    if skip:
        return skip
    require = section.section("require")
    if not require.members:
        raise section.error('demands nothing; say so with `skip = "reason"`', "require")
    return tuple(_parse_requirements(require, (), manifest))


def _parse_requirements(
    section: Section, parents: tuple[str, ...], manifest: Manifest | None
) -> Iterator[RuntimeRequirement]:
    for name, value in section.members.items():
        if not _MEMBER.match(name):
            raise section.error("is not the name of a runtime member", name)
        if isinstance(value, dict) and not parents and value:
            yield from _parse_requirements(section.section(name), (name,), manifest)
        elif (*parents, name) == (MODELS,) and value == FROM_MANIFEST:
            yield RuntimeRequirement(path=(MODELS,), accepted=_models_of(section, manifest))
        else:
            yield RuntimeRequirement(path=(*parents, name), accepted=_parse_accepted(section, name, value))


def _models_of(section: Section, manifest: Manifest | None) -> tuple[str, ...]:
    if manifest is None or not manifest.models:
        raise section.error("needs a `[manifest]` that names models", MODELS)
    return tuple(digest for _, digest in manifest.models)


def _parse_accepted(section: Section, name: str, value: object) -> tuple[Scalar, ...]:
    values = value if isinstance(value, list) else [value]
    for accepted in values:
        if not isinstance(accepted, bool | int | str):
            raise section.error("must be true, false, a whole number, a text, or a list of these", name)
    return tuple(values)


def check_runtime(
    requirements: tuple[RuntimeRequirement, ...] | Skip, runtime: Mapping[str, object]
) -> Iterator[Finding]:
    """Compare the keyset's runtime object with what a policy demands: one finding per demand, none if skipped.

    A member that is a list passes if it has values and each is accepted, or if it is empty and `[]` was demanded; one
    that is not there fails.
    """
    if isinstance(requirements, Skip):
        return
    for requirement in requirements:
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
    if not values:
        return not accepted
    return all(any(type(value) is type(other) and value == other for other in accepted) for value in values)


def _texts(values: Any) -> str:
    return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values) or "nothing"
