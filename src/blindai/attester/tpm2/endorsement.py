"""A TPM's endorsement key: its certificate, and the answer to a verifier's credential (TCG EK Credential Profile 2.5).

Leaves out: how a credential is made (attestation/tpm2/credential.py), and EKs of other templates than L-1 and L-2.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blindai.attestation.x509_chain import UNREADABLE
from blindai.attester.tpm2 import commands
from blindai.attester.tpm2.commands import RH_ENDORSEMENT, sized, take_sized, u16, u32
from blindai.attester.tpm2.device import TpmRefusedError, run
from blindai.errors import AttesterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai.attestation.tpm2.credential import Credential
    from blindai.attester.tpm2.commands import Send

# fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt
_ATTRIBUTES = 0x000300B2
# PolicyA of the profile, §B.3: PolicySecret of the endorsement hierarchy.
_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_HEAD = u16(0x000B) + u32(_ATTRIBUTES) + sized(_POLICY) + u16(0x0006) + u16(128) + u16(0x0043)
# Results of ActivateCredential that are about what it was given; others are about the TPM's own state. libtpms answers
# TPM_RC_FAILURE to a seed that the EK does not decrypt, and goes on; a TPM that has failed opens no session before.
_FORMAT_ONE, _FAILURE = 0x080, 0x101
_PIECE_BYTES = 512  # every TPM 2.0 reads at least as many at once
_MAX_CERTIFICATE_BYTES = 4096
_SEQUENCE, _LONG_LENGTH = 0x30, 0x82


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKind:
    """One of the TCG's default endorsement keys.

    Attributes:
        certificate_index: the NV index of its certificate.
        kept_at: the handle under which makers and owners keep it, if they do.
        head: the TPMT_PUBLIC that it is made from, up to what tells one such key from another.
        unique: the rest of it; zeros.
    """

    certificate_index: int
    kept_at: int
    head: bytes
    unique: bytes


RSA = EndorsementKind(  # L-1
    certificate_index=0x01C00002,
    kept_at=0x81010001,
    head=u16(0x0001) + _HEAD + u16(0x0010) + u16(2048) + u32(0),
    unique=sized(bytes(256)),
)
ECC = EndorsementKind(  # L-2
    certificate_index=0x01C0000A,
    kept_at=0x8101000A,
    head=u16(0x0023) + _HEAD + u16(0x0010) + u16(0x0003) + u16(0x0010),
    unique=sized(bytes(32)) + sized(bytes(32)),
)
KINDS = (ECC, RSA)  # a key on P-256 is made in a moment, one of RSA takes a hardware TPM many seconds


class CredentialRefusedError(AttesterError):
    """The TPM opened no credential: it is for another EK or another AK, or was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKey:
    """A TPM's own.

    Attributes:
        certificate: as its maker left it, in DER.
        public: TPMT_PUBLIC of the key in it.
    """

    kind: EndorsementKind
    certificate: bytes
    public: bytes


def certified_key(send: Send) -> EndorsementKey:
    """The EK for which the TPM keeps a certificate.

    Raises:
        AttesterError: it keeps none for an EK of these kinds.
    """
    for kind in KINDS:
        if (certificate := read_certificate(send, kind)) is not None:
            return EndorsementKey(kind=kind, certificate=certificate, public=kind.head + _unique(kind, certificate))
    raise AttesterError(
        "the TPM keeps no certificate of an endorsement key on P-256 or of RSA-2048",
        hint="leave `tpm_ek_issuers` out, and let clients name this TPM's key in `ak_names`",
    )


