"""An Azure of our own: a good virtual machine passes, and each broken link from the CPU to the quote is refused."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import amd, intel_pki
from fakes.azure import VENDOR, FakeAzure, web_key
from fakes.tpm_boot import firmware, grub
from fakes.tpm_vendor import BOUND, NOW, FakeTpm, FakeVendor, rsa_key
from hypothesis import given, settings
from hypothesis import strategies as st

from blindai.attestation.appraise import appraise
from blindai.attestation.azure.hcl import parse_runtime_claims
from blindai.attestation.binding import Binding, InsecureUnbound, Mode
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Outcome
from blindai.attestation.policy import parse_policy as parse_policy_file
from blindai.attestation.policy_file import Skip, open_policy
from blindai.attestation.tee import TEES, Role, sev_snp, tdx
from blindai.attestation.tee.azure_vtpm import MAGIC, AzureVtpmClaims, check, parse, parse_policy, verify
from blindai.attestation.tpm2.boot_policy import BOOT_FIELDS
from blindai.attestation.tpm2.certificates import chain_names
from blindai.errors import (
    InvalidPolicyError,
    MalformedEvidenceError,
    RejectedEvidenceError,
    StaleEvidenceError,
    UnauthenticEvidenceError,
)
from blindai.policies import preset_table

if TYPE_CHECKING:
    from blindai.attestation.azure.policy import AzureVtpmPolicy
    from blindai.attestation.evidence import AttestationResult
    from blindai.attestation.policy import Policy

UNBOUND = InsecureUnbound(reason="a test of one machine")
HARDWARE = pytest.mark.parametrize("hardware", ["sev_snp", "tdx"])


@functools.cache
def good(hardware: str = "sev_snp") -> FakeAzure:
    return FakeAzure(hardware=hardware)


@functools.cache
def certified() -> FakeAzure:
    return FakeAzure(endorsements=VENDOR.chain(VENDOR.certify(good().tpm.key)))


def verified(item: EvidenceItem, checks: Checks | None = None) -> AzureVtpmClaims:
    return verify(item, NOW.timestamp(), checks or Checks(), roots=VENDOR.pinned)


def refuse(item: EvidenceItem, code: str, error: type[RejectedEvidenceError] = UnauthenticEvidenceError) -> str:
    """Refused for exactly this reason, which is the last finding too; what was found."""
    checks = Checks()
    with pytest.raises(RejectedEvidenceError) as refusal:
        verified(item, checks)
    assert type(refusal.value) is error
    assert (refusal.value.finding_code, refusal.value.tee) == (f"azure_vtpm.{code}", "azure_vtpm")
    assert refusal.value.findings == checks.findings
    assert [one.code for one in checks.findings if one.outcome is Outcome.FAILED] == [f"azure_vtpm.{code}"]
    return checks.findings[-1].found


def with_part(name: str, part: bytes) -> EvidenceItem:
    return good().carrier(None, **{name: part})


def policy_of(fake: FakeAzure, **changes: str) -> AzureVtpmPolicy:
    """The preset `strict`, with the fake's own PCRs and other fields as TOML."""
    values = "\n".join(f'{index} = ["{fake.tpm.boot.value("sha256", index).hex()}"]' for index in range(24))
    text = "".join(f"{name} = {value}\n" for name, value in changes.items()) + f"[pcrs]\n{values}\n"
    return parse_policy(open_policy(text, source="t").with_defaults(preset_table("strict", "azure_vtpm") or {}))


def failed(fake: FakeAzure, **changes: str) -> list[str]:
    findings = check(verified(fake.carrier()), policy_of(fake, **changes))
    return [finding.code.partition(".")[2] for finding in findings if finding.outcome is Outcome.FAILED]


STEPS = ("evidence_format", "report_type", "hash_type", "report_data", "vmpl", "runtime_claims_format")
QUOTE_STEPS = ("digest_algorithm", "quote_signature", "pcr_digest")
AK_STEPS = ("chain_root", "chain", "chain_validity", "certificate_use", "certificate_key", "crl", "revoked")


@HARDWARE
def test_good_evidence_passes_every_step(hardware: str) -> None:
    checks = Checks()
    claims = verified(good(hardware).carrier(), checks)
    assert [one.code for one in checks.findings] == [f"azure_vtpm.{name}" for name in (*STEPS, *QUOTE_STEPS)]
    assert {one.outcome for one in checks.findings} == {Outcome.PASSED}
    assert claims.bound == BOUND
    assert claims.hcl.hardware == hardware
    assert claims.carrier_report_data() == hashlib.sha256(good(hardware).json()).digest() + bytes(32)
    assert failed(good(hardware)) == []


