"""SEV-SNP evidence of real machines: every sample is judged as independent parsing judged it (its meta.json)."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from attestation.samples import COLLATERAL, meta_of, needs_evidence, sample_folders, unix_seconds
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.amd.certificates import judge_revocation, read_amd_certificate, read_crl
from blindai.attestation.amd.flags import GUEST_POLICY_FLAGS, PLATFORM_FLAGS, unknown_bits
from blindai.attestation.amd.tcb import Product, Tcb
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Outcome
from blindai.attestation.policy_file import open_policy
from blindai.attestation.roots import AMD_ROOTS
from blindai.attestation.tee.sev_snp import SevSnpClaims, check, parse, parse_policy, verify
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, UnauthenticEvidenceError
from blindai.evidence_files.sev_snp import amd_endorsements, read_folder
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blindai.attestation.amd.report import Report

AMD = COLLATERAL / "amd"
# What a sample's free text means in our codes. Patch level and version of the firmware rise together, and a guest was
# launched before it was asked for a report; version 2 is silent about everything that came later.
PHRASES = {
    r"vmpl=\d": {"vmpl"},
    r"policy\.debug=1": {"debug"},
    r"committed SNP SPL \d+ < \d+": {"spl_snp", "firmware_version", "launch_tcb"},
    r"microcode SPL \d+ < \d+ for model": {"spl_microcode", "launch_tcb"},
    r"report v2: no CPUID, no alias check": {"report_version", "cpu_model", "alias_check_complete", "ecc_enabled"},
}
# Not in the samples' text: revocation lists are of other days than most samples, and Milan is judged by its own test.
NOT_TOLD = {"crl", "milan_seed"}
POLICY = parse_policy(
    open_policy('measurement = { skip = "given" }\nhost_data = { skip = "given" }', source="samples").with_defaults(
        preset_table("strict", "sev_snp") or {}
    )
)
FLAG_NAMES = {
    "smt": "smt_allowed",
    "cxl_allow": "cxl_allowed",
    "mem_aes_256_xts": "aes_256_xts",
    "smt_en": "smt_enabled",
    "tsme_en": "tsme_enabled",
    "ecc_en": "ecc_enabled",
    "ciphertext_hiding_en": "ciphertext_hiding_enabled",
    "tio_en": "tio_enabled",
}


def samples() -> list[tuple[EvidenceItem, dict[str, Any]]]:
    """Items with what is said of them: the SEV-SNP samples, and the reports inside Azure's."""
    own = [(read_folder(folder, collateral=AMD)[0], meta_of(folder)) for folder in sample_folders("sev-snp")]
    azure = [(azure_item(folder), meta_of(folder)["snp"]) for folder in sample_folders("azure-snp-vtpm")]
    return own + azure


def azure_item(folder: Path) -> EvidenceItem:
    endorsements = amd_endorsements((folder / "vcek.der").read_bytes(), AMD)
    return EvidenceItem(tee="sev_snp", evidence=(folder / "snp_report.bin").read_bytes(), endorsements=endorsements)


def verifiable() -> list[tuple[EvidenceItem, dict[str, Any]]]:
    return [(item, meta) for item, meta in samples() if meta.get("signature_and_chain") == "valid"]


def one_genuine() -> tuple[EvidenceItem, float]:
    """A sample that verifies, of the newest version, with a revocation list: the item and its time."""
    item, meta = max(
        verifiable(), key=lambda sample: ("crl" in dict(sample[0].endorsements), sample[1]["parsed"]["version"])
    )
    return item, unix_seconds(meta["verify_at"][0])


def expected_failures(meta: dict[str, Any]) -> set[str]:
    codes: set[str] = set()
    for text in meta["strict_policy_findings"]:
        found = [named for phrase, named in PHRASES.items() if re.match(phrase, text)]
        assert len(found) == 1, text
        codes |= found[0]
    return codes


