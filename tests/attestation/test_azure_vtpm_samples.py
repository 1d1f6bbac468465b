"""Real Azure evidence, both items as one machine: every sample is judged as independent parsing judged it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from attestation.samples import COLLATERAL, meta_of, needs_evidence, sample_folders, unix_seconds
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.appraise import appraise
from blindai.attestation.binding import InsecureUnbound
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Outcome
from blindai.attestation.policy import parse_policy
from blindai.attestation.roots import AZURE_VTPM_ROOTS
from blindai.attestation.tee import TEES
from blindai.attestation.tee.azure_vtpm import MAGIC, AzureVtpmClaims
from blindai.errors import MalformedEvidenceError, PolicyViolationError, StaleEvidenceError, UnauthenticEvidenceError
from blindai.evidence_files.azure_vtpm import read_folder
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blindai.attestation.evidence import Claims, EvidenceItem, Finding
    from blindai.attestation.policy import Policy

pytestmark = needs_evidence

FOLDERS = ("azure-snp-vtpm", "azure-tdx-vtpm")
UNBOUND = InsecureUnbound(reason="a sample is about nobody's keys")
# What a sample's free text means in our codes (the CPU's as its own samples' tests say).
PHRASES = {
    r"committed SNP SPL \d+ < \d+": {"sev_snp.spl_snp", "sev_snp.firmware_version", "sev_snp.launch_tcb"},
    r"microcode SPL \d+ < \d+ for model": {"sev_snp.spl_microcode", "sev_snp.launch_tcb"},
    r"vm-configuration\.secure-boot=false": {"azure_vtpm.vm_secure_boot"},
    r"sept_ve_disable not set": {"tdx.sept_ve_disable"},
}
# Not in the samples' text: revocation lists are of other days than most samples or not there, and Milan is judged by
# its own test.
NOT_TOLD = {"sev_snp.crl", "sev_snp.milan_seed", "azure_vtpm.revocation"}


def samples() -> Iterator[tuple[Path, float, Path]]:
    """Each sample with each of its times, and the CPU's collateral for it."""
    for folder in (one for tee in FOLDERS for one in sample_folders(tee)):
        for run in runs_of(folder):
            collateral = folder / run["collateral"] if "collateral" in run else COLLATERAL / "amd"
            yield folder, unix_seconds(run["verify_at"]), collateral


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """A sample's runs; one without a platform's state for each time, if it has none."""
    meta = meta_of(folder)
    return meta.get("runs") or [{"verify_at": text} for text in meta["verify_at"]]


def expected_failures(folder: Path, now: float) -> set[str]:
    """What the sample's conclusion says in words, and a run as the platform's state."""
    conclusion = meta_of(folder)["conclusion"]
    codes = {code for words, some in PHRASES.items() if re.search(words, conclusion) for code in some}
    (state,) = (run.get("expect", {}) for run in runs_of(folder) if unix_seconds(run["verify_at"]) == now)
    if state.get("tcb_status", "UpToDate") != "UpToDate":
        codes.add("tdx.tcb_status")
    if state.get("advisory_ids"):
        codes.add("tdx.advisories")
    return codes


def read(folder: Path, collateral: Path) -> tuple[EvidenceItem, ...]:
    return read_folder(folder, collateral=collateral, certificates=COLLATERAL / "azure-vtpm")


def one_genuine() -> tuple[EvidenceItem, float]:
    """The vTPM's item with the longest chain, and a time at which it verifies."""
    each = [(read(folder, collateral)[1], now) for folder, now, collateral in samples()]
    return max(each, key=lambda one: len(one[0].endorsements))


def machine_beside(carrier: EvidenceItem) -> EvidenceItem:
    """The CPU's item of the sample that a vTPM's item is of."""
    each = (read(folder, collateral) for folder, _, collateral in samples())
    return next(machine for machine, other, *_ in each if other == carrier)


def strict_policy(items: tuple[EvidenceItem, ...], folder: Path) -> Policy:
    """The preset `strict`; PCRs are the sample's own, and the CPU's measurements are anything."""
    pcrs = json.loads((folder / "pcrs_sha256.json").read_text("utf-8"))
    skip = '{ skip = "given" }'
    measurements = {
        "sev_snp": ("measurement", "host_data"),
        "tdx": ("mrtd", "mr_config_id", "mr_owner", "mr_owner_config", "rtmr0", "rtmr1", "rtmr2", "rtmr3"),
    }[items[0].tee]
    text = f"""
version = 1
preset = "strict"
insecure_simulation = false
operator = {skip}
level = {{ minimum = "fresh" }}
runtime = {skip}
[tee.{items[0].tee}]
{"".join(f"{name} = {skip}" + chr(10) for name in measurements)}
[tee.azure_vtpm.pcrs]
{"".join(f'{index} = ["{value}"]' + chr(10) for index, value in enumerate(pcrs))}
"""
    return parse_policy(text, source=folder.name, preset_table=preset_table)


def findings_of(items: tuple[EvidenceItem, ...], policy: Policy, now: float) -> tuple[Finding, ...]:
    """Every finding of an appraisal, which may only end at the policy."""
    try:
        return appraise(items, policy, binding=UNBOUND, now=now).findings
    except PolicyViolationError as refusal:
        return refusal.findings


def verified(items: tuple[EvidenceItem, ...], now: float) -> tuple[Claims, ...]:
    return tuple(TEES[item.tee].verify(item, now, Checks()) for item in items)