def test_certificate_and_event_log_are_followed_if_they_are_there() -> None:
    checks = Checks()
    fake = dataclasses.replace(certified(), tpm=FakeTpm())
    claims = verified(fake.carrier(), checks)
    names = (*STEPS, *QUOTE_STEPS, "event_log_replay", *(f"ak_{name}" for name in AK_STEPS))
    assert [one.code for one in checks.findings] == [f"azure_vtpm.{name}" for name in names]
    assert claims.ak_certified
    assert claims.boot is not None


def test_facts_show_every_claim() -> None:
    facts = dict(verified(FakeAzure(configuration={"tpm-version": 2, "strange\n": [1]}).carrier()).facts())
    assert facts["stands beside"] == "sev_snp"
    assert facts["vm-configuration secure-boot"] == "true"
    assert facts["vm-configuration tpm-version"] == "2"
    assert facts["vm-configuration strange\n"] == "another value"
    assert (facts["AK certified by"], facts["event log"]) == ("the CPU's report only", "none")
    assert facts["PCR 17 (sha256)"] == "ff" * 32
    bell = FakeAzure(configuration={"root-cert-thumbprint": "\a"})
    assert dict(verified(bell.carrier()).facts())["vm-configuration root-cert-thumbprint"] == r"'\x07'"
    with_more = dict(verified(dataclasses.replace(certified(), tpm=FakeTpm()).carrier()).facts())
    assert (with_more["AK certified by"], with_more["event log"]) == ("Azure", "read")


def test_the_table_says_what_it_is_and_where_it_holds_the_binding() -> None:
    tee = TEES["azure_vtpm"]
    assert (tee.role, tee.slot, tee.verify) == (Role.CARRIER, Binding.bound_32, verify)


# What cannot be read exactly.


@pytest.mark.parametrize(
    "header",
    [
        {"magic": b"HCLB"},
        {"version": 0},
        {"version": 3},
        {"report_size": 1},
        {"request_type": 1},
        {"status": 1},
        {"reserved": bytes(11) + b"\1"},
        {"data_size": 19},
        {"data_version": 2},
        {"report_type": 0},
        {"report_type": 5},
        {"hash_type": 0},
        {"hash_type": 4},
        {"claims_size": 1},
        {"claims_size": 2**32 - 1},
    ],
    ids=str,
)
def test_other_hcl_headers_are_malformed(header: dict[str, int | bytes]) -> None:
    refuse(FakeAzure(header=header).carrier(), "hcl_format", MalformedEvidenceError)


@pytest.mark.parametrize("padding", [b"", bytes(17)])
def test_zeros_may_follow_the_report(padding: bytes) -> None:
    verified(FakeAzure(padding=padding).carrier())


def test_nothing_else_may_follow_the_report() -> None:
    refuse(FakeAzure(padding=bytes(16) + b"\1").carrier(), "hcl_format", MalformedEvidenceError)
    refuse(FakeAzure(hardware="tdx", behind_report=b"\1").carrier(), "hcl_format", MalformedEvidenceError)
    refuse(FakeAzure(padding=bytes(4096)).carrier(), "evidence_format", MalformedEvidenceError)


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_of_the_header_are_read(version: int) -> None:
    assert verified(FakeAzure(header={"version": version}).carrier()).hcl.version == version


def test_every_shorter_hcl_report_is_malformed() -> None:
    whole = good().hcl_report(good().machine())[: 1236 + len(good().json())]
    for size in (*range(0, len(whole), 97), len(whole) - 1):
        refuse(good().carrier(hcl_report=whole[:size]), "hcl_format", MalformedEvidenceError)


@pytest.mark.parametrize(
    ("part", "code"),
    [("quote", "quote_format"), ("signature", "signature_format"), ("event_log", "event_log_format")],
)
def test_other_parts_are_malformed(part: str, code: str) -> None:
    refuse(with_part(part, b"none"), code, MalformedEvidenceError)


def test_other_evidence_is_malformed() -> None:
    item = good().carrier()
    for evidence in (b"", MAGIC, MAGIC[:-1], item.evidence + b"\0", item.evidence[:-1], b"x" + item.evidence[1:]):
        refuse(dataclasses.replace(item, evidence=evidence), "evidence_format", MalformedEvidenceError)


