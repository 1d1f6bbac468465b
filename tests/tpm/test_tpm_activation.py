"""A real TPM (swtpm) opens credentials for its own keys, shows its EK's certificate, and agrees with tpm2-tools."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.tpm_vendor import EK_PURPOSE, NOW, FakeVendor
from tpm.manufacturer import Manufacturer
from tpm.software_tpm import SoftwareTpm

from blindai.attestation.checks import Checks
from blindai.attestation.tee import tpm as verifier
from blindai.attestation.tpm2.credential import Credential, activation_answer, is_activated, make_credential
from blindai.attestation.tpm2.keys import parse_public
from blindai.attester.tpm import TpmAttester
from blindai.attester.tpm2 import commands, endorsement
from blindai.attester.tpm2.commands import RH_ENDORSEMENT, RH_OWNER, password, sized, u16, u32
from blindai.attester.tpm2.device import run
from blindai.attester.tpm2.endorsement import CredentialRefusedError
from blindai.errors import AttesterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.swtpm


@pytest.fixture(scope="module")
def manufacturer(tmp_path_factory: pytest.TempPathFactory) -> Manufacturer:
    return Manufacturer(tmp_path_factory.mktemp("manufacturer") / "it")


@pytest.fixture
def made(manufacturer: Manufacturer, tmp_path: Path) -> Iterator[SoftwareTpm]:
    """A TPM as its manufacturer delivers it."""
    manufacturer.make(tmp_path / "made")
    tpm = SoftwareTpm(tmp_path / "made")
    yield tpm
    tpm.stop()


def attester_of(tpm: SoftwareTpm, issuers: Path) -> TpmAttester:
    return TpmAttester(tpm, issuers.parent / "no-log", ek_issuers=issuers)


def shown(attester: TpmAttester) -> tuple[verifier.TpmClaims, object]:
    item = attester.attest(bytes(64))
    claims = verifier.verify(item, time.time(), Checks())
    return claims, x509.load_der_x509_certificate(dict(item.endorsements)["ek_certificate"]).public_key()


def credential_for(ek: object, ak_name: bytes, secret: bytes) -> Credential:
    return make_credential(ek, ak_name, secret, random=os.urandom(64))


def test_the_manufacturers_certificate_is_shown_up_to_its_root_and_its_key_opens(
    made: SoftwareTpm, manufacturer: Manufacturer
) -> None:
    attester = attester_of(made, manufacturer.issuers)
    claims, ek = shown(attester)
    assert (claims.ek_root, claims.ek_root_sha256) == ("", manufacturer.root_sha256)
    took = []
    for _ in range(20):  # and nothing is left in the TPM, which has room for three
        secret = os.urandom(32)
        begun_s = time.monotonic()
        answer = attester.activate(credential_for(ek, claims.ak_name, secret))
        took.append(time.monotonic() - begun_s)
        assert is_activated(answer, secret, claims.ak_name)
    print(f"an activation with the EK that the TPM keeps: median {sorted(took)[10] * 1000:.1f} ms")


def test_an_ek_that_the_tpm_does_not_keep_is_made_again(made: SoftwareTpm, manufacturer: Manufacturer) -> None:
    kept = endorsement.RSA.kept_at
    run(made, 0x120, "to drop a key", handles=(RH_OWNER, kept), authorisation=password(), parameters=u32(kept))
    attester = attester_of(made, manufacturer.issuers)
    claims, ek = shown(attester)
    for _ in range(4):
        secret, begun_s = os.urandom(32), time.monotonic()
        answer = attester.activate(credential_for(ek, claims.ak_name, secret))
        assert is_activated(answer, secret, claims.ak_name)
        print(f"an activation with an EK of RSA-2048 made for it: {(time.monotonic() - begun_s) * 1000:.0f} ms")


def test_credentials_for_other_keys_stay_closed(made: SoftwareTpm, manufacturer: Manufacturer, tmp_path: Path) -> None:
    manufacturer.make(tmp_path / "other")
    other = SoftwareTpm(tmp_path / "other")
    try:
        mine, theirs = (attester_of(tpm, manufacturer.issuers) for tpm in (made, other))
        (my_claims, my_ek), (their_claims, their_ek) = shown(mine), shown(theirs)
        assert my_claims.ak_name != their_claims.ak_name
        for ek, name in (
            (my_ek, their_claims.ak_name),
            (their_ek, my_claims.ak_name),
            (their_ek, their_claims.ak_name),
        ):
            with pytest.raises(CredentialRefusedError):
                mine.activate(credential_for(ek, name, bytes(32)))
        for ek, name in ((my_ek, their_claims.ak_name), (their_ek, my_claims.ak_name)):  # relayed to the other machine
            with pytest.raises(CredentialRefusedError):
                theirs.activate(credential_for(ek, name, bytes(32)))
        good = credential_for(my_ek, my_claims.ak_name, bytes(32))
        for at in (0, 1, 2, 40, 67):
            blob = good.blob[:at] + bytes([good.blob[at] ^ 1]) + good.blob[at + 1 :]
            with pytest.raises(CredentialRefusedError):
                mine.activate(Credential(blob=blob, encrypted_seed=good.encrypted_seed))
        ecc = credential_for(ec.derive_private_key(5, ec.SECP256R1()).public_key(), my_claims.ak_name, bytes(32))
        with pytest.raises(CredentialRefusedError):
            mine.activate(ecc)  # for an EK of the other kind
        assert is_activated(mine.activate(good), bytes(32), my_claims.ak_name)
    finally:
        other.stop()


def test_an_ek_on_p256_is_taken_before_one_of_rsa(made: SoftwareTpm, tmp_path: Path) -> None:
    """Swtpm's own second EK is on P-384; a maker that certifies one on P-256 is played here."""
    vendor, kind = FakeVendor(), endorsement.ECC
    with commands.primary_key(made, RH_ENDORSEMENT, kind.head + kind.unique) as (_, public):
        point = public[len(kind.head) :]
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point[2:34] + point[36:68])
    certificate = vendor.certify(key, signs=False, purposes=(EK_PURPOSE,)).public_bytes(Encoding.DER)
    write_certificate(made, kind.certificate_index, certificate + bytes(100))  # makers fill what is left
    issuers = tmp_path / "issuers.pem"
    pems = (one.public_bytes(Encoding.PEM) for one in (vendor.root, vendor.intermediate))
    issuers.write_bytes(b"".join(pems) + x509.load_der_x509_crl(vendor.crl()).public_bytes(Encoding.PEM))
    attester = attester_of(made, issuers)
    item = attester.attest(bytes(64))
    assert [name for name, _ in item.endorsements] == ["ek_certificate", "ek_intermediate_1", "ek_root", "ek_crl_1"]
    claims = verifier.verify(item, NOW.timestamp(), Checks())
    assert (claims.ek_root_sha256, claims.revocation.unknown) == (vendor.pinned[0].sha256, ())
    secret = os.urandom(32)
    answer = attester.activate(credential_for(key, claims.ak_name, secret))
    assert is_activated(answer, secret, claims.ak_name)


