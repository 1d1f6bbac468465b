"""What a policy says about a TPM: every check fails, passes, is tracked and is left out; nothing may stay unset."""

from __future__ import annotations

import dataclasses
import functools
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from fakes.tpm_boot import (
    APPLICATION,
    COMMAND_LINE,
    CONFIGURATION,
    INITRD,
    IPL,
    KERNEL,
    LOADER,
    FakeBoot,
    digest,
    firmware,
    grub,
    grub_command,
    stub,
    wide,
)
from fakes.tpm_vendor import ALL_PCRS, NOW, FakeTpm, FakeVendor

from blindai.attestation.appraise import appraise
from blindai.attestation.binding import Binding, InsecureUnbound, Mode
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Level, Outcome
from blindai.attestation.policy import Policy
from blindai.attestation.policy_file import Section, Skip, open_policy
from blindai.attestation.roots import TPM_ROOTS
from blindai.attestation.tee.tpm import TpmClaims, check, parse_policy, verify
from blindai.attestation.tpm2.boot_policy import BOOT_FIELDS, DEBUG_ARGUMENTS
from blindai.attestation.tpm2.pcr_policy import PCR_FIELDS
from blindai.errors import InvalidPolicyError, PolicyViolationError
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blindai.attestation.evidence import Finding
    from blindai.attestation.tpm2.policy import TpmPolicy

VENDOR = FakeVendor(name="google")
OTHER_FIELDS = (
    *("ak_certified", "ak_roots", "ak_names", "revocation_grace_s"),
    *("clock_safe", "max_restart_count", "minimum_firmware_version"),
)
CODE_OF = {
    "required_pcrs": "pcr_selection",
    "ak_roots": "ak_root",
    "ak_names": "ak_name",
    "revocation_grace_s": "revocation",
    "max_restart_count": "restart_count",
    "minimum_firmware_version": "firmware_version",
}


def hexes(*contents: bytes) -> str:
    return str([digest(content).hex() for content in contents])


@functools.cache
def good_tpm() -> FakeTpm:
    tpm = FakeTpm()
    return dataclasses.replace(tpm, endorsements=VENDOR.chain(VENDOR.certify(tpm.key)))


@functools.cache
def good_fields() -> dict[str, str]:
    """Each field as TOML, each naming what the good TPM has."""
    boot = good_tpm().boot
    pcrs = ", ".join(f'{index} = ["{boot.value("sha256", index).hex()}"]' for index in (0, 4, 7))
    return {
        "pcrs": f"{{ {pcrs} }}",
        "boot_applications": hexes(LOADER),
        "kernel": hexes(KERNEL),
        "initrd": hexes(INITRD),
        "command_line": str([COMMAND_LINE]),
        "boot_files": hexes(CONFIGURATION),
        "ak_names": str([good_tpm().ak_name.hex()]),
        "minimum_firmware_version": "7",
    }


def section(preset: str = "strict", **fields: str) -> Section:
    members = {**good_fields(), **fields}
    text = "\n".join(f"{name} = {value}" for name, value in members.items())
    return open_policy(text, source="policy.toml").with_defaults(preset_table(preset, "tpm") or {})


def policy(preset: str = "strict", **fields: str) -> TpmPolicy:
    return parse_policy(section(preset, **fields))


def claims_of(tpm: FakeTpm) -> TpmClaims:
    return verify(tpm.item(), NOW.timestamp(), Checks(), roots=VENDOR.pinned)


@functools.cache
def good_claims() -> TpmClaims:
    return claims_of(good_tpm())


def booted(boot: FakeBoot) -> TpmClaims:
    return claims_of(dataclasses.replace(good_tpm(), boot=boot))


def outcomes(claims: TpmClaims, accepted: TpmPolicy) -> Mapping[str, Finding]:
    return {finding.code.removeprefix("tpm."): finding for finding in check(claims, accepted)}


