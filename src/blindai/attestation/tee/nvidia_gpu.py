"""NVIDIA GPUs and NVSwitches in confidential computing mode: an SPDM report, NVIDIA's word for the key, and RIMs.

docs/spec/tee/nvidia_gpu.md has the encodings, the policy's fields, and every finding.
Leaves out: the report's bytes (nvidia/report.py), its signer (nvidia/device.py), RIMs (nvidia/rim.py), OCSP (ocsp.py),
how claims are judged (nvidia/judgement.py), and how a device is bound to a machine, by its nonce and the CPU's report
data (appraise.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge
from blindai.attestation.evidence import Claims
from blindai.attestation.expectations import (
    judge_accepted,
    judge_names,
    read_accepted,
    read_flag,
    read_minimum,
    read_names,
    read_track,
)
from blindai.attestation.nvidia.device import (
    ARCHITECTURES,
    architecture_of,
    chip_of,
    judge_device,
    read_device_chain,
    serial_of,
)
from blindai.attestation.nvidia.judgement import (
    judge_count,
    judge_driver,
    judge_hold,
    judge_revocation,
    judge_rims,
    judge_topology,
)
from blindai.attestation.nvidia.report import FORMAT, MODES, TEE, Device, parse
from blindai.attestation.nvidia.rim import (
    Rim,
    SealedRim,
    XmlTools,
    load_xml_tools,
    read_content,
    read_rim,
    signed_content,
)
from blindai.attestation.ocsp import Answer, Question, answer_of, answers, judge_answers, read_answer
from blindai.attestation.policy_file import Skip, TeePolicy
from blindai.attestation.roots import NVIDIA_DEVICE_ROOT, NVIDIA_RIM_ROOT, PinnedRoot
from blindai.attestation.x509_chain import common_name, judge_chain, may_sign_data
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cryptography.x509.ocsp import OCSPResponse

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.nvidia.report import NvidiaReport
    from blindai.attestation.policy_file import Section

DEVICE_CHAIN, DRIVER_RIM, VBIOS_RIM = "device_chain", "driver_rim", "vbios_rim"
_OCSP_NAME = re.compile(r"ocsp_(?:0|[1-9][0-9]?)\Z")
_DEVICE_SERIAL_BYTES, _LEAF_SERIAL_BYTES = 9, 20
_VERSION = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,5}){1,3}\Z")
_WHY_EXACT = "What can be read in two ways can be judged in two ways."
TRACKABLE = tuple(
    f"{TEE}.{name}"
    for name in (
        *("architecture", "mode", "driver", "platform", "rim_library", "rim", "rim_version", "rim_conflict"),
        *("rim_mismatch", "debug", "ocsp", "ocsp_expired", "certificate_hold", "gpus", "switches", "topology"),
    )
)

__all__ = ["TEE", "NvidiaGpuClaims", "NvidiaGpuPolicy", "check", "check_together", "parse", "parse_policy", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaGpuClaims(Claims):
    """What a genuine GPU or NVSwitch says of itself, and what NVIDIA says of its kind.

    Attributes:
        chip: for example GH100, GB100 or LS10.
        architecture: hopper, blackwell, or ls10 for an NVSwitch.
        device_serial: of the boot ROM's certificate, which stays; its last 8 bytes are the device's PDI.
        leaf_serial: of the firmware's certificate, another one after each update.
        rims: the driver's (a GPU's only) and the VBIOS's; None if it was not shown, or cannot be read here.
        can_read_rims: whether the extra `[nvidia]` is installed.
        answers: OCSP answers, each signed by who may.
        unanswered: names of certificates that none is about.
        verified_at: Unix seconds.
    """

    tee: str = TEE
    device: Device
    measurements: tuple[bytes, ...] = field(repr=False)
    chip: str
    architecture: str
    device_serial: bytes
    leaf_serial: bytes
    rims: tuple[tuple[str, Rim | None], ...]
    can_read_rims: bool
    answers: tuple[Answer, ...]
    unanswered: tuple[str, ...]
    verified_at: float

    @property
    def rim_names(self) -> str:
        """What NVIDIA's RIM service calls them."""
        return ", ".join(name for name in (self.device.driver_rim, self.device.vbios_rim) if name)

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Each claim as a name and a text, in NVIDIA's words."""
        return (
            ("device", f"{self.chip} ({self.architecture})"),
            ("device serial", self.device_serial.hex()),
            ("leaf certificate serial", self.leaf_serial.hex()),
            ("driver version", self.device.driver_version or "none"),
            ("VBIOS version", self.device.vbios_version),
            ("mode", self.device.mode),
            ("FWID", self.device.fwid.hex() if self.device.fwid else "not reported"),
            ("RIMs", self.rim_names),
            ("OCSP", ", ".join(f"{answer.subject}: {answer.status}" for answer in self.answers) or "no answer"),
        )

    def device_identity(self) -> bytes | None:
        """The chip and its serial number, which no firmware changes."""
        return self.chip.encode() + self.device_serial


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaGpuPolicy(TeePolicy):
    """What a policy accepts of NVIDIA's devices; each field as in the table `[tee.nvidia_gpu]`."""

    tee: str = TEE
    architectures: tuple[str, ...] | Skip
    modes: tuple[str, ...] | Skip
    minimum_driver: tuple[str, ...] | Skip
    platforms: tuple[bytes, ...] | Skip
    rims: bool | Skip
    certificate_hold: bool | Skip
    revocation_grace_s: int | Skip
    gpus: int | Skip
    switches: int | Skip


