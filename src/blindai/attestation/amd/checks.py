"""Compares what an authentic SEV-SNP report says with a policy: the host first, then the guest (sev_snp.md §4).

Leaves out: the patch levels of each CPU model (amd/tcb.py), and whether the report is authentic (tee/sev_snp.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.amd.flags import GUEST_POLICY_FLAGS, PLATFORM_FLAGS
from blindai.attestation.amd.tcb import Levels, Product, judge_minimum_tcb
from blindai.attestation.checks import FETCH_THEM, judge, leave_out
from blindai.attestation.expectations import judge_accepted, judge_flag, judge_minimum, judge_names
from blindai.attestation.policy_file import Skip
from blindai.attestation.x509_chain import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.amd.flags import Flag
    from blindai.attestation.amd.policy import SevSnpPolicy
    from blindai.attestation.evidence import Finding
    from blindai.attestation.tee.sev_snp import SevSnpClaims

_NO_MIGRATION_AGENT = b"\xff" * 32  # REPORT_ID_MA of a guest without one, document 56860 table ATTESTATION_REPORT
_OLD_FIRMWARE = "the host runs old firmware: ask its operator for a newer BIOS"


def check_host(claims: SevSnpClaims, policy: SevSnpPolicy) -> Iterator[Finding]:
    """The chip, its firmware and what the firmware allows."""
    report = claims.report
    yield judge_minimum(
        policy.minimum_report_version,
        code="sev_snp.report_version",
        found=report.version,
        why="A report of version 2 names no CPU model and no alias check: firmware from before 2025.",
        hint=_OLD_FIRMWARE,
    )
    yield _judge_chip(claims, policy)
    yield judge_names(
        policy.csp_ids,
        code="sev_snp.csp_ids",
        found=() if claims.csp_id is None else (claims.csp_id,),
        why="A VLEK is a cloud provider's key for all of its machines, and speaks for that provider only.",
        hint="the machine stands in another cloud or region than the policy names",
    )
    yield _judge_milan_seed(claims, policy)
    yield from judge_minimum_tcb(
        policy.minimum_tcb,
        Levels(
            cpuid=report.cpuid,
            reported=claims.reported,
            launch=claims.launch,
            committed=report.committed_version,
        ),
    )
    yield judge_flag(
        policy.provisional_firmware,
        code="sev_snp.provisional_firmware",
        found=report.current_version != report.committed_version,
        why="Firmware that is not committed can be rolled back to what was there before.",
        hint=f"firmware {report.current_version} runs over the committed {report.committed_version}: "
        "ask the operator to commit it",
    )
    yield _judge_mitigations(policy, "launch_mitigations", report.launch_mit_vector)
    yield _judge_mitigations(policy, "current_mitigations", report.current_mit_vector)
    yield _judge_crl(claims, policy)
    yield from _judge_flags(PLATFORM_FLAGS, report.platform_info, policy)


def _judge_chip(claims: SevSnpClaims, policy: SevSnpPolicy) -> Finding:
    why = "Who holds the machine can read its memory with an interposer, and no report shows that."
    found = claims.chip_id.hex() if claims.chip_id else "hidden: a VLEK names no chip"
    if isinstance(policy.chips, Skip):
        return leave_out(code="sev_snp.chips", reason=policy.chips.reason, found=found, why=why)
    return judge(
        holds=claims.chip_id in policy.chips,
        code="sev_snp.chips",
        expected=f"one of the {len(policy.chips)} chips that the policy names",
        found=found,
        why=why,
        hint="the machine is none of those that you named; find out where it stands before changing the policy",
    )


def _judge_milan_seed(claims: SevSnpClaims, policy: SevSnpPolicy) -> Finding:
    named = not isinstance(policy.chips, Skip) and claims.chip_id in policy.chips
    return judge(
        holds=claims.product is not Product.MILAN or named,
        code="sev_snp.milan_seed",
        expected="Genoa or later, or a Milan chip that the policy names in `chips`",
        found=claims.product.value + (", named in the policy" if named else ""),
        why="The seed of a Milan chip's keys can be read by software alone, and with it reports of any TCB can be "
        "forged (arXiv 2605.12990).",
        hint="use a machine with Genoa or later; or name in `chips` the Milan chips whose holder you trust, "
        'or accept the risk with track = ["sev_snp.milan_seed"]',
    )


def _judge_mitigations(policy: SevSnpPolicy, what: str, vector: int | None) -> Finding:
    code, why = f"sev_snp.{what}", "A mitigation that the firmware did not apply leaves its hole open."
    found = "not told before report version 5" if vector is None else hex(vector)
    if isinstance(policy.mitigations, Skip):
        return leave_out(code=code, reason=policy.mitigations.reason, found=found, why=why)
    return judge(
        holds=vector is not None and vector & policy.mitigations == policy.mitigations,
        code=code,
        expected=f"every bit of {policy.mitigations:#x}",
        found=found,
        why=why,
        hint=_OLD_FIRMWARE,
    )


def _judge_crl(claims: SevSnpClaims, policy: SevSnpPolicy) -> Finding:
    code, why = "sev_snp.crl", "Without a fresh list a certificate that AMD has revoked still looks good."
    times, now, grace_s = claims.revocation, claims.verified_at, policy.revocation_grace_s
    found = "none"
    if times:
        found = f"one of {utc_text(times.this_update)}, good until {utc_text(times.next_update)}"
    if isinstance(grace_s, Skip):
        return leave_out(code=code, reason=grace_s.reason, found=found, why=why)
    return judge(
        holds=times is not None and times.this_update <= now <= times.next_update + grace_s,
        code=code,
        expected=f"a revocation list for {utc_text(now)}" + (f", {grace_s} s of grace" if grace_s else ""),
        found=found,
        why=why,
        hint="ask the operator to staple AMD's documents of today (https://kdsintf.amd.com/vcek/v1/<product>/crl), or "
        f"{FETCH_THEM}; `revocation_grace_s` says how long an old list is still accepted",
    )


def _judge_flags(flags: Sequence[Flag], word: int, policy: SevSnpPolicy) -> Iterator[Finding]:
    for flag in flags:
        yield judge_flag(
            policy.flags[flag.name],
            code=f"sev_snp.{flag.name}",
            found=flag.is_set(word),
            why=flag.why,
            hint=flag.hint,
        )


def check_guest(claims: SevSnpClaims, policy: SevSnpPolicy) -> Iterator[Finding]:
    """What its owner allowed at launch, where the report was asked for, and which guest it is."""
    report = claims.report
    yield from _judge_flags(GUEST_POLICY_FLAGS, report.policy, policy)
    yield judge_flag(
        policy.migration_agent,
        code="sev_snp.migration_agent",
        found=report.report_id_ma != _NO_MIGRATION_AGENT,
        why="A migration agent can move the guest, and so holds its memory and keys.",
        hint="ask the operator to launch the guest without a migration agent",
    )
    yield _judge_policy_abi(claims, policy)
    yield _judge_vmpl(claims, policy)
    yield from _judge_identity(claims, policy)


def _judge_policy_abi(claims: SevSnpClaims, policy: SevSnpPolicy) -> Finding:
    code, why = "sev_snp.policy_abi", "The guest's policy says the oldest firmware interface that may run it."
    major, minor = claims.report.policy_abi
    minimum = policy.minimum_policy_abi
    if isinstance(minimum, Skip):
        return leave_out(code=code, reason=minimum.reason, found=f"{major}.{minor}", why=why)
    return judge(
        holds=(major, minor) >= minimum,
        code=code,
        expected=f"{minimum[0]}.{minimum[1]} or more",
        found=f"{major}.{minor}",
        why=why,
        hint="ask the operator to launch the guest with a policy that demands more",
    )


def _judge_vmpl(claims: SevSnpClaims, policy: SevSnpPolicy) -> Finding:
    code, found = "sev_snp.vmpl", str(claims.report.vmpl)
    why = "Software of a lower level (a greater number) can ask for reports in the guest's name."
    if isinstance(policy.vmpl, Skip):
        return leave_out(code=code, reason=policy.vmpl.reason, found=found, why=why)
    return judge(
        holds=claims.report.vmpl == policy.vmpl,
        code=code,
        expected=str(policy.vmpl),
        found=found,
        why=why,
        hint="the report was asked for at another level than the policy wants; a service module (SVSM) runs at 0",
    )


def _judge_identity(claims: SevSnpClaims, policy: SevSnpPolicy) -> Iterator[Finding]:
    report = claims.report
    yield judge_accepted(
        policy.measurement,
        code="sev_snp.measurement",
        found=report.measurement,
        why="The measurement is of the guest's memory before its first instruction: its firmware, and what that loads.",
        hint="the guest was launched with other software than the policy names; find out which before changing it",
    )
    yield judge_accepted(
        policy.host_data,
        code="sev_snp.host_data",
        found=report.host_data,
        why="The host chose this at launch; a guest that reads it can be led by it.",
        hint="the guest was given another configuration at launch than the policy names",
    )
    for name, found in (("family_id", report.family_id), ("image_id", report.image_id)):
        yield judge_accepted(
            policy.family_id if name == "family_id" else policy.image_id,
            code=f"sev_snp.{name}",
            found=found,
            why="The guest's owner chose this name, and signed it in the ID block.",
            hint="the guest is another image than the policy names",
        )
    yield judge_minimum(
        policy.minimum_guest_svn,
        code="sev_snp.guest_svn",
        found=report.guest_svn,
        why="The guest's owner counts this up when an old guest has a hole.",
        hint="ask the operator for a newer guest",
    )
    yield judge_accepted(
        policy.id_key_digest,
        code="sev_snp.id_key_digest",
        found=report.id_key_digest,
        why="The ID key's holder signed what this guest is.",
        hint="another key signed the guest's ID block than the policy names, or none did (zeros)",
    )
    yield judge_accepted(
        policy.author_key_digest,
        code="sev_snp.author_key_digest",
        found=report.author_key_digest,
        why="The author key's holder vouches for the ID key.",
        hint="another author key vouches for the ID key than the policy names, or none does (zeros)",
    )