def failures(claims: TpmClaims, accepted: TpmPolicy) -> set[str]:
    return {
        finding.code.removeprefix("tpm.") for finding in check(claims, accepted) if finding.outcome is Outcome.FAILED
    }


def test_a_policy_that_names_what_was_booted_accepts_it() -> None:
    findings = outcomes(good_claims(), policy())
    assert {finding.outcome for finding in findings.values()} == {Outcome.PASSED}
    codes = {CODE_OF.get(field, field) for field in (*PCR_FIELDS, *BOOT_FIELDS, *OTHER_FIELDS)}
    assert set(findings) == codes


@pytest.mark.parametrize("field", [*PCR_FIELDS[1:], *BOOT_FIELDS, *OTHER_FIELDS])
def test_every_field_but_the_bank_can_be_left_out_with_a_reason(field: str) -> None:
    finding = outcomes(good_claims(), policy(**{field: '{ skip = "the reason" }'}))[CODE_OF.get(field, field)]
    assert (finding.outcome, finding.reason) == (Outcome.SKIPPED, "the reason")


@pytest.mark.parametrize("field", [*PCR_FIELDS, *BOOT_FIELDS, *OTHER_FIELDS, "track"])
def test_no_field_may_stay_unset(field: str) -> None:
    whole = section()
    members = {name: value for name, value in whole.members.items() if name != field}
    with pytest.raises(InvalidPolicyError, match=f"does not set `{field}`"):
        parse_policy(dataclasses.replace(whole, members=members))


def test_a_field_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(InvalidPolicyError, match=r"line \d+: `pcr` is not known here"):
        policy(pcr="1")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("bank", '"sha1"', "must be one of sha256, sha384, sha512"),
        ("required_pcrs", "[]", "must be a list of different PCR indices"),
        ("required_pcrs", "7", "must be a list of different PCR indices"),
        ("required_pcrs", "[24]", "must be a list of different PCR indices"),
        ("required_pcrs", "[true]", "must be a list of different PCR indices"),
        ("required_pcrs", "[7, true]", "must be a list of different PCR indices"),
        ("required_pcrs", "[7, 7]", "must be a list of different PCR indices"),
        ("pcrs", "{}", "names no PCR"),
        ("pcrs", '{ 24 = ["00"] }', "is not the index of a PCR"),
        ("pcrs", '{ 4 = ["00"] }', "64 lower-case hexadecimal digits"),
        ("pcrs", '{ 4 = { skip = "no" } }', "is left out by not naming it"),
        ("kernel", "[]", "must be a list of at least one"),
        ("firmware_flags", '["Debug"]', "known are UEFI Debug Mode"),
        ("debug_arguments", '["quiet"]', "known are systemd.debug-shell"),
        ("ak_certified", '["somebody"]', "known are vendor_certificate, activation, ak_name"),
        ("ak_roots", '["swtpm-localca"]', "known are google, microsoft"),
        ("track", '["tpm.quote_signature"]', "known are tpm.bank"),
    ],
)
def test_a_field_that_says_something_else_is_an_error(field: str, value: str, problem: str) -> None:
    with pytest.raises(InvalidPolicyError, match=rf"policy.toml, line \d+: `{field}.*{problem}"):
        policy(**{field: value})


def test_a_quote_of_another_bank_is_refused() -> None:
    tpm = dataclasses.replace(good_tpm(), bank="sha384")
    assert "bank" in failures(claims_of(tpm), policy())


def test_a_selection_is_exact() -> None:
    assert "pcr_selection" in failures(good_claims(), policy(required_pcrs="[0, 4, 7]"))
    fewer = claims_of(dataclasses.replace(good_tpm(), selection=(0, 4, 7)))
    assert "pcr_selection" not in failures(fewer, policy(required_pcrs="[7, 4, 0]"))
    assert "pcr_selection" in failures(fewer, policy())
    assert outcomes(fewer, policy())["pcr_selection"].found == "PCRs 0, 4, 7"


