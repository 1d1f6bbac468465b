"""The operations about credentials for a TPM, by the second implementation: TPM 2.0 Library, Part 1, read once more."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from second_implementation import LP, H, L
from second_json import Refused, compact, require

if TYPE_CHECKING:
    from collections.abc import Callable

Inputs = dict[str, Any]
Outputs = dict[str, Any]
IDENTITY = b"IDENTITY\0"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def _mgf1(seed: bytes, size: int) -> bytes:
    mask = b""
    while len(mask) < size:
        mask += H(seed, (len(mask) // 32).to_bytes(4, "big"))
    return mask[:size]


def _oaep(modulus: bytes, message: bytes, seed: bytes) -> bytes:
    """RFC 8017 §7.1.1."""
    block = H(IDENTITY) + bytes(len(modulus) - len(message) - 66) + b"\x01" + message
    masked = _xor(block, _mgf1(seed, len(block)))
    encoded = b"\0" + _xor(seed, _mgf1(masked, 32)) + masked
    power = pow(int.from_bytes(encoded, "big"), 65537, int.from_bytes(modulus, "big"))
    return power.to_bytes(len(modulus), "big")


def _shared(ek: bytes, random: bytes) -> tuple[bytes, bytes]:
    if len(ek) == 256:
        return random[:32], _oaep(ek, random[:32], random[32:])
    own = ec.derive_private_key(int.from_bytes(random, "big") % (ORDER - 1) + 1, ec.SECP256R1())
    secret = own.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ek))
    numbers = own.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    seed = ConcatKDFHash(algorithm=hashes.SHA256(), length=32, otherinfo=IDENTITY + x + ek[1:33]).derive(secret)
    return seed, b"\0\x20" + x + b"\0\x20" + y


def _kdfa(seed: bytes, purpose: bytes, context: bytes, size: int) -> bytes:
    return KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=purpose,
        context=context,
        fixed=None,
    ).derive(seed)


def _hmac(key: bytes, *parts: bytes) -> bytes:
    mac = HMAC(key, hashes.SHA256())
    for part in parts:
        mac.update(part)
    return mac.finalize()


def _cfb(key: bytes, message: bytes) -> bytes:
    block, encrypted = bytes(16), b""
    for at in range(0, len(message), 16):
        stream = Cipher(AES(key), ECB()).encryptor().update(block)  # noqa: S305  # what CFB is made of
        piece = message[at : at + 16]
        block = _xor(piece, stream[: len(piece)])
        encrypted += block
    return encrypted


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def _make_credential(i: Inputs) -> Outputs:
    seed, encrypted_seed = _shared(i["ek"], i["random"])
    encrypted = _cfb(_kdfa(seed, b"STORAGE", i["ak_name"], 16), b"\0\x20" + i["secret"])
    blob = b"\0\x20" + _hmac(_kdfa(seed, b"INTEGRITY", b"", 32), encrypted, i["ak_name"]) + encrypted
    activation = _hmac(i["secret"], L("tpm-activation"), LP(i["ak_name"]))
    return {
        "blob": blob,
        "encrypted_seed": encrypted_seed,
        "activation": activation,
        "request": compact({"blob": _text(blob), "encrypted_seed": _text(encrypted_seed)}),
        "answer": compact({"activation": _text(activation)}),
    }


def _read_credential(i: Inputs) -> Outputs:
    members = json.loads(i["request"])
    require(members.keys() == {"blob", "encrypted_seed"}, "invalid_input")
    try:
        found = {name: _bytes(text) for name, text in members.items()}
    except ValueError:
        raise Refused("invalid_input") from None
    require(len(found["blob"]) == 68 and len(found["encrypted_seed"]) in (68, 256), "invalid_input")
    return found


CREDENTIAL_OPERATIONS: dict[str, Callable[[Inputs], Outputs]] = {
    "make_credential": _make_credential,
    "read_credential": _read_credential,
}