def verify(
    item: EvidenceItem,
    now: float,
    checks: Checks,
    *,
    device_root: PinnedRoot = NVIDIA_DEVICE_ROOT,
    rim_root: PinnedRoot = NVIDIA_RIM_ROOT,
    find_tools: Callable[[], XmlTools | None] = load_xml_tools,
) -> NvidiaGpuClaims:
    """Follow the signatures from the pinned roots to the report, the RIMs and the OCSP answers.

    Raises:
        MalformedEvidenceError: the report or an endorsement is not exactly one.
        UnauthenticEvidenceError: a signature or root is another, or a certificate is outdated or revoked.
    """
    with checks.parsing(code=FORMAT, expected="an SPDM 1.1 measurements report", why=_WHY_EXACT):
        report = parse(item.evidence)
    endorsements = _endorsements(item, report, checks)
    with checks.parsing(code=f"{TEE}.certificate_format", expected="the device's certificates in PEM", why=_WHY_EXACT):
        chain = read_device_chain(endorsements[DEVICE_CHAIN])
    for finding in judge_device(report, chain, device_root, now):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    tools = find_tools()
    opened = _open_rims(endorsements, tools, root=rim_root, now=now, checks=checks) if tools else {}
    chains = [chain[1:], *(sealed.chain for sealed, _ in opened.values())]
    questions = [Question(certificate=one, issuer=issuer) for each in chains for one, issuer in pairwise(each)]
    shown = {name: data for name, data in endorsements.items() if _OCSP_NAME.match(name)}
    answered, unanswered = _revocation(shown, list(dict.fromkeys(questions)), is_whole=tools is not None, checks=checks)
    for finding in judge_answers(answered, tee=TEE, now=now):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    return NvidiaGpuClaims(
        bound=report.nonce,
        device=report.device,
        measurements=report.measurements,
        chip=chip_of(chain[0]),
        architecture=architecture_of(chain[0]),
        device_serial=serial_of(chain[1], _DEVICE_SERIAL_BYTES),
        leaf_serial=serial_of(chain[0], _LEAF_SERIAL_BYTES),
        rims=tuple((name, opened[name][1] if name in opened else None) for name in _rim_names(report.device)),
        can_read_rims=tools is not None,
        answers=tuple(answer_of(response, question) for response, question in answered),
        unanswered=tuple(common_name(question.certificate) for question in unanswered),
        verified_at=now,
    )


