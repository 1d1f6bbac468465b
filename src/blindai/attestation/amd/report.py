"""Reads an SEV-SNP attestation report of 1184 bytes, versions 2 to 5, exactly (docs/spec/tee/sev_snp.md §1).

Every byte has a meaning or must be zero. Offsets and sizes are those of table ATTESTATION_REPORT in AMD's "SEV Secure
Nested Paging Firmware ABI Specification", document 56860, revision 1.58; numbers are little-endian.
Leaves out: the layout of TCB versions, which is the product's (amd/tcb.py), and every judgement (tee/sev_snp.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blindai.errors import MalformedEvidenceError

TEE = "sev_snp"
CODE = "sev_snp.format"

REPORT_BYTES = 0x4A0
SIGNED_BYTES = 0x2A0
VERSIONS = range(2, 6)
ECDSA_P384_SHA384 = 1  # table SIGNATURE_ALGO
HIGHEST_VMPL = 3  # a report that the hypervisor asked for says 0xFFFFFFFF, and speaks for no guest

# POLICY, table "Guest Policy": bits 0–25 are defined, and bit 17 must be one.
POLICY_DEFINED = (1 << 26) - 1
POLICY_MUST_BE_ONE = 1 << 17
# The word at 0x048: AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY in bits 0, 1 and 2–4; those above are undefined.
AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY_AT = 1, 2, 2
HIGHEST_SIGNING_KEY = 7

# SIGNATURE, table "ECDSA P-384 with SHA-384 signature": R and S of 72 bytes each, of which a P-384 number needs 48.
_R = slice(0x2A0, 0x2A0 + 48)
_S = slice(0x2E8, 0x2E8 + 48)
# What must be zero in every version, and what until a version gave it a meaning.
_RESERVED = (
    slice(0x04C, 0x050),
    slice(0x18B, 0x1A0),
    slice(0x1EB, 0x1EC),
    slice(0x1EF, 0x1F0),
    slice(0x208, 0x2A0),
    slice(_R.stop, _S.start),
    slice(_S.stop, REPORT_BYTES),
)
_CPUID_SINCE, _MITIGATIONS_SINCE = 3, 5
_RESERVED_BEFORE = ((_CPUID_SINCE, slice(0x188, 0x18B)), (_MITIGATIONS_SINCE, slice(0x1F8, 0x208)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuId:
    """Family, model and stepping, each as CPUID adds base and extended ones up."""

    family: int
    model: int
    stepping: int

    def __str__(self) -> str:
        return f"{self.family:02X}h/{self.model:02X}h/{self.stepping}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareVersion:
    """Version of the SNP firmware, as AMD writes it: `1.55.29`."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"

    @property
    def order(self) -> tuple[int, int, int]:
        """What sorts versions."""
        return (self.major, self.minor, self.build)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The fields of a report, named as in AMD's table.

    Attributes:
        policy: the guest policy's 64 bits.
        cpuid: None in version 2.
        current_tcb: 8 bytes as they stand in the report, and so the other TCB versions.
        launch_mit_vector: None before version 5, and so `current_mit_vector`.
        signed: the bytes under the signature.
        signature: r and s.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    author_key_en: bool
    mask_chip_key: bool
    signing_key: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: CpuId | None
    chip_id: bytes
    committed_tcb: bytes
    current_version: FirmwareVersion
    committed_version: FirmwareVersion
    launch_tcb: bytes
    launch_mit_vector: int | None
    current_mit_vector: int | None
    signed: bytes = field(repr=False)
    signature: tuple[int, int] = field(repr=False)

    @property
    def policy_abi(self) -> tuple[int, int]:
        """Major and minor of the oldest ABI that the guest's policy allows."""
        return (self.policy >> 8 & 0xFF, self.policy & 0xFF)


