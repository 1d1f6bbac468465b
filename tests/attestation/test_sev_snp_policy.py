"""What a policy may say of SEV-SNP, and what each check says of evidence that is authentic; evidence of a fake AMD."""

from __future__ import annotations

import functools
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes.amd import CHIP, NOW, TCB, FakeMachine, pinned, tcb_bytes

from blindai.attestation.amd.policy import CODES
from blindai.attestation.amd.tcb import COMPONENTS, CPU_MODELS, MINIMA, Tcb
from blindai.attestation.checks import Checks, only_track
from blindai.attestation.evidence import Finding, Outcome
from blindai.attestation.policy_file import Skip, open_policy
from blindai.attestation.tee.sev_snp import SevSnpPolicy, check, parse_policy, verify
from blindai.errors import InvalidPolicyError
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASUREMENT = (b"m" * 48).hex()
REFERENCE_VALUES = {"measurement": f'["{MEASUREMENT}"]', "host_data": f'["{bytes(32).hex()}"]'}
DOCS = Path(__file__).parents[2] / "docs" / "spec" / "tee" / "sev_snp.md"
GENOA = TCB["Genoa"]


def policy_of(preset: str = "strict", **fields: str) -> SevSnpPolicy:
    text = "\n".join(f"{name} = {value}" for name, value in {**REFERENCE_VALUES, **fields}.items())
    return parse_policy(open_policy(text, source="policy.toml").with_defaults(preset_table(preset, "sev_snp") or {}))


def findings_of(machine: FakeMachine, policy: SevSnpPolicy) -> dict[str, Finding]:
    item = machine.item()
    claims = verify(item, NOW.timestamp(), Checks(), roots=pinned(item))
    findings = tuple(only_track(check(claims, policy), policy.track))
    assert len({finding.code for finding in findings}) == len(findings)
    assert all(finding.expected and finding.why for finding in findings)
    return {finding.code: finding for finding in findings}


def with_outcome(findings: Mapping[str, Finding], outcome: Outcome) -> set[str]:
    return {code.removeprefix("sev_snp.") for code, finding in findings.items() if finding.outcome is outcome}


@pytest.mark.parametrize("product", ["Genoa", "Turin"])
def test_a_good_machine_is_accepted_by_strict(product: str) -> None:
    findings = findings_of(FakeMachine(product=product), policy_of())
    assert with_outcome(findings, Outcome.FAILED) == set()
    assert list(findings) == [*CODES]


def test_every_skipped_check_repeats_the_reason() -> None:
    skip = '{ skip = "because" }'
    fields = [name for name in preset_table("strict", "sev_snp") or {} if name != "track"] + [*REFERENCE_VALUES]
    findings = findings_of(FakeMachine(), policy_of(**dict.fromkeys(fields, skip)))
    assert with_outcome(findings, Outcome.PASSED) == {"milan_seed"}
    assert {finding.reason for finding in findings.values()} == {"because", ""}
    levels = {f"spl_{component}" for component in COMPONENTS} | {"firmware_version", "launch_tcb"}
    assert {code.removeprefix("sev_snp.") for code in CODES} - {
        code.removeprefix("sev_snp.") for code in findings
    } == levels
    assert findings["sev_snp.cpu_model"].found == (
        "genoa (19h/11h/1): fmc 0, bootloader 10, tee 0, snp 27, microcode 86; "
        "at launch fmc 0, bootloader 10, tee 0, snp 27, microcode 86; firmware 1.55.49"
    )


def level(field: str, **changes: int) -> dict[str, int | bytes]:
    return {field: tcb_bytes("Genoa", {**GENOA, **changes})}


def reported(**changes: int) -> dict[str, Any]:
    """A machine whose REPORTED_TCB is another, as is its certificate's."""
    places = {"bootloader": "1", "tee": "2", "snp": "3", "microcode": "8"}
    extensions = {f"3.{places[name]}": bytes((2, 1, value)) for name, value in changes.items()}
    return {"fields": level("reported_tcb", **changes), "extensions": extensions}


def guest_policy(bit: int) -> dict[str, Any]:
    return {"fields": {"policy": 0x30000 | 1 << bit}}


def platform(word: int) -> dict[str, Any]:
    return {"fields": {"platform_info": word}}