def test_each_named_pcr_is_compared() -> None:
    value = good_tpm().boot.value("sha256", 4).hex()
    assert "pcrs" in failures(good_claims(), policy(pcrs=f'{{ 4 = ["{value}"], 7 = ["{"00" * 32}"] }}'))
    assert "pcrs" not in failures(good_claims(), policy(pcrs=f'{{ 4 = ["{"00" * 32}", "{value}"] }}'))
    backwards = policy(pcrs=f'{{ 7 = ["{value}"], 4 = ["{value}"], 14 = ["{value}"] }}')
    shown = [finding.expected for finding in check(good_claims(), backwards) if finding.code == "tpm.pcrs"]
    assert shown == [f"PCR {index} is {value}" for index in (4, 7, 14)]
    fewer = claims_of(dataclasses.replace(good_tpm(), selection=(0, 7)))
    findings = [finding for finding in check(fewer, policy()) if finding.code == "tpm.pcrs"]
    assert [finding.found for finding in findings if finding.outcome is Outcome.FAILED] == ["not quoted"]


@pytest.mark.parametrize(
    ("boot", "codes"),
    [
        (grub(firmware(secure=0)), {"pcrs", "secure_boot"}),
        (grub(firmware(flags=("UEFI Debug Mode",))), {"pcrs", "firmware_flags"}),
        (grub(firmware()).extend(1, IPL, bytes(4)), {"firmware_closed"}),
        (grub(firmware()).extend(4, APPLICATION, b"", measured=b"evil"), {"pcrs", "boot_applications"}),
        (firmware(), {"pcrs", "boot_applications", "kernel", "initrd", "command_line", "debug_arguments"}),
        (grub(firmware(), with_initrd=False), {"initrd"}),
        (grub(firmware()).extend(9, IPL, b"/vmlinuz\0", measured=b"evil"), {"kernel", "boot_files"}),
        (grub(firmware()).extend(9, IPL, b"/initrd.img\0", measured=b"evil"), {"initrd", "boot_files"}),
        (grub(firmware()).extend(9, IPL, b"/fonts\0", measured=b"evil"), {"boot_files"}),
        (grub(firmware(), command_line="/vmlinuz init=/bin/sh"), {"command_line", "boot_files", "debug_arguments"}),
        (grub(firmware(), command_line="/vmlinuz quiet"), {"command_line", "boot_files"}),
        (grub(firmware()).extend(12, IPL, wide("evil\0"), measured=wide("evil")), {"command_line"}),
        (grub(firmware()).extend(12, IPL, b"", measured=b"cpio"), {"command_line", "debug_arguments"}),
    ],
)
def test_another_boot_fails_what_it_changed(boot: FakeBoot, codes: set[str]) -> None:
    assert failures(booted(boot), policy()) == codes


def test_a_unified_image_is_judged_by_the_same_reference_values() -> None:
    claims = booted(stub(firmware()))
    assert failures(claims, policy(boot_files="[]")) == set()
    named = policy(command_line='["/vmlinuz other"]')
    assert failures(claims, named) == {"command_line", "debug_arguments"}
    assert outcomes(claims, named)["debug_arguments"].found == DEBUG_ARGUMENTS[-1]


def test_an_empty_list_accepts_no_initrd_and_no_other_file() -> None:
    none = booted(grub(firmware(), with_initrd=False))
    assert failures(none, policy(initrd="[]")) == set()
    assert failures(good_claims(), policy(initrd="[]")) == {"initrd", "boot_files"}
    assert failures(none, policy(initrd="[]", boot_files="[]")) == {"boot_files"}


def test_an_empty_list_of_command_lines_accepts_none() -> None:
    assert failures(good_claims(), policy(command_line="[]")) == {"command_line", "boot_files"}


