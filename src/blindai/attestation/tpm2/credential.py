"""A secret that only the TPM of one EK opens, and only if it holds one AK (docs/spec/tee/tpm.md §5).

MakeCredential of TPM 2.0 Library, Part 1, "Credential Protection": what a verifier does without a TPM.
The EK is one of the TCG's default ones of 2048 bits or on P-256 (EK Credential Profile, templates L-1 and L-2), whose
name algorithm is SHA-256 and whose symmetric one is AES-128.
Leaves out: who certified the EK (tpm2/certificates.py), how a credential travels (channel/activation.py), and the TPM's
half, ActivateCredential (attester/tpm2/endorsement.py).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # no standing of its own; a TPM knows no other mode here
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from blindai.wire import label, length_prefixed

SECRET_BYTES = 32  # as many as an EK of SHA-256 lets a credential have
RANDOM_BYTES = 64
BLOB_BYTES = 68
ENCRYPTED_SEED_BYTES = (256, 68)  # for RSA-2048, for P-256
_SEED_BYTES = 32
_SYMMETRIC_BITS, _INTEGRITY_BITS = 128, 256
_LABEL = b"IDENTITY\0"  # Part 1, "Credential Protection"; the zero belongs to it
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SP 800-186 §3.2.1.3
_COORDINATE_BYTES = 32
_RSA_BITS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What TPM2_ActivateCredential takes.

    Attributes:
        blob: TPMS_ID_OBJECT, 68 bytes for a secret of 32: `u16 32 ‖ HMAC ‖ encrypted secret`.
        encrypted_seed: TPM2B_ENCRYPTED_SECRET's content: 256 bytes for RSA-2048, 68 for P-256.
    """

    blob: bytes = field(repr=False)
    encrypted_seed: bytes = field(repr=False)


def make_credential(ek: object, ak_name: bytes, secret: bytes, *, random: bytes) -> Credential:
    """Encrypt `secret` so that the TPM of `ek` opens it only for an AK of this name.

    Args:
        ek: the endorsement key of a certificate, RSA-2048 or P-256.
        ak_name: the attestation key's TPM name.
        secret: 32 bytes.
        random: 64 fresh bytes, used for nothing else; the same ones give the same credential.

    Raises:
        ValueError: another size, or another kind of EK.
    """
    if len(secret) != SECRET_BYTES or len(random) != RANDOM_BYTES:
        raise ValueError(f"a credential takes a secret of {SECRET_BYTES} bytes and {RANDOM_BYTES} random ones")
    seed, encrypted_seed = _share_seed(ek, random)
    key = _derive(seed, b"STORAGE", ak_name, bits=_SYMMETRIC_BITS)
    encryptor = Cipher(AES(key), CFB(bytes(16))).encryptor()  # a key for one message, so no other vector is needed
    encrypted = encryptor.update(_sized(secret)) + encryptor.finalize()
    integrity = _derive(seed, b"INTEGRITY", b"", bits=_INTEGRITY_BITS)
    tag = hmac.digest(integrity, encrypted + ak_name, "sha256")
    return Credential(blob=_sized(tag) + encrypted, encrypted_seed=encrypted_seed)


def activation_answer(secret: bytes, ak_name: bytes) -> bytes:
    """What only the holder of the secret says of an AK: `HMAC-SHA-256(secret, L("tpm-activation") ‖ LP(AK name))`.

    The secret itself is not told, so that no credential that somebody else made for the same keys, and for a purpose of
    his own, can be opened with the server's help.
    """
    return hmac.digest(secret, label("tpm-activation") + length_prefixed(ak_name), "sha256")


def is_activated(answer: bytes, secret: bytes, ak_name: bytes) -> bool:
    """Whether this is the answer to that secret for this AK."""
    return hmac.compare_digest(answer, activation_answer(secret, ak_name))


def _share_seed(ek: object, random: bytes) -> tuple[bytes, bytes]:
    """The seed of both keys, and how only the EK learns it."""
    if isinstance(ek, rsa.RSAPublicKey) and ek.key_size == _RSA_BITS:
        seed, blinding = random[:_SEED_BYTES], random[_SEED_BYTES:]
        return seed, _encrypt_oaep(ek, seed, blinding)
    if isinstance(ek, ec.EllipticCurvePublicKey) and isinstance(ek.curve, ec.SECP256R1):
        return _agree(ek, random)
    raise ValueError("a credential is made for an EK of RSA-2048 or P-256")


def _encrypt_oaep(ek: rsa.RSAPublicKey, message: bytes, blinding: bytes) -> bytes:
    """RSAES-OAEP with SHA-256 (RFC 8017 §7.1.1), whose random seed is an argument, which `cryptography` has not."""
    size = ek.key_size // 8
    digest = hashlib.sha256(_LABEL).digest()
    padding = bytes(size - len(message) - 2 * len(digest) - 2)
    data = digest + padding + b"\x01" + message
    masked = _xor(data, _mask(blinding, len(data)))
    encoded = b"\0" + _xor(blinding, _mask(masked, len(blinding))) + masked
    numbers = ek.public_numbers()
    return pow(int.from_bytes(encoded, "big"), numbers.e, numbers.n).to_bytes(size, "big")


def _mask(seed: bytes, size: int) -> bytes:
    """MGF1 with SHA-256 (RFC 8017 appendix B.2.1)."""
    blocks = -(-size // _SEED_BYTES)
    return b"".join(hashlib.sha256(seed + at.to_bytes(4, "big")).digest() for at in range(blocks))[:size]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _agree(ek: ec.EllipticCurvePublicKey, random: bytes) -> tuple[bytes, bytes]:
    """One-pass ECDH with a key of its own; the seed is KDFe of what both know (Part 1, annex C)."""
    number = int.from_bytes(random, "big") % (_P256_ORDER - 1) + 1
    own = ec.derive_private_key(number, ec.SECP256R1())
    shared = own.exchange(ec.ECDH(), ek)
    mine, theirs = own.public_key().public_numbers(), ek.public_numbers()
    x, y, ek_x = (value.to_bytes(_COORDINATE_BYTES, "big") for value in (mine.x, mine.y, theirs.x))
    seed = hashlib.sha256((1).to_bytes(4, "big") + shared + _LABEL + x + ek_x).digest()
    return seed, _sized(x) + _sized(y)


def _derive(seed: bytes, purpose: bytes, context: bytes, *, bits: int) -> bytes:
    """KDFa with SHA-256, one block (Part 1, "Key Derivation Function")."""
    message = (1).to_bytes(4, "big") + purpose + b"\0" + context + bits.to_bytes(4, "big")
    return hmac.digest(seed, message, "sha256")[: bits // 8]


def _sized(data: bytes) -> bytes:
    """A TPM2B."""
    return len(data).to_bytes(2, "big") + data