@needs_evidence
def test_every_sample_verifies_and_is_judged_as_its_page_says(tell: Callable[[str], None]) -> None:
    runs = 0
    for item, meta in verifiable():
        for text in meta["verify_at"]:
            claims = verify(item, unix_seconds(text), Checks())
            failed = {finding.code for finding in check(claims, POLICY) if finding.outcome is Outcome.FAILED}
            assert {code.removeprefix("sev_snp.") for code in failed} - NOT_TOLD == expected_failures(meta)
            assert ("sev_snp.milan_seed" in failed) is (meta["product"] == "Milan")
            require_claims(claims, meta)
            runs += 1
    assert len(verifiable()) > 0
    tell(f"{len(verifiable())} real SEV-SNP reports, {runs} runs equal to meta.json")


@needs_evidence
def test_every_sample_is_parsed_as_its_page_says(tell: Callable[[str], None]) -> None:
    fields = 0
    for item, meta in samples():
        fields += require_report(parse(item.evidence), meta["parsed"])
    assert fields > 0
    tell(f"{len(samples())} real SEV-SNP reports, {fields} fields equal to meta.json")


def require_report(report: Report, parsed: dict[str, Any]) -> int:
    names = {"sig_algo", "key_info", "cpuid_fam", "cpuid_mod", "cpuid_step", "product", "reserved_nonzero"}
    names |= {name for name in parsed if name.endswith(("_parts", "_bits"))}
    for name in parsed.keys() - names:
        found = getattr(report, name)
        if name.endswith("_version"):
            found = bytes((found.build, found.minor, found.major))
        if name.endswith("_mit_vector"):
            found = found or 0
        assert (found.hex() if isinstance(found, bytes) else found) == parsed[name], name
    cpuid = (report.cpuid.family, report.cpuid.model, report.cpuid.stepping) if report.cpuid else (0, 0, 0)
    assert cpuid == (parsed["cpuid_fam"], parsed["cpuid_mod"], parsed["cpuid_step"])
    assert report.policy_abi == (parsed["policy_bits"]["abi_major"], parsed["policy_bits"]["abi_minor"])
    require_flags(report, parsed)
    return len(parsed) - 2


def require_flags(report: Report, parsed: dict[str, Any]) -> None:
    guest = {flag.name: flag.is_set(report.policy) for flag in GUEST_POLICY_FLAGS}
    host = {flag.name: flag.is_set(report.platform_info) for flag in PLATFORM_FLAGS}
    host["rapl_dis"] = host.pop("rapl_disabled")
    host["bit6"] = 6 in unknown_bits(report.platform_info)
    said = {FLAG_NAMES.get(name, name): bool(bit) for name, bit in parsed["policy_bits"].items()}
    assert guest == {name: bit for name, bit in said.items() if name not in {"abi_minor", "abi_major", "rsvd1"}}
    assert host == {FLAG_NAMES.get(name, name): bool(bit) for name, bit in parsed["platform_bits"].items()}
    said_of_keys = parsed["key_bits"]
    keys = (report.author_key_en, report.mask_chip_key, report.signing_key)
    assert keys == (said_of_keys["author_key_en"], said_of_keys["mask_chip_key"], said_of_keys["signing_key"])


def require_claims(claims: SevSnpClaims, meta: dict[str, Any]) -> None:
    parsed, vek = meta["parsed"], meta["vek"]
    assert claims.product is Product(meta["product"])
    assert claims.signing_key.name == vek["kind"]
    assert claims.product_name == vek["amd_extensions"]["2"]
    assert claims.csp_id == vek["amd_extensions"].get("5")
    hwid = bytes.fromhex(vek["amd_extensions"].get("4", ""))
    assert claims.chip_id == (hwid.ljust(64, b"\0") if hwid else None)
    for name in ("reported", "committed", "current", "launch"):
        said = {{"bl": "bootloader", "ucode": "microcode"}.get(key, key): level
                for key, level in parsed[f"{name}_tcb_parts"].items()}  # fmt: skip
        assert getattr(claims, name) == Tcb(**said)


@needs_evidence
def test_a_sample_without_its_certificate_is_refused_and_told_where_to_get_it() -> None:
    without = [item for item, meta in samples() if "vek" not in meta]
    assert without
    for item in without:
        with pytest.raises(MalformedEvidenceError) as refusal:
            verify(item, 0.0, Checks())
        assert refusal.value.finding_code == "sev_snp.endorsements"
        assert "kdsintf.amd.com" in refusal.value.hint


