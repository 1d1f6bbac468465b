"""Who certifies a TPM's keys, at the edges: a chain's endorsements, whose key it names, what it leaves out."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.intel_pki import der
from fakes.tpm_vendor import EK_PURPOSE, NOW, FakeTpm, FakeVendor, rsa_key

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Outcome
from blindai.attestation.tee.tpm import TpmClaims, verify
from blindai.attestation.tpm2.certificates import chain_names
from blindai.attestation.tpm2.revocation import (
    RevocationClaims,
    judge_revocation,
    judge_revocation_age,
    read_crl,
    revocation_claims,
)
from blindai.errors import MalformedEvidenceError

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


# --- revocation lists -------------------------------------------------------------------------------------------------


def signed_again(old: bytes, new: bytes) -> bytes:
    """A list of the vendor's in which some bytes of what is signed are others."""
    tbs = x509.load_der_x509_crl(VENDOR.crl()).tbs_certlist_bytes
    assert old in tbs
    changed = der(0x30, tbs[2 if tbs[1] < 0x80 else 3 :].replace(old, new))
    signature = VENDOR.root_key.sign(changed, ec.ECDSA(SHA256()))
    return der(0x30, changed + der(0x30, der(6, bytes.fromhex("2a8648ce3d040302"))) + der(3, b"\0" + signature))


NEXT_UPDATE = der(0x17, f"{NOW + timedelta(days=1):%y%m%d%H%M%SZ}".encode())


def test_a_list_without_an_end_is_none() -> None:
    assert read_crl(signed_again(NEXT_UPDATE, NEXT_UPDATE), tee="tpm").next_update_utc == NOW + timedelta(days=1)
    with pytest.raises(MalformedEvidenceError, match="with a next update"):
        read_crl(signed_again(NEXT_UPDATE, b""), tee="tpm")


def test_a_lists_signature_has_no_unused_bits() -> None:
    """Bits that are called unused may be anything; a list whose signature ends in a zero could be written with some."""
    made = next(made for made in (VENDOR.crl() for _ in range(1000)) if not made[-1] & 1)
    signature = x509.load_der_x509_crl(made).signature
    with pytest.raises(MalformedEvidenceError):
        read_crl(made.replace(b"\0" + signature, b"\1" + signature), tee="tpm")
    assert read_crl(made, tee="tpm").signature == signature


def test_a_lists_entries_must_be_readable() -> None:
    extension = x509.UnrecognizedExtension(x509.CRLReason.oid, b"no reason")
    entry = (
        x509.RevokedCertificateBuilder().serial_number(9).revocation_date(NOW).add_extension(extension, critical=False)
    )
    builder = x509.CertificateRevocationListBuilder(issuer_name=VENDOR.root.subject, last_update=NOW, next_update=NOW)
    made = builder.add_revoked_certificate(entry.build()).sign(VENDOR.root_key, SHA256())
    with pytest.raises(MalformedEvidenceError):
        read_crl(made.public_bytes(Encoding.DER), tee="tpm")


def test_a_list_begins_at_its_update_and_the_oldest_of_several_counts() -> None:
    chain = (VENDOR.certify(rsa_key()), VENDOR.intermediate, VENDOR.root)
    begun, old = (
        read_crl(VENDOR.crl(begin=begin, end=end), tee="tpm")
        for begin, end in ((NOW, NOW + timedelta(days=1)), (NOW - timedelta(days=9), NOW - timedelta(seconds=90)))
    )
    assert revocation_claims(chain, (begun,), now=NOW.timestamp()) == RevocationClaims(unknown=(), late_s=0)
    assert revocation_claims(chain, (begun,), now=NOW.timestamp() - 1).unknown == ("CN=intermediate",)
    for crls in ((begun, old), (old, begun)):
        assert revocation_claims(chain, crls, now=NOW.timestamp()).late_s == 90


def test_a_key_lists_nothing_of_its_own() -> None:
    key = ec.derive_private_key(9, ec.SECP256R1())
    chain = (VENDOR.certify(key), VENDOR.intermediate, VENDOR.root)
    own = read_crl(VENDOR.crl(issuer="key", signer=key), tee="tpm")
    signed, _ = judge_revocation(chain, (own,), tee="tpm", kind="ak")
    assert (signed.outcome, signed.found) == (Outcome.FAILED, "1 of 1 signed by none of them")


def test_what_lists_leave_open_is_told() -> None:
    late = judge_revocation_age(9, RevocationClaims(unknown=(), late_s=90), tee="tpm")
    unknown = judge_revocation_age(9, RevocationClaims(unknown=("CN=a", "CN=b"), late_s=0), tee="tpm")
    assert (late.found, unknown.found) == ("CRLs 90 s past their time", "none for CN=a and CN=b")
