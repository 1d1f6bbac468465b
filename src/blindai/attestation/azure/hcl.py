"""Azure's HCL report, read exactly: a CPU's report, and the JSON that it names (docs/spec/tee/azure_vtpm.md §1).

Sources: Microsoft, "Confidential VM guest attestation design detail" (learn.microsoft.com), and OpenHCL's
`IgvmAttestRequestBase` of version 1, which is the same structure.
Leaves out: whether the CPU's report is authentic (sev_snp.py and tdx.py judge the item beside this one).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import rsa

from blindai.attestation.exact_reader import ExactReader
from blindai.errors import MalformedEvidenceError
from blindai.wire import base64url_decode, strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

TEE = "azure_vtpm"

# All integers are little-endian. 32 bytes: "HCLA" ‖ u32 version ‖ u32 report size ‖ u32 request type ‖ u32 status
#   ‖ 12 bytes reserved; 1184 bytes for the CPU's report; 20 bytes: u32 data size ‖ u32 version ‖ u32 report type
#   ‖ u32 hash type ‖ u32 claims size; the claims. "Report size" counts all of it, "data size" what follows the report.
_MAGIC = b"HCLA"
_VERSIONS = (1, 2)
_REQUEST_AK_CERTIFICATE = 2
_DATA_VERSION = 1
_HARDWARE_BYTES = 1184
_FIXED_BYTES, _DATA_FIXED_BYTES = 32 + _HARDWARE_BYTES + 20, 20
MAX_HCL_BYTES = 4096  # the NV index 0x01400001 has 2600, filled up with zeros

SEV_SNP, TDX = "sev_snp", "tdx"
_REPORT_TYPES = {1: "a VBS report", 2: SEV_SNP, 3: "a TVM report", 4: TDX}
_HASH_TYPES = {1: "sha256", 2: "sha384", 3: "sha512"}
# AMD 56860, table ATTESTATION_REPORT; Intel TDX Module ABI, TDREPORT_STRUCT, of 1024 bytes.
_REPORT_DATA = {SEV_SNP: slice(0x50, 0x90), TDX: slice(0x80, 0xC0)}
_SNP_VMPL = slice(0x30, 0x34)
# What a quote's body has of a TDREPORT: from TEE_TCB_INFO the SVNs, the module's measurements and attributes; of
# TDINFO all to the last RTMR; the report data. A body of TD 1.5 goes on behind that.
_QUOTED = (slice(0x108, 0x180), slice(0x200, 0x390), slice(0x80, 0xC0))
_QUOTE_BODY = {b"\4\0": 48, b"\5\0": 54}  # by the quote's version: behind its header, and in 5 type and size, too
_TDREPORT_BYTES = 1024  # of the 1184; an SNP report fills them

_AK_NAME = "HCLAkPub"
_RSA_BITS = range(2048, 4097)
_MAX_KEYS = 8
USER_DATA_BYTES = 64
_USER_DATA = re.compile(rf"[0-9A-Fa-f]{{{2 * USER_DATA_BYTES}}}")
_FLAGS = ("secure-boot", "console-enabled", "tpm-enabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """An HCL report's parts, before anything in them is believed.

    Attributes:
        version: the header's, 1 or 2.
        hardware: `sev_snp` or `tdx`, or in words what it is instead.
        hash_name: what the CPU's report data was hashed with, for example `sha256`.
        hardware_report: the report as the CPU made it: SNP's 1184 bytes, a TDREPORT's 1024, or all of an unknown one.
        runtime_data: the JSON, exactly as hashed.
    """

    version: int
    hardware: str
    hash_name: str
    hardware_report: bytes = field(repr=False)
    runtime_data: bytes = field(repr=False)

    @property
    def report_data(self) -> bytes:
        """The 64 bytes of report data in the CPU's report."""
        return self.hardware_report[_REPORT_DATA[self.hardware]]

    @property
    def named_data(self) -> bytes:
        """What they must be: SHA-256 of the runtime data, and zeros."""
        return hashlib.sha256(self.runtime_data).digest().ljust(64, b"\0")

    @property
    def vmpl(self) -> int:
        """The privilege level that asked for the report: 0 is the paravisor's; a TD has none."""
        return int.from_bytes(self.hardware_report[_SNP_VMPL], "little") if self.hardware == SEV_SNP else 0

    def is_report_of(self, tee: str, evidence: bytes) -> bool:
        """Whether the CPU's item was made of this report: the SNP report itself, or a TDX quote with its fields."""
        if tee != self.hardware:
            return False
        if tee == SEV_SNP:
            return evidence == self.hardware_report
        body = b"".join(self.hardware_report[part] for part in _QUOTED)
        return evidence.startswith(body, _QUOTE_BODY.get(evidence[:2], len(evidence)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeClaims:
    """What the paravisor says in the runtime data.

    Attributes:
        attestation_key: HCLAkPub, with which the vTPM signs quotes.
        secure_boot: whether its UEFI starts only what is signed.
        console_enabled: whether the virtual machine has a serial console.
        vm_id: `vmUniqueId`.
        user_data: 64 bytes that the guest wrote last, which anybody in it may.
        configuration: every member of `vm-configuration` as text.
    """

    attestation_key: rsa.RSAPublicKey = field(repr=False)
    secure_boot: bool
    console_enabled: bool
    tpm_enabled: bool
    vm_id: str
    user_data: bytes
    configuration: tuple[tuple[str, str], ...]


def parse_hcl(raw: bytes) -> HclReport:
    """Read exactly an HCL report; only zeros may follow it.

    Raises:
        MalformedEvidenceError: anything else, code `azure_vtpm.hcl_format`.
    """
    try:
        return _take_report(raw)
    except ValueError as error:
        raise _malformed("hcl_format", "an HCL report", error) from None


def _malformed(code: str, what: str, error: ValueError) -> MalformedEvidenceError:
    return MalformedEvidenceError(f"expected {what}, found that {error}", finding_code=f"{TEE}.{code}", tee=TEE)


def _take_report(raw: bytes) -> HclReport:
    reader = ExactReader(raw, "little")
    if reader.take(4, "the magic") != _MAGIC:
        raise ValueError("it does not begin with HCLA")
    version = _one_of(reader.number(4, "the version"), _VERSIONS, "the version")
    report_size = reader.number(4, "the report size")
    _one_of(reader.number(4, "the request type"), (_REQUEST_AK_CERTIFICATE,), "the request type")
    _one_of(reader.number(4, "the status"), (0,), "the status")
    _require_zeros(reader.take(12, "the reserved bytes"), "the reserved bytes")
    hardware_report = reader.take(_HARDWARE_BYTES, "the CPU's report")
    data_size = reader.number(4, "the data size")
    _one_of(reader.number(4, "the data version"), (_DATA_VERSION,), "the data version")
    hardware = _named(reader.number(4, "the report type"), _REPORT_TYPES, "the report type")
    hash_name = _named(reader.number(4, "the hash type"), _HASH_TYPES, "the hash type")
    runtime_data = reader.sized(4, "the runtime data", limit=MAX_HCL_BYTES)
    _require_zeros(reader.take(reader.left, "the rest"), "what follows the runtime data")
    if data_size != _DATA_FIXED_BYTES + len(runtime_data) or report_size != _FIXED_BYTES + len(runtime_data):
        raise ValueError(f"{len(runtime_data)} bytes of runtime data do not make sizes {data_size} and {report_size}")
    size = _TDREPORT_BYTES if hardware == TDX else _HARDWARE_BYTES
    _require_zeros(hardware_report[size:], "what follows the CPU's report")
    return HclReport(
        version=version,
        hardware=hardware,
        hash_name=hash_name,
        hardware_report=hardware_report[:size],
        runtime_data=runtime_data,
    )


def _one_of(value: int, accepted: tuple[int, ...], what: str) -> int:
    if value not in accepted:
        raise ValueError(f"{what} is {value}")
    return value


def _named(value: int, names: Mapping[int, str], what: str) -> str:
    if value not in names:
        raise ValueError(f"{what} is {value}")
    return names[value]


def _require_zeros(data: bytes, what: str) -> None:
    if any(data):
        raise ValueError(f"{what} are not zero")


def parse_runtime_claims(raw: bytes) -> RuntimeClaims:
    """Read the runtime data; members that are not known are shown and mean nothing.

    Raises:
        MalformedEvidenceError: not strict JSON, or without what it must have; code `azure_vtpm.runtime_claims_format`.
    """
    try:
        claims = _dict(strict_json(raw, max_bytes=MAX_HCL_BYTES), "the runtime data")
        configuration = _dict(claims.get("vm-configuration"), "vm-configuration")
        secure_boot, console_enabled, tpm_enabled = (_flag(configuration, name) for name in _FLAGS)
        return RuntimeClaims(
            attestation_key=_attestation_key(claims.get("keys")),
            secure_boot=secure_boot,
            console_enabled=console_enabled,
            tpm_enabled=tpm_enabled,
            vm_id=_text(configuration.get("vmUniqueId"), "vmUniqueId"),
            user_data=_user_data(claims.get("user-data")),
            configuration=tuple((name, _shown(value)) for name, value in configuration.items()),
        )
    except ValueError as error:
        raise _malformed("runtime_claims_format", "the runtime claims of an HCL report", error) from None


def _dict(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object")  # noqa: TRY004  # callers wrap one exception type
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is no text")  # noqa: TRY004  # callers wrap one exception type
    return value


def _flag(configuration: Mapping[str, object], name: str) -> bool:
    value = configuration.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")  # noqa: TRY004  # callers wrap one exception type
    return value


def _user_data(value: object) -> bytes:
    text = _text(value, "user-data")
    if not _USER_DATA.fullmatch(text):
        raise ValueError(f"user-data has no {USER_DATA_BYTES} bytes in hexadecimal digits")
    return bytes.fromhex(text)


def _attestation_key(keys: object) -> rsa.RSAPublicKey:
    """The one JSON web key (RFC 7517) of that name, which must be for signing and of RSA."""
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
        raise ValueError(f"keys is no list of at most {_MAX_KEYS}")
    named = [key for key in keys if _dict(key, "a key").get("kid") == _AK_NAME]
    if len(named) != 1:
        raise ValueError(f"{len(named)} keys are named {_AK_NAME}")
    (key,) = named
    if key.get("kty") != "RSA" or key.get("key_ops") != ["sign"]:
        raise ValueError(f"{_AK_NAME} is no RSA key for signing")
    modulus, exponent = (int.from_bytes(base64url_decode(key.get(name)), "big") for name in ("n", "e"))
    if modulus.bit_length() not in _RSA_BITS:
        raise ValueError(f"{_AK_NAME} has {modulus.bit_length()} bits")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _shown(value: object) -> str:
    """A member as people should see it; only scalars are expected, and no other is shown whole."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value) if isinstance(value, str | int) else "another value"
    return text if text.isprintable() else ascii(text)
