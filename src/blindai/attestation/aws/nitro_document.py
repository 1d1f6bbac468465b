"""A Nitro attestation document, read exactly; nothing in it is believed yet (docs/spec/tee/nitro.md §1).

Leaves out: who signed it and what is accepted (tee/nitro.py), the envelope around it (aws/cose_sign1.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from blindai.attestation.aws.cose_sign1 import CoseSign1, exact_bytes, parse_sign1, read_map
from blindai.errors import MalformedEvidenceError

TEE = "nitro"

# aws-nitro-enclaves-nsm-api, docs/attestation_process.md §2.2 and §3.2.2.
_REQUIRED = {"module_id", "digest", "timestamp", "certificate", "cabundle"}
_OPTIONAL = {"public_key", "user_data", "nonce"}
ENCLAVE_PCRS = "pcrs"
_NITROTPM_PCRS = "nitrotpm_pcrs"  # AWS EC2 User Guide, "Validate a NitroTPM Attestation Document"
_DIGEST = "SHA384"
PCR_BYTES = 48  # of SHA-384, the one digest that §3.2.2.2 names
_MAX_PCRS = 32
_MAX_CERTIFICATE_BYTES = 1024
_MAX_CA_CERTIFICATES = 7  # §3.2.2.2 sets no limit; five are seen at most, and eight with the leaf are read
_MAX_PUBLIC_KEY_BYTES = 1024
_MAX_USER_BYTES = 512
_MAX_MODULE_ID = 255
_END_OF_TIME_MS = 253_402_300_800_000  # the year 10000


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationDocument:
    """An attestation document as signed.

    Attributes:
        pcr_field: `pcrs`, or `nitrotpm_pcrs` in a document of NitroTPM.
        timestamp_ms: when it was made, in Unix milliseconds.
        pcrs: index and value, 48 bytes each, ascending.
        certificate: the signing key's, in DER.
        ca_bundle: from the root to its issuer, in DER.
    """

    module_id: str
    timestamp_ms: int
    pcr_field: str
    pcrs: tuple[tuple[int, bytes], ...]
    certificate: bytes = field(repr=False)
    ca_bundle: tuple[bytes, ...] = field(repr=False)
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    envelope: CoseSign1


def parse(raw: bytes) -> AttestationDocument:
    """Read exactly a signed attestation document.

    Raises:
        MalformedEvidenceError: another form, size or encoding.
    """
    try:
        envelope = parse_sign1(raw)
        return _read_document(read_map(envelope.payload), envelope)
    except ValueError as error:
        raise MalformedEvidenceError(
            f"expected an attestation document of Nitro, found that {error}", finding_code="nitro.format", tee=TEE
        ) from None


def _read_document(members: dict[str, Any], envelope: CoseSign1) -> AttestationDocument:
    pcr_field = _NITROTPM_PCRS if _NITROTPM_PCRS in members else ENCLAVE_PCRS
    if missing := (_REQUIRED | {pcr_field}) - members.keys():
        raise ValueError(f"{min(missing)} is missing")
    if unknown := members.keys() - _REQUIRED - _OPTIONAL - {pcr_field}:
        raise ValueError(f"{min(unknown)!r} is not known")
    if members["digest"] != _DIGEST:
        raise ValueError(f"the digest is not {_DIGEST}")
    bundle = _sized(members["cabundle"], list, "cabundle", _MAX_CA_CERTIFICATES)
    return AttestationDocument(
        module_id=_sized(members["module_id"], str, "module_id", _MAX_MODULE_ID),
        timestamp_ms=_number(members["timestamp"], "timestamp", 1, _END_OF_TIME_MS),
        pcr_field=pcr_field,
        pcrs=_read_pcrs(_sized(members[pcr_field], dict, pcr_field, _MAX_PCRS)),
        certificate=exact_bytes(members["certificate"], "certificate", 1, _MAX_CERTIFICATE_BYTES),
        ca_bundle=tuple(exact_bytes(one, "a CA certificate", 1, _MAX_CERTIFICATE_BYTES) for one in bundle),
        public_key=_optional(members, "public_key", 1, _MAX_PUBLIC_KEY_BYTES),
        user_data=_optional(members, "user_data", 0, _MAX_USER_BYTES),
        nonce=_optional(members, "nonce", 0, _MAX_USER_BYTES),
        envelope=envelope,
    )


def _sized(value: Any, kind: type[Any], what: str, most: int) -> Any:
    if not isinstance(value, kind) or not 1 <= len(value) <= most:
        raise ValueError(f"{what} is not 1 to {most} long, or of another type")
    return value


def _number(value: object, what: str, least: int, end: int) -> int:
    if type(value) is not int or not least <= value < end:
        raise ValueError(f"{what} is no whole number from {least} to {end - 1}")
    return value


def _read_pcrs(pcrs: dict[object, object]) -> tuple[tuple[int, bytes], ...]:
    pairs = ((_number(index, "a PCR's index", 0, _MAX_PCRS), value) for index, value in pcrs.items())
    return tuple(sorted((index, exact_bytes(value, f"PCR{index}", PCR_BYTES, PCR_BYTES)) for index, value in pairs))


def _optional(members: dict[str, Any], name: str, least: int, most: int) -> bytes | None:
    """§3.2.2.1 forbids null; the hypervisor sends null for what was not asked for."""
    value = members.get(name)
    return None if value is None else exact_bytes(value, name, least, most)