def test_other_endorsements_are_malformed() -> None:
    chain = certified().endorsements
    for endorsements in ((("ek_certificate", b""),), (("ak_root", b""),), (*chain.items(), ("ak_root", b""))):
        item = dataclasses.replace(good().carrier(), endorsements=endorsements)
        refuse(item, "endorsements", MalformedEvidenceError)
    every = tuple(dict.fromkeys(chain_names("ak"), b"none").items())
    refuse(dataclasses.replace(good().carrier(), endorsements=every), "certificate_format", MalformedEvidenceError)
    item = dataclasses.replace(good().carrier(), endorsements=tuple({**chain, "ak_certificate": b"none"}.items()))
    refuse(item, "certificate_format", MalformedEvidenceError)
    item = dataclasses.replace(good().carrier(), endorsements=tuple({**chain, "ak_crl_1": b"none"}.items()))
    refuse(item, "crl_format", MalformedEvidenceError)


AK = web_key("HCLAkPub", "sign", rsa_key())
BAD_CLAIMS: tuple[dict[str, Any], ...] = (
    {"keys": ...},
    {"keys": {}},
    {"keys": ["HCLAkPub"]},
    {"keys": []},
    {"keys": [AK, AK]},
    {"keys": [{"kid": str(number)} for number in range(8)] + [AK]},
    {"keys": [{**AK, "kid": "HCLEkPub"}]},
    {"keys": [{**AK, "kty": "EC"}]},
    {"keys": [{**AK, "key_ops": ["sign", "encrypt"]}]},
    {"keys": [{**AK, "n": None}]},
    {"keys": [{**AK, "n": AK["n"] + "="}]},
    {"keys": [{**AK, "n": AK["n"][:300]}]},
    {"keys": [{**AK, "n": AK["n"] * 3}]},
    {"keys": [{**AK, "e": "AQ"}]},
    {"vm-configuration": ...},
    {"vm-configuration": []},
    {"user-data": ...},
    {"user-data": 0},
    {"user-data": "00" * 63},
    {"user-data": "00 " * 64},
)


@pytest.mark.parametrize("claims", BAD_CLAIMS, ids=lambda claims: str(claims)[:40])
def test_other_runtime_claims_are_malformed(claims: dict[str, Any]) -> None:
    refuse(FakeAzure(claims=claims).carrier(), "runtime_claims_format", MalformedEvidenceError)


@pytest.mark.parametrize("name", ["secure-boot", "console-enabled", "tpm-enabled", "vmUniqueId"])
@pytest.mark.parametrize("value", [..., None, 1])
def test_configuration_must_be_said(name: str, value: object) -> None:
    refuse(FakeAzure(configuration={name: value}).carrier(), "runtime_claims_format", MalformedEvidenceError)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"keys": [], "keys": []}', b"{} ", b"\xff", b"[" * 1000, b'{"a": 1.5}'])
def test_other_runtime_data_is_malformed(data: bytes) -> None:
    refuse(FakeAzure(runtime_data=data).carrier(), "runtime_claims_format", MalformedEvidenceError)


def test_claims_that_are_not_known_mean_nothing() -> None:
    verified(FakeAzure(claims={"more": [None]}, configuration={"filtered-vpci-devices-allowed": False}).carrier())


# Kinds that are read, and refused by name.


@pytest.mark.parametrize(("number", "found"), [(1, "a VBS report"), (3, "a TVM report")])
def test_other_kinds_of_reports_are_refused(number: int, found: str) -> None:
    item = FakeAzure(header={"report_type": number}).carrier()
    assert refuse(item, "report_type", MalformedEvidenceError) == found


@pytest.mark.parametrize(("number", "found"), [(2, "sha384"), (3, "sha512")])
def test_other_digests_of_the_runtime_data_are_refused(number: int, found: str) -> None:
    item = FakeAzure(header={"hash_type": number}).carrier()
    assert refuse(item, "hash_type", MalformedEvidenceError) == found


# From the CPU's report to the quote.


@HARDWARE
def test_rejects_runtime_data_that_the_report_does_not_name(hardware: str) -> None:
    refuse(FakeAzure(hardware=hardware, report_data=bytes(64)).carrier(), "report_data")