OLD: dict[str, Any] = {
    "fields": {"version": 2, "cpuid": bytes(3), "launch_mit_vector": 0, "current_mit_vector": 0, "platform_info": 1}
}
DAY = timedelta(days=1)
NEEDS_NEW = {"minimum_tcb": "{ genoa = { bootloader = 11, tee = 1, fmc = 1 } }"}
# What fails, of which machine, under strict with which changes.
FAILING: list[tuple[set[str], Mapping[str, Any], Mapping[str, str]]] = [
    ({"report_version", "cpu_model", "ecc_enabled", "alias_check_complete"}, OLD, {}),
    ({"report_version"}, {}, {"minimum_report_version": "6"}),
    ({"chips"}, {}, {"chips": f'["{"aa" * 64}", "{"bb" * 8}"]'}),
    ({"chips"}, {"key": "VLEK", "fields": {"chip_id": CHIP["Genoa"]}}, {"chips": f'["{CHIP["Genoa"].hex()}"]'}),
    ({"csp_ids"}, {"key": "VLEK"}, {"csp_ids": '["CN=another.example"]'}),
    ({"csp_ids"}, {"key": "VLEK"}, {"csp_ids": "[]"}),
    ({"milan_seed"}, {"product": "Milan"}, {}),
    ({"milan_seed"}, {"product": "Milan", "key": "VLEK"}, {}),
    ({"milan_seed", "chips"}, {"product": "Milan"}, {"chips": f'["{"aa" * 64}"]'}),
    ({"cpu_model"}, {"fields": {"cpuid": b"\x19\x11\x00"}}, {}),
    ({"spl_snp"}, reported(snp=26), {}),
    ({"spl_microcode"}, reported(microcode=0x55), {}),
    ({"spl_bootloader", "spl_tee", "spl_fmc", "launch_tcb"}, {}, NEEDS_NEW),
    ({"firmware_version"}, {"fields": {"committed_version": b"\x30\x37\x01", "current_version": b"\x30\x37\x01"}}, {}),
    ({"firmware_version"}, {"fields": {"committed_version": b"\xff\x36\x01", "current_version": b"\xff\x36\x01"}}, {}),
    ({"firmware_version"}, {}, {"minimum_tcb": '{ genoa = { firmware = "1.55.50" } }'}),
    ({"launch_tcb"}, {"fields": level("launch_tcb", microcode=0x55)}, {}),
    ({"launch_tcb"}, {"fields": level("launch_tcb", snp=0x1A)}, {}),
    ({"provisional_firmware"}, {"fields": {"current_version": b"\x32\x37\x01"}}, {}),
    ({"launch_mitigations"}, {"fields": {"launch_mit_vector": 0x0A}}, {"mitigations": "0x0b"}),
    ({"current_mitigations"}, {"fields": {"current_mit_vector": 0x03}}, {"mitigations": "0x0b"}),
    (
        {"launch_mitigations", "current_mitigations"},
        {"fields": {"version": 4, "launch_mit_vector": 0, "current_mit_vector": 0}},
        {"mitigations": "0"},
    ),
    ({"crl"}, {"crl": None}, {}),
    ({"crl"}, {"crl": {"updates": (NOW - DAY, NOW - timedelta(seconds=1))}}, {}),
    ({"crl"}, {"crl": {"updates": (NOW - DAY, NOW - timedelta(seconds=11))}}, {"revocation_grace_s": "10"}),
    ({"crl"}, {"crl": {"updates": (NOW + timedelta(seconds=1), NOW + DAY)}}, {"revocation_grace_s": "10"}),
    ({"smt_enabled"}, {}, {"smt_enabled": "false"}),
    ({"tsme_enabled"}, {}, {"tsme_enabled": "true"}),
    ({"ecc_enabled"}, platform(0x21), {}),
    ({"rapl_disabled"}, {}, {"rapl_disabled": "true"}),
    ({"ciphertext_hiding_enabled"}, {}, {"ciphertext_hiding_enabled": "true"}),
    ({"alias_check_complete"}, platform(0x05), {}),
    ({"tio_enabled"}, platform(0xA5), {"tio_enabled": "false"}),
    ({"smt_allowed"}, {}, {"smt_allowed": "false"}),
    ({"migrate_ma"}, guest_policy(18), {}),
    ({"debug"}, guest_policy(19), {}),
    ({"single_socket"}, guest_policy(20), {"single_socket": "false"}),
    ({"cxl_allowed"}, guest_policy(21), {}),
    ({"aes_256_xts"}, {}, {"aes_256_xts": "true"}),
    ({"rapl_dis"}, {}, {"rapl_dis": "true"}),
    ({"ciphertext_hiding"}, {}, {"ciphertext_hiding": "true"}),
    ({"page_swap_disable"}, {}, {"page_swap_disable": "true"}),
    ({"migration_agent"}, {"fields": {"report_id_ma": b"\xff" * 31 + b"\xfe"}}, {}),
    ({"policy_abi"}, {"fields": {"policy": 0x30136}}, {"minimum_policy_abi": '"1.55"'}),
    ({"vmpl"}, {"fields": {"vmpl": 1}}, {}),
    ({"vmpl"}, {}, {"vmpl": "2"}),
    ({"measurement"}, {"fields": {"measurement": b"M" * 48}}, {}),
    ({"host_data"}, {"fields": {"host_data": b"h" * 32}}, {}),
    ({"family_id"}, {}, {"family_id": f'["{"01" * 16}"]'}),
    ({"image_id"}, {}, {"image_id": f'["{"01" * 16}"]'}),
    ({"guest_svn"}, {"fields": {"guest_svn": 2}}, {"minimum_guest_svn": "3"}),
    ({"id_key_digest"}, {"fields": {"id_key_digest": b"i" * 48}}, {"id_key_digest": f'["{"01" * 48}"]'}),
    ({"author_key_digest"}, {}, {"author_key_digest": f'["{"01" * 48}"]'}),
]


