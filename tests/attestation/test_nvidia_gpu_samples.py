"""Real reports, RIMs and OCSP answers of NVIDIA hardware: what is found equals what independent parsing says.

The folders' `meta.json` is the reference; no sample is known by name here.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from attestation.samples import COLLATERAL, EVIDENCE, meta_of, needs_evidence, sample_folders, unix_seconds
from attestation.times import forget_everything
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Outcome
from blindai.attestation.nvidia.report import parse
from blindai.attestation.nvidia.rim import load_xml_tools, read_content, read_rim, signed_content
from blindai.attestation.policy_file import Skip, open_policy
from blindai.attestation.roots import NVIDIA_DEVICE_ROOT, NVIDIA_RIM_ROOT
from blindai.attestation.tee.nvidia_gpu import NvidiaGpuClaims, check, check_together, parse_policy, verify
from blindai.attestation.x509_chain import judge_chain
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, UnauthenticEvidenceError
from blindai.evidence_files.nvidia_gpu import read_folder
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blindai.attestation.tee.nvidia_gpu import NvidiaGpuPolicy

pytestmark = needs_evidence
ANY_TIME = unix_seconds("2026-03-01T00:00:00Z")  # for samples without a time of their own
OCSP_TIMES = ("ocsp_device", "ocsp_rim")
SKIP = Skip(reason="samples are of many machines")


def device_samples() -> list[Path]:
    return [folder for folder in sample_folders("nvidia") if "results" not in meta_of(folder)]


def parsed_of(folder: Path) -> list[dict[str, Any]]:
    """What independent parsing says of each device that it looked at, the first at least."""
    meta = meta_of(folder)
    return list(meta["devices"]) if isinstance(meta.get("devices"), list) else [{**meta, **meta["parsed"]}]


def times_of(folder: Path) -> list[float]:
    return [unix_seconds(text) for text in meta_of(folder)["verify_at"] or []] or [ANY_TIME]


def strict() -> NvidiaGpuPolicy:
    table = {**(preset_table("strict", "nvidia_gpu") or {}), "platforms": {"skip": "samples are of many machines"}}
    return parse_policy(open_policy("", source="strict").with_defaults(table))


def verified(item: EvidenceItem, now: float) -> NvidiaGpuClaims:
    return verify(item, now, Checks())


def without(item: EvidenceItem, *prefixes: str) -> EvidenceItem:
    kept = tuple(pair for pair in item.endorsements if not pair[0].startswith(prefixes))
    return replace(item, endorsements=kept)


def failed(claims: NvidiaGpuClaims) -> set[str]:
    findings = check(claims, strict())
    return {one.code.removeprefix("nvidia_gpu.") for one in findings if one.outcome is Outcome.FAILED}


def test_the_pinned_roots_are_nvidias() -> None:
    for name, root in (("device_identity", NVIDIA_DEVICE_ROOT), ("rim", NVIDIA_RIM_ROOT)):
        pem = (COLLATERAL / "nvidia" / f"nvidia_{name}_root.pem").read_bytes()
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        assert hashlib.sha256(der).digest() == root.sha256
    (item, _) = one_genuine()
    last = x509.load_pem_x509_certificates(dict(item.endorsements)["device_chain"])[-1]
    assert NVIDIA_DEVICE_ROOT.matches(last.public_bytes(Encoding.DER))


def expected_error(folder: Path, device: dict[str, Any]) -> type[RejectedEvidenceError] | None:
    """From the reference's own words: a strict parser rejects what trails; what is expired must fail."""
    if device.get("trailing"):
        return MalformedEvidenceError
    if "must fail" in meta_of(folder)["conclusion"] and "expired" in meta_of(folder)["conclusion"]:
        return UnauthenticEvidenceError
    assert (device["signature"], device["chain"]) == ("valid", "valid")
    return None


