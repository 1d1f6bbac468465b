"""SEV-SNP evidence of a fake AMD: what is good verifies, and each thing that can be wrong is refused with its code."""

from __future__ import annotations

import dataclasses
import functools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from fakes import amd
from fakes.amd import (
    CHIP,
    FIELDS,
    NOW,
    PSS,
    TCB,
    YEAR,
    FakeMachine,
    der,
    integer,
    pinned,
    revocation_list,
    rsa_key,
    tcb_bytes,
)
from fakes.key_usage import key_usage
from hypothesis import given, settings
from hypothesis import strategies as st

from blindai.attestation.amd.certificates import SigningKey, judge_revocation, read_crl
from blindai.attestation.amd.report import CpuId, FirmwareVersion
from blindai.attestation.amd.tcb import Product, Tcb, product_of
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Outcome
from blindai.attestation.tee import TEES
from blindai.attestation.tee.sev_snp import SevSnpClaims, parse, verify
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, UnauthenticEvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

GENOA = TCB["Genoa"]
STEPS = [
    "format",
    "endorsements",
    "certificate_format",
    "chain_root",
    "chain",
    "chain_validity",
    "chain_roles",
    "crl_format",
    "crl_signature",
    "revoked",
    "vek_format",
    "signing_key",
    "product",
    "signature",
    "tcb_format",
    "vek_product",
    "vek_tcb",
    "chip_id",
    "tcb_order",
]


@functools.cache
def good_item() -> EvidenceItem:
    return FakeMachine().item()


def verified(item: EvidenceItem, now: datetime = NOW, checks: Checks | None = None) -> SevSnpClaims:
    roots = pinned(item) if "root" in dict(item.endorsements) else pinned(good_item())
    return verify(item, now.timestamp(), checks or Checks(), roots=roots)


def refusal_of(item: EvidenceItem, now: datetime = NOW) -> RejectedEvidenceError:
    with pytest.raises(RejectedEvidenceError) as refusal:
        verified(item, now)
    last = refusal.value.findings[-1]
    assert last.outcome is Outcome.FAILED
    assert all(finding.outcome is Outcome.PASSED for finding in refusal.value.findings[:-1])
    assert last.code == refusal.value.finding_code
    assert last.expected
    assert last.found
    assert last.why
    assert refusal.value.tee == "sev_snp"
    return refusal.value


def with_endorsements(**changes: bytes | None) -> EvidenceItem:
    endorsements = {**dict(good_item().endorsements), **changes}
    kept = tuple((name, data) for name, data in endorsements.items() if data is not None)
    return dataclasses.replace(good_item(), endorsements=kept)


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("key", ["VCEK", "VLEK"])
def test_what_amd_signed_verifies(product: str, key: str) -> None:
    checks = Checks()
    claims = verified(FakeMachine(product=product, key=key).item(), checks=checks)
    assert [finding.code for finding in checks.findings] == [f"sev_snp.{step}" for step in STEPS]
    assert {finding.outcome for finding in checks.findings} == {Outcome.PASSED}
    assert claims.product is Product(product)
    assert claims.signing_key is SigningKey[key]
    assert claims.reported == claims.launch == Tcb(**TCB[product])
    assert claims.chip_id == (CHIP[product].ljust(64, b"\0") if key == "VCEK" else None)
    assert claims.csp_id == (None if key == "VCEK" else "CN=cloud.example")
    assert claims.bound == b"d" * 64
    assert claims.product_name == ("Milan-B0" if (product, key) == ("Milan", "VCEK") else product)


def test_it_stands_in_the_table() -> None:
    assert TEES["sev_snp"].verify is verify


def test_every_field_is_read_from_its_place() -> None:
    values = {name: bytes((0x11 * index + place) % 251 for place in range(size))
              for index, (name, (_, size)) in enumerate(FIELDS.items())}  # fmt: skip
    values |= {
        "version": b"\5\0\0\0",
        "policy": (0x30000 | 0x1F37).to_bytes(8, "little"),
        "vmpl": b"\3\0\0\0",
        "signature_algo": b"\1\0\0\0",
        "key_info": b"\7\0\0\0",
    }
    report = parse(FakeMachine(fields=values).report())
    for name, value in values.items():
        if name not in {"signature_algo", "key_info", "cpuid", "current_version", "committed_version"}:
            found = getattr(report, name)
            assert found == (int.from_bytes(value, "little") if isinstance(found, int) else value), name
    assert (report.author_key_en, report.mask_chip_key, report.signing_key) == (True, True, 1)
    assert report.policy_abi == (0x1F, 0x37)
    assert report.cpuid == CpuId(family=values["cpuid"][0], model=values["cpuid"][1], stepping=values["cpuid"][2])
    build, minor, major = values["committed_version"]
    assert report.committed_version == FirmwareVersion(major=major, minor=minor, build=build)
    assert str(report.committed_version) == f"{major}.{minor}.{build}"


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_each_version_says_only_what_it_has(version: int) -> None:
    silent: dict[str, int | bytes] = {"version": version}
    if version < 5:
        silent |= {"launch_mit_vector": 0, "current_mit_vector": 0}
    if version < 3:
        silent |= {"cpuid": bytes(3)}
    report = verified(FakeMachine(fields=silent).item()).report
    assert (report.cpuid is None) is (version == 2)
    assert (report.launch_mit_vector is None) is (report.current_mit_vector is None) is (version < 5)


