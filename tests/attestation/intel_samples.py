"""What the samples of TDX and SGX share: one run is a quote, a file of collateral, a time, and what must come out."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dcap_qvl  # type: ignore[import-untyped]  # ships no type information
from attestation.samples import meta_of, sample_folders, unix_seconds

from blindai.attestation.checks import Checks, failed
from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.policy_file import open_policy
from blindai.attestation.tee import TEES
from blindai.attestation.x509_chain import utc_text
from blindai.evidence_files.intel_collateral_file import read_collateral
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blindai.attestation.intel.policy import IntelClaims
    from blindai.attestation.policy_file import TeePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A sample at one time, with one file of collateral."""

    name: str
    item: EvidenceItem
    now: float
    collateral: Path
    meta: dict[str, Any]
    expect: dict[str, Any]

    def verify(self) -> IntelClaims:
        claims: IntelClaims = TEES[self.item.tee].verify(self.item, self.now, Checks())
        return claims


def quote_of(folder: Path, file: str) -> tuple[bytes, bytes]:
    """A sample's quote, and what its publisher put behind it that is no padding."""
    raw = (folder / file).read_bytes()
    behind = meta_of(folder).get("parsed", {}).get("trailing_bytes", 0)
    end = len(raw) - behind
    return (raw[:end], raw[end:]) if any(raw[end:]) else (raw, b"")


def runs_of(folders: str, *, tee: str, file: str = "quote.bin") -> Iterator[Run]:
    """Every run of every sample in a folder of samples."""
    for folder in sample_folders(folders):
        meta = meta_of(folder)
        raw, _ = quote_of(folder, file)
        for run in meta["runs"]:
            collateral = folder / run["collateral"]
            yield Run(
                name=folder.name,
                item=EvidenceItem(tee=tee, evidence=raw, endorsements=read_collateral(collateral, tee=tee)),
                now=unix_seconds(run["verify_at"]),
                collateral=collateral,
                meta=meta,
                expect=run["expect"],
            )


def outcome(claims: IntelClaims) -> dict[str, Any]:
    """What came out, in the words of a run's `expect`."""
    state = claims.state
    assert state is not None
    if state.status is None:
        return {"signatures_and_chain": "valid", "tcb_status": None, "reject": "No matching TCB level"}
    return {
        "signatures_and_chain": "valid",
        "tcb_status": state.status,
        "launch_tcb_status": state.launch,
        "current_tcb_status": state.current,
        "advisory_ids": list(state.advisories),
        "tcb_date": utc_text(state.date) if state.date else None,
        "qe_status": state.qe,
    }


def parsed_pck(claims: IntelClaims) -> dict[str, Any]:
    """The PCK's fields, in the words of a sample's `parsed`."""
    pck = claims.pck
    fields: dict[str, Any] = {
        "ppid": pck.ppid.hex(),
        "pceid": pck.pce_id.hex(),
        "fmspc": pck.fmspc.hex(),
        "sgx_type": pck.sgx_type,
        "pcesvn": pck.pce_svn,
        "cpusvn": pck.cpu_svn.hex(),
        "comps": list(pck.components),
    }
    if pck.platform_instance_id is not None:
        fields["platform_instance_id"] = pck.platform_instance_id.hex()
    config = {name: getattr(pck, name) for name in ("dynamic_platform", "cached_keys", "smt_enabled")}
    if set(config.values()) != {None}:
        fields["config"] = config
    return fields


def strict_policy(tee: str, reference_values: Mapping[str, object]) -> TeePolicy:
    """The preset `strict`, beside these reference values."""
    values = "\n".join(f"{name} = {value}" for name, value in reference_values.items())
    section = open_policy(f"[tee.{tee}]\n{values}\n", source="test").section("tee").section(tee)
    preset = preset_table("strict", tee)
    assert preset is not None
    policy: TeePolicy = TEES[tee].parse_policy(section.with_defaults(preset))
    return policy


def strict_failures(claims: IntelClaims, reference_values: Mapping[str, object]) -> set[str]:
    """The codes that the preset `strict` refuses, beside these reference values."""
    policy = strict_policy(claims.tee, reference_values)
    return {finding.code for finding in failed(TEES[claims.tee].check(claims, policy))}


def expected_failures(run: Run, codes: Mapping[str, str]) -> set[str]:
    """What `strict` must refuse: the sample's own rejections by their phrases, and every state but UpToDate."""
    tee = run.item.tee
    expected = {codes[phrase] for phrase in run.meta["policy_rejections"]}
    if run.expect["tcb_status"] != "UpToDate":
        expected.add("tcb_status")
    if run.expect.get("current_tcb_status", "UpToDate") not in {"UpToDate", None} or (
        "reject" in run.expect and run.meta["parsed"]["version"] == 5  # only these name it
    ):
        expected.add("tcb_status_current")
    if "reject" in run.expect:
        expected.add("tcb_level")
    if run.expect.get("advisory_ids"):
        expected.add("advisories")
    return {f"{tee}.{code}" for code in expected}


def oracle(run: Run) -> dict[str, Any]:
    """What dcap-qvl says of a run: a status and advisories, or why it refuses."""
    collateral = dcap_qvl.QuoteCollateralV3.from_json(run.collateral.read_text("utf-8"))
    try:
        report = dcap_qvl.verify(run.item.evidence, collateral, int(run.now))
    except ValueError as error:
        return {"error": str(error).removeprefix("Verification failed: ")}
    return {"tcb_status": report.status, "advisory_ids": sorted(report.advisory_ids)}


def agrees(run: Run, said: Mapping[str, Any]) -> bool:
    """Whether dcap-qvl says the same as we do."""
    ours = outcome(run.verify())
    if "reject" in ours:
        return bool(said == {"error": "No matching TCB level found"})
    return bool(said == {name: ours[name] for name in ("tcb_status", "advisory_ids")})


def median_ms(run: Run, policy: TeePolicy, *, times: int = 30) -> float:
    """The median of the processor time that one verification and its policy take."""

    def once() -> float:
        begin = time.process_time()
        tuple(TEES[run.item.tee].check(run.verify(), policy))
        return time.process_time() - begin

    return 1000 * statistics.median(once() for _ in range(times))
