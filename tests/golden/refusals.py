"""The refusals whose text tests/golden keeps: what a fake vendor has signed, and the policy that does not accept it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attacks.forger import INSTANCE, Forger
from attacks.world import Time
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import ocsp
from fakes import amd, intel, intel_pki, nvidia

from blindai.attestation.binding import Mode
from blindai.channel.admission import admit
from blindai.channel.attested import accept_attestation
from blindai.cli.evidence_judgement import About, Judgement, judge_sample
from blindai.errors import WrongOperatorError
from blindai.evidence_files import Sample
from blindai.policies import read_policy
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blindai.attestation.evidence import EvidenceItem
    from blindai.errors import BlindAIError

SNP_TABLE = f'[tee.sev_snp]\nmeasurement = ["{"6d" * 48}"]\nhost_data = ["{"00" * 32}"]\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Evidence that is refused.

    Attributes:
        tables: of the TEEs, in a policy under preset `strict`.
        now: Unix seconds.
        roots: for each TEE, the arguments of its `verify` that trust the fake vendor.
    """

    items: tuple[EvidenceItem, ...]
    tables: str
    now: float
    roots: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def judge(self) -> Judgement:
        """As `blindai verify-evidence` does."""
        text = f'version = 1\npreset = "strict"\n[operator]\nskip = "evidence alone is judged"\n{self.tables}'
        policy = read_policy(text, source="policy.toml", folder=Path())
        return judge_sample(Sample(name="a machine", items=self.items), policy, about=About(), now=self.now)


def snp(**changes: Any) -> Refused:
    """A good SEV-SNP machine with changes."""
    item = amd.FakeMachine(**changes).item()
    roots = {"sev_snp": {"roots": amd.pinned(item)}}
    return Refused(items=(item,), tables=SNP_TABLE, now=amd.NOW.timestamp(), roots=roots)


def old_microcode() -> Refused:
    """A Genoa whose microcode is from before its minimum."""
    old = amd.tcb_bytes("Genoa", amd.TCB["Genoa"] | {"microcode": 0x48})
    versions = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
    return snp(fields=dict.fromkeys(versions, old), extensions={"3.8": amd.integer(0x48)})


def milan_without_a_chip_list() -> Refused:
    """A Milan under a policy that names no chips."""
    return snp(product="Milan")


def wrong_measurement() -> Refused:
    """Other software than the policy names."""
    return snp(fields={"measurement": b"other software".ljust(48, b"\0")})


SGX_TABLE = f"""[tee.sgx]
mr_enclave = ["{"65" * 32}"]
mr_signer.skip = "the enclave's own measurement is named"
isv_prod_id.skip = "the enclave's own measurement is named"
isv_svn.skip = "the enclave's own measurement is named"
"""
SIMULATION_TABLES = """level.minimum = "fresh"
runtime.skip = "the operator is what this is about"
release.skip = "likewise"
tee.simulation.measurement.skip = "likewise"
"""
TDX_TABLE = "[tee.tdx]\n" + "".join(
    f'{name} = ["{byte * 48}"]\n'
    for name, byte in {"mrtd": "74", "rtmr0": "00", "rtmr1": "01", "rtmr2": "02", "rtmr3": "03"}.items()
)


def debug_enclave() -> Refused:
    """An SGX enclave under debug."""
    attributes = bytes([5 | 2]) + bytes(7) + bytes([3]) + bytes(7)
    return _intel(intel.FakeEvidence(tee="sgx", version=3, body={"attributes": attributes}), SGX_TABLE)


def expired_collateral() -> Refused:
    """A trust domain judged a day after its collateral's next update."""
    day_s = 86_400
    return _intel(intel.FakeEvidence(), TDX_TABLE, now=intel_pki.NOW_S + 30 * day_s)


def _intel(evidence: intel.FakeEvidence, table: str, *, now: float = intel_pki.NOW_S) -> Refused:
    item = evidence.item()
    return Refused(items=(item,), tables=table, now=now, roots={item.tee: {"roots": intel_pki.pinned()}})


def gpu_certificate_on_hold() -> Refused:
    """A good machine with a GPU of whose boot ROM's certificate NVIDIA says that it is on hold."""
    shown = nvidia.hopper()
    rom, provisioner = shown.chain[1:3]
    on_hold = nvidia.answer(
        rom, provisioner, status=ocsp.OCSPCertStatus.REVOKED, reason=x509.ReasonFlags.certificate_hold
    )
    machine, gpu = snp(), shown.replace(answers=(on_hold, *shown.answers[1:])).item()
    roots = {
        "device_root": nvidia.pinned(nvidia.root("Device root")),
        "rim_root": nvidia.pinned(nvidia.root("RIM root")),
    }
    return replace(
        machine,
        items=(*machine.items, gpu),
        tables=SNP_TABLE + '[tee.nvidia_gpu]\nplatforms.skip = "any GPU will do"\n',
        roots={**machine.roots, "nvidia_gpu": roots},
    )


def unknown_operator() -> BlindAIError:
    """An instance that another operator has admitted than the one whom the policy pins."""
    ours, stranger = (Ed25519PrivateKey.from_private_bytes(seed * 32) for seed in (b"o", b"s"))
    nonce, forger = bytes(32), Forger(Time())
    admission = admit(stranger, service="blindai-srv", instance=INSTANCE, not_after=1 << 40)
    document = forger.document(forger.keyset(nonce, operator=admission))
    key = base64url_encode(ours.public_key().public_bytes_raw())
    text = f'version = 1\ninsecure_simulation = true\noperator.public_keys = ["{key}"]\n{SIMULATION_TABLES}'
    policy = read_policy(text, source="policy.toml", folder=Path())
    service, now = "blindai-srv", forger.time.wall_s
    with pytest.raises(WrongOperatorError) as caught:
        accept_attestation(document, policy, service=service, mode=Mode.FRESH, nonce=nonce, now=now, elapsed_s=0.1)
    return caught.value