@needs_evidence
def test_keys_of_other_chips_and_broken_ones_are_refused(tell: Callable[[str], None]) -> None:
    refused = 0
    for folder in sample_folders("sev-snp"):
        for path in sorted((folder / "negative").glob("*.der")):
            (item,) = read_folder(folder, collateral=AMD)
            others = tuple((name, data) for name, data in item.endorsements if name != "vek")
            bad = dataclasses.replace(item, endorsements=(("vek", path.read_bytes()), *others))
            with pytest.raises(RejectedEvidenceError):
                verify(bad, unix_seconds(meta_of(folder)["verify_at"][0]), Checks())
            refused += 1
    assert refused > 0
    tell(f"{refused} certificates of samples' negative folders refused")


@needs_evidence
def test_samples_are_valid_only_in_their_certificates_time() -> None:
    for item, meta in verifiable():
        begin, end = (unix_seconds(text) for text in meta["window"])
        for now, is_valid in ((begin, True), (end, True), (begin - 1, False), (end + 1, False)):
            if is_valid:
                verify(item, now, Checks())
            else:
                with pytest.raises(UnauthenticEvidenceError) as refusal:
                    verify(item, now, Checks())
                assert refusal.value.finding_code == "sev_snp.chain_validity"


@needs_evidence
def test_pinned_roots_are_those_of_the_published_chains() -> None:
    chains = [x509.load_pem_x509_certificates(path.read_bytes()) for path in sorted(AMD.glob("*.pem"))]
    found = {hashlib.sha256(chain[-1].public_bytes(Encoding.DER)).digest() for chain in chains}
    assert found == {root.sha256 for root in AMD_ROOTS}


@needs_evidence
def test_published_revocation_lists_are_the_roots_and_name_no_chain_in_use() -> None:
    lists = sorted(AMD.glob("*_crl.der"))
    assert lists
    for path in lists:
        crl = read_crl(path.read_bytes())
        for chain_path in AMD.glob(f"{path.name.partition('_')[0]}_*.pem"):
            pem = x509.load_pem_x509_certificates(chain_path.read_bytes())
            chain = [read_amd_certificate(one.public_bytes(Encoding.DER), "chain") for one in pem]
            assert [finding.outcome for finding in judge_revocation(crl, chain)] == [Outcome.PASSED] * 2
    assert any(read_crl(path.read_bytes()).get_revoked_certificate_by_serial_number(0x20001) for path in lists)


@needs_evidence
def test_one_genuine_sample_shows_every_endorsement(tell: Callable[[str], None]) -> None:
    item, now = one_genuine()
    assert sorted(name for name, _ in item.endorsements) == ["crl", "intermediate", "root", "vek"]
    times = []
    for _ in range(31):
        begin = time.process_time()
        tuple(check(verify(item, now, Checks()), POLICY))
        times.append(time.process_time() - begin)
    tell(f"median {1000 * statistics.median(times):.2f} ms of CPU for an SEV-SNP report with revocation list")


@needs_evidence
def test_a_folder_may_hold_its_own_chain() -> None:
    with_chain = [folder for folder in sample_folders("sev-snp") if (folder / "vcek_chain.pem").is_file()]
    assert with_chain
    for folder in with_chain:
        (item,) = read_folder(folder)
        assert {name for name, _ in item.endorsements} == {"vek", "intermediate", "root"}
        verify(item, unix_seconds(meta_of(folder)["verify_at"][0]), Checks())


def test_files_that_are_no_certificates_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "report.bin").write_bytes(b"report")
    (tmp_path / "vcek.der").write_bytes(b"none")
    for label in (b"CERTIFICATE", b"X509 CRL"):
        (tmp_path / f"{label[:4].decode()}.pem").write_bytes(
            b"-----BEGIN %b-----\nA\n-----END %b-----\n" % (label, label)
        )
    (tmp_path / "notes.txt").write_bytes(b"")
    (item,) = read_folder(tmp_path)
    assert (item.evidence, item.endorsements) == (b"report", (("vek", b"none"),))
    with pytest.raises(FileNotFoundError):
        read_folder(tmp_path / "nowhere")
