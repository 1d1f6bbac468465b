"""What a preset says of evidence beside the reference values, which no preset has.

It decides nothing: a policy without reference values accepts nobody. It shows what else stands in the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.checks import only_track
from blindai.attestation.policy_file import Section
from blindai.attestation.policy_tees import fields_of
from blindai.attestation.tee import TEES
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Claims, Finding
    from blindai.attestation.policy_file import TeePolicy

NO_VALUE = "no reference value was given"


def preset_findings(claims: Sequence[Claims], preset: str) -> tuple[Finding, ...]:
    """Every check of the policy's that the preset sets; those that need a reference value are skipped, and say so."""
    return tuple(_findings(claims, preset))


def _findings(claims: Sequence[Claims], preset: str) -> Iterator[Finding]:
    for tee in dict.fromkeys(claim.tee for claim in claims):
        policy = _policy(tee, preset)
        if policy is None:
            continue
        of_tee = [claim for claim in claims if claim.tee == tee]
        for claim in of_tee:
            yield from only_track(TEES[tee].check(claim, policy), policy.track)
        if (check_together := TEES[tee].check_together) is not None:
            yield from only_track(check_together(of_tee, policy), policy.track)


def _policy(tee: str, preset: str) -> TeePolicy | None:
    """None if the preset does not know the TEE, as none knows simulation."""
    table = preset_table(preset, tee)
    if table is None:
        return None
    members = {**{field: {"skip": NO_VALUE} for field in fields_of(tee)}, **table}
    policy: TeePolicy = TEES[tee].parse_policy(Section(source=preset, text="", path=("tee", tee), members=members))
    return policy