@HARDWARE
def test_rejects_report_data_with_something_behind_the_digest(hardware: str) -> None:
    named = good(hardware).named()
    refuse(FakeAzure(hardware=hardware, report_data=named[:63] + b"\1").carrier(), "report_data")


def test_rejects_one_changed_byte_of_the_runtime_data() -> None:
    changed = good().json().replace(b'"secure-boot": true', b'"secure-boot":  true')
    refuse(FakeAzure(runtime_data=changed, report_data=good().named()).carrier(), "report_data")


@pytest.mark.parametrize("vmpl", [1, 2, 2**32 - 1])
def test_rejects_report_that_the_guest_asked_for(vmpl: int) -> None:
    assert refuse(FakeAzure(cpu={"vmpl": vmpl}).carrier(), "vmpl") == f"VMPL {vmpl}"


def test_rejects_quote_of_another_key() -> None:
    other = FakeTpm(with_log=False, key=rsa_key(3)).evidence()
    refuse(good().carrier(quote=other.quote, signature=other.signature), "quote_signature")


def test_rejects_key_for_encryption_as_signer() -> None:
    keys = [web_key("HCLAkPub", "sign", rsa_key(3)), web_key("HCLEkPub", "encrypt", rsa_key())]
    refuse(FakeAzure(claims={"keys": keys}).carrier(), "quote_signature")


def test_rejects_other_pcr_values() -> None:
    values = good().tpm.pcr_values
    refuse(good().carrier(pcr_values=values[:-1] + b"\1"), "pcr_digest")
    refuse(good().carrier(pcr_values=values[:-32]), "pcr_digest")


@pytest.mark.parametrize("change", [{"bank": "sha1"}, {"digest": "sha1"}])
def test_rejects_sha1(change: dict[str, str]) -> None:
    refuse(FakeAzure(tpm=FakeTpm(with_log=False, **change)).carrier(), "digest_algorithm")  # type: ignore[arg-type]  # names of digests


def test_rejects_event_log_of_another_boot() -> None:
    other = grub(firmware()).extend(9, 0x0D, b"another")
    refuse(good().carrier(event_log=other.log()), "event_log_replay")


def ak_refusal(code: str, endorsements: dict[str, bytes]) -> str:
    return refuse(FakeAzure(endorsements=endorsements).carrier(), code)


def test_rejects_certificates_that_azure_did_not_make() -> None:
    other = FakeVendor(name="another")
    ak_refusal("ak_chain_root", other.chain(other.certify(rsa_key())))
    ak_refusal("ak_chain", {**VENDOR.chain(VENDOR.certify(rsa_key(), signer=other.key))})


def test_rejects_certificate_that_has_ended() -> None:
    ak_refusal("ak_chain_validity", VENDOR.chain(VENDOR.certify(rsa_key(), not_after=NOW.replace(month=5))))


def test_rejects_certificate_of_another_use_or_key() -> None:
    ak_refusal("ak_certificate_use", VENDOR.chain(VENDOR.certify(rsa_key(), purposes=("2.23.133.8.1",))))
    ak_refusal("ak_certificate_key", VENDOR.chain(VENDOR.certify(rsa_key(3))))


def test_rejects_revoked_certificates_and_foreign_lists() -> None:
    chain = VENDOR.chain(VENDOR.certify(rsa_key()))
    ak_refusal("ak_revoked", {**chain, "ak_crl_1": VENDOR.crl(revoked=(VENDOR.intermediate,))})
    ak_refusal("ak_crl", {**chain, "ak_crl_1": VENDOR.crl(signer=VENDOR.key)})


def test_pins_microsofts_root_alone() -> None:
    with pytest.raises(UnauthenticEvidenceError) as refusal:
        verify(certified().carrier(), NOW.timestamp(), Checks())
    assert refusal.value.finding_code == "azure_vtpm.ak_chain_root"
    assert "google" not in refusal.value.findings[-1].expected


@settings(max_examples=60)
@given(data=st.data())
def test_arbitrary_parts_are_refused_and_nothing_worse(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["hcl_report", "quote", "signature", "pcr_values", "event_log"]))
    whole = getattr(parse(good().carrier().evidence), name)
    place = data.draw(st.integers(0, len(whole)))
    part = (
        whole[:place] + data.draw(st.binary(min_size=1, max_size=40)) + whole[place + data.draw(st.integers(0, 40)) :]
    )
    if part != whole:
        with pytest.raises(RejectedEvidenceError):
            _require_carried(verified(with_part(name, part)))