def test_names_in_the_log_prove_no_kernel_and_no_initrd_where_other_files_are_not_judged() -> None:
    """GRUB loaded another kernel, and read the good one too; the log has their names exchanged."""
    boot = firmware()
    boot.extend(4, APPLICATION, b"device path", measured=LOADER)
    grub_command(boot, f"linux {COMMAND_LINE}")
    boot.extend(9, IPL, b"/font.pf2\0", measured=b"evil kernel").extend(9, IPL, b"/vmlinuz\0", measured=KERNEL)
    grub_command(boot, COMMAND_LINE, "kernel_cmdline: ")
    grub_command(boot, "initrd /initrd.img")
    boot.extend(9, IPL, b"/font.pf3\0", measured=b"evil initrd").extend(9, IPL, b"/initrd.img\0", measured=INITRD)
    skip = '{ skip = "the reason" }'
    assert failures(booted(boot), policy(pcrs=skip)) == {"boot_files"}
    assert failures(booted(boot), policy(pcrs=skip, boot_files=skip)) == {"kernel", "initrd"}
    assert failures(booted(boot), policy(pcrs=skip, boot_files=skip, kernel=skip, initrd=skip)) == set()
    assert failures(booted(stub(firmware())), policy(pcrs=skip, boot_files=skip)) == set()


def test_what_is_left_out_vouches_for_no_file() -> None:
    skip = '{ skip = "the reason" }'
    assert failures(good_claims(), policy(kernel=skip, initrd=skip, command_line=skip)) == {"boot_files"}
    files = hexes(CONFIGURATION, KERNEL, INITRD, wide(f"BOOT_IMAGE={COMMAND_LINE}"))
    assert failures(good_claims(), policy(kernel=skip, initrd=skip, command_line=skip, boot_files=files)) == set()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("systemd.debug-shell", "systemd.debug-shell"),
        ("rd.break=pre-mount", "rd.break="),
        ('"init=/bin/bash"', "init=/bin/"),
        ('init="/bin/bash"', "init=/bin/"),
        ("init=//bin/bash", "init=/bin/"),
        ("rd.shell=1", "rd.shell"),
        ("systemd.debug-shell=1", "systemd.debug-shell"),
        ("rdinit=/bin/sh", "rdinit=/bin/"),
        ("systemd.run=/evil", "systemd.run="),
        ("S", "S"),
        ("confidential-gke.hardened=false", "confidential-gke.hardened=false"),
        ("single", "single"),
        ("singlemode", "none"),
        ("init=/usr/lib/systemd/systemd", "none"),
    ],
)
def test_arguments_that_open_a_shell_are_found_in_any_command_line(words: str, found: str) -> None:
    claims = booted(grub(firmware(), command_line=f"/vmlinuz ro {words}"))
    skipped = dict.fromkeys(("command_line", "kernel", "initrd", "boot_files"), '{ skip = "the reason" }')
    accepted = policy(**skipped)
    assert outcomes(claims, accepted)["debug_arguments"].found == found
    if found != "none":
        assert failures(claims, policy(**skipped, debug_arguments=str([found]))) == set()


def test_a_command_line_that_is_named_whole_may_have_any_argument() -> None:
    line = "/vmlinuz single"
    assert failures(booted(grub(firmware(), command_line=line)), policy(command_line=str([line]))) == set()


@pytest.mark.parametrize(
    "measured",
    [
        COMMAND_LINE.encode(),
        COMMAND_LINE.encode() + b"\0",
        wide(COMMAND_LINE),
        wide(f"{COMMAND_LINE}\0"),
        wide(f"BOOT_IMAGE={COMMAND_LINE}"),
    ],
)
def test_a_command_line_is_known_in_every_form_that_loaders_measure(measured: bytes) -> None:
    boot = stub(firmware()).extend(12, IPL, b"", measured=measured)
    assert failures(booted(boot), policy()) == set()
    assert failures(booted(boot.extend(12, IPL, b"", measured=measured + b"x")), policy()) >= {"command_line"}