def _rim_names(device: Device) -> tuple[str, ...]:
    return (VBIOS_RIM,) if device.is_switch else (DRIVER_RIM, VBIOS_RIM)


def _endorsements(item: EvidenceItem, report: NvidiaReport, checks: Checks) -> dict[str, bytes]:
    names = [name for name, _ in item.endorsements]
    known = {DEVICE_CHAIN, *_rim_names(report.device)}
    finding = judge(
        holds=DEVICE_CHAIN in names
        and len(set(names)) == len(names)
        and all(name in known or _OCSP_NAME.match(name) for name in names),
        code=f"{TEE}.endorsements",
        expected=f"{DEVICE_CHAIN}, and of {', '.join(_rim_names(report.device))}, ocsp_0 to ocsp_99 each at most once",
        found=", ".join(names) or "none",
        why="The chain from the evidence to a pinned root must be complete.",
    )
    checks.require(finding, MalformedEvidenceError, tee=TEE)
    return dict(item.endorsements)


def _open_rims(
    endorsements: dict[str, bytes], tools: XmlTools, *, root: PinnedRoot, now: float, checks: Checks
) -> dict[str, tuple[SealedRim, Rim]]:
    """Each RIM that was shown, under its name: read, its signer certified, its content signed."""
    opened = {}
    for name in (DRIVER_RIM, VBIOS_RIM):
        if name not in endorsements:
            continue
        with checks.parsing(code=f"{TEE}.rim_format", expected=f"a RIM as {name}", why=_WHY_EXACT):
            sealed = read_rim(endorsements[name], tools)
        for finding in judge_chain(sealed.chain, [root], tee=TEE, now=now, code="rim_chain"):
            checks.require(finding, UnauthenticEvidenceError, tee=TEE)
        checks.require(_judge_rim_signer(name, sealed), UnauthenticEvidenceError, tee=TEE)
        signed = signed_content(sealed, tools)
        checks.require(_judge_rim_signature(name, is_signed=signed is not None), UnauthenticEvidenceError, tee=TEE)
        with checks.parsing(code=f"{TEE}.rim_format", expected=f"measurements in {name}", why=_WHY_EXACT):
            opened[name] = (sealed, read_content(signed))
    return opened


def _judge_rim_signer(name: str, sealed: SealedRim) -> Finding:
    """NVIDIA's RIM root certifies OCSP responders too, and their keys are kept where they answer all day."""
    may_sign = may_sign_data(sealed.chain[0])
    return judge(
        holds=may_sign,
        code=f"{TEE}.rim_signer",
        expected=f"{name} by a key for signatures, no CA's and for no other purpose",
        found=common_name(sealed.chain[0]) if may_sign else f"{common_name(sealed.chain[0])}, which is for another use",
        why="A vendor certifies keys for other uses under the same root, and guards each as its use demands.",
    )


def _judge_rim_signature(name: str, *, is_signed: bool) -> Finding:
    return judge(
        holds=is_signed,
        code=f"{TEE}.rim_signature",
        expected=f"{name} signed by the first certificate in it",
        found="just that" if is_signed else "a signature that does not verify",
        why="Anybody can write a list of measurements.",
    )


def _revocation(
    shown: dict[str, bytes], questions: list[Question], *, is_whole: bool, checks: Checks
) -> tuple[list[tuple[OCSPResponse, Question]], list[Question]]:
    """Answers with what each is about, and what none is about.

    Unless the questions are whole, since RIMs cannot be read here, answers about unknown certificates are passed over.
    """
    answered = []
    unanswered = list(questions)
    with checks.parsing(code=f"{TEE}.ocsp_format", expected="OCSP answers, one per certificate", why=_WHY_EXACT):
        for name, data in shown.items():
            response = read_answer(data, tee=TEE)
            question = next((one for one in unanswered if answers(response, one)), None)
            if question is not None:
                unanswered.remove(question)
                answered.append((response, question))
            elif is_whole:
                words = f"expected {name} to be about a certificate that no other answer is about, found another"
                raise MalformedEvidenceError(words, finding_code=f"{TEE}.ocsp_format", tee=TEE)
    return answered, unanswered


