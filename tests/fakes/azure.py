"""An Azure of our own: a paravisor's HCL report around a fake CPU's report, and a vTPM that quotes anything."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import rsa
from fakes.amd import FakeMachine
from fakes.intel import FakeEvidence
from fakes.tpm_vendor import FakeTpm, FakeVendor, rsa_key

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee.azure_vtpm import AzureVtpmEvidence, encode
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Mapping

VENDOR = FakeVendor(name="fake Microsoft")
VM_ID = "00000000-1111-2222-3333-444444444444"
HCL_BYTES = 2600  # of the NV index


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def web_key(name: str, operation: str, key: rsa.RSAPrivateKey) -> dict[str, Any]:
    """A JSON web key as the paravisor writes it."""
    numbers = key.public_key().public_numbers()
    modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
    exponent = numbers.e.to_bytes(3, "big")
    return {
        "kid": name,
        "key_ops": [operation],
        "kty": "RSA",
        "e": base64url_encode(exponent),
        "n": base64url_encode(modulus),
    }


@dataclass(kw_only=True)
class FakeAzure:
    """A good virtual machine, unless a field says otherwise.

    Attributes:
        hardware: `sev_snp` or `tdx`.
        tpm: the vTPM, whose key the paravisor names.
        cpu: of the CPU's report: for SNP fields of the report, for TDX fields of the quote's body.
        quote_version: of TDX.
        report_data: of the CPU's report, instead of the runtime data's digest.
        claims: members of the runtime data to change; `...` leaves one out.
        configuration: members of `vm-configuration` to change, likewise.
        runtime_data: all of it, instead.
        header: numbers and bytes of the HCL report's header and data header to change.
        padding: what follows the runtime data; zeros up to the NV index's size, unless it is said.
        behind_report: what follows a TDREPORT in its place.
        endorsements: of the vTPM's item.
    """

    hardware: str = "sev_snp"
    tpm: FakeTpm = field(default_factory=lambda: FakeTpm(with_log=False))
    cpu: Mapping[str, Any] = field(default_factory=dict)
    quote_version: int = 4
    report_data: bytes | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    runtime_data: bytes | None = None
    header: Mapping[str, int | bytes] = field(default_factory=dict)
    padding: bytes | None = None
    behind_report: bytes = b""
    endorsements: Mapping[str, bytes] = field(default_factory=dict)

    def json(self) -> bytes:
        """The runtime data."""
        if self.runtime_data is not None:
            return self.runtime_data
        assert isinstance(self.tpm.key, rsa.RSAPrivateKey)
        configuration = {
            "console-enabled": True,
            "secure-boot": True,
            "tpm-enabled": True,
            "vmUniqueId": VM_ID,
            **self.configuration,
        }
        claims = {
            "keys": [web_key("HCLAkPub", "sign", self.tpm.key), web_key("HCLEkPub", "encrypt", rsa_key(7))],
            "vm-configuration": {name: value for name, value in configuration.items() if value is not ...},
            "user-data": "00" * 64,
            **self.claims,
        }
        return json.dumps({name: value for name, value in claims.items() if value is not ...}).encode()

    def named(self) -> bytes:
        """The CPU's report data."""
        digest = hashlib.sha256(self.json()).digest() + bytes(32)
        return digest if self.report_data is None else self.report_data

    def machine(self) -> EvidenceItem:
        """The CPU's item."""
        if self.hardware == "sev_snp":
            return FakeMachine(fields={"report_data": self.named(), **self.cpu}).item()
        return FakeEvidence(version=self.quote_version, body={"report_data": self.named(), **self.cpu}).item()

    def hardware_report(self, machine: EvidenceItem) -> bytes:
        """The report in its place of 1184 bytes: SNP's own, or the TDREPORT that the quote was made of."""
        if self.hardware == "sev_snp":
            return machine.evidence
        begin = 48 if machine.evidence[0] == 4 else 54
        body = machine.evidence[begin : begin + 584]
        mac_struct = (b"\x81" + bytes(127) + body[520:]).ljust(256, b"m")  # REPORTMACSTRUCT
        tcb_info = (b"valid..." + body[:120]).ljust(256, b"r")  # TEE_TCB_INFO, and 17 bytes reserved
        td_info = body[120:520].ljust(512, b"r")
        return (mac_struct + tcb_info + td_info + self.behind_report).ljust(1184, b"\0")

    def hcl_report(self, machine: EvidenceItem) -> bytes:
        """What NV index 0x01400001 holds."""
        data = self.json()
        fields: dict[str, int | bytes] = {
            "magic": b"HCLA",
            "version": 2,
            "report_size": 1236 + len(data),
            "request_type": 2,
            "status": 0,
            "reserved": bytes(12),
            "report": self.hardware_report(machine),
            "data_size": 20 + len(data),
            "data_version": 1,
            "report_type": {"sev_snp": 2, "tdx": 4}[self.hardware],
            "hash_type": 1,
            "claims_size": len(data),
            **self.header,
        }
        report = b"".join(value if isinstance(value, bytes) else u32(value) for value in fields.values()) + data
        return report.ljust(HCL_BYTES, b"\0") if self.padding is None else report + self.padding

    def carrier(self, machine: EvidenceItem | None = None, **parts: bytes) -> EvidenceItem:
        """The vTPM's item, made beside this machine, with these parts of it replaced."""
        quoted = self.tpm.evidence()
        made = {
            "hcl_report": self.hcl_report(machine or self.machine()),
            "quote": quoted.quote,
            "signature": quoted.signature,
            "pcr_values": quoted.pcr_values,
            "event_log": quoted.event_log,
            **parts,
        }
        return EvidenceItem(
            tee="azure_vtpm",
            evidence=encode(AzureVtpmEvidence(**made)),
            endorsements=tuple(self.endorsements.items()),
        )

    def items(self) -> tuple[EvidenceItem, EvidenceItem]:
        """Both items of one machine."""
        machine = self.machine()
        return machine, self.carrier(machine)