def test_every_sample_is_as_its_reference_says(tell: Callable[[str], None]) -> None:
    devices = refused = 0
    for folder in device_samples():
        items = read_folder(folder)
        for now in times_of(folder):
            for item, device in zip(items, parsed_of(folder), strict=False):
                devices += 1
                error = expected_error(folder, device)
                if error is None:
                    compare(verified(item, now), device)
                    continue
                refused += 1
                with pytest.raises(error):
                    verified(item, now)
                # What is refused is just that: the rest of it is as the reference says.
                rest = replace(item, evidence=item.evidence[: len(item.evidence) - device.get("trailing", 0)])
                compare(verified(without(rest, "driver_rim"), now), device)
            extra = items[len(parsed_of(folder)) :]
            devices += len(extra)
            assert all(verified(item, now).bound == verified(items[0], now).bound for item in extra)
    tell(f"{devices} devices of {len(device_samples())} samples, {refused} refused as they must be")
    assert devices > 0
    assert refused > 0


def compare(claims: NvidiaGpuClaims, device: dict[str, Any]) -> None:
    """Every field of the reference that the claims have."""
    opaque = device["opaque"]
    nonce = device["nonce"] if "device" in device else device["request"]["nonce"]
    assert claims.bound.hex() == nonce
    assert claims.device.driver_version == opaque.get("DRIVER_VERSION")
    assert (claims.device.fwid.hex() if claims.device.fwid else None) == opaque.get("FWID")
    assert claims.chip == device["leaf"].removeprefix("CN=").partition(" ")[0].replace("_", "")
    flag = {"0000": "spt", "0100": "mpt", "0200": "ppcie"}.get(opaque.get("FEATURE_FLAG", ""))
    if not claims.device.is_switch:
        assert claims.device.mode == (flag or ("ppcie" if opaque.get("PROTECTED_PCIE_STATUS") == "aa" else "unstated"))
    if "vbios" in device:
        assert claims.device.vbios_version == device["vbios"].upper()
    if "leaf_serial" in device:
        assert int.from_bytes(claims.leaf_serial, "big") == int(device["leaf_serial"], 16)
    if "measurements" in device:
        found = {str(number): value.hex() for number, value in enumerate(claims.measurements, start=1)}
        assert found == device["measurements"]


def test_the_number_of_devices_is_the_references_and_they_differ() -> None:
    several = 0
    for folder in device_samples():
        expected = meta_of(folder).get("devices", 1)
        items = read_folder(folder)
        assert len(items) == (len(expected) if isinstance(expected, list) else expected)
        if len(items) > 1:
            several += 1
            claims = [verified(item, ANY_TIME) for item in items]
            assert len({claim.device_identity() for claim in claims}) == len(items)
            assert len({claim.bound for claim in claims}) == 1
    assert several > 0


def runs_of(folder: Path) -> Iterator[tuple[EvidenceItem, float, set[str]]]:
    """Items, times and the findings that the reference implies: RIMs with their answers and without, in each window."""
    meta = meta_of(folder)
    (item,) = read_folder(folder)
    for now in times_of(folder):
        if "windows" not in meta:
            yield item, now, {"ocsp", "rim", "rim_version", "rim_mismatch", "debug"}
            continue
        assert "33 of 33 active measurements match" in meta["conclusion"]
        yield without(item, "ocsp"), now, {"ocsp"}
        yield item, now, {"ocsp_expired"}  # the answers are of a later time
        for window in OCSP_TIMES:
            begins, ends = map(unix_seconds, meta["windows"][window])
            inside = without(item, *_answers_outside(item, (begins + ends) / 2))
            yield inside, (begins + ends) / 2, {"ocsp"}  # the others' answers are of another time


def _answers_outside(item: EvidenceItem, now: float) -> list[str]:
    answers = {name: ocsp.load_der_ocsp_response(data) for name, data in item.endorsements if name.startswith("ocsp_")}
    return [
        name
        for name, answer in answers.items()
        if not answer.this_update_utc.timestamp()
        <= now
        <= (answer.next_update_utc or answer.this_update_utc).timestamp()
    ]


def test_policy_findings_are_those_that_the_reference_implies(tell: Callable[[str], None]) -> None:
    runs = 0
    for folder in device_samples():
        parsed = parsed_of(folder)
        if len(read_folder(folder)) > 1 or expected_error(folder, parsed[0]):
            continue
        for item, now, expected in runs_of(folder):
            runs += 1
            claims = verified(item, now)
            old = set() if claims.device.is_switch else {"driver"}  # every sample is older than the bulletin
            unstated = {"mode"} if claims.device.mode == "unstated" and not claims.device.is_switch else set()
            assert failed(claims) == expected | old | unstated
    tell(f"{runs} runs under the preset strict")
    assert runs > 0