def test_a_second_kernels_command_line_is_judged_too() -> None:
    boot = grub(firmware())
    grub_command(boot, "/vmlinuz evil")
    assert failures(booted(boot), policy()) == {"command_line"}


def test_without_a_log_every_question_about_the_boot_fails() -> None:
    claims = claims_of(dataclasses.replace(good_tpm(), with_log=False))
    assert failures(claims, policy()) == set(BOOT_FIELDS)
    skipped = dict.fromkeys(BOOT_FIELDS, '{ skip = "PCRs are pinned" }')
    findings = outcomes(claims, policy(**skipped))
    assert {findings[field].outcome for field in BOOT_FIELDS} == {Outcome.SKIPPED}


def test_a_log_that_is_silent_about_a_pcr_that_was_extended_tells_nothing_of_it() -> None:
    """GRUB started another command line; later root wrote a story of a good unified image into PCR 11."""
    boot = grub(firmware(), command_line="/vmlinuz init=/bin/sh")
    sections = {".linux": KERNEL, ".cmdline": COMMAND_LINE.encode(), ".initrd": INITRD}
    for name, content in sections.items():
        boot.extend(11, IPL, wide(f"{name}\0"), measured=name.encode() + b"\0")
        boot.extend(11, IPL, wide(f"{name}\0"), measured=content)
    silent = [event for event in boot.events if event[0] not in {8, 9}]
    log = dataclasses.replace(boot, events=silent).log()
    item = dataclasses.replace(good_tpm(), boot=boot).item(event_log=log)
    claims = verify(item, NOW.timestamp(), Checks(), roots=VENDOR.pinned)
    found = failures(claims, policy(pcrs='{ skip = "the log" }'))
    assert found == {"kernel", "initrd", "command_line", "boot_files", "debug_arguments"}


def test_what_a_silent_log_leaves_out_of_pcr_7_is_not_taken_for_none() -> None:
    boot = grub(firmware(flags=("UEFI Debug Mode",)))
    log = dataclasses.replace(boot, events=[event for event in boot.events if event[0] != 7]).log()
    item = dataclasses.replace(good_tpm(), boot=boot).item(event_log=log)
    claims = verify(item, NOW.timestamp(), Checks(), roots=VENDOR.pinned)
    assert "firmware_flags" in failures(claims, policy(pcrs='{ skip = "the log" }'))


def test_a_question_about_pcrs_that_are_not_quoted_fails() -> None:
    for field, missing in (("secure_boot", 7), ("firmware_flags", 7), ("boot_files", 9), ("debug_arguments", 12)):
        selection = tuple(index for index in ALL_PCRS if index != missing)
        finding = outcomes(claims_of(dataclasses.replace(good_tpm(), selection=selection)), policy())[field]
        assert (finding.outcome, finding.found) == (
            Outcome.FAILED,
            f"PCRs {missing} not quoted, or left out of the log",
        )


def test_a_key_that_nobody_vouches_for_is_refused() -> None:
    bare = claims_of(FakeTpm())
    assert failures(bare, policy()) == {"ak_certified"}
    assert outcomes(bare, policy(ak_names='{ skip = "any" }'))["ak_certified"].found == "nobody"
    assert failures(bare, policy(ak_certified='["ak_name"]')) == set()
    assert failures(good_claims(), policy(ak_certified='["activation"]')) == {"activation", "ak_certified"}
    assert failures(good_claims(), policy(ak_certified="[]")) == {"ak_certified"}


def test_a_name_that_is_not_listed_is_refused_whoever_certified_it() -> None:
    other = str(["000b" + "00" * 32])
    assert failures(good_claims(), policy(ak_names=other)) == {"ak_name"}
    assert failures(good_claims(), policy(ak_names=other, ak_certified='["ak_name"]')) == {"ak_certified", "ak_name"}


def test_a_root_that_is_not_named_is_refused() -> None:
    assert failures(good_claims(), policy("cloud-gcp")) == set()
    assert failures(good_claims(), policy("cloud-azure")) == {"ak_root"}


