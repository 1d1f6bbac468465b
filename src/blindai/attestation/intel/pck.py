"""What Intel's PCK certificate says of a platform: its identity and the TCB that its key was made for.

Source: "Intel SGX PCK Certificate and CRL Profile Specification" §1.3.5, extension 1.2.840.113741.1.13.1.
Leaves out: the chain above the certificate (intel/chain.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
COMPONENTS = 16
# The extension's OID in DER; each member's has one byte more, and each of the TCB's two.
_PREFIX = bytes.fromhex("2a864886f84d010d01")
_TCB, _CONFIGURATION = 2, 7
_PCE_SVN, _CPU_SVN = COMPONENTS + 1, COMPONENTS + 2

# ASN.1 universal tags (X.690 §8)
_BOOLEAN, _INTEGER, _OCTETS, _OID, _ENUMERATED, _SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0A, 0x30
_MEMBERS = {
    1: ("PPID", _OCTETS, 16),
    _TCB: ("TCB", _SEQUENCE, 0),
    3: ("PCE-ID", _OCTETS, 2),
    4: ("FMSPC", _OCTETS, 6),
    5: ("SGX Type", _ENUMERATED, 0),
    6: ("Platform Instance ID", _OCTETS, 16),
    _CONFIGURATION: ("Configuration", _SEQUENCE, 0),
}
_OPTIONAL = frozenset({6, _CONFIGURATION})
_FLAGS = {1: "dynamic platform", 2: "cached keys", 3: "SMT enabled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pck:
    """The SGX extension of a PCK certificate.

    Attributes:
        ppid: 16 bytes that name the platform.
        components: 16 SVNs, each of 8 bits, in the order of Intel's TCB info.
        cpu_svn: the same, as the CPU writes it.
        sgx_type: 0 standard, 1 scalable, 2 scalable with integrity.
        dynamic_platform: whether packages can be added; None if the certificate does not say.
        cached_keys: whether Intel keeps the platform's root keys; None if the certificate does not say.
        smt_enabled: whether simultaneous multithreading is on; None if the certificate does not say.
    """

    ppid: bytes
    components: tuple[int, ...]
    pce_svn: int
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance_id: bytes | None
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt_enabled: bool | None


def read_pck(certificate: x509.Certificate, *, tee: str) -> Pck:
    """The platform that a PCK certificate is for.

    Raises:
        MalformedEvidenceError: no SGX extension, or not exactly one.
    """
    extensions = (one.value for one in certificate.extensions if one.oid == SGX_EXTENSION)
    try:
        return _parse_extension(
            next((one.value for one in extensions if isinstance(one, x509.UnrecognizedExtension)), b"")
        )
    except ValueError as error:
        raise MalformedEvidenceError(
            f"expected the SGX extension of a PCK certificate, found {error}",
            finding_code=f"{tee}.pck_extension",
            tee=tee,
        ) from None


def _parse_extension(der: bytes) -> Pck:
    members = dict(_members(_only(der, _SEQUENCE), _PREFIX))
    missing = _MEMBERS.keys() - members.keys() - _OPTIONAL
    if missing or not members.keys() <= _MEMBERS.keys():
        raise ValueError(f"the members {sorted(members)}")
    for number, (name, tag, size) in _MEMBERS.items():
        _require_form(members.get(number), name, tag, size)
    tcb = _parse_tcb(members[_TCB][1])
    flags = _parse_flags(members[_CONFIGURATION][1] if _CONFIGURATION in members else b"")
    return Pck(
        ppid=members[1][1],
        components=tcb[0],
        pce_svn=tcb[1],
        cpu_svn=tcb[2],
        pce_id=members[3][1],
        fmspc=members[4][1],
        sgx_type=_number(members[5][1], 0xFF),
        platform_instance_id=members[6][1] if 6 in members else None,  # noqa: PLR2004  # its place in _MEMBERS
        dynamic_platform=flags.get(1),
        cached_keys=flags.get(2),
        smt_enabled=flags.get(3),
    )


def _require_form(member: tuple[int, bytes] | None, name: str, tag: int, size: int) -> None:
    if member is not None and (member[0] != tag or (size and len(member[1]) != size)):
        raise ValueError(f"a {name} of another form")


def _parse_tcb(content: bytes) -> tuple[tuple[int, ...], int, bytes]:
    """16 component SVNs, PCESVN, and CPUSVN of 16 bytes."""
    members = dict(_members(content, _PREFIX + bytes([_TCB])))
    if members.keys() != set(range(1, _CPU_SVN + 1)):
        raise ValueError(f"a TCB of {len(members)} members")
    cpu_tag, cpu_svn = members.pop(_CPU_SVN)
    if cpu_tag != _OCTETS or len(cpu_svn) != COMPONENTS or any(tag != _INTEGER for tag, _ in members.values()):
        raise ValueError("a TCB of another form")
    pce_svn = _number(members.pop(_PCE_SVN)[1], 0xFFFF)
    return tuple(_number(members[number][1], 0xFF) for number in range(1, COMPONENTS + 1)), pce_svn, cpu_svn


def _parse_flags(content: bytes) -> dict[int, bool]:
    flags = {}
    for number, (tag, value) in _members(content, _PREFIX + bytes([_CONFIGURATION])):
        if number not in _FLAGS or tag != _BOOLEAN or value not in {b"\x00", b"\xff"}:
            raise ValueError("a configuration of another form")
        flags[number] = value == b"\xff"
    return flags


def _members(content: bytes, prefix: bytes) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """`SEQUENCE { OID under prefix, ANY }` as the OID's last number, tag and content; each number once."""
    seen = set()
    while content:
        tag, pair, content = _element(content)
        oid_tag, oid, value = _element(pair)
        value_tag, value_content, rest = _element(value)
        if tag != _SEQUENCE or oid_tag != _OID or rest or oid[:-1] != prefix or oid[-1] in seen:
            raise ValueError("a member of another form")
        seen.add(oid[-1])
        yield oid[-1], (value_tag, value_content)


def _only(der: bytes, expected: int) -> bytes:
    tag, content, rest = _element(der)
    if tag != expected or rest:
        raise ValueError("another form of it")
    return content


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows; lengths below 64 KiB in their only DER form (X.690 §10.1)."""
    head = der[:4]
    if len(head) < 2:  # noqa: PLR2004  # tag and length
        raise ValueError("DER that ends early")
    size_bytes = {0x81: 1, 0x82: 2}.get(head[1], 0)
    size = int.from_bytes(head[2 : 2 + size_bytes], "big") if size_bytes else head[1]
    begin = 2 + size_bytes
    if size < {0: 0, 1: 0x80, 2: 0x100}[size_bytes] or (not size_bytes and size > 0x7F):  # noqa: PLR2004  # short form
        raise ValueError("a length that DER would write otherwise")
    if len(der) < begin + size:
        raise ValueError("DER that ends early")
    return head[0], der[begin : begin + size], der[begin + size :]


def _number(content: bytes, maximum: int) -> int:
    """A whole number in its only DER form (X.690 §8.3.2)."""
    value = int.from_bytes(content, "big", signed=True) if 0 < len(content) <= 3 else -1  # noqa: PLR2004  # 16 bits and a sign
    if not 0 <= value <= maximum or (len(content) > 1 and content[0] == 0 and content[1] < 0x80):  # noqa: PLR2004  # sign bit
        raise ValueError("a number out of its range")
    return value
