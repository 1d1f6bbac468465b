"""MakeCredential, opened here with the EK's private key: by another path than the one that made it."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fakes.tpm_endorsement import SoftwareEk
from fakes.tpm_vendor import rsa_key

from blindai.attestation.tpm2.credential import Credential, activation_answer, is_activated, make_credential
from blindai.attester.tpm2.endorsement import CredentialRefusedError

NAME = b"\x00\x0b" + bytes(range(32))
SECRET, RANDOM = b"s" * 32, bytes(range(64))
CURVE_KEY = ec.derive_private_key(12345, ec.SECP256R1())
both_kinds = pytest.mark.parametrize("kind", ["rsa", "ecc"])


def key_of(kind: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    return rsa_key() if kind == "rsa" else CURVE_KEY


def made(kind: str, random: bytes = RANDOM) -> Credential:
    return make_credential(key_of(kind).public_key(), NAME, SECRET, random=random)


@both_kinds
def test_the_holder_of_the_ek_finds_the_secret_under_this_name(kind: str) -> None:
    credential = made(kind)
    assert SoftwareEk(key=key_of(kind), ak_name=NAME).open(credential) == SECRET
    assert (len(credential.blob), len(credential.encrypted_seed)) == (68, 256 if kind == "rsa" else 68)


@both_kinds
def test_nobody_else_does(kind: str) -> None:
    other = rsa_key(1) if kind == "rsa" else ec.derive_private_key(54321, ec.SECP256R1())
    for ek in (SoftwareEk(key=key_of(kind), ak_name=NAME[:-1] + b"\0"), SoftwareEk(key=other, ak_name=NAME)):
        with pytest.raises(CredentialRefusedError):
            ek.open(made(kind))


@both_kinds
def test_every_changed_byte_of_the_blob_is_noticed(kind: str) -> None:
    credential, ek = made(kind), SoftwareEk(key=key_of(kind), ak_name=NAME)
    for at in range(2, 68):  # the size before it is not authenticated; a TPM refuses any other
        blob = credential.blob[:at] + bytes([credential.blob[at] ^ 1]) + credential.blob[at + 1 :]
        with pytest.raises(CredentialRefusedError):
            ek.open(dataclasses.replace(credential, blob=blob))


@both_kinds
def test_randomness_and_nothing_else_makes_it_another(kind: str) -> None:
    assert made(kind) == made(kind)
    other = made(kind, bytes(64))
    assert (other.encrypted_seed != made(kind).encrypted_seed, other.blob != made(kind).blob) == (True, True)
    assert SECRET not in repr(made(kind)).encode()


@pytest.mark.parametrize(("secret", "random"), [(bytes(31), RANDOM), (SECRET, bytes(63))], ids=["secret", "random"])
def test_other_sizes_are_refused(secret: bytes, random: bytes) -> None:
    with pytest.raises(ValueError, match="a credential takes"):
        make_credential(CURVE_KEY.public_key(), NAME, secret, random=random)


@pytest.mark.parametrize("kind", ["p384", "rsa-3072", "ed25519"])
def test_other_kinds_of_keys_are_refused(kind: str) -> None:
    modulus = (1 << 3071) + 1
    keys = {
        "p384": ec.derive_private_key(5, ec.SECP384R1()).public_key(),
        "rsa-3072": rsa.RSAPublicNumbers(65537, modulus).public_key(),
        "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
    }
    with pytest.raises(ValueError, match="a credential is made for"):
        make_credential(keys[kind], NAME, SECRET, random=RANDOM)


def test_an_answer_is_for_one_secret_and_one_ak() -> None:
    answer = activation_answer(SECRET, NAME)
    assert is_activated(answer, SECRET, NAME)
    assert not is_activated(answer, bytes(32), NAME)
    assert not is_activated(answer, SECRET, NAME[:-1] + b"\0")
    assert not is_activated(b"", SECRET, NAME)
    assert not is_activated(SECRET, SECRET, NAME)  # who tells the secret has answered nothing