def test_facts_name_everything_for_people() -> None:
    facts = dict(verified(FakeMachine(fields={"platform_info": 0x65}).item()).facts())
    assert facts["hardware"] == "AMD Genoa, CPU 19h/11h/1, signed by a VCEK"
    assert facts["platform"] == "smt_enabled, ecc_enabled, alias_check_complete, unknown bit 6"
    assert facts["guest policy"] == "ABI 0.0, smt_allowed"
    assert facts["mitigations"] == "0xb"
    assert facts["reported TCB"] == "fmc 0, bootloader 10, tee 0, snp 27, microcode 86"
    assert facts["revocation list"] == "until 2026-07-01T00:00:00Z"


def test_facts_say_what_is_not_told() -> None:
    fields: dict[str, int | bytes] = {
        "version": 2,
        "cpuid": bytes(3),
        "launch_mit_vector": 0,
        "current_mit_vector": 0,
        "platform_info": 0,
        "policy": 0x20000,
    }
    facts = dict(verified(FakeMachine(key="VLEK", fields=fields, crl=None).item()).facts())
    assert facts["hardware"] == "AMD Genoa, CPU not told, signed by a VLEK of CN=cloud.example"
    assert facts["chip id"] == "hidden"
    assert facts["mitigations"] == "not told"
    assert facts["revocation list"] == "none"
    assert facts["platform"] == "no flag"


RESERVED = [0x04C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F]
BAD_REPORTS: list[Mapping[str, Any]] = [
    *({"patches": {offset: b"\1"}} for offset in RESERVED),
    *({"unsigned": {offset: b"\1"}} for offset in (0x2D0, 0x2E7, 0x318, 0x330, 0x49F)),
    *({"fields": {"version": version}} for version in (0, 1, 6)),
    {"fields": {"version": 4}},  # with mitigation vectors
    {"fields": {"version": 2, "launch_mit_vector": 0, "current_mit_vector": 0}},  # with CPUID
    {"fields": {"vmpl": 4}},
    {"fields": {"vmpl": 0xFFFFFFFF}},
    {"fields": {"signature_algo": 0}},
    {"fields": {"policy": 0x10000}},
    {"fields": {"policy": 0x30000 | 1 << 26}},
    {"fields": {"policy": 0x30000 | 1 << 63}},
    {"fields": {"key_info": 1 << 5}},
    {"fields": {"author_key_digest": b"a" * 48}},
]


@pytest.mark.parametrize("change", BAD_REPORTS, ids=str)
def test_a_report_that_is_not_exactly_one_is_malformed(change: Mapping[str, Any]) -> None:
    refusal = refusal_of(FakeMachine(**change).item())
    assert isinstance(refusal, MalformedEvidenceError)
    assert refusal.finding_code == "sev_snp.format"


@pytest.mark.parametrize("cut", [0, 1, 1183, 1185])
def test_another_size_is_malformed(cut: int) -> None:
    raw = (good_item().evidence + b"\0")[:cut]
    assert refusal_of(dataclasses.replace(good_item(), evidence=raw)).finding_code == "sev_snp.format"


@pytest.mark.parametrize("changes", [{"vek": None}, {"intermediate": None}, {"root": None}, {"extra": b""}], ids=str)
def test_missing_and_surplus_endorsements_are_malformed(changes: dict[str, bytes | None]) -> None:
    refusal = refusal_of(with_endorsements(**changes))
    assert isinstance(refusal, MalformedEvidenceError)
    assert refusal.finding_code == "sev_snp.endorsements"
    assert "kdsintf.amd.com" in refusal.hint


