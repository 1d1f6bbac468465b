"""Whether NVIDIA certified the key that signed a report, for which chip and for which firmware.

Leaves out: the report's bytes (nvidia/report.py), and whether the certificates are revoked (ocsp.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.checks import judge
from blindai.attestation.nvidia.report import SIGNATURE_BYTES, TEE
from blindai.attestation.x509_chain import common_name, judge_chain, read_pem_chain
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Finding
    from blindai.attestation.nvidia.report import NvidiaReport
    from blindai.attestation.roots import PinnedRoot

# Leaf (the firmware's key), boot ROM (the device), provisioner, chip family, root, as NVML gives them.
CHAIN_LENGTH = 5
_OWN_CERTIFICATES = 2  # of one device
# The first word of the leaf's common name, such as "GH100 A01 GSP FMC LF"; "LS_10" is an NVSwitch.
ARCHITECTURES = {"GH": "hopper", "GB": "blackwell", "LS": "ls10"}
_SWITCH = "ls10"
# DICE (TCG "DICE Attestation Architecture" 1.1 §6.1): Hopper's leaf ends with one FWID in tcg-dice-Tcb's older form,
# Blackwell's DiceTcbInfo has a list of which the first counts.
_FWID_OIDS = {"hopper": "2.23.133.5.4.1", "ls10": "2.23.133.5.4.1", "blackwell": "2.23.133.5.4.1.1"}
_FWID_HEADER = bytes.fromhex("303d06096086480165030402020430")  # SEQUENCE { sha384, OCTET STRING of 48 bytes }
_FWID_BYTES = 48


def read_device_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Certificates in the one PEM that writes them, with or without a line's end at the end of all.

    Raises:
        MalformedEvidenceError: anything else.
    """
    chain = read_pem_chain(pem, tee=TEE, what="the device's certificates", own=_OWN_CERTIFICATES)
    written = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    if pem not in {written, written.removesuffix(b"\n")}:
        words = "expected the device's certificates in PEM and nothing else, found another text"
        raise MalformedEvidenceError(words, finding_code=f"{TEE}.certificate_format", tee=TEE)
    return chain


def judge_device(
    report: NvidiaReport, chain: Sequence[x509.Certificate], root: PinnedRoot, now: float
) -> Iterator[Finding]:
    """Chain, then chip, then report: each is looked at only if the one before it passed.

    Args:
        report: what was signed.
        chain: from the leaf to the root, the root included.
        root: the pinned root of NVIDIA's devices.
        now: Unix seconds.
    """
    yield judge(
        holds=len(chain) == CHAIN_LENGTH,
        code=f"{TEE}.chain_length",
        expected=f"{CHAIN_LENGTH} certificates",
        found=f"{len(chain)} certificates",
        why="A device's key stands under its boot ROM, a provisioner, its family and the root, and nothing else.",
    )
    yield from judge_chain(chain, [root], tee=TEE, now=now)
    kind = "an NVSwitch (LS)" if report.device.is_switch else "a GPU (GH, GB)"
    yield judge(
        holds=(architecture_of(chain[0]) == _SWITCH) == report.device.is_switch and architecture_of(chain[0]) != "",
        code=f"{TEE}.chip",
        expected=f"a certificate of {kind}, as the report is",
        found=chip_of(chain[0]),
        why="A report is read by what NVIDIA says that the device is.",
    )
    is_signed = _is_signed(report, chain[0])
    yield judge(
        holds=is_signed,
        code=f"{TEE}.signature",
        expected="the device's ECDSA P-384 signature over request and response",
        found="that" if is_signed else "a signature that does not verify",
        why="Unsigned claims are anybody's words.",
    )
    certified = _certified_fwid(chain[0])
    reported = report.device.fwid
    yield judge(
        holds=reported is None or reported == certified,
        code=f"{TEE}.fwid",
        expected=certified.hex() if certified else "a firmware identifier in the leaf certificate",
        found=reported.hex() if reported else "none reported, as by old firmware and NVSwitches",
        why="The key is certified for one firmware, which is the one that must report.",
    )


def chip_of(leaf: x509.Certificate) -> str:
    """For example GH100, GB100 or LS10."""
    return common_name(leaf).partition(" ")[0].replace("_", "")


def architecture_of(leaf: x509.Certificate) -> str:
    """One of `ARCHITECTURES`' values, or nothing for a chip that is not known."""
    return ARCHITECTURES.get(chip_of(leaf)[:2], "")


def _is_signed(report: NvidiaReport, leaf: x509.Certificate) -> bool:
    key, half = leaf.public_key(), SIGNATURE_BYTES // 2
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return False
    numbers = (int.from_bytes(part, "big") for part in (report.signature[:half], report.signature[half:]))
    try:
        key.verify(encode_dss_signature(*numbers), report.signed, ec.ECDSA(SHA384()))
    except InvalidSignature:
        return False
    return True


def _certified_fwid(leaf: x509.Certificate) -> bytes | None:
    """The firmware's digest in the leaf: at the end of Hopper's extension, first of the list in Blackwell's."""
    try:
        oid = x509.ObjectIdentifier(_FWID_OIDS[architecture_of(leaf)])
        value = leaf.extensions.get_extension_for_oid(oid).value.public_bytes()
    except x509.ExtensionNotFound:
        return None
    _, header, rest = value.partition(_FWID_HEADER)
    return rest[:_FWID_BYTES] if header else None


def serial_of(certificate: x509.Certificate, size: int) -> bytes:
    """The certificate's serial number in at least so many bytes."""
    number = abs(certificate.serial_number)
    return number.to_bytes(max(size, (number.bit_length() + 7) // 8), "big")
