"""Real Nitro documents: chain, signature, fields and strict findings equal what independent parsing says."""

from __future__ import annotations

import hashlib
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from attestation.samples import COLLATERAL, meta_of, needs_evidence, sample_folders, unix_seconds
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Outcome
from blindai.attestation.policy_file import open_policy
from blindai.attestation.roots import AWS_NITRO_ROOTS
from blindai.attestation.tee.nitro import JUDGED_PCRS, NitroClaims, NitroPolicy, check, parse, parse_policy, verify
from blindai.errors import UnauthenticEvidenceError
from blindai.evidence_files.nitro import read_folder
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blindai.attestation.evidence import EvidenceItem

pytestmark = needs_evidence
# A sample's words for what a strict policy refuses, and the code for it.
PHRASES = {"DEBUG MODE (PCR0..2 all zero)": "nitro.pcr0_zero"}


def evidence_of(folder: Path) -> tuple[EvidenceItem, float]:
    (item,) = read_folder(folder)
    (now,) = meta_of(folder)["verify_at"]
    return item, unix_seconds(now)


def one_genuine() -> tuple[EvidenceItem, float]:
    """The sample with the most in it, and a time at which it verifies."""
    folder = max(sample_folders("nitro"), key=lambda one: (one / "attestation_document.cose").stat().st_size)
    return evidence_of(folder)


def strict_policy(parsed: dict[str, Any]) -> NitroPolicy:
    """The preset `strict` with a sample's own PCRs as reference values."""
    table = "\n".join(f'pcr{index} = ["{parsed["pcrs"][str(index)]}"]' for index in JUDGED_PCRS)
    return parse_policy(open_policy(table, source="sample").with_defaults(preset_table("strict", "nitro") or {}))


def told(claims: NitroClaims) -> dict[str, Any]:
    """Our reading in meta.json's form."""
    return {
        "module_id": claims.module_id,
        "timestamp_ms": round(claims.timestamp * 1000),
        "pcrs": {str(index): value.hex() for index, value in claims.pcrs},
        "public_key": claims.public_key and claims.public_key.hex(),
        "user_data": claims.bound.hex() or None,
        "nonce": claims.nonce and claims.nonce.hex(),
    }


def test_every_sample_is_judged_as_it_should_be(tell: Callable[[str], None]) -> None:
    count = 0
    for folder in sample_folders("nitro"):
        meta, (item, now) = meta_of(folder), evidence_of(folder)
        claims = verify(item, now, Checks())
        parsed = meta["parsed"]
        assert told(claims) == {name: parsed[name] for name in told(claims)}
        assert (parsed["digest"], parsed["cose_alg"]) == ("SHA384", -35)
        failed = {one.code for one in check(claims, strict_policy(parsed)) if one.outcome is Outcome.FAILED}
        assert failed == {code for phrase, code in PHRASES.items() if phrase in meta["conclusion"]}
        count += 1
    assert count > 0
    tell(f"{count} samples equal their meta.json in fields, chain and strict findings")


def test_every_sample_is_authentic_in_its_window_only(tell: Callable[[str], None]) -> None:
    count = 0
    for folder in sample_folders("nitro"):
        item, _ = evidence_of(folder)
        begin, end = (unix_seconds(text) for text in meta_of(folder)["window"])
        for now in (begin, end):
            verify(item, now, Checks())
            count += 1
        for now in (begin - 1, end + 1):
            with pytest.raises(UnauthenticEvidenceError) as refusal:
                verify(item, now, Checks())
            assert refusal.value.finding_code == "nitro.chain_validity"
            count += 1
    assert count > 0
    tell(f"{count} times around the ends of windows")


def test_every_certificate_is_the_samples(tell: Callable[[str], None]) -> None:
    count = 0
    for folder in sample_folders("nitro"):
        document, parsed = parse(evidence_of(folder)[0].evidence), meta_of(folder)["parsed"]
        for der, expected in zip(
            (document.certificate, *document.ca_bundle), (parsed["leaf"], *parsed["cabundle"]), strict=True
        ):
            certificate = x509.load_der_x509_certificate(der)
            assert certificate.subject.rfc4514_string() == expected["subject"]
            assert certificate.not_valid_before_utc.timestamp() == unix_seconds(expected["not_before"])
            assert certificate.not_valid_after_utc.timestamp() == unix_seconds(expected["not_after"])
            count += 1
    assert count > 0
    tell(f"{count} certificates")


def test_pinned_root_is_the_one_that_aws_publishes() -> None:
    pem = (COLLATERAL / "aws" / "AWS_NitroEnclaves_Root-G1.pem").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    assert hashlib.sha256(der).digest() == AWS_NITRO_ROOTS[0].sha256
    assert all(
        AWS_NITRO_ROOTS[0].matches(parse(evidence_of(one)[0].evidence).ca_bundle[0]) for one in sample_folders("nitro")
    )


def test_it_is_quick(tell: Callable[[str], None]) -> None:
    item, now = one_genuine()
    times = []
    for _ in range(20):
        begin = time.process_time()
        verify(item, now, Checks())
        times.append(1000 * (time.process_time() - begin))
    tell(f"verify: median {statistics.median(times):.1f} ms of processor time")