def test_revocation_that_is_unknown_or_too_old_is_refused() -> None:
    chain = {name: data for name, data in good_tpm().endorsements.items() if "crl" not in name}
    unknown = claims_of(dataclasses.replace(good_tpm(), endorsements=chain))
    assert failures(unknown, policy(revocation_grace_s="1000000")) == {"revocation"}
    old = VENDOR.crl(begin=NOW - timedelta(days=9), end=NOW - timedelta(seconds=90))
    late = claims_of(dataclasses.replace(good_tpm(), endorsements={**chain, "ak_crl_1": old}))
    assert failures(late, policy()) == {"revocation"}
    assert failures(late, policy(revocation_grace_s="89")) == {"revocation"}
    assert failures(late, policy(revocation_grace_s="90")) == set()


@pytest.mark.parametrize(
    ("tpm", "code"),
    [
        (dataclasses.replace(good_tpm(), safe=0), "clock_safe"),
        (dataclasses.replace(good_tpm(), restart_count=1), "restart_count"),
        (dataclasses.replace(good_tpm(), firmware_version=6), "firmware_version"),
    ],
)
def test_the_tpms_own_state_is_judged(tpm: FakeTpm, code: str) -> None:
    assert failures(claims_of(tpm), policy()) == {code}
    assert failures(claims_of(dataclasses.replace(good_tpm(), restart_count=1)), policy(max_restart_count="1")) == set()


def test_presets_set_every_field_that_is_no_reference_value() -> None:
    mine = {"pcrs", "boot_applications", "kernel", "initrd", "command_line", "boot_files"}
    for preset in ("strict", "cloud-gcp", "cloud-azure"):
        assert (
            set(preset_table(preset, "tpm") or {})
            == {*PCR_FIELDS, *BOOT_FIELDS, *OTHER_FIELDS, "ek_roots", "track"} - mine
        )
    assert preset_table("cloud-aws", "tpm") is None


def appraisal_policy(accepted: TpmPolicy) -> Policy:
    return Policy(
        source="tests",
        insecure_simulation=False,
        minimum_level=Level.FRESH,
        operator=Skip(reason="tests"),
        runtime=Skip(reason="tests"),
        any_of=((accepted,),),
    )


def test_a_quote_is_appraised_with_its_32_bytes_of_binding() -> None:
    binding = Binding(mode=Mode.FRESH, keyset_id=bytes(32), challenge=bytes(32))
    tpm = FakeTpm(bound=binding.bound_32())
    accepted = policy(ak_certified='["ak_name"]')
    result = appraise([tpm.item()], appraisal_policy(accepted), binding=binding, now=NOW.timestamp())
    assert result.tees == ("tpm",)
    assert any(finding.code == "binding.report_data" for finding in result.findings)


def test_a_tracked_check_is_shown_and_refuses_nothing() -> None:
    unbound = InsecureUnbound(reason="tests")
    tpm = FakeTpm(boot=grub(firmware(secure=0)))
    accepted = policy(ak_certified='["ak_name"]', pcrs='{ skip = "tests" }')
    with pytest.raises(PolicyViolationError) as refusal:
        appraise([tpm.item()], appraisal_policy(accepted), binding=unbound, now=NOW.timestamp())
    assert refusal.value.finding_code == "tpm.secure_boot"
    tracked = policy(ak_certified='["ak_name"]', pcrs='{ skip = "tests" }', track='["tpm.secure_boot"]')
    result = appraise([tpm.item()], appraisal_policy(tracked), binding=unbound, now=NOW.timestamp())
    assert [finding.code for finding in result.findings if finding.outcome is Outcome.TRACKED] == ["tpm.secure_boot"]


def test_no_local_ca_is_among_the_pinned_roots() -> None:
    assert [root.name for root in TPM_ROOTS] == ["google", "microsoft"]