def _require_carried(claims: AzureVtpmClaims) -> None:
    """As step 4 does: the CPU's own bytes inside the HCL report are judged where its item is."""
    if not claims.carries_for("sev_snp", good().machine().evidence):
        raise StaleEvidenceError("of another machine", finding_code="machine.carried_report")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one, max_size=3),
)


@given(name=st.sampled_from(["keys", "vm-configuration", "user-data"]), value=JSON)
def test_arbitrary_claims_are_refused(name: str, value: Any) -> None:
    with pytest.raises(MalformedEvidenceError):
        parse_runtime_claims(FakeAzure(claims={name: value}).json())


def test_no_changed_bit_of_the_evidence_is_accepted() -> None:
    """One bit of every third byte; of the CPU's report only VMPL and report data, the rest is the other item's."""
    item = good().carrier()
    begin = len(MAGIC) + 4 + 32
    not_judged = {*range(begin, begin + 1184)} - {
        *range(begin + 0x30, begin + 0x34),
        *range(begin + 0x50, begin + 0x90),
    }
    for place in sorted({*range(0, len(item.evidence), 3)} - not_judged):
        changed = bytearray(item.evidence)
        changed[place] ^= 1 << place % 8
        with pytest.raises((MalformedEvidenceError, UnauthenticEvidenceError)):
            verified(dataclasses.replace(item, evidence=bytes(changed)))


# Both items as one machine: steps 3 and 4 of `appraise`.

