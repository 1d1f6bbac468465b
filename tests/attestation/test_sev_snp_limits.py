"""SEV-SNP papers at their limits: one bit, byte or entry more than AMD writes is another paper.

Each test holds a comparison that no other test would miss (docs/audits/surviving_mutants.toml).
"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.amd import CHIP, NOW, FakeMachine, certificate, der, ec_key, integer, name, pinned, revocation_list, rsa_key

from blindai.attestation.amd.certificates import (
    SigningKey,
    names_of,
    read_amd_certificate,
    read_crl,
    read_endorsement,
    times_of,
)
from blindai.attestation.amd.flags import GUEST_POLICY_FLAGS, PLATFORM_FLAGS, unknown_bits
from blindai.attestation.amd.report import parse
from blindai.attestation.amd.tcb import Product, Tcb, read_minimum_tcb
from blindai.attestation.checks import Checks
from blindai.attestation.policy_file import Skip, open_policy
from blindai.attestation.tee.sev_snp import SevSnpClaims, verify
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError

DAY_S = 86400


def verified(machine: FakeMachine) -> SevSnpClaims:
    item = machine.item()
    return verify(item, NOW.timestamp(), Checks(), roots=pinned(item))


def refusal_of(machine: FakeMachine) -> RejectedEvidenceError:
    with pytest.raises(RejectedEvidenceError) as refusal:
        verified(machine)
    return refusal.value


# --- the report -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": 5 | 1 << 24}, "version 16777221 instead of 2 to 5"),
        ({"signature_algo": 1 | 1 << 24}, "signature algorithm 16777217 instead of 1"),
        ({"vmpl": 1 << 24}, "VMPL 16777216"),
        ({"policy": 0x30000 | 1 << 56}, "guest policy 0x100000000030000"),
        ({"key_info": 1 << 5}, "an undefined bit beside SIGNING_KEY"),
        ({"key_info": 1 << 31}, "an undefined bit beside SIGNING_KEY"),
        ({"author_key_digest": b"\1".ljust(48, b"\0")}, "without AUTHOR_KEY_EN"),
        ({"author_key_digest": b"\1".rjust(48, b"\0"), "key_info": 2}, "without AUTHOR_KEY_EN"),
    ],
)
def test_the_last_byte_of_a_number_counts(fields: dict[str, int | bytes], words: str) -> None:
    with pytest.raises(MalformedEvidenceError, match=words):
        parse(FakeMachine(fields=fields).report())


# Of every version, and what versions below 3 and below 5 leave out.
RESERVED = (*range(0x4C, 0x50), *range(0x18B, 0x1A0), 0x1EB, 0x1EF, *range(0x208, 0x2A0))
RESERVED += (*range(0x2D0, 0x2E8), *range(0x318, 0x4A0))
OLD: dict[str, int | bytes] = {"launch_mit_vector": 0, "current_mit_vector": 0}


@pytest.mark.parametrize(
    ("fields", "reserved"),
    [
        ({}, RESERVED),
        ({**OLD, "version": 4}, (*RESERVED, *range(0x1F8, 0x208))),
        ({**OLD, "version": 3}, (*RESERVED, *range(0x1F8, 0x208))),
        ({**OLD, "version": 2, "cpuid": bytes(3)}, (*RESERVED, *range(0x1F8, 0x208), *range(0x188, 0x18B))),
    ],
)
def test_no_reserved_byte_is_passed_over(fields: dict[str, int | bytes], reserved: tuple[int, ...]) -> None:
    good = FakeMachine(fields=fields).report()
    assert len(parse(good).signed) == 0x2A0
    for at in reserved:
        with pytest.raises(MalformedEvidenceError, match="that are not zero"):
            parse(good[:at] + b"\1" + good[at + 1 :])


def test_each_bit_of_the_guest_policy_is_defined_or_refused() -> None:
    good = FakeMachine().report()
    for bit in range(64):
        raw = good[:8] + (1 << 17 | 1 << bit).to_bytes(8, "little") + good[16:]
        if bit < 26:
            assert parse(raw).policy == 1 << 17 | 1 << bit
        else:
            with pytest.raises(MalformedEvidenceError, match="guest policy"):
                parse(raw)
    with pytest.raises(MalformedEvidenceError, match="guest policy"):
        parse(good[:8] + (0x3FFFFFF & ~(1 << 17)).to_bytes(8, "little") + good[16:])


def test_each_flag_has_its_bit() -> None:
    """AMD document 56860, tables "Guest Policy" and ATTESTATION_REPORT."""
    assert {flag.name: flag.bit for flag in GUEST_POLICY_FLAGS} == {
        "smt_allowed": 16,
        "migrate_ma": 18,
        "debug": 19,
        "single_socket": 20,
        "cxl_allowed": 21,
        "aes_256_xts": 22,
        "rapl_dis": 23,
        "ciphertext_hiding": 24,
        "page_swap_disable": 25,
    }
    assert {flag.name: flag.bit for flag in PLATFORM_FLAGS} == {
        "smt_enabled": 0,
        "tsme_enabled": 1,
        "ecc_enabled": 2,
        "rapl_disabled": 3,
        "ciphertext_hiding_enabled": 4,
        "alias_check_complete": 5,
        "tio_enabled": 7,
    }


@pytest.mark.parametrize("bits", range(8))
def test_each_bit_beside_the_signing_key_is_read(bits: int) -> None:
    report = parse(FakeMachine(fields={"key_info": bits << 2 | bits & 3}).report())
    assert (report.author_key_en, report.mask_chip_key, report.signing_key) == (bool(bits & 1), bool(bits & 2), bits)


def test_every_unknown_bit_is_named() -> None:
    assert unknown_bits(1 << 63 | 1 << 6 | 0b111) == (6, 63)
    assert unknown_bits(0) == ()
    facts = dict(verified(FakeMachine(fields={"platform_info": 1 << 63, "policy": 0x20000})).facts())
    assert (facts["platform"], facts["guest policy"]) == ("unknown bit 63", "ABI 0.0, no flag")


@pytest.mark.parametrize(
    ("key_info", "found"),
    [
        (2, "SIGNING_KEY 0 and MASK_CHIP_KEY, under which a VCEK signs nothing"),
        (4, "SIGNING_KEY 1"),
        (7 << 2, "SIGNING_KEY 7"),
    ],
)
def test_the_refusal_of_a_signing_key_says_what_is_wrong(key_info: int, found: str) -> None:
    refusal = refusal_of(FakeMachine(fields={"key_info": key_info}))
    assert (refusal.finding_code, refusal.findings[-1].found) == ("sev_snp.signing_key", found)


# --- certificates -----------------------------------------------------------------------------------------------------


def vek(public_key: Any) -> x509.Certificate:
    extensions = {"1": der(2, b"\0")}
    made = certificate(
        "SEV-VCEK", "SEV-Genoa", public_key=public_key, signer=rsa_key("a"), serial=1, extensions=extensions
    )
    return read_amd_certificate(made, "vek")


def test_a_report_is_signed_by_a_key_on_p384_and_no_other() -> None:
    for key in (rsa_key("a"), ec_key("a", ec.SECP256R1)):
        with pytest.raises(MalformedEvidenceError, match="a key that is not on P-384"):
            read_endorsement(vek(key.public_key()), SigningKey.VCEK, Product.GENOA)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "no extension"),
        (b"", "of another type"),
        (b"x", "of another type"),
        # What would be read if a length had all of its eight bits.
        (b"\x16\x80" + b"G" * 128, "of another type"),
        (b"\x16\x81" + b"G" * 129, "of another type"),
        (b"\x16\xff" + b"G" * 255, "of another type"),
        (b"\x16\x00" + b"G" * 256, "of another type"),
        (b"\x16\x04Genoa", "of another type"),
        (b"\x16\x06Genoa", "of another type"),
    ],
)
def test_a_text_is_of_the_length_that_it_says(value: bytes | None, words: str) -> None:
    refusal = refusal_of(FakeMachine(extensions={"2": value}))
    assert (refusal.finding_code, type(refusal)) == ("sev_snp.vek_format", MalformedEvidenceError)
    assert words in str(refusal)


def test_the_longest_text_is_read() -> None:
    claims = verified(FakeMachine(key="VLEK", extensions={"5": der(0x16, b"C" * 127)}))
    assert claims.csp_id == "C" * 127


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x80", b"\0\0", b"\0\x7f", b"\1\0", b"\xff\xff"])
def test_a_level_is_a_number_of_one_byte_in_its_shortest_form(content: bytes) -> None:
    refusal = refusal_of(FakeMachine(extensions={"3.1": der(2, content)}))
    assert (refusal.finding_code, type(refusal)) == ("sev_snp.vek_format", MalformedEvidenceError)


def test_the_highest_level_is_read() -> None:
    refusal = refusal_of(FakeMachine(extensions={"3.8": integer(255)}))
    assert refusal.finding_code == "sev_snp.vek_tcb"
    assert "microcode 255" in str(refusal)


@pytest.mark.parametrize(
    ("product", "places"), [("Milan", (4, 5, 6, 7)), ("Genoa", (4, 5, 6, 7)), ("Turin", (5, 6, 7))]
)
def test_every_reserved_level_is_zero(product: str, places: tuple[int, ...]) -> None:
    for place in places:
        refusal = refusal_of(FakeMachine(product=product, extensions={f"3.{place}": integer(1)}))
        assert (refusal.finding_code, type(refusal)) == ("sev_snp.vek_format", MalformedEvidenceError)


def test_a_level_that_is_not_said_is_0() -> None:
    assert str(Tcb()) == "fmc 0, bootloader 0, tee 0, snp 0, microcode 0"


@pytest.mark.parametrize("size", [0, 61, 63, 65])
def test_a_hardware_id_in_an_octet_string_is_whole(size: int) -> None:
    refusal = refusal_of(FakeMachine(extensions={"4": b"\4\x40" + CHIP["Genoa"].ljust(65, b"\0")[:size]}))
    assert (refusal.finding_code, type(refusal)) == ("sev_snp.vek_format", MalformedEvidenceError)


def test_names_are_told_from_leaf_to_root() -> None:
    def named(*attributes: x509.NameAttribute[str]) -> x509.Certificate:
        key = rsa_key("a")
        builder = x509.CertificateBuilder(x509.Name([]), x509.Name(attributes), key.public_key(), 1, NOW, NOW)
        return builder.sign(key, SHA384())

    common = [x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in ("SEV-VCEK", "SEV-VLEK")]
    chain = [named(common[0]), named(*common), named()]
    assert names_of(chain) == "SEV-VCEK < without a common name < without a common name"


# --- revocation lists -------------------------------------------------------------------------------------------------


def test_one_critical_extension_is_enough_to_refuse_a_list() -> None:
    for crl in (revocation_list("Genoa", critical=True), _with_critical_entry()):
        with pytest.raises(MalformedEvidenceError, match="no critical extension"):
            read_crl(crl)


def _with_critical_entry() -> bytes:
    reason = x509.CRLReason(x509.ReasonFlags.remove_from_crl)
    entry = x509.RevokedCertificateBuilder(3, NOW).add_extension(reason, critical=True).build()
    builder = x509.CertificateRevocationListBuilder(name("ARK-Genoa"), NOW, NOW)
    builder = builder.add_extension(x509.CRLNumber(7), critical=False)
    return builder.add_revoked_certificate(entry).sign(rsa_key("ARK-Genoa"), SHA384()).public_bytes(Encoding.DER)


def test_a_list_has_the_times_that_it_says() -> None:
    times = times_of(read_crl(revocation_list("Genoa")))
    assert (times.this_update, times.next_update) == (NOW.timestamp() - DAY_S, NOW.timestamp() + 30 * DAY_S)


def test_a_list_is_read_from_exactly_its_der(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the library under us would pass over what stands behind it."""
    crl = revocation_list("Genoa", serials=[5])
    strict = x509.load_der_x509_crl
    monkeypatch.setattr(x509, "load_der_x509_crl", lambda data: strict(data.rstrip(b"\0")))
    assert read_crl(crl)
    with pytest.raises(MalformedEvidenceError):
        read_crl(crl + b"\0")


# --- policies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 255])
def test_a_level_of_a_policy_is_a_byte(level: int) -> None:
    section = open_policy(f"minimum_tcb = {{ genoa = {{ snp = {level} }} }}", source="p")
    minima = read_minimum_tcb(section, "minimum_tcb")
    assert not isinstance(minima, Skip)
    assert minima["genoa"].tcb.snp == level
