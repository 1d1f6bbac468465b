"""TPM evidence of a fake vendor: what is good verifies, and each thing that can be wrong is refused with its code."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.tpm_boot import FakeBoot, firmware
from fakes.tpm_vendor import (
    AK_PURPOSE,
    BOUND,
    EK_PURPOSE,
    NOW,
    NULL,
    YEAR,
    FakeTpm,
    FakeVendor,
    rsa_key,
    tpm_signature,
    u16,
    u32,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from blindai.attestation.binding import Binding
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Outcome
from blindai.attestation.tee import TEES, Role
from blindai.attestation.tee.tpm import MAGIC, TpmClaims, parse, verify
from blindai.attestation.tpm2.revocation import RevocationClaims, judge_revocation
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, UnauthenticEvidenceError

VENDOR = FakeVendor()
STEPS = (
    *("evidence_format", "quote_format", "signature_format", "ak_format", "event_log_format", "endorsements"),
    *("digest_algorithm", "ak_attributes", "ak_scheme", "qualified_signer", "digest_algorithm"),
    *("quote_signature", "pcr_digest", "event_log_replay"),
)
CHAIN_STEPS = ("chain_root", "chain", "chain_validity", "certificate_use")


def ak_chain(tpm: FakeTpm, **fields: object) -> dict[str, bytes]:
    return VENDOR.chain(VENDOR.certify(tpm.key, **fields))  # type: ignore[arg-type]  # a fake's fields


def ek_chain(**fields: object) -> dict[str, bytes]:
    fields = {"signs": False, "purposes": (EK_PURPOSE,), **fields}
    return VENDOR.chain(VENDOR.certify(rsa_key(1), **fields), "ek")  # type: ignore[arg-type]  # a fake's fields


@functools.cache
def certified_tpm() -> FakeTpm:
    tpm = FakeTpm()
    return dataclasses.replace(tpm, endorsements=ak_chain(tpm))


@functools.cache
def good_item() -> EvidenceItem:
    return certified_tpm().item()


def verified(item: EvidenceItem, now: datetime = NOW, checks: Checks | None = None) -> TpmClaims:
    return verify(item, now.timestamp(), checks or Checks(), roots=VENDOR.pinned)


def refuse(
    item: EvidenceItem, code: str, error: type[RejectedEvidenceError] = UnauthenticEvidenceError, now: datetime = NOW
) -> str:
    """Refused for exactly this reason, which is the last finding too; what was found."""
    checks = Checks()
    with pytest.raises(error) as refusal:
        verified(item, now, checks)
    assert refusal.value.finding_code == f"tpm.{code}"
    assert refusal.value.tee == "tpm"
    assert refusal.value.findings == checks.findings
    assert [finding.code for finding in checks.findings if finding.outcome is Outcome.FAILED] == [f"tpm.{code}"]
    return checks.findings[-1].found


def with_endorsements(**changed: bytes | None) -> EvidenceItem:
    endorsements = {**dict(good_item().endorsements), **changed}
    kept = tuple((name, data) for name, data in endorsements.items() if data is not None)
    return dataclasses.replace(good_item(), endorsements=kept)


def test_good_evidence_says_what_was_quoted_and_who_certified_the_key() -> None:
    checks = Checks()
    claims = verified(good_item(), checks=checks)
    assert claims.bound == BOUND
    assert claims.ak_name == certified_tpm().ak_name
    assert (claims.ak_root, claims.ek_root, claims.hierarchy) == ("fake vendor", "", "endorsement")
    assert claims.pcrs[17] == b"\xff" * 32
    assert claims.revocation == RevocationClaims(unknown=(), late_s=0)
    steps = [*STEPS, *(f"ak_{name}" for name in (*CHAIN_STEPS, "certificate_key", "crl", "revoked"))]
    assert [finding.code for finding in checks.findings] == [f"tpm.{name}" for name in steps]
    assert {finding.outcome for finding in checks.findings} == {Outcome.PASSED}


def test_facts_show_every_claim() -> None:
    facts = dict(verified(good_item()).facts())
    assert facts["AK certified by"] == "fake vendor"
    assert facts["TPM firmware version"] == "0x0000000000000007"
    assert facts["Secure Boot"] == "on"
    assert facts["memory encryption, as the host says"] == "AMD SEV-SNP"
    assert facts["command line"] == "/vmlinuz root=/dev/dm-0 ro quiet"
    assert facts["PCR 23 (sha256)"] == "00" * 32
    bare = dict(verified(FakeTpm(with_log=False).item()).facts())
    assert (bare["AK certified by"], bare["event log"]) == ("no vendor", "none")


def test_the_table_says_what_a_tpm_is_and_where_it_holds_the_binding() -> None:
    assert TEES["tpm"].role is Role.MACHINE
    assert TEES["tpm"].slot is Binding.bound_32


@pytest.mark.parametrize("bank", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("scheme", ["rsassa", "rsapss", "ecdsa"])
def test_every_scheme_and_digest_is_verified(scheme: str, bank: str) -> None:
    curves = {"sha256": ec.SECP256R1(), "sha384": ec.SECP384R1(), "sha512": ec.SECP521R1()}
    key = ec.generate_private_key(curves[bank]) if scheme == "ecdsa" else rsa_key()
    boot = firmware(FakeBoot(banks=(bank,)))
    tpm = FakeTpm(boot=boot, key=key, scheme=scheme, digest=bank, name_digest=bank, bank=bank)
    claims = verified(tpm.item())
    assert (claims.quote.bank, len(claims.pcrs[0])) == (bank, {"sha256": 32, "sha384": 48, "sha512": 64}[bank])


@pytest.mark.parametrize(
    ("parent", "name"),
    [
        (bytes.fromhex("40000001"), "owner"),
        (bytes.fromhex("40000007"), "null"),
        (bytes.fromhex("4000000c"), "platform"),
        (b"\x00\x0b" + bytes(32), "below another key"),
    ],
)
def test_what_the_key_is_derived_from_is_told(parent: bytes, name: str) -> None:
    assert verified(FakeTpm(parent=parent).item()).hierarchy == name


@pytest.mark.parametrize(
    "tpm",
    [
        FakeTpm(boot=firmware(FakeBoot(banks=("sha1",))), bank="sha1"),
        FakeTpm(digest="sha1"),
        FakeTpm(name_digest="sha1"),
    ],
)
def test_sha_1_is_refused_by_name(tpm: FakeTpm) -> None:
    assert "sha1" in refuse(tpm.item(), "digest_algorithm")


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 18])
def test_a_key_without_a_required_attribute_is_refused(bit: int) -> None:
    refuse(FakeTpm(attributes=0x00050072 & ~(1 << bit)).item(), "ak_attributes")


def test_a_key_that_decrypts_or_protects_others_is_refused() -> None:
    refuse(FakeTpm(attributes=0x00050072 | 1 << 17).item(), "ak_attributes")
    refuse(FakeTpm(symmetric=b"\x00\x06\x00\x80\x00\x43").item(), "ak_attributes")


def test_a_signature_by_another_scheme_than_the_keys_is_refused() -> None:
    tpm = FakeTpm()
    signature = tpm_signature(tpm.key, "rsapss", "sha256", tpm.quote())
    refuse(tpm.item(signature=signature), "ak_scheme")
    refuse(FakeTpm(scheme="").item(), "ak_scheme")


@pytest.mark.parametrize("signer", [b"", b"\x00\x0b" + bytes(32), bytes.fromhex("4000000b")])
def test_a_signer_that_is_not_this_key_is_refused(signer: bytes) -> None:
    refuse(FakeTpm(qualified_signer=signer).item(), "qualified_signer")


@pytest.mark.parametrize("parent", [b"", bytes.fromhex("40000010"), bytes(33), b"\x00\x0b" + bytes(32)])
def test_a_parent_that_is_none_or_another_is_refused(parent: bytes) -> None:
    refuse(FakeTpm().item(ak_parent=parent), "qualified_signer")
    refuse(FakeTpm(qualified_signer=b"").item(ak_parent=parent), "qualified_signer")


@pytest.mark.parametrize("bit", [2, 6, 7, 10, 11, 19])
def test_an_attribute_that_the_quote_does_not_name_is_refused(bit: int) -> None:
    public = bytearray(FakeTpm().ak_public)
    public[7 - bit // 8] ^= 1 << bit % 8
    refuse(FakeTpm().item(ak_public=bytes(public)), "qualified_signer")


def test_a_signature_of_another_key_or_over_another_quote_is_refused() -> None:
    tpm = FakeTpm()
    refuse(tpm.item(signature=tpm_signature(rsa_key(1), "rsassa", "sha256", tpm.quote())), "quote_signature")
    refuse(tpm.item(quote=FakeTpm(restart_count=1).quote()), "quote_signature")


def test_a_scheme_that_is_not_for_the_keys_kind_is_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    signature = tpm_signature(curve, "ecdsa", "sha256", b"")
    refuse(FakeTpm(scheme="ecdsa").item(signature=signature), "quote_signature")
    refuse(FakeTpm(key=curve).item(signature=FakeTpm().evidence().signature), "quote_signature")


def test_values_that_were_not_quoted_are_refused() -> None:
    values = FakeTpm().pcr_values
    refuse(FakeTpm().item(pcr_values=bytes(len(values))), "pcr_digest")
    assert refuse(FakeTpm().item(pcr_values=values[:-1]), "pcr_digest").startswith("767 bytes")
    refuse(FakeTpm().item(pcr_values=b""), "pcr_digest")
    refuse(FakeTpm(pcr_digest=b"").item(pcr_values=b""), "pcr_digest")
    refuse(FakeTpm(pcr_digest=hashlib.sha256(b"").digest()).item(pcr_values=b""), "pcr_digest")


def test_a_log_of_another_boot_or_bank_is_refused() -> None:
    found = refuse(FakeTpm().item(event_log=firmware(secure=0).log()), "event_log_replay")
    assert found == "other values of PCRs 4, 5, 7"
    sha384 = firmware(FakeBoot(banks=("sha384",)))
    assert refuse(FakeTpm().item(event_log=sha384.log()), "event_log_replay") == "banks sha384, replayed"


def test_a_log_of_pcrs_that_are_not_quoted_says_nothing() -> None:
    claims = verified(FakeTpm(selection=(0, 1)).item(event_log=FakeTpm().boot.log()))
    assert claims.boot is not None
    assert (claims.boot.secure_boot, claims.boot.firmware) == (None, "GCE Virtual Firmware v2")


@pytest.mark.parametrize(
    ("tpm", "found"),
    [
        (FakeTpm(magic=0xFF544348), "the magic is 0xff544348"),
        (FakeTpm(kind=0x8017), "the type is 0x8017"),
        (FakeTpm(safe=2), "the flag safe is 2"),
        (FakeTpm(qualified_signer=bytes(67)), "the qualified signer has 67 bytes, at most 66"),
        (FakeTpm(bound=bytes(67)), "the extra data has 67 bytes, at most 66"),
        (FakeTpm(selections=u32(2) + (u16(0x000B) + b"\x03\xff\xff\xff") * 2), "the number of banks is 0x2"),
        (FakeTpm(selections=u32(1) + u16(0x0012) + b"\x03\xff\xff\xff"), "algorithm 0x0012 is no digest"),
        (FakeTpm(selections=u32(1) + u16(0x000B) + b"\x02\xff\xff"), "the size of the selection is 0x2"),
        (FakeTpm(selections=u32(1) + u16(0x000B) + b"\x03\0\0\0"), "no PCR is selected"),
    ],
)
def test_a_quote_that_is_none_is_refused(tpm: FakeTpm, found: str) -> None:
    assert found in refuse(tpm.item(), "quote_format", MalformedEvidenceError)


def test_parts_that_are_cut_or_have_more_are_refused() -> None:
    evidence = FakeTpm().evidence()
    parts = {"quote": evidence.quote, "signature": evidence.signature, "ak_public": evidence.ak_public}
    codes = {"quote": "quote_format", "signature": "signature_format", "ak_public": "ak_format"}
    for name, part in parts.items():
        for wrong in (part[:-1], part + b"\0", b""):
            refuse(FakeTpm().item(**{name: wrong}), codes[name], MalformedEvidenceError)


@pytest.mark.parametrize(
    ("offset", "wrong", "found"),
    [
        (0, u16(0x0008), "type 0x0008 is neither RSA nor ECC"),
        (2, u16(0x0012), "algorithm 0x0012 is no digest"),
        (4, u32(0x00050073), "have reserved bits"),
        (12, u16(0x0011), "scheme 0x0011 is not known"),
        (16, u16(1024), "is declared as 1024"),
        (18, u32(1), "that "),
    ],
)
def test_an_rsa_key_that_is_none_is_refused(offset: int, wrong: bytes, found: str) -> None:
    public = bytearray(FakeTpm().ak_public)
    public[offset : offset + len(wrong)] = wrong
    assert found in refuse(FakeTpm().item(ak_public=bytes(public)), "ak_format", MalformedEvidenceError)


@pytest.mark.parametrize(
    ("offset", "wrong", "found"),
    [
        (16, u16(0x0010), "curve 0x0010 is not known"),
        (18, u16(0x0020), "a key that signs derives no others"),
        (22, bytes(32), "that "),
    ],
)
def test_a_curve_key_that_is_none_is_refused(offset: int, wrong: bytes, found: str) -> None:
    tpm = FakeTpm(key=ec.generate_private_key(ec.SECP256R1()), scheme="ecdsa")
    public = bytearray(tpm.ak_public)
    public[offset : offset + len(wrong)] = wrong
    assert found in refuse(tpm.item(ak_public=bytes(public)), "ak_format", MalformedEvidenceError)


def test_a_key_of_1024_bits_is_refused() -> None:
    refuse(FakeTpm(key=rsa_key(bits=1024)).item(), "ak_format", MalformedEvidenceError)


def test_a_signature_without_a_scheme_is_refused() -> None:
    refuse(FakeTpm().item(signature=u16(NULL)), "signature_format", MalformedEvidenceError)


def test_evidence_in_another_envelope_is_refused() -> None:
    raw = FakeTpm().item().evidence
    long = MAGIC + u32(513) + bytes(513)
    for wrong in (b"", raw[:10], b"blindai/2" + raw[9:], raw[:-1], raw + b"\0", long):
        item = dataclasses.replace(good_item(), evidence=wrong)
        refuse(item, "evidence_format", MalformedEvidenceError)


def test_a_log_that_cannot_be_read_is_refused() -> None:
    refuse(FakeTpm().item(event_log=b"\0"), "event_log_format", MalformedEvidenceError)


@pytest.mark.parametrize("name", ["ak_certificate", "ak_intermediate_1", "ak_root", "ak_crl_1"])
def test_certificates_and_crls_that_are_none_are_refused(name: str) -> None:
    code = "crl_format" if "crl" in name else "certificate_format"
    good = dict(good_item().endorsements)[name]
    for wrong in (b"", b"\x30\x00", good + b"\0", good[:-1]):
        refuse(with_endorsements(**{name: wrong}), code, MalformedEvidenceError)


@pytest.mark.parametrize(
    "item",
    [
        with_endorsements(ak_certificate=None),
        with_endorsements(ak_root=None),
        with_endorsements(ak_intermediate_1=None, ak_intermediate_2=VENDOR.intermediate.public_bytes(Encoding.DER)),
        with_endorsements(ak_certificate=None, ak_intermediate_1=None, ak_root=None),
        with_endorsements(vcek=b""),
        dataclasses.replace(good_item(), endorsements=(*good_item().endorsements, good_item().endorsements[0])),
    ],
)
def test_endorsements_that_are_no_whole_chain_are_refused(item: EvidenceItem) -> None:
    refuse(item, "endorsements", MalformedEvidenceError)


def test_a_chain_to_another_root_is_refused() -> None:
    tpm = FakeTpm()
    other = FakeVendor(name="swtpm-localca")
    tpm.endorsements = other.chain(other.certify(tpm.key))
    refuse(tpm.item(), "ak_chain_root")
    with pytest.raises(UnauthenticEvidenceError, match="google or microsoft"):
        verify(good_item(), NOW.timestamp(), Checks())


def test_a_chain_that_does_not_hold_together_is_refused() -> None:
    tpm = FakeTpm()
    tpm.endorsements = ak_chain(tpm, signer=VENDOR.root_key)
    refuse(tpm.item(), "ak_chain")
    tpm.endorsements = {name: der for name, der in ak_chain(tpm).items() if "intermediate" not in name}
    refuse(tpm.item(), "ak_chain")


@pytest.mark.parametrize("now", [NOW - YEAR - timedelta(seconds=1), NOW + YEAR + timedelta(seconds=1)])
def test_a_chain_outside_its_time_is_refused(now: datetime) -> None:
    refuse(good_item(), "ak_chain_validity", now=now)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"is_ca": True}, "a CA's certificate"),
        ({"purposes": (EK_PURPOSE,)}, "one for 2.23.133.8.1"),
        ({"signs": False}, "one whose key usage is another"),
        ({"usage": False}, "one whose key usage is another"),
    ],
)
def test_a_certificate_for_something_else_is_refused(fields: dict[str, object], found: str) -> None:
    tpm = FakeTpm()
    tpm.endorsements = ak_chain(tpm, **fields)
    assert refuse(tpm.item(), "ak_certificate_use") == found


def test_a_certificate_may_name_its_purpose() -> None:
    tpm = FakeTpm()
    tpm.endorsements = ak_chain(tpm, purposes=("1.3.6.1.4.1.311.10.3.12", AK_PURPOSE))
    assert verified(tpm.item()).ak_root == "fake vendor"


def test_a_certificate_of_another_key_is_refused() -> None:
    refuse(FakeTpm(key=rsa_key(1), endorsements=ak_chain(FakeTpm())).item(), "ak_certificate_key")


def test_a_crl_that_no_ca_of_the_chain_signed_is_refused() -> None:
    assert refuse(with_endorsements(ak_crl_2=FakeVendor().crl()), "ak_crl") == "1 of 2 signed by none of them"
    refuse(with_endorsements(ak_crl_1=VENDOR.crl(issuer="intermediate")), "ak_crl")


def test_a_crl_under_another_kind_of_key_is_refused() -> None:
    refuse(with_endorsements(ak_crl_1=VENDOR.crl(signer=rsa_key())), "ak_crl")


@pytest.mark.parametrize("revokes", [False, True])
def test_a_ca_whose_key_usage_leaves_out_crls_has_none(*, revokes: bool) -> None:
    root = VENDOR.certify(VENDOR.root_key, "root", is_ca=True, issuer="root", signer=VENDOR.root_key, revokes=revokes)
    crl = x509.load_der_x509_crl(VENDOR.crl())
    signed, _ = judge_revocation((VENDOR.intermediate, root), (crl,), tee="tpm", kind="ak")
    assert (signed.code, signed.outcome is Outcome.PASSED) == ("tpm.ak_crl", revokes)


def test_purposes_may_be_critical_in_a_certificate_whose_purpose_is_judged() -> None:
    tpm = FakeTpm()
    purpose = x509.ExtendedKeyUsage([x509.ObjectIdentifier(AK_PURPOSE)])
    tpm.endorsements = ak_chain(tpm, extensions=(purpose,))
    assert verified(tpm.item()).ak_root == "fake vendor"
    tpm.endorsements = ak_chain(tpm, extensions=(x509.InhibitAnyPolicy(0),))
    assert refuse(tpm.item(), "ak_chain").endswith("has a critical extension that is not known: 2.5.29.54")


def test_a_ca_whose_key_cannot_sign_has_no_crl() -> None:
    key = X25519PrivateKey.generate()
    issuer = VENDOR.certify(key.public_key(), "root", is_ca=True)  # type: ignore[arg-type]  # what no CA has
    crl = x509.load_der_x509_crl(VENDOR.crl())
    findings = judge_revocation((VENDOR.intermediate, issuer), (crl,), tee="tpm", kind="ak")
    assert [finding.outcome for finding in findings] == [Outcome.FAILED, Outcome.PASSED]


def test_revoked_certificates_are_refused() -> None:
    tpm = FakeTpm()
    leaf = VENDOR.certify(tpm.key)
    assert refuse(with_endorsements(ak_crl_1=VENDOR.crl(revoked=(VENDOR.intermediate,))), "ak_revoked") == (
        "CN=intermediate"
    )
    own = VENDOR.crl(issuer="intermediate", signer=VENDOR.key, revoked=(leaf,))
    assert refuse(with_endorsements(ak_crl_2=own), "ak_revoked") == "CN=key"


@pytest.mark.parametrize("critical", [False, True])
def test_a_crl_that_is_silent_about_some_certificates_is_refused(*, critical: bool) -> None:
    for extension in (
        x509.DeltaCRLIndicator(1),
        x509.IssuingDistributionPoint(None, None, True, False, None, False, False),  # noqa: FBT003  # its only form
    ):
        crl = VENDOR.crl(extension=extension, critical=critical)
        refuse(with_endorsements(ak_crl_1=crl), "crl_format", MalformedEvidenceError)


def test_a_crl_with_a_critical_extension_is_refused() -> None:
    other = VENDOR.certify(VENDOR.key, "other")
    for part in ({"extension": x509.CRLNumber(7)}, {"of_entries": x509.CRLReason(x509.ReasonFlags.superseded)}):
        harmless = VENDOR.crl(revoked=(other,), critical=False, **part)
        assert verified(with_endorsements(ak_crl_1=harmless)).ak_root
        refuse(with_endorsements(ak_crl_1=VENDOR.crl(revoked=(other,), **part)), "crl_format", MalformedEvidenceError)


def test_what_crls_leave_open_is_told() -> None:
    subject = ("CN=intermediate",)
    assert verified(with_endorsements(ak_crl_1=None)).revocation == RevocationClaims(unknown=subject, late_s=0)
    future = VENDOR.crl(begin=NOW + timedelta(hours=1))
    assert verified(with_endorsements(ak_crl_1=future)).revocation == RevocationClaims(unknown=subject, late_s=0)
    old = VENDOR.crl(begin=NOW - timedelta(days=9), end=NOW - timedelta(seconds=90))
    assert verified(with_endorsements(ak_crl_1=old)).revocation == RevocationClaims(unknown=(), late_s=90)


def test_an_endorsement_key_is_followed_to_its_root_and_certifies_no_other_key() -> None:
    checks = Checks()
    claims = verified(FakeTpm(endorsements=ek_chain()).item(), checks=checks)
    assert (claims.ak_root, claims.ek_root, len(claims.ek_key_sha256)) == ("", "fake vendor", 32)
    assert [finding.code for finding in checks.findings[-5:]] == [
        f"tpm.ek_{name}" for name in (*CHAIN_STEPS[1:], "crl", "revoked")
    ]


def test_an_endorsement_keys_chain_is_judged_as_strictly() -> None:
    other = FakeVendor()
    leaf = other.certify(rsa_key(1), signs=False)
    unknown = verified(FakeTpm(endorsements=other.chain(leaf, "ek")).item())
    assert (unknown.ek_root, unknown.ek_root_sha256) == (
        "",
        other.pinned[0].sha256,
    )  # whether it will do, a policy says
    refuse(FakeTpm(endorsements=ek_chain(signer=VENDOR.root_key)).item(), "ek_chain")
    refuse(FakeTpm(endorsements=ek_chain(not_after=NOW - timedelta(days=1))).item(), "ek_chain_validity")
    refuse(FakeTpm(endorsements=ek_chain(signs=True)).item(), "ek_certificate_use")
    refuse(FakeTpm(endorsements=ek_chain(purposes=(AK_PURPOSE,))).item(), "ek_certificate_use")
    refuse(FakeTpm(endorsements={**ek_chain(), "ek_crl_1": other.crl()}).item(), "ek_crl")
    crl = VENDOR.crl(revoked=(VENDOR.intermediate,))
    refuse(FakeTpm(endorsements={**ek_chain(), "ek_crl_1": crl}).item(), "ek_revoked")


BEFORE_LOG = len(good_item().evidence) - len(FakeTpm().boot.log())


@given(st.data())
@settings(max_examples=300)
def test_no_change_of_a_byte_gets_out_but_as_a_refusal(data: st.DataObject) -> None:
    raw = bytearray(good_item().evidence)
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    try:
        verified(dataclasses.replace(good_item(), evidence=bytes(raw)))
    except (MalformedEvidenceError, UnauthenticEvidenceError):
        return
    assert bytes(raw)[:BEFORE_LOG] == good_item().evidence[:BEFORE_LOG]  # only the log has bytes without meaning


@given(st.binary(max_size=400))
def test_no_bytes_get_out_of_the_parser_but_as_a_refusal(data: bytes) -> None:
    for raw in (data, MAGIC + data):
        with pytest.raises(MalformedEvidenceError):
            parse(raw)
