"""Simulated evidence: for running anywhere, and protecting nothing (docs/spec/evidence.md §3).

Anybody can make it, since the root's private key is published in attester/simulation.py.
It goes through the same steps as real evidence, and only a policy that says `insecure_simulation` accepts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.evidence import Claims
from blindai.attestation.policy_file import Skip, TeePolicy, hex_digest
from blindai.attestation.roots import SIMULATION_ROOT
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError
from blindai.wire import label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.policy_file import Section

TEE = "simulation"

# magic[32] ‖ u16 version ‖ device public key[32] ‖ measurement[32] ‖ report data[64] ‖ signature[64]
MAGIC = b"BLINDAI SIMULATION - NOT SECURE\n"
VERSION = 1
_DEVICE_KEY = slice(34, 66)
_MEASUREMENT = slice(66, 98)
_REPORT_DATA = slice(98, 162)
_SIGNED_BYTES = 162
EVIDENCE_BYTES = 226

DEVICE_CERTIFICATE = "device_certificate"
ROOT = "root"
DEVICE_LABEL = label("simulation-device")
EVIDENCE_LABEL = label("simulation-evidence")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedEvidence:
    """The fields of simulated evidence."""

    device_key: bytes
    measurement: bytes
    report_data: bytes
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationClaims(Claims):
    """What simulated evidence says; anybody could have said it.

    Attributes:
        device_key: Ed25519 public key, drawn when the attester started.
        measurement: SHA-256 over the server's Python files.
    """

    tee: str = TEE
    device_key: bytes
    measurement: bytes

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Each claim as a name and a text."""
        return (
            ("hardware", "none: SIMULATION PROTECTS NOTHING"),
            ("measurement", self.measurement.hex()),
            ("device key", self.device_key.hex()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPolicy(TeePolicy):
    """What a policy accepts of simulated evidence: any of these measurements."""

    tee: str = TEE
    measurement: tuple[bytes, ...] | Skip


def parse(raw: bytes) -> SimulatedEvidence:
    """Read simulated evidence.

    Raises:
        MalformedEvidenceError: another size, magic or version.
    """
    if len(raw) != EVIDENCE_BYTES:
        raise _malformed(f"{len(raw)} bytes instead of {EVIDENCE_BYTES}")
    if not raw.startswith(MAGIC):
        raise _malformed("bytes that do not begin with the simulation's magic")
    version = int.from_bytes(raw[len(MAGIC) : _DEVICE_KEY.start], "big")
    if version != VERSION:
        raise _malformed(f"version {version} instead of {VERSION}")
    return SimulatedEvidence(
        device_key=raw[_DEVICE_KEY],
        measurement=raw[_MEASUREMENT],
        report_data=raw[_REPORT_DATA],
        signed=raw[:_SIGNED_BYTES],
        signature=raw[_SIGNED_BYTES:],
    )


def _malformed(found: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(
        f"expected simulated evidence, found {found}", finding_code="simulation.format", tee=TEE
    )


def verify(item: EvidenceItem, now: float, checks: Checks) -> SimulationClaims:  # noqa: ARG001  # nothing in it expires
    """Follow the signatures from the pinned (and published) root to the evidence.

    Raises:
        MalformedEvidenceError: it is not exactly simulated evidence with its two endorsements.
        UnauthenticEvidenceError: a signature or the root is another.
    """
    with checks.parsing(
        code="simulation.format",
        expected=f"simulated evidence, version {VERSION}",
        why="What can be read in two ways can be judged in two ways.",
    ):
        evidence = parse(item.evidence)
    root, certificate = _endorsements(item, checks)
    for finding in _authenticity(evidence, root, certificate):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    return SimulationClaims(
        bound=evidence.report_data, device_key=evidence.device_key, measurement=evidence.measurement
    )


def _endorsements(item: EvidenceItem, checks: Checks) -> tuple[bytes, bytes]:
    names = [name for name, _ in item.endorsements]
    finding = judge(
        holds=sorted(names) == [DEVICE_CERTIFICATE, ROOT],
        code="simulation.endorsements",
        expected=f"{DEVICE_CERTIFICATE} and {ROOT}, once each",
        found=", ".join(names) or "none",
        why="The chain from the evidence to a pinned root must be complete.",
    )
    checks.require(finding, MalformedEvidenceError, tee=TEE)
    by_name = dict(item.endorsements)
    return by_name[ROOT], by_name[DEVICE_CERTIFICATE]


def _authenticity(evidence: SimulatedEvidence, root: bytes, certificate: bytes) -> Iterator[Finding]:
    """Root, then device, then evidence: each is looked at only if the one before it passed."""
    yield _judge_link(
        holds=SIMULATION_ROOT.matches(root),
        code="simulation.root",
        expected="the pinned simulation root",
        otherwise="another root",
        why="A root that came with the evidence proves nothing until it is recognised.",
    )
    yield _judge_link(
        holds=_is_signed(root, certificate, DEVICE_LABEL + evidence.device_key),
        code="simulation.device_certificate",
        expected="the root's signature over the device key",
        otherwise="a signature that does not verify",
        why="Only devices that the root names may sign evidence.",
    )
    yield _judge_link(
        holds=_is_signed(evidence.device_key, evidence.signature, EVIDENCE_LABEL + evidence.signed),
        code="simulation.signature",
        expected="the device key's signature over the evidence",
        otherwise="a signature that does not verify",
        why="Unsigned claims are anybody's words.",
    )


def _judge_link(*, holds: bool, code: str, expected: str, otherwise: str, why: str) -> Finding:
    return judge(holds=holds, code=code, expected=expected, found=expected if holds else otherwise, why=why)


def _is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def check(claims: SimulationClaims, policy: SimulationPolicy) -> Iterator[Finding]:
    """Compare the measurement with the reference values."""
    found = claims.measurement.hex()
    why = "The measurement names the software that answers."
    if isinstance(policy.measurement, Skip):
        yield leave_out(code="simulation.measurement", reason=policy.measurement.reason, found=found, why=why)
        return
    yield judge(
        holds=claims.measurement in policy.measurement,
        code="simulation.measurement",
        expected=f"one of {', '.join(value.hex() for value in policy.measurement)}",
        found=found,
        why=why,
        hint="the server runs other software than the policy names; find out which before changing the policy",
    )


def parse_policy(section: Section) -> SimulationPolicy:
    """Read `[tee.simulation]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    section.require_keys("measurement")
    if isinstance(section.members["measurement"], dict):
        return SimulationPolicy(measurement=section.section("measurement").skip())
    form = "SHA-256 digests of 64 lower-case hexadecimal digits"
    return SimulationPolicy(measurement=section.byte_strings("measurement", hex_digest, form))
