"""Who certifies a TPM's keys, at the edges: a chain's endorsements, whose key it names, what it leaves out."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.tpm_vendor import EK_PURPOSE, NOW, FakeTpm, FakeVendor, rsa_key

from blindai.attestation.checks import Checks
from blindai.attestation.tee.tpm import TpmClaims, verify
from blindai.attestation.tpm2.certificates import chain_names

VENDOR = FakeVendor()


def verified(tpm: FakeTpm) -> TpmClaims:
    return verify(tpm.item(), NOW.timestamp(), Checks(), roots=VENDOR.pinned)


def test_a_chain_has_these_endorsements() -> None:
    assert chain_names("ek") == (
        *("ek_certificate", "ek_intermediate_1", "ek_intermediate_2", "ek_intermediate_3", "ek_root"),
        *("ek_crl_1", "ek_crl_2", "ek_crl_3"),
    )


def test_an_endorsement_key_is_known_by_its_own_certificate() -> None:
    key = rsa_key(1)
    leaf = VENDOR.certify(key, signs=False, purposes=(EK_PURPOSE,))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert verified(FakeTpm(endorsements=VENDOR.chain(leaf, "ek"))).ek_key_sha256 == hashlib.sha256(spki).digest()


def test_a_certificate_that_says_nothing_of_being_a_ca_is_none() -> None:
    tpm = FakeTpm()
    tpm.endorsements = VENDOR.chain(VENDOR.certify(tpm.key, is_ca=None))
    assert verified(tpm).ak_root == "fake vendor"