def test_an_endorsement_given_twice_is_malformed() -> None:
    twice = (*good_item().endorsements, good_item().endorsements[0])
    refusal = refusal_of(dataclasses.replace(good_item(), endorsements=twice))
    assert refusal.finding_code == "sev_snp.endorsements"


def test_a_certificate_that_is_none_is_malformed() -> None:
    vek = dict(good_item().endorsements)["vek"]
    unreadable_name = vek.replace(b"\x0c\x08SEV-VCEK", b"\x0c\x08SEV-VCE\xff")
    unreadable_time = vek.replace(b"250601000000Z", b"259901000000Z")
    unknown_version = vek.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12", 1)
    wrong_kind_of_name = vek.replace(b"\x0c\x08SEV-VCEK", b"\x03\x08\0EV-VCEK")
    bad_ones = (unreadable_name, unreadable_time, unknown_version, wrong_kind_of_name)
    for bad in (b"", vek[:-1], vek + b"\0", *bad_ones):
        assert bad != vek
        refusal = refusal_of(with_endorsements(vek=bad))
        assert isinstance(refusal, MalformedEvidenceError)
        assert refusal.finding_code == "sev_snp.certificate_format"


def test_a_root_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(UnauthenticEvidenceError) as refusal:
        verify(good_item(), NOW.timestamp(), Checks())
    assert refusal.value.finding_code == "sev_snp.chain_root"


YESTERDAY, TOMORROW = NOW - timedelta(days=1), NOW + timedelta(days=1)
UNAUTHENTIC: list[tuple[str, Mapping[str, Any]]] = [
    ("chain", {"signers": {"vek": "another"}}),
    ("chain", {"signers": {"intermediate": "another"}}),
    *(("chain_validity", {"lifetimes": {role: (NOW - YEAR, YESTERDAY)}}) for role in ("vek", "intermediate", "root")),
    *(("chain_validity", {"lifetimes": {role: (TOMORROW, NOW + YEAR)}}) for role in ("vek", "intermediate", "root")),
    ("chain_roles", {"names": {"vek": "SEV-VLEK"}}),
    ("chain_roles", {"names": {"vek": "SEV-OTHER"}}),
    ("chain_roles", {"names": {"intermediate": "SEV-VLEK-Genoa"}}),
    ("chain_roles", {"names": {"intermediate": "SEV-Milan"}}),
    ("chain_roles", {"names": {"root": "ARK-Venice"}}),
    ("chain_roles", {"key": "VLEK", "names": {"intermediate": "SEV-Genoa"}}),
    ("crl_signature", {"crl": {"signer": "another"}}),
    ("crl_signature", {"crl": {"issuer": "ARK-Milan"}}),
    *(("revoked", {"crl": {"serials": [3, serial]}, "vek_serial": 0x77}) for serial in (0x20002, 0x20000, 0x77)),
    ("signing_key", {"fields": {"key_info": 4}}),
    ("signing_key", {"fields": {"key_info": 7 << 2}}),
    ("signing_key", {"fields": {"key_info": 2}}),
    ("signing_key", {"key": "VLEK", "fields": {"key_info": 0}}),
    ("product", {"fields": {"cpuid": b"\x19\x01\x01"}}),
    ("product", {"fields": {"cpuid": b"\x1b\x11\x01"}}),
    ("product", {"fields": {"cpuid": b"\x19\x50\x01"}}),
    ("signature", {"signers": {"report": "another"}}),
    ("signature", {"unsigned": {0x090: b"M"}}),
    ("signature", {"unsigned": {0x2A0: bytes(48)}}),
    ("signature", {"unsigned": {0x2A0: bytes(48), 0x2E8: bytes(48)}}),
    ("signature", {"unsigned": {0x2A0: b"\xff" * 48}}),
    ("vek_product", {"extensions": {"2": der(0x16, b"Milan-B0")}}),
    ("vek_product", {"extensions": {"2": der(0x16, b"GenoaX")}}),
    *(("vek_tcb", {"extensions": {f"3.{place}": integer(99)}}) for place in (1, 2, 3, 8)),
    *(("vek_tcb", {"product": "Turin", "extensions": {f"3.{place}": integer(99)}}) for place in (1, 2, 3, 8, 9)),
    ("chip_id", {"fields": {"chip_id": b"\1" * 64}}),
    ("chip_id", {"product": "Turin", "fields": {"chip_id": bytes(range(9)).ljust(64, b"\0")}}),
    *(
        ("tcb_order", {"fields": {"committed_tcb": tcb_bytes("Genoa", {**GENOA, component: level})}})
        for component, level in (("bootloader", 9), ("snp", 26), ("microcode", 0x55), ("microcode", 0x57))
    ),
]