CPU_TABLES = {
    "sev_snp": '[tee.sev_snp]\nmeasurement = { skip = "a test" }\nhost_data = { skip = "a test" }\n',
    "tdx": "[tee.tdx]\n"
    + "".join(
        f'{name} = {{ skip = "a test" }}\n'
        for name in ("mrtd", "mr_config_id", "mr_owner", "mr_owner_config", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    ),
}


@pytest.fixture
def fake_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of TEEs, with the fakes' roots in the pinned ones' place."""
    verifiers: dict[str, Any] = {
        "sev_snp": lambda item, now, checks: sev_snp.verify(item, now, checks, roots=amd.pinned(item)),
        "tdx": functools.partial(tdx.verify, roots=intel_pki.pinned()),
        "azure_vtpm": functools.partial(verify, roots=VENDOR.pinned),
    }
    for tee, with_roots in verifiers.items():
        monkeypatch.setitem(TEES, tee, dataclasses.replace(TEES[tee], verify=with_roots))


def whole_policy(hardware: str) -> Policy:
    skipped = "".join(f'{name} = {{ skip = "a test" }}\n' for name in BOOT_FIELDS)
    text = f"""
version = 1
preset = "strict"
insecure_simulation = false
operator = {{ skip = "a test" }}
level = {{ minimum = "fresh" }}
runtime = {{ skip = "a test" }}
{CPU_TABLES[hardware]}
[tee.azure_vtpm]
{skipped}pcrs = {{ skip = "a test" }}
"""
    return parse_policy_file(text, source="t", preset_table=preset_table)


def appraised(
    items: tuple[EvidenceItem, ...], hardware: str = "sev_snp", binding: Binding | InsecureUnbound = UNBOUND
) -> AttestationResult:
    now = NOW.timestamp() if hardware == "sev_snp" else intel_pki.NOW_S
    return appraise(items, whole_policy(hardware), binding=binding, now=now)


def verified_machine(fake: FakeAzure) -> Any:
    now = NOW.timestamp() if fake.hardware == "sev_snp" else intel_pki.NOW_S
    return TEES[fake.hardware].verify(fake.machine(), now, Checks())


def not_one_machine(items: tuple[EvidenceItem, ...], code: str, hardware: str = "sev_snp") -> None:
    with pytest.raises(StaleEvidenceError) as refusal:
        appraised(items, hardware)
    assert refusal.value.finding_code == refusal.value.findings[-1].code == code


@HARDWARE
@pytest.mark.usefixtures("fake_vendors")
def test_both_items_are_one_machine(hardware: str) -> None:
    items = good(hardware).items()
    result = appraised(items, hardware)
    assert result.tees == (hardware, "azure_vtpm")
    codes = [one.code for one in result.findings if one.outcome is Outcome.PASSED]
    assert {"machine.one", "machine.carrier", "machine.carried_report"} <= set(codes)
    appraised(items[::-1], hardware)


@HARDWARE
@pytest.mark.usefixtures("fake_vendors")
def test_the_quote_carries_the_binding_and_the_report_does_not(hardware: str) -> None:
    binding = Binding(mode=Mode.FRESH, keyset_id=b"k" * 32, challenge=b"c" * 32)
    bound = FakeAzure(hardware=hardware, tpm=FakeTpm(with_log=False, bound=binding.bound_32()))
    appraised(bound.items(), hardware, binding)
    for fake in (good(hardware), FakeAzure(hardware=hardware, report_data=binding.bound())):
        with pytest.raises((StaleEvidenceError, UnauthenticEvidenceError)) as refusal:
            appraised(fake.items(), hardware, binding)
        assert refusal.value.finding_code in {"binding.report_data", "azure_vtpm.report_data"}


@HARDWARE
@pytest.mark.usefixtures("fake_vendors")
def test_rejects_vtpm_of_another_machine(hardware: str) -> None:
    other = FakeAzure(hardware=hardware, configuration={"vmUniqueId": "another"})
    not_one_machine((good(hardware).machine(), other.carrier()), "machine.carrier", hardware)


@pytest.mark.parametrize(
    ("hardware", "field"),
    [
        ("sev_snp", "measurement"),
        *(("tdx", name) for name in ("tee_tcb_svn", "mr_seam", "td_attributes", "mr_td", "rt_mr3")),
    ],
)
@pytest.mark.usefixtures("fake_vendors")
def test_rejects_another_report_for_the_same_key(hardware: str, field: str) -> None:
    """One vTPM, two reports that name it: only the one in the HCL report is its machine's own."""
    value = getattr(verified_machine(good(hardware)).report, field)
    other = FakeAzure(hardware=hardware, cpu={field: bytes([value[0] ^ 1]) + value[1:]})
    assert other.named() == good(hardware).named()
    not_one_machine((good(hardware).machine(), other.carrier()), "machine.carried_report", hardware)


@pytest.mark.usefixtures("fake_vendors")
def test_quotes_of_both_versions_stand_beside_their_report() -> None:
    appraised(FakeAzure(hardware="tdx", quote_version=5).items(), "tdx")
    hcl = verified(good("tdx").carrier()).hcl
    assert not hcl.is_report_of("tdx", b"\3\0" + good("tdx").machine().evidence[2:])
    assert not hcl.is_report_of("tdx", b"")


@pytest.mark.usefixtures("fake_vendors")
def test_rejects_report_of_another_kind_of_cpu() -> None:
    snp, td = good("sev_snp"), good("tdx")
    assert snp.named() == td.named()
    not_one_machine((snp.machine(), td.carrier()), "machine.carried_report")
    not_one_machine((td.machine(), snp.carrier()), "machine.carried_report", "tdx")


@pytest.mark.usefixtures("fake_vendors")
def test_vtpm_alone_is_no_machine() -> None:
    policy = whole_policy("sev_snp")
    alone = dataclasses.replace(policy, any_of=(policy.any_of[0][1:],))
    with pytest.raises(StaleEvidenceError) as refusal:
        appraise((good().carrier(),), alone, binding=UNBOUND, now=NOW.timestamp())
    assert refusal.value.finding_code == "machine.one"


# What the policy accepts.


@pytest.mark.parametrize(
    ("configuration", "changes", "code"),
    [
        ({"secure-boot": False}, {}, "vm_secure_boot"),
        ({"tpm-enabled": False}, {}, "vm_tpm"),
        ({}, {"vm_console": "false"}, "vm_console"),
        ({}, {"vm_ids": '["another"]'}, "vm_id"),
        ({}, {"user_data": f'["{"01" * 64}"]'}, "user_data"),
        ({}, {"ak_certificate": "true"}, "ak_certificate"),
        ({}, {"bank": '"sha384"', "required_pcrs": "[0]"}, "bank"),
        ({}, {"required_pcrs": "[0, 1]"}, "pcr_selection"),
        ({}, {"kernel": f'["{"00" * 32}"]'}, "kernel"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_each_claim_is_compared(configuration: dict[str, object], changes: dict[str, str], code: str) -> None:
    fake = FakeAzure(configuration=configuration)
    if code == "bank":
        findings = check(verified(fake.carrier()), dataclasses.replace(policy_of(fake), pcrs=_other_bank(fake)))
        assert [one.code for one in findings if one.outcome is Outcome.FAILED] == ["azure_vtpm.bank"]
        return
    assert failed(fake, **changes) == [code]


def _other_bank(fake: FakeAzure) -> Any:
    return dataclasses.replace(policy_of(fake).pcrs, bank="sha384", values=Skip(reason="a test"))


def test_each_pcr_is_compared() -> None:
    policy = policy_of(good())
    other = FakeAzure(tpm=FakeTpm(boot=grub(firmware()).extend(8, 0x0D, b"another"), with_log=False))
    (finding,) = (one for one in check(verified(other.carrier()), policy) if one.outcome is Outcome.FAILED)
    assert (finding.code, finding.expected[:6]) == ("azure_vtpm.pcrs", "PCR 8 ")


def test_event_log_is_judged_if_the_policy_says_so() -> None:
    with_log = FakeAzure(tpm=FakeTpm())
    assert failed(with_log, secure_boot="true", firmware_closed="true", firmware_flags="[]") == []
    assert failed(good(), secure_boot="true") == ["secure_boot"]


def test_certificate_needs_fresh_revocation_lists() -> None:
    assert failed(certified(), ak_certificate="true") == []
    chain = {name: data for name, data in certified().endorsements.items() if name != "ak_crl_1"}
    assert failed(FakeAzure(endorsements=chain)) == ["revocation"]
    assert failed(FakeAzure(endorsements=chain), revocation_grace_s='{ skip = "a test" }') == []


def test_every_check_can_be_left_out_with_a_reason() -> None:
    names = ("vm_secure_boot", "vm_tpm", "vm_console", "vm_ids", "user_data", "ak_certificate", "revocation_grace_s")
    skip = '{ skip = "a test" }'
    findings = tuple(check(verified(good().carrier()), policy_of(good(), **dict.fromkeys(names, skip))))
    skipped = {one.code for one in findings if one.outcome is Outcome.SKIPPED}
    left_out = {"vm_secure_boot", "vm_tpm", "vm_console", "vm_id", "user_data", "ak_certificate", "revocation"}
    assert skipped == {f"azure_vtpm.{name}" for name in (*left_out, *BOOT_FIELDS)}


@pytest.mark.parametrize("preset", ["strict", "cloud-azure"])
def test_presets_leave_only_pcrs_open(preset: str) -> None:
    defaults = preset_table(preset, "azure_vtpm")
    assert defaults is not None
    with pytest.raises(InvalidPolicyError, match="does not set `pcrs`"):
        parse_policy(open_policy("", source="t").with_defaults(defaults))
    assert parse_policy(open_policy('pcrs = { skip = "a test" }', source="t").with_defaults(defaults)).vm_secure_boot


def test_other_clouds_cannot_meet_it() -> None:
    assert preset_table("cloud-aws", "azure_vtpm") is None


def test_policy_names_known_codes_only() -> None:
    assert policy_of(good(), track='["azure_vtpm.vm_id"]').track == {"azure_vtpm.vm_id"}
    with pytest.raises(InvalidPolicyError, match="track"):
        policy_of(good(), track='["azure_vtpm.vmpl"]')


PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "tee" / "azure_vtpm.md").read_text("utf-8")
FORMATS = ("hcl", "quote", "signature", "event_log")
PARTS = (*(f"{name}_format" for name in FORMATS), "endorsements", "certificate_format", "crl_format")


def test_the_page_lists_every_code() -> None:
    checks = Checks()
    claims = verified(dataclasses.replace(certified(), tpm=FakeTpm()).carrier(), checks)
    findings = (*checks.findings, *check(claims, policy_of(good())))
    codes = dict.fromkeys(finding.code for finding in findings)  # `pcrs` once
    listed = re.findall(r"^\| `azure_vtpm\.(\w+)` \| (?:verify|check) \|", PAGE, re.MULTILINE)
    assert listed[0] == "evidence_format"
    assert tuple(listed[1:8]) == PARTS
    assert [f"azure_vtpm.{name}" for name in (listed[0], *listed[8:])] == list(codes)


def test_the_pages_example_is_a_policy() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    section = open_policy(example, source="azure_vtpm.md").section("tee").section("azure_vtpm")
    policy = parse_policy(section.with_defaults(preset_table("strict", "azure_vtpm") or {}))
    assert isinstance(policy.pcrs.values, tuple)
    assert [index for index, _ in policy.pcrs.values] == [4, 7]
