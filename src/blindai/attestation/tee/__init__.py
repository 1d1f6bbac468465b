"""Every TEE that this release can verify: one file each, and one entry here (docs/spec/appraisal.md §4).

A file holds, in this order: constants, frozen dataclasses, `parse(bytes)`, `verify(item, now, checks) -> Claims`,
`check(claims, policy) -> Iterator[Finding]`, and `parse_policy(section)` for its table of the policy file.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from blindai.attestation.binding import Binding
from blindai.attestation.evidence import Claims
from blindai.attestation.policy_file import TeePolicy
from blindai.attestation.tee import simulation, tpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.policy_file import Section


class Role(enum.Enum):
    """What an item of evidence speaks for."""

    MACHINE = "a machine"
    CARRIER = "what stands between a machine's report and the binding"
    DEVICE = "a device of a machine"


_Claims = TypeVar("_Claims", bound=Claims)
_Policy = TypeVar("_Policy", bound=TeePolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tee(Generic[_Claims, _Policy]):
    """How one TEE is verified.

    Attributes:
        verify: parses exactly, follows the chain to a pinned root, checks the signature.
        slot: what the evidence must hold of the binding.
        role: whether an item of this kind is a machine, or stands beside one.
        check: compares claims with the policy; yields every finding.
        parse_policy: reads the TEE's table of a policy file.
    """

    verify: Callable[[EvidenceItem, float, Checks], _Claims]
    slot: Callable[[Binding], bytes]
    role: Role
    check: Callable[[_Claims, _Policy], Iterator[Finding]]
    parse_policy: Callable[[Section], _Policy]


TEES: dict[str, Tee[Any, Any]] = {
    simulation.TEE: Tee(
        verify=simulation.verify,
        slot=Binding.bound,
        role=Role.MACHINE,
        check=simulation.check,
        parse_policy=simulation.parse_policy,
    ),
    tpm.TEE: Tee(
        verify=tpm.verify,
        slot=Binding.bound_32,
        role=Role.MACHINE,
        check=tpm.check,
        parse_policy=tpm.parse_policy,
    ),
}


def device_evidence(evidence: Sequence[EvidenceItem]) -> tuple[bytes, ...]:
    """The devices' evidence as sent, in that order: what `binding.device_digest` is over."""
    return tuple(item.evidence for item in evidence if item.tee in TEES and TEES[item.tee].role is Role.DEVICE)