@pytest.mark.parametrize(
    ("codes", "machine", "fields"), FAILING, ids=lambda it: str(sorted(it) if isinstance(it, set) else it)
)
def test_what_a_policy_does_not_accept_fails_and_nothing_else(
    codes: set[str], machine: Mapping[str, Any], fields: Mapping[str, str]
) -> None:
    findings = findings_of(FakeMachine(**machine), policy_of(**fields))
    assert with_outcome(findings, Outcome.FAILED) == codes
    assert all(findings[f"sev_snp.{code}"].hint for code in codes)


def test_every_check_has_a_failing_case() -> None:
    assert {f"sev_snp.{code}" for codes, _, _ in FAILING for code in codes} == set(CODES)


# Like FAILING, and just good enough.
PASSING: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = [
    ("chips", {}, {"chips": f'["{CHIP["Genoa"].hex()}"]'}),
    ("chips", {"product": "Turin"}, {"chips": f'["{CHIP["Turin"].hex()}"]'}),
    ("chips", {"fields": {"chip_id": 0}}, {"chips": f'["{CHIP["Genoa"].hex()}"]'}),
    ("csp_ids", {"key": "VLEK"}, {"csp_ids": '["CN=cloud.example"]'}),
    ("csp_ids", {}, {"csp_ids": "[]"}),
    ("milan_seed", {"product": "Milan"}, {"chips": f'["{CHIP["Milan"].hex()}"]'}),
    ("spl_snp", reported(snp=26), {"minimum_tcb": "{ genoa = { snp = 26 } }"}),
    ("firmware_version", {"fields": {"committed_version": b"\0\0\2", "current_version": b"\0\0\2"}}, {}),
    ("launch_tcb", {"fields": level("launch_tcb", microcode=0x57)}, {}),
    ("launch_mitigations", {"fields": {"launch_mit_vector": 0x1F}}, {"mitigations": "0x0b"}),
    ("crl", {"crl": {"updates": (NOW - DAY, NOW)}}, {}),
    ("crl", {"crl": {"updates": (NOW, NOW + DAY)}}, {}),
    ("crl", {"crl": {"updates": (NOW - DAY, NOW - timedelta(seconds=10))}}, {"revocation_grace_s": "10"}),
    ("policy_abi", {"fields": {"policy": 0x30137}}, {"minimum_policy_abi": '"1.55"'}),
    ("policy_abi", {"fields": {"policy": 0x30200}}, {"minimum_policy_abi": '"1.55"'}),
    ("vmpl", {"fields": {"vmpl": 2}}, {"vmpl": "2"}),
    ("guest_svn", {"fields": {"guest_svn": 3}}, {"minimum_guest_svn": "3"}),
    (
        "author_key_digest",
        {"fields": {"author_key_digest": b"\1" * 48, "key_info": 1}},
        {"author_key_digest": f'["{"01" * 48}"]'},
    ),
]


