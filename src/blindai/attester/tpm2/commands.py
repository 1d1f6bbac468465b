"""The commands that quoting and keeping a key take (TPM 2.0 Library part 3), and the structures in them (part 2).

Every hash is SHA-256. Leaves out: when they are used, and why (sealer.py, attester/tpm.py).
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attester.tpm2.device import TpmRefusedError, run
from blindai.errors import AttesterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Send = Callable[[bytes], bytes]

RH_OWNER, RH_NULL, RS_PASSWORD, RH_ENDORSEMENT = 0x40000001, 0x40000007, 0x40000009, 0x4000000B  # part 2 §7.4
_ALG_SHA256, _ALG_NULL, _ALG_AES, _ALG_CFB, _ALG_ECC, _ALG_KEYEDHASH = 0x000B, 0x0010, 0x0006, 0x0043, 0x0023, 0x0008
_ALG_ECDSA = 0x0018
_CURVE_P256 = 0x0003
_SESSION_POLICY = b"\x01"

# TPMA_OBJECT, part 2 §8.3
(
    _FIXED_TPM,
    _FIXED_PARENT,
    _OWN_SECRET,
    _USER_WITH_AUTH,
    _ADMIN_WITH_POLICY,
    _NO_LOCKOUT,
    _RESTRICTED,
    _DECRYPT,
    _SIGN,
) = (1 << bit for bit in (1, 4, 5, 6, 7, 10, 16, 17, 18))
_STORAGE_KEY = _FIXED_TPM | _FIXED_PARENT | _OWN_SECRET | _USER_WITH_AUTH | _NO_LOCKOUT | _RESTRICTED | _DECRYPT
_ATTESTATION_KEY = _FIXED_TPM | _FIXED_PARENT | _OWN_SECRET | _USER_WITH_AUTH | _NO_LOCKOUT | _RESTRICTED | _SIGN
_SEALED_DATA = _FIXED_TPM | _FIXED_PARENT | _ADMIN_WITH_POLICY | _NO_LOCKOUT  # nobody's password opens it
# TPMA_NV, part 2 §13.4: a counter that only its policy may count up, and everybody may read
_COUNTER = 1 << 3 | 0x1 << 4 | 1 << 18 | 1 << 25
_WRITTEN = 1 << 29
COUNTER_BYTES = 8

CC_POLICY_PCR = 0x17F
NO_HANDLE = 0x18B  # TPM_RC_HANDLE of the first handle: there is nothing under it


def u16(value: int) -> bytes:
    """A number of two bytes."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """A number of four bytes."""
    return value.to_bytes(4, "big")


def sized(data: bytes) -> bytes:
    """A TPM2B: u16 length, then the bytes."""
    return u16(len(data)) + data


def take_sized(data: bytes, at: int = 0) -> tuple[bytes, int]:
    """The TPM2B that begins there, and where the next thing begins.

    Raises:
        AttesterError: it is cut.
    """
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    if end > len(data) or at + 2 > len(data):
        raise AttesterError("the TPM's answer is cut")
    return data[at + 2 : end], end


def pcr_selection(pcrs: tuple[int, ...]) -> bytes:
    """TPML_PCR_SELECTION of the SHA-256 bank."""
    bitmap = sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
    return u32(1) + u16(_ALG_SHA256) + bytes([len(bitmap)]) + bitmap


def password() -> bytes:
    """TPMS_AUTH_COMMAND with the empty password."""
    return u32(RS_PASSWORD) + sized(b"") + b"\0" + sized(b"")


def by_session(session: int) -> bytes:
    """TPMS_AUTH_COMMAND by a policy session, which goes on."""
    return u32(session) + sized(b"") + b"\x01" + sized(b"")


def read_pcrs(send: Send, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
    """The values of PCRs, in ascending order (TPM2_PCR_Read gives eight at a time)."""
    return tuple(value for at in range(0, len(pcrs), 8) for value in _read_eight(send, pcrs[at : at + 8]))


def _read_eight(send: Send, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
    selection = pcr_selection(pcrs)
    answer = run(send, 0x17E, "to read PCRs", parameters=selection).parameters
    if answer[4 : 4 + len(selection)] != selection:
        raise AttesterError(f"the TPM does not have PCRs {', '.join(map(str, pcrs))} in its SHA-256 bank")
    values, at = [], 4 + len(selection) + 4
    while at < len(answer):
        value, at = take_sized(answer, at)
        values.append(value)
    return tuple(values)


def pcr_policy(pcrs: tuple[int, ...], values: tuple[bytes, ...]) -> bytes:
    """The policy digest of a session that met exactly these values (part 3 §23.7)."""
    digest = hashlib.sha256(b"".join(values)).digest()
    return hashlib.sha256(bytes(32) + u32(CC_POLICY_PCR) + pcr_selection(pcrs) + digest).digest()


@contextlib.contextmanager
def pcr_session(send: Send, pcrs: tuple[int, ...], random: Callable[[int], bytes]) -> Iterator[int]:
    """A policy session that states the PCRs as they are (TPM2_PolicyPCR)."""
    with policy_session(send, random) as session:
        stated = sized(b"") + pcr_selection(pcrs)
        run(send, CC_POLICY_PCR, "to state PCRs", handles=(session,), parameters=stated)
        yield session


@contextlib.contextmanager
def policy_session(send: Send, random: Callable[[int], bytes]) -> Iterator[int]:
    """A policy session that states nothing yet (TPM2_StartAuthSession)."""
    parameters = sized(random(16)) + sized(b"") + _SESSION_POLICY + u16(_ALG_NULL) + u16(_ALG_SHA256)
    answer = run(
        send, 0x176, "to start a session", handles=(RH_NULL, RH_NULL), parameters=parameters, makes_handle=True
    )
    session = answer.handle or 0
    try:
        yield session
    finally:
        flush(send, session)


@contextlib.contextmanager
def storage_key(send: Send) -> Iterator[int]:
    """The owner's storage key, the same each time (TPM2_CreatePrimary)."""
    symmetric = u16(_ALG_AES) + u16(128) + u16(_ALG_CFB)
    with _primary(send, RH_OWNER, _STORAGE_KEY, symmetric + u16(_ALG_NULL)) as (handle, _):
        yield handle


