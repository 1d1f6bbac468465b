"""Real SGX quotes: every run of every sample comes out as its `meta.json` says, and as dcap-qvl says."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest
from attestation.intel_samples import (
    agrees,
    expected_failures,
    median_ms,
    oracle,
    outcome,
    parsed_pck,
    runs_of,
    strict_failures,
    strict_policy,
)
from attestation.samples import meta_of, needs_evidence, sample_folders, unix_seconds

from blindai.attestation.checks import Checks
from blindai.attestation.tee.sgx import FLAG_BITS, SgxClaims, parse, verify
from blindai.errors import UnauthenticEvidenceError
from blindai.evidence_files.sgx import read_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attestation.intel_samples import Run

    from blindai.attestation.evidence import EvidenceItem

pytestmark = needs_evidence

PHRASES = {"debug": "debug"}
FLAGS = {
    "debug": "DEBUG",
    "mode64": "MODE64BIT",
    "provision_key": "PROVISIONKEY",
    "einittoken_key": "EINITTOKEN_KEY",
    "kss": "KSS",
}
# Where dcap-qvl 0.7.0 says nothing of the platform, because a policy of its own refuses the enclave.
REFUSED_BY_DCAP_QVL = {"automata-v3-debug": "Debug mode is enabled"}


def one_genuine() -> tuple[EvidenceItem, float]:
    """Evidence that verifies, with everything that can come with a quote, and its time."""
    run = next(run for run in runs_of("sgx", tee="sgx") if not run.meta["policy_rejections"])
    return run.item, run.now


def verified(run: Run) -> SgxClaims:
    claims = run.verify()
    assert isinstance(claims, SgxClaims)
    return claims


def reference_values(claims: SgxClaims) -> dict[str, object]:
    skip = '{ skip = "not judged here" }'
    return {"mr_enclave": [claims.report.mr_enclave.hex()], "mr_signer": skip, "isv_prod_id": skip, "isv_svn": 0}


def time_within(meta: dict[str, object]) -> float:
    """A second within the life of a sample's PCK, for those that are published without a time."""
    parsed = meta["parsed"]
    assert isinstance(parsed, dict)
    return unix_seconds(parsed["pck"]["not_before"]) + 1


def without_collateral() -> list[Path]:
    return [folder for folder in sample_folders("sgx") if not meta_of(folder)["runs"]]


def test_every_run_comes_out_as_published(tell: Callable[[str], None]) -> None:
    runs = list(runs_of("sgx", tee="sgx"))
    wrong = [(run.name, run.collateral.name) for run in runs if outcome(run.verify()) != run.expect]
    assert wrong == []
    assert len(runs) > 0
    tell(f"{len(sample_folders('sgx'))} SGX samples, {len(runs)} runs equal to their meta.json")


def test_samples_without_collateral_are_refused_for_the_lack_of_it() -> None:
    """Where the chain is good, `strict` refuses the missing collateral and lists beside the sample's own rejections."""
    seen = {"valid": 0, "INVALID": 0}
    for folder in without_collateral():
        meta = meta_of(folder)
        (item,) = read_folder(folder)
        if "signature+chain: valid" not in meta["conclusion"]:
            with pytest.raises(UnauthenticEvidenceError) as refusal:
                verify(item, time_within(meta), Checks())
            assert refusal.value.finding_code == "sgx.pck_chain_root"
            seen["INVALID"] += 1
            continue
        claims = verify(item, time_within(meta), Checks())
        expected = {
            "sgx.collateral",
            "sgx.revocation_lists",
            *(f"sgx.{PHRASES[one]}" for one in meta["policy_rejections"]),
        }
        assert strict_failures(claims, reference_values(claims)) == expected
        seen["valid"] += 1
    assert all(seen.values())


def test_every_field_is_what_independent_parsing_says() -> None:
    names = {"misc": "misc_select"}
    for folder in sample_folders("sgx"):
        parsed = meta_of(folder)["parsed"]
        quote = parse((folder / "quote.bin").read_bytes())
        for name, value in parsed["body"].items():
            found = getattr(quote.body, names.get(name, name))
            found = int.from_bytes(found, "little") if name == "misc" else found
            assert (found.hex() if isinstance(found, bytes) else found) == value, (folder.name, name)
        qe = quote.qe_report
        assert (qe.mr_signer.hex(), qe.isv_prod_id, qe.isv_svn, qe.attributes.hex()) == tuple(
            parsed["qe_report"][name] for name in ("mr_signer", "isv_prod_id", "isv_svn", "attributes")
        )


def test_platform_and_flags_are_what_independent_parsing_says() -> None:
    for run in runs_of("sgx", tee="sgx"):
        claims = verified(run)
        pck = {name: value for name, value in run.meta["parsed"]["pck"].items() if name in parsed_pck(claims)}
        assert parsed_pck(claims) == pck
        for name, bit in FLAGS.items():
            assert bool(claims.report.flags >> FLAG_BITS[bit] & 1) is run.meta["flags"][name]


def test_strict_refuses_what_the_samples_say_it_must() -> None:
    runs = list(runs_of("sgx", tee="sgx"))
    for run in runs:
        claims = verified(run)
        assert strict_failures(claims, reference_values(claims)) == expected_failures(run, PHRASES), run.name
    assert len(runs) > 0


def test_dcap_qvl_agrees_except_where_its_own_policy_refuses(tell: Callable[[str], None]) -> None:
    refused, agreed = {}, 0
    for run in runs_of("sgx", tee="sgx"):
        said = oracle(run)
        if run.name in REFUSED_BY_DCAP_QVL and said == {"error": REFUSED_BY_DCAP_QVL[run.name]}:
            refused[run.name] = said["error"]
        else:
            assert agrees(run, said), (run.name, said)
            agreed += 1
    assert refused == REFUSED_BY_DCAP_QVL
    assert agreed > 0
    tell(f"dcap-qvl agrees in {agreed} SGX runs; it refuses by a policy of its own: {refused}")


def test_how_long_a_verification_takes(tell: Callable[[str], None]) -> None:
    runs = [run for run in runs_of("sgx", tee="sgx") if run.expect["tcb_status"]]
    policy = strict_policy("sgx", reference_values(verified(runs[0])))
    times = [median_ms(run, policy, times=5) for run in runs]
    tell(f"SGX: {statistics.median(times):.1f} ms of processor time, the median of {len(runs)} runs")
    assert times