def check(claims: NvidiaGpuClaims, policy: NvidiaGpuPolicy) -> Iterator[Finding]:
    """Compare one device with the policy; an NVSwitch has no mode and no driver."""
    yield judge_names(
        policy.architectures,
        code=f"{TEE}.architecture",
        found=(claims.architecture,),
        why="What a GPU protects differs from one generation to the next.",
        hint="the machine has another kind of device than the policy expects",
    )
    if claims.device.driver_version is not None:
        yield judge_names(
            policy.modes,
            code=f"{TEE}.mode",
            found=(claims.device.mode,),
            why="The mode says whether links between GPUs are encrypted.",
            hint="ask the operator for another mode, or for a driver that states it",
        )
        yield judge_driver(claims.device.driver_version, policy.minimum_driver)
    yield _judge_platform(claims, policy.platforms)
    yield from judge_rims(claims, policy.rims)
    yield from judge_revocation(claims, policy.revocation_grace_s)
    yield judge_hold(claims, policy.certificate_hold)


def _judge_platform(claims: NvidiaGpuClaims, platforms: tuple[bytes, ...] | Skip) -> Finding:
    """By the leaf's serial number if the policy names it, else by the device's."""
    is_leaf = not isinstance(platforms, Skip) and claims.leaf_serial in platforms
    return judge_accepted(
        platforms,
        code=f"{TEE}.platform",
        found=claims.leaf_serial if is_leaf else claims.device_serial,
        why="A key taken out of one device speaks for that device; attestation cannot see physical attacks.",
        hint="add the device's serial number only after its operator has confirmed it",
    )


def check_together(devices: Sequence[NvidiaGpuClaims], policy: NvidiaGpuPolicy) -> Iterator[Finding]:
    """Compare all devices of the machine with the policy: how many there are, and how they are connected."""
    switches = sum(one.device.is_switch for one in devices)
    yield judge_count(policy.gpus, code=f"{TEE}.gpus", found=len(devices) - switches, what="GPUs")
    yield judge_count(policy.switches, code=f"{TEE}.switches", found=switches, what="NVSwitches")
    yield judge_topology(devices, policy.switches)


def parse_policy(section: Section) -> NvidiaGpuPolicy:
    """Read `[tee.nvidia_gpu]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    section.require_keys("track", *(name for name in NvidiaGpuPolicy.__slots__))
    return NvidiaGpuPolicy(
        track=read_track(section, TRACKABLE),
        architectures=read_names(section, "architectures", tuple(ARCHITECTURES.values())),
        modes=read_names(section, "modes", MODES),
        minimum_driver=_read_versions(section, "minimum_driver"),
        platforms=read_accepted(section, "platforms", _DEVICE_SERIAL_BYTES, _LEAF_SERIAL_BYTES),
        rims=_read_fixed(section, "rims", value=True),
        certificate_hold=_read_fixed(section, "certificate_hold", value=False),
        revocation_grace_s=read_minimum(section, "revocation_grace_s"),
        gpus=read_minimum(section, "gpus"),
        switches=read_minimum(section, "switches"),
    )


def _read_fixed(section: Section, key: str, *, value: bool) -> bool | Skip:
    """A flag with only one value that makes sense; the other is spelled as what it is, a check left out."""
    flag = read_flag(section, key)
    if flag is (not value):
        raise section.error(f'must be {str(value).lower()}, or {{ skip = "reason" }}', key)
    return flag


def _read_versions(section: Section, key: str) -> tuple[str, ...] | Skip:
    versions = read_names(section, key)
    if not isinstance(versions, Skip) and not (versions and all(map(_VERSION.match, versions))):
        raise section.error("must be a list of at least one version such as 580.178.04", key)
    return versions
