"""HPKE with X-Wing (RFC 9180; ML-KEM-768 + X25519, KEM 0x647A), HKDF-SHA256 and AES-256-GCM: the one suite.

Turns pyca's hybrid keys, which have no serialisation of their own, into the bytes that a keyset carries.
Leaves out: what is sealed (sealed.py). There is no negotiation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from blindai.errors import PeerKeyMismatchError, SealedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable

KEM_ID = 0x647A
MLKEM_PUBLIC_BYTES = 1184
PUBLIC_KEY_BYTES = MLKEM_PUBLIC_BYTES + 32
ENCAPSULATION_BYTES = 1120
CEK_BYTES = 32
WRAPPED_BYTES = ENCAPSULATION_BYTES + CEK_BYTES + 16

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class HpkeKeyPair:
    """A recipient's key pair; the private half lives in memory only and has no accessor."""

    __slots__ = ("_private", "public_key")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        mlkem = MLKEM768PrivateKey.from_seed_bytes(random(64))
        x25519 = X25519PrivateKey.from_private_bytes(random(32))
        self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public_key = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, wrapped: bytes, *, info: bytes) -> bytes:
        """Recover the 32-byte content key.

        Raises:
            SealedMessageError: not sealed to this key under this `info`.
        """
        try:
            content_key = _SUITE.decrypt(wrapped, self._private, info)
        except (InvalidTag, ValueError):
            raise SealedMessageError("the message is not sealed to this key") from None
        if len(content_key) != CEK_BYTES:
            raise SealedMessageError(f"a content key has {CEK_BYTES} bytes, found {len(content_key)}")
        return content_key


def seal(content_key: bytes, public_key: bytes, *, info: bytes) -> bytes:
    """`HPKE.SealBase`: the encapsulation (1120 bytes), then the sealed content key (48 bytes).

    Raises:
        PeerKeyMismatchError: `public_key` is not a pair of ML-KEM-768 and X25519 keys.
    """
    try:
        recipient = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public_key[:MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(public_key[MLKEM_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(content_key, recipient, info)
    except ValueError:
        raise PeerKeyMismatchError("the keyset's HPKE key is not an X-Wing public key") from None
