"""No changed bit passes: of one genuine sample per TEE, and of one item by each fake vendor, for where no sample is.

A seeded tenth of the samples' bits (and fewer of the fakes', which are more) in every run; all of them in `make audit`
(`BLINDAI_FLIPS=all`). Each vendor's own tests look at single fields.
"""

from __future__ import annotations

import importlib
import os
import zlib
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from attestation.flips import (
    EVIDENCE,
    PLACES,
    Flip,
    accepted_flips,
    bytes_of,
    flipped,
    flips_of,
    meaningless,
    parts_of,
    says_no_more,
)
from attestation.samples import needs_evidence
from fakes.machines import machines

from blindai.attestation.checks import Checks
from blindai.attestation.tee import TEES, simulation
from blindai.errors import StaleEvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.evidence import Claims, EvidenceItem

# Each flip of a certificate or list may make cryptography warn about it.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

ALL = os.environ.get("BLINDAI_FLIPS") == "all"
OF_SAMPLES = 1.0 if ALL else 0.1
OF_FAKES = 1.0 if ALL else 0.03
JOBS = len(os.sched_getaffinity(0)) if ALL and hasattr(os, "sched_getaffinity") else 1
REAL = sorted(TEES.keys() - {simulation.TEE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """How one item is verified, at one time; a vTPM's beside its machine's."""

    verify: Callable[[EvidenceItem, float, Checks], Claims]
    now: float
    machine: EvidenceItem | None = None

    def __call__(self, item: EvidenceItem) -> Claims:
        claims = self.verify(item, self.now, Checks())
        if self.machine is not None and not claims.carries_for(self.machine.tee, self.machine.evidence):
            raise StaleEvidenceError("another machine's", finding_code="machine.carrier")
        return claims


def require_refused(item: EvidenceItem, judge: Judge, share: float, *, name: str) -> str:
    """Every drawn flip is refused but for the table's, after which no more is claimed; says how many were made."""
    before = judge(item)
    flips = flips_of(item, share, seed=zlib.crc32(name.encode()))
    accepted = accepted_flips(item, flips, judge, jobs=JOBS)
    unexplained = set(accepted)
    for entry in (entry for entry in meaningless() if entry.tee == item.tee):
        offsets = bytes_of(item, entry)
        explained = {flip for flip in accepted if flip.part == entry.part and flip.byte in offsets}
        unexplained -= explained
        for flip in sorted(explained):
            after = judge(flipped(item, flip))
            assert after == before or (entry.claims == "less" and says_no_more(item, before, after)), flip
    assert not unexplained, described(item, unexplained)
    per_part = {part: len(list(group)) for part, group in groupby(flips, key=lambda flip: flip.part)}
    counts = ", ".join(f"{count} of {part}" for part, count in per_part.items())
    return f"{len(flips)} bits, {len(accepted)} of them without meaning: {counts}"


def described(item: EvidenceItem, flips: set[Flip]) -> str:
    """The first few, with the bytes around them."""
    lines = []
    for flip in sorted(flips)[:20]:
        data = parts_of(item)[flip.part]
        lines.append(f"{flip.part}[{flip.byte}] bit {flip.bit}: {data[max(0, flip.byte - 8) : flip.byte + 8]!r}")
    return f"{len(flips)} changed bits are accepted:\n" + "\n".join(lines)


@needs_evidence
@pytest.mark.parametrize("tee", REAL)
def test_no_changed_bit_of_a_genuine_sample_is_accepted(tee: str, tell: Callable[[str], None]) -> None:
    samples = importlib.import_module(f"attestation.test_{tee}_samples")
    item, now = samples.one_genuine()
    beside = samples.machine_beside(item) if hasattr(samples, "machine_beside") else None
    judge = Judge(verify=TEES[tee].verify, now=now, machine=beside)
    tell(require_refused(item, judge, OF_SAMPLES, name=tee))


@pytest.mark.parametrize("name", sorted(machines()))
def test_no_changed_bit_of_a_fake_vendors_item_is_accepted(name: str, tell: Callable[[str], None]) -> None:
    machine = machines()[name]
    judge = Judge(verify=machine.verify, now=machine.now, machine=machine.beside)
    tell(require_refused(machine.item, judge, OF_FAKES, name=name))


def test_every_bit_is_drawn_if_all_are_wanted() -> None:
    item = machines()["simulation"].item
    flips = flips_of(item)
    assert len(flips) == 8 * len(item.evidence) + sum(len(data) for _, data in item.endorsements)
    assert len(set(flips)) == len(flips)
    assert flips_of(item, 0.1, seed=1) == flips_of(item, 0.1, seed=1) != flips_of(item, 0.1, seed=2)
    for flip in flips[:: len(flips) // 50]:
        changed = parts_of(flipped(item, flip))
        assert [name for name, data in parts_of(item).items() if data != changed[name]] == [flip.part]


def test_flips_that_a_verifier_accepts_are_found_by_any_number_of_processes() -> None:
    item = machines()["simulation"].item
    flips = [Flip(EVIDENCE, byte, 0) for byte in range(60, 70)]
    judge = Judge(verify=lambda *_: simulation.verify(item, 0.0, Checks()), now=0.0)
    assert accepted_flips(item, flips, judge) == accepted_flips(item, flips, judge, jobs=2) == flips


def test_every_entry_of_the_table_says_what_it_is() -> None:
    for entry in meaningless():
        assert entry.tee in TEES
        assert entry.place in PLACES
        assert entry.claims in {"same", "less"}
        assert entry.reason
