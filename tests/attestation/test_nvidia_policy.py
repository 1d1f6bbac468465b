"""What a policy says of NVIDIA devices: every finding of `check`, its preset, and several devices as one machine."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from fakes import nvidia
from fakes.nvidia import HOPPER, NOW, Shown, opaque_data

from blindai.attestation.appraise import appraise
from blindai.attestation.binding import Binding, Mode, device_digest
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Finding, Level, Outcome
from blindai.attestation.policy import Policy
from blindai.attestation.policy_file import Skip, open_policy
from blindai.attestation.tee import TEES, nvidia_gpu, simulation
from blindai.attestation.tee.nvidia_gpu import NvidiaGpuClaims, NvidiaGpuPolicy, check, check_together, parse_policy
from blindai.attester.simulation import SimulationAttester
from blindai.errors import InvalidPolicyError, PolicyViolationError, StaleEvidenceError
from blindai.policies import preset_table

verify = functools.partial(
    nvidia_gpu.verify,
    device_root=nvidia.pinned(nvidia.root("Device root")),
    rim_root=nvidia.pinned(nvidia.root("RIM root")),
)
DEVICE = bytes.fromhex("41431d480fe5e87274")
LEAF = bytes.fromhex("53c22ba15e5d68088282da074ed9fb37aa585771")
SKIP = Skip(reason="not today")


def policy(**changes: Any) -> NvidiaGpuPolicy:
    """The preset `strict` with this one device."""
    text = f'platforms = ["{DEVICE.hex()}"]\n'
    section = open_policy(text, source="test").with_defaults(preset_table("strict", "nvidia_gpu") or {})
    return replace(parse_policy(section), **changes)


def claims_of(shown: Shown, *, now: datetime = NOW, **more: Any) -> NvidiaGpuClaims:
    return verify(shown.item(), now.timestamp(), Checks(), **more)


def outcomes(claims: NvidiaGpuClaims, accepted: NvidiaGpuPolicy) -> dict[str, Finding]:
    findings = list(check(claims, accepted))
    assert len({finding.code for finding in findings}) == len(findings)
    return {finding.code.removeprefix("nvidia_gpu."): finding for finding in findings}


def failed(claims: NvidiaGpuClaims, accepted: NvidiaGpuPolicy | None = None) -> set[str]:
    findings = outcomes(claims, accepted or policy())
    assert all(finding.why for finding in findings.values())
    bad = {code for code, finding in findings.items() if finding.outcome is Outcome.FAILED}
    assert all(findings[code].hint for code in bad)
    return bad


def skipped(claims: NvidiaGpuClaims, accepted: NvidiaGpuPolicy) -> set[str]:
    found = {code for code, one in outcomes(claims, accepted).items() if one.outcome is Outcome.SKIPPED}
    assert all(outcomes(claims, accepted)[code].reason == "not today" for code in found)
    return found


def test_a_good_gpu_meets_the_strict_preset() -> None:
    assert failed(claims_of(nvidia.hopper())) == set()
    assert set(outcomes(claims_of(nvidia.hopper()), policy())) == {
        *("architecture", "mode", "driver", "platform", "rim_library", "rim", "rim_version", "rim_conflict"),
        *("rim_mismatch", "debug", "ocsp", "ocsp_expired", "certificate_hold"),
    }
    assert failed(claims_of(nvidia.blackwell())) == set()


def test_every_check_of_the_policy_can_be_tracked() -> None:
    made = {f"nvidia_gpu.{code}" for code in outcomes(claims_of(nvidia.hopper()), policy())}
    together = {finding.code for finding in check_together([claims_of(nvidia.hopper())], policy())}
    assert made | together == set(nvidia_gpu.TRACKABLE)


def test_the_page_names_every_check_of_the_policy_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "tee" / "nvidia_gpu.md").read_text("utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `nvidia_gpu.")]
    assert {row[0].strip("| `") for row in rows if row[1] == "check"} == set(nvidia_gpu.TRACKABLE)
    assert len({row[0] for row in rows}) == len(rows) == 36


def test_the_architecture_is_one_of_those_accepted() -> None:
    claims = claims_of(nvidia.hopper())
    assert failed(claims, policy(architectures=("blackwell",))) == {"architecture"}
    assert skipped(claims, policy(architectures=SKIP)) == {"architecture"}


def with_opaque(**changes: Any) -> Shown:
    fields = {**HOPPER, **{int(kind[1:]): value for kind, value in changes.items()}}
    opaque = opaque_data({kind: value for kind, value in fields.items() if value is not None})
    return nvidia.hopper().replace(report=nvidia.report(opaque=opaque))


def test_the_mode_is_one_of_those_accepted() -> None:
    unstated, contradictory = claims_of(with_opaque(_36=None)), claims_of(with_opaque(_36=b"\2\0"))
    assert failed(unstated) == failed(contradictory) == {"mode"}
    assert failed(unstated, policy(modes=("unstated",))) == set()
    assert failed(contradictory, policy(modes=("spt", "mpt", "ppcie", "unstated"))) == {"mode"}
    assert skipped(contradictory, policy(modes=SKIP)) == {"mode"}


@pytest.mark.parametrize(
    ("version", "is_accepted"),
    [
        ("580.178.04", True),
        ("580.178.03", False),
        ("580.95.05", False),
        ("581.1", False),
        ("590.48.01", False),
        ("595.91.07", True),
        ("610.57.04", True),
        ("615.71.08", False),
        ("616.0", True),
        ("700.1", True),
        ("535.309.01", False),
    ],
)
def test_the_driver_is_at_least_the_minimum_of_its_branch(version: str, is_accepted: bool) -> None:  # noqa: FBT001  # pytest's
    claims = claims_of(with_opaque(_3=version.encode() + b"\0"))
    assert ("driver" not in failed(claims)) is is_accepted
    assert "driver" in skipped(claims, policy(minimum_driver=SKIP))


def test_the_platform_is_named_by_the_device_or_by_its_firmware() -> None:
    claims = claims_of(nvidia.hopper())
    assert failed(claims, policy(platforms=(LEAF,))) == set()
    assert failed(claims, policy(platforms=(bytes(9),))) == {"platform"}
    assert skipped(claims, policy(platforms=SKIP)) == {"platform"}
    assert outcomes(claims, policy(platforms=SKIP))["platform"].found == DEVICE.hex()


def test_without_the_extra_a_policy_that_wants_rims_says_what_to_install() -> None:
    claims = claims_of(nvidia.hopper().replace(answers=()), find_tools=lambda: None)
    assert failed(claims) == {"rim_library", "rim", "rim_version", "rim_mismatch", "debug", "ocsp"}
    assert outcomes(claims, policy())["rim_library"].hint == "pip install blindai[nvidia]"
    assert skipped(claims, policy(rims=SKIP, revocation_grace_s=SKIP)) == {
        *("rim_library", "rim", "rim_version", "rim_conflict", "rim_mismatch", "debug", "ocsp", "ocsp_expired")
    }


def test_without_the_extra_answers_about_the_signers_of_rims_are_passed_over() -> None:
    claims = claims_of(nvidia.hopper(), find_tools=lambda: None)
    assert failed(claims, policy(rims=SKIP)) == set()
    assert len(claims.answers) == 3


def test_both_rims_are_needed() -> None:
    for name in ("driver_rim", "vbios_rim"):
        rims = {key: rim for key, rim in nvidia.hopper().rims.items() if key != name}
        claims = claims_of(Shown(rims=rims, answers=nvidia.good_answers()))
        assert failed(claims) == {"rim", "rim_version", "rim_mismatch", "debug"}
        assert f"no {name}" in outcomes(claims, policy())["rim"].found


def with_rims(**contents: str) -> NvidiaGpuClaims:
    rims = {name: nvidia.signed_rim(content) for name, content in contents.items()}
    return claims_of(nvidia.hopper().replace(rims={**nvidia.hopper().rims, **rims}))


def test_a_rim_is_of_the_reported_version_and_chip() -> None:
    resources = nvidia.golden(nvidia.DRIVER_INDEXES)
    assert failed(with_rims(driver_rim=nvidia.rim_content(version="580.95.05", resources=resources))) == {"rim_version"}
    assert failed(with_rims(driver_rim=nvidia.rim_content(product="GB100", resources=resources))) == {"rim_version"}


def test_a_measurement_in_both_rims_is_refused() -> None:
    claims = with_rims(driver_rim=nvidia.rim_content(resources=nvidia.golden((1, 2))))
    assert failed(claims) == {"rim_conflict"}
    assert "2" in outcomes(claims, policy())["rim_conflict"].found


def test_a_measurement_that_no_rim_lists_is_refused() -> None:
    claims = with_rims(driver_rim=nvidia.rim_content(resources=nvidia.resource(5, [bytes(48)])))
    assert failed(claims) == {"rim_mismatch", "debug"}
    assert outcomes(claims, policy())["rim_mismatch"].found == "others at 5"
    both = "".join(nvidia.resource(index, [bytes(48)]) for index in (9, 8, 1))
    vbios = nvidia.rim_content(version=nvidia.VBIOS, resources=nvidia.golden((8, 1)))
    findings = outcomes(with_rims(driver_rim=nvidia.rim_content(resources=both), vbios_rim=vbios), policy())
    assert findings["rim_mismatch"].found == "others at 9"
    assert findings["rim_conflict"].found == "1, 8 in both"
    wrong = outcomes(with_rims(driver_rim=nvidia.rim_content(resources=both)), policy())["rim_mismatch"]
    assert wrong.found == "others at 1, 8, 9"


def test_a_measurement_that_the_report_does_not_have_is_refused() -> None:
    claims = with_rims(driver_rim=nvidia.rim_content(resources=nvidia.resource(64, [bytes(48)])))
    assert failed(claims) == {"rim_mismatch", "debug"}


def test_a_measurement_counts_at_its_own_place_alone() -> None:
    for other in (4, 6):
        moved = nvidia.resource(5, [nvidia.MEASUREMENTS[other]])
        assert failed(with_rims(driver_rim=nvidia.rim_content(resources=moved))) == {"rim_mismatch", "debug"}


def test_the_decoders_measurement_counts_only_while_the_decoder_is_on() -> None:
    wrong = nvidia.rim_content(resources=nvidia.resource(35, [bytes(48)]))
    assert failed(with_rims(driver_rim=wrong)) == {"rim_mismatch", "debug"}
    shown = with_opaque(_11=b"\x55").replace(rims={**nvidia.hopper().rims, "driver_rim": nvidia.signed_rim(wrong)})
    assert failed(claims_of(shown)) == set()
    other = nvidia.signed_rim(nvidia.rim_content(resources=nvidia.resource(36, [bytes(48)])))
    assert failed(claims_of(shown.replace(rims={**shown.rims, "driver_rim": other}))) == {"rim_mismatch", "debug"}


def with_answer_about_the_rom(**changes: Any) -> Shown:
    rom, provisioner = nvidia.device_chain()[1:3]
    first, *rest = nvidia.good_answers()
    assert first
    return nvidia.hopper().replace(answers=(nvidia.answer(rom, provisioner, **changes), *rest))


HOLD = with_answer_about_the_rom(status=ocsp.OCSPCertStatus.REVOKED, reason=x509.ReasonFlags.certificate_hold)


def test_a_certificate_on_hold_is_refused_unless_the_policy_leaves_that_out() -> None:
    claims = claims_of(HOLD)
    assert failed(claims) == {"certificate_hold"}
    finding = outcomes(claims, policy())["certificate_hold"]
    assert finding.found == "GH100 A01 GSP BROM on hold"
    assert "certificate_hold" in finding.hint
    assert skipped(claims, policy(certificate_hold=SKIP)) == {"certificate_hold"}
    assert ("OCSP", "GH100 A01 GSP BROM: on hold") in [(name, text.partition(",")[0]) for name, text in claims.facts()]


GOLDEN_HOLD = """\
✗ nvidia_gpu.certificate_hold: expected no certificate on hold, found GH100 A01 GSP BROM on hold. \
NVIDIA has suspended its word for this key, and may revoke it for good.
ask the operator what NVIDIA holds against this GPU or RIM, and use another until that is settled; to accept it \
all the same, set `certificate_hold = { skip = "reason" }` in [tee.nvidia_gpu] of the policy"""


def test_a_certificate_on_hold_is_explained_like_this() -> None:
    finding = outcomes(claims_of(HOLD), policy())["certificate_hold"]
    assert f"{finding.line()}\n{finding.hint}" == GOLDEN_HOLD


def test_every_certificate_of_an_authority_needs_an_answer() -> None:
    claims = claims_of(nvidia.hopper().replace(answers=nvidia.good_answers()[1:]))
    assert failed(claims) == {"ocsp"}
    assert outcomes(claims, policy())["ocsp"].found == "none about GH100 A01 GSP BROM"
    assert skipped(claims, policy(revocation_grace_s=SKIP)) == {"ocsp", "ocsp_expired"}


def test_an_issuer_that_does_not_know_has_not_answered() -> None:
    assert failed(claims_of(with_answer_about_the_rom(status=ocsp.OCSPCertStatus.UNKNOWN))) == {"ocsp"}


@pytest.mark.parametrize(
    ("moment", "grace_s", "is_accepted"),
    [
        (NOW + timedelta(hours=23), 0, True),
        (NOW + timedelta(hours=23, seconds=1), 0, False),
        (NOW + timedelta(hours=24), 3600, True),
        (NOW + timedelta(hours=24, seconds=1), 3600, False),
        (NOW - timedelta(hours=1, minutes=5), 0, True),
        (NOW - timedelta(hours=1, minutes=5, seconds=1), 10**9, False),
    ],
)
def test_answers_have_their_time(moment: datetime, grace_s: int, is_accepted: bool) -> None:  # noqa: FBT001  # pytest's
    claims = claims_of(nvidia.hopper(), now=moment)
    assert failed(claims, policy(revocation_grace_s=grace_s)) == (set() if is_accepted else {"ocsp_expired"})


def together(shown: list[Shown], **changes: Any) -> dict[str, Outcome]:
    findings = check_together([claims_of(one) for one in shown], policy(**changes))
    return {finding.code.removeprefix("nvidia_gpu."): finding.outcome for finding in findings}


def test_devices_are_counted_by_kind() -> None:
    machine = nvidia.hgx()
    assert set(together(machine, gpus=2, switches=2).values()) == {Outcome.PASSED}
    assert together(machine, gpus=3, switches=2)["gpus"] is Outcome.FAILED
    assert together(machine, gpus=2, switches=1)["switches"] is Outcome.FAILED
    assert set(together(machine, gpus=SKIP, switches=SKIP).values()) == {Outcome.SKIPPED}


def test_devices_with_protected_pcie_name_exactly_each_other() -> None:
    machine = nvidia.hgx()
    for left_out in range(len(machine)):
        shown = [one for index, one in enumerate(machine) if index != left_out]
        assert together(shown, gpus=SKIP)["topology"] is Outcome.FAILED
    assert together([nvidia.hopper()])["topology"] is Outcome.PASSED
    assert together([*machine[:2], nvidia.hopper(), *machine[2:]])["topology"] is Outcome.FAILED


def test_a_switch_has_no_driver_and_no_mode() -> None:
    claims = claims_of(nvidia.hgx()[-1])
    assert {"mode", "driver"} & set(outcomes(claims, policy())) == set()
    assert failed(claims, policy(platforms=SKIP, revocation_grace_s=SKIP)) == {
        *("rim", "rim_version", "rim_mismatch", "debug")
    }
    assert outcomes(claims, policy())["rim"].expected == "vbios_rim: NV_SWITCH_BIOS_5612_0002_890_9610550001"


TABLE = f"""
track = ["nvidia_gpu.platform"]
architectures = ["hopper"]
modes = ["spt"]
minimum_driver = ["580.1"]
platforms = ["{LEAF.hex()}", "{DEVICE.hex()}"]
rims = true
certificate_hold = false
revocation_grace_s = 60
gpus = 8
switches = 4
"""
SKIPPED = '{ skip = "not today" }'


def parsed(text: str) -> NvidiaGpuPolicy:
    return parse_policy(open_policy(text, source="p.toml"))


def test_the_table_is_read_whole() -> None:
    assert parsed(TABLE) == NvidiaGpuPolicy(
        track=frozenset({"nvidia_gpu.platform"}),
        architectures=("hopper",),
        modes=("spt",),
        minimum_driver=("580.1",),
        platforms=(LEAF, DEVICE),
        rims=True,
        certificate_hold=False,
        revocation_grace_s=60,
        gpus=8,
        switches=4,
    )


def test_every_field_but_track_can_be_skipped() -> None:
    lines = [f"{line.partition(' ')[0]} = {SKIPPED}" for line in TABLE.strip().splitlines()[1:]]
    read = parsed("\n".join(["track = []", *lines]))
    assert {getattr(read, line.partition(" ")[0]) for line in lines} == {SKIP}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('track = ["nvidia_gpu.signature"]', "known are"),
        ('architectures = ["ampere"]', "known are hopper, blackwell, ls10"),
        ('modes = ["contradictory"]', "known are spt, mpt, ppcie, unstated"),
        ("minimum_driver = []", "at least one version"),
        ('minimum_driver = ["latest"]', "at least one version"),
        ('platforms = ["00"]', "18 or 40"),
        ("rims = false", "must be true, or"),
        ("certificate_hold = true", "must be false, or"),
        ("revocation_grace_s = -1", "whole number"),
        ("gpus = true", "whole number"),
    ],
)
def test_an_error_names_the_line(line: str, problem: str) -> None:
    name = line.partition(" ")[0]
    lines = [line if one.startswith(f"{name} ") else one for one in TABLE.splitlines()]
    with pytest.raises(InvalidPolicyError, match=f"line {lines.index(line) + 1}: .*{problem}"):
        parsed("\n".join(lines))


def test_every_field_must_be_set_and_no_other() -> None:
    for line in TABLE.strip().splitlines():
        with pytest.raises(InvalidPolicyError, match="does not set"):
            parsed(TABLE.replace(line, ""))
    with pytest.raises(InvalidPolicyError, match="is not known"):
        parsed(TABLE + "tee = 'nvidia_gpu'")


@pytest.mark.parametrize("preset", ["strict", "cloud-azure", "cloud-gcp"])
def test_presets_set_everything_but_reference_values(preset: str) -> None:
    table = preset_table(preset, "nvidia_gpu")
    assert table is not None
    needed = {"platforms": [DEVICE.hex()]} if preset == "strict" else {}
    parse_policy(open_policy("", source=preset).with_defaults({**needed, **table}))


def test_aws_has_no_such_gpu() -> None:
    assert preset_table("cloud-aws", "nvidia_gpu") is None


KEYSET_ID, CHALLENGE = bytes(range(32)), bytes(range(32, 64))
FRESH = Binding(mode=Mode.FRESH, keyset_id=KEYSET_ID, challenge=CHALLENGE)


def machine(shown: list[EvidenceItem], **changes: Any) -> tuple[list[EvidenceItem], Policy, Binding]:
    """A simulated machine with these devices, and a policy for both."""
    binding = replace(FRESH, device_digest=device_digest([gpu.evidence for gpu in shown]))
    simulated = SimulationAttester(bytes, bytes(32)).attest(binding.bound())
    accepted = Policy(
        source="test",
        insecure_simulation=True,
        minimum_level=Level.FRESH,
        operator=SKIP,
        runtime=SKIP,
        any_of=((simulation.SimulationPolicy(measurement=SKIP), policy(**changes)),),
    )
    return [simulated, *shown], accepted, binding


@pytest.fixture
def _own_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same verifier with our vendor's roots in place of NVIDIA's, since `appraise` takes none."""
    monkeypatch.setitem(TEES, "nvidia_gpu", replace(TEES["nvidia_gpu"], verify=verify))


