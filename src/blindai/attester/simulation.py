"""Makes simulated evidence, which protects nothing (docs/spec/evidence.md §3; the mirror of attestation/tee/).

The root's private key is derived here, in the open, on purpose: nobody shall ever think that it vouches for anything.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee.simulation import (
    DEVICE_CERTIFICATE,
    DEVICE_LABEL,
    EVIDENCE_LABEL,
    MAGIC,
    ROOT,
    TEE,
    VERSION,
)
from blindai.wire import label, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLISHED_ROOT_SENTENCE = b"This seed is published on purpose: the BlindAI simulation root protects nothing."
_PACKAGE = Path(__file__).parents[1]
_SEED_BYTES = 32
_MEASUREMENT_BYTES = 32
_BOUND_BYTES = 64


def simulation_root() -> Ed25519PrivateKey:
    """The simulation's root key, which everybody has."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(PUBLISHED_ROOT_SENTENCE).digest())


class SimulationAttester:
    """Signs evidence with a device key of its own, drawn here and certified by the published root.

    Args:
        random: gives that many random bytes, for example `os.urandom`.
        measurement: 32 bytes, for example from `measure_software`.
    """

    tee = TEE

    def __init__(self, random: Callable[[int], bytes], measurement: bytes) -> None:
        if len(measurement) != _MEASUREMENT_BYTES:
            raise ValueError(f"a measurement has {_MEASUREMENT_BYTES} bytes, this one has {len(measurement)}")
        root = simulation_root()
        self._device = Ed25519PrivateKey.from_private_bytes(random(_SEED_BYTES))
        self._device_key = self._device.public_key().public_bytes_raw()
        self._measurement = measurement
        self._endorsements = (
            (DEVICE_CERTIFICATE, root.sign(DEVICE_LABEL + self._device_key)),
            (ROOT, root.public_key().public_bytes_raw()),
        )

    def attest(self, bound: bytes) -> EvidenceItem:
        """Simulated evidence that carries `bound`, 64 bytes."""
        if len(bound) != _BOUND_BYTES:
            raise ValueError(f"the binding has {_BOUND_BYTES} bytes, this one has {len(bound)}")
        signed = MAGIC + VERSION.to_bytes(2, "big") + self._device_key + self._measurement + bound
        signature = self._device.sign(EVIDENCE_LABEL + signed)
        return EvidenceItem(tee=TEE, evidence=signed + signature, endorsements=self._endorsements)


def measure_software(package: Path = _PACKAGE) -> bytes:
    """SHA-256 over the package's Python files: paths and bytes, in the order of the paths."""
    files = {path.relative_to(package).as_posix().encode(): path for path in package.rglob("*.py")}
    digest = hashlib.sha256(label("simulation-measurement"))
    for name, path in sorted(files.items()):
        digest.update(length_prefixed(name) + length_prefixed(path.read_bytes()))
    return digest.digest()