@contextlib.contextmanager
def attestation_key(send: Send) -> Iterator[tuple[int, bytes]]:
    """A key that signs only what the TPM itself says, the same each time, and its TPMT_PUBLIC."""
    scheme = u16(_ALG_NULL) + u16(_ALG_ECDSA) + u16(_ALG_SHA256)
    with _primary(send, RH_ENDORSEMENT, _ATTESTATION_KEY, scheme) as key:
        yield key


@contextlib.contextmanager
def _primary(send: Send, hierarchy: int, attributes: int, scheme: bytes) -> Iterator[tuple[int, bytes]]:
    """A key on P-256 that the hierarchy's seed determines."""
    curve = u16(_CURVE_P256) + u16(_ALG_NULL)
    public = u16(_ALG_ECC) + u16(_ALG_SHA256) + u32(attributes) + sized(b"") + scheme + curve + sized(b"") + sized(b"")
    with primary_key(send, hierarchy, public) as key:
        yield key


@contextlib.contextmanager
def primary_key(send: Send, hierarchy: int, public: bytes) -> Iterator[tuple[int, bytes]]:
    """The key that the hierarchy's seed and this template determine, and its TPMT_PUBLIC (TPM2_CreatePrimary)."""
    answer = run(
        send,
        0x131,
        "to make a primary key",
        handles=(hierarchy,),
        authorisation=password(),
        parameters=sized(sized(b"") + sized(b"")) + sized(public) + sized(b"") + u32(0),
        makes_handle=True,
    )
    handle = answer.handle or 0
    try:
        yield handle, take_sized(answer.parameters)[0]
    finally:
        flush(send, handle)


def read_public(send: Send, handle: int) -> bytes | None:
    """TPMT_PUBLIC of a key that the TPM keeps under a handle, or None if there is none (TPM2_ReadPublic)."""
    try:
        return take_sized(run(send, 0x173, "to show a key", handles=(handle,)).parameters)[0]
    except TpmRefusedError as error:
        if error.result == NO_HANDLE:
            return None
        raise


def quote(send: Send, key: int, extra_data: bytes, pcrs: tuple[int, ...]) -> tuple[bytes, bytes]:
    """TPMS_ATTEST and TPMT_SIGNATURE over these PCRs and the caller's bytes (TPM2_Quote)."""
    parameters = sized(extra_data) + u16(_ALG_NULL) + pcr_selection(pcrs)
    answer = run(send, 0x158, "to quote", handles=(key,), authorisation=password(), parameters=parameters).parameters
    quoted, at = take_sized(answer)
    return quoted, answer[at:]


