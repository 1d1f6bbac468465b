"""Reads NVIDIA's evidence as its SDK serialises it, and as reports and chains in files of their own.

A folder holds `original.json` (NVIDIA's attestation-sdk: objects with `evidence` and `certificate` in base64), or
pairs of files `X_report.bin` and `X_chain.pem` (X is a device; `attestation_report.bin` goes with
`device_chain.pem`); beside them `rim/driver_*.xml` and `rim/vbios_*.xml` for the GPUs, and `ocsp/*.der`.
Leaves out: the judgement (attestation/tee/nvidia_gpu.py).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.nvidia.report import TEE, parse
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERIALISED = "original.json"


def read_folder(folder: Path, *, collateral: Path | None = None) -> tuple[EvidenceItem, ...]:  # noqa: ARG001  # all of it is here
    """One item per device, with the endorsements that lie beside them.

    Args:
        folder: as above.
        collateral: not used; NVIDIA's roots are in each device's chain.

    Raises:
        MalformedEvidenceError: there is no evidence, or the JSON is not of that form.
        OSError: a file cannot be read.
    """
    serialised = folder / SERIALISED
    devices = list(_from_json(serialised.read_bytes()) if serialised.is_file() else _from_pairs(folder))
    if not devices:
        raise _malformed(f"{SERIALISED} or *_report.bin in {folder}")
    shared = tuple(
        (f"ocsp_{number}", path.read_bytes()) for number, path in enumerate(sorted(folder.glob("ocsp/*.der")))
    )
    rims = tuple(
        (f"{kind}_rim", path.read_bytes()) for kind in ("driver", "vbios") for path in folder.glob(f"rim/{kind}_*.xml")
    )
    return tuple(
        EvidenceItem(
            tee=TEE,
            evidence=report,
            endorsements=(("device_chain", chain), *(() if _is_switch(report) else rims), *shared),
        )
        for report, chain in devices
    )


def _from_json(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    try:
        for device in json.loads(data):
            yield (
                base64.b64decode(device["evidence"], validate=True),
                base64.b64decode(device["certificate"], validate=True),
            )
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _malformed("a list of objects with `evidence` and `certificate` in base64") from None


def _from_pairs(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    for report in sorted(folder.glob("*_report.bin")):
        device = report.name.removesuffix("_report.bin")
        chain = folder / f"{'device' if device == 'attestation' else device}_chain.pem"
        yield report.read_bytes(), chain.read_bytes()


def _is_switch(report: bytes) -> bool:
    """Whether it is an NVSwitch's; one that is malformed is refused later."""
    try:
        return parse(report).device.is_switch
    except MalformedEvidenceError:
        return False


def _malformed(expected: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(f"expected {expected}, found none", finding_code=f"{TEE}.format", tee=TEE)