def test_every_run_is_judged_as_it_should_be(tell: Callable[[str], None]) -> None:
    folders, runs = set(), 0
    for folder, now, collateral in samples():
        items = read(folder, collateral)
        findings = findings_of(items, strict_policy(items, folder), now)
        failed = {one.code for one in findings if one.outcome is Outcome.FAILED}
        assert failed - NOT_TOLD == expected_failures(folder, now), folder
        passed = {one.code for one in findings if one.outcome is Outcome.PASSED}
        assert {"machine.one", "machine.carrier", "machine.carried_report", "azure_vtpm.quote_signature"} <= passed
        folders.add(folder)
        runs += 1
    assert runs > 0
    tell(f"{len(folders)} samples, {runs} runs: both items are one machine, strict findings equal meta.json's")


def quote_members(claims: AzureVtpmClaims) -> dict[str, Any]:
    """Our reading of the quote in meta.json's form."""
    quote = claims.quote
    return {
        "type": "0x8018",
        "qualified_signer": quote.qualified_signer.hex(),
        "extra": claims.bound.hex(),
        "clock": quote.clock,
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
        "safe": int(quote.safe),
        "fw": f"{quote.firmware_version:#x}",
        "pcr_select": [[quote.bank, list(quote.selection)]],
        "pcr_digest": quote.pcr_digest.hex(),
    }


def test_every_field_is_read_as_independent_parsing_reads_it(tell: Callable[[str], None]) -> None:
    count = 0
    for folder, now, collateral in samples():
        meta, items = meta_of(folder), read(folder, collateral)
        machine, claims = verified(items, now)
        assert isinstance(claims, AzureVtpmClaims)
        told = meta["parsed"]["hcl"]
        assert (claims.hcl.version, claims.hcl.hash_name) == (told["version"], told["hash_type"])
        assert {"sev_snp": "SNP", "tdx": "TDX"}[claims.hcl.hardware] == told["report_type"]
        assert 1236 + len(claims.hcl.runtime_data) == told["hw_report_size"]
        assert claims.hcl.runtime_data == (folder / "runtime_claims.json").read_bytes()
        assert claims.runtime.user_data.hex() == told["claims"]["user-data"]
        shown = {name: json.dumps(value).strip('"') for name, value in told["claims"]["vm-configuration"].items()}
        assert dict(claims.runtime.configuration) == shown
        assert quote_members(claims) == meta["parsed"]["tpm_quote"]
        assert machine.bound == claims.carrier_report_data()
        assert meta["checks"] == dict.fromkeys(meta["checks"], True)
        assert claims.ak_certified == ("ak_cert" in meta)
        count += 1
    assert count > 0
    tell(f"{count} runs")


def test_items_of_two_machines_are_no_machine(tell: Callable[[str], None]) -> None:
    """Every vTPM beside every other sample's CPU of the same kind."""
    count = 0
    for folder, now, collateral in samples():
        items = read(folder, collateral)
        for other, _, others_collateral in samples():
            strange = read(other, others_collateral)
            if other != folder and strange[0].tee == items[0].tee:
                vtpm = dataclasses.replace(strange[1], endorsements=())  # valid at another time, perhaps
                with pytest.raises(StaleEvidenceError) as refusal:
                    appraise((items[0], vtpm), strict_policy(items, folder), binding=UNBOUND, now=now)
                assert refusal.value.finding_code == "machine.carrier"
                count += 1
    assert count > 0
    tell(f"{count} pairs refused")


# Of a TDREPORT: what a quote does not have, so that only the CPU itself could check it. Offsets of both ends.
NOT_QUOTED = ((0x000, 0x080), (0x0C0, 0x108), (0x180, 0x200), (0x390, 0x400))


def test_no_changed_bit_makes_one_machine(tell: Callable[[str], None]) -> None:
    """One bit of each third byte of the vTPM's item; the CPU's is another's, and is compared with this one."""
    refused = {}
    for tee in FOLDERS:
        folder, now, collateral = next(sample for sample in samples() if sample[0].parent.name == tee)
        machine, item = read(folder, collateral)
        begin = len(MAGIC) + 4 + 32  # where the CPU's report begins
        meaningless = (
            {begin + place for ends in NOT_QUOTED for place in range(*ends)} if machine.tee == "tdx" else set()
        )
        accepted = {place for place in range(0, len(item.evidence), 3) if is_accepted(machine, item, place, now)}
        assert accepted <= meaningless
        assert (accepted == set()) == (machine.tee == "sev_snp")
        refused[folder.name] = len(range(0, len(item.evidence), 3)) - len(accepted)
    tell(", ".join(f"{count} changed bits of {name} refused" for name, count in refused.items()))


def is_accepted(machine: EvidenceItem, item: EvidenceItem, place: int, now: float) -> bool:
    changed = item.evidence[:place] + bytes([item.evidence[place] ^ 1 << place % 8]) + item.evidence[place + 1 :]
    try:
        claims = TEES[item.tee].verify(dataclasses.replace(item, evidence=changed), now, Checks())
    except (MalformedEvidenceError, UnauthenticEvidenceError):
        return False
    return bool(claims.carries_for(machine.tee, machine.evidence))


def test_pinned_root_is_microsofts() -> None:
    pem = (COLLATERAL / "azure-vtpm" / "azure_virtual_tpm_root_2023.pem").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    assert [root.sha256 for root in AZURE_VTPM_ROOTS] == [hashlib.sha256(der).digest()]


def test_it_is_quick(tell: Callable[[str], None]) -> None:
    item, now = one_genuine()
    times = []
    for _ in range(20):
        begin = time.process_time()
        TEES[item.tee].verify(item, now, Checks())
        times.append(1000 * (time.process_time() - begin))
    tell(f"verify: median {statistics.median(times):.1f} ms of processor time")