def write_certificate(tpm: SoftwareTpm, index: int, content: bytes) -> None:
    """TPM2_NV_DefineSpace and TPM2_NV_Write, by the owner: in a factory it is the platform."""
    attributes = 1 << 1 | 1 << 17 | 1 << 18 | 1 << 25  # the owner writes; owner and whoever knows no password read
    public = u32(index) + u16(0x000B) + u32(attributes) + sized(b"") + u16(len(content))
    parameters = sized(b"") + sized(public)
    run(tpm, 0x12A, "to define", handles=(RH_OWNER,), authorisation=password(), parameters=parameters)
    for at in range(0, len(content), 512):
        piece = sized(content[at : at + 512]) + u16(at)
        run(tpm, 0x137, "to write", handles=(RH_OWNER, index), authorisation=password(), parameters=piece)


def test_a_credential_of_tpm2_tools_is_opened(made: SoftwareTpm, manufacturer: Manufacturer, tmp_path: Path) -> None:
    attester = attester_of(made, manufacturer.issuers)
    claims, _ = shown(attester)
    public = commands.read_public(made, endorsement.RSA.kept_at)
    assert public
    (tmp_path / "ek.pub").write_bytes(sized(public))
    secret = os.urandom(32)
    (tmp_path / "secret").write_bytes(secret)
    words = ["tpm2_makecredential", "-T", "none", "-u", "ek.pub", "-s", "secret", "-n", claims.ak_name.hex()]
    subprocess.run([*words, "-o", "credential"], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    file = (tmp_path / "credential").read_bytes()
    assert file[:8] == bytes.fromhex("badcc0de00000001")
    blob, at = commands.take_sized(file, 8)
    encrypted_seed, at = commands.take_sized(file, at)
    assert at == len(file)
    answer = attester.activate(Credential(blob=blob, encrypted_seed=encrypted_seed))
    assert answer == activation_answer(secret, claims.ak_name)


def test_a_tpm_without_a_certificate_says_so_at_the_start(
    tpm: SoftwareTpm, manufacturer: Manufacturer, made: SoftwareTpm
) -> None:
    with pytest.raises(AttesterError, match="the TPM keeps no certificate of an endorsement key"):
        attester_of(tpm, manufacturer.issuers)
    plain = TpmAttester(made, manufacturer.issuers)
    assert not plain.can_activate
    with pytest.raises(AttesterError, match="shows no endorsement key"):
        plain.activate(Credential(blob=bytes(68), encrypted_seed=bytes(256)))


def test_issuers_that_do_not_lead_to_a_root_are_an_error_that_names_the_missing_one(
    made: SoftwareTpm, manufacturer: Manufacturer, tmp_path: Path
) -> None:
    path = tmp_path / "issuers.pem"
    for content, words in (
        (None, "cannot be read"),
        (b"", "the certificate of CN=swtpm-localca is missing"),
        (manufacturer.issuers.read_bytes().split(b"-----END")[0] + b"-----END CERTIFICATE-----\n", "rootca is missing"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is none"),
        (bytes((1 << 20) + 1), "more than 1048576 bytes"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(AttesterError, match=words):
            TpmAttester(made, tmp_path / "no-log", ek_issuers=path).attest(bytes(64))


def test_a_certificate_about_another_kind_of_key_is_an_error(made: SoftwareTpm, tmp_path: Path) -> None:
    key = ec.derive_private_key(5, ec.SECP384R1())
    certificate = FakeVendor().certify(key, signs=False).public_bytes(Encoding.DER)
    write_certificate(made, endorsement.ECC.certificate_index, certificate)
    with pytest.raises(AttesterError, match="about a key of another kind"):
        attester_of(made, tmp_path / "issuers.pem")


def test_what_is_no_certificate_is_an_error(made: SoftwareTpm, tmp_path: Path) -> None:
    write_certificate(made, endorsement.ECC.certificate_index, bytes(600))
    with pytest.raises(AttesterError, match="in the place of its EK certificate is none"):
        attester_of(made, tmp_path / "issuers.pem")


def test_the_templates_are_the_ones_by_which_makers_make_their_keys(made: SoftwareTpm) -> None:
    """swtpm_setup has made its EK by itself, and by the same template: it is the same key."""
    kind = endorsement.RSA
    with commands.primary_key(made, RH_ENDORSEMENT, kind.head + kind.unique) as (_, public):
        assert public == commands.read_public(made, kind.kept_at)
    with commands.attestation_key(made) as (_, ak):
        assert parse_public(ak, tee="tpm").attributes >= {"fixedTPM", "restricted", "sign"}
