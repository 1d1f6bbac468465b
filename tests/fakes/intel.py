"""A fake Intel: its own SGX root, CAs, TCB signer, platform and quoting enclave, which sign anything that a test wants.

A test takes the good case, replaces what it is about, and asks for the evidence; every part can be replaced.
Leaves out: what must come of it (tests/attestation/test_tdx.py, test_sgx.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.intel_pki import (
    ATTESTATION,
    CA_MADE,
    CA_NAME,
    COMPONENTS,
    FMSPC,
    NOW,
    PCE_ID,
    PCE_SVN,
    PCK,
    PLATFORM_CA,
    ROOT,
    ROOT_MADE,
    ROOT_NAME,
    SIGNER,
    SIGNER_MADE,
    crl,
    pck_certificate,
    pem,
    sign,
)

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.intel.quote import INTEL_QE_VENDOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

DAY = timedelta(days=1)
QE_SIGNER = b"q" * 32
TEE_TCB_SVN = bytes([7, 1, 3]) + bytes(13)
ADVISORY = "INTEL-SA-09999"

# --- collateral -------------------------------------------------------------------------------------------------------


def verdict(status: str, advisories: Sequence[str] = (), date: str = "2026-02-01T00:00:00Z") -> dict[str, Any]:
    """The part of a level that judges."""
    judged: dict[str, Any] = {"tcbDate": date, "tcbStatus": status}
    return judged | ({"advisoryIDs": list(advisories)} if advisories else {})


def level(  # one level
    status: str = "UpToDate",
    *,
    sgx: Sequence[int] = COMPONENTS,
    pce_svn: int = PCE_SVN,
    tdx: Sequence[int] | None = (5, 0, 3, *(0,) * 13),
    advisories: Sequence[str] = (),
    date: str = "2026-02-01T00:00:00Z",
) -> dict[str, Any]:
    """A platform's level."""
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in sgx], "pcesvn": pce_svn}
    if tdx is not None:
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in tdx]
    return {"tcb": tcb, **verdict(status, advisories, date)}


LOW = (1,) * 16
OLD_LEVEL = level("OutOfDate", sgx=LOW, pce_svn=5, tdx=(1, 0, 1, *(0,) * 13), advisories=[ADVISORY])


def svn_level(
    isv_svn: int, status: str = "UpToDate", advisories: Sequence[str] = (), date: str = "2026-02-01T00:00:00Z"
) -> dict[str, Any]:
    """A level of a QE or a TDX module."""
    return {"tcb": {"isvsvn": isv_svn}, **verdict(status, advisories, date)}


def module(
    number: int | None, levels: Sequence[dict[str, Any]] = (svn_level(6), svn_level(4, "OutOfDate"))
) -> dict[str, Any]:
    """A TDX module's identity; without a number, that of version 0."""
    identity = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    return identity if number is None else {"id": f"TDX_{number:02X}", **identity, "tcbLevels": list(levels)}


def issue(kind: str, version: int) -> dict[str, Any]:
    """What every document begins with."""
    return {
        "id": kind,
        "version": version,
        "issueDate": f"{NOW - DAY:%Y-%m-%dT%H:%M:%SZ}",
        "nextUpdate": f"{NOW + 29 * DAY:%Y-%m-%dT%H:%M:%SZ}",
        "tcbEvaluationDataNumber": 20,
    }


def tcb_info(tee: str, **changes: Any) -> dict[str, Any]:
    """TCB info of the fake platform, good unless changed."""
    info = issue("TDX" if tee == "tdx" else "SGX", 3) | {
        "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex(),
        "tcbType": 0,
    }
    info["tcbLevels"] = [level(), OLD_LEVEL] if tee == "tdx" else [level(tdx=None), OLD_LEVEL]
    if tee == "tdx":
        info |= {"tdxModule": module(None), "tdxModuleIdentities": [module(3), module(1)]}
    return info | changes


