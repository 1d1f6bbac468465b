"""The trust anchors, pinned as SHA-256 fingerprints, each with its source and date (docs/spec/appraisal.md §3).

The roots themselves arrive as endorsements and are compared with these; none is ever taken from the evidence on trust.
A vendor's root is hashed as the DER of its certificate; the simulation root has no certificate, only a key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedRoot:
    """A trust anchor that arrives with the evidence and is recognised by its fingerprint.

    Attributes:
        sha256: fingerprint of exactly the bytes that arrive.
        source: where the fingerprint was taken from, and when.
    """

    name: str
    sha256: bytes
    source: str

    def matches(self, root: bytes) -> bool:
        """Whether these bytes are the pinned root."""
        return hashlib.sha256(root).digest() == self.sha256


# NOT a root of trust. Its private key is printed in attester/simulation.py, so that anybody can make simulated
# evidence; only a policy that says `insecure_simulation` ever reaches it.
SIMULATION_ROOT = PinnedRoot(
    name="BlindAI simulation root, private key published",
    sha256=bytes.fromhex("5bce6200fad593bbdfe302fd6cced8b7b125af5959f435363d0b9b6a22d75964"),
    source="raw Ed25519 public key of the seed in src/blindai/attester/simulation.py, 2026-11-24",
)

# Who certifies the keys that sign Nitro attestation documents; valid 2019 to 2049.
AWS_NITRO_ROOTS = (
    PinnedRoot(
        name="aws.nitro-enclaves, root G1",
        sha256=bytes.fromhex("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"),
        source="AWS Nitro Enclaves User Guide, 'Verifying the root of trust', which prints this fingerprint; "
        "computed again 2026-11-25 from AWS_NitroEnclaves_Root-G1 as kept by github.com/evervault/"
        "attestation-doc-validation, commit 084ba280",
    ),
)
