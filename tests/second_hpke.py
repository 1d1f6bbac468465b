"""HKDF (RFC 5869) and HPKE (RFC 9180, mode base) with X-Wing, by hand: part of the second implementation.

X-Wing's combiner is SHA3-256(ss_M ‖ ss_X ‖ ct_X ‖ pk_X ‖ label); the KEM is 0x647A, the KDF 1, the AEAD 2.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from second_json import Refused


def extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, secret, "sha256")


def expand(prk: bytes, info: bytes, size: int) -> bytes:
    block, out = b"", b""
    for counter in range(1, 256):
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        out += block
        if len(out) >= size:
            return out[:size]
    raise ValueError(size)


_SUITE = b"HPKE" + struct.pack(">HHH", 0x647A, 1, 2)


def hpke_key(shared: bytes, info: bytes) -> tuple[AESGCM, bytes]:
    def labeled_extract(salt: bytes, name: bytes, secret: bytes) -> bytes:
        return extract(salt, b"HPKE-v1" + _SUITE + name + secret)

    context = b"\0" + labeled_extract(b"", b"psk_id_hash", b"") + labeled_extract(b"", b"info_hash", info)
    secret = labeled_extract(shared, b"secret", b"")
    key, nonce = (
        expand(secret, struct.pack(">H", size) + b"HPKE-v1" + _SUITE + name + context, size)
        for name, size in ((b"key", 32), (b"base_nonce", 12))
    )
    return AESGCM(key), nonce


def xwing(ss_m: bytes, ss_x: bytes, ct_x: bytes, pk_x: bytes) -> bytes:
    return hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + bytes.fromhex("5c2e2f2f5e5c")).digest()


def public_key(mlkem_seed: bytes, x25519_seed: bytes) -> bytes:
    mlkem, x25519 = MLKEM768PrivateKey.from_seed_bytes(mlkem_seed), X25519PrivateKey.from_private_bytes(x25519_seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def hpke_open(wrapped: bytes, mlkem_seed: bytes, x25519_seed: bytes, info: bytes) -> bytes:
    ct_m, ct_x, sealed = wrapped[:1088], wrapped[1088:1120], wrapped[1120:]
    x25519 = X25519PrivateKey.from_private_bytes(x25519_seed)
    try:
        ss_m = MLKEM768PrivateKey.from_seed_bytes(mlkem_seed).decapsulate(ct_m)
        ss_x = x25519.exchange(X25519PublicKey.from_public_bytes(ct_x))
        aead, nonce = hpke_key(xwing(ss_m, ss_x, ct_x, x25519.public_key().public_bytes_raw()), info)
        return aead.decrypt(nonce, sealed, b"")
    except (InvalidTag, ValueError):
        raise Refused("sealed_message") from None


def hpke_seal(content_key: bytes, key: bytes, ephemeral_seed: bytes, info: bytes) -> bytes:
    ephemeral, pk_x = X25519PrivateKey.from_private_bytes(ephemeral_seed), key[1184:]
    ss_m, ct_m = MLKEM768PublicKey.from_public_bytes(key[:1184]).encapsulate()
    ss_x, ct_x = ephemeral.exchange(X25519PublicKey.from_public_bytes(pk_x)), ephemeral.public_key().public_bytes_raw()
    aead, nonce = hpke_key(xwing(ss_m, ss_x, ct_x, pk_x), info)
    return ct_m + ct_x + aead.encrypt(nonce, content_key, b"")
