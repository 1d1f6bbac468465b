"""The refusals whose text tests/golden keeps: what a fake vendor has signed, and the policy that does not accept it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakes import amd

from blindai.cli.evidence_judgement import About, Judgement, judge_sample
from blindai.evidence_files import Sample
from blindai.policies import read_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blindai.attestation.evidence import EvidenceItem

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
