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

# NVIDIA's GPUs and NVSwitches, and its reference integrity manifests: two roots that never sign for each other.
NVIDIA_DEVICE_ROOT = PinnedRoot(
    name="NVIDIA Device Identity CA",
    sha256=bytes.fromhex("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"),
    source="verifier_device_root.pem of github.com/NVIDIA/nvtrust, commit 02817309 (2026-04-20), read 2026-11-25",
)
NVIDIA_RIM_ROOT = PinnedRoot(
    name="NVIDIA CoRIM signing Root CA",
    sha256=bytes.fromhex("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"),
    source="verifier_RIM_root.pem of github.com/NVIDIA/nvtrust, commit 02817309 (2026-04-20), read 2026-11-25",
)

# "Intel SGX Root CA", certificate of 2018-05-21 that ends 2049-12-31. Its older encoding, which ends 2033-05-21, has
# the same key and is not pinned: nothing that Intel serves today leads to it.
INTEL_SGX_ROOT = PinnedRoot(
    name="Intel SGX Root CA",
    sha256=bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"),
    source="SHA-256 of https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer, "
    "2026-11-25",
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

# Azure's vTPMs are certified by Microsoft alone.
AZURE_VTPM_ROOTS = tuple(root for root in TPM_ROOTS if root.name == "microsoft")