def gpu_for(binding: Binding, *, serial: int = 0x41431D480FE5E87274) -> EvidenceItem:
    raw = nvidia.report(nonce=binding.device_nonce())
    rom = nvidia.device_chain(serial=serial)[1]
    answer = nvidia.answer(rom, nvidia.device_chain(serial=serial)[2])
    chain = nvidia.device_chain(serial=serial)
    others = tuple(nvidia.answer(child, issuer) for child, issuer in pairwise(chain[2:]))
    rim = nvidia.good_answers()[3:]
    return nvidia.hopper().replace(report=raw, chain=chain, answers=(answer, *others, *rim)).item()


@pytest.mark.usefixtures("_own_roots")
def test_a_machine_with_two_gpus_is_appraised_as_one() -> None:
    gpus = [gpu_for(FRESH), gpu_for(FRESH, serial=0x41431D480FE5E87275)]
    evidence, accepted, binding = machine(gpus, gpus=2, platforms=SKIP)
    result = appraise(evidence, accepted, binding=binding, now=NOW.timestamp())
    assert result.tees == ("simulation", "nvidia_gpu", "nvidia_gpu")
    assert [finding.code for finding in result.findings].count("nvidia_gpu.gpus") == 1
    assert [finding.code for finding in result.findings].count("nvidia_gpu.driver") == 2