@pytest.mark.parametrize("revokes", [False, True])
def test_a_root_whose_key_usage_leaves_out_lists_signs_none(*, revokes: bool) -> None:
    key, ark = rsa_key("ARK-Genoa"), amd.name("ARK-Genoa")
    usage = key_usage("key_cert_sign", "crl_sign") if revokes else key_usage("key_cert_sign")
    builder = x509.CertificateBuilder(ark, ark, key.public_key(), 1, NOW - YEAR, NOW + YEAR)
    root = builder.add_extension(usage, critical=True).sign(key, SHA384(), rsa_padding=PSS)
    signed, _ = judge_revocation(read_crl(revocation_list("Genoa")), [root])
    assert (signed.code, signed.outcome is Outcome.PASSED) == ("sev_snp.crl_signature", revokes)


@pytest.mark.parametrize(("what", "change"), UNAUTHENTIC, ids=str)
def test_what_amd_did_not_vouch_for_is_unauthentic(what: str, change: Mapping[str, Any]) -> None:
    refusal = refusal_of(FakeMachine(**change).item())
    assert isinstance(refusal, UnauthenticEvidenceError)
    assert refusal.finding_code == f"sev_snp.{what}"


MALFORMED: list[tuple[str, Mapping[str, Any]]] = [
    ("crl_format", {"crl": {"critical": True}}),
    *(("vek_format", {"extensions": {oid: None}}) for oid in ("1", "2", "3.1", "3.3", "3.4", "3.7", "3.8", "4")),
    ("vek_format", {"product": "Turin", "extensions": {"3.9": None}}),
    ("vek_format", {"key": "VLEK", "extensions": {"5": None}}),
    ("vek_format", {"key": "VLEK", "extensions": {"4": CHIP["Genoa"]}}),
    ("vek_format", {"extensions": {"5": der(0x16, b"CN=cloud.example")}}),
    ("vek_format", {"extensions": {"1": integer(1)}}),
    ("vek_format", {"extensions": {"1": integer(2)}}),
    ("vek_format", {"product": "Turin", "extensions": {"1": integer(0)}}),
    *(("vek_format", {"extensions": {f"3.{place}": integer(1)}}) for place in (4, 5, 6, 7)),
    ("vek_format", {"extensions": {"3.1": integer(256)}}),
    ("vek_format", {"extensions": {"3.1": b"\2\1\xff"}}),  # -1
    ("vek_format", {"extensions": {"3.1": b"\2\2\0\x0a"}}),  # not the shortest form
    ("vek_format", {"extensions": {"3.1": b"\2\0"}}),
    ("vek_format", {"extensions": {"3.1": b"\2"}}),
    ("vek_format", {"extensions": {"3.1": b"\4\1\x0a"}}),
    ("vek_format", {"extensions": {"3.1": b"\2\1\x0a\0"}}),
    ("vek_format", {"extensions": {"2": b"\x16\x81\x80" + b"G" * 128}}),
    ("vek_format", {"extensions": {"2": der(0x16, b"G\xff")}}),
    ("vek_format", {"extensions": {"2": der(0x16, b"G\n")}}),
    *(("vek_format", {"extensions": {"4": bytes(size)}}) for size in (8, 63, 65, 66)),
    ("vek_format", {"product": "Turin", "extensions": {"4": bytes(64)}}),
    ("vek_format", {"vek_curve": ec.SECP256R1}),
    *(("tcb_format", {"patches": {0x180 + place: b"\1"}}) for place in (2, 3, 4, 5)),
    *(("tcb_format", {"patches": {offset + 2: b"\1"}}) for offset in (0x038, 0x1E0, 0x1F0)),
    *(("tcb_format", {"product": "Turin", "patches": {0x180 + place: b"\1"}}) for place in (4, 5, 6)),
]


@pytest.mark.parametrize(("what", "change"), MALFORMED, ids=str)
def test_what_amd_does_not_write_is_malformed(what: str, change: Mapping[str, Any]) -> None:
    refusal = refusal_of(FakeMachine(**change).item())
    assert isinstance(refusal, MalformedEvidenceError)
    assert refusal.finding_code == f"sev_snp.{what}"


def test_a_revocation_list_that_is_none_is_malformed() -> None:
    crl = dict(good_item().endorsements)["crl"]
    unreadable_issuer = crl.replace(b"ARK-Genoa", b"ARK-Geno\xff")
    for bad in (b"", crl[:-1], crl + b"\0", without_next_update(crl), unreadable_issuer):
        refusal = refusal_of(with_endorsements(crl=bad))
        assert isinstance(refusal, MalformedEvidenceError)
        assert refusal.finding_code == "sev_snp.crl_format"