def parse(raw: bytes) -> Report:
    """Read a report.

    Raises:
        MalformedEvidenceError: another size, version or algorithm, or a bit that must be zero (or one) and is not.
    """
    if len(raw) != REPORT_BYTES:
        raise malformed(f"{len(raw)} bytes instead of {REPORT_BYTES}")
    version, algorithm = _number(raw, 0x000, 4), _number(raw, 0x034, 4)
    if version not in VERSIONS:
        raise malformed(f"version {version} instead of 2 to 5")
    if algorithm != ECDSA_P384_SHA384:
        raise malformed(f"signature algorithm {algorithm} instead of {ECDSA_P384_SHA384}")
    _require_zeros(raw, version)
    report = _read(raw, version)
    _require_defined(report)
    return report


def _require_zeros(raw: bytes, version: int) -> None:
    since = [place for first, place in _RESERVED_BEFORE if version < first]
    for place in (*_RESERVED, *since):
        if any(raw[place]):
            raise malformed(f"bytes 0x{place.start:03x} to 0x{place.stop - 1:03x} that are not zero")


def _require_defined(report: Report) -> None:
    if report.vmpl > HIGHEST_VMPL:
        raise malformed(f"VMPL {report.vmpl}, which is no guest's")
    if report.policy & ~POLICY_DEFINED or not report.policy & POLICY_MUST_BE_ONE:
        raise malformed(f"guest policy 0x{report.policy:x} with an undefined bit, or without bit 17")
    if report.signing_key > HIGHEST_SIGNING_KEY:
        raise malformed("an undefined bit beside SIGNING_KEY")
    if not report.author_key_en and any(report.author_key_digest):
        raise malformed("an author key's digest without AUTHOR_KEY_EN")


def _read(raw: bytes, version: int) -> Report:
    key_info = _number(raw, 0x048, 4)
    return Report(
        version=version,
        guest_svn=_number(raw, 0x004, 4),
        policy=_number(raw, 0x008, 8),
        family_id=raw[0x010:0x020],
        image_id=raw[0x020:0x030],
        vmpl=_number(raw, 0x030, 4),
        current_tcb=raw[0x038:0x040],
        platform_info=_number(raw, 0x040, 8),
        author_key_en=bool(key_info & AUTHOR_KEY_EN),
        mask_chip_key=bool(key_info & MASK_CHIP_KEY),
        signing_key=key_info >> SIGNING_KEY_AT,
        report_data=raw[0x050:0x090],
        measurement=raw[0x090:0x0C0],
        host_data=raw[0x0C0:0x0E0],
        id_key_digest=raw[0x0E0:0x110],
        author_key_digest=raw[0x110:0x140],
        report_id=raw[0x140:0x160],
        report_id_ma=raw[0x160:0x180],
        reported_tcb=raw[0x180:0x188],
        cpuid=CpuId(family=raw[0x188], model=raw[0x189], stepping=raw[0x18A]) if version >= _CPUID_SINCE else None,
        chip_id=raw[0x1A0:0x1E0],
        committed_tcb=raw[0x1E0:0x1E8],
        current_version=_firmware(raw, 0x1E8),
        committed_version=_firmware(raw, 0x1EC),
        launch_tcb=raw[0x1F0:0x1F8],
        launch_mit_vector=_number(raw, 0x1F8, 8) if version >= _MITIGATIONS_SINCE else None,
        current_mit_vector=_number(raw, 0x200, 8) if version >= _MITIGATIONS_SINCE else None,
        signed=raw[:SIGNED_BYTES],
        signature=(int.from_bytes(raw[_R], "little"), int.from_bytes(raw[_S], "little")),
    )


def _number(raw: bytes, offset: int, size: int) -> int:
    return int.from_bytes(raw[offset : offset + size], "little")


def _firmware(raw: bytes, offset: int) -> FirmwareVersion:
    return FirmwareVersion(build=raw[offset], minor=raw[offset + 1], major=raw[offset + 2])


def malformed(found: str, *, code: str = CODE) -> MalformedEvidenceError:
    """The refusal of bytes that are not what AMD's document says."""
    return MalformedEvidenceError(f"expected an SEV-SNP report, found {found}", finding_code=code, tee=TEE)
