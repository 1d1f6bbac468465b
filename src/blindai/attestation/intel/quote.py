"""Reads Intel's ECDSA quotes exactly: version 3 (SGX), 4 and 5 (TDX); every declared length consumes the buffer.

Sources: Intel "SGX ECDSA QuoteGenReq, API and Quote Format" Appendix A.3 and A.4 (versions 3 and 4), "Intel TDX DCAP
Quoting Library API" Appendix A (version 5), "Intel TDX Module Base Architecture" §22 (TD attributes and XFAM).
Leaves out: whether anything in a quote is true (intel/chain.py), and what the fields must be (tee/sgx.py, tee/tdx.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Collection

# Quote header, 48 bytes, little endian: u16 version, u16 attestation key type, u32 TEE type, u16 QE SVN and u16 PCE SVN
# (reserved from version 4 on), 16 bytes QE vendor, 20 bytes user data (the platform's QE ID).
HEADER_BYTES = 48
ECDSA_P256 = 2
TEE_SGX = 0x00000000
TEE_TDX = 0x00000081
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

SGX_REPORT_BYTES = 384
TD_REPORT_10_BYTES = 584
TD_REPORT_15_BYTES = 648
# Version 5 names its body: 1 SGX, 2 TD 1.0, 3 TD 1.5; type 4 (TD 1.5 with migration fields) is not read here.
BODY_TD_REPORT_10 = 2
BODY_TD_REPORT_15 = 3
_TD_BODY_BYTES = {BODY_TD_REPORT_10: TD_REPORT_10_BYTES, BODY_TD_REPORT_15: TD_REPORT_15_BYTES}

# Certification data: 5 is the PCK chain in PEM, 6 (versions 4 and 5) wraps the QE report and another of these types,
# and 1 to 3 name the PCK certificate by PPID, CPUSVN, PCESVN and PCEID, 404 bytes, which nobody signs.
CERTIFICATION_PCK_CHAIN = 5
CERTIFICATION_QE_REPORT = 6
_CERTIFICATION_PPID = frozenset({1, 2, 3})
_PPID_CERTIFICATION_BYTES = 404
MAX_QUOTE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxReport:
    """The body of an enclave's report (SGX "REPORT" §A.4 table 5); integers are little endian."""

    cpu_svn: bytes
    misc_select: bytes
    isv_ext_prod_id: bytes
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes

    @property
    def flags(self) -> int:
        """ATTRIBUTES.FLAGS, 64 bits."""
        return int.from_bytes(self.attributes[:8], "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """The body of a TD's report: TDREPORT 1.0, with two fields more in 1.5."""

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rt_mr0: bytes
    rt_mr1: bytes
    rt_mr2: bytes
    rt_mr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_service_td: bytes | None = None

    @property
    def runtime_registers(self) -> tuple[bytes, bytes, bytes, bytes]:
        """RTMR0 to RTMR3, 48 bytes each."""
        return self.rt_mr0, self.rt_mr1, self.rt_mr2, self.rt_mr3


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A quote, in the parts that are signed by different keys.

    Attributes:
        signed: what the attestation key signs: header and body.
        signature: r ‖ s, 64 bytes, by the attestation key.
        attestation_key: x ‖ y of a point on P-256, 64 bytes.
        qe_report_raw: the quoting enclave's own report, which names the attestation key.
        qe_report_signature: r ‖ s, by the PCK.
        qe_auth_data: hashed with the attestation key into the QE's report data.
        pck_chain: PEM, if the quote has it.
    """

    version: int
    body: SgxReport | TdReport
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: SgxReport
    qe_report_raw: bytes = field(repr=False)
    qe_report_signature: bytes = field(repr=False)
    qe_auth_data: bytes = field(repr=False)
    pck_chain: bytes | None = field(repr=False)


class _Reader:
    """Hands out a buffer piece by piece; whoever made it asks at the end whether anything is left."""

    def __init__(self, data: bytes, *, tee: str) -> None:
        self._data = data
        self._at = 0
        self.tee = tee

    def take(self, size: int, what: str) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise self.malformed(f"{len(piece)} bytes where {what} has {size}")
        self._at += size
        return piece

    def number(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "little")

    def zeros(self, size: int, what: str) -> None:
        if any(self.take(size, what)):
            raise self.malformed(f"{what} that is not zero")

    def sized(self, size_bytes: int, what: str) -> _Reader:
        """A reader over the next field, whose size stands before it."""
        size = self.number(size_bytes, f"the size of {what}")
        return _Reader(self.take(size, what), tee=self.tee)

    def rest(self) -> bytes:
        piece = self._data[self._at :]
        self._at = len(self._data)
        return piece

    def end(self, what: str) -> None:
        if left := len(self._data) - self._at:
            raise self.malformed(f"{left} bytes after {what}")

    def malformed(self, found: str) -> MalformedEvidenceError:
        return MalformedEvidenceError(
            f"expected a quote of Intel's, found {found}", finding_code=f"{self.tee}.quote_format", tee=self.tee
        )


def parse_quote(raw: bytes, *, tee: str, tee_type: int, versions: Collection[int]) -> Quote:
    """Read a quote of at most 64 KiB; after it only zeros may stand, which some kernels hand out with it.

    Raises:
        MalformedEvidenceError: another version, TEE type, key type or vendor, or sizes that do not fit.
    """
    reader = _Reader(raw, tee=tee)
    if len(raw) > MAX_QUOTE_BYTES:
        raise reader.malformed(f"{len(raw)} bytes, more than {MAX_QUOTE_BYTES}")
    version = _parse_header(reader, tee_type, versions)
    body, signed_bytes = _parse_body(reader, version)
    signature_data = reader.sized(4, "the signature data")
    if any(reader.rest()):
        raise reader.malformed("something other than zeros after its end")
    return _parse_signature_data(signature_data, version, body, raw[:signed_bytes])


def _parse_header(reader: _Reader, tee_type: int, versions: Collection[int]) -> int:
    version = reader.number(2, "the version")
    if version not in versions:
        raise reader.malformed(f"version {version} instead of {' or '.join(map(str, versions))}")
    if (key_type := reader.number(2, "the attestation key type")) != ECDSA_P256:
        raise reader.malformed(f"attestation key type {key_type} instead of {ECDSA_P256} (ECDSA on P-256)")
    if (found_type := reader.number(4, "the TEE type")) != tee_type:
        raise reader.malformed(f"TEE type {found_type:#x} instead of {tee_type:#x}")
    if tee_type == TEE_SGX:
        reader.take(4, "the SVNs of QE and PCE")  # the QE's own words; the TCB is judged by its report and its PCK
    else:
        reader.zeros(4, "a reserved field")
    if (vendor := reader.take(16, "the QE vendor")) != INTEL_QE_VENDOR:
        raise reader.malformed(f"QE vendor {vendor.hex()} instead of Intel's")
    reader.take(20, "the user data")
    return version


def _parse_body(reader: _Reader, version: int) -> tuple[SgxReport | TdReport, int]:
    """The report, and how many bytes of the quote are signed with it."""
    if version == 3:  # noqa: PLR2004  # SGX
        raw = reader.take(SGX_REPORT_BYTES, "an enclave's report")
        return parse_sgx_report(raw, tee=reader.tee), HEADER_BYTES + SGX_REPORT_BYTES
    if version == 4:  # noqa: PLR2004  # a TD's report, always of the old form
        raw = reader.take(TD_REPORT_10_BYTES, "a TD's report")
        return _parse_td_report(raw, reader.tee), HEADER_BYTES + TD_REPORT_10_BYTES
    body_type = reader.number(2, "the body type")
    if body_type not in _TD_BODY_BYTES:
        raise reader.malformed(f"body type {body_type} instead of 2 (TD 1.0) or 3 (TD 1.5)")
    size = reader.number(4, "the body's size")
    if size != _TD_BODY_BYTES[body_type]:
        raise reader.malformed(f"{size} bytes of body instead of {_TD_BODY_BYTES[body_type]}")
    return _parse_td_report(reader.take(size, "a TD's report"), reader.tee), HEADER_BYTES + 6 + size


def parse_sgx_report(raw: bytes, *, tee: str) -> SgxReport:
    """Read an enclave's report of exactly 384 bytes.

    Raises:
        MalformedEvidenceError: another size, or a reserved field that is not zero.
    """
    reader = _Reader(raw, tee=tee)
    cpu_svn = reader.take(16, "CPUSVN")
    misc_select = reader.take(4, "MISCSELECT")
    reader.zeros(12, "a reserved field")
    isv_ext_prod_id = reader.take(16, "ISVEXTPRODID")
    attributes = reader.take(16, "ATTRIBUTES")
    mr_enclave = reader.take(32, "MRENCLAVE")
    reader.zeros(32, "a reserved field")
    mr_signer = reader.take(32, "MRSIGNER")
    reader.zeros(32, "a reserved field")
    config_id = reader.take(64, "CONFIGID")
    numbers = [reader.number(2, name) for name in ("ISVPRODID", "ISVSVN", "CONFIGSVN")]
    reader.zeros(42, "a reserved field")
    isv_family_id = reader.take(16, "ISVFAMILYID")
    report_data = reader.take(64, "REPORTDATA")
    reader.end("an enclave's report")
    return SgxReport(
        cpu_svn=cpu_svn,
        misc_select=misc_select,
        isv_ext_prod_id=isv_ext_prod_id,
        attributes=attributes,
        mr_enclave=mr_enclave,
        mr_signer=mr_signer,
        config_id=config_id,
        isv_prod_id=numbers[0],
        isv_svn=numbers[1],
        config_svn=numbers[2],
        isv_family_id=isv_family_id,
        report_data=report_data,
    )


def _parse_td_report(raw: bytes, tee: str) -> TdReport:
    """Of the 584 or 648 bytes that `_parse_body` took, which these fields fill."""
    reader = _Reader(raw, tee=tee)
    sizes = {
        "tee_tcb_svn": 16,
        "mr_seam": 48,
        "mr_signer_seam": 48,
        "seam_attributes": 8,
        "td_attributes": 8,
        "xfam": 8,
    }
    sizes |= dict.fromkeys(("mr_td", "mr_config_id", "mr_owner", "mr_owner_config"), 48)
    sizes |= dict.fromkeys(("rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3"), 48) | {"report_data": 64}
    if len(raw) == TD_REPORT_15_BYTES:
        sizes |= {"tee_tcb_svn2": 16, "mr_service_td": 48}
    return TdReport(**{name: reader.take(size, name) for name, size in sizes.items()})


def _parse_signature_data(reader: _Reader, version: int, body: SgxReport | TdReport, signed: bytes) -> Quote:
    signature = reader.take(64, "the signature")
    attestation_key = reader.take(64, "the attestation key")
    if version > 3:  # noqa: PLR2004  # from version 4 on, what certifies the key is wrapped
        reader = _parse_wrapped(reader)
    qe_report_raw = reader.take(SGX_REPORT_BYTES, "the QE's report")
    qe_report_signature = reader.take(64, "the signature over the QE's report")
    qe_auth_data = reader.sized(2, "the QE's authentication data").rest()
    return Quote(
        version=version,
        body=body,
        signed=signed,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=parse_sgx_report(qe_report_raw, tee=reader.tee),
        qe_report_raw=qe_report_raw,
        qe_report_signature=qe_report_signature,
        qe_auth_data=qe_auth_data,
        pck_chain=_parse_certification(reader),
    )


def _parse_wrapped(reader: _Reader) -> _Reader:
    found = reader.number(2, "the certification data's type")
    if found != CERTIFICATION_QE_REPORT:
        raise reader.malformed(f"certification data of type {found} instead of {CERTIFICATION_QE_REPORT}")
    wrapped = reader.sized(4, "the certification data")
    reader.end("the certification data")
    return wrapped


def _parse_certification(reader: _Reader) -> bytes | None:
    found = reader.number(2, "the certification data's type")
    data = reader.sized(4, "the certification data").rest()
    reader.end("the certification data")
    if found == CERTIFICATION_PCK_CHAIN:
        return data.rstrip(b"\0")  # the QE ends the text as C does
    if found not in _CERTIFICATION_PPID or len(data) != _PPID_CERTIFICATION_BYTES:
        raise reader.malformed(f"certification data of type {found} and {len(data)} bytes")
    return None