def qe_identity(tee: str, **changes: Any) -> dict[str, Any]:
    """The identity of the fake quoting enclave, good unless changed."""
    identity = issue("TD_QE" if tee == "tdx" else "QE", 2)
    identity |= {"miscselect": "00000000", "miscselectMask": "FFFFFFFF"}
    identity |= {"attributes": "11" + "00" * 15, "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8}
    identity |= {"mrsigner": QE_SIGNER.hex().upper(), "isvprodid": 2 if tee == "tdx" else 1}
    identity["tcbLevels"] = [svn_level(6), svn_level(4, "OutOfDate", [ADVISORY])]
    return identity | changes


# --- reports and quotes -----------------------------------------------------------------------------------------------


def sgx_report(**changes: bytes) -> bytes:
    """384 bytes; each field by its name, good for an enclave unless changed."""
    fields = {
        "cpu_svn": bytes(16),
        "misc_select": bytes(4),
        "reserved1": bytes(12),
        "isv_ext_prod_id": bytes(16),
        "attributes": bytes([5]) + bytes(7) + bytes([3]) + bytes(7),
        "mr_enclave": b"e" * 32,
        "reserved2": bytes(32),
        "mr_signer": b"s" * 32,
        "reserved3": bytes(32),
        "config_id": bytes(64),
        "isv_prod_id": b"\1\0",
        "isv_svn": b"\2\0",
        "config_svn": bytes(2),
        "reserved4": bytes(42),
        "isv_family_id": bytes(16),
        "report_data": b"r" * 64,
    }
    return b"".join((fields | changes).values())


def td_report(version: int, **changes: bytes) -> bytes:
    """584 bytes, or 648 for a quote of version 5."""
    fields = {
        "tee_tcb_svn": TEE_TCB_SVN,
        "mr_seam": b"m" * 48,
        "mr_signer_seam": bytes(48),
        "seam_attributes": bytes(8),
    }
    fields |= {"td_attributes": (1 << 28).to_bytes(8, "little"), "xfam": (0xE7).to_bytes(8, "little")}
    fields |= {"mr_td": b"t" * 48, "mr_config_id": bytes(48), "mr_owner": bytes(48), "mr_owner_config": bytes(48)}
    fields |= {f"rt_mr{index}": bytes([index]) * 48 for index in range(4)} | {"report_data": b"r" * 64}
    if version == 5:  # TD 1.5
        fields |= {"tee_tcb_svn2": TEE_TCB_SVN, "mr_service_td": bytes(48)}
    return b"".join((fields | changes).values())


def sized(size_bytes: int, data: bytes) -> bytes:
    """The data with its size before it."""
    return len(data).to_bytes(size_bytes, "little") + data


def ccel_event(register: int, digest: bytes, *, kind: int = 0xD, data: bytes = b"a kernel") -> bytes:
    """An event of a TD's log; register 1 is RTMR0."""
    head = b"".join(number.to_bytes(4, "little") for number in (register, kind, 1))
    return head + b"\x0c\0" + digest + sized(4, data)


def ccel(*events: bytes, fill: bytes = b"\xff" * 100, spec: bytes = b"\0\0\0\0\0\2\0\2\1\0\0\0\x0c\0\x30\0\0") -> bytes:
    """A TD's event log, with the unused end of its area."""
    header = b"Spec ID Event03\0" + spec
    return b"\1\0\0\0\3\0\0\0" + bytes(20) + sized(4, header) + b"".join(events) + fill


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEvidence:
    """Evidence of the fake platform; what is not given is good.

    Attributes:
        body: fields of the enclave's or TD's report to change.
        qe: fields of the quoting enclave's report to change.
        header: fields of the quote's header to change: `version`, `key_type`, `tee_type`, `svns`, `vendor`.
        certification: type and data in the quote's place for the PCK chain.
        wrapper: type of the certification data that wraps the QE's report.
        endorsements: names and bytes to change; None takes one away.
        padding: what stands behind the quote.
    """

    tee: str = "tdx"
    version: int = 4
    body_type: int = 3
    body: Mapping[str, bytes] = field(default_factory=dict)
    raw_body: bytes | None = None
    header: Mapping[str, bytes] = field(default_factory=dict)
    qe: Mapping[str, bytes] = field(default_factory=dict)
    pck: x509.Certificate | None = None
    chain: Sequence[x509.Certificate] = (CA_MADE, ROOT_MADE)
    pck_key: ec.EllipticCurvePrivateKey = PCK
    attestation_key: ec.EllipticCurvePrivateKey = ATTESTATION
    named_key: bytes | None = None
    certification: tuple[int, bytes] | None = None
    wrapper: int = 6
    tcb_info: Mapping[str, Any] = field(default_factory=dict)
    qe_identity: Mapping[str, Any] = field(default_factory=dict)
    endorsements: Mapping[str, bytes | None] = field(default_factory=dict)
    padding: bytes = b""

    def item(self) -> EvidenceItem:
        """The quote and its endorsements."""
        return EvidenceItem(tee=self.tee, evidence=self.quote(), endorsements=self._endorsements())

    def quote(self) -> bytes:
        """Signed by the attestation key, which the QE's report names, which the PCK signed."""
        signed = self._header() + self._body()
        point = self.attestation_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        named = point if self.named_key is None else self.named_key
        auth = bytes(range(32))
        report = sgx_report(
            **{
                "attributes": bytes([0x15]) + bytes(7) + bytes([0xE7]) + bytes(7),
                "mr_signer": QE_SIGNER,
                "isv_prod_id": (2 if self.tee == "tdx" else 1).to_bytes(2, "little"),
                "isv_svn": b"\7\0",
                "report_data": hashlib.sha256(named + auth).digest() + bytes(32),
                **self.qe,
            }
        )
        chain = pem(self.pck or pck_certificate(), *self.chain) + b"\0"
        kind, data = self.certification or (5, chain)
        certified = report + sign(self.pck_key, report) + sized(2, auth) + kind.to_bytes(2, "little") + sized(4, data)
        if self.version > 3:  # wrapped from version 4 on
            certified = self.wrapper.to_bytes(2, "little") + sized(4, certified)
        return signed + sized(4, sign(self.attestation_key, signed) + named + certified) + self.padding

    def _header(self) -> bytes:
        fields = {
            "version": self.version.to_bytes(2, "little"),
            "key_type": b"\2\0",
            "tee_type": (0x81 if self.tee == "tdx" else 0).to_bytes(4, "little"),
            "svns": bytes(4),
            "vendor": INTEL_QE_VENDOR,
            "user_data": b"u" * 20,
        }
        return b"".join((fields | dict(self.header)).values())

    def _body(self) -> bytes:
        if self.raw_body is not None:
            return self.raw_body
        if self.tee == "sgx":
            return sgx_report(**self.body)
        body = td_report(self.version if self.body_type == 3 else 4, **self.body)  # TD 1.5
        return body if self.version == 4 else self.body_type.to_bytes(2, "little") + sized(4, body)

    def _endorsements(self) -> tuple[tuple[str, bytes], ...]:
        info = json.dumps(tcb_info(self.tee, **self.tcb_info)).encode()
        identity = json.dumps(qe_identity(self.tee, **self.qe_identity)).encode()
        good: dict[str, bytes | None] = {
            "tcb_info": info,
            "tcb_info_signature": sign(SIGNER, info),
            "tcb_info_issuer_chain": pem(SIGNER_MADE, ROOT_MADE),
            "qe_identity": identity,
            "qe_identity_signature": sign(SIGNER, identity),
            "qe_identity_issuer_chain": pem(SIGNER_MADE, ROOT_MADE),
            "root_ca_crl": crl(ROOT_NAME, ROOT),
            "pck_crl": crl(CA_NAME, PLATFORM_CA),
            "pck_crl_issuer_chain": pem(CA_MADE, ROOT_MADE),
        }
        present = (good | dict(self.endorsements)).items()
        return tuple(sorted((name, data) for name, data in present if data is not None))