@pytest.mark.parametrize(("code", "machine", "fields"), PASSING, ids=str)
def test_what_is_just_good_enough_passes(code: str, machine: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    findings = findings_of(FakeMachine(**machine), policy_of(**fields))
    assert findings[f"sev_snp.{code}"].outcome is Outcome.PASSED


@pytest.mark.parametrize("model", CPU_MODELS, ids=lambda model: model.name)
def test_each_cpu_model_has_its_own_minimum(model: Any) -> None:
    product = next(name for name, snp in (("Turin", 4), ("Milan", 27)) if model.minimum.tcb.snp == snp)
    if product == "Milan" and not model.name.startswith("milan"):
        product = "Genoa"
    tcb = {**TCB[product], "snp": model.minimum.tcb.snp, "microcode": model.minimum.tcb.microcode}
    for less, failing in ((0, set()), (1, {"spl_microcode", "launch_tcb"})):
        levels = {**tcb, "microcode": tcb["microcode"] - less}
        raw = tcb_bytes(product, levels)
        cpuid = bytes((model.cpuid.family, model.cpuid.model, model.cpuid.stepping))
        tcbs = dict.fromkeys(("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb"), raw)
        microcode = levels["microcode"]
        extension = (b"\2\2\0" if microcode > 127 else b"\2\1") + bytes([microcode])
        machine = FakeMachine(product=product, fields={**tcbs, "cpuid": cpuid}, extensions={"3.8": extension})
        failed = with_outcome(findings_of(machine, policy_of()), Outcome.FAILED) - {"milan_seed"}
        assert failed == failing


@pytest.mark.parametrize("preset", ["cloud-azure", "cloud-gcp", "cloud-aws"])
def test_clouds_are_told_of_milans_seeds_and_not_refused_for_them(preset: str) -> None:
    findings = findings_of(FakeMachine(product="Milan", key="VLEK"), policy_of(preset))
    assert with_outcome(findings, Outcome.FAILED) == set()
    assert with_outcome(findings, Outcome.TRACKED) == {"milan_seed"}


BAD_FIELDS = [
    ("minimum_tcb", "[]"),
    ("minimum_tcb", "{ rome = {} }"),
    ("minimum_tcb", "{ genoa = 1 }"),
    ("minimum_tcb", "{ genoa = { psp = 1 } }"),
    ("minimum_tcb", "{ genoa = { snp = -1 } }"),
    ("minimum_tcb", "{ genoa = { snp = 256 } }"),
    ("minimum_tcb", "{ genoa = { snp = true } }"),
    ("minimum_tcb", "{ genoa = { firmware = 1 } }"),
    ("minimum_tcb", '{ genoa = { firmware = "1.55" } }'),
    ("minimum_tcb", '{ skip = "" }'),
    ("chips", '["00"]'),
    ("chips", "[]"),
    ("vmpl", "-1"),
    ("minimum_policy_abi", '"1.55.1"'),
    ("minimum_policy_abi", "1.55"),
    ("debug", "0"),
    ("measurement", f'["{"00" * 32}"]'),
    ("track", '["sev_snp.signature"]'),
    ("unknown", "1"),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS, ids=str)
def test_a_table_that_says_something_else_is_an_error_with_its_line(name: str, value: str) -> None:
    with pytest.raises(InvalidPolicyError, match=r"policy\.toml, line [123]:"):
        policy_of(**{name: value})


@pytest.mark.parametrize("name", [*REFERENCE_VALUES])
def test_reference_values_are_in_no_preset(name: str) -> None:
    for preset in ("strict", "cloud-azure", "cloud-gcp", "cloud-aws"):
        table = preset_table(preset, "sev_snp") or {}
        others = "".join(f"{key} = {value}\n" for key, value in REFERENCE_VALUES.items() if key != name)
        with pytest.raises(InvalidPolicyError, match=f"does not set `{name}`"):
            parse_policy(open_policy(others, source="policy.toml").with_defaults(table))


@functools.cache
def documented_codes() -> dict[str, str]:
    rows = [line.split("|") for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `sev_snp.")]
    return {row[1].strip().strip("`"): row[2].strip() for row in rows}


def test_the_page_lists_every_code_once() -> None:
    item = FakeMachine().item()
    checks = Checks()
    verify(item, NOW.timestamp(), checks, roots=pinned(item))
    steps = {**{finding.code: "verify" for finding in checks.findings}, **dict.fromkeys(CODES, "check")}
    assert documented_codes() == steps


def test_the_page_shows_a_table_that_is_one() -> None:
    text = DOCS.read_text("utf-8").partition("```toml\n")[2].partition("```")[0]
    section = open_policy(text, source="the page").section("tee").section("sev_snp")
    policy = parse_policy(section.with_defaults(preset_table("strict", "sev_snp") or {}))
    assert not isinstance(policy.minimum_tcb, Skip)
    assert policy.minimum_tcb["milan"].tcb == Tcb(snp=24, microcode=219)
    assert str(policy.minimum_tcb["milan"].firmware) == "1.55.29"
    assert policy.minimum_tcb["genoa"] == MINIMA["genoa"]


def test_the_page_lists_every_minimum() -> None:
    text = DOCS.read_text("utf-8")
    for model in CPU_MODELS:
        row = (model.name, model.cpuid, f"0x{model.minimum.tcb.snp:02x}", f"0x{model.minimum.tcb.microcode:02x}")
        assert f"| `{row[0]}` | {row[1]} | {row[2]} | {row[3]} | {model.minimum.firmware} |" in text