def without_next_update(crl: bytes) -> bytes:
    """The same list without its second time; its signature no longer fits."""
    made = x509.load_der_x509_crl(crl)
    first = made.tbs_certlist_bytes.index(b"\x17\x0d")
    tbs = made.tbs_certlist_bytes[: first + 15] + made.tbs_certlist_bytes[first + 30 :]
    head = 3 if tbs[1] == 0x81 else 4
    after = crl[crl.index(made.tbs_certlist_bytes) + len(made.tbs_certlist_bytes) :]
    return sequence(sequence(tbs[head:]) + after)


def sequence(content: bytes) -> bytes:
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content if len(content) > 255 else (
        b"\x30\x81" + bytes([len(content)]) + content
    )  # fmt: skip


def test_the_list_is_read_without_its_second_time() -> None:
    crl = without_next_update(revocation_list("Genoa"))
    assert x509.load_der_x509_crl(crl).next_update_utc is None


def test_every_step_of_verify_has_a_failing_case() -> None:
    elsewhere = {"format", "endorsements", "certificate_format", "chain_root"}
    assert {what for what, _ in UNAUTHENTIC + MALFORMED} | elsewhere == set(STEPS)


@pytest.mark.parametrize("hwid", [CHIP["Genoa"], der(4, CHIP["Genoa"])])
def test_a_hardware_id_may_stand_in_an_octet_string(hwid: bytes) -> None:
    assert verified(FakeMachine(extensions={"4": hwid}).item()).chip_id == CHIP["Genoa"]


def test_a_hidden_chip_is_still_known_by_its_certificate() -> None:
    assert verified(FakeMachine(fields={"chip_id": 0}).item()).chip_id == CHIP["Genoa"]


def test_a_vlek_names_no_chip_whatever_the_report_says() -> None:
    claims = verified(FakeMachine(key="VLEK", fields={"chip_id": b"\1" * 64, "key_info": 4 | 2}).item())
    assert claims.chip_id is None


def test_no_list_is_no_refusal_here() -> None:
    claims = verified(FakeMachine(crl=None).item())
    assert claims.revocation is None


@pytest.mark.parametrize(
    ("cpuid", "product"),
    [
        ((0x19, 0x0F), Product.MILAN),
        ((0x19, 0x10), Product.GENOA),
        ((0x19, 0x1F), Product.GENOA),
        ((0x19, 0x20), None),
        ((0x19, 0x9F), None),
        ((0x19, 0xA0), Product.GENOA),
        ((0x19, 0xAF), Product.GENOA),
        ((0x19, 0xB0), None),
        ((0x1A, 0x00), Product.TURIN),
        ((0x1A, 0x1F), Product.TURIN),
        ((0x1A, 0x20), None),
        ((0x17, 0x31), None),
    ],
)
def test_products_by_cpu(cpuid: tuple[int, int], product: Product | None) -> None:
    assert product_of(CpuId(family=cpuid[0], model=cpuid[1], stepping=0)) is product


@settings(max_examples=150)
@given(data=st.data())
def test_no_changed_byte_is_accepted_and_nothing_worse_than_a_refusal_comes(data: st.DataObject) -> None:
    item = good_item()
    part = data.draw(st.sampled_from(["evidence", "vek", "intermediate", "root", "crl"]))
    raw = item.evidence if part == "evidence" else dict(item.endorsements)[part]
    place = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:place] + bytes([raw[place] ^ data.draw(st.integers(1, 255))]) + raw[place + 1 :]
    bad = dataclasses.replace(item, evidence=changed) if part == "evidence" else with_endorsements(**{part: changed})
    with pytest.raises((MalformedEvidenceError, UnauthenticEvidenceError)):
        verify(bad, NOW.timestamp(), Checks(), roots=pinned(item))


@given(evidence=st.binary(max_size=1300), vek=st.binary(max_size=300), crl=st.binary(max_size=300))
def test_arbitrary_bytes_are_rejected_and_nothing_worse(evidence: bytes, vek: bytes, crl: bytes) -> None:
    for item in (
        dataclasses.replace(good_item(), evidence=evidence),
        with_endorsements(vek=vek),
        with_endorsements(crl=crl),
    ):
        with pytest.raises(MalformedEvidenceError):
            verify(item, NOW.timestamp(), Checks(), roots=pinned(good_item()))
