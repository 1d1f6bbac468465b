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

# Who certifies the keys of virtual TPMs. Fingerprints computed 2026-11-25 from certificates in DER; a test computes
# them again from the evidence folder. A local CA, such as the one that swtpm-localca makes, is never among them.
TPM_ROOTS = (
    PinnedRoot(
        name="google",
        sha256=bytes.fromhex("594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2"),
        source="CN=EK/AK CA Root, O=Google LLC, valid 2022 to 2122: "
        "github.com/google/go-tpm-tools, commit 67670e5c, server/ca-certs/gcp_ek_ak_ca_root.crt",
    ),
    PinnedRoot(
        name="microsoft",
        sha256=bytes.fromhex("e6c596b17f8ffefba5c300f714cfb1260c6028704ecf7becc4ab5018efb00e95"),
        source="CN=Azure Virtual TPM Root Certificate Authority 2023, O=Microsoft Corporation, valid 2023 to 2048: "
        "github.com/flashbots/attested-tls, commit 22334977, crates/attestation/assets/",
    ),
)