def _unique(kind: EndorsementKind, certificate: bytes) -> bytes:
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except UNREADABLE:
        key = None
    if isinstance(key, rsa.RSAPublicKey):
        unique = sized(key.public_numbers().n.to_bytes(key.key_size // 8, "big"))
    elif isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        unique = sized(point[: len(point) // 2]) + sized(point[len(point) // 2 :])
    else:
        unique = b""
    if len(unique) != len(kind.unique):
        raise AttesterError("the TPM's EK certificate is about a key of another kind than its place says")
    return unique


@contextlib.contextmanager
def _loaded(send: Send, ek: EndorsementKey) -> Iterator[int]:
    """The key's handle: the TPM keeps it, or makes it again, which takes one without an accelerator long."""
    if commands.read_public(send, ek.kind.kept_at) == ek.public:
        yield ek.kind.kept_at
        return
    with commands.primary_key(send, RH_ENDORSEMENT, ek.kind.head + ek.kind.unique) as (handle, _):
        yield handle


def activate(
    send: Send, key: EndorsementKey, credential: Credential, random: Callable[[int], bytes]
) -> tuple[bytes, bytes]:
    """The secret in a credential for this TPM's EK and its attestation key, and that key's TPMT_PUBLIC.

    Raises:
        CredentialRefusedError: it is for another EK or another AK, or was changed.
        AttesterError: the TPM does not answer, or cannot do it now.
    """
    with (
        _loaded(send, key) as ek,
        commands.attestation_key(send) as (ak, ak_public),
        commands.policy_session(send, random) as session,
    ):
        _state_secret(send, session)
        return _open(send, (ak, ek), session, credential), ak_public


def _open(send: Send, handles: tuple[int, int], session: int, credential: Credential) -> bytes:
    """TPM2_ActivateCredential."""
    try:
        answer = run(
            send,
            0x147,
            "to open a credential",
            handles=handles,
            authorisation=commands.password() + commands.by_session(session),
            parameters=sized(credential.blob) + sized(credential.encrypted_seed),
        )
    except TpmRefusedError as error:
        if error.result & _FORMAT_ONE or error.result == _FAILURE:
            raise CredentialRefusedError(str(error)) from None
        raise
    return take_sized(answer.parameters)[0]


def _state_secret(send: Send, session: int) -> None:
    """TPM2_PolicySecret: we may use the endorsement hierarchy, whose password is empty."""
    parameters = sized(b"") + sized(b"") + sized(b"") + u32(0)  # no nonce, no command, no reference, no end
    run(
        send,
        0x151,
        "to use its endorsement key",
        handles=(RH_ENDORSEMENT, session),
        authorisation=commands.password(),
        parameters=parameters,
    )


def read_certificate(send: Send, kind: EndorsementKind) -> bytes | None:
    """The EK's certificate in DER as its maker left it, or None if there is none; filling after it is left out.

    Raises:
        AttesterError: what is there is no certificate of at most 4096 bytes.
    """
    try:
        answer = run(send, 0x169, "to show its EK certificate", handles=(kind.certificate_index,)).parameters
    except TpmRefusedError as error:
        if error.result == commands.NO_HANDLE:
            return None
        raise
    size = int.from_bytes(take_sized(answer)[0][-2:], "big")  # TPMS_NV_PUBLIC ends with dataSize
    if size > _MAX_CERTIFICATE_BYTES:
        raise AttesterError(f"the TPM's EK certificate has {size} bytes, at most {_MAX_CERTIFICATE_BYTES} are read")
    pieces = (_read_piece(send, kind, at, min(_PIECE_BYTES, size - at)) for at in range(0, size, _PIECE_BYTES))
    return _without_filling(b"".join(pieces))


def _read_piece(send: Send, kind: EndorsementKind, at: int, size: int) -> bytes:
    """TPM2_NV_Read."""
    index = kind.certificate_index
    answer = run(
        send,
        0x14E,
        "to read its EK certificate",
        handles=(index, index),
        authorisation=commands.password(),
        parameters=u16(size) + u16(at),
    )
    return take_sized(answer.parameters)[0]


def _without_filling(stored: bytes) -> bytes:
    """The DER SEQUENCE that it begins with; X.690 §8.1.3: a certificate's length takes two bytes."""
    size = 4 + int.from_bytes(stored[2:4], "big")
    if stored[:2] != bytes([_SEQUENCE, _LONG_LENGTH]) or size > len(stored):
        raise AttesterError("what the TPM keeps in the place of its EK certificate is none")
    return stored[:size]
