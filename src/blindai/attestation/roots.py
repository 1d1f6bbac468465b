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

# AMD root keys (ARK), one per product line. Fingerprints computed 2026-11-25 from the certificates that AMD's key
# distribution service serves at https://kdsintf.amd.com/vcek/v1/{Milan,Genoa,Turin}/cert_chain, as published in
# github.com/google/go-sev-guest, commit af1c107a (2025-11-19), verify/trust/; Turin's in github.com/openpcc/openpcc,
# commit 50910298. A test computes them again from the chains in the evidence folder.
AMD_ROOTS = tuple(
    PinnedRoot(
        name=f"AMD ARK-{product}",
        sha256=bytes.fromhex(sha256),
        source=f"https://kdsintf.amd.com/vcek/v1/{product}/cert_chain, 2026-11-25",
    )
    for product, sha256 in (
        ("Milan", "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
        ("Genoa", "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
        ("Turin", "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
    )
)
