"""Signatures of a TPM's keys: by each scheme only the key that signed, over the message and by the scheme it says."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.tpm_vendor import Private, rsa_key, tpm_signature

from blindai.attestation.tpm2.keys import Scheme, TpmSignature, is_signed, parse_signature

CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
SIGNERS: dict[str, tuple[str, Private, Private]] = {
    "rsassa": ("rsassa", rsa_key(), rsa_key(1)),
    "rsapss": ("rsapss", rsa_key(), rsa_key(1)),
    **{
        name: ("ecdsa", ec.derive_private_key(5, curve), ec.derive_private_key(6, curve))
        for name, curve in CURVES.items()
    },
}
MESSAGE = b"what a TPM says"


def signature_of(scheme: str, key: Private, digest: str) -> TpmSignature:
    return parse_signature(tpm_signature(key, scheme, digest, MESSAGE), tee="tpm")


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("signer", SIGNERS)
def test_only_what_the_key_signed_is_signed(signer: str, digest: str) -> None:
    scheme, key, other = SIGNERS[signer]
    signature = signature_of(scheme, key, digest)
    assert signature.scheme == Scheme(name=scheme, digest=digest)
    assert signature.scheme.text == f"{scheme} with {digest}"
    assert is_signed(MESSAGE, signature, key.public_key())
    assert not is_signed(MESSAGE + b"!", signature, key.public_key())
    assert not is_signed(MESSAGE, signature, other.public_key())
    wrong = dataclasses.replace(signature, value=signature.value[:-1] + bytes([signature.value[-1] ^ 1]))
    assert not is_signed(MESSAGE, wrong, key.public_key())
    for another in {"sha256", "sha384", "sha512"} - {digest}:
        changed = dataclasses.replace(signature, scheme=Scheme(name=scheme, digest=another))
        assert not is_signed(MESSAGE, changed, key.public_key())
    for another in {"rsassa", "rsapss", "ecdsa"} - {scheme}:
        changed = dataclasses.replace(signature, scheme=Scheme(name=another, digest=digest))
        assert not is_signed(MESSAGE, changed, key.public_key())