@pytest.mark.usefixtures("_own_roots")
def test_one_gpu_shown_twice_is_not_two() -> None:
    evidence, accepted, binding = machine([gpu_for(FRESH)] * 2, gpus=2, platforms=SKIP)
    with pytest.raises(StaleEvidenceError) as refusal:
        appraise(evidence, accepted, binding=binding, now=NOW.timestamp())
    assert refusal.value.finding_code == "machine.devices_differ"


@pytest.mark.usefixtures("_own_roots")
def test_a_gpu_that_answers_another_nonce_is_stale() -> None:
    evidence, accepted, binding = machine([gpu_for(replace(FRESH, challenge=bytes(32)))])
    with pytest.raises(StaleEvidenceError) as refusal:
        appraise(evidence, accepted, binding=binding, now=NOW.timestamp())
    assert (refusal.value.finding_code, refusal.value.tee) == ("binding.report_data", "nvidia_gpu")


@pytest.mark.usefixtures("_own_roots")
def test_the_number_of_gpus_is_policy_and_can_be_tracked() -> None:
    evidence, accepted, binding = machine([gpu_for(FRESH)], gpus=2)
    with pytest.raises(PolicyViolationError) as refusal:
        appraise(evidence, accepted, binding=binding, now=NOW.timestamp())
    assert refusal.value.finding_code == "nvidia_gpu.gpus"
    evidence, accepted, binding = machine([gpu_for(FRESH)], gpus=2, track=frozenset({"nvidia_gpu.gpus"}))
    result = appraise(evidence, accepted, binding=binding, now=NOW.timestamp())
    assert Outcome.TRACKED in {finding.outcome for finding in result.findings if finding.code == "nvidia_gpu.gpus"}