def test_protected_pcie_needs_every_switch_and_gpu() -> None:
    """Machines are put together by nonce, as a verifier gets them: GPUs and switches of different samples too."""
    machines: dict[str, list[NvidiaGpuClaims]] = {}
    for folder in device_samples():
        for item in read_folder(folder):
            if not parse_or_none(item):
                continue
            claims = verified(without(item, "driver_rim", "vbios_rim", "ocsp"), ANY_TIME)
            machines.setdefault(claims.bound.hex(), []).append(claims)
    whole = 0
    for devices in machines.values():
        gpus = [one for one in devices if one.device.mode == "ppcie"]
        switches = [one for one in devices if one.device.is_switch]
        if len(gpus) != 8:
            continue
        whole += 1
        accepted = replace(strict(), gpus=len(gpus), switches=len(switches))
        assert {one.outcome for one in check_together([*gpus, *switches], accepted)} == {Outcome.PASSED}
        for left_out in range(len(gpus) + len(switches)):
            shown = [one for index, one in enumerate([*gpus, *switches]) if index != left_out]
            assert "nvidia_gpu.topology" in {
                one.code for one in check_together(shown, accepted) if one.outcome is Outcome.FAILED
            }
    assert whole == 2


def parse_or_none(item: EvidenceItem) -> bool:
    try:
        parse(item.evidence)
    except MalformedEvidenceError:
        return False
    return True


def test_every_rim_is_as_its_reference_says(tell: Callable[[str], None]) -> None:
    tools = load_xml_tools()
    assert tools is not None
    good = bad = 0
    for folder in [folder for folder in sample_folders("nvidia") if "results" in meta_of(folder)]:
        for name, result in meta_of(folder)["results"].items():
            now = unix_seconds(result["verify_at"])
            sealed = read_rim((folder / name).read_bytes(), tools)
            chain = judge_chain(sealed.chain, [NVIDIA_RIM_ROOT], tee="nvidia_gpu", now=now, code="rim_chain")
            is_certified = all(finding.outcome is Outcome.PASSED for finding in chain)
            signed = signed_content(sealed, tools)
            assert (is_certified and signed is not None) is (result["result"] == "valid"), name
            good, bad = good + (result["result"] == "valid"), bad + (result["result"] != "valid")
            if signed is not None:
                assert read_content(signed).version == result["colloquialVersion"]
    tell(f"{good} good RIMs, {bad} bad ones")
    assert good > 0
    assert bad > 0


def test_a_genuine_rim_of_another_version_is_told_apart() -> None:
    item, now = one_genuine()
    others = [path for path in (EVIDENCE / "nvidia" / "rims" / "bad").glob("*") if path.name.startswith("NV_GPU_VBIOS")]
    (other,) = others
    kept = without(item, "vbios_rim", "ocsp").endorsements
    changed = replace(item, endorsements=(*kept, ("vbios_rim", other.read_bytes())))
    assert failed(verified(changed, now)) >= {"rim_version", "rim_mismatch", "debug"}


def one_genuine() -> tuple[EvidenceItem, float]:
    """The most complete sample, which verifies: report, chain, two RIMs and seven answers."""
    complete = [folder for folder in device_samples() if "windows" in meta_of(folder)]
    (item,) = read_folder(complete[0])
    return item, times_of(complete[0])[0]


def test_one_genuine_verifies_in_time(tell: Callable[[str], None]) -> None:
    """The first of a process, when nothing of NVIDIA's has been seen before, and the median of those that follow."""
    item, now = one_genuine()
    for name, shown in (
        ("with RIMs and OCSP", item),
        ("with RIMs", without(item, "ocsp")),
        ("alone", without(item, "ocsp", "driver", "vbios")),
    ):
        forget_everything()
        took = [timed(shown, now) for _ in range(12)]
        tell(f"{name}: {took[0]:.1f} ms of processor time, then {statistics.median(took[1:]):.1f} ms")


def timed(item: EvidenceItem, now: float) -> float:
    """Milliseconds of processor time, which other processes do not stretch as they do a clock's."""
    begin = time.process_time()
    list(check(verified(item, now), strict()))
    return 1000 * (time.process_time() - begin)
