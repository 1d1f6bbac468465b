"""MakeCredential, opened here with the EK's private key: by another path than the one that made it."""

from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from fakes.tpm_vendor import rsa_key

from blindai.attestation.tpm2.credential import Credential, activation_answer, is_activated, make_credential

NAME = b"\x00\x0b" + bytes(range(32))
SECRET, RANDOM = b"s" * 32, bytes(range(64))
CURVE_KEY = ec.derive_private_key(12345, ec.SECP256R1())


def opened_seed(ek: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, encrypted: bytes) -> bytes:
    if isinstance(ek, rsa.RSAPrivateKey):
        oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=b"IDENTITY\0")
        return ek.decrypt(encrypted, oaep)
    x, y = encrypted[2:34], encrypted[36:68]
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
    theirs = ek.public_key().public_numbers().x.to_bytes(32, "big")
    kdf = ConcatKDFHash(algorithm=hashes.SHA256(), length=32, otherinfo=b"IDENTITY\0" + x + theirs)
    return kdf.derive(ek.exchange(ec.ECDH(), point))


def derived(seed: bytes, label: bytes, context: bytes, size: int) -> bytes:
    return KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(seed)


@pytest.mark.parametrize("ek", [rsa_key(), CURVE_KEY], ids=["rsa", "ecc"])
def test_the_holder_of_the_ek_finds_the_secret_under_this_name(
    ek: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    credential = make_credential(ek.public_key(), NAME, SECRET, random=RANDOM)
    seed = opened_seed(ek, credential.encrypted_seed)
    tag, encrypted = credential.blob[2:34], credential.blob[34:]
    integrity = derived(seed, b"INTEGRITY", b"", 32)
    assert credential.blob[:2] == b"\x00\x20"
    assert tag == hmac.digest(integrity, encrypted + NAME, "sha256")
    decryptor = Cipher(AES(derived(seed, b"STORAGE", NAME, 16)), CFB(bytes(16))).decryptor()
    assert decryptor.update(encrypted) == b"\x00\x20" + SECRET


@pytest.mark.parametrize("ek", [rsa_key(), CURVE_KEY], ids=["rsa", "ecc"])
def test_randomness_and_nothing_else_makes_it_another(ek: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    def made(random: bytes) -> Credential:
        return make_credential(ek.public_key(), NAME, SECRET, random=random)

    assert made(RANDOM) == made(RANDOM)
    assert made(RANDOM).encrypted_seed != made(bytes(64)).encrypted_seed
    assert SECRET not in repr(made(RANDOM)).encode()


@pytest.mark.parametrize(
    ("ek", "secret", "random"),
    [
        pytest.param(rsa_key(), bytes(31), RANDOM, id="short-secret"),
        pytest.param(rsa_key(), SECRET, bytes(63), id="short-random"),
        pytest.param(ec.derive_private_key(5, ec.SECP384R1()), SECRET, RANDOM, id="p384"),
        pytest.param(rsa_key(1, 3072), SECRET, RANDOM, id="rsa-3072"),
    ],
)
def test_other_sizes_and_keys_are_refused(
    ek: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, secret: bytes, random: bytes
) -> None:
    with pytest.raises(ValueError, match="a credential"):
        make_credential(ek.public_key(), NAME, secret, random=random)


def test_an_answer_is_for_one_secret_and_one_ak() -> None:
    answer = activation_answer(SECRET, NAME)
    assert is_activated(answer, SECRET, NAME)
    assert not is_activated(answer, bytes(32), NAME)
    assert not is_activated(answer, SECRET, NAME[:-1] + b"\0")
    assert not is_activated(b"", SECRET, NAME)
    assert not is_activated(SECRET, SECRET, NAME)  # who tells the secret has answered nothing
