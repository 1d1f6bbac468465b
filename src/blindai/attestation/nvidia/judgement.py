"""What a policy says of NVIDIA's measurements, revocation answers, driver and topology, as findings.

Leaves out: the policy's table and the order of the checks (tee/nvidia_gpu.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.checks import FETCH_THEM, judge, leave_out
from blindai.attestation.nvidia.report import PDI_BYTES, TEE
from blindai.attestation.ocsp import ON_HOLD, UNKNOWN
from blindai.attestation.policy_file import Skip
from blindai.attestation.x509_chain import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Finding
    from blindai.attestation.tee.nvidia_gpu import NvidiaGpuClaims

# NVDEC0's measurement, which NVIDIA's verifiers pass over where the report says that NVDEC0 is off.
NVDEC_INDEX = 35
# A responder signs at the time of asking, and clocks differ; OpenSSL's default is the same.
CLOCK_SKEW_S = 300
_WHY_RIM = {
    f"{TEE}.rim_library": "A RIM is XML with an XML signature, which an extra of this package reads.",
    f"{TEE}.rim": "Without NVIDIA's own list nobody knows which measurements are its firmware's.",
    f"{TEE}.rim_version": "Another version's list says nothing about this firmware.",
    f"{TEE}.rim_conflict": "Two lists that claim one measurement cannot both be right.",
    f"{TEE}.rim_mismatch": "A measurement that NVIDIA does not list is of firmware or fuses that it does not know.",
    f"{TEE}.debug": "A GPU that can be debugged shows its memory; NVIDIA tells it by its measurements alone.",
}
_HINT_RIM = f"ask the operator to staple the RIMs of exactly these versions, or {FETCH_THEM}"
_HINT_MISMATCH = "the GPU runs other firmware, or debugging or developer tools are on; do not send data to it"
_HINT_OCSP = (
    f"ask the operator to staple fresh OCSP answers, or {FETCH_THEM}; `revocation_grace_s` says how old they may be"
)


def judge_rims(claims: NvidiaGpuClaims, required: bool | Skip) -> Iterator[Finding]:  # noqa: FBT001  # the policy's
    """Both RIMs there, of this firmware, and every active measurement one of theirs."""
    if isinstance(required, Skip):
        for code, why in _WHY_RIM.items():
            yield leave_out(code=code, reason=required.reason, found="", why=why)
        return
    yield _about_rim(
        "rim_library", holds=claims.can_read_rims, expected="lxml and signxml", hint="pip install blindai[nvidia]"
    )
    missing = [name for name, rim in claims.rims if rim is None]
    expected = f"{' and '.join(name for name, _ in claims.rims)}: {claims.rim_names}"
    yield _about_rim("rim", holds=not missing, expected=expected, found=f"no {', no '.join(missing)}", hint=_HINT_RIM)
    yield _judge_versions(claims)
    yield _judge_conflict(claims)
    yield from _judge_measurements(claims)


def _about_rim(code: str, *, holds: bool, expected: str, found: str = "none", hint: str) -> Finding:
    code = f"{TEE}.{code}"
    found = expected if holds else found
    return judge(holds=holds, code=code, expected=expected, found=found, why=_WHY_RIM[code], hint=hint)


def _judge_versions(claims: NvidiaGpuClaims) -> Finding:
    versions = (claims.device.driver_version, claims.device.vbios_version)
    expected = [f"{claims.chip} {version}" for version in versions if version]
    found = [f"{rim.product} {rim.version.upper()}" if rim else "no RIM" for _, rim in claims.rims]
    return _about_rim(
        "rim_version",
        holds=found == expected,
        expected=" and ".join(expected),
        found=" and ".join(found),
        hint=_HINT_RIM,
    )


def _judge_conflict(claims: NvidiaGpuClaims) -> Finding:
    indexes = [index for _, rim in claims.rims if rim for index in rim.golden]
    twice = sorted({index for index in indexes if indexes.count(index) > 1})
    return _about_rim(
        "rim_conflict",
        holds=not twice,
        expected="each measurement in one RIM",
        found=f"{_numbers(twice)} in both",
        hint=_HINT_RIM,
    )


def _judge_measurements(claims: NvidiaGpuClaims) -> Iterator[Finding]:
    """RIM index i is measurement block i+1, which is at i in a tuple."""
    golden = {index: digests for _, rim in claims.rims if rim for index, digests in rim.golden.items()}
    passed_over = {NVDEC_INDEX} if claims.device.skips_nvdec else set()
    wrong = sorted(
        index
        for index, digests in golden.items()
        if index not in passed_over and not set(digests) & set(claims.measurements[index : index + 1])
    )
    is_whole = all(rim for _, rim in claims.rims)
    yield _about_rim(
        "rim_mismatch",
        holds=is_whole and not wrong,
        expected=f"{len(golden)} measurements as listed",
        found=f"others at {_numbers(wrong)}" if is_whole else "no list",
        hint=_HINT_MISMATCH,
    )
    yield _about_rim(
        "debug",
        holds=is_whole and not wrong,
        expected="debugging off, which is so if every measurement is as listed",
        found="measurements that are not" if is_whole else "no list",
        hint=_HINT_MISMATCH,
    )


def _numbers(indexes: Sequence[int]) -> str:
    return ", ".join(map(str, indexes))


def judge_revocation(claims: NvidiaGpuClaims, grace_s: int | Skip) -> Iterator[Finding]:
    """A good answer about each certificate, each in its time or no longer after it than the policy allows."""
    silent = [*claims.unanswered, *(answer.subject for answer in claims.answers if answer.status == UNKNOWN)]
    missing = f"none about {', '.join(silent)}" if silent else f"{len(claims.answers)} answers"
    why = "Without the issuer's word nobody knows whether a certificate is still good."
    if isinstance(grace_s, Skip):
        yield leave_out(code=f"{TEE}.ocsp", reason=grace_s.reason, found=missing, why=why)
        yield leave_out(code=f"{TEE}.ocsp_expired", reason=grace_s.reason, found="", why=why)
        return
    yield judge(
        holds=not silent,
        code=f"{TEE}.ocsp",
        expected="an answer about each certificate that an authority issued",
        found=missing,
        why=why,
        hint=_HINT_OCSP,
    )
    outside = [
        f"{answer.subject} from {utc_text(answer.begins)} to {utc_text(answer.ends)}"
        for answer in claims.answers
        if not answer.begins - CLOCK_SKEW_S <= claims.verified_at <= answer.ends + grace_s
    ]
    yield judge(
        holds=not outside,
        code=f"{TEE}.ocsp_expired",
        expected=f"answers for {utc_text(claims.verified_at)}, at most {grace_s} s past their end",
        found="; ".join(outside) or "all of them",
        why="A certificate may have been revoked since.",
        hint=_HINT_OCSP,
    )


def judge_hold(claims: NvidiaGpuClaims, accepted: bool | Skip) -> Finding:  # noqa: FBT001  # the policy's
    """Whether any certificate is suspended: NVIDIA may take that back, or revoke for good."""
    held = ", ".join(answer.subject for answer in claims.answers if answer.status == ON_HOLD)
    code, why = f"{TEE}.certificate_hold", "NVIDIA has suspended its word for this key, and may revoke it for good."
    if isinstance(accepted, Skip):
        return leave_out(code=code, reason=accepted.reason, found=held or "none on hold", why=why)
    return judge(
        holds=not held,
        code=code,
        expected="no certificate on hold",
        found=f"{held} on hold" if held else "none on hold",
        why=why,
        hint="ask the operator what NVIDIA holds against this GPU or RIM, and use another until that is settled; to "
        'accept it all the same, set `certificate_hold = { skip = "reason" }` in [tee.nvidia_gpu] of the policy',
    )


def judge_driver(found: str, minimums: tuple[str, ...] | Skip) -> Finding:
    """At least the minimum of its branch, which is the first number; a branch newer than all listed will do."""
    code, why = f"{TEE}.driver", "NVIDIA signs old drivers too, whose flaws are public."
    if isinstance(minimums, Skip):
        return leave_out(code=code, reason=minimums.reason, found=found, why=why)
    version = _version(found)
    by_branch = {_version(minimum)[0]: _version(minimum) for minimum in minimums}
    is_newer = version[0] > max(by_branch)
    return judge(
        holds=is_newer or (version[0] in by_branch and version >= by_branch[version[0]]),
        code=code,
        expected=f"at least {' or '.join(minimums)}, by branch, or a newer branch",
        found=found,
        why=why,
        hint="the operator must update the driver; NVIDIA's security bulletins name the versions",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def judge_count(expected: int | Skip, *, code: str, found: int, what: str) -> Finding:
    """Whether there are exactly as many devices as the policy says."""
    why = "A device that nobody shows may be the one that is not good."
    if isinstance(expected, Skip):
        return leave_out(code=code, reason=expected.reason, found=f"{found} {what}", why=why)
    return judge(
        holds=found == expected,
        code=code,
        expected=f"{expected} {what}",
        found=f"{found} {what}",
        why=why,
        hint="set the number that the machine has, and ask the operator why it shows another",
    )


def judge_topology(devices: Sequence[NvidiaGpuClaims], switches: int | Skip) -> Finding:
    """With protected PCIe NVLink is in the clear: GPUs and switches name each other, and all of them are shown."""
    code, why = f"{TEE}.topology", "Data of these GPUs pass through every device on their links."
    if isinstance(switches, Skip):
        return leave_out(code=code, reason=switches.reason, found="", why=why)
    gpu_names = {one.device_serial[-PDI_BYTES:] for one in devices if not one.device.is_switch}
    switch_names = {one.device_serial[-PDI_BYTES:] for one in devices if one.device.is_switch}
    strangers = {
        name
        for one in devices
        if one.device.is_switch or one.device.mode == "ppcie"
        for name in one.device.neighbours ^ (gpu_names if one.device.is_switch else switch_names)
    }
    return judge(
        holds=not strangers,
        code=code,
        expected="GPUs with protected PCIe and switches that name exactly each other",
        found=f"otherwise for {', '.join(sorted(name.hex() for name in strangers))}" if strangers else "just that",
        why=why,
        hint="show the evidence of every GPU and NVSwitch of the machine, and set `switches` to their number",
    )