def flush(send: Send, handle: int) -> None:
    """Forget a session or an object (TPM2_FlushContext)."""
    run(send, 0x165, "to forget a handle", parameters=u32(handle))


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedData:
    """What the TPM gives out to be kept outside: nobody but this TPM can open it.

    Attributes:
        private: TPM2B_PRIVATE's content.
        public: TPMT_PUBLIC.
        creation: TPMS_CREATION_DATA: among others the PCRs at that time.
        ticket: TPMT_TK_CREATION, by which the TPM knows that it said so.
    """

    private: bytes
    public: bytes
    creation: bytes
    ticket: bytes


def seal(send: Send, parent: int, data: bytes, *, policy: bytes, pcrs: tuple[int, ...]) -> SealedData:
    """Data that only a session of this policy opens, at most 128 bytes, made under PCRs as they are (TPM2_Create)."""
    public = u16(_ALG_KEYEDHASH) + u16(_ALG_SHA256) + u32(_SEALED_DATA) + sized(policy) + u16(_ALG_NULL) + sized(b"")
    parameters = sized(sized(b"") + sized(data)) + sized(public) + sized(b"") + pcr_selection(pcrs)
    answer = run(send, 0x153, "to seal", handles=(parent,), authorisation=password(), parameters=parameters).parameters
    private, at = take_sized(answer)
    public, at = take_sized(answer, at)
    creation, at = take_sized(answer, at)
    _, at = take_sized(answer, at)
    return SealedData(private=private, public=public, creation=creation, ticket=answer[at:])


def unseal(send: Send, parent: int, sealed: SealedData, session: int) -> bytes:
    """The data again, if the TPM says that it was created so (TPM2_Load, TPM2_Unseal, TPM2_CertifyCreation)."""
    creation = sized(b"") + sized(hashlib.sha256(sealed.creation).digest()) + u16(_ALG_NULL) + sealed.ticket
    with _loaded(send, parent, sealed) as handle:
        opened = run(send, 0x15E, "to unseal", handles=(handle,), authorisation=by_session(session)).parameters
        run(
            send,
            0x14A,
            "to say how it was made",
            handles=(RH_NULL, handle),
            authorisation=password(),
            parameters=creation,
        )
    return take_sized(opened)[0]


def require_created_under(sealed: SealedData, pcrs: tuple[int, ...], values: tuple[bytes, ...]) -> None:
    """Whether data was made under these values of PCRs; whoever uses the TPM can seal what it knows under any policy.

    Raises:
        AttesterError: it was not.
    """
    if not sealed.creation.startswith(pcr_selection(pcrs) + sized(hashlib.sha256(b"".join(values)).digest())):
        raise AttesterError("it was made by something else than what has booted")


@contextlib.contextmanager
def _loaded(send: Send, parent: int, sealed: SealedData) -> Iterator[int]:
    parameters = sized(sealed.private) + sized(sealed.public)
    answer = run(
        send,
        0x157,
        "to load what it sealed",
        handles=(parent,),
        authorisation=password(),
        parameters=parameters,
        makes_handle=True,
    )
    handle = answer.handle or 0
    try:
        yield handle
    finally:
        flush(send, handle)


def define_counter(send: Send, index: int, policy: bytes) -> None:
    """A counter that only a session of this policy may count up (TPM2_NV_DefineSpace)."""
    parameters = sized(b"") + sized(_counter(index, policy, _COUNTER))
    run(send, 0x12A, "a counter", handles=(RH_OWNER,), authorisation=password(), parameters=parameters)


def require_counter(send: Send, index: int, policy: bytes) -> None:
    """Whether it is one that `define_counter` made, and that was counted up (TPM2_NV_ReadPublic).

    The owner can put anything in its place: bytes that it writes as it likes, for example.

    Raises:
        AttesterError: it is not.
    """
    answer = run(send, 0x169, "to show its counter", handles=(index,)).parameters
    if take_sized(answer)[0] != _counter(index, policy, _COUNTER | _WRITTEN):
        raise AttesterError("the TPM's counter is not the one that was made for this store")


def _counter(index: int, policy: bytes, attributes: int) -> bytes:
    """TPMS_NV_PUBLIC."""
    return u32(index) + u16(_ALG_SHA256) + u32(attributes) + sized(policy) + u16(COUNTER_BYTES)


def count_up(send: Send, index: int, session: int) -> None:
    """TPM2_NV_Increment: the first time beyond any counter that this TPM ever had."""
    run(send, 0x134, "to count", handles=(index, index), authorisation=by_session(session))


def read_counter(send: Send, index: int) -> int:
    """TPM2_NV_Read."""
    parameters = u16(COUNTER_BYTES) + u16(0)
    answer = run(
        send, 0x14E, "to read its counter", handles=(index, index), authorisation=password(), parameters=parameters
    )
    return int.from_bytes(take_sized(answer.parameters)[0], "big")
